"""A ``mask_mod`` is run once, on symbols in the place of positions; what it does to them is written down.

A symbol is no tensor. It answers Python's operators and, by ``__torch_function__``, the functions of torch
that mean something on whole numbers and conditions; tensors that are read at a symbol are written down as
tables. What would need a value, such as ``if q_idx > k_idx``, is refused with the place in the user's code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode

from attnc.expression import (
    HEAD,
    Const,
    Expr,
    K,
    Lookup,
    Q,
    Select,
    Truth,
    Var,
    absolute,
    add,
    children,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    negate,
    rebuild,
    select,
    sub,
)
from attnc.masks.places import refuse, refuse_function

BATCH = Var("b")


@dataclass
class Tables:
    """The tensors that a function reads, under the names by which expressions know them."""

    names: dict[int, str] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def name_of(self, tensor: torch.Tensor) -> str:
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            refuse(
                f"a mask cannot hang on the entries of a {str(tensor.dtype).removeprefix('torch.')} tensor",
                "read at a position here",
                "compare before reading: `near = distance < 0.5` outside, and `near[q_idx]` here",
            )
        name = self.names.get(id(tensor))
        if name is None:
            name = self.names[id(tensor)] = f"table_{len(self.names)}"
            self.tensors[name] = tensor  # which also keeps its id from being used again
        return name


def trace(function: Callable[..., Any]) -> tuple[Expr, dict[str, torch.Tensor]]:
    """What a function of batch, head, query and key says, as a condition, and the tensors that it reads.

    Raises ``AttncError`` that marks what cannot be traced; what the function raises itself goes through.
    """
    tables = Tables()
    symbols = [Symbol(variable, False, tables) for variable in (BATCH, HEAD, Q, K)]
    with _Reading(tables):
        answer = function(*symbols)
    if isinstance(answer, torch.Tensor) and answer.dim() == 0:
        answer = answer.item()
    if isinstance(answer, bool):
        return Truth(answer), {}
    if isinstance(answer, Symbol) and answer.is_bool:
        return answer.expr, tables.tensors
    told = "a number" if isinstance(answer, (Symbol, int, float)) else f"{type(answer).__name__}"
    refuse_function(
        function,
        f"a mask function answers with a condition, and this one with {told}",
        "let it return a comparison, or several joined by `&`, `|` and `~`",
    )


class _Reading(TorchFunctionMode):
    """While a function is traced: reading a tensor at a symbol, which only a mode gets to see."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(part, Symbol) for part in _parts((args, kwargs or {}))):
            return _call(self.tables, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, dict):
        yield from _parts(tuple(value.values()))
    else:
        yield value


class Symbol:
    """A whole number or a condition that hangs on positions."""

    def __init__(self, expr: Expr, is_bool: bool, tables: Tables) -> None:
        self.expr, self.is_bool, self.tables = expr, is_bool, tables

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = next(part for part in _parts((args, kwargs or {})) if isinstance(part, Symbol))
        return _call(found.tables, func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _ATTRIBUTES:
            return _ATTRIBUTES[name](self)
        if name in _OPERATIONS:
            return partial(_apply, self.tables, name, self)
        refuse(f"`.{name}` of a position is not known to patterns", help=_KNOWN)

    def _valueless(self, *_: Any) -> NoReturn:
        what = "a condition" if self.is_bool else "a position"
        refuse(
            f"{what} has no value while a mask function is read",
            "a value is needed here",
            "join conditions by `&`, `|` and `~`, never by `if`, `and`, `or`, `not` or a chain such as "
            "`a <= b < c`; choose by `torch.where`, `torch.minimum` and `torch.maximum`",
        )

    __bool__ = __int__ = __index__ = __float__ = __iter__ = __len__ = _valueless
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{'condition' if self.is_bool else 'position'} of a mask function>"


def _call(tables: Tables, func: Any, args: Any, kwargs: Any) -> Any:
    return _apply(tables, getattr(func, "__name__", str(func)), *args, **kwargs)


def _apply(tables: Tables, name: str, *args: Any, **kwargs: Any) -> Any:
    plain = name.strip("_") if name not in _OPERATIONS else name
    operation = _OPERATIONS.get(plain)
    if operation is None:
        refuse(f"`{name}` is not known to patterns", "called on a position here", _KNOWN)
    return operation(tables, *args, **kwargs)


_KNOWN = (
    "patterns know + - * // % abs, minimum, maximum, clamp, comparisons, & | ~ ^, where, "
    "and tensors of integers or booleans read at a position"
)


# --- operands -------------------------------------------------------------------------------------------


def _symbol(tables: Tables, value: Any) -> Symbol:
    match value:
        case Symbol():
            return value
        case bool():
            return Symbol(Truth(value), True, tables)
        case int():
            return Symbol(Const(value), False, tables)
        case float() if value.is_integer():
            return Symbol(Const(int(value)), False, tables)
        case float():
            refuse(
                f"{value} is no whole number",
                "a position meets it here",
                "positions are whole numbers: use `//` and whole numbers",
            )
        case torch.Tensor() if value.dim() == 0:
            return _read(tables, value, ())
        case torch.Tensor():
            refuse(
                f"a tensor of shape {tuple(value.shape)} meets a position as a whole",
                "here",
                "read it at a position: `table[q_idx]`; for a list of positions, a tensor of booleans, "
                "read as `is_global[kv_idx]`",
            )
    try:
        return Symbol(Const(operator.index(value)), False, tables)
    except TypeError:
        refuse(f"{type(value).__name__} cannot be joined with a position", "here")


def _number(tables: Tables, value: Any) -> Expr:
    symbol = _symbol(tables, value)
    return select(symbol.expr, 1, 0) if symbol.is_bool else symbol.expr


def _condition(tables: Tables, value: Any) -> Expr:
    symbol = _symbol(tables, value)
    return symbol.expr if symbol.is_bool else negate(eq(symbol.expr, 0))


def _read(tables: Tables, tensor: torch.Tensor, places: tuple[Expr, ...]) -> Symbol:
    if len(places) != tensor.dim():
        refuse(
            f"a tensor with {tensor.dim()} axes is read at {len(places)} of them",
            "read here",
            "read it at all its axes, as in `table[h, q_idx]`",
        )
    is_bool = tensor.dtype == torch.bool
    # A table without axes is read at its only entry.
    index = places or (Const(0),)
    return Symbol(Lookup(tables.name_of(tensor), index, "bool" if is_bool else "int"), is_bool, tables)


def _item(tables: Tables, tensor: Any, index: Any) -> Symbol:
    if isinstance(tensor, Symbol):
        refuse("a position has no entries", "read here")
    places = index if isinstance(index, tuple) else (index,)
    found: list[Expr] = []
    for place in places:
        if isinstance(place, slice) or place is None or place is Ellipsis:
            refuse("a table is read entry by entry", "a slice here", "read it at a position in every axis")
        at = _number(tables, place)
        size = tensor.shape[len(found)] if len(found) < tensor.dim() else 0
        fixed = constant(at)
        if fixed is not None and -size <= fixed < 0:
            at = Const(fixed + size)
        found.append(at)
    return _read(tables, tensor, tuple(found))


# --- operations -----------------------------------------------------------------------------------------

Operation = Callable[..., Any]


def _arithmetic(make: Callable[[Expr, Expr], Expr], swapped: bool = False) -> Operation:
    def operation(tables: Tables, left: Any, right: Any, *, alpha: int = 1) -> Symbol:
        a, b = _number(tables, left), mul(alpha, _number(tables, right))
        return Symbol(make(b, a) if swapped else make(a, b), False, tables)

    return operation


def _division(make: Callable[[Expr, Expr], Expr], swapped: bool = False) -> Operation:
    def operation(tables: Tables, left: Any, right: Any, *, rounding_mode: str | None = "floor") -> Symbol:
        a, b = _number(tables, left), _number(tables, right)
        a, b = (b, a) if swapped else (a, b)
        if rounding_mode != "floor":
            _fraction(tables, left, right)
        if constant(b) is None:
            refuse("patterns divide by whole numbers alone", "divided by something else here")
        if constant(b) == 0:
            raise ZeroDivisionError("a mask function divides by zero")
        return Symbol(make(a, b), False, tables)

    return operation


def _fraction(tables: Tables, *args: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return _division(floor_div)(tables, *args)
    refuse("`/` makes fractions, and positions are whole numbers", "divided here", "write `//`")


def _compared(make: Callable[[Expr, Expr], Expr], same: bool | None = None) -> Operation:
    def operation(tables: Tables, left: Any, right: Any) -> Symbol:
        one, other = _symbol(tables, left), _symbol(tables, right)
        if same is not None and one.is_bool and other.is_bool:
            found = _exclusive(one.expr, other.expr)
            return Symbol(negate(found) if same else found, True, tables)
        return Symbol(_lifted(make, _number(tables, one), _number(tables, other)), True, tables)

    return operation


def _lifted(make: Callable[[Expr, Expr], Expr], left: Expr, right: Expr) -> Expr:
    """A comparison of numbers that were chosen by conditions, as a choice between comparisons."""
    for side, other, swapped in ((left, right, False), (right, left, True)):
        chosen = _choice(side)
        if chosen is not None:
            condition, then, otherwise = chosen
            yes, no = (
                ((then, other), (otherwise, other)) if not swapped else ((other, then), (other, otherwise))
            )
            return _either(condition, _lifted(make, *yes), _lifted(make, *no))
    return make(left, right)


def _choice(expr: Expr) -> tuple[Expr, Expr, Expr] | None:
    """``condition, then, otherwise`` for the first choice within a number, if there is one."""
    if isinstance(expr, Select):
        return expr.condition, expr.then, expr.otherwise
    parts = children(expr)
    for i, part in enumerate(parts):
        found = _choice(part)
        if found is not None:
            condition, *branches = found
            then, otherwise = (rebuild(expr, (*parts[:i], branch, *parts[i + 1 :])) for branch in branches)
            return condition, then, otherwise
    return None


def _either(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    return disj(conj(condition, then), conj(negate(condition), otherwise))


def _exclusive(left: Expr, right: Expr) -> Expr:
    return disj(conj(left, negate(right)), conj(negate(left), right))


_JOINS: dict[str, Callable[[Expr, Expr], Expr]] = {"and": conj, "or": disj, "xor": _exclusive}
_BITS = {"and": "&", "or": "|", "xor": "^"}


def _bits(name: str) -> Operation:
    """``&``, ``|`` and ``^``: of conditions, and ``&`` with one less than a power of two, a remainder."""

    def operation(tables: Tables, left: Any, right: Any) -> Symbol:
        one, other = _symbol(tables, left), _symbol(tables, right)
        if one.is_bool and other.is_bool:
            return Symbol(_JOINS[name](one.expr, other.expr), True, tables)
        number, bits = (one, constant(other.expr)) if not one.is_bool else (other, None)
        if bits is None:
            number, bits = other, constant(one.expr)
        if name == "and" and bits is not None and bits >= 0 and not bits & (bits + 1):
            return Symbol(mod(_number(tables, number), Const(bits + 1)), False, tables)
        refuse(
            f"the bits of a position cannot be joined by `{_BITS[name]}`",
            "here",
            "of bits, patterns know `& (2**m - 1)`, `>>` and `<<`; conditions are comparisons",
        )

    return operation


def _logical(make: Callable[[Expr, Expr], Expr]) -> Operation:
    def operation(tables: Tables, left: Any, right: Any) -> Symbol:
        return Symbol(make(_condition(tables, left), _condition(tables, right)), True, tables)

    return operation


def _inverted(tables: Tables, value: Any) -> Symbol:
    symbol = _symbol(tables, value)
    if symbol.is_bool:
        return Symbol(negate(symbol.expr), True, tables)
    return Symbol(sub(-1, symbol.expr), False, tables)


def _where(tables: Tables, condition: Any, then: Any = None, otherwise: Any = None, **named: Any) -> Symbol:
    then, otherwise = named.get("input", then), named.get("other", otherwise)
    chosen = _condition(tables, condition)
    one, other = _symbol(tables, then), _symbol(tables, otherwise)
    if one.is_bool and other.is_bool:
        return Symbol(_either(chosen, one.expr, other.expr), True, tables)
    return Symbol(select(chosen, _number(tables, one), _number(tables, other)), False, tables)


def _shifted(tables: Tables, value: Any, by: Any, left: bool) -> Symbol:
    amount = constant(_number(tables, by))
    if amount is None or not 0 <= amount < 31:
        refuse("a position can be shifted by 0 to 30 bits", "shifted here")
    number, power = _number(tables, value), Const(1 << amount)
    return Symbol(mul(number, power) if left else floor_div(number, power), False, tables)


def _clamped(tables: Tables, value: Any, min: Any = None, max: Any = None) -> Symbol:
    number = _number(tables, value)
    if min is not None:
        number = maximum(number, _number(tables, min))
    if max is not None:
        number = minimum(number, _number(tables, max))
    return Symbol(number, False, tables)


def _converted(tables: Tables, value: Any, *to: Any, dtype: Any = None, **_: Any) -> Symbol:
    """``.to(…)``: devices are all one; of dtypes, those of whole numbers and conditions."""
    symbol = _symbol(tables, value)
    wanted = dtype or next((part for part in to if isinstance(part, torch.dtype)), None)
    if wanted == torch.bool:
        return Symbol(_condition(tables, symbol), True, tables)
    if wanted is None or (wanted == torch.bool) == symbol.is_bool:
        return symbol
    if wanted.is_floating_point or wanted.is_complex:
        refuse(f"positions are whole numbers, and no {str(wanted).removeprefix('torch.')}", "converted here")
    return Symbol(_number(tables, symbol), False, tables)


def _filled(value: int) -> Operation:
    """``new_ones(())`` and its like, with which masks are joined."""

    def operation(tables: Tables, like: Any, *_: Any, dtype: Any = None, **__: Any) -> Symbol:
        as_bool = like.is_bool if dtype is None else dtype == torch.bool
        return Symbol(Truth(bool(value)) if as_bool else Const(value), as_bool, tables)

    return operation


def _unary(make: Callable[[Expr], Expr]) -> Operation:
    return lambda tables, value: Symbol(make(_number(tables, value)), False, tables)


_OPERATIONS: dict[str, Operation] = {
    "getitem": _item,
    "where": _where,
    "neg": _unary(neg),
    "abs": _unary(absolute),
    "pos": _unary(lambda number: number),
    "invert": _inverted,
    "bitwise_not": _inverted,
    "logical_not": lambda tables, value: Symbol(negate(_condition(tables, value)), True, tables),
    "logical_and": _logical(conj),
    "logical_or": _logical(disj),
    "logical_xor": _logical(_exclusive),
    "clamp": _clamped,
    "to": _converted,
    "bool": partial(_converted, dtype=torch.bool),
    "int": partial(_converted, dtype=torch.int64),
    "new_ones": _filled(1),
    "new_zeros": _filled(0),
    "ones_like": _filled(1),
    "zeros_like": _filled(0),
    "lshift": partial(_shifted, left=True),
    "rshift": partial(_shifted, left=False),
}
for _names, _operation in {
    ("add", "radd"): _arithmetic(add),
    ("sub", "subtract"): _arithmetic(sub),
    ("rsub",): _arithmetic(sub, swapped=True),
    ("mul", "rmul", "multiply"): _arithmetic(mul),
    ("minimum",): _arithmetic(minimum),
    ("maximum",): _arithmetic(maximum),
    ("floordiv", "floor_divide"): _division(floor_div),
    ("rfloordiv",): _division(floor_div, swapped=True),
    ("mod", "remainder"): _division(mod),
    ("rmod",): _division(mod, swapped=True),
    ("truediv", "rtruediv", "div", "divide", "true_divide"): _fraction,
    ("eq",): _compared(eq, same=True),
    ("ne", "not_equal"): _compared(lambda a, b: negate(eq(a, b)), same=False),
    ("le", "less_equal"): _compared(le),
    ("lt", "less"): _compared(lt),
    ("ge", "greater_equal"): _compared(lambda a, b: le(b, a)),
    ("gt", "greater"): _compared(lambda a, b: lt(b, a)),
    ("and", "rand", "bitwise_and"): _bits("and"),
    ("or", "ror", "bitwise_or"): _bits("or"),
    ("xor", "rxor", "bitwise_xor"): _bits("xor"),
}.items():
    _OPERATIONS |= dict.fromkeys(_names, _operation)
_OPERATIONS |= {
    "absolute": _OPERATIONS["abs"],
    "negative": _OPERATIONS["neg"],
    "clip": _clamped,
    "long": _OPERATIONS["int"],
    "bitwise_left_shift": _OPERATIONS["lshift"],
    "bitwise_right_shift": _OPERATIONS["rshift"],
}

_ATTRIBUTES: dict[str, Callable[[Symbol], Any]] = {
    "device": lambda symbol: torch.device("cpu"),
    "dtype": lambda symbol: torch.bool if symbol.is_bool else torch.int64,
    "shape": lambda symbol: torch.Size(()),
    "ndim": lambda symbol: 0,
}

_SPECIAL = (
    *("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "mod", "rmod", "truediv"),
    *("rtruediv", "eq", "ne", "le", "lt", "ge", "gt", "and", "rand", "or", "ror", "xor", "rxor"),
    *("neg", "pos", "abs", "invert", "lshift", "rshift", "getitem"),
)


def _special(name: str) -> Callable[..., Any]:
    def method(self: Symbol, *args: Any) -> Any:
        return _apply(self.tables, name, self, *args)

    return method


for _name in _SPECIAL:
    setattr(Symbol, f"__{_name}__", _special(_name))

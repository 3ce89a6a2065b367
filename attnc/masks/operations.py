"""What patterns know to do with whole numbers and conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from attnc.expression import (
    Const,
    Expr,
    Lookup,
    Select,
    Truth,
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
from attnc.masks.places import refuse
from attnc.masks.symbols import OPERATIONS, Kind, Symbol, Tables

T = TypeVar("T")

# --- operands -------------------------------------------------------------------------------------------


def _symbol(tables: Tables, value: Any) -> Symbol:
    match value:
        case Symbol(kind="bool" | "int"):
            return value
        case Symbol():
            refuse("a whole number is needed, and this is a score", "here")
        case bool():
            return Symbol(Truth(value), "bool", tables)
        case int():
            return Symbol(Const(value), "int", tables)
        case float() if value.is_integer():
            return Symbol(Const(int(value)), "int", tables)
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
        return Symbol(Const(operator.index(value)), "int", tables)
    except TypeError:
        refuse(f"{type(value).__name__} cannot be joined with a position", "here")


def whole_of(tables: Tables, value: Any) -> Expr:
    symbol = _symbol(tables, value)
    return select(symbol.expr, 1, 0) if symbol.is_bool else symbol.expr


def condition_of(tables: Tables, value: Any) -> Expr:
    symbol = _symbol(tables, value)
    return symbol.expr if symbol.is_bool else negate(eq(symbol.expr, 0))


def _read(tables: Tables, tensor: torch.Tensor, index: Any) -> Symbol:
    kind: Kind = "bool" if tensor.dtype == torch.bool else "int"
    return Symbol(Lookup(tables.name_of(tensor), place_of(tables, tensor, index), kind), kind, tables)


def _item(tables: Tables, tensor: Any, index: Any) -> Symbol:
    if isinstance(tensor, Symbol):
        refuse("a position has no entries", "read here")
    return _read(tables, tensor, index)


def place_of(tables: Tables, tensor: torch.Tensor, index: Any) -> tuple[Expr, ...]:
    """Where a tensor is read, in all of its axes."""
    places = index if isinstance(index, tuple) else (index,)
    found: list[Expr] = []
    for place in places:
        if isinstance(place, slice) or place is None or place is Ellipsis:
            refuse("a table is read entry by entry", "a slice here", "read it at a position in every axis")
        if isinstance(place, bool) or (isinstance(place, Symbol) and place.is_bool):
            refuse(
                "a condition is no place in a table: torch takes it for a choice of entries",
                "read at a condition here",
                "write `torch.where(condition, table[1], table[0])`, or `.long()` behind the condition",
            )
        at = whole_of(tables, place)
        size = tensor.shape[len(found)] if len(found) < tensor.dim() else 0
        fixed = constant(at)
        if fixed is not None and -size <= fixed < 0:
            at = Const(fixed + size)
        found.append(at)
    if len(found) != tensor.dim():
        refuse(
            f"a tensor with {tensor.dim()} axes is read at {len(found)} of them",
            "read here",
            "read it at all its axes, as in `table[h, q_idx]`",
        )
    # A table without axes is read at its only entry.
    return tuple(found) or (Const(0),)


# --- operations -----------------------------------------------------------------------------------------

Operation = Callable[..., Any]


def _arithmetic(make: Callable[[Expr, Expr], Expr], swapped: bool = False) -> Operation:
    def operation(tables: Tables, left: Any, right: Any, *, alpha: int = 1) -> Symbol:
        a, b = whole_of(tables, left), mul(alpha, whole_of(tables, right))
        return Symbol(make(b, a) if swapped else make(a, b), "int", tables)

    return operation


def _division(make: Callable[[Expr, Expr], Expr], swapped: bool = False) -> Operation:
    def operation(tables: Tables, left: Any, right: Any, *, rounding_mode: str | None = "floor") -> Symbol:
        a, b = whole_of(tables, left), whole_of(tables, right)
        a, b = (b, a) if swapped else (a, b)
        if rounding_mode != "floor":
            _fraction(tables, left, right)
        if constant(b) is None:
            refuse("patterns divide by whole numbers alone", "divided by something else here")
        if constant(b) == 0:
            raise ZeroDivisionError("a mask function divides by zero")
        return Symbol(make(a, b), "int", tables)

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
            return Symbol(negate(found) if same else found, "bool", tables)
        return Symbol(_lifted(make, whole_of(tables, one), whole_of(tables, other)), "bool", tables)

    return operation


def _lifted(make: Callable[[Expr, Expr], Expr], left: Expr, right: Expr) -> Expr:
    """A comparison of numbers that were chosen by conditions, as a choice between comparisons."""
    return lifted(lambda side: lifted(lambda other: make(side, other), either, right), either, left)


def lifted(make: Callable[[Expr], T], join: Callable[[Expr, T, T], T], number: Expr) -> T:
    """What is made of a number, and for one that was chosen by a condition a choice between such."""
    found = _choice(number)
    if found is None:
        return make(number)
    condition, then, otherwise = found
    return join(condition, lifted(make, join, then), lifted(make, join, otherwise))


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


def either(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
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
            return Symbol(_JOINS[name](one.expr, other.expr), "bool", tables)
        number, bits = (one, constant(other.expr)) if not one.is_bool else (other, None)
        if bits is None:
            number, bits = other, constant(one.expr)
        if name == "and" and bits is not None and bits >= 0 and not bits & (bits + 1):
            return Symbol(mod(whole_of(tables, number), Const(bits + 1)), "int", tables)
        refuse(
            f"the bits of a position cannot be joined by `{_BITS[name]}`",
            "here",
            "of bits, patterns know `& (2**m - 1)`, `>>` and `<<`; conditions are comparisons",
        )

    return operation


def _logical(make: Callable[[Expr, Expr], Expr]) -> Operation:
    def operation(tables: Tables, left: Any, right: Any) -> Symbol:
        return Symbol(make(condition_of(tables, left), condition_of(tables, right)), "bool", tables)

    return operation


def _inverted(tables: Tables, value: Any) -> Symbol:
    symbol = _symbol(tables, value)
    if symbol.is_bool:
        return Symbol(negate(symbol.expr), "bool", tables)
    return Symbol(sub(-1, symbol.expr), "int", tables)


def _where(tables: Tables, condition: Any, then: Any = None, otherwise: Any = None, **named: Any) -> Symbol:
    then, otherwise = named.get("input", then), named.get("other", otherwise)
    chosen = condition_of(tables, condition)
    one, other = _symbol(tables, then), _symbol(tables, otherwise)
    if one.is_bool and other.is_bool:
        return Symbol(either(chosen, one.expr, other.expr), "bool", tables)
    return Symbol(select(chosen, whole_of(tables, one), whole_of(tables, other)), "int", tables)


def _shifted(tables: Tables, value: Any, by: Any, left: bool) -> Symbol:
    amount = constant(whole_of(tables, by))
    if amount is None or not 0 <= amount < 31:
        refuse("a position can be shifted by 0 to 30 bits", "shifted here")
    number, power = whole_of(tables, value), Const(1 << amount)
    return Symbol(mul(number, power) if left else floor_div(number, power), "int", tables)


def _clamped(tables: Tables, value: Any, min: Any = None, max: Any = None) -> Symbol:
    number = whole_of(tables, value)
    if min is not None:
        number = maximum(number, whole_of(tables, min))
    if max is not None:
        number = minimum(number, whole_of(tables, max))
    return Symbol(number, "int", tables)


def _converted(tables: Tables, value: Any, *to: Any, dtype: Any = None, **_: Any) -> Symbol:
    """``.to(…)``: devices are all one; of dtypes, those of whole numbers and conditions."""
    symbol = _symbol(tables, value)
    wanted = dtype or next((part for part in to if isinstance(part, torch.dtype)), None)
    if wanted == torch.bool:
        return Symbol(condition_of(tables, symbol), "bool", tables)
    if wanted is None or (wanted == torch.bool) == symbol.is_bool:
        return symbol
    if wanted.is_floating_point or wanted.is_complex:
        refuse(f"positions are whole numbers, and no {str(wanted).removeprefix('torch.')}", "converted here")
    return Symbol(whole_of(tables, symbol), "int", tables)


def _filled(value: int) -> Operation:
    """``new_ones(())`` and its like, with which masks are joined."""

    def operation(tables: Tables, like: Any, *_: Any, dtype: Any = None, **__: Any) -> Symbol:
        as_bool = like.is_bool if dtype is None else dtype == torch.bool
        return Symbol(Truth(bool(value)) if as_bool else Const(value), "bool" if as_bool else "int", tables)

    return operation


def _unary(make: Callable[[Expr], Expr]) -> Operation:
    return lambda tables, value: Symbol(make(whole_of(tables, value)), "int", tables)


OPERATIONS |= {
    "getitem": _item,
    "where": _where,
    "neg": _unary(neg),
    "abs": _unary(absolute),
    "pos": _unary(lambda number: number),
    "invert": _inverted,
    "bitwise_not": _inverted,
    "logical_not": lambda tables, value: Symbol(negate(condition_of(tables, value)), "bool", tables),
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
    OPERATIONS |= dict.fromkeys(_names, _operation)
OPERATIONS |= {
    "absolute": OPERATIONS["abs"],
    "negative": OPERATIONS["neg"],
    "clip": _clamped,
    "long": OPERATIONS["int"],
    "bitwise_left_shift": OPERATIONS["lshift"],
    "bitwise_right_shift": OPERATIONS["rshift"],
}

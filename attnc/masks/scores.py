"""What scores know to do with real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from attnc import real
from attnc.expression import FALSE, TRUE, Expr, conj, negate
from attnc.masks.operations import condition_of, either, lifted, place_of, whole_of
from attnc.masks.places import refuse
from attnc.masks.symbols import REAL_OPERATIONS, Symbol, Tables
from attnc.real import Greater, Real

MINUS_INFINITY = -math.inf


def real_of(tables: Tables, value: Any) -> Real:
    """A value as a real number; what may be minus infinity only where a choice is made."""
    if isinstance(value, Symbol):
        match value.kind:
            case "real":
                found: Real = value.expr
                return found
            case "greater":
                refuse("a comparison of scores can only choose", "used as a number here", "`torch.where`")
        number = whole_of(tables, value)
        return lifted(real.whole, real.choice, number)
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        return _entry(tables, value, ()).expr if _given(value) else real.Number(value.item())
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            refuse(
                f"{value} is no score",
                "used here",
                "minus infinity is for `torch.where(condition, score, -float('inf'))` alone",
            )
        return real.Number(float(value))
    if isinstance(value, torch.Tensor):
        refuse(
            f"a tensor of shape {tuple(value.shape)} meets a score as a whole",
            "here",
            "read it at positions: `bias[h, q_idx]`",
        )
    refuse(f"{type(value).__name__} cannot be joined with a score", "here")


def _given(value: torch.Tensor) -> bool:
    """Whether a number is one that may change: a parameter, and no constant that a function made itself."""
    return value.requires_grad


def _entry(tables: Tables, tensor: torch.Tensor, index: Any) -> Symbol:
    places = place_of(tables, tensor, index)
    return Symbol(real.Entry(tables.name_of(tensor), places), "real", tables)


def _item(tables: Tables, tensor: Any, index: Any) -> Symbol:
    if isinstance(tensor, Symbol):
        refuse("a score has no entries", "read here")
    return _entry(tables, tensor, index)


def _edges(value: Any) -> Expr:
    return value.edges if isinstance(value, Symbol) else TRUE


def _finite(*values: Any) -> None:
    if any(_edges(value) != TRUE for value in values):
        refuse("minus infinity is computed with", "here", "mask last, after all that changes the score")


def _binary(make: Callable[[Real, Real], Real], swapped: bool = False) -> Callable[..., Symbol]:
    def operation(tables: Tables, left: Any, right: Any, **_: Any) -> Symbol:
        _finite(left, right)
        a, b = real_of(tables, left), real_of(tables, right)
        return Symbol(make(b, a) if swapped else make(a, b), "real", tables)

    return operation


def _added(tables: Tables, left: Any, right: Any, *, alpha: float = 1) -> Symbol:
    edges = conj(_edges(left), _edges(right))
    total = real.plus(real_of(tables, left), real.times(real.Number(float(alpha)), real_of(tables, right)))
    return Symbol(total, "real", tables, edges)


def _unary(make: Callable[[Real], Real]) -> Callable[..., Symbol]:
    def operation(tables: Tables, value: Any, **_: Any) -> Symbol:
        _finite(value)
        return Symbol(make(real_of(tables, value)), "real", tables)

    return operation


def _compared(swapped: bool, inverted: bool) -> Callable[..., Symbol]:
    """``>`` and its like; ``>=`` is what ``<`` is not."""

    def operation(tables: Tables, left: Any, right: Any) -> Symbol:
        _finite(left, right)
        a, b = real_of(tables, left), real_of(tables, right)
        found = Symbol(Greater(b, a) if swapped else Greater(a, b), "greater", tables)
        found.edges = FALSE if inverted else TRUE  # told to the choice, which takes the other way
        return found

    return operation


def _is_minus_infinity(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dim() == 0 and value.item() == MINUS_INFINITY
    return isinstance(value, float) and value == MINUS_INFINITY


def _where(tables: Tables, condition: Any, then: Any = None, otherwise: Any = None, **named: Any) -> Symbol:
    then, otherwise = named.get("input", then), named.get("other", otherwise)
    lost, kept = _is_minus_infinity(then), _is_minus_infinity(otherwise)
    if isinstance(condition, Symbol) and condition.kind == "greater":
        if lost or kept:
            refuse(
                "edges are chosen by the score itself",
                "here",
                "patterns choose edges by positions and inputs",
            )
        if condition.edges == FALSE:
            then, otherwise = otherwise, then
        _finite(then, otherwise)
        chosen = real.choice(condition.expr, real_of(tables, then), real_of(tables, otherwise))
        return Symbol(chosen, "real", tables)
    asked = condition_of(tables, condition)
    if lost and kept:
        return Symbol(real.ZERO, "real", tables, FALSE)
    if kept:
        return Symbol(real_of(tables, then), "real", tables, conj(asked, _edges(then)))
    if lost:
        return Symbol(real_of(tables, otherwise), "real", tables, conj(negate(asked), _edges(otherwise)))
    edges = either(asked, _edges(then), _edges(otherwise))
    return Symbol(
        real.choice(asked, real_of(tables, then), real_of(tables, otherwise)), "real", tables, edges
    )


def _clamped(tables: Tables, value: Any, min: Any = None, max: Any = None) -> Symbol:
    _finite(value, min, max)
    number = real_of(tables, value)
    if min is not None:
        number = real.apply("max", number, real_of(tables, min))
    if max is not None:
        number = real.apply("min", number, real_of(tables, max))
    return Symbol(number, "real", tables)


def _same(tables: Tables, value: Any, *_: Any, **__: Any) -> Symbol:
    """``.to(…)``, ``.float()``: scores have one precision."""
    return Symbol(real_of(tables, value), "real", tables, _edges(value))


def _power(tables: Tables, value: Any, exponent: Any) -> Symbol:
    _finite(value, exponent)
    if isinstance(exponent, int) and not isinstance(exponent, bool) and 1 <= exponent <= 8:
        return Symbol(real.times(*[real_of(tables, value)] * exponent), "real", tables)
    base = real_of(tables, value)
    if isinstance(base, real.Number) and base.value == 2:
        return Symbol(real.apply("exp2", real_of(tables, exponent)), "real", tables)
    refuse("scores are raised to whole powers from 1 to 8, and 2 to any", "raised here", "`torch.exp2`")


_NAMED: dict[tuple[str, ...], Callable[..., Any]] = {
    ("add", "radd"): _added,
    ("sub", "subtract"): _binary(real.minus),
    ("rsub",): _binary(real.minus, swapped=True),
    ("mul", "rmul", "multiply"): _binary(real.times),
    ("truediv", "div", "divide", "true_divide"): _binary(real.over),
    ("rtruediv",): _binary(real.over, swapped=True),
    ("minimum", "min"): _binary(lambda a, b: real.apply("min", a, b)),
    ("maximum", "max"): _binary(lambda a, b: real.apply("max", a, b)),
    ("neg", "negative"): _unary(real.negative),
    ("abs", "absolute"): _unary(lambda x: real.apply("abs", x)),
    ("square",): _unary(lambda x: real.times(x, x)),
    ("pow",): _power,
    ("rpow",): lambda tables, value, base: _power(tables, base, value),
    ("gt", "greater"): _compared(False, False),
    ("lt", "less"): _compared(True, False),
    ("ge", "greater_equal"): _compared(True, True),
    ("le", "less_equal"): _compared(False, True),
    ("where",): _where,
    ("clamp", "clip"): _clamped,
    ("getitem",): _item,
    ("to", "float", "double", "type_as"): _same,
}
for _names, _operation in _NAMED.items():
    REAL_OPERATIONS |= dict.fromkeys(_names, _operation)
for _name in (
    "exp",
    "exp2",
    "log",
    "log2",
    "sqrt",
    "tanh",
    "sigmoid",
    "softplus",
    "relu",
    "elu",
    "sin",
    "cos",
):
    REAL_OPERATIONS[_name] = _unary(lambda x, name=_name: real.apply(name, x))  # type: ignore[misc]


# --- text -----------------------------------------------------------------------------------------------


def said(expr: Real) -> str:
    """The score in the language, where `/` between whole numbers would round down."""
    return real.show(real.rebuilt(expr, _with_fractions))


def _with_fractions(expr: Real) -> Real | None:
    if not isinstance(expr, real.Over) or not (_is_whole(expr.left) and _is_whole(expr.right)):
        return None
    match expr.right:
        case real.Number(value):
            return real.Over(expr.left, real.Number(value, repr(value)))
    return real.Over(real.Times((real.Number(1.0, "1.0"), expr.left)), expr.right)


def _is_whole(expr: Real) -> bool:
    """Whether it is written without a fraction."""
    match expr:
        case real.Number(value, name):
            return not name and value == int(value)
        case real.Whole():
            return True
        case real.Plus(args) | real.Times(args):
            return all(map(_is_whole, args))
    return False

"""How small and how large a real expression can get: interval arithmetic over whatever it reads."""

from __future__ import annotations

import math
from collections.abc import Callable

from attnc.expression import constant
from attnc.real import Apply, Choice, Number, Over, Plus, Real, Times, Whole

Range = tuple[float, float]
EVERYTHING: Range = (-math.inf, math.inf)

# Functions that never fall: the value at either end of their argument's range.
_RISING: dict[str, Callable[[float], float]] = {
    "exp": lambda x: math.exp(x) if x < 700 else math.inf,
    "exp2": lambda x: 2.0**x if x < 1000 else math.inf,
    "log": lambda x: math.log(x) if x > 0 else -math.inf,
    "log2": lambda x: math.log2(x) if x > 0 else -math.inf,
    "sqrt": lambda x: math.sqrt(x) if x > 0 else 0.0,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
    "softplus": lambda x: x if x > 30 else math.log1p(math.exp(x)),
    "relu": lambda x: max(x, 0.0),
    "elu": lambda x: x if x > 0 else math.expm1(x),
}


def least_value(expr: Real) -> float | None:
    """A lower bound, or None if there is none."""
    low = value_range(expr)[0]
    return None if low == -math.inf else low


def value_range(expr: Real) -> Range:
    """Bounds that no value leaves, whatever ``s``, ``x``, positions and inputs are."""
    match expr:
        case Number(value):
            return value, value
        case Whole(integer):
            found = constant(integer)
            return EVERYTHING if found is None else (float(found), float(found))
        case Plus(args):
            ranges = list(map(value_range, args))
            return sum(low for low, _ in ranges), sum(high for _, high in ranges)
        case Times(args):
            return _product(args)
        case Over(left, right):
            low, high = value_range(right)
            if low <= 0 <= high:
                return EVERYTHING
            return _times(value_range(left), (_reciprocal(high), _reciprocal(low)))
        case Apply(function, args):
            return _function(function, [value_range(arg) for arg in args])
        case Choice(_, then, otherwise):
            (a, b), (c, d) = value_range(then), value_range(otherwise)
            return min(a, c), max(b, d)
    return EVERYTHING


def _product(args: tuple[Real, ...]) -> Range:
    total: Range = (1.0, 1.0)
    counts = {arg: args.count(arg) for arg in args}
    for arg, count in counts.items():
        low, high = value_range(arg)
        for _ in range(count // 2):  # a square is never negative
            ends = (abs(low), abs(high))
            total = _times(total, (0.0 if low <= 0 <= high else min(ends) ** 2, _square(max(ends))))
        if count % 2:
            total = _times(total, (low, high))
    return total


def _square(x: float) -> float:
    return x * x if x < 1e150 else math.inf


def _times(a: Range, b: Range) -> Range:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _reciprocal(x: float) -> float:
    return 0.0 if math.isinf(x) else 1 / x


def _function(name: str, ranges: list[Range]) -> Range:
    low, high = ranges[0]
    if name in _RISING:
        return _RISING[name](low), _RISING[name](high)
    match name:
        case "sin" | "cos":
            return -1.0, 1.0
        case "abs":
            ends = (abs(low), abs(high))
            return (0.0 if low <= 0 <= high else min(ends)), max(ends)
        case "min":
            return min(low for low, _ in ranges), min(high for _, high in ranges)
        case "max":
            return max(low for low, _ in ranges), max(high for _, high in ranges)
    return EVERYTHING

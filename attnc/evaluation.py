"""The value of an expression: integers, or numpy arrays of many positions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from attnc.budget import use
from attnc.expression import (
    And,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Param,
    PowerOfTwo,
    Select,
    Sum,
    Truth,
    Var,
    children,
    compared,
    remembered,
    shared,
    tables,
    with_entries_alone,
)


@dataclass(frozen=True)
class Env:
    """What an expression is evaluated under.

    variables: name → integer or integer numpy array; all must broadcast together.
    tables: input name → numpy array.
    drawn: called with a ``Drawn`` and the evaluated row, column, population and head; gives booleans.
    """

    variables: Mapping[str, Any]
    tables: Mapping[str, Any] = field(default_factory=dict)
    drawn: Callable[[Drawn, Any, Any, Any, Any], Any] | None = None


# What one operation takes in steps of work; how many numbers numpy works out in one, and how many Python.
OPERATION, NUMBERS, EXACT = 12, 128, 4


def evaluate(expr: Expr, env: Env) -> Any:
    """The value of ``expr``: an integer, a boolean, or a numpy array of either."""
    if farthest(expr, USUAL) > WORD and farthest(expr, _most(env)) > WORD:
        return _words(_evaluated(expr, _exact(env)))
    return _evaluated(expr, env)


def exact(expr: Expr, env: Env) -> Any:
    """The value of ``expr`` in Python's own integers, or object arrays of them, however large it is."""
    return _evaluated(expr, _exact(env))


# What a position hardly ever passes, and the greatest number of 64 bits.
USUAL, WORD = (1 << 31) - 1, (1 << 63) - 1


@remembered
def farthest(expr: Expr, most: int) -> int:
    """No number that comes up while an expression is evaluated is farther from zero.

    most: the same of variables and of entries of inputs.
    """
    return _farthest(expr, most, [farthest(part, most) for part in children(expr)])


def _farthest(expr: Expr, most: int, parts: Sequence[int]) -> int:
    match expr:
        case Const(value) | Param(_, value):
            return abs(value)
        case Var() | Lookup():
            return max([most, *parts])
        case Sum(terms, start):
            return abs(start) + sum(abs(c) * part for (c, _), part in zip(terms, parts, strict=True))
        case Mul():
            return max([*parts, parts[0] * parts[1]])
    return max(parts, default=0)


def exact_up_to(exprs: Iterable[Expr]) -> int | None:
    """The greatest length at which no number that comes up is beyond 64 bits; None where there is none.

    Entries of inputs are taken to be no larger than positions.
    """
    exprs = tuple(exprs)

    def exact(n: int) -> bool:
        known: dict[Expr, int] = {}

        def far(expr: Expr) -> int:
            if expr not in known:
                known[expr] = _farthest(expr, n, [far(part) for part in children(expr)])
            return known[expr]

        return all(far(expr) <= WORD for expr in exprs)

    if exact(USUAL):
        return None
    low, high = 0, USUAL
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exact(middle) else (low, middle)
    return low


def _most(env: Env) -> int:
    numbers = [np.asarray(value) for value in (*env.variables.values(), *env.tables.values())]
    ends = [
        end for some in numbers if some.size and some.dtype.kind in "iuO" for end in (some.min(), some.max())
    ]
    return max((abs(int(end)) for end in ends), default=0)


def _exact(env: Env) -> Env:
    """The same with Python's own integers, which have no greatest."""
    exact = {name: np.asarray(value).astype(object) for name, value in env.variables.items()}
    tables = {
        name: table.astype(object) if (table := np.asarray(value)).dtype.kind in "iu" else table
        for name, value in env.tables.items()
    }
    return Env(exact, tables, env.drawn)


def _words(value: Any) -> Any:
    """Integers of 64 bits again; what is beyond all positions stays so."""
    if np.asarray(value).dtype != object:
        return value
    return np.asarray(np.clip(value, -WORD, WORD)).astype(np.int64)[()]


def _evaluated(expr: Expr, env: Env) -> Any:
    often = shared(expr)
    values: dict[Expr, Any] = {}

    def of(part: Expr) -> Any:
        if part in values:
            return values[part]
        value = _value(part, env, of)
        exact = isinstance(value, np.ndarray) and value.dtype.kind == "O"
        numbers = getattr(value, "size", 1) // (EXACT if exact else NUMBERS)
        use(OPERATION + numbers, "trying out so many positions")
        if part in often:
            values[part] = value
        return value

    try:
        return of(expr)
    finally:
        values.clear()  # `of` holds itself, and so would hold these until Python looks for such circles


def _value(expr: Expr, env: Env, of: Callable[[Expr], Any]) -> Any:
    """The value of ``expr``, by those of its parts."""
    match expr:
        case Const(value) | Param(_, value) | Truth(value):
            return value
        case Var(name):
            return env.variables[name]
        case Sum(terms, start):
            return reduce(lambda total, item: total + item[0] * of(item[1]), terms, start)
        case Mul(a, b):
            return of(a) * of(b)
        case FloorDiv(a, b):
            return of(a) // of(b)
        case Mod(a, b):
            return of(a) % of(b)
        case Min(args):
            return reduce(np.minimum, (of(arg) for arg in args))
        case Max(args):
            return reduce(np.maximum, (of(arg) for arg in args))
        case Select(condition, then, otherwise):
            return np.where(of(condition), of(then), of(otherwise))
        case Lookup(table, index, _):
            # Under a mask an index may lie outside; what is read there is never used.
            values = np.asarray(env.tables[table])
            places = tuple(
                _words(np.clip(of(place), 0, max(size - 1, 0)))
                for place, size in zip(index, values.shape, strict=True)
            )
            return values[places]
        case Le0() if tables(expr) and (other := with_entries_alone(expr)) != expr:
            return of(other)
        case Le0(body) if tables(body):
            # Entries of inputs may be as large as integers get: nothing is added but what was written.
            left, right, strict = compared(body)
            return of(left) < of(right) if strict else of(left) <= of(right)
        case Le0(body):
            return of(body) <= 0
        case Eq0(body):
            return of(body) == 0
        case PowerOfTwo(body):
            number = np.asarray(of(body))
            return (number >= 0) & ((number & (number - 1)) == 0)
        case Not(body):
            return np.logical_not(of(body))
        case And(args):
            return reduce(np.logical_and, (of(arg) for arg in args))
        case Or(args):
            return reduce(np.logical_or, (of(arg) for arg in args))
        case Drawn(_, _, _, row, column, population):
            if env.drawn is None:
                raise ValueError("this expression draws at random, and the environment has no way to draw")
            at = (_words(of(row)), _words(of(column)), _words(of(population)))
            return env.drawn(expr, *at, _words(env.variables["h"]))
    raise TypeError(f"cannot evaluate {type(expr).__name__}")

"""The value of an expression: integers, or numpy arrays of many positions at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from attnc.budget import charge
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


# What one operation takes in steps of work, and how many numbers numpy works out in one.
OPERATION, NUMBERS = 12, 128


def evaluate(expr: Expr, env: Env) -> Any:
    """The value of ``expr``: an integer, a boolean, or a numpy array of either."""
    value = _evaluated(expr, env)
    charge(OPERATION + getattr(value, "size", 1) // NUMBERS)
    return value


def _evaluated(expr: Expr, env: Env) -> Any:
    match expr:
        case Const(value) | Param(_, value) | Truth(value):
            return value
        case Var(name):
            return env.variables[name]
        case Sum(terms, start):
            return reduce(lambda total, item: total + item[0] * evaluate(item[1], env), terms, start)
        case Mul(a, b):
            return evaluate(a, env) * evaluate(b, env)
        case FloorDiv(a, b):
            return evaluate(a, env) // evaluate(b, env)
        case Mod(a, b):
            return evaluate(a, env) % evaluate(b, env)
        case Min(args):
            return reduce(np.minimum, (evaluate(arg, env) for arg in args))
        case Max(args):
            return reduce(np.maximum, (evaluate(arg, env) for arg in args))
        case Select(condition, then, otherwise):
            return np.where(evaluate(condition, env), evaluate(then, env), evaluate(otherwise, env))
        case Lookup(table, index, _):
            # Under a mask an index may lie outside; what is read there is never used.
            values = np.asarray(env.tables[table])
            places = tuple(
                np.clip(evaluate(place, env), 0, max(size - 1, 0))
                for place, size in zip(index, values.shape, strict=True)
            )
            return values[places]
        case Le0(body):
            return evaluate(body, env) <= 0
        case Eq0(body):
            return evaluate(body, env) == 0
        case PowerOfTwo(body):
            number = np.asarray(evaluate(body, env))
            return (number >= 0) & ((number & (number - 1)) == 0)
        case Not(body):
            return np.logical_not(evaluate(body, env))
        case And(args):
            return reduce(np.logical_and, (evaluate(arg, env) for arg in args))
        case Or(args):
            return reduce(np.logical_or, (evaluate(arg, env) for arg in args))
        case Drawn(_, _, _, row, column, population):
            if env.drawn is None:
                raise ValueError("this expression draws at random, and the environment has no way to draw")
            at = (evaluate(row, env), evaluate(column, env), evaluate(population, env))
            return env.drawn(expr, *at, env.variables["h"])
    raise TypeError(f"cannot evaluate {type(expr).__name__}")

"""A cost's closed form brought back from sympy into expressions, which are evaluated exactly and quickly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy

from attnc.evaluation import (
    Env,
    exact,
)
from attnc.expression import (
    Const,
    Expr,
    Var,
    add,
    floor_div,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    scale,
    variables,
)


@dataclass(frozen=True)
class Ratio:
    """``above / below``, with a positive number below."""

    above: Expr
    below: int = 1

    def over(self, below: int) -> Expr:
        """What stands above a multiple of the number below."""
        return scale(below // self.below, self.above)

    def at(self, values: dict[str, Any]) -> npt.NDArray[Any]:
        """The value, rounded up, over Python integers or arrays of them."""
        return -(-np.asarray(exact(self.above, Env(values)), dtype=object) // self.below)

    def names(self) -> frozenset[str]:
        return variables(self.above)


def ratio(expr: sympy.Expr) -> Ratio | None:
    """The expression over ``n``, ``d`` and ``count(x)``; None where it holds what expressions cannot say."""
    try:
        return _ratio(expr)
    except NotImplementedError:
        return None


def _ratio(expr: Any) -> Ratio:
    if expr.is_Rational:
        return Ratio(Const(int(expr.p)), int(expr.q))
    if expr.is_Symbol:
        return Ratio(Var(expr.name))
    if isinstance(expr, sympy.Add):
        above, below = _common([_ratio(arg) for arg in expr.args])
        return Ratio(add(*above), below)
    if isinstance(expr, sympy.Mul):
        parts = [_ratio(arg) for arg in expr.args]
        return Ratio(
            reduce(mul, (part.above for part in parts)), reduce(int.__mul__, (part.below for part in parts))
        )
    if isinstance(expr, sympy.Pow) and expr.exp.is_Integer and expr.exp > 0:
        base, power = _ratio(expr.base), int(expr.exp)
        return Ratio(reduce(mul, [base.above] * power), base.below**power)
    if isinstance(expr, sympy.floor):
        inner = _ratio(expr.args[0])
        return Ratio(floor_div(inner.above, inner.below))
    if isinstance(expr, sympy.ceiling):
        inner = _ratio(expr.args[0])
        return Ratio(neg(floor_div(neg(inner.above), inner.below)))
    if isinstance(expr, (sympy.Max, sympy.Min)):
        above, below = _common([_ratio(arg) for arg in expr.args])
        return Ratio(maximum(*above) if isinstance(expr, sympy.Max) else minimum(*above), below)
    if isinstance(expr, sympy.Mod):
        left, right = (_ratio(arg) for arg in expr.args)
        if left.below == right.below == 1:
            return Ratio(mod(left.above, right.above))
    if expr.func.__name__ == "count" and len(expr.args) == 1:
        return Ratio(Var(f"count({expr.args[0]})"))
    raise NotImplementedError(expr.func)


def _common(parts: list[Ratio]) -> tuple[list[Expr], int]:
    below = lcm(*(part.below for part in parts))
    return [part.over(below) for part in parts], below

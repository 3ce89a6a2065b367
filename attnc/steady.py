"""The form that a formula over ``n`` settles into once ``n`` is large enough."""

from __future__ import annotations

import math
from fractions import Fraction

import sympy

# slope * n + something between low and high
Course = tuple[Fraction, Fraction, Fraction]


def steady_form(expr: sympy.Expr, n: sympy.Symbol) -> tuple[sympy.Expr, int]:
    """``expr`` with its minima and maxima decided, and a length from which on that form holds.

    What goes on changing (the last, ragged block) stays as it is.
    """
    start = 0
    lasting: dict[sympy.Expr, sympy.Expr] = {}
    while True:
        inner = [
            part
            for part in expr.atoms(sympy.Max, sympy.Min)
            if not any(arg.has(sympy.Max, sympy.Min) for arg in part.args)
        ]
        if not inner:
            while expr.free_symbols & lasting.keys():
                expr = expr.xreplace(lasting)
            return sympy.expand(expr), start
        settled = {}
        for part in inner:
            found = _winner(part, n)
            if found is None:
                stays = sympy.Dummy(integer=True)
                settled[part], lasting[stays] = stays, part
                continue
            settled[part], since = found
            start = max(start, since)
        expr = expr.xreplace(settled)


def _winner(part: sympy.Expr, n: sympy.Symbol) -> tuple[sympy.Expr, int] | None:
    """The argument that is the extremum of all from some length on, and that length."""
    sign = 1 if isinstance(part, sympy.Max) else -1
    for candidate in part.args:
        since = 0
        for other in part.args:
            if other is candidate:
                continue
            course = _course(sympy.expand(sign * (candidate - other)), n)
            if course is None:
                return None
            slope, low, _ = course
            if slope < 0 or (slope == 0 and low < 0):
                break
            if slope > 0:
                since = max(since, math.ceil(-low / slope))
        else:
            return candidate, since
    return None


def _course(expr: sympy.Expr, n: sympy.Symbol) -> Course | None:
    zero = Fraction(0)
    if expr == n:
        return Fraction(1), zero, zero
    if expr.is_Rational:
        value = Fraction(int(expr.p), int(expr.q))
        return zero, value, value
    if expr.is_Add:
        parts = [_course(arg, n) for arg in expr.args]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        slope, low, high = (sum(column, zero) for column in zip(*known, strict=True))
        return slope, low, high
    if expr.is_Mul:
        factor, rest = expr.as_coeff_Mul()
        course = _course(rest, n) if factor != 1 else None
        if course is None or not factor.is_Rational:
            return None
        by = Fraction(int(factor.p), int(factor.q))
        slope, low, high = course
        return (slope * by, low * by, high * by) if by >= 0 else (slope * by, high * by, low * by)
    if isinstance(expr, sympy.floor):
        course = _course(expr.args[0], n)
        if course is None:
            return None
        slope, low, high = course
        return slope, low - 1, high
    if isinstance(expr, sympy.Mod) and expr.args[1].is_Integer:
        return zero, zero, Fraction(int(expr.args[1]) - 1)
    return None

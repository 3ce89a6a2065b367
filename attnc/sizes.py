"""The sizes that a count is told in, and what is known about expressions over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import sympy

from attnc.expression import (
    Const,
    Eq0,
    Expr,
    FloorDiv,
    IntLike,
    Le0,
    Max,
    Min,
    Mod,
    Mul,
    Param,
    Sum,
    Truth,
    Var,
    as_expr,
    constant,
    maximum,
    minimum,
    neg,
    sub,
)

Ranges = Mapping[str, tuple[float, float]]


class NoFormula(Exception):
    """The conjunction is outside of what can be counted in closed form."""


# So many sums, each a few milliseconds, are spent on one body; a formula that needs more helps nobody.
MOST_WORK = 80


@dataclass
class Sizes:
    """The symbols of one count: sympy symbols by variable name, what they range over and what they stand for.

    ``n`` is the only free one; ``n/64`` and ``n%64`` are its quotient and remainder.
    """

    symbols: dict[str, sympy.Symbol] = field(default_factory=dict)
    meaning: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"n": (0, math.inf)})
    known: dict[tuple[object, ...], sympy.Expr] = field(default_factory=dict)
    work: int = MOST_WORK

    def symbol(self, name: str) -> sympy.Symbol:
        if name not in self.symbols:
            self.symbols[name] = sympy.Symbol(name, integer=True, nonnegative=True)
        return self.symbols[name]

    def split(self, size: Expr, s: int) -> tuple[Expr, Expr]:
        """``size // s`` and ``size % s``, as new variables unless they are numbers."""
        value = constant(size)
        if value is not None:
            return Const(value // s), Const(value % s)
        if not isinstance(size, Var):
            raise NoFormula
        quotient, rest = f"{size.name}/{s}", f"{size.name}%{s}"
        if quotient not in self.ranges:
            least, most = self.ranges[size.name]
            self.ranges[quotient] = (least // s, most if most == math.inf else most // s)
            self.ranges[rest] = (0, min(s - 1, most))
            whole = self.symbol(size.name)
            self.meaning[self.symbol(quotient)] = sympy.floor(whole / s)
            self.meaning[self.symbol(rest)] = sympy.Mod(whole, s)
        return Var(quotient), Var(rest)

    def plain(self, expr: sympy.Expr) -> sympy.Expr:
        """The formula with quotients and remainders written out over ``n``."""
        full: dict[sympy.Symbol, sympy.Expr] = {}
        for symbol, value in self.meaning.items():
            # A size is split before its parts are, so those before it are written out already.
            full[symbol] = value.xreplace(full)
        return expr.xreplace(full)


def numeric(expr: Expr, ranges: Ranges) -> tuple[float, float]:
    """Least and greatest value that an expression may take: sound, not always attained."""
    match expr:
        case Const(value) | Param(_, value):
            return value, value
        case Var(name):
            return ranges.get(name, (-math.inf, math.inf))
        case Sum(terms, start):
            low: float = start
            high: float = start
            for c, atom in terms:
                a, b = numeric(atom, ranges)
                low += c * (a if c > 0 else b)
                high += c * (b if c > 0 else a)
            return low, high
        case Min(args) | Max(args):
            pick: Callable[[Iterable[float]], float] = min if isinstance(expr, Min) else max
            each = [numeric(arg, ranges) for arg in args]
            return pick(a for a, _ in each), pick(b for _, b in each)
        case FloorDiv(left, right):
            divisor = constant(right)
            if divisor is not None and divisor > 0:
                a, b = numeric(left, ranges)
                return (a if math.isinf(a) else a // divisor), (b if math.isinf(b) else b // divisor)
        case Mod(left, right):
            divisor = constant(right)
            if divisor is not None and divisor > 0:
                a, b = numeric(left, ranges)
                return (a, b) if a >= 0 and b < divisor else (0, divisor - 1)
    return -math.inf, math.inf


def linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    """Coefficients by atom, and the constant."""
    match expr:
        case Const(value) | Param(_, value):
            return {}, value
        case Sum(terms, start):
            return {atom: c for c, atom in terms}, start
    return {expr: 1}, 0


def greatest(ranges: Ranges, *args: IntLike) -> Expr:
    """``maximum`` without the arguments that another one always reaches."""
    kept: list[Expr] = []
    for arg in map(as_expr, args):
        if any(numeric(sub(other, arg), ranges)[0] >= 0 for other in kept):
            continue
        kept = [other for other in kept if numeric(sub(arg, other), ranges)[0] < 0]
        kept.append(arg)
    return maximum(*kept)


def least(ranges: Ranges, *args: IntLike) -> Expr:
    kept: list[Expr] = []
    for arg in map(as_expr, args):
        if any(numeric(sub(arg, other), ranges)[0] >= 0 for other in kept):
            continue
        kept = [other for other in kept if numeric(sub(other, arg), ranges)[0] < 0]
        kept.append(arg)
    return minimum(*kept)


def to_sympy(expr: Expr, sizes: Sizes) -> sympy.Expr:
    """Sums, products, divisions and extrema of numbers and of the variables of ``sizes``."""
    match expr:
        case Const(value) | Param(_, value):
            return sympy.Integer(value)
        case Var(name):
            return sizes.symbol(name)
        case Sum(terms, start):
            return sympy.Add(start, *(c * to_sympy(atom, sizes) for c, atom in terms))
        case Mul(left, right):
            return to_sympy(left, sizes) * to_sympy(right, sizes)
        case FloorDiv(left, right):
            return sympy.floor(to_sympy(left, sizes) / to_sympy(right, sizes))
        case Mod(left, right):
            return sympy.Mod(to_sympy(left, sizes), to_sympy(right, sizes))
        case Min(args):
            return sympy.Min(*(to_sympy(arg, sizes) for arg in args))
        case Max(args):
            return sympy.Max(*(to_sympy(arg, sizes) for arg in args))
    raise NoFormula


def pruned(cell: tuple[Expr, ...], ranges: Ranges) -> tuple[Expr, ...] | None:
    """The conditions that are not always true; None when they contradict each other or the ranges."""
    kept: list[Expr] = []
    tightest: dict[Expr, tuple[float, float]] = {}
    for condition in dict.fromkeys(cell):
        match condition:
            case Truth(value):
                if not value:
                    return None
                continue
            case Le0(body) | Eq0(body):
                low, high = numeric(body, ranges)
                if low > 0 or (isinstance(condition, Eq0) and high < 0):
                    return None
                if high <= 0 and (isinstance(condition, Le0) or low == 0):
                    continue
            case _:
                raise NoFormula
        start = linear(body)[1]
        shape, sign = sub(body, start), 1
        if repr(neg(shape)) < repr(shape):
            shape, sign = neg(shape), -1
        # The condition reads sign * shape + start <= 0, or == 0.
        below, above = tightest.get(shape, (-math.inf, math.inf))
        if sign > 0 or isinstance(condition, Eq0):
            above = min(above, -sign * start)
        if sign < 0 or isinstance(condition, Eq0):
            below = max(below, -sign * start)
        if below > above:
            return None
        tightest[shape] = (below, above)
        kept.append(condition)
    return tuple(kept)

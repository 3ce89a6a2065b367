"""The sizes that a count is told in, and what is known about expressions over them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy

from attnc.budget import charge
from attnc.expression import (
    ZERO,
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
    children,
    constant,
    maximum,
    minimum,
    neg,
    order,
    rebuild,
    sub,
    substitute,
    variables,
)
from attnc.polynomial import Poly, number, symbol

Ranges = Mapping[str, tuple[float, float]]


class NoFormula(Exception):
    """The conjunction is outside of what can be counted in closed form."""


# So many sums, each a few milliseconds, are spent on one body; a formula that needs more helps nobody.
MOST_WORK = 600

# Products of more terms than this stay products.
LONGEST_PRODUCT = 8
# What it takes to look at one name of a formula, and to put something in its place, in steps of work.
WITHOUT = 150


@dataclass
class Sizes:
    """The symbols of one count: what they range over, and what they stand for.

    ``n`` is the only free one; ``n/64`` and ``n%64`` are its quotient and remainder. Formulas are polynomials
    in them, and in roundings and extrema of them, which have names, too: ``#0``, ``#1``, … So have factors
    whose products would be long to write out.
    """

    meaning: dict[str, Expr | Poly] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"n": (0, math.inf)})
    known: dict[tuple[object, ...], Poly] = field(default_factory=dict)
    names: dict[Expr | Poly, str] = field(default_factory=dict)
    closed: dict[str, sympy.Expr] = field(default_factory=dict)
    work: int = MOST_WORK

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
            self.meaning[quotient] = FloorDiv(size, Const(s))
            self.meaning[rest] = Mod(size, Const(s))
        return Var(quotient), Var(rest)

    def poly(self, expr: Expr) -> Poly:
        """Sums, products, divisions and extrema of numbers and of these variables as a polynomial."""
        match expr:
            case Const(value) | Param(_, value):
                return number(value)
            case Var(name):
                return symbol(name)
            case Sum(terms, start):
                total = number(start)
                for c, atom in terms:
                    total = total + self.poly(atom).scaled(c)
                return total
            case Mul(left, right):
                return self.poly(left) * self.poly(right)
            case FloorDiv() | Mod() | Min() | Max():
                return self._named(expr)
        raise NoFormula

    def _named(self, part: Expr | Poly) -> Poly:
        if part not in self.names:
            name = self.names[part] = f"#{len(self.names)}"
            self.meaning[name] = part
        return symbol(self.names[part])

    def product(self, left: Poly, right: Poly) -> Poly:
        """The product of two formulas, in brackets where it would be long without."""
        if len(left.terms) * len(right.terms) <= LONGEST_PRODUCT:
            return left * right
        return self._named(left) * self._named(right)

    def spread(self, p: Poly) -> Poly:
        """The same without brackets."""
        for name in sorted(p.names()):
            meaning = self.meaning.get(name)
            if isinstance(meaning, Poly):
                p = p.replaced(name, self.spread(meaning))
        return p

    def without(self, p: Poly, gone: str) -> Poly:
        """What a formula is when one size is 0, and so is all that it was split into."""
        charge(WITHOUT * (1 + len(p.names())), "counting edges")
        parts = (f"{gone}/", f"{gone}%")
        zeros: dict[Expr, Expr] = {
            Var(name): ZERO for name in self.ranges if name == gone or name.startswith(parts)
        }
        for name in sorted(p.names()):
            by = Var(name) if name in self.ranges else self.meaning[name]
            if isinstance(by, Poly):
                p = p.replaced(name, self.without(by, gone))
            elif variables(by) & {part.name for part in zeros if isinstance(part, Var)}:
                p = p.replaced(name, self.poly(self._settled(substitute(by, zeros))))
        return p

    def _settled(self, expr: Expr) -> Expr:
        """Without the arguments of extrema that never decide."""
        parts = children(expr)
        if not parts:
            return expr
        expr = rebuild(expr, tuple(map(self._settled, parts)))
        if isinstance(expr, (Min, Max)):
            return (greatest if isinstance(expr, Max) else least)(self.ranges, *expr.args)
        return expr

    def told(self, p: Poly) -> sympy.Expr:
        """A formula for people, written out over ``n``."""
        return sympy.Add(
            *(
                sympy.Mul(
                    sympy.Rational(c.numerator, c.denominator),
                    *(self._told(name) ** len(list(same)) for name, same in itertools.groupby(monomial)),
                )
                for monomial, c in p.terms
            )
        )

    def _told(self, name: str) -> sympy.Expr:
        if name not in self.closed:
            match self.meaning.get(name):
                case None:
                    self.closed[name] = positive(name)
                case Poly() as factor:
                    self.closed[name] = self.told(factor)
                case meaning:
                    self.closed[name] = self._written(meaning)
        return self.closed[name]

    def _written(self, expr: Expr) -> sympy.Expr:
        match expr:
            case Const(value) | Param(_, value):
                return sympy.Integer(value)
            case Var(name):
                return self._told(name)
            case Sum(terms, start):
                return sympy.Add(start, *(c * self._written(atom) for c, atom in terms))
            case Mul(left, right):
                return self._written(left) * self._written(right)
            case FloorDiv(left, right):
                return sympy.floor(self._written(left) / self._written(right))
            case Mod(left, right):
                return sympy.Mod(self._written(left), self._written(right))
            case Min(args):
                return self._extremum(sympy.Min, args)
            case Max(args):
                return self._extremum(sympy.Max, args)
        raise NoFormula

    def _extremum(self, kind: Any, args: Iterable[Expr]) -> sympy.Expr:
        # What never decides is gone already, and sympy takes long to find that out.
        return kind(*map(self._written, args), evaluate=False)


def positive(name: str) -> sympy.Symbol:
    """A size as sympy knows it: an integer, never negative."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


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
        if order(neg(shape)) < order(shape):
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

"""Whether a condition on positions and one on their digits are equivalent, by division with remainder alone.

There is one quotient and one remainder: ``x // c`` is ``a`` where ``x - c * a`` lies in ``0 .. c - 1``. That
leaves sums of digits, of which each has its range. What is more than that is left to the solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.digits import PLAIN, Radix
from attnc.expression import (
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Mod,
    Sum,
    Var,
    constant,
    neg,
    scale,
    sub,
    substitute,
)


@dataclass(frozen=True)
class Places:
    """Positions split into digits, and what is known of those from their radix alone."""

    sides: Mapping[Var, Radix]

    def is_equal(self, number: Expr, told: Expr) -> bool:
        """Whether a quotient or a remainder provably equals an expression in digits."""
        told = self._in_digits(told)
        match number:
            case FloorDiv(left, Const(size)) if size > 0:
                return self._lies(sub(self._in_digits(left), scale(size, told)), 0, size - 1)
            case Mod(left, Const(size)) if size > 0:
                terms, start = _sum(sub(self._in_digits(left), told))
                whole = start % size == 0 and all(factor % size == 0 for factor, _ in terms)
                return whole and self._lies(told, 0, size - 1)
            case Sum(terms, _):
                # What is a multiple of the divisor was taken out of the quotient.
                for factor, atom in terms:
                    if factor == 1 and isinstance(atom, FloorDiv):
                        return self.is_equal(atom, sub(told, sub(number, atom)))
        return self._in_digits(number) == told

    def is_same(self, condition: Expr, told: Expr) -> bool:
        """Whether a comparison is provably equivalent to a condition in digits."""
        condition, told = self._in_digits(condition), self._in_digits(told)
        match condition, told:
            case Le0(body), Le0(other):
                # Both are whole numbers: a step of one is a step of the other, less than a step apart.
                return any(self._lies(sub(body, scale(step, other)), 1 - step, 0) for step in self._steps())
            case Eq0(Mod(left, Const(size))), _ if condition != told and self._lies(left, 1 - size, size - 1):
                return self.is_same(Eq0(left), told)
            case Eq0(body), Eq0(_) | And(_):
                parts = told.args if isinstance(told, And) else (told,)
                bodies = [part.body for part in parts if isinstance(part, Eq0)]
                return len(bodies) == len(parts) and self._is_split(body, bodies)
        return condition == told

    def _in_digits(self, expr: Expr) -> Expr:
        told: dict[Expr, Expr] = {
            var: radix.position(radix.digits(var)) for var, radix in self.sides.items() if radix != PLAIN
        }
        return substitute(expr, told)

    def _is_split(self, body: Expr, parts: Sequence[Expr]) -> bool:
        """Whether a sum is zero just where all parts are, each of them worth more than all that follow it."""
        if len(parts) == 1:
            return parts[0] in (body, neg(body))
        for place, part in enumerate(parts):
            for step in self._steps():
                for factor in (step, -step):
                    rest = sub(body, scale(factor, part))
                    others = [*parts[:place], *parts[place + 1 :]]
                    if self._lies(rest, 1 - step, step - 1) and self._is_split(rest, others):
                        return True
        return False

    def _steps(self) -> list[int]:
        return sorted({weight for radix in self.sides.values() for weight in radix.weights})

    def _lies(self, expr: Expr, low: int, high: int) -> bool:
        """Whether a sum of digits lies within bounds wherever each digit lies in its range."""
        terms, least = _sum(expr)
        factors: dict[Expr, int] = {atom: factor for factor, atom in terms}
        most = least
        for ranges in (*self._together(factors), *(radix.ranges(var) for var, radix in self.sides.items())):
            for digit, (first, last) in ranges.items():
                factor = factors.pop(digit, 0)
                ends = [factor * (constant(end) or 0) for end in (first, last)]
                least, most = least + min(ends), most + max(ends)
        return not factors and low <= least and most <= high

    def _together(self, factors: dict[Expr, int]) -> list[dict[Var, tuple[Expr, Expr]]]:
        """Puts the names of what digits come to together in place of those; what these names lie between."""
        found: list[dict[Var, tuple[Expr, Expr]]] = []
        for var, radix in self.sides.items():
            for tail in radix.tails(var):
                tail.replace_digits(factors)
                found.append({tail.name: (Const(0), Const(tail.most))})
        return found


def _sum(expr: Expr) -> tuple[tuple[tuple[int, Expr], ...], int]:
    match expr:
        case Const(value):
            return (), value
        case Sum(terms, start):
            return terms, start
    return ((1, expr),), 0

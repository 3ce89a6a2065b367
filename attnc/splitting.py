"""Positions taken apart into a block and a place inside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnc.expression import (
    ZERO,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Mod,
    Param,
    Sum,
    Truth,
    Var,
    add,
    constant,
    eq,
    floor_div,
    le,
    mod,
    rebuild,
    scale,
    sub,
)
from attnc.sizes import NoFormula, Ranges, linear, numeric, pruned

# One condition falls into so many cases at most.
MOST_CASES = 512

Halves = tuple[Expr, Expr, tuple[Expr, ...]]


@dataclass(frozen=True)
class Splitter:
    """Conditions over positions as conditions over blocks of size ``s`` and over places inside a block.

    wholes, rests: every variable is ``s * whole + rest``. places: what the rests range over.
    """

    s: int
    wholes: Mapping[str, Expr]
    rests: Mapping[str, Expr]
    places: Ranges

    def condition(self, condition: Expr) -> Iterator[tuple[tuple[Expr, ...], tuple[Expr, ...]]]:
        """The exclusive ways in which it holds: conditions on blocks, conditions on places."""
        assert isinstance(condition, (Le0, Eq0))
        equality = isinstance(condition, Eq0)
        for whole, rest, local in self.halves(condition.body):
            terms, _ = linear(whole)
            if not terms:
                yield (), (*local, eq(rest, 0) if equality else le(rest, 0))
                continue
            g = math.gcd(*terms.values())
            unit = _divided(whole, g)
            low, high = self.finite(rest)
            last = high // g if equality else -(-high // g)
            for j in few(-(-low // g), last + 1):
                if equality:
                    yield (eq(add(unit, j), 0),), (*local, eq(rest, g * j))
                else:
                    yield (le(add(unit, j), 0),), (*local, *self.within((j - 1) * g + 1, rest, j * g))

    def halves(self, expr: Expr) -> Iterator[Halves]:
        """``expr`` as a sum of a part over blocks and one over places, under conditions on the places."""
        match expr:
            case Const() | Param():
                yield ZERO, expr, ()
            case Var(name):
                yield scale(self.s, self.wholes[name]), self.rests[name], ()
            case Sum(terms, start):
                alternatives = [list(self.halves(atom)) for _, atom in terms]
                for choice in itertools.product(*alternatives):
                    pairs = list(zip((c for c, _ in terms), choice, strict=True))
                    whole = add(*(scale(c, part[0]) for c, part in pairs))
                    rest = add(start, *(scale(c, part[1]) for c, part in pairs))
                    # A constant belongs to the places, whose range is finite.
                    extra = linear(whole)[1]
                    yield sub(whole, extra), add(rest, extra), tuple(c for part in choice for c in part[2])
            case FloorDiv(left, right) | Mod(left, right):
                divisor = constant(right)
                assert divisor is not None
                for whole, rest, local in self.halves(left):
                    if constant(rest) is not None and not _divisible(whole, divisor):
                        # Of block indices alone: a matter between blocks.
                        yield rebuild(expr, (add(whole, rest), right)), ZERO, local
                        continue
                    quotient = _divided(whole, divisor)
                    block = quotient if isinstance(expr, FloorDiv) else ZERO
                    if divisor < self.s:
                        inner = floor_div(rest, divisor) if isinstance(expr, FloorDiv) else mod(rest, divisor)
                        yield block, inner, local
                        continue
                    low, high = self.finite(rest)
                    for j in few(low // divisor, high // divisor + 1):
                        inner = Const(j) if isinstance(expr, FloorDiv) else sub(rest, j * divisor)
                        inside = self.within(j * divisor, rest, (j + 1) * divisor - 1)
                        yield block, inner, (*local, *inside)
            case _:
                raise NoFormula

    def finite(self, expr: Expr) -> tuple[int, int]:
        low, high = numeric(expr, self.places)
        if math.isinf(low) or math.isinf(high):
            raise NoFormula
        return int(low), int(high)

    def within(self, low: int, expr: Expr, high: int) -> tuple[Expr, ...]:
        kept = pruned((le(low, expr), le(expr, high)), self.places)
        return (Truth(False),) if kept is None else kept


def few(first: int, stop: int) -> range:
    """The range, unless it is one that nobody would count through."""
    if stop - first > MOST_CASES:
        raise NoFormula
    return range(first, stop)


def _divisible(expr: Expr, by: int) -> bool:
    terms, start = linear(expr)
    return start % by == 0 and all(c % by == 0 for c in terms.values())


def _divided(expr: Expr, by: int) -> Expr:
    terms, start = linear(expr)
    if not _divisible(expr, by):
        raise NoFormula
    return add(start // by, *(scale(c // by, atom) for atom, c in terms.items()))

"""Positions as digits: a residue class, a grid's axis and a block's inside are each one digit of a position.

In the radix ``(s, 1)`` a position is ``s * d0 + d1``: ``d1`` is its residue and ``d0`` its place in the
residue class. In the radix ``(Y * X, X, 1)`` it is ``(Y * d0 + d1) * X + d2``, a place in a grid of three
axes. What a pattern says of residues and coordinates becomes, digit by digit, a plain interval.

A weight need not divide the one before it: in ``(40, 3, 1)`` rows of 40 pixels are split by residues of 3;
the last group of three in a row has one pixel. What the last digits come to together then stays below the
weight before them, which their own values don't say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

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
    Not,
    Or,
    Sum,
    Var,
    add,
    children,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    le,
    maximum,
    minimum,
    mod,
    negate,
    rebuild,
    scale,
    walk,
)
from attnc.intervals import Tile, bounds


@dataclass(frozen=True)
class Tail:
    """Digits in a row that are limited together.

    name: what they come to together. parts: the digits, and what one step of each comes to.
    most: the most that they come to.
    """

    name: Var
    parts: tuple[tuple[int, Var], ...]
    most: int

    def told(self) -> Expr:
        return add(*(scale(weight, digit) for weight, digit in self.parts))

    def replace_digits(self, factors: dict[Expr, int]) -> None:
        """Puts the name in place of the digits in a sum, where all of them have one factor in common."""
        (weight, first), *_ = self.parts
        times = factors.get(first, 0) // weight
        if times and all(factors.get(digit) == times * step for step, digit in self.parts):
            for _, digit in self.parts:
                del factors[digit]
            factors[self.name] = times


@dataclass(frozen=True)
class Radix:
    """What one step of every digit comes to in positions, the first digit's first; the last one's is 1."""

    weights: tuple[int, ...] = (1,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values every digit but the first takes; the first counts on."""
        return tuple(-(-before // weight) for before, weight in pairwise(self.weights))

    def digits(self, var: Var) -> tuple[Var, ...]:
        if len(self.weights) == 1:
            return (var,)
        return tuple(Var(f"{var.name}{i}") for i in range(len(self.weights)))

    def position(self, digits: tuple[Expr, ...]) -> Expr:
        return add(*(scale(weight, digit) for weight, digit in zip(self.weights, digits, strict=True)))

    def ranges(self, var: Var) -> dict[Var, tuple[Expr, Expr]]:
        """The values that the digits but the first take."""
        return {
            digit: (Const(0), Const(size - 1))
            for digit, size in zip(self.digits(var)[1:], self.sizes, strict=True)
        }

    def tails(self, var: Var) -> tuple[Tail, ...]:
        """Digits that could together come to more than one step of the digit before them; most digits first.

        They are counted in steps of the last of them.
        """
        return tuple(
            self._tail(var, first, last)
            for first in self._cut()
            for last in reversed(range(first, len(self.weights)))
            if all(weight % self.weights[last] == 0 for weight in self.weights[first:last])
        )

    def limits(self, var: Var) -> tuple[Expr, ...]:
        """What digits in their ranges must meet together to be a position's."""
        found = []
        for first in self._cut():
            # What follows never comes to a step of the last digit here.
            last = next(
                last
                for last in range(first, len(self.weights))
                if all(weight % self.weights[last] == 0 for weight in self.weights[first - 1 : last])
            )
            tail = self._tail(var, first, last)
            found.append(le(tail.told(), tail.most))
        return tuple(found)

    def _cut(self) -> list[int]:
        """The digits whose weight does not divide the one before."""
        return [place for place, (before, weight) in enumerate(pairwise(self.weights), 1) if before % weight]

    def _tail(self, var: Var, first: int, last: int) -> Tail:
        step = self.weights[last]
        places = range(first, last + 1)
        parts = tuple((self.weights[place] // step, self.digits(var)[place]) for place in places)
        return Tail(Var(f"{var.name}{first}..{last}"), parts, (self.weights[first - 1] - 1) // step)

    def of(self, position: Expr) -> tuple[Expr, ...]:
        """The digits of a position."""
        found, inside = [floor_div(position, self.weights[0])], position
        for before, weight in pairwise(self.weights):
            if before % weight:
                inside = mod(inside, before)
                found.append(floor_div(inside, weight))
            else:
                found.append(mod(floor_div(inside, weight), before // weight))
        return tuple(found)


def sized(*sizes: int) -> Radix:
    """The radix whose digits but the first take so many values each."""
    return Radix(tuple(prod(sizes[i:]) for i in range(len(sizes) + 1)))


PLAIN = Radix()

# A tile of digits reaches 128 times as far, which kernels count in 32 bits.
LARGEST_WEIGHT = 1 << 22
# What writing one part of a condition in digits takes, in steps of work, and to find between what it lies.
REWRITING, EXTENT, WRITING = 40, 100, "writing positions in digits"


@dataclass(frozen=True)
class Digits:
    """Two sides' positions in digits: rewrites conditions on positions into conditions on digits."""

    sides: Mapping[Var, Radix]

    def __call__(self, condition: Expr) -> Expr:
        """An equivalent condition on digits; what is looked up or drawn keeps its positions."""
        known = self._known()
        return condition if known is None else known.condition(known.expression(condition))

    def expression(self, expr: Expr) -> Expr:
        """An equal expression over digits; what is looked up or drawn keeps its positions."""
        known = self._known()
        return expr if known is None else known.expression(expr)

    def _known(self) -> Known | None:
        mapping: dict[Expr, Expr] = {}
        ranges: dict[Var, tuple[Expr, Expr]] = {}
        weights: set[int] = set()
        tails: list[Tail] = []
        for var, radix in self.sides.items():
            if radix != PLAIN:
                mapping[var] = radix.position(radix.digits(var))
                ranges |= radix.ranges(var)
                weights |= set(radix.weights[:-1])
                tails += radix.tails(var)
        ranges |= {tail.name: (Const(0), Const(tail.most)) for tail in tails}
        return Known(Tile(ranges), tuple(sorted(weights - {1})), mapping, tuple(tails)) if mapping else None


@dataclass(frozen=True)
class Known:
    """Rewrites expressions by what is known of some variables: the constants that they lie between.

    weights: what digits are worth; a quotient or remainder is taken apart by them where nothing carries.
    mapping: expressions that are replaced on the way.
    tails: digits of which more is known together than of each.
    """

    known: Tile
    weights: tuple[int, ...]
    mapping: Mapping[Expr, Expr] = field(default_factory=dict)
    tails: tuple[Tail, ...] = ()
    # What was rewritten so far; parts of one expression are parts of many.
    rewritten: dict[Expr, Expr] = field(default_factory=dict, compare=False, repr=False)

    def expression(self, expr: Expr) -> Expr:
        if expr in self.mapping:
            return self.mapping[expr]
        found = self.rewritten.get(expr)
        if found is None:
            found = self.rewritten[expr] = self._rewritten(expr)
        return found

    def _rewritten(self, expr: Expr) -> Expr:
        parts = children(expr)
        if not parts or isinstance(expr, (Lookup, Drawn)):
            return expr
        charge(REWRITING, WRITING)
        parts = tuple(map(self.expression, parts))
        match expr, parts:
            case FloorDiv(), (left, Const(right)) if right > 0:
                return self._quotient(left, right)
            case Mod(), (left, Const(right)) if right > 0:
                return self._remainder(left, right)
        expr = rebuild(expr, parts)
        match expr:
            case Min(args):
                return self._deciding(args, minimum, upper=True)
            case Max(args):
                return self._deciding(args, maximum, upper=False)
        return expr

    def _deciding(self, args: tuple[Expr, ...], combine: Callable[..., Expr], upper: bool) -> Expr:
        """A ``min`` (or ``max``) without the constants that another argument never passes."""
        others = [arg for arg in args if not isinstance(arg, Const)]
        extents = [extent for arg in others if (extent := self._extent(arg)) is not None]
        for limit in args:
            if isinstance(limit, Const) and not any(
                high <= limit.value if upper else low >= limit.value for low, high in extents
            ):
                others.append(limit)
        return combine(*others)

    def _extent(self, expr: Expr) -> tuple[int, int] | None:
        charge(EXTENT, WRITING)
        low, high = bounds(self._together(expr), self.known)
        a, b = (None if end is None else constant(end) for end in (low, high))
        return None if a is None or b is None else (a, b)

    def _together(self, expr: Expr) -> Expr:
        """A sum with the names of tails in place of their digits."""
        if not isinstance(expr, Sum):
            return expr
        factors: dict[Expr, int] = {atom: factor for factor, atom in expr.terms}
        for tail in self.tails:
            tail.replace_digits(factors)
        return add(expr.constant, *(scale(factor, atom) for atom, factor in factors.items()))

    def _quotient(self, left: Expr, right: int) -> Expr:
        whole, rest = _multiples(left, right)
        extent = self._extent(rest)
        if extent is not None and extent[0] // right == extent[1] // right:
            return add(whole, extent[0] // right)
        for weight in reversed(self.weights):
            if right % weight == 0:
                split = self._split(rest, weight)
                # A rest below the weight never carries.
                if split is not None:
                    return add(whole, floor_div(split[0], right // weight))
        return floor_div(left, right)

    def _remainder(self, left: Expr, right: int) -> Expr:
        rest = _multiples(left, right)[1]
        extent = self._extent(rest)
        if extent is not None and extent[0] // right == extent[1] // right:
            return add(rest, -right * (extent[0] // right))
        for weight in reversed(self.weights):
            if right % weight == 0:
                split = self._split(rest, weight)
                if split is not None:
                    return add(scale(weight, mod(split[0], right // weight)), split[1])
        return mod(left, right)

    def _split(self, expr: Expr, weight: int) -> tuple[Expr, Expr] | None:
        """``whole, rest`` with ``expr == weight * whole + rest`` and ``0 <= rest < weight``."""
        whole, rest = _multiples(expr, weight)
        extent = self._extent(rest)
        if extent is None or extent[0] // weight != extent[1] // weight:
            return None
        carried = extent[0] // weight
        return add(whole, carried), add(rest, -weight * carried)

    def condition(self, expr: Expr) -> Expr:
        """Comparisons taken apart, digit by digit, where no digit carries into another."""
        match expr:
            case And(args):
                return conj(*map(self.condition, args))
            case Or(args):
                return disj(*map(self.condition, args))
            case Not(Eq0(_) as body):
                return negate(self.condition(body))
            case Le0(body):
                for weight in reversed(self.weights):
                    whole, rest = _multiples(body, weight)
                    extent = self._extent(rest)
                    if (
                        whole != Const(0)
                        and extent is not None
                        and _ceil(extent[0], weight) == _ceil(extent[1], weight)
                    ):
                        return self.condition(le(add(whole, _ceil(extent[0], weight)), 0))
            case Eq0(Mod(left, Const(right))):
                extent = self._extent(left)
                if extent is not None and -right < extent[0] and extent[1] < right:
                    return self.condition(eq(left, 0))
            case Eq0(body):
                for weight in reversed(self.weights):
                    whole, rest = _multiples(body, weight)
                    extent = self._extent(rest)
                    if (
                        whole != Const(0)
                        and rest != Const(0)
                        and extent is not None
                        and -weight < extent[0]
                        and extent[1] < weight
                    ):
                        return conj(self.condition(eq(whole, 0)), self.condition(eq(rest, 0)))
        return expr


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _multiples(expr: Expr, step: int) -> tuple[Expr, Expr]:
    """``whole, rest`` with ``expr == step * whole + rest``."""
    terms, start = (expr.terms, expr.constant) if isinstance(expr, Sum) else (((1, expr),), 0)
    if isinstance(expr, Const):
        terms, start = (), expr.value
    whole = add(start // step, *(scale(c // step, atom) for c, atom in terms if c % step == 0))
    rest = add(start % step, *(scale(c, atom) for c, atom in terms if c % step))
    return whole, rest


def radices(condition: Expr) -> tuple[Radix, ...]:
    """Ways of counting positions in which a condition may be plain, the plain way first.

    A remainder names a digit: that of ``q % s`` and, in a grid of three axes, that of ``q // X % Y``. Numbers
    that divide each other name several digits at once: chunks within a grid's rows (``q % 56 // 7``). So do
    those of residues within rows, by which the row's length cannot be divided (``q % 40 % 3``).
    """
    found: dict[Radix, None] = {PLAIN: None}
    weights: set[int] = set()
    within: set[tuple[int, int]] = set()  # weights inside of what another one counts
    for part in walk(condition):
        match part:
            case Mod(left, Const(size)) if size > 1:
                for step, whole in _steps(left):
                    if whole is None or whole % (size * step) == 0:
                        found[Radix((size * step, step, 1) if step > 1 else (size, 1))] = None
                    if whole is None or size * step < whole:
                        weights |= {step, size * step}
                        within |= {(size * step, whole)} if whole is not None else set()
            case FloorDiv(Mod() as left, Const(size)) if size > 1:
                for step, whole in _steps(left):
                    if whole is not None and size * step < whole:
                        weights |= {step, size * step, whole}
                        within.add((size * step, whole))
    chain = sorted(weights - {1})
    if len(chain) > 1 and all(b % a == 0 or (a, b) in within for a, b in pairwise(chain)):
        every = Radix((*reversed(chain), 1))
        if len(chain) > 2 or every in found:
            # Whatever some of the digits say of a tile, all of them say, too.
            found = {
                radix: None for radix in found if radix == PLAIN or not {*radix.weights} <= {*every.weights}
            }
        found[every] = None
    return tuple(radix for radix in found if radix.weights[0] < LARGEST_WEIGHT)


def _steps(expr: Expr) -> tuple[tuple[int, int | None], ...]:
    """What one step of a number comes to in positions, and after how many it begins anew.

    That is 40, and 1920, for the coordinate ``q // 40 % 48``.
    """
    match expr:
        case FloorDiv(left, Const(size)) if size > 0:
            return tuple((size * step, whole) for step, whole in _steps(left))
        case Mod(left, Const(size)) if size > 0:
            return tuple(dict.fromkeys((step, size * step) for step, _ in _steps(left)))
        case Sum(terms, _):
            return tuple(dict.fromkeys(found for _, atom in terms for found in _steps(atom)))
    return ((1, None),)

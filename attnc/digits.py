"""Positions as digits: a residue class, a grid's axis and a block's inside are each one digit of a position.

In the radix ``(s,)`` a position is ``s * d0 + d1``: ``d1`` is its residue and ``d0`` its place in the residue
class. In the radix ``(Y, X)`` it is ``(Y * d0 + d1) * X + d2``, a place in a grid of three axes. What a
pattern says of residues and coordinates becomes, digit by digit, a plain interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

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
class Radix:
    """How many values every digit but the first takes; the first counts on. Empty: positions as they are."""

    sizes: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[int, ...]:
        """What one step of every digit is worth, the first digit's first."""
        return tuple(prod(self.sizes[i:]) for i in range(len(self.sizes) + 1))

    def digits(self, var: Var) -> tuple[Var, ...]:
        if not self.sizes:
            return (var,)
        return tuple(Var(f"{var.name}{i}") for i in range(len(self.sizes) + 1))

    def position(self, digits: tuple[Expr, ...]) -> Expr:
        return add(*(scale(weight, digit) for weight, digit in zip(self.weights, digits, strict=True)))

    def ranges(self, var: Var) -> dict[Var, tuple[Expr, Expr]]:
        """The values that the digits but the first take."""
        return {
            digit: (Const(0), Const(size - 1))
            for digit, size in zip(self.digits(var)[1:], self.sizes, strict=True)
        }

    def of(self, position: Expr) -> tuple[Expr, ...]:
        """The digits of a position."""
        weights = self.weights
        first = floor_div(position, weights[0])
        return (
            first,
            *(
                mod(floor_div(position, weight), size)
                for weight, size in zip(weights[1:], self.sizes, strict=True)
            ),
        )


PLAIN = Radix()

# More digits than these, beside the first, are not worth their arithmetic in a kernel.
MOST_DIGITS = 2
LARGEST_WEIGHT = 1 << 31


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
        for var, radix in self.sides.items():
            if radix != PLAIN:
                mapping[var] = radix.position(radix.digits(var))
                ranges |= radix.ranges(var)
                weights |= set(radix.weights[:-1])
        return Known(Tile(ranges), tuple(sorted(weights - {1})), mapping) if mapping else None


@dataclass(frozen=True)
class Known:
    """Rewrites expressions by what is known of some variables: the constants that they lie between.

    weights: what digits are worth; a quotient or remainder is taken apart by them where nothing carries.
    mapping: expressions that are replaced on the way.
    """

    known: Tile
    weights: tuple[int, ...]
    mapping: Mapping[Expr, Expr] = field(default_factory=dict)
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
        low, high = bounds(expr, self.known)
        a, b = (None if end is None else constant(end) for end in (low, high))
        return None if a is None or b is None else (a, b)

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
    that divide each other name several digits at once: chunks within a grid's rows (``q % 56 // 7``).
    """
    found: dict[Radix, None] = {PLAIN: None}
    weights: set[int] = set()
    for part in walk(condition):
        match part:
            case Mod(left, Const(size)) if size > 1:
                inner = constant(left.right) if isinstance(left, FloorDiv) else 1
                found[Radix((size,) if inner == 1 or inner is None else (size, inner))] = None
                if inner is not None and inner > 0:
                    weights |= {inner, size * inner}
            case FloorDiv(Mod(_, Const(size)), Const(inner)) if size > 1 and inner > 1:
                weights |= {inner, size}
    chain = sorted(weights - {1})
    if 1 < len(chain) <= MOST_DIGITS and not any(b % a for a, b in pairwise(chain)):
        found[Radix(tuple(b // a for a, b in pairwise((1, *chain)))[::-1])] = None
    # In digits worth more than any position is, positions are no shorter.
    return tuple(radix for radix in found if radix.weights[0] < LARGEST_WEIGHT)

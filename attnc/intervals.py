"""What an expression can be over a tile: interval and congruence arithmetic, done once, symbolically.

A tile gives some variables a range. ``bounds`` turns an expression into two expressions over the ends of
those ranges, ``may`` and ``must`` turn a condition into one that some, or every, point of the tile meets.
All are sound and few are exact; where nothing is known a bound is ``None``, ``may`` is true, ``must`` false.

The results are ordinary expressions: kernels compute them as scalars, the block graph evaluates them over
arrays of tiles at once, and the solver checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attnc.expression import (
    FALSE,
    TRUE,
    And,
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
    PowerOfTwo,
    Select,
    Sum,
    TileMax,
    TileMin,
    Var,
    add,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    ge,
    le,
    maximum,
    mentioned,
    minimum,
    mod,
    mul,
    remembered,
    scale,
    select,
    size,
    substitute,
)

Range = tuple[Expr | None, Expr | None]
UNKNOWN: Range = (None, None)

# A bound that is longer when written out is none: the ends of products of products come to four times the
# length with every factor.
LONGEST = 1000


@dataclass(frozen=True)
class Tile:
    """Ranges of variables, both ends inclusive.

    reduced: the variable (if any) over whose rows a kernel can reduce a looked-up value.
    known: the bounds that were asked for so far; parts of one expression are parts of many.
    """

    ranges: Mapping[Var, tuple[Expr, Expr]]
    reduced: Var | None = None
    known: dict[Expr, Range] = field(default_factory=dict, compare=False, repr=False)
    # The same of conditions: what some point of the tile meets, and what every point does.
    some: dict[Expr, Expr] = field(default_factory=dict, compare=False, repr=False)
    every: dict[Expr, Expr] = field(default_factory=dict, compare=False, repr=False)


@remembered
def direction(expr: Expr, var: Var) -> int | None:
    """+1, -1 or 0: the expression never falls, never rises, or stays as ``var`` rises; None: neither."""
    if expr == var:
        return 1
    if var not in mentioned(expr):
        return 0
    match expr:
        case Sum(terms, _):
            return _agree([_turn(direction(atom, var), c) for c, atom in terms])
        case Mul(a, b):
            for factor, body in ((a, b), (b, a)):
                value = constant(factor)
                if value is not None:
                    return _turn(direction(body, var), value)
            return None
        case FloorDiv(a, b):
            value = constant(b)
            return _turn(direction(a, var), value) if value else None
        case Min(args) | Max(args):
            return _agree([direction(arg, var) for arg in args])
    return None


def _turn(way: int | None, factor: int) -> int | None:
    return None if way is None else way * ((factor > 0) - (factor < 0))


def _agree(ways: list[int | None]) -> int | None:
    signs = {way for way in ways if way != 0}
    if not signs:
        return 0
    return signs.pop() if len(signs) == 1 else None


def bounds(expr: Expr, tile: Tile) -> Range:
    """Least and greatest value over the tile, as expressions; sound, and exact where monotone."""
    found = tile.known.get(expr)
    if found is None:
        found = tile.known[expr] = _bounds(expr, tile)
    return found


def _bounds(expr: Expr, tile: Tile) -> Range:
    moving = [var for var in tile.ranges if var in mentioned(expr)]
    if not moving:
        return expr, expr
    ways = [direction(expr, var) for var in moving]
    if all(way is not None for way in ways):
        at_low: dict[Expr, Expr] = {
            v: tile.ranges[v][0 if w == 1 else 1] for v, w in zip(moving, ways, strict=True)
        }
        at_high: dict[Expr, Expr] = {
            v: tile.ranges[v][1 if w == 1 else 0] for v, w in zip(moving, ways, strict=True)
        }
        return substitute(expr, at_low), substitute(expr, at_high)
    if isinstance(expr, Lookup):
        return (TileMin(expr), TileMax(expr)) if moving == [tile.reduced] else UNKNOWN
    low, high = combined(
        expr,
        lambda part: bounds(part, tile),
        lambda condition: (must(condition, tile), may(condition, tile)),
    )
    return _written(low), _written(high)


def _written(end: Expr | None) -> Expr | None:
    return None if end is None or size(end) > LONGEST else end


def combined(expr: Expr, ends: Callable[[Expr], Range], truth: Callable[[Expr], tuple[Expr, Expr]]) -> Range:
    """Least and greatest value of an expression, from those of its parts: one rule for every kind.

    ends: the range of a part. truth: of a condition, whether it always and whether it ever holds.
    """
    match expr:
        case Sum(terms, start):
            parts = [_scaled(c, ends(atom)) for c, atom in terms]
            return _total([low for low, _ in parts], start), _total([high for _, high in parts], start)
        case Mul(a, b):
            for factor, body in ((a, b), (b, a)):
                value = constant(factor)
                if value is not None:
                    low, high = (None if end is None else mul(factor, end) for end in ends(body))
                    return (low, high) if value >= 0 else (high, low)
            return _product(ends(a), ends(b), same=a == b)
        case FloorDiv(a, b):
            value = constant(b)
            if not value:
                return UNKNOWN
            low, high = (None if end is None else floor_div(end, b) for end in ends(a))
            return (low, high) if value > 0 else (high, low)
        case Mod(a, b):
            return _residue(ends(a), b)
        case Min(args):
            lows, highs = zip(*map(ends, args), strict=True)
            known = [high for high in highs if high is not None]
            least = minimum(*[x for x in lows if x is not None]) if None not in lows else None
            return least, minimum(*known) if known else None
        case Max(args):
            lows, highs = zip(*map(ends, args), strict=True)
            known = [low for low in lows if low is not None]
            most = maximum(*[x for x in highs if x is not None]) if None not in highs else None
            return maximum(*known) if known else None, most
        case Select(condition, then, otherwise):
            one, other = ends(then), ends(otherwise)
            always, sometimes = truth(condition)
            return (
                _chosen(always, sometimes, one[0], other[0], minimum),
                _chosen(always, sometimes, one[1], other[1], maximum),
            )
    return UNKNOWN


def _chosen(
    always: Expr, sometimes: Expr, then: Expr | None, otherwise: Expr | None, either: Callable[..., Expr]
) -> Expr | None:
    if then is None or otherwise is None:
        return None
    return select(always, then, select(sometimes, either(then, otherwise), otherwise))


def _scaled(factor: int, ends: Range) -> Range:
    low, high = (None if end is None else scale(factor, end) for end in ends)
    return (low, high) if factor >= 0 else (high, low)


def _total(parts: list[Expr | None], start: int) -> Expr | None:
    known = [part for part in parts if part is not None]
    return add(start, *known) if len(known) == len(parts) else None


def _product(a: Range, b: Range, same: bool) -> Range:
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        return UNKNOWN
    corners = [mul(x, y) for x in (a[0], a[1]) for y in (b[0], b[1])]
    if same:
        # A square falls to zero where its root can be zero.
        crossing = conj(le(a[0], 0), ge(a[1], 0))
        return select(crossing, 0, minimum(corners[0], corners[3])), maximum(corners[0], corners[3])
    return minimum(*corners), maximum(*corners)


def _residue(ends: Range, step: Expr) -> Range:
    low, high = ends
    size = constant(step)
    if size is None or size <= 0:
        return UNKNOWN
    whole: Range = (add(0), add(step, -1))
    if low is None or high is None:
        return whole
    # Within one period the remainder rises with its argument; across periods it takes any value.
    inside = eq(floor_div(low, step), floor_div(high, step))
    return select(inside, mod(low, step), 0), select(inside, mod(high, step), add(step, -1))


def may(condition: Expr, tile: Tile) -> Expr:
    """True at least wherever some point of the tile meets ``condition``."""
    found = tile.some.get(condition)
    if found is None:
        found = tile.some[condition] = _may(condition, tile)
    return found


def _may(condition: Expr, tile: Tile) -> Expr:
    match condition:
        case And(args):
            return conj(*(may(arg, tile) for arg in args))
        case Or(args):
            return disj(*(may(arg, tile) for arg in args))
        case Le0(body):
            low, _ = bounds(body, tile)
            return TRUE if low is None else le(low, 0)
        case Eq0(body):
            low, high = bounds(body, tile)
            return conj(TRUE if low is None else le(low, 0), TRUE if high is None else ge(high, 0))
        case PowerOfTwo(body):
            _, high = bounds(body, tile)
            return TRUE if high is None else ge(high, 0)
        case Not(Eq0(body)):
            low, high = bounds(body, tile)
            return TRUE if low is None or high is None else negate_eq(low, high)
    return TRUE if _touched(condition, tile) else condition


def must(condition: Expr, tile: Tile) -> Expr:
    """True only where every point of the tile meets ``condition``."""
    found = tile.every.get(condition)
    if found is None:
        found = tile.every[condition] = _must(condition, tile)
    return found


def _must(condition: Expr, tile: Tile) -> Expr:
    match condition:
        case And(args):
            return conj(*(must(arg, tile) for arg in args))
        case Or(args):
            return disj(*(must(arg, tile) for arg in args))
        case Le0(body):
            _, high = bounds(body, tile)
            return FALSE if high is None else le(high, 0)
        case Eq0(body):
            low, high = bounds(body, tile)
            return FALSE if low is None or high is None else conj(eq(low, 0), eq(high, 0))
        case Not(Eq0(body)):
            low, high = bounds(body, tile)
            return disj(FALSE if low is None else ge(low, 1), FALSE if high is None else le(high, -1))
    return FALSE if _touched(condition, tile) else condition


def negate_eq(low: Expr, high: Expr) -> Expr:
    """Some value other than zero lies in ``low..high``."""
    return disj(le(low, -1), ge(high, 1))


def _touched(condition: Expr, tile: Tile) -> bool:
    return not mentioned(condition).isdisjoint(tile.ranges)

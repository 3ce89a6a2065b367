"""From a term's view to a sweep: what one tile of positions visits, over the tile's own ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attnc.digits import PLAIN, Known
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    Expr,
    Lookup,
    Max,
    Min,
    TileMax,
    TileMin,
    Var,
    conj,
    le,
    maximum,
    mentioned,
    minimum,
)
from attnc.intervals import Tile, bounds, may, must
from attnc.schedule import LEAST, MOST, Sweep, Walk, tile_ends
from attnc.simplify import LAST
from attnc.views import Digit, View


def sweep_of(view: View, extents: tuple[int, ...] = ()) -> Sweep:
    """What a tile sweeps for one term; the tile spans ``extents`` values of the own digits but the first."""
    term, own, other = view.term, view.own.var, view.other.var
    ranges: dict[Var, tuple[Expr, Expr]] = {**tile_ends(own, view.own_radix, extents)}
    if view.own_radix != PLAIN:
        firsts, lasts = zip(*ranges.values(), strict=True)
        ranges[own] = (view.own_radix.position(firsts), view.own_radix.position(lasts))
    own_tile = Tile(dict(ranges), own)
    known = _known(view, ranges)
    when, full = may(conj(*view.on_own), own_tile), must(conj(*view.on_own), own_tile)
    if view.unsolved:
        full = FALSE
    low: list[Expr] = []
    high: list[Expr] = []
    full_low: Expr = ZERO
    full_high: Expr = ZERO
    ends = _ends(ranges)
    # Later digits first: the earlier ones' bounds may hang on them.
    for place in reversed(range(len(view.digits))):
        digit, tile = view.digits[place], Tile(dict(ranges), own)
        outer = (known(bounds(digit.low, tile)[0]), known(bounds(digit.high, tile)[1]))
        inner = (known(bounds(digit.inner_low, tile)[1]), known(bounds(digit.inner_high, tile)[0]))
        limits = view.other_radix.ranges(other).get(digit.var, (ZERO, LAST))
        first = limits[0] if outer[0] is None else _tidy(outer[0], ends)
        last = limits[1] if outer[1] is None else _tidy(outer[1], ends)
        low.insert(0, first)
        high.insert(0, last)
        ranges[digit.var] = (first, last)
        if inner[0] is None or inner[1] is None:
            full = FALSE
        elif place > 0:
            full = conj(full, le(inner[0], first), le(last, inner[1]))
        else:
            full_low, full_high = _tidy(inner[0], ends), _tidy(inner[1], ends)
    worth = _worth(view, ranges)
    whole = Tile({var: pair for var, pair in ranges.items() if var != own or view.own_radix == PLAIN})
    masked = [item for item in (*view.on_own, *view.mask) if must(item, whole) != TRUE]
    masked += [limit for limit in view.limits if not _exact(limit, view.digits, ranges)]
    packed = Walk(other, members=conj(view.other.interval(), view.indexed)) if view.indexed != TRUE else None
    return Sweep(
        walk=packed or Walk(other, view.other_radix),
        when=when,
        low=tuple(low),
        high=tuple(high),
        full_when=full,
        full_low=full_low if full != FALSE else ZERO,
        full_high=full_high if full != FALSE else ZERO,
        mask=conj(*masked),
        worth=worth,
        selection=view.passed_over,
        drawn=term.drawn,
        scatter=None,
        claim=term.formula(),
        origin=term.origin,
    )


def _exact(limit: Expr, digits: tuple[Digit, ...], ranges: Mapping[Var, tuple[Expr, Expr]]) -> bool:
    """Whether the range of the first digit that a limit mentions ends there, whatever the others are."""
    _, *others = (digit.var for digit in digits if digit.var in mentioned(limit))
    return all(ranges[digit][0] == ranges[digit][1] for digit in others)


def _worth(view: View, ranges: Mapping[Var, tuple[Expr, Expr]]) -> Expr:
    """Whether a tile of the other side can hold an edge, over the ends of its first digit."""
    if view.term.drawn is not None or view.indexed != TRUE:
        return TRUE
    other, radix = view.other.var, view.other_radix
    first, *later = radix.digits(other)
    ends = {**ranges, first: (LEAST, MOST)}
    # What is looked up is told by its position.
    ends[other] = (
        radix.position((LEAST, *(ranges[digit][0] for digit in later))),
        radix.position((MOST, *(ranges[digit][1] for digit in later))),
    )
    return conj(*(may(item, Tile(ends)) for item in view.unsolved))


def _known(view: View, ranges: dict[Var, tuple[Expr, Expr]]) -> Callable[[Expr | None], Expr | None]:
    """Simplifies bounds by the values that the own digits' ends can take."""
    if view.own_radix == view.other_radix == PLAIN:
        return lambda expr: expr
    limits = {
        end: limit
        for digit, limit in view.own_radix.ranges(view.own.var).items()
        for end in ranges[digit]
        if isinstance(end, Var)
    }
    weights = {*view.own_radix.weights, *view.other_radix.weights}
    known = Known(Tile(limits), tuple(sorted(weights - {1})))

    def simpler(expr: Expr | None) -> Expr | None:
        return None if expr is None else known.expression(expr)

    return simpler


def _ends(ranges: dict[Var, tuple[Expr, Expr]]) -> frozenset[Expr]:
    return frozenset(end for pair in ranges.values() for end in pair if isinstance(end, Var))


def _tidy(bound: Expr, ends: frozenset[Expr]) -> Expr:
    """A bound without the sequence's ends where a tile's own ends, which lie within, already decide."""
    match bound:
        case Max(args) if ZERO in args and any(_within(arg, ends) for arg in args):
            return maximum(*(arg for arg in args if arg != ZERO))
        case Min(args) if LAST in args and any(_within(arg, ends) for arg in args):
            return minimum(*(arg for arg in args if arg != LAST))
    return bound


def _within(expr: Expr, ends: frozenset[Expr]) -> bool:
    match expr:
        case Var():
            return expr in ends
        case TileMin(Lookup(table, _, _)) | TileMax(Lookup(table, _, _)):
            return "." in table  # first and last positions of something
    return False

"""What is the same for all plans, proven once: how loops are cut and shared, and the rules of intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product

from attnc.expression import (
    FALSE,
    TRUE,
    Const,
    Expr,
    Var,
    add,
    between,
    ceil_div,
    conj,
    disj,
    eq,
    floor_div,
    ge,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    negate,
    scale,
    select,
    sub,
)
from attnc.intervals import Range, Tile, bounds, combined, may, must
from attnc.solver import Answer, valid


def loop_is_a_partition(block: int) -> Answer:
    """Proves that the emitted loops visit each place of ``[begin, end)`` in exactly one of three parts.

    The parts are ``[begin, masked_end)``, ``[masked_end, full_stop)`` and ``[full_stop, end)``; the middle
    one lies inside ``[full_begin, full_end)`` and consists of whole tiles, whatever the four numbers are.
    """
    begin, end, full_begin, full_end, x = (
        Var(name) for name in ("begin", "end", "full_begin", "full_end", "x")
    )
    first, middle = split_points(begin, end, full_begin, full_end, block)
    parts = [
        conj(le(begin, x), lt(x, minimum(first, end))),
        conj(le(first, x), lt(x, middle)),
        conj(le(middle, x), lt(x, end)),
    ]
    inside = conj(le(begin, x), lt(x, end))
    once = conj(*(negate(conj(a, b)) for a, b in combinations(parts, 2)))
    covered = conj(disj(negate(inside), disj(*parts)), disj(inside, negate(disj(*parts))))
    unmasked = disj(negate(parts[1]), conj(le(full_begin, x), lt(x, full_end)))
    whole = disj(lt(middle, first), ge(middle, first))
    return valid(conj(once, covered, unmasked, whole))


def split_points(begin: Expr, end: Expr, full_begin: Expr, full_end: Expr, block: int) -> tuple[Expr, Expr]:
    """Where a sweep's first masked part and its unmasked part stop, as the emitted kernels compute it."""
    start = minimum(maximum(full_begin, begin), maximum(end, begin))
    masked_end = add(begin, mul(block, ceil_div(sub(start, begin), block)))
    whole_tiles = maximum(0, floor_div(sub(minimum(full_end, end), masked_end), block))
    return masked_end, add(masked_end, mul(Const(block), whole_tiles))


def shares_are_a_partition(shares: int, block: int) -> Answer:
    """Proves that the shares of a sweep visit each place of ``[begin, end)`` once, whatever the two are."""
    begin, end, x = Var("begin"), Var("end"), Var("x")
    ends = [share_ends(begin, end, share, shares, block) for share in range(shares)]
    parts = [conj(le(first, x), lt(x, stop)) for first, stop in ends]
    inside = conj(le(begin, x), lt(x, end))
    once = conj(*(negate(conj(a, b)) for a, b in combinations(parts, 2)))
    covered = conj(disj(negate(inside), disj(*parts)), disj(inside, negate(disj(*parts))))
    return valid(conj(covered, once), [])


def share_ends(begin: Expr, end: Expr, share: int, shares: int, block: int) -> tuple[Expr, Expr]:
    """Where one of the shares of a sweep begins and ends, as the emitted kernels compute it."""
    tiles = ceil_div(maximum(sub(end, begin), 0), block)
    size = mul(Const(block), ceil_div(tiles, shares))
    return add(begin, scale(share, size)), minimum(add(begin, scale(share + 1, size)), end)


# Quotients and remainders are bounded alike for every divisor; these stand for all.
DIVISORS = (2, 3, 7, 64, 100)


def rules_of_intervals() -> Iterator[tuple[str, Answer]]:
    """Proves the rules by which ``attnc.intervals`` bounds an expression and judges a condition.

    The parts of an expression are fresh variables, each between two more or with no bound on a side: so a
    rule holds for whatever stands there, and what is built of such parts lies between its bounds.
    """
    x, y, z = (Var(name) for name in "xyz")
    shapes: list[tuple[str, Expr]] = [
        ("sum", add(x, y, 3)),
        ("difference", sub(x, y)),
        ("least", minimum(x, y, z)),
        ("greatest", maximum(x, y, z)),
        ("product", mul(x, y)),
        ("square", mul(x, x)),
        ("choice", select(le(z, 0), x, y)),
        *((f"{factor} times", scale(factor, x)) for factor in (-7, -1, 2, 64)),
        *((f"quotient by {by}", floor_div(x, by)) for by in (-3, *DIVISORS)),
        *((f"remainder by {by}", mod(x, by)) for by in DIVISORS),
    ]
    conditions: list[tuple[str, Expr]] = [
        ("at most", le(x, 0)),
        ("equal", eq(x, 0)),
        ("unequal", negate(eq(x, 0))),
        ("both", conj(le(x, 0), eq(y, 0))),
        ("either", disj(le(x, 0), eq(y, 0))),
    ]
    parts = (x, y, z)
    ends = {part: (Var(f"{part.name}_low"), Var(f"{part.name}_high")) for part in parts}
    for known in product(((True, True), (True, False), (False, True), (False, False)), repeat=2):
        given: list[Expr] = []
        ranges: dict[Expr, Range] = {}
        for part, (has_low, has_high) in zip(parts, (*known, known[0]), strict=True):
            least, greatest = ends[part]
            given += [le(least, part)] * has_low + [le(part, greatest)] * has_high
            ranges[part] = (least if has_low else None, greatest if has_high else None)
        for name, expr in shapes:
            low, high = combined(expr, ranges.__getitem__, _nonpositive(ranges[z]))
            above = TRUE if low is None else le(low, expr)
            yield name, valid(conj(above, TRUE if high is None else le(expr, high)), given)
    tile = Tile({part: ends[part] for part in parts})
    given = [between(low, part, high) for part, (low, high) in ends.items()]
    for name, expr in shapes:
        # Where it only ever rises or falls with each part, the ends are put in as they are.
        low, high = bounds(expr, tile)
        yield f"{name} over a tile", valid(between(low or expr, expr, high or expr), given)
    for name, condition in conditions:
        yield f"may be {name}", valid(may(condition, tile), [*given, condition])
        yield f"must be {name}", valid(condition, [*given, must(condition, tile)])


def _nonpositive(within: Range) -> Callable[[Expr], tuple[Expr, Expr]]:
    """Whether what lies in the range is always at most 0, and whether it ever is; for any condition."""
    low, high = within
    found = (FALSE if high is None else le(high, 0), TRUE if low is None else le(low, 0))
    return lambda _: found

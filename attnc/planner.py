"""Terms to passes: which digits each side is counted in is chosen by counting what the tiles would touch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from math import prod

from attnc.budget import OutOfWork, allows, charge, lose, share
from attnc.congruences import joined
from attnc.counting import LONG_STEPS, STEP, TILE, grows, heavy, longest, passed_over, touched, unmasked
from attnc.decompose import decompose
from attnc.digits import PLAIN, Radix, radices
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    Drawn,
    Expr,
    K,
    Lookup,
    Max,
    Min,
    Q,
    TileMax,
    TileMin,
    Var,
    conj,
    constant,
    disj,
    fold,
    maximum,
    merged,
    minimum,
    negate,
    sub,
    walk,
)
from attnc.factorise import Factor, factors
from attnc.pattern import Body, Pattern, Union, formula
from attnc.relation import Axis, BodyTerms, Lattice, Term
from attnc.scattering import scattered
from attnc.schedule import BodyPlan, Form, Order, Pass, Schedule, Side, Sweep, Walk, whole
from attnc.simplify import LAST
from attnc.sweeps import sweep_of
from attnc.views import ranges_of, view

MOST_KEY_SWEEPS = 2
LONGEST = 1 << 20  # longer sequences are not weighed

# What it costs a row to be taken up by one more pass, in pairs of positions: its sums are written and read
# once more in 32 bits, 16 bytes for every 4 FLOPs of a pair, at 180 FLOPs to the byte.
JOINING = 700
# Tiles of half the rows keep the matrix units less busy.
NARROW_GAIN = 0.8
# Steps of twice the positions take a quarter fewer instructions for a pair, and a tenth fewer under a mask.
LONG_GAIN = 0.95
# So many positions may be swept for one tile where tiles are too few to fill a device; more come in shares.
LONG = 1024
# Of the work that a pattern may cost, what may be spent on choosing among plans; and what making and counting
# one sweep takes, for each part of its bounds and masks.
PART_OF_WORK = 0.3
SWEEP_STEPS = 150
CHOOSING = "choosing the digits of tiles"
# A test in a loop keeps it from fetching ahead: it must spare so many of the tiles.
WORTH_TESTING = 0.3


def plan(pattern: Pattern, bodies: Iterable[BodyTerms]) -> Schedule:
    """The passes for every body, not yet proven; all expressions have their parameters filled in."""
    n = usual_length(pattern)
    # A sink is there before any other weight, and is not joined with states.
    sinks = any(part.weights.sink is not None for item in pattern.bodies for part in item.parts)
    bodies = tuple(bodies)
    plans: list[BodyPlan] = []
    reports: dict[str, None] = {}
    with share(PART_OF_WORK):
        for place, item in enumerate(bodies):
            with share(1 / (len(bodies) - place)):
                plans.append(_body_plan(pattern, item, n, () if sinks else factors(item.body)))
                if not allows(0, CHOOSING):
                    reports["the relation is large, and not all ways of laying out its tiles were tried"] = (
                        None
                    )
    return Schedule(pattern, tuple(plans), tuple(reports))


def usual_length(pattern: Pattern) -> int:
    """The length that plans are weighed at: the grid's, where there is one and its tiles can be counted."""
    return min(prod(size for _, size in pattern.grid), LONGEST) if pattern.grid else 1 << 15


def masked_plan(body: Body) -> BodyPlan:
    """Everything visited and masked by the relation itself: right by construction, whatever the relation."""
    condition = merged(fold(formula(body.relation)))
    return BodyPlan(body, (whole("query", Q, K, condition),), (whole("key", K, Q, condition),))


def begun(rest: BodyPlan, found: tuple[Factor | None, ...], body: Body) -> BodyPlan:
    """The plan of a body of which some part is summed up in states: ``rest`` goes on with what those gave."""
    query = tuple(replace(part, continues=True) for part in rest.query)
    return replace(rest, query=query, factors=found, whole=body)


def _body_plan(pattern: Pattern, item: BodyTerms, n: int, found: tuple[Factor | None, ...]) -> BodyPlan:
    if found and all(found):
        return BodyPlan(item.body, (), (), found)
    swept = [part for part, factor in zip(item.body.parts, found, strict=False) if factor is None]
    if any(found) and all(
        part.weights == swept[0].weights and part.weights.feature is None for part in swept
    ):
        # The softmax of some edges goes on with what linear attention of the others gave.
        relation = swept[0].relation
        if len(swept) > 1:
            relation = Union(tuple(part.relation for part in swept), item.body.relation.span)
        rest = Body(item.body.heads, relation, (replace(swept[0], relation=relation),))
        [own] = decompose(replace(pattern, bodies=(rest,)))
        return begun(_body_plan(pattern, own, n, ()), found, item.body)
    terms = [_folded(term) for term in item.terms]
    try:
        with share(0.5):
            query = _passes("query", terms, n)
        return BodyPlan(item.body, query, _passes("key", terms, n))
    except OutOfWork as error:
        lose(error, "all tiles are visited and masked instead")
        return masked_plan(item.body)


def _folded(term: Term) -> Term:
    def axis(item: Axis) -> Axis:
        lattice = item.lattice and Lattice(_settled(item.lattice.step), _settled(item.lattice.offset))
        members = None if item.members is None else _settled(item.members)
        return replace(
            item, first=_settled(item.first), last=_settled(item.last), lattice=lattice, members=members
        )

    drawn = None if term.drawn is None else _settled(term.drawn)
    assert drawn is None or isinstance(drawn, Drawn)
    return replace(
        term,
        rows=axis(term.rows),
        columns=axis(term.columns),
        low=_settled(term.low),
        high=_settled(term.high),
        leftover=tuple(map(_settled, term.leftover)),
        drawn=drawn,
    )


def _settled(expr: Expr) -> Expr:
    return merged(fold(expr))


# --- passes ---------------------------------------------------------------------------------------------


def _passes(side: Side, terms: list[Term], n: int) -> tuple[Pass, ...]:
    own = Q if side == "query" else K
    packed: dict[Axis, list[Term]] = {}
    spread: list[Term] = []
    for term in terms:
        axis = _own_axis(term, own)
        if axis.packed:
            packed.setdefault(axis, []).append(term)
        else:
            spread.append(term)
    # Of the query side every row is begun by one pass; on the key side contributions are added up.
    taken = disj(*(axis.condition() for axis in packed)) if side == "query" else FALSE
    passes: list[Pass] = []
    if spread or side == "query" or not packed:
        passes += _spread_passes(side, own, spread, negate(taken), n)
    for axis, members in packed.items():
        passes += _packed_passes(side, own, axis, members, n)
    return tuple(passes)


def _own_axis(term: Term, own: Var) -> Axis:
    return term.rows if own == Q else term.columns


def _packed_passes(side: Side, own: Var, axis: Axis, terms: list[Term], n: int) -> list[Pass]:
    """Passes over the chosen positions of one side: counted by digits where they can be, else by an index."""
    for radix in radices(axis.selection())[1:]:
        ranges = ranges_of(axis, radix)
        if ranges is not None:
            sizes = [1 + (constant(sub(high, low)) or 0) for low, high in ranges]
            if min(sizes) < 1:
                return []  # no position is chosen
            spans = _spans(sizes)
            frame = Pass(side, Walk(own, radix, ranges), spans, axis.interval(), ())
            return _finished(frame, [_best(frame, term, n)[1] for term in terms], n)
    frame = Pass(side, Walk(own, members=axis.condition()), (), TRUE, ())
    return _finished(frame, [_best(frame, term, n)[1] for term in terms], n)


def _spread_passes(side: Side, own: Var, terms: list[Term], owned: Expr, n: int) -> list[Pass]:
    """Passes over all positions of one side; several, where no one way of tiling suits all terms."""
    frames = [Pass(side, Walk(own), (), owned, ())]
    told = [ways for term in terms for ways in _ways(term)]
    for radix in dict.fromkeys(radix for ways in told for radix in radices(ways.formula())[1:]):
        limits = tuple(radix.ranges(own).values())
        rectangles = [_across(radix, ways, own) for ways in told] if len(radix.sizes) > 1 else []
        for spans in dict.fromkeys(
            (tuple(1 for _ in radix.sizes), _spans(radix.sizes), *_chunks(radix.sizes), *rectangles)
        ):
            frames.append(Pass(side, Walk(own, radix, limits), spans, owned, ()))
    if not terms:
        return [frames[0]]
    found: list[list[tuple[float, Sweep]]] = []
    for frame in frames:
        # What is found for some terms alone is of no use.
        if not found or allows(0, CHOOSING):
            found.append([_best(frame, term, n) for term in terms])

    def cost(chosen: tuple[int, ...]) -> float:
        pairs = sum(min(found[i][j][0] for i in chosen) for j in range(len(terms)))
        return pairs + (len(chosen) - 1) * JOINING * n

    numbers = range(len(found))
    chosen = min((*((i,) for i in numbers), *combinations(numbers, 2)), key=cost)
    passes: list[Pass] = []
    for i in chosen:
        mine = [j for j in range(len(terms)) if i == min(chosen, key=lambda c: found[c][j][0])]
        if mine:
            frame = replace(frames[i], continues=bool(passes))
            passes += _finished(frame, [found[i][j][1] for j in mine], n)
    return passes


def _spans(sizes: Sequence[int]) -> tuple[int, ...]:
    """A tile's extent in the digits but the first: a rectangle of few values each, 16 in all at the most."""
    most = 16 if len(sizes) == 1 else 4
    if len(sizes) == 1 and sizes[0] > 16:
        most = 8
    if len(sizes) > 2:
        most = 2
    return tuple(min(size, most if place < 4 else 1) for place, size in enumerate(sizes))


def _is_deep(radix: Radix) -> bool:
    """Whether digits are so many, or so uneven, that only a tile in the same digits bounds them shortly."""
    return len(radix.sizes) > 2 or bool(radix.limits(Q))


def _across(radix: Radix, term: Term, own: Var) -> tuple[int, ...]:
    """Extents in those digits that edges lead across; edges stay within one value of the others."""
    digits = zip(view(term, own, TRUE, radix, radix).digits[1:], radix.ranges(own).items(), strict=True)
    within = [
        item.low == maximum(low, place) and item.high == minimum(place, high)
        for item, (place, (low, high)) in digits
    ]
    spans = iter(_spans([size for size, alone in zip(radix.sizes, within, strict=True) if not alone]))
    return tuple(1 if alone else next(spans) for alone in within)


def _chunks(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Extents that end where a small last digit does: a chunk of a grid's rows, or one residue of them."""
    if len(sizes) > 1 and sizes[-1] <= 16:
        *more, last = sizes
        yield (*(1 for _ in more), last)
        yield (*(min(size, max(1, 16 // len(more) // 2)) for size in more), 1)


def _ways(term: Term) -> tuple[Term, ...]:
    """A term as it stands and, where that is something else, with its congruences joined."""
    one = replace(term, leftover=joined(term.leftover))
    return (term,) if len(one.leftover) == len(term.leftover) else (term, one)


def _best(frame: Pass, term: Term, n: int) -> tuple[float, Sweep]:
    """The sweep for one term that touches the fewest pairs, and how many."""
    return min((_best_told(frame, ways, n) for ways in _ways(term)), key=lambda item: item[0])


def _best_told(frame: Pass, term: Term, n: int) -> tuple[float, Sweep]:
    """The same, of the term as it is told."""
    walked = frame.walk
    plain = _sweep(frame, term, PLAIN)
    alone = scattered(plain, walked.var)
    found = [] if alone is None else [(touched(frame, alone, n, TILE, STEP), alone)]
    if term.drawn is not None and (walked.radix != PLAIN or walked.members is not None):
        # Lists are kept by tiles of consecutive positions.
        return min([*found, (float("inf"), plain)], key=lambda item: item[0])
    other = term.columns if walked.var == Q else term.rows
    options = [PLAIN]
    if term.drawn is None and walked.members is None:
        options += [
            radix
            for radix in radices(term.formula())[1:]
            if (radix == walked.radix or not (_is_deep(radix) or _is_deep(walked.radix)))
            and (not other.packed or ranges_of(other, radix) is not None)
        ]
    sweeps = [plain]
    for radix in options[1:]:
        if allows(0, CHOOSING):
            sweeps.append(_sweep(frame, term, radix))
    found += [(touched(frame, sweep, n, TILE, STEP), sweep) for sweep in sweeps]
    return min(found, key=lambda item: item[0])


def _sweep(frame: Pass, term: Term, radix: Radix) -> Sweep:
    owned = TRUE if frame.walk.members is not None else conj(frame.owned, frame.walk.condition())
    sweep = sweep_of(view(term, frame.walk.var, owned, frame.walk.radix, radix), frame.extents)
    bounds = (*sweep.low, *sweep.high, sweep.full_low, sweep.full_high)
    parts = {
        part
        for expr in (*bounds, sweep.when, sweep.full_when, sweep.mask, sweep.worth)
        for part in walk(expr)
    }
    charge(SWEEP_STEPS * len(parts), CHOOSING)
    return sweep


def _finished(frame: Pass, sweeps: list[Sweep], n: int) -> list[Pass]:
    """The frame with its sweeps: all of a query's, few of a key's, whose gradients take many registers."""
    size = max(1, len(sweeps)) if frame.side == "query" else MOST_KEY_SWEEPS
    groups = [tuple(sweeps[i : i + size]) for i in range(0, max(1, len(sweeps)), size)]
    passes = []
    for group in groups:
        wide, narrow = (
            sum(touched(frame, _unbounded_by_inputs(sweep), n, tile, STEP) for sweep in group)
            for tile in (TILE, TILE // 2)
        )
        kept = tuple(_trimmed(frame, sweep, n) for sweep in group)
        # Rows that are taken one by one keep both sides' rows in registers.
        alone = any(sweep.scatter is not None for sweep in group)
        form: Form = "narrow" if alone or narrow < NARROW_GAIN * wide else "wide"
        if form == "wide" and not any(sweep.moving for sweep in group):
            step = LONG_STEPS[frame.side]
            longer = sum(touched(frame, _unbounded_by_inputs(sweep), n, TILE, step) for sweep in group)
            form = "long" if LONG_GAIN * longer < wide else "wide"
        part = replace(frame, sweeps=kept, form=form)
        # Of chosen rows only some are there, the first ones.
        order: Order = "forwards"
        if part.walk.members is None and grows(part, n, TILE, STEP):
            order = "backwards"
        reach = longest(part, n, TILE)
        long = (constant(reach) or LONG) >= LONG and reach != ZERO
        first, last = heavy(part, n, TILE) if long else (0, 0)
        if first or last:
            order = "inwards" if first and last else "backwards" if last else "forwards"
        most = 2 * max(first, last) if first and last else first + last
        passes.append(replace(part, order=order, heavy=most, longest=reach if long else ZERO))
    return passes


def _unbounded_by_inputs(sweep: Sweep) -> Sweep:
    """The sweep as long as it may be: documents and the like are mostly longer than a tile."""
    if sweep.walk.radix != PLAIN:
        return sweep
    low = tuple(_without_inputs(bound, Max, ZERO) for bound in sweep.low)
    return replace(sweep, low=low, high=tuple(_without_inputs(bound, Min, LAST) for bound in sweep.high))


def _without_inputs(bound: Expr, kind: type[Min] | type[Max], end: Expr) -> Expr:
    if not any(isinstance(part, Lookup | TileMin | TileMax) for part in walk(bound)):
        return bound
    if not isinstance(bound, kind):
        return end
    arms = [_without_inputs(arm, kind, end) for arm in bound.args]
    return maximum(*arms) if kind is Max else minimum(*arms)


def _trimmed(frame: Pass, sweep: Sweep, n: int) -> Sweep:
    """The sweep without what does not pay: a loop that is never run, a test that tiles hardly ever fail."""
    if sweep.scatter is not None:
        return sweep
    if not unmasked(frame, sweep, n, TILE // 4, STEP // 4):  # with the smallest tiles that there are
        sweep = replace(sweep, full_when=FALSE)
    if passed_over(frame, sweep, n, TILE, STEP) < WORTH_TESTING:
        sweep = replace(sweep, worth=TRUE)
    return sweep

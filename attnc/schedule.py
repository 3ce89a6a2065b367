"""Terms to passes and sweeps: who walks over what, told in positions and not yet in tiles or code.

A *pass* walks over the positions of one side (its own), tile by tile; for every tile each of its *sweeps*
walks over positions of the other side. Query-side passes give outputs and query gradients and own every
query exactly once, so nothing has to be joined. Key-side passes give key and value gradients; what several
of them find for one key is added up in a fixed order.

All bounds of a sweep are expressions over the ends of the tile at hand, ``first`` and ``last``: positions
outside ``[low, high]`` need not be visited, positions inside ``[full_low, full_high]`` need no mask. The key
side's are the same terms, transposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

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
    between,
    conj,
    disj,
    fold,
    maximum,
    merged,
    minimum,
    negate,
)
from attnc.intervals import Tile, bounds, may, must
from attnc.notation import show
from attnc.pattern import Body, Pattern, formula
from attnc.relation import Axis, BodyTerms, Lattice, Term
from attnc.simplify import LAST, holds
from attnc.views import View, across, along

Side = Literal["query", "key"]
MOST_KEY_SWEEPS = 2
FIRST_ROW, LAST_ROW = Var("first"), Var("last")


@dataclass(frozen=True)
class Walk:
    """How positions are visited: all in a range, one residue, or those that meet a predicate, packed.

    first, last: the range, inclusive, over ``n``.
    lattice: step and offset of the residue, when packed by arithmetic.
    members: the predicate over ``var``, when packed through an index that is built on the device.
    """

    var: Var
    first: Expr = ZERO
    last: Expr = LAST
    lattice: Lattice | None = None
    members: Expr | None = None

    @property
    def packed(self) -> bool:
        return self.lattice is not None or self.members is not None

    def condition(self) -> Expr:
        return Axis(self.var, self.first, self.last, self.lattice, self.members).condition()


@dataclass(frozen=True)
class Sweep:
    """Positions of the other side that a tile visits.

    when: whether the tile has to do with this sweep at all, over ``first`` and ``last``.
    low, high: the positions to visit, inclusive, over ``first`` and ``last``.
    full_when, full_low, full_high: where no mask is needed; ``full_when`` is FALSE if nowhere.
    mask: what a visited pair must meet elsewhere, over ``q`` and ``k``.
    selection: what a swept position must meet everywhere, the full part included, over its own variable.
    drawn: the positions come from a list of tiles instead, those that hold a pair of this draw.
    """

    walk: Walk
    when: Expr
    low: Expr
    high: Expr
    full_when: Expr
    full_low: Expr
    full_high: Expr
    mask: Expr
    selection: Expr
    drawn: Drawn | None
    origin: str


@dataclass(frozen=True)
class Pass:
    """A walk over one side and what every tile of it sweeps.

    owned: which positions the pass answers for; others may lie in its tiles, and are not written.
    """

    side: Side
    walk: Walk
    owned: Expr
    sweeps: tuple[Sweep, ...]


@dataclass(frozen=True)
class BodyPlan:
    body: Body
    query: tuple[Pass, ...]
    key: tuple[Pass, ...]


@dataclass(frozen=True)
class Schedule:
    """A plan for every body.

    reports: what was lost where a plan could not be proven and a conservative one took its place.
    """

    pattern: Pattern
    bodies: tuple[BodyPlan, ...]
    reports: tuple[str, ...] = field(default=())


def plan(pattern: Pattern, bodies: Iterable[BodyTerms]) -> Schedule:
    """The passes for every body, not yet proven; all expressions have their parameters filled in."""
    return Schedule(pattern, tuple(_body_plan(item) for item in bodies))


def _body_plan(item: BodyTerms) -> BodyPlan:
    terms = [_folded(term) for term in item.terms]
    query = _passes("query", [along(term) for term in terms])
    key = _passes("key", [across(term) for term in terms])
    return BodyPlan(item.body, query, key)


def masked_plan(body: Body) -> BodyPlan:
    """Everything visited and masked by the relation itself: right by construction, whatever the relation."""
    condition = merged(fold(formula(body.relation)))

    def whole(side: Side, own: Var, other: Var) -> Pass:
        sweep = Sweep(
            Walk(other), TRUE, ZERO, LAST, FALSE, ZERO, ZERO, condition, TRUE, None, "everything, masked"
        )
        return Pass(side, Walk(own), TRUE, (sweep,))

    return BodyPlan(body, (whole("query", Q, K),), (whole("key", K, Q),))


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


# --- passes and sweeps ------------------------------------------------------------------------------------


def _passes(side: Side, views: list[View]) -> tuple[Pass, ...]:
    own = Q if side == "query" else K
    packed: dict[Axis, list[View]] = {}
    for view in views:
        if view.own.packed:
            packed.setdefault(view.own, []).append(view)
    contiguous = [view for view in views if not view.own.packed]
    # Of the query side every row has one owner; on the key side contributions are added up.
    taken = disj(*(axis.condition() for axis in packed)) if side == "query" else FALSE
    owned = negate(taken)
    passes = []
    if contiguous or side == "query" or not packed:
        sweeps = tuple(_sweep(view, owned) for view in contiguous)
        passes += [Pass(side, Walk(own), owned, group) for group in _grouped(side, sweeps)]
    for axis, members in packed.items():
        sweeps = tuple(_sweep(view, TRUE) for view in members)
        passes += [Pass(side, _walk(axis), TRUE, group) for group in _grouped(side, sweeps)]
    return tuple(passes)


def _grouped(side: Side, sweeps: tuple[Sweep, ...]) -> list[tuple[Sweep, ...]]:
    """Sweeps that share a pass: all of a query's, few of a key's, whose gradients take many registers."""
    size = max(1, len(sweeps)) if side == "query" else MOST_KEY_SWEEPS
    return [sweeps[i : i + size] for i in range(0, max(1, len(sweeps)), size)]


def _walk(axis: Axis) -> Walk:
    if not axis.packed:
        return Walk(axis.var)
    first, last = maximum(ZERO, axis.first), minimum(LAST, axis.last)
    if axis.lattice is not None and axis.members is None:
        return Walk(axis.var, first, last, axis.lattice)
    return Walk(axis.var, first, last, None, axis.selection())


def _sweep(view: View, owned: Expr) -> Sweep:
    term, own, other = view.term, view.own, view.other
    tile = Tile({own.var: (FIRST_ROW, LAST_ROW)}, own.var)
    low, _ = bounds(view.outer[0], tile)
    _, high = bounds(view.outer[1], tile)
    on_row = TRUE if own.packed else _without_known(own, owned)
    full_when, full_low, full_high = _unmasked(view, tile, on_row)
    return Sweep(
        walk=_walk(other),
        when=may(own.interval(), tile) if not own.packed else TRUE,
        low=ZERO if low is None else _tidy(low),
        high=LAST if high is None else _tidy(high),
        full_when=full_when,
        full_low=full_low,
        full_high=full_high,
        mask=conj(on_row, TRUE if other.packed else other.interval(), term.inside()),
        selection=TRUE if other.packed else other.selection(),
        drawn=term.drawn,
        origin=term.origin,
    )


def _without_known(own: Axis, owned: Expr) -> Expr:
    """What a row of a contiguous tile must meet to be the term's, but for what all owned rows meet."""
    selection = own.selection()
    if selection != TRUE and holds(selection, between(ZERO, own.var, LAST), owned, own.interval()):
        selection = TRUE
    return conj(own.interval(), selection)


def _unmasked(view: View, tile: Tile, on_row: Expr) -> tuple[Expr, Expr, Expr]:
    """Where a tile needs no mask: a condition on the tile, and the range of the other side's positions."""
    nowhere = (FALSE, ZERO, ZERO)
    if view.inner is None:
        return nowhere
    low, high = bounds(view.inner[0], tile)[1], bounds(view.inner[1], tile)[0]
    if low is None or high is None:
        return nowhere
    when = must(on_row, tile)
    return nowhere if when == FALSE else (when, _tidy(low), _tidy(high))


def _tidy(bound: Expr) -> Expr:
    """A bound without the sequence's ends where a tile's own ends, which lie within, already decide."""
    match bound:
        case Max(args) if ZERO in args and any(map(_within, args)):
            return maximum(*(arg for arg in args if arg != ZERO))
        case Min(args) if LAST in args and any(map(_within, args)):
            return minimum(*(arg for arg in args if arg != LAST))
    return bound


def _within(expr: Expr) -> bool:
    match expr:
        case Var():
            return expr in (FIRST_ROW, LAST_ROW)
        case TileMin(Lookup(table, _, _)) | TileMax(Lookup(table, _, _)):
            return "." in table  # first and last positions of something
    return False


# --- text -------------------------------------------------------------------------------------------------


def describe(schedule: Schedule) -> str:
    """The plan in words, for ``--emit schedule``."""
    lines: list[str] = []
    for item in schedule.bodies:
        if item.body.heads.text:
            lines.append(f"heads {item.body.heads.text}")
        for part in (*item.query, *item.key):
            lines += _describe_pass(part)
    lines += [f"conservative: {report}" for report in schedule.reports]
    return "\n".join(lines)


def _describe_pass(part: Pass) -> list[str]:
    task = "outputs, query gradients" if part.side == "query" else "key and value gradients"
    lines = [f"{part.side} pass over {_describe_walk(part.walk)}: {task}"]
    if part.owned != TRUE:
        lines.append(f"    answers for {part.walk.var.name} where {show(part.owned)}")
    for sweep in part.sweeps:
        lines.append(f"    sweep {sweep.origin}")
        if sweep.when != TRUE:
            lines.append(f"        only if {show(sweep.when)}")
        source = "tiles listed by the draw" if sweep.drawn else f"[{show(sweep.low)}, {show(sweep.high)}]"
        lines.append(f"        {_describe_walk(sweep.walk)} in {source}")
        if sweep.full_when != FALSE:
            condition = "" if sweep.full_when == TRUE else f" if {show(sweep.full_when)}"
            lines.append(f"        unmasked in [{show(sweep.full_low)}, {show(sweep.full_high)}]{condition}")
        if sweep.mask != TRUE:
            lines.append(f"        elsewhere masked by {show(sweep.mask)}")
        if sweep.selection != TRUE:
            lines.append(f"        skipping {sweep.walk.var.name} unless {show(sweep.selection)}")
    if not part.sweeps:
        lines.append("    nothing to sweep: zeros")
    return lines


def _describe_walk(walk: Walk) -> str:
    name = "queries" if walk.var == Q else "keys"
    if walk.lattice is not None:
        step, offset = show(walk.lattice.step), show(walk.lattice.offset)
        return f"{name} with {walk.var.name} % {step} == {offset}, packed"
    if walk.members is not None:
        return f"{name} where {show(walk.members)}, packed"
    whole = (walk.first, walk.last) == (ZERO, LAST)
    return f"all {name}" if whole else f"{name} {show(walk.first)}..{show(walk.last)}"

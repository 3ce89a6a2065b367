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
    And,
    Drawn,
    Expr,
    K,
    Lookup,
    Max,
    Min,
    N,
    Or,
    Q,
    TileMax,
    TileMin,
    Var,
    add,
    between,
    conj,
    disj,
    floor_div,
    fold,
    ge,
    le,
    maximum,
    minimum,
    mul,
    negate,
    select,
    show,
)
from attnc.intervals import Tile, bounds
from attnc.isolate import Bounds, equal_entries, expand, mentions, solve
from attnc.pattern import Body, Pattern, formula
from attnc.relation import Axis, BodyTerms, Lattice, Term
from attnc.simplify import LAST, holds

Side = Literal["query", "key"]
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
    query = _passes("query", [_along(term) for term in terms])
    key = _passes("key", [_across(term) for term in terms])
    return BodyPlan(item.body, query, key)


def masked_plan(body: Body) -> BodyPlan:
    """Everything visited and masked by the relation itself: right by construction, whatever the relation."""
    condition = fold(formula(body.relation))

    def whole(side: Side, own: Var, other: Var) -> Pass:
        sweep = Sweep(
            Walk(other), TRUE, ZERO, LAST, FALSE, ZERO, ZERO, condition, TRUE, None, "everything, masked"
        )
        return Pass(side, Walk(own), TRUE, (sweep,))

    return BodyPlan(body, (whole("query", Q, K),), (whole("key", K, Q),))


def _folded(term: Term) -> Term:
    def axis(item: Axis) -> Axis:
        lattice = item.lattice and Lattice(fold(item.lattice.step), fold(item.lattice.offset))
        members = None if item.members is None else fold(item.members)
        return replace(item, first=fold(item.first), last=fold(item.last), lattice=lattice, members=members)

    drawn = None if term.drawn is None else fold(term.drawn)
    assert drawn is None or isinstance(drawn, Drawn)
    return replace(
        term,
        rows=axis(term.rows),
        columns=axis(term.columns),
        low=fold(term.low),
        high=fold(term.high),
        leftover=tuple(map(fold, term.leftover)),
        drawn=drawn,
    )


# --- one term, seen from either side ----------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """A term as one side sees it: for each of its own positions, bounds on the other's.

    inner: bounds within which nothing is left to be masked, or None.
    """

    term: Term
    own: Axis
    other: Axis
    outer: tuple[Expr, Expr]
    inner: tuple[Expr, Expr] | None


def _along(term: Term) -> _View:
    """The query's view: the term as it stands."""
    return _view(term, term.rows, term.columns, Bounds(term.low, term.high), exact=True)


def _across(term: Term) -> _View:
    """The key's view: the bounds solved for the query."""
    low = TRUE if term.low == ZERO else le(term.low, K)
    high = TRUE if term.high == LAST else le(K, term.high)
    found, exact = _solved(expand(conj(low, high)), Q)
    return _view(term, term.columns, term.rows, found, exact)


def _view(term: Term, own: Axis, other: Axis, found: Bounds, exact: bool) -> _View:
    lows = [ZERO, other.first, *([found.low] if found.low is not None else [])]
    highs = [LAST, other.last, *([found.high] if found.high is not None else [])]
    inner_lows, inner_highs = list(lows), list(highs)
    clear = exact and term.drawn is None
    for literal in term.leftover:
        equal = equal_entries(literal)
        if equal is None:
            clear = False
            continue
        # Equal entries lie between the first and the last of them, and a run of them has nothing else in it.
        table, step = equal
        ends = [Lookup(f"{table}.{name}", (floor_div(own.var, step),)) for name in _ENDS]
        first, last, run_first, run_last = (mul(step, end) for end in ends)
        lows.append(first)
        highs.append(add(last, step, -1))
        inner_lows.append(run_first)
        inner_highs.append(add(run_last, step, -1))
    inner = (maximum(*inner_lows), minimum(*inner_highs)) if clear else None
    return _View(term, own, other, (maximum(*lows), minimum(*highs)), inner)


_ENDS = ("first", "last", "run_first", "run_last")


def _solved(condition: Expr, var: Var) -> tuple[Bounds, bool]:
    """Bounds on ``var`` that ``condition`` implies, and whether they say all that it says."""
    match condition:
        case And(args):
            parts = [_solved(arg, var) for arg in args]
            lows = [b.low for b, _ in parts if b.low is not None]
            highs = [b.high for b, _ in parts if b.high is not None]
            exact = all(sure for _, sure in parts)
            return Bounds(maximum(*lows) if lows else None, minimum(*highs) if highs else None), exact
        case Or(args):
            free = [arg for arg in args if not mentions(arg, var)]
            parts = [_solved(arg, var) for arg in args if mentions(arg, var)]
            lows, highs = [b.low for b, _ in parts], [b.high for b, _ in parts]
            sure = all(exact for _, exact in parts)
            # What doesn't hang on the variable opens or shuts the range, at whichever end the rest bounds.
            opening = disj(*free)
            if all(low is not None for low in lows):
                low = minimum(*(x for x in lows if x is not None), select(opening, 0, N))
                hull = maximum(*(x for x in highs if x is not None)) if None not in highs and not free else None
                return Bounds(low, hull), sure and all(high is None for high in highs)
            if all(high is not None for high in highs):
                high = maximum(*(x for x in highs if x is not None), select(opening, LAST, -1))
                return Bounds(high=high), sure and all(low is None for low in lows)
            return Bounds(), False
    if condition == TRUE:
        return Bounds(), True
    if not mentions(condition, var):
        return Bounds(low=select(condition, 0, N)), True
    found = solve(condition, var)
    return (Bounds(), False) if found is None else (found, True)


# --- passes and sweeps ------------------------------------------------------------------------------------


def _passes(side: Side, views: list[_View]) -> tuple[Pass, ...]:
    own = Q if side == "query" else K
    packed: dict[Axis, list[_View]] = {}
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
        passes.append(Pass(side, Walk(own), owned, sweeps))
    for axis, members in packed.items():
        walk = _walk(axis)
        passes.append(Pass(side, walk, TRUE, tuple(_sweep(view, TRUE) for view in members)))
    return tuple(passes)


def _walk(axis: Axis) -> Walk:
    if not axis.packed:
        return Walk(axis.var)
    first, last = maximum(ZERO, axis.first), minimum(LAST, axis.last)
    if axis.lattice is not None and axis.members is None:
        return Walk(axis.var, first, last, axis.lattice)
    return Walk(axis.var, first, last, None, axis.selection())


def _sweep(view: _View, owned: Expr) -> Sweep:
    term, own, other = view.term, view.own, view.other
    tile = Tile({own.var: (FIRST_ROW, LAST_ROW)}, own.var)
    low, _ = bounds(view.outer[0], tile)
    _, high = bounds(view.outer[1], tile)
    when, full_when, on_row = TRUE, TRUE, TRUE
    if not own.packed:
        # Only some rows of a contiguous tile may belong to the term.
        when = conj(_unless(own.first, ZERO, ge(LAST_ROW, own.first)), _unless(own.last, LAST, le(FIRST_ROW, own.last)))
        full_when = conj(
            _unless(own.first, ZERO, ge(FIRST_ROW, own.first)), _unless(own.last, LAST, le(LAST_ROW, own.last))
        )
        on_row = conj(
            _unless(own.first, ZERO, ge(own.var, own.first)), _unless(own.last, LAST, le(own.var, own.last))
        )
        selection = own.selection()
        if selection != TRUE and not holds(selection, between(ZERO, own.var, LAST), owned, own.condition()):
            on_row, full_when = conj(on_row, selection), FALSE
        elif selection != TRUE and owned == TRUE:
            on_row, full_when = conj(on_row, selection), FALSE
    on_column = TRUE
    if not other.packed:
        on_column = conj(
            _unless(other.first, ZERO, ge(other.var, other.first)), _unless(other.last, LAST, le(other.var, other.last))
        )
    full_low, full_high = ZERO, ZERO
    if view.inner is None or term.drawn is not None:
        full_when = FALSE
    else:
        least, greatest = bounds(view.inner[0], tile)[1], bounds(view.inner[1], tile)[0]
        if least is None or greatest is None:
            full_when = FALSE
        else:
            full_low, full_high = _tidy(least), _tidy(greatest)
    return Sweep(
        walk=_walk(other),
        when=when,
        low=ZERO if low is None else _tidy(low),
        high=LAST if high is None else _tidy(high),
        full_when=full_when,
        full_low=full_low,
        full_high=full_high,
        mask=conj(on_row, on_column, term.inside()),
        selection=TRUE if other.packed else other.selection(),
        drawn=term.drawn,
        origin=term.origin,
    )


def _unless(bound: Expr, trivial: Expr, condition: Expr) -> Expr:
    return TRUE if bound == trivial else condition


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
        return f"{name} with {walk.var.name} % {show(walk.lattice.step)} == {show(walk.lattice.offset)}, packed"
    if walk.members is not None:
        return f"{name} where {show(walk.members)}, packed"
    return f"all {name}" if (walk.first, walk.last) == (ZERO, LAST) else f"{name} {show(walk.first)}..{show(walk.last)}"

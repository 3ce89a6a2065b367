"""Every plan is proven before code is made of it, or replaced by one that needs no proof.

For an arbitrary tile, and an arbitrary pair of positions with its own side in the tile:

- *complete*: an edge is visited by some sweep of the pass that answers for it;
- *sound*: what is visited and not masked is an edge, in the unmasked part above all;
- *single*: no edge is visited by two sweeps, or by two passes;
- *inside*: no sweep leaves the sequence.

And every query has exactly one pass that answers for it. The claims are about the very expressions that
are printed into the kernels. What cuts a sweep into its masked, full and masked parts is the same for all
sweeps, and proven once, in ``loop_is_a_partition``.

A list of tiles that hold a draw is taken to hold all of them; the lists are built from the draws themselves.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from attnc.expression import (
    FALSE,
    TRUE,
    Const,
    Expr,
    K,
    Q,
    Var,
    add,
    between,
    ceil_div,
    conj,
    disj,
    floor_div,
    fold,
    ge,
    le,
    lt,
    maximum,
    merged,
    minimum,
    mul,
    negate,
    sub,
)
from attnc.pattern import Pattern, formula
from attnc.relation import POSITIONS
from attnc.schedule import FIRST_ROW, LAST_ROW, BodyPlan, Pass, Schedule, Sweep, masked_plan
from attnc.simplify import LAST
from attnc.solver import Answer, satisfiable, valid

HEAD_RANGE = conj(le(0, Var("h")), lt(Var("h"), Var("H")))
TILE = conj(le(0, FIRST_ROW), le(FIRST_ROW, LAST_ROW), le(LAST_ROW, LAST))


def verify(pattern: Pattern, schedule: Schedule) -> Schedule:
    """The schedule, proven; where a proof fails, a conservative plan and a report of what was lost."""
    bodies: list[BodyPlan] = []
    reports = list(schedule.reports)
    for item in schedule.bodies:
        proven, lost = _settle(item)
        bodies.append(proven)
        reports += lost
    return replace(schedule, bodies=tuple(bodies), reports=tuple(reports))


def _settle(item: BodyPlan) -> tuple[BodyPlan, list[str]]:
    lost = failures(item)
    if not lost:
        return item, []
    cautious = replace(item, query=tuple(map(_masked, item.query)), key=tuple(map(_masked, item.key)))
    if not failures(cautious):
        return cautious, [f"{reason}; every visited tile is masked instead" for reason in lost]
    return masked_plan(item.body), [f"{reason}; all tiles are visited and masked instead" for reason in lost]


def _masked(part: Pass) -> Pass:
    return replace(part, sweeps=tuple(replace(sweep, full_when=FALSE) for sweep in part.sweeps))


def failures(item: BodyPlan) -> list[str]:
    """What cannot be proven of a body's plan, in words; empty when everything is."""
    relation = merged(fold(formula(item.body.relation)))
    heads = conj(HEAD_RANGE, fold(item.body.heads.condition))
    found = [*_ownership(item.query)]
    for passes in (item.query, item.key):
        found += _edges(passes, relation, heads)
    return found


def visited(sweep: Sweep, other: Var) -> Expr:
    """That a pair is visited by the sweep of the tile that holds it, and not masked."""
    reached = TRUE if sweep.drawn is not None else conj(sweep.when, between(sweep.low, other, sweep.high))
    full = conj(sweep.full_when, between(sweep.full_low, other, sweep.full_high))
    return conj(reached, sweep.walk.condition(), sweep.selection, disj(full, sweep.mask))


def _outside(sweep: Sweep) -> Expr:
    """That a sweep's range reaches beyond the sequence; packed positions and lists cannot."""
    if sweep.drawn is not None or sweep.walk.members is not None:
        return FALSE
    ranges = conj(sweep.when, le(sweep.low, sweep.high))
    return conj(ranges, disj(lt(sweep.low, 0), lt(LAST, sweep.high)))


def _ownership(passes: tuple[Pass, ...]) -> list[str]:
    owners = [conj(part.owned, part.walk.condition()) for part in passes]
    somebody = _asked(valid(disj(*owners), [between(0, Q, LAST)]), "some query has no pass")
    twice = disj(*(conj(a, b) for a, b in combinations(owners, 2)))
    once = _asked(satisfiable(conj(between(0, Q, LAST), twice)), "some query has two passes")
    return somebody + once


def _edges(passes: tuple[Pass, ...], relation: Expr, heads: Expr) -> list[str]:
    side = passes[0].side
    own, other = (Q, K) if side == "query" else (K, Q)
    given = conj(POSITIONS, heads, TILE, between(FIRST_ROW, own, LAST_ROW))
    sweeps = [
        (sweep, conj(part.owned, part.walk.condition(), visited(sweep, other)))
        for part in passes
        for sweep in part.sweeps
    ]
    anywhere = disj(*(visit for _, visit in sweeps))
    twice = disj(*(conj(a, b) for (_, a), (_, b) in combinations(sweeps, 2)))
    found = _asked(satisfiable(conj(given, relation, negate(anywhere))), f"the {side} sweeps miss an edge")
    # Everything else that must never happen is asked at once; only a yes is taken apart.
    wrong = conj(given, disj(conj(anywhere, negate(relation)), twice))
    beyond = conj(TILE, heads, disj(*(_outside(sweep) for sweep, _ in sweeps)))
    if satisfiable(wrong).outcome == "proven" and satisfiable(beyond).outcome == "proven":
        return found
    for sweep, visit in sweeps:
        where = f"the {side} sweep `{sweep.origin}`"
        found += _asked(satisfiable(conj(given, visit, negate(relation))), f"{where} visits what is no edge")
        found += _asked(satisfiable(conj(TILE, heads, _outside(sweep))), f"{where} leaves the sequence")
    for (one, a), (two, b) in combinations(sweeps, 2):
        where = f"the {side} sweeps `{one.origin}` and `{two.origin}`"
        found += _asked(satisfiable(conj(given, a, b)), f"{where} visit one edge twice")
    return found or [f"the {side} sweeps are not proven to be right"]


def _asked(answer: Answer, failure: str) -> list[str]:
    match answer.outcome:
        case "proven":
            return []
        case "refuted":
            return [failure]
    return [f"whether {failure} is undecided ({answer.reason})"]


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

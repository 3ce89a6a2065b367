"""Every plan is proven before code is made of it, or replaced by one that needs no proof.

For an arbitrary tile, and an arbitrary pair of positions with its own side in the tile:

- *complete*: an edge is visited by some sweep of the pass that answers for it;
- *sound*: what is visited and not masked is an edge, in the unmasked part above all;
- *single*: no edge is visited by two sweeps, or by two passes;
- *inside*: no sweep leaves the sequence.

And every query has exactly one pass that answers for it. Where edges are summed up in states, those are the
edges of their part, and what is swept are the others. The claims are about the very expressions that
are printed into the kernels. What cuts a sweep into its masked, full and masked parts is the same for all
sweeps, and proven once, in ``rule_proofs``.

A list of tiles that hold a draw is taken to hold all of them; the lists are built from the draws themselves.
That a tile which is passed over (``worth``) holds no edge rests on interval arithmetic, whose rules are the
same for all patterns, and proven once, in ``rule_proofs``, too.

What is told in positions is asked of digits where a side is counted in them. Every condition is first proven
to say the same of either; one for which that fails is asked as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from attnc.budget import OutOfWork, at, charge
from attnc.digits import PLAIN, WRITING, Digits, Radix, radices
from attnc.division import Places
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    And,
    Expr,
    FloorDiv,
    Mod,
    N,
    Or,
    PowerOfTwo,
    Q,
    Var,
    between,
    children,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    fold,
    innermost_first,
    le,
    lt,
    merged,
    negate,
    rebuild,
    substitute,
    walk,
)
from attnc.factorise import stands_for
from attnc.pattern import Pattern, formula
from attnc.planner import begun, masked_plan
from attnc.relation import POSITIONS
from attnc.schedule import SHIFT, BodyPlan, Pass, Scatter, Schedule, Sweep, tile_ends
from attnc.simplify import LAST
from attnc.solver import SPENT, Answer, decided, satisfiable, valid

# What it takes to look whether a condition and its form in digits are the same, in steps of work.
RETOLD = 130
HEAD_RANGE = conj(le(0, Var("h")), lt(Var("h"), Var("H")))


def verify(pattern: Pattern, schedule: Schedule) -> Schedule:
    """The schedule, proven; where a proof fails, a conservative plan and a report of what was lost."""
    bodies: list[BodyPlan] = []
    reports = list(schedule.reports)
    for item in schedule.bodies:
        try:
            with at(item.body.relation.span):
                proven, lost = _settle(item)
        except OutOfWork as error:
            proven, lost = _plain(item), [f"{error}; all tiles are visited and masked instead"]
        bodies.append(proven)
        reports += lost
    return replace(schedule, bodies=tuple(bodies), reports=tuple(reports))


def _settle(item: BodyPlan) -> tuple[BodyPlan, list[str]]:
    if item.factors and all(item.factors):
        return item, []  # nothing is swept, and states are only found where they are proven
    plain = _plain(item)
    if item == plain:  # right by construction
        return item, []
    lost = _once(failures(item))
    if not lost:
        return item, []
    cautious = replace(item, query=tuple(map(_masked, item.query)), key=tuple(map(_masked, item.key)))
    if not failures(cautious):
        return cautious, [f"{reason}; every visited tile is masked instead" for reason in lost]
    return plain, [f"{reason}; all tiles are visited and masked instead" for reason in lost]


def _plain(item: BodyPlan) -> BodyPlan:
    """The plan that visits everything and masks it by the relation itself."""
    plain = masked_plan(item.body)
    return plain if item.whole is None else begun(plain, item.factors, item.whole)


def _once(reasons: list[str]) -> list[str]:
    """Each reason once; of the questions that nothing was left for, the first and the number of others."""
    different = list(dict.fromkeys(reasons))
    unasked = [reason for reason in different if reason.endswith(f"({SPENT})")]
    kept = [reason for reason in different if reason not in unasked]
    if len(unasked) > 1:
        unasked = [f"{unasked[0]}, like {len(unasked) - 1} other questions about the plan"]
    return kept + unasked


def _masked(part: Pass) -> Pass:
    return replace(part, sweeps=tuple(replace(sweep, full_when=FALSE, worth=TRUE) for sweep in part.sweeps))


def failures(item: BodyPlan) -> list[str]:
    """What cannot be proven of a body's plan, in words; empty when everything is."""
    found = _summed(item)
    if item.factors and all(item.factors):
        return found
    relation = merged(fold(formula(item.body.relation)))
    heads = conj(HEAD_RANGE, fold(item.body.heads.condition))
    found += _ownership(item.query, item.whole is not None)
    asked: set[frozenset[Expr]] = set()
    for side, passes in (("query", item.query), ("key", item.key)):
        claims = tuple(dict.fromkeys(sweep.claim for part in passes for sweep in part.sweeps))
        if frozenset(claims) not in asked:
            found += _union(side, claims, relation, heads)
            asked.add(frozenset(claims))
        found += _shared(side, passes, heads)
        for part in passes:
            for sweep in part.sweeps:
                found += _kept(part, sweep, heads)
    return found


def _summed(item: BodyPlan) -> list[str]:
    """That states sum up the edges of their part, and what is swept is all other parts."""
    body = item.whole or item.body
    found, failure = [], "the states sum up what are not the edges of their part"
    for factor in item.factors:
        if factor is not None:
            found += _asked(stands_for(factor, body), failure)
    if item.whole is not None:
        rest = [part for part, factor in zip(body.parts, item.factors, strict=True) if factor is None]
        if [item.body.relation] != [part.relation for part in rest]:
            found.append("what is swept is not what the states leave")
    return found


def _union(side: str, claims: tuple[Expr, ...], relation: Expr, heads: Expr) -> list[str]:
    """That the sweeps' claims are the relation, and no pair is claimed twice."""
    given = conj(POSITIONS, heads)
    anywhere = disj(*claims)
    twice = disj(*(conj(a, b) for a, b in combinations(claims, 2)))
    found = _asked(satisfiable(conj(given, relation, negate(anywhere))), f"the {side} sweeps miss an edge")
    wrong = satisfiable(conj(given, anywhere, negate(relation)))
    found += _asked(wrong, f"the {side} sweeps visit what is no edge")
    return found + _asked(satisfiable(conj(given, twice)), f"the {side} sweeps visit one edge twice")


def _shared(side: str, passes: tuple[Pass, ...], heads: Expr) -> list[str]:
    """That of the passes with one claim exactly one answers for every position that the claim is about."""
    owners: dict[Expr, list[Expr]] = {}
    for part in passes:
        for sweep in part.sweeps:
            owners.setdefault(sweep.claim, []).append(conj(part.owned, part.walk.condition()))
    found = []
    for claim, having in owners.items():
        if having == [TRUE]:
            continue
        given = conj(POSITIONS, heads, claim)
        nobody = conj(POSITIONS, negate(disj(*having)))
        if not decided(nobody):  # else there is somebody for every position, whatever is claimed
            lost = satisfiable(conj(given, nobody))
            found += _asked(lost, f"the {side} sweeps miss an edge")
        if len(having) > 1:
            twice = disj(*(conj(a, b) for a, b in combinations(having, 2)))
            found += _asked(satisfiable(conj(given, twice)), f"the {side} sweeps visit one edge twice")
    return found


def _kept(part: Pass, sweep: Sweep, heads: Expr) -> list[str]:
    """That a sweep visits what it claims and nothing else, and stays in the sequence.

    Where a side is plain and that leaves something open, it is asked once more with both sides, and the ends
    of a plain tile, in the same digits: those of the other side, or of what is claimed. Of three digits a
    plain side nearly always leaves something open, and only after long work: there both are told in digits at
    once. What either way of asking settles is settled.
    """
    own, other = part.walk.var, sweep.walk.var
    ways = [{own: part.walk.radix, other: sweep.walk.radix}]
    radix = max(ways[0].values(), key=lambda radix: len(radix.weights))
    if radix == PLAIN and sweep.drawn is None and sweep.scatter is None:
        radix = radices(sweep.claim)[-1]
    if radix != PLAIN and PLAIN in ways[0].values():
        ends = tile_ends(own, PLAIN, ())[own] if part.walk.radix == PLAIN else ()
        ways.append(dict.fromkeys((own, other, *ends), radix))
    if len(radix.weights) > 2:
        ways.reverse()
    found = _kept_in(ways[0], part, sweep, heads)
    for sides in ways[1:]:
        if any(found):
            again = _kept_in(sides, part, sweep, heads)
            found = [first and second for first, second in zip(found, again, strict=True)]
    return [failure for failures in found for failure in failures]


def _kept_in(sides: dict[Var, Radix], part: Pass, sweep: Sweep, heads: Expr) -> list[list[str]]:
    """The same, put in the given digits of both sides: what is wrong by each question."""
    where = f"the {part.side} sweep `{sweep.origin}`"
    alone = _alone(part)
    claim, visits = _told(sweep.claim, sides), substitute(_told(_visits(sweep), sides), alone)
    mine = conj(POSITIONS, heads, part.owned, part.walk.condition(), _tile(part), _ordered(part, sweep))
    limits = conj(*(_ranges(var, radix) for var, radix in sides.items()))
    question = substitute(conj(limits, _told(mine, sides)), alone)
    missing = _asked(_denied(conj(question, claim), visits), f"{where} misses an edge")
    wrong = _asked(_denied(conj(question, visits), claim), f"{where} visits what is no edge")
    elsewhere: list[str] = []
    if sweep.scatter is not None:
        failure = f"{where} takes other positions than it is there for"
        for same in _placed(sweep.scatter, sweep.walk.var):
            elsewhere += _asked(same, failure)
        if sweep.scatter.at is None and sweep.scatter.condition != sweep.drawn:
            elsewhere.append(failure)
    # Nothing is known of the swept side's digits here: it is asked whether they are any.
    own = {var: radix for var, radix in sides.items() if var != sweep.walk.var}
    limits = conj(*(_ranges(var, radix) for var, radix in own.items()))
    beyond = conj(le(1, N), limits, _told(conj(heads, _tile(part), _leaves(sweep)), own))
    beyond = substitute(beyond, alone)
    return [missing, wrong, elsewhere, _asked(satisfiable(beyond), f"{where} leaves the sequence")]


def _denied(given: Expr, claim: Expr) -> Answer:
    """Whether a claim can fail where something is given; if need be, each way to fail is asked by itself."""
    against = negate(claim)
    answer = satisfiable(conj(given, against))
    if answer.outcome == "undecided" and isinstance(against, Or):
        ways = (satisfiable(conj(given, way)) for way in against.args)
        answer = next((found for found in ways if found.outcome != "proven"), Answer("proven"))
    return answer


def _told(expr: Expr, sides: dict[Var, Radix]) -> Expr:
    """A condition over digits alone; each part is put in their terms where that is proven to be right."""
    rewrite = Digits(sides)
    counted = [_counted(var, radix) for var, radix in sides.items()]
    places: dict[Expr, Expr] = {
        var: radix.position(radix.digits(var)) for var, radix in sides.items() if radix != PLAIN
    }

    def told(part: Expr) -> Expr:
        match part:
            case And(args):
                return conj(*map(told, args))
            case Or(args):
                return disj(*map(told, args))
        digits = rewrite(part)
        lemmas = _retold(part, digits, rewrite)
        right = all(valid(lemma, counted).outcome == "proven" for lemma in lemmas)
        return substitute(digits if right else part, places)

    return told(expr)


def _retold(condition: Expr, told: Expr, rewrite: Digits) -> list[Expr]:
    """What makes a condition on positions and the one on digits the same, as far as division does not tell.

    That is first about its quotients.
    """
    if condition == told:
        return []
    charge(RETOLD, WRITING)
    places = Places(rewrite.sides)
    quotients: dict[Expr, Expr] = {}
    lemmas = []
    # Innermost first: what is known of a quotient helps with what is divided further.
    for part in innermost_first(condition):
        if isinstance(part, (FloorDiv, Mod)) and part not in quotients:
            inner = rebuild(part, tuple(substitute(child, quotients) for child in children(part)))
            quotients[part] = rewrite.expression(part)
            if not places.is_equal(inner, quotients[part]):
                lemmas.append(eq(inner, quotients[part]))
    meanwhile = substitute(condition, quotients)
    if not places.is_same(meanwhile, told):
        lemmas.append(disj(conj(meanwhile, told), conj(negate(meanwhile), negate(told))))
    return [lemma for lemma in lemmas if lemma != TRUE]


def _tile(part: Pass) -> Expr:
    """What is known of the ends of the tile that holds the own position."""
    own, radix = part.walk.var, part.walk.radix
    limits = [(ZERO, floor_div(LAST, radix.weights[0])), *part.walk.ranges]
    ends = tile_ends(own, radix, part.extents).items()
    return conj(
        *(
            conj(le(low, first), le(first, digit), le(digit, last), le(last, high))
            for (digit, (first, last)), (low, high) in zip(ends, limits, strict=True)
        )
    )


def _ordered(part: Pass, sweep: Sweep) -> Expr:
    """That quotients of a tile's ends and of the position between them are in the same order as those."""
    own = part.walk.var
    [(first, last), *more] = tile_ends(own, part.walk.radix, part.extents).values()
    if more or part.walk.members is not None:
        return TRUE
    divisors = {
        inner.right: None
        for bound in (*sweep.low, *sweep.high, sweep.when, sweep.full_when, sweep.full_low, sweep.full_high)
        for inner in walk(bound)
        if isinstance(inner, FloorDiv) and (constant(inner.right) or 0) > 0
    }
    quotients = ([floor_div(place, divisor) for place in (first, own, last)] for divisor in divisors)
    return conj(*(conj(le(low, middle), le(middle, high)) for low, middle, high in quotients))


def _alone(part: Pass) -> dict[Expr, Expr]:
    """The ends of those digits of a tile that take one value, which is the position's own."""
    ends = tile_ends(part.walk.var, part.walk.radix, part.extents).items()
    return {first: digit for digit, (first, last) in ends if first == last}


def _ranges(var: Var, radix: Radix) -> Expr:
    ranges = (between(low, digit, high) for digit, (low, high) in radix.ranges(var).items())
    return conj(*ranges, *radix.limits(var))


def _counted(var: Var, radix: Radix) -> Expr:
    """That a position is told by its digits."""
    if radix == PLAIN:
        return TRUE
    return conj(eq(var, radix.position(radix.digits(var))), _ranges(var, radix))


def _reached(sweep: Sweep) -> Expr:
    places = zip(sweep.low, sweep.walk.digits, sweep.high, strict=True)
    return conj(sweep.when, *(between(low, digit, high) for low, digit, high in places))


def _full(sweep: Sweep) -> Expr:
    return conj(sweep.full_when, between(sweep.full_low, sweep.walk.digits[0], sweep.full_high))


def _visits(sweep: Sweep) -> Expr:
    if sweep.scatter is not None:
        return conj(sweep.when, sweep.scatter.condition, sweep.selection, sweep.mask)
    reached = TRUE if sweep.drawn is not None else _reached(sweep)
    return conj(reached, sweep.walk.condition(), sweep.selection, disj(_full(sweep), sweep.mask))


def _placed(scatter: Scatter, other: Var) -> Iterator[Answer]:
    """That positions which are taken one by one are those that meet the condition, each of them once.

    Those of a draw are taken from a table of that very draw.
    """
    if scatter.at is None:
        return
    meant = scatter.condition
    if isinstance(meant, PowerOfTwo):
        # Shifts are 0 and the powers of two below n.
        yield valid(lt(meant.body, N), [POSITIONS, meant])
        meant = eq(meant.body, SHIFT)
    taken = eq(other, scatter.at)
    yield valid(disj(conj(taken, meant), conj(negate(taken), negate(meant))), [POSITIONS])


def _leaves(sweep: Sweep) -> Expr:
    """That a range reaches beyond the sequence unmasked, or tells a position in digits that are none.

    Plain ranges may not reach beyond it at all; packed positions and lists cannot.
    """
    walked = sweep.walk
    if sweep.drawn is not None or sweep.scatter is not None or walked.members is not None:
        return FALSE
    if walked.radix == PLAIN:
        low, high = sweep.low[0], sweep.high[0]
        return conj(sweep.when, le(low, high), disj(lt(low, 0), lt(LAST, high)))
    first, *later = walked.digits
    beyond = conj(_full(sweep), lt(LAST, walked.radix.position(walked.digits)))
    sizes = walked.radix.sizes
    strange = [negate(between(0, digit, size - 1)) for digit, size in zip(later, sizes, strict=True)]
    masked = sweep.mask.args if isinstance(sweep.mask, And) else (sweep.mask,)
    for limit in walked.radix.limits(walked.var):
        strange.append(conj(_full(sweep) if limit in masked else TRUE, negate(limit)))
    return conj(_reached(sweep), disj(lt(first, 0), beyond, *strange))


def _ownership(passes: tuple[Pass, ...], begun: bool) -> list[str]:
    """That one pass begins every query, or none where states have, and no other comes before it."""
    owners = [conj(part.owned, part.walk.condition()) for part in passes]
    first = [owner for owner, part in zip(owners, passes, strict=True) if not part.continues]
    if begun:
        return ["some query has two passes"] if first else []
    somebody = _asked(valid(disj(*first), [between(0, Q, LAST)]), "some query has no pass")
    twice = disj(*(conj(a, b) for a, b in combinations(first, 2)))
    once = _asked(satisfiable(conj(between(0, Q, LAST), twice)), "some query has two passes")
    early = []
    for i, part in enumerate(passes):
        if part.continues:
            before = disj(*(o for o, p in zip(owners[:i], passes[:i], strict=True) if not p.continues))
            question = conj(between(0, Q, LAST), owners[i], negate(before))
            early += _asked(satisfiable(question), "some query is continued before it is begun")
    return somebody + once + early


def _asked(answer: Answer, failure: str) -> list[str]:
    match answer.outcome:
        case "proven":
            return []
        case "refuted":
            return [failure]
    return [f"whether {failure} is undecided ({answer.reason})"]

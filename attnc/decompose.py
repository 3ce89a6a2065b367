"""From a pattern to disjoint terms, in four steps, each body on its own.

1. Rows are sorted into classes (``attnc.classes``), so that no row belongs to two of them.
2. Within a class the relation is multiplied out into conjunctions, and each conjunction solved for ``k``.
3. Intervals whose union is an interval become one; the solver is asked.
4. A later term gives up what an earlier one has: as intervals where that can be said, else as a leftover.
   Intervals come first, then what must be masked, then packed sets, then lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

from attnc.budget import OutOfWork, at, lose, spend
from attnc.classes import MAX_BRANCHES, Branch, RowClass, branches, picks_keys, row_classes, selected
from attnc.expression import (
    TRUE,
    ZERO,
    Drawn,
    Expr,
    K,
    Not,
    Q,
    add,
    between,
    conj,
    constant,
    le,
    maximum,
    minimum,
    negate,
    sub,
)
from attnc.isolate import mentions, solve
from attnc.pattern import Atom, Pattern, Relation, Union, formula
from attnc.relation import POSITIONS, Axis, BodyTerms, Term
from attnc.simplify import LAST, holds, impossible, widest, without_idle

TAKING_APART = "taking the relation apart"
# What it takes to compare two terms, in steps of work.
PAIR = 20
# Terms of one class of rows: with more of them a plan has more sweeps than can be proven disjoint.
MOST_JOINED = 64
MASKED = "all of it is masked instead"
MAX_TERMS = 16  # per class of rows; beyond that what overlaps is masked instead of split


def decompose(pattern: Pattern) -> tuple[BodyTerms, ...]:
    """The terms of every body, disjoint and complete; parameters keep their names."""
    return tuple(BodyTerms(body, _body_terms(body.relation)) for body in pattern.bodies)


def by_weights(bodies: Iterable[BodyTerms]) -> tuple[BodyTerms, ...]:
    """The same edges in terms that do not reach over edges of other weights, for people to look at."""
    return tuple(
        item
        if len(item.body.parts) == 1
        else BodyTerms(
            item.body, tuple(chain.from_iterable(_body_terms(part.relation) for part in item.body.parts))
        )
        for item in bodies
    )


def _body_terms(relation: Relation) -> tuple[Term, ...]:
    try:
        with at(relation.span):
            return tuple(_taken_apart(relation))
    except OutOfWork as error:
        lose(error, MASKED)
        return (_whole(relation, Axis(Q)),)


def _taken_apart(relation: Relation) -> list[Term]:
    terms: list[Term] = []
    for item in row_classes(relation):
        everything = formula(item.relation) == TRUE
        found = None if everything else branches(item.relation)
        if found is None:
            if not everything:
                lose(f"a union of more than {MAX_BRANCHES} conditions is not taken apart", MASKED)
            terms.append(_masked(item))
            continue
        drafts = [term for branch in found if (term := _solve(branch, item.rows)) is not None]
        drafts = _bands_joined(_apart(sorted(drafts, key=_rank)))
        terms += _disjoint(_joined(drafts)) if len(drafts) <= MOST_JOINED else [_masked(item)]
    return terms


def _rank(term: Term) -> int:
    if term.plain:
        # A band that moves with the query keeps its shape; fixed columns give up what it covers.
        return 0 if mentions(term.low, Q) else 1
    if term.drawn is not None:
        return 4
    return 3 if term.columns.packed else 2


# --- one conjunction ------------------------------------------------------------------------------------


def _solve(branch: Branch, rows: Axis) -> Term | None:
    lows: list[Expr] = []
    highs: list[Expr] = []
    leftover: list[Expr] = []
    drawn: Drawn | None = None
    columns = Axis(K)
    for literal in branch.literals:
        bounds = solve(literal, K)
        if bounds is not None:
            lows += [bounds.low] if bounds.low is not None else []
            highs += [bounds.high] if bounds.high is not None else []
            continue
        if isinstance(literal, Drawn) and drawn is None:
            drawn = literal
            continue
        if picks_keys(literal):
            columns = selected(columns, literal, packed=True)
            continue
        leftover.append(literal)
    if drawn is not None and (rows.packed or columns.packed):
        # Lists are kept by contiguous tiles; among packed positions a draw is just a condition.
        leftover.append(drawn)
        drawn = None
    term = Term(
        rows,
        columns,
        maximum(*lows) if lows else ZERO,
        minimum(*highs) if highs else LAST,
        tuple(leftover),
        drawn,
        branch.origin or "all",
        branch.span,
    )
    return _clipped(term)


def _clipped(term: Term) -> Term | None:
    """The term with no bound that another makes idle, bounded by causality if that follows; None if empty."""
    spend(0, TAKING_APART)
    if impossible(POSITIONS, term.formula()):
        return None
    given = (POSITIONS, term.rows.condition())
    if term.low == ZERO and term.leftover and _follows(term, le(Q, K)):
        term = replace(term, low=Q)
    if term.high == LAST and (term.leftover or term.drawn) and _follows(term, le(K, Q)):
        term = replace(term, high=Q)
    if constant(sub(term.high, term.low)) is not None:
        return term  # a window of fixed width, whose ends move together
    return replace(term, low=without_idle(term.low, given, ZERO), high=without_idle(term.high, given, LAST))


def _follows(term: Term, claim: Expr) -> bool:
    return holds(claim, POSITIONS, term.formula())


def _masked(item: RowClass) -> Term:
    """The whole relation as one masked term: right whatever the relation is."""
    term = _whole(item.relation, item.rows)
    return _clipped(term) or term


def _whole(relation: Relation, rows: Axis) -> Term:
    condition = formula(relation)
    leftover = () if condition == TRUE else (condition,)
    return Term(rows, Axis(K), ZERO, LAST, leftover, None, _origin(relation), relation.span)


def _origin(relation: Relation) -> str:
    """The atoms that decide a class of rows alone, as written; or everything, where none does."""
    match relation:
        case Atom(text=text):
            return text
        case Union(args=args):
            deciding = [_origin(arg) for arg in args if formula(arg) == TRUE]
            return deciding[0] if deciding else "everything"
    return "everything"


# --- several conjunctions -------------------------------------------------------------------------------


def _apart(terms: list[Term]) -> list[Term]:
    """Without the intervals that lie in what must be masked: taken out of it, they would spoil its shape."""

    masked = [term for term in terms if term.leftover and term.drawn is None and not term.columns.packed]

    def within(term: Term) -> bool:
        return any(holds(other.formula(), POSITIONS, term.formula()) for other in masked)

    return [term for term in terms if not (term.plain and within(term))]


def _joined(terms: list[Term]) -> list[Term]:
    """Intervals joined while two of them make an interval; bands are joined already."""
    todo = [(term, _is_apart(term)) for term in reversed(terms)]
    done: list[tuple[Term, bool]] = []
    while todo:
        term, apart = todo.pop()
        for i, (earlier, known) in enumerate(done):
            joined = None if apart and known else _union(earlier, term)
            if joined is not None:
                # A longer interval may now meet others that it did not meet before.
                todo += [*reversed(done[i + 1 :]), (joined, _is_apart(joined))]
                del done[i:]
                break
        else:
            done.append((term, apart))
    return [term for term, _ in done]


def _is_apart(term: Term) -> bool:
    """Whether it is no interval together with any other of these, once bands are joined.

    Where only some rows are meant, what lies between two bands may be no edge of any.
    """
    return term.rows == Axis(Q) and _band(term) is not None


def _band(term: Term) -> tuple[int, int] | None:
    """Least and greatest ``k - q`` of a term that is nothing but these, for all of its rows."""
    if not term.plain or term.columns != Axis(K):
        return None
    low, high = constant(sub(term.low, Q)), constant(sub(term.high, Q))
    return None if low is None or high is None else (low, high)


def _bands_joined(terms: list[Term]) -> list[Term]:
    """Bands that overlap or touch as one, which stands where the first of them stood.

    Sorted by where they begin they are joined in one walk: a list of offsets makes more of them than could be
    compared in pairs.
    """
    spend(PAIR * len(terms), TAKING_APART)
    bands = {place: band for place, term in enumerate(terms) if (band := _band(term)) is not None}
    # Of each band that is made, those that it needs: what lies in the ones before is left out.
    groups: list[list[int]] = []
    for place in sorted(bands, key=lambda place: (bands[place][0], -bands[place][1], place)):
        first, end = bands[place]
        if not groups or first > bands[groups[-1][-1]][1] + 1:
            groups.append([place])
        elif end > bands[groups[-1][-1]][1]:
            groups[-1].append(place)
    made = {
        min(group): replace(
            terms[min(group)],
            low=terms[group[0]].low,
            high=terms[group[-1]].high,
            origin=" | ".join(dict.fromkeys(terms[place].origin for place in sorted(group))),
        )
        for group in groups
    }
    return [made.get(place, term) for place, term in enumerate(terms) if place in made or place not in bands]


def _union(one: Term, two: Term) -> Term | None:
    spend(PAIR, TAKING_APART)
    if one.leftover != two.leftover or one.drawn or two.drawn or one.columns != two.columns:
        return None
    if one.leftover and any(isinstance(item, Not) for item in one.leftover):
        return None
    given = (POSITIONS, one.rows.condition())
    first, second = between(one.low, K, one.high), between(two.low, K, two.high)
    for small, large, kept in ((second, first, one), (first, second, two)):
        if holds(large, *given, small):
            return kept
    low, high = widest(one.low, two.low, given, ZERO), widest(one.high, two.high, given, LAST)
    if not impossible(*given, between(low, K, high), negate(first), negate(second)):
        return None
    return replace(one, low=low, high=high, origin=_either(one, two))


def _either(one: Term, two: Term) -> str:
    return one.origin if one.origin == two.origin else f"{one.origin} | {two.origin}"


def _disjoint(terms: list[Term]) -> list[Term]:
    done: list[Term] = []
    taken: list[Term] = []
    others: list[Term] = []  # of these all but the bands, which are disjoint once they are joined
    for term in terms:
        pieces = [term]
        for earlier in taken if _band(term) is None else others:
            pieces = [part for piece in pieces for part in _without(piece, earlier, len(done) + len(pieces))]
        done += pieces
        # What a piece gave up was taken before: said again for every later term, it would double each time.
        new = [replace(piece, leftover=term.leftover) for piece in pieces]
        taken += new
        others += [piece for piece in new if _band(piece) is None]
    return done


def _without(term: Term, earlier: Term, count: int) -> list[Term]:
    """``term`` without the edges of ``earlier``, which has the same rows."""
    spend(0, TAKING_APART)
    if impossible(POSITIONS, term.formula(), earlier.formula()):
        return [term]
    if earlier.plain and term.drawn is None:
        sides = _beside(term, earlier)
        # Walking a packed set twice costs more than masking it once.
        if len(sides) < 2 or (not term.columns.packed and count < MAX_TERMS):
            return sides
    removed = negate(conj(earlier.columns.selection(), earlier.inside()))
    rest = replace(term, leftover=(*term.leftover, removed))
    return [] if impossible(POSITIONS, rest.formula()) else [rest]


def _beside(term: Term, earlier: Term) -> list[Term]:
    """What ``term`` has below and above the interval of ``earlier``."""
    # Where the earlier interval is empty its ends have crossed, and the two sides must not overlap.
    after = add(earlier.high, 1)
    if not holds(le(earlier.low, after), POSITIONS, term.rows.condition()):
        after = maximum(after, earlier.low)
    below = replace(term, high=minimum(term.high, add(earlier.low, -1)))
    above = replace(term, low=maximum(term.low, after))
    return [part for side in (below, above) if (part := _clipped(side)) is not None]

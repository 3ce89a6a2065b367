"""One term, seen from either side: for each position of one's own, bounds on the other's.

The query's view is the term as it stands. The key's is its transpose: the bounds, solved for the query. The
class of terms is closed under this up to bounds that cannot be inverted; those give everything, masked.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnc.expression import (
    TRUE,
    ZERO,
    And,
    Expr,
    K,
    Lookup,
    N,
    Or,
    Q,
    Var,
    add,
    conj,
    disj,
    floor_div,
    le,
    maximum,
    minimum,
    mul,
    select,
)
from attnc.isolate import Bounds, equal_entries, expand, mentions, solve
from attnc.relation import Axis, Term
from attnc.simplify import LAST


@dataclass(frozen=True)
class View:
    """A term as one side sees it.

    outer: over the own position, inclusive bounds outside of which there is no edge.
    inner: bounds within which nothing is left to be masked, or None.
    """

    term: Term
    own: Axis
    other: Axis
    outer: tuple[Expr, Expr]
    inner: tuple[Expr, Expr] | None


def along(term: Term) -> View:
    """The query's view: the term as it stands."""
    return _view(term, term.rows, term.columns, Bounds(term.low, term.high), exact=True)


def across(term: Term) -> View:
    """The key's view: the bounds solved for the query."""
    low = TRUE if term.low == ZERO else le(term.low, K)
    high = TRUE if term.high == LAST else le(K, term.high)
    found, exact = _solved(expand(conj(low, high)), Q)
    return _view(term, term.columns, term.rows, found, exact)


def _view(term: Term, own: Axis, other: Axis, found: Bounds, exact: bool) -> View:
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
    return View(term, own, other, (maximum(*lows), minimum(*highs)), inner)


_ENDS = ("first", "last", "run_first", "run_last")


def _solved(condition: Expr, var: Var) -> tuple[Bounds, bool]:
    """Bounds on ``var`` that ``condition`` implies, and whether they say all that it says."""
    match condition:
        case And(args):
            parts = [_solved(arg, var) for arg in args]
            below = [b.low for b, _ in parts if b.low is not None]
            above = [b.high for b, _ in parts if b.high is not None]
            exact = all(sure for _, sure in parts)
            return Bounds(maximum(*below) if below else None, minimum(*above) if above else None), exact
        case Or(args):
            free = [arg for arg in args if not mentions(arg, var)]
            parts = [_solved(arg, var) for arg in args if mentions(arg, var)]
            lows, highs = [b.low for b, _ in parts], [b.high for b, _ in parts]
            sure = all(exact for _, exact in parts)
            # What doesn't hang on the variable opens or shuts the range, at whichever end the rest bounds.
            opening = disj(*free)
            if all(low is not None for low in lows):
                low = minimum(*(x for x in lows if x is not None), select(opening, 0, N))
                return Bounds(low), sure and all(high is None for high in highs)
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

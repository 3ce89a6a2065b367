"""Small questions to the solver that make bounds shorter: which argument of a ``max`` never decides?"""

from __future__ import annotations

from collections.abc import Sequence

from attnc.expression import (
    ZERO,
    Expr,
    Max,
    Min,
    N,
    add,
    conj,
    fold,
    ge,
    le,
    maximum,
    minimum,
)
from attnc.solver import satisfiable, valid

# The last position of a sequence.
LAST = add(N, -1)


def holds(claim: Expr, *given: Expr) -> bool:
    """Whether ``claim`` is proven to follow; an undecided question counts as no."""
    return valid(fold(claim), [fold(item) for item in given]).outcome == "proven"


def impossible(*conditions: Expr) -> bool:
    """Whether the conditions are proven never to hold together."""
    return satisfiable(fold(conj(*conditions))).outcome == "proven"


def without_idle(bound: Expr, given: Sequence[Expr], limit: Expr) -> Expr:
    """A ``max`` (or ``min``) without the arguments that never decide.

    limit: the sequence's own end on that side, which is implied wherever the bound is used.
    """
    if not isinstance(bound, (Max, Min)):
        return bound
    combine, weaker = (maximum, le) if isinstance(bound, Max) else (minimum, ge)
    kept = list(bound.args)
    for arg in bound.args:
        others = [other for other in kept if other != arg]
        if others and holds(weaker(arg, combine(limit, *others)), *given):
            kept = others
    return combine(*kept)


def widest(a: Expr, b: Expr, given: Sequence[Expr], limit: Expr) -> Expr:
    """The wider of two lower bounds (``limit`` zero) or of two upper bounds (``limit`` ``n - 1``)."""
    lower = limit == ZERO
    order, clamp = (le, maximum) if lower else (ge, minimum)
    for wide, narrow in ((a, b), (b, a)):
        if holds(order(wide, clamp(narrow, limit)), *given):
            return wide
    return minimum(a, b) if lower else maximum(a, b)

"""Small questions to the solver that make bounds shorter: which argument of a ``max`` never decides?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from attnc import budget
from attnc.evaluation import WORD, Env, evaluate, farthest
from attnc.expression import (
    HEAD,
    HEADS,
    ZERO,
    Drawn,
    Expr,
    K,
    Lookup,
    Max,
    Min,
    N,
    Q,
    add,
    conj,
    fold,
    ge,
    le,
    maximum,
    mentioned,
    minimum,
    negate,
    walk,
)
from attnc.solver import decided, satisfiable

# The last position of a sequence.
LAST = add(N, -1)


def holds(claim: Expr, *given: Expr) -> bool:
    """Whether ``claim`` is proven to follow; an undecided question counts as no."""
    return _never(conj(*map(fold, given), negate(fold(claim))))


def impossible(*conditions: Expr) -> bool:
    """Whether the conditions are proven never to hold together."""
    return _never(fold(conj(*conditions)))


def _never(condition: Expr) -> bool:
    budget.charge(WRITTEN, "a question about positions")
    known = decided(condition)
    return not _met(condition) and satisfiable(condition).outcome == "proven" if known is None else known


# What it takes to write a question down, in steps of work.
WRITTEN = 400

# Lengths that places are tried in, and how many of each.
LENGTHS = (1, 2, 3, 5, 8, 63, 64, 65, 130, 200, 513, 1000, 4097, 70000)
PLACES = 40


def _met(condition: Expr) -> bool:
    """Whether a condition holds somewhere among a few hundred places, so that the solver needn't be asked.

    What hangs on inputs is left to the solver.
    """
    if not mentioned(condition) <= _VARIABLES or any(isinstance(part, Lookup) for part in walk(condition)):
        return False
    if farthest(condition, LENGTHS[-1]) > WORD:  # beyond what is evaluated here in little time
        return False
    return bool(np.any(evaluate(condition, Env(_places(), drawn=_drawn))))


_VARIABLES = frozenset((Q, K, N, HEAD, HEADS))


def _drawn(drawn: Drawn, row: Any, column: Any, population: Any, head: Any) -> Any:
    """The draw of all there is, which is one of those that the solver knows to be possible."""
    return (column >= 0) & (column < (row + 1 if drawn.past else population))


@cache
def _places() -> dict[str, Any]:
    """Pairs of positions: at the ends, near each other, and anywhere."""
    generator = np.random.Generator(np.random.PCG64(0))
    n = np.repeat(np.array(LENGTHS), PLACES)
    q, far = (generator.integers(0, n) for _ in range(2))
    near = np.clip(q + generator.integers(-70, 71, n.size), 0, n - 1)
    k = np.where(generator.random(n.size) < 0.5, near, far)
    for ends in (q, k):
        kind = generator.integers(0, 8, n.size)
        ends[:] = np.where(kind == 0, 0, np.where(kind == 1, n - 1, ends))
    heads = generator.integers(1, 9, n.size)
    return {"q": q, "k": k, "n": n, "h": generator.integers(0, heads), "H": heads}


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

"""Conditions that are made of differences, which are decided without the solver.

A difference says by how much one number exceeds another at most: ``q - k <= 5``, ``k <= n - 1``, ``0 <= q``.
They contradict each other where some make a circle whose numbers add up to less than nothing (Bellman,
"On a routing problem", 1958). Whatever is not a sum is a number of which at most its range is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from attnc import budget
from attnc.expression import (
    And,
    Const,
    Eq0,
    Expr,
    Le0,
    Max,
    Min,
    Mod,
    Not,
    Or,
    Sum,
    Truth,
    Var,
    add,
    constant,
    neg,
    scale,
)

# How many cases a condition may fall into, and of how many differences each may be made.
CASES, DIFFERENCES = 24, 48
# What it takes to make one difference, in steps of work; to compare it takes one.
MADE = 40

# One number, another, and by how much the one exceeds the other at most; None stands for zero.
Difference = tuple[Expr | None, Expr | None, int]
Cases = list[tuple[Expr, ...]]


class _TooMany(Exception):
    """There are more cases than are looked at."""


def contradictory(condition: Expr) -> bool | None:
    """Whether a condition never holds; False where it holds somewhere, None where neither is known."""
    try:
        cases = _cases(condition)
    except _TooMany:
        return None
    consistent = [case for case in cases if not _contradict(case)]
    if not consistent:
        return True
    return False if any(all(map(_is_difference, case)) for case in consistent) else None


# --- cases ----------------------------------------------------------------------------------------------


def _cases(condition: Expr) -> Cases:
    """Sums that are at most zero: together in each case, of which one holds wherever the condition does.

    What cannot be said in this way is kept as it is.
    """
    match condition:
        case Truth(value):
            return [()] if value else []
        case And(args):
            return _together(args)
        case Or(args):
            return _either(args)
        case Eq0(body):
            return _together((Le0(body), Le0(neg(body))))
        case Not(Eq0(body)):
            return _either((Le0(add(body, 1)), Le0(add(neg(body), 1))))
        case Le0(body):
            return _split(body)
    return [(condition,)]


def _together(conditions: Iterable[Expr]) -> Cases:
    found: Cases = [()]
    for condition in conditions:
        parts = _cases(condition)
        if len(found) * len(parts) > CASES:
            raise _TooMany
        found = [(*case, *part) for case in found for part in parts]
        if any(len(case) > DIFFERENCES for case in found):
            raise _TooMany
    return found


def _either(conditions: Iterable[Expr]) -> Cases:
    found: Cases = []
    for condition in conditions:
        found += _cases(condition)
        if len(found) > CASES:
            raise _TooMany
    return found


def _split(body: Expr) -> Cases:
    """The cases of ``body <= 0``, in which no least or greatest of several is left."""
    budget.charge(MADE, "a question about positions")
    terms, _ = _sum(body)
    for factor, atom in terms:
        if isinstance(atom, (Min, Max)):
            rest = add(body, scale(-factor, atom))
            choices = [Le0(add(rest, scale(factor, arg))) for arg in atom.args]
            # The greatest of several is small enough only if all are; the least, if any is.
            return (_together if isinstance(atom, Max) == (factor > 0) else _either)(choices)
    return [(Le0(body),)]


def _sum(body: Expr) -> tuple[tuple[tuple[int, Expr], ...], int]:
    match body:
        case Const(value):
            return (), value
        case Sum(terms, start):
            return terms, start
    return ((1, body),), 0


# --- differences ----------------------------------------------------------------------------------------


def _is_difference(condition: Expr) -> bool:
    """Whether a condition is a difference of variables, and nothing else is known of them."""
    if not isinstance(condition, Le0):
        return False
    terms, _ = _sum(condition.body)
    factors = [factor for factor, _ in terms]
    return (len(terms) < 2 or (len(terms) == 2 and not sum(factors))) and all(
        isinstance(atom, Var) for _, atom in terms
    )


def _contradict(conditions: tuple[Expr, ...]) -> bool:
    """Whether conditions cannot hold together, by those of them that are differences."""
    most: dict[tuple[Expr | None, Expr | None], int] = {}
    for one, other, by in (item for part in conditions for item in _differences(part)):
        most[one, other] = min(by, most.get((one, other), by))
    # How far above the others each number may lie. What still falls after so many rounds falls forever.
    above = {number: 0 for pair in most for number in pair}
    for _ in range(len(above) + 1):
        budget.charge(len(most), "a question about positions")
        fell = False
        for (one, other), by in most.items():
            if above[other] + by < above[one]:
                above[one], fell = above[other] + by, True
        if not fell:
            return False
    return True


def _differences(condition: Expr) -> Iterable[Difference]:
    """What a condition says as a difference, and between what its remainders lie."""
    if not isinstance(condition, Le0):
        return
    terms, start = _sum(condition.body)
    match terms:
        case ():
            yield None, None, -start
        case ((factor, atom),):
            yield (atom, None, -start // factor) if factor > 0 else (None, atom, -start // -factor)
        case ((factor, one), (other_factor, other)) if factor == -other_factor:
            yield (one, other, -start // factor) if factor > 0 else (other, one, -start // -factor)
        case _:
            return
    for _, atom in terms:
        size = constant(atom.right) if isinstance(atom, Mod) else None
        if size is not None and size > 0:
            yield from ((None, atom, 0), (atom, None, size - 1))

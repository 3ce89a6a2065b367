"""Sweeps whose edges are few and far apart: positions taken one by one, without tiles."""

from __future__ import annotations

from dataclasses import replace

from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    And,
    Drawn,
    Eq0,
    Expr,
    Le0,
    PowerOfTwo,
    Q,
    Sum,
    Var,
    add,
    conj,
    eq,
    le,
    neg,
    scale,
    substitute,
)
from attnc.isolate import mentions, solve
from attnc.schedule import SHIFT, Scatter, Sweep, Walk
from attnc.simplify import LAST


def scattered(sweep: Sweep, own: Var) -> Sweep | None:
    """The same sweep, position by position, where an own position has few of them and no others."""
    other = sweep.walk.var
    if sweep.walk.members is not None or sweep.selection != TRUE:
        return None
    for condition in _literals(sweep.claim):
        scatter = _scatter(condition, own, other)
        if scatter is None:
            continue
        # What is true of the visited positions anyway need not be asked again.
        there: dict[Expr, Expr] = {} if scatter.at is None else {other: scatter.at}
        asked = {condition, *_literals(sweep.when)}
        rest = (item for item in _literals(sweep.claim) if item not in asked)
        mask = conj(*(item for item in rest if substitute(item, there) != TRUE))
        return replace(
            sweep,
            walk=Walk(other),
            low=(ZERO,),
            high=(LAST,),
            full_when=FALSE,
            full_low=ZERO,
            full_high=ZERO,
            mask=mask,
            worth=TRUE,
            drawn=condition if isinstance(condition, Drawn) else None,
            scatter=scatter,
        )
    return None


def _literals(claim: Expr) -> tuple[Expr, ...]:
    """The parts of a conjunction; two comparisons that leave one value are one equation."""
    parts = claim.args if isinstance(claim, And) else (claim,)
    found: list[Expr] = []
    for part in parts:
        if isinstance(part, Le0) and le(neg(part.body), 0) in parts:
            equation = eq(part.body, 0)
            if equation not in found:
                found.append(equation)
        else:
            found.append(part)
    return tuple(found)


def _scatter(condition: Expr, own: Var, other: Var) -> Scatter | None:
    match condition:
        case Eq0():
            found = solve(condition, other)
            if found is not None and found.low is not None and found.low == found.high:
                return Scatter(condition, found.low) if mentions(found.low, own) else None
        case PowerOfTwo(body):
            terms, start = (body.terms, body.constant) if isinstance(body, Sum) else (((1, body),), 0)
            sign = next((c for c, atom in terms if atom == other), 0)
            rest = add(start, *(scale(c, atom) for c, atom in terms if atom != other))
            if abs(sign) == 1 and mentions(rest, own) and not mentions(rest, other):
                return Scatter(condition, scale(sign, add(SHIFT, neg(rest))))
        case Drawn(row=row, column=column) if (row, column) == (own, other) and own == Q:
            return Scatter(condition, None)
    return None

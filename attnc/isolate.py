"""Solving a literal for one position: from ``q // 64 - k // 64 <= 1`` to ``k >= 64 * (q // 64 - 1)``.

Floor division and scaling by constants are undone through their Galois connections
(``x // s <= b`` iff ``x <= s*b + s - 1``), so nothing is lost or rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from attnc.expression import (
    And,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Sum,
    Var,
    add,
    ceil_div,
    conj,
    constant,
    disj,
    floor_div,
    le,
    mentioned,
    mod,
    mul,
    neg,
    scale,
    substitute,
)
from attnc.expression import K as KEY
from attnc.expression import Q as QUERY


@dataclass(frozen=True)
class Bounds:
    """``low <= var <= high``; None where the literal sets no bound on that side."""

    low: Expr | None = None
    high: Expr | None = None


def mentions(expr: Expr, var: Var) -> bool:
    return var in mentioned(expr)


def _split(body: Expr, var: Var) -> tuple[int, Expr, Expr] | None:
    """``body == c * atom + rest`` with ``var`` in ``atom`` alone."""
    terms, start = (body.terms, body.constant) if isinstance(body, Sum) else (((1, body),), 0)
    inside = [(c, atom) for c, atom in terms if mentions(atom, var)]
    if len(inside) != 1:
        return None
    c, atom = inside[0]
    rest = add(start, *(scale(d, other) for d, other in terms if other is not atom))
    return c, atom, rest


def at_most_zero(body: Expr, var: Var) -> Bounds | None:
    """Bounds on ``var`` equivalent to ``body <= 0``, or None."""
    split = _split(body, var)
    if split is None:
        return None
    c, atom, rest = split
    if c > 0:
        limit = neg(rest) if c == 1 else floor_div(neg(rest), c)
        return _atom_at_most(atom, limit, var)
    limit = rest if c == -1 else ceil_div(rest, -c)
    return _atom_at_least(atom, limit, var)


def _atom_at_most(atom: Expr, limit: Expr, var: Var) -> Bounds | None:
    match atom:
        case Var():
            return Bounds(high=limit)
        case FloorDiv(x, s) if (constant(s) or 0) > 0:
            return at_most_zero(add(x, neg(mul(s, limit)), neg(s), 1), var)
        case Mul(a, b):
            for factor, x in ((a, b), (b, a)):
                if (constant(factor) or 0) > 0:
                    return at_most_zero(add(x, neg(floor_div(limit, factor))), var)
    return None


def _atom_at_least(atom: Expr, limit: Expr, var: Var) -> Bounds | None:
    match atom:
        case Var():
            return Bounds(low=limit)
        case FloorDiv(x, s) if (constant(s) or 0) > 0:
            return at_most_zero(add(mul(s, limit), neg(x)), var)
        case Mul(a, b):
            for factor, x in ((a, b), (b, a)):
                if (constant(factor) or 0) > 0:
                    return at_most_zero(add(ceil_div(limit, factor), neg(x)), var)
    return None


def solve(literal: Expr, var: Var) -> Bounds | None:
    """Bounds on ``var`` equivalent to the literal, or None."""
    match literal:
        case Le0(body):
            return at_most_zero(body, var)
        case Eq0(body):
            one, two = at_most_zero(body, var), at_most_zero(neg(body), var)
            if one is None or two is None:
                return None
            return Bounds(
                one.low if one.low is not None else two.low, one.high if one.high is not None else two.high
            )
    return None


def residue(literal: Expr, var: Var) -> tuple[Expr, Expr] | None:
    """``(step, offset)`` when the literal says ``var % step == offset % step``, else None."""
    if not isinstance(literal, Eq0):
        return None
    split = _split(literal.body, var)
    if split is None:
        return None
    c, atom, rest = split
    value, step = constant(scale(-c, rest)), None
    if abs(c) == 1 and isinstance(atom, Mod):
        step = constant(atom.right)
    if value is None or step is None or not 0 <= value < step or not isinstance(atom, Mod):
        return None
    inner = _split(atom.left, var)
    if inner is None or abs(inner[0]) != 1 or inner[1] != var:
        return None
    sign, _, shift = inner
    return atom.right, mod(scale(sign, add(value, neg(shift))), atom.right)


@lru_cache(maxsize=1 << 14)
def expand(formula: Expr, *position: Var) -> Expr:
    """Comparisons of ``min`` and ``max`` taken apart, and ``!=`` where it bounds a position on two sides.

    position: the position, or its digits, that is solved for. A ``min`` or ``max`` that does not mention it
    is part of a bound on it and stays: a window that is clamped at the borders remains one interval.
    """
    match formula:
        case And(args):
            return conj(*(expand(arg, *position) for arg in args))
        case Or(args):
            return disj(*(expand(arg, *position) for arg in args))
        case Le0(body):
            parts = _extremum(body, position)
            if parts is not None:
                all_of, options = parts
                return (conj if all_of else disj)(*(expand(le(option, 0), *position) for option in options))
        case Eq0(body) if _extremum(body, position) is not None:
            return conj(expand(le(body, 0), *position), expand(le(neg(body), 0), *position))
        case Not(Eq0(body)):
            two_sided = mentions(body, QUERY) and mentions(body, KEY) and solve(Eq0(body), KEY) is not None
            if two_sided or _extremum(body, position) is not None:
                return disj(
                    expand(le(add(body, 1), 0), *position), expand(le(add(neg(body), 1), 0), *position)
                )
    return formula


def _extremum(body: Expr, position: tuple[Var, ...]) -> tuple[bool, list[Expr]] | None:
    """The first ``min``/``max`` in a sum: whether all (or any) of the alternatives must be at most zero."""
    solved = any(mentions(body, var) for var in position)
    for c, atom in body.terms if isinstance(body, Sum) else ((1, body),):
        if isinstance(atom, (Min, Max)) and (not solved or any(mentions(atom, var) for var in position)):
            rest = add(body, scale(-c, atom))
            return isinstance(atom, Max) == (c > 0), [add(rest, scale(c, arg)) for arg in atom.args]
    return None


def equal_entries(literal: Expr) -> tuple[str, Expr] | None:
    """``(x, step)`` when the literal says ``x[q // step] == x[k // step]`` for an integer input ``x``."""
    match literal:
        case Eq0(Sum(((a, Lookup(x, (i,), "int")), (b, Lookup(y, (j,), "int"))), 0)) if x == y and a == -b:
            for own, other in ((i, j), (j, i)):
                if substitute(own, {QUERY: KEY}) == other and not mentions(own, KEY):
                    if own == QUERY:
                        return x, add(1)
                    if isinstance(own, FloorDiv) and own.left == QUERY and (constant(own.right) or 0) > 0:
                        return x, own.right
    return None

"""Conditions as conjunctions of plain comparisons, each of which is counted on its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attnc.expression import (
    And,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Max,
    Min,
    Not,
    Or,
    Select,
    Sum,
    Truth,
    add,
    children,
    conj,
    constant,
    disj,
    floor_div,
    le,
    neg,
    negate,
    rebuild,
    scale,
    sub,
)
from attnc.sizes import NoFormula, linear

# A conjunction that falls into more cells than this is not worth a formula.
MOST_CELLS = 256
# Nor is one of more comparisons than this, each of which is one step deeper into the recursion.
MOST_COMPARISONS = 256


def cells(conditions: Iterable[Expr]) -> Iterator[tuple[int, tuple[Expr, ...]]]:
    """Conjunctions of plain comparisons whose counts, added with their signs, are the count of all.

    What is not a conjunction is counted by its complement: all, minus those where it fails.
    """
    budget = [MOST_CELLS]

    def expand(pending: tuple[Expr, ...], done: tuple[Expr, ...]) -> Iterator[tuple[int, tuple[Expr, ...]]]:
        if not pending:
            budget[0] -= 1
            if budget[0] < 0:
                raise NoFormula
            yield 1, done
            return
        if len(pending) + len(done) > MOST_COMPARISONS:
            raise NoFormula
        first, rest = pending[0], pending[1:]
        match first:
            case Truth(value):
                if value:
                    yield from expand(rest, done)
            case And(args):
                yield from expand((*args, *rest), done)
            case Or(args) if _exclusive(args):
                for arg in args:
                    yield from expand((arg, *rest), done)
            case Or(_) | Not(Eq0(_)):
                yield from expand(rest, done)
                for sign, cell in expand((negate(first), *rest), done):
                    yield -sign, cell
            case Le0(body):
                opened = _open(body)
                if opened is None:
                    yield from expand(rest, (*done, first))
                else:
                    yield from expand((opened, *rest), done)
            case Eq0(body):
                if _open(body) is None:
                    yield from expand(rest, (*done, first))
                else:
                    yield from expand((le(body, 0), le(neg(body), 0), *rest), done)
            case _:
                raise NoFormula

    return expand(tuple(conditions), ())


def _exclusive(args: tuple[Expr, ...]) -> bool:
    """Equalities that differ by constants: no two hold at once."""
    bodies = [arg.body for arg in args if isinstance(arg, Eq0)]
    if len(bodies) < len(args):
        return False
    differences = [constant(sub(bodies[0], other)) for other in bodies]
    return None not in differences and len(set(differences)) == len(differences)


def _open(body: Expr) -> Expr | None:
    """``body <= 0`` without its first minimum, maximum or choice, or None when it has none."""
    terms, _ = linear(body)
    for atom, c in terms.items():
        if isinstance(atom, (Min, Max)):
            rest = sub(body, scale(c, atom))
            parts = [le(add(scale(c, arg), rest), 0) for arg in atom.args]
            return conj(*parts) if isinstance(atom, Max) == (c > 0) else disj(*parts)
        if isinstance(atom, Select):
            rest = sub(body, scale(c, atom))
            then, otherwise = (le(add(scale(c, arm), rest), 0) for arm in (atom.then, atom.otherwise))
            return disj(conj(atom.condition, then), conj(negate(atom.condition), otherwise))
    return None


def flat(expr: Expr) -> Expr:
    """``((x // a) + c) // b`` as one division, so that moduli divide each other."""
    parts = children(expr)
    if not parts:
        return expr
    expr = rebuild(expr, tuple(map(flat, parts)))
    if isinstance(expr, FloorDiv) and isinstance(expr.left, Sum) and (b := constant(expr.right) or 0) > 0:
        terms, start = linear(expr.left)
        if [(type(atom), c) for atom, c in terms.items()] == [(FloorDiv, 1)]:
            (inner,) = terms
            assert isinstance(inner, FloorDiv)
            if (a := constant(inner.right) or 0) > 0:
                return floor_div(add(inner.left, a * start), a * b)
    return expr

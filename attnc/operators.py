"""Operands to results: what kinds an operator takes, and what it makes of them."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from attnc import syntax as tree
from attnc.atoms import POSITION
from attnc.diagnostics import Span
from attnc.expression import (
    Expr,
    Lookup,
    conj,
    disj,
    negate,
    walk,
)
from attnc.inputs import check_place
from attnc.pattern import Difference, Relation, Union
from attnc.scope import (
    KIND_NAMES,
    Boolean,
    Edges,
    Floating,
    InputDef,
    Integer,
    Positions,
    Scope,
    Value,
    Weighing,
)

_V = TypeVar("_V", Integer, Boolean, Positions, Edges)


def expect(scope: Scope, node: tree.Expression, value: Value, kind: type[_V]) -> _V:
    if isinstance(value, kind):
        return value
    if isinstance(value, Floating | Weighing):
        no_floats(scope, node)
    helps: dict[tuple[type, type], str] = {
        (Edges, Boolean): f"write `where {scope.brief(node.span)}`",
        (Edges, Positions): "a set becomes a relation by `to(…)` (keys in it) or `from(…)` (queries in it)",
        (Boolean, Edges): "`|`, `&`, `-` and `!` join relations; `and`, `or` and `not` join conditions",
        (Boolean, Positions): "read an input at a position, as in `x[q]` or `x[k]`",
        (
            Boolean,
            Integer,
        ): "compare it with something, as in `… == 0`; of the lowest bits, `x & 3` is `x % 4`",
        (
            Positions,
            Boolean,
        ): "a condition on positions stands after `where`, in the place of `to(…)` or `from(…)`",
        (Integer, Boolean): "only numbers are computed with and compared; "
        f"`{scope.brief(node.span)}` is a condition already, as it stands",
        (
            Positions,
            Edges,
        ): "sets are made of `first`, `last`, `every`, `{…}` and inputs, with `+`, `-` and `&`",
        (Positions, Integer): f"a single position is written `{{{scope.brief(node.span)}}}`",
        (Integer, Positions): "read an input at a position, as in `x[q]` or `x[k]`",
    }
    raise scope.error(
        "type-mismatch",
        f"expected {KIND_NAMES[kind]}, found {KIND_NAMES[type(value)]}",
        node.span,
        help=helps.get((kind, type(value))),
    )


def no_floats(scope: Scope, node: tree.Expression) -> NoReturn:
    if scope.bound is not None:
        raise scope.error(
            "float-value", "bounds are made of whole numbers", node.span, help="a half of `x` is `x // 2`"
        )
    raise scope.error(
        "float-value",
        "floats cannot say which edges there are",
        node.span,
        help="edges are chosen by integers and conditions; floats are for weighing edges",
    )


def members(scope: Scope, node: tree.Expression, found: Positions, checked: bool = False) -> Expr:
    """A set as a predicate over positions. ``checked`` where positions are about to be tokens or blocks."""
    if found.least < 0:
        raise scope.error(
            "bad-argument",
            f"positions count from 0, and this list has {found.least}",
            node.span,
            help="the last positions are `last(m)`",
        )
    if checked:
        for part in walk(found.members):
            if isinstance(part, Lookup) and part.index == (POSITION,):
                definition = scope.names[part.table]
                assert isinstance(definition, InputDef)
                check_place(scope, definition.input, 0, POSITION, node.span)
    return found.members


def integers(scope: Scope, chain: tree.Chain, values: list[Value]) -> list[Expr]:
    return [
        expect(scope, node, value, Integer).expr for node, value in zip(chain.operands, values, strict=True)
    ]


def edges(scope: Scope, chain: tree.Chain, values: list[Value]) -> tuple[Relation, ...]:
    if chain.operators[0].text == "|" and all(isinstance(value, Positions) for value in values):
        raise scope.error(
            "type-mismatch",
            "`|` joins relations; these are sets",
            chain.span,
            help="sets are joined with `+`",
        )
    return tuple(
        [
            expect(scope, node, value, Edges).relation
            for node, value in zip(chain.operands, values, strict=True)
        ]
    )


def sets(scope: Scope, chain: tree.Chain, values: list[Value]) -> list[Expr]:
    return [
        members(scope, node, expect(scope, node, value, Positions))
        for node, value in zip(chain.operands, values, strict=True)
    ]


def combine(scope: Scope, chain: tree.Chain, values: list[Value]) -> Positions:
    total, *rest = sets(scope, chain, values)
    joined = [total]
    for operator, members in zip(chain.operators, rest, strict=True):
        if operator.text == "+":
            joined.append(members)
        else:
            joined = [conj(disj(*joined), negate(members))]
    return Positions(disj(*joined))


def subtract(scope: Scope, chain: tree.Chain, values: list[Value]) -> Edges:
    for operator in chain.operators:
        if operator.text == "+":
            raise scope.error(
                "type-mismatch",
                "relations are not added",
                operator.span,
                help="write `|` for the union of relations",
            )
    first, *rest = edges(scope, chain, values)
    taken = rest[0] if len(rest) == 1 else Union(tuple(rest), Span(rest[0].span.start, chain.span.end))
    return Edges(Difference(first, taken, chain.span))

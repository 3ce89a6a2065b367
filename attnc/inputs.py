"""Reading inputs: which one is named, and whether it is as long as what it is read with."""

from __future__ import annotations

from attnc import atoms
from attnc import syntax as tree
from attnc.atoms import POSITION
from attnc.diagnostics import Label, Span
from attnc.expression import (
    HEAD,
    HEADS,
    Expr,
    K,
    Lookup,
    Q,
    constant,
)
from attnc.names import FUNCTIONS, RELATIONS, SETS, VARIABLES
from attnc.notation import show
from attnc.pattern import Input
from attnc.scope import BrokenDef, InputDef, Mistake, Positions, Scope


def input_named(scope: Scope, node: tree.Expression, why: str, declared: str = "int[n]") -> Input:
    """The input that an expression names; anything else raises, and proposes one that is ``declared`` so."""
    inner = tree.ungroup(node)
    if isinstance(inner, tree.Name):
        definition = scope.names.get(inner.name)
        scope.used.add(inner.name)
        if isinstance(definition, InputDef):
            return definition.input
        if isinstance(definition, BrokenDef):
            raise Mistake(None)
        if definition is None and inner.name in (*RELATIONS, *SETS, *FUNCTIONS):
            raise scope.error(
                "type-mismatch",
                f"{why} takes the name of an input, and `{inner.name}` is a word of the language",
                node.span,
                help=f"arguments stand in parentheses: `{inner.name}(…)`" if why == "indexing" else None,
            )
        if definition is None and inner.name not in VARIABLES:
            inputs = tuple(name for name, d in scope.names.items() if isinstance(d, InputDef))
            otherwise = None if why == "indexing" else f"declare `input {inner.name}: {declared}`"
            raise scope.unknown(inner.name, inner.span, inputs, otherwise)
    help = f"declare one, as in `input x: {declared}`" if why != "indexing" else None
    raise scope.error("type-mismatch", f"{why} takes the name of an input", node.span, help=help)


def shape_text(entries: Input) -> str:
    return f"{entries.kind}[{', '.join(map(show, entries.shape))}]"


def as_set(scope: Scope, entries: Input, span: Span) -> Positions:
    if entries.kind != "bool" or len(entries.shape) != 1:
        raise scope.error(
            "type-mismatch",
            f"`{entries.name}` is {shape_text(entries)}, and only a bool[n] is a set by itself",
            span,
            help=f"read it at a position: `{entries.name}[{'k' if len(entries.shape) == 1 else 'k, …'}]`",
            secondary=(Label(entries.span, "declared here"),),
        )
    return Positions(Lookup(entries.name, (POSITION,), "bool"))


def check_place(scope: Scope, entries: Input, number: int, place: Expr, span: Span) -> None:
    """Raises when a position or head is looked up in an axis that isn't as long as there are of them."""
    if scope.blocks is None:
        return
    size = entries.shape[number]
    declared = (Label(entries.span, "declared here"),)
    at, last = constant(place), constant(size)
    if at is not None and (at < 0 or (last is not None and at >= last)):
        raise scope.error(
            "bad-index",
            f"`{entries.name}` has no entry {at} there",
            span,
            help="entries count from 0" + ("" if last is None else f" to {last - 1}"),
            secondary=declared,
        )
    if place == HEAD and size != HEADS:
        raise scope.error(
            "bad-index",
            f"`h` runs up to `H`, and this axis of `{entries.name}` has another size",
            span,
            help=f"declare `{entries.name}` with `H` there",
            secondary=declared,
        )
    if place not in (Q, K, POSITION):
        return
    inside = 1
    for block in scope.blocks:
        inside *= block
    found = atoms.block_of(size)
    if found == inside:
        return
    wanted = atoms.block_shape(inside)
    if inside > 1:
        raise scope.error(
            "block-input",
            f"inside `blocks`, `{entries.name}` is read once for every block of {inside}, "
            f"and it is declared as {shape_text(entries)}",
            span,
            help=f"declare `input {entries.name}: {entries.kind}[{wanted}]`",
            secondary=declared,
        )
    if found is not None:
        raise scope.error(
            "block-input",
            f"`{entries.name}` has one entry for every block of {found}, and is read for every token",
            span,
            help=f"read it inside `blocks({found}, …)`, or declare `input {entries.name}: {entries.kind}[n]`",
            secondary=declared,
        )
    raise scope.error(
        "bad-index",
        f"positions run up to `n`, and this axis of `{entries.name}` has another size",
        span,
        help=f"declare `{entries.name}` with `n` there, or bring the index into its range with `%` or `min`",
        secondary=declared,
    )

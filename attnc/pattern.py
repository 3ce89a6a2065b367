"""A pattern with every name, type and parameter settled: what the resolver makes of a tree.

Relations keep the tree that was written, with the place of every atom, and each atom holds one boolean
expression over ``q k n h H`` and the inputs. ``blocks`` and ``grid`` are gone by now: they are substitutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.diagnostics import Source, Span
from attnc.expression import (
    Expr,
    Param,
    conj,
    disj,
    negate,
)

InputKind = Literal["bool", "int", "float"]
ClaimKind = Literal["causal", "nonempty", "edges", "flops", "reach"]


@dataclass(frozen=True)
class Input:
    """A tensor given at call time. ``shape`` is over ``n`` and ``H``; a leading batch axis may be added."""

    name: str
    kind: InputKind
    shape: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True)
class Atom:
    """A leaf of a relation: its meaning, how it was written, where."""

    formula: Expr
    text: str
    span: Span


@dataclass(frozen=True)
class Union:
    args: tuple[Relation, ...]
    span: Span


@dataclass(frozen=True)
class Intersection:
    args: tuple[Relation, ...]
    span: Span


@dataclass(frozen=True)
class Difference:
    left: Relation
    right: Relation
    span: Span


@dataclass(frozen=True)
class Complement:
    arg: Relation
    span: Span


Relation = Atom | Union | Intersection | Difference | Complement


@dataclass(frozen=True)
class Heads:
    """Which heads a body is for: a condition over ``h`` and ``H``; ``TRUE`` without a ``heads`` clause."""

    condition: Expr
    text: str
    span: Span


@dataclass(frozen=True)
class Body:
    heads: Heads
    relation: Relation


@dataclass(frozen=True)
class Claim:
    """What must be provable. ``bound`` is over ``n``, ``d`` (head dim) and ``count(input)`` variables.

    ``assumed`` claims (``assume`` in place of ``require``) are taken on trust and say so in the module.
    """

    kind: ClaimKind
    bound: Expr | None
    assumed: bool
    text: str
    span: Span


@dataclass(frozen=True)
class Pattern:
    name: str
    params: tuple[Param, ...]
    inputs: tuple[Input, ...]
    grid: tuple[tuple[str, int], ...]
    bodies: tuple[Body, ...]
    claims: tuple[Claim, ...]
    span: Span
    source: Source
    float_params: tuple[tuple[str, float], ...] = ()  # `Param` is for integers, which edges are made of


def formula(relation: Relation) -> Expr:
    """The relation as one boolean expression: ``q`` reads ``k``."""
    match relation:
        case Atom(formula=expr):
            return expr
        case Union(args=args):
            return disj(*map(formula, args))
        case Intersection(args=args):
            return conj(*map(formula, args))
        case Difference(left=left, right=right):
            return conj(formula(left), negate(formula(right)))
        case Complement(arg=arg):
            return negate(formula(arg))

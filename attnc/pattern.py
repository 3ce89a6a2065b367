"""A pattern with every name, type and parameter settled: what the resolver makes of a tree.

Relations keep the tree that was written, with the place of every atom, and each atom holds one boolean
expression over ``q k n h H`` and the inputs. ``blocks`` and ``grid`` are gone by now: they are substitutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from attnc.diagnostics import Source, Span
from attnc.expression import (
    Expr,
    Param,
    conj,
    disj,
    negate,
    tables,
)
from attnc.real import Real, S
from attnc.signs import least_value

InputKind = Literal["bool", "int", "float"]
GateAxes = Literal["head", "token", "channel"]
ClaimKind = Literal["causal", "nonempty", "edges", "flops", "reach"]


@dataclass(frozen=True)
class Input:
    """A tensor given at call time. ``shape`` is over ``n`` and ``H``, and ``d``, the head dimension, where it
    holds weights; a leading batch axis may be added.
    """

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
class Elementwise:
    """A feature map that is the same for every coordinate ``x`` of a vector."""

    value: Real


@dataclass(frozen=True)
class Favor:
    """Positive random features of the softmax kernel (Choromanski et al. 2021), orthogonal by blocks."""

    features: int
    seed: int


@dataclass(frozen=True)
class Taylor:
    """The features whose product is ``1 + s + s**2 / 2`` for the scaled dot product ``s``."""


@dataclass(frozen=True)
class Cosine:
    """``relu``, reweighted by the cosine of the distance over ``length`` (Qin et al. 2022, cosFormer)."""

    length: int


FeatureMap = Elementwise | Favor | Taylor | Cosine


def may_be_negative(feature: FeatureMap | None) -> bool:
    """Whether a product of such features may be less than zero, and with it a row's sum of weights."""
    match feature:
        case Elementwise(value):
            least = least_value(value)
            return least is None or least < 0
        case Cosine():
            return True
    return False


@dataclass(frozen=True)
class Decay:
    """Weights are multiplied by the product of gates from ``k + 1`` to ``q``; gates are logarithms.

    axes: whether there is one gate a head, one a token and head, or one for each channel of those.
    value: of a gate a head, over ``h``. table: the input that holds the others.
    exclusive: whether the product ends at ``q - 1``, and no query reads its own position but for a bonus.
    """

    axes: GateAxes
    value: Real | None
    table: str
    exclusive: bool
    span: Span


@dataclass(frozen=True)
class Weights:
    """What an edge weighs: the softmax of ``score``, or the product of features.

    sink: what is added to softmax's denominator, as a logarithm, over ``h``.
    feature: the feature map of linear attention; None for softmax.
    normalized: whether a row's weights are divided by their sum.
    bonus: the input (H, d) that weighs a query's own position under an exclusive decay.
    beta: the input (n, H) that says how far the delta rule corrects what is stored.
    """

    score: Real = S
    sink: Real | None = None
    feature: FeatureMap | None = None
    normalized: bool = True
    decay: Decay | None = None
    bonus: str | None = None
    beta: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it is softmax of the scaled dot product, and nothing else."""
        return self == Weights()


@dataclass(frozen=True)
class Part:
    """Edges of a body that weigh alike. All parts of a body share one denominator, and no edge is in two."""

    relation: Relation
    weights: Weights
    span: Span


@dataclass(frozen=True)
class Body:
    """``relation`` has the edges of all ``parts``, of which there is one unless ``attend`` is repeated."""

    heads: Heads
    relation: Relation
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            object.__setattr__(self, "parts", (Part(self.relation, Weights(), self.relation.span),))

    @property
    def weights(self) -> Weights:
        """Of a body with one part."""
        [part] = self.parts
        return part.weights


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


def operands(relation: Relation) -> tuple[Relation, ...]:
    """The relations that an operator joins; none for an atom."""
    match relation:
        case Union(args=args) | Intersection(args=args):
            return args
        case Difference(left=left, right=right):
            return left, right
        case Complement(arg=arg):
            return (arg,)
    return ()


def mask_inputs(pattern: Pattern) -> frozenset[str]:
    """Names of the inputs that the relations look up; those that only scores depend on are left out."""
    return frozenset(name for body in pattern.bodies for name in _looked_up(body.relation))


def _looked_up(relation: Relation) -> Iterator[str]:
    """Inputs of every atom: in ``formula``, parts such as ``same(x) - same(x)`` have cancelled."""
    if isinstance(relation, Atom):
        yield from tables(relation.formula)
    for part in operands(relation):
        yield from _looked_up(part)


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

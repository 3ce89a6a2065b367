"""What must be known of a pattern before it may stand in for a model's own attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from attnc import proofs, real
from attnc.expression import (
    HEAD,
    HEADS,
    Const,
    Drawn,
    Expr,
    K,
    Lookup,
    N,
    Q,
    Var,
    add,
    children,
    eq,
    fold,
    le,
    lt,
    rebuild,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.pattern import Atom, Input, Intersection, Pattern, Relation, Weights, formula
from attnc.pipeline import settle_pattern
from attnc.request import Request
from attnc.solver import valid


@dataclass(frozen=True)
class Traits:
    """causal: no query reads a key after it, by proof or by an ``assume``; else ``why_not`` says why not.

    moves: the same tokens have the same edges wherever they stand in a longer sequence.
    asks_length: edges between tokens may change when tokens are added behind them.
    tells_heads: whether the mask or the scores may differ from head to head.
    """

    pattern: Pattern
    causal: bool
    why_not: str
    moves: bool
    asks_length: bool
    tells_heads: bool
    _within: dict[int, bool] = field(default_factory=dict, compare=False)

    def within(self, distance: int) -> bool:
        """Whether it is proven that no query reads a key more than ``distance`` tokens before it."""
        if distance not in self._within:
            self._within[distance] = all(
                valid(
                    le(sub(Q, K), distance),
                    [le(0, K), lt(K, N), le(0, Q), lt(Q, N), fold(formula(body.relation))],
                ).outcome
                == "proven"
                for body in self.pattern.bodies
            )
        return self._within[distance]

    def caps(self, most: float) -> bool:
        """Whether the pattern's own scores are ``most * tanh(s / most)``, however it is written."""
        found = [part.weights for body in self.pattern.bodies for part in body.parts]
        for s in (-2.5 * most, -0.3 * most, 0.01 * most, 0.7 * most, 3.0 * most):
            values = [
                real.known(real.folded(real.replace(item.score, {real.S: real.Number(s)}))) for item in found
            ]
            wanted = most * math.tanh(s / most)
            if any(value is None or abs(value - wanted) > 1e-9 * most for value in values):
                return False
        return all(item.feature is None for item in found)

    @property
    def scores(self) -> str:
        """What edges are weighed by, for messages."""
        found = [part.weights for body in self.pattern.bodies for part in body.parts]
        texts = dict.fromkeys(
            f"`{real.show(item.score)}`" if item.feature is None else "those of `kernel`" for item in found
        )
        return " and ".join(texts)


def traits(request: Request) -> Traits:
    """Raises ``AttncError`` when the pattern does not resolve."""
    pattern = settle_pattern(request).pattern
    finding = proofs.causal(pattern)
    assumed = any(claim.kind == "causal" and claim.assumed for claim in pattern.claims)
    relations = [fold(formula(body.relation)) for body in pattern.bodies]
    why_not = finding.note or finding.verdict
    if finding.witness:
        at = finding.witness
        why_not = f"q = {at['q']} reads k = {at['k']} when n = {at['n']}"
    weighed = [expr for body in pattern.bodies for part in body.parts for expr in _integers(part.weights)]
    asks_length = any("n" in variables(expr) for expr in (*relations, *weighed))
    return Traits(
        pattern,
        causal=assumed or finding.verdict == "proven",
        why_not=why_not,
        moves=not asks_length
        and all(_moves(expr, pattern) for expr in (*relations, *weighed))
        and not any(_runs_on(part.weights) for body in pattern.bodies for part in body.parts),
        asks_length=asks_length,
        tells_heads=_tells_heads(pattern, relations),
    )


def _tells_heads(pattern: Pattern, relations: list[Expr]) -> bool:
    reals = [
        expr
        for body in pattern.bodies
        for part in body.parts
        for decay in (part.weights.decay,)
        for expr in (part.weights.score, part.weights.sink, decay.value if decay else None)
        if expr is not None
    ]
    integers = [inner for expr in reals for node in real.everywhere(expr) for inner in real.integers(node)]
    return (
        len(pattern.bodies) > 1
        or any(HEADS.name in variables(size) for item in pattern.inputs for size in item.shape)
        or any({HEAD.name, HEADS.name} & variables(expr) for expr in (*relations, *integers))
    )


def _integers(weights: Weights) -> Iterator[Expr]:
    """What a score hangs on besides the scaled dot product: positions, and entries of inputs."""
    for node in real.everywhere(weights.score):
        if isinstance(node, real.Entry):
            yield Lookup(node.table, node.index, "float")
        else:
            yield from map(fold, real.integers(node))


def _runs_on(weights: Weights) -> bool:
    """Whether an edge's weight hangs on what lies between its ends, or on more than its row."""
    return replace(weights, score=real.S, sink=None) != Weights()


def _moves(relation: Expr, pattern: Pattern) -> bool:
    """Whether positions matter by their distance, and by what inputs say of them, alone."""
    if any(isinstance(part, Drawn) for part in walk(relation)):
        return False
    shapes = {item.name: item.shape for item in pattern.inputs}
    hidden = _hidden(relation, shapes)
    if any(isinstance(part, Lookup) for part in walk(hidden)):
        return False
    shift = Var("shift")
    return substitute(hidden, {Q: add(Q, shift), K: add(K, shift)}) == hidden


def _hidden(expr: Expr, shapes: dict[str, tuple[Expr, ...]]) -> Expr:
    """The expression with entries that belong to a token, or to none, as variables."""
    if isinstance(expr, Lookup):
        fitting = (
            place in (Q, K) if "n" in variables(size) else place == HEAD or isinstance(place, Const)
            for place, size in zip(expr.index, shapes[expr.table], strict=True)
        )
        return Var(f"{expr.table}{expr.index}") if all(fitting) else expr
    parts = children(expr)
    return rebuild(expr, tuple(_hidden(part, shapes) for part in parts)) if parts else expr


def _free(name: str, pattern: Pattern) -> str:
    while any(item.name == name for item in pattern.inputs):
        name += "_"
    return name


def segment_name(pattern: Pattern) -> str:
    """What the input that ``segmented`` adds is called."""
    return _free("segment", pattern)


def segmented(pattern: Pattern) -> Pattern:
    """The pattern within segments: a query reads only keys with its own entry in one more input."""
    name = segment_name(pattern)
    same = eq(Lookup(name, (Q,)), Lookup(name, (K,)))
    return _narrowed(pattern, Input(name, "int", (N,), pattern.span), same, f"same({name})")


def kept_name(pattern: Pattern) -> str:
    """What the input that ``kept`` adds is called."""
    return _free("kept", pattern)


def kept(pattern: Pattern) -> Pattern:
    """The pattern over some keys alone: those at which one more input is true."""
    name = kept_name(pattern)
    there = Lookup(name, (K,), "bool")
    return _narrowed(pattern, Input(name, "bool", (N,), pattern.span), there, f"to({name})")


def _narrowed(pattern: Pattern, entries: Input, condition: Expr, text: str) -> Pattern:
    atom = Atom(condition, text, pattern.span)

    def narrowed(relation: Relation) -> Relation:
        return Intersection((relation, atom), relation.span)

    bodies = tuple(
        replace(
            body,
            relation=narrowed(body.relation),
            parts=tuple(replace(part, relation=narrowed(part.relation)) for part in body.parts),
        )
        for body in pattern.bodies
    )
    # Its claims were judged by themselves.
    return replace(pattern, inputs=(*pattern.inputs, entries), bodies=bodies, claims=())

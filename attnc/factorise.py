"""Whether linear attention over a relation has a form through states, which costs a multiple of ``n``.

Weights that are products of features can be summed over the keys first: what all keys up to a position leave
behind is a *state* of fixed size. That needs a relation under which a query reads every key (``all``), or all
that lie at least ``near`` positions behind it, maybe within *segments* that follow one another: documents
(``same(x)``) and chunks. Candidates are read off the relation's own expressions, and one is taken when the
solver proves it to be the relation for every length, head and content of the inputs. Otherwise the relation
is swept like any other, and nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from attnc import real
from attnc.expression import (
    TRUE,
    Expr,
    FloorDiv,
    K,
    Le0,
    Lookup,
    N,
    Q,
    Sum,
    Var,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    fold,
    le,
    lt,
    merged,
    negate,
    sub,
    walk,
)
from attnc.pattern import (
    Body,
    Cosine,
    Decay,
    Favor,
    Part,
    Taylor,
    Weights,
    formula,
    may_be_negative,
)
from attnc.relation import POSITIONS
from attnc.solver import Answer, valid

# No more candidates are put to the solver than this.
MOST_CANDIDATES = 12
# The keys nearest to a query that other weights may take, at most: what lies between them and the states is
# computed pair by pair.
MOST_NEAR = 4096


@dataclass(frozen=True)
class Factor:
    """How one part of a body is computed through states.

    part: its number among the body's parts.
    causal: whether a query reads what lies behind it alone; otherwise it reads everything.
    near: how far behind at least; 0 if it reads itself.
    same: inputs whose entries are equal within a segment. chunk: positions of a segment, 0 for any number.
    signed: whether a row's sum of weights may be negative.
    """

    part: int
    causal: bool
    near: int = 0
    same: tuple[str, ...] = ()
    chunk: int = 0
    signed: bool = False

    @property
    def segmented(self) -> bool:
        return bool(self.same or self.chunk)

    def relation(self) -> Expr:
        """The pairs that it stands for."""
        behind = le(K, sub(Q, self.near)) if self.causal else TRUE
        same = (eq(Lookup(x, (Q,), "int"), Lookup(x, (K,), "int")) for x in self.same)
        chunk = eq(floor_div(Q, self.chunk), floor_div(K, self.chunk)) if self.chunk else TRUE
        return conj(behind, *same, chunk)

    def __str__(self) -> str:
        reads = "everything" if not self.causal else "all up to itself"
        if self.near:
            reads = f"all at least {self.near} positions behind"
        within = [f"one `{x}`" for x in self.same] + [f"a chunk of {self.chunk}"] * bool(self.chunk)
        return reads + (f" within {' and '.join(within)}" if within else "")


def factors(body: Body) -> tuple[Factor | None, ...]:
    """For every part of a body its form through states, where it has one that is proven."""
    found = [_factor(body, i, part) for i, part in enumerate(body.parts)]
    if sum(factor is not None for factor in found) > 1 or any(
        factor is not None and len(body.parts) > 1 and (factor.segmented or not factor.causal)
        for factor in found
    ):
        return (None,) * len(found)
    return tuple(found)


def _factor(body: Body, number: int, part: Part) -> Factor | None:
    weights = part.weights
    if weights.feature is None:
        return None
    relation = merged(fold(formula(part.relation)))
    for causal, near, same, chunk in list(_candidates(relation))[:MOST_CANDIDATES]:
        factor = Factor(number, causal, near, same, chunk, may_be_negative(weights.feature))
        if _suits(factor, weights) and stands_for(factor, body).outcome == "proven":
            return factor
    return None


def _suits(factor: Factor, weights: Weights) -> bool:
    """Whether states can carry these weights at all."""
    recurrent = weights.decay is not None or weights.beta is not None
    if recurrent and (not factor.causal or factor.near):
        return False
    if not factor.causal and factor.segmented:
        return False
    # Documents need not follow one another: they are put together first, which changes distances. Gates are
    # added up to make up for that, but for those that end a step earlier.
    moved = bool(factor.same)
    exclusive = weights.decay is not None and weights.decay.exclusive
    return not (moved and (isinstance(weights.feature, Cosine) or factor.near or exclusive))


def stands_for(factor: Factor, body: Body) -> Answer:
    """Whether the pairs that states sum up are the edges of that part of the body, and no others."""
    relation, candidate = merged(fold(formula(body.parts[factor.part].relation))), factor.relation()
    if relation == candidate:
        return Answer("proven")
    among = conj(le(0, Var("h")), lt(Var("h"), Var("H")), fold(body.heads.condition))
    both = disj(conj(relation, candidate), conj(negate(relation), negate(candidate)))
    return valid(both, [POSITIONS, le(1, N), among])


def _candidates(relation: Expr) -> Iterator[tuple[bool, int, tuple[str, ...], int]]:
    """What the relation may be: causal or not, how near, which segments; the likeliest first."""
    equal, chunks, distances = dict[str, None](), dict[int, None](), dict[int, None]({0: None})
    for part in walk(relation):
        match part:
            case Lookup(table, (place,), "int") if place in (Q, K):
                equal[table.partition(".")[0]] = None
            case FloorDiv(place, size) if place in (Q, K) and constant(size):
                chunks[constant(size) or 0] = None
            case Le0(Sum(terms, start)) if {atom for _, atom in terms} == {Q, K}:
                distances |= {abs(start): None, abs(start) + 1: None}
    same = tuple(sorted(equal))
    sizes = list(chunks) or [0]
    near = [distance for distance in distances if distance <= MOST_NEAR]
    for chunk in sizes:
        yield from ((True, distance, same, chunk) for distance in near)
        yield False, 0, same, chunk


# --- what it costs --------------------------------------------------------------------------------------


def features(weights: Weights, dim: int) -> int:
    """How many features a vector of ``dim`` coordinates has."""
    match weights.feature:
        case Favor(count, _):
            return count
        case Taylor():
            return 1 + dim + dim * dim
        case Cosine():
            return 2 * dim
    return dim


def features_text(weights: Weights) -> str:
    """The same as a formula in ``d``."""
    match weights.feature:
        case Favor(count, _):
            return str(count)
        case Taylor():
            return "(1 + d + d**2)"
        case Cosine():
            return "2*d"
    return "d"


def breaks_even(factor: Factor, weights: Weights, dim: int = 64) -> int:
    """The number of keys from which the states cost less than every pair, for queries as many as keys.

    Counted in multiplications of one query: two products with every key it reads, half of them under a causal
    relation, against two products with a state.
    """
    pairs = dim + dim
    states = 2 * features(weights, dim) * (dim + weights.normalized)
    return -(-states * (2 if factor.causal else 1) // pairs) + factor.near


def describe(body: Body, found: tuple[Factor | None, ...]) -> Iterator[str]:
    """What ``--emit schedule`` says of a body's states."""
    for factor, part in zip(found, body.parts, strict=True):
        if factor is None:
            continue
        weights = part.weights
        update = "delta rule" if weights.beta else "sum of products"
        yield f"states over all keys: {update}, {state_text(weights)} numbers a head"
        yield f"    a query reads {factor}"
        for line in decay_lines(weights):
            yield f"    {line}"
        if factor.segmented:
            yield "    begun anew in every segment"
        yield f"    {cost_text(factor, weights)} multiplications a head"


def decay_lines(weights: Weights) -> Iterator[str]:
    decay = weights.decay
    if decay is None:
        return
    each = {"head": "head", "token": "token and head", "channel": "token, head and channel"}[decay.axes]
    yield f"faded by {decay_text(decay)}, one gate a {each}" + (
        ", but for the last step" if decay.exclusive else ""
    )
    if weights.bonus is not None:
        yield f"a query's own position weighs {weights.bonus}"


def decay_text(decay: Decay) -> str:
    """What the logarithms of gates are made of: an expression, or the name of an input."""
    return real.show(decay.value) if decay.value is not None else decay.table


def state_text(weights: Weights) -> str:
    """The size of a head's state, as a formula in the head dim ``d`` and the value dim ``dv``."""
    return f"{features_text(weights)} * {'(dv + 1)' if weights.normalized else 'dv'}"


def cost_text(factor: Factor, weights: Weights) -> str:
    """Multiplications of one head's forward pass; chunks add a multiple of ``n``, whatever its size."""
    return f"2 * n * {state_text(weights)}" + (f" + n * {factor.near} * (d + dv)" if factor.near else "")


def multiplications(factor: Factor, weights: Weights, n: int, dim: int = 64) -> int:
    """What ``cost_text`` says, for ``n`` keys, as many queries, and head and value dims of ``dim``."""
    state = features(weights, dim) * (dim + weights.normalized)
    return 2 * n * state + n * factor.near * 2 * dim


def segments_of(found: tuple[Factor | None, ...]) -> tuple[str, ...]:
    """The inputs that segments are told by."""
    return tuple(dict.fromkeys(chain.from_iterable(factor.same for factor in found if factor is not None)))

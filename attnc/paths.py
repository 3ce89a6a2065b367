"""Paths through stacked layers, found for every length at once.

"Some token in between hears of ``k`` and is heard by ``q``" is proven by naming that token. The names come
from counterexamples: the solver gives a pair without a path, a path for that pair is looked for among the
places at which the relation turns (ends of intervals, members of residue classes, corners of grids), and
what is found is tried for every pair, until no pair is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attnc.budget import use
from attnc.evaluation import (
    WORD,
    Env,
    evaluate,
)
from attnc.expression import (
    FALSE,
    HEAD,
    HEADS,
    ONE,
    ZERO,
    And,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Lookup,
    Mod,
    N,
    Not,
    Or,
    Q,
    Sum,
    add,
    between,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    fold,
    le,
    mod,
    neg,
    negate,
    scale,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.pattern import Pattern, formula
from attnc.solver import Answer, least, valid

ROUNDS = 24
MOST_POINTS = 160
# Steps of work for each position that is tried as a token in between.
POINT = 75


@dataclass(frozen=True)
class Union:
    """What any head reads: one relation per body, for one head of it.

    always: of which of them it is known that some head reads as much, however many heads there are.
    """

    bodies: tuple[Expr, ...]
    always: tuple[bool, ...]

    @staticmethod
    def of(pattern: Pattern) -> Union:
        bodies: list[Expr] = []
        always: list[bool] = []
        for body in pattern.bodies:
            relation = fold(formula(body.relation))
            known = True
            if {"h", "H"} & variables(relation):
                own = conj(body.heads.condition, between(0, HEAD, add(HEADS, -1)))
                values = {"h": 0, "H": 1} | least(own, (HEAD, HEADS)).variables
                head: dict[Expr, Expr] = {HEAD: Const(values["h"])}
                some = substitute(relation, {**head, HEADS: Const(values["H"])})
                # Whenever the body has a head, it has this one, and that one reads as much.
                as_much = conj(substitute(own, head), disj(negate(some), substitute(relation, head)))
                places = [between(0, Q, add(N, -1)), between(0, K, add(N, -1))]
                known = valid(as_much, [own, *places]).outcome == "proven"
                relation = some
            bodies.append(relation)
            always.append(known)
        return Union(tuple(bodies), tuple(always))

    @property
    def sure(self) -> Expr:
        """Edges that exist whatever is drawn, and however many heads there are."""
        return disj(*(_undrawn(body) for body, known in zip(self.bodies, self.always, strict=True) if known))


def _undrawn(expr: Expr) -> Expr:
    match expr:
        case Drawn() | Not(Drawn()):
            return FALSE
        case And(args):
            return conj(*map(_undrawn, args))
        case Or(args):
            return disj(*map(_undrawn, args))
    return expr


def prove_paths(union: Union, layers: int, causal: bool) -> Answer:
    """Whether ``layers`` steps lead from every query to every key it may hear of, staying put included.

    Refuted with a pair for which no path was found, which is not to say that there is none.
    """
    relation = union.sure
    legal = conj(between(0, Q, add(N, -1)), between(0, K, add(N, -1)), le(K, Q) if causal else le(ONE, N))
    step = disj(eq(Q, K), relation)
    points = list(_points(relation, 2 if layers > 2 else 1)) if layers > 1 else []
    claims: list[Expr] = [step]
    for _ in range(ROUNDS):
        answer = valid(disj(*claims), [legal])
        if answer.outcome != "refuted":
            return answer
        chain = _chain(step, points, layers, answer)
        if chain is None:
            return answer
        places = (Q, *chain, K)
        inside = (between(0, middle, add(N, -1)) for middle in chain)
        hops = (_from_to(step, a, b) for a, b in itertools.pairwise(places))
        claim = conj(*inside, *hops)
        if claim in claims:
            return Answer("undecided", reason="the solver does not follow a path that exists")
        claims.append(claim)
    return Answer("undecided", reason=f"more than {ROUNDS} different paths are needed")


def _from_to(step: Expr, query: Expr, key: Expr) -> Expr:
    return substitute(step, {Q: query, K: key})


def _chain(step: Expr, points: list[Expr], layers: int, answer: Answer) -> tuple[Expr, ...] | None:
    """Tokens between the query and the key of a counterexample, as expressions; None when there are none."""
    at = {"h": 0, "H": 1, "n": 1, "q": 0, "k": 0} | answer.variables
    if at["n"] > WORD:
        return None  # places are compared in 64 bits
    tables: dict[str, npt.NDArray[np.int64]] = {}
    for (table, place), value in answer.tables.items():
        if len(place) != 1 or not 0 <= place[0] < 1 << 20:
            continue
        entries = tables.setdefault(table, np.zeros(min(at["n"], 1 << 20), dtype=np.int64))
        if place[0] < len(entries):
            entries[place[0]] = value
    for part in walk(step):
        if isinstance(part, Lookup):
            if len(part.index) != 1 or at["n"] > 1 << 20:
                return None
            tables.setdefault(part.table, np.zeros(at["n"], dtype=np.int64))
    found = [(point, int(evaluate(point, Env(at, tables)))) for point in points]
    named: dict[int, Expr] = {}
    for point, value in found:
        if 0 <= value < at["n"]:
            named.setdefault(value, point)
    places = np.array([at["q"], *named, at["k"]], dtype=np.int64)
    names = [Q, *named.values(), K]
    hop = np.asarray(
        evaluate(step, Env({**at, "q": places[:, None], "k": places[None, :]}, tables)), dtype=np.bool_
    )
    hop = np.broadcast_to(hop, (len(places), len(places)))
    # Breadth first from the query; remember where each place was first heard from.
    before = {0: -1}
    frontier = [0]
    for _ in range(layers):
        fresh: list[int] = []
        for here in frontier:
            for there in np.flatnonzero(hop[here]).tolist():
                if there not in before:
                    before[there] = here
                    fresh.append(there)
        frontier = fresh
        if not frontier:
            break
    last = len(places) - 1
    if last not in before:
        return None
    chain: list[Expr] = []
    here = before[last]
    while here > 0:
        chain.append(names[here])
        here = before[here]
    return tuple(reversed(chain))


def _points(relation: Expr, depth: int) -> Iterator[Expr]:
    """Places of note, over ``q``, ``k`` and ``n``."""
    ends = [point for condition in walk(relation) for point in _turns(condition)]
    moduli = {
        size
        for part in walk(relation)
        if isinstance(part, (Mod, FloorDiv)) and (size := constant(part.right)) is not None and size > 1
    }
    offsets = {0} | {
        abs(part.constant) % size for part in walk(relation) if isinstance(part, Sum) for size in moduli
    }
    offsets |= {size - 1 for size in moduli}
    seen: dict[Expr, None] = dict.fromkeys((Q, K, ZERO, add(N, -1)))
    for _ in range(depth):
        for point in _beside(list(seen), ends, sorted(moduli), sorted(offsets)):
            use(POINT, "finding paths from token to token")
            seen.setdefault(point)
            if len(seen) >= MOST_POINTS * depth:
                break
    yield from seen


def _beside(
    known: Sequence[Expr], ends: Sequence[Expr], moduli: Sequence[int], offsets: Sequence[int]
) -> Iterator[Expr]:
    """Positions to try as tokens in between: where comparisons turn, and in the residue class of others."""
    for a in known:
        yield from (substitute(end, {Q: a, K: a}) for end in ends)
        for size in moduli:
            base = scale(size, floor_div(a, size))
            for offset in offsets:
                if offset < size:
                    yield add(base, offset)
                    yield add(base, offset - size)
            for b in known:
                if a != b:
                    # The corner of a grid, and the nearest member of one's residue class beside another.
                    yield add(base, mod(b, size))
                    yield add(a, mod(sub(b, a), size))
                    yield sub(a, mod(sub(a, b), size))


def _turns(condition: Expr) -> Iterator[Expr]:
    """Where a comparison turns: solved for the key over the query, and for the query over the key."""
    if not isinstance(condition, (Le0, Eq0)):
        return
    body = condition.body
    if any(isinstance(part, Lookup) for part in walk(body)):
        return
    for target in (K, Q):
        terms = {atom: c for c, atom in body.terms} if isinstance(body, Sum) else {body: 1}
        c = terms.get(target)
        if c is None:
            continue
        rest = sub(body, scale(c, target))
        if target.name in variables(rest):
            continue
        end = floor_div(neg(rest), c) if c > 0 else neg(floor_div(neg(rest), -c))
        yield from (end, add(end, 1), add(end, -1))

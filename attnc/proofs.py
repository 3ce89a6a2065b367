"""Claims about a pattern, put to the solver: proven for every length and input, or refuted with a witness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec

from attnc.bounds import edges_within, flops_within
from attnc.budget import OutOfWork
from attnc.complaints import claim_diagnostics
from attnc.emptiness import nonempty
from attnc.expression import (
    HEAD,
    HEADS,
    Const,
    Expr,
    K,
    Lookup,
    N,
    Q,
    conj,
    constant,
    fold,
    ge,
    le,
    lt,
    negate,
    substitute,
)
from attnc.indexing import index_bounds
from attnc.pattern import Body, Claim, Pattern, formula
from attnc.relation import BodyTerms
from attnc.solver import Answer, valid
from attnc.witness import (
    Array,
    ClaimResult,
    Finding,
    domain,
    environment,
    guilty,
    hunt,
    replayed,
    told,
    unsuited,
)

P = ParamSpec("P")

__all__ = [
    "ClaimResult",
    "Finding",
    "affordable",
    "causal",
    "claim_diagnostics",
    "index_bounds",
    "nonempty",
    "prove_claims",
]


def causal(pattern: Pattern) -> Finding:
    """Whether no query reads a key after itself: for every length, every head and every input.

    A witness has the least ``n``, then the least ``q`` and ``k``, and was replayed by the reference
    interpreter. ``span`` is the part of the relation that reads the future.
    """
    worst: Finding | None = None
    for body in pattern.bodies:
        found = _causal(pattern, body)
        if worst is None or _worse(found, worst):
            worst = found
    return worst or Finding("proven", note="there are no edges")


def _worse(one: Finding, other: Finding) -> bool:
    rank = {"refuted": 0, "undecided": 1, "proven": 2}
    if one.witness and other.witness:
        return one.witness["n"] < other.witness["n"]
    return rank[one.verdict] < rank[other.verdict]


def _causal(pattern: Pattern, body: Body) -> Finding:
    relation = fold(formula(body.relation))
    if reason := unsuited(relation):
        return Finding("undecided", note=reason, span=body.relation.span)
    future = domain(body, conj(le(0, Q), lt(Q, K), lt(K, N), relation))
    quarry = hunt(
        pattern,
        future,
        (N, Q, K, HEADS, HEAD),
        lambda answer, tables: replayed(pattern, body, answer, tables),
        longest=1 << 62,
    )
    answer = quarry.answer
    if answer.outcome == "proven":
        return Finding("proven", note="proven for every n")
    if not quarry.real:
        return Finding("undecided", note=answer.reason or quarry.reason, span=body.relation.span)
    at = answer.variables
    return Finding(
        "refuted",
        {name: at[name] for name in ("q", "k", "n")},
        _causal_note(pattern, body, relation, answer, quarry.tables),
        quarry.tables,
        guilty(body.relation, environment(answer, quarry.tables)).span,
        at.get("h", 0),
        at.get("H", 1),
    )


def _causal_note(
    pattern: Pattern, body: Body, relation: Expr, answer: Answer, tables: Mapping[str, Array]
) -> str:
    n = answer.variables["n"]
    note = f"refuted for n = {n}"
    if body.heads.text:
        note += f" and head {answer.variables.get('h', 0)} of {answer.variables.get('H', 1)}"
    if pattern.inputs:
        note += " with " + ", ".join(f"`{name}` = {told(value)}" for name, value in tables.items())
    if _stays(relation, answer):
        return f"{note}; holds for no n > {n - 1}"
    return f"{note}; holds for every n < {n}" if answer.minimal else note


def _stays(relation: Expr, answer: Answer) -> bool:
    """Whether the witness is one for every greater length, too."""
    at = {"h": 0, "H": 1} | answer.variables
    fixed = substitute(relation, {Q: Const(at["q"]), K: Const(at["k"]), HEAD: Const(at["h"])})
    entries: dict[Expr, Expr] = {}
    for (table, place), value in answer.tables.items():
        if not isinstance(value, bool):
            entries[Lookup(table, tuple(map(Const, place)))] = Const(value)
    fixed = substitute(fixed, entries)
    facts = [
        entry if value else negate(entry)
        for (table, place), value in answer.tables.items()
        if isinstance(value, bool)
        for entry in [Lookup(table, tuple(map(Const, place)), "bool")]
    ]
    return valid(fixed, [ge(N, at["n"]), *facts]).outcome == "proven"


def prove_claims(pattern: Pattern, bodies: tuple[BodyTerms, ...]) -> tuple[ClaimResult, ...]:
    """Every claim of the pattern with what became of it; ``bodies`` are the pattern's terms."""
    return tuple(ClaimResult(claim, affordable(_decide, pattern, bodies, claim)) for claim in pattern.claims)


def affordable(decide: Callable[P, Finding], *args: P.args, **named: P.kwargs) -> Finding:
    """What is found, or that it is undecided because it takes too much work."""
    try:
        return decide(*args, **named)
    except OutOfWork as error:
        return Finding("undecided", note=str(error))


def _decide(pattern: Pattern, bodies: tuple[BodyTerms, ...], claim: Claim) -> Finding:
    match claim.kind:
        case "causal":
            return causal(pattern)
        case "nonempty":
            return nonempty(pattern, bodies)
    if claim.bound is None:
        raise ValueError(f"the claim `{claim.text}` has no bound")
    if claim.kind == "reach":
        layers = constant(claim.bound)
        if layers is None:
            return Finding("undecided", note="the number of layers is not a constant")
        return _reach(pattern, layers)
    within = edges_within if claim.kind == "edges" else flops_within
    return within(pattern, bodies, fold(claim.bound))


def _reach(pattern: Pattern, layers: int) -> Finding:
    from attnc.reach import never_arrives, prove_reach

    answer = prove_reach(pattern, layers)
    if answer.outcome == "proven":
        return Finding("proven", note="proven for every n")
    if answer.outcome == "undecided":
        return Finding("undecided", note=answer.reason)
    at = {name: int(value) for name, value in answer.variables.items()}
    never = never_arrives(pattern, at["n"], at["q"], at["k"])
    return Finding("refuted", at, f"refuted for n = {at['n']}", never=never)

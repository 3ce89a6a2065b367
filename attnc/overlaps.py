"""Do the parts of a body that weigh differently share an edge? Which weight it had, nobody could say."""

from __future__ import annotations

from itertools import combinations

from attnc.diagnostics import Diagnostic, Label
from attnc.expression import HEAD, HEADS, K, N, Q, add, between, conj, fold, le, lt
from attnc.pattern import Pattern, formula
from attnc.solver import least


def overlaps(pattern: Pattern) -> tuple[Diagnostic, ...]:
    """One error for every two parts of a body that are not proven to be apart."""
    found = []
    for body in pattern.bodies:
        for first, second in combinations(body.parts, 2):
            edges = conj(
                between(0, Q, add(N, -1)),
                between(0, K, add(N, -1)),
                le(0, HEAD),
                lt(HEAD, HEADS),
                fold(body.heads.condition),
                fold(formula(first.relation)),
                fold(formula(second.relation)),
            )
            answer = least(edges, (N, Q, K, HEADS, HEAD))
            if answer.outcome == "proven":
                continue
            at = answer.variables
            label = f"query {at['q']} reads key {at['k']} here, too" if "q" in at and "k" in at else ""
            note = f"it could not be decided: {answer.reason}" if answer.outcome == "undecided" else None
            found.append(
                Diagnostic(
                    "parts-overlap",
                    "error",
                    f"two parts of `{pattern.name}` that weigh differently share an edge",
                    pattern.source,
                    second.relation.span,
                    label,
                    (Label(first.relation.span, "and here"),),
                    (note,) if note else (),
                    "take the edges of one part out of the other, as in `attend causal - window(63) with …`",
                )
            )
    return tuple(found)

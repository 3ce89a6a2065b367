"""Which weights can only be summed through states, and not pair by pair: said where a relation has none.

Where linear attention has no form through states, weights are summed as softmax sums the exponentials of
their logarithms. That takes weights that are never negative, and hang on the two vectors and their places.
"""

from __future__ import annotations

from attnc.diagnostics import Diagnostic
from attnc.distances import distances
from attnc.expression import Lookup, walk
from attnc.pattern import Body, Cosine, Favor, Part, Pattern, formula, may_be_negative
from attnc.schedule import Schedule


def unswept(pattern: Pattern, schedule: Schedule) -> tuple[Diagnostic, ...]:
    """One error for every part of a body that no plan can compute."""
    found = []
    for plan in schedule.bodies:
        body = plan.body if plan.whole is None else plan.whole
        factors = plan.factors or (None,) * len(body.parts)
        for part, factor in zip(body.parts, factors, strict=True):
            if factor is None and part.weights.feature is not None:
                reason = _reason(body, part)
                if reason is not None:
                    found.append(_refused(pattern, part, *reason))
                    if reason is _APART:
                        # The parts beside it may be as they should.
                        break
        if len(body.parts) > 1 and not any(factors) and not found:
            found.append(_refused(pattern, body.parts[-1], *_APART))
    return tuple(found)


_STATES = "`all`, `causal`, `causal & same(x)`, `causal & chunk(size)` or `causal - window(w)`"
_APART = (
    "of parts that share a denominator one must be summed through states, and all others weigh alike",
    "that is one `with kernel` over `causal` or `causal - window(w)`, and others `with softmax`, or with one "
    "and the same score; `score select(…, …, …)` makes one of several",
)
_COSINE = (
    "`cosine` has no form within documents (`same(x)`), which may come again later",
    "write `kernel elu(x) + 1` or `kernel x`",
)


def _reason(body: Body, part: Part) -> tuple[str, str] | None:
    """What is missing, and how to mend it; None if the part can be swept."""
    weights = part.weights
    if len(body.parts) > 1:
        return _APART
    forgets = weights.decay is not None or weights.beta is not None
    if forgets and _has_documents(part):
        if weights.decay is not None and weights.decay.exclusive:
            return (
                "an exclusive decay has no form within documents (`same(x)`), which may come again later",
                "write `decay g` without `exclusive` and `bonus`, or `chunk(size)` in the place of documents",
            )
        if isinstance(weights.feature, Cosine):
            return _COSINE
    if forgets:
        word = "decays need" if weights.beta is None else "the delta rule needs"
        return (
            f"{word} queries that attend to all earlier keys and to no later ones",
            "write `causal`, `causal & same(x)` or `causal & chunk(size)`; over other relations, "
            "`score s - slope[h] * (q - k)` forgets",
        )
    if isinstance(weights.feature, Favor):
        return (
            "`favor` stands for softmax where that would cost too much, and over this relation it does not",
            f"leave `kernel favor(…)` out, or use it over {_STATES}",
        )
    if may_be_negative(weights.feature) and not _near(part):
        if isinstance(weights.feature, Cosine) and _has_documents(part):
            return _COSINE
        return (
            "over this relation weights are summed by their logarithms, and this feature map can be negative",
            f"add to it what keeps it positive, as in `elu(x) + 1`, or attend to {_STATES}",
        )
    return None


def _has_documents(part: Part) -> bool:
    return any(isinstance(inner, Lookup) for inner in walk(formula(part.relation)))


def _near(part: Part) -> bool:
    """Whether ``cosine`` is never negative, because no edge is longer than its length."""
    if not isinstance(part.weights.feature, Cosine):
        return False
    low, high = distances(formula(part.relation))
    return low is not None and high is not None and max(-low, high) <= part.weights.feature.length


def _refused(pattern: Pattern, part: Part, why: str, help: str) -> Diagnostic:
    return Diagnostic(
        "no-states",
        "error",
        f"`{pattern.name}` weighs edges in a way that its relation does not allow",
        pattern.source,
        part.span,
        why,
        help=help,
    )

"""Claims about the number of edges (or of FLOPs, four for every edge and dimension) of one head.

Proven by comparing polynomials: bounds read off the relation (``attnc.ceilings``) or the closed form of the
cost, against the claim, for every length, however many entries of an input are true. Refuted by counting the
edges of the mask itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.ceilings import Bound, conjunctions, edge_bounds
from attnc.evaluation import (
    Env,
    evaluate,
    exact,
)
from attnc.expression import (
    Expr,
    Min,
    fold,
    variables,
)
from attnc.pattern import Body, Pattern, formula
from attnc.polynomial import Poly, from_expr, never_below, number, symbol
from attnc.relation import BodyTerms
from attnc.solver import Answer
from attnc.witness import Array, Finding, fill, told

MOST_CHOICES = 64
MOST_PARTS = 256  # of a relation multiplied out; beyond that only its closed form is looked at
SMALL = 40  # every length up to here has its edges counted in the mask
FEW = 1 << 14  # up to here lengths are looked at one by one
MOST_INPUTS = 1 << 11  # the longest inputs that are tried
PAIRS = 1 << 19  # evaluated at a time: each part of a relation takes 8 bytes for each
DIMS = (1, 64, 256)


def edges_within(pattern: Pattern, bodies: tuple[BodyTerms, ...], bound: Expr) -> Finding:
    """Whether no head has more than ``bound`` edges, for every ``n >= 0`` and every input.

    ``bound`` is over ``n`` and ``count(input)``. A witness gives ``n``, and ``Finding.inputs`` the inputs.
    """
    return _within(pattern, bodies, bound, lambda edges: edges, ())


def flops_within(pattern: Pattern, bodies: tuple[BodyTerms, ...], bound: Expr) -> Finding:
    """Whether no head's forward pass, 4·d FLOPs an edge, is above ``bound``, for every ``n``, ``d``."""
    return _within(pattern, bodies, bound, lambda edges: edges * symbol("d").scaled(4), DIMS)


def _within(
    pattern: Pattern,
    bodies: tuple[BodyTerms, ...],
    bound: Expr,
    price: Callable[[Poly], Poly],
    dims: tuple[int, ...],
) -> Finding:
    counts = {f"count({given.name})" for given in pattern.inputs if given.kind == "bool"}
    allowed = {"n", *counts} | ({"d"} if dims else set())
    if unknown := sorted(variables(bound) - allowed):
        return Finding(
            "undecided", note=f"the bound speaks of {', '.join(unknown)}, which is nothing known here"
        )
    known = {item.body: item for item in bodies}
    open_bodies = [b for b in pattern.bodies if not _proven(b, known.get(b), bound, price)]
    if not open_bodies:
        return Finding("proven", note="proven for every n")
    for body in open_bodies:
        if found := _exceeded(pattern, body, known.get(body), bound, dims):
            return found
    return Finding(
        "undecided",
        note="no upper bound that was found is within the claim, and no length tried exceeds it",
        span=open_bodies[0].relation.span,
    )


# --- proving --------------------------------------------------------------------------------------------


def _proven(body: Body, item: BodyTerms | None, bound: Expr, price: Callable[[Poly], Poly]) -> bool:
    """Whether one of the ways to count the edges stays within the bound."""
    limits = _limits(bound)
    if limits is None:
        return False
    ways = [conjunctions(fold(formula(body.relation)))]
    if item is not None:
        ways.append([p for term in item.terms for p in conjunctions(fold(term.formula()))])
    short = [way for way in ways if len(way) <= MOST_PARTS]
    if any(_covers([edge_bounds(parts) for parts in way], limits, price) for way in short):
        return True
    return item is not None and bool(item.terms) and _closed(item, limits, price)


def _closed(item: BodyTerms, limits: list[Poly], price: Callable[[Poly], Poly]) -> bool:
    """Whether the closed form is within the limits: as a polynomial, or one by one before it is one."""
    from attnc.closed_form import ratio
    from attnc.counts import edges_of

    cost = edges_of(item)
    whole = ratio(cost.bound)
    if whole is None:
        return False
    start, tail = 0, from_expr(whole.above)
    below = whole.below
    if tail is None:
        steady = None if cost.steady is None else ratio(cost.steady)
        if steady is None or cost.steady_from is None or whole.names() - {"n"}:
            return False
        start, tail, below = cost.steady_from, from_expr(steady.above), steady.below
    if tail is None or start > FEW:
        return False
    tail = tail.scaled(Fraction(1, below))
    counted = whole.at({"n": np.arange(start, dtype=object)}).tolist() if start else []
    cases = [(start, None, tail), *((length, length, number(most)) for length, most in enumerate(counted))]
    return all(
        never_below(limit - price(edges), Fraction(-1), low, high)
        for low, high, edges in cases
        for limit in limits
    )


def _limits(bound: Expr) -> list[Poly] | None:
    """Polynomials that must all be kept."""
    args = bound.args if isinstance(bound, Min) else (bound,)
    found = [from_expr(arg) for arg in args]
    return None if any(p is None for p in found) else [p for p in found if p is not None]


def _covers(alternatives: list[list[Bound]], limits: list[Poly], price: Callable[[Poly], Poly]) -> bool:
    starts = sorted({0, *(bound.start for group in alternatives for bound in group)})
    for low, high in zip(starts, [*(s - 1 for s in starts[1:]), None], strict=True):
        if not _covered(alternatives, limits, price, low, high):
            return False
    return True


def _covered(
    alternatives: list[list[Bound]],
    limits: list[Poly],
    price: Callable[[Poly], Poly],
    low: int,
    high: int | None,
) -> bool:
    """Whether some choice of bounds, one for every conjunction, is within the limits for these lengths."""
    groups: list[list[Poly]] = []
    for group in alternatives:
        values = list(dict.fromkeys(b.value if b.start <= low else number(0) for b in group))
        groups.append([number(0)] if number(0) in values else values)
    for tried, choice in enumerate(product(*groups)):
        if tried == MOST_CHOICES:
            break
        edges = reduce(Poly.__add__, choice, number(0))
        # Both sides are integers: less than one above the bound is within it.
        if all(never_below(limit - price(edges), Fraction(-1), low, high) for limit in limits):
            return True
    return False


# --- refuting -------------------------------------------------------------------------------------------


def _exceeded(
    pattern: Pattern, body: Body, item: BodyTerms | None, bound: Expr, dims: tuple[int, ...]
) -> Finding | None:
    """The least length found at which a head has more edges than claimed, counted in the mask itself."""
    for n in range(SMALL + 1):
        if found := _exceeded_at(pattern, body, n, bound, dims):
            return found
    if pattern.inputs and (found := _doubled(pattern, body, bound, dims)):
        return found
    suspect = _suspect(item, bound, dims)
    if suspect is not None and (found := _exceeded_at(pattern, body, suspect, bound, dims)):
        return found
    return None if pattern.inputs else _far(body, item, bound, dims)


def _doubled(pattern: Pattern, body: Body, bound: Expr, dims: tuple[int, ...]) -> Finding | None:
    """Where edges hang on inputs: the length doubled until some contents exceed the bound, then narrowed."""
    for high in (1 << power for power in range(SMALL.bit_length(), MOST_INPUTS.bit_length())):
        found = _exceeded_at(pattern, body, high, bound, dims)
        low = high // 2
        while found and high - low > 1:
            middle = (low + high) // 2
            if nearer := _exceeded_at(pattern, body, middle, bound, dims):
                found, high = nearer, middle
            else:
                low = middle
        if found:
            return found
    return None


def _exceeded_at(pattern: Pattern, body: Body, n: int, bound: Expr, dims: tuple[int, ...]) -> Finding | None:
    """The contents and the head that exceed the bound at this length, of those that are tried."""
    for tables in _contents(pattern, n):
        found = _count(body, n, tables)
        if found is None:
            continue
        edges, head, heads = found
        for d in dims or (None,):
            limit = int(evaluate(bound, Env(_measures(tables, n) | ({} if d is None else {"d": d}))))
            had = edges if d is None else 4 * d * edges
            if had > limit:
                note = f"refuted for n = {n}{'' if d is None else f', d = {d}'}"
                if body.heads.text:
                    note += f" and head {head} of {heads}"
                if pattern.inputs:
                    note += " with " + ", ".join(f"`{name}` = {told(t)}" for name, t in tables.items())
                note += f": {had:,} {'edges' if d is None else 'FLOPs'}, claimed {limit:,}"
                return Finding("refuted", {"n": n}, note, dict(tables), body.relation.span, head, heads)
    return None


def _measures(tables: Mapping[str, Array], n: int) -> dict[str, int]:
    counts = {f"count({name})": int(t.sum()) for name, t in tables.items() if t.dtype == np.bool_}
    return {"n": n, **counts}


def _count(body: Body, n: int, tables: Mapping[str, Array]) -> tuple[int, int, int] | None:
    """The most edges of a head of this body, which head, and of how many; None if it has no head below 5."""
    condition = fold(body.heads.condition)
    for heads in range(1, 5):
        for head in range(heads):
            if bool(evaluate(condition, Env({"h": head, "H": heads}))):
                return _count_head(body, n, tables, head, heads), head, heads
    return None


def _count_head(body: Body, n: int, tables: Mapping[str, Array], head: int, heads: int) -> int:
    keys, relation, total = np.arange(n, dtype=np.int64), formula(body.relation), 0
    rows = max(PAIRS // max(n, 1), 1)
    for first in range(0, n, rows):  # a few rows at a time: a length may be large here
        queries = keys[first : first + rows, None]
        places = {"q": queries, "k": keys[None, :], "n": n, "h": head, "H": heads}
        held = np.asarray(evaluate(relation, Env(places, tables, draws.drawn)), dtype=np.bool_)
        total += int(np.broadcast_to(held, (queries.size, n)).sum())
    return total


def _contents(pattern: Pattern, n: int) -> Iterator[dict[str, Array]]:
    """Contents of the inputs that are worth trying: all alike, all different, one entry, half of them."""
    if not pattern.inputs:
        yield {}
        return
    for style in ("low", "high", "distinct"):
        yield fill(pattern, Answer("undecided"), n, 1, style)
    for some in (slice(0, 1), slice(n - 1, n), slice(0, n // 2)):
        tables = fill(pattern, Answer("undecided"), n, 1)
        for table in tables.values():
            table[some] = 1
        yield tables


def _suspect(item: BodyTerms | None, bound: Expr, dims: tuple[int, ...]) -> int | None:
    """The least length, of those not counted yet, that exceeds the bound by the closed form."""
    over = _exceeds(item, bound, dims)
    if over is None:
        return None
    for low, high in ((SMALL + 1, 512), (513, FEW)):
        hits = np.flatnonzero(over(np.arange(low, high + 1, dtype=object)))
        if hits.size:
            return low + int(hits[0])
    return None


def _far(body: Body, item: BodyTerms | None, bound: Expr, dims: tuple[int, ...]) -> Finding | None:
    """A length that is too long for its edges to be counted in the mask, by the closed form."""
    from attnc.counts import edges_of

    over = _exceeds(item, bound, dims)
    if over is None or item is None or not edges_of(item).exact:
        return None
    doubled = [1 << power for power in range(FEW.bit_length(), 40)]
    high = next((n for n in doubled if over(np.array([n], dtype=object))[0]), None)
    if high is None:
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if over(np.array([middle], dtype=object))[0]:
            high = middle
        else:
            low = middle
    note = f"refuted for n = {high:,} by the closed form of the cost; n = {low:,} is within the bound"
    return Finding("refuted", {"n": high}, note, {}, body.relation.span)


def _exceeds(
    item: BodyTerms | None, bound: Expr, dims: tuple[int, ...]
) -> Callable[[Any], npt.NDArray[np.bool_]] | None:
    """Which of an array of lengths exceed the bound by the closed form, with no or one true entry."""
    from attnc.closed_form import ratio
    from attnc.counts import edges_of

    whole = ratio(edges_of(item).expr) if item is not None and item.terms else None
    if whole is None:
        return None
    names = sorted((whole.names() | variables(bound)) - {"n", "d"})

    def over(lengths: Any) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(lengths), dtype=np.bool_)
        for share, d in product((0, 1), dims or (1,)):
            values: dict[str, Any] = {name: np.minimum(lengths, share) for name in names}
            values |= {"n": lengths, "d": d}
            most = whole.at(values) * (4 * d if dims else 1)
            found |= np.asarray(most > exact(bound, Env(values)), dtype=np.bool_)
        return found

    return over

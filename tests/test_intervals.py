"""Interval arithmetic is sound: against every point of small tiles, and proven rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import intervals
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    Const,
    Expr,
    K,
    Lookup,
    N,
    PowerOfTwo,
    Q,
    TileMax,
    TileMin,
    Var,
    add,
    conj,
    disj,
    eq,
    floor_div,
    le,
    maximum,
    minimum,
    mod,
    mul,
    negate,
    scale,
    select,
    sub,
    substitute,
    walk,
)
from attnc.intervals import Tile, bounds, may, must
from attnc.rule_proofs import rules_of_intervals

TABLE = np.array([3, -1, 4, 1, -5, 9, 2, 6])
X_Q, X_K = Lookup("x", (Q,)), Lookup("x", (K,))

numbers = st.recursive(
    st.sampled_from((Q, Q, K, K, N, X_Q, X_K)) | st.builds(Const, st.integers(-9, 9)),
    lambda inner: st.one_of(
        st.builds(add, inner, inner),
        st.builds(sub, inner, inner),
        st.builds(mul, inner, inner),
        st.builds(lambda x: mul(x, x), inner),
        st.builds(scale, st.integers(-4, 4), inner),
        st.builds(floor_div, inner, st.integers(1, 6) | st.just(-3)),
        st.builds(mod, inner, st.integers(1, 6) | st.just(-3)),
        st.builds(minimum, inner, inner),
        st.builds(maximum, inner, inner),
        st.builds(lambda c, x, y: select(le(c, 0), x, y), inner, inner, inner),
    ),
    max_leaves=7,
)
conditions = st.recursive(
    st.one_of(
        st.builds(lambda x: le(x, 0), numbers),
        st.builds(lambda x: eq(x, 0), numbers),
        st.builds(lambda x: negate(eq(x, 0)), numbers),
        st.builds(lambda x, s, c: eq(mod(x, s), c), numbers, st.integers(2, 5), st.integers(0, 4)),
        st.builds(PowerOfTwo, numbers),
        st.builds(lambda x: negate(PowerOfTwo(x)), numbers),
    ),
    lambda inner: st.builds(conj, inner, inner) | st.builds(disj, inner, inner),
    max_leaves=3,
)
spans = st.tuples(st.integers(-6, 12), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair)))


def at(q: int, k: int, ends: dict[str, int]) -> Env:
    return Env({"q": q, "k": k, "n": 7, **ends}, {"x": TABLE})


def reduced(expr: Expr, rows: range, ends: dict[str, int]) -> Expr:
    """What is reduced over the rows of the tile, by its value."""
    found: dict[Expr, Expr] = {}
    for part in walk(expr):
        if isinstance(part, TileMin | TileMax):
            values = [int(evaluate(part.body, at(q, 0, ends))) for q in rows]
            found[part] = Const(min(values) if isinstance(part, TileMin) else max(values))
    return substitute(expr, found)


def tile_of(q_span: tuple[int, int], k_span: tuple[int, int]) -> tuple[Tile, dict[str, int], list[Any]]:
    """A tile over named ends, what they stand for, and its points."""
    ends = {"first": q_span[0], "last": q_span[1], "least": k_span[0], "most": k_span[1]}
    tile = Tile({Q: (Var("first"), Var("last")), K: (Var("least"), Var("most"))}, Q)
    points = product(range(q_span[0], q_span[1] + 1), range(k_span[0], k_span[1] + 1))
    return tile, ends, list(points)


@settings(max_examples=400, deadline=None)
@given(numbers, spans, spans)
def test_bounds_hold_at_every_point(expr: Expr, q_span: tuple[int, int], k_span: tuple[int, int]) -> None:
    tile, ends, points = tile_of(q_span, k_span)
    low, high = bounds(expr, tile)
    values = [int(evaluate(expr, at(q, k, ends))) for q, k in points]
    rows = range(q_span[0], q_span[1] + 1)
    # Nothing of a bound may hang on a position.
    if low is not None:
        assert evaluate(reduced(low, rows, ends), Env({"n": 7, **ends}, {"x": TABLE})) <= min(values)
    if high is not None:
        assert evaluate(reduced(high, rows, ends), Env({"n": 7, **ends}, {"x": TABLE})) >= max(values)


@settings(max_examples=400, deadline=None)
@given(conditions, spans, spans)
def test_may_and_must_hold_at_every_point(
    condition: Expr, q_span: tuple[int, int], k_span: tuple[int, int]
) -> None:
    tile, ends, points = tile_of(q_span, k_span)
    rows, nowhere = range(q_span[0], q_span[1] + 1), Env({"n": 7, **ends}, {"x": TABLE})
    held = [bool(evaluate(condition, at(q, k, ends))) for q, k in points]
    if any(held):
        assert evaluate(reduced(may(condition, tile), rows, ends), nowhere)
    if not all(held):
        assert not evaluate(reduced(must(condition, tile), rows, ends), nowhere)


# --- and not needlessly wide ----------------------------------------------------------------------------

# An expression, the tiles that it is bounded over, and its exact range where that is not what it takes.
EXACT: dict[str, tuple[Expr, list[tuple[int, int]], list[int] | None]] = {
    "a square that crosses zero": (mul(sub(Q, 5), sub(Q, 5)), [(3, 9), (5, 5), (0, 4), (6, 8)], None),
    "a product": (mul(sub(Q, 5), sub(K, 12)), [(3, 9), (0, 4), (6, 8)], None),
    "a sum that rises and falls": (sub(Q, floor_div(K, 2)), [(0, 9), (3, 3)], None),
    "a remainder within a period": (mod(Q, 8), [(0, 7), (9, 12), (16, 23), (17, 17)], None),
    "a remainder across periods": (mod(Q, 8), [(7, 8), (0, 15), (4, 12)], [0, 7]),
    "a shifted remainder": (mod(add(Q, 3), 4), [(1, 4), (0, 0), (5, 8)], None),
    "a minimum": (minimum(sub(Q, K), sub(8, Q)), [(0, 3), (15, 19)], None),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_bounds_of_simple_expressions_are_exact(name: str) -> None:
    expr, cases, expected = EXACT[name]
    for q_span in cases:
        tile, ends, points = tile_of(q_span, (12, 13))
        values = [int(evaluate(expr, at(q, k, ends))) for q, k in points]
        found = [int(evaluate(end, Env(ends))) for end in bounds(expr, tile) if end is not None]
        assert found == (expected or [min(values), max(values)])


# --- proven ---------------------------------------------------------------------------------------------


def test_every_rule_is_proven() -> None:
    found = list(rules_of_intervals())
    assert [(name, answer.outcome) for name, answer in found if answer.outcome != "proven"] == []
    names = {name for name, _ in found}
    for rule in (
        "sum",
        "product",
        "square",
        "choice",
        "least",
        "greatest",
        "remainder by 64",
        "may be equal",
    ):
        assert rule in names


def _wrong() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    right = intervals._product
    yield (
        "square",
        "_product",
        lambda a, b, same: (
            (minimum(mul(a[0], a[0]), mul(a[1], a[1])), right(a, b, same)[1])
            if same and None not in a
            else right(a, b, same)
        ),
    )
    yield (
        "product",
        "_product",
        lambda a, b, same: (
            right(a, b, same) if same or None in (*a, *b) else (mul(a[0], b[0]), mul(a[1], b[1]))
        ),
    )
    yield (
        "remainder",
        "_residue",
        lambda ends, step: tuple(end if end is None else mod(end, step) for end in ends),
    )
    yield (
        "times",
        "_scaled",
        lambda factor, ends: tuple(end if end is None else scale(factor, end) for end in ends),
    )
    yield (
        "choice",
        "_chosen",
        lambda always, sometimes, then, otherwise, either: (
            None if then is None or otherwise is None else select(sometimes, then, otherwise)
        ),
    )
    yield "may be unequal", "negate_eq", lambda low, high: conj(le(low, -1), le(1, high))


WRONG = list(_wrong())


@pytest.mark.parametrize(("rule", "name", "function"), WRONG, ids=[rule for rule, *_ in WRONG])
def test_a_wrong_rule_is_refuted(
    rule: str, name: str, function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, name, function)
    wrong = {found for found, answer in rules_of_intervals() if answer.outcome == "refuted"}
    assert any(rule in found for found in wrong), wrong

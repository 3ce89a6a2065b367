"""What is said to contradict itself by differences alone never holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import solver
from attnc.budget import compiling
from attnc.differences import contradictory
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    Expr,
    K,
    N,
    Q,
    add,
    conj,
    disj,
    eq,
    floor_div,
    ge,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    negate,
    scale,
    sub,
)
from attnc.relation import POSITIONS

NEVER = [
    FALSE,
    conj(lt(Q, K), lt(K, Q)),
    conj(lt(Q, K), lt(K, N), le(N, Q)),
    conj(le(Q, add(K, 3)), eq(sub(Q, K), 4)),
    conj(POSITIONS, lt(add(Q, K), 0), lt(K, 0)),
    conj(POSITIONS, negate(le(maximum(sub(Q, 5), ZERO), maximum(sub(Q, 3), ZERO)))),
    conj(POSITIONS, lt(minimum(Q, K), 0)),
    conj(eq(sub(scale(2, Q), scale(2, K)), 3)),
    lt(mod(Q, 7), 0),
    conj(ge(mod(Q, 7), 4), le(floor_div(Q, 7), K), lt(K, floor_div(Q, 7))),
    disj(conj(lt(Q, K), lt(K, Q)), conj(lt(Q, 0), lt(1, Q))),
    conj(eq(Q, K), negate(eq(sub(Q, K), 0))),
    conj(eq(Q, add(K, 1)), negate(eq(sub(K, Q), -1))),
]


@pytest.mark.parametrize("condition", NEVER, ids=range(len(NEVER)))
def test_contradictions_are_found_without_the_solver(
    condition: Expr, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contradictory(condition) is True
    monkeypatch.setattr(solver, "Question", lambda *_: pytest.fail("the solver was asked"))
    assert solver.satisfiable(condition).outcome == "proven"


@pytest.mark.parametrize(
    "condition",
    [
        eq(mul(Q, K), -1),
        conj(POSITIONS, *(disj(lt(Q, i), lt(i, K)) for i in range(9))),  # too many cases
        lt(mod(Q, 7), 3),
        conj(POSITIONS, lt(floor_div(Q, 7), 3)),
        conj(POSITIONS, lt(sub(Q, K), scale(-1, N))),  # never, but more than differences say so
    ],
    ids=range(5),
)
def test_of_others_nothing_is_said(condition: Expr) -> None:
    assert contradictory(condition) is None


@pytest.mark.parametrize(
    "condition",
    [
        TRUE,
        POSITIONS,
        conj(POSITIONS, eq(Q, K)),
        conj(le(Q, add(K, 4)), eq(sub(Q, K), 4)),
        disj(lt(mod(Q, 7), 0), lt(Q, K)),
    ],
    ids=range(5),
)
def test_differences_that_hold_somewhere_do(condition: Expr) -> None:
    assert contradictory(condition) is False


def test_no_contradiction_is_found_where_nothing_is_left_of_the_budget() -> None:
    with compiling(0):
        assert solver.satisfiable(NEVER[1]).outcome == "undecided"


@st.composite
def numbers(draw: st.DrawFn, depth: int = 2) -> Expr:
    if not depth or draw(st.booleans()):
        return draw(st.sampled_from((Q, K, N, mod(Q, 3), floor_div(K, 2), ZERO)))
    one, other = draw(numbers(depth - 1)), draw(numbers(depth - 1))
    shift = draw(st.integers(-3, 3))
    return draw(
        st.sampled_from(
            (
                add(one, shift),
                sub(one, other),
                scale(shift, one),
                maximum(one, add(other, shift)),
                minimum(one, other),
            )
        )
    )


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> Expr:
    if depth and draw(st.integers(0, 2)):
        parts = [draw(conditions(depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        return draw(st.sampled_from((conj(*parts), conj(*parts), disj(*parts), negate(parts[0]))))
    one, other = draw(numbers()), draw(numbers())
    return draw(st.sampled_from((le(one, other), lt(one, other), eq(one, other))))


PLACES = np.array(np.meshgrid(range(-4, 8), range(-4, 8), range(-4, 8))).reshape(3, -1)


@given(conditions())
@settings(max_examples=300, deadline=None)
def test_what_holds_somewhere_is_no_contradiction(condition: Expr) -> None:
    known = contradictory(condition)
    held = np.any(evaluate(condition, Env(dict(zip("qkn", PLACES, strict=True)))))
    assert not (held and known)
    # It may hold far away, which the solver knows.
    assert held or known is not False or solver.satisfiable(condition).outcome != "proven"

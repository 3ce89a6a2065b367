"""What division with remainder tells of positions and digits is right, and it tells what plans need."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.digits import Digits, Radix, sized
from attnc.division import Places
from attnc.evaluation import evaluate
from attnc.expression import Expr, K, Q, Var, add, conj, eq, floor_div, le, mod, scale, sub
from tests.test_digits import conditions, env, numbers, radices_drawn, same

q0, q1, q2, q3, k0, k1, k2, k3 = (Var(f"{side}{i}") for side in "qk" for i in range(4))
ROWS = Radix((120, 40, 3, 1))


@pytest.mark.parametrize(
    ("number", "told", "radix"),
    [
        (floor_div(Q, 8), q0, sized(8)),
        (mod(Q, 8), q1, sized(8)),
        (floor_div(Q, 40), add(scale(3, q0), q1), ROWS),
        (mod(Q, 40), add(scale(3, q2), q3), ROWS),
        (floor_div(mod(Q, 40), 3), None, ROWS),
    ],
)
def test_quotients_and_remainders_of_positions(number: Expr, told: Expr | None, radix: Radix) -> None:
    places = Places({Q: radix, K: radix})
    if told is None:  # one division after another: the inner one is put in first
        number, told = floor_div(add(scale(3, q2), q3), 3), q2
    assert places.is_equal(number, told)
    assert not places.is_equal(number, add(told, 1))


def test_what_leaves_the_range_of_a_remainder_is_none() -> None:
    places = Places({Q: sized(8), K: ROWS})
    assert not places.is_equal(mod(Q, 4), q1)
    assert not places.is_equal(floor_div(Q, 4), scale(2, q0))
    assert not places.is_equal(mod(K, 38), add(scale(3, k2), k3))
    assert not places.is_same(le(0, sub(Q, 3)), le(0, q0))


@pytest.mark.parametrize(
    ("condition", "told", "wrong"),
    [
        (le(0, Q), le(0, q0), le(1, q0)),
        (eq(Q, K), conj(eq(q0, k0), eq(q1, k1), eq(q2, k2), eq(q3, k3)), conj(eq(q0, k0), eq(q1, k1))),
        (le(scale(120, q0), K), le(q0, k0), le(q0, add(k0, 1))),
    ],
)
def test_comparisons_of_positions(condition: Expr, told: Expr, wrong: Expr) -> None:
    places = Places({Q: ROWS, K: ROWS})
    assert places.is_same(condition, told) and not places.is_same(condition, wrong)


@settings(max_examples=400, deadline=None)
@given(numbers, st.integers(1, 12), radices_drawn, radices_drawn, radices_drawn)
def test_what_is_seen_to_be_equal_is(
    number: Expr, size: int, of_q: Radix, of_k: Radix, another: Radix
) -> None:
    """What is told may be right in other digits alone, which go by the same names."""
    sides = {Q: of_q, K: of_k}
    for one in (floor_div(number, size), mod(number, size)):
        for told in (Digits(sides).expression(one), Digits({Q: another, K: another}).expression(one)):
            if Places(sides).is_equal(one, told):
                assert same(evaluate(one, env(sides)), evaluate(told, env(sides)))


@settings(max_examples=400, deadline=None)
@given(conditions, radices_drawn, radices_drawn, radices_drawn)
def test_what_is_seen_to_say_the_same_does(condition: Expr, of_q: Radix, of_k: Radix, another: Radix) -> None:
    sides = {Q: of_q, K: of_k}
    for told in (Digits(sides)(condition), Digits({Q: another, K: another})(condition)):
        if Places(sides).is_same(condition, told):
            assert same(evaluate(condition, env(sides)), evaluate(told, env(sides)))

"""Rewriting into digits is an equivalence, for whatever expression and radix."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.budget import compiling
from attnc.digits import PLAIN, REWRITING, Digits, Known, Radix, radices, sized
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    Const,
    Expr,
    K,
    Lookup,
    N,
    Q,
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
    variables,
)
from attnc.intervals import Tile
from attnc.notation import show
from tests.enumeration import digits_of

LENGTH = 61
Q_TABLE = np.random.default_rng(0).integers(0, 4, LENGTH)
Q_PLACES, K_PLACES = np.arange(LENGTH)[:, None], np.arange(LENGTH)[None, :]

radices_drawn = st.one_of(
    st.just(PLAIN),
    st.integers(2, 12).map(sized),
    st.tuples(st.integers(2, 5), st.integers(2, 5)).map(lambda sizes: sized(*sizes)),
    # Weights that do not divide each other.
    st.sets(st.integers(2, 40), min_size=2, max_size=4).map(lambda found: Radix((*sorted(found)[::-1], 1))),
)
# Divisors that digits have much to do with, and others.
divisors = st.one_of(st.integers(1, 12), st.sampled_from((15, 16, 20, 24, 60)))


def shifted(inner: Expr, by: int, divisor: int) -> Expr:
    return floor_div(add(inner, by), divisor)


places = st.sampled_from((Q, K, sub(Q, K), sub(K, Q), add(Q, K), Lookup("x", (Q,))))
numbers = st.recursive(
    places | st.builds(Const, st.integers(-30, 30)),
    lambda inner: st.one_of(
        st.builds(shifted, inner, st.integers(-9, 9), divisors),
        st.builds(floor_div, inner, divisors),
        st.builds(mod, inner, divisors),
        st.builds(lambda x, a, b: mod(floor_div(x, a), b), inner, divisors, divisors),
        st.builds(add, inner, inner),
        st.builds(sub, inner, inner),
        st.builds(scale, st.integers(-12, 12), inner),
        st.builds(minimum, inner, inner),
        st.builds(maximum, inner, inner),
        st.builds(mul, inner, inner),
        st.builds(lambda c, x, y: select(le(c, 0), x, y), inner, inner, inner),
    ),
    max_leaves=5,
)
conditions = st.recursive(
    st.one_of(
        st.builds(lambda x, y: le(x, y), numbers, numbers),
        st.builds(lambda x, y: eq(x, y), numbers, numbers),
        st.builds(lambda x, y: negate(eq(x, y)), numbers, numbers),
        st.builds(lambda x, s, c: eq(mod(x, s), c), numbers, divisors, st.integers(0, 9)),
        st.builds(lambda s, c: eq(mod(add(sub(Q, K), c), s), 0), divisors, st.integers(-2, 2)),
        st.builds(lambda x, s: eq(floor_div(Q, s), floor_div(x, s)), numbers, divisors),
    ),
    lambda inner: st.one_of(
        st.builds(conj, inner, inner), st.builds(disj, inner, inner), st.builds(negate, inner)
    ),
    max_leaves=3,
)


def env(sides: dict[Var, Radix]) -> Env:
    """All pairs of positions, and the digits of both."""
    found = {"q": Q_PLACES, "k": K_PLACES, "n": LENGTH}
    for var, positions in ((Q, Q_PLACES), (K, K_PLACES)):
        for digit, values in zip(sides[var].digits(var), digits_of(sides[var], positions), strict=True):
            found[digit.name] = values
    return Env(found, {"x": Q_TABLE})


def same(one: object, two: object) -> bool:
    return bool(np.array_equal(*np.broadcast_arrays(np.asarray(one), np.asarray(two))))


@settings(max_examples=400, deadline=None)
@given(numbers, radices_drawn, radices_drawn)
def test_an_expression_keeps_its_value(expr: Expr, of_q: Radix, of_k: Radix) -> None:
    sides = {Q: of_q, K: of_k}
    told = Digits(sides).expression(expr)
    assert same(evaluate(told, env(sides)), evaluate(expr, env(sides))), show(told)


@settings(max_examples=500, deadline=None)
@given(conditions, radices_drawn, radices_drawn)
def test_a_condition_keeps_its_meaning(condition: Expr, of_q: Radix, of_k: Radix) -> None:
    sides = {Q: of_q, K: of_k}
    told = Digits(sides)(condition)
    assert same(evaluate(told, env(sides)), evaluate(condition, env(sides))), show(told)


@settings(max_examples=300, deadline=None)
@given(
    numbers,
    st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 7)), min_size=2, max_size=2),
    st.lists(divisors.filter(lambda d: d > 1), max_size=2),
)
def test_what_is_known_of_ranges_changes_no_value(
    expr: Expr, spans: list[tuple[int, int]], weights: list[int]
) -> None:
    limits = {var: (Const(low), Const(low + more)) for var, (low, more) in zip((Q, K), spans, strict=True)}
    simpler = Known(Tile(limits), tuple(sorted(set(weights)))).expression(expr)
    inside = [np.arange(low, low + more + 1) for low, more in spans]
    places = Env({"q": inside[0][:, None], "k": inside[1][None, :], "n": LENGTH}, {"x": Q_TABLE})
    assert same(evaluate(simpler, places), evaluate(expr, places)), show(simpler)


@given(radices_drawn, st.integers(0, 500))
def test_digits_and_positions_are_the_same(radix: Radix, position: int) -> None:
    digits = [int(evaluate(digit, Env({"q": position}))) for digit in radix.of(Q)]
    assert digits == [int(digit) for digit in digits_of(radix, np.array(position))]
    names = radix.digits(Q)
    values = Env({digit.name: value for digit, value in zip(names, digits, strict=True)})
    assert int(evaluate(radix.position(names), values)) == position
    for digit, (low, high) in radix.ranges(Q).items():
        assert evaluate(low, values) <= values.variables[digit.name] <= evaluate(high, values)


def test_every_position_has_digits_of_its_own() -> None:
    for radix in (sized(4), sized(3, 5), sized(2, 3, 4)):
        found = np.stack(digits_of(radix, np.arange(120)))
        assert len(set(map(tuple, found.T.tolist()))) == 120
        most = [120 // radix.weights[0], *radix.sizes]
        assert [int(row.max()) + 1 for row in found] == most
        assert radix.weights == tuple(prod(most[i + 1 :]) for i in range(len(most)))


@given(radices_drawn)
def test_limits_tell_the_digits_of_positions_from_others(radix: Radix) -> None:
    found = {tuple(row) for row in np.stack(digits_of(radix, np.arange(2 * radix.weights[0]))).T.tolist()}
    limits = conj(*radix.limits(Q))
    names = [digit.name for digit in radix.digits(Q)]
    for digits in itertools.product(range(2), *map(range, radix.sizes)):
        assert bool(evaluate(limits, Env(dict(zip(names, digits, strict=True))))) == (digits in found)
    for tail in radix.tails(Q):
        sums = [int(evaluate(tail.told(), Env(dict(zip(names, digits, strict=True))))) for digits in found]
        assert max(sums) == tail.most


# --- what becomes of what patterns say ------------------------------------------------------------------

q0, q1, q2, k0, k1, k2 = (Var(name) for name in ("q0", "q1", "q2", "k0", "k1", "k2"))
ONE, TWO = sized(8), sized(4, 5)

TOLD: dict[str, tuple[Expr, Radix, Expr]] = {
    "a stride": (eq(mod(sub(Q, K), 8), 0), ONE, eq(q1, k1)),
    "a stride within the digit": (eq(mod(sub(Q, K), 4), 0), ONE, eq(mod(sub(Var("q1"), Var("k1")), 4), 0)),
    "a tail": (le(5, mod(K, 8)), ONE, le(5, k1)),
    "a chunk": (eq(floor_div(Q, 8), floor_div(K, 8)), ONE, eq(q0, k0)),
    "a chunk of two": (eq(floor_div(Q, 16), floor_div(K, 16)), ONE, eq(floor_div(q0, 2), floor_div(k0, 2))),
    "whole rows": (le(K, add(scale(8, floor_div(Q, 8)), 7)), ONE, le(k0, q0)),
    "a column": (eq(mod(Q, 5), mod(K, 5)), TWO, eq(q2, k2)),
    "a row": (eq(mod(floor_div(Q, 5), 4), mod(floor_div(K, 5), 4)), TWO, eq(q1, k1)),
    "a layer": (eq(floor_div(Q, 20), floor_div(K, 20)), TWO, eq(q0, k0)),
    "a run of layers": (
        eq(floor_div(Q, 60), floor_div(K, 60)),
        TWO,
        eq(floor_div(q0, 3), floor_div(k0, 3)),
    ),
    "a distance along an axis": (le(sub(mod(Q, 5), mod(K, 5)), 1), TWO, le(q2, add(k2, 1))),
    "a shifted window": (
        eq(floor_div(add(mod(Q, 5), 1), 2), floor_div(add(mod(K, 5), 1), 2)),
        TWO,
        eq(floor_div(add(q2, 1), 2), floor_div(add(k2, 1), 2)),
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_patterns_say_becomes_plain(name: str) -> None:
    condition, radix, expected = TOLD[name]
    assert Digits({Q: radix, K: radix})(condition) == expected


def test_equal_positions_have_equal_digits() -> None:
    assert Digits({Q: TWO, K: TWO})(eq(Q, K)) == conj(eq(q0, k0), eq(q1, k1), eq(q2, k2))


def test_what_is_looked_up_keeps_its_position() -> None:
    condition = eq(Lookup("x", (Q,)), Lookup("x", (K,)))
    assert Digits({Q: ONE, K: PLAIN})(condition) == condition


def test_the_ways_of_counting_are_named_by_remainders() -> None:
    grid = conj(eq(mod(floor_div(Q, 5), 4), mod(floor_div(K, 5), 4)), le(N, 9))
    assert radices(grid) == (PLAIN, sized(4, 5))
    assert radices(conj(eq(mod(Q, 8), 3), le(mod(K, 6), 2))) == (PLAIN, sized(8), sized(6))
    assert radices(le(Q, K)) == (PLAIN,)
    rows = conj(eq(mod(mod(Q, 40), 3), mod(mod(K, 40), 3)), eq(mod(floor_div(Q, 40), 3), 0))
    assert radices(rows) == (PLAIN, Radix((120, 40, 3, 1)))
    # What is dilated further than an axis is long stays by itself.
    assert radices(conj(eq(mod(mod(Q, 7), 8), 0), eq(mod(floor_div(Q, 7), 2), 0))) == (PLAIN, sized(2, 7))
    assert "n" not in variables(Digits({Q: ONE})(le(mod(Q, 8), 2)))


def test_rewriting_is_charged_by_the_part() -> None:
    """Rewriting a file of 2 KB in digits of many radices took 10 seconds, of which none was counted."""
    rewrite = Digits({Q: sized(7, 5), K: sized(7, 5)})
    spent = []
    for count in (10, 20):
        conditions = [le(floor_div(add(Q, i), 5), mod(add(K, i), 7)) for i in range(count)]
        with compiling(1 << 62) as work:
            rewrite(conj(*conditions))
        spent.append(work.spent)
    assert spent[0] >= 10 * 3 * REWRITING and 1.5 < spent[1] / spent[0] < 2.2

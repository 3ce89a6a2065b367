"""Whether a polynomial stays above a bound: never wrongly, and without a clock."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from attnc.budget import compiling
from attnc.polynomial import Poly, never_below, number, rest_limit, symbol

N, X, REST, D = (symbol(name) for name in ("n", "count(x)", "rest:64:n", "d"))


@pytest.mark.parametrize(
    ("p", "low", "high"),
    [
        (N * N - N.scaled(20) + number(101), 0, None),
        (N * N - N.scaled(1000) + number(250_001), 0, 100_000),
        (N * N - X * X + number(1), 0, None),
        (N * (N - X) + X.scaled(3) - N + number(1), 1, None),
        (N.scaled(64) - REST * REST + REST.scaled(8), 64, None),
        ((N * N - REST.scaled(64)) * D, 65, None),
        (N * X - X * X + N - X + number(Fraction(1, 3)), 0, 5000),
    ],
)
def test_what_is_positive(p: Poly, low: int, high: int | None) -> None:
    assert never_below(p, Fraction(0), low, high)
    assert not never_below(p, Fraction(10**12), low, high)


def test_what_is_said_to_be_positive_is() -> None:
    random = np.random.Generator(np.random.PCG64(5))
    said = 0
    for _ in range(150):
        p = number(int(random.integers(-20, 300))) + N * N * number(int(random.integers(0, 4)))
        for _ in range(random.integers(1, 4)):
            factors = random.choice(np.array(["n", "count(x)", "rest:64:n", "d"]), random.integers(1, 3))
            term = number(int(random.integers(-30, 30)))
            for name in factors:
                term = term * symbol(str(name))
            p = p + term
        low = int(random.choice([0, 1, 65]))
        high = None if random.random() < 0.5 else low + 9000
        if not never_below(p, Fraction(0), low, high):
            continue
        said += 1
        for _ in range(60):
            n = int(random.integers(low, low + int(random.choice([3, 100, 9000]))))
            at = {"n": n, "count(x)": int(random.choice([0, n, random.integers(0, n + 1)]))}
            at |= {"d": int(random.choice([1, 2, 128])), "rest:64:n": int(random.integers(0, 64))}
            assert p.at({name: at[name] for name in p.names()}) > 0, (p, at)
            assert rest_limit("rest:64:n") == 63
    assert said > 20


def test_a_proof_that_does_not_end_is_given_up() -> None:
    touching = (N - X.scaled(3)) * (N - X.scaled(3)) + number(Fraction(1, 10**9))
    with compiling() as left:
        assert not never_below(touching * touching * (D + REST), Fraction(0), 1, None)
    assert 0 < left.spent < 2_000_000

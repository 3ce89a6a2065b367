"""Real expressions: values, derivatives, bounds, and how they are folded and shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnc import weighing
from attnc.diagnostics import Source
from attnc.expression import Var
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.real import (
    FUNCTIONS,
    ONE,
    ZERO,
    Choice,
    Greater,
    Number,
    Real,
    S,
    Score,
    Whole,
    X,
    apply,
    choice,
    derivative,
    entries,
    everywhere,
    folded,
    minus,
    negative,
    over,
    plus,
    replace,
    show,
    times,
)
from attnc.resolver import resolve
from attnc.signs import least_value, value_range
from tests import scoring
from tests.strategies import _Names

LENGTH, HEADS = 11, 3
SETTINGS = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@st.composite
def scores(draw: st.DrawFn) -> str:
    """A pattern with a drawn score, its float parameters among its names."""
    names = _Names(draw, HEADS, numbers=("level",), grid=("y", "x"))
    text = scoring.score(names)
    tables = " ".join(f"input {name}: float[{shape}]" for name, shape in names.tables.items())
    return f"grid(y: 3, x: 4) input level: int[n] {tables} attend all score {text}"


def pattern(text: str, params: str = "") -> Pattern:
    (found,) = resolve(parse(Source("t.attn", f"pattern p({params}) {{ {text} }}"))).patterns
    return found


def score_of(text: str, params: str = "") -> Real:
    return pattern(text, params).bodies[0].weights.score


class Values:
    """What the expressions of a pattern come to, in fp64, at every pair of a few positions."""

    def __init__(self, found: Pattern) -> None:
        make = torch.Generator().manual_seed(5)
        sizes = {"n": LENGTH, "H": HEADS}
        self.tables = {
            item.name: torch.randn(
                [sizes[s.name] if isinstance(s, Var) else s.value for s in item.shape],  # type: ignore[attr-defined]
                generator=make,
                dtype=torch.float64,
            ).requires_grad_()
            for item in found.inputs
            if item.kind == "float"
        }
        level = torch.randint(-3, 9, (LENGTH,), generator=make)
        self.s = torch.randn(1, HEADS, LENGTH, LENGTH, generator=make, dtype=torch.float64).requires_grad_()
        self.scene = weighing._Scene(
            found,
            found.bodies[0],
            np.arange(HEADS),
            HEADS,
            LENGTH,
            LENGTH,
            {**self.tables, "level": level},
            {"level": level.numpy()},
            torch.float64,
        )

    def __call__(self, expr: Real) -> torch.Tensor:
        return self.scene.real(expr, 1, {Score: self.s}).expand(self.s.shape)


# --- derivatives ----------------------------------------------------------------------------------------


@SETTINGS
@given(scores())
def test_derivatives_are_those_of_autograd(text: str) -> None:
    found = pattern(text)
    values, expr = Values(found), folded(found.bodies[0].weights.score)
    wanted = (values.s, *values.tables.values())
    total = values(expr).sum() + 0 * sum(x.sum() for x in wanted)
    theirs = torch.autograd.grad(total, wanted)
    by_s = values(derivative(expr, S)).detach()
    by_entries = sum(
        ((values(derivative(expr, entry)).detach() * values(entry)).sum() for entry in entries(expr)),
        0 * sum(x.sum() for x in wanted),
    )
    ours = (by_s, *torch.autograd.grad(by_entries, wanted)[1:])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_its_slope(name: str) -> None:
    """Of numbers alone, by differences; where both sides of `min` and `max` are equal each takes half."""
    function, points = FUNCTIONS[name], (0.3, 1.7, 4.0)
    for x in points:
        args = (x,) if function.arity == 1 else (x, 1.1)
        for place in range(len(args)):
            below, above = ([*args] for _ in range(2))
            below[place] -= 1e-6
            above[place] += 1e-6
            wanted = (function.value(*above) - function.value(*below)) / 2e-6
            slope = function.slopes(*map(Number, args))[place]
            assert isinstance(slope, Number | Choice)
            assert _number(slope) == pytest.approx(wanted, rel=1e-5, abs=1e-8)
    if function.arity is None:
        assert [_number(slope) for slope in function.slopes(ONE, ONE)] == [0.5, 0.5]


def _number(expr: Real) -> float:
    match expr:
        case Number(value):
            return value
        case Choice(Greater(left, right), then, otherwise):
            return _number(then if _number(left) > _number(right) else otherwise)
    raise AssertionError(expr)


def test_slopes_read_as_if_written_by_hand() -> None:
    cap = score_of("attend all score cap * tanh(s / cap)", "cap: float = 5.0")
    assert show(derivative(folded(cap), S)) == "(-(tanh(s / 5) * tanh(s / 5))) + 1"
    slope = score_of("input a: float[H] attend all score s - a[h] * (q - k)")
    assert derivative(slope, S) == ONE
    (entry,) = entries(slope)
    assert show(derivative(slope, entry)) == "-(q - k)"
    assert derivative(score_of("attend all score exp(s)"), S) == apply("exp", S)
    assert derivative(X, S) == ZERO


# --- constructors ---------------------------------------------------------------------------------------


def test_constants_are_folded_and_neutral_parts_dropped() -> None:
    q = Whole(Var("q"))
    assert plus(S, Number(2.0), Number(-2.0)) == S
    assert plus() == ZERO and times() == ONE
    assert times(S, Number(2.0), Number(0.5)) == S
    assert times(q, S, ZERO) == ZERO
    assert over(ZERO, S) == ZERO and over(S, ONE) == S
    assert over(Number(1.0), Number(4.0)) == Number(0.25)
    assert apply("exp", ZERO) == ONE and apply("max", Number(2.0), Number(3.0), ONE) == Number(3.0)
    assert apply("min", S) == S
    assert choice(Greater(S, ZERO), q, q) == q
    assert negative(negative(S)) == S and minus(S, ZERO) == S
    assert times(Number(0.0, "cap"), S) == ZERO


def test_functions_without_a_value_there_are_left_as_they_are() -> None:
    for name in ("log", "log2", "sqrt"):
        assert apply(name, Number(-1.0)) != Number(math.nan)
        assert show(apply(name, Number(-1.0))) == f"{name}(-1)"
    assert show(apply("exp", Number(1e6))) == "exp(1000000)"


def test_parameters_keep_their_names_until_they_are_folded() -> None:
    expr = score_of("attend all score s * gain + gain * 2.0", "gain: float = 0.5")
    assert show(expr) == "s * gain + 2 * gain"
    assert show(folded(expr)) == "0.5 * s + 1"
    assert replace(expr, {S: ONE}) == plus(Number(0.5, "gain"), times(Number(2.0), Number(0.5, "gain")))
    assert next(iter(everywhere(expr))) == expr


# --- notation -------------------------------------------------------------------------------------------


@SETTINGS
@given(scores())
def test_what_is_shown_means_the_same_when_it_is_read(text: str) -> None:
    found = pattern(text)
    values, expr = Values(found), found.bodies[0].weights.score
    shown = show(expr)
    again = pattern(f"{text.partition(' score ')[0]} score {shown}")
    torch.testing.assert_close(
        Values(again)(again.bodies[0].weights.score), values(expr), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "text",
    [
        "s + 0.5",
        "s - 2 * (q - k)",
        "-s",
        "-(s + 1)",
        "s / (q + 1)",
        "s / (s / 3)",
        "1.0 / (q - k)",
        "(q - k) / 16.0",
        "2.0 / (h + 1) * s",
        "-8.0 * (h + 1) / H",
        "select(s > 0, s, -s)",
        "select(q > k, 1, 2) * s",
        "tanh(s * s) * (1 - s)",
        "1e-07 * s",
        "s - (0.5 - s)",
    ],
)
def test_notation(text: str) -> None:
    expr = score_of(f"attend all score {text}")
    again = score_of(f"attend all score {show(expr)}")
    # Whole numbers that were written as real ones may come back as whole ones, which mean the same.
    assert show(again) == show(expr)


# --- bounds ---------------------------------------------------------------------------------------------


@SETTINGS
@given(scores())
def test_no_value_leaves_its_bounds(text: str) -> None:
    found = pattern(text)
    values = Values(found)
    for expr in everywhere(found.bodies[0].weights.score):
        low, high = value_range(expr)
        seen = values(expr).detach()
        # Bounds are computed in floats, too.
        room = 1e-9 * (1 + seen.abs())
        assert bool((seen >= low - room).all() and (seen <= high + room).all()), show(expr)


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("elu(x) + 1", 0.0),
        ("exp(x)", 0.0),
        ("relu(x)", 0.0),
        ("x * x", 0.0),
        ("x", None),
        ("elu(x)", -1.0),
        ("1 + sin(x)", 0.0),
        ("sigmoid(x) - 0.5", -0.5),
        ("max(x, 2.0)", 2.0),
        ("select(x > 0, x, -x)", None),
        ("abs(x) + 1", 1.0),
        ("min(x, 1.0)", None),
        ("1.0 / (1 + exp(x))", 0.0),
        ("softplus(x) * tanh(x)", None),
    ],
)
def test_least_values_of_feature_maps(text: str, least: float | None) -> None:
    (body,) = pattern(f"attend causal kernel {text} normalize none").bodies
    assert least_value(body.weights.feature.value) == least  # type: ignore[union-attr]

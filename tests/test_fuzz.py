"""The numeric fuzzer: it sees what is wrong, draws the same cases every time, and makes them smaller."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from tests.fuzz import calls, drawing, judging, shrinking
from tests.fuzz.calls import Shape
from tests.fuzz.judging import Case

SHAPE = Shape(40, 40, 1, 2, 1, 8, 8, "float32", ("contiguous",) * 3, None, 3)


def found(meant: str, compiled: str, dtype: str = "float32") -> str:
    """What is said of a pattern that was compiled as another."""
    module = judging.compiled(f"pattern p() {{ {compiled} }}", False)
    case = Case("relations", f"pattern p() {{ {meant} }}", (replace(SHAPE, dtype=dtype),))
    with patch.object(judging, "compiled", lambda *_: module):
        [outcome] = judging.check(case, "torch")
    return outcome.what


@pytest.mark.parametrize(
    ("meant", "other"),
    [
        ("attend window(9)", "attend window(8)"),
        ("attend causal & where k >= 3", "attend causal & where k >= 2"),
        ("attend causal sink 0.5", "attend causal sink 0.501"),
        ("attend causal score s - 0.1 * (q - k)", "attend causal score s - 0.1001 * (q - k)"),
        ("attend causal kernel elu(x) + 1", "attend causal kernel elu(x) + 1.001"),
        (
            "attend causal kernel x normalize none decay -0.1",
            "attend causal kernel x normalize none decay -0.101",
        ),
    ],
)
def test_what_is_wrong_is_seen(meant: str, other: str) -> None:
    assert found(meant, meant) == "checked"
    assert found(meant, other) == "wrong"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_a_wrong_edge_is_seen_in_any_dtype(dtype: str) -> None:
    assert found("attend window(4)", "attend window(4)", dtype) == "checked"
    assert found("attend window(4)", "attend window(3)", dtype) == "wrong"


@pytest.mark.parametrize("kind", drawing.KINDS)
def test_cases_are_the_same_every_time(kind: str) -> None:
    drawn = []
    for _ in range(2):
        rng = random.Random(11)
        text = drawing.pattern(rng, kind, 4)
        shape = calls.shape(rng, text, 4, 2, False)
        drawn.append((text, shape, calls.inputs(text, shape)))
    (text, shape, first), (other_text, other_shape, second) = drawn
    assert (text, shape) == (other_text, other_shape)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_fails_is_made_smaller_part_by_part() -> None:
    text = "pattern p() { let near = 5 attend (window(3) | to(first(2))) - stride(7) score s * 2.0 }"
    smaller = set(shrinking.texts(text))
    for part in ("let near = 5 ", " | to(first(2))", " - stride(7)", "score s * 2.0 ", " * 2.0"):
        assert any("".join(text.replace(part, "").split()) == "".join(x.split()) for x in smaller), part

"""Weights that no plan can compute are refused, with what to write in their place."""

from __future__ import annotations

import pytest

import attnc

COMPUTED = [
    "attend window(9) kernel elu(x) + 1",
    "attend window(9) kernel taylor()",
    "attend window(9, 9) kernel cosine(9)",
    "attend causal kernel x normalize none decay log(0.9)",
    "input doc: int[n] attend causal & same(doc) kernel x normalize none",
    "attend window(9) with softmax attend causal - window(9) with kernel exp(x)",
    "attend window(5) with softmax attend causal - window(9) with kernel exp(x) "
    "attend window(9) - window(5) with softmax",
]
REFUSED = [
    ("attend window(9) kernel x", "can be negative"),
    ("attend window(9, 10) kernel cosine(9)", "can be negative"),
    ("attend window(9) kernel favor(64, seed=0)", "`favor` stands for softmax"),
    ("attend window(9) kernel exp(x) decay log(0.9)", "decays need queries that attend to all earlier keys"),
    ("attend all kernel exp(x) decay log(0.9)", "and to no later ones"),
    ("attend causal - window(11) kernel exp(x) decay log(0.9)", "to all earlier keys and to no later ones"),
    ("input b: float[n, H] attend window(9) kernel x update delta(b)", "the delta rule needs"),
    (
        "input doc: int[n] attend causal & same(doc) kernel x normalize none decay log(0.9) exclusive",
        "an exclusive decay has no form within documents",
    ),
    (
        "input doc: int[n] attend causal & same(doc) kernel cosine(64) decay log(0.9)",
        "`cosine` has no form within documents",
    ),
    ("attend window(9) with softmax attend stride(5) - window(9) with kernel exp(x)", "share a denominator"),
    (
        "attend causal - window(9) with kernel exp(x) attend window(5) with softmax "
        "attend window(9) - window(5) with score s * 2.0",
        "all others weigh alike",
    ),
    (
        "input doc: int[n] attend causal & same(doc) kernel cosine(64)",
        "`cosine` has no form within documents",
    ),
]


def codes(body: str) -> dict[str, str]:
    report = attnc.check(f"pattern p() {{ {body} }}")
    return {found.code: found.label for found in report.diagnostics if found.level == "error"}


@pytest.mark.parametrize("body", COMPUTED)
def test_computed(body: str) -> None:
    assert codes(body) == {}


@pytest.mark.parametrize(("body", "why"), REFUSED)
def test_refused(body: str, why: str) -> None:
    found = codes(body)
    assert set(found) == {"no-states"} and why in found["no-states"]
    with pytest.raises(attnc.AttncError):
        attnc.compile(f"pattern p() {{ {body} }}")


def test_parts_without_a_state_are_complained_of_once() -> None:
    body = "attend window(7) with kernel exp(x) attend causal - window(7) with kernel elu(x) + 1"
    (found,) = attnc.check(f"pattern p() {{ {body} }}").diagnostics
    assert "share a denominator" in found.label and "one `with kernel` over" in str(found.help)

"""Parts of a body that weigh differently share no edge."""

from __future__ import annotations

import pytest

import attnc

APART = [
    "attend window(63) with softmax attend causal - window(63) with kernel elu(x) + 1",
    "attend chunk(8) with softmax attend !chunk(8) & causal with kernel exp(x)",
    "input hub: bool[n] attend to(hub) with softmax attend window(3) - to(hub) with kernel exp(x)",
]
SHARED = [
    ("attend window(63) with softmax attend causal with kernel elu(x) + 1", "query 0 reads key 0"),
    (
        "attend self with softmax attend window(3) - window(1) | self with kernel exp(x)",
        "query 0 reads key 0",
    ),
    ("input hub: bool[n] attend to(hub) with softmax attend window(3) with kernel exp(x)", "reads key"),
]


@pytest.mark.parametrize("body", APART)
def test_parts_that_are_apart(body: str) -> None:
    assert "parts-overlap" not in {
        found.code for found in attnc.check(f"pattern p() {{ {body} }}").diagnostics
    }


@pytest.mark.parametrize(("body", "witness"), SHARED)
def test_parts_that_share_an_edge(body: str, witness: str) -> None:
    text = f"pattern p() {{ {body} }}"
    [found] = [found for found in attnc.check(text).diagnostics if found.code == "parts-overlap"]
    second = text.rindex("attend ") + len("attend ")
    assert found.level == "error" and found.span.start == second
    assert witness in found.label
    with pytest.raises(attnc.AttncError):
        attnc.load(text)

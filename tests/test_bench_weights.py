"""Patterns that weigh edges in `attnc bench`: their truth, what their inputs hold, who can take them."""

from __future__ import annotations

import pytest
import torch

from attnc import weighing
from attnc.bench.case import BadCase, Case
from attnc.bench.peers import known_peers, ours
from attnc.bench.scores import score_function
from attnc.bench.truth import truth
from tests.benching import CPU, make

SLOPED = (
    "pattern p() { input b: float[H] input t: float[9] heads even { attend causal "
    "score s - exp2(-8.0 * (h + 1) / H) * (q - k) + select(H > 2, 0.5, min(b[h], 1.0)) } "
    "heads odd { attend window(5) score 4.0 * tanh(s / 4.0) + t[q - k] } }"
)
SUNK = "pattern p() { input sinks: float[H] attend window(30) sink sinks[h] }"
LINEAR = "pattern p() { attend causal kernel elu(x) + 1 }"
GATED = "pattern p() { input g: float[n, H] attend causal kernel x normalize none decay g }"
DELTA = "pattern p() { input beta: float[n, H] attend causal kernel x update delta(beta) }"


def weights_off(case: Case) -> dict[str, str | None]:
    return {
        peer.name: peer.refuses(case) for peer in known_peers(CPU) if peer.name.startswith(("flex", "sdpa"))
    }


@pytest.mark.parametrize("text", [SLOPED, SUNK, LINEAR, GATED, DELTA])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_function_is_held_against_its_definition(text: str, dtype: str) -> None:
    case = make(text, 60, heads=4, kv_heads=2, dim=16, dtype=dtype)
    right = truth(case)
    leaves = tuple(x.detach().requires_grad_() for x in (case.q, case.k, case.v))
    out = ours.prepare(case)(*leaves)
    error, limit = right.judge(out)
    assert error <= limit
    found = torch.autograd.grad(out, leaves, right.grad)
    error, limit = right.judge_gradients(found)
    assert error <= limit
    # And it is seen where something else is computed.
    plain = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True)
    error, limit = right.judge(plain)
    assert error > limit


@pytest.mark.parametrize("text", [SLOPED, SUNK, GATED, DELTA])
def test_some_rows_are_those_of_all(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are computed at a time."""
    case = make(text, 60, heads=4, kv_heads=4, dim=8)
    whole, rows = truth(case), torch.tensor([0, 3, 17, 58, 59])
    q = case.q.double()
    some, _ = weighing.attention(
        case.pattern, q[:, :, rows], case.k.double(), case.v.double(), case.inputs, rows=rows
    )
    torch.testing.assert_close(some, whole.exact[0][:, :, rows])
    monkeypatch.setattr("attnc.bench.truth.CHUNK", 5000)
    for a, b in zip(truth(case).exact, whole.exact, strict=True):
        torch.testing.assert_close(a, b)


def test_what_inputs_hold_suits_their_place() -> None:
    case = make(
        "pattern p() { input g: float[n, H] input beta: float[n, H] attend causal kernel x decay g "
        "update delta(beta) }",
        50,
    )
    assert dict(case.fills) == {"g": "uniform:-0.1:0", "beta": "uniform:0:1"}
    assert bool((case.inputs["g"] <= 0).all()) and bool((case.inputs["g"] > -0.1).all())
    assert 0 <= float(case.inputs["beta"].min()) < float(case.inputs["beta"].max()) <= 1
    torch.testing.assert_close(case.k.norm(dim=3), torch.ones(case.k.shape[:3]))
    small = make(SUNK, 50, fills={"sinks": "normal:0.01"})
    assert float(small.inputs["sinks"].abs().max()) < 0.1


@pytest.mark.parametrize("fill", ["normal:", "normal:x", "uniform", "uniform:1", "uniform:1:x", "first:3"])
def test_fills_of_floats_that_are_none(fill: str) -> None:
    if fill == "normal:":  # as `normal`
        make(SUNK, 50, fills={"sinks": fill})
        return
    with pytest.raises(BadCase, match="normal:DEVIATION or uniform:LEAST:MOST"):
        make(SUNK, 50, fills={"sinks": fill})


def test_peers_say_what_they_cannot_weigh() -> None:
    assert weights_off(make(SLOPED, 30)) == {
        "flex": None,
        "flex-blocks": None,
        "sdpa-mask": "weighs edges by plain softmax alone",
        "sdpa-causal": None,  # a yardstick, whatever the pattern says
    }
    assert weights_off(make(SUNK, 30))["flex"] == "has no sinks"
    assert "no linear attention" in str(weights_off(make(LINEAR, 30))["flex"])
    plain = weights_off(make("pattern p() { attend causal }", 30))
    assert not any(plain.values())


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_score_functions_are_the_definitions() -> None:
    """FlexAttention's eager computation with ours comes to what the definition does."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    case = make(SLOPED, 40, heads=4, kv_heads=4, dim=8)
    score = score_function(case.pattern, 40, 4, case.inputs)
    block_mask = create_block_mask(case.mask(), None, 4, 40, 40, device="cpu", BLOCK_SIZE=20)
    found = flex_attention(case.q, case.k, case.v, score_mod=score, block_mask=block_mask)
    wanted, _ = weighing.attention(case.pattern, case.q, case.k, case.v, case.inputs)
    torch.testing.assert_close(found, wanted)
    assert make("pattern p() { attend causal }", 30).score() is None


def test_a_delta_rule_too_long_for_its_definition_is_refused() -> None:
    with pytest.raises(BadCase, match="fewer of them"):
        truth(make(DELTA, 1500, heads=64, kv_heads=64, dim=64))

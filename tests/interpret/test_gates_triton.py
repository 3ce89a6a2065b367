"""Gates for each channel and the delta rule on the Triton path, under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from tests import oracle, stepwise
from tests.device import needs_kernels, there
from tests.stepwise import Call

needs_kernels()

CALLS = (
    Call("gla", n=70, n_q=50, dim=18, value_dim=10, gates="shut", state=False),
    Call("rwkv6", n=66, dim=18, value_dim=20, chunk=40),
    Call("rwkv6", n=17, dim=33, value_dim=5, state=True, gates="fast", heads=1),
    Call("deltanet", n=130, n_q=100, dim=20, value_dim=16, batched=True),
    Call("gated_deltanet", n=70, dim=18, value_dim=10, state=True),
    Call("gated_deltanet", n=65, n_q=1, dim=16, value_dim=40, gates="shut", chunk=24),
    Call("kimi_delta", n=40, dim=16, value_dim=16, heads=1, state=True),
    Call("gated_deltanet", n=70, dim=16, value_dim=8, heads=1, batch=2, batched=True, documents=2),
    Call("kimi_delta", n=40, n_q=20, dim=16, value_dim=16, heads=1, documents=2, gates="shut"),
    Call("gla", n=40, dim=16, value_dim=16, heads=1, documents=3, gates="slow"),
    Call("gla", n=0, n_q=0),
    Call("deltanet", n=1, n_q=0),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.rule}-{call.n}-{call.n_q}")
def test_calls(call: Call) -> None:
    torch.set_num_threads(1)
    assert stepwise.check(call, torch.float32, "triton") == []


@pytest.mark.parametrize("rule", ["rwkv6", "gated_deltanet"])
def test_half_dtypes(rule: str) -> None:
    torch.set_num_threads(1)
    for dtype in (torch.bfloat16, torch.float16):
        assert stepwise.check(Call(rule, n=35, dim=16, value_dim=16, heads=1), dtype, "triton") == []


@pytest.mark.parametrize("update", ["", "update delta(b)"])
def test_what_a_positive_gate_reaches_is_nan(monkeypatch: pytest.MonkeyPatch, update: str) -> None:
    """On a GPU nobody waits to see whether one is positive: kernels must not take it, near or far."""
    given = "input b: float[n, H] " * bool(update)
    text = f"{given}input g: float[n, H, d] attend causal kernel x normalize none decay g {update}"
    module = oracle.compiled(f"pattern p() {{ {text} }}").module
    monkeypatch.setattr(module, "_fading", lambda gates, name: gates)
    q, k, v = torch.randn(3, 1, 1, 70, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    gates = torch.full((70, 1, 16), -0.1)
    gates[5] = 0.1
    more = {"b": torch.full((70, 1), 0.01)} if update else {}
    out = there(module.p)(q, k, v, g=gates, **more, backend="triton")
    assert out[:, :, 5:].isnan().all()
    if not update:  # the delta rule solves a whole chunk at once
        assert out[:, :, :5].isfinite().all()

"""Gated linear attention and the delta rule against the naive functions of flash-linear-attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def _naive(name: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    pytest.importorskip("fla")
    from fla.ops.delta_rule.naive import delta_rule_recurrence
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.kda.naive import naive_recurrent_kda
    from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6

    def swapped(x: torch.Tensor) -> torch.Tensor:
        """Positions before heads, or back."""
        return x.transpose(1, 2)

    def gla(q: Any, k: Any, v: Any, state: Any, g: Any) -> Any:
        out, final = naive_recurrent_gla(*map(swapped, (q, k, v)), g, state, True)
        return swapped(out), final

    def rwkv6(q: Any, k: Any, v: Any, state: Any, w: Any, u: Any) -> Any:
        return naive_recurrent_rwkv6(q, k, v, swapped(w), u, initial_state=state, output_final_state=True)

    def deltanet(q: Any, k: Any, v: Any, state: Any, beta: Any) -> Any:
        return delta_rule_recurrence(q, k, v, swapped(beta), state)

    def gated_deltanet(q: Any, k: Any, v: Any, state: Any, g: Any, beta: Any) -> Any:
        out, final = naive_recurrent_gated_delta_rule(*map(swapped, (q, k, v)), beta, g, None, state, True)
        return swapped(out), final

    def kimi_delta(q: Any, k: Any, v: Any, state: Any, g: Any, beta: Any) -> Any:
        out, final = naive_recurrent_kda(*map(swapped, (q, k, v)), g, beta, None, state, True)
        return swapped(out), final

    found: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
        "gla": gla,
        "rwkv6": rwkv6,
        "deltanet": deltanet,
        "gated_deltanet": gated_deltanet,
        "kimi_delta": kimi_delta,
    }
    return found[name]


@pytest.mark.parametrize("name", ["gla", "rwkv6", "deltanet", "gated_deltanet", "kimi_delta"])
def test_examples_are_what_flash_linear_attention_computes(name: str) -> None:
    naive, ours = _naive(name), attnc.load(EXAMPLES / f"{name}.attn")
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    b, h, n, dim = 2, 2, 90, 32
    q, k, v, state = normal(b, h, n, dim), normal(b, h, n, dim), normal(b, h, n, dim), normal(b, h, dim, dim)
    if "delta" in name:
        k = torch.nn.functional.normalize(k, dim=-1)
    gate = torch.nn.functional.logsigmoid(normal(b, n, h, dim)) / 4
    inputs = {
        "gla": {"g": gate},
        "rwkv6": {"w": gate, "u": normal(h, dim)},
        "deltanet": {"beta": torch.sigmoid(normal(b, n, h))},
        "gated_deltanet": {"g": gate[..., 0], "beta": torch.sigmoid(normal(b, n, h))},
        "kimi_delta": {"g": gate, "beta": torch.sigmoid(normal(b, n, h))},
    }[name]
    leaves = [x.detach().requires_grad_() for x in (q, k, v, state, *inputs.values())]
    pulls = normal(b, h, n, dim), normal(b, h, dim, dim)
    q, k, v, state, *rest = leaves
    given = dict(zip(inputs, rest, strict=True))
    got = ours(q, k, v, **given, state=state, return_state=True)
    wanted = naive(q, k, v, state, **given)
    for a, c in zip(got, wanted, strict=True):
        assert torch.allclose(a, c, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(found, leaves, pulls) for found in (got, wanted)]
    for a, c in zip(*gradients, strict=True):
        assert torch.allclose(a, c, rtol=1e-4, atol=2e-4)

"""flash-linear-attention as a peer of ``attnc bench``: what it is called with, by its naive functions.

Its kernels need a GPU; what they are called with does not, and the naive functions beside them say what
would come out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnc.bench import linear, peers
from attnc.bench.results import table
from tests.benching import CPU, make, results

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAMES = (
    "linear_transformer",
    "retnet",
    "mamba2",
    "gla",
    "rwkv6",
    "deltanet",
    "gated_deltanet",
    "kimi_delta",
)


def _naive(family: str, name: str) -> Callable[..., tuple[torch.Tensor, Any]]:
    """A naive function with the arguments of the one that ``attnc bench`` would call."""
    pytest.importorskip("fla")
    from fla.ops.delta_rule.naive import delta_rule_recurrence
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.kda.naive import naive_recurrent_kda
    from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
    from fla.ops.rwkv6.recurrent_naive import naive_recurrent_rwkv6
    from fla.ops.simple_gla.naive import naive_recurrent_simple_gla

    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)

    def simple_gla(q: Any, k: Any, v: Any, g: Any = None, g_gamma: Any = None) -> Any:
        return naive_recurrent_simple_gla(q, k, v, g_gamma.expand(*q.shape[:3]) if g is None else g)

    def rwkv6(q: Any, k: Any, v: Any, w: Any, u: Any) -> Any:
        return (turned(naive_recurrent_rwkv6(*map(turned, (q, k, v, w)), u)[0]),)

    def delta(q: Any, k: Any, v: Any, beta: Any) -> Any:
        return (turned(delta_rule_recurrence(*map(turned, (q, k, v, beta)))[0]),)

    def gated_delta(q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
        return naive_recurrent_gated_delta_rule(q, k, v, beta, g)

    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("linear_attn", "chunk_linear_attn"): naive_recurrent_linear_attn,
        ("simple_gla", "chunk_simple_gla"): simple_gla,
        ("gla", "chunk_gla"): lambda q, k, v, g: naive_recurrent_gla(q, k, v, g),
        ("rwkv6", "chunk_rwkv6"): rwkv6,
        ("delta_rule", "chunk_delta_rule"): delta,
        ("gated_delta_rule", "chunk_gated_delta_rule"): gated_delta,
        ("kda", "chunk_kda"): naive_recurrent_kda,
    }
    return known[family, name]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_computes_the_pattern(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the definition by the benchmark itself, forward and backward."""
    called: list[str] = []

    def named(family: str, function: str) -> Callable[..., Any]:
        called.append(function)
        return _naive(family, function)

    monkeypatch.setattr(linear, "_on_gpu", lambda case: True)
    monkeypatch.setattr(linear, "_named", named)
    (peer,) = peers.select("fla", CPU)
    case = make((EXAMPLES / f"{name}.attn").read_text(encoding="utf-8"), 20, heads=3, kv_heads=3, dim=8)
    entry = results(case, peer)["peers"][1]
    assert "seconds" in entry["forward"] and "seconds" in entry["backward"], entry
    assert len(set(called)) == 1


def test_without_a_gpu_that_is_said() -> None:
    (peer,) = peers.select("fla", CPU)
    case = make("pattern p() { attend causal kernel relu(x) }", 20, heads=2, kv_heads=2, dim=8)
    assert "fla      cannot: needs a GPU" in table(results(case, peer, backward=False))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("attend causal", "computes linear attention alone, the same for all heads"),
        ("attend causal - window(3) kernel relu(x)", "computes linear attention over `causal` alone"),
        ("attend all kernel relu(x)", "computes linear attention over `causal` alone"),
        ("attend causal kernel taylor()", "has no such feature map"),
        ("attend causal kernel relu(x) decay -0.1", "has no sum of weights under gates"),
        (
            "attend causal kernel x normalize none decay -0.1 exclusive",
            "has no gates that end a step earlier without a bonus",
        ),
        (
            "input g: float[n, H] input u: float[H, d] attend causal kernel x normalize none "
            "decay g exclusive bonus u",
            "has a bonus beside gates for each channel alone",
        ),
        ("attend window(5) kernel relu(x)", "computes linear attention over `causal` alone"),
    ],
)
def test_what_it_cannot_do_is_said(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (peer,) = peers.select("fla", CPU)
    case = make(f"pattern p() {{ {text} }}", 20, heads=2, kv_heads=2, dim=8)
    assert peer.refuses(case) == "needs a GPU"
    monkeypatch.setattr(linear, "_on_gpu", lambda case: True)
    assert peer.refuses(case) == reason
    grouped = make(f"pattern p() {{ {text} }}", 20, heads=2, kv_heads=1, dim=8)
    assert peer.refuses(grouped) == "needs as many key heads as query heads"

"""flash-linear-attention as a peer: which of its functions computes a pattern, if one does.

It takes features as tensors, so that a feature map is applied before, and gates for every token.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from attnc.bench.case import Case
from attnc.bench.scores import feature_function, head_values
from attnc.factorise import factors
from attnc.pattern import Decay, Elementwise, Weights

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def refuses(case: Case) -> str | None:
    """Why no function of fla computes the pattern, or None."""
    if not _on_gpu(case):
        return "needs a GPU"
    if case.shape.heads != case.shape.kv_heads:
        return "needs as many key heads as query heads"
    bodies = case.pattern.bodies
    if len(bodies) != 1 or len(bodies[0].parts) != 1 or bodies[0].parts[0].weights.feature is None:
        return "computes linear attention alone, the same for all heads"
    (factor,) = factors(bodies[0])
    if factor is None or not factor.causal or factor.near or factor.segmented:
        return "computes linear attention over `causal` alone"
    weights = bodies[0].parts[0].weights
    if not isinstance(weights.feature, Elementwise):
        return "has no such feature map"
    gated = weights.decay is not None or weights.beta is not None
    if gated and weights.normalized:
        return "has no sum of weights under gates"
    if weights.decay is not None and weights.decay.exclusive != (weights.bonus is not None):
        return "has no gates that end a step earlier without a bonus"
    if weights.bonus is not None and (weights.decay is None or weights.decay.axes != "channel"):
        return "has a bonus beside gates for each channel alone"
    return None


def prepare(case: Case) -> Attend:
    """The function of fla, with the feature map before it."""
    weights = case.pattern.bodies[0].parts[0].weights
    assert isinstance(weights.feature, Elementwise)
    mapped = feature_function(weights.feature.value)
    run, given = _function(case, weights)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        turned = (x.transpose(1, 2) for x in (mapped(q), mapped(k), v))
        found: torch.Tensor = run(*turned, **given)[0]
        return found.transpose(1, 2)

    return attend


def _on_gpu(case: Case) -> bool:
    return case.device.type == "cuda"


def _function(case: Case, weights: Weights) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function of (batch, tokens, heads, dim) tensors, and what it is given besides."""
    decay = weights.decay
    if weights.beta is not None:
        given = {"beta": _by_token(case, weights.beta)}
        if decay is None:
            return _named("delta_rule", "chunk_delta_rule"), given
        given["g"] = _gates(case, decay)
        if decay.axes == "channel":
            return _named("kda", "chunk_kda"), given
        return _named("gated_delta_rule", "chunk_gated_delta_rule"), given
    if decay is None:
        return _named("linear_attn", "chunk_linear_attn"), {"normalize": weights.normalized}
    if decay.axes == "head":
        return _named("simple_gla", "chunk_simple_gla"), {"g_gamma": _by_head(case, decay)}
    if decay.axes == "token":
        return _named("simple_gla", "chunk_simple_gla"), {"g": _gates(case, decay)}
    if weights.bonus is None:
        return _named("gla", "chunk_gla"), {"g": _gates(case, decay)}
    return _named("rwkv6", "chunk_rwkv6"), {"w": _gates(case, decay), "u": case.inputs[weights.bonus]}


def _named(family: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module(f"fla.ops.{family}"), name)
    return found


def _gates(case: Case, decay: Decay) -> torch.Tensor:
    """Logarithms of gates, (batch, tokens, heads) or (batch, tokens, heads, dim)."""
    if decay.axes == "head":
        return _by_head(case, decay).expand(case.shape.batch, case.shape.n, case.shape.heads).contiguous()
    return _by_token(case, decay.table)


def _by_head(case: Case, decay: Decay) -> torch.Tensor:
    assert decay.value is not None
    return head_values(decay.value, case.shape.heads, case.inputs, case.device)


def _by_token(case: Case, name: str) -> torch.Tensor:
    """An input (tokens, …) as (batch, tokens, …)."""
    x = case.inputs[name]
    return x.expand(case.shape.batch, *x.shape).contiguous()

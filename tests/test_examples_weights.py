"""Examples with weights against a definition of their own, written from the paper, in fp64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc import weighing

EXAMPLES = Path(__file__).parent.parent / "examples"
N, HEADS, DIM = 40, 3, 8

Tensor = torch.Tensor


def linear_transformer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equations 18 to 20: s += phi(k) v^T, z += phi(k), y = phi(q) s / (phi(q) z)."""
    phi_q, phi_k = (torch.nn.functional.elu(x) + 1 for x in (q, k))
    s, z, rows = torch.zeros(HEADS, DIM, DIM, dtype=q.dtype), torch.zeros(HEADS, DIM, dtype=q.dtype), []
    for t in range(q.shape[1]):
        s = s + phi_k[:, t, :, None] * v[:, t, None]
        z = z + phi_k[:, t]
        rows.append(torch.einsum("hd,hde->he", phi_q[:, t], s) / (phi_q[:, t] * z).sum(1, keepdim=True))
    return torch.stack(rows, 1)


def performer(q: Tensor, k: Tensor, v: Tensor, features: int) -> Tensor:
    """Lemma 1: exp(w x - |x|^2 / 2) / sqrt(m), of vectors scaled by d^(-1/4)."""
    directions = torch.from_numpy(weighing.favor_matrix(features, DIM, 0))

    def phi(x: Tensor) -> Tensor:
        x = x * DIM**-0.25
        return torch.exp(x @ directions.T - (x * x).sum(-1, keepdim=True) / 2) / math.sqrt(features)

    a = phi(q) @ phi(k).transpose(1, 2)
    return (a / a.sum(-1, keepdim=True)) @ v


def cosformer(q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
    """Equation 10: ReLU(q) ReLU(k)^T cos(pi / 2 * (i - j) / M)."""
    place = torch.arange(q.shape[1], dtype=q.dtype)
    turn = torch.cos(math.pi / 2 * (place[:, None] - place) / length)
    a = (torch.relu(q) @ torch.relu(k).transpose(1, 2) * turn).tril()
    total = a.sum(-1, keepdim=True)
    return torch.where(total == 0, 0.0, (a / torch.where(total == 0, 1.0, total)) @ v)


def retnet(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equation 6: S = gamma S + k^T v, o = q S, with gamma = 1 - 2^(-5 - h) and queries over sqrt(d)."""
    s, rows = torch.zeros(HEADS, DIM, DIM, dtype=q.dtype), []
    gamma = 1 - 2.0 ** (-5 - torch.arange(HEADS, dtype=q.dtype))
    for t in range(q.shape[1]):
        s = gamma[:, None, None] * s + k[:, t, :, None] * v[:, t, None]
        rows.append(torch.einsum("hd,hde->he", q[:, t] / math.sqrt(DIM), s))
    return torch.stack(rows, 1)


def mamba2(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """The recurrence of section 2: h = exp(dt A) h + B (dt x), y = C h."""
    s, rows = torch.zeros(HEADS, DIM, DIM, dtype=q.dtype), []
    for t in range(q.shape[1]):
        s = torch.exp(g[t])[:, None, None] * s + k[:, t, :, None] * v[:, t, None]
        rows.append(torch.einsum("hd,hde->he", q[:, t], s))
    return torch.stack(rows, 1)


def _window_and_rest(q: Tensor, k: Tensor, v: Tensor, window: int, weigh: Callable[..., Tensor]) -> Tensor:
    rows = []
    for t in range(q.shape[1]):
        first = max(0, t + 1 - window)
        near = torch.exp((k[:, first : t + 1] @ q[:, t, :, None])[..., 0] / math.sqrt(DIM))
        a = torch.cat([weigh(q[:, t : t + 1], k[:, :first]), near], 1)
        rows.append(torch.einsum("hk,hke->he", a, v[:, : t + 1]) / a.sum(1, keepdim=True))
    return torch.stack(rows, 1)


def based(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Equation 1: 1 + s + s^2 / 2 for s = q k / sqrt(d)."""

    def weigh(query: Tensor, keys: Tensor) -> Tensor:
        s = (keys @ query.transpose(1, 2))[..., 0] / math.sqrt(DIM)
        return 1 + s + s * s / 2

    return _window_and_rest(q, k, v, window, weigh)


def lolcats(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Equation 6, with the feature map of the pattern's head."""
    return _window_and_rest(q, k, v, window, lambda query, keys: (query.exp() * keys.exp()).sum(-1))


CASES: list[tuple[Callable[..., Tensor], dict[str, int], dict[str, Any]]] = [
    (linear_transformer, {}, {}),
    (performer, {"features": 20}, {}),
    (cosformer, {"length": 64}, {}),
    (retnet, {}, {}),
    (mamba2, {}, {"scale": 1.0}),
    (based, {"window": 6}, {}),
    (lolcats, {"window": 6}, {}),
]


@pytest.mark.parametrize(("definition", "params", "more"), CASES, ids=[f.__name__ for f, _, _ in CASES])
def test_example_is_the_papers(
    definition: Callable[..., Tensor], params: Mapping[str, int], more: Mapping[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, HEADS, N, DIM, generator=generator, dtype=torch.float64)
    inputs = {}
    if definition is mamba2:
        inputs["g"] = -torch.rand(N, HEADS, generator=generator, dtype=torch.float64)
    name = definition.__name__
    function = attnc.load(EXAMPLES / f"{name}.attn", params=params)
    out = function(q[None], k[None], v[None], **inputs, **more)[0]
    torch.testing.assert_close(out, definition(q, k, v, **inputs, **params))

"""Linear attention against the plain functions of flash-linear-attention, and Performer's own formula."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def naive(family: str, name: str) -> Callable[..., Any]:
    """A function from one file of theirs; the package itself wants a GPU as soon as it is imported."""
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        pytest.skip("fla-core is not installed")
    path = Path(found.submodule_search_locations[0]) / "ops" / family / "naive.py"
    spec = importlib.util.spec_from_file_location(f"fla_{family}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function


def tensors(n: int = 130) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, 2, 4, n, 16, generator=generator))


def test_linear_attention() -> None:
    pytest.importorskip("einops")
    theirs = naive("linear_attn", "naive_recurrent_linear_attn")
    q, k, v = tensors()
    phi_q, phi_k = (torch.nn.functional.elu(x) + 1 for x in (q, k))
    wanted, _ = theirs(*(x.transpose(1, 2) for x in (phi_q, phi_k, v)), scale=1.0, normalize=True)
    got = attnc.load(EXAMPLES / "linear_transformer.attn")(q, k, v)
    torch.testing.assert_close(got, wanted.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_retention() -> None:
    theirs = naive("retention", "naive_retention")
    q, k, v = tensors()
    got = attnc.load(EXAMPLES / "retnet.attn")(q, k, v)
    torch.testing.assert_close(got, theirs(q, k, v), atol=1e-4, rtol=1e-4)


def test_simple_gated_linear_attention() -> None:
    pytest.importorskip("einops")
    theirs = naive("simple_gla", "naive_recurrent_simple_gla")
    q, k, v = tensors()
    g = -torch.rand(2, 130, 4, generator=torch.Generator().manual_seed(1))
    wanted, state = theirs(*(x.transpose(1, 2) for x in (q, k, v)), g)
    got, final = attnc.load(EXAMPLES / "mamba2.attn")(q, k, v, g=g, return_state=True)
    torch.testing.assert_close(got, wanted.transpose(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(final, state, atol=1e-4, rtol=1e-4)


def test_performer() -> None:
    """performer-pytorch 1.1.4, `softmax_kernel` and `linear_attention`, without stabilizer and epsilon."""
    from attnc.weighing import favor_matrix

    q, k, v = tensors()
    rows = torch.from_numpy(favor_matrix(64, 16, 0)).float()

    def kernel(data: torch.Tensor) -> torch.Tensor:
        normalizer, ratio = data.shape[-1] ** -0.25, rows.shape[0] ** -0.5
        dash = torch.einsum("...id,...jd->...ij", normalizer * data, rows.expand(2, 4, -1, -1))
        diagonal = (data**2).sum(-1, keepdim=True) / 2.0 * normalizer**2
        return ratio * torch.exp(dash - diagonal)

    phi_q, phi_k = kernel(q), kernel(k)
    inverse = 1.0 / torch.einsum("...nd,...d->...n", phi_q, phi_k.sum(-2))
    context = torch.einsum("...nd,...ne->...de", phi_k, v)
    wanted = torch.einsum("...de,...nd,...n->...ne", context, phi_q, inverse)
    got = attnc.load(EXAMPLES / "performer.attn", features=64)(q, k, v)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert math.isfinite(float(got.sum()))

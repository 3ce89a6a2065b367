"""Plain attention over a dense mask: its numbers, its gradients, its empty rows, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attnc import reference


def tensors(
    batch: int, hq: int, hkv: int, n_q: int, n: int, d: int, dv: int, seed: int = 0
) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    shapes = [(batch, hq, n_q, d), (batch, hkv, n, d), (batch, hkv, n, dv)]
    return [torch.randn(shape, generator=make, dtype=torch.float64, requires_grad=True) for shape in shapes]


def plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, edges: np.ndarray, scale: float
) -> tuple[list[list[list[list[float]]]], list[list[list[float]]]]:
    """Row by row, in Python floats."""
    group = q.shape[1] // k.shape[1]
    outs, lses = [], []
    for b in range(q.shape[0]):
        outs.append([])
        lses.append([])
        for h in range(q.shape[1]):
            rows, sums = [], []
            for i in range(q.shape[2]):
                keys = np.flatnonzero(edges[b, h, i])
                scores = [scale * float(q[b, h, i] @ k[b, h // group, j]) for j in keys]
                total = math.fsum(map(math.exp, scores))
                sums.append(math.log(total) if len(keys) else -math.inf)
                rows.append(
                    [
                        math.fsum(
                            math.exp(s) / total * float(v[b, h // group, j, c])
                            for s, j in zip(scores, keys, strict=True)
                        )
                        for c in range(v.shape[3])
                    ]
                )
            outs[-1].append(rows)
            lses[-1].append(sums)
    return outs, lses


@pytest.mark.parametrize(("hq", "hkv"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_row_by_row(hq: int, hkv: int, scale: float | None) -> None:
    q, k, v = tensors(2, hq, hkv, 5, 7, 4, 3)
    edges = np.random.default_rng(1).random((2, hq, 5, 7)) < 0.4
    edges[0, 0, 2] = False
    out, lse = reference.attention(q, k, v, edges, scale)
    wanted_out, wanted_lse = plain_attention(
        q.detach(), k.detach(), v.detach(), edges, 0.5 if scale is None else scale
    )
    assert out.dtype == lse.dtype == torch.float64
    torch.testing.assert_close(out, torch.tensor(wanted_out, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, torch.tensor(wanted_lse, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_agrees_with_torch_and_its_gradients() -> None:
    q, k, v = tensors(2, 4, 2, 6, 9, 8, 8)
    edges = torch.from_numpy(np.tri(6, 9, 3, dtype=bool) & ~np.tri(6, 9, 0, dtype=bool))
    upstream = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    ours = torch.autograd.grad(reference.attention(q, k, v, edges)[0], (q, k, v), upstream)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=edges, enable_gqa=True)
    theirs = torch.autograd.grad(out, (q, k, v), upstream)
    torch.testing.assert_close(reference.attention(q, k, v, edges)[0], out, rtol=1e-12, atol=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


def test_rows_without_edges_give_zeros_and_no_gradient() -> None:
    q, k, v = tensors(1, 2, 1, 4, 4, 3, 3)
    edges = np.ones((2, 4, 4), dtype=bool)
    edges[1, 2] = False
    edges[:, :, 3] = False
    out, lse = reference.attention(q, k, v, edges)
    assert (out[0, 1, 2] == 0).all()
    assert lse[0, 1, 2] == -math.inf
    (out.sum() + lse[lse > -math.inf].sum()).backward()
    for tensor in (q, k, v):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert (q.grad[0, 1, 2] == 0).all()
    assert (k.grad[0, 0, 3] == 0).all()
    assert (v.grad[0, 0, 3] == 0).all()
    assert (q.grad[0, 0, 2] != 0).any()


def test_gradients_are_those_of_finite_differences() -> None:
    q, k, v = tensors(1, 2, 1, 3, 4, 2, 2)
    edges = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)

    def both(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = reference.attention(*parts, edges)
        return out, lse.masked_fill(lse == -math.inf, 0)

    assert torch.autograd.gradcheck(both, (q, k, v))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = (tensor.detach() * 1e3 for tensor in tensors(1, 1, 1, 5, 5, 4, 4))
    out, lse = reference.attention(q, k, v, np.tri(5, dtype=bool))
    assert out.isfinite().all()
    assert lse.isfinite().all()
    assert lse.max() > 1e3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_computes_in_the_dtype_given(dtype: torch.dtype) -> None:
    q, k, v = (tensor.detach().to(dtype) for tensor in tensors(1, 2, 2, 6, 6, 8, 8))
    out, lse = reference.attention(q, k, v, np.tri(6, dtype=bool))
    assert out.dtype == lse.dtype == dtype
    exact, _ = reference.attention(q.double(), k.double(), v.double(), np.tri(6, dtype=bool))
    error = (out.double() - exact).abs().max().item()
    assert 0 < error < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("n_q", "n"), [(0, 5), (0, 0), (3, 0)])
def test_nothing_to_attend_to(n_q: int, n: int) -> None:
    q, k, v = tensors(2, 2, 1, n_q, n, 4, 3)
    out, lse = reference.attention(q, k, v, np.ones((n_q, n), dtype=bool))
    assert out.shape == (2, 2, n_q, 3)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    out.sum().backward()
    assert q.grad is not None
    assert (q.grad == 0).all()


@pytest.mark.parametrize(
    ("shapes", "edges", "message"),
    [
        (((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)), (3, 3), "do not fit"),
        (((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 4, 4)), (3, 3), "do not fit"),
        (((1, 3, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), (3, 3), "3 query heads cannot share 2 key heads"),
        (((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), (5, 3, 3), r"mask of shape \[5, 3, 3\] does not fit"),
    ],
)
def test_shapes_that_do_not_fit(
    shapes: tuple[tuple[int, ...], ...], edges: tuple[int, ...], message: str
) -> None:
    q, k, v = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        reference.attention(q, k, v, np.ones(edges, dtype=bool))

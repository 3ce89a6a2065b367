"""Our masks and attention against torch's FlexAttention, run eagerly with a mask function from the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, create_mask, flex_attention

from attnc import reference
from attnc.pattern import Pattern

Example = Callable[..., Pattern]
MaskMod = Callable[[Any, Any, Any, Any], Any]
LSE = AuxRequest(lse=True)
N, HEADS, KEY_HEADS, BATCH, DIM = 96, 4, 2, 2, 16

# It advises to compile: but eager is the plain, unfused computation that is wanted here.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")

MARKED = torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.1
DOCUMENT = torch.sort(torch.randint(0, 5, (BATCH, N), generator=torch.Generator().manual_seed(4)))[0]


def fixed(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (k <= q) & ((k // 16 == q // 16) | (k % 16 >= 12))


def halo(b: Any, h: Any, q: Any, k: Any) -> Any:
    def inside(key: Any, query: Any) -> Any:
        return (key >= query // 4 * 4 - 2) & (key < query // 4 * 4 + 6)

    return inside(k // 12, q // 12) & inside(k % 12, q % 12)


CASES: list[tuple[str, dict[str, int], dict[str, torch.Tensor], MaskMod]] = [
    ("causal", {}, {}, lambda b, h, q, k: q >= k),
    ("mistral", {"window": 17}, {}, lambda b, h, q, k: (q >= k) & (q - k < 17)),
    ("llama4_chunked", {"size": 20}, {}, lambda b, h, q, k: (q >= k) & (q // 20 == k // 20)),
    ("overlapping_windows", {"size": 4, "overlap": 2, "width": 12}, {}, halo),
    (
        "dilated",
        {"width": 6, "dilation": 4},
        {},
        lambda b, h, q, k: (q >= k) & (q - k < 24) & ((q - k) % 4 == 0),
    ),
    (
        "sparse_transformer_strided",
        {"step": 8},
        {},
        lambda b, h, q, k: (q >= k) & torch.where(h % 2 == 0, q - k <= 8, (q - k) % 8 == 0),
    ),
    ("sparse_transformer_fixed", {"step": 16, "summary": 4}, {}, fixed),
    (
        "longformer",
        {"window": 12},
        {"is_global": MARKED},
        lambda b, h, q, k: ((q - k).abs() <= 6) | MARKED[q] | MARKED[k],
    ),
    ("streaming_llm", {"sinks": 3, "window": 9}, {}, lambda b, h, q, k: (q >= k) & ((q - k < 9) | (k < 3))),
    ("prefix_lm", {}, {"is_prefix": torch.arange(N) < 30}, lambda b, h, q, k: (q >= k) | (k < 30)),
    (
        "packed_documents",
        {},
        {"document": DOCUMENT},
        lambda b, h, q, k: (q >= k) & (DOCUMENT[b, q] == DOCUMENT[b, k]),
    ),
]


@pytest.mark.parametrize(("name", "params", "inputs", "mod"), CASES, ids=[case[0] for case in CASES])
def test_mask_and_output(
    example: Example, name: str, params: dict[str, int], inputs: dict[str, torch.Tensor], mod: MaskMod
) -> None:
    ours = reference.mask(
        example(name, **params), N, HEADS, {key: value.numpy() for key, value in inputs.items()}
    )
    ours = np.broadcast_to(ours, (BATCH, HEADS, N, N))
    theirs = create_mask(mod, BATCH, HEADS, N, N, device="cpu")
    assert (ours == theirs.numpy()).all()

    make = torch.Generator().manual_seed(0)
    q = torch.randn(BATCH, HEADS, N, DIM, generator=make, dtype=torch.float64)
    k, v = (torch.randn(BATCH, KEY_HEADS, N, DIM, generator=make, dtype=torch.float64) for _ in range(2))
    out, lse = reference.attention(q, k, v, ours)
    block_mask = create_block_mask(mod, BATCH, HEADS, N, N, device="cpu", BLOCK_SIZE=32)
    other, aux = flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True, return_aux=LSE)
    torch.testing.assert_close(out, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(lse, aux.lse, rtol=1e-10, atol=1e-12)


def test_rows_without_edges() -> None:
    """FlexAttention, too, gives zeros and minus infinity to a query that reads nothing."""

    def mod(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q % 3 != 1)

    make = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 1, 32, 8, generator=make, dtype=torch.float64) for _ in range(3))
    edges = create_mask(mod, 1, 1, 32, 32, device="cpu")
    out, lse = reference.attention(q, k, v, edges)
    block_mask = create_block_mask(mod, 1, 1, 32, 32, device="cpu", BLOCK_SIZE=32)
    other, aux = flex_attention(q, k, v, block_mask=block_mask, return_aux=LSE)
    torch.testing.assert_close(out, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(lse, aux.lse, rtol=1e-10, atol=1e-12)
    assert (out[0, 0, 1] == 0).all()

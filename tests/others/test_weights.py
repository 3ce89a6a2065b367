"""Scores and sinks against those of Hugging Face transformers and of torch's FlexAttention.

What is compared is the emitted function, in fp64 on the torch path: the examples at smaller constants.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import GptOssConfig, T5Config
from transformers.masking_utils import create_sliding_window_causal_mask
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

import attnc

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BATCH, N, HEADS, KEY_HEADS, DIM = 2, 40, 4, 2, 8
Tensors = tuple[torch.Tensor, ...]

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


def compiled(name: str, file: str | None = None, **params: Any) -> Callable[..., torch.Tensor]:
    function: Callable[..., torch.Tensor] = attnc.load(EXAMPLES / f"{file or name}.attn", name, **params)
    return function


def tensors(n: int = N, key_heads: int = KEY_HEADS) -> Tensors:
    make = torch.Generator().manual_seed(n)
    shapes = [(BATCH, heads, n, DIM) for heads in (HEADS, key_heads, key_heads)]
    return tuple(torch.randn(shape, generator=make, dtype=torch.float64).requires_grad_() for shape in shapes)


def learned(*shape: int) -> torch.Tensor:
    make = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=make, dtype=torch.float64).requires_grad_()


def agree(ours: torch.Tensor, theirs: torch.Tensor, by: Tensors, tolerance: float = 1e-9) -> None:
    """Outputs, and gradients by q, k, v and whatever is learned."""
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    pairs = zip(*(torch.autograd.grad(out, by, grad) for out in (ours, theirs)), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def causal_mask(n: int, window: int | None = None) -> torch.Tensor:
    """Zero where there is an edge, and minus infinity elsewhere."""
    gap = torch.arange(n)[:, None] - torch.arange(n)
    edges = (gap >= 0) & (gap < (window or n))
    return torch.zeros(n, n, dtype=torch.float64).masked_fill(~edges, -torch.inf)


@pytest.mark.parametrize("window", [5, 16])
def test_gpt_oss(window: int) -> None:
    q, k, v = tensors()
    sinks = learned(HEADS)
    config = GptOssConfig(sliding_window=window, num_hidden_layers=1, attn_implementation="eager")
    mask = create_sliding_window_causal_mask(config, torch.zeros(BATCH, N, 8), None, None).double()
    module = SimpleNamespace(sinks=sinks, num_key_value_groups=HEADS // KEY_HEADS, training=False)
    theirs, _ = modeling_gpt_oss.eager_attention_forward(module, q, k, v, mask, DIM**-0.5)
    ours = compiled("gpt_oss", window=window)(q, k, v, sinks=sinks)
    agree(ours, theirs.transpose(1, 2), (q, k, v, sinks))


@pytest.mark.parametrize("window", [None, 9])
def test_gemma2(window: int | None) -> None:
    q, k, v = tensors()
    module = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS, training=False, head_dim=DIM)
    given = {"scaling": 3.0, "softcap": 5.0}  # so large that the cap is felt
    theirs, _ = modeling_gemma2.eager_attention_forward(module, q, k, v, causal_mask(N, window), **given)
    if window is None:
        ours = compiled("gemma2", cap=5.0)(q, k, v, scale=3.0)
    else:
        ours = compiled("gemma2_local", "gemma2", cap=5.0, window=window)(q, k, v, scale=3.0)
    # Their softmax is computed in fp32, whatever the dtype.
    agree(ours, theirs.transpose(1, 2), (q, k, v), tolerance=2e-5)


@pytest.mark.parametrize("decoder", [False, True])
def test_t5(decoder: bool) -> None:
    torch.manual_seed(0)
    n = 300  # beyond the last bucket's distance
    config = T5Config(
        d_model=HEADS * DIM, d_kv=DIM, num_heads=HEADS, is_decoder=decoder, attn_implementation="eager"
    )
    layer = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    hidden = torch.randn(1, n, HEADS * DIM, dtype=torch.float64)
    bias = layer.relative_attention_bias.weight
    with torch.no_grad():
        theirs = layer(hidden, mask=causal_mask(n)[None, None] if decoder else None)[0]
        q, k, v = (
            project(hidden).view(1, n, HEADS, DIM).transpose(1, 2) for project in (layer.q, layer.k, layer.v)
        )
        out = compiled("t5_decoder" if decoder else "t5", "t5")(q, k, v, bias=bias, scale=1.0)
        ours = layer.o(out.transpose(1, 2).reshape(1, n, HEADS * DIM))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decoder", [False, True])
def test_t5_buckets(decoder: bool) -> None:
    """Every distance to 1000 is in the bucket that their function gives it."""
    n = 1001
    apart = torch.arange(n)[None] - torch.arange(n)[:, None]  # of the key from the query
    wanted = T5Attention._relative_position_bucket(apart, bidirectional=not decoder)
    q, k = (torch.zeros(1, 1, n, 1, dtype=torch.float64) for _ in range(2))
    value = torch.eye(n, dtype=torch.float64)[None, None, :, :256]
    name = "t5_decoder" if decoder else "t5"
    bias = torch.arange(32, dtype=torch.float64)[:, None] / 8
    found = compiled(name, "t5")(q, k, value, bias=bias)
    scores = wanted / 8.0
    if decoder:
        scores = scores.masked_fill(apart > 0, -torch.inf)
    torch.testing.assert_close(found[0, 0], scores.softmax(1).double()[:, :256], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("heads", [4, 6, 12])
def test_bloom(heads: int) -> None:
    """Its bias grows with the key's position: softmax does not mind what a whole row has in common."""
    make = torch.Generator().manual_seed(heads)
    q, k, v = (torch.randn(1, heads, N, DIM, generator=make, dtype=torch.float64) for _ in range(3))
    bias = build_alibi_tensor(torch.ones(1, N, dtype=torch.int64), heads, torch.float64).view(1, heads, 1, N)
    scores = q @ k.transpose(2, 3) * DIM**-0.5 + bias + causal_mask(N)
    torch.testing.assert_close(compiled("alibi")(q, k, v), scores.softmax(3) @ v, rtol=1e-5, atol=1e-6)


def test_mpt() -> None:
    """For a power of two of heads; for other numbers MPT takes other slopes than the paper."""
    q, k, v = tensors(key_heads=HEADS)
    scores = q @ k.transpose(2, 3) * DIM**-0.5 + build_mpt_alibi_tensor(HEADS, N).double() + causal_mask(N)
    agree(compiled("alibi")(q, k, v), scores.softmax(3) @ v, (q, k, v), tolerance=1e-6)


# --- FlexAttention --------------------------------------------------------------------------------------

TABLE, BIAS = learned(HEADS, 19), learned(HEADS)


def alibi(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return s - torch.exp2(-8.0 * (h + 1) / HEADS) * (q - k)


def cap(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return 5.0 * torch.tanh(s / 5.0)


def relative(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return s + TABLE[h, (q - k).clamp(-9, 9) + 9]


def gated(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.where(q - k > 7, s * BIAS[h], s.sigmoid())


CASES: dict[str, tuple[str, Callable[..., Any], Callable[..., Any], dict[str, torch.Tensor]]] = {
    "alibi": (
        "attend causal score s - exp2(-8.0 * (h + 1) / H) * (q - k)",
        alibi,
        lambda b, h, q, k: q >= k,
        {},
    ),
    "cap": (
        "attend window(11, 3) score 5.0 * tanh(s / 5.0)",
        cap,
        lambda b, h, q, k: (q - k <= 11) & (k - q <= 3),
        {},
    ),
    "relative": (
        "input table: float[H, 19] attend all score s + table[h, min(max(q - k, -9), 9) + 9]",
        relative,
        lambda b, h, q, k: q >= 0,
        {"table": TABLE},
    ),
    "gated": (
        "input bias: float[H] attend stride(3) | window(4) score select(q - k > 7, s * bias[h], sigmoid(s))",
        gated,
        lambda b, h, q, k: ((q - k) % 3 == 0) | ((q >= k) & (q - k <= 4)),
        {"bias": BIAS},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flex_attention(name: str) -> None:
    """Its backward does not run on a CPU, so outputs alone."""
    text, score, mask, given = CASES[name]
    q, k, v = (x.detach() for x in tensors())
    block_mask = create_block_mask(mask, BATCH, HEADS, N, N, device="cpu", BLOCK_SIZE=20)
    with torch.no_grad():
        theirs = flex_attention(q, k, v, score_mod=score, block_mask=block_mask, enable_gqa=True)
        ours = attnc.load(f"pattern p() {{ {text} }}")(q, k, v, **given)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

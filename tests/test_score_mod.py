"""``attnc.from_mask_mod(…, score_mod=…)``: FlexAttention's score functions, read as what edges weigh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attnc
from attnc.diagnostics import AttncError

N, BATCH, HEADS = 40, 2, 4
MINUS_INFINITY = -float("inf")

SLOPES = torch.exp2(-torch.arange(1, HEADS + 1).double())
BY_DISTANCE = torch.randn(HEADS, 2 * N - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BY_KEY = torch.randn(BATCH, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
DOCUMENT = torch.arange(N) // 13


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 20 * torch.tanh(score / 20)


def alibi(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    scale = torch.exp2(-((h + 1) * 8.0 / HEADS))
    return score + scale * (kv_idx - q_idx)


def masked(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    same = DOCUMENT[q_idx] == DOCUMENT[kv_idx]
    return torch.where(same & (q_idx - kv_idx < 9), softcap(score, b, h, q_idx, kv_idx), MINUS_INFINITY)


# Title, function, what is said of the score.
Case = tuple[str, Callable[..., Any], str]
CASES: list[Case] = [
    ("softcap", softcap, "attend causal score 20 * tanh(s / 20)"),
    ("alibi", alibi, "attend causal score s + exp2(-(8 * (h + 1) / 4.0)) * (k - q)"),
    (
        "slopes",
        lambda s, b, h, q, k: s - SLOPES[h] * (q - k).abs(),
        "input SLOPES: float[H] attend causal score s - SLOPES[h] * (max(q - k, k - q))",
    ),
    (
        "by distance",
        lambda s, b, h, q, k: s + BY_DISTANCE[h, q - k + N - 1],
        "input BY_DISTANCE: float[H, 79] attend causal score s + BY_DISTANCE[h, q - k + 39]",
    ),
    (
        "by key of each batch entry",
        lambda s, b, h, q, k: s * 1.5 + BY_KEY[b, k],
        "input BY_KEY: float[n] attend causal score 1.5 * s + BY_KEY[k]",
    ),
    (
        "chosen by head",
        lambda s, b, h, q, k: s + torch.where(h < 2, q - k, k - q) * 0.25,
        "attend causal score s + 0.25 * select(h <= 1, q - k, k - q)",
    ),
    (
        "leaky",
        lambda s, b, h, q, k: torch.where(s > 0, s, 0.1 * s),
        "attend causal score select(s > 0, s, 0.1 * s)",
    ),
    (
        "not below",
        lambda s, b, h, q, k: torch.where(s <= 1, s, 1 + 0 * s),
        "attend causal score select(s > 1, 1, s)",
    ),
    ("masked", masked, "input DOCUMENT: int[n] attend window(8) & same(DOCUMENT) score 20 * tanh(s / 20)"),
    (
        "masked twice",
        lambda s, b, h, q, k: torch.where(
            q - k > 4, MINUS_INFINITY, torch.where(k > 2, s, MINUS_INFINITY)
        ),
        "",
    ),
    (
        "functions",
        lambda s, b, h, q, k: torch.sigmoid(s).clamp(0.2, 0.7) + torch.minimum(s, s**2) / 3 - s.abs(),
        "",
    ),
    ("whole numbers alone", lambda s, b, h, q, k: s + (q - k) / 8 + k % 3, ""),
    ("nothing", lambda s, b, h, q, k: s, "attend causal"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:.*index-clamped")
@pytest.mark.parametrize("mask_mod", [None, causal], ids=["all", "causal"])
@pytest.mark.parametrize(("fn", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_scores_are_theirs(fn: Any, said: str, mask_mod: Any) -> None:
    pattern = attnc.from_mask_mod(mask_mod, score_mod=fn, name="mod")
    body = " ".join(pattern.source.partition("{\n")[2].rpartition("}")[0].split())
    assert mask_mod is None or said in ("", body)
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(BATCH, HEADS, N, 16, generator=make, dtype=torch.float64) for _ in range(3))
    blocks = None
    if mask_mod is not None:
        blocks = create_block_mask(mask_mod, None, None, N, N, device="cpu", BLOCK_SIZE=16)
    wanted = flex_attention(q, k, v, score_mod=fn, block_mask=blocks)
    torch.testing.assert_close(pattern(q, k, v), wanted, rtol=1e-9, atol=1e-11)


def test_tensors_of_scores_learn() -> None:
    bias = BY_DISTANCE.clone().requires_grad_()
    pattern = attnc.from_mask_mod(causal, score_mod=lambda s, b, h, q, k: s + bias[h, (q - k) % N])
    q, k, v = torch.randn(3, 1, HEADS, N, 16, dtype=torch.float64)
    pattern(q, k, v).square().sum().backward()
    at = torch.arange(N)
    again = BY_DISTANCE.clone().requires_grad_()
    added = again[:, (at[:, None] - at[None]) % N].masked_fill(at[:, None] < at[None], MINUS_INFINITY)
    torch.nn.functional.scaled_dot_product_attention(q, k, v, added[None]).square().sum().backward()
    torch.testing.assert_close(bias.grad, again.grad)


def test_a_score_function_alone_is_about_all_pairs() -> None:
    pattern = attnc.from_mask_mod(score_mod=lambda score, b, h, q, k: score - 0.5 * (q - k).abs(), name="mod")
    body = pattern.source.partition("{\n")[2].rpartition("}")[0]
    assert body.split()[:2] == ["attend", "all"] and "score" in body
    with pytest.raises(TypeError, match="takes a function"):
        attnc.from_mask_mod()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda s, b, h, q, k: s if s > 0 else 0 * s, "a condition has no value"),
        (lambda s, b, h, q, k: s > 0, "answers with a score, and this one with a condition"),
        (lambda s, b, h, q, k: torch.where(s > 0, s, MINUS_INFINITY), "edges are chosen by the score itself"),
        (lambda s, b, h, q, k: 2 * torch.where(q > k, s, MINUS_INFINITY), "minus infinity is computed with"),
        (lambda s, b, h, q, k: s + MINUS_INFINITY, "-inf is no score"),
        (lambda s, b, h, q, k: torch.erf(s), "`erf` is not known to patterns"),
        (lambda s, b, h, q, k: s + BY_KEY, r"a tensor of shape \(2, 40\) meets a score as a whole"),
        (lambda s, b, h, q, k: s**0.5, "raised to whole powers"),
        (lambda s, b, h, q, k: s + b, "hangs on the number of the batch entry"),
        (lambda s, b, h, q, k: s[0], "a score has no entries"),
    ],
)
def test_what_is_refused_is_marked(fn: Any, message: str) -> None:
    with pytest.raises(AttncError, match=message) as caught:
        attnc.from_mask_mod(None, score_mod=fn)
    assert f"{__file__}:" in str(caught.value)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="`score_mod` must be a function"):
        attnc.from_mask_mod(causal, score_mod=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a function of"):
        attnc.from_mask_mod(None)

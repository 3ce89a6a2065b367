"""Our Longformer pattern against the self-attention of Hugging Face transformers, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from attnc import reference
from attnc.pattern import Pattern

Example = Callable[..., Pattern]

BATCH, N, HEADS, DIM, WINDOW = 2, 48, 3, 8, 8


def heads(hidden: torch.Tensor) -> torch.Tensor:
    """(batch, n, heads * dim) as (batch, heads, n, dim)."""
    return hidden.view(BATCH, N, HEADS, DIM).transpose(1, 2)


@pytest.mark.parametrize("marks", [[], [0], [0, 1, 2], [5, 24, 47]])
def test_self_attention(example: Example, marks: list[int]) -> None:
    torch.manual_seed(0)
    config = LongformerConfig(
        hidden_size=HEADS * DIM,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        attention_window=[WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    layer = LongformerSelfAttention(config, 0).eval()
    is_global = torch.zeros(BATCH, N, dtype=torch.bool)
    is_global[:, marks] = True
    if marks:
        is_global[1, marks[0]] = False  # another number of global tokens in the second sequence
    hidden = torch.randn(BATCH, N, HEADS * DIM)
    with torch.no_grad():
        (theirs,) = layer(
            hidden,
            attention_mask=is_global * 10000.0,
            is_index_masked=torch.zeros(BATCH, N, dtype=torch.bool),
            is_index_global_attn=is_global,
            is_global_attn=bool(is_global.any()),
        )
        pattern = example("longformer", window=WINDOW)
        edges = reference.mask(pattern, N, HEADS, {"is_global": is_global.numpy()})
        local, _ = reference.attention(
            *(heads(project(hidden)) for project in (layer.query, layer.key, layer.value)), edges
        )
        # The rows of global tokens have projections of their own, for queries, keys and values.
        full, _ = reference.attention(
            *(
                heads(project(hidden))
                for project in (layer.query_global, layer.key_global, layer.value_global)
            ),
            edges,
        )
        ours = torch.where(is_global[:, None, :, None], full, local)
        ours = ours.transpose(1, 2).reshape(BATCH, N, HEADS * DIM)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

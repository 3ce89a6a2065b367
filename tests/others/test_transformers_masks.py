"""Our Mistral and Llama 4 masks against those that Hugging Face transformers builds for its models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Llama4TextConfig, MistralConfig
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_chunked_causal_mask, create_sliding_window_causal_mask

from attnc import reference
from attnc.pattern import Pattern

Example = Callable[..., Pattern]


def edges(mask: torch.Tensor) -> torch.Tensor:
    """Eager masks are zero where there is an edge, and the least finite number elsewhere."""
    assert mask.dtype == torch.float32
    return mask == 0


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 40])
@pytest.mark.parametrize("size", [1, 4, 10])
def test_prefill(example: Example, n: int, size: int) -> None:
    embeds = torch.zeros(2, n, 8)
    mistral = MistralConfig(sliding_window=size, num_hidden_layers=1, attn_implementation="eager")
    theirs = create_sliding_window_causal_mask(mistral, embeds, None, None)
    ours = torch.from_numpy(reference.mask(example("mistral", window=size), n))
    assert torch.equal(edges(theirs), ours.expand(2, 1, n, n))

    llama = Llama4TextConfig(attention_chunk_size=size, num_hidden_layers=1, attn_implementation="eager")
    theirs = create_chunked_causal_mask(llama, embeds, None, None)
    ours = torch.from_numpy(reference.mask(example("llama4_chunked", size=size), n))
    assert torch.equal(edges(theirs), ours.expand(2, 1, n, n))


@pytest.mark.parametrize("n_q", [1, 5, 13])
def test_a_chunk_after_a_full_cache(example: Example, n_q: int) -> None:
    """With keys cached, the queries are the last positions."""
    cached, heads, dim, size = 11, 2, 4, 6
    n = cached + n_q
    past = DynamicCache()
    past.update(torch.zeros(1, heads, cached, dim), torch.zeros(1, heads, cached, dim), 0)
    embeds = torch.zeros(1, n_q, 8)
    mistral = MistralConfig(sliding_window=size, num_hidden_layers=1, attn_implementation="eager")
    theirs = create_sliding_window_causal_mask(mistral, embeds, None, past)
    ours = torch.from_numpy(reference.mask(example("mistral", window=size), n, n_q=n_q))
    assert torch.equal(edges(theirs), ours[None])

    llama = Llama4TextConfig(attention_chunk_size=size, num_hidden_layers=1, attn_implementation="eager")
    theirs = create_chunked_causal_mask(llama, embeds, None, past)
    ours = torch.from_numpy(reference.mask(example("llama4_chunked", size=size), n, n_q=n_q))
    assert torch.equal(edges(theirs), ours[None])


def test_packed_documents(example: Example) -> None:
    """Position ids that start again mark documents; transformers finds them in the ids."""
    document = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 3])
    position_ids = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 0, 1]])
    config = MistralConfig(sliding_window=100, num_hidden_layers=1, attn_implementation="eager")
    theirs = create_sliding_window_causal_mask(config, torch.zeros(1, 10, 8), None, None, position_ids)
    ours = reference.mask(example("packed_documents"), 10, inputs={"document": document.numpy()})
    assert torch.equal(edges(theirs), torch.from_numpy(ours)[None])

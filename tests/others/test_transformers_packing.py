"""Sequences packed into rows of a batch, in models of transformers: each gives what it gives alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    DataCollatorWithFlattening,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from attnc.integrations.transformers import Unsupported, inputs, register
from tests.others.test_transformers_models import SIZES, close, made

SMALL = {name: size for name, size in SIZES.items() if "token" not in name}
TEXTS = {
    "packed-causal": "attend causal",
    "packed-window": "attend window(3)",
    "packed-chunks": "attend chunk(5) & causal",
    "packed-picks": "attend random(2, seed=1, past=true) | self",
    "packed-kept": "input keep: bool[n] attend (window(2) | to(keep)) & causal",
}


@pytest.fixture(scope="module", autouse=True)
def patterns() -> None:
    for name, text in TEXTS.items():
        register(f"pattern p() {{ {text} }}", name=name)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return made(LlamaForCausalLM, LlamaConfig(**SIZES))


class Rows:
    """Rows of documents between padding, drawn from a seed. ``documents``: (row, first, last) of each."""

    def __init__(self, pick: random.Random) -> None:
        self.batch, padded = pick.choice((1, 2, 3)), pick.choice(("none", "ones", "left", "right", "both"))
        widths = [[pick.randint(1, 9) for _ in range(pick.randint(1, 4))] for _ in range(self.batch)]
        before, behind = padded in ("left", "both"), padded in ("right", "both")
        longest = max(map(sum, widths)) + 2 * (before or behind)
        self.n = longest if before or behind else sum(widths[0])
        self.mask = torch.zeros(self.batch, self.n, dtype=torch.long)
        # What stands at padding is what `generate` and tokenizers put there.
        self.positions = torch.full((self.batch, self.n), pick.choice((0, 1)))
        self.documents = []
        for row, lengths in enumerate(widths):
            if not (before or behind):
                lengths = widths[0]
            spare = self.n - sum(lengths)
            at = spare if padded == "left" else spare // 2 if padded == "both" else 0
            for length in lengths:
                self.documents.append((row, at, at + length))
                self.mask[row, at : at + length] = 1
                self.positions[row, at : at + length] = torch.arange(length)
                at += length
        generator = torch.Generator().manual_seed(pick.randrange(999))
        self.ids = torch.randint(3, 64, (self.batch, self.n), generator=generator)
        self.keep = torch.rand(self.batch, self.n, generator=generator) < 0.3
        self.given: dict[str, Any] = {"position_ids": self.positions}
        if padded == "none" and pick.random() < 0.5:
            self.given["position_ids"] = self.positions[:1]
        if padded != "none":
            self.given["attention_mask"] = self.mask
        elif self.batch == 1:
            ends = torch.tensor([0, *(last for _, _, last in self.documents)])
            number = torch.bucketize(torch.arange(self.n), ends, right=True)[None]
            self.given |= pick.choice(
                (
                    {},
                    {"seq_idx": number},
                    {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 9, "max_length_k": 9},
                )
            )


def alone(model: PreTrainedModel, name: str, rows: Rows) -> torch.Tensor:
    """Logits of all documents, one after the other, each by itself."""
    found = []
    for row, first, last in rows.documents:
        own = {"keep": rows.keep[row, first:last]} if name == "packed-kept" else {}
        found.append(model(rows.ids[row : row + 1, first:last], use_cache=False, **own).logits[0])
    return torch.cat(found)


def gradients(model: PreTrainedModel, out: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    out.square().mean().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("seed", range(40))
def test_documents_packed_at_random(llama: LlamaForCausalLM, seed: int) -> None:
    pick = random.Random(seed)
    rows, name = Rows(pick), pick.choice(tuple(TEXTS))
    llama.set_attn_implementation(name)
    train, checkpointed, cached = pick.random() < 0.4, pick.random() < 0.5, pick.choice((True, False, None))
    own = {"keep": rows.keep} if name == "packed-kept" else {}
    wanted = alone(llama, name, rows)
    wanted_grads = gradients(llama, wanted)
    llama.train(train)
    if train and checkpointed:
        llama.activation_checkpointing_enable()
    try:
        out = llama(rows.ids, use_cache=cached, **rows.given, **own).logits
        got = torch.cat([out[row, first:last] for row, first, last in rows.documents])
        grads = gradients(llama, got)
    finally:
        llama.activation_checkpointing_disable()
        llama.eval()
    close(got, wanted)
    for one, other in zip(grads, wanted_grads, strict=True):
        close(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_packed_documents_in_pieces(llama: LlamaForCausalLM, seed: int) -> None:
    """With a cache a piece may begin within a document, or end there: positions say what lies before."""
    pick = random.Random(seed)
    rows, name = Rows(pick), pick.choice(("packed-causal", "packed-window", "packed-chunks"))
    llama.set_attn_implementation(name)
    past, outs, begin = DynamicCache(), [], 0
    while begin < rows.n:
        end = min(rows.n, begin + pick.randint(1, 6))
        mask = {"attention_mask": rows.mask[:, :end]} if "attention_mask" in rows.given else {}
        piece = rows.ids[:, begin:end]
        positions = rows.positions[:, begin:end]
        outs.append(llama(piece, position_ids=positions, past_key_values=past, **mask).logits)
        begin = end
    out = torch.cat(outs, 1)
    got = torch.cat([out[row, first:last] for row, first, last in rows.documents])
    close(got, alone(llama, name, rows))


OTHERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0)),
    "neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SMALL, head_dim=8)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_say_where_documents_begin(kind: str) -> None:
    model = made(*OTHERS[kind])
    model.set_attn_implementation("packed-causal")
    rows = Rows(random.Random(3))
    for cached in (True, False):
        out = model(rows.ids, use_cache=cached, **rows.given).logits
        got = torch.cat([out[row, first:last] for row, first, last in rows.documents])
        close(got, alone(model, "packed-causal", rows))


@pytest.mark.parametrize("more", [{}, {"return_flash_attn_kwargs": True}, {"return_seq_idx": True}], ids=str)
def test_batches_that_are_flattened(llama: LlamaForCausalLM, more: dict[str, bool]) -> None:
    llama.set_attn_implementation("packed-chunks")
    texts = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15, 16]]
    batch = DataCollatorWithFlattening(**more)([{"input_ids": text} for text in texts])
    wanted = torch.cat([llama(torch.tensor([text])).logits for text in texts], 1)
    out = llama(**batch)
    close(out.logits, wanted)
    del batch["position_ids"]  # which rotary positions are made of, too
    if more:
        rotary = llama(batch["input_ids"], position_ids=torch.arange(12)[None]).logits
        assert not torch.allclose(llama(**batch).logits, rotary)
    with pytest.raises(Unsupported, match="says nothing of the tokens in its cache"):
        past = llama(torch.tensor([[3, 4]])).past_key_values
        llama(torch.tensor([[5]]), past_key_values=past, seq_idx=torch.zeros(1, 1, dtype=torch.int32))


def test_positions_that_are_written_over(llama: LlamaForCausalLM) -> None:
    """What is remembered of a tensor holds until somebody writes to it."""
    llama.set_attn_implementation("packed-causal")
    ids = torch.randint(3, 64, (1, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9)[None].clone()
    whole = llama(ids, position_ids=positions).logits
    positions[:, 4:] -= 4
    parts = torch.cat([llama(part).logits for part in (ids[:, :4], ids[:, 4:])], 1)
    close(llama(ids, position_ids=positions).logits, parts)
    positions[:, 4:] += 4
    with torch.inference_mode():
        close(llama(ids, position_ids=positions).logits, whole)


@pytest.mark.parametrize("given", ["none", "ones"])
def test_compiled_whole(llama: LlamaForCausalLM, given: str) -> None:
    llama.set_attn_implementation("packed-window")
    torch.compiler.reset()
    fast = torch.compile(llama, fullgraph=True, backend="eager")
    ids = torch.randint(3, 64, (1, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(4), torch.arange(5)])[None]
    mask = torch.ones_like(ids) if given == "ones" else None
    plain = llama(ids, position_ids=positions, use_cache=False).logits
    close(fast(ids, position_ids=positions, attention_mask=mask, use_cache=False).logits, plain)
    if given == "none":
        fast(ids, position_ids=torch.arange(9)[None], use_cache=True)
        with pytest.raises(RuntimeError, match="packed sequences in a compiled model with a cache"):
            fast(ids, position_ids=positions, use_cache=True)


# --- sinks, caps, heads ---------------------------------------------------------------------------------


def test_a_pattern_caps_scores_as_the_model_does() -> None:
    config = Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=3.0)
    gemma = made(Gemma2ForCausalLM, config)
    text = "pattern gemma(cap: float = 50.0) { attend causal score cap * tanh(s / cap) }"
    ids = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    gemma.set_attn_implementation("eager")
    wanted = gemma(ids).logits
    gemma.set_attn_implementation(register(text, name="capped", cap=3.0))
    close(gemma(ids).logits, wanted)
    for name, given, params in (
        ("capped-otherwise", text, {}),
        ("uncapped", "pattern p() { attend causal }", {}),
    ):
        gemma.set_attn_implementation(register(given, name=name, params=params))
        with pytest.raises(
            Unsupported, match=r"caps its scores at 3\.0.*write `score 3\.0 \* tanh\(s / 3\.0\)`"
        ):
            gemma(ids)


def test_a_pattern_takes_the_model_s_sinks() -> None:
    config = GptOssConfig(
        **SMALL, head_dim=8, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 2
    )
    model = made(GptOssForCausalLM, config)
    model.set_experts_implementation("eager")  # others are not for fp64
    ids = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    padding = torch.ones_like(ids)
    padding[1, :5] = 0
    model.set_attn_implementation("eager")
    wanted = model(ids).logits
    model.set_attn_implementation(
        register("pattern sunk() { input s_aux: float[H] attend causal sink s_aux[h] }")
    )
    close(model(ids).logits, wanted)
    padded = model(ids, attention_mask=padding).logits[1, 5:]
    close(padded, model(ids[1:, 5:]).logits[0])
    model.set_attn_implementation("packed-causal")
    with pytest.raises(Unsupported, match=r"`input s_aux: float\[H\]` and `sink s_aux\[h\]`"):
        model(ids)


def test_some_of_the_heads() -> None:
    """As under tensor parallelism: a pattern that counts heads would count them from 0 in every part."""
    model = made(LlamaForCausalLM, LlamaConfig(**SIZES))
    model.config.num_attention_heads = 8
    ids = torch.arange(3, 12)[None]
    for body in (
        "heads even { attend causal } heads odd { attend self }",
        "attend causal score s - 0.5 * h",
        "attend where k <= q and (h < 2 or q == k)",
        "input t: float[H] attend causal sink t[h]",
        "attend random(2, seed=1, past=true)",
    ):
        model.set_attn_implementation(register(f"pattern p() {{ {body} }}", name="told"))
        with pytest.raises(Unsupported, match="4 of the model's 8 heads"), inputs(t=torch.zeros(4)):
            model(ids)
    model.set_attn_implementation("packed-causal")
    model(ids)

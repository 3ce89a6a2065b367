"""Patterns within models of Hugging Face transformers, with random weights: forward, backward, generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

import attnc
from attnc.integrations.transformers import Unsupported, inputs, register

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BATCH, N, WINDOW = 3, 21, 6
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

IDS = torch.randint(3, 64, (BATCH, N), generator=torch.Generator().manual_seed(0))
AT = torch.arange(N)
LEFT = (torch.tensor([[0], [5], [13]]) <= AT).long()
RIGHT = (torch.tensor([[N], [15], [4]]) > AT).long()


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return made(LlamaForCausalLM, LlamaConfig(**SIZES))


@pytest.fixture(scope="module")
def mistral() -> MistralForCausalLM:
    return made(MistralForCausalLM, MistralConfig(**SIZES, sliding_window=WINDOW))


@pytest.fixture(scope="module")
def bert() -> BertModel:
    return made(
        BertModel, BertConfig(**{**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )


@pytest.fixture(scope="module", autouse=True)
def patterns() -> None:
    register(EXAMPLES / "causal.attn", name="ours")
    register(EXAMPLES / "mistral.attn", name="ours-window", window=WINDOW)
    register("pattern everything() { attend all }")
    register("pattern chunks() { attend chunk(5) & causal }")
    register(EXAMPLES / "longformer.attn", name="longformer", window=4)


def made(kind: Callable[..., Any], config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that attention is far from uniform
    return model


def logits(model: PreTrainedModel, name: str, **more: Any) -> torch.Tensor:
    model.set_attn_implementation(name)
    ids = more.pop("ids", IDS)
    out = model(ids, **more)
    found: torch.Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    # Their eager softmax is computed in fp32.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


MASKS = {"none": None, "ones": torch.ones(BATCH, N).long(), "left": LEFT, "right": RIGHT}


# --- a model's own pattern ------------------------------------------------------------------------------


# Their eager softmax is made in fp32 and gives NaN to fp64 rows that read nothing, as padding does.
@pytest.mark.parametrize(
    ("theirs", "padding"), [("eager", "none"), ("eager", "ones"), *(("sdpa", padding) for padding in MASKS)]
)
@pytest.mark.parametrize(
    ("kind", "name"), [("llama", "ours"), ("mistral", "ours-window"), ("bert", "everything")]
)
def test_forward_and_backward(
    request: pytest.FixtureRequest, kind: str, name: str, padding: str, theirs: str
) -> None:
    model = request.getfixturevalue(kind)
    mask = MASKS[padding]
    real = torch.ones(BATCH, N, dtype=torch.bool) if mask is None else mask.bool()
    grad = torch.randn(
        int(real.sum()), model.config.vocab_size if kind != "bert" else 32, dtype=torch.float64
    )
    found = []
    for each in (theirs, name):
        model.zero_grad()
        out = logits(model, each, attention_mask=mask)[real]
        out.backward(grad)
        found.append([out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for one, other in zip(*found, strict=True):
        scale = other.abs().max().clamp(min=1)
        close(one / scale, other / scale)


@pytest.mark.parametrize("padding", ["ones", "left"])
@pytest.mark.parametrize(("kind", "name"), [("llama", "ours"), ("mistral", "ours-window")])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_beams": 2},
        {"prefill_chunk_size": 8},
    ],
    ids=str,
)
def test_generation(
    request: pytest.FixtureRequest, kind: str, name: str, padding: str, how: dict[str, Any]
) -> None:
    model = request.getfixturevalue(kind)
    found = []
    for each in ("sdpa", name):
        model.set_attn_implementation(each)
        out = model.generate(
            IDS,
            attention_mask=MASKS[padding],
            max_new_tokens=9,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **how,
        )
        found.append((out.sequences, torch.stack(out.logits)))
    assert torch.equal(found[0][0], found[1][0])
    close(found[0][1], found[1][1])


def test_packed_sequences(llama: LlamaForCausalLM, mistral: MistralForCausalLM) -> None:
    position_ids = torch.cat([torch.arange(8), torch.arange(3), torch.arange(10)])[None]
    for model, name in ((llama, "ours"), (mistral, "ours-window")):
        one, other = (
            logits(model, each, position_ids=position_ids, use_cache=False) for each in (name, "sdpa")
        )
        close(one, other)
    packed = logits(llama, "chunks", position_ids=position_ids, use_cache=False)
    alone = torch.cat([logits(llama, "chunks", ids=IDS[:, a:b]) for a, b in ((0, 8), (8, 11), (11, N))], 1)
    close(packed, alone)


# --- other patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", ["chunks", "ours-window"])
def test_a_padded_sequence_gives_what_it_gives_alone(
    llama: LlamaForCausalLM, name: str, padding: str
) -> None:
    """Chunks are counted from a sequence's first token, wherever that stands."""
    mask = MASKS[padding]
    assert mask is not None
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    together = logits(llama, name, attention_mask=mask, position_ids=position_ids)
    for row in range(BATCH):
        real = mask[row].bool()
        close(together[row, real], logits(llama, name, ids=IDS[row : row + 1, real])[0])


def test_the_pattern_is_what_counts(llama: LlamaForCausalLM) -> None:
    """The model's own mask, given a window by hand, says the same as the pattern."""
    edges = attnc.mask(EXAMPLES / "mistral.attn", n=N, window=WINDOW)
    dense = torch.where(edges, 0.0, -torch.inf).double()[None].expand(BATCH, 1, N, N)
    close(logits(llama, "ours-window"), logits(llama, "eager", attention_mask=dense))
    assert not torch.allclose(logits(llama, "ours-window"), logits(llama, "ours"))


def test_inputs_by_keyword(bert: BertModel) -> None:
    is_global = torch.zeros(BATCH, N, dtype=torch.bool)
    is_global[0, [0, 7]] = is_global[1, 3] = True
    edges = attnc.mask(EXAMPLES / "longformer.attn", n=N, window=4, inputs={"is_global": is_global})
    for mask in (None, RIGHT):
        allowed = edges if mask is None else edges & mask.bool()[:, None, None]
        dense = torch.where(allowed, 0.0, -1e9).double()
        real = torch.ones(BATCH, N, dtype=torch.bool) if mask is None else mask.bool()
        theirs = logits(bert, "eager", attention_mask=dense)
        close(logits(bert, "longformer", attention_mask=mask, is_global=is_global)[real], theirs[real])


def test_inputs_around_a_call(llama: LlamaForCausalLM) -> None:
    """While tokens are generated, an input's first entries are those of the keys so far."""
    text = "pattern kept() { input keep: bool[n] attend (window(3) | to(keep)) & causal }"
    llama.set_attn_implementation(register(text))
    keep = torch.zeros(N + 8, dtype=torch.bool)
    keep[[2, 23]] = True
    with inputs(keep=keep):
        cached, plain = (
            llama.generate(IDS, attention_mask=LEFT, max_new_tokens=8, do_sample=False, use_cache=cached)
            for cached in (True, False)
        )
    assert torch.equal(cached, plain)
    with pytest.raises(Unsupported, match="its input `keep` is missing: call the model with `keep=…`"):
        llama(IDS)


def test_masks_from_elsewhere(llama: LlamaForCausalLM) -> None:
    """A mask function's own tensors come with it, and generation reads as much of them as it needs."""
    kept = torch.arange(N + 8) % 5 == 2
    pattern = attnc.from_mask_mod(lambda b, h, q, k: (q >= k) & ((q - k < 4) | kept[k]))
    llama.set_attn_implementation(register(pattern, name="mask-mod"))
    cached, plain = (
        llama.generate(IDS, attention_mask=LEFT, max_new_tokens=8, do_sample=False, use_cache=cached)
        for cached in (True, False)
    )
    assert torch.equal(cached, plain)
    dense = torch.where(pattern.mask(N), 0.0, -torch.inf).double()[None].expand(BATCH, 1, N, N)
    close(logits(llama, "mask-mod"), logits(llama, "eager", attention_mask=dense))


def test_gradient_checkpointing_changes_nothing(llama: LlamaForCausalLM) -> None:
    found = []
    for on in (False, True):
        llama.train()
        if on:
            llama.activation_checkpointing_enable()
        llama.zero_grad()
        logits(llama, "ours-window", attention_mask=LEFT, use_cache=False)[
            LEFT.bool()
        ].square().mean().backward()
        found.append([p.grad.clone() for p in llama.parameters() if p.grad is not None])
    llama.activation_checkpointing_disable()
    llama.eval()
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("padding", ["none", "left"])
def test_compiled_whole(llama: LlamaForCausalLM, padding: str) -> None:
    llama.set_attn_implementation("ours-window")
    torch.compiler.reset()
    fast = torch.compile(llama, fullgraph=True, backend="eager")
    mask = MASKS[padding]
    real = torch.ones(BATCH, N, dtype=torch.bool) if mask is None else mask.bool()
    plain = llama(IDS, attention_mask=mask, use_cache=False).logits
    close(fast(IDS, attention_mask=mask, use_cache=False).logits[real], plain[real])


# --- refused --------------------------------------------------------------------------------------------


def test_a_causal_model_needs_a_causal_pattern(llama: LlamaForCausalLM, bert: BertModel) -> None:
    with pytest.raises(
        Unsupported, match="'everything' in LlamaAttention: the model is causal, and the pattern"
    ):
        logits(llama, "everything")
    close(logits(llama, "everything", is_causal=False), logits(llama, "sdpa", is_causal=False))
    logits(bert, "ours")  # an encoder may read the past alone


def test_a_cache_that_forgets(mistral: MistralForCausalLM) -> None:
    mistral.set_attn_implementation("ours")
    with pytest.raises(
        Unsupported, match="cache keeps 5 tokens before a query, and the pattern may read others"
    ):
        mistral.generate(IDS, max_new_tokens=3, do_sample=False)
    whole = mistral.generate(IDS, max_new_tokens=3, do_sample=False, past_key_values=DynamicCache())
    assert torch.equal(whole, mistral.generate(IDS, max_new_tokens=3, do_sample=False, use_cache=False))


def test_what_cannot_be_cached(llama: LlamaForCausalLM) -> None:
    llama.set_attn_implementation(register("pattern latest() { attend to(last(9)) & causal | self }"))
    with pytest.raises(Unsupported, match="its edges change when tokens are added"):
        llama.generate(IDS, max_new_tokens=3, do_sample=False)
    llama.generate(IDS, max_new_tokens=3, do_sample=False, use_cache=False)


def test_dropout(llama: LlamaForCausalLM) -> None:
    llama.set_attn_implementation("ours")
    attention = llama.model.layers[1].self_attn
    attention.attention_dropout = 0.1
    llama(IDS)  # none is asked for while evaluating
    llama.train()
    with pytest.raises(
        Unsupported, match=r"dropout is 0.1.*attention_dropout = 0.0` in every layer's LlamaAtt"
    ):
        llama(IDS)
    attention.attention_dropout = 0.0
    llama(IDS)
    llama.eval()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"output_attentions": True}, "attention weights are never made"),
        (
            {"attention_mask": torch.zeros(BATCH, 1, N, N)},
            r"a mask of shape \(3, 1, 21, 21\) and dtype torch.float",
        ),
        ({"is_globl": torch.ones(N)}, "does not know the argument `is_globl`; the pattern's inputs are none"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_calls_that_it_cannot_serve(llama: LlamaForCausalLM, more: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        logits(llama, "ours", **more)


def test_padding_inside_of_a_sequence(llama: LlamaForCausalLM) -> None:
    holes = torch.ones(BATCH, N).long()
    holes[1, 4] = 0
    close(*(logits(llama, name, attention_mask=holes)[holes.bool()] for name in ("ours", "sdpa")))
    with pytest.raises(Unsupported, match="padding lies inside of sequence 1 of the batch"):
        logits(llama, "chunks", attention_mask=holes)


def test_models_that_it_cannot_serve() -> None:
    small = {name: size for name, size in SIZES.items() if "token" not in name}
    gemma = made(Gemma2ForCausalLM, Gemma2Config(**small, head_dim=8, query_pre_attn_scalar=8))
    with pytest.raises(Unsupported, match="Gemma2Attention: the model caps its scores"):
        logits(gemma, "ours")
    sinks = made(
        GptOssForCausalLM, GptOssConfig(**small, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    )
    with pytest.raises(Unsupported, match="GptOssAttention: the model adds sinks"):
        logits(sinks, "ours")
    sizes = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    feed = {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
    bart = made(BartModel, BartConfig(vocab_size=64, d_model=16, **sizes, **feed))
    with pytest.raises(Unsupported, match="BartConfig is of an encoder-decoder, whose cross-attention"):
        logits(bart, "everything")


def test_masks_of_a_model_s_own(llama: LlamaForCausalLM) -> None:
    from transformers.masking_utils import create_causal_mask

    llama.set_attn_implementation("ours")
    embeds = torch.zeros(BATCH, N, 32)
    with pytest.raises(Unsupported, match="makes a mask of its own that is neither causal"):
        create_causal_mask(
            llama.config, embeds, None, None, or_mask_function=lambda b, h, q, k: (q < 4) & (k < 4)
        )


@pytest.mark.parametrize("name", ["sdpa", "eager", "flash_attention_2", "kernels-community/x", "", 3])
def test_names_that_mean_something_else(name: Any) -> None:
    with pytest.raises(ValueError, match=r"called by letters|meaning of its own"):
        register("pattern p() { attend causal }", name=name)


def test_a_name_can_be_given_again(llama: LlamaForCausalLM) -> None:
    register("pattern again() { attend self }")
    one = logits(llama, "again")
    register("pattern again() { attend causal }")
    close(logits(llama, "again"), logits(llama, "ours"))
    assert not torch.allclose(one, logits(llama, "again"))

"""``attnc.nn``: layers in the place of ``torch.nn.MultiheadAttention``, with which they are compared."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import attnc
from attnc.nn import PatternAttention, replace

EMBED, HEADS, BATCH, N = 32, 4, 2, 13
EVERYTHING = "pattern everything() { attend all }"
WINDOW = "pattern near(width: int = 3) { attend window(width) require causal }"
HUBS = "pattern hubs() { input hub: bool[n] attend window(2, 2) | to(hub) }"
PADDING = torch.arange(N) >= torch.tensor([[N], [8]])


def states(*sizes: int, first: bool = True) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    shape = (BATCH, N) if first else (N, BATCH)
    return [torch.randn(*shape, size, generator=make, dtype=torch.float64) for size in sizes or (EMBED,) * 3]


def layer(**more: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(EMBED, HEADS, dtype=torch.float64, **{"batch_first": True, **more})
    if made.in_proj_bias is not None:
        nn.init.normal_(made.in_proj_bias)
    return made


def near(width: int = 3) -> torch.Tensor:
    """What may not be read, in the manner of ``attn_mask``."""
    return ~attnc.mask(WINDOW, n=N, width=width)[0]


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": False}, {"bias": False}, {"kdim": 24, "vdim": 40}, {"vdim": 40, "bias": False}],
    ids=str,
)
def test_state_dicts_outputs_and_gradients_carry_over(options: dict[str, Any]) -> None:
    theirs = layer(**options)
    ours = PatternAttention(
        EMBED, HEADS, dtype=torch.float64, **{"batch_first": True, **options}, pattern=WINDOW
    )
    ours.load_state_dict(theirs.state_dict())
    given = states(EMBED, theirs.kdim, theirs.vdim, first=theirs.batch_first)
    for x in given:
        x.requires_grad_()
    wanted = theirs(*given, attn_mask=near(), need_weights=False)[0]
    found, weights = ours(*given)
    close(found, wanted)
    assert weights is None
    grad = torch.randn(wanted.shape, dtype=torch.float64)
    leaves = [[*given, *module.parameters()] for module in (theirs, ours)]
    for one, other in zip(
        torch.autograd.grad(found, leaves[1], grad), torch.autograd.grad(wanted, leaves[0], grad), strict=True
    ):
        close(one, other)


def test_initial_values_are_theirs() -> None:
    for options in ({}, {"kdim": 24}):
        torch.manual_seed(0)
        theirs = nn.MultiheadAttention(EMBED, HEADS, **options)
        torch.manual_seed(0)
        ours = PatternAttention(EMBED, HEADS, **options, pattern=WINDOW)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


def test_padding_is_left_out() -> None:
    theirs = layer()
    ours = PatternAttention.from_multihead(theirs, pattern=WINDOW, params={"width": 5})
    x = states()[0]
    # Rows of padding alone are NaN there, and the output's bias here.
    wanted = theirs(x, x, x, key_padding_mask=PADDING, attn_mask=near(5), need_weights=False)[0]
    found = ours(x, x, x, key_padding_mask=PADDING)[0]
    close(found[~PADDING], wanted[~PADDING])
    close(
        ours(x, x, x, key_padding_mask=torch.ones_like(PADDING))[0],
        ours.out_proj.bias.expand(BATCH, N, EMBED),
    )
    numbers = torch.zeros(PADDING.shape, dtype=torch.float64).masked_fill(PADDING, -torch.inf)
    close(ours(x, x, x, key_padding_mask=numbers)[0], found)
    close(ours(x[1], x[1], x[1], key_padding_mask=PADDING[1])[0], found[1])


def test_fewer_key_heads() -> None:
    """Grouped heads are a layer whose key and value projections repeat."""
    ours = PatternAttention(EMBED, HEADS, batch_first=True, dtype=torch.float64, pattern=WINDOW, kv_heads=2)
    theirs = layer()
    q, k, v = (part.unflatten(0, (-1, 8)) for part in ours.in_proj_weight.split([32, 16, 16]))
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([q, k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)]).flatten(0, 1)
        )
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(ours.out_proj.weight)
    x = states()[0]
    close(ours(x, x, x)[0], theirs(x, x, x, attn_mask=near(), need_weights=False)[0])
    assert "kv_heads=2" in repr(ours)


def test_inputs_go_by_name() -> None:
    theirs = layer()
    ours = PatternAttention.from_multihead(theirs, pattern=HUBS)
    x = states()[0]
    hub = torch.arange(N) == 4
    allowed = attnc.mask(HUBS, n=N, inputs={"hub": hub})[0]
    close(ours(x, x, x, hub=hub)[0], theirs(x, x, x, attn_mask=~allowed, need_weights=False)[0])
    with pytest.raises(TypeError, match="hub"):
        ours(x, x, x)


def test_patterns_that_bring_their_tensors() -> None:
    document = torch.arange(N) // 5
    pattern = attnc.from_mask_mod(lambda b, h, q, k: document[q] == document[k])
    ours = PatternAttention.from_multihead(layer(), pattern=pattern)
    x = states()[0]
    apart = document[:, None] != document[None]
    close(ours(x, x, x)[0], layer()(x, x, x, attn_mask=apart, need_weights=False)[0])


@contextlib.contextmanager
def without_fused_path() -> Iterator[None]:
    """Theirs gives NaN where padding reads nothing, and hands it on."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


# --- models ---------------------------------------------------------------------------------------------


def encoder(dropout: float = 0.0) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    one = nn.TransformerEncoderLayer(EMBED, HEADS, 48, dropout, batch_first=True, dtype=torch.float64)
    made = nn.TransformerEncoder(one, 2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_model_in_one_line(training: bool, padded: bool) -> None:
    """Evaluated without gradients, too, where the fused path of torch would leave the layer out."""
    model = encoder().train(training)
    x = states()[0]
    padding = PADDING if padded else None
    with torch.no_grad(), without_fused_path():
        wanted = model(x, near(), padding)
    kept = dict(model.named_parameters())
    assert replace(model, WINDOW) is model
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, p in kept.items()}
    assert all(type(layer.self_attn) is PatternAttention for layer in model.layers)
    with torch.no_grad():
        found = model(x, src_key_padding_mask=padding)
    real = ~PADDING if padded else torch.ones_like(PADDING)
    close(found[real], wanted[real])


def test_only_some_layers() -> None:
    model = replace(encoder(), WINDOW, where=lambda name, layer: name.startswith("layers.1."))
    assert isinstance(model.get_submodule("layers.0.self_attn"), nn.MultiheadAttention)
    assert isinstance(model.get_submodule("layers.1.self_attn"), PatternAttention)
    assert isinstance(replace(layer(), WINDOW), PatternAttention)


def test_a_layer_that_stands_in_two_places_is_replaced_in_both() -> None:
    shared = layer()
    model = replace(nn.ModuleList([shared, nn.ModuleDict({"again": shared}), layer()]), WINDOW)
    assert isinstance(model[0], PatternAttention) and isinstance(model[2], PatternAttention)
    assert model.get_submodule("1.again") is model[0]
    assert model[0].out_proj.weight is shared.out_proj.weight


def test_copies_and_pickles() -> None:
    model = replace(encoder(), HUBS)
    x, hub = states()[0], torch.arange(N) == 4
    attention = model.get_submodule("layers.0.self_attn")
    for other in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert torch.equal(other(x, x, x, hub=hub)[0], attention(x, x, x, hub=hub)[0])


def test_compiled_and_under_autocast() -> None:
    ours = PatternAttention(EMBED, HEADS, batch_first=True, pattern=WINDOW)
    x = states()[0].float()
    fast = torch.compile(ours, fullgraph=True, backend="eager")
    close(fast(x, x, x, key_padding_mask=PADDING)[0], ours(x, x, x, key_padding_mask=PADDING)[0])
    with torch.autocast("cpu", torch.bfloat16):
        low = ours(x, x, x)[0]
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), ours(x, x, x)[0], rtol=0.05, atol=0.02)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused() -> None:
    model = encoder().eval()
    for layer in model.layers:
        layer.self_attn = PatternAttention.from_multihead(layer.self_attn, pattern=WINDOW)
    with torch.no_grad(), pytest.raises(NotImplementedError, match="set its `use_nested_tensor = False`"):
        model(states()[0], src_key_padding_mask=PADDING)


# --- refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"add_bias_kv": True}, NotImplementedError, "`add_bias_kv` adds a key that stands nowhere"),
        ({"add_zero_attn": True}, NotImplementedError, "`add_zero_attn` adds a key that stands nowhere"),
        ({"kv_heads": 3}, ValueError, "num_heads must be a multiple of kv_heads, not 4 of 3"),
        ({"kv_heads": 0}, ValueError, "kv_heads must be at least 1, not 0"),
        ({"dropout": 2.0}, ValueError, "dropout must be between 0 and 1, not 2.0"),
        ({"backend": "cuda"}, ValueError, "unknown backend 'cuda'"),
        ({"name": "far"}, attnc.AttncError, "far"),
        ({"params": {"wdith": 3}}, attnc.AttncError, "wdith"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_that_do_not_fit(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PatternAttention(EMBED, HEADS, **options, pattern=WINDOW)


@pytest.mark.parametrize("name", ["query", "need_weights", "inputs"])
def test_inputs_that_are_called_like_arguments(name: str) -> None:
    text = f"pattern p() {{ input {name}: int[n] attend causal & same({name}) }}"
    with pytest.raises(ValueError, match=f"input `{name}` .* another name"):
        PatternAttention(16, 2, pattern=text)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="embed_dim must be a multiple of num_heads, not 32 of 5"):
        PatternAttention(EMBED, 5, pattern=WINDOW)
    with pytest.raises(ValueError, match="dims of at most 256, and 1024 / 2 is more"):
        PatternAttention(1024, 2, pattern=WINDOW)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"need_weights": True}, NotImplementedError, "weights are never made"),
        ({"attn_mask": near()}, NotImplementedError, "`attn_mask` cannot be joined with it"),
        ({"is_causal": True}, ValueError, "not proven to be causal: q = 0 reads k = 1 when n = 2"),
        ({"key_padding_mask": PADDING[:1]}, ValueError, r"must have the shape \(2, 13\), not \(1, 13\)"),
        ({"key_padding_mask": PADDING.long()}, ValueError, "booleans or floating point, not torch.int64"),
        ({"key_padding_mask": PADDING * -0.5}, NotImplementedError, "must be 0 or minus infinity"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_calls_that_it_cannot_serve(more: dict[str, Any], error: type[Exception], message: str) -> None:
    ours = PatternAttention.from_multihead(layer(), pattern=EVERYTHING)
    x = states()[0]
    with pytest.raises(error, match=message):
        ours(x, x, x, **more)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, N, 8), (2, N, EMBED)], rf"query must be \(batch, length, {EMBED}\) or.*, not \(2, {N}, 8\)"),
        ([(2, N, EMBED), (2, N, 8)], rf"key must be .* not \(2, {N}, 8\)"),
        ([(2, N, EMBED), (N, EMBED)], rf"key must be .* not \({N}, {EMBED}\)"),
        ([(1, 2, N, EMBED)] * 2, rf"query must be .* not \(1, 2, {N}, {EMBED}\)"),
    ],
)
def test_states_of_other_shapes(shapes: list[tuple[int, ...]], message: str) -> None:
    ours = PatternAttention.from_multihead(layer(), pattern=WINDOW)
    query, key = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        ours(query, key, key)


def test_dropout_is_refused_while_training() -> None:
    model = replace(encoder(dropout=0.1), WINDOW)
    x = states()[0]
    model.eval()(x)
    with pytest.raises(NotImplementedError, match=r"set `dropout = 0.0` \(it is 0.1\)"):
        model.train()(x)


def test_models_that_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match=r"changes an nn\.Module; got 'model' of type str"):
        replace("model", WINDOW)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Linear has no nn\.MultiheadAttention$"):
        replace(nn.Linear(2, 2), WINDOW)
    with pytest.raises(ValueError, match="that `where` asks for"):
        replace(encoder(), WINDOW, where=lambda name, layer: False)
    decoder = nn.TransformerDecoderLayer(EMBED, HEADS, 48)
    with pytest.raises(ValueError, match="`multihead_attn` reads another sequence"):
        replace(decoder, WINDOW)
    assert isinstance(decoder.self_attn, nn.MultiheadAttention)
    replace(decoder, WINDOW, where=lambda name, layer: "self_attn" in name)
    assert isinstance(decoder.multihead_attn, nn.MultiheadAttention)
    biased = nn.Sequential(layer(add_bias_kv=True))
    with pytest.raises(NotImplementedError, match="`0`: PatternAttention: `add_bias_kv`"):
        replace(biased, WINDOW)
    hooked = layer()
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(NotImplementedError, match="has hooks"):
        replace(hooked, WINDOW)

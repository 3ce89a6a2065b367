"""Our Swin patterns against a layer of Hugging Face transformers, which rolls, cuts and masks the image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinLayer, window_partition

from attnc import reference, weighing
from attnc.pattern import Pattern

Example = Callable[..., Pattern]

HEADS, DIM = 2, 8


def swin(example: Example, size: int, height: int, width: int, shift: int) -> torch.Tensor:
    """Our mask: bool of shape (1, height * width, height * width)."""
    sides = {"size": size, "height": height, "width": width}
    pattern = example("swin", "swin_shifted", shift=shift, **sides) if shift else example("swin", **sides)
    return torch.from_numpy(reference.mask(pattern, height * width))


def layer_for(size: int, height: int, width: int, shift: int) -> SwinLayer:
    torch.manual_seed(0)
    config = SwinConfig(window_size=size, attn_implementation="eager", hidden_dropout_prob=0.0)
    layer = SwinLayer(config, HEADS * DIM, (height, width), HEADS, shift_size=shift).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize(("size", "height", "width", "shift"), [(4, 12, 8, 2), (3, 9, 6, 1), (7, 14, 21, 3)])
def test_mask(example: Example, size: int, height: int, width: int, shift: int) -> None:
    """The edges of the rolled, cut and masked windows, told in positions of the image."""
    layer = layer_for(size, height, width, shift)
    mask = layer.get_attn_mask(height, width, torch.float64, torch.device("cpu"))
    image = torch.arange(height * width, dtype=torch.float64).view(1, height, width, 1)
    windows = window_partition(layer.cyclic_shift(image), size).view(-1, size * size).long()
    theirs = torch.zeros(height * width, height * width, dtype=torch.bool)
    for places, edges in zip(windows, mask == 0, strict=True):
        theirs[places[:, None], places[None, :]] = edges
    assert torch.equal(swin(example, size, height, width, shift)[0], theirs)


@pytest.mark.parametrize("shift", [0, 3])
def test_layer(example: Example, shift: int) -> None:
    size, height, width, batch = 7, 14, 21, 2
    n = height * width
    layer = layer_for(size, height, width, shift)
    bias = layer.attention.relative_position_bias.relative_position_bias_table
    sides = {"size": size, "height": height, "width": width}
    pattern = example("swin", "swin_shifted", shift=shift, **sides) if shift else example("swin", **sides)
    hidden = torch.randn(batch, n, HEADS * DIM, dtype=torch.float64)
    with torch.no_grad():
        theirs, _ = layer(hidden, (height, width))
        inner, attention = layer.layernorm_before(hidden), layer.attention
        q, k, v = (
            project(inner).view(batch, n, HEADS, DIM).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        out, _ = weighing.attention(pattern, q, k, v, {"bias": bias})
        ours = hidden + attention.o_proj(out.transpose(1, 2).reshape(batch, n, HEADS * DIM))
        ours = ours + layer.mlp(layer.layernorm_after(ours))
    # Their softmax is computed in fp32, whatever the dtype.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

"""The model of expected times: what it counts, what modules do, and rates that were published."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from attnc import prediction
from attnc.codegen.states import chunk_of
from attnc.codegen.tile_tables import Sizes, sizes_of
from attnc.prediction import Shape, Unpredictable, count, gpus, model
from attnc.prediction.model import _Swept
from attnc.sampling import cut
from tests import oracle
from tests.test_shares import emitted

LONG = Shape(1 << 15, heads=64, kv_heads=8, dim=128)


def expected(text: str, shape: Shape = LONG, gpu: str = "H100") -> dict[str, prediction.Expected]:
    return count(oracle.planned(f"pattern p() {{ {text} }}"), shape).on(gpus()[gpu])


def test_steps_are_cut_as_kernels_cut_them() -> None:
    rng, parts = random.Random(0), emitted("", "_parts", part="tiles")["_parts"]
    for _ in range(2000):
        step = rng.choice((1, 16, 64))
        begin, end, first, last = (rng.randint(-40, 400) for _ in range(4))
        leading, middle, stop, trailing = parts(begin, end, first, last, step)
        full, masked = cut(*(np.array(x) for x in (begin, end, first, last)), step)
        assert (int(full), int(masked)) == ((stop - middle) // step, leading + trailing)


@pytest.mark.parametrize("dim", [16, 40, 64, 80, 128, 256])
def test_tiles_and_chunks_are_those_of_modules(dim: int) -> None:
    module = oracle.compiled("pattern p() { attend causal & offsets(powers(2)) }").module
    table = module._MEASURED_TILES.get((9, 0), module._TILES)
    padded = 1 << (dim - 1).bit_length()
    for shape in ("wide", "narrow", "long", "slim", "alone"):
        for kernel in ("forward", "query", "key"):
            found = module._tile_sizes(kernel, padded, 2, table, shape)
            told = tuple(found[name] for name in ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages"))
            assert tuple(sizes_of(kernel, padded, shape)) == told
    states = oracle.compiled("pattern p() { attend causal kernel elu(x) + 1 }").module
    assert chunk_of(dim) == states._kernel_chunk(dim)


# FlexAttention's causal kernels on an H100, compiled by the same compiler: tiles, warps and stages, and
# instructions of a warp in a step, beside matrix products, without a mask and with one.
FLEX = {
    "forward": (Sizes(128, 64, 8, 3), 436, 516),
    "query": (Sizes(128, 64, 8, 3), 357, 430),
    "key": (Sizes(64, 128, 8, 3), 483, 580),
}


def test_rates_that_were_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """391 TFLOP/s forward and 271 backward, by FlexAttention's authors: the model tells them of their machine
    code.
    """
    monkeypatch.setattr(model, "sizes_of", lambda kernel, dim, form: FLEX[kernel][0])
    monkeypatch.setattr(
        model,
        "instructions",
        lambda kernel, form, dim, sizes, part, sweep, weights: FLEX[kernel][1 + bool(sweep)],
    )
    found = expected("attend causal")
    rates = {way: item.flops / item.seconds / 1e12 for way, item in found.items()}
    assert rates["forward"] == pytest.approx(391, rel=0.15)
    assert rates["backward"] == pytest.approx(271, rel=0.15)
    monkeypatch.undo()
    ours = expected("attend causal")
    assert all(ours[way].seconds < found[way].seconds for way in found)


def test_what_is_counted() -> None:
    n, heads = LONG.n, LONG.heads
    causal, window = expected("attend causal"), expected("attend window(1023)")
    assert causal["forward"].flops == 4 * LONG.dim * heads * n * (n + 1) / 2
    assert causal["backward"].flops == 2.5 * causal["forward"].flops
    assert (causal["forward"].launches, causal["backward"].launches) == (1, 2)
    # 16.3 times fewer edges, of which more lie in masked tiles.
    assert 8 < causal["forward"].seconds / window["forward"].seconds < 16.3
    assert all(0 < item.share < 1 for item in (*causal.values(), *window.values()))
    half = expected("attend causal", Shape(n, heads // 2, 8, LONG.dim))
    assert causal["forward"].seconds == pytest.approx(2 * half["forward"].seconds, rel=0.01)


def test_one_program_may_take_longest() -> None:
    text = "attend window(63) | to(first(16)) | from(first(16))"
    planned = oracle.planned(f"pattern p() {{ {text} }}")
    found = count(planned, LONG)
    kernel = max(found.launches["backward"], key=lambda item: getattr(item, "shares", 0.0))
    assert isinstance(kernel, _Swept)
    alone = kernel.times(gpus()["H100"])
    assert alone["the longest program"] < alone["arithmetic"]
    assert kernel.shares > 1
    whole = replace(kernel, shares=1.0).times(gpus()["H100"])
    assert whole["the longest program"] > 5 * alone["arithmetic"]


def test_memory_limits_states_and_strides() -> None:
    states = expected("attend causal kernel elu(x) + 1")
    assert all(item.least and item.limit == "memory" for item in states.values())
    fast, slow = (expected("attend causal kernel x normalize none", gpu=gpu) for gpu in ("H200", "H100"))
    assert fast["forward"].seconds < 0.8 * slow["forward"].seconds
    # States are no larger than values: they are written, added up in place, and read.
    for found in (fast, slow):
        assert found["forward"].share > 1 / 3 and found["backward"].share > 1 / 6


@pytest.mark.parametrize(
    "text",
    [
        "input doc: int[n] attend causal & same(doc)",
        "input hub: bool[n] attend window(64) | to(hub) | from(hub)",
        "grid(y: 32, x: 32) attend neighborhood(3, axis=y) & neighborhood(3, axis=x)",
        "attend blocks(64, window(1, 1) | random(3, seed=0))",
        "attend (causal & stride(64)) | offsets(powers(2))",
        "heads even { attend causal } heads odd { attend window(100) }",
        "attend window(64) with softmax attend causal - window(64) with kernel taylor()",
        "input g: float[n, H] attend causal kernel x normalize none decay g",
        "input g: float[n, H, d] attend causal kernel x normalize none decay g",
        "input beta: float[n, H] attend causal kernel x normalize none update delta(beta)",
        "input m: float[n, n] attend causal score s + m[q, k]",
    ],
)
def test_every_kind_of_kernel(text: str) -> None:
    for shape in (Shape(1000, 6, 3, 64, 2), Shape(1, 1, 1, 16), Shape(0), Shape(4096, 8, 8, 256)):
        for item in expected(text, shape).values():
            assert item.seconds > 0 and item.floor >= 0 and item.launches > 0 and item.limit


def test_what_is_not_predicted() -> None:
    with pytest.raises(Unpredictable, match="share a denominator"):
        expected("attend chunk(8) with softmax attend !chunk(8) & causal with kernel exp(x)")
    with pytest.raises(Unpredictable, match="up to 1048576 tokens"):
        expected("attend causal", Shape(1 << 21))

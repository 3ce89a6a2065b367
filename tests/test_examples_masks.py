"""Every example against a definition of its own, written from the paper: the keys that one query reads.

The definitions list keys row by row in plain Python, in another manner than the patterns, which are
predicates; none of them looks at the pattern's text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnc import reference
from attnc.diagnostics import AttncError, Source
from attnc.draws import picks
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.resolver import resolve

EXAMPLES = Path(__file__).parent.parent / "examples"
LENGTHS = (0, 1, 2, 7, 16, 37, 64)


@cache
def source(name: str) -> Source:
    return Source(f"{name}.attn", (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8"))


def load(name: str, params: Mapping[str, object], pattern: str | None = None) -> Pattern:
    resolved = resolve(parse(source(name)), params, pattern or name)
    assert resolved.warnings == ()
    (found,) = resolved.patterns
    return found


# --- the papers' definitions ----------------------------------------------------------------------------
# Each takes (query, length, head) and the parameters or inputs as keywords, and gives the keys.

Keys = Iterable[int]


def dense(q: int, n: int, h: int) -> Keys:
    return range(n)


def causal(q: int, n: int, h: int) -> Keys:
    return range(q + 1)


def everything(q: int, n: int, h: int, features: int) -> Keys:
    """What weighs an edge has no part in whether there is one."""
    return range(n)


def gated(q: int, n: int, h: int, g: np.ndarray) -> Keys:
    return range(q + 1)


def all_before(q: int, n: int, h: int, window: int = 0, length: int = 0) -> Keys:
    return range(q + 1)


def mistral(q: int, n: int, h: int, window: int) -> Keys:
    """The last `window` tokens including the current one."""
    return range(max(0, q + 1 - window), q + 1)


def llama4_chunked(q: int, n: int, h: int, size: int) -> Keys:
    start = 0
    while start + size <= q:
        start += size
    return range(start, q + 1)


def overlapping_windows(q: int, n: int, h: int, size: int, overlap: int, width: int) -> Keys:
    """Windows of queries by slicing; for each the keys' window, cut off at the image's edge."""
    y, x = divmod(q, width)
    height = -(-n // width)
    tops = [top for top in range(0, height, size) if y in range(top, top + size)]
    lefts = [left for left in range(0, width, size) if x in range(left, left + size)]
    for ky in range(tops[0] - overlap, tops[0] + size + overlap):
        for kx in range(lefts[0] - overlap, lefts[0] + size + overlap):
            if 0 <= ky < height and 0 <= kx < width:
                yield ky * width + kx


def strided(q: int, n: int, h: int, step: int) -> Keys:
    """j with (i - j) mod l == 0, section 4.3."""
    return range(q, -1, -step)


def dilated(q: int, n: int, h: int, width: int, dilation: int) -> Keys:
    return (q - slot * dilation for slot in range(width))


def sparse_transformer_strided(q: int, n: int, h: int, step: int) -> Keys:
    """A1 = {t, t + 1, ..., i} for t = max(0, i - l); A2 = {j : (i - j) mod l = 0}; heads take turns."""
    return range(max(0, q - step), q + 1) if h % 2 == 0 else [j for j in range(q + 1) if (q - j) % step == 0]


def sparse_transformer_fixed(q: int, n: int, h: int, step: int, summary: int) -> Keys:
    """A1 = {j : floor(j / l) = floor(i / l)}; A2 = {j : j mod l in {t, t + 1, ..., l}}, t = l - c; merged."""
    first = {j for j in range(q + 1) if j // step == q // step}
    return first | {j for j in range(q + 1) if j % step in range(step - summary, step)}


def longformer(q: int, n: int, h: int, window: int, is_global: np.ndarray) -> Keys:
    if is_global[q]:
        return range(n)
    return {*range(q - window // 2, q + window // 2 + 1), *np.flatnonzero(is_global).tolist()}


def etc(q: int, n: int, h: int, globals: int, radius: int) -> Keys:
    """Two sequences, as in the paper: positions are relative to each; then laid one after the other."""
    long = list(range(globals, n))
    if q < globals:
        yield from range(min(globals, n))  # global to global
        yield from long  # global to long
        return
    yield from range(globals)  # long to global
    here = q - globals
    yield from long[max(0, here - radius) : here + radius + 1]  # long to long


def bigbird(q: int, n: int, h: int, block: int, picks_: int) -> Keys:
    blocks = -(-n // block)
    own = q // block
    if own in (0, blocks - 1):
        chosen = set(range(blocks))
    else:
        random = set(picks(picks_, 0, False, h, own, blocks).tolist()) - {-1}
        chosen = {0, blocks - 1, own - 1, own, own + 1} | random
    return (place * block + within for place in chosen for within in range(block))


def streaming_llm(q: int, n: int, h: int, sinks: int, window: int) -> Keys:
    """What a cache of `sinks` first and `window` last tokens holds when token q has been added."""
    cache = list(range(q + 1))
    return cache if len(cache) <= sinks + window else cache[:sinks] + cache[len(cache) - window :]


def prefix_lm(q: int, n: int, h: int, is_prefix: np.ndarray) -> Keys:
    return {*range(q + 1), *np.flatnonzero(is_prefix).tolist()}


def packed_documents(q: int, n: int, h: int, document: np.ndarray) -> Keys:
    return [j for j in range(q + 1) if document[j] == document[q]]


def image_transformer_1d(q: int, n: int, h: int, block: int, before: int) -> Keys:
    """The memory block is the query block and what was generated before it, masked to the past."""
    (start,) = (start for start in range(0, n, block) if start <= q < start + block)
    return [j for j in [*range(start - before, start), *range(start, start + block)] if 0 <= j <= q]


def image_transformer_2d(q: int, n: int, h: int, block: int, above: int, beside: int, width: int) -> Keys:
    y, x = divmod(q, width)
    image = np.arange(-(-n // width) * width).reshape(-1, width)
    top, left = y - y % block, x - x % block
    memory = image[max(0, top - above) : top + block, max(0, left - beside) : left + block + beside]
    return memory.ravel().tolist()


def axial(q: int, n: int, h: int, height: int, width: int) -> Keys:
    image = np.arange(-(-n // width) * width).reshape(-1, width)
    y, x = np.argwhere(image == q)[0]
    return {*image[y].tolist(), *image[:, x].tolist()}


def logsparse(q: int, n: int, h: int) -> Keys:
    """I = {p - 2**floor(log2 p), ..., p - 2**1, p - 2**0, p}; an element before the first does not exist."""
    return [q, *(q - 2**power for power in range(max(q, 1).bit_length()))]


@cache
def swin_partition(height: int, width: int, size: int, shift: int) -> tuple[tuple[int, ...], ...]:
    """For every pixel its fellows: roll the image, number the regions that this brings together, cut windows.

    As in the paper's figure 4: three slices an axis. The image's sides are multiples of the window's.
    """
    image = np.arange(height * width).reshape(height, width)
    regions = np.zeros((height, width), dtype=int)
    if shift:
        image = np.roll(image, (-shift, -shift), (0, 1))
        slices = [slice(0, -size), slice(-size, -shift), slice(-shift, None)]
        for number, (rows, columns) in enumerate((a, b) for a in slices for b in slices):
            regions[rows, columns] = number
    fellows: dict[int, tuple[int, ...]] = {}
    for top in range(0, height, size):
        for left in range(0, width, size):
            window = image[top : top + size, left : left + size].ravel()
            region = regions[top : top + size, left : left + size].ravel()
            for pixel, own in zip(window, region, strict=True):
                fellows[int(pixel)] = tuple(window[region == own].tolist())
    return tuple(fellows[pixel] for pixel in range(height * width))


def swin(q: int, n: int, h: int, size: int, height: int, width: int) -> Keys:
    return swin_partition(height, width, size, 0)[q]


def swin_shifted(q: int, n: int, h: int, size: int, shift: int, height: int, width: int) -> Keys:
    return swin_partition(height, width, size, shift)[q]


def around(q: int, length: int, size: int, dilation: int = 1) -> list[int]:
    """One axis of NATTEN: of every `dilation`-th token a window, moved one by one until it lies within."""
    there = list(range(q % dilation, length, dilation))
    first = there.index(q) - size // 2
    while first > 0 and first + size > len(there):
        first -= 1
    while first < 0:
        first += 1
    return there[first : first + size]


def natten_1d(q: int, n: int, h: int, size: int, dilation: int) -> Keys:
    return around(q, n, size, dilation)


def natten_2d(q: int, n: int, h: int, size: int, dilation: int, width: int) -> Keys:
    y, x = divmod(q, width)
    for row in around(y, -(-n // width), size, dilation):
        yield from (row * width + column for column in around(x, width, size, dilation))


def natten_3d(q: int, n: int, h: int, frames: int, rows: int, columns: int, height: int, width: int) -> Keys:
    t, y, x = q // (height * width), q // width % height, q % width
    for frame in around(t, -(-n // (height * width)), frames):
        for row in around(y, height, rows):
            for column in around(x, width, columns):
                yield (frame * height + row) * width + column


# --- the comparison -------------------------------------------------------------------------------------

Inputs = Callable[[int], dict[str, Any]]


def nothing(n: int) -> dict[str, Any]:
    return {}


def few(name: str) -> Inputs:
    """A quarter of the positions marked, at random."""
    return lambda n: {name: np.random.default_rng(n).random(n) < 0.25}


def prefix(n: int) -> dict[str, Any]:
    return {"is_prefix": np.arange(n) < n // 3}


def documents(n: int) -> dict[str, Any]:
    """Some contiguous, and one number that comes back."""
    return {"document": np.sort(np.random.default_rng(n).integers(0, 4, n)) % 3}


# file, pattern, its definition, parameters, inputs, lengths, heads
CASES = [
    ("dense", dense, {}, nothing, LENGTHS),
    ("causal", causal, {}, nothing, LENGTHS),
    ("mistral", mistral, {"window": 5}, nothing, LENGTHS),
    ("mistral", mistral, {"window": 1}, nothing, LENGTHS),
    ("linear_transformer", causal, {}, nothing, LENGTHS),
    ("performer", everything, {"features": 8}, nothing, LENGTHS),
    ("cosformer", all_before, {"length": 100}, nothing, LENGTHS),
    ("retnet", causal, {}, nothing, LENGTHS),
    ("mamba2", gated, {}, lambda n: {"g": np.zeros((n, 3))}, LENGTHS),
    ("based", all_before, {"window": 5}, nothing, LENGTHS),
    ("lolcats", all_before, {"window": 5}, nothing, LENGTHS),
    ("llama4_chunked", llama4_chunked, {"size": 6}, nothing, LENGTHS),
    (
        "overlapping_windows",
        overlapping_windows,
        {"size": 3, "overlap": 1, "width": 7},
        nothing,
        (1, 7, 37, 63),
    ),
    ("overlapping_windows", overlapping_windows, {"size": 2, "overlap": 3, "width": 8}, nothing, (16, 61)),
    ("strided", strided, {"step": 4}, nothing, LENGTHS),
    ("dilated", dilated, {"width": 4, "dilation": 3}, nothing, LENGTHS),
    ("dilated", dilated, {"width": 3, "dilation": 1}, nothing, LENGTHS),
    ("sparse_transformer_strided", sparse_transformer_strided, {"step": 5}, nothing, LENGTHS),
    ("sparse_transformer_fixed", sparse_transformer_fixed, {"step": 6, "summary": 2}, nothing, LENGTHS),
    ("longformer", longformer, {"window": 6}, few("is_global"), LENGTHS),
    ("longformer", longformer, {"window": 2}, few("is_global"), LENGTHS),
    ("etc", etc, {"globals": 5, "radius": 3}, nothing, LENGTHS),
    ("streaming_llm", streaming_llm, {"sinks": 2, "window": 5}, nothing, LENGTHS),
    ("prefix_lm", prefix_lm, {}, prefix, LENGTHS),
    ("prefix_lm", prefix_lm, {}, few("is_prefix"), LENGTHS),
    ("packed_documents", packed_documents, {}, documents, LENGTHS),
    ("image_transformer_1d", image_transformer_1d, {"block": 6, "before": 4}, nothing, LENGTHS),
    ("image_transformer_1d", image_transformer_1d, {"block": 4, "before": 8}, nothing, LENGTHS),
    (
        "image_transformer_2d",
        image_transformer_2d,
        {"block": 3, "above": 2, "beside": 1, "width": 8},
        nothing,
        (1, 8, 37, 64),
    ),
    ("axial", axial, {"height": 6, "width": 7}, nothing, (1, 7, 37, 42)),
    ("natten_1d", natten_1d, {"size": 5, "dilation": 1}, nothing, LENGTHS),
    ("natten_1d", natten_1d, {"size": 4, "dilation": 3}, nothing, LENGTHS),
    ("natten_2d", natten_2d, {"size": 3, "dilation": 1, "width": 7}, nothing, (1, 7, 37, 63)),
    ("natten_2d", natten_2d, {"size": 4, "dilation": 2, "width": 8}, nothing, (1, 16, 61, 64)),
    (
        "natten_3d",
        natten_3d,
        {"frames": 2, "rows": 3, "columns": 1, "height": 4, "width": 3},
        nothing,
        (1, 12, 36, 55),
    ),
    ("logsparse", logsparse, {}, nothing, LENGTHS),
    ("alibi", causal, {}, nothing, LENGTHS),
    ("gla", causal, {}, nothing, LENGTHS),
    ("rwkv6", causal, {}, nothing, LENGTHS),
    ("deltanet", causal, {}, nothing, LENGTHS),
    ("gated_deltanet", causal, {}, nothing, LENGTHS),
    ("kimi_delta", causal, {}, nothing, LENGTHS),
    ("t5", dense, {}, nothing, LENGTHS),
    ("gemma2", causal, {}, nothing, LENGTHS),
    ("gpt_oss", mistral, {"window": 5}, nothing, LENGTHS),
    ("transformer_xl", causal, {}, nothing, LENGTHS),
]


def dense_mask(definition: Callable[..., Keys], n: int, heads: int, **settings: Any) -> np.ndarray:
    wanted = np.zeros((heads, n, n), dtype=bool)
    for h in range(heads):
        for q in range(n):
            for key in definition(q, n, h, **settings):
                if 0 <= key < n:
                    wanted[h, q, key] = True
    return wanted


@pytest.mark.parametrize(
    ("name", "definition", "params", "inputs", "lengths"),
    CASES,
    ids=[f"{name}-{'-'.join(map(str, params.values()))}" for name, _, params, _, _ in CASES],
)
def test_mask_is_the_papers(
    name: str,
    definition: Callable[..., Keys],
    params: dict[str, Any],
    inputs: Inputs,
    lengths: tuple[int, ...],
) -> None:
    pattern = load(name, params)
    for n in lengths:
        wanted = dense_mask(definition, n, 3, **params, **inputs(n))
        got = reference.mask(pattern, n, heads=3, inputs=inputs(n))
        assert (got == wanted).all(), f"n = {n}"
        n_q = (n + 1) // 2
        assert (reference.mask(pattern, n, 3, inputs(n), n_q) == wanted[:, n - n_q :]).all()


@pytest.mark.parametrize(("block", "count"), [(4, 2), (3, 1), (5, 3)])
def test_bigbird(block: int, count: int) -> None:
    pattern = load("bigbird", {"block": block, "picks": count})
    for n in LENGTHS:
        wanted = dense_mask(bigbird, n, 3, block=block, picks_=count)
        assert (reference.mask(pattern, n, heads=3) == wanted).all()


@pytest.mark.parametrize(("size", "height", "width", "shift"), [(4, 12, 8, 2), (3, 9, 9, 1), (7, 14, 21, 3)])
def test_swin(size: int, height: int, width: int, shift: int) -> None:
    n = height * width
    sides: dict[str, Any] = {"size": size, "height": height, "width": width}
    got = reference.mask(load("swin", sides, "swin"), n)
    assert (got == dense_mask(swin, n, 1, **sides)).all()
    got = reference.mask(load("swin", {**sides, "shift": shift}, "swin_shifted"), n)
    assert (got == dense_mask(swin_shifted, n, 1, **sides, shift=shift)).all()


def window_start(index: int, length: int, size: int, dilation: int) -> int:
    """`get_window_start` of NATTEN's first kernels, which knew odd sizes alone."""
    half = size // 2
    if dilation <= 1:
        return max(index - half, 0) + (index + half >= length) * (length - index - half - 1)
    if index - half * dilation < 0:
        return index % dilation
    if index + half * dilation >= length:
        whole = length // dilation * dilation
        if index % dilation < length - whole:
            return whole + index % dilation - 2 * half * dilation
        return whole + index % dilation - size * dilation
    return index - half * dilation


@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (7, 1), (3, 2), (5, 3), (7, 4)])
def test_neighborhoods_begin_where_natten_has_them_begin(size: int, dilation: int) -> None:
    pattern = load("natten_1d", {"size": size, "dilation": dilation})
    for n in (size * dilation, size * dilation + 1, 3 * size * dilation - 1):
        mask = reference.mask(pattern, n)[0]
        starts = [window_start(q, n, size, dilation) for q in range(n)]
        for q, start in enumerate(starts):
            assert np.flatnonzero(mask[q]).tolist() == [start + dilation * i for i in range(size)]


def test_no_example_is_left_out() -> None:
    files = {path.stem for path in EXAMPLES.glob("*.attn")}
    assert files == {name for name, *_ in CASES} | {"bigbird", "swin"}


def test_half_a_window_is_a_whole_number() -> None:
    with pytest.raises(AttncError, match="5 / 2 is not a whole number"):
        load("longformer", {"window": 5})


def test_the_papers_constants_are_the_defaults() -> None:
    wanted = {
        "mistral": {"window": 4096},
        "llama4_chunked": {"size": 8192},
        "overlapping_windows": {"size": 16, "overlap": 4, "width": 64},
        "sparse_transformer_strided": {"step": 128},
        "sparse_transformer_fixed": {"step": 128, "summary": 32},
        "longformer": {"window": 512},
        "etc": {"globals": 230, "radius": 84},
        "bigbird": {"block": 64, "picks": 3},
        "streaming_llm": {"sinks": 4, "window": 1020},
        "swin": {"size": 7, "height": 56, "width": 56},
        "gpt_oss": {"window": 128},
        "natten_2d": {"size": 7, "dilation": 1, "width": 56},
        "natten_3d": {"frames": 18, "rows": 24, "columns": 24, "height": 48, "width": 80},
    }
    for name, params in wanted.items():
        assert {param.name: param.value for param in load(name, {}).params} == params


def test_known_counts_of_keys_at_the_defaults() -> None:
    """The off-by-ones that two systems disagree about: 4096 keys in Mistral, 513 in Longformer."""
    last = reference.mask(load("mistral", {}), 5000, n_q=1)
    assert last.sum() == 4096
    middle = reference.mask(load("longformer", {}), 1200, inputs={"is_global": np.zeros(1200, bool)}, n_q=600)
    assert middle[0, 0].sum() == 513
    assert reference.mask(load("streaming_llm", {}), 5000, n_q=1).sum() == 1024
    assert reference.mask(load("llama4_chunked", {}), 8192 + 10, n_q=1).sum() == 10

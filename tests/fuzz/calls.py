"""Draws how a pattern is called: lengths on either side of tiles, layouts, dtypes, and what inputs hold."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from attnc import syntax as tree
from attnc.diagnostics import Source
from attnc.parser import parse
from tests.fuzz.meaning import At, Meaning

Tensor = torch.Tensor

GROUPS = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (4, 2), (4, 1), (5, 5), (6, 3), (6, 2))
DIMS = (1, 3, 4, 7, 8, 16, 16, 17, 24, 32, 33, 40, 64)
LENGTHS = (31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 192, 193, 255, 256, 257)
LAYOUTS = ("contiguous", "heads inside", "slice", "expanded", "turned")
PAIRS = 400_000  # of queries and keys, over heads and batches: what the definition is given to do


@dataclass(frozen=True)
class Shape:
    """One call.

    cuts: where it is cut into pieces that hand on a state. small: with small tiles. size: the standard
    deviation of the coordinates of queries and keys.
    """

    n: int
    n_q: int
    batch: int
    heads: int
    key_heads: int
    dim: int
    value_dim: int
    dtype: str
    layouts: tuple[str, str, str]
    scale: float | None
    seed: int
    batched: bool = False
    cuts: tuple[int, ...] = ()
    small: bool = False
    size: float = 1.0


def shape(rng: random.Random, text: str, heads: int, key_heads: int, triton: bool) -> Shape:
    wide = "d]" in text or "taylor" in text  # features or gates for every channel
    most = 140 if triton or wide else 300
    draw = rng.random()
    if draw < 0.15:
        n = rng.randint(0, 12)
    elif draw < 0.7:
        n = rng.choice([size for size in LENGTHS if size <= most])
    else:
        n = rng.randint(13, most)
    if triton and rng.random() < 0.5:
        n = min(n, rng.choice((33, 65, 70)))
    batch = 1 if triton and n > 40 else rng.choice((1, 1, 2, 3))
    if batch * heads * n * n > PAIRS:
        batch = 1
    dims = [size for size in DIMS if size <= (17 if "taylor" in text else 40 if wide or triton else 64)]
    dim = rng.choice(dims)
    if triton:
        dtype = rng.choice(("float32", "float32", "float32", "bfloat16", "float16"))
    else:
        dtype = rng.choice(("float32", "float32", "float32", "float64", "bfloat16", "float16"))
    shorter = (rng.randint(0, n), min(n, 1), max(n - 1, 0), n // 2)
    n_q = n if rng.random() < 0.55 else rng.choice(shorter)
    cuts: tuple[int, ...] = ()
    if n and rng.random() < 0.4:
        cuts = tuple(sorted(rng.randint(1, n) for _ in range(rng.randint(1, 3))))
    scale = None if rng.random() < 0.6 else rng.choice((0.5, 1.0, 0.05, -0.25, 0.0))
    return Shape(
        n, n_q, batch, heads, key_heads, dim,
        rng.choice(dims) if rng.random() < 0.4 else dim, dtype,
        (rng.choice(LAYOUTS), rng.choice(LAYOUTS), rng.choice(LAYOUTS)),
        scale, rng.randrange(2**31), rng.random() < 0.4, cuts, triton and rng.random() < 0.7,
        rng.choice((1.0, 1.0, 1.0, 1e-2, 3.0)),
    )  # fmt: skip


# --- tensors --------------------------------------------------------------------------------------------


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another layout, with NaN around a slice; expanded, the first entry throughout."""
    match layout:
        case "heads inside":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        case "slice":
            b, h, n, d = x.shape
            larger = torch.full((b, h + 1, n + 3, d + 5), torch.nan, dtype=x.dtype)
            larger[:, 1:, 2 : n + 2, 3 : d + 3] = x
            return larger[:, 1:, 2 : n + 2, 3 : d + 3]
        case "expanded":
            return x[:1].expand(x.shape)
        case "turned":
            return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x


def tensors(text: str, call: Shape) -> tuple[dict[str, Tensor], Tensor]:
    """q, k and v, and what the output is pulled by."""
    generator = torch.Generator().manual_seed(call.seed)
    dtype = getattr(torch, call.dtype)
    sizes = {
        "q": (call.batch, call.heads, call.n_q, call.dim),
        "k": (call.batch, call.key_heads, call.n, call.dim),
        "v": (call.batch, call.key_heads, call.n, call.value_dim),
    }
    found = {}
    for (name, size), layout in zip(sizes.items(), call.layouts, strict=True):
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        if name != "v":
            drawn = drawn * call.size
        if name == "k" and "delta(" in text:  # which is made for keys of length one
            drawn = torch.nn.functional.normalize(drawn, dim=-1)
        found[name] = laid_out(drawn.to(dtype), layout)
    pull = torch.randn((*sizes["q"][:3], call.value_dim), generator=generator, dtype=torch.float64)
    return found, pull.to(dtype)


def position_axes(text: str) -> dict[str, tuple[int, ...]] | None:
    """For every input the axes of positions, counted from the last; None where blocks number some."""
    [pattern] = parse(Source("fuzz.attn", text)).patterns
    shapes = [axis for item in pattern.items if isinstance(item, tree.Input) for axis in item.shape]
    if any(isinstance(axis, tree.Chain) for axis in shapes):
        return None
    return {
        item.name.text: tuple(
            i - len(item.shape)
            for i, axis in enumerate(item.shape)
            if isinstance(axis, tree.Name) and axis.name == "n"
        )
        for item in pattern.items
        if isinstance(item, tree.Input)
    }


def inputs(text: str, call: Shape) -> dict[str, Tensor]:
    """Something for every input, by its kind, its name and the call's seed."""
    [pattern] = parse(Source("fuzz.attn", text)).patterns
    meaning = Meaning(text, {}, call.heads)
    found = {}
    for item in pattern.items:
        if not isinstance(item, tree.Input):
            continue
        name = item.name.text
        at = At(0, 0, 0, 0, call.n)
        size = tuple(
            call.dim if isinstance(axis, tree.Name) and axis.name == "d" else int(meaning.value(axis, at))
            for axis in item.shape
        )
        # Of its own whatever else there is, so that a pattern can be made smaller around it.
        rng = np.random.default_rng([call.seed, zlib.crc32(name.encode())])
        if call.batched and rng.random() < 0.6:
            size = (call.batch, *size)
        fill = {"bool": _flags, "int": _numbers}.get(item.kind.text)
        if fill is not None:
            found[name] = torch.from_numpy(fill(rng, size))
        else:
            found[name] = _floats(rng, name, size, call, bool(_CORNERS.search(text)))
        if rng.random() < 0.15 and found[name].dim() > 1:  # laid out the other way round
            found[name] = found[name].transpose(0, -1).contiguous().transpose(0, -1)
    return found


# Where two reals are compared; entries of halves would often be equal there, and either side be right.
_CORNERS = re.compile(r"\b(min|max|abs|relu|select|elu)\(")


def _flags(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return rng.random(size) < rng.choice([0.0, 0.03, 0.1, 0.3, 0.7, 1.0])


def _numbers(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Documents one after another, ids that come again, all equal, all apart, negative, large."""
    dtype = rng.choice([np.int64, np.int64, np.int32, np.int16, np.int8])
    match rng.choice(["runs", "runs", "again", "again", "few", "equal", "apart", "negative", "large"]):
        case "runs":
            found = (rng.random(size) < rng.choice([0.02, 0.1, 0.4])).cumsum(-1)
        case "again":
            found = rng.integers(0, rng.integers(2, 9), size)
        case "few":
            found = rng.integers(0, 4, size) // 3
        case "equal":
            found = np.full(size, rng.integers(-3, 100))
        case "apart":
            found, dtype = rng.permutation(np.arange(np.prod(size))).reshape(size), np.int64
        case "negative":
            found = rng.integers(-100, 20, size)
        case _:
            found, dtype = rng.integers(0, 4, size) * 2**29 + rng.integers(0, 2, size), np.int64
    return found.astype(dtype)


def _floats(rng: np.random.Generator, name: str, size: tuple[int, ...], call: Shape, corners: bool) -> Tensor:
    wide = torch.float64 if call.dtype == "float64" else torch.float32
    dtype = wide
    role = name.rstrip("0123456789")
    values = rng.standard_normal(size)
    match role:
        case "gate":
            share = rng.random(size)
            strength = rng.choice(["mixed", "slow", "fast", "open", "shut"])
            values = {
                "mixed": -(1e-4 ** (1 - share)) * 20**share, "slow": -1e-3 * share, "fast": -20 * share,
                "open": 0 * share, "shut": np.where(share < 0.1, -np.inf, -0.2 * share),
            }[strength]  # fmt: skip
        case "beta":
            values = rng.random(size) * rng.choice([0.2, 1.0])
        case "bias" if size:
            values = _biases(rng, values)
        case "sink":
            values *= rng.choice([1.0, 5.0])
            if rng.random() < 0.3:
                values[rng.random(size) < 0.4] = rng.choice([-np.inf, np.inf, -1e4, np.finfo(np.float32).min])
        case _:
            if not corners and role == "table":
                dtype = [wide, wide, torch.bfloat16, torch.float16][rng.integers(4)]
    return torch.from_numpy(values).to(dtype)


def _biases(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Masks that are added to scores, as models have them."""
    kind = rng.choice(["plain", "holes", "holes", "rows", "least", "least rows", "huge"])
    if kind == "plain" or not values.size:
        return values
    share = rng.choice([0.05, 0.3, 0.8])
    if kind in ("rows", "least rows") and values.ndim > 1:
        chosen = np.broadcast_to((rng.random(values.shape[:-1]) < share)[..., None], values.shape)
    else:
        chosen = rng.random(values.shape) < share
    low = {"huge": rng.choice([-1e30, 3e4, -3e4])}.get(str(kind), -np.inf)
    if kind.startswith("least"):
        low = float(np.finfo(np.float32).min)
    return np.where(chosen, low, values)

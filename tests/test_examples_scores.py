"""What the examples' edges weigh, against definitions of its own, written from the papers in plain Python.

Every pattern's emitted function is held against them in fp64, beside the oracle of weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc import weighing
from attnc.diagnostics import Source
from attnc.pipeline import settle_pattern
from attnc.request import Request

EXAMPLES = Path(__file__).parent.parent / "examples"
HEADS, DIM = 4, 8

# Each takes the scaled product, query, key, head, number of heads and what is given besides.
Score = Callable[..., float]


def alibi_slopes(heads: int) -> list[float]:
    """`get_slopes` of the paper's code: a power of two of heads, or those of the two nearest."""

    def of_power(count: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(count) - 3)))
        return [start * start**i for i in range(count)]

    if math.log2(heads).is_integer():
        return of_power(heads)
    below = 2 ** math.floor(math.log2(heads))
    return of_power(below) + alibi_slopes(2 * below)[0::2][: heads - below]


def alibi(s: float, q: int, k: int, h: int, heads: int) -> float:
    return s + alibi_slopes(heads)[h] * (k - q)


def bucket(distance: int, buckets: int, most: int) -> int:
    """Half of the buckets for a distance each, the rest by logarithm."""
    exact = buckets // 2
    if distance < exact:
        return distance
    wide = math.log(distance / exact) / math.log(most / exact) * (buckets - exact)
    return min(exact + math.floor(wide + 1e-9), buckets - 1)


def t5(s: float, q: int, k: int, h: int, heads: int, bias: Any) -> float:
    return s + bias[(16 if k > q else 0) + bucket(abs(q - k), 16, 128), h]


def t5_decoder(s: float, q: int, k: int, h: int, heads: int, bias: Any) -> float:
    return s + bias[bucket(q - k, 32, 128), h]


def gemma2(s: float, q: int, k: int, h: int, heads: int) -> float:
    return 50.0 * math.tanh(s / 50.0)


def plain(s: float, q: int, k: int, h: int, heads: int, **_: Any) -> float:
    return s


def transformer_xl(s: float, q: int, k: int, h: int, heads: int, relative: Any) -> float:
    """Section 3.3, (a) and (c) in the product of q + u, (b) and (d) in the table."""
    return s + relative[h, q, q - k]


def swin(s: float, q: int, k: int, h: int, heads: int, bias: Any) -> float:
    """`relative_position_index` of the paper's code, in a window of 3 of an image 6 wide."""
    down, right = q // 6 - k // 6, q % 6 - k % 6
    return s + bias[(down + 2) * 5 + right + 2, h]


def natten_2d(s: float, q: int, k: int, h: int, heads: int, bias: Any) -> float:
    """`rpb` of the paper's code, at every other token of an image 7 wide, within 3."""
    return s + bias[h, (k // 7 - q // 7) // 2 + 2, (k % 7 - q % 7) // 2 + 2]


def any_key(q: int, n: int) -> range:
    return range(n)


def past(q: int, n: int) -> range:
    return range(q + 1)


def last(count: int) -> Callable[[int, int], range]:
    return lambda q, n: range(max(0, q + 1 - count), q + 1)


def window_of_three(q: int, n: int) -> list[int]:
    y, x = divmod(q, 6)
    return [k for k in range(n) if k // 6 // 3 == y // 3 and k % 6 // 3 == x // 3]


def square_of_three(q: int, n: int) -> list[int]:
    """In an image of 7 x 7, of every other token: 4 of an axis are even, and 3 are odd."""
    sides = [
        {k for k in range(p % 2, 7, 2) if p % 2 or abs(k - min(max(p, 2), 4)) <= 2} for p in divmod(q, 7)
    ]
    return [k for k in range(n) if k // 7 in sides[0] and k % 7 in sides[1]]


def moved_window(q: int, n: int) -> list[int]:
    y, x = divmod(q, 6)
    return [k for k in range(n) if (k // 6 + 2) // 3 == (y + 2) // 3 and (k % 6 + 2) // 3 == (x + 2) // 3]


SIDES = {"size": 3, "height": 6, "width": 6}
# pattern, its file, what it weighs, whom a query reads, parameters, shapes of the inputs, length
Case = tuple[str, str, Score, Callable[[int, int], Any], dict[str, int], dict[str, tuple[int, ...]], int]
CASES: list[Case] = [
    ("alibi", "alibi", alibi, past, {}, {}, 20),
    ("t5", "t5", t5, any_key, {}, {"bias": (32, HEADS)}, 150),
    ("t5_decoder", "t5", t5_decoder, past, {}, {"bias": (32, HEADS)}, 150),
    ("gemma2", "gemma2", gemma2, past, {}, {}, 20),
    ("gemma2_local", "gemma2", gemma2, last(7), {"window": 7}, {}, 20),
    ("gpt_oss", "gpt_oss", plain, last(7), {"window": 7}, {"sinks": (HEADS,)}, 20),
    ("gpt_oss_full", "gpt_oss", plain, past, {}, {"sinks": (HEADS,)}, 20),
    (
        "transformer_xl",
        "transformer_xl",
        transformer_xl,
        past,
        {},
        {"relative": (HEADS, 20, 20)},
        20,
    ),
    ("swin", "swin", swin, window_of_three, SIDES, {"bias": (25, HEADS)}, 36),
    (
        "natten_2d",
        "natten_2d",
        natten_2d,
        square_of_three,
        {"size": 3, "dilation": 2, "width": 7},
        {"bias": (HEADS, 5, 5)},
        49,
    ),
    ("swin_shifted", "swin", swin, moved_window, {**SIDES, "shift": 1}, {"bias": (25, HEADS)}, 36),
]


@cache
def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(
    score: Score, keys: Callable[[int, int], Any], given: dict[str, torch.Tensor], n: int, heads: int
) -> torch.Tensor:
    """Softmax row by row; a sink is one more term of the denominator."""
    q, k, v = (random(1, heads, n, DIM, seed=i) for i in range(3))
    products = q[0] @ k[0].transpose(1, 2) * DIM**-0.5
    out = torch.zeros(1, heads, n, DIM, dtype=torch.float64)
    for h in range(heads):
        for row in range(n):
            read = [
                (key, math.exp(score(float(products[h, row, key]), row, key, h, heads, **given)))
                for key in keys(row, n)
            ]
            total = math.fsum(weight for _, weight in read)
            if "sinks" in given:
                total += math.exp(given["sinks"][h])
            for key, weight in read:
                out[0, h, row] += weight / total * v[0, h, key]
    return out


@pytest.mark.parametrize(
    ("pattern", "file", "score", "keys", "params", "shapes", "n"), CASES, ids=[case[0] for case in CASES]
)
def test_weights_are_the_papers(
    pattern: str,
    file: str,
    score: Score,
    keys: Callable[[int, int], Any],
    params: dict[str, int],
    shapes: dict[str, tuple[int, ...]],
    n: int,
) -> None:
    given = {name: random(*shape, seed=7 + i) for i, (name, shape) in enumerate(shapes.items())}
    wanted = by_hand(score, keys, given, n, HEADS)
    q, k, v = (random(1, HEADS, n, DIM, seed=i) for i in range(3))
    function = attnc.load(EXAMPLES / f"{file}.attn", pattern, **params)
    torch.testing.assert_close(function(q, k, v, **given), wanted, rtol=1e-9, atol=1e-9)
    source = Source(f"{file}.attn", (EXAMPLES / f"{file}.attn").read_text(encoding="utf-8"))
    settled = settle_pattern(Request(source, pattern, params)).pattern
    torch.testing.assert_close(weighing.attention(settled, q, k, v, given)[0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 8, 12, 16, 20, 40])
def test_alibi_has_the_papers_slopes_for_every_number_of_heads(heads: int) -> None:
    function = attnc.load(EXAMPLES / "alibi.attn")
    q, k, v = (random(1, heads, 6, DIM, seed=i) for i in range(3))
    wanted = by_hand(alibi, past, {}, 6, heads)
    torch.testing.assert_close(function(q, k, v), wanted, rtol=1e-9, atol=1e-9)


def test_sinks_take_weight_from_every_row() -> None:
    function = attnc.load(EXAMPLES / "gpt_oss.attn", "gpt_oss", window=7)
    q, k, v = (random(1, HEADS, 20, DIM, seed=i) for i in range(3))
    nothing = torch.full((HEADS,), -1e30, dtype=torch.float64)
    plainly = attnc.load("pattern p() { attend window(6) }")
    torch.testing.assert_close(function(q, k, v, sinks=nothing), plainly(q, k, v))
    everything = torch.full((HEADS,), 60.0, dtype=torch.float64)
    assert function(q, k, v, sinks=everything).abs().max() < 1e-12


def test_transformer_xl_is_all_four_terms() -> None:
    """From vectors u, v and r, by the paper's formula, with queries that are the last positions."""
    n, n_q = 20, 12
    q, k, v = random(1, HEADS, n_q, DIM), random(1, HEADS, n, DIM, seed=1), random(1, HEADS, n, DIM, seed=2)
    bias, other, encoded = (random(HEADS, *shape, DIM, seed=3) for shape in ((1,), (1,), (n,)))
    scale, places = DIM**-0.5, torch.arange(n)
    gap = (places[n - n_q :, None] - places).clamp(min=0)
    scores = q @ k.transpose(2, 3) + (bias[None] @ k.transpose(2, 3))
    scores = scores + torch.einsum("bhid,hijd->bhij", q, encoded[:, gap])
    scores = scores + torch.einsum("hd,hijd->hij", other[:, 0], encoded[:, gap])
    wanted = (scores * scale).masked_fill(places > places[n - n_q :, None], -torch.inf).softmax(3) @ v
    relative = torch.zeros(1, HEADS, n, n, dtype=q.dtype)
    relative[:, :, n - n_q :] = (q + other) @ encoded.transpose(1, 2) * scale
    found = attnc.load(EXAMPLES / "transformer_xl.attn")(q + bias, k, v, relative=relative)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)

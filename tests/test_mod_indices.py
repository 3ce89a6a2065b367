"""Tensors read at computed places, by FlexAttention's functions: as torch reads them, or refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

import attnc
from attnc.diagnostics import AttncError

pytestmark = pytest.mark.filterwarnings("ignore:.*index-clamped")

N, HEADS = 13, 4
Places = tuple[Callable[[Any, Any, Any], Any], ...]
Read = Callable[[torch.Tensor, tuple[Any, ...]], Any]

AT_POSITIONS: tuple[Callable[[int], Callable[[Any, Any, Any], Any]], ...] = (
    lambda c: lambda h, q, k: q,
    lambda c: lambda h, q, k: k,
    lambda c: lambda h, q, k: q - k,
    lambda c: lambda h, q, k: k - q,
    lambda c: lambda h, q, k: q - k + c,
    lambda c: lambda h, q, k: -1 - k,
    lambda c: lambda h, q, k: q % 5 - c,
    lambda c: lambda h, q, k: (q - k) // 3,
    lambda c: lambda h, q, k: torch.where(q - k > c, k - q, q - k),
    lambda c: lambda h, q, k: -1 - c,
    lambda c: lambda h, q, k: c,
)
AT_HEADS: tuple[Callable[[int], Callable[[Any, Any, Any], Any]], ...] = (
    lambda c: lambda h, q, k: h,
    lambda c: lambda h, q, k: h - c,
    lambda c: lambda h, q, k: -1 - h,
)


class Drawn:
    """A table, where it is read, and what stands around that."""

    def __init__(self, seed: int) -> None:
        pick = random.Random(seed)
        self.places: Places = (pick.choice(AT_POSITIONS)(pick.randint(0, 3)),)
        sizes = [pick.choice((7, N, N + 2, 3 * N))]
        if pick.random() < 0.5:
            self.places = (pick.choice(AT_HEADS)(pick.randint(0, 3)), *self.places)
            sizes = [HEADS, *sizes]
        self.table = torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.again = pick.random() < 0.3 and sizes[-1] >= N and len(sizes) == 1  # at a position itself, too
        self.around = pick.choice(("nothing", "causal", "causal", "where"))

    def mask(self, b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) if self.around == "causal" else (q >= 0)

    def score(self, read: Read) -> Callable[..., Any]:
        def fn(s: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
            places = tuple(place(h, q, k) for place in self.places)
            found = s + read(self.table, places)
            if self.again:
                found = found + read(self.table, (q,))
            return torch.where(q - k > 2, found, s) if self.around == "where" else found

        return fn


def as_torch(table: torch.Tensor, places: tuple[Any, ...]) -> Any:
    return table[places]


def at(edges: torch.Tensor) -> Read:
    """Torch's own reading, but for pairs without an edge, whose places are of no account."""

    def read(table: torch.Tensor, places: tuple[Any, ...]) -> Any:
        wide = (torch.as_tensor(place).expand(edges.shape) for place in places)
        return table[tuple(torch.where(edges, place, 0) for place in wide)]

    return read


def test_scores_read_as_torch_does() -> None:
    outside = wrapped = 0
    for seed in range(28):
        drawn = Drawn(seed)
        pattern = attnc.from_mask_mod(drawn.mask, score_mod=drawn.score(as_torch), name="drawn")
        make = torch.Generator().manual_seed(seed)
        q, k, v = torch.randn(3, 1, HEADS, N, 8, generator=make, dtype=torch.float64)
        rows, columns = torch.arange(N)[:, None], torch.arange(N)[None]
        edges = drawn.mask(0, 0, rows, columns) & (columns >= 0)
        matters = edges & (rows - columns > 2) if drawn.around == "where" else edges
        s = q @ k.mT * 8**-0.5
        try:
            scores = torch.stack(
                [drawn.score(at(matters))(s[0, h], 0, h, rows, columns) for h in range(HEADS)]
            )
        except IndexError:
            outside += 1
            if not any("torch raises an error there" in note for note in pattern.notes):
                with pytest.raises(ValueError, match="give a longer one by name"):
                    pattern(q, k, v)
            continue
        wanted = scores.masked_fill(~edges, -torch.inf).softmax(-1) @ v
        torch.testing.assert_close(pattern(q, k, v), wanted, rtol=1e-9, atol=1e-11, msg=pattern.source)
        wrapped += "select" in pattern.source
    assert outside < 12 and wrapped > 5


def test_masks_read_as_torch_does_or_are_refused() -> None:
    refused = 0
    for seed in range(24):
        drawn = Drawn(seed)
        table = (drawn.table > 0).long()

        def mod(b: Any, h: Any, q: Any, k: Any, read: Read = as_torch, drawn: Drawn = drawn) -> Any:
            places = tuple(place(h, q, k) for place in drawn.places)
            return drawn.mask(b, h, q, k) & (read(table, places) > 0)  # noqa: B023

        try:
            pattern = attnc.from_mask_mod(lambda b, h, q, k: mod(b, h, q, k), name="drawn")
        except AttncError:
            refused += 1
            continue
        rows, columns = torch.arange(N)[:, None], torch.arange(N)[None]
        edges = drawn.mask(0, 0, rows, columns) & (columns >= 0)
        try:
            wanted = torch.stack([mod(0, h, rows, columns, at(edges)) & edges for h in range(HEADS)])
        except IndexError:
            with pytest.raises(ValueError, match="give a longer one by name"):
                pattern.mask(N, HEADS)
            continue
        assert torch.equal(pattern.mask(N, HEADS), wanted), pattern.source
    assert refused < 18


def test_a_condition_is_no_place() -> None:
    table = torch.tensor([3.0, 4.0])
    for place in (lambda q, k: q > k, lambda q, k: ~(q == k)):
        with pytest.raises(AttncError, match="a condition is no place in a table"):
            attnc.from_mask_mod(score_mod=lambda s, b, h, q, k: s + table[place(q, k)])  # noqa: B023
    pattern = attnc.from_mask_mod(score_mod=lambda s, b, h, q, k: s + table[(q > k).long()])
    assert "select" in pattern.source


def test_a_table_read_from_behind_stays_whole() -> None:
    """A table with an entry for every position is cut to the call's length, but its end is where it was."""
    bias = torch.arange(64, dtype=torch.float64)
    pattern = attnc.from_mask_mod(score_mod=lambda s, b, h, q, k: s + bias[q] + bias[q - k])
    q = torch.zeros(1, 1, 2, 4, dtype=torch.float64)
    v = torch.eye(2, 4, dtype=torch.float64)[None, None]
    first = torch.tensor([0.0, 63.0], dtype=torch.float64).softmax(0)
    torch.testing.assert_close(pattern(q, q, v)[0, 0, 0, :2], first)

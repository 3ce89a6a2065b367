"""Sequences within a padded or packed batch: where they lie, and what of an input belongs to each.

What goes through a model as its attention mask is an int32 tensor (batch, 1, 1, keys) that says of every key
which sequence it belongs to, counted from 1, or that it is padding or not written yet.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attnc.runtime import Attention

PADDING, UNWRITTEN = 0, -1

# The shape of an input, but for a batch axis, with so many keys, heads and channels.
Shape = Callable[[int, int, int], tuple[int, ...]]


@dataclass(frozen=True)
class Spans:
    """Where sequences lie: (start, stop) → rows of the batch, among the first ``written`` keys.

    broken: a row in which padding lies inside of a sequence.
    """

    spans: dict[tuple[int, int], list[int]]
    written: int
    broken: int | None


# Of the tensor that went through a layer last: it goes through all of them, and is copied to the host once.
_latest: list[tuple[weakref.ref[torch.Tensor], Spans]] = []


def spans(numbers: torch.Tensor) -> Spans:
    """Where the sequences of a batch lie; ``numbers`` as said above, and never changed."""
    if _latest and _latest[0][0]() is numbers:
        return _latest[0][1]
    found = _find(numbers[:, 0, 0].tolist())
    _latest[:] = [(weakref.ref(numbers), found)]
    return found


def _find(rows: list[list[int]]) -> Spans:
    found: dict[tuple[int, int], list[int]] = {}
    broken = None
    written = max((sum(number != UNWRITTEN for number in row) for row in rows), default=0)
    for i, row in enumerate(rows):
        seen: set[int] = set()
        start = 0
        for at in range(1, written + 1):
            if at == written or row[at] != row[start]:
                number = row[start]
                if number in seen and number != PADDING:
                    broken = i
                seen.add(number)
                if number > PADDING:
                    found.setdefault((start, at), []).append(i)
                start = at
    return Spans(found, written, broken)


# By how many tokens a length is varied to see which sizes hang on it.
_MORE = 4096


def shapes(function: Attention) -> dict[str, Shape]:
    """How the shapes of an emitted function's inputs hang on its sizes."""
    module = sys.modules[inspect.unwrap(function).__module__]
    return {name: shape for name, (_, shape) in module.INPUTS.items()}


def first(shape: Shape, table: torch.Tensor, n: int, heads: int) -> torch.Tensor:
    """A table without the entries of tokens that are not there yet."""
    wanted, longer = (shape(length, heads, 1) for length in (n, n + _MORE))
    offset = table.dim() - len(wanted)
    for axis, (size, grown) in enumerate(zip(wanted, longer, strict=True)):
        if size != grown and 0 <= axis + offset < table.dim() and table.shape[axis + offset] > size:
            table = table.narrow(axis + offset, 0, size)
    return table


@dataclass(frozen=True)
class Cut:
    """An input, cut to one sequence of several."""

    name: str
    shape: Shape
    table: torch.Tensor
    n: int
    heads: int

    def between(self, rows: torch.Tensor | None, start: int, stop: int) -> torch.Tensor:
        """The entries of tokens ``start`` to ``stop`` in some rows. ``ValueError`` where blocks are cut."""
        wanted, longer = (self.shape(n, self.heads, 1) for n in (self.n, self.n + _MORE))
        table = self.table
        offset = table.dim() - len(wanted)
        if offset == 1 and rows is not None:
            table = table[rows]
        for axis, (size, grown) in enumerate(zip(wanted, longer, strict=True)):
            if size == grown or stop - start == self.n:
                continue
            if size != self.n or grown != self.n + _MORE:
                raise ValueError(
                    f"its input `{self.name}` has entries for blocks of tokens, which padding and packed "
                    "sequences would cut: give the model sequences without padding"
                )
            table = table.narrow(axis + offset, start, stop - start)
        return table

"""Sequences within a padded or packed batch: where they lie, and what of an input belongs to each.

What goes through a model as its attention mask is an int32 tensor (batch, 1, 1, keys) that says of every key
which sequence it belongs to, counted from 1, or that it is padding or not written yet.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Sequence
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


class Latest:
    """What was found for some tensors last, while they are the same objects and nobody writes to them."""

    def __init__(self) -> None:
        self._kept: tuple[list[tuple[weakref.ref[torch.Tensor], int] | None], torch.Tensor | None] | None = (
            None
        )

    def get(self, tensors: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None] | None:
        kept = self._kept
        if (
            kept is None
            or len(kept[0]) != len(tensors)
            or any(x is not None and x.is_inference() for x in tensors)
        ):
            return None
        for x, known in zip(tensors, kept[0], strict=True):
            if (x is None) != (known is None):
                return None
            if x is not None and known is not None and (known[0]() is not x or known[1] != x._version):
                return None
        return (kept[1],)

    def keep(self, tensors: Sequence[torch.Tensor | None], found: torch.Tensor | None) -> torch.Tensor | None:
        if not any(x is not None and x.is_inference() for x in tensors):  # which count no versions
            known = [None if x is None else (weakref.ref(x), x._version) for x in tensors]
            self._kept = known, found
        return found

    def forget(self) -> None:
        self._kept = None


def told_apart(
    numbers: torch.Tensor,
    positions: torch.Tensor | None,
    first: int,
    groups: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """``numbers`` with packed sequences told apart, and where one begins that ``numbers`` did not know of.

    positions: (batch or 1, n_q) of the tokens from ``first`` on; a sequence's go up one by one, or by as many
    as there are columns from one token to the next where padding lies between. Tokens of earlier calls have
    none: as many belong to the first sequence of this call as there are positions before its first.
    groups: each (batch or 1, keys), the same for all tokens of a sequence.
    """
    known = numbers[:, 0, 0].long()
    real = known > PADDING
    at = torch.arange(known.shape[1], device=known.device).expand(known.shape)
    place = at
    if positions is not None:
        own = positions.to(known.device).long().expand(known.shape[0], -1)
        last = first + own.shape[1]
        begun = real[:, first:last].long().argmax(1, keepdim=True)
        past = own.gather(1, begun) - real[:, :first].sum(1, keepdim=True) + real[:, :first].cumsum(1) - 1
        place = torch.cat([past, own, at[:, last:]], 1)
    columns = torch.where(real, at, -1).cummax(1).values
    before = torch.nn.functional.pad(columns[:, :-1], (1, 0), value=-1)
    after, before = before >= 0, before.clamp(min=0)
    step = place - place.gather(1, before)
    starts = (step != 1) & (step != at - before) | (place == 0)
    for group in groups:
        group = group.to(known.device).expand(known.shape)
        starts = starts | (group != group.gather(1, before))
    same = known == known.gather(1, before)
    starts = (starts | ~same) & real & after
    found = torch.where(real, starts.cumsum(1) + 1, known).to(numbers.dtype)
    return found[:, None, None], starts & same


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

"""Runs of tiles, row by row, and their union."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.int8]

PARTIAL, FULL = 1, 2


@dataclass(frozen=True)
class Runs:
    """Runs of column tiles by row of tiles: row ``i`` has those from ``offsets[i]`` to ``offsets[i + 1]``."""

    offsets: Ints
    start: Ints
    stop: Ints
    kind: Kinds

    @staticmethod
    def none(rows: int) -> Runs:
        nothing = np.zeros(0, dtype=np.int64)
        return Runs(np.zeros(rows + 1, dtype=np.int64), nothing, nothing, nothing.astype(np.int8))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.offsets, self.start, self.stop, self.kind))

    def of_row(self, i: int) -> tuple[Ints, Ints, Kinds]:
        here = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return self.start[here], self.stop[here], self.kind[here]

    def row_of(self) -> Ints:
        """For every run, its row of tiles."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int64), np.diff(self.offsets))


@dataclass(frozen=True)
class Scattered:
    """Column tiles of a scattered set. Row ``i`` reads those in ``start[i] <= j < stop[i]``.

    ``full_start`` and ``full_stop`` bound those that it reads in full, where the set holds all of the tile.
    """

    columns: Ints
    kinds: Kinds
    start: Ints
    stop: Ints
    full_start: Ints
    full_stop: Ints

    @property
    def nbytes(self) -> int:
        parts = (self.columns, self.kinds, self.start, self.stop, self.full_start, self.full_stop)
        return sum(part.nbytes for part in parts)

    def of_row(self, i: int) -> tuple[Ints, Kinds]:
        a, b = np.searchsorted(self.columns, (self.start[i], self.stop[i]))
        picked, kinds = self.columns[a:b], self.kinds[a:b].copy()
        kinds[(picked < self.full_start[i]) | (picked >= self.full_stop[i])] = PARTIAL
        return picked, kinds

    def _within(self, start: Ints, stop: Ints, full: bool) -> Ints:
        columns = self.columns[self.kinds == FULL] if full else self.columns
        found = np.searchsorted(columns, stop) - np.searchsorted(columns, start)
        return np.asarray(np.maximum(found, 0), dtype=np.int64)

    def beyond(self, runs: Runs) -> tuple[int, int, int]:
        """Beside ``runs``: how many more are PARTIAL, how many more FULL, how many PARTIAL become FULL."""
        row = runs.row_of()
        # All of its tiles, then those that are full; each less what the runs have already.
        everything = int(self._within(self.start, self.stop, False).sum())
        full = int(self._within(self.full_start, self.full_stop, True).sum())
        a, b = np.maximum(runs.start, self.start[row]), np.minimum(runs.stop, self.stop[row])
        shared = int(self._within(a, b, False).sum())
        a, b = np.maximum(runs.start, self.full_start[row]), np.minimum(runs.stop, self.full_stop[row])
        shared_full = self._within(a, b, True)
        upgraded = int(shared_full[runs.kind == PARTIAL].sum())
        more_full = full - int(shared_full.sum())
        return everything - shared - more_full, more_full, upgraded


def merge(row: Ints, start: Ints, stop: Ints, kind: npt.NDArray[Any], rows: int, columns: int) -> Runs:
    """Any runs as disjoint ones, sorted; where several overlap the fullest counts."""
    merged, _ = swept(row, start, stop, kind, rows, columns)
    return merged


def swept(
    row: Ints, start: Ints, stop: Ints, kind: npt.NDArray[Any], rows: int, columns: int
) -> tuple[Runs, npt.NDArray[np.bool_]]:
    """``merge``, and for every resulting run whether several PARTIAL ones meet in it."""
    real = start < stop
    row, start, stop, kind = row[real], start[real], stop[real], kind[real]
    width = columns + 1
    place = np.concatenate((row * width + start, row * width + stop))
    step = np.repeat(np.array([1, -1]), len(row))
    full = np.tile((kind == FULL).astype(np.int64), 2) * step
    order = np.argsort(place, kind="stable")
    at, which = np.unique(place[order], return_index=True)
    if not len(at):
        return Runs.none(rows), np.zeros(0, dtype=np.bool_)
    depth = np.cumsum(np.add.reduceat(step[order], which))
    depth_full = np.cumsum(np.add.reduceat(full[order], which))
    kinds = np.where(depth_full > 0, FULL, np.where(depth > 0, PARTIAL, 0)).astype(np.int8)
    shared = (depth > 1) & (kinds == PARTIAL)
    # Neighbours of one kind become one run.
    changed = np.ones(len(at), dtype=np.bool_)
    changed[1:] = (kinds[1:] != kinds[:-1]) | (shared[1:] != shared[:-1])
    at, kinds, shared = at[changed], kinds[changed], shared[changed]
    ends = np.append(at[1:], at[-1:])
    held = kinds > 0
    at, ends, kinds, shared = at[held], ends[held], kinds[held], shared[held]
    of = at // width
    offsets = np.searchsorted(of, np.arange(rows + 1))
    return Runs(offsets, at - of * width, ends - of * width, kinds), shared

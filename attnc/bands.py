"""The interval of a term at tile size: which tiles every row of tiles touches, and which in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc.expression import (
    TRUE,
    Expr,
    Q,
    Var,
    fold,
)
from attnc.intervals import Tile, bounds, direction
from attnc.relation import Term
from attnc.runs import FULL, PARTIAL, Ints
from attnc.tiles import Tiles

Piece = tuple[Ints, Ints, Ints, npt.NDArray[Any]]

_ROWS = Tile({Q: (Var("q0"), Var("q1"))})


@dataclass(frozen=True)
class Band:
    """For every row of tiles: positions touched, and positions that all of its rows read (both inclusive)."""

    low: Ints
    high: Ints
    full_low: Ints
    full_high: Ints

    def touched(self, tiles: Tiles) -> tuple[Ints, Ints]:
        start, stop = self.low // tiles.size, self.high // tiles.size + 1
        nothing = self.low > self.high
        return np.where(nothing, 0, start), np.where(nothing, 0, stop)

    def full(self, tiles: Tiles) -> tuple[Ints, Ints]:
        start = -(-self.full_low // tiles.size)
        stop = np.where(self.full_high >= tiles.n - 1, tiles.count, (self.full_high + 1) // tiles.size)
        nothing = start >= stop
        return np.where(nothing, 0, start), np.where(nothing, 0, stop)


def around(rows: Ints, start: Ints, stop: Ints, full_start: Ints, full_stop: Ints) -> list[Piece]:
    """A run as its ragged left end, its full middle and its ragged right end."""
    nothing = full_start >= full_stop
    middle = np.where(nothing, stop, full_start), np.where(nothing, stop, full_stop)
    partial, full = np.full(len(rows), PARTIAL), np.full(len(rows), FULL)
    return [(rows, start, middle[0], partial), (rows, *middle, full), (rows, middle[1], stop, partial)]


def band_of(term: Term, tiles: Tiles) -> tuple[Band, bool]:
    """The interval part of a term, and whether nothing else keeps a row of it from reading all of it."""
    low, high = fold(term.low), fold(term.high)
    row_first, row_last = fold(term.rows.first), fold(term.rows.last)
    left = int(tiles.value(fold(term.columns.first)))
    right = int(tiles.value(fold(term.columns.last)))
    left, right = max(left, 0), min(right, tiles.n - 1)
    chosen = fold(term.rows.selection())
    exact = True
    if not tiles.knows(low):
        low, exact = fold(term.columns.first), False
    if not tiles.knows(high):
        high, exact = fold(term.columns.last), False
    if not tiles.knows(chosen):
        chosen, exact = TRUE, False
    a, b = max(int(tiles.value(row_first)), 0), min(int(tiles.value(row_last)), tiles.n - 1)
    monotone = all(direction(expr, Q) in (0, 1) for expr in (low, high))
    if chosen == TRUE and monotone:
        q0, q1 = np.maximum(tiles.first, a), np.minimum(tiles.last, b)
        none = q0 > q1
        whole = (tiles.first >= a) & (tiles.last <= b)
        lows, highs = (
            [
                np.broadcast_to(tiles.value(end, q0=q0, q1=q1), q0.shape)
                for end in bounds(expr, _ROWS)
                if end is not None
            ]
            for expr in (low, high)
        )
        band = Band(*(np.array(part, dtype=np.int64) for part in (lows[0], highs[1], lows[1], highs[0])))
    else:
        band, none, whole = _band_by_rows(low, high, chosen, (a, b), (left, right), tiles)
    return (
        Band(
            np.where(none, 1, np.maximum(band.low, left)),
            np.where(none, 0, np.minimum(band.high, right)),
            np.where(whole, np.maximum(band.full_low, left), 1),
            np.where(whole, np.minimum(band.full_high, right), 0),
        ),
        exact,
    )


def _band_by_rows(
    low: Expr, high: Expr, chosen: Expr, rows: tuple[int, int], columns: tuple[int, int], tiles: Tiles
) -> tuple[Band, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The band from every row, for bounds that jump and rows that are picked out."""
    parts: list[list[Ints]] = [[], [], [], []]
    none: list[npt.NDArray[np.bool_]] = []
    whole: list[npt.NDArray[np.bool_]] = []
    far = np.int64(1 << 62)
    for _, q in tiles.spans():
        a = np.maximum(np.broadcast_to(tiles.value(low, q=q), q.shape), columns[0])
        b = np.minimum(np.broadcast_to(tiles.value(high, q=q), q.shape), columns[1])
        held = (q >= rows[0]) & (q <= rows[1]) & (a <= b) & tiles.value(chosen, q=q)
        edges = np.arange(0, len(q), tiles.size)
        parts[0].append(np.minimum.reduceat(np.where(held, a, far), edges))
        parts[1].append(np.maximum.reduceat(np.where(held, b, -far), edges))
        parts[2].append(np.maximum.reduceat(a, edges))
        parts[3].append(np.minimum.reduceat(b, edges))
        none.append(~np.logical_or.reduceat(held, edges))
        whole.append(np.logical_and.reduceat(held, edges))
    band = Band(*(np.concatenate(part).astype(np.int64) for part in parts))
    return band, np.concatenate(none), np.concatenate(whole)

"""Conditions that are no intervals, decided for squares of tiles that are halved until they are clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attnc.bands import Band, Piece, around
from attnc.expression import (
    And,
    Expr,
    K,
    Lookup,
    Not,
    Or,
    PowerOfTwo,
    Q,
    Var,
    conj,
    disj,
    eq,
    negate,
    substitute,
    walk,
)
from attnc.intervals import Tile, may, must
from attnc.runs import FULL, Ints, Kinds
from attnc.tiles import Tiles

# Undecided squares that would fall into more rows of tiles than this stay PARTIAL as they are.
MOST_ROWS = 1 << 17

_SQUARE = Tile({Q: (Var("q0"), Var("q1")), K: (Var("k0"), Var("k1"))})


@dataclass(frozen=True)
class Looked:
    """Integer inputs read at the row or the column: as variables, with their extremes in every tile."""

    names: Mapping[Expr, Expr]
    sides: Mapping[str, Var]
    low: Mapping[str, Ints]
    high: Mapping[str, Ints]

    @staticmethod
    def of(conditions: Sequence[Expr], tiles: Tiles) -> Looked:
        names: dict[Expr, Expr] = {}
        sides: dict[str, Var] = {}
        low: dict[str, Ints] = {}
        high: dict[str, Ints] = {}
        for part in (part for condition in conditions for part in walk(condition)):
            match part:
                case Lookup(table, (Var() as side,), "int") if tiles.knows(part) and side in (Q, K):
                    name = f"{table}@{side.name}"
                    names[part], sides[name] = Var(name), side
                    low[name], high[name] = tiles.extremes(part, side.name)
        return Looked(names, sides, low, high)

    def renamed(self, condition: Expr) -> Expr:
        return substitute(condition, self.names)

    def square(self) -> Tile:
        more = {Var(name): (Var(f"{name}0"), Var(f"{name}1")) for name in self.sides}
        return Tile({**_SQUARE.ranges, **more})

    def ends(self, i: Ints, j: Ints, side: int) -> dict[str, Ints]:
        """Extremes over squares with corners ``i``, ``j``."""
        found: dict[str, Ints] = {}
        for name, var in self.sides.items():
            groups = np.arange(0, len(self.low[name]), side)
            at = (i if var == Q else j) // side
            found[f"{name}0"] = np.minimum.reduceat(self.low[name], groups)[at]
            found[f"{name}1"] = np.maximum.reduceat(self.high[name], groups)[at]
        return found


def powers_listed(condition: Expr, n: int) -> Expr:
    """Membership in the powers of two written out: there are few below ``n``."""
    match condition:
        case PowerOfTwo(body):
            return disj(*(eq(body, power) for power in (0, *(1 << i for i in range(n.bit_length())))))
        case Not(PowerOfTwo() as inner):
            return negate(powers_listed(inner, n))
        case And(args):
            return conj(*(powers_listed(arg, n) for arg in args))
        case Or(args):
            return disj(*(powers_listed(arg, n) for arg in args))
    return condition


def quadtree(
    masks: Sequence[Expr], looked: Looked, band: Band, columns: Kinds, exact: bool, tiles: Tiles
) -> Piece:
    """Squares of tiles, halved until nothing or everything of them is in the relation."""
    condition, square = conj(*masks), looked.square()
    perhaps, surely = may(condition, square), must(condition, square)
    whole = np.concatenate(([0], np.cumsum(columns == FULL)))
    live = np.concatenate(([0], np.cumsum(columns > 0)))
    start, stop = band.touched(tiles)
    full_start, full_stop = band.full(tiles)
    far = np.where(start < stop, start, tiles.count)
    side = 1 << max(tiles.count - 1, 0).bit_length()
    i, j = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    pieces: list[Piece] = []
    while len(i):
        groups = np.arange(0, tiles.count, side)
        lows, highs = (
            np.minimum.reduceat(far, groups)[i // side],
            np.maximum.reduceat(stop, groups)[i // side],
        )
        kept = (j < highs) & (j + side > lows) & (live[np.minimum(j + side, tiles.count)] > live[j])
        i, j = i[kept], j[kept]
        if not len(i):
            break
        i1, j1 = np.minimum(i + side, tiles.count), np.minimum(j + side, tiles.count)
        ends = {
            "q0": i * tiles.size,
            "q1": np.minimum(i1 * tiles.size, tiles.n) - 1,
            "k0": j * tiles.size,
            "k1": np.minimum(j1 * tiles.size, tiles.n) - 1,
            **looked.ends(i, j, side),
        }
        some = np.broadcast_to(tiles.value(perhaps, **ends), i.shape)
        every = np.broadcast_to(tiles.value(surely, **ends), i.shape) & some
        every = every & (whole[j1] - whole[j] == j1 - j)
        stuck = side == 1 or 2 * side * int((some & ~every).sum()) > MOST_ROWS
        done = some if stuck else every
        height = (i1 - i)[done]
        place = np.arange(int(height.sum())) - np.repeat(np.cumsum(height) - height, height)
        row = np.repeat(i[done], height) + place
        left, right = np.repeat(j[done], height), np.repeat(j1[done], height)
        sure = np.repeat(every[done], height) & exact
        run = row, np.maximum(start[row], left), np.minimum(stop[row], right)
        inside = np.maximum(full_start[row], left), np.minimum(full_stop[row], right)
        pieces += around(*run, np.where(sure, inside[0], 0), np.where(sure, inside[1], 0))
        if stuck:
            break
        again = some & ~every
        side //= 2
        i = np.concatenate([i[again] + step for step in (0, 0, side, side)])
        j = np.concatenate([j[again] + step for step in (0, side, 0, side)])
        real = (i < tiles.count) & (j < tiles.count)
        i, j = i[real], j[real]
    if not pieces:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing, nothing
    row, a, b, kind = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return row, a, b, kind

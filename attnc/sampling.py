"""What a plan computes for sample inputs, counted tile by tile beside the edges of the mask.

Where the contents of inputs decide what a tile visits, nothing can be counted beforehand. Here the inputs are
those of ``attnc.fills``, at a length at which the mask can be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.counting import edges_each, tile_and_step
from attnc.digits import PLAIN
from attnc.draws import block_size
from attnc.evaluation import WORD, Env, evaluate, farthest
from attnc.expression import (
    TRUE,
    Expr,
    Lookup,
    TileMax,
    TileMin,
    Var,
    constant,
    fold,
    substitute,
    tables,
    walk,
)
from attnc.fills import chosen, filled
from attnc.pattern import Body, Pattern, formula
from attnc.schedule import LEAST, MOST, Pass, Sweep, Walk, tile_ends
from attnc.tiles import Tables

# The longest sequence whose mask is looked at, and how many of its rows at a time.
LONGEST = 1 << 11
ROWS = 1 << 8
# The longest for relations with numbers of more than 64 bits, which Python counts one by one.
FEW = 1 << 8

# Where a sweep ends that goes on for ever.
FAR = 1 << 40

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tiles:
    """The tiles of a pass: their positions one after the other, where each begins, and its ends by name."""

    rows: Ints
    starts: Ints
    ends: dict[str, Ints]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.starts, append=len(self.rows))


@dataclass(frozen=True)
class Visits:
    """What every tile of a pass computes in one sweep: positions of the other side.

    full, masked: in whole steps, without and with a mask. alone: taken one by one.
    """

    full: Ints
    masked: Ints
    alone: Ints


@dataclass(frozen=True)
class Sample:
    """One head of a body at a length, with sample inputs.

    head, heads: the first head that has the body, and of how many. fills: how inputs are filled, by name.
    """

    pattern: Pattern
    body: Body
    n: int
    head: int
    heads: int
    fills: Mapping[str, str] | None = None

    @staticmethod
    def of(pattern: Pattern, body: Body, n: int = LONGEST) -> Sample | None:
        """None where no head of eight or fewer has the body."""
        condition = fold(body.heads.condition)
        if farthest(formula(body.relation), n) > WORD:
            n = min(n, FEW)
        for heads in range(1, 9):
            for head in range(heads):
                if evaluate(condition, Env({"h": head, "H": heads})):
                    return Sample(pattern, body, n, head, heads)
        return None

    @cached_property
    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        return filled(self.pattern, self.n, self.heads, self.fills, dim=0)

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.inputs)

    def words(self) -> str:
        """What the inputs hold that the relation reads, such as ``x=runs:8``; empty where it reads none."""
        read = tables(formula(self.body.relation))
        return ", ".join(
            f"{name}={word}" for name, word in chosen(self.pattern, self.fills).items() if name in read
        )

    def edges(self, most: int | None = None) -> int:
        """The edges of the head, counted in the mask; of longer sequences, in ``most`` rows of it.

        Of every stripe of rows one is drawn: evenly spaced ones would fall in step with a stride.
        """
        relation, keys, total = formula(self.body.relation), np.arange(self.n), 0
        chosen = keys
        if most is not None and most < self.n:
            bounds = np.linspace(0, self.n, most + 1).astype(np.int64)
            chosen = np.random.default_rng(0).integers(bounds[:-1], bounds[1:])
        for start in range(0, len(chosen), ROWS):
            rows = chosen[start : start + ROWS]
            held = self._value(relation, q=rows[:, None], k=keys[None, :])
            total += int(np.broadcast_to(held, (len(rows), self.n)).sum())
        return round(total * self.n / len(chosen)) if len(chosen) else 0

    def computed(self, passes: Iterable[Pass]) -> int:
        """Pairs that the forward passes compute, at the tiles of 16-bit tensors of dim 128."""
        total = 0
        for part in passes:
            tile, step = tile_and_step(part)
            tiles = self.tiles(part, tile)
            for sweep in part.sweeps:
                found = self.visits(part, sweep, tiles, step)
                total += tile * int((found.full + found.masked + found.alone).sum())
        return total

    def tiles(self, part: Pass, tile: int) -> Tiles:
        """The tiles of a pass, of ``tile`` positions each."""
        walked = part.walk
        own = np.arange(self.n)
        mine = own[np.broadcast_to(self._value(walked.condition(), **{walked.var.name: own}), own.shape)]
        names = list(tile_ends(walked.var, walked.radix, part.extents).values())
        if walked.radix == PLAIN:
            (first, last), *_ = names
            starts = np.arange(0, len(mine), tile)
            stops = np.minimum(starts + tile, len(mine))
            return Tiles(mine, starts, {first.name: mine[starts], last.name: mine[stops - 1]})
        digits = np.stack(
            [
                np.broadcast_to(self._value(d, **{walked.var.name: mine}), mine.shape)
                for d in walked.radix.of(walked.var)
            ]
        )
        spans = [max(1, tile // prod(part.extents)), *part.extents]
        lows = [0, *(int(self._value(low)) for low, _ in walked.ranges)]
        numbers = (digits - np.array(lows)[:, None]) // np.array(spans)[:, None]
        order = np.lexsort(numbers[::-1])
        numbers = numbers[:, order]
        begins = np.any(numbers[:, 1:] != numbers[:, :-1], axis=0)
        starts = np.flatnonzero(np.concatenate((np.ones(min(len(mine), 1), bool), begins)))
        ends: dict[str, Ints] = {}
        for (first, last), digit in zip(names, digits[:, order], strict=True):
            ends[first.name] = _reduced(np.minimum, digit, starts)
            ends[last.name] = _reduced(np.maximum, digit, starts)
        return Tiles(mine[order], starts, ends)

    def visits(self, part: Pass, sweep: Sweep, tiles: Tiles, step: int) -> Visits:
        """What every tile of a pass computes in a sweep that takes ``step`` positions at a time."""
        count, none = len(tiles.starts), np.zeros(len(tiles.starts), dtype=np.int64)
        used = np.broadcast_to(self._at(sweep.when, part, tiles), count)
        if sweep.scatter is not None:
            return Visits(none, none, np.where(used, edges_each(sweep, self.n), 0))
        if sweep.drawn is not None:
            size = block_size(sweep.drawn)
            blocks = -(-tiles.lengths // size)
            places = (constant(sweep.drawn.count) or 1) * max(size, step) * blocks
            return Visits(none, np.where(used, np.minimum(places, self.n), 0), none)

        def ends(bounds: Iterable[Expr]) -> list[Ints]:
            values = (np.broadcast_to(self._at(bound, part, tiles), count) for bound in bounds)
            return [np.clip(value, -FAR, FAR).astype(np.int64) for value in values]

        lows, highs = ends(sweep.low), ends(sweep.high)
        width = np.ones(count, dtype=np.int64)
        for low, high in zip(lows[1:], highs[1:], strict=True):
            width = width * np.maximum(high - low + 1, 0)
        if sweep.worth != TRUE:
            there = used & (width > 0) & (lows[0] <= highs[0])
            masked = self._worthwhile(part, sweep, tiles, lows[0], highs[0], width, there, step)
            return Visits(none, masked, none)
        rank = None if sweep.walk.members is None else self._rank(sweep.walk)

        def place(row: Ints) -> Ints:
            return row * width if rank is None else rank[np.clip(row, 0, self.n)]

        begin, end = place(lows[0]), place(highs[0] + 1)
        first, last = ends((sweep.full_low, sweep.full_high))
        unmasked = self._at(sweep.full_when, part, tiles)
        full, masked = cut(begin, end, place(first), np.where(unmasked, place(last + 1), 0), step)
        return Visits(np.where(used, full, 0) * step, np.where(used, masked, 0) * step, none)

    def _rank(self, walk: Walk) -> Ints:
        """How many packed positions there are before each position."""
        others = np.arange(self.n)
        held = self._value(walk.condition(), **{walk.var.name: others})
        return np.concatenate(([0], np.cumsum(np.broadcast_to(held, others.shape))))

    def _value(self, expr: Expr, **places: Any) -> Any:
        known = {"n": self.n, "h": self.head, "H": self.heads, **places}
        read = self._tables if tables(expr) else Tables({})
        return evaluate(expr, Env(known, read, draws.drawn))

    def _at(self, expr: Expr, part: Pass, tiles: Tiles) -> Any:
        """The value for every tile: of what is looked up, the least and greatest over its own rows."""
        known, values = self._reading(expr, part, tiles)
        return self._value(known, **values)

    def _reading(self, expr: Expr, part: Pass, tiles: Tiles) -> tuple[Expr, dict[str, Ints]]:
        """The same of what was looked up in each tile, by names; and what the names stand for."""
        names: dict[Expr, Expr] = {}
        values = dict(tiles.ends)
        for piece in walk(expr):
            if isinstance(piece, (TileMin, TileMax)) and isinstance(piece.body, Lookup):
                found = np.asarray(self._value(piece.body, **{part.walk.var.name: tiles.rows}))
                least = np.minimum if isinstance(piece, TileMin) else np.maximum
                name = f"looked{len(names)}"
                names[piece], values[name] = Var(name), _reduced(least, found, tiles.starts)
        return substitute(expr, names), values

    def _worthwhile(
        self,
        part: Pass,
        sweep: Sweep,
        tiles: Tiles,
        low: Ints,
        high: Ints,
        width: Ints,
        there: Bools,
        step: int,
    ) -> Ints:
        """The places of the steps that are looked into, where one by one it is asked whether they are."""
        some = np.maximum(step // np.maximum(width, 1), 1)  # values of the first digit in a step
        counts = np.where(there, -(-(high - low + 1) // some), 0)
        tile = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(tile)) - np.repeat(np.cumsum(counts) - counts, counts)
        least = low[tile] + number * some[tile]
        most = np.minimum(least + some[tile] - 1, high[tile])
        expr, values = self._reading(sweep.worth, part, tiles)
        values = {name: value[tile] for name, value in values.items()}
        held = np.broadcast_to(
            self._value(expr, **{**values, LEAST.name: least, MOST.name: most}), least.shape
        )
        return np.bincount(tile, held, len(counts)).astype(np.int64) * step


def cut(begin: Ints, end: Ints, full_begin: Ints, full_end: Ints, step: int) -> tuple[Ints, Ints]:
    """The steps of a sweep over places ``[begin, end)``, without a mask and with one, as kernels cut them.

    ``[full_begin, full_end)``: where none is needed.
    """
    start = np.minimum(np.maximum(full_begin, begin), np.maximum(end, begin))
    leading = -(-(start - begin) // step)
    middle = begin + leading * step
    full = np.maximum((np.minimum(full_end, end) - middle) // step, 0)
    trailing = -(-np.maximum(end - middle - full * step, 0) // step)
    return full, leading + trailing


def _reduced(by: np.ufunc, values: npt.NDArray[Any], starts: Ints) -> Ints:
    """The least or greatest of every tile's values."""
    return by.reduceat(values, starts) if len(starts) else values[:0]

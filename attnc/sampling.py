"""What a plan computes for sample inputs, counted tile by tile beside the edges of the mask.

Where the contents of inputs decide what a tile visits, nothing can be counted beforehand. Here the inputs are
those of ``attnc.fills``, at a length at which the mask can be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.counting import STEP, TILE, edges_each
from attnc.digits import PLAIN
from attnc.draws import block_size
from attnc.evaluation import WORD, Env, evaluate, farthest
from attnc.expression import (
    TRUE,
    Const,
    Expr,
    Lookup,
    TileMax,
    TileMin,
    constant,
    fold,
    substitute,
    tables,
    walk,
)
from attnc.fills import chosen, filled
from attnc.pattern import Body, Pattern, formula
from attnc.schedule import LEAST, MOST, Pass, Sweep, tile_ends
from attnc.tiles import Tables

# The longest sequence whose mask is looked at, and how many of its rows at a time.
LONGEST = 1 << 11
ROWS = 1 << 8
# The longest for relations with numbers of more than 64 bits, which Python counts one by one.
FEW = 1 << 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One head of a body at a length, with sample inputs.

    head, heads: the first head that has the body, and of how many.
    """

    pattern: Pattern
    body: Body
    n: int
    head: int
    heads: int

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
        return filled(self.pattern, self.n, self.heads, dim=0)

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.inputs)

    def words(self) -> str:
        """What the inputs hold that the relation reads, such as ``x=runs:8``; empty where it reads none."""
        read = tables(formula(self.body.relation))
        return ", ".join(f"{name}={word}" for name, word in chosen(self.pattern).items() if name in read)

    def edges(self) -> int:
        """The edges of the head, counted in the mask."""
        relation, keys, total = formula(self.body.relation), np.arange(self.n), 0
        for start in range(0, self.n, ROWS):
            rows = keys[start : start + ROWS]
            held = self._value(relation, q=rows[:, None], k=keys[None, :])
            total += int(np.broadcast_to(held, (len(rows), self.n)).sum())
        return total

    def computed(self, passes: Iterable[Pass]) -> int:
        """Pairs that the forward passes compute, at the tiles of 16-bit tensors of dim 128."""
        return sum(self._of_pass(part) for part in passes)

    def _value(self, expr: Expr, **places: Any) -> Any:
        known = {"n": self.n, "h": self.head, "H": self.heads, **places}
        return evaluate(expr, Env(known, self._tables, draws.drawn))

    def _of_pass(self, part: Pass) -> int:
        tile, total = (TILE // 2 if part.narrow else TILE), 0
        for rows, ends in self._tiles(part, tile):
            for sweep in part.sweeps:
                if self._at(sweep.when, part, rows, ends):
                    total += tile * self._visited(part, sweep, rows, ends)
        return total

    def _tiles(self, part: Pass, tile: int) -> Iterator[tuple[Ints, dict[str, int]]]:
        """The positions of every tile of a pass, and its ends by name."""
        walked = part.walk
        own = np.arange(self.n)
        mine = own[np.broadcast_to(self._value(walked.condition(), **{walked.var.name: own}), own.shape)]
        names = list(tile_ends(walked.var, walked.radix, part.extents).values())
        if walked.radix == PLAIN:
            (first, last), *_ = names
            for start in range(0, len(mine), tile):
                rows = mine[start : start + tile]
                yield rows, {first.name: int(rows[0]), last.name: int(rows[-1])}
            return
        digits = [
            np.broadcast_to(self._value(d, **{walked.var.name: mine}), mine.shape)
            for d in walked.radix.of(walked.var)
        ]
        spans = [max(1, tile // prod(part.extents)), *part.extents]
        lows = [0, *(int(self._value(low)) for low, _ in walked.ranges)]
        numbers = np.stack([(d - low) // span for d, low, span in zip(digits, lows, spans, strict=True)])
        for number in np.unique(numbers, axis=1).T:
            held = (numbers == number[:, None]).all(0)
            ends: dict[str, int] = {}
            for (first, last), digit in zip(names, digits, strict=True):
                ends |= {first.name: int(digit[held].min()), last.name: int(digit[held].max())}
            yield mine[held], ends

    def _at(self, expr: Expr, part: Pass, rows: Ints, ends: dict[str, int], **places: Any) -> Any:
        """The value for a tile: of what is looked up, the least and greatest over its own rows."""
        reduced: dict[Expr, Expr] = {}
        for piece in walk(expr):
            if isinstance(piece, (TileMin, TileMax)) and isinstance(piece.body, Lookup):
                values = np.asarray(self._value(piece.body, **{part.walk.var.name: rows}))
                reduced[piece] = Const(int(values.min() if isinstance(piece, TileMin) else values.max()))
        return self._value(substitute(expr, reduced), **ends, **places)

    def _visited(self, part: Pass, sweep: Sweep, rows: Ints, ends: dict[str, int]) -> int:
        """How many positions of the other side a tile computes."""
        if sweep.scatter is not None:
            return edges_each(sweep, self.n)
        if sweep.drawn is not None:
            size = block_size(sweep.drawn)
            return min((constant(sweep.drawn.count) or 1) * max(size, STEP) * -(-len(rows) // size), self.n)
        lows = [int(self._at(low, part, rows, ends)) for low in sweep.low]
        highs = [int(self._at(high, part, rows, ends)) for high in sweep.high]
        if sweep.walk.members is not None:
            others = np.arange(max(lows[0], 0), min(highs[0], self.n - 1) + 1)
            held = self._value(sweep.walk.members, **{sweep.walk.var.name: others})
            return _whole(int(np.broadcast_to(held, others.shape).sum()))
        width = prod(max(high - low + 1, 0) for low, high in zip(lows[1:], highs[1:], strict=True))
        if not width or highs[0] < lows[0]:
            return 0
        if sweep.worth == TRUE:
            return _whole(width * (highs[0] - lows[0] + 1))
        some = max(STEP // width, 1)  # values of the first digit in a tile
        least = np.arange(lows[0], highs[0] + 1, some)
        most = np.minimum(least + some - 1, highs[0])
        limits = {LEAST.name: least, MOST.name: most}
        held = np.broadcast_to(self._at(sweep.worth, part, rows, ends, **limits), least.shape)
        return int(held.sum()) * STEP


def _whole(count: int) -> int:
    return -(-count // STEP) * STEP

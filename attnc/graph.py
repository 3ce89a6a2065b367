"""The block-connectivity graph: which tile of queries reads which tile of keys.

Held row by row as runs of key tiles, plus one list of key tiles where a scattered set is read by whole ranges
of rows: never as a matrix of tiles, let alone of tokens. A window over a million tokens takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from attnc.relation import BodyTerms
from attnc.runs import Runs, Scattered, merge
from attnc.tiles import Tiles
from attnc.tiling import classify, filled

if TYPE_CHECKING:
    import networkx as nx

# A drawing or an analysis of more edges than this wants a coarser tile.
MOST_EDGES = 2_000_000


class Kind(IntEnum):
    """What a pair of tiles holds: no edge, some or maybe none, every pair."""

    EMPTY = 0
    PARTIAL = 1
    FULL = 2


@dataclass(frozen=True)
class Run:
    """Key tiles ``start <= j < stop`` that one query tile reads, all of one kind."""

    start: int
    stop: int
    kind: Kind


@dataclass(frozen=True)
class BlockGraph:
    """A relation at tile size ``tile`` for ``n`` queries and ``n`` keys.

    EMPTY pairs hold no edge and FULL pairs every one; PARTIAL is everything else, and what could not be
    decided: conditions on inputs that were not given, for one.

    runs: disjoint runs of key tiles, by query tile. scattered: key tiles that a range of them is cut to.
    """

    n: int
    tile: int
    runs: Runs
    scattered: Scattered | None = None

    @property
    def tiles(self) -> int:
        """How many tiles a side has; the last one may be ragged."""
        return -(-self.n // self.tile)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.runs.nbytes + (0 if self.scattered is None else self.scattered.nbytes)

    def kind(self, i: int, j: int) -> Kind:
        """What query tile ``i`` and key tile ``j`` hold. Raises IndexError outside the graph."""
        if not (0 <= i < self.tiles and 0 <= j < self.tiles):
            raise IndexError(f"tile ({i}, {j}) lies outside a graph of {self.tiles} x {self.tiles} tiles")
        return max((run.kind for run in self.row(i) if run.start <= j < run.stop), default=Kind.EMPTY)

    def row(self, i: int) -> tuple[Run, ...]:
        """The runs of key tiles that query tile ``i`` reads, from left to right; EMPTY ones are left out."""
        start, stop, kind = self.runs.of_row(i)
        if self.scattered is not None:
            picked, kinds = self.scattered.of_row(i)
            merged = merge(
                np.zeros(len(start) + len(picked), dtype=np.int64),
                np.concatenate((start, picked)),
                np.concatenate((stop, picked + 1)),
                np.concatenate((kind, kinds)),
                1,
                self.tiles,
            )
            start, stop, kind = merged.start, merged.stop, merged.kind
        return tuple(Run(int(a), int(b), Kind(int(c))) for a, b, c in zip(start, stop, kind, strict=True))

    def rows(self) -> Iterator[tuple[Run, ...]]:
        """``row(i)`` for every query tile."""
        return map(self.row, range(self.tiles))

    def counts(self) -> dict[Kind, int]:
        """How many pairs of tiles there are of each kind."""
        lengths = self.runs.stop - self.runs.start
        partial = int(lengths[self.runs.kind == Kind.PARTIAL].sum())
        full = int(lengths[self.runs.kind == Kind.FULL].sum())
        if self.scattered is not None:
            more_partial, more_full, upgraded = self.scattered.beyond(self.runs)
            partial += more_partial - upgraded
            full += more_full + upgraded
        return {
            Kind.EMPTY: self.tiles * self.tiles - partial - full,
            Kind.PARTIAL: partial,
            Kind.FULL: full,
        }

    def to_networkx(self) -> nx.DiGraph[tuple[str, int]]:
        """The graph for networkx.

        Nodes are ``("q", i)`` and ``("k", j)``, one for each tile of queries and of keys, with attributes
        ``side``, ``first`` and ``last``: the positions that the tile spans, both inclusive. An edge from
        ``("q", i)`` to ``("k", j)`` says that some query of the one may read a key of the other; its
        attribute ``kind`` is ``"partial"`` or ``"full"``.

        Raises ValueError when there are more than two million edges: take a larger tile then.
        """
        # Slow to import, and of no use to those who only want tiles.
        import networkx as nx

        found = self.counts()
        total = found[Kind.PARTIAL] + found[Kind.FULL]
        if total > MOST_EDGES:
            raise ValueError(
                f"the block graph has {total} edges at tile {self.tile}, too many for networkx; "
                f"ask for it with a larger tile"
            )
        graph: nx.DiGraph[tuple[str, int]] = nx.DiGraph(n=self.n, tile=self.tile)
        for side in ("q", "k"):
            for i in range(self.tiles):
                last = min((i + 1) * self.tile, self.n) - 1
                graph.add_node((side, i), side=side, first=i * self.tile, last=last)
        for i, row in enumerate(self.rows()):
            for run in row:
                kind = run.kind.name.lower()
                graph.add_edges_from((("q", i), ("k", j), {"kind": kind}) for j in range(run.start, run.stop))
        return graph


def block_graph(
    body_terms: BodyTerms,
    n: int,
    tile: int = 128,
    head: int = 0,
    heads: int = 1,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
) -> BlockGraph:
    """The terms of a body seen at a tile size, for head ``head`` of ``heads``.

    inputs: arrays for the pattern's inputs, without a batch axis; what hangs on an input that is not given
    is PARTIAL. Raises ValueError for a negative ``n``, a ``tile`` below 1 or a head out of range.
    """
    if n < 0:
        raise ValueError(f"n is the number of keys and cannot be {n}")
    if tile < 1:
        raise ValueError(f"a tile holds at least one position, but tile is {tile}")
    if not 0 <= head < heads:
        raise ValueError(f"head {head} does not exist among {heads}; heads count from 0")
    given = {name: np.asarray(value) for name, value in (inputs or {}).items()}
    tiles = Tiles(n, tile, {"n": n, "h": head, "H": heads}, given)
    if n == 0:
        return BlockGraph(n, tile, Runs.none(0))
    runs, scattered, touching = classify(body_terms.terms, tiles)
    return BlockGraph(n, tile, filled(runs, touching, body_terms.terms, tiles), scattered)

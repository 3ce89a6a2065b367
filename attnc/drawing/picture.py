"""What is to be seen of a pattern: a panel for the heads that are alike, and in it runs of tiles by term."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import fills as contents
from attnc.decompose import by_weights
from attnc.expression import fold, variables
from attnc.graph import BlockGraph, Kind, Run, block_graph
from attnc.pattern import Pattern
from attnc.reach import least_heads
from attnc.reference import head_bodies
from attnc.relation import BodyTerms, Term
from attnc.runs import FULL, Runs, merge
from attnc.tiles import CHUNK, Tiles

# Tiles a side when nothing is said, and the greatest length that is shown token by token then.
USUAL_TILES = 64
FEW_TOKENS = 128
# A picture of more tiles a side cannot be looked at, and more panels cannot be told apart.
MOST_TILES = 2048
MOST_PANELS = 16
# Data may have more tiles; and token by token every pair is looked at.
MOST_ROWS = 1 << 16
MOST_TOKENS = 4096


class BadPicture(ValueError):
    """A picture that cannot be made as it was asked for; the text says why and what to ask for instead."""


@dataclass(frozen=True)
class Segment:
    """Key tiles ``start <= j < stop`` of one row, all of one kind and touched by the same terms."""

    start: int
    stop: int
    kind: Kind
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """The heads that read the same. graph: all terms together; by_term: each by its number in the legend."""

    title: str
    heads: tuple[int, ...]
    graph: BlockGraph
    by_term: tuple[tuple[int, BlockGraph], ...]

    def row(self, i: int) -> tuple[Segment, ...]:
        """What query tile ``i`` reads, from left to right; EMPTY tiles are left out."""
        runs = self.graph.row(i)
        layers = [(number, _Row.of(graph.row(i))) for number, graph in self.by_term]
        cuts = {end for run in runs for end in (run.start, run.stop)}
        for _, layer in layers:
            cuts.update(layer.starts, layer.stops)
        edges = sorted(cuts)
        whole = _Row.of(runs)
        found: list[Segment] = []
        for start, stop in pairwise(edges):
            run = whole.at(start)
            if run is None:
                continue
            terms = tuple(dict.fromkeys(number for number, layer in layers if layer.at(start)))
            last = found[-1] if found else None
            if last and last.stop == start and (last.kind, last.terms) == (run.kind, terms):
                found[-1] = Segment(last.start, stop, run.kind, terms)
            else:
                found.append(Segment(start, stop, run.kind, terms))
        return tuple(found)

    def rows(self) -> Iterator[tuple[Segment, ...]]:
        return map(self.row, range(self.graph.tiles))


@dataclass(frozen=True)
class _Row:
    runs: tuple[Run, ...]
    starts: list[int]
    stops: list[int]

    @staticmethod
    def of(runs: tuple[Run, ...]) -> _Row:
        return _Row(runs, [run.start for run in runs], [run.stop for run in runs])

    def at(self, j: int) -> Run | None:
        place = bisect_right(self.starts, j) - 1
        return self.runs[place] if place >= 0 and j < self.stops[place] else None


@dataclass(frozen=True)
class Picture:
    """A pattern at one length.

    terms: how each was written, in the order of their colors. fills: what the inputs hold, in words.
    left_out: heads for which there is no room.
    """

    pattern: Pattern
    n: int
    tile: int
    heads: int
    panels: tuple[Panel, ...]
    terms: tuple[str, ...]
    fills: Mapping[str, str]
    left_out: int = 0

    @property
    def tokens(self) -> bool:
        """Whether every cell is one query and one key."""
        return self.tile == 1

    @property
    def tiles(self) -> int:
        return -(-self.n // self.tile)

    @cached_property
    def title(self) -> str:
        """The pattern's name and parameters."""
        params = [(param.name, param.value) for param in self.pattern.params]
        bound = ", ".join(f"{name} = {value}" for name, value in (*params, *self.pattern.float_params))
        return f"{self.pattern.name}({bound})"

    @cached_property
    def caption(self) -> str:
        """Length, tile and what the inputs hold."""
        cells = "every cell a query and a key" if self.tokens else f"tiles of {self.tile}"
        held = "".join(f", {name}={fill}" for name, fill in self.fills.items())
        more = f", {self.left_out} more heads left out" if self.left_out else ""
        return f"n = {self.n}, {cells}{held}{more}"


def picture(
    pattern: Pattern,
    bodies: Sequence[BodyTerms],
    n: int,
    tile: int | None = None,
    heads: int | None = None,
    fills: Mapping[str, str] | None = None,
    seed: int = 0,
    usual_tiles: int = USUAL_TILES,
    inputs: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Picture:
    """A pattern seen at length ``n``, in colors for its terms, which lie within edges that weigh alike.

    tile: positions a cell has a side; by default few enough for about ``usual_tiles`` cells.
    heads: query heads; by default the fewest with which every body has one.
    fills, seed: what the inputs hold, as in ``attnc.fills``. inputs: arrays that some of them hold instead.

    Never holds a matrix of tiles, let alone of tokens. Raises ``BadPicture`` for sizes that cannot be, and
    ``BadFill`` for inputs that cannot be filled so.
    """
    if n < 1:
        raise BadPicture(f"there is nothing to see of n = {n}: take 1 token or more")
    heads = least_heads(pattern) if heads is None else heads
    tile = usual_tile(pattern, n, usual_tiles) if tile is None else tile
    if tile > n:
        raise BadPicture(f"a tile of {tile} is longer than n = {n}: take a smaller one")
    if tile == 1 and n > MOST_TOKENS:
        raise BadPicture(f"up to {MOST_TOKENS} tokens can be shown one by one, not {n}: take larger tiles")
    if -(-n // tile) > MOST_ROWS:
        raise BadPicture(f"tiles of {tile} are too many at n = {n}: take larger ones")
    try:
        which = head_bodies(pattern, heads)
    except ValueError as error:
        raise BadPicture(str(error)) from None
    bodies = by_weights(bodies)
    given = dict(inputs or {})
    held = {**contents.filled(pattern, n, heads, fills, seed, dim=0), **given}
    terms: dict[str, int] = {}
    for body in bodies:
        for term in body.terms:
            terms.setdefault(_words(term.origin), len(terms))
    groups = [
        (body, group)
        for place, body in enumerate(bodies)
        for group in _alike(body, np.flatnonzero(which == place).tolist())
    ]
    groups.sort(key=lambda item: item[1][0])
    panels = tuple(
        _panel(body, group, heads, n, tile, held, terms, alone=len(groups) == 1)
        for body, group in groups[:MOST_PANELS]
    )
    left_out = sum(len(group) for _, group in groups[MOST_PANELS:])
    words = {name: word for name, word in contents.chosen(pattern, fills).items() if name in held}
    words |= dict.fromkeys(words.keys() & given.keys(), "given")
    return Picture(pattern, n, tile, heads, panels, tuple(terms), words, left_out)


def usual_tile(pattern: Pattern, n: int, tiles: int = USUAL_TILES) -> int:
    """A tile that makes a picture of about ``tiles`` a side: whole rows of a grid, or a power of two."""
    if n <= max(tiles, FEW_TOKENS if tiles >= USUAL_TILES else 0):
        return 1
    tile = 1
    row = int(np.prod([size for _, size in pattern.grid[1:]], dtype=np.int64)) if pattern.grid else 1
    if 16 * row <= n:
        tile = row
    while -(-n // tile) > tiles:
        tile *= 2
    return tile


def _words(origin: str) -> str:
    return " ".join(origin.split())


def _alike(body: BodyTerms, heads: list[int]) -> Iterator[tuple[int, ...]]:
    """Heads of a body in groups that read the same."""
    if any({"h", "H"} & variables(term.formula()) for term in body.terms):
        yield from ((head,) for head in heads)
    elif heads:
        yield tuple(heads)


def _panel(
    body: BodyTerms,
    group: tuple[int, ...],
    heads: int,
    n: int,
    tile: int,
    inputs: Mapping[str, npt.NDArray[Any]],
    numbers: Mapping[str, int],
    alone: bool,
) -> Panel:
    def seen(*terms: Term) -> BlockGraph:
        if tile == 1:
            tiles = Tiles(n, 1, {"n": n, "h": group[0], "H": heads}, inputs)
            return BlockGraph(n, 1, _exact(terms, tiles))
        return block_graph(BodyTerms(body.body, terms), n, tile, group[0], heads, inputs)

    layers = tuple((numbers[_words(term.origin)], seen(term)) for term in body.terms)
    return Panel("" if alone else _heading(body, group), group, seen(*body.terms), layers)


def _heading(body: BodyTerms, group: tuple[int, ...]) -> str:
    listed = ", ".join(map(str, group[:8])) + (", …" if len(group) > 8 else "")
    numbered = f"head {listed}" if len(group) == 1 else f"heads {listed}"
    return f"{numbered} ({body.body.heads.text})" if body.body.heads.text else numbered


def _exact(terms: Sequence[Term], tiles: Tiles) -> Runs:
    """Every pair of positions by itself, a few rows at a time; terms are disjoint, so none meet."""
    n = tiles.n
    k = np.arange(n, dtype=np.int64)
    formulas = [fold(term.formula()) for term in terms]
    rows, starts, stops = ([np.zeros(0, dtype=np.int64)] for _ in range(3))
    step = max(1, CHUNK // n)
    for first in range(0, n, step):
        q = np.arange(first, min(first + step, n), dtype=np.int64)[:, None]
        held = np.zeros((len(q), n + 2), dtype=np.int8)
        for expr in formulas:
            held[:, 1:-1] |= np.broadcast_to(tiles.value(expr, q=q, k=k), (len(q), n))
        change = np.diff(held, axis=1)
        row, start = np.nonzero(change == 1)
        rows.append(row + first)
        starts.append(start)
        stops.append(np.nonzero(change == -1)[1])
    row, start, stop = (np.concatenate(part) for part in (rows, starts, stops))
    return merge(row, start, stop, np.full(len(row), FULL), n, n)


def check_tiles(seen: Picture, most: int = MOST_TILES) -> None:
    """Raises ``BadPicture`` where there are too many tiles to be drawn."""
    if seen.tiles > most:
        tile = 1 << (-(-seen.n // most) - 1).bit_length()
        raise BadPicture(
            f"{seen.tiles} x {seen.tiles} tiles are too many for a picture: "
            f"take tiles of {tile} or more, or none"
        )

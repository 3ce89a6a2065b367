"""Terms at a tile size: for every row of tiles, which runs of column tiles are touched and which are full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.bands import Band, Piece, around, band_of
from attnc.budget import spend, use
from attnc.expression import (
    TRUE,
    And,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Lookup,
    Mod,
    Not,
    Q,
    Var,
    constant,
    fold,
    variables,
    walk,
)
from attnc.relation import Term
from attnc.runs import FULL, PARTIAL, Ints, Kinds, Runs, Scattered, merge, swept
from attnc.squares import Looked, powers_listed, quadtree
from attnc.tiles import CHUNK, Tiles

# Tiles in which several terms meet, counted one by one up to this number.
MOST_SHARED = 1 << 16
# Positions of one side that are looked at for that, and how many of them are looked at in one step of work.
MOST_POSITIONS, POSITIONS = 1 << 26, 40
# Random columns whose tiles are found in one step of work.
LISTED = 3
# What it takes besides to look at one tile of every block.
LISTING = 200
# A set that falls into more runs than this is kept as a list beside the runs.
FEW_RUNS = 8


def classify(terms: Sequence[Term], tiles: Tiles) -> tuple[Runs, Scattered | None, npt.NDArray[np.bool_]]:
    """The runs of all terms together; of one scattered set; and in which runs several terms meet."""
    pieces: list[Piece] = []
    scattered: Scattered | None = None
    for term in terms:
        found, apart = _term(term, tiles, scattered is None)
        pieces += found
        scattered = apart or scattered
    row, start, stop, kind = (
        np.concatenate([np.zeros(0, dtype=np.int64), *column])
        for column in (zip(*pieces, strict=True) if pieces else ((), (), (), ()))
    )
    runs, shared = swept(row, start, stop, kind, tiles.count, tiles.count)
    return runs, scattered, shared


def _term(term: Term, tiles: Tiles, may_scatter: bool) -> tuple[list[Piece], Scattered | None]:
    band, exact = band_of(term, tiles)
    leftover = [part for item in map(fold, term.leftover) for part in _parts(item)]
    about_columns = [part for part in leftover if Q.name not in variables(part)]
    masks = [powers_listed(part, tiles.n) for part in leftover if Q.name in variables(part)]
    columns = _column_kinds([*_parts(fold(term.columns.selection())), *about_columns], tiles)
    if term.drawn is not None:
        return [_listed(fold(term.drawn), band, columns, exact and not masks, tiles)], None
    looked = Looked.of(masks, tiles)
    decided = [part for part in map(looked.renamed, masks) if not _idle(part, tiles)]
    if decided:
        return [quadtree(decided, looked, band, columns, exact and len(decided) == len(masks), tiles)], None
    exact = exact and not masks
    start, stop = band.touched(tiles)
    full_start, full_stop = band.full(tiles)
    if not exact:
        full_start, full_stop = np.zeros_like(start), np.zeros_like(stop)
    ids = np.flatnonzero(columns)
    cuts = np.flatnonzero(np.diff(columns) != 0) + 1
    if may_scatter and len(cuts) > FEW_RUNS:
        apart = Scattered(ids, columns[ids], start, stop, full_start, full_stop)
        return [], apart
    pieces: list[Piece] = []
    rows = np.arange(tiles.count, dtype=np.int64)
    for a, b in zip(np.concatenate(([0], cuts)), np.concatenate((cuts, [tiles.count])), strict=True):
        kind = columns[a]
        if not kind:
            continue
        pieces.append((rows, np.maximum(start, a), np.minimum(stop, b), np.full(len(rows), PARTIAL)))
        if kind == FULL:
            inside = np.maximum(full_start, a), np.minimum(full_stop, b)
            pieces[-1:] = around(rows, pieces[-1][1], pieces[-1][2], *inside)
    return pieces, None


def _parts(condition: Expr) -> tuple[Expr, ...]:
    return condition.args if isinstance(condition, And) else (condition,)


def _idle(condition: Expr, tiles: Tiles) -> bool:
    """Whether it holds for some pair of nearly every tile, so that looking closer decides nothing."""
    if not tiles.knows(condition):
        return True
    body = condition.body if isinstance(condition, Not) else condition
    if isinstance(body, Eq0):
        found = [part for part in walk(body) if isinstance(part, Mod)]
        if found and all((constant(part.right) or 0) <= tiles.size for part in found):
            return True
    return isinstance(body, Lookup) or any(isinstance(part, (Lookup, Drawn)) for part in walk(condition))


def _column_kinds(conditions: Sequence[Expr], tiles: Tiles) -> Kinds:
    """For every column tile whether none, some or all of its positions meet the conditions."""
    kinds = np.full(tiles.count, FULL, dtype=np.int8)
    for part in conditions:
        if part == TRUE:
            continue
        if not tiles.knows(part) or Q.name in variables(part):
            kinds = np.minimum(kinds, PARTIAL)
            continue
        spend(tiles.n // POSITIONS, "looking at every position")
        found: list[Kinds] = []
        for _, k in tiles.spans():
            held = np.broadcast_to(tiles.value(part, k=k), k.shape)
            edges = np.arange(0, len(k), tiles.size)
            any_, all_ = np.logical_or.reduceat(held, edges), np.logical_and.reduceat(held, edges)
            found.append((any_.astype(np.int8) + all_).astype(np.int8))
        kinds = np.minimum(kinds, np.concatenate(found))
    return kinds


def _listed(drawn: Expr, band: Band, columns: Kinds, exact: bool, tiles: Tiles) -> Piece:
    """The tiles that random columns fall into."""
    assert isinstance(drawn, Drawn)
    size = _block_of(drawn.column, K)
    rows_of = _block_of(drawn.row, Q)
    start, stop = band.touched(tiles)
    rows = np.arange(tiles.count, dtype=np.int64)
    if size is None or rows_of is None:
        return rows, start, stop, np.full(tiles.count, PARTIAL)
    full_start, full_stop = band.full(tiles)
    population = int(tiles.value(drawn.population))
    count, seed = constant(drawn.count) or 0, constant(drawn.seed) or 0
    # Each tile as twice its number (row * count + column), and one more where it is FULL.
    found: list[Ints] = [np.zeros(0, dtype=np.int64)]
    row_count = -(-tiles.n // rows_of)
    for first in range(0, row_count, max(1, CHUNK // count)):
        spend(0, draws.DRAWING)
        row = np.arange(first, min(first + max(1, CHUNK // count), row_count), dtype=np.int64)
        picks = draws.picks(count, seed, drawn.past, tiles.known["h"], row, population)
        at, slot = np.nonzero(picks >= 0)
        pick = picks[at, slot]
        # A drawn block covers rows x columns of positions, and so a few tiles of each side.
        q0, k0 = row[at] * rows_of, pick * size
        q1 = np.minimum(q0 + rows_of, tiles.n) - 1
        k1 = np.minimum(k0 + size, tiles.n) - 1
        drawn_here: list[Ints] = []
        down, across = (min(-(-(length - 1) // tiles.size) + 1, tiles.count) for length in (rows_of, size))
        for di in range(down):
            for dj in range(across):
                use(LISTING + len(pick) // LISTED, draws.DRAWING)
                i, j = q0 // tiles.size + di, k0 // tiles.size + dj
                inside = (i * tiles.size <= q1) & (j * tiles.size <= k1) & (k0 < tiles.n)
                i, j = i[inside], j[inside]
                covered = (
                    (q0[inside] <= tiles.first[i])
                    & (q1[inside] >= tiles.last[i])
                    & (k0[inside] <= tiles.first[j])
                    & (k1[inside] >= tiles.last[j])
                )
                kept = (j >= start[i]) & (j < stop[i]) & (columns[j] > 0)
                full = covered & (j >= full_start[i]) & (j < full_stop[i]) & (columns[j] == FULL)
                drawn_here.append((2 * (i * tiles.count + j) + (full & exact))[kept])
        found.append(np.unique(np.concatenate(drawn_here)))
    each = np.unique(np.concatenate(found))
    each = each[np.append(each[1:] // 2 != each[:-1] // 2, True)[: len(each)]]  # a FULL one stands last
    i, j = each // 2 // tiles.count, each // 2 % tiles.count
    return i, j, j + 1, np.where(each % 2, FULL, PARTIAL)


def _block_of(expr: Expr, var: Var) -> int | None:
    """The block size ``s`` of ``var // s``; 1 for the position itself."""
    if expr == var:
        return 1
    if isinstance(expr, FloorDiv) and expr.left == var:
        return constant(expr.right)
    return None


def filled(runs: Runs, shared: npt.NDArray[np.bool_], terms: Sequence[Term], tiles: Tiles) -> Runs:
    """Runs in which several terms meet, made FULL where their edges together are all pairs."""
    plain = [
        term
        for term in terms
        if term.plain and tiles.knows(*map(fold, (term.low, term.high, term.rows.selection())))
    ]
    length = np.where(shared, runs.stop - runs.start, 0)
    count = int(length.sum())
    if len(plain) < 2 or not shared.any() or count > MOST_SHARED or count * tiles.size > MOST_POSITIONS:
        return runs
    held = np.repeat(np.arange(len(length)), length)
    row = runs.row_of()[held]
    column = runs.start[held] + np.arange(len(held)) - np.repeat(np.cumsum(length) - length, length)
    full = np.zeros(len(held), dtype=np.bool_)
    step = max(1, CHUNK // tiles.size)
    for at in range(0, len(held), step):
        here = slice(at, at + step)
        full[here] = _all_pairs(plain, row[here], column[here], tiles)
    if not full.any():
        return runs
    row, column = row[full], column[full]
    return merge(
        np.concatenate((runs.row_of(), row)),
        np.concatenate((runs.start, column)),
        np.concatenate((runs.stop, column + 1)),
        np.concatenate((runs.kind, np.full(len(row), FULL))),
        tiles.count,
        tiles.count,
    )


def _all_pairs(terms: Sequence[Term], row: Ints, column: Ints, tiles: Tiles) -> npt.NDArray[np.bool_]:
    """For pairs of tiles, whether disjoint interval terms together hold every pair of positions."""
    q = tiles.first[row][:, None] + np.arange(tiles.size)
    real = q <= tiles.last[row][:, None]
    q = np.minimum(q, tiles.n - 1)
    k0, k1 = tiles.first[column][:, None], tiles.last[column][:, None]
    edges = np.zeros(len(row), dtype=np.int64)
    for term in terms:
        low = np.maximum(tiles.value(fold(term.low), q=q), tiles.value(fold(term.columns.first)))
        high = np.minimum(tiles.value(fold(term.high), q=q), tiles.value(fold(term.columns.last)))
        here = real & tiles.value(fold(term.rows.condition()), q=q)
        edges += np.where(here, np.maximum(np.minimum(high, k1) - np.maximum(low, k0) + 1, 0), 0).sum(axis=1)
    return np.asarray(edges == real.sum(axis=1) * (k1 - k0 + 1)[:, 0])

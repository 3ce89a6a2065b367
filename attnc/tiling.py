"""Terms at a tile size: for every row of tiles, which runs of column tiles are touched and which are full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.expression import (
    TRUE,
    And,
    Drawn,
    Env,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Lookup,
    Mod,
    Not,
    Or,
    PowerOfTwo,
    Q,
    Var,
    conj,
    constant,
    disj,
    eq,
    evaluate,
    fold,
    negate,
    substitute,
    tables,
    variables,
    walk,
)
from attnc.intervals import Tile, bounds, direction, may, must
from attnc.relation import Term

Ints = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.int8]

PARTIAL, FULL = 1, 2

# Positions that are looked at together.
CHUNK = 1 << 16
# Undecided squares that would fall into more rows of tiles than this stay PARTIAL as they are.
MOST_ROWS = 1 << 17
# Tiles in which several terms meet, counted one by one up to this number.
MOST_SHARED = 1 << 16
# A set that falls into more runs than this is kept as a list beside the runs.
FEW_RUNS = 8


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


@dataclass(frozen=True)
class Tiles:
    """A length cut into tiles, and what expressions are evaluated under.

    known: values of ``n``, ``h`` and ``H``. inputs: the arrays that were given.
    """

    n: int
    size: int
    known: Mapping[str, int]
    inputs: Mapping[str, npt.NDArray[Any]]

    @property
    def count(self) -> int:
        return -(-self.n // self.size)

    @property
    def first(self) -> Ints:
        return np.arange(self.count, dtype=np.int64) * self.size

    @property
    def last(self) -> Ints:
        return np.minimum(self.first + self.size, self.n) - 1

    @cached_property
    def _tables(self) -> dict[str, npt.NDArray[Any]]:
        found = dict(self.inputs)
        for name, values in self.inputs.items():
            if values.ndim == 1 and values.dtype.kind in "iu":
                found |= {f"{name}.{end}": ends for end, ends in _equal_entries(values).items()}
        return found

    def knows(self, *exprs: Expr) -> bool:
        """Whether everything that the expressions look up was given."""
        return all(tables(expr) <= self._tables.keys() for expr in exprs)

    def value(self, expr: Expr, **variables: Any) -> Any:
        return evaluate(expr, Env({**self.known, **variables}, self._tables, draws.drawn))

    def spans(self) -> Iterator[tuple[slice, Ints]]:
        """The positions in chunks of whole tiles, with the tiles that each chunk covers."""
        step = max(1, CHUNK // self.size)
        for i in range(0, self.count, step):
            j = min(i + step, self.count)
            yield slice(i, j), np.arange(i * self.size, min(j * self.size, self.n), dtype=np.int64)


def _equal_entries(values: npt.NDArray[Any]) -> dict[str, Ints]:
    """For every position the first and last equal entry, and the ends of the unbroken run around it."""
    positions = np.arange(len(values), dtype=np.int64)
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    last = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(last, inverse, positions)
    breaks = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts, ends = np.concatenate(([0], breaks)), np.concatenate((breaks, [len(values)])) - 1
    run = np.zeros(len(values), dtype=np.int64)
    run[breaks] = 1
    run = np.cumsum(run)
    return {"first": first[inverse], "last": last[inverse], "run_first": starts[run], "run_last": ends[run]}


def merge(row: Ints, start: Ints, stop: Ints, kind: npt.NDArray[Any], rows: int, columns: int) -> Runs:
    """Any runs as disjoint ones, sorted; where several overlap the fullest counts."""
    merged, _ = _swept(row, start, stop, kind, rows, columns)
    return merged


def _swept(
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


# --- terms ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Band:
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


Piece = tuple[Ints, Ints, Ints, npt.NDArray[Any]]


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
    runs, shared = _swept(row, start, stop, kind, tiles.count, tiles.count)
    return runs, scattered, shared


def _term(term: Term, tiles: Tiles, may_scatter: bool) -> tuple[list[Piece], Scattered | None]:
    band, exact = _band(term, tiles)
    leftover = [part for item in map(fold, term.leftover) for part in _parts(item)]
    about_columns = [part for part in leftover if Q.name not in variables(part)]
    masks = [_powers_listed(part, tiles.n) for part in leftover if Q.name in variables(part)]
    columns = _column_kinds([*_parts(fold(term.columns.selection())), *about_columns], tiles)
    if term.drawn is not None:
        return [_listed(fold(term.drawn), band, columns, exact and not masks, tiles)], None
    looked = _Looked.of(masks, tiles)
    decided = [part for part in map(looked.renamed, masks) if not _idle(part, tiles)]
    if decided:
        return [_quadtree(decided, looked, band, columns, exact and len(decided) == len(masks), tiles)], None
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
            pieces[-1:] = _around(rows, pieces[-1][1], pieces[-1][2], *inside)
    return pieces, None


def _around(rows: Ints, start: Ints, stop: Ints, full_start: Ints, full_stop: Ints) -> list[Piece]:
    """A run as its ragged left end, its full middle and its ragged right end."""
    nothing = full_start >= full_stop
    middle = np.where(nothing, stop, full_start), np.where(nothing, stop, full_stop)
    partial, full = np.full(len(rows), PARTIAL), np.full(len(rows), FULL)
    return [(rows, start, middle[0], partial), (rows, *middle, full), (rows, middle[1], stop, partial)]


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


def _band(term: Term, tiles: Tiles) -> tuple[_Band, bool]:
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
        band = _Band(*(np.array(part, dtype=np.int64) for part in (lows[0], highs[1], lows[1], highs[0])))
    else:
        band, none, whole = _band_by_rows(low, high, chosen, (a, b), (left, right), tiles)
    return (
        _Band(
            np.where(none, 1, np.maximum(band.low, left)),
            np.where(none, 0, np.minimum(band.high, right)),
            np.where(whole, np.maximum(band.full_low, left), 1),
            np.where(whole, np.minimum(band.full_high, right), 0),
        ),
        exact,
    )


_ROWS = Tile({Q: (Var("q0"), Var("q1"))})
_SQUARE = Tile({Q: (Var("q0"), Var("q1")), K: (Var("k0"), Var("k1"))})


def _band_by_rows(
    low: Expr, high: Expr, chosen: Expr, rows: tuple[int, int], columns: tuple[int, int], tiles: Tiles
) -> tuple[_Band, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
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
    band = _Band(*(np.concatenate(part).astype(np.int64) for part in parts))
    return band, np.concatenate(none), np.concatenate(whole)


def _column_kinds(conditions: Sequence[Expr], tiles: Tiles) -> Kinds:
    """For every column tile whether none, some or all of its positions meet the conditions."""
    kinds = np.full(tiles.count, FULL, dtype=np.int8)
    for part in conditions:
        if part == TRUE:
            continue
        if not tiles.knows(part) or Q.name in variables(part):
            kinds = np.minimum(kinds, PARTIAL)
            continue
        found: list[Kinds] = []
        for _, k in tiles.spans():
            held = np.broadcast_to(tiles.value(part, k=k), k.shape)
            edges = np.arange(0, len(k), tiles.size)
            any_, all_ = np.logical_or.reduceat(held, edges), np.logical_and.reduceat(held, edges)
            found.append((any_.astype(np.int8) + all_).astype(np.int8))
        kinds = np.minimum(kinds, np.concatenate(found))
    return kinds


def _listed(drawn: Expr, band: _Band, columns: Kinds, exact: bool, tiles: Tiles) -> Piece:
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
    found: list[Ints] = []
    all_full: list[npt.NDArray[np.bool_]] = []
    row_count = -(-tiles.n // rows_of)
    for first in range(0, row_count, max(1, CHUNK // count)):
        row = np.arange(first, min(first + max(1, CHUNK // count), row_count), dtype=np.int64)
        picks = draws.picks(count, seed, drawn.past, tiles.known["h"], row, population)
        at, slot = np.nonzero(picks >= 0)
        pick = picks[at, slot]
        # A drawn block covers rows x columns of positions, and so a few tiles of each side.
        q0, k0 = row[at] * rows_of, pick * size
        q1 = np.minimum(q0 + rows_of, tiles.n) - 1
        k1 = np.minimum(k0 + size, tiles.n) - 1
        for di in range(-(-(rows_of - 1) // tiles.size) + 1):
            for dj in range(-(-(size - 1) // tiles.size) + 1):
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
                found.append((i * tiles.count + j)[kept])
                all_full.append((full & exact)[kept])
    place = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    kind = np.where(np.concatenate(all_full), FULL, PARTIAL) if all_full else place
    order = np.argsort(place * 4 - kind)
    place, which = np.unique(place[order], return_index=True)
    kind = kind[order][which]
    i, j = place // tiles.count, place % tiles.count
    return i, j, j + 1, kind


def _block_of(expr: Expr, var: Var) -> int | None:
    """The block size ``s`` of ``var // s``; 1 for the position itself."""
    if expr == var:
        return 1
    if isinstance(expr, FloorDiv) and expr.left == var:
        return constant(expr.right)
    return None


@dataclass(frozen=True)
class _Looked:
    """Integer inputs read at the row or the column: as variables, with their extremes in every tile."""

    names: Mapping[Expr, Expr]
    sides: Mapping[str, Var]
    low: Mapping[str, Ints]
    high: Mapping[str, Ints]

    @staticmethod
    def of(conditions: Sequence[Expr], tiles: Tiles) -> _Looked:
        names: dict[Expr, Expr] = {}
        sides: dict[str, Var] = {}
        low: dict[str, Ints] = {}
        high: dict[str, Ints] = {}
        for part in (part for condition in conditions for part in walk(condition)):
            match part:
                case Lookup(table, (Var() as side,), "int") if tiles.knows(part) and side in (Q, K):
                    name = f"{table}@{side.name}"
                    names[part], sides[name] = Var(name), side
                    values = tiles.value(part, **{side.name: np.arange(tiles.n)}).astype(np.int64)
                    low[name] = np.minimum.reduceat(values, tiles.first)
                    high[name] = np.maximum.reduceat(values, tiles.first)
        return _Looked(names, sides, low, high)

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


def _powers_listed(condition: Expr, n: int) -> Expr:
    """Membership in the powers of two written out: there are few below ``n``."""
    match condition:
        case PowerOfTwo(body):
            return disj(*(eq(body, power) for power in (0, *(1 << i for i in range(n.bit_length())))))
        case Not(PowerOfTwo() as inner):
            return negate(_powers_listed(inner, n))
        case And(args):
            return conj(*(_powers_listed(arg, n) for arg in args))
        case Or(args):
            return disj(*(_powers_listed(arg, n) for arg in args))
    return condition


def _quadtree(
    masks: Sequence[Expr], looked: _Looked, band: _Band, columns: Kinds, exact: bool, tiles: Tiles
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
        pieces += _around(*run, np.where(sure, inside[0], 0), np.where(sure, inside[1], 0))
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


def filled(runs: Runs, shared: npt.NDArray[np.bool_], terms: Sequence[Term], tiles: Tiles) -> Runs:
    """Runs in which several terms meet, made FULL where their edges together are all pairs."""
    plain = [
        term
        for term in terms
        if term.plain and tiles.knows(*map(fold, (term.low, term.high, term.rows.selection())))
    ]
    length = np.where(shared, runs.stop - runs.start, 0)
    if len(plain) < 2 or not shared.any() or int(length.sum()) > MOST_SHARED:
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

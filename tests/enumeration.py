"""Plans walked through pair by pair, for small lengths: what is visited, and how often.

This shares nothing with the proofs but the meaning of a sweep, and is what they are held against.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.digits import PLAIN, Radix
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    And,
    Const,
    Expr,
    Lookup,
    TileMax,
    TileMin,
    substitute,
    walk,
)
from attnc.pattern import formula
from attnc.schedule import LEAST, MOST, SHIFT, BodyPlan, Pass, Scatter, Sweep, tile_ends

# How many values of the first digit a tile of the other side takes.
WORTH = 3

Ints = npt.NDArray[np.int64]
Tables = Mapping[str, npt.NDArray[Any]]


def derived(tables: Tables) -> dict[str, npt.NDArray[Any]]:
    """The tables, and for every one-dimensional table of integers the ends of its equal entries and runs."""
    found = dict(tables)
    for name, table in tables.items():
        if table.ndim != 1 or table.dtype == np.bool_:
            continue
        entries = table.tolist()
        spans = []
        for p, entry in enumerate(entries):
            same = [i for i, other in enumerate(entries) if other == entry]
            low = high = p
            while low and entries[low - 1] == entry:
                low -= 1
            while high + 1 < len(entries) and entries[high + 1] == entry:
                high += 1
            spans.append((same[0], same[-1], low, high))
        for which, ends in zip(
            ("first", "last", "run_first", "run_last"), zip(*spans, strict=True), strict=True
        ):
            found[f"{name}.{which}"] = np.array(ends, dtype=np.int64)
    return found


def edges(plan: BodyPlan, n: int, head: int, heads: int, tables: Tables) -> npt.NDArray[np.bool_]:
    """The body's relation as it was written, (n, n)."""
    places = {"q": np.arange(n)[:, None], "k": np.arange(n)[None, :], "n": n, "h": head, "H": heads}
    return _held(relation(plan), places, tables, (n, n))


def relation(plan: BodyPlan) -> Expr:
    """All edges of a body, swept or summed up in states."""
    return formula((plan.whole or plan.body).relation)


def summed(plan: BodyPlan, n: int, head: int, heads: int, tables: Tables) -> Ints:
    """How often every pair (q, k) is summed up in states, (n, n)."""
    places = {"q": np.arange(n)[:, None], "k": np.arange(n)[None, :], "n": n, "h": head, "H": heads}
    counts = np.zeros((n, n), dtype=np.int64)
    for factor in plan.factors:
        if factor is not None:
            counts += _held(factor.relation(), places, tables, (n, n))
    return counts


def visits(passes: tuple[Pass, ...], n: int, tile: int, head: int, heads: int, tables: Tables) -> Ints:
    """How often every pair (q, k) is visited and not masked by a pass that answers for it, (n, n)."""
    counts = np.zeros((n, n), dtype=np.int64)
    for part in passes:
        context: dict[str, Any] = {"n": n, "h": head, "H": heads}
        for rows, ends in _tiles(part, n, tile, context, tables):
            inside = context | ends
            owned = _held(part.owned, inside | {part.walk.var.name: rows}, tables, rows.shape)
            for sweep in part.sweeps:
                seen = Grid(part, sweep, rows, inside, tables, n).kept() * owned[:, None]
                if part.side == "query":
                    counts[rows] += seen
                else:
                    counts[:, rows] += seen.T
    return counts


def _tiles(
    part: Pass, n: int, tile: int, context: dict[str, Any], tables: Tables
) -> Iterator[tuple[Ints, dict[str, int]]]:
    """The positions of every tile of a pass, and its ends by name."""
    own, walked = np.arange(n), part.walk
    mine = own[_held(walked.condition(), context | {walked.var.name: own}, tables, own.shape)]
    if walked.radix == PLAIN:
        for start in range(0, len(mine), tile):
            rows = mine[start : start + tile]
            yield rows, {"first": int(rows[0]), "last": int(rows[-1])}
        return
    digits = digits_of(walked.radix, mine)
    spans = [max(1, tile // math.prod(part.extents)), *part.extents]
    lows = [0, *(evaluate(low, Env(context)) for low, _ in walked.ranges)]
    numbers = np.stack([(d - low) // span for d, low, span in zip(digits, lows, spans, strict=True)])
    names = tile_ends(walked.var, walked.radix, part.extents).values()
    for number in np.unique(numbers, axis=1).T:
        chosen = (numbers == number[:, None]).all(0)
        ends = {}
        for (first, last), digit in zip(names, digits, strict=True):
            ends[last.name] = int(digit[chosen].max())
            ends[first.name] = int(digit[chosen].min())
        yield mine[chosen], ends


def digits_of(radix: Radix, positions: Ints) -> list[Ints]:
    """The digits of positions, the first digit's first."""
    found: list[Ints] = []
    for weight in radix.weights:
        found.append(positions // weight)
        positions = positions % weight
    return found


@dataclass(frozen=True)
class Grid:
    """Rows of a tile by all positions of the other side, (rows, n), under one sweep."""

    part: Pass
    sweep: Sweep
    rows: Ints
    inside: dict[str, Any]
    tables: Tables
    n: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.n

    def places(self) -> dict[str, Any]:
        own, other = self.part.walk, self.sweep.walk
        every = np.arange(self.n)
        found = self.inside | {own.var.name: self.rows[:, None], other.var.name: every[None, :]}
        for walked, positions, axis in ((own, self.rows, 1), (other, every, 0)):
            for digit, values in zip(walked.digits, digits_of(walked.radix, positions), strict=True):
                found[digit.name] = np.expand_dims(values, axis)
        return found

    def _tile(self, expr: Expr) -> Expr:
        return _on_tile(expr, self.inside | {self.part.walk.var.name: self.rows}, self.tables)

    def held(self, expr: Expr) -> npt.NDArray[np.bool_]:
        return np.asarray(_held(self._tile(expr), self.places(), self.tables, self.shape))

    def between(self, low: Expr, digit: Expr, high: Expr) -> npt.NDArray[np.bool_]:
        first, value, last = (
            evaluate(self._tile(e), Env(self.places(), self.tables)) for e in (low, digit, high)
        )
        return np.broadcast_to((first <= value) & (value <= last), self.shape)

    def reached(self) -> npt.NDArray[np.bool_]:
        """Which positions a tile visits, masked or not."""
        sweep = self.sweep
        found = self.held(sweep.walk.condition())
        if sweep.drawn is not None:
            return found
        found = found & self.held(sweep.when)
        for bounds in zip(sweep.low, sweep.walk.digits, sweep.high, strict=True):
            found = found & self.between(*bounds)
        return found

    def worthwhile(self) -> npt.NDArray[np.bool_]:
        """Which lie in tiles, of some values of the first digit, that can hold an edge."""
        number = self.places()[self.sweep.walk.digits[0].name] // WORTH
        ends = {LEAST.name: WORTH * number, MOST.name: WORTH * number + WORTH - 1}
        found = evaluate(self._tile(self.sweep.worth), Env(self.inside | ends, self.tables))
        return np.broadcast_to(np.asarray(found, dtype=np.bool_), self.shape)

    def full(self) -> npt.NDArray[np.bool_]:
        """Which need no mask."""
        sweep = self.sweep
        first = self.between(sweep.full_low, sweep.walk.digits[0], sweep.full_high)
        return self.reached() & self.held(sweep.full_when) & first

    def taken(self, scatter: Scatter) -> Ints:
        """How often positions are visited where they are taken one by one, wherever they are told to be."""
        if scatter.at is None:
            return self.held(scatter.condition).astype(np.int64)
        found = np.zeros(self.shape, dtype=np.int64)
        for shift in (0, *(2**i for i in range(self.n) if 2**i < self.n)) if scatter.shifted else (0,):
            at = evaluate(scatter.at, Env(self.places() | {SHIFT.name: shift}, self.tables))
            found += at == np.arange(self.n)
        return found

    def kept(self) -> Ints:
        """How often each is visited and not masked."""
        sweep = self.sweep
        selected, masked = self.held(sweep.selection), self.held(sweep.mask)
        if sweep.scatter is not None:
            return self.taken(sweep.scatter) * (self.held(sweep.when) & masked & selected)
        kept = self.full() | (self.reached() & masked & self.worthwhile())
        return (selected & kept).astype(np.int64)


def grids(part: Pass, sweep: Sweep, n: int, tile: int, tables: Tables) -> Iterator[Grid]:
    """Every tile of a pass under one of its sweeps, for a single head."""
    context: dict[str, Any] = {"n": n, "h": 0, "H": 1}
    for rows, ends in _tiles(part, n, tile, context, tables):
        yield Grid(part, sweep, rows, context | ends, derived(tables), n)


def strays(part: Pass, n: int, tile: int) -> int:
    """How many digits that are no position's are visited and not masked by what says so of digits."""
    found = 0
    for sweep in part.sweeps:
        walked, weights = sweep.walk, sweep.walk.radix.weights
        masked = sweep.mask.args if isinstance(sweep.mask, And) else (sweep.mask,)
        kept = [limit for limit in walked.radix.limits(walked.var) if limit in masked]
        for _, ends in _tiles(part, n, tile, {"n": n}, {}):
            env = Env({"n": n} | ends)
            ranges = (
                range(int(evaluate(low, env)), int(evaluate(high, env)) + 1)
                for low, high in zip(sweep.low, sweep.high, strict=True)
            )
            if not evaluate(sweep.when, env):
                continue
            for digits in itertools.product(*ranges):
                position = sum(weight * digit for weight, digit in zip(weights, digits, strict=True))
                if tuple(int(d) for d in digits_of(walked.radix, np.array(position))) != digits:
                    names = {digit.name: value for digit, value in zip(walked.digits, digits, strict=True)}
                    found += all(evaluate(limit, Env(names)) for limit in kept)
    return found


def _on_tile(expr: Expr, rows: dict[str, Any], tables: Tables) -> Expr:
    """The expression with everything that is reduced over the rows of the tile replaced by its value."""
    found: dict[Expr, Expr] = {}
    for piece in walk(expr):
        if isinstance(piece, (TileMin, TileMax)):
            values = np.asarray(evaluate(piece.body, Env(rows, tables)))
            found[piece] = Const(int(values.min() if isinstance(piece, TileMin) else values.max()))
    return substitute(expr, found)


def _held(expr: Expr, places: Mapping[str, Any], tables: Tables, shape: tuple[int, ...]) -> Any:
    found = evaluate(expr, Env(places, tables, draws.drawn))
    return np.broadcast_to(np.asarray(found, dtype=np.bool_), shape)


def example_tables(expressions: list[Expr], n: int, heads: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Contents for every input that the expressions read; long enough for every index under a mask."""
    rng = np.random.default_rng(seed)
    found: dict[str, npt.NDArray[Any]] = {}
    for expr in expressions:
        for piece in walk(expr):
            if isinstance(piece, Lookup) and "." not in piece.table and piece.table not in found:
                shape = (max(n, heads),) * len(piece.index)
                if piece.kind == "bool":
                    found[piece.table] = rng.random(shape) < 0.3
                else:
                    values = rng.integers(0, 5, shape)
                    found[piece.table] = np.sort(values, axis=-1) if rng.random() < 0.5 else values
    return found


def wrong(plan: BodyPlan, n: int, tile: int, heads: int, tables: Tables) -> list[str]:
    """Where the plan does not visit exactly the edges, once each; for every head of the body."""
    faults = []
    tables = derived(tables)
    for head in range(heads):
        if not bool(evaluate(plan.body.heads.condition, Env({"h": head, "H": heads}))):
            continue
        wanted = edges(plan, n, head, heads, tables)
        states = summed(plan, n, head, heads, tables)
        for side, passes in (("query", plan.query), ("key", plan.key)):
            counts = states + visits(passes, n, tile, head, heads, tables)
            if (counts != wanted).any():
                q, k = np.argwhere(counts != wanted)[0].tolist()
                faults.append(
                    f"{side} side, n = {n}, tile = {tile}, head {head}: ({q}, {k}) is visited "
                    f"{counts[q, k]} times and is {'an' if wanted[q, k] else 'no'} edge"
                )
    return faults

"""Plans walked through pair by pair, for small lengths: what is visited, and how often.

This shares nothing with the proofs but the meaning of a sweep, and is what they are held against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    TRUE,
    Const,
    Expr,
    K,
    Lookup,
    Q,
    TileMax,
    TileMin,
    substitute,
    walk,
)
from attnc.pattern import formula
from attnc.schedule import LEAST, MOST, BodyPlan, Pass, Sweep, tile_ends

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
    found = evaluate(formula(plan.body.relation), Env(places, tables, draws.drawn))
    return np.broadcast_to(np.asarray(found, dtype=np.bool_), (n, n))


def visits(passes: tuple[Pass, ...], n: int, tile: int, head: int, heads: int, tables: Tables) -> Ints:
    """How often every pair (q, k) is visited and not masked by a pass that answers for it, (n, n)."""
    counts = np.zeros((n, n), dtype=np.int64)
    for part in passes:
        context: dict[str, Any] = {"n": n, "h": head, "H": heads}
        for rows, ends in _tiles(part, n, tile, context, tables):
            inside = context | ends
            owned = _held(part.owned, inside | {part.walk.var.name: rows}, tables, rows.shape)
            for sweep in part.sweeps:
                seen = _swept(sweep, part, rows, inside, tables, n) & owned[:, None]
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
    for size in reversed(radix.sizes):
        found.insert(0, positions % size)
        positions = positions // size
    return [positions, *found]


def _swept(sweep: Sweep, part: Pass, rows: Ints, inside: dict[str, Any], tables: Tables, n: int) -> Any:
    """Which of all positions of the other side each row of a tile visits, (rows, n)."""
    own, other = part.walk.var, K if part.walk.var == Q else Q
    every = np.arange(n)
    places = inside | {own.name: rows[:, None], other.name: every[None, :]}
    for walked, positions, axis in ((part.walk, rows, 1), (sweep.walk, every, 0)):
        for digit, values in zip(walked.digits, digits_of(walked.radix, positions), strict=True):
            places[digit.name] = np.expand_dims(values, axis)
    shape = (len(rows), n)

    def held(expr: Expr) -> npt.NDArray[np.bool_]:
        return _held(_on_tile(expr, inside | {own.name: rows}, tables), places, tables, shape)

    def between(low: Expr, digit: Expr, high: Expr) -> npt.NDArray[np.bool_]:
        ends = [
            evaluate(_on_tile(e, inside | {own.name: rows}, tables), Env(places, tables)) for e in (low, high)
        ]
        value = evaluate(digit, Env(places))
        return np.broadcast_to((ends[0] <= value) & (value <= ends[1]), shape)

    reached = held(TRUE)
    if sweep.drawn is None:
        reached = held(sweep.when)
        for bounds in zip(sweep.low, sweep.walk.digits, sweep.high, strict=True):
            reached = reached & between(*bounds)
        reached = reached & _worthwhile(sweep, inside, places, shape)
    full = held(sweep.full_when) & between(sweep.full_low, sweep.walk.digits[0], sweep.full_high)
    return reached & held(sweep.walk.condition()) & held(sweep.selection) & (full | held(sweep.mask))


def _worthwhile(sweep: Sweep, inside: dict[str, Any], places: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """Which positions of the other side lie in tiles of values of the first digit that are worth it."""
    if sweep.worth == TRUE:
        return np.ones(shape, dtype=np.bool_)
    number = places[sweep.walk.digits[0].name] // WORTH
    least, most = WORTH * number, WORTH * number + WORTH - 1
    return np.broadcast_to(evaluate(sweep.worth, Env(inside | {LEAST.name: least, MOST.name: most})), shape)


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
        for passes in (plan.query, plan.key):
            counts = visits(passes, n, tile, head, heads, tables)
            if (counts != wanted).any():
                q, k = np.argwhere(counts != wanted)[0].tolist()
                faults.append(
                    f"{passes[0].side} side, n = {n}, tile = {tile}, head {head}: ({q}, {k}) is visited "
                    f"{counts[q, k]} times and is {'an' if wanted[q, k] else 'no'} edge"
                )
    return faults

"""How many pairs the tiles of a plan touch at some length, counted tile by tile."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc.digits import PLAIN
from attnc.draws import block_size
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    FALSE,
    TRUE,
    Const,
    Expr,
    Lookup,
    N,
    TileMax,
    TileMin,
    Var,
    constant,
    floor_div,
    substitute,
    walk,
)
from attnc.schedule import Pass, Sweep, tile_ends

Ints = npt.NDArray[np.int64]

# The tiles that plans are weighed by: own positions and the other side's, and those where sweeps are long.
TILE, STEP, LONG_STEPS = 128, 64, {"query": 128, "key": 64}
# What an edge costs that is visited alone, in pairs of a tile: a key and a value are fetched for it, 4 bytes
# of 16-bit tensors for every 4 FLOPs of a pair, at 180 FLOPs to the byte.
SCATTERED = 180
# So many times what most tiles do is far more.
HEAVY = 8
# Tiles of either side that are looked at to see how many hold an edge.
SAMPLE = 48
# Tiles of a pass that are counted one by one.
MOST_TILES = 1 << 14


def tile_and_step(part: Pass) -> tuple[int, int]:
    """Own positions and the other side's in a tile of 16-bit tensors of dim 128."""
    step = LONG_STEPS[part.side] if part.form == "long" else STEP
    return TILE // 2 if part.form == "narrow" else TILE, step


def touched(part: Pass, sweep: Sweep, n: int, tile: int, step: int) -> float:
    """Pairs that a sweep computes for all tiles of a pass: ``tile`` own by a multiple of ``step`` others.

    What hangs on inputs is taken to lie near; packed positions are taken to be all.
    """
    work = _work(part, sweep, n, tile, step)
    return float(work.sum()) / len(work) * _number_of_tiles(part, n, tile) * tile


def _number_of_tiles(part: Pass, n: int, tile: int) -> int:
    walked, span = part.walk, prod(part.extents)
    if walked.radix == PLAIN:
        return -(-n // tile)
    ranges = (((constant(high) or 0) - (constant(low) or 0) + 1) for low, high in walked.ranges)
    rows = -(-((n - 1) // walked.radix.weights[0] + 1) // max(1, tile // span))
    return rows * prod(-(-count // extent) for count, extent in zip(ranges, part.extents, strict=True))


def grows(part: Pass, n: int, tile: int, step: int) -> bool:
    """Whether the last tiles of a pass have clearly more to do than the first."""
    work = sum((_work(part, sweep, n, tile, step) for sweep in part.sweeps), np.zeros(1))
    quarter = max(1, len(work) // 4)
    return bool(work[-quarter:].sum() > 1.5 * work[:quarter].sum())


def _work(part: Pass, sweep: Sweep, n: int, tile: int, step: int) -> npt.NDArray[Any]:
    """What each tile of a pass computes in a sweep, in places of the other side."""
    ends, tiles = _tiles(part, n, tile)
    env = Env({"n": n, "h": 0, "H": 1, **ends})
    used = np.broadcast_to(_value(sweep.when, env), tiles)
    if sweep.scatter is not None:
        return np.where(used, edges_each(sweep, n) * SCATTERED, 0)
    if sweep.drawn is not None:
        size = block_size(sweep.drawn)
        columns = (constant(sweep.drawn.count) or 1) * max(size, step) * -(-tile // size)
        return np.where(used, min(columns, n), 0)
    places = np.ones(tiles, dtype=np.int64)
    for low, high in zip(sweep.low, sweep.high, strict=True):
        places = places * np.maximum(_value(high, env) - _value(low, env) + 1, 0)
    return np.where(used, -(-places // step) * step, 0)


def longest(part: Pass, n: int, tile: int) -> Expr:
    """How many positions a tile sweeps at the most, over ``n``: a constant, or a share of the sequence.

    What hangs on inputs may be everything; packed positions are taken to be few.
    """

    def most(n: int) -> int:
        return max((int(_work(part, sweep, n, tile, 1).max()) for sweep in counted), default=0)

    counted = [
        sweep
        for sweep in part.sweeps
        if sweep.scatter is None and sweep.drawn is None and sweep.walk.members is None
    ]
    if any(_reads(sweep) for sweep in counted):
        return N
    here = most(n)
    return floor_div(N, max(1, round(n / here))) if here and most(4 * n) > 2 * here else Const(here)


def heavy(part: Pass, n: int, tile: int) -> tuple[int, int]:
    """How many of the first, and of the last, positions have tiles with far more to do than most tiles.

    None where those are not few whatever the length, lie elsewhere, or where inputs decide.
    """
    found = _heavy(part, n, tile)
    return found if found == _heavy(part, 4 * n, tile) else (0, 0)


def _heavy(part: Pass, n: int, tile: int) -> tuple[int, int]:
    if part.walk.members is not None or part.walk.radix != PLAIN or any(map(_reads, part.sweeps)):
        return 0, 0
    work = sum((_work(part, sweep, n, tile, 1) for sweep in part.sweeps), np.zeros(1))
    far = work > HEAVY * max(float(np.median(work)), tile)
    first, last = (int(np.cumprod(side).sum()) for side in (far, far[::-1]))
    few = first + last == int(far.sum()) and (first + last) * HEAVY <= len(far)
    return (first * tile, last * tile) if few else (0, 0)


def _reads(sweep: Sweep) -> bool:
    """Whether inputs decide where a sweep begins and ends."""
    bounds = (sweep.when, *sweep.low, *sweep.high)
    return any(isinstance(expr, Lookup) for bound in bounds for expr in walk(bound))


def edges_each(sweep: Sweep, n: int) -> int:
    """How many positions each own position visits in a sweep that takes them one by one."""
    assert sweep.scatter is not None
    if sweep.scatter.at is None:
        assert sweep.drawn is not None
        return constant(sweep.drawn.count) or 1
    return 1 + max(n - 1, 0).bit_length() if sweep.scatter.shifted else 1


def passed_over(part: Pass, sweep: Sweep, n: int, tile: int, step: int) -> float:
    """The share of a sweep's tiles that ``worth`` finds to hold no edge; zero where that hangs on inputs."""
    read = (isinstance(expr, TileMin | TileMax | Lookup) for expr in walk(sweep.worth))
    if sweep.worth == TRUE or any(read):
        return 0.0
    ends, tiles = _tiles(part, n, tile)
    chosen = _spread(tiles, SAMPLE)
    env = Env({"n": n, "h": 0, "H": 1, **{name: values[chosen, None] for name, values in ends.items()}})
    width = np.ones((1, 1), dtype=np.int64)
    for low, high in zip(sweep.low[1:], sweep.high[1:], strict=True):
        width = width * np.maximum(_value(high, env) - _value(low, env) + 1, 1)
    first, last = (np.asarray(_value(bound, env)) for bound in (sweep.low[0], sweep.high[0]))
    rows = np.maximum(step // width, 1)
    least = first + np.linspace(0, 1, SAMPLE)[None, :] * np.maximum(last - first, 0) // rows * rows
    least = np.broadcast_to(least.astype(np.int64), np.broadcast_shapes(least.shape, (len(chosen), 1)))
    held = {**env.variables, "least": least, "most": np.minimum(least + rows - 1, last)}
    good = np.broadcast_to(evaluate(sweep.worth, Env(held)), least.shape)
    there = np.broadcast_to(first <= last, least.shape)
    return float(1 - good[there].mean()) if there.any() else 0.0


def unmasked(part: Pass, sweep: Sweep, n: int, tile: int, step: int) -> bool:
    """Whether any tile of a pass finds ``step`` places that need no mask."""
    if sweep.full_when == FALSE or any(
        isinstance(p, TileMin | TileMax | Lookup) for p in walk(sweep.full_low)
    ):
        return sweep.full_when != FALSE
    ends, tiles = _tiles(part, n, tile)
    env = Env({"n": n, "h": 0, "H": 1, **ends})
    rows = np.minimum(_value(sweep.full_high, env), _value(sweep.high[0], env))
    places = rows - np.maximum(_value(sweep.full_low, env), _value(sweep.low[0], env)) + 1
    for low, high in zip(sweep.low[1:], sweep.high[1:], strict=True):
        places = places * np.maximum(_value(high, env) - _value(low, env) + 1, 0)
    return bool(np.any(np.broadcast_to(_value(sweep.full_when, env) & (places >= step), tiles)))


def _tiles(part: Pass, n: int, tile: int) -> tuple[dict[str, Ints], int]:
    """The ends of a pass' tiles, by the names that bounds know them by, and how many of them there are here.

    All of them, or evenly chosen ones where they are more than ``MOST_TILES``.
    """
    walked = part.walk
    ends = tile_ends(walked.var, walked.radix, part.extents)
    if walked.radix == PLAIN:
        first = np.arange(0, max(n, 1), tile)
        return {"first": first, "last": np.minimum(first + tile, n) - 1}, len(first)
    inner = prod(part.extents)
    spans = [max(1, tile // inner), *part.extents]
    limits = [(0, (n - 1) // walked.radix.weights[0])]
    limits += [(constant(low) or 0, constant(high) or 0) for low, high in walked.ranges]
    counts = [-(-(high + 1 - low) // span) for (low, high), span in zip(limits, spans, strict=True)]
    most = max(counts) if prod(counts) <= MOST_TILES else int(MOST_TILES ** (1 / len(counts)))
    places = (_spread(count, min(count, most)) for count in counts)
    starts = np.meshgrid(
        *(low + span * place for (low, _), span, place in zip(limits, spans, places, strict=True)),
        indexing="ij",
    )
    found: dict[str, Ints] = {}
    for (first_name, last_name), start, (_, high), span in zip(
        ends.values(), starts, limits, spans, strict=True
    ):
        found[last_name.name] = np.minimum(start.ravel() + span - 1, high)
        found[first_name.name] = start.ravel()
    return found, starts[0].size


def _value(expr: Expr, env: Env) -> Any:
    """The value of a bound; what is read from inputs is taken to be the tile's own place."""
    near: dict[Expr, Expr] = {}
    for part in walk(expr):
        if isinstance(part, TileMin | TileMax | Lookup):
            plain = "first" if isinstance(part, TileMin) else "last"
            name = plain if plain in env.variables else f"{plain}0"
            near[part] = Var(name)
    return evaluate(substitute(expr, near), env)


def _spread(count: int, most: int) -> Ints:
    """Of the numbers below ``count`` at most ``most``, spread evenly."""
    numbers = np.linspace(0, count - 1, most).astype(np.int64)
    return numbers[np.diff(numbers, prepend=-1) > 0]

"""The expected time of a pattern's kernels on a GPU that need not be there.

Steps of every kernel are counted tile by tile, for sample inputs where inputs decide. A step takes

    cycles = max(matrix products, shared memory) + stall * instructions issued

and a kernel the longest of: its steps shared out among the multiprocessors, its longest program, the bytes
that it must move to and from memory, and those that it reads from the cache. Instructions of a step come from
machine code (``instructions.json``), rates from ``devices.json``. ``stall``, what an instruction costs beside
a matrix product, is fitted to the published rates of FlexAttention on an H100, whose kernels are of the same
kind. Nothing was measured on kernels of attnc yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from attnc.codegen.states import chunk_of, family
from attnc.codegen.tile_tables import Sizes, sizes_of, tile_shape
from attnc.codegen.weights import BodyWeights
from attnc.cost import edges as edges_of
from attnc.evaluation import Env, evaluate
from attnc.expression import ZERO, fold
from attnc.factorise import features
from attnc.pattern import Part
from attnc.pipeline import Planned
from attnc.prediction.instructions import instructions
from attnc.sampling import Sample
from attnc.schedule import BodyPlan, Pass

Kernel = Literal["forward", "query", "key"]
Floats = npt.NDArray[np.float64]

# Cycles that an instruction costs beside a matrix product.
STALL = {"forward": 1.51, "query": 2.88, "key": 2.88}
# Products of a pair of tiles over the head dim: those whose left operand lies in shared memory, and those
# that have it in registers.
PRODUCTS = {"forward": (1, 1), "query": (2, 1), "key": (2, 2)}
# Tensors that a program reads or writes for its own rows, and those of the other side, each once.
OWN = {"forward": 2, "query": 4, "key": 4}
OTHER = {"forward": 2, "query": 2, "key": 2}
SCHEDULERS, WARP_ROWS = 4, 64
# Positions of a chunk under gates for each channel and the delta rule.
GATED_CHUNK = 64
# Seconds from one kernel to the next.
LAUNCH = 2e-6
# How sweeps come in shares: as modules have it.
PROGRAMS, MOST_SHARES, SHARE_STEPS, HEAVY_STEPS = 256, 64, 8, 32
# Rows on which edges are counted where no formula tells.
ROWS = 1024
# The longest sequence whose tiles are counted.
MOST = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """What a GPU can do.

    clock: cycles a second that it sustains. matrix_flops, shared_bytes: of one multiprocessor in a cycle, in
    16 bits. product: FLOP/s of a large matrix product; memory, cache: bytes a second, as far as copies get.
    """

    name: str
    multiprocessors: int
    clock: float
    matrix_flops: int
    shared_bytes: int
    product: float
    memory: float
    cache: float


@cache
def gpus() -> dict[str, Gpu]:
    """The GPUs that are known, by the names that ``--predict`` takes."""
    text = files("attnc.prediction").joinpath("devices.json").read_text(encoding="utf-8")
    return {name: Gpu(**item) for name, item in json.loads(text).items()}


@dataclass(frozen=True)
class Shape:
    """``n`` queries and keys in 16 bits, with value dims as large as head dims."""

    n: int
    heads: int = 8
    kv_heads: int = 8
    dim: int = 64
    batch: int = 1


@dataclass(frozen=True)
class Expected:
    """What one direction is expected to take.

    seconds: the time. floor: below which no kernel gets, by the operations of edges and the bytes of q, k, v
    and the output. flops: of edges that are swept. launches: kernels. limit: what takes most of the time.
    least: whether the time is a lower bound, because the arithmetic of states is left out.
    """

    seconds: float
    floor: float
    flops: float
    launches: int
    limit: str
    least: bool = False

    @property
    def share(self) -> float:
        """Of the floor; 1 is the best there is."""
        return self.floor / self.seconds


class Unpredictable(ValueError):
    """A shape or pattern that the model says nothing about; the text says why."""


@dataclass(frozen=True)
class Work:
    """What the kernels of one pattern do at one shape, whatever the GPU.

    launches: by direction. edges: of all heads. swept: those that are not summed up in states.
    stated: whether some are summed up; their arithmetic is left out.
    """

    shape: Shape
    launches: dict[str, list[_Swept | _Moved]]
    edges: int
    swept: int
    stated: bool

    def on(self, gpu: Gpu) -> dict[str, Expected]:
        """What ``forward`` and ``backward`` are expected to take."""
        shape = self.shape
        flops = 4.0 * shape.dim * self.swept  # two products an edge
        moved = 4.0 * shape.dim * shape.batch * shape.n * (shape.heads + shape.kv_heads)
        return {
            "forward": self._expected("forward", flops, moved, gpu),
            "backward": self._expected("backward", 2.5 * flops, 2 * moved, gpu),
        }

    def _expected(self, direction: str, flops: float, moved: float, gpu: Gpu) -> Expected:
        launches = self.launches[direction]
        seconds = {"launches": len(launches) * LAUNCH}
        for launch in launches:
            limit, time = max(launch.times(gpu).items(), key=lambda item: item[1])
            seconds[limit] = seconds.get(limit, 0.0) + time
        floor = max(flops / gpu.product, moved / gpu.memory)
        limit = max(seconds, key=lambda name: seconds[name])
        return Expected(sum(seconds.values()), floor, flops, len(launches), limit, self.stated)


def count(planned: Planned, shape: Shape, fills: Mapping[str, str] | None = None, rows: int = ROWS) -> Work:
    """Counts what the kernels do.

    fills: how sample inputs are filled, by name. rows: in so many edges are counted where no formula tells.

    Raises ``Unpredictable``, and ``BadFill``.
    """
    if shape.n > MOST:
        raise Unpredictable(f"times are predicted for up to {MOST} tokens, not {shape.n}")
    launches: dict[str, list[_Swept | _Moved]] = {"forward": [], "backward": []}
    edges, swept, least = 0, 0, False
    for plan, terms in zip(planned.schedule.bodies, planned.bodies, strict=True):
        numbers = _heads(plan, shape.heads)
        if not numbers:
            continue
        if len(plan.body.parts) > 1:
            raise Unpredictable("parts of a body share a denominator, and none has a form through states")
        stated, heads = any(plan.factors), len(numbers) * shape.batch
        sample = Sample(planned.pattern, plan.body, shape.n, numbers[0], shape.heads, fills)
        whole = replace(sample, body=plan.whole or plan.body)
        cost = edges_of(terms.terms)
        told = cost.exact and not cost.of_inputs
        number = (cost.at(shape.n) if told else whole.edges(rows)) * heads
        edges += number
        if not stated:
            swept += number
        elif plan.whole is not None:
            swept += sample.edges(rows) * heads
        weights = BodyWeights(plan.body)
        for part in plan.query:
            launches["forward"].append(_swept("forward", part, weights, sample, shape, heads))
            launches["backward"].append(_swept("query", part, weights, sample, shape, heads))
        launches["backward"] += [_swept("key", part, weights, sample, shape, heads) for part in plan.key]
        least |= stated
        for factor, item in zip(plan.factors, (plan.whole or plan.body).parts, strict=False):
            if factor is not None:
                for name, found in launches.items():
                    found += _stated(item, shape, heads, name == "backward")
    return Work(shape, launches, edges, swept, least)


def _heads(plan: BodyPlan, heads: int) -> list[int]:
    condition = fold(plan.body.heads.condition)
    return [h for h in range(heads) if evaluate(condition, Env({"h": h, "H": heads}))]


# --- sweeps ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Swept:
    """One kernel over tiles.

    steps: of every tile, and the instructions that a warp issues in one. heads: of all sequences. group: how
    many of them a program goes through. shares: programs that share a tile with most to do. moved, read:
    bytes from memory, and from the cache.
    """

    kernel: Kernel
    sizes: Sizes
    dim: int
    steps: tuple[tuple[Floats, float], ...]
    heads: int
    group: int
    shares: float
    moved: float
    read: float

    def times(self, gpu: Gpu) -> dict[str, float]:
        """Seconds that it would take if nothing else limited it, by what limits it."""
        cycles = np.zeros(1)
        for steps, issued in self.steps:
            cycles = cycles + steps * _cycles(self.kernel, self.sizes, self.dim, issued, gpu)
        return {
            "arithmetic": float(cycles.sum()) * self.heads / gpu.multiprocessors / gpu.clock,
            "the longest program": float(cycles.max(initial=0.0)) * self.group / self.shares / gpu.clock,
            "memory": self.moved / gpu.memory,
            "cache": self.read / gpu.cache,
        }


def _swept(
    kernel: Kernel, part: Pass, weights: BodyWeights, sample: Sample, shape: Shape, heads: int
) -> _Swept:
    form = tile_shape(part, weights)
    sizes = sizes_of(kernel, shape.dim, form)
    own, step = (sizes.keys, sizes.queries) if kernel == "key" else (sizes.queries, sizes.keys)
    tiles = sample.tiles(part, own)
    steps: list[tuple[Floats, float]] = []
    read = np.zeros(len(tiles.starts))
    for sweep in part.sweeps:
        visits = sample.visits(part, sweep, tiles, step)
        for places, masked in ((visits.full, None), (visits.masked, sweep)):
            if places.any():
                issued = instructions(kernel, form, shape.dim, sizes, part, masked, weights)
                steps.append((places / step, issued))
        read = read + visits.full + visits.masked + visits.alone * tiles.lengths
    group = shape.heads // shape.kv_heads if kernel == "key" else 1
    row = 2.0 * shape.dim  # bytes
    others = shape.n * OTHER[kernel] * (heads if kernel == "key" else shape.kv_heads * shape.batch)
    return _Swept(
        kernel=kernel,
        sizes=sizes,
        dim=shape.dim,
        steps=tuple(steps),
        heads=heads,
        group=group,
        shares=_shares(part, len(tiles.starts) * heads / group, float(read.max(initial=0.0)) / step),
        moved=row * (len(tiles.rows) * OWN[kernel] * heads / group + others),
        read=float(read.sum()) * 2 * row * heads,
    )


def _shares(part: Pass, programs: float, steps: float) -> float:
    """How many programs share the tile with most to do, as ``_shares`` of modules tells it."""
    if part.longest == ZERO or not programs:
        return 1.0
    few = min(PROGRAMS // programs, steps / SHARE_STEPS, MOST_SHARES)
    return max(1.0, few if few >= 2 or not part.heavy else min(steps / HEAVY_STEPS, MOST_SHARES))


def _cycles(kernel: Kernel, sizes: Sizes, dim: int, issued: float, gpu: Gpu) -> float:
    """Cycles of one step of one program."""
    rows, columns = (sizes.keys, sizes.queries) if kernel == "key" else (sizes.queries, sizes.keys)
    shared, registers = PRODUCTS[kernel]
    products = 2.0 * rows * columns * dim * (shared + registers) / gpu.matrix_flops
    # A product of 64 rows reads its right operand whole, and its left one unless it lies in registers.
    right = 2.0 * columns * dim * (shared + registers) * max(1, rows // WARP_ROWS)
    left = 2.0 * rows * dim * shared
    fetched = (left + right) / gpu.shared_bytes
    return max(products, fetched) + STALL[kernel] * issued * sizes.warps / SCHEDULERS


# --- states ---------------------------------------------------------------------------------------------

# Tensors that each kernel over states moves: rows of queries, of keys, states of all chunks, pairs within
# chunks. Gradients are in fp32, and so count twice.
_LINEAR: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "forward": ((0, 2, 1, 0), (0, 0, 2, 0), (2, 2, 1, 0)),
    "backward": (
        *((0, 2, 1, 0), (0, 0, 2, 0), (2, 0, 0, 0), (2, 0, 1, 0), (0, 0, 3, 0)),
        *((4, 2, 1, 0), (2, 4, 1, 0), (2, 3, 1, 0)),
    ),
}
_GATED: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "forward": ((0, 2, 1, 0), (1, 1, 0, 1), (3, 1, 1, 1)),
    "backward": (
        *((0, 2, 1, 0), (1, 1, 0, 1), (2, 0, 1, 0), (3, 1, 1, 1)),
        *((1, 1, 0, 2), (6, 2, 2, 0), (9, 1, 0, 2)),
    ),
}
# What the delta rule adds: likeness, its solution, corrections and what is written.
_DELTA = {"forward": ((0, 1, 0, 2), (0, 0, 0, 3), (2, 2, 0, 1)), "backward": ((2, 2, 0, 3),)}


@dataclass(frozen=True)
class _Moved:
    """One kernel of which only the bytes are known that it moves."""

    bytes: float

    def times(self, gpu: Gpu) -> dict[str, float]:
        """Seconds, by what limits it."""
        return {"memory": self.bytes / gpu.memory}


def _stated(part: Part, shape: Shape, heads: int, backward: bool) -> list[_Moved]:
    """What kernels over states must move; their arithmetic is left out."""
    weights, name = part.weights, "backward" if backward else "forward"
    linear = family(weights) == "linear"
    width = features(weights, shape.dim)
    chunk, size = (chunk_of(width), 4) if linear else (GATED_CHUNK, 2)
    rows = 2.0 * shape.n * shape.dim * heads
    keys = 2.0 * shape.n * shape.dim * shape.kv_heads * shape.batch
    states = float(size * -(-shape.n // chunk) * width * (shape.dim + weights.normalized) * heads)
    pairs = 2.0 * shape.n * GATED_CHUNK * heads
    kernels = (_LINEAR if linear else _GATED)[name]
    if weights.beta is not None:
        kernels += _DELTA["forward"] + (_DELTA["backward"] if backward else ())
    sizes = (rows, keys, states, pairs)
    return [_Moved(sum(times * held for times, held in zip(moved, sizes, strict=True))) for moved in kernels]

"""What is measured: a pattern at one shape, with random tensors and plausible random inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from attnc.bench.formula import MaskFunction, by_head, mask_function, masks_of
from attnc.bench.scores import ScoreFunction, score_function
from attnc.fills import BadFill, chosen, filled
from attnc.pattern import Pattern
from attnc.request import Request

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Entries of the whole mask up to which every edge is counted; beyond, on rows spread over the sequence.
MOST_COUNTED = {"cpu": 1 << 31, "cuda": 1 << 38}
SPREAD_ROWS = 4096


class BadCase(ValueError):
    """Something that cannot be measured as it was asked for; the text says what and how to mend it."""


@dataclass(frozen=True)
class Shape:
    """batch, query heads, key heads, tokens, head dim, and the dtype's name."""

    n: int
    heads: int = 8
    kv_heads: int = 8
    dim: int = 64
    batch: int = 1
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Case:
    """A pattern at one shape: q (batch, heads, n, dim), k and v (batch, key heads, n, dim), the inputs.

    grad: of the output, (batch, heads, n, dim). fills: how each input was filled, in words.
    """

    request: Request
    pattern: Pattern
    shape: Shape
    device: torch.device
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grad: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    fills: Mapping[str, str]
    seed: int = 0
    params: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def weighed(self) -> bool:
        """Whether edges weigh something else than plain softmax."""
        return any(not part.weights.plain for body in self.pattern.bodies for part in body.parts)

    @property
    def mask_heads(self) -> int:
        """Heads of the mask: 1 where all of them read the same keys."""
        return self.shape.heads if by_head(self.pattern) else 1

    def mask(self) -> MaskFunction:
        """The pattern as a function of positions; a new one with every call."""
        return mask_function(self.pattern, self.shape.n, self.shape.heads, self.inputs, self.device)

    def score(self) -> ScoreFunction | None:
        """What softmax takes of a scaled product at some positions, or None where that is the product."""
        if not self.weighed:
            return None
        return score_function(self.pattern, self.shape.n, self.shape.heads, self.inputs)

    @cached_property
    def edges(self) -> tuple[int, bool]:
        """Edges of all heads and batch entries, and whether every one was counted."""
        n, heads = self.shape.n, self.mask_heads
        rows = torch.arange(n, device=self.device)
        whole = n * n * heads <= MOST_COUNTED["cpu" if self.device.type == "cpu" else "cuda"]
        if not whole:
            # One row of every stripe, anywhere in it: evenly spaced rows would fall in step with a stride.
            generator = torch.Generator().manual_seed(self.seed)
            bounds = torch.linspace(0, n, SPREAD_ROWS + 1).long()
            room = bounds[1:] - bounds[:-1]
            offsets = (torch.rand(SPREAD_ROWS, generator=generator) * room).long()
            rows = (bounds[:-1] + offsets).to(self.device)
        counted = sum(int(edges.sum()) for _, edges in masks_of(self.mask(), rows, n, heads))
        times = self.shape.batch * self.shape.heads // heads
        return round(counted * n / len(rows)) * times, whole

    def flops(self, backward: bool = False) -> int:
        """Useful operations: two products an edge forward, five backward."""
        return self.edges[0] * self.shape.dim * (10 if backward else 4)

    def traffic(self, backward: bool = False) -> int:
        """Bytes that must move at least: q, k, v, o once each; with their gradients in the backward."""
        queries, keys = self.q.nbytes, self.k.nbytes
        return 4 * queries + 4 * keys if backward else 2 * queries + 2 * keys


def _check_memory(shape: Shape) -> None:
    """Raises ``BadCase`` for tensors larger than the memory.

    Said beforehand: a system may grant memory that it does not have, and end the process that uses it.
    """
    entries = shape.batch * (2 * shape.heads + 2 * shape.kv_heads) * shape.n * shape.dim
    needed = entries * DTYPES[shape.dtype].itemsize
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not told here
        return
    if needed > there:
        raise BadCase(
            f"q, k, v and the output's gradient of {shape.n} tokens take {needed / 2**30:.0f} GiB, and this "
            f"machine has {there / 2**30:.0f} GiB of memory: take fewer tokens (`--n`), heads or sequences"
        )


def make_case(
    request: Request,
    pattern: Pattern,
    shape: Shape,
    device: torch.device,
    fills: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Case:
    """Random tensors, drawn on the CPU so that a seed means the same everywhere; inputs as ``fills`` says.

    Raises ``BadCase`` for fills of inputs that are not there or cannot be filled so, and for tensors that the
    machine has no memory for.
    """
    _check_memory(shape)
    try:
        arrays = filled(pattern, shape.n, shape.heads, fills, seed, shape.dim)
        words = chosen(pattern, fills)
    except BadFill as error:
        raise BadCase(str(error)) from None
    generator = torch.Generator().manual_seed(seed)
    dtype = DTYPES[shape.dtype]

    def random(heads: int) -> torch.Tensor:
        drawn = torch.randn((shape.batch, heads, shape.n, shape.dim), generator=generator)
        return drawn.to(device, dtype)

    q, k, v = random(shape.heads), random(shape.kv_heads), random(shape.kv_heads)
    if any(part.weights.beta is not None for body in pattern.bodies for part in body.parts):
        k = torch.nn.functional.normalize(k, dim=3)  # the delta rule diverges with longer ones
    grad = random(shape.heads)
    inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    params = {**{param.name: param.value for param in pattern.params}, **dict(pattern.float_params)}
    return Case(request, pattern, shape, device, q, k, v, grad, inputs, words, seed, params)

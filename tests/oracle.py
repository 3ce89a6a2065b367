"""Emitted modules held against dense masked attention in fp64: outputs, log-sum-exps and all gradients.

What is allowed is told by the same computation done densely in the module's own dtype: at most twice its
largest error and 1.1 times its mean error. Below that lies a floor, for where the dense result happens to be
exact or nearly so: ``FLOOR_MAX`` and ``FLOOR_MEAN`` units in the last place of the *magnitude* of what was
added up (``magnitudes``), because no order of summation can promise less. The log-sum-exp is kept in fp32
whatever the dtype is, and held to that: so an edge too many or too few is seen in bf16, too, where an output
alone could hide it. ``test_oracle_torch.py`` flips edges to prove that.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch

from attnc import counting, planner, reference
from attnc.codegen.module import emit
from attnc.diagnostics import Source
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.pattern import Pattern
from attnc.pipeline import Judged, Planned, facts, pattern_pass, schedule_pass, syntax_pass, terms_pass
from attnc.request import Request
from attnc.schedule import Schedule
from tests import weighed
from tests.device import there
from tests.strategies import Call

Tensors = tuple[torch.Tensor, ...]

FLOOR_MAX = 4.0
FLOOR_MEAN = 0.5
# An fp32 sum of ``d`` products strays by more than one of them: what a score may be off, in ulps of its size.
LSE_FLOOR = 16.0
# Where the CPU multiplies matrices of bf16, the library's fused attention works in bf16, with exponentials
# no more exact than this, relative to themselves: so far may a log-sum-exp be off, less than bf16 can tell.
FUSED_EXP = 2.0**-13

# Larger than what is rounded: beside such a number all others are nothing.
VAST = 1e30
NAMES = ("output", "lse", "query gradient", "key gradient", "value gradient")


# --- compiling ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    pattern: Pattern
    schedule: Schedule
    text: str
    module: ModuleType


@contextmanager
def weighed_small() -> Iterator[None]:
    """Plans made in here are weighed as if tiles were of a few positions and passes cheap.

    Small patterns get what only large ones get otherwise: tiles in digits, joined passes, edges one by one.
    """
    with (
        patch.object(planner, "TILE", 8),
        patch.object(planner, "STEP", 4),
        patch.object(planner, "JOINING", 4),
        patch.object(planner, "LONG", 4),
        patch.object(counting, "SCATTERED", 3),
    ):
        yield


def planned(
    text: str, params: dict[str, Any] | None = None, name: str | None = None, small: bool = False
) -> Planned:
    """A pattern's text as far as its schedule; claims are not judged, and the cost is not told.

    small: weighed as in ``weighed_small``.
    """
    request = Request(Source("drawn.attn", text), name, params or {}, readable=False)
    decomposed = terms_pass(pattern_pass(syntax_pass(request)))
    with weighed_small() if small else nullcontext():
        return schedule_pass(Judged(**vars(decomposed), claims=()))


@contextmanager
def tiles(module: ModuleType, queries: int, keys: int) -> Iterator[None]:
    """Whatever a module launches in here has tiles of that size, and chunks as short as they get."""
    sizes = {"BLOCK_M": queries, "BLOCK_N": keys, "num_warps": 4, "num_stages": 1}
    swept = patch.object(module, "_tile_sizes", lambda *_: sizes) if hasattr(module, "_tile_sizes") else None
    with swept or nullcontext(), shared(module), short_chunks(module):
        yield


@contextmanager
def short_chunks(module: ModuleType) -> Iterator[None]:
    """Chunks of states have 64 positions in here, whatever the features, if a module knows of chunks."""
    if not hasattr(module, "_kernel_chunk"):
        yield
        return
    with patch.object(module, "_kernel_chunk", lambda width: 64):
        yield


@contextmanager
def shared(module: ModuleType, steps: int = 1, programs: int = 4096) -> Iterator[None]:
    """Whatever a module launches in here comes in shares of that many steps, if it knows of shares.

    programs: below so many; with none, what has far more to do than the rest comes in shares, and that alone.
    """
    if not hasattr(module, "_SHARE_STEPS"):
        yield
        return
    with patch.multiple(module, _SHARE_STEPS=steps, _HEAVY_STEPS=steps, _PROGRAMS=programs):
        yield


@lru_cache(maxsize=64)
def compiled(
    text: str, params: tuple[tuple[str, Any], ...] = (), name: str | None = None, small: bool = False
) -> Compiled:
    done = planned(text, dict(params), name, small)
    emitted = emit(done.pattern, done.schedule, facts(done))
    return Compiled(done.pattern, done.schedule, emitted, imported(emitted))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="attnc-oracle-")


_numbers = itertools.count()


def imported(text: str, name: str | None = None) -> ModuleType:
    """A module of this text, imported from a file under a name of its own."""
    name = name or f"emitted_{next(_numbers)}"
    path = Path(_folder().name) / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# --- arguments ------------------------------------------------------------------------------------------


def _floats(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    call: Call,
    role: Literal["gate", "step", "weight", "hides", "deep"],
) -> torch.Tensor:
    """A table of weights: in any dtype whatever that of the tensors is, and mostly one that is learned.

    Gates are logarithms of factors below one, and steps of the delta rule so small that nothing grows. What
    hides edges has minus infinity, or the least number that all dtypes but fp16 have, in whole rows, too.
    """
    own = torch.float64 if call.dtype == "float64" else torch.float32
    dtype = rng.choice([own, own, own, torch.bfloat16, torch.float16])
    learned = bool(rng.random() < 0.85)
    match role:
        case "gate":
            values = -0.02 * rng.random(shape)
        case "step":
            values = rng.random(shape) / call.dim
        case "weight":
            values = rng.standard_normal(shape)
        case "hides":
            values = rng.standard_normal(shape)
            least = rng.choice([-np.inf, -np.inf, torch.finfo(torch.bfloat16).min])
            values[rng.random(shape) < rng.choice([0.1, 0.7])] = least
            if len(shape) > 1:
                values[rng.random(shape[:-1]) < 0.3] = least
            dtype = own
        case "deep":
            values = rng.standard_normal(shape)
            values = np.where(
                rng.random(shape) < 0.5, values, rng.choice([np.inf, -np.inf, 3e38, -3e38], shape)
            )
            dtype = own
    return torch.from_numpy(values).to(dtype).requires_grad_(learned)


def _roles(pattern: Pattern) -> dict[str, Literal["gate", "step"]]:
    """What inputs are there for that may not be just any number."""
    roles: dict[str, Literal["gate", "step"]] = {}
    for part in (part for body in pattern.bodies for part in body.parts):
        if part.weights.decay is not None:
            roles[part.weights.decay.table] = "gate"
        if part.weights.beta is not None:
            roles[part.weights.beta] = "step"
    return roles


def inputs(pattern: Pattern, call: Call) -> dict[str, torch.Tensor]:
    """Something for every input of the pattern; numbers come sorted (documents) or in any order."""
    found, roles = {}, _roles(pattern)
    for number, item in enumerate(pattern.inputs):
        rng = np.random.default_rng((call.seed, number))  # so that no input's length shifts the next one
        sizes = Env({"n": call.n, "H": call.heads, "d": call.dim})
        shape = tuple(int(evaluate(size, sizes)) for size in item.shape)
        if call.batched_inputs:
            shape = (call.batch, *shape)
        if item.kind == "float":
            role = next((kind for kind in ("hides", "deep") if item.name.startswith(kind)), "weight")
            found[item.name] = _floats(rng, shape, call, roles.get(item.name, role))
            continue
        if item.kind == "bool":
            values = rng.random(shape) < rng.choice([0.05, 0.3, 0.9])
        else:
            values = rng.integers(-3, rng.choice([0, 4, 20]), shape)
            if rng.random() < 0.6:
                values = np.sort(values, axis=-1)
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        narrow = item.kind == "int" and rng.random() >= 0.5
        found[item.name] = tensor.to(torch.int32) if narrow else tensor
    return found


def tensors(call: Call, dtype: torch.dtype | None = None) -> tuple[Tensors, Tensors]:
    """q, k and v, and gradients for the output and the log-sum-exp, in the memory layout of the call.

    Whatever lies around a slice is NaN: who reads there, spoils everything.
    """
    dtype = dtype or getattr(torch, call.dtype)
    generator = torch.Generator().manual_seed(call.seed)
    b, n, n_q = call.batch, call.n, call.n_q
    shapes = [
        (b, call.heads, n_q, call.dim),
        (b, call.key_heads, n, call.dim),
        (b, call.key_heads, n, call.value_dim),
        (b, call.heads, n_q, call.value_dim),
    ]
    made = [_laid_out(torch.randn(shape, generator=generator).to(dtype), call.layout) for shape in shapes]
    lse_grad = torch.randn((b, call.heads, n_q), generator=generator)
    return tuple(x.requires_grad_() for x in made[:3]), (made[3], lse_grad)


def _laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    match layout:
        case "heads inside":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        case "slice":
            b, h, n, d = x.shape
            larger = torch.full((b, h + 1, n + 3, d + 16), torch.nan, dtype=x.dtype)
            larger[:, 1:, 2 : n + 2, 8 : d + 8] = x
            return larger[:, 1:, 2 : n + 2, 8 : d + 8]
        case "expanded":
            return x[:1].expand(x.shape).detach()
    return x


# --- running --------------------------------------------------------------------------------------------


@contextmanager
def poisoned() -> Iterator[None]:
    """What is allocated without being filled is NaN in here."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def operands(module: ModuleType, args: Tensors, tables: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    """What an emitted module's operator takes between q, k, v and the scale: inputs, what is derived of them,
    and, where it has states, none of those.
    """
    found, q = list(tables), args[0]
    if hasattr(module, "_sinks"):
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        named = dict(zip(module.INPUTS, tables, strict=True))
        found.append(module._sinks(named, q.shape[1], dtype, q.device))
    if hasattr(module, "_gates"):
        found += module._gates(list(tables), q, args[1].shape[2])
    return (found, None) if hasattr(module, "_STATES") else (found,)


def ours(
    module: ModuleType,
    args: Tensors,
    grads: Tensors,
    tables: Sequence[torch.Tensor],
    call: Call,
    backend: str,
) -> Tensors:
    """Output, log-sum-exp, and gradients of q, k, v and the tables that want one, by the emitted module."""
    scale = call.dim**-0.5 if call.scale is None else call.scale
    given = dict(zip(module.INPUTS, tables, strict=True))
    module._check(*args, given, call.scale, backend)
    wanted = (*args, *(table for table in tables if table.requires_grad))
    with poisoned():
        out, lse = there(module._forward)(*args, *operands(module, args, tables), scale, backend)[:2]
        lse = lse if lse.dim() == 3 else lse.sum(3)  # under weights the sum comes in two parts
        # A row without edges has no log-sum-exp that could be pulled at.
        pull = torch.where(lse.detach() == -torch.inf, 0.0, grads[1].to(lse.dtype))
        given_up = {"allow_unused": True, "materialize_grads": True}  # a table may be multiplied by zero
        found = torch.autograd.grad((out, lse), wanted, (grads[0], pull), **given_up)
    return (out.detach(), lse.detach(), *found)


def dense(args: Tensors, grads: Tensors, mask: np.ndarray, call: Call, dtype: torch.dtype) -> Tensors:
    """The same by the dense interpreter, in the given dtype."""
    args = tuple(x.detach().to(dtype).requires_grad_() for x in args)
    out, lse = reference.attention(*args, mask, call.scale)
    pull = torch.where(lse.detach() == -torch.inf, 0.0, grads[1].to(lse.dtype))
    found = torch.autograd.grad((out, lse), args, (grads[0].to(dtype), pull))
    return (out.detach(), lse.detach(), *found)


def magnitudes(args: Tensors, grads: Tensors, mask: np.ndarray, call: Call) -> Tensors:
    """For every number of a result, the sum of the absolute values of what it is the sum of; fp64.

    Rounding errors are in proportion to these, however much cancels.
    """
    q, k, v = (x.detach().double() for x in args)
    grad, pull = (x.double() for x in grads)
    group = call.heads // call.key_heads
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    scale = call.dim**-0.5 if call.scale is None else call.scale
    edges = torch.from_numpy(np.array(mask)).broadcast_to(call.batch, call.heads, call.n_q, call.n)
    scores = (q @ keys.transpose(2, 3) * scale).masked_fill(~edges, -torch.inf)
    score_size = q.abs() @ keys.abs().transpose(2, 3) * abs(scale)
    weights = scores.softmax(3).nan_to_num()
    # A score that is off by a little takes its weight with it, in proportion.
    heavy = weights * (1 + score_size)
    out = heavy @ values.abs()
    d_weights = grad.abs() @ values.abs().transpose(2, 3)
    delta = (grad.abs() * out).sum(3, keepdim=True) + pull.abs()[..., None]
    d_scores = heavy * (d_weights + delta) * abs(scale)
    d_keys, d_values = d_scores.transpose(2, 3) @ q.abs(), heavy.transpose(2, 3) @ grad.abs()

    def shared(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (call.key_heads, group)).sum(2)

    lse = (score_size * edges).amax(3) + 1 if call.n else torch.ones(call.batch, call.heads, call.n_q)
    return out, lse.double(), d_scores @ keys.abs(), shared(d_keys), shared(d_values)


# --- judging --------------------------------------------------------------------------------------------


def judge(
    got: Tensors,
    exact: Tensors,
    yardstick: Tensors,
    sizes: Tensors,
    dtype: torch.dtype,
    lse_slack: float,
    tables: Sequence[tuple[str, torch.dtype]] = (),
) -> list[str]:
    """What is wrong with a result, in words; empty when nothing is.

    tables: of the inputs whose gradients stand behind the others, name and dtype.
    """
    faults = []
    named = [(name, dtype) for name in NAMES] + [(f"gradient of {name}", own) for name, own in tables]
    for (name, own), a, b, c, size in zip(named, got, exact, yardstick, sizes, strict=True):
        if not b.isfinite().all() and name != "lse":
            faults.append(f"{name} is not finite by its definition")
            continue
        if a.shape != b.shape:
            faults.append(f"{name} has shape {tuple(a.shape)} instead of {tuple(b.shape)}")
            continue
        if a.isnan().any():
            faults.append(f"{name} has {int(a.isnan().sum())} NaN")
            continue
        if a.numel() == 0:
            continue
        if name == "lse":
            faults += _judge_lse(a.double(), b, size, dtype, lse_slack)
            continue
        if a.dtype != own:
            faults.append(f"{name} is {a.dtype}")
        # What overflows in the dense computation allows for nothing.
        error, allowed = (a.double() - b).abs(), (c.double() - b).abs().nan_to_num(0.0, posinf=0.0)
        unit = max(torch.finfo(dtype).eps, torch.finfo(own).eps)
        # In fp64 the definition itself is off by as much as what is held against it.
        floors = 2 if dtype == torch.float64 else 1
        most = 2 * float(allowed.max()) + floors * FLOOR_MAX * unit * float(size.max())
        mean = 1.1 * float(allowed.mean()) + floors * FLOOR_MEAN * unit * float(size.mean())
        if torch.float16 in (dtype, own):  # below its normal numbers fp16 has a fixed spacing
            most, mean = most + 2.0**-24, mean + 2.0**-24
        if float(error.max()) > most:
            place = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
            faults.append(f"{name} is off by {float(error.max()):.2e} at {place}, and may by {most:.2e}")
        if float(error.mean()) > mean:
            faults.append(f"{name} is off by {float(error.mean()):.2e} in the mean, and may by {mean:.2e}")
    return faults


def _judge_lse(
    a: torch.Tensor, b: torch.Tensor, size: torch.Tensor, dtype: torch.dtype, slack: float
) -> list[str]:
    wrong = (a == -torch.inf) != (b == -torch.inf)
    if wrong.any():
        return [f"{int(wrong.sum())} rows are wrongly empty or not, first {wrong.nonzero()[0].tolist()}"]
    unit = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    wrong = (a > VAST) != (b > VAST)  # a sink of infinity is as large as numbers get
    if wrong.any():
        return [f"{int(wrong.sum())} rows wrongly have a sink of infinity or not"]
    error = torch.where((b == -torch.inf) | (b > VAST), 0.0, a - b).abs()
    excess = error - LSE_FLOOR * unit * size - slack
    if float(excess.max()) <= 0:
        return []
    place = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    return [f"lse is off by {float(error[place]):.2e} at {place}"]


def empty_rows(got: Tensors) -> list[str]:
    """Rows without edges must be exactly zero, and pull at nothing."""
    out, lse, d_query = got[:3]
    nothing = lse == -torch.inf
    faults = []
    if out[nothing].abs().sum() != 0:
        faults.append("the output of a row without edges is not zero")
    if d_query[nothing].abs().sum() != 0:
        faults.append("the gradient of a query without edges is not zero")
    return faults


def check(done: Compiled, call: Call, backend: str, dtype: torch.dtype | None = None) -> list[str]:
    """Everything that is wrong with a compiled pattern under one call, in words."""
    dtype = dtype or getattr(torch, call.dtype)
    tables = inputs(done.pattern, call)
    args, grads = tensors(call, dtype)
    if weighed.is_weighed(done.pattern):
        got = ours(done.module, args, grads, list(tables.values()), call, backend)
        return against_definition(done.pattern, got, args, grads, tables, call) + empty_rows(got)
    arrays = {name: table.numpy() for name, table in tables.items()}
    mask = reference.mask(done.pattern, call.n, call.heads, arrays, call.n_q)
    got = ours(done.module, args, grads, list(tables.values()), call, backend)
    return against(got, args, grads, mask, call, dtype, backend) + empty_rows(got)


def against_definition(
    pattern: Pattern,
    got: Tensors,
    args: Tensors,
    grads: Tensors,
    tables: dict[str, torch.Tensor],
    call: Call,
) -> list[str]:
    """A result against the definition of weighed attention."""
    dtype = args[0].dtype
    exact = weighed.dense(pattern, args, grads, tables, call, torch.float64)
    yardstick = weighed.dense(pattern, args, grads, tables, call, dtype)
    sizes = weighed.sizes(pattern, args, grads, tables, call, exact)
    named = [(name, table.dtype) for name, table in weighed.leaves(tables).items()]
    fused = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return judge(got, exact, yardstick, sizes, dtype, FUSED_EXP if fused else 0.0, named)


def against(
    got: Tensors,
    args: Tensors,
    grads: Tensors,
    mask: np.ndarray,
    call: Call,
    dtype: torch.dtype,
    backend: str = "triton",
) -> list[str]:
    """A result against a mask."""
    exact = dense(args, grads, mask, call, torch.float64)
    yardstick = dense(args, grads, mask, call, dtype)
    fused = backend == "torch" and dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    sizes = magnitudes(args, grads, mask, call)
    return judge(got, exact, yardstick, sizes, dtype, FUSED_EXP if fused else 0.0)

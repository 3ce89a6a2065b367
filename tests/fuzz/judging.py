"""One case: a pattern and its calls, compiled, run and held against its meaning.

What is allowed is at most twice the largest error of the definition computed in the call's dtype, and a floor
for where that happens to be exact: units in the last place of what the definition in fp64 changes by,
relative to a small noise in everything it computes.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import torch

import tests.interpreting  # noqa: F401
from attnc.diagnostics import AttncError
from attnc.pipeline import compile_pattern
from attnc.request import Request, Source
from tests import oracle
from tests.device import there
from tests.fuzz import calls
from tests.fuzz.attention import Call, attention
from tests.fuzz.calls import Shape

Tensor = torch.Tensor
Results = dict[str, Tensor]

NOISE = 2.0**-24
FLOORS = {torch.float64: 1000.0, torch.float32: 16.0}  # of halves 8: fp64 is no yardstick for itself
# Of a row beside itself: so much may it be off at most, however large other rows are.
ROW = 100.0
SMALL = ((16, 16), (32, 16), (16, 32), (32, 32))


@dataclass(frozen=True)
class Case:
    """weighed_small: planned as if tiles were of a few positions: as what is large is planned otherwise."""

    kind: str
    text: str
    shapes: tuple[Shape, ...]
    weighed_small: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def case_of(found: dict[str, Any]) -> Case:
    shapes = (
        Shape(**{**shape, "layouts": tuple(shape["layouts"]), "cuts": tuple(shape["cuts"])})
        for shape in found["shapes"]
    )
    return Case(found["kind"], found["text"], tuple(shapes), found["weighed_small"])


@dataclass(frozen=True)
class Outcome:
    """what: ``checked``, ``refused``, ``skipped``, ``wrong`` or ``crashed``. why: in words."""

    what: str
    why: str = ""
    shape: Shape | None = None


def check(case: Case, backend: str) -> list[Outcome]:
    """What came of every call of a case."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = compiled(case.text, case.weighed_small)
    except AttncError as error:
        return [Outcome("refused", error.diagnostics[0].code)]
    except Exception as error:
        return [Outcome("crashed", f"compiling: {type(error).__name__}: {error}")]
    return [_checked(case, module, shape, backend) for shape in case.shapes]


def compiled(text: str, weighed_small: bool) -> ModuleType:
    with oracle.weighed_small() if weighed_small else nullcontext():
        emitted = compile_pattern(Request(Source("fuzz.attn", text), None, {}, readable=False))
    return oracle.imported(emitted.text)


def _checked(case: Case, module: ModuleType, shape: Shape, backend: str) -> Outcome:
    args, pull = calls.tensors(case.text, shape)
    inputs = calls.inputs(case.text, shape)
    try:
        exact = definition(case.text, args, inputs, pull, shape, torch.float64)
    except _Undefined as error:
        return Outcome("skipped", str(error), shape)
    except Exception as error:
        return Outcome("crashed", f"in the definition: {type(error).__name__}: {error}"[:2000], shape)
    size = SMALL[shape.seed % len(SMALL)]
    try:
        with ExitStack() as stack:
            if shape.small:
                stack.enter_context(oracle.tiles(module, *size))
                stack.enter_context(oracle.shared(module, programs=shape.seed % 2 * 4096))
            got = ours(case.text, module, args, inputs, pull, shape, backend)
    except Exception as error:
        if isinstance(error, ValueError | TypeError) and _meant(str(error)):
            return Outcome("skipped", _meant(str(error)), shape)
        return Outcome("crashed", f"{type(error).__name__}: {error}"[:2000], shape)
    faults = judge(case.text, got, exact, args, inputs, pull, shape)
    return Outcome("wrong", "; ".join(faults), shape) if faults else Outcome("checked", "", shape)


# What a function refuses by a message of its own, and the reason in short.
_REFUSALS = {
    "take a scale that is not negative": "a negative scale of favor or taylor",
}


def _meant(message: str) -> str:
    return next((short for text, short in _REFUSALS.items() if text in message), "")


# --- running --------------------------------------------------------------------------------------------


def _leaves(tensors: Results, dtype: torch.dtype | None = None) -> Results:
    return {
        name: (x if dtype is None else x.to(dtype)).detach().requires_grad_() if x.is_floating_point() else x
        for name, x in tensors.items()
    }


def _results(out: Tensor, leaves: Results, pull: Tensor) -> Results:
    wanted = {name: x for name, x in leaves.items() if x.is_floating_point()}
    found: tuple[Tensor | None, ...] = (None,) * len(wanted)
    if out.requires_grad:
        found = torch.autograd.grad(out, list(wanted.values()), pull.to(out.dtype), allow_unused=True)
    grads = {
        f"gradient of {name}": torch.zeros_like(x) if grad is None else grad
        for (name, x), grad in zip(wanted.items(), found, strict=True)
    }
    return {"output": out.detach()} | grads


def ours(
    text: str,
    module: ModuleType,
    args: Results,
    inputs: Results,
    pull: Tensor,
    shape: Shape,
    backend: str,
) -> Results:
    """Output and gradients by the emitted function; cut into pieces where it hands on states."""
    function = there(module.p)
    leaves = _leaves({**args, **inputs})
    with oracle.poisoned():
        if (
            shape.cuts
            and "return_state" in (module.p.__kwdefaults__ or {})
            and _can_be_cut(text, inputs, shape)
        ):
            out = _pieces(text, function, leaves, inputs, shape, backend)
        else:
            out = function(**leaves, scale=shape.scale, backend=backend)
        return _results(out, leaves, pull)


def _can_be_cut(text: str, inputs: Results, shape: Shape) -> bool:
    """Whether every query is there, and no document comes again or ends where a piece does."""
    axes = calls.position_axes(text)
    if shape.n_q != shape.n or axes is None:
        return False
    for name, x in inputs.items():
        if axes[name] and not x.is_floating_point() and x.dtype != torch.bool:
            ends = [c for c in shape.cuts if c < shape.n]
            starts = bool((x.long().diff(dim=-1) < 0).any())
            if starts or any(bool((x[..., c - 1] != x[..., c]).any()) for c in ends):
                return False
    return True


def _pieces(
    text: str, function: Callable[..., Any], leaves: Results, inputs: Results, shape: Shape, backend: str
) -> Tensor:
    outs, state, axes = [], None, calls.position_axes(text)
    assert axes is not None
    for begin, end in itertools.pairwise((0, *shape.cuts, shape.n)):
        some = {name: leaves[name][:, :, begin:end] for name in ("q", "k", "v")}
        for name in inputs:
            some[name] = leaves[name]
            for axis in axes[name]:
                some[name] = some[name].narrow(axis, begin, end - begin)
        out, state = function(**some, state=state, return_state=True, scale=shape.scale, backend=backend)
        outs.append(out)
    return torch.cat(outs, 2)


# --- defining -------------------------------------------------------------------------------------------


class _Undefined(Exception):
    """The definition itself has no finite result."""


def definition(
    text: str,
    args: Results,
    inputs: Results,
    pull: Tensor,
    shape: Shape,
    dtype: torch.dtype,
    noise: float = 0.0,
    seed: int = 0,
) -> Results:
    """The same by what the pattern means, in a dtype."""
    wide = torch.float64 if dtype == torch.float64 else None
    leaves = {**_leaves(args, wide), **_leaves(inputs, wide)}
    sums = torch.float64 if shape.dtype == "float64" else torch.float32
    given = {name: leaves[name] for name in inputs}
    call = Call(leaves["q"], leaves["k"], leaves["v"], given, shape.scale, torch.finfo(sums).tiny * 2.0**26)
    found = _results(attention(text, call, dtype, noise, seed), leaves, pull)
    if dtype == torch.float64 and not noise:
        most = torch.finfo(getattr(torch, shape.dtype)).max
        for name, x in found.items():
            if not (x.abs() <= most).all():
                raise _Undefined(
                    f"{name.split(' of ')[0]} is not finite by its definition, or more than a half"
                )
    return found


# --- judging --------------------------------------------------------------------------------------------


def judge(
    text: str, got: Results, exact: Results, args: Results, inputs: Results, pull: Tensor, shape: Shape
) -> list[str]:
    """Everything that is wrong with a result, in words."""
    dtype = getattr(torch, shape.dtype)
    faults = []
    for name, a in got.items():
        b = exact[name]
        if a.shape != b.shape:
            faults.append(f"{name} has shape {tuple(a.shape)} instead of {tuple(b.shape)}")
        elif not a.isfinite().all():
            faults.append(f"{name} has {int((~a.isfinite()).sum())} numbers that are not finite")
    if faults or all(_close(a.double(), exact[name], dtype) for name, a in got.items()):
        return faults
    # What rounding does is asked only where a result is not plainly right.
    yardstick = definition(text, args, inputs, pull, shape, dtype)
    noisy = [definition(text, args, inputs, pull, shape, torch.float64, NOISE, seed) for seed in (1, 2, 3)]
    for name, a in got.items():
        b = exact[name]
        if not a.numel():
            continue
        own = {"output": dtype, "gradient of q": dtype, "gradient of k": dtype, "gradient of v": dtype}
        unit = max(torch.finfo(dtype).eps, torch.finfo(own.get(name, a.dtype)).eps)
        error = (a.double() - b).abs()
        rounding = (yardstick[name].double() - b).abs().nan_to_num(0.0, posinf=0.0)
        size = torch.stack([(x[name] - b).abs() / NOISE for x in noisy]).amax(0).nan_to_num(0.0, posinf=0.0)
        size = torch.maximum(size, b.abs())
        if dtype == torch.float64:  # in which sums of gates have no more digits than what they are of
            size = size + b.abs() * _chunk_gates(inputs) / 100
        if name.startswith("gradient of gate"):  # a difference of sums over all later positions
            size = size + _passing(args, exact)
        most = 2 * float(rounding.max()) + FLOORS.get(dtype, 8.0) * unit * float(size.max())
        if (
            dtype == torch.float16 or a.dtype == torch.float16
        ):  # below its normal numbers it has a fixed spacing
            most += 2.0**-23
        place = tuple(int(i) for i in (error == error.max()).nonzero()[0])
        if float(error.max()) > most:
            faults.append(f"{name} is off by {float(error.max()):.2e} at {place}, and may by {most:.2e}")
        elif a.dim() == 4 and unit < 1e-6:
            row = error.amax(3)
            least = float(size.max()) / 50  # what few numbers happen to show of noise says little
            allowed = ROW * (
                unit * (10 if dtype == torch.float64 else 1) * size.amax(3).clamp_min(least)
                + rounding.amax(3)
            )
            excess = row - allowed
            if float(excess.max()) > 0:
                place = tuple(int(i) for i in (excess == excess.max()).nonzero()[0])
                found, most = float(row[place]), float(allowed[place])
                faults.append(f"{name} is off by {found:.2e} in row {place}, and may by {most:.2e}")
    return faults


def _passing(args: Results, exact: Results) -> float:
    """How much of the result's change goes through a head at most, by its queries or by its keys."""
    sums = [(args[x].double() * exact[f"gradient of {x}"]).abs().sum((2, 3)) for x in ("q", "k")]
    return max(float(x.max()) for x in sums)


def _chunk_gates(inputs: Results) -> float:
    """The largest sum of gates over the steps of a chunk, where closed gates are numbers in fp64, too."""
    gates = [x for name, x in inputs.items() if name.startswith("gate") and x.is_floating_point()]
    return 64 * max((float(x.abs().clamp(max=800.0).max()) for x in gates if x.numel()), default=0.0)


def _close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether every row is as exact as its own largest number allows."""
    if not a.numel():
        return True
    unit = 4 * torch.finfo(dtype).eps
    if a.dim() != 4:
        return float((a - b).abs().max()) <= unit * float(b.abs().max())
    return bool(((a - b).abs().amax(3) <= unit * b.abs().amax(3)).all())

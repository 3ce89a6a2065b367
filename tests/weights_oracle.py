"""Emitted modules with weights held against ``attnc.weighing`` in fp64: outputs, states and all gradients.

What is allowed is told by the definition computed in the module's own dtype: at most twice its largest error
and 1.1 times its mean error; and a floor for where that happens to be exact, in units in the last place of
what was summed up: the definition with every product taken by its absolute value tells its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from attnc import weighing
from attnc.evaluation import Env, evaluate
from attnc.pattern import Cosine, Elementwise, Part, Pattern
from tests import oracle
from tests.device import there

Tensors = dict[str, torch.Tensor]

FLOOR_MAX = 4.0
FLOOR_MEAN = 1.0
# Parts of a body are joined at the logarithm of the sum of weights, which is off by units of its own size; so
# is the logarithm of each weight, where weights are swept, and by more where that is larger. Both are kept in
# fp32 at least.
JOINED = 3.0


@dataclass(frozen=True)
class Given:
    """One call. gates: how strong decays are, as logarithms; state: whether it goes on with one.

    again: whether documents come again after others.
    negative: of so many queries, and of so many keys, one has no positive coordinate; 0: as it comes.
    size: the standard deviation of the coordinates of queries and keys.
    long: whether chunks of states have as many positions as kernels give them, and not 64.
    """

    n: int = 70
    n_q: int = -1
    batch: int = 2
    heads: int = 4
    key_heads: int = 2
    dim: int = 16
    value_dim: int = 16
    gates: tuple[float, float] = (-1.0, -1e-4)
    batched: bool = False
    state: bool = False
    scale: float | None = None
    seed: int = 0
    layout: str = "dense"
    again: bool = False
    negative: int = 0
    size: float = 1.0
    long: bool = False

    @property
    def queries(self) -> int:
        return self.n if self.n_q < 0 else self.n_q


def inputs(pattern: Pattern, given: Given) -> Tensors:
    """Something for every input: gates below zero, documents that follow one another or come again."""
    generator = torch.Generator().manual_seed(given.seed + 1)
    found = {}
    for item in pattern.inputs:
        sizes = Env({"n": given.n, "H": given.heads, "d": given.dim})
        shape = tuple(int(evaluate(size, sizes)) for size in item.shape)
        if given.batched:
            shape = (given.batch, *shape)
        if item.kind == "float":
            low, high = given.gates
            values = torch.rand(shape, generator=generator) if item.name == "beta" else None
            if values is None:
                exponents = torch.rand(shape, generator=generator)
                values = -((-low) ** exponents * (-high) ** (1 - exponents))
            found[item.name] = values
        else:
            number = (torch.rand(shape, generator=generator) < 0.1).cumsum(-1)
            found[item.name] = number % 3 if given.again else number
    return found


def arguments(given: Given, dtype: torch.dtype) -> Tensors:
    generator = torch.Generator().manual_seed(given.seed)
    b, n = given.batch, given.n
    shapes = {
        "q": (b, given.heads, given.queries, given.dim),
        "k": (b, given.key_heads, n, given.dim),
        "v": (b, given.key_heads, n, given.value_dim),
    }
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in ("q", "k"):
        drawn[name] *= given.size
    for name in ("q", "k") if given.negative else ():
        drawn[name][:, :, :: given.negative] = -drawn[name][:, :, :: given.negative].abs()
    return {name: _laid_out(x.to(dtype), given.layout) for name, x in drawn.items()}


def _laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers in another layout; what lies around a slice is NaN."""
    if layout == "heads inside":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "slice":
        b, h, n, d = x.shape
        larger = torch.full((b, h + 1, n + 3, d + 5), torch.nan, dtype=x.dtype)
        larger[:, 1:, 2 : n + 2, 3 : d + 3] = x
        return larger[:, 1:, 2 : n + 2, 3 : d + 3]
    return x


def results(
    run: Any, args: Tensors, tables: Mapping[str, torch.Tensor], grads: Tensors, state: torch.Tensor | None
) -> Tensors:
    """Output and gradients of everything that has some, of a function of q, k, v, inputs and a state."""
    leaves = {name: x.detach().requires_grad_() for name, x in args.items()}
    floats = {name: x.detach().requires_grad_() if x.is_floating_point() else x for name, x in tables.items()}
    own = None if state is None else state.detach().requires_grad_()
    found: dict[str, torch.Tensor] = run(leaves, floats, own)
    wanted = {**leaves, **{name: x for name, x in floats.items() if x.requires_grad}}
    if own is not None:
        wanted["state"] = own
    loss = sum((found[name] * grads[name].to(found[name].dtype)).sum() for name in found)
    pulled = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    grown = {
        f"d_{name}": torch.zeros_like(x) if pull is None else pull
        for (name, x), pull in zip(wanted.items(), pulled, strict=True)
    }
    return {name: x.detach() for name, x in found.items()} | grown


def check(
    text: str,
    given: Given,
    backend: str,
    dtype: torch.dtype = torch.float32,
    tables: Tensors | None = None,
    small: bool = False,
) -> list[str]:
    """Everything that is wrong with a pattern's module under one call, in words.

    tables: its inputs, by default something for each. small: planned as in ``oracle.weighed_small``.
    """
    done = compiled(text, small=small)
    function = getattr(done.module, done.pattern.name)
    args = arguments(given, dtype)
    tables = inputs(done.pattern, given) if tables is None else tables
    if any(part.weights.beta is not None for body in done.pattern.bodies for part in body.parts):
        # The delta rule is made for keys of length one: longer ones are corrected too far, again and again.
        args["k"] = torch.nn.functional.normalize(args["k"].float(), dim=-1).to(dtype)
    carried = "return_state" in function.__kwdefaults__
    state = None
    if given.state:
        shape = done.module._state_shape(args["q"], args["v"])
        generator = torch.Generator().manual_seed(given.seed + 2)
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        state = torch.rand(shape, generator=generator).to(sums)
    generator = torch.Generator().manual_seed(given.seed + 3)
    shape = (given.batch, given.heads, given.queries, given.value_dim)
    grads = {"output": torch.randn(shape, generator=generator).to(dtype)}
    if dtype == torch.float64:
        tables = {name: x.double() if x.is_floating_point() else x for name, x in tables.items()}

    def ours(leaves: Tensors, floats: Tensors, own: torch.Tensor | None) -> Tensors:
        more = {"state": own} if carried else {}
        out = there(function)(*leaves.values(), **floats, **more, scale=given.scale, backend=backend)
        return {"output": out}

    def definition(wide: torch.dtype) -> Tensors:
        def run(leaves: Tensors, floats: Tensors, own: torch.Tensor | None) -> Tensors:
            out = weighing.attention(done.pattern, *leaves.values(), floats, given.scale, own)[0]
            return {"output": out}

        cast = {name: x.to(wide) for name, x in args.items()}
        sums = torch.float64 if wide == torch.float64 else torch.float32
        floats = {name: x.to(sums) if x.is_floating_point() else x for name, x in tables.items()}
        return results(run, cast, floats, grads, None if state is None else state.to(wide))

    def numerators() -> Tensors:
        """The same with sums of weights that stay what they are: gradients of both often cancel."""
        parts = [replace(b, parts=tuple(map(_undivided, b.parts))) for b in done.pattern.bodies]
        undivided = replace(done.pattern, bodies=tuple(parts))
        normalized = all(part.weights.normalized for b in done.pattern.bodies for part in b.parts)

        def run(leaves: Tensors, floats: Tensors, own: torch.Tensor | None) -> Tensors:
            q, k, v = leaves.values()
            if not normalized:
                return {"output": weighing.attention(undivided, q, k, v, floats, given.scale, own)[0]}
            ones = torch.cat([v, torch.ones_like(v[..., :1])], 3)
            linear = [part.weights.feature for b in done.pattern.bodies for part in b.parts]
            scale = 1.0 if isinstance(linear[0], Elementwise | Cosine) else given.scale
            out = weighing.attention(undivided, q, k, ones, floats, scale, own)[0]
            total = out[..., -1:].detach()
            return {"output": out[..., :-1] / torch.where(total == 0, 1.0, total)}

        cast = {name: x.double() for name, x in args.items()}
        floats = {name: x.double() if x.is_floating_point() else x for name, x in tables.items()}
        return results(run, cast, floats, grads, None if state is None else state.double())

    with nullcontext() if given.long else oracle.short_chunks(done.module):
        got = results(ours, args, tables, grads, state)
    exact = definition(torch.float64)
    alike = all(part.weights.feature is not None for b in done.pattern.bodies for part in b.parts)
    sizes = numerators() if alike else exact
    if not alike or any(not any(plan.factors) for plan in done.schedule.bodies):
        divided = [replace(b, parts=tuple(map(_divided, b.parts))) for b in done.pattern.bodies]
        wide = (x.double() for x in args.values())
        found = weighing.attention(replace(done.pattern, bodies=tuple(divided)), *wide, tables, given.scale)[
            1
        ]
        logs = [JOINED, *found[found.isfinite()].abs().tolist()]
        kept = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        factor = max(1.0, max(logs) * kept / torch.finfo(dtype).eps)
        sizes = {name: factor * x for name, x in sizes.items()}
    return judge(got, exact, definition(dtype), sizes, dtype)


def _undivided(part: Part) -> Part:
    return replace(part, weights=replace(part.weights, normalized=False))


def _divided(part: Part) -> Part:
    return replace(part, weights=replace(part.weights, normalized=True))


def judge(got: Tensors, exact: Tensors, yardstick: Tensors, sizes: Tensors, dtype: torch.dtype) -> list[str]:
    faults = []
    wide = dtype == torch.float64  # the definition is no yardstick for itself
    for name, a in got.items():
        b, c = exact[name], yardstick[name].double()
        if a.shape != b.shape:
            faults.append(f"{name} has shape {tuple(a.shape)} instead of {tuple(b.shape)}")
            continue
        if not b.isfinite().all():
            faults.append(f"{name} has {int((~b.isfinite()).sum())} numbers without a definition")
            continue
        if not a.isfinite().all():
            faults.append(f"{name} has {int((~a.isfinite()).sum())} numbers that are not finite")
            continue
        if not a.numel():
            continue
        error, allowed, unit = (a.double() - b).abs(), (c - b).abs(), torch.finfo(dtype).eps
        size = torch.maximum(b.abs(), sizes[name].abs())
        floors = (1e4, 1e4) if wide else (FLOOR_MAX, FLOOR_MEAN)
        allowed = allowed.nan_to_num(0.0, posinf=0.0)  # nothing may be off because the yardstick overflows
        most = 2 * float(allowed.max()) + floors[0] * unit * float(size.max())
        mean = 1.1 * float(allowed.mean()) + floors[1] * unit * float(size.mean())
        if dtype == torch.float16:
            most, mean = most + 2.0**-24, mean + 2.0**-24
        if float(error.max()) > most:
            place = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
            faults.append(f"{name} is off by {float(error.max()):.2e} at {place}, and may by {most:.2e}")
        if float(error.mean()) > mean:
            faults.append(f"{name} is off by {float(error.mean()):.2e} in the mean, and may by {mean:.2e}")
    return faults


compiled = oracle.compiled

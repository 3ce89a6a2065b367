"""One example's kernels on a device, beside the same example on the torch path in fp64 on the CPU.

    ATTNC_TEST_DEVICE=cuda python -m tests.gpu.checks NAME DTYPE [--little] [--once [--large]]

Outputs and gradients may be off by twice what the torch path is off in that dtype, and by the floor of
``tests/fuzz/judging.py``. They are the same to the bit when they are computed again, and in a CUDA graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

import tests.interpreting  # noqa: F401
from attnc.pattern import Taylor
from tests import launching, oracle
from tests.device import DEVICE, there
from tests.fuzz.judging import FLOORS
from tests.strategies import Call

Results = dict[str, torch.Tensor]

# n, n_q, heads, key heads.
SHAPES = ((77, 77, 4, 2), (1, 1, 2, 1), (77, 5, 8, 1), (1000, 1000, 4, 2), (1000, 1, 8, 1))
DIMS = ((64, 64), (128, 128), (80, 48))
COMPILED = ("causal", "longformer", "retnet")  # those that torch.compile takes, too


def done(name: str, long: bool) -> oracle.Compiled:
    """A pattern of the examples; with parameters for short sequences unless it is long."""
    own = "p" if name == "cosine" else name
    params = {} if long else launching.PARAMS.get(name, {})
    return oracle.compiled(launching.patterns()[name], tuple(params.items()), own)


def calls(name: str, dtype: str, little: bool) -> Iterator[tuple[oracle.Compiled, Call]]:
    for n, n_q, heads, key_heads in SHAPES[: 1 if little else None]:
        found = done(name, n > 100)
        parts = [part for body in found.pattern.bodies for part in body.parts]
        wide = any(
            isinstance(part.weights.feature, Taylor) for part in parts
        )  # features are the dim's square
        for dim, value_dim in ((16, 16),) if wide or little else DIMS if n < 100 else DIMS[:2]:
            yield (
                found,
                Call(
                    n=n,
                    n_q=n_q,
                    batch=1 if n > 100 else 2,
                    heads=heads,
                    key_heads=key_heads,
                    dim=dim,
                    value_dim=value_dim,
                    dtype=dtype,
                    layout="heads inside",
                    scale=None,
                    batched_inputs=False,
                    seed=n + dim,
                ),
            )


def arguments(found: oracle.Compiled, call: Call) -> tuple[Results, torch.Tensor]:
    """q, k, v and inputs by name, and what the output is pulled by."""
    args, (grad, _) = oracle.tensors(call)
    tables = {name: x.detach() for name, x in oracle.inputs(found.pattern, call).items()}
    return dict(zip("qkv", args, strict=True)) | tables, grad


def results(function: Callable[..., Any], given: Results, grad: torch.Tensor, backend: str) -> Results:
    leaves = {
        name: x.detach().requires_grad_(x.is_floating_point()) for name, x in given.items()
    }  # in their own layouts
    wanted = {name: x for name, x in leaves.items() if x.requires_grad}
    args = [leaves.pop(name) for name in "qkv"]
    out = function(*args, **leaves, backend=backend)
    grads = torch.autograd.grad(out, list(wanted.values()), grad.to(out.dtype), allow_unused=True)
    named = {
        f"gradient of {name}": torch.zeros_like(x) if found is None else found
        for (name, x), found in zip(wanted.items(), grads, strict=True)
    }
    return {"output": out.detach()} | named


def faults(found: oracle.Compiled, call: Call) -> list[str]:
    """What is wrong with a call, in words."""
    function = getattr(found.module, found.pattern.name)
    given, grad = arguments(found, call)
    with oracle.poisoned():
        got = results(there(function), given, grad, "triton")
        again = results(there(function), given, grad, "triton")
    said = [
        f"{name} is another when computed again" for name in got if not torch.equal(got[name], again[name])
    ]
    plain = results(function, given, grad, "torch")
    exact = results(function, {name: _double(x) for name, x in given.items()}, grad.double(), "torch")
    unit = torch.finfo(getattr(torch, call.dtype)).eps
    for name, a in got.items():
        b, c = exact[name].double(), plain[name].double()
        if not a.isfinite().all():
            said.append(f"{name} has {int((~a.isfinite()).sum())} numbers that are not finite")
            continue
        own = max(unit, torch.finfo(a.dtype).eps)
        floor = FLOORS.get(getattr(torch, call.dtype), 8.0) * own * float(b.abs().max()) + 2.0**-23 * (
            own > 9e-4
        )
        error, most = float((a.double() - b).abs().max()), 2 * float((c - b).abs().max()) + floor
        if error > most:
            said.append(f"{name} is off by {error:.2e}, and may by {most:.2e}")
    return said


def _double(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


def in_shares(module: ModuleType) -> Iterator[Any]:
    """The ways to launch: as the shape wants it; where a module knows of shares, with and without them."""
    yield nullcontext()
    if hasattr(module, "_PROGRAMS"):
        yield patch.multiple(module, _PROGRAMS=1 << 16, _SHARE_STEPS=1)
        yield patch.multiple(module, _PROGRAMS=0, _HEAVY_STEPS=1)


def captured(found: oracle.Compiled, call: Call) -> list[str]:
    """What a CUDA graph of forward and backward computes otherwise than a call does."""
    function = getattr(found.module, found.pattern.name)
    given, grad = arguments(found, call)
    given = {name: x.detach().to(DEVICE) for name, x in given.items()}
    grad = grad.to(DEVICE)
    wanted = results(function, given, grad, "triton")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results(function, given, grad, "triton")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = results(function, given, grad, "triton")
    graph.replay()
    torch.cuda.synchronize()
    return [f"{name} is another in a graph" for name in wanted if not torch.equal(wanted[name], got[name])]


def compiled_whole(found: oracle.Compiled, call: Call) -> list[str]:
    """What torch.compile makes otherwise."""
    function = getattr(found.module, found.pattern.name)
    given, _ = arguments(found, call)
    given = {name: x.detach().to(DEVICE) for name, x in given.items()}
    args = [given.pop(name) for name in "qkv"]
    out = torch.compile(function, fullgraph=True)(*args, **given)
    return [] if torch.equal(out, function(*args, **given)) else ["the output is another under torch.compile"]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("dtype")
    parser.add_argument("--little", action="store_true")
    parser.add_argument("--once", action="store_true", help="one call, forward and backward, that is all")
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args(words)
    some = list(calls(given.name, given.dtype, given.little))
    if given.once:
        found, call = some[0]
        if given.large and not given.little:
            found = done(given.name, True)
            call = replace(call, n=8192, n_q=8192, heads=16, key_heads=16, dim=128, value_dim=128)
        args, grad = arguments(found, call)
        results(there(getattr(found.module, found.pattern.name)), args, grad, "triton")
        return 0
    wrong = 0
    for found, call in some:
        for way in in_shares(found.module):
            with way:
                for fault in faults(found, call):
                    wrong += 1
                    print(f"{fault}\n    {call}", flush=True)
    if DEVICE.type == "cuda":
        found, call = some[0]
        for fault in captured(found, call):
            wrong += 1
            print(fault, flush=True)
        for fault in compiled_whole(found, call) if given.name in COMPILED else ():
            wrong += 1
            print(fault, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))

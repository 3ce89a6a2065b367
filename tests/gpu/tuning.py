"""Times one kernel of an example with several tile sizes.

    ATTNC_TEST_DEVICE=cuda python -m tests.gpu.tuning NAME KIND DIM [--little]

KIND is forward, query or key. Prints a line ``RESULT {…}`` for each tile size: microseconds, the median of
several samples. Sizes that spill much, that need more shared memory than there is, or whose warps would do
the same work twice are not timed.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import triton

import tests.interpreting  # noqa: F401
from tests import oracle
from tests.device import DEVICE
from tests.gpu import checks
from tests.strategies import Call

# Own rows and the other side's, of which each kernel has the products in its registers; stages.
ROWS, OTHERS, STAGES = (64, 128), (16, 32, 64, 128), (2, 3)
SAMPLES, SPILLED = 7, 320  # bytes a thread that may be spilled
Size = tuple[int, int, int, int]


def candidates(kind: str, little: bool) -> list[Size]:
    """Queries, keys, warps, stages: four warps for every 64 rows that accumulate, and never more."""
    if little:
        return [(16, 16, 4, 1), (32, 16, 4, 1)]
    found = [(own, other, own // 16, stages) for own in ROWS for other in OTHERS for stages in STAGES]
    found += [(128, other, 4, stages) for other in OTHERS for stages in STAGES]
    return [(other, own, *rest) if kind == "key" else (own, other, *rest) for own, other, *rest in found]


@contextmanager
def sized(module: ModuleType, kind: str, size: Size) -> Iterator[set[str]]:
    """The kernels of one kind get this size; gives the shapes of tile that were asked for."""
    before, seen = module._tile_sizes, set[str]()
    names = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")

    def sizes(of: str, dim: int, itemsize: int, table: Any, shape: str = "wide") -> dict[str, Any]:
        found = before(of, dim, itemsize, table, shape)
        if of != kind:
            return found
        seen.add(shape)
        return found | dict(zip(names, size, strict=True))

    with patch.object(module, "_tile_sizes", sizes):
        yield seen


@contextmanager
def alone() -> Iterator[None]:
    """Nothing else is timed meanwhile; other processes may compile."""
    path = os.environ.get("ATTNC_TUNE_LOCK")
    if path is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def microseconds(run: Callable[[], object]) -> float:
    """The median of several samples, by the device's own clock where it has one."""
    found = []
    for _ in range(SAMPLES):
        if DEVICE.type == "cuda":
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            run()
            pair[1].record()
            torch.cuda.synchronize()
            found.append(1e3 * pair[0].elapsed_time(pair[1]))
        else:
            start = time.perf_counter()
            run()
            found.append(1e6 * (time.perf_counter() - start))
    return statistics.median(found)


def spilled(module: ModuleType, kind: str) -> int:
    """Bytes a thread that the compiled kernels of a kind spill at the most; 0 in the interpreter."""
    if DEVICE.type == "cpu":
        return 0
    place = {"forward": 0, "query": 1, "key": 0}[kind]
    passes = module._KEY_PASSES if kind == "key" else module._QUERY_PASSES
    most = 0
    for kernel in (part[place] for body in passes for part in body):
        for caches in kernel.device_caches.values():
            most = max(most, *(binary.n_spills for binary in list(caches[0].values())[-1:]), 0)
    return 4 * most


def _usual(x: torch.Tensor) -> torch.Tensor:
    """What inputs hold: sixteen chosen positions, documents of 512."""
    if x.is_floating_point():
        return x
    place = torch.arange(x.shape[-1])
    return (place < 16 if x.dtype == torch.bool else (place // 512).to(x.dtype)).expand(x.shape)


def timed(found: oracle.Compiled, call: Call, kind: str, size: Size) -> dict[str, Any] | None:
    """What came of one size, or None where it cannot be used."""
    module = found.module
    given, grad = checks.arguments(found, call)
    given = {name: _usual(x.detach()).to(DEVICE) for name, x in given.items()}
    q, k, v = (given.pop(name) for name in "qkv")
    grad = grad.to(DEVICE)
    args = oracle.operands(module, (q, k, v), list(given.values()))
    with sized(module, kind, size) as shapes, torch.no_grad():
        out, lse = module._forward_triton(q, k, v, args[0], 0.1)
        pulls = (grad, torch.zeros_like(lse), lse)
        if hasattr(module, "_divided"):
            pulls = module._divided(*pulls)

        def forward() -> object:
            return module._forward_triton(q, k, v, args[0], 0.1)

        def backward() -> object:
            return module._backward_triton(*pulls[:2], q, k, v, args[0], out, pulls[2], 0.1)

        run = forward if kind == "forward" else backward
        try:
            run()
        except triton.runtime.errors.OutOfResources:
            return None
        if spilled(module, kind) > SPILLED:
            return None
        with alone():
            run()
            taken = microseconds(run)
    return {"size": size, "shapes": sorted(shapes), "us": round(taken, 1)}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("kind", choices=("forward", "query", "key"))
    parser.add_argument("dim", type=int)
    parser.add_argument("--little", action="store_true")
    given = parser.parse_args(words)
    found = checks.done(given.name, not given.little)
    n, heads, key_heads = (70, 2, 1) if given.little else (8192, 64, 8)
    call = Call(
        n=n,
        n_q=n,
        batch=1,
        heads=heads,
        key_heads=key_heads,
        dim=given.dim,
        value_dim=given.dim,
        dtype="bfloat16",
        layout="",
        scale=None,
        batched_inputs=False,
        seed=0,
    )
    capability = torch.cuda.get_device_capability() if DEVICE.type == "cuda" else (9, 0)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no device"
    common = {
        "pattern": given.name,
        "kind": given.kind,
        "dim": given.dim,
        "device": device,
        "capability": capability,
        "triton": triton.__version__,
        "date": datetime.date.today().isoformat(),
    }
    times = 0
    for size in candidates(given.kind, given.little):
        one = timed(found, call, given.kind, size)
        times += one is not None
        if one is not None:
            print("RESULT", json.dumps({**common, **one}), flush=True)
    return int(times == 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))

"""The kernels of linear attention through states, compiled for a GPU that is not there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

import attnc

PATTERNS = {
    "linear": "attend causal kernel elu(x) + 1",
    "retention": "attend causal kernel x normalize none decay log(1.0 - exp2(-5.0 - h))",
    "gated": "input g: float[n, H] attend causal kernel x normalize none decay g",
    "encoder": "attend all kernel elu(x) + 1",
    "documents": "input doc: int[n] attend causal & same(doc) kernel elu(x) + 1",
    "performer": "attend causal kernel favor(128, seed=0)",
    "cosine": "attend causal kernel cosine(4096)",
}
# What is measured of those that most models have; the others are compiled at one size.
CASES = [(name, dim) for name in ("linear", "retention", "gated") for dim in (64, 128)]
CASES += [(name, 64) for name in PATTERNS if name not in ("linear", "retention", "gated")]


def _helper(name: str) -> Any:
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"aot_{name}_for_states", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


compiler = _helper("compiler")


def launches(name: str, dim: int, dtype: torch.dtype = torch.bfloat16) -> list[Any]:
    """What a forward and a backward pass launch, 4 heads that share 2 key heads, 512 tokens."""
    module = compiler.load(attnc.compile(f"pattern p() {{ {PATTERNS[name]} }}"), f"states_{name}")
    found: list[Any] = []
    kernels = {key: compiler._Recorder(kernel, found) for key, kernel in module._LINEAR_KERNELS.items()}
    module._STATES = tuple(body._replace(kernels=kernels) for body in module._STATES)
    n = 512
    q = torch.zeros(1, 4, n, dim, dtype=dtype)
    k, v = torch.zeros(2, 1, 2, n, dim, dtype=dtype)
    kinds = {"float": torch.float32, "int": torch.int64}
    inputs = [torch.zeros(shape(n, 4, dim), dtype=kinds[kind]) for kind, shape in module.INPUTS.values()]
    if hasattr(module, "_gates"):
        inputs += module._gates(inputs, q, n)
    out, lse, final = module._forward_states(q, k, v, inputs, None, 0.1, True)
    module._backward_states(q, lse, torch.zeros_like(final), q, k, v, inputs, None, out, lse, 0.1, True)
    return found


@pytest.mark.parametrize("name, dim", CASES)
def test_kernels_compile_for_hopper(name: str, dim: int) -> None:
    found = launches(name, dim)
    assert len(found) >= 7
    target = compiler.TARGETS["sm_90"]
    for launch in found:
        # Not all of these kernels have a loop around their products.
        with patch.object(compiler, "_spills_in_loops", lambda machine: 0):
            binary = compiler.build(launch, target)
        used = f"{binary.registers} registers, {binary.spilled} spilled, {binary.shared} shared"
        print(f"{name} {dim} {launch.name}: {used}")
        assert binary.shared <= target.shared, launch.name
        assert binary.spilled == 0, f"{launch.name} spills {binary.spilled} bytes"

"""The kernels of gates for each channel and of the delta rule, compiled for a GPU that is not there."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

import attnc
from tests.aot import compiler

RULES = ("rwkv6", "gla", "gated_deltanet", "kimi_delta")


def launches(name: str, dim: int, dtype: torch.dtype = torch.bfloat16) -> tuple[list[Any], list[Any]]:
    """What a forward and a backward pass of an example launch, 4 heads that share 2 key heads, 512 tokens."""
    module = compiler.load(attnc.compile(compiler.EXAMPLES / f"{name}.attn", name), f"gates_{name}")
    found: list[Any] = []

    def run(self: Any, kernel: Any, programs: int, kind: str, **more: Any) -> None:
        given = self.given | more | self.sizes(kind)
        names = (*kernel.arg_names, "num_warps", "num_stages")
        found.append(compiler._launch(kernel, {name: given[name] for name in names}))

    n = 512
    q = torch.zeros(1, 4, n, dim, dtype=dtype)
    k, v = torch.zeros(2, 1, 2, n, dim, dtype=dtype)
    inputs = [torch.zeros(shape(n, 4, dim)) for _, shape in module.INPUTS.values()]
    inputs += module._gates(inputs, q, n)
    state = torch.zeros(1, 4, dim, dim)
    with patch.object(module._GatedLaunch, "run", run):
        out, lse, final = module._forward_states(q, k, v, inputs, state, 0.1, True)
        forward = list(found)
        module._backward_states(q, lse, final, q, k, v, inputs, state, out, lse, 0.1, True)
    return forward, found[len(forward) :]


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("name", RULES)
def test_kernels_for_hopper(name: str, dim: int) -> None:
    """No register is spilled forward, nor backward at 64; at 128 few are."""
    target = compiler.TARGETS["sm_90"]
    for kind, some in zip(("forward", "backward"), launches(name, dim), strict=True):
        assert len(some) >= 3
        for launch in {launch.identity: launch for launch in some}.values():
            with patch.object(compiler, "_spills_in_loops", return_value=0):  # there may be no loop
                binary = compiler.build(launch, target)
            print(
                f"{name} {dim} {kind} {launch.name}: "
                f"{binary.registers} registers, {binary.spilled} spilled, {binary.shared} shared"
            )
            assert binary.shared <= target.shared, launch.name
            assert binary.spilled <= (64 if kind == "backward" and dim > 64 else 0), launch.name

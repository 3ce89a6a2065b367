"""The kernels of linear attention through states, compiled for a GPU that is not there."""

from __future__ import annotations

import re

import pytest
import torch

from tests.aot import budget, compiler, summed


@pytest.mark.parametrize(("name", "dim"), summed.CASES)
def test_kernels_compile_for_hopper(name: str, dim: int) -> None:
    """Nothing is spilled forward, nor backward at 64; at 128 little is."""
    target = compiler.TARGETS["sm_90"]
    problems = []
    for kind, some in zip(("forward", "backward"), summed.launches(name, dim), strict=True):
        assert len(some) >= 3
        for launch in {launch.identity: launch for launch in some}.values():
            binary = compiler.build(launch, target)
            if binary.shared > target.shared:
                problems.append(f"{launch.label}: needs {binary.shared} bytes of shared memory")
            if binary.spilled > (64 if kind == "backward" and dim > 64 else 0):
                problems.append(f"{launch.label}: spills {binary.spilled} bytes")
            problems += budget.faults(name, dim, launch.label, binary)
            if name not in summed.GATES and (loads := re.findall(r"ld\.global\S*\.b16", binary.assembly)):
                problems.append(
                    f"{launch.label}: {len(loads)} loads of 2 bytes, though strides are multiples of 16"
                )
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_largest_dims_fit_into_small_gpus(dtype: torch.dtype) -> None:
    """Products are of fp32 in both, and devices for desktops have 99 KiB."""
    target = compiler.TARGETS["sm_86"]
    for launch in {
        x.identity: x for some in summed.launches("linear_transformer", 256, dtype) for x in some
    }.values():
        needed = compiler.build(launch, target).shared
        assert needed <= target.shared, f"{launch.label} needs {needed} bytes"

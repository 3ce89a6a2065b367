"""Where the tests of kernels run: in Triton's interpreter, or on the GPU that ATTNC_TEST_DEVICE names.

    TRITON_INTERPRET=1 pytest tests/interpret
    ATTNC_TEST_DEVICE=cuda pytest tests/interpret

What is held against the kernels is computed on the CPU in either case.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

DEVICE = torch.device(os.environ.get("ATTNC_TEST_DEVICE", "cpu"))
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def needs_kernels() -> None:
    """Skips a file of tests where no kernels can run."""
    if DEVICE.type == "cpu" and not INTERPRETED:
        pytest.skip(
            "needs TRITON_INTERPRET=1 before Triton is imported, or ATTNC_TEST_DEVICE=cuda",
            allow_module_level=True,
        )


class _Moved(torch.autograd.Function):
    """A tensor on the device in the same layout, with what lies around a slice; its gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        whole = x.new_empty(0).set_(x.untyped_storage()).to(DEVICE)
        return whole.as_strided(x.shape, x.stride(), x.storage_offset())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad.cpu()


def there(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors on the CPU that runs on the device; it is differentiable as before."""
    if DEVICE.type == "cpu":
        return function

    def run(*args: Any, **named: Any) -> Any:
        args, named = tree_map_only(torch.Tensor, _Moved.apply, (args, named))
        return tree_map_only(torch.Tensor, torch.Tensor.cpu, function(*args, **named))

    return run

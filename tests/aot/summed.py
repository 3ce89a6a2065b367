"""Patterns whose edges are summed up in states, and what they launch on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch

import attnc
from tests.aot import compiler

# Those of decays by head, and those of gates by channel or the delta rule; examples, if no text is given.
STATES = {
    "linear_transformer": "",
    "retnet": "",
    "mamba2": "",
    "encoder": "attend all kernel elu(x) + 1",
    "documents": "input doc: int[n] attend causal & same(doc) kernel elu(x) + 1",
    "performer": "attend causal kernel favor(128, seed=0)",
    "cosine": "attend causal kernel cosine(4096)",
}
GATES = ("rwkv6", "gla", "gated_deltanet", "kimi_delta")

# What most models have is looked at in two sizes, the others in one.
CASES = [(name, dim) for name in ("linear_transformer", "retnet", "mamba2", *GATES) for dim in (64, 128)]
CASES += [(name, 64) for name in STATES if (name, 64) not in CASES]


@cache
def launches(
    name: str, dim: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[tuple[compiler.Launch, ...], tuple[compiler.Launch, ...]]:
    """What the forward and the backward launch; 4 heads that share 2 key heads, 512 tokens."""
    text = STATES.get(name, "")
    source = f"pattern p() {{ {text} }}" if text else compiler.EXAMPLES / f"{name}.attn"
    module = compiler.load(attnc.compile(source, "p" if text else name), f"summed_{name}")
    found: list[compiler.Launch] = []
    n = 512
    q = torch.zeros(1, 4, n, dim, dtype=dtype)
    k, v = torch.zeros(2, 1, 2, n, dim, dtype=dtype)
    kinds = {"float": torch.float32, "int": torch.int64}
    inputs = [torch.zeros(shape(n, 4, dim), dtype=kinds[kind]) for kind, shape in module.INPUTS.values()]
    if hasattr(module, "_gates"):
        inputs += module._gates(inputs, q, n)
    state = torch.zeros(1, 4, dim, dim) if name in GATES else None
    with _recorded(module, found):
        out, lse, final = module._forward_states(q, k, v, inputs, state, 0.1, True)
        forward = len(found)
        module._backward_states(q, lse, torch.zeros_like(final), q, k, v, inputs, state, out, lse, 0.1, True)
    return tuple(found[:forward]), tuple(found[forward:])


def _recorded(module: ModuleType, found: list[compiler.Launch]) -> Any:
    """While this is entered, launches are written down and not made."""
    if hasattr(module, "_GatedLaunch"):
        return patch.object(module._GatedLaunch, "run", _writer(found))
    kernels = {key: compiler.Recorder(kernel, found) for key, kernel in module._LINEAR_KERNELS.items()}
    return patch.object(module, "_STATES", tuple(body._replace(kernels=kernels) for body in module._STATES))


def _writer(found: list[compiler.Launch]) -> Callable[..., None]:
    def run(self: Any, kernel: Any, programs: int, kind: str, **more: Any) -> None:
        given = self.given | more | self.sizes(kind)
        names = (*kernel.arg_names, "num_warps", "num_stages")
        found.append(compiler.launch_of(kernel, {name: given[name] for name in names}))

    return run

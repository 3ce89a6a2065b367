"""Scores and sinks on the Triton path, under Triton's interpreter, against their definition in fp64."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests import oracle
from tests.device import needs_kernels, there
from tests.fuzzing import try_all
from tests.scoring import weighed_cases
from tests.strategies import Case
from tests.test_scores_torch import PATTERNS, compiled, small

needs_kernels()

EXAMPLES, SHARDS = 32, 4
SMALL = ((16, 16), (32, 16), (16, 32))

# Logarithms of what is no distance: outside of the edges numpy, too, finds no value, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(case: Case) -> None:
    done = oracle.compiled(case.text, small=case.weighed_small)
    size = SMALL[case.call.seed % len(SMALL)]
    with oracle.tiles(done.module, *size) if case.small_tiles else nullcontext():
        faults = oracle.check(done, case.call, "triton")
    assert not faults, f"{faults}\n{case.text}{case.call}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_scores(shard: int) -> None:
    try_all(run, weighed_cases(most=50, interpreted=True), EXAMPLES, shard, SHARDS)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str) -> None:
    done = compiled(name)
    with oracle.tiles(done.module, 16, 16):
        assert oracle.check(done, small(n=37, n_q=29), "triton") == []


@pytest.mark.parametrize("name", ["rows and columns", "buckets", "square by head"])
def test_repeats_to_the_bit(name: str) -> None:
    done, given = compiled(name), small(n=20, n_q=20)
    args, grads = oracle.tensors(given)
    tables = list(oracle.inputs(done.pattern, given).values())
    with oracle.tiles(done.module, 16, 16):
        first, second = (oracle.ours(done.module, args, grads, tables, given, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("input b: float[n, n] attend causal score s + b[q, k]", (20, 20)),
        ("input b: float[H, n] attend window(2) | offsets({5, 9}) score s + b[h, q]", (2, 20)),
        ("input b: float[H, n] attend to(first(2)) | from(first(3)) score s + b[h, q]", (2, 20)),
        ("input b: float[n] attend causal score s + b[q - k]", (20,)),
    ],
)
def test_rows_without_any_weight_have_gradients(text: str, shape: tuple[int, ...]) -> None:
    """Where all that a query reads weighs exp(-inf), nothing is divided by it."""
    function = there(oracle.compiled(f"pattern p() {{ {text} }}").module.p)
    table = torch.zeros(shape)
    table[1 if len(shape) > 1 else 0] = -torch.inf
    found = []
    for backend in ("torch", "triton"):
        generator = torch.Generator().manual_seed(0)
        given = [*torch.randn(3, 1, 2, 20, 16, generator=generator).unbind(0), table]
        q, k, v, b = (x.clone().requires_grad_() for x in given)
        out = function(q, k, v, b=b, backend=backend)
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v, b))))
    for mine, wanted in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)

"""Random patterns on the Triton path, under Triton's interpreter, against dense attention in fp64.

These run in a process of their own, started with TRITON_INTERPRET=1: ``make test`` does.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests import oracle
from tests.device import needs_kernels
from tests.fuzzing import try_all
from tests.strategies import Case, cases
from tests.test_oracle_torch import call

needs_kernels()

EXAMPLES, SHARDS = 64, 8
# Several tiles, masked and not, at a hundred tokens: queries by keys.
SMALL = ((16, 16), (32, 16), (16, 32))


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
def test_random_patterns(shard: int) -> None:
    try_all(run, cases(most=100, interpreted=True), EXAMPLES, shard, SHARDS)


@pytest.mark.parametrize("heads", [(4, 2), (6, 3), (6, 1), (3, 3)])
@pytest.mark.parametrize(
    "text",
    [
        "heads even { attend window(4) } heads odd { attend stride(3) & causal }",
        "heads {0, 2} { attend chunk(6) } heads rest { attend random(2, seed=1) | self }",
        "heads 0..1 { attend none } heads rest { attend where (q + h) % 3 == k % 2 }",
    ],
)
def test_heads_of_one_body_share_a_key_head_with_others(text: str, heads: tuple[int, int]) -> None:
    """A launch is for heads in steps, and adds to the key heads that other launches write, too."""
    given = call(n=20, n_q=17, heads=heads[0], key_heads=heads[1], dim=16, value_dim=16)
    assert oracle.check(oracle.compiled(f"pattern p() {{ {text} }}"), given, "triton") == []


def test_a_log_sum_exp_is_rounded_once() -> None:
    """Rounded after each step it was off by more than a unit, and with it all weights of the row."""
    given = call(
        n=33,
        n_q=1,
        batch=1,
        heads=1,
        key_heads=1,
        dim=20,
        value_dim=16,
        layout="heads inside",
        scale=0.5,
        batched_inputs=True,
        seed=16240,
    )
    done = oracle.compiled("pattern p() { grid(y: 2, x: 10) attend window(3, 4, axis=y) }")
    assert oracle.check(done, given, "triton") == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("scale", [-0.7, 0.0, 1e-30])
@pytest.mark.parametrize(
    "text",
    ["attend causal", "attend window(5) | to(first(2))", "input z: float[H] attend causal sink z[h]"],
)
def test_a_scale_of_any_sign(text: str, scale: float, dtype: str) -> None:
    """The largest score is sought among products that are not scaled yet."""
    given = call(n=50, n_q=43, dim=16, value_dim=16, scale=scale, dtype=dtype)
    done = oracle.compiled(f"pattern p() {{ {text} }}")
    with oracle.tiles(done.module, 16, 16):
        assert oracle.check(done, given, "triton") == []

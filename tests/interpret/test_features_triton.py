"""Linear attention on the Triton path, over relations and with feature maps drawn at random."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests import features, half, oracle
from tests.device import needs_kernels
from tests.fuzzing import try_all
from tests.strategies import Case
from tests.test_features_torch import RECTIFIED, rectified

needs_kernels()

EXAMPLES, SHARDS = 24, 3
SMALL = ((16, 16), (32, 16), (16, 32))

# No weight at all has a logarithm of minus infinity, and numpy says so.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(case: Case) -> None:
    done = oracle.compiled(case.text, small=case.weighed_small)
    size = SMALL[case.call.seed % len(SMALL)]
    with oracle.tiles(done.module, *size) if case.small_tiles else nullcontext():
        faults = features.check(case, "triton")
    assert not faults, f"{faults}\n{case.text}{case.call}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_features(shard: int) -> None:
    try_all(run, features.feature_cases(most=60, interpreted=True), EXAMPLES, shard, SHARDS)


@pytest.mark.parametrize("name", RECTIFIED)
def test_rows_of_zero_weight_are_zeros(name: str) -> None:
    rectified(name, "triton", batch=1, heads=2, key_heads=1, n=70)


@pytest.mark.parametrize(("relation", "feature", "size"), half.CASES)
def test_half_precision(relation: str, feature: str, size: float) -> None:
    assert half.check(relation, feature, size, "triton") == []


@pytest.mark.parametrize("function", features.FUNCTIONS)
def test_functions_keep_their_digits(function: str) -> None:
    assert features.error_of(function, "triton") < 2.5

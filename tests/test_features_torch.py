"""Linear attention on the torch path, over relations and with feature maps drawn at random."""

from __future__ import annotations

import pytest
import torch

from tests import features, half, oracle, weights_oracle
from tests.fuzzing import try_all
from tests.strategies import Case
from tests.test_oracle_torch import cut_small
from tests.weights_oracle import Given

EXAMPLES, SHARDS = 60, 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(case: Case) -> None:
    module = oracle.compiled(case.text, small=case.weighed_small).module
    if hasattr(module, "_PLANS"):  # else all of it is in states
        cut_small(module, case.call.seed)
    faults = features.check(case, "torch")
    assert not faults, f"{faults}\n{case.text}{case.call}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_features(shard: int) -> None:
    try_all(run, features.feature_cases(), EXAMPLES, shard, SHARDS)


# Every third query and key has no positive coordinate.
RECTIFIED = {
    "window": "attend window(5) kernel relu(x)",
    "undivided": "attend window(5) kernel relu(x) normalize none",
    "without a mask": "attend to(first(64)) kernel relu(x)",
    "one by one": "attend offsets({1, 5}) kernel relu(x)",
    "near": "attend window(9, 9) kernel cosine(9)",
    "causal": "attend causal kernel relu(x)",
    "all": "attend all kernel relu(x)",
    "far": "attend causal - window(5) kernel relu(x)",
    "beside softmax": "heads even { attend window(5) } heads odd { attend window(9) kernel relu(x) }",
    "beside states": (
        "kernel relu(x) normalize none heads even { attend causal } heads odd { attend window(9) }"
    ),
    "mixed with softmax": (
        "attend where 2 <= q - k < 9 & stride(3) with softmax attend causal - window(9) with kernel relu(x)"
    ),
}


def rectified(name: str, backend: str, **changes: int) -> None:
    text = f"pattern p() {{ {RECTIFIED[name]} }}"
    given = Given(**{"n": 90, "dim": 8, "value_dim": 12, "negative": 3, "scale": 0.5, **changes})  # type: ignore[arg-type]
    assert weights_oracle.check(text, given, backend) == []
    args = weights_oracle.arguments(given, torch.float32)
    leaves = {key: x.requires_grad_() for key, x in args.items()}
    out = oracle.compiled(text).module.p(**leaves, backend=backend)
    grads = torch.autograd.grad(out.square().sum(), list(leaves.values()))
    assert all(x.isfinite().all() for x in (out, *grads))
    if "softmax" not in name:
        assert not out[:, :, ::3].any() and not grads[0][:, :, ::3].any() and not grads[1][:, :, ::3].any()
    assert out[:, :, 1::3].abs().amax(3).count_nonzero() > 20


@pytest.mark.parametrize("name", RECTIFIED)
def test_rows_of_zero_weight_are_zeros(name: str) -> None:
    rectified(name, "torch")


@pytest.mark.parametrize(("relation", "feature", "size"), half.CASES)
def test_half_precision(relation: str, feature: str, size: float) -> None:
    assert half.check(relation, feature, size, "torch") == []


@pytest.mark.parametrize("function", features.FUNCTIONS)
def test_functions_keep_their_digits(function: str) -> None:
    assert features.error_of(function, "torch") < 2.5

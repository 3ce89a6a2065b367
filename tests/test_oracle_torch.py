"""Random patterns on the torch path, against dense attention in fp64; and that the comparison can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from attnc import reference
from tests import oracle
from tests.fuzzing import try_all
from tests.strategies import Call, Case, cases

EXAMPLES, SHARDS = 260, 10

# What every plan of a random pattern may at most come to: the rest must be proven as it stands.
MOST_CONSERVATIVE = 0.05


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_patterns(shard: int) -> None:
    reports: Counter[str] = Counter()
    tried = conservative = 0

    def run(case: Case) -> None:
        nonlocal tried, conservative
        done = oracle.compiled(case.text)
        tried += 1
        conservative += bool(done.schedule.reports)
        reports.update(done.schedule.reports)
        faults = oracle.check(done, case.call, "torch", torch.float32)
        if case.call.dtype != "float32":
            faults += oracle.check(done, case.call, "torch")
        assert not faults, f"{faults}\n{case.text}{case.call}"

    try_all(run, cases(), EXAMPLES, shard, SHARDS)
    share = conservative / tried
    print(f"{tried} patterns, {share:.1%} of the plans conservative: {reports.most_common()}")
    # Undecided questions hang on the time that the solver gets, so this is not strict.
    assert share <= MOST_CONSERVATIVE + 1 / tried


def call(**changes: object) -> Call:
    plain = Call(
        n=150,
        n_q=150,
        batch=1,
        heads=2,
        key_heads=1,
        dim=32,
        value_dim=32,
        dtype="float32",
        layout="contiguous",
        scale=None,
        batched_inputs=False,
        seed=7,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("text", ["attend all", "attend causal", "attend window(40, 40) | to(every(7))"])
def test_one_edge_too_many_or_too_few_is_seen(text: str, dtype: str) -> None:
    done, given = oracle.compiled(f"pattern p() {{ {text} }}"), call(dtype=dtype)
    args, grads = oracle.tensors(given)
    got = oracle.ours(done.module, args, grads, [], given, "torch")
    mask = reference.mask(done.pattern, given.n, given.heads)
    assert not oracle.against(got, args, grads, mask, given, args[0].dtype, "torch")
    rng = np.random.default_rng(0)
    for _ in range(12):
        place = tuple(int(rng.integers(size)) for size in mask.shape)
        flipped = mask.copy()
        flipped[place] = not flipped[place]
        if not flipped[place[:2]].any() and not mask[place[:2]].any():
            continue
        assert oracle.against(got, args, grads, flipped, given, args[0].dtype, "torch"), (
            f"{place} went unseen"
        )


@pytest.mark.parametrize("index", [2, 3, 4])
def test_one_edge_too_many_in_a_backward_pass_is_seen(index: int) -> None:
    """Outputs of the right mask with one gradient of a mask that has an edge more: fp32 sees that."""
    done, given = oracle.compiled("pattern p() { attend causal }"), call()
    args, grads = oracle.tensors(given)
    got = list(oracle.ours(done.module, args, grads, [], given, "torch"))
    mask = reference.mask(done.pattern, given.n, given.heads)
    rng = np.random.default_rng(1)
    for _ in range(6):
        row = int(rng.integers(given.n - 1))
        flipped = mask.copy()
        flipped[0, row, int(rng.integers(row + 1, given.n))] = True
        wrong = oracle.dense(args, grads, flipped, given, torch.float32)
        mixed = [*got[:index], wrong[index], *got[index + 1 :]]
        faults = oracle.against(tuple(mixed), args, grads, mask, given, torch.float32)
        assert any(oracle.NAMES[index] in fault for fault in faults)


def test_nan_and_wrong_rows_are_seen() -> None:
    done, given = oracle.compiled("pattern p() { attend causal }"), call(n=20, n_q=20)
    args, grads = oracle.tensors(given)
    got = oracle.ours(done.module, args, grads, [], given, "torch")
    mask = reference.mask(done.pattern, given.n, given.heads)
    for index, name in enumerate(oracle.NAMES):
        spoilt = [x.clone() for x in got]
        spoilt[index].view(-1)[3] = torch.nan
        faults = oracle.against(tuple(spoilt), args, grads, mask, given, torch.float32)
        assert faults == [f"{name} has 1 NaN"]
    empty = mask.copy()
    empty[:, 5] = False
    assert oracle.against(got, args, grads, empty, given, torch.float32)


def test_what_is_not_filled_is_poisoned() -> None:
    with oracle.poisoned():
        assert torch.empty(3).isnan().all() and torch.empty_like(torch.ones(2)).isnan().all()
        assert torch.ones(3).new_empty(4).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_function_gives_what_its_operator_gives() -> None:
    done, given = oracle.compiled("pattern p() { attend window(9, 3) }"), call(n=70, n_q=41)
    args, _ = oracle.tensors(given)
    out = done.module.p(*args)
    assert torch.equal(out, done.module._forward(*args, [], 32**-0.5, "")[0])
    assert torch.equal(out, done.module.p(*args, backend="torch", scale=32**-0.5))

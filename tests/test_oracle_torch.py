"""Random patterns on the torch path, against dense attention in fp64; and that the comparison can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

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


def cut_small(module: ModuleType, seed: int) -> None:
    """Gives some cases tiles, pieces and batches so small that short sequences have many of each.

    And some go without the library's fused kernel, as they do on a GPU.
    """
    if seed % 2:
        module._TILE_COSTS = module._UNITS_COSTS = module._GRADIENT_COSTS = {16: 1.0}
        module._LEAST_UNMASKED, module._MOST_MASKED, module._BUDGET = 4, 400, 20_000
    module._PLANS.clear()
    if seed % 5 == 0:
        module._is_fused = lambda q: False


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_patterns(shard: int) -> None:
    reports: Counter[str] = Counter()
    # Of what differs in more than inputs that nothing reads: much is drawn from what was drawn before.
    conservative: dict[str, bool] = {}

    def run(case: Case) -> None:
        done = oracle.compiled(case.text, small=case.weighed_small)
        read = re.sub(r"(?m)^    input .*\n", "", case.text)
        conservative[read] = conservative.get(read, False) or bool(done.schedule.reports)
        reports.update(done.schedule.reports)
        cut_small(done.module, case.call.seed)
        faults = oracle.check(done, case.call, "torch", torch.float32)
        if case.call.dtype != "float32":
            faults += oracle.check(done, case.call, "torch")
        assert not faults, f"{faults}\n{case.text}{case.call}"

    try_all(run, cases(), EXAMPLES, shard, SHARDS)
    tried = len(conservative)
    share = sum(conservative.values()) / tried
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


LONG = [
    "attend causal",
    "attend all",
    "attend window(700)",
    "attend window(255, 40)",
    "attend chunk(100) & causal | to(every(128, 120))",
    "attend window(9, 9) | to(first(300)) | from(every(400))",
    "input document: int[n] attend same(document) & causal",
    "attend blocks(64, window(1, 1) | random(3, seed=1))",
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("text", LONG)
def test_long_sequences(text: str, dtype: str) -> None:
    """Tiles of every length, pieces without a mask, batches of many tiles: with the constants as they are."""
    done = oracle.compiled(f"pattern p() {{ {text} }}")
    for n, n_q in ((1290, 1290), (1290, 1)):
        given = call(n=n, n_q=n_q, heads=2, key_heads=1, dtype=dtype, layout="heads inside")
        assert not oracle.check(done, given, "torch")


def residues(rows: range, *_: object) -> tuple[range, tuple[int, int], object]:
    """Keys of the rows' own residue class modulo 7, up to the row."""
    keys = range(rows[0] % 7, rows[-1] + 1, 7)
    return keys, (0, rows[0]), lambda q, k: k <= q


def squares(rows: torch.Tensor, *_: object) -> tuple[torch.Tensor, tuple[int, int], object]:
    """Keys of the rows' own square of a grid 36 wide, without the row itself."""
    return rows, (0, -1), lambda q, k: q != k


def test_classes_and_squares() -> None:
    """Passes whose tiles are residue classes, or squares of a grid: views with a step, and gathered tiles."""
    n, heads = 36 * 20, 4
    position = np.arange(n)
    q, k = position[:, None], position[None, :]
    square = (position // 36 // 4) * 9 + position % 36 // 4
    by_square = [torch.from_numpy(np.flatnonzero(square == number)) for number in range(square.max() + 1)]
    classes = [range(start, n, 7) for start in range(7)]
    cases = {
        "stride(7) & causal": (classes, residues, 1, ((q - k) % 7 == 0) & (k <= q)),
        "chunk(16)": (by_square, squares, 0, (square[:, None] == square[None, :]) & (q != k)),
    }
    for text, (rows, sweep, period, mask) in cases.items():
        done = oracle.compiled(f"pattern p() {{ attend {text} & all }}")
        plain, tried = done.module._BODIES, []
        done.module._PLANS.clear()
        done.module._BODIES = (((lambda *_, rows=rows: rows, None, ((sweep, False, period),), None),),)
        try:
            for dtype in (torch.float32, torch.bfloat16):
                given = call(n=n, n_q=n, heads=heads, key_heads=2, batch=2)
                args, grads = oracle.tensors(given, dtype)
                batches, _ = done.module._all_batches(*args[:2], [], done.module._TILE_COSTS)
                tried += [len(found.rows) for found, _ in batches]
                got = oracle.ours(done.module, args, grads, [], given, "torch")
                edges = np.broadcast_to(mask, (heads, n, n))
                assert not oracle.against(got, args, grads, edges, given, dtype, "torch")
        finally:
            done.module._BODIES = plain
        assert max(tried) > 5, "nothing was batched"


def test_negative_and_zero_scale() -> None:
    done = oracle.compiled("pattern p() { attend causal }")
    for scale in (-0.5, 0.0):
        assert not oracle.check(done, call(scale=scale), "torch")


PEAK = """
import sys, torch
import memory_of
n = int(sys.argv[1])
q, k, v, grad = (torch.randn(1, 2, n, 64) for _ in range(4))
torch.autograd.grad(memory_of.p(q.requires_grad_(), k.requires_grad_(), v.requires_grad_()), (q, k, v), grad)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process's peak memory is read from /proc")
def test_memory_grows_with_the_length() -> None:
    """Peak memory of forward and backward, in processes of their own: as the length, not as its square."""
    folder = Path(oracle._folder().name)
    text = oracle.compiled("pattern p() { attend window(255) | to(first(4)) }").text
    (folder / "memory_of.py").write_text(text, encoding="utf-8")

    def peak(n: int) -> int:
        command = [sys.executable, "-c", PEAK, str(n)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return int(done.stdout)

    least = peak(64)
    half, whole = peak(16384) - least, peak(32768) - least
    tensor = 2 * 32768 * 64 * 4 / 1024
    print(f"{half / 1024:.0f} MB, {whole / 1024:.0f} MB, a tensor has {tensor / 1024:.0f}")
    assert whole < 2.4 * half and whole < 30 * tensor

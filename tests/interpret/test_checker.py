"""The checker of loads and stores: planted faults, twins without them, and kernels of each kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 before Triton is imported", allow_module_level=True)

import triton
import triton.language as tl

from tests import launching, oracle
from tests.aot.everywhere import GATES, STATES, SWEPT
from tests.checking import checked


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- planted faults ---------------------------------------------------------------------------------------


@triton.jit
def _copy(x, y, n, step, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place * step, mask=place < n, other=0.0)
    if MASKED:
        tl.store(y + place, value, mask=place < n)
    else:
        tl.store(y + place, value)


@triton.jit
def _shift(x, y, n, by, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place + by, mask=(place + by >= 0) & (place + by < n), other=0.0)
    tl.store(y + place, value, mask=place < n)


@triton.jit
def _before(x, y, n, distance):
    tl.store(y + tl.program_id(0), tl.load(x + tl.program_id(0) - distance))


@triton.jit
def _one_place(y, value, step):
    tl.store(y, value + step * tl.program_id(0))


@triton.jit
def _lanes(y, step, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    tl.store(y + lane // 2, lane // 2 + step * lane)


@triton.jit
def _turned(x, y, BLOCK: tl.constexpr, FENCED: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    tl.store(y + lane, tl.load(x + lane))
    if FENCED:
        tl.debug_barrier()
    value = tl.load(y + BLOCK - 1 - lane)
    tl.debug_barrier()
    tl.store(y + lane, value)


@triton.jit
def _twice(y, step, BLOCK: tl.constexpr, FENCED: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    tl.store(y + lane, lane)
    if FENCED:
        tl.debug_barrier()
    tl.store(y + lane, lane + step)


@triton.jit
def _count(y, seen, LOOK: tl.constexpr):
    tl.atomic_add(y, 1)
    if LOOK:
        tl.store(seen + tl.program_id(0), tl.load(y))


@triton.jit
def _count_at(y, place):
    tl.atomic_add(y + place, 1)


@triton.jit
def _swap_at(y, place):
    tl.atomic_cas(y + place, 0, 1)


@triton.jit
def _pair(x, y, z, WHICH: tl.constexpr, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    source = tl.where(lane < BLOCK // 2, x, y)
    tl.store(z + lane, tl.load(source + lane - (BLOCK // 2 if WHICH else 0) * (lane >= BLOCK // 2)))


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


def _copied(size: int, n: int, masked: bool, step: int = 1) -> None:
    """Two programs of 8 lanes; ``y`` is the first half of a tensor twice as long."""
    _copy[(2,)](_ones(size * step), _ones(2 * size)[:size], n, step, BLOCK=8, MASKED=masked)


def _columns(step: int) -> None:
    """One column of a matrix 4 wide, of which ``x`` is all that a kernel is given."""
    _copy[(1,)](_ones(8, 4)[:, 1], _ones(8), 8, step, BLOCK=8, MASKED=True)


def _halves(n: int) -> None:
    """Two tensors that lie one after the other in one storage."""
    x, y = _ones(2, 8)
    _copy[(1,)](x, y, n, 1, BLOCK=16, MASKED=True)


def _moved(by: int, inplace: bool) -> None:
    x = _ones(32)
    _shift[(4,)](x, x if inplace else _ones(32), 32, by, BLOCK=8)


# A kernel with a fault and its twin without: what is launched, and words that the report must have.
PLANTED: dict[str, tuple[Callable[[], object], Callable[[], object], tuple[str, ...]]] = {
    "stores beyond the end": (
        lambda: _copied(12, 12, masked=False),
        lambda: _copied(12, 12, masked=True),
        ("out of bounds: _copy (test_checker.py:", "program (1, 0, 0) stores y[12] of (12,)", "and 3 more"),
    ),
    "loads beyond the end": (
        lambda: _copied(12, 16, masked=True),
        lambda: _copied(16, 16, masked=True),
        ("out of bounds", "loads x[12] of (12,)"),
    ),
    "loads before the start": (
        lambda: _before[(4,)](_ones(4), _ones(4), 4, 1),
        lambda: _before[(4,)](_ones(4), _ones(4), 4, 0),
        ("out of bounds", "program (0, 0, 0) loads x[-1] of (4,)"),
    ),
    "loads between the rows of a view": (
        lambda: _columns(2),
        lambda: _columns(4),
        ("out of bounds", "loads x[2] of (8,), strides (4,)"),
    ),
    "runs from one argument into another": (
        lambda: _halves(16),
        lambda: _halves(8),
        ("out of bounds", "loads x[8] of (8,)"),
    ),
    "of two pointers one runs into another argument": (
        lambda: _pair[(1,)](_ones(4), _ones(4), _ones(8), WHICH=False, BLOCK=8),
        lambda: _pair[(1,)](_ones(4), _ones(4), _ones(8), WHICH=True, BLOCK=8),
        ("out of bounds", "loads y[4] of (4,)"),
    ),
    "an atomic out of bounds": (
        lambda: _count_at[(1,)](torch.zeros(3, dtype=torch.int32), 3),
        lambda: _count_at[(1,)](torch.zeros(3, dtype=torch.int32), 2),
        ("out of bounds", "updates y[3] of (3,)"),
    ),
    "loads what an earlier program stores": (
        lambda: _moved(-8, inplace=True),
        lambda: _moved(-8, inplace=False),
        ("race", "program (1, 0, 0) loads x[0], which program (0, 0, 0) stores"),
    ),
    "stores what an earlier program loads": (
        lambda: _moved(8, inplace=True),
        lambda: _moved(0, inplace=True),
        ("race", "program (1, 0, 0) stores y[8], which program (0, 0, 0) loads"),
    ),
    "loads what programs count together": (
        lambda: _count[(3,)](torch.zeros(1, dtype=torch.int32), torch.zeros(3, dtype=torch.int32), LOOK=True),
        lambda: _count[(3,)](
            torch.zeros(1, dtype=torch.int32), torch.zeros(3, dtype=torch.int32), LOOK=False
        ),
        ("race", "program (1, 0, 0) updates y[0], which program (0, 0, 0) loads"),
    ),
    "programs store unequal values": (
        lambda: _one_place[(3,)](_ones(1), 2.0, 1.0),
        lambda: _one_place[(3,)](_ones(1), 2.0, 0.0),
        ("unequal double store", "program (1, 0, 0) stores y[0], to which another value program (0, 0, 0)"),
    ),
    "lanes store unequal values": (
        lambda: _lanes[(1,)](torch.zeros(8, dtype=torch.int32), 1, BLOCK=16),
        lambda: _lanes[(1,)](torch.zeros(8, dtype=torch.int32), 0, BLOCK=16),
        ("unequal double store", "stores y[0] by lanes with unequal values"),
    ),
    "a program stores unequal values": (
        lambda: _twice[(1,)](torch.zeros(8, dtype=torch.int32), 1, BLOCK=8, FENCED=False),
        lambda: _twice[(1,)](torch.zeros(8, dtype=torch.int32), 1, BLOCK=8, FENCED=True),
        ("unequal double store", "stores y[0] after its own store, without a barrier"),
    ),
    "loads what it has stored itself": (
        lambda: _turned[(2,)](_ones(8), _ones(8), BLOCK=8, FENCED=False),
        lambda: _turned[(1,)](_ones(8), _ones(8), BLOCK=8, FENCED=True),
        ("unfenced read", "loads y[7] after its own store, without a barrier"),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found_and_their_twins_pass(name: str) -> None:
    faulty, correct, words = PLANTED[name]
    with checked() as faults:
        faulty()
    found = [fault for fault in faults if fault.startswith(words[0].split(":")[0])]
    assert any(all(word in fault for word in words) for fault in found), faults
    with checked() as faults:
        correct()
    assert faults == []


def test_a_compare_and_swap_out_of_bounds_is_not_carried_out() -> None:
    y = torch.zeros(3, dtype=torch.int32)
    with checked() as faults:
        _swap_at[(1,)](y, 2)
    assert faults == [] and y.tolist() == [0, 0, 1]
    with pytest.raises(Exception, match=r"updates y\[3\]"), checked():
        _swap_at[(1,)](y, 3)


def test_lanes_out_of_bounds_load_the_other_value_and_store_nothing() -> None:
    x, y = torch.full((12,), 5.0), torch.zeros(24)
    with checked() as faults:
        _copy[(2,)](x, y[:12], 16, 1, BLOCK=8, MASKED=False)
    assert len(faults) == 2
    assert y[:12].tolist() == [5.0] * 12 and not y[12:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_elements_of_every_size(dtype: torch.dtype) -> None:
    x, y = torch.ones(12, dtype=dtype), torch.zeros(12, dtype=dtype)
    with checked() as faults:
        _shift[(2,)](x, y, 12, 0, BLOCK=8)
    assert faults == [] and torch.equal(x, y)
    with checked() as faults:
        _shift[(2,)](x, y, 13, 0, BLOCK=8)
    assert len(faults) == 2 and all("[12] of (12,)" in fault for fault in faults)


def test_views_of_one_storage_with_elements_of_two_sizes() -> None:
    memory = torch.zeros(16)
    halves = memory[8:].view(torch.float16)
    with checked() as faults:
        _shift[(2,)](halves, memory[:8], 8, 0, BLOCK=8)
        _shift[(2,)](memory[8:], halves, 8, 0, BLOCK=4)
    assert [fault.split(":")[0] for fault in faults] == ["race"]


def test_outside_of_the_checker_nothing_is_looked_at() -> None:
    with checked() as faults:
        pass
    _moved(-8, inplace=True)
    assert faults == []


# --- emitted kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEPT)
def test_swept_kernels_are_clean(name: str) -> None:
    done = launching.compiled(name)
    for rows, shares in ((launching.LENGTH, False), (launching.FEW, True)):
        faults = launching.launched(done, rows, shares)
        assert faults == [] and "_forward_kernel" in " ".join(faults.kernels)
        assert name != "mistral" or ("_join_kernel" in faults.kernels) == shares


@pytest.mark.parametrize("rows", [launching.LENGTH, launching.FEW])
@pytest.mark.parametrize("name", STATES)
def test_kernels_of_states_are_clean(name: str, rows: int) -> None:
    faults = launching.launched(launching.compiled(name), rows)
    assert faults == [] and "_linear_scan_kernel" in faults.kernels


@pytest.mark.parametrize("rows", [launching.LENGTH, launching.FEW])
@pytest.mark.parametrize("name", GATES)
def test_kernels_of_gates_are_clean(name: str, rows: int) -> None:
    faults = launching.launched(launching.compiled(name), rows, heads=1)
    assert faults == [] and "_gated_states_kernel" in faults.kernels


# An example, text of its module and what becomes of it, and what must then be found.
BROKEN = {
    "columns beyond the dim are stored": (
        "mistral", "mask=inside[:, None] & (column < DIM)[None, :])", "mask=inside[:, None])",
        "out of bounds: _forward_kernel",
    ),
    "a key too many is loaded": (
        "mistral", "tl.arange(0, BLOCK_N) < end - start", "tl.arange(0, BLOCK_N) <= end - start",
        "out of bounds: _forward_kernel",
    ),
    "two shares have one place": (
        "mistral", "_store_share(shares_out_ptr, cell,", "_store_share(shares_out_ptr, cell // 2,",
        "unequal double store: _forward_kernel",
    ),
    "rows of other tiles are loaded while they are stored": (
        "mistral", "delta -= tl.load(lse_grad_ptr + head_rows + (q - offset)",
        "delta -= tl.load(delta_ptr + head_rows + n_q - 1 - (q - offset)", "race: _query_gradient_kernel",
    ),
    "a barrier is missing": (
        "gla", "tl.debug_barrier()", "pass", "unfenced read: _channel_pair_gradients_kernel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_found(name: str) -> None:
    example, right, wrong, found = BROKEN[name]
    done = launching.compiled(example)
    assert right in done.text
    broken = replace(done, module=oracle.imported(done.text.replace(right, wrong)))
    faults = launching.launched(broken, 40, found.startswith("unequal"), heads=1)
    assert any(fault.startswith(found) for fault in faults), faults


@pytest.mark.parametrize(("kind", "index"), [("relations", 1), ("weights", 0), ("linear", 0)])
def test_a_random_case(kind: str, index: int) -> None:
    """Some of those that ``tests/launching.py --random`` runs."""
    faults, refused = launching.at_random(launching.drawn(kind, 0, index))
    assert faults == [] and not refused and faults.kernels

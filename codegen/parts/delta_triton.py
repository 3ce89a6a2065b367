"""The delta rule in chunks: Triton for the triangular systems (the WY representation, Yang et al. 2024)."""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # the torch path needs no Triton
    triton = None


def _jit(function):
    return function


@_jit
def _dot(a, b, total, PRECISION): ...
@_jit
def _wide(x): ...
@_jit
def _gated_tile(base, place, inside, row_stride, column, COUNT): ...
@_jit
def _gated_store(base, place, inside, row_stride, column, value, COUNT): ...
@_jit
def _gated_pairs_tile(base, start, row, seen, until): ...
@_jit
def _head_fading(gates, begin, start, n, row_stride, column, SIZE, COUNT, GATES, SEGMENTS, EXCLUSIVE): ...


# --- begin ---


@_jit
def _system_tile(likeness, beta, beta_row, start, n, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """16 by 16 entries of a chunk's system."""
    row = tl.arange(0, 16)
    place = start + ROWS * 16 + row
    factor = tl.load(beta + _wide(place) * beta_row, mask=place < n, other=0.0).to(tl.float32)
    pointers = likeness + _wide(place)[:, None] * 64 + (COLUMNS * 16 + row)[None, :]
    return tl.load(pointers, mask=(place < n)[:, None], other=0.0) * factor[:, None]


@_jit
def _system_inverse(likeness, beta, beta_row, start, n, ROWS: tl.constexpr):
    """The inverse of one plus the strictly lower half of 16 by 16 entries on the diagonal, row after row."""
    row = tl.arange(0, 16)
    found = tl.where(row[:, None] == row[None, :], 1.0, 0.0)
    for i in range(1, 16):
        place = start + ROWS * 16 + i
        factor = tl.load(beta + _wide(place) * beta_row, mask=place < n, other=0.0).to(tl.float32)
        pointers = likeness + _wide(place) * 64 + ROWS * 16 + row
        entries = tl.load(pointers, mask=row < tl.where(place < n, i, 0), other=0.0) * factor
        found -= tl.where((row == i)[:, None], tl.sum(entries[:, None] * found, 0)[None, :], 0.0)
    return found


@_jit
def _store_solution(solution, start, n, value, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.arange(0, 16)
    place = start + ROWS * 16 + row
    _gated_store(solution, place, place < n, 64, COLUMNS * 16 + row, value, 64)


@_jit
def _delta_solve_kernel(
    likeness_ptr,
    beta_ptr,
    solution_ptr,
    beta_batch,
    beta_head,
    beta_row,
    n,
    heads,
    tiles,
):
    """The inverse of ``1 + beta * likeness`` for every chunk: blocks of 16 by forward substitution."""
    program = tl.program_id(0)
    start, sequence = program % tiles * 64, program // tiles
    beta = beta_ptr + _wide(sequence // heads) * beta_batch + _wide(sequence % heads) * beta_head
    system = likeness_ptr + _wide(sequence) * n * 64
    solution = solution_ptr + _wide(sequence) * n * 64
    x00 = _system_inverse(system, beta, beta_row, start, n, 0)
    x11 = _system_inverse(system, beta, beta_row, start, n, 1)
    x22 = _system_inverse(system, beta, beta_row, start, n, 2)
    x33 = _system_inverse(system, beta, beta_row, start, n, 3)
    a10 = _system_tile(system, beta, beta_row, start, n, 1, 0)
    a20 = _system_tile(system, beta, beta_row, start, n, 2, 0)
    a21 = _system_tile(system, beta, beta_row, start, n, 2, 1)
    a30 = _system_tile(system, beta, beta_row, start, n, 3, 0)
    a31 = _system_tile(system, beta, beta_row, start, n, 3, 1)
    a32 = _system_tile(system, beta, beta_row, start, n, 3, 2)
    x10 = -_dot(x11, _dot(a10, x00, None, "ieee"), None, "ieee")
    x21 = -_dot(x22, _dot(a21, x11, None, "ieee"), None, "ieee")
    x32 = -_dot(x33, _dot(a32, x22, None, "ieee"), None, "ieee")
    x20 = -_dot(x22, _dot(a21, x10, _dot(a20, x00, None, "ieee"), "ieee"), None, "ieee")
    x31 = -_dot(x33, _dot(a32, x21, _dot(a31, x11, None, "ieee"), "ieee"), None, "ieee")
    right = _dot(a32, x20, _dot(a31, x10, _dot(a30, x00, None, "ieee"), "ieee"), "ieee")
    x30 = -_dot(x33, right, None, "ieee")
    _store_solution(solution, start, n, x00, 0, 0)
    _store_solution(solution, start, n, x10, 1, 0)
    _store_solution(solution, start, n, x11, 1, 1)
    _store_solution(solution, start, n, x20, 2, 0)
    _store_solution(solution, start, n, x21, 2, 1)
    _store_solution(solution, start, n, x22, 2, 2)
    _store_solution(solution, start, n, x30, 3, 0)
    _store_solution(solution, start, n, x31, 3, 1)
    _store_solution(solution, start, n, x32, 3, 2)
    _store_solution(solution, start, n, x33, 3, 3)


@_jit
def _delta_write_kernel(
    k_ptr,
    v_ptr,
    gates_ptr,
    begin_ptr,
    beta_ptr,
    solution_ptr,
    values_ptr,
    correction_ptr,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    beta_batch,
    beta_head,
    beta_row,
    n,
    heads,
    group,
    tiles,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """What a chunk writes, were the state before it zero, and what a state takes away from that."""
    program = tl.program_id(0)
    start, sequence = program % tiles * 64, program // tiles
    batch, head = sequence // heads, sequence % heads
    row = tl.arange(0, 64)
    place = start + row
    inside = place < n
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    v_ptr += _wide(batch) * v_batch * UNIT + _wide(head // group) * v_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    beta_ptr += _wide(batch) * beta_batch + _wide(head) * beta_head
    beta = tl.load(beta_ptr + _wide(place) * beta_row, mask=inside, other=0.0).to(tl.float32)
    solution = _gated_pairs_tile(solution_ptr + _wide(sequence) * n * 64, start, row, 0, n)
    for first in range(0, VALUE_DIM, BLOCK_VALUE):
        value = first + tl.arange(0, BLOCK_VALUE)
        v = _gated_tile(v_ptr, place, inside, v_row * UNIT, value, VALUE_DIM).to(tl.float32) * beta[:, None]
        found = _dot(solution, v.to(solution.dtype), None, PRECISION)
        whole = values_ptr + _wide(sequence) * n * VALUE_DIM
        _gated_store(whole, place, inside, VALUE_DIM, value, found, VALUE_DIM)
    for first in range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        ahead = _head_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS, False
        )
        key = (
            _gated_tile(k_ptr, place, inside, k_row * UNIT, column, DIM).to(tl.float32)
            * ahead
            * beta[:, None]
        )
        found = _dot(solution, key.to(solution.dtype), None, PRECISION)
        whole = correction_ptr + _wide(sequence) * n * DIM
        _gated_store(whole, place, inside, DIM, column, found, DIM)


# --- end ---

"""How the positions of a chunk weigh each other, under gates that all channels share: Triton, both ways."""

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
def _gated_add(base, place, inside, row_stride, column, value, COUNT): ...
@_jit
def _gated_pairs_tile(base, start, row, seen, until): ...
@_jit
def _head_fading(gates, begin, start, n, row_stride, column, SIZE, COUNT, GATES, SEGMENTS, EXCLUSIVE): ...
@_jit
def _tail_fading(gates, begin, start, n, row_stride, column, SIZE, COUNT, GATES, SEGMENTS): ...


# --- begin: token ---


@_jit
def _token_pairs_kernel(
    x_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    pairs_ptr,
    x_batch,
    x_head,
    x_row,
    k_batch,
    k_head,
    k_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    scale,
    n,
    n_q,
    heads,
    x_group,
    group,
    tiles,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    OWN: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """How each ``x`` weighs the keys of its chunk; OWN: its own, too."""
    offset = n - n_q
    first = offset // 64
    program = tl.program_id(0)
    chunk = first + program % (tiles - first)
    sequence = program // (tiles - first)
    batch, head = sequence // heads, sequence % heads
    row = tl.arange(0, 64)
    start = chunk * 64
    place = start + row
    inside = place < n
    x_ptr += _wide(batch) * x_batch * UNIT + _wide(head // x_group) * x_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    pairs = tl.zeros((64, 64), dtype=tl.float32)
    for first_column in range(0, DIM, BLOCK_DIM):
        column = first_column + tl.arange(0, BLOCK_DIM)
        x = _gated_tile(x_ptr, place - offset, inside & (place >= offset), x_row * UNIT, column, DIM)
        key = _gated_tile(k_ptr, place, inside, k_row * UNIT, column, DIM)
        pairs = _dot(x, tl.trans(key), pairs, PRECISION)
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    pairs *= (
        _token_fading_tile(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, GATES, SEGMENTS) * scale
    )
    if not OWN:
        pairs = tl.where(row[:, None] > row[None, :], pairs, 0.0)
    _gated_store(pairs_ptr + _wide(sequence) * n * 64, place, inside, 64, row, pairs, 64)


@_jit
def _token_pair_gradients_kernel(
    q_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dq_ptr,
    dk_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    scale,
    n,
    n_q,
    heads,
    group,
    tiles,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    DELTA: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """Adds what the gradients of a chunk's pairs give to its queries and keys."""
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    offset = n - n_q
    program = tl.program_id(0)
    column = program % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    chunk = program // parts % tiles
    sequence = program // parts // tiles
    batch, head = sequence // heads, sequence % heads
    row = tl.arange(0, 64)
    start = chunk * 64
    place = start + row
    inside = place < n
    asked = inside & (place >= offset)
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    fading = _token_fading_tile(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, GATES, SEGMENTS)
    query = _gated_tile(q_ptr, place - offset, asked, q_row * UNIT, column, DIM)
    key = _gated_tile(k_ptr, place, inside, k_row * UNIT, column, DIM)
    square = _wide(sequence) * n * 64
    d_pairs = _gated_pairs_tile(d_pairs_ptr + square, start, row, 0, n) * fading * scale
    d_pairs = d_pairs.to(key.dtype)
    dq = _dot(d_pairs, key, None, PRECISION)
    dk = _dot(tl.trans(d_pairs), query, None, PRECISION)
    if DELTA:
        d_likeness = _gated_pairs_tile(d_likeness_ptr + square, start, row, 0, n) * fading
        d_likeness = (d_likeness + tl.trans(d_likeness)).to(key.dtype)
        dk = _dot(d_likeness, key, dk, PRECISION)
    _gated_add(dq_ptr + _wide(sequence) * n_q * DIM, place - offset, asked, DIM, column, dq, DIM)
    _gated_add(dk_ptr + _wide(sequence) * n * DIM, place, inside, DIM, column, dk, DIM)


# --- end ---

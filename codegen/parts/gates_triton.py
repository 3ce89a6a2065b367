"""Linear attention with a gate for each channel, and the delta rule: Triton, what both have in common.

Positions are cut into chunks of 64. What happens within a chunk runs for all chunks at once; only the state
goes from chunk to chunk, for every block of channels and values by itself. Exponentials are only taken of sums
of gates over a range that lies between a query and a key, so none of them can overflow, and no sum of gates is
ever subtracted from another.
"""

from __future__ import annotations

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the torch path needs no Triton
    triton = None


def _jit(function):
    return function


@_jit
def _dot(a, b, total, PRECISION): ...


# --- begin ---


@_jit
def _wide(x):
    return tl.cast(x, tl.int64)


@_jit
def _gated_tile(base, place, inside, row_stride, column, COUNT: tl.constexpr):
    """Rows of a (length, COUNT) matrix, zero where they are not inside."""
    pointers = base + _wide(place)[:, None] * row_stride + column[None, :]
    return tl.load(pointers, mask=inside[:, None] & (column < COUNT)[None, :], other=0.0)


@_jit
def _gated_row(base, place, inside, row_stride, column, COUNT: tl.constexpr):
    """One row of a (length, COUNT) matrix, zero if it is not inside."""
    mask = column < tl.where(inside, COUNT, 0)
    return tl.load(base + _wide(place) * row_stride + column, mask=mask, other=0.0).to(tl.float32)


@_jit
def _gate_row(gates, begin, place, n, row_stride, column, COUNT: tl.constexpr, SEGMENTS: tl.constexpr):
    """The factors of one place, zero where a segment starts."""
    gate = tl.exp(_gated_row(gates, place, place < n, row_stride, column, COUNT))
    if SEGMENTS:
        gate = tl.where(tl.load(begin + place, mask=place < n, other=-1) == place, 0.0, gate)
    return gate


@_jit
def _gated_store(base, place, inside, row_stride, column, value, COUNT: tl.constexpr):
    pointers = base + _wide(place)[:, None] * row_stride + column[None, :]
    tl.store(pointers, value.to(base.dtype.element_ty), mask=inside[:, None] & (column < COUNT)[None, :])


@_jit
def _gated_add(base, place, inside, row_stride, column, value, COUNT: tl.constexpr):
    pointers = base + _wide(place)[:, None] * row_stride + column[None, :]
    mask = inside[:, None] & (column < COUNT)[None, :]
    tl.store(pointers, tl.load(pointers, mask=mask, other=0.0) + value, mask=mask)


@_jit
def _gated_pairs_tile(base, start, row, seen, until):
    """Weights of pairs (row, column) of a chunk at ``start``, zero but for columns up to the row.

    Rows before ``seen`` have no query, and none reaches ``until``; nobody has written those.
    """
    column = tl.arange(0, 64)
    place = start + row
    mask = ((place >= seen) & (place < until))[:, None] & (column[None, :] <= row[:, None])
    return tl.load(base + _wide(place)[:, None] * 64 + column[None, :], mask=mask, other=0.0)


@_jit
def _gates_at(
    gates,
    begin,
    place,
    inside,
    row_stride,
    column,
    COUNT: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
):
    """Logarithms of gates as (places, channels), or (places, 1) if all channels share them.

    Zero where not inside; minus infinity where a segment starts, so that nothing passes.
    """
    if GATES == "channel":
        found = _gated_tile(gates, place, inside, row_stride, column, COUNT).to(tl.float32)
    elif GATES == "token":
        found = tl.load(gates + _wide(place) * row_stride, mask=inside, other=0.0).to(tl.float32)[:, None]
    else:
        found = tl.zeros((place.shape[0], 1), dtype=tl.float32)
    if SEGMENTS:
        starts = (tl.load(begin + place, mask=inside, other=-1) == place) & inside
        found = tl.where(starts[:, None], float("-inf"), found)
    return found


@_jit
def _head_fading(
    gates,
    begin,
    start,
    n,
    row_stride,
    column,
    SIZE: tl.constexpr,
    COUNT: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """For each of SIZE places what is left there of what was stored before ``start``.

    EXCLUSIVE: before the place's own gate; at the start of a segment nothing.
    """
    row = tl.arange(0, SIZE)
    back = 1 if EXCLUSIVE else 0
    place = start + row - back
    inside = (row >= back) & (place < n)
    found = _gates_at(gates, begin, place, inside, row_stride, column, COUNT, GATES, SEGMENTS)
    found = tl.exp(tl.cumsum(found, 0))
    if EXCLUSIVE and SEGMENTS:
        starts = tl.load(begin + start + row, mask=start + row < n, other=-1) == start + row
        found = tl.where(starts[:, None], 0.0, found)
    return found


@_jit
def _tail_fading(
    gates,
    begin,
    start,
    n,
    row_stride,
    column,
    SIZE: tl.constexpr,
    COUNT: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
):
    """For each of SIZE places what is left of its key after the last of them."""
    row = tl.arange(0, SIZE)
    place = start + row + 1
    inside = (row + 1 < SIZE) & (place < n)
    found = _gates_at(gates, begin, place, inside, row_stride, column, COUNT, GATES, SEGMENTS)
    return tl.exp(tl.cumsum(found, 0, reverse=True))


@_jit
def _whole_fading(
    gates,
    begin,
    start,
    n,
    row_stride,
    column,
    COUNT: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
):
    """What a chunk leaves of a state, a number for each channel or one for all."""
    row = tl.arange(0, 64)
    found = _gates_at(gates, begin, start + row, start + row < n, row_stride, column, COUNT, GATES, SEGMENTS)
    return tl.exp(tl.sum(found, 0))


@_jit
def _token_fading_tile(gates, begin, start, n, row_stride, GATES: tl.constexpr, SEGMENTS: tl.constexpr):
    """For every pair of a chunk what is left of the key at the query; zero for later keys."""
    row = tl.arange(0, 64)
    place = start + row
    found = _gates_at(gates, begin, place, place < n, row_stride, row, 1, GATES, SEGMENTS)
    sums = tl.cumsum(tl.where(row[:, None] > row[None, :], found, 0.0), 0)
    return tl.where(row[:, None] >= row[None, :], tl.exp(sums), 0.0)


@_jit
def _sums_before(x, SIZE: tl.constexpr, SUMS: tl.constexpr):
    """Sums of the rows before each. A product, because subtracting a row from running sums would lose it."""
    row = tl.arange(0, SIZE)
    return tl.dot((row[:, None] > row[None, :]).to(tl.float32), x, input_precision=SUMS)


@_jit
def _sums_after(x, SIZE: tl.constexpr, SUMS: tl.constexpr):
    """Sums of the rows behind each."""
    row = tl.arange(0, SIZE)
    return tl.dot((row[:, None] < row[None, :]).to(tl.float32), x, input_precision=SUMS)


# --- states: from chunk to chunk ---


@_jit
def _gated_states_kernel(
    k_ptr,
    v_ptr,
    gates_ptr,
    begin_ptr,
    correction_ptr,
    initial_ptr,
    states_ptr,
    written_ptr,
    final_ptr,
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
    DELTA: tl.constexpr,
    INITIAL: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """The state before every chunk and after the last. DELTA: and what is written, in place of ``v``."""
    blocks = (VALUE_DIM + BLOCK_VALUE - 1) // BLOCK_VALUE
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    program = tl.program_id(0)
    sequence = program // (blocks * parts)
    batch, head = sequence // heads, sequence % heads
    value = program % blocks * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    column = program // blocks % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    row = tl.arange(0, 64)
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    if DELTA:
        v_ptr += _wide(sequence) * n * VALUE_DIM
    else:
        v_ptr += _wide(batch) * v_batch * UNIT + _wide(head // group) * v_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    correction_ptr += _wide(sequence) * n * DIM
    written_ptr += _wide(sequence) * n * VALUE_DIM
    states_ptr += _wide(sequence) * tiles * DIM * VALUE_DIM
    channels = column < DIM
    state = tl.zeros((BLOCK_DIM, BLOCK_VALUE), dtype=tl.float32)
    if INITIAL:
        state += _gated_tile(
            initial_ptr + _wide(sequence) * DIM * VALUE_DIM, column, channels, VALUE_DIM, value, VALUE_DIM
        )
    for chunk in range(tiles):
        start = chunk * 64
        inside = start + row < n
        saved = states_ptr + _wide(chunk) * DIM * VALUE_DIM
        _gated_store(saved, column, channels, VALUE_DIM, value, state, VALUE_DIM)
        tail = _tail_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS
        )
        key = _gated_tile(k_ptr, start + row, inside, k_row * UNIT, column, DIM).to(tl.float32) * tail
        key = key.to(states_ptr.dtype.element_ty)
        v_stride = VALUE_DIM if DELTA else v_row * UNIT
        written = _gated_tile(v_ptr, start + row, inside, v_stride, value, VALUE_DIM).to(key.dtype)
        if DELTA:
            correction = _gated_tile(correction_ptr, start + row, inside, DIM, column, DIM)
            found = written.to(tl.float32) - _dot(correction, state.to(key.dtype), None, PRECISION)
            written = found.to(key.dtype)
            _gated_store(written_ptr, start + row, inside, VALUE_DIM, value, written, VALUE_DIM)
        whole = _whole_fading(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS)
        state = _dot(tl.trans(key), written, state * whole[:, None], PRECISION)
    final_ptr += _wide(sequence) * DIM * VALUE_DIM
    _gated_store(final_ptr, column, channels, VALUE_DIM, value, state, VALUE_DIM)


@_jit
def _gated_state_gradients_kernel(
    q_ptr,
    k_ptr,
    grad_ptr,
    gates_ptr,
    begin_ptr,
    correction_ptr,
    d_final_ptr,
    after_ptr,
    d_written_ptr,
    d_initial_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    grad_batch,
    grad_head,
    grad_row,
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
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    DELTA: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """The gradient of the state after every chunk and before the first, last chunk first.

    DELTA: adds to the gradient of what is written what it did to the states.
    """
    blocks = (VALUE_DIM + BLOCK_VALUE - 1) // BLOCK_VALUE
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    program = tl.program_id(0)
    sequence = program // (blocks * parts)
    batch, head = sequence // heads, sequence % heads
    value = program % blocks * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    column = program // blocks % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    row = tl.arange(0, 64)
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    grad_ptr += _wide(batch) * grad_batch * UNIT + _wide(head) * grad_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    correction_ptr += _wide(sequence) * n * DIM
    d_written_ptr += _wide(sequence) * n * VALUE_DIM
    after_ptr += _wide(sequence) * tiles * DIM * VALUE_DIM
    channels = column < DIM
    offset = n - n_q
    whole_state = _wide(sequence) * DIM * VALUE_DIM
    state = _gated_tile(d_final_ptr + whole_state, column, channels, VALUE_DIM, value, VALUE_DIM)
    state = state.to(tl.float32)
    for step in range(tiles):
        chunk = tiles - 1 - step
        start = chunk * 64
        inside = start + row < n
        asked = inside & (start + row >= offset)
        saved = after_ptr + _wide(chunk) * DIM * VALUE_DIM
        _gated_store(saved, column, channels, VALUE_DIM, value, state, VALUE_DIM)
        ahead = _head_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS, EXCLUSIVE
        )
        query = _gated_tile(q_ptr, start + row - offset, asked, q_row * UNIT, column, DIM).to(tl.float32)
        query = (query * scale * ahead).to(after_ptr.dtype.element_ty)
        grad = _gated_tile(grad_ptr, start + row - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(query.dtype)
        whole = _whole_fading(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS)
        passed = state * whole[:, None]
        if DELTA:
            tail = _tail_fading(
                gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS
            )
            key = _gated_tile(k_ptr, start + row, inside, k_row * UNIT, column, DIM).to(tl.float32) * tail
            d_written = _gated_tile(d_written_ptr, start + row, inside, VALUE_DIM, value, VALUE_DIM)
            found = _dot(key.to(query.dtype), state.to(query.dtype), d_written.to(tl.float32), PRECISION)
            d_written = found.to(query.dtype)
            _gated_store(d_written_ptr, start + row, inside, VALUE_DIM, value, d_written, VALUE_DIM)
            correction = _gated_tile(correction_ptr, start + row, inside, DIM, column, DIM)
            passed -= _dot(tl.trans(correction), d_written, None, PRECISION)
        state = _dot(tl.trans(query), grad, passed, PRECISION)
    _gated_store(d_initial_ptr + whole_state, column, channels, VALUE_DIM, value, state, VALUE_DIM)


# --- within chunks ---


@_jit
def _gated_out_kernel(
    q_ptr,
    written_ptr,
    pairs_ptr,
    gates_ptr,
    begin_ptr,
    states_ptr,
    out_ptr,
    q_batch,
    q_head,
    q_row,
    written_batch,
    written_head,
    written_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    scale,
    n,
    n_q,
    heads,
    written_group,
    tiles,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """What the queries of a chunk read: of the state before it, and within it."""
    blocks = (VALUE_DIM + BLOCK_VALUE - 1) // BLOCK_VALUE
    offset = n - n_q
    first = offset // 64
    program = tl.program_id(0)
    chunk = first + program // blocks % (tiles - first)
    sequence = program // blocks // (tiles - first)
    batch, head = sequence // heads, sequence % heads
    value = program % blocks * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    row = tl.arange(0, 64)
    start = chunk * 64
    inside = start + row < n
    asked = inside & (start + row >= offset)
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    written_ptr += _wide(batch) * written_batch * UNIT + _wide(head // written_group) * written_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    states_ptr += (_wide(sequence) * tiles + chunk) * DIM * VALUE_DIM
    out = tl.zeros((64, BLOCK_VALUE), dtype=tl.float32)
    for first_column in range(0, DIM, BLOCK_DIM):
        column = first_column + tl.arange(0, BLOCK_DIM)
        ahead = _head_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS, EXCLUSIVE
        )
        query = _gated_tile(q_ptr, start + row - offset, asked, q_row * UNIT, column, DIM).to(tl.float32)
        query = (query * scale * ahead).to(states_ptr.dtype.element_ty)
        state = _gated_tile(states_ptr, column, column < DIM, VALUE_DIM, value, VALUE_DIM)
        out = _dot(query, state, out, PRECISION)
    pairs = _gated_pairs_tile(pairs_ptr + _wide(sequence) * n * 64, start, row, offset, n)
    written = _gated_tile(written_ptr, start + row, inside, written_row * UNIT, value, VALUE_DIM).to(pairs.dtype)
    out = _dot(pairs, written, out, PRECISION)
    out_ptr += _wide(sequence) * n_q * VALUE_DIM
    _gated_store(out_ptr, start + row - offset, asked, VALUE_DIM, value, out, VALUE_DIM)


@_jit
def _gated_written_gradient_kernel(
    k_ptr,
    grad_ptr,
    pairs_ptr,
    gates_ptr,
    begin_ptr,
    after_ptr,
    d_written_ptr,
    k_batch,
    k_head,
    k_row,
    grad_batch,
    grad_head,
    grad_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    n,
    n_q,
    heads,
    group,
    tiles,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    DELTA: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """The gradient of what is written, from its own chunk and, but for DELTA, from the state after it."""
    blocks = (VALUE_DIM + BLOCK_VALUE - 1) // BLOCK_VALUE
    offset = n - n_q
    program = tl.program_id(0)
    chunk = program // blocks % tiles
    sequence = program // blocks // tiles
    batch, head = sequence // heads, sequence % heads
    value = program % blocks * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    row = tl.arange(0, 64)
    start = chunk * 64
    inside = start + row < n
    grad_ptr += _wide(batch) * grad_batch * UNIT + _wide(head) * grad_head * UNIT
    pairs = _gated_pairs_tile(pairs_ptr + _wide(sequence) * n * 64, start, row, offset, n)
    asked = inside & (start + row >= offset)
    grad = _gated_tile(grad_ptr, start + row - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(pairs.dtype)
    found = _dot(tl.trans(pairs), grad, None, PRECISION)
    if not DELTA:
        k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
        gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
        begin_ptr += _wide(batch) * begin_batch
        after_ptr += (_wide(sequence) * tiles + chunk) * DIM * VALUE_DIM
        for first_column in range(0, DIM, BLOCK_DIM):
            column = first_column + tl.arange(0, BLOCK_DIM)
            tail = _tail_fading(
                gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS
            )
            key = _gated_tile(k_ptr, start + row, inside, k_row * UNIT, column, DIM).to(tl.float32) * tail
            after = _gated_tile(after_ptr, column, column < DIM, VALUE_DIM, value, VALUE_DIM)
            found = _dot(key.to(after.dtype), after, found, PRECISION)
    d_written_ptr += _wide(sequence) * n * VALUE_DIM
    _gated_store(d_written_ptr, start + row, inside, VALUE_DIM, value, found, VALUE_DIM)


@_jit
def _across_tile(pairs):
    """Sums over ``i >= m > j`` of (i, j), for every place m of a chunk."""
    row = tl.arange(0, 64)
    below = tl.cumsum(pairs, 0, reverse=True)
    return tl.sum(tl.where(row[:, None] > row[None, :], below, 0.0), 1)


@_jit
def _gated_weight_gradients_kernel(
    v_ptr,
    grad_ptr,
    written_ptr,
    d_written_ptr,
    pairs_ptr,
    likeness_ptr,
    solution_ptr,
    beta_ptr,
    begin_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dv_ptr,
    d_beta_ptr,
    d_across_ptr,
    v_batch,
    v_head,
    v_row,
    grad_batch,
    grad_head,
    grad_row,
    written_batch,
    written_head,
    written_row,
    beta_batch,
    beta_head,
    beta_row,
    begin_batch,
    n,
    n_q,
    heads,
    group,
    written_group,
    tiles,
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    TOKEN: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    OWN: tl.constexpr,
    DELTA: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
):
    """The gradients of a chunk's pairs; DELTA: of its keys' likeness, and of values and part of beta.

    TOKEN: and what those give to the gates that all channels share.
    """
    offset = n - n_q
    program = tl.program_id(0)
    chunk, sequence = program % tiles, program // tiles
    batch, head = sequence // heads, sequence % heads
    row = tl.arange(0, 64)
    start = chunk * 64
    place = start + row
    inside = place < n
    asked = inside & (place >= offset)
    grad_ptr += _wide(batch) * grad_batch * UNIT + _wide(head) * grad_head * UNIT
    written_ptr += _wide(batch) * written_batch * UNIT + _wide(head // written_group) * written_head * UNIT
    square = _wide(sequence) * n * 64
    d_pairs = tl.zeros((64, 64), dtype=tl.float32)
    if DELTA:
        d_system = tl.zeros((64, 64), dtype=tl.float32)
        d_beta = tl.zeros((64,), dtype=tl.float32)
        v_ptr += _wide(batch) * v_batch * UNIT + _wide(head // group) * v_head * UNIT
        beta = tl.load(
            beta_ptr + _wide(batch) * beta_batch + _wide(head) * beta_head + _wide(place) * beta_row,
            mask=inside,
            other=0.0,
        ).to(tl.float32)
        solution = _gated_pairs_tile(solution_ptr + square, start, row, 0, n)
        whole = _wide(sequence) * n * VALUE_DIM
    for first_value in range(0, VALUE_DIM, BLOCK_VALUE):
        value = first_value + tl.arange(0, BLOCK_VALUE)
        grad = _gated_tile(grad_ptr, place - offset, asked, grad_row * UNIT, value, VALUE_DIM)
        written = _gated_tile(written_ptr, place, inside, written_row * UNIT, value, VALUE_DIM)
        grad, written = grad.to(pairs_ptr.dtype.element_ty), written.to(pairs_ptr.dtype.element_ty)
        d_pairs = _dot(grad, tl.trans(written), d_pairs, PRECISION)
        if DELTA:
            d_written = _gated_tile(d_written_ptr + whole, place, inside, VALUE_DIM, value, VALUE_DIM)
            d_written = d_written.to(written.dtype)
            d_system = _dot(d_written, tl.trans(written), d_system, PRECISION)
            d_right = _dot(tl.trans(solution), d_written, None, PRECISION)
            _gated_store(
                dv_ptr + whole, place, inside, VALUE_DIM, value, d_right * beta[:, None], VALUE_DIM
            )
            v = _gated_tile(v_ptr, place, inside, v_row * UNIT, value, VALUE_DIM).to(tl.float32)
            d_beta += tl.sum(d_right * v, 1)
    strict = row[:, None] > row[None, :]
    if OWN:
        d_pairs = tl.where(row[:, None] >= row[None, :], d_pairs, 0.0)
    else:
        d_pairs = tl.where(strict, d_pairs, 0.0)
    if EXCLUSIVE and SEGMENTS:
        starts = tl.load(begin_ptr + _wide(batch) * begin_batch + place, mask=inside, other=-1) == place
        d_pairs = tl.where(starts[:, None] & strict, 0.0, d_pairs)
    _gated_store(d_pairs_ptr + square, place, inside, 64, row, d_pairs, 64)
    if TOKEN:
        pairs = _gated_pairs_tile(pairs_ptr + square, start, row, offset, n).to(tl.float32)
        across = tl.where(strict, d_pairs * pairs, 0.0)
    if DELTA:
        d_system = _dot(tl.trans(solution).to(tl.float32), d_system, None, PRECISION)
        d_system = tl.where(strict, -d_system, 0.0)
        likeness = _gated_pairs_tile(likeness_ptr + square, start, row, 0, n)
        d_beta += tl.sum(d_system * likeness, 1)
        tl.store(d_beta_ptr + _wide(sequence) * n + place, d_beta, mask=inside)
        d_likeness = d_system * beta[:, None]
        _gated_store(d_likeness_ptr + square, place, inside, 64, row, d_likeness, 64)
        if TOKEN:
            across += tl.where(strict, d_likeness * likeness, 0.0)
    if TOKEN:
        tl.store(d_across_ptr + _wide(sequence) * n + place, _across_tile(across), mask=inside)


@_jit
def _gated_state_use_kernel(
    q_ptr,
    k_ptr,
    grad_ptr,
    written_ptr,
    d_written_ptr,
    solution_ptr,
    beta_ptr,
    gates_ptr,
    begin_ptr,
    states_ptr,
    after_ptr,
    dq_ptr,
    dk_ptr,
    d_gates_ptr,
    d_beta_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    grad_batch,
    grad_head,
    grad_row,
    written_batch,
    written_head,
    written_row,
    beta_batch,
    beta_head,
    beta_row,
    gates_batch,
    gates_head,
    gates_row,
    begin_batch,
    scale,
    n,
    n_q,
    heads,
    group,
    written_group,
    tiles,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
    GATES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    DELTA: tl.constexpr,
    PRECISION: tl.constexpr,
    SUMS: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """The gradients that queries, keys and gates get from the states before and after their chunk.

    Gates that all channels share, and beta, get one number from every block of channels.
    """
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    offset = n - n_q
    program = tl.program_id(0)
    part = program % parts
    chunk = program // parts % tiles
    sequence = program // parts // tiles
    batch, head = sequence // heads, sequence % heads
    column = part * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    channels = column < DIM
    row = tl.arange(0, 64)
    start = chunk * 64
    place = start + row
    inside = place < n
    asked = inside & (place >= offset)
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    grad_ptr += _wide(batch) * grad_batch * UNIT + _wide(head) * grad_head * UNIT
    written_ptr += _wide(batch) * written_batch * UNIT + _wide(head // written_group) * written_head * UNIT
    d_written_ptr += _wide(sequence) * n * VALUE_DIM
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    states_ptr += (_wide(sequence) * tiles + chunk) * DIM * VALUE_DIM
    after_ptr += (_wide(sequence) * tiles + chunk) * DIM * VALUE_DIM
    d_reading = tl.zeros((64, BLOCK_DIM), dtype=tl.float32)
    d_writing = tl.zeros((64, BLOCK_DIM), dtype=tl.float32)
    d_asking = tl.zeros((64, BLOCK_DIM), dtype=tl.float32)
    passed = tl.zeros((BLOCK_DIM,), dtype=tl.float32)
    for first_value in range(0, VALUE_DIM, BLOCK_VALUE):
        value = first_value + tl.arange(0, BLOCK_VALUE)
        before = _gated_tile(states_ptr, column, channels, VALUE_DIM, value, VALUE_DIM)
        after = _gated_tile(after_ptr, column, channels, VALUE_DIM, value, VALUE_DIM)
        grad = _gated_tile(grad_ptr, place - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(before.dtype)
        d_reading = _dot(grad, tl.trans(before), d_reading, PRECISION)
        written = _gated_tile(written_ptr, place, inside, written_row * UNIT, value, VALUE_DIM).to(before.dtype)
        d_writing = _dot(written, tl.trans(after), d_writing, PRECISION)
        if GATES != "none":
            passed += tl.sum(before.to(tl.float32) * after.to(tl.float32), 1)
        if DELTA:
            d_written = _gated_tile(d_written_ptr, place, inside, VALUE_DIM, value, VALUE_DIM)
            d_asking = _dot(d_written.to(before.dtype), tl.trans(before), d_asking, PRECISION)
    ahead = _head_fading(
        gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS, EXCLUSIVE
    )
    dq = d_reading * ahead * scale
    _gated_store(dq_ptr + _wide(sequence) * n_q * DIM, place - offset, asked, DIM, column, dq, DIM)
    tail = _tail_fading(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS)
    dk = d_writing * tail
    key = _gated_tile(k_ptr, place, inside, k_row * UNIT, column, DIM).to(tl.float32)
    if GATES != "none":
        query = _gated_tile(q_ptr, place - offset, asked, q_row * UNIT, column, DIM).to(tl.float32)
        read, behind = query * dq, key * dk  # what hangs on gates up to a place, and behind it
    if DELTA:
        solution = _gated_pairs_tile(solution_ptr + _wide(sequence) * n * 64, start, row, 0, n)
        beta = tl.load(
            beta_ptr + _wide(batch) * beta_batch + _wide(head) * beta_head + _wide(place) * beta_row,
            mask=inside,
            other=0.0,
        ).to(tl.float32)
        # DELTA is not exclusive, so that queries and keys ask alike.
        d_asking = _dot(tl.trans(solution).to(tl.float32), d_asking, None, PRECISION) * -ahead
        asks = key * d_asking
        tl.store(d_beta_ptr + (_wide(sequence) * n + place) * parts + part, tl.sum(asks, 1), mask=inside)
        dk += d_asking * beta[:, None]
        if GATES != "none":
            read += asks * beta[:, None]
    _gated_store(dk_ptr + _wide(sequence) * n * DIM, place, inside, DIM, column, dk, DIM)
    if GATES != "none":
        whole = _whole_fading(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS)
        passed *= whole
    if GATES == "channel":
        found = _sums_before(behind, 64, SUMS) + passed[None, :]
        found += _sums_after(read, 64, SUMS) if EXCLUSIVE else tl.cumsum(read, 0, reverse=True)
        _gated_store(d_gates_ptr + _wide(sequence) * n * DIM, place, inside, DIM, column, found, DIM)
    if GATES == "token":
        earlier = row[:, None] > row[None, :]
        found = tl.sum(tl.where(earlier, tl.sum(behind, 1)[None, :], 0.0), 1) + tl.sum(passed)
        found += tl.sum(tl.where(row[:, None] <= row[None, :], tl.sum(read, 1)[None, :], 0.0), 1)
        tl.store(d_gates_ptr + (_wide(sequence) * n + place) * parts + part, found, mask=inside)


# --- pairs within a chunk, gates shared by all channels ---


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
    pairs *= _token_fading_tile(gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, GATES, SEGMENTS) * scale
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


# --- pairs within a chunk, a gate for each channel ---


@_jit
def _pair_block(
    x_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    pairs_ptr,
    x_row,
    k_row,
    gates_row,
    scale,
    start,
    shift,
    n,
    offset,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Weights of the SIZE keys from ``start + shift`` on for the SIZE queries behind them."""
    row = tl.arange(0, SIZE)
    keys = start + shift + row
    queries = keys + SIZE
    asked = (queries >= offset) & (queries < n)
    pairs = tl.zeros((SIZE, SIZE), dtype=tl.float32)
    for first in range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        border = start + shift + SIZE
        head = _head_fading(
            gates_ptr, begin_ptr, border, n, gates_row, column, SIZE, DIM, "channel", SEGMENTS, EXCLUSIVE
        )
        x = _gated_tile(x_ptr, queries - offset, asked, x_row, column, DIM).to(tl.float32)
        tail = _tail_fading(
            gates_ptr, begin_ptr, border - SIZE, n, gates_row, column, SIZE, DIM, "channel", SEGMENTS
        )
        key = _gated_tile(k_ptr, keys, keys < n, k_row, column, DIM).to(tl.float32)
        pairs = _dot((x * scale * head).to(OPERAND), tl.trans((key * tail).to(OPERAND)), pairs, PRECISION)
    _gated_store(pairs_ptr, queries, queries < n, 64, shift + row, pairs, 64)


@_jit
def _channel_pairs_kernel(
    x_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    bonus_ptr,
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
    bonus_batch,
    scale,
    n,
    n_q,
    heads,
    x_group,
    group,
    tiles,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    BONUS: tl.constexpr,
    OWN: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """How each ``x`` weighs the keys of its chunk; OWN: its own, too, with BONUS by that.

    A chunk is halved twice, and later halves read earlier ones relative to the border between them; within
    the 16 positions that are left, keys fade from place to place.
    """
    offset = n - n_q
    first_chunk = offset // 64
    program = tl.program_id(0)
    part = program % 4
    chunk = first_chunk + program // 4 % (tiles - first_chunk)
    sequence = program // 4 // (tiles - first_chunk)
    batch, head = sequence // heads, sequence % heads
    x_ptr += _wide(batch) * x_batch * UNIT + _wide(head // x_group) * x_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    bonus_ptr += _wide(batch) * bonus_batch + _wide(head) * DIM
    pairs_ptr += _wide(sequence) * n * 64
    start = chunk * 64 + part * 16
    row = tl.arange(0, 16)
    pairs = tl.zeros((16, 16), dtype=tl.float32)
    for first in range(0, DIM, BLOCK_DIM):
        column = first + tl.arange(0, BLOCK_DIM)
        channels = column < DIM
        faded = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
        if BONUS:
            bonus = tl.load(bonus_ptr + column, mask=channels, other=0.0).to(tl.float32)
        for i in range(16):
            place = start + i
            gate = _gate_row(gates_ptr, begin_ptr, place, n, gates_row * GATE_UNIT, column, DIM, SEGMENTS)
            key = _gated_row(k_ptr, place, place < n, k_row * UNIT, column, DIM)
            asked = (place >= offset) & (place < n)
            x = _gated_row(x_ptr, place - offset, asked, x_row * UNIT, column, DIM) * scale
            if not EXCLUSIVE:
                faded *= gate[None, :]
            weights = tl.sum(faded * x[None, :], 1)
            if EXCLUSIVE:
                faded *= gate[None, :]
                if SEGMENTS:
                    weights *= tl.where(tl.load(begin_ptr + place, mask=place < n, other=-1) == place, 0.0, 1.0)
            if OWN:
                own = tl.sum(x * bonus * key if BONUS else x * key)
                weights += tl.where(row == i, own, 0.0)
            faded = tl.where((row == i)[:, None], key[None, :], faded)
            pairs += tl.where((row == i)[:, None], weights[None, :], 0.0)
    _gated_store(pairs_ptr, start + row, start + row < n, 64, part * 16 + row, pairs, 64)
    if part < 2:
        _pair_block(
            x_ptr,
            k_ptr,
            gates_ptr,
            begin_ptr,
            pairs_ptr,
            x_row * UNIT,
            k_row * UNIT,
            gates_row * GATE_UNIT,
            scale,
            chunk * 64,
            part * 32,
            n,
            offset,
            16,
            DIM,
            BLOCK_DIM,
            SEGMENTS,
            EXCLUSIVE,
            OPERAND,
            PRECISION,
        )
    elif part == 2:
        _pair_block(
            x_ptr,
            k_ptr,
            gates_ptr,
            begin_ptr,
            pairs_ptr,
            x_row * UNIT,
            k_row * UNIT,
            gates_row * GATE_UNIT,
            scale,
            chunk * 64,
            0,
            n,
            offset,
            32,
            DIM,
            BLOCK_DIM,
            SEGMENTS,
            EXCLUSIVE,
            OPERAND,
            PRECISION,
        )


@_jit
def _pair_block_gradients(
    q_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dq_ptr,
    dk_ptr,
    d_gates_ptr,
    q_row,
    k_row,
    gates_row,
    scale,
    start,
    shift,
    n,
    offset,
    column,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    DELTA: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SUMS: tl.constexpr,
):
    """Adds what the pairs of ``_pair_block`` give to queries, keys and gates."""
    row = tl.arange(0, SIZE)
    keys = start + shift + row
    queries = keys + SIZE
    known, behind = keys < n, queries < n
    asked = (queries >= offset) & behind
    border = start + shift + SIZE
    square = _wide(queries)[:, None] * 64 + (shift + row)[None, :]
    head = _head_fading(
        gates_ptr, begin_ptr, border, n, gates_row, column, SIZE, DIM, "channel", SEGMENTS, EXCLUSIVE
    )
    tail = _tail_fading(
        gates_ptr, begin_ptr, border - SIZE, n, gates_row, column, SIZE, DIM, "channel", SEGMENTS
    )
    key = _gated_tile(k_ptr, keys, known, k_row, column, DIM).to(tl.float32) * tail
    x = _gated_tile(q_ptr, queries - offset, asked, q_row, column, DIM).to(tl.float32) * scale * head
    grad = tl.load(d_pairs_ptr + square, mask=behind[:, None], other=0.0).to(OPERAND)
    dx = _dot(grad, key.to(OPERAND), None, PRECISION)
    d_key = _dot(tl.trans(grad), x.to(OPERAND), None, PRECISION)
    read = x * dx
    _gated_add(dq_ptr, queries - offset, asked, DIM, column, dx * scale * head, DIM)
    if DELTA:
        x = _gated_tile(k_ptr, queries, behind, k_row, column, DIM).to(tl.float32) * head
        grad = tl.load(d_likeness_ptr + square, mask=behind[:, None], other=0.0).to(OPERAND)
        dx = _dot(grad, key.to(OPERAND), None, PRECISION)
        d_key = _dot(tl.trans(grad), x.to(OPERAND), d_key, PRECISION)
        read += x * dx
        _gated_add(dk_ptr, queries, behind, DIM, column, dx * head, DIM)
    _gated_add(dk_ptr, keys, known, DIM, column, d_key * tail, DIM)
    read = _sums_after(read, SIZE, SUMS) if EXCLUSIVE else tl.cumsum(read, 0, reverse=True)
    _gated_add(d_gates_ptr, queries, behind, DIM, column, read, DIM)
    _gated_add(d_gates_ptr, keys, known, DIM, column, _sums_before(key * d_key, SIZE, SUMS), DIM)


@_jit
def _channel_pair_gradients_kernel(
    q_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dq_ptr,
    dk_ptr,
    d_gates_ptr,
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
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    DELTA: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SUMS: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """Adds what pairs of different halves and quarters of a chunk give to queries, keys and gates."""
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    offset = n - n_q
    program = tl.program_id(0)
    column = program % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    chunk = program // parts % tiles
    sequence = program // parts // tiles
    batch, head = sequence // heads, sequence % heads
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    d_pairs_ptr += _wide(sequence) * n * 64
    d_likeness_ptr += _wide(sequence) * n * 64
    dq_ptr += _wide(sequence) * n_q * DIM
    dk_ptr += _wide(sequence) * n * DIM
    d_gates_ptr += _wide(sequence) * n * DIM
    _pair_block_gradients(
        q_ptr,
        k_ptr,
        gates_ptr,
        begin_ptr,
        d_pairs_ptr,
        d_likeness_ptr,
        dq_ptr,
        dk_ptr,
        d_gates_ptr,
        q_row * UNIT,
        k_row * UNIT,
        gates_row * GATE_UNIT,
        scale,
        chunk * 64,
        0,
        n,
        offset,
        column,
        32,
        DIM,
        SEGMENTS,
        EXCLUSIVE,
        DELTA,
        OPERAND,
        PRECISION,
        SUMS,
    )
    tl.debug_barrier()  # the quarters add to what the halves have stored
    for half in range(2):
        _pair_block_gradients(
            q_ptr,
            k_ptr,
            gates_ptr,
            begin_ptr,
            d_pairs_ptr,
            d_likeness_ptr,
            dq_ptr,
            dk_ptr,
            d_gates_ptr,
            q_row * UNIT,
            k_row * UNIT,
            gates_row * GATE_UNIT,
            scale,
            chunk * 64,
            half * 32,
            n,
            offset,
            column,
            16,
            DIM,
            SEGMENTS,
            EXCLUSIVE,
            DELTA,
            OPERAND,
            PRECISION,
            SUMS,
        )


@_jit
def _channel_near_gradients_kernel(
    q_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    bonus_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dq_ptr,
    dk_ptr,
    d_gates_ptr,
    d_bonus_ptr,
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
    bonus_batch,
    scale,
    n,
    n_q,
    heads,
    group,
    tiles,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SEGMENTS: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    BONUS: tl.constexpr,
    DELTA: tl.constexpr,
    UNIT: tl.constexpr,
    GATE_UNIT: tl.constexpr,
):
    """Adds what pairs within 16 positions give to queries, keys and gates; and to the BONUS, 16 by 16."""
    parts = (DIM + BLOCK_DIM - 1) // BLOCK_DIM
    offset = n - n_q
    program = tl.program_id(0)
    column = program % parts * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    chunk = program // parts // 4 % tiles
    part = program // parts % 4
    sequence = program // parts // 4 // tiles
    batch, head = sequence // heads, sequence % heads
    channels = column < DIM
    row = tl.arange(0, 16)
    start = chunk * 64 + part * 16
    place = start + row
    inside = place < n
    asked = inside & (place >= offset)
    q_ptr += _wide(batch) * q_batch * UNIT + _wide(head) * q_head * UNIT
    k_ptr += _wide(batch) * k_batch * UNIT + _wide(head // group) * k_head * UNIT
    gates_ptr += _wide(batch) * gates_batch * GATE_UNIT + _wide(head) * gates_head * GATE_UNIT
    begin_ptr += _wide(batch) * begin_batch
    d_pairs_ptr += _wide(sequence) * n * 64 + part * 16
    d_likeness_ptr += _wide(sequence) * n * 64 + part * 16
    queries = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)  # as they read keys further back
    keys = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)  # as they are read by places further on
    askers = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    dq = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    dk = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    d_asking = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    for i in range(16):
        gate = _gate_row(gates_ptr, begin_ptr, start + i, n, gates_row * GATE_UNIT, column, DIM, SEGMENTS)
        if not EXCLUSIVE:
            keys *= gate[None, :]
        earlier = row < tl.where(start + i < n, i, 0)
        grad = tl.load(d_pairs_ptr + _wide(start + i) * 64 + row, mask=earlier, other=0.0)
        dq += tl.where((row == i)[:, None], tl.sum(grad[:, None] * keys, 0)[None, :], 0.0)
        if DELTA:
            grad = tl.load(d_likeness_ptr + _wide(start + i) * 64 + row, mask=earlier, other=0.0)
            d_asking += tl.where((row == i)[:, None], tl.sum(grad[:, None] * keys, 0)[None, :], 0.0)
        if EXCLUSIVE:
            keys *= gate[None, :]
        key = _gated_row(k_ptr, start + i, start + i < n, k_row * UNIT, column, DIM)
        keys = tl.where((row == i)[:, None], key[None, :], keys)
    for step in range(16):
        j = 15 - step
        gate = _gate_row(gates_ptr, begin_ptr, start + j, n, gates_row * GATE_UNIT, column, DIM, SEGMENTS)
        later = (row > j) & inside
        grad = tl.load(d_pairs_ptr + _wide(place) * 64 + j, mask=later, other=0.0)
        found = tl.sum(grad[:, None] * queries, 0)
        if DELTA:
            grad = tl.load(d_likeness_ptr + _wide(place) * 64 + j, mask=later, other=0.0)
            found += tl.sum(grad[:, None] * askers, 0)
            key = _gated_row(k_ptr, start + j, start + j < n, k_row * UNIT, column, DIM)
            askers = tl.where((row == j)[:, None], key[None, :], askers) * gate[None, :]
        dk += tl.where((row == j)[:, None], found[None, :], 0.0)
        seen = (start + j >= offset) & (start + j < n)
        query = _gated_row(q_ptr, start + j - offset, seen, q_row * UNIT, column, DIM) * scale
        if EXCLUSIVE:
            queries = tl.where((row == j)[:, None], query[None, :], queries * gate[None, :])
        else:
            queries = tl.where((row == j)[:, None], query[None, :], queries) * gate[None, :]
    query = _gated_tile(q_ptr, place - offset, asked, q_row * UNIT, column, DIM).to(tl.float32) * scale
    key = _gated_tile(k_ptr, place, inside, k_row * UNIT, column, DIM).to(tl.float32)
    read, kept = query * dq, key * dk
    if DELTA:
        read += key * d_asking
    if EXCLUSIVE:
        found = tl.cumsum(read - kept, 0, reverse=True) - read
    else:
        found = tl.cumsum(read - kept, 0, reverse=True)
    whole = _wide(sequence) * n * DIM
    _gated_add(d_gates_ptr + whole, place, inside, DIM, column, found, DIM)
    own = tl.load(d_pairs_ptr + _wide(place) * 64 + row, mask=inside, other=0.0)[:, None]
    if BONUS:
        bonus = tl.load(bonus_ptr + _wide(batch) * bonus_batch + _wide(head) * DIM + column, mask=channels, other=0.0)
        sixteen = (_wide(sequence) * tiles + chunk) * 4 + part
        tl.store(d_bonus_ptr + sixteen * DIM + column, tl.sum(own * query * key, 0), mask=channels)
        own *= bonus.to(tl.float32)[None, :]
    dq = (dq + own * key) * scale
    dk += own * query
    if DELTA:
        dk += d_asking
    _gated_add(dq_ptr + _wide(sequence) * n_q * DIM, place - offset, asked, DIM, column, dq, DIM)
    _gated_add(dk_ptr + whole, place, inside, DIM, column, dk, DIM)

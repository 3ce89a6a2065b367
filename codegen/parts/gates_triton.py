"""Linear attention with a gate for each channel, and the delta rule: Triton, what both have in common.

Positions are cut into chunks of 64. What happens within a chunk runs for all chunks at once; only the state
goes from chunk to chunk, for every block of channels and values by itself. Exponentials are only taken of
sums of gates over a range that lies between a query and a key, so none of them can overflow, and no sum of
gates is ever subtracted from another.
"""

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
    found = _gated_row(gates, place, place < n, row_stride, column, COUNT)
    gate = tl.exp(tl.where(found > 0.0, float("nan"), found))  # as in ``_gates_at``
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
        found = tl.where(found > 0.0, float("nan"), found)  # what is no gate spoils what it reaches
    elif GATES == "token":
        found = tl.load(gates + _wide(place) * row_stride, mask=inside, other=0.0).to(tl.float32)[:, None]
    else:
        found = tl.zeros((place.shape[0], 1), dtype=tl.float32)
    if SEGMENTS:
        starts = (tl.load(begin + place, mask=inside, other=-1) == place) & inside
        found = tl.where(starts[:, None], float("-inf"), found)
    return found


@_jit
def _gate_sums(gates, REVERSE: tl.constexpr):
    """Sums of all places up to each one, or from each one on where REVERSE, of (places, channels or 1)."""
    if gates.shape[1] == 1:  # Triton 3.6 does not compile a scan of a tile of one column
        return tl.cumsum(tl.reshape(gates, (gates.shape[0],)), 0, reverse=REVERSE)[:, None]
    else:
        return tl.cumsum(gates, 0, reverse=REVERSE)


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
    found = tl.exp(_gate_sums(found, False))
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
    return tl.exp(_gate_sums(found, True))


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
        whole = _whole_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS
        )
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
        grad = _gated_tile(grad_ptr, start + row - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(
            query.dtype
        )
        whole = _whole_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS
        )
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


# --- end ---

"""Linear attention with gates for channels, and the delta rule: Triton, what happens within chunks."""

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


# --- begin ---


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
    written = _gated_tile(written_ptr, start + row, inside, written_row * UNIT, value, VALUE_DIM).to(
        pairs.dtype
    )
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
    grad = _gated_tile(grad_ptr, start + row - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(
        pairs.dtype
    )
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
            _gated_store(dv_ptr + whole, place, inside, VALUE_DIM, value, d_right * beta[:, None], VALUE_DIM)
            v = _gated_tile(v_ptr, place, inside, v_row * UNIT, value, VALUE_DIM).to(tl.float32)
            d_beta += tl.sum(d_right * v, 1)
    strict = row[:, None] > row[None, :]
    if not OWN:
        d_pairs = tl.where(strict, d_pairs, 0.0)
    d_pairs = tl.where(row[:, None] >= row[None, :], d_pairs, 0.0)
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
        grad = _gated_tile(grad_ptr, place - offset, asked, grad_row * UNIT, value, VALUE_DIM).to(
            before.dtype
        )
        d_reading = _dot(grad, tl.trans(before), d_reading, PRECISION)
        written = _gated_tile(written_ptr, place, inside, written_row * UNIT, value, VALUE_DIM).to(
            before.dtype
        )
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
    tail = _tail_fading(
        gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, 64, DIM, GATES, SEGMENTS
    )
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
        whole = _whole_fading(
            gates_ptr, begin_ptr, start, n, gates_row * GATE_UNIT, column, DIM, GATES, SEGMENTS
        )
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


# --- end ---

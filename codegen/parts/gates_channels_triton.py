"""How the positions of a chunk weigh each other, with a gate for each channel: Triton, both ways."""

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
                    weights *= tl.where(
                        tl.load(begin_ptr + place, mask=place < n, other=-1) == place, 0.0, 1.0
                    )
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
def _add_pair_block(
    x_ptr,
    k_ptr,
    gates_ptr,
    begin_ptr,
    d_pairs_ptr,
    d_likeness_ptr,
    dx_ptr,
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
    x = _gated_tile(x_ptr, queries - offset, asked, q_row, column, DIM).to(tl.float32) * scale * head
    grad = tl.load(d_pairs_ptr + square, mask=behind[:, None], other=0.0).to(OPERAND)
    dx = _dot(grad, key.to(OPERAND), None, PRECISION)
    d_key = _dot(tl.trans(grad), x.to(OPERAND), None, PRECISION)
    read = x * dx
    _gated_add(dx_ptr, queries - offset, asked, DIM, column, dx * scale * head, DIM)
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
    _add_pair_block(
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
        _add_pair_block(
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
    # As they are read by places further on, each in the row after its own: sums of rows up to one are then of
    # the keys before it, and nothing is ever subtracted.
    keys = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    askers = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    dq = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    dk = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    d_asking = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    d_gates = tl.zeros((16, BLOCK_DIM), dtype=tl.float32)
    for i in range(16):
        gate = _gate_row(gates_ptr, begin_ptr, start + i, n, gates_row * GATE_UNIT, column, DIM, SEGMENTS)
        if not EXCLUSIVE:
            keys *= gate[None, :]
        earlier = (row > 0) & (row <= tl.where(start + i < n, i, 0))
        seen = (start + i >= offset) & (start + i < n)
        query = _gated_row(q_ptr, start + i - offset, seen, q_row * UNIT, column, DIM) * scale
        key = _gated_row(k_ptr, start + i, start + i < n, k_row * UNIT, column, DIM)
        grad = tl.load(d_pairs_ptr + _wide(start + i) * 64 + row - 1, mask=earlier, other=0.0)
        found = grad[:, None] * keys
        dq += tl.where((row == i)[:, None], tl.sum(found, 0)[None, :], 0.0)
        found *= query[None, :]
        if DELTA:
            grad = tl.load(d_likeness_ptr + _wide(start + i) * 64 + row - 1, mask=earlier, other=0.0)
            asked_for = grad[:, None] * keys
            d_asking += tl.where((row == i)[:, None], tl.sum(asked_for, 0)[None, :], 0.0)
            found += asked_for * key[None, :]
        passed = row < i if EXCLUSIVE else row <= i
        d_gates += tl.where(passed[:, None], tl.cumsum(found, 0), 0.0)
        if EXCLUSIVE:
            keys *= gate[None, :]
        keys = tl.where((row == i + 1)[:, None], key[None, :], keys)
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
    whole = _wide(sequence) * n * DIM
    _gated_add(d_gates_ptr + whole, place, inside, DIM, column, d_gates, DIM)
    own = tl.load(d_pairs_ptr + _wide(place) * 64 + row, mask=inside, other=0.0)[:, None]
    if BONUS:
        bonus = tl.load(
            bonus_ptr + _wide(batch) * bonus_batch + _wide(head) * DIM + column, mask=channels, other=0.0
        )
        sixteen = (_wide(sequence) * tiles + chunk) * 4 + part
        tl.store(d_bonus_ptr + sixteen * DIM + column, tl.sum(own * query * key, 0), mask=channels)
        own *= bonus.to(tl.float32)[None, :]
    dq = (dq + own * key) * scale
    dk += own * query
    if DELTA:
        dk += d_asking
    _gated_add(dq_ptr + _wide(sequence) * n_q * DIM, place - offset, asked, DIM, column, dq, DIM)
    _gated_add(dk_ptr + whole, place, inside, DIM, column, dk, DIM)


# --- end ---

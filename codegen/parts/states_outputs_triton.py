"""Linear attention through states, on the Triton path: the outputs of queries."""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def _jit(function): ...
def _dot(*args): ...
def _load_tile(*args): ...
def _store_tile(*args): ...


# --- begin ---


@_jit
def _linear_outputs_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    total_ptr,
    states_ptr,
    sums_ptr,
    begin_ptr,
    table_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    begin_batch,
    inner,
    outer,
    n_q,
    n,
    group,
    tiles,
    chunks,
    head_start,
    head_step,
    head_count,
    UNIT: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCKS: tl.constexpr,
    WIDTH: tl.constexpr,
    STATE: tl.constexpr,
    CHUNK: tl.constexpr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    CAUSAL: tl.constexpr,
    LEAST: tl.constexpr,
    BEHIND: tl.constexpr,
    NORMALIZED: tl.constexpr,
    SUMMED: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs and sums of weights of a tile of queries, for some columns of the values."""
    q_batch, q_head = tl.cast(q_batch, tl.int64) * UNIT, tl.cast(q_head, tl.int64) * UNIT
    q_row = q_row * UNIT
    k_batch, k_head = tl.cast(k_batch, tl.int64) * UNIT, tl.cast(k_head, tl.int64) * UNIT
    k_row = k_row * UNIT
    v_batch, v_head = tl.cast(v_batch, tl.int64) * UNIT, tl.cast(v_head, tl.int64) * UNIT
    v_row = v_row * UNIT
    program = tl.program_id(0)
    values: tl.constexpr = (VALUE_DIM + BLOCK_V - 1) // BLOCK_V
    value = program % values
    offset = n - n_q
    tile = offset // BLOCK_M + program // values % tiles
    i = (program // values // tiles).to(tl.int64)
    batch, head = i // head_count, i % head_count
    key_head = (head_start + head_step * head) // group
    k_base, v_base = k_ptr + batch * k_batch + key_head * k_head, v_ptr + batch * v_batch + key_head * v_head
    place = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (place >= offset) & (place < n)
    column = tl.arange(0, BLOCK_V)
    query = _load_tile(
        q_ptr + batch * q_batch + head * q_head, 0, place - offset, q_row, inside, False, DIM, BLOCK_DIM
    )
    base = _linear_base(query, inner, KIND, DIM, BLOCK_DIM)
    result = tl.zeros([BLOCK_M, BLOCK_V], dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)

    # What lies before the chunk.
    chunk = tile * BLOCK_M // CHUNK
    slot = i * chunks + chunk - BEHIND if CAUSAL else i
    if chunk >= BEHIND:
        for f in tl.range(0, BLOCKS):
            features = _linear_features(
                base, f, place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            state = _linear_state(states_ptr, slot, f, value, VALUE_DIM, BLOCK_V, BLOCK_F, STATE)
            result = _dot(features.to(TYPE), state.to(TYPE), result, PRECISION)
            if NORMALIZED:
                sums = _linear_total(states_ptr, slot, f, VALUE_DIM, BLOCK_F, BLOCKS, STATE)
                total += tl.sum(features * sums[None, :], 1)
        if CAUSAL and (GATED or SEGMENTED):
            weight = _linear_query_weights(
                sums_ptr, begin_ptr, i, batch, place, chunk, n, chunks, begin_batch,
                CHUNK, GATED, SEGMENTED, EXCLUSIVE,
            )  # fmt: skip
            result *= weight[:, None]
            total *= weight

    # The keys of the chunk itself, pair by pair.
    if CAUSAL:
        begin = tl.maximum(chunk - BEHIND, 0) * CHUNK
        end = tl.minimum(tile * BLOCK_M + BLOCK_M - LEAST, n)
        for start in tl.range(begin, end, BLOCK_N):
            key_place = start + tl.arange(0, BLOCK_N)
            some = key_place < n
            key = _load_tile(k_base, 0, key_place, k_row, some, False, DIM, BLOCK_DIM)
            key = _linear_base(key, inner, KIND, DIM, BLOCK_DIM)
            pairs, _ = _linear_pairs(
                base, key, place, key_place, table_ptr,
                KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
            )  # fmt: skip
            pairs = _linear_fade(
                pairs, sums_ptr, begin_ptr, i, batch, place, key_place, n, chunks, begin_batch,
                False, LEAST, CHUNK, GATED, SEGMENTED, EXCLUSIVE,
            )  # fmt: skip
            pointers = v_base + value * BLOCK_V + key_place.to(tl.int64)[:, None] * v_row + column[None, :]
            known = some[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
            result = _dot(
                pairs.to(TYPE), tl.load(pointers, mask=known, other=0.0).to(TYPE), result, PRECISION
            )
            if NORMALIZED:
                total += tl.sum(pairs, 1)
    rows = i * n_q + place - offset
    if NORMALIZED:
        # A sum of less than 2**-100 counts as zero: gradients divided by it would not be finite.
        total = tl.where(tl.abs(total) >= 7.888609052210118e-31, total, 0.0)
        result = result / tl.where(total == 0.0, 1.0, total)[:, None]
        result = tl.where((total == 0.0)[:, None], 0.0, result)
        if not SUMMED:
            total = tl.where(total > 0.0, tl.log(tl.where(total > 0.0, total, 1.0)), float("-inf"))
        if value == 0:
            tl.store(total_ptr + rows, total, mask=inside)
    else:
        result *= outer
    pointers = out_ptr + rows[:, None] * VALUE_DIM + value * BLOCK_V + column[None, :]
    known = inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
    tl.store(pointers, result.to(out_ptr.dtype.element_ty), mask=known)


@_jit
def _linear_rows_kernel(
    grad_ptr,
    out_ptr,
    total_ptr,
    total_grad_ptr,
    weight_ptr,
    pull_ptr,
    grad_batch,
    grad_head,
    grad_row,
    out_batch,
    out_head,
    out_row,
    outer,
    n_q,
    tiles,
    head_count,
    UNIT: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    NORMALIZED: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """What every query's gradient weighs, and the gradient of its sum of weights."""
    grad_batch, grad_head = tl.cast(grad_batch, tl.int64) * UNIT, tl.cast(grad_head, tl.int64) * UNIT
    grad_row = grad_row * UNIT
    out_batch, out_head = tl.cast(out_batch, tl.int64) * UNIT, tl.cast(out_head, tl.int64) * UNIT
    out_row = out_row * UNIT
    program = tl.program_id(0)
    i = (program // tiles).to(tl.int64)
    batch, head = i // head_count, i % head_count
    row = program % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = row < n_q
    weight = tl.full([BLOCK_M], 1.0, dtype=tl.float32) * outer
    pull = tl.zeros([BLOCK_M], dtype=tl.float32)
    if NORMALIZED:
        grad = _load_tile(
            grad_ptr + batch * grad_batch + head * grad_head, 0, row, grad_row, inside, False,
            VALUE_DIM, BLOCK_VALUE_DIM,
        )  # fmt: skip
        out = _load_tile(
            out_ptr + batch * out_batch + head * out_head, 0, row, out_row, inside, False,
            VALUE_DIM, BLOCK_VALUE_DIM,
        )  # fmt: skip
        delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
        total = tl.load(total_ptr + i * n_q + row, mask=inside, other=0.0)
        total_grad = tl.load(total_grad_ptr + i * n_q + row, mask=inside, other=0.0)
        if SUMMED:
            weight = tl.where(total == 0.0, 0.0, 1.0 / tl.where(total == 0.0, 1.0, total))
            pull = total_grad - delta * weight
        else:
            # A sum of less than 2**-100 has no share from states: such a row has scores alone.
            weight = tl.where(total < -69.3147181, 0.0, tl.exp(-total))
            pull = (total_grad - delta) * weight
    tl.store(weight_ptr + i * n_q + row, weight, mask=inside)
    tl.store(pull_ptr + i * n_q + row, pull, mask=inside)


# --- end ---

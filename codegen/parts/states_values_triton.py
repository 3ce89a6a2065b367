"""Linear attention through states, on the Triton path: the gradients of values."""

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
def _linear_value_gradient_kernel(
    q_ptr,
    k_ptr,
    grad_ptr,
    dv_ptr,
    d_states_ptr,
    sums_ptr,
    begin_ptr,
    weight_ptr,
    table_ptr,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    grad_batch,
    grad_head,
    grad_row,
    begin_batch,
    inner,
    n_q,
    n,
    group,
    tiles,
    chunks,
    key_heads,
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
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of some columns of a tile of values, from all query heads that share them."""
    q_batch, q_head = tl.cast(q_batch, tl.int64) * UNIT, tl.cast(q_head, tl.int64) * UNIT
    q_row = q_row * UNIT
    k_batch, k_head = tl.cast(k_batch, tl.int64) * UNIT, tl.cast(k_head, tl.int64) * UNIT
    k_row = k_row * UNIT
    grad_batch, grad_head = tl.cast(grad_batch, tl.int64) * UNIT, tl.cast(grad_head, tl.int64) * UNIT
    grad_row = grad_row * UNIT
    program = tl.program_id(0)
    values: tl.constexpr = (VALUE_DIM + BLOCK_V - 1) // BLOCK_V
    value = program % values
    offset = n - n_q
    tile = program // values % tiles
    key_head = program // values // tiles % key_heads
    batch = (program // values // tiles // key_heads).to(tl.int64)
    place = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = place < n
    column = tl.arange(0, BLOCK_V)
    key = _load_tile(
        k_ptr + batch * k_batch + key_head * k_head, 0, place, k_row, inside, False, DIM, BLOCK_DIM
    )
    base = _linear_base(key, inner, KIND, DIM, BLOCK_DIM)
    d_value = tl.zeros([BLOCK_N, BLOCK_V], dtype=tl.float32)
    chunk = tile * BLOCK_N // CHUNK
    first = (tl.maximum(key_head * group - head_start, 0) + head_step - 1) // head_step
    stop = tl.minimum(
        (tl.maximum((key_head + 1) * group - head_start, 0) + head_step - 1) // head_step, head_count
    )
    for head in tl.range(first, stop):
        i = batch * head_count + head
        q_base, grad_base = (
            q_ptr + batch * q_batch + head * q_head,
            grad_ptr + batch * grad_batch + head * grad_head,
        )
        slot = i * chunks + chunk + BEHIND if CAUSAL else i
        if chunk + BEHIND < chunks:
            faded = tl.where(inside, 1.0, 0.0)
            if CAUSAL and (GATED or SEGMENTED):
                faded = _linear_key_weights(
                    sums_ptr,
                    begin_ptr,
                    i,
                    batch,
                    place,
                    chunk,
                    n,
                    chunks,
                    begin_batch,
                    CHUNK,
                    GATED,
                    SEGMENTED,
                )
            for f in tl.range(0, BLOCKS):
                features = _linear_features(
                    base, f, place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
                )
                features *= faded[:, None]
                state = _linear_state(d_states_ptr, slot, f, value, VALUE_DIM, BLOCK_V, BLOCK_F, STATE)
                d_value = _dot(features.to(TYPE), state.to(TYPE), d_value, PRECISION)
        if CAUSAL:
            begin = tl.maximum(tile * BLOCK_N + LEAST, offset)
            end = tl.minimum((chunk + BEHIND + 1) * CHUNK, n)
            for start in tl.range(begin, end, BLOCK_M):
                query_place = start + tl.arange(0, BLOCK_M)
                some = query_place < end
                row = query_place - offset
                query = _load_tile(q_base, 0, row, q_row, some, False, DIM, BLOCK_DIM)
                query = _linear_base(query, inner, KIND, DIM, BLOCK_DIM)
                pairs, _ = _linear_pairs(
                    base, query, place, query_place, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                )  # fmt: skip
                pairs = _linear_fade(
                    pairs, sums_ptr, begin_ptr, i, batch, query_place, place, end, chunks, begin_batch,
                    True, LEAST, CHUNK, GATED, SEGMENTED, EXCLUSIVE,
                )  # fmt: skip
                pairs *= tl.load(weight_ptr + i * n_q + row, mask=some, other=0.0)[None, :]
                pointers = (
                    grad_base + value * BLOCK_V + row.to(tl.int64)[:, None] * grad_row + column[None, :]
                )
                known = some[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
                grad = tl.load(pointers, mask=known, other=0.0)
                d_value = _dot(pairs.to(TYPE), grad.to(TYPE), d_value, PRECISION)
    at = (batch * key_heads + key_head) * n
    pointers = dv_ptr + (at + place)[:, None] * VALUE_DIM + value * BLOCK_V + column[None, :]
    known = inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
    tl.store(pointers, d_value.to(dv_ptr.dtype.element_ty), mask=known)


# --- end ---

"""Linear attention through states, on the Triton path: the gradients of queries and keys."""

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
def _linear_query_gradient_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    dq_ptr,
    shares_ptr,
    states_ptr,
    sums_ptr,
    begin_ptr,
    weight_ptr,
    pull_ptr,
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
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a tile of queries.

    shares: each query's share in that of the gates before it through the state before its chunk.
    """
    q_batch, q_head = tl.cast(q_batch, tl.int64) * UNIT, tl.cast(q_head, tl.int64) * UNIT
    q_row = q_row * UNIT
    k_batch, k_head = tl.cast(k_batch, tl.int64) * UNIT, tl.cast(k_head, tl.int64) * UNIT
    k_row = k_row * UNIT
    v_batch, v_head = tl.cast(v_batch, tl.int64) * UNIT, tl.cast(v_head, tl.int64) * UNIT
    v_row = v_row * UNIT
    grad_batch, grad_head = tl.cast(grad_batch, tl.int64) * UNIT, tl.cast(grad_head, tl.int64) * UNIT
    grad_row = grad_row * UNIT
    program = tl.program_id(0)
    values: tl.constexpr = (VALUE_DIM + BLOCK_V - 1) // BLOCK_V
    offset = n - n_q
    tile = offset // BLOCK_M + program % tiles
    i = (program // tiles).to(tl.int64)
    batch, head = i // head_count, i % head_count
    key_head = (head_start + head_step * head) // group
    k_base, v_base = k_ptr + batch * k_batch + key_head * k_head, v_ptr + batch * v_batch + key_head * v_head
    grad_base = grad_ptr + batch * grad_batch + head * grad_head
    place = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    row = place - offset
    inside = (place >= offset) & (place < n)
    column = tl.arange(0, BLOCK_V)
    query = _load_tile(q_ptr + batch * q_batch + head * q_head, 0, row, q_row, inside, False, DIM, BLOCK_DIM)
    base = _linear_base(query, inner, KIND, DIM, BLOCK_DIM)
    weight = tl.load(weight_ptr + i * n_q + row, mask=inside, other=0.0)
    pull = tl.load(pull_ptr + i * n_q + row, mask=inside, other=0.0)
    d_base = tl.zeros([BLOCK_M, BLOCK_DIM], dtype=tl.float32)
    shares = tl.zeros([BLOCK_M], dtype=tl.float32)

    # Through the state before the chunk.
    chunk = tile * BLOCK_M // CHUNK
    slot = i * chunks + chunk - BEHIND if CAUSAL else i
    if chunk >= BEHIND:
        faded = tl.full([BLOCK_M], 1.0, dtype=tl.float32)
        if CAUSAL and (GATED or SEGMENTED):
            faded = _linear_query_weights(
                sums_ptr, begin_ptr, i, batch, place, chunk, n, chunks, begin_batch,
                CHUNK, GATED, SEGMENTED, EXCLUSIVE,
            )  # fmt: skip
        for f in tl.range(0, BLOCKS):
            pulled = tl.zeros([BLOCK_M, BLOCK_F], dtype=tl.float32)
            for value in tl.range(0, values):
                pointers = (
                    grad_base + value * BLOCK_V + row.to(tl.int64)[:, None] * grad_row + column[None, :]
                )
                known = inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
                grad = tl.load(pointers, mask=known, other=0.0)
                state = _linear_state(states_ptr, slot, f, value, VALUE_DIM, BLOCK_V, BLOCK_F, STATE)
                pulled = _dot(grad.to(TYPE), tl.trans(state.to(TYPE)), pulled, PRECISION)
            pulled *= weight[:, None]
            if NORMALIZED:
                sums = _linear_total(states_ptr, slot, f, VALUE_DIM, BLOCK_F, BLOCKS, STATE)
                pulled += pull[:, None] * sums[None, :]
            pulled *= faded[:, None]
            features = _linear_features(
                base, f, place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            if GATED:
                shares += tl.sum(pulled * features, 1)
            d_base += _linear_features_back(
                pulled, features, base, f, place, table_ptr,
                KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION,
            )  # fmt: skip

    # Through the keys of the chunk itself.
    if CAUSAL:
        begin = tl.maximum(chunk - BEHIND, 0) * CHUNK
        end = tl.minimum(tile * BLOCK_M + BLOCK_M - LEAST, n)
        for start in tl.range(begin, end, BLOCK_N):
            key_place = start + tl.arange(0, BLOCK_N)
            some = key_place < n
            d_pairs = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
            for value in tl.range(0, values):
                pointers = (
                    grad_base + value * BLOCK_V + row.to(tl.int64)[:, None] * grad_row + column[None, :]
                )
                known = (value * BLOCK_V + column < VALUE_DIM)[None, :]
                grad = tl.load(pointers, mask=inside[:, None] & known, other=0.0)
                pointers = (
                    v_base + value * BLOCK_V + key_place.to(tl.int64)[:, None] * v_row + column[None, :]
                )
                v = tl.load(pointers, mask=some[:, None] & known, other=0.0)
                d_pairs = _dot(grad, tl.trans(v), d_pairs, PRECISION)
            d_pairs = d_pairs * weight[:, None] + pull[:, None]
            d_pairs = _linear_fade(
                d_pairs, sums_ptr, begin_ptr, i, batch, place, key_place, n, chunks, begin_batch,
                False, LEAST, CHUNK, GATED, SEGMENTED, EXCLUSIVE,
            )  # fmt: skip
            key = _load_tile(k_base, 0, key_place, k_row, some, False, DIM, BLOCK_DIM)
            key = _linear_base(key, inner, KIND, DIM, BLOCK_DIM)
            slope = d_pairs
            if KIND == "taylor" or KIND == "cosine":
                _, slope = _linear_pairs(
                    base, key, place, key_place, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                )  # fmt: skip
            d_base = _linear_pairs_back(
                d_pairs, slope, base, key, place, key_place, d_base, table_ptr,
                KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
            )  # fmt: skip
    d_query = _linear_slope(d_base, query, inner, KIND)
    _store_tile(dq_ptr + i * n_q * DIM, 0, row, DIM, inside, d_query, DIM, BLOCK_DIM)
    if GATED:
        tl.store(shares_ptr + i * chunks * CHUNK + place, shares, mask=inside)


@_jit
def _linear_key_gradient_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    dk_ptr,
    shares_ptr,
    d_states_ptr,
    sums_ptr,
    begin_ptr,
    weight_ptr,
    pull_ptr,
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
    NORMALIZED: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a tile of keys from all query heads that share them.

    shares: each key's share in that of the gates behind it through the state behind its chunk.
    """
    q_batch, q_head = tl.cast(q_batch, tl.int64) * UNIT, tl.cast(q_head, tl.int64) * UNIT
    q_row = q_row * UNIT
    k_batch, k_head = tl.cast(k_batch, tl.int64) * UNIT, tl.cast(k_head, tl.int64) * UNIT
    k_row = k_row * UNIT
    v_batch, v_head = tl.cast(v_batch, tl.int64) * UNIT, tl.cast(v_head, tl.int64) * UNIT
    v_row = v_row * UNIT
    grad_batch, grad_head = tl.cast(grad_batch, tl.int64) * UNIT, tl.cast(grad_head, tl.int64) * UNIT
    grad_row = grad_row * UNIT
    program = tl.program_id(0)
    values: tl.constexpr = (VALUE_DIM + BLOCK_V - 1) // BLOCK_V
    offset = n - n_q
    tile = program % tiles
    key_head = program // tiles % key_heads
    batch = (program // tiles // key_heads).to(tl.int64)
    k_base, v_base = k_ptr + batch * k_batch + key_head * k_head, v_ptr + batch * v_batch + key_head * v_head
    place = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = place < n
    column = tl.arange(0, BLOCK_V)
    key = _load_tile(k_base, 0, place, k_row, inside, False, DIM, BLOCK_DIM)
    base = _linear_base(key, inner, KIND, DIM, BLOCK_DIM)
    d_base = tl.zeros([BLOCK_N, BLOCK_DIM], dtype=tl.float32)
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
        shares = tl.zeros([BLOCK_N], dtype=tl.float32)

        # Through the state behind the chunk.
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
                pulled = tl.zeros([BLOCK_N, BLOCK_F], dtype=tl.float32)
                for value in tl.range(0, values):
                    pointers = (
                        v_base + value * BLOCK_V + place.to(tl.int64)[:, None] * v_row + column[None, :]
                    )
                    known = inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
                    v = tl.load(pointers, mask=known, other=0.0)
                    state = _linear_state(d_states_ptr, slot, f, value, VALUE_DIM, BLOCK_V, BLOCK_F, STATE)
                    pulled = _dot(v.to(TYPE), tl.trans(state.to(TYPE)), pulled, PRECISION)
                if NORMALIZED:
                    sums = _linear_total(d_states_ptr, slot, f, VALUE_DIM, BLOCK_F, BLOCKS, STATE)
                    pulled += sums[None, :]
                pulled *= faded[:, None]
                features = _linear_features(
                    base, f, place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
                )
                if GATED:
                    shares += tl.sum(pulled * features, 1)
                d_base += _linear_features_back(
                    pulled, features, base, f, place, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION,
                )  # fmt: skip

        # Through the queries of the chunk itself.
        if CAUSAL:
            begin = tl.maximum(tile * BLOCK_N + LEAST, offset)
            end = tl.minimum((chunk + BEHIND + 1) * CHUNK, n)
            for start in tl.range(begin, end, BLOCK_M):
                query_place = start + tl.arange(0, BLOCK_M)
                some = query_place < end
                row = query_place - offset
                weight = tl.load(weight_ptr + i * n_q + row, mask=some, other=0.0)
                pull = tl.load(pull_ptr + i * n_q + row, mask=some, other=0.0)
                d_pairs = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
                for value in tl.range(0, values):
                    known = (value * BLOCK_V + column < VALUE_DIM)[None, :]
                    pointers = (
                        grad_base + value * BLOCK_V + row.to(tl.int64)[:, None] * grad_row + column[None, :]
                    )
                    grad = tl.load(pointers, mask=some[:, None] & known, other=0.0)
                    pointers = (
                        v_base + value * BLOCK_V + place.to(tl.int64)[:, None] * v_row + column[None, :]
                    )
                    v = tl.load(pointers, mask=inside[:, None] & known, other=0.0)
                    d_pairs = _dot(v, tl.trans(grad), d_pairs, PRECISION)
                d_pairs = d_pairs * weight[None, :] + pull[None, :]
                d_pairs = _linear_fade(
                    d_pairs, sums_ptr, begin_ptr, i, batch, query_place, place, end, chunks, begin_batch,
                    True, LEAST, CHUNK, GATED, SEGMENTED, EXCLUSIVE,
                )  # fmt: skip
                query = _load_tile(q_base, 0, row, q_row, some, False, DIM, BLOCK_DIM)
                query = _linear_base(query, inner, KIND, DIM, BLOCK_DIM)
                slope = d_pairs
                if KIND == "taylor" or KIND == "cosine":
                    _, slope = _linear_pairs(
                        base, query, place, query_place, table_ptr,
                        KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                    )  # fmt: skip
                d_base = _linear_pairs_back(
                    d_pairs, slope, base, query, place, query_place, d_base, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                )  # fmt: skip
        if GATED:
            tl.store(shares_ptr + i * chunks * CHUNK + place, shares, mask=inside)
    d_key = _linear_slope(d_base, key, inner, KIND)
    at = (batch * key_heads + key_head) * n * DIM
    _store_tile(dk_ptr + at, 0, place, DIM, inside, d_key, DIM, BLOCK_DIM)


# --- end ---

"""Linear attention through states, on the Triton path: chunks in parallel, states from chunk to chunk.

Every chunk sums up what its keys leave behind (`_linear_states_kernel`), one short pass over chunks makes of
that the states before each (`_linear_scan_kernel`), and those are read by the chunk's queries, which take the
keys of their own chunk pair by pair (`_linear_outputs_kernel`). Backwards, the same is done from the other
end. Sums and states are fp32; no two programs write to one place.
"""

from __future__ import annotations

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def _jit(function): ...
def _dot(*args): ...
def _load_tile(*args): ...
def _store_tile(*args): ...
def _map(x): ...
def _map_slope(x): ...
def _directions(*args): ...
def _rows_contiguous(x): ...
def _precision(dtype): ...
def _chunk_of(width): ...


# --- begin: kernels ---


@_jit
def _linear_base(x, inner, KIND: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """What features are made of, for a tile of vectors: coordinates mapped one by one; zeros behind them."""
    x = x.to(tl.float32)
    if KIND == "elementwise":
        base = _map(x)
    elif KIND == "cosine":
        base = tl.maximum(x, 0.0)
    else:
        base = x * inner
    if DIM != BLOCK_DIM:
        base = tl.where((tl.arange(0, BLOCK_DIM) < DIM)[None, :], base, 0.0)
    return base


@_jit
def _linear_slope(d_base, x, inner, KIND: tl.constexpr):
    """The gradient of vectors from that of what features are made of."""
    if KIND == "elementwise":
        found = d_base * _map_slope(x.to(tl.float32))
    elif KIND == "cosine":
        found = tl.where(x.to(tl.float32) > 0.0, d_base, 0.0)
    else:
        found = d_base * inner
    return found


@_jit
def _linear_angle(place, LENGTH: tl.constexpr):
    """Of positions; whole turns are left out, which would cost digits."""
    return (place % (4 * LENGTH)).to(tl.float32) * (1.5707963267948966 / LENGTH)


@_jit
def _linear_turn(f, place, LENGTH: tl.constexpr):
    angle = _linear_angle(place, LENGTH)
    return tl.where(f == 0, tl.cos(angle), tl.sin(angle))


@_jit
def _linear_directions(
    table_ptr, f, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK_F: tl.constexpr
):
    row, column = f * BLOCK_F + tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_DIM)
    inside = (row < WIDTH)[:, None] & (column < DIM)[None, :]
    return tl.load(table_ptr + row[:, None] * DIM + column[None, :], mask=inside, other=0.0)


@_jit
def _linear_features(
    base,
    f,
    place,
    table_ptr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_F: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The ``f``-th block of features of a tile of vectors, fp32."""
    if KIND == "elementwise":
        found = base
    elif KIND == "cosine":
        found = base * _linear_turn(f, place, LENGTH)[:, None]
    elif KIND == "taylor":
        column = tl.arange(0, BLOCK_DIM)[None, :]
        one = tl.sum(tl.where(column == f - 2, base, 0.0), 1) * 0.7071067811865476
        found = base * tl.where(f >= 2, one, 1.0)[:, None]
        found = tl.where(f == 0, tl.where(column == 0, 1.0, 0.0), found)
    else:
        rows = _linear_directions(table_ptr, f, DIM, BLOCK_DIM, WIDTH, BLOCK_F)
        exponent = _dot(base, tl.trans(rows), None, PRECISION) - (tl.sum(base * base, 1) * 0.5)[:, None]
        some = (f * BLOCK_F + tl.arange(0, BLOCK_F) < WIDTH)[None, :]
        found = tl.where(some, tl.exp(exponent) * (1.0 / tl.sqrt(WIDTH * 1.0)), 0.0)
    return found


@_jit
def _linear_features_back(
    d_features,
    features,
    base,
    f,
    place,
    table_ptr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_F: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What a block of features' gradient gives to that of what they are made of."""
    if KIND == "elementwise":
        found = d_features
    elif KIND == "cosine":
        found = d_features * _linear_turn(f, place, LENGTH)[:, None]
    elif KIND == "taylor":
        column = tl.arange(0, BLOCK_DIM)[None, :]
        one = tl.sum(tl.where(column == f - 2, base, 0.0), 1) * 0.7071067811865476
        found = d_features * tl.where(f >= 2, one, tl.where(f == 1, 1.0, 0.0))[:, None]
        other = tl.sum(d_features * base, 1) * 0.7071067811865476
        found += tl.where((column == f - 2) & (f >= 2), other[:, None], 0.0)
    else:
        pull = d_features * features
        rows = _linear_directions(table_ptr, f, DIM, BLOCK_DIM, WIDTH, BLOCK_F)
        found = _dot(pull, rows, None, PRECISION) - base * tl.sum(pull, 1)[:, None]
    return found


@_jit
def _linear_pairs(
    rows,
    columns,
    row_place,
    column_place,
    table_ptr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCKS: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Products of the features of two tiles of vectors, (rows, columns); and their slope by the vectors'
    own product, where there is such."""
    if KIND == "favor":
        found = tl.zeros([rows.shape[0], columns.shape[0]], dtype=tl.float32)
        for f in tl.range(0, BLOCKS):
            a = _linear_features(
                rows, f, row_place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            b = _linear_features(
                columns, f, column_place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            found = _dot(a.to(TYPE), tl.trans(b.to(TYPE)), found, PRECISION)
        slope = found
    else:
        found = _dot(rows.to(TYPE), tl.trans(columns.to(TYPE)), None, PRECISION)
        slope = found
        if KIND == "cosine":
            slope = tl.cos(
                _linear_angle(row_place, LENGTH)[:, None] - _linear_angle(column_place, LENGTH)[None, :]
            )
            found = found * slope
        elif KIND == "taylor":
            slope = 1.0 + found
            found = 1.0 + found + 0.5 * found * found
    return found, slope


@_jit
def _linear_pairs_back(
    d_pairs,
    slope,
    rows,
    columns,
    row_place,
    column_place,
    d_base,
    table_ptr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCKS: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds what the pairs' gradient, (rows, columns), gives to that of the rows."""
    if KIND == "favor":
        for f in tl.range(0, BLOCKS):
            a = _linear_features(
                rows, f, row_place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            b = _linear_features(
                columns, f, column_place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
            )
            pulled = _dot(d_pairs.to(TYPE), b.to(TYPE), None, PRECISION)
            d_base += _linear_features_back(
                pulled,
                a,
                rows,
                f,
                row_place,
                table_ptr,
                KIND,
                LENGTH,
                DIM,
                BLOCK_DIM,
                WIDTH,
                BLOCK_F,
                PRECISION,
            )
    else:
        if KIND != "elementwise":
            d_pairs = d_pairs * slope
        d_base = _dot(d_pairs.to(TYPE), columns.to(TYPE), d_base, PRECISION)
    return d_base


@_jit
def _linear_sums_kernel(
    gate_ptr,
    sums_ptr,
    gate_batch,
    gate_head,
    gate_row,
    n,
    chunks,
    head_count,
    CHUNK: tl.constexpr,
    STEADY: tl.constexpr,
):
    """Sums of gates from the beginning of each chunk. STEADY: a head has one gate for all steps."""
    program = tl.program_id(0)
    chunk, i = program % chunks, (program // chunks).to(tl.int64)
    place = chunk * CHUNK + tl.arange(0, CHUNK)
    base = gate_ptr + (i // head_count) * gate_batch + (i % head_count) * gate_head
    if STEADY:
        steps = tl.minimum(place, n - 1) - chunk * CHUNK + 1
        sums = tl.load(base).to(tl.float32) * steps.to(tl.float32)
    else:
        gates = tl.load(base + place.to(tl.int64) * gate_row, mask=place < n, other=0.0)
        sums = tl.cumsum(gates.to(tl.float32), 0)
    tl.store(sums_ptr + i * chunks * CHUNK + place, sums)


@_jit
def _linear_fades(sums_ptr, i, place, chunks, CHUNK: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Sums of gates from the beginning of a chunk to some positions, for queries up to where gates end."""
    within = place < chunks * CHUNK
    if EXCLUSIVE:
        within = within & (place % CHUNK > 0)
        place = place - 1
    return tl.load(sums_ptr + i * chunks * CHUNK + place, mask=within, other=0.0)


@_jit
def _linear_key_weights(
    sums_ptr,
    begin_ptr,
    i,
    batch,
    place,
    chunk,
    n,
    chunks,
    begin_batch,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
):
    """What keys of a chunk weigh behind it."""
    weight = tl.where(place < n, 1.0, 0.0)
    if GATED:
        last = tl.load(sums_ptr + i * chunks * CHUNK + chunk * CHUNK + CHUNK - 1)
        weight *= tl.exp(last - _linear_fades(sums_ptr, i, place, chunks, CHUNK, False))
    if SEGMENTED:
        end = tl.minimum(chunk * CHUNK + CHUNK, n) - 1
        weight = tl.where(place >= tl.load(begin_ptr + batch * begin_batch + end), weight, 0.0)
    return weight


@_jit
def _linear_query_weights(
    sums_ptr,
    begin_ptr,
    i,
    batch,
    place,
    chunk,
    n,
    chunks,
    begin_batch,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """What the state before a chunk weighs for its queries."""
    weight = tl.where(place < n, 1.0, 0.0)
    if GATED:
        weight *= tl.exp(_linear_fades(sums_ptr, i, place, chunks, CHUNK, EXCLUSIVE))
    if SEGMENTED:
        begins = tl.load(begin_ptr + batch * begin_batch + place, mask=place < n, other=0)
        weight = tl.where(begins < chunk * CHUNK, weight, 0.0)
    return weight


@_jit
def _linear_fade(
    pairs,
    sums_ptr,
    begin_ptr,
    i,
    batch,
    query_place,
    key_place,
    n,
    chunks,
    begin_batch,
    TURNED: tl.constexpr,
    LEAST: tl.constexpr,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """Pairs (queries, keys), or (keys, queries) if TURNED, times their decay; zeros where is no edge."""
    if TURNED:
        q, k = query_place[None, :], key_place[:, None]
    else:
        q, k = query_place[:, None], key_place[None, :]
    mask = (q - k >= LEAST) & (q < n)
    if SEGMENTED:
        begins = tl.load(begin_ptr + batch * begin_batch + query_place, mask=query_place < n, other=0)
        mask = mask & (k >= (begins[None, :] if TURNED else begins[:, None]))
    if GATED:
        at_query = _linear_fades(sums_ptr, i, query_place, chunks, CHUNK, EXCLUSIVE)
        at_key = _linear_fades(sums_ptr, i, key_place, chunks, CHUNK, False)
        if TURNED:  # noqa: SIM108 (a kernel: only one of the two is compiled)
            passed = at_query[None, :] - at_key[:, None]
        else:
            passed = at_query[:, None] - at_key[None, :]
        found = pairs * tl.exp(tl.where(mask, passed, float("-inf")))
    else:
        found = tl.where(mask, pairs, 0.0)
    return found


@_jit
def _linear_state(
    states_ptr,
    slot,
    f,
    value,
    VALUE_DIM: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_F: tl.constexpr,
    STATE: tl.constexpr,
):
    """A block of a state: some features by some values. ``slot`` counts states."""
    row, column = f * BLOCK_F + tl.arange(0, BLOCK_F), value * BLOCK_V + tl.arange(0, BLOCK_V)
    pointers = states_ptr + slot * STATE + row[:, None] * VALUE_DIM + column[None, :]
    return tl.load(pointers, mask=(column < VALUE_DIM)[None, :], other=0.0)


@_jit
def _linear_total(
    states_ptr,
    slot,
    f,
    VALUE_DIM: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCKS: tl.constexpr,
    STATE: tl.constexpr,
):
    """The sums of features behind the same block."""
    row = f * BLOCK_F + tl.arange(0, BLOCK_F)
    return tl.load(states_ptr + slot * STATE + BLOCKS * BLOCK_F * VALUE_DIM + row)


@_jit
def _linear_states_kernel(
    x_ptr,
    y_ptr,
    states_ptr,
    sums_ptr,
    begin_ptr,
    weight_ptr,
    pull_ptr,
    table_ptr,
    x_batch,
    x_head,
    x_row,
    y_batch,
    y_head,
    y_row,
    begin_batch,
    inner,
    n_q,
    n,
    group,
    chunks,
    head_start,
    head_step,
    head_count,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCKS: tl.constexpr,
    WIDTH: tl.constexpr,
    STATE: tl.constexpr,
    CHUNK: tl.constexpr,
    KIND: tl.constexpr,
    LENGTH: tl.constexpr,
    NORMALIZED: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    QUERIES: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What each chunk by itself adds: keys by values, or, backwards, QUERIES by gradients."""
    program = tl.program_id(0)
    values: tl.constexpr = (VALUE_DIM + BLOCK_V - 1) // BLOCK_V
    value, f = program % values, program // values % BLOCKS
    chunk = program // (values * BLOCKS) % chunks
    i = (program // (values * BLOCKS) // chunks).to(tl.int64)
    batch, head = i // head_count, i % head_count
    offset = n - n_q if QUERIES else 0
    own = head if QUERIES else (head_start + head_step * head) // group
    x_base, y_base = x_ptr + batch * x_batch + own * x_head, y_ptr + batch * y_batch + own * y_head
    y_base += value * BLOCK_V
    total = tl.zeros([BLOCK_F, BLOCK_V], dtype=tl.float32)
    sums = tl.zeros([BLOCK_F], dtype=tl.float32)
    column = tl.arange(0, BLOCK_V)
    for start in tl.range(chunk * CHUNK, tl.minimum(chunk * CHUNK + CHUNK, n), BLOCK_N):
        place = start + tl.arange(0, BLOCK_N)
        inside = (place >= offset) & (place < n)
        x = _load_tile(x_base, 0, place - offset, x_row, inside, False, DIM, BLOCK_DIM)
        base = _linear_base(x, inner, KIND, DIM, BLOCK_DIM)
        features = _linear_features(
            base, f, place, table_ptr, KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, PRECISION
        )
        pointers = y_base + (place - offset).to(tl.int64)[:, None] * y_row + column[None, :]
        y = tl.load(
            pointers, mask=inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :], other=0.0
        )
        if QUERIES:
            weight = _linear_query_weights(
                sums_ptr, begin_ptr, i, batch, place, chunk, n, chunks, begin_batch,
                CHUNK, GATED, SEGMENTED, EXCLUSIVE,
            )  # fmt: skip
            rows = i * n_q + place - offset
            pull = weight * tl.load(pull_ptr + rows, mask=inside, other=0.0)
            weight *= tl.load(weight_ptr + rows, mask=inside, other=0.0)
        else:
            weight = _linear_key_weights(
                sums_ptr, begin_ptr, i, batch, place, chunk, n, chunks, begin_batch, CHUNK, GATED, SEGMENTED
            )
            pull = weight
        weighed = tl.where(inside[:, None], features * weight[:, None], 0.0)
        total = _dot(tl.trans(weighed.to(TYPE)), y.to(TYPE), total, PRECISION)
        if NORMALIZED:
            sums += tl.sum(tl.where(inside[:, None], features * pull[:, None], 0.0), 0)
    row = f * BLOCK_F + tl.arange(0, BLOCK_F)
    slot = states_ptr + (i * chunks + chunk) * STATE
    column = value * BLOCK_V + tl.arange(0, BLOCK_V)
    pointers = slot + row[:, None] * VALUE_DIM + column[None, :]
    tl.store(pointers, total, mask=(column < VALUE_DIM)[None, :])
    if NORMALIZED:  # noqa: SIM102 (known when compiling, the next is not)
        if value == 0:
            tl.store(slot + BLOCKS * BLOCK_F * VALUE_DIM + row, sums)


@_jit
def _linear_kept(
    sums_ptr,
    begin_ptr,
    i,
    batch,
    chunk,
    n,
    chunks,
    begin_batch,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
):
    """What the state before a chunk weighs behind it."""
    kept = 1.0
    inside = chunk < chunks
    if GATED:
        kept = tl.exp(
            tl.load(sums_ptr + i * chunks * CHUNK + chunk * CHUNK + CHUNK - 1, mask=inside, other=0.0)
        )
    if SEGMENTED:
        end = tl.minimum(chunk * CHUNK + CHUNK, n) - 1
        begins = tl.load(begin_ptr + batch * begin_batch + end, mask=inside, other=0)
        kept = tl.where(begins < chunk * CHUNK, kept, 0.0)
    return kept


@_jit
def _linear_scan_kernel(
    states_ptr,
    state_ptr,
    final_ptr,
    sums_ptr,
    begin_ptr,
    begin_batch,
    n,
    chunks,
    head_count,
    STATE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """Makes of what each chunk adds the states before each, in place, and the state behind the last."""
    program = tl.program_id(0)
    blocks: tl.constexpr = (STATE + BLOCK - 1) // BLOCK
    i = (program // blocks).to(tl.int64)
    batch = i // head_count
    place = program % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = place < STATE
    state = tl.zeros([BLOCK], dtype=tl.float32)
    if GIVEN:
        state = tl.load(state_ptr + i * STATE + place, mask=inside, other=0.0)
    pointers = states_ptr + i * chunks * STATE + place
    for chunk in tl.range(0, chunks):
        added = tl.load(pointers, mask=inside, other=0.0)
        tl.store(pointers, state, mask=inside)
        kept = _linear_kept(
            sums_ptr, begin_ptr, i, batch, chunk, n, chunks, begin_batch, CHUNK, GATED, SEGMENTED
        )
        state = state * kept + added
        pointers += STATE
    tl.store(final_ptr + i * STATE + place, state, mask=inside)


@_jit
def _linear_scan_back_kernel(
    states_ptr,
    d_states_ptr,
    final_ptr,
    d_final_ptr,
    d_state_ptr,
    through_ptr,
    sums_ptr,
    begin_ptr,
    begin_batch,
    n,
    chunks,
    head_count,
    STATE: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    GIVEN: tl.constexpr,
):
    """Makes of what each chunk's queries add the gradients of the states behind each chunk, in place.

    through: the product of every such state and its gradient, which all gates before it have a share in.
    """
    program = tl.program_id(0)
    blocks: tl.constexpr = (STATE + BLOCK - 1) // BLOCK
    block = program % blocks
    i = (program // blocks).to(tl.int64)
    batch = i // head_count
    place = block * BLOCK + tl.arange(0, BLOCK)
    inside = place < STATE
    state = tl.zeros([BLOCK], dtype=tl.float32)
    if GIVEN:
        state = tl.load(d_final_ptr + i * STATE + place, mask=inside, other=0.0)
    for step in tl.range(0, chunks):
        chunk = chunks - 1 - step
        slot = i * chunks + chunk
        added = tl.load(d_states_ptr + slot * STATE + place, mask=inside, other=0.0)
        tl.store(d_states_ptr + slot * STATE + place, state, mask=inside)
        if GATED:
            before = tl.where(step > 0, STATE, 0)
            behind = tl.load(states_ptr + (slot + 1) * STATE + place, mask=place < before, other=0.0)
            behind += tl.load(final_ptr + i * STATE + place, mask=inside & (place >= before), other=0.0)
            tl.store(through_ptr + slot * blocks + block, tl.sum(behind * state, 0))
        kept = _linear_kept(
            sums_ptr, begin_ptr, i, batch, chunk, n, chunks, begin_batch, CHUNK, GATED, SEGMENTED
        )
        state = state * kept + added
    tl.store(d_state_ptr + i * STATE + place, state, mask=inside)


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
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs and sums of weights of a tile of queries, for some columns of the values."""
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
            result = _dot(features.to(STATE_TYPE), state.to(STATE_TYPE), result, PRECISION)
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
            result = _dot(pairs.to(TYPE), tl.load(pointers, mask=known, other=0.0), result, PRECISION)
            if NORMALIZED:
                total += tl.sum(pairs, 1)
    rows = i * n_q + place - offset
    if NORMALIZED:
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
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    NORMALIZED: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """What every query's gradient weighs, and the gradient of its sum of weights."""
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
            weight = tl.where(total == float("-inf"), 0.0, tl.exp(-total))
            pull = (total_grad - delta) * weight
    tl.store(weight_ptr + i * n_q + row, weight, mask=inside)
    tl.store(pull_ptr + i * n_q + row, pull, mask=inside)


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
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a tile of queries, and their share in that of the gates before them."""
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
                pulled = _dot(grad.to(STATE_TYPE), tl.trans(state.to(STATE_TYPE)), pulled, PRECISION)
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
            if GATED or (KIND == "taylor" or KIND == "cosine"):
                pairs, slope = _linear_pairs(
                    base, key, place, key_place, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                )  # fmt: skip
                if GATED:
                    shares += tl.sum(d_pairs * pairs, 1)
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
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a tile of keys from all query heads that share them, and their share in the gates'."""
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
                    pulled = _dot(v.to(STATE_TYPE), tl.trans(state.to(STATE_TYPE)), pulled, PRECISION)
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
                if GATED or (KIND == "taylor" or KIND == "cosine"):
                    pairs, slope = _linear_pairs(
                        base, query, place, query_place, table_ptr,
                        KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                    )  # fmt: skip
                    if GATED:
                        shares += tl.sum(d_pairs * pairs, 1)
                d_base = _linear_pairs_back(
                    d_pairs, slope, base, query, place, query_place, d_base, table_ptr,
                    KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
                )  # fmt: skip
        if GATED:
            tl.store(shares_ptr + i * chunks * CHUNK + place, shares, mask=inside)
    d_key = _linear_slope(d_base, key, inner, KIND)
    at = (batch * key_heads + key_head) * n * DIM
    _store_tile(dk_ptr + at, 0, place, DIM, inside, d_key, DIM, BLOCK_DIM)


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
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of some columns of a tile of values, from all query heads that share them."""
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
                d_value = _dot(features.to(STATE_TYPE), state.to(STATE_TYPE), d_value, PRECISION)
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
                d_value = _dot(pairs.to(TYPE), tl.load(pointers, mask=known, other=0.0), d_value, PRECISION)
    at = (batch * key_heads + key_head) * n
    pointers = dv_ptr + (at + place)[:, None] * VALUE_DIM + value * BLOCK_V + column[None, :]
    known = inside[:, None] & (value * BLOCK_V + column < VALUE_DIM)[None, :]
    tl.store(pointers, d_value.to(dv_ptr.dtype.element_ty), mask=known)


@_jit
def _linear_gates_kernel(
    query_shares_ptr,
    key_shares_ptr,
    through_ptr,
    d_gate_ptr,
    n,
    chunks,
    head_count,
    CHUNK: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_COUNT: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """Gradients of gates, from the shares of the chunk's queries and keys and of what goes through it."""
    program = tl.program_id(0)
    chunk, i = program % chunks, (program // chunks).to(tl.int64)
    place = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = place < n
    queries = tl.load(query_shares_ptr + i * chunks * CHUNK + place, mask=inside, other=0.0)
    keys = tl.load(key_shares_ptr + i * chunks * CHUNK + place, mask=inside, other=0.0)
    some = tl.arange(0, BLOCK_COUNT)
    through = tl.sum(
        tl.load(through_ptr + (i * chunks + chunk) * COUNT + some, mask=some < COUNT, other=0.0), 0
    )
    found = through + tl.cumsum(queries - keys, 0, reverse=True)
    if EXCLUSIVE:
        found -= queries
    tl.store(d_gate_ptr + i * n + place, found, mask=inside)


# --- begin: launch ---


class _LinearLauncher:
    """What all launches for one body and progression of heads share: shapes, tables, tile sizes."""

    def __init__(self, body, moved, inner, outer):
        self.body, self.moved, self.inner, self.outer = body, moved, inner, outer
        self.q, self.k, self.v = map(_rows_contiguous, (moved.q, moved.k, moved.v))
        self.batch, self.count, self.n_q, self.dim = self.q.shape
        self.n, self.value_dim, self.device = moved.n, self.v.shape[3], self.q.device
        self.width = body.width(self.dim)
        self.gated, self.segmented = moved.gates is not None, moved.begin is not None
        self.chunk = _chunk_of(self.width)
        self.chunks = -(-self.n // self.chunk)
        self.behind = -(-(body.near - 1) // self.chunk) if body.near > 1 else 0
        crowded = self.gated or body.kind != "elementwise"
        self.sizes = _linear_sizes(body.kind, self.dim, self.value_dim, self.q.element_size(), crowded)
        block = self.sizes["BLOCK_F"]
        self.blocks = {"taylor": self.dim + 2, "cosine": 2}.get(body.kind, -(-self.width // block))
        self.state = self.blocks * block * (self.value_dim + body.normalized)
        self.table = self.q if body.kind != "favor" else _directions(
            self.width, body.seed, self.dim, torch.empty(0, dtype=torch.float32, device=self.device)
        )  # fmt: skip
        start, step, _ = moved.numbers
        kinds = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
        self.numbers = {
            "head_start": start,
            "head_step": step,
            "head_count": self.count,
            "group": moved.group,
        }
        self.begin = {"begin_ptr": moved.begin if self.segmented else self.q}
        self.begin["begin_batch"] = (
            moved.begin.stride(0) * (moved.begin.shape[0] > 1) if self.segmented else 0
        )
        self.features = {
            "DIM": self.dim,
            "BLOCK_DIM": self.sizes["BLOCK_DIM"],
            "WIDTH": self.width,
            "BLOCK_F": block,
            "BLOCKS": self.blocks,
            "KIND": body.kind,
            "LENGTH": body.length,
            "TYPE": kinds[self.q.dtype],
            "PRECISION": _precision(self.q.dtype),
        }
        self.values = {"VALUE_DIM": self.value_dim, "BLOCK_V": self.sizes["BLOCK_V"], "STATE": self.state}
        # Gradients of states may be too small for half precision.
        half = self.q.dtype == torch.float16
        self.state_type = {"STATE_TYPE": tl.float32 if half else kinds[self.q.dtype]}
        self.rules = {
            "CHUNK": self.chunk,
            "GATED": self.gated,
            "SEGMENTED": self.segmented,
            "EXCLUSIVE": body.exclusive,
        }
        self.relation = {
            "CAUSAL": body.causal,
            "LEAST": max(body.near, int(body.exclusive)),
            "BEHIND": self.behind,
        }
        self.lengths = {"n_q": self.n_q, "n": self.n, "chunks": self.chunks}
        self.sums = self._sums()

    def empty(self, *shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=self.device)

    def tiles(self, size, queries):
        """How many tiles of positions there are, from the first that holds a query."""
        return -(-self.n // size) - ((self.n - self.n_q) // size if queries else 0)

    def launch(self, name, programs, warps=4, stages=2, **given):
        if programs:
            self.body.kernels[name][(programs,)](num_warps=warps, num_stages=stages, **given)

    def strides(self, **tensors):
        """Pointers and strides of (batch, heads, length, dim) tensors."""
        given = {}
        for name, x in tensors.items():
            given[f"{name}_ptr"] = x
            for axis, stride in zip(("batch", "head", "row"), x.stride(), strict=False):
                given[f"{name}_{axis}"] = stride
        return given

    def _sums(self):
        gates = self.moved.gates
        if gates is None:
            return self.q
        sums = self.empty(self.batch * self.count, self.chunks * self.chunk)
        batch, row, head = (s * (size > 1) for s, size in zip(gates.stride(), gates.shape, strict=True))
        self.launch(
            "sums",
            self.batch * self.count * self.chunks,
            gate_ptr=gates,
            sums_ptr=sums,
            gate_batch=batch,
            gate_head=head,
            gate_row=row,
            n=self.n,
            chunks=self.chunks,
            head_count=self.count,
            CHUNK=self.chunk,
            STEADY=gates.shape[1] == 1,
        )
        return sums

    def added(self, x, y, queries, weight, pull):
        """What each chunk adds to states, (batch * heads, chunks, state)."""
        states = self.empty(self.batch * self.count, self.chunks, self.state)
        values = -(-self.value_dim // self.sizes["BLOCK_V"])
        self.launch(
            "states",
            self.batch * self.count * self.chunks * values * self.blocks,
            warps=self.sizes["warps"],
            **self.strides(x=x, y=y),
            states_ptr=states,
            sums_ptr=self.sums,
            weight_ptr=weight,
            pull_ptr=pull,
            table_ptr=self.table,
            inner=self.inner,
            BLOCK_N=self.sizes["BLOCK_N"],
            NORMALIZED=self.body.normalized,
            QUERIES=queries,
            **(self.lengths | self.begin | self.numbers | self.features | self.values | self.rules),
        )
        return states

    def scanned(self):
        """The states before each chunk, and behind the last."""
        states = self.added(self.k, self.v, False, self.q, self.q)
        final = self.empty(self.batch * self.count, self.state)
        given = self.moved.state
        self.launch(
            "scan",
            self.batch * self.count * -(-self.state // 512),
            states_ptr=states,
            state_ptr=final if given is None else self.inward(given),
            final_ptr=final,
            sums_ptr=self.sums,
            n=self.n,
            chunks=self.chunks,
            head_count=self.count,
            STATE=self.state,
            BLOCK=512,
            CHUNK=self.chunk,
            GATED=self.gated,
            SEGMENTED=self.segmented,
            GIVEN=given is not None,
            **self.begin,
        )
        return states, final

    def inward(self, state):
        """A state as callers have it, (batch, heads, features, columns), in the blocks that kernels read."""
        block, dim = self.sizes["BLOCK_F"], self.dim
        x = state.float()
        if self.body.kind == "taylor":
            ones = torch.nn.functional.pad(state[:, :, :1].float(), (0, 0, 0, dim - 1))
            x = torch.cat([ones, state[:, :, 1:].float()], 2)
        if self.body.kind in ("taylor", "cosine"):
            x = torch.nn.functional.pad(x.unflatten(2, (-1, dim)), (0, 0, 0, block - dim)).flatten(2, 3)
        else:
            x = torch.nn.functional.pad(x, (0, 0, 0, self.blocks * block - self.width))
        parts = [x[..., : self.value_dim].flatten(2)]
        if self.body.normalized:
            parts.append(x[..., self.value_dim])
        return torch.cat(parts, 2).flatten(0, 1).contiguous()

    def outward(self, state):
        """The inverse of ``inward``."""
        rows, dim = self.blocks * self.sizes["BLOCK_F"], self.dim
        x = state[:, : rows * self.value_dim].unflatten(1, (rows, self.value_dim))
        if self.body.normalized:
            x = torch.cat([x, state[:, rows * self.value_dim :, None]], 2)
        if self.body.kind in ("taylor", "cosine"):
            x = x.unflatten(1, (self.blocks, -1))[:, :, :dim].flatten(1, 2)
        if self.body.kind == "taylor":
            x = torch.cat([x[:, :1], x[:, dim:]], 1)
        return x[:, : self.width].unflatten(0, (self.batch, self.count)).contiguous()

    def pairs(self):
        """What all kernels over pairs of tiles take."""
        tables = {"sums_ptr": self.sums, "table_ptr": self.table, "inner": self.inner}
        sizes = {"BLOCK_M": self.sizes["BLOCK_M"], "BLOCK_N": self.sizes["BLOCK_N"]}
        given = tables | sizes | self.lengths | self.begin | self.numbers | self.features | self.values
        return given | self.rules | self.relation | self.state_type


def _linear_sizes(kind, dim, value_dim, itemsize, crowded):
    """Tiles of queries and keys, of features and of values: a fixed table, nothing is tuned at run time.

    crowded: gates or features take registers, too; backward, the other side's tiles are then half as long.
    """
    block_dim = max(16, triton.next_power_of_2(dim))
    wide = block_dim > 128 or itemsize == 4
    block_v = min(max(16, triton.next_power_of_2(value_dim)), 32 if wide else 64)
    rows = 32 if wide else 64
    return {
        "BLOCK_DIM": block_dim,
        "BLOCK_F": block_dim if kind != "favor" else 32 if wide else 64,
        "BLOCK_V": block_v,
        "BLOCK_M": rows,
        "BLOCK_N": rows,
        "OTHER": 32 if crowded or block_dim > 64 else rows,
        "warps": 8 if block_dim > 64 else 4,
    }


def _linear_forward_triton(body, moved, inner, outer):
    call = _LinearLauncher(body, moved, inner, outer)
    states, final = call.scanned()
    out = call.empty(*call.q.shape[:3], call.value_dim, dtype=call.q.dtype if body.summed else torch.float32)
    total = torch.zeros(call.q.shape[:3], dtype=torch.float32, device=call.device)
    tiles = call.tiles(call.sizes["BLOCK_M"], True) if call.n_q else 0
    call.launch(
        "outputs",
        call.batch * call.count * tiles * -(-call.value_dim // call.sizes["BLOCK_V"]),
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v),
        out_ptr=out,
        total_ptr=total,
        states_ptr=states if body.causal else final,
        outer=outer,
        tiles=tiles,
        NORMALIZED=body.normalized,
        SUMMED=body.summed,
        **call.pairs(),
    )
    return out, total, call.outward(final)


def _linear_backward_triton(body, moved, grad, lse_grad, out, lse, state_grad, inner, outer):
    call = _LinearLauncher(body, moved, inner, outer)
    grad, out = _rows_contiguous(grad), _rows_contiguous(out)
    states, final = call.scanned()
    rows = (call.batch, call.count, call.n_q)
    weight, pull = call.empty(*rows), call.empty(*rows)
    tiles = -(-call.n_q // 32)
    call.launch(
        "rows",
        call.batch * call.count * tiles,
        **call.strides(grad=grad, out=out),
        total_ptr=lse.contiguous(),
        total_grad_ptr=lse_grad.contiguous(),
        weight_ptr=weight,
        pull_ptr=pull,
        outer=outer,
        n_q=call.n_q,
        tiles=tiles,
        head_count=call.count,
        VALUE_DIM=call.value_dim,
        BLOCK_VALUE_DIM=max(16, triton.next_power_of_2(call.value_dim)),
        BLOCK_M=32,
        NORMALIZED=body.normalized,
        SUMMED=body.summed,
    )
    d_states = call.added(call.q, grad, True, weight, pull)
    d_state = call.empty(call.batch * call.count, call.state)
    blocks = -(-call.state // 512)
    through = call.empty(call.batch * call.count, call.chunks, blocks)
    call.launch(
        "scan_back",
        call.batch * call.count * blocks,
        states_ptr=states,
        d_states_ptr=d_states,
        final_ptr=final,
        d_final_ptr=final if state_grad is None else call.inward(state_grad),
        d_state_ptr=d_state,
        through_ptr=through,
        sums_ptr=call.sums,
        n=call.n,
        chunks=call.chunks,
        head_count=call.count,
        STATE=call.state,
        BLOCK=512,
        CHUNK=call.chunk,
        GATED=call.gated,
        SEGMENTED=call.segmented,
        GIVEN=state_grad is not None,
        **call.begin,
    )
    dq = call.empty(*call.q.shape)
    dk, dv = (call.empty(*x.shape, dtype=torch.float32) for x in (call.k, call.v))
    shares = torch.zeros(
        (2, call.batch * call.count, call.chunks * call.chunk if call.gated else 0),
        dtype=torch.float32,
        device=call.device,
    )
    given = call.pairs() | {"weight_ptr": weight}
    other = call.sizes["OTHER"]
    tiles = call.tiles(call.sizes["BLOCK_M"], True) if call.n_q else 0
    call.launch(
        "query_gradient",
        call.batch * call.count * tiles,
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v, grad=grad),
        dq_ptr=dq,
        shares_ptr=shares[0],
        states_ptr=states if body.causal else final,
        pull_ptr=pull,
        tiles=tiles,
        NORMALIZED=body.normalized,
        **(given | {"BLOCK_N": other}),
    )
    tiles, key_heads = call.tiles(call.sizes["BLOCK_N"], False), call.k.shape[1]
    given |= {"d_states_ptr": d_states if body.causal else d_state, "tiles": tiles, "key_heads": key_heads}
    call.launch(
        "key_gradient",
        call.batch * key_heads * tiles,
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v, grad=grad),
        dk_ptr=dk,
        shares_ptr=shares[1],
        pull_ptr=pull,
        NORMALIZED=body.normalized,
        **(given | {"BLOCK_M": other}),
    )
    call.launch(
        "value_gradient",
        call.batch * key_heads * tiles * -(-call.value_dim // call.sizes["BLOCK_V"]),
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, grad=grad),
        dv_ptr=dv,
        **(given | {"BLOCK_M": other}),
    )
    d_gates = None
    if call.gated:
        d_gates = call.empty(call.batch, call.count, call.n)
        call.launch(
            "gates",
            call.batch * call.count * call.chunks,
            query_shares_ptr=shares[0],
            key_shares_ptr=shares[1],
            through_ptr=through,
            d_gate_ptr=d_gates,
            n=call.n,
            chunks=call.chunks,
            head_count=call.count,
            CHUNK=call.chunk,
            COUNT=blocks,
            BLOCK_COUNT=triton.next_power_of_2(blocks),
            EXCLUSIVE=body.exclusive,
        )
        d_gates = d_gates.transpose(1, 2)
    return dq, dk, dv, d_gates, call.outward(d_state)


# --- end ---

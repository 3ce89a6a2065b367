"""Linear attention through states, on the Triton path: chunks in parallel, states from chunk to chunk.

Every chunk sums up what its keys leave behind (`_linear_states_kernel`), one short pass over chunks makes of
that the states before each (`_linear_scan_kernel`), and those are read by the chunk's queries, which take the
keys of their own chunk pair by pair (`_linear_outputs_kernel`). Backwards, the same is done from the other
end. Sums and states are fp32; no two programs write to one place.
"""

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
    """Sums of gates from the beginning of each chunk. STEADY: a head has one gate for all steps.

    Each is stored as two fp32 numbers, what fp32 rounds it to and what that leaves: differences of sums are
    taken, in which strong gates before a key must leave nothing.
    """
    program = tl.program_id(0)
    chunk, i = program % chunks, (program // chunks).to(tl.int64)
    place = chunk * CHUNK + tl.arange(0, CHUNK)
    base = gate_ptr + (i // head_count) * gate_batch + (i % head_count) * gate_head
    if STEADY:
        steps = tl.minimum(place, n - 1) - chunk * CHUNK + 1
        sums = tl.load(base).to(tl.float64) * steps.to(tl.float64)
    else:
        gates = tl.load(base + place.to(tl.int64) * gate_row, mask=place < n, other=0.0)
        sums = tl.cumsum(gates.to(tl.float64), 0)
    high = sums.to(tl.float32)
    pointers = sums_ptr + i * chunks * CHUNK * 2 + place
    tl.store(pointers, high)
    tl.store(pointers + chunks * CHUNK, (sums - high.to(tl.float64)).to(tl.float32))


@_jit
def _linear_fades(sums_ptr, i, place, chunks, CHUNK: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Sums of gates from the beginning of a chunk to some positions, for queries up to where gates end.

    Both of their parts, see ``_linear_sums_kernel``.
    """
    within = place < chunks * CHUNK
    if EXCLUSIVE:
        within = within & (place % CHUNK > 0)
        place = place - 1
    pointers = sums_ptr + i * chunks * CHUNK * 2 + place
    high = tl.load(pointers, mask=within, other=0.0)
    return high, tl.load(pointers + chunks * CHUNK, mask=within, other=0.0)


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
        last, last_low = _linear_fades(sums_ptr, i, chunk * CHUNK + CHUNK - 1, chunks, CHUNK, False)
        high, low = _linear_fades(sums_ptr, i, place, chunks, CHUNK, False)
        weight *= tl.exp((last - high) + (last_low - low))
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
        high, _ = _linear_fades(sums_ptr, i, place, chunks, CHUNK, EXCLUSIVE)
        weight *= tl.exp(high)
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
        high_q, low_q = _linear_fades(sums_ptr, i, query_place, chunks, CHUNK, EXCLUSIVE)
        high_k, low_k = _linear_fades(sums_ptr, i, key_place, chunks, CHUNK, False)
        if TURNED:  # either way in the order that takes the fewest registers
            passed = (high_q[None, :] - high_k[:, None]) + (low_q[None, :] - low_k[:, None])
        else:
            passed = high_q[:, None] - high_k[None, :] - low_k[None, :] + low_q[:, None]
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
    UNIT: tl.constexpr,
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
    x_batch, x_head = tl.cast(x_batch, tl.int64) * UNIT, tl.cast(x_head, tl.int64) * UNIT
    x_row = x_row * UNIT
    y_batch, y_head = tl.cast(y_batch, tl.int64) * UNIT, tl.cast(y_head, tl.int64) * UNIT
    y_row = y_row * UNIT
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
        whole, _ = _linear_fades(sums_ptr, i, chunk * CHUNK + CHUNK - 1, chunks, CHUNK, False)
        kept = tl.exp(whole)
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

    through: of what goes through each chunk the product with its gradient, which all its gates share.
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
        kept = _linear_kept(
            sums_ptr, begin_ptr, i, batch, chunk, n, chunks, begin_batch, CHUNK, GATED, SEGMENTED
        )
        state *= kept
        if GATED:
            before = tl.load(states_ptr + slot * STATE + place, mask=inside, other=0.0)
            tl.store(through_ptr + slot * blocks + block, tl.sum(before * state, 0))
        state += added
    tl.store(d_state_ptr + i * STATE + place, state, mask=inside)


# --- end ---

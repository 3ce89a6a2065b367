"""Linear attention through states, on the Triton path: the gradients of gates.

They are sums of what lies on either side of each gate, from which nothing is subtracted: what is added before
a gate and taken off again behind it would leave its rounding.
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


# --- begin ---


@_jit
def _linear_across_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    across_ptr,
    columns_ptr,
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
    GATED: tl.constexpr,
    SEGMENTED: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What a tile of queries and the keys of its chunk, pair by pair, give to the gradients of gates.

    across: for every gate of the tile the sum over the pairs that it lies between. columns: for every key
    before the tile the sum over the tile's queries.
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
    gate = place - 1 if EXCLUSIVE else place  # the last that lies before each query
    row = place - offset
    inside = (place >= offset) & (place < n)
    column = tl.arange(0, BLOCK_V)
    query = _load_tile(q_ptr + batch * q_batch + head * q_head, 0, row, q_row, inside, False, DIM, BLOCK_DIM)
    base = _linear_base(query, inner, KIND, DIM, BLOCK_DIM)
    weight = tl.load(weight_ptr + i * n_q + row, mask=inside, other=0.0)
    pull = tl.load(pull_ptr + i * n_q + row, mask=inside, other=0.0)
    across = tl.zeros([BLOCK_M], dtype=tl.float32)
    chunk = tile * BLOCK_M // CHUNK
    later = tile % (CHUNK // BLOCK_M) - 1  # of the chunk's tiles but for the first
    end = tl.minimum(tile * BLOCK_M + BLOCK_M - 1, n)
    for start in tl.range(chunk * CHUNK, end, BLOCK_N):
        key_place = start + tl.arange(0, BLOCK_N)
        some = key_place < n
        products = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        for value in tl.range(0, values):
            pointers = grad_base + value * BLOCK_V + row.to(tl.int64)[:, None] * grad_row + column[None, :]
            known = (value * BLOCK_V + column < VALUE_DIM)[None, :]
            grad = tl.load(pointers, mask=inside[:, None] & known, other=0.0)
            pointers = v_base + value * BLOCK_V + key_place.to(tl.int64)[:, None] * v_row + column[None, :]
            v = tl.load(pointers, mask=some[:, None] & known, other=0.0)
            products = _dot(grad, tl.trans(v), products, PRECISION)
        products = products * weight[:, None] + pull[:, None]
        products = _linear_fade(
            products, sums_ptr, begin_ptr, i, batch, place, key_place, n, chunks, begin_batch,
            False, LEAST, CHUNK, GATED, SEGMENTED, EXCLUSIVE,
        )  # fmt: skip
        key = _load_tile(k_base, 0, key_place, k_row, some, False, DIM, BLOCK_DIM)
        key = _linear_base(key, inner, KIND, DIM, BLOCK_DIM)
        pairs, _ = _linear_pairs(
            base, key, place, key_place, table_ptr,
            KIND, LENGTH, DIM, BLOCK_DIM, WIDTH, BLOCK_F, BLOCKS, TYPE, PRECISION,
        )  # fmt: skip
        products *= pairs
        below = tl.cumsum(products, 0, reverse=True)
        across += tl.sum(tl.where(gate[:, None] > key_place[None, :], below, 0.0), 1)
        if CHUNK > BLOCK_M:
            slot = (i * chunks + chunk) * (CHUNK // BLOCK_M - 1) + later
            pointers = columns_ptr + slot * CHUNK + key_place % CHUNK
            tl.store(pointers, tl.sum(products, 0), mask=key_place < tile * BLOCK_M)
    known = (gate >= tile * BLOCK_M) & (gate < n)
    tl.store(across_ptr + i * chunks * CHUNK + gate, across, mask=known)


@_jit
def _linear_gates_kernel(
    query_shares_ptr,
    key_shares_ptr,
    across_ptr,
    columns_ptr,
    through_ptr,
    d_gate_ptr,
    n,
    chunks,
    head_count,
    CHUNK: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_COUNT: tl.constexpr,
    TILE: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
):
    """Gradients of gates.

    Added up is what goes through the whole chunk; what its keys before a gate leave behind it; what its
    queries behind a gate read from the state; and its own pairs, some of them by tiles of queries.
    """
    program = tl.program_id(0)
    chunk, i = program % chunks, (program // chunks).to(tl.int64)
    row = tl.arange(0, CHUNK)
    place = chunk * CHUNK + row
    inside = place < n
    base = i * chunks * CHUNK + place
    some = tl.arange(0, BLOCK_COUNT)
    through = tl.sum(
        tl.load(through_ptr + (i * chunks + chunk) * COUNT + some, mask=some < COUNT, other=0.0), 0
    )
    keys = tl.load(key_shares_ptr + base - 1, mask=(row > 0) & inside, other=0.0)
    ahead = 1 if EXCLUSIVE else 0
    known = (row + ahead < CHUNK) & (place + ahead < n)
    queries = tl.load(query_shares_ptr + base + ahead, mask=known, other=0.0)
    found = through + tl.cumsum(keys, 0) + tl.cumsum(queries, 0, reverse=True)
    found += tl.load(across_ptr + base, mask=inside, other=0.0)
    for tile in tl.range(1, CHUNK // TILE):
        slot = (i * chunks + chunk) * (CHUNK // TILE - 1) + tile - 1
        before = (row > 0) & (row < tile * TILE)
        columns = tl.load(columns_ptr + slot * CHUNK + row - 1, mask=before, other=0.0)
        found += tl.where(before, tl.cumsum(columns, 0), 0.0)
    tl.store(d_gate_ptr + i * n + place, found, mask=inside)


# --- end ---

"""The three kernels of a pass as text with holes: what is loaded, done with a pair of tiles, and stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One of the three kernels; ``swept``, ``step`` and ``alone`` have holes for the tile at hand.

    In ``step`` and ``alone``, ``map`` makes features of what is swept, ``weigh`` makes of the ``scores``,
    which are scaled by ``factor``, what softmax takes the exponentials of; ``slope`` leads their gradients
    back to the scores.

    load: what is read once a tile.
    begin, resume: the sums to start from, in a first pass and in one that goes on with what another found.
    sunk: those of a first pass where sinks were stored as log-sum-exps; empty where there is no difference.
    plain: the step where scores are scaled products and no more; empty where there is no difference.
    alone: what is read and done where a row has one position of the other side, in ``{inside}`` rows.
    finish: what is made of the sums at the end.
    store, add: how that is written, in either; empty where there is no difference. ``{sums}``: rows' sums.
    found, keep: the results' names, and how they are kept where other programs sweep for the same tile, too.
    """

    name: str
    side: str
    pointers: tuple[str, ...]
    strided: tuple[str, ...]
    load: str
    begin: str
    resume: str
    sunk: str
    swept: str
    step: str
    plain: str
    alone: str
    finish: str
    store: str
    add: str
    found: tuple[str, ...]
    keep: str


FORWARD = Kind(
    "forward",
    "query",
    ("q", "k", "v", "out", "lse"),
    ("q", "k", "v", "out"),
    """\
query = _load_tile(q_base, origin, row, q_row, inside, False, DIM, BLOCK_DIM)
""",
    """\
total = tl.zeros([BLOCK_M, BLOCK_VALUE_DIM], dtype=tl.float32)
row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
""",
    """\
# Goes on where the pass before stopped.
row_max, row_sum = _load_sums(lse_ptr + head_rows, head_rows, q - offset, inside)
total = _load_tile(out_base, origin, row, out_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
total *= row_sum[:, None]
""",
    """\
# The sink is there before any edge, with a weight and without a value.
total = tl.zeros([BLOCK_M, BLOCK_VALUE_DIM], dtype=tl.float32)
row_max, row_sum = _load_sums(lse_ptr + head_rows, head_rows, q - offset, inside)
""",
    """\
key = _load_tile(k_base, {place}, k_row, {inside}, {even}, DIM, BLOCK_DIM)
value = _load_tile(v_base, {place}, v_row, {inside}, {even}, VALUE_DIM, BLOCK_VALUE_DIM)
""",
    """\
{map}scores = _tile_scores(query, key, {factor}, PRECISION)
{weigh}total, row_max, row_sum = _attend(
    {scores}, value, {mask}, total, row_max, row_sum, {masked}, PRECISION
)
""",
    """{map}products = _dot(query, tl.trans(key), None, PRECISION)
total, row_max, row_sum = _attend_products(
    products, factor, value, {mask}, total, row_max, row_sum, {masked}, PRECISION
)
""",
    """\
key = _load_tile(k_base, 0, k.to(tl.int64), k_row, {inside}, False, DIM, BLOCK_DIM)
value = _load_tile(v_base, 0, k.to(tl.int64), v_row, {inside}, False, VALUE_DIM, BLOCK_VALUE_DIM)
{map}scores = _scores_alone(query, key, {factor})
{weigh}total, row_max, row_sum = _attend_alone({scores}, value, {inside}, total, row_max, row_sum)
""",
    """\
some = row_sum > 0.0
result = total / tl.where(some, row_sum, 1.0)[:, None]
logs = _log_sums(row_max, row_sum)
""",
    """\
_store_tile(out_base, origin, row, out_row, stored, result, VALUE_DIM, BLOCK_VALUE_DIM)
{sums}
""",
    "",
    ("out", "lse"),
    """\
_store_share(shares_out_ptr, cell, stored, result, BLOCK_M, BLOCK_VALUE_DIM)
_store_share_sums(shares_lse_ptr, cell, stored, row_max, logs, BLOCK_M)
""",
)

QUERY_GRADIENT = Kind(
    "query_gradient",
    "query",
    ("q", "k", "v", "grad", "out", "dq", "lse", "lse_grad", "delta"),
    ("q", "k", "v", "grad", "out", "dq"),
    """\
query = _load_tile(q_base, origin, row, q_row, inside, False, DIM, BLOCK_DIM)
grad = _load_tile(grad_base, origin, row, grad_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
out = _load_tile(out_base, origin, row, out_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
lse = _from_natural(tl.load(lse_ptr + head_rows + (q - offset), mask=inside, other=0.0))
delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
delta -= tl.load(lse_grad_ptr + head_rows + (q - offset), mask=inside, other=0.0)
tl.store(delta_ptr + head_rows + (q - offset), delta, mask=stored)
""",
    """\
d_query = tl.zeros([BLOCK_M, BLOCK_DIM], dtype=tl.float32)
""",
    """\
d_query = tl.zeros([BLOCK_M, BLOCK_DIM], dtype=tl.float32)
""",
    "",
    FORWARD.swept,
    """\
{map}scores = _tile_scores(query, key, {factor}, PRECISION)
{weigh}d_scores = _score_gradient({scores}, grad, value, {mask}, lse, delta, {masked}, PRECISION)
{slope}d_query = _dot(d_scores.to(key.dtype), key, d_query, PRECISION)
""",
    "",
    """\
key = _load_tile(k_base, 0, k.to(tl.int64), k_row, {inside}, False, DIM, BLOCK_DIM)
value = _load_tile(v_base, 0, k.to(tl.int64), v_row, {inside}, False, VALUE_DIM, BLOCK_VALUE_DIM)
{map}scores = _scores_alone(query, key, {factor})
{weigh}_, d_scores = _gradient_alone({scores}, grad, value, {inside}, lse, delta)
{slope}d_query += d_scores[:, None] * key.to(tl.float32)
""",
    "",
    """\
_store_tile(dq_base, origin, row, dq_row, stored, d_query * scale, DIM, BLOCK_DIM)
""",
    """\
d_query = d_query * scale + _load_tile(dq_base, origin, row, dq_row, inside, False, DIM, BLOCK_DIM)
_store_tile(dq_base, origin, row, dq_row, stored, d_query, DIM, BLOCK_DIM)
""",
    ("dq",),
    """\
_store_share(shares_dq_ptr, cell, stored, d_query * scale, BLOCK_M, BLOCK_DIM)
""",
)

KEY_GRADIENT = Kind(
    "key_gradient",
    "key",
    ("q", "k", "v", "grad", "dk", "dv", "lse", "delta"),
    ("q", "k", "v", "grad", "dk", "dv"),
    """\
key = _load_tile(k_base, origin, row, k_row, inside, False, DIM, BLOCK_DIM)
value = _load_tile(v_base, origin, row, v_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
""",
    """\
d_key = tl.zeros([BLOCK_N, BLOCK_DIM], dtype=tl.float32)
d_value = tl.zeros([BLOCK_N, BLOCK_VALUE_DIM], dtype=tl.float32)
""",
    "",
    "",
    """\
query = _load_tile(q_base, {place}, q_row, {inside}, {even}, DIM, BLOCK_DIM)
grad = _load_tile(grad_base, {place}, grad_row, {inside}, {even}, VALUE_DIM, BLOCK_VALUE_DIM)
lse = _from_natural(_load_row(lse_ptr + head_rows, {place}, {inside}, {even}))
delta = _load_row(delta_ptr + head_rows, {place}, {inside}, {even})
""",
    """\
{map}scores = _tile_scores(key, query, {factor}, PRECISION)
{weigh}d_value, d_scores = _add_value_gradient(
    {scores}, grad, value, {mask}, lse, delta, d_value, {masked}, PRECISION
)
{slope}d_key = _dot(d_scores.to(query.dtype), query, d_key, PRECISION)
""",
    "",
    """\
at = (q - offset).to(tl.int64)
query = _load_tile(q_base, 0, at, q_row, {inside}, False, DIM, BLOCK_DIM)
grad = _load_tile(grad_base, 0, at, grad_row, {inside}, False, VALUE_DIM, BLOCK_VALUE_DIM)
lse = _from_natural(_load_row(lse_ptr + head_rows, 0, q - offset, {inside}, False))
delta = _load_row(delta_ptr + head_rows, 0, q - offset, {inside}, False)
{map}scores = _scores_alone(query, key, {factor})
{weigh}weights, d_scores = _gradient_alone({scores}, grad, value, {inside}, lse, delta)
d_value += weights[:, None] * grad.to(tl.float32)
{slope}d_key += d_scores[:, None] * query.to(tl.float32)
""",
    "",
    """\
if ADD:
    d_value += _load_tile(dv_base, origin, row, dv_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
_store_tile(dv_base, origin, row, dv_row, inside, d_value, VALUE_DIM, BLOCK_VALUE_DIM)
d_key = d_key * scale
if ADD:
    d_key += _load_tile(dk_base, origin, row, dk_row, inside, False, DIM, BLOCK_DIM)
_store_tile(dk_base, origin, row, dk_row, inside, d_key, DIM, BLOCK_DIM)
""",
    "",
    ("dk", "dv"),
    """\
_store_share(shares_dv_ptr, cell, inside, d_value, BLOCK_N, BLOCK_VALUE_DIM)
_store_share(shares_dk_ptr, cell, inside, d_key * scale, BLOCK_N, BLOCK_DIM)
""",
)

KINDS = {"query": (FORWARD, QUERY_GRADIENT), "key": (KEY_GRADIENT,)}

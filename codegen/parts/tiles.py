"""Triton building blocks: what is done with one pair of tiles, whatever the pattern."""

from __future__ import annotations

import os

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # the torch path needs no Triton
    triton = None


def _exp(x): ...


# --- begin ---


_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Reading the kernels' source takes Triton a while, which a machine that cannot run them need not wait for.
_COMPILES = triton is not None and bool(
    torch.version.cuda or torch.version.hip or _INTERPRETED or os.environ.get("ATTNC_BACKEND") == "triton"
)


def _jit(function):
    """``triton.jit`` where kernels can run; lengths and strides never cause a recompilation."""
    if not _COMPILES:
        return function
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    free = {"n", "n_q", "heads", "group", "tiles", "head_start", "head_step", "head_count", "abreast"}
    free |= {"split", "shares"}
    # --- only: pairs ---
    free |= {"low", "length", "first", "rows"}
    # --- only: end ---
    # --- only: states ---
    free |= {"chunks", "inner", "outer", "key_heads", "x_group", "written_group"}
    # --- only: end ---
    steady = [name for name in names if name in free or name.endswith(("_batch", "_head", "_row"))]
    return triton.jit(function, do_not_specialize=steady)


@_jit
def _floor_div(a, b):
    """Division that rounds down, for a positive ``b``; Triton's own truncates."""
    return tl.where(a % b < 0, a // b - 1, a // b)


@_jit
def _floor_mod(a, b):
    """Remainder in ``0..b-1``, for a positive ``b``."""
    return (a % b + b) % b


# Triton's interpreter multiplies the bits of a bfloat16 as if they were integers.
_WIDEN = triton and tl.constexpr(_INTERPRETED)


@_jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    """``a @ b + total`` in fp32."""
    if _WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    return tl.dot(a, b, total, input_precision=PRECISION)


@_jit
def _entry(table, place, size):
    """Entries of a table; under a mask a place may lie outside, and what is read there is never used."""
    return tl.load(table + place, mask=(place >= 0) & (place < size), other=0)


@_jit
def _bound(table, place, size):
    """The same for bounds on positions: cut off far beyond them, so that nothing made of them wraps."""
    return tl.minimum(tl.maximum(_entry(table, place, size), -(1 << 40)), 1 << 40)


@_jit
def _parts(begin, end, full_begin, full_end, BLOCK: tl.constexpr):
    """Cuts a sweep over ``[begin, end)``: masked tiles, unmasked ones in ``[full_begin, full_end)``, masked.

    Gives the number of leading masked tiles, where the unmasked tiles start and stop, and the number of
    trailing masked tiles.
    """
    start = tl.minimum(tl.maximum(full_begin, begin), tl.maximum(end, begin))
    leading = (start - begin + BLOCK - 1) // BLOCK
    middle = begin + leading * BLOCK
    stop = middle + tl.maximum((tl.minimum(full_end, end) - middle) // BLOCK, 0) * BLOCK
    trailing = (tl.maximum(end - stop, 0) + BLOCK - 1) // BLOCK
    return leading, middle, stop, trailing


@_jit
def _load_tile(
    base, start, row, stride, inside, EVEN: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """Rows ``start + row`` of a (length, dim) matrix as a (rows, BLOCK_DIM) tile, padded with zeros.

    EVEN: all rows are inside. The addresses are computed for every tile anew: offsets kept from one tile to
    the next would take registers from the products.
    """
    column = tl.arange(0, BLOCK_DIM)
    pointers = base + tl.cast(start + row, tl.int64)[:, None] * stride + column[None, :]
    if EVEN and DIM == BLOCK_DIM:
        tile = tl.load(pointers)
    elif EVEN:
        tile = tl.load(pointers, mask=(column < DIM)[None, :], other=0.0)
    elif DIM == BLOCK_DIM:
        tile = tl.load(pointers, mask=inside[:, None], other=0.0)
    else:
        tile = tl.load(pointers, mask=inside[:, None] & (column < DIM)[None, :], other=0.0)
    return tile


@_jit
def _load_row(base, start, row, inside, EVEN: tl.constexpr):
    """Entries ``start + row`` of a vector, zero where they are not inside. EVEN: all are inside."""
    pointers = base + tl.cast(start, tl.int64) + row
    return tl.load(pointers) if EVEN else tl.load(pointers, mask=inside, other=0.0)


# --- only: features ---
@_jit
def _as_operand(vectors):
    """A tile of vectors as what features are multiplied in: fp32 in place of fp16.

    Divided by a sum of small features, or of large ones, a gradient may leave the range of fp16, although
    what it is multiplied with takes it back there. Products of fp32 in tf32 have the digits of fp16.
    """
    return vectors.to(tl.float32) if vectors.dtype == tl.float16 else vectors


# --- only: plain ---
@_jit
def _from_natural(x):
    """Natural logarithms in the units of scores."""
    return x * 1.4426950408889634


@_jit
def _log_sums(row_max, row_sum):
    """Rows' log-sum-exps to the base of 2, in fp64; minus infinity where no edge was met.

    Whoever stores them rounds them once: an error here is one that all weights of a row have in common.
    """
    some = row_sum > 0.0
    logs = tl.log2(tl.where(some, row_sum, 1.0)).to(tl.float64)
    return tl.where(some, row_max.to(tl.float64) + logs, float("-inf"))


@_jit
def _load_sums(lse, start, row, inside):
    """Rows' largest scores and sums of weights, as a pass before left them: one at the log-sum-exp.

    lse: from the entry ``start`` on.
    """
    row_max = _from_natural(tl.load(lse + row, mask=inside, other=float("-inf")))
    return row_max, tl.where(row_max == float("-inf"), 0.0, 1.0)


@_jit
def _store_sums(lse, start, row, inside, row_max, logs):
    """Stores rows' natural log-sum-exps."""
    tl.store(lse + row, logs * 0.6931471805599453, mask=inside)


# --- only: weights ---
@_jit
def _from_natural(x):
    """Natural logarithms in the units of scores."""
    return x


@_jit
def _load_sums(lse, start, row, inside):
    """Rows' largest scores and sums of weights, as a pass before left them, or a sink.

    lse: from the entry ``start`` on, of which each row has two.
    """
    row_max = tl.load(lse + start + 2 * row, mask=inside, other=float("-inf"))
    logs = tl.load(lse + start + 2 * row + 1, mask=inside, other=0.0)
    return row_max, tl.where(row_max == float("-inf"), 0.0, tl.exp(logs))


@_jit
def _log_sums(row_max, row_sum):
    """Logarithms of rows' sums of weights beside the largest score.

    Added to a score of a million, they would be left with no digit that tells one from another.
    """
    return tl.log(tl.where(row_sum != 0.0, row_sum, 1.0))


@_jit
def _store_sums(lse, start, row, inside, row_max, logs):
    """Stores rows' largest scores, and the logarithms of their sums of weights beside those."""
    tl.store(lse + start + 2 * row, row_max, mask=inside)
    tl.store(lse + start + 2 * row + 1, logs, mask=inside)


# --- only: end ---
@_jit
def _store_tile(base, start, row, stride, inside, value, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Stores what is inside of a (rows, BLOCK_DIM) tile to the rows ``start + row``, in their dtype."""
    column = tl.arange(0, BLOCK_DIM)
    pointers = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride + column[None, :]
    tl.store(pointers, value.to(base.dtype.element_ty), mask=inside[:, None] & (column < DIM)[None, :])


@_jit
def _tile_scores(rows, columns, scale, PRECISION: tl.constexpr):
    """Scaled products of a tile of vectors with another, (rows, columns)."""
    return _dot(rows, tl.trans(columns), None, PRECISION) * scale


# --- only: plain ---
@_jit
def _positive_factor(query, scale, factor):
    """Queries and a factor above zero that give the same scores: the largest has the largest product."""
    query = tl.where(scale < 0.0, (-query.to(tl.float32)).to(query.dtype), query)
    none = tl.abs(factor) < 1.2e-38  # not more than nothing, as some devices count
    return tl.where(none, 0.0, query).to(query.dtype), tl.where(none, 1.0, tl.abs(factor))


@_jit
def _attend_products(
    products, factor, value, mask, total, row_max, row_sum, MASKED: tl.constexpr, PRECISION: tl.constexpr
):
    """One step of the online softmax (Milakov and Gimelshein 2018), by powers of the units of scores.

    Scores are products times a factor above zero: the largest is sought before, so that scaling and
    subtracting are one instruction. A row that has met no edge yet has ``row_max`` minus infinity.
    """
    if MASKED:
        products = tl.where(mask, products, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(products, 1) * factor)
    shift = tl.where(new_max == float("-inf"), 0.0, new_max) if MASKED else new_max
    weights = _exp(products * factor - shift[:, None])
    fade = _exp(row_max - shift)
    row_sum = row_sum * fade + tl.sum(weights, 1)
    total = _dot(weights.to(value.dtype), value, total * fade[:, None], PRECISION)
    return total, new_max, row_sum


# --- only: weights ---
@_jit
def _attend(scores, value, mask, total, row_max, row_sum, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """One step of the online softmax (Milakov and Gimelshein 2018), by powers of the units of scores.

    A row that has met no edge yet has ``row_max`` minus infinity.
    """
    if MASKED:
        scores = tl.where(mask, scores, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(scores, 1))
    shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # scores may all be minus infinity
    weights = _exp(scores - shift[:, None])
    fade = _exp(row_max - shift)
    row_sum = row_sum * fade + tl.sum(weights, 1)
    total = _dot(weights.to(value.dtype), value, total * fade[:, None], PRECISION)
    return total, new_max, row_sum


# --- only: end ---
@_jit
def _score_gradient(scores, grad, value, mask, lse, delta, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """The gradient of what softmax takes exponentials of, (queries, keys); ``scores`` as in ``_attend``."""
    weights = _exp(scores - lse[:, None])
    if MASKED:
        weights = tl.where(mask, weights, 0.0)
    # The product starts from -delta, which saves the registers that would hold it meanwhile.
    start = tl.zeros(weights.shape, dtype=tl.float32) - delta[:, None]
    return weights * _dot(grad, tl.trans(value), start, PRECISION)


@_jit
def _add_value_gradient(
    scores, grad, value, mask, lse, delta, d_value, MASKED: tl.constexpr, PRECISION: tl.constexpr
):
    """Adds what one tile of queries gives to the values' gradients, and gives ``_score_gradient`` of it.

    Tiles are (keys, queries).
    """
    weights = _exp(scores - lse[None, :])
    if MASKED:
        weights = tl.where(mask, weights, 0.0)
    d_value = _dot(weights.to(grad.dtype), grad, d_value, PRECISION)
    return d_value, weights * (_dot(value, tl.trans(grad), None, PRECISION) - delta[None, :])


@_jit
def _scores_alone(query, key, scale):
    """Scaled products of vectors with one other each, (rows,)."""
    return tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale


@_jit
def _attend_alone(scores, value, inside, total, row_max, row_sum):
    """One step of the online softmax where each query has one key of its own; tiles are (queries, dim)."""
    scores = tl.where(inside, scores, float("-inf"))
    new_max = tl.maximum(row_max, scores)
    shift = tl.where(new_max == float("-inf"), 0.0, new_max)
    weights = _exp(scores - shift)
    fade = _exp(row_max - shift)
    total = total * fade[:, None] + weights[:, None] * value.to(tl.float32)
    return total, new_max, row_sum * fade + weights


@_jit
def _gradient_alone(scores, grad, value, inside, lse, delta):
    """The weight of each row's one edge, and ``_score_gradient`` of it."""
    weight = tl.where(inside, _exp(scores - lse), 0.0)
    return weight, weight * (tl.sum(grad.to(tl.float32) * value.to(tl.float32), 1) - delta)


@_jit
def _diagonal_sums(values, SECOND: tl.constexpr):
    """What a square tile, (queries, keys), adds to the sums over distances: one for each query less a key.

    Keys come in two tiles side by side. In the second one the first row's distances begin in its first column
    and go back from there into the first tile, from the last column on; and so on, a column further each row.
    """
    BLOCK: tl.constexpr = values.shape[0]
    row, distance = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    turned = tl.gather(values, (row - distance + BLOCK) % BLOCK, 1)
    kept = row >= distance if SECOND else row < distance
    return tl.sum(tl.where(kept, turned, 0.0), 0)


@_jit
def _tanh(x):
    """The hyperbolic tangent, as exact as fp32; below 0.625 by a polynomial in the square of x."""
    square = x * x
    series = -0.33332282 + square * (0.13307084 + square * (-0.05189236 + square * 0.01511169))
    low = x + x * (square * series)
    faded = tl.exp(-2.0 * tl.abs(x))
    high = (1.0 - faded) / (1.0 + faded)
    return tl.where(tl.abs(x) < 0.625, low, tl.where(x < 0.0, -high, high))


@_jit
def _softplus(x):
    """``log(1 + exp(x))``, without overflow; where that is small, it keeps all its digits."""
    small = tl.exp(-tl.abs(x))
    total = 1.0 + small
    # The rounding of `total` is in both factors and cancels: Goldberg, "Floating-Point Arithmetic", 1991.
    return tl.maximum(x, 0.0) + tl.where(total == 1.0, small, tl.log(total) * (small / (total - 1.0)))


@_jit
def _elu(x):
    """``x`` where that is positive, ``exp(x) - 1`` elsewhere; small arguments keep all their digits."""
    low = tl.minimum(x, 0.0)
    series = 0.49999726 + low * (0.16660427 + low * (0.04121699 + low * 0.00703056))
    series = low + low * (low * series)
    return tl.where(x > 0.0, x, tl.where(low > -0.4, series, tl.exp(low) - 1.0))


@_jit
def _is_picked(picks, row, column, rows, COUNT: tl.constexpr):
    """Whether ``column`` is among the ``COUNT`` picks of ``row``; a row that has fewer is filled with -1."""
    found = (row < 0) & (column < 0)
    inside = (row >= 0) & (row < rows)
    for i in range(COUNT):
        found = found | (tl.load(picks + row * COUNT + i, mask=inside, other=-1) == column)
    return found


# --- end ---

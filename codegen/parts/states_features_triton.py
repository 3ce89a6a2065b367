"""Linear attention on the Triton path: features of vectors, and what pairs of them weigh."""

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
def _map(*args): ...
def _map_slope(*args): ...


# --- begin ---


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
def _linear_cosine(steps, LENGTH: tl.constexpr):
    """The cosine of a quarter turn for every ``LENGTH`` steps.

    Turns are folded while they are whole numbers, so that none of their digits is lost and a short series is
    exact; the library's cosine, which takes any number, would keep some of it in memory.
    """
    steps = tl.abs(steps) % (4 * LENGTH)
    steps = tl.minimum(steps, 4 * LENGTH - steps)
    turned = tl.minimum(steps, 2 * LENGTH - steps)  # up to a quarter turn
    small = tl.minimum(turned, LENGTH - turned).to(tl.float32) * (1.5707963267948966 / LENGTH)
    x = small * small
    cosine = 1.0 + x * (
        -0.5 + x * (4.1666667e-2 + x * (-1.3888889e-3 + x * (2.4801587e-5 - x * 2.7557319e-7)))
    )
    sine = small * (1.0 + x * (-0.16666667 + x * (8.3333333e-3 + x * (-1.9841270e-4 + x * 2.7557319e-6))))
    found = tl.where(2 * turned <= LENGTH, cosine, sine)
    return tl.where(steps > LENGTH, -found, found)


@_jit
def _linear_turn(f, place, LENGTH: tl.constexpr):
    """The cosine of positions, or their sine, which is the cosine a quarter turn before."""
    return _linear_cosine(place - tl.where(f == 0, 0, LENGTH), LENGTH)


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
            slope = _linear_cosine(row_place[:, None] - column_place[None, :], LENGTH)
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


# --- end ---

"""The random draws of ``random(count, seed, past)``: pure functions of (seed, head, row, draw).

Nothing is stored and nothing is drawn in sequence, so forward, backward, decoding and every device agree.
The definition below uses non-negative 64-bit integers, ``+ ^ * & >> %`` and comparisons alone, and no
intermediate reaches 2**63: signed 64-bit arithmetic of any library gives the same numbers.

The hash, on 32 bits, with every value kept below 2**32::

    mix(x)  = x ^= x >> 15;  x = x * 0x2C1B3C6D & M;  x ^= x >> 12;  x = x * 0x297A2D39 & M;  x ^= x >> 15
    hash(seed, head, row, draw) = mix(mix(mix(mix(seed & M ^ 0x9E3779B9) ^ head & M) ^ row & M) ^ draw)

with ``M = 0xFFFFFFFF``. ``mix`` is a bijection, so two draws of one row never share a hash.

The sampling is Robert Floyd's (Bentley and Floyd, "A sample of brilliance", CACM 30(9), 1987): every subset
of ``count`` columns is equally likely, up to the hash and to the remainder's bias, which is below
``m / 2**32``. For a row that may draw among the columns ``0..m-1``::

    for i in 0..count-1:
        j = m - count + i
        t = hash(seed, head, row, i) % (j + 1)
        pick[i] = j if t is among pick[0..i-1] else t

and with ``m <= count`` the row gets every column there is: ``pick[i] = i if i < m else -1``.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from attnc.budget import use
from attnc.expression import (
    Drawn,
    FloorDiv,
    constant,
)

MASK = 0xFFFFFFFF
START = 0x9E3779B9
# Both multipliers are below 2**31: a product with 32 bits stays below 2**63.
FIRST_MULTIPLIER = 0x2C1B3C6D
SECOND_MULTIPLIER = 0x297A2D39

# How many draws numpy makes in one step of work, how many it finds in a table, and how many it compares; and
# what each loop takes besides.
DRAWS, FOUND, COMPARED, LOOP = 4, 150, 600, 30
# How many draws are made together, and how large a table of them may be, for each pair that is asked about.
TOGETHER, TABLE = 1 << 18, 4

DRAWING = "drawing at random for so many rows"
COMPARING = "comparing positions with what was drawn"

Ints = npt.NDArray[np.int64]


def block_size(drawn: Drawn) -> int:
    """How many positions a row, and a column, of a draw has: more than one under ``blocks``."""
    return (constant(drawn.row.right) or 1) if isinstance(drawn.row, FloorDiv) else 1


def _mix(x: Ints) -> Ints:
    x = x ^ (x >> 15)
    x = (x * FIRST_MULTIPLIER) & MASK
    x = x ^ (x >> 12)
    x = (x * SECOND_MULTIPLIER) & MASK
    return x ^ (x >> 15)


def _row_state(seed: int, head: Ints, row: Ints) -> Ints:
    """What the draws of one row have in common: ``hash`` without its last step."""
    start = _mix(np.asarray((seed & MASK) ^ START, dtype=np.int64))
    return _mix(_mix(start ^ (head & MASK)) ^ (row & MASK))


def hashed(seed: int, head: npt.ArrayLike, row: npt.ArrayLike, draw: int) -> Ints:
    """The 32-bit hash of (seed, head, row, draw), int64 of the broadcast shape of ``head`` and ``row``."""
    state = _row_state(seed, np.asarray(head, dtype=np.int64), np.asarray(row, dtype=np.int64))
    return _mix(state ^ np.int64(draw & MASK))


def picks(
    count: int, seed: int, past: bool, head: npt.ArrayLike, row: npt.ArrayLike, population: npt.ArrayLike
) -> Ints:
    """The columns drawn for every (head, row): int64 of shape (..., count), -1 in slots that stay empty.

    head, row, population: integers that broadcast together to the shape ``...``. The draw is among columns
    ``0..population-1``, or with ``past`` among ``0..row``; then ``population`` has no influence beyond its
    shape, and the picks of a row stay as they are when a sequence grows.

    Raises ValueError for a ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"random(count, …) draws at least one column, but count is {count}")
    heads, rows, sizes = np.broadcast_arrays(
        *(np.asarray(part, dtype=np.int64) for part in (head, row, population))
    )
    if past:
        sizes = rows + 1
    use(work(count, heads.size), DRAWING)
    parts = [part.reshape(-1, 1) for part in (heads, rows, sizes)]
    chosen = np.empty((heads.size, count), dtype=np.int64)
    step = max(1, TOGETHER // count)
    for start in range(0, heads.size, step):
        chosen[start : start + step] = _picks(count, seed, *(part[start : start + step] for part in parts))
    return chosen.reshape(*heads.shape, count)


def _picks(count: int, seed: int, heads: Ints, rows: Ints, sizes: Ints) -> Ints:
    """The picks of rows that stand below each other, all draws at once."""
    slots = np.arange(count, dtype=np.int64)
    last = sizes - count + slots
    # Rows with too few columns take them all; their remainder is never used, but must not divide by zero.
    values = _mix(_row_state(seed, heads, rows) ^ slots) % np.maximum(last + 1, 1)
    chosen = np.where(_taken(values, values - last[:, :1]), last, values)
    return np.where(sizes > count, chosen, np.where(slots < sizes, slots, -1))


def _taken(values: Ints, column: Ints) -> npt.NDArray[np.bool_]:
    """Whether each of a row's values ``t`` is among the picks before.

    These are the values before, and columns ``j`` in the place of such as were taken: ``column`` is the draw
    whose ``j`` a value is, and is negative where it is none's.
    """
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    taken = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(taken, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    row, draw = np.nonzero((column >= 0) & (column < np.arange(values.shape[1])))
    placed = column[row, draw]
    while (new := taken[row, placed] & ~taken[row, draw]).any():
        taken[row[new], draw[new]] = True
    return taken


def work(count: int, rows: int) -> int:
    """What drawing for so many rows takes in steps."""
    return LOOP + count * (2 + rows) // DRAWS


def drawn(
    expr: Drawn, row: npt.ArrayLike, column: npt.ArrayLike, population: npt.ArrayLike, head: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Whether ``column`` is among the columns drawn for ``row``: what ``evaluation.Env.drawn`` asks for.

    All arguments are integers that broadcast together; the answer has their common shape. ``expr`` must
    have a constant count and seed, else ValueError.
    """
    count, seed = constant(expr.count), constant(expr.seed)
    if count is None or seed is None:
        raise ValueError("random(count, seed) needs a count and a seed that are known when compiling")
    columns = np.asarray(column, dtype=np.int64)
    chosen = picks(count, seed, expr.past, head, row, population)
    shape = np.broadcast_shapes(columns.shape, chosen.shape[:-1])
    pairs = prod(shape)
    first, width = (int(columns.min()), int(np.ptp(columns)) + 1) if columns.size else (0, 1)
    if chosen.size // count * width <= TABLE * pairs:
        use(LOOP + chosen.size // DRAWS + pairs // FOUND, COMPARING)
        # A table of what every row drew, where it is no larger than what is asked for.
        table = np.zeros((chosen.size // count, width), dtype=np.bool_)
        places = chosen.reshape(-1, count) - first
        row, slot = np.nonzero((chosen.reshape(-1, count) >= 0) & (places >= 0) & (places < width))
        table[row, places[row, slot]] = True
        rows = np.arange(len(table)).reshape(chosen.shape[:-1])
        return np.broadcast_to(table[rows, columns - first], shape)
    use(count * (LOOP + pairs // COMPARED), COMPARING)
    found = np.zeros(shape, dtype=np.bool_)
    for draw in range(count):
        # An empty slot holds -1, and columns are never negative where they mean anything.
        found |= (chosen[..., draw] == columns) & (columns >= 0)
    return found

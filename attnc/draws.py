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

# What a draw for some rows takes in steps of work, and how many comparisons of numbers numpy makes in one.
DRAW, COMPARED = 60, 600

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
    use(work(count, heads.size), "drawing at random for so many rows")
    state = _row_state(seed, heads, rows)
    chosen = np.full((*heads.shape, count), -1, dtype=np.int64)
    for i in range(count):
        last = sizes - count + i
        # Rows with too few columns take them all; their remainder is never used, but must not divide by zero.
        value = _mix(state ^ np.int64(i)) % np.maximum(last + 1, 1)
        taken = (chosen[..., :i] == value[..., None]).any(axis=-1)
        everything = np.where(i < sizes, i, -1)
        chosen[..., i] = np.where(sizes <= count, everything, np.where(taken, last, value))
    return chosen


def work(count: int, rows: int) -> int:
    """What drawing for so many rows takes in steps: every draw is compared with all that came before it."""
    return count * (DRAW + count * rows // COMPARED)


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
    found = np.zeros(np.broadcast_shapes(columns.shape, chosen.shape[:-1]), dtype=np.bool_)
    for slot in range(count):
        # An empty slot holds -1, and columns are never negative where they mean anything.
        found |= (chosen[..., slot] == columns) & (columns >= 0)
    return found

"""How many pairs (q, k) satisfy a conjunction: exactly, as a formula over the size of the square.

Two ideas do all of it. A conjunction of linear bounds is summed row by row: a row holds ``high - low`` keys,
which splits into sums of positive parts, and those are triangles. A modulus ``s`` (chunks, strides, blocks,
grid rows) is taken apart by ``q = s * Q + r`` and ``k = s * K + t``: each condition becomes one on the blocks
``(Q, K)`` and one on the places ``(r, t)`` inside them, so the count is a sum of products of smaller counts,
once for the whole blocks and once for the ragged last one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from attnc.budget import charge
from attnc.cells import MOST_CELLS, cells, flat
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    ONE,
    ZERO,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Max,
    Min,
    Mod,
    Mul,
    Q,
    Select,
    Var,
    add,
    conj,
    constant,
    floor_div,
    fold,
    neg,
    scale,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.polynomial import Poly, number
from attnc.separable import branching, by_residue, flattened, separated, shifted
from attnc.sizes import NoFormula, Sizes, greatest, least, linear, numeric, pruned
from attnc.splitting import Splitter

# What one sum takes, in steps of work, and each condition of a cell that is looked at, and blocks of pairs.
SUM, CONDITION, BLOCKS = 6_000, 12, 1_500
# Pairs of a square that are counted one by one.
FEW = 1 << 14


def count_pairs(conditions: Iterable[Expr], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    """The number of pairs ``0 <= q < rows``, ``0 <= k < columns`` where all conditions hold.

    ``rows`` and ``columns`` are numbers or variables of ``sizes``.
    The result is over the symbols of ``sizes``. Raises NoFormula when this method does not reach.
    """
    plain = flattened([flat(fold(condition)) for condition in conditions])
    if (few := _few(plain, rows, columns)) is not None:
        return few
    if any(map(branching, plain)):
        positions = max(numeric(size, sizes.ranges)[1] for size in (rows, columns))
        if (apart := separated(plain, sizes, positions)) is not None:
            return _by_blocks(apart.blocks, apart.places, apart.s, rows, columns, sizes)
        if (window := shifted(plain, columns)) is not None:
            return _over_cells(window.conditions, rows, Const(window.width), sizes)
    try:
        return _over_cells(plain, rows, columns, sizes)
    except NoFormula:
        if (ways := by_residue(plain)) is None:
            raise
    return sum((count_pairs(way, rows, columns, sizes) for way in ways), number(0))


def _few(conditions: Sequence[Expr], rows: Expr, columns: Expr) -> Poly | None:
    """The number of pairs of a small square, one by one; None where it is not small, or sizes decide."""
    height, width = constant(rows), constant(columns)
    if height is None or width is None or height * width > FEW:
        return None
    if any(variables(condition) - {"q", "k"} for condition in conditions):
        return None
    charge(height * width * len(conditions), "counting edges")
    env = Env({"q": np.arange(height)[:, None], "k": np.arange(width)[None, :]})
    return number(int(np.broadcast_to(evaluate(conj(*conditions), env), (height, width)).sum()))


def _over_cells(conditions: Sequence[Expr], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    """The same, of a relation that is multiplied out."""
    total = number(0)
    for sign, cell in cells(conditions):
        charge(CONDITION * (1 + len(cell)), "counting edges")
        total = total + _count(cell, rows, columns, sizes).scaled(sign)
    return total


def _count(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    if (few := _few(cell, rows, columns)) is not None:
        return few
    if constant(rows) == 0 or constant(columns) == 0:
        return number(0)
    ranges = {
        **sizes.ranges,
        "q": (0, numeric(rows, sizes.ranges)[1] - 1),
        "k": (0, numeric(columns, sizes.ranges)[1] - 1),
    }
    kept = pruned(cell, ranges)
    if kept is None:
        return number(0)
    names = sorted(frozenset().union(variables(rows), variables(columns), *map(variables, kept)))
    key = (frozenset(kept), rows, columns, tuple(sizes.ranges.get(name) for name in names))
    if key not in sizes.known:
        sizes.known[key] = _counted_from_one(kept, rows, columns, sizes)
    return sizes.known[key]


def _counted_from_one(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    """The count as it is for at least one row and column, if that formula gives 0 for none.

    It usually does, and has fewer cases.
    """
    if not isinstance(rows, Var) and not isinstance(columns, Var):
        return _counted(cell, rows, columns, sizes)
    ranges = dict(sizes.ranges)
    for size in (rows, columns):
        if isinstance(size, Var):
            low, high = sizes.ranges[size.name]
            sizes.ranges[size.name] = (max(low, 1), high)
    try:
        found = _counted(cell, rows, columns, sizes)
    finally:
        sizes.ranges.update(ranges)
    for size in (rows, columns):
        if isinstance(size, Var) and ranges[size.name][0] < 1 and sizes.without(found, size.name).terms:
            return _counted(cell, rows, columns, sizes)
    return found


def _counted(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    divisors: set[int] = set()
    for part in itertools.chain.from_iterable(map(walk, cell)):
        if isinstance(part, (FloorDiv, Mod)):
            divisor = constant(part.right)
            if divisor is None or divisor <= 0:
                raise NoFormula
            if not any(isinstance(inner, (FloorDiv, Mod)) for inner in walk(part.left)):
                divisors.add(divisor)
        elif isinstance(part, (Min, Max, Mul, Select)):
            raise NoFormula
    about_rows = tuple(c for c in cell if "k" not in variables(c))
    about_columns = tuple(c for c in cell if "k" in variables(c) and "q" not in variables(c))
    if about_rows and about_columns and len(about_rows) + len(about_columns) == len(cell):
        return sizes.product(_count(about_rows, rows, ONE, sizes), _count(about_columns, ONE, columns, sizes))
    if not divisors:
        return _linear_count(cell, rows, columns, sizes)
    s = max(divisors)
    if any(s % other for other in divisors):
        raise NoFormula
    return _two_level(cell, s, rows, columns, sizes)


def _linear_count(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    """Linear conditions only: each row's keys are an interval, summed as triangles."""
    sizes.work -= 1
    if sizes.work < 0:
        raise NoFormula
    charge(SUM, "counting edges")
    ranges = sizes.ranges
    bodies: list[Expr] = []
    for condition in cell:
        match condition:
            case Le0(body):
                bodies.append(body)
            case Eq0(body):
                bodies += [body, neg(body)]
    first: list[Expr] = [ZERO]  # bounds on q: inclusive below, exclusive above
    stop: list[Expr] = [rows]
    low: list[Expr] = [ZERO]  # bounds on k
    high: list[Expr] = [columns]
    low_unit: list[Expr] = []  # bounds on k - q
    high_unit: list[Expr] = []
    gates: list[Expr] = []
    slopes: set[int] = set()
    for body in bodies:
        terms, _ = linear(body)
        a, b = terms.get(Q, 0), terms.get(K, 0)
        rest = sub(body, add(scale(a, Q), scale(b, K)))
        if a and b and abs(a) != abs(b):
            raise NoFormula
        c = b or a
        if c == 0:
            gates.append(rest)
            continue
        if a and b:
            slopes.add(-a // b)
            into = (high_unit, low_unit)
        else:
            into = (high, low) if b else (stop, first)
        if c > 0:
            into[0].append(add(floor_div(neg(rest), c), 1))
        else:
            into[1].append(neg(floor_div(neg(rest), -c)))
    if slopes == {1, -1}:
        raise NoFormula
    if slopes == {-1}:
        # Antidiagonal bounds rise once the rows are read from the other end.
        mirror: dict[Expr, Expr] = {Q: sub(sub(rows, 1), Q)}
        return _linear_count(tuple(substitute(c, mirror) for c in cell), rows, columns, sizes)

    start, end = greatest(ranges, *first), least(ranges, *stop)
    lo, hi = greatest(ranges, *low), least(ranges, *high)
    hi = greatest(ranges, hi, lo)
    up = least(ranges, *high_unit) if high_unit else None
    down = greatest(ranges, *low_unit) if low_unit else None
    if up is not None and down is not None:
        up = greatest(ranges, up, down)
    # Only rows that have a key, so that every row's count is `min(highs) - max(lows)`.
    if up is not None:
        start = greatest(ranges, start, sub(lo, up))
    if down is not None:
        end = least(ranges, end, add(sub(hi, down), 1))
    end = greatest(ranges, end, start)

    def triangle(top: Expr) -> Poly:
        # 0 + 1 + … + top; nothing when top is negative, which -1 gives by itself
        x = sizes.poly(top if numeric(top, ranges)[0] >= -1 else greatest(ranges, top, 0))
        return (x * x + x).scaled(Fraction(1, 2))

    total = sizes.poly(sub(hi, lo)) * sizes.poly(sub(end, start))
    if up is not None:
        # min(q + up, hi) is hi less max(0, gap - q)
        gap = sub(hi, up)
        total = total - triangle(sub(gap, start)) + triangle(sub(gap, end))
    if down is not None:
        # max(q + down, lo) is lo plus max(0, q - gap)
        gap = sub(lo, down)
        total = total - triangle(sub(add(end, -1), gap)) + triangle(sub(add(start, -1), gap))
    for gate in gates:
        total = total * sizes.poly(least(ranges, 1, greatest(ranges, 0, sub(1, gate))))
    return total


def _two_level(cell: tuple[Expr, ...], s: int, rows: Expr, columns: Expr, sizes: Sizes) -> Poly:
    wholes: dict[str, Expr] = {"q": Q, "k": K}
    rests: dict[str, Expr] = {"q": Q, "k": K}
    for name in frozenset().union(*map(variables, cell)) - {"q", "k"}:
        wholes[name], rests[name] = sizes.split(Var(name), s)
    places = {**sizes.ranges, "q": (0.0, s - 1.0), "k": (0.0, s - 1.0)}

    splitter = Splitter(s, wholes, rests, places)
    options = [list(splitter.condition(condition)) for condition in cell]
    if math.prod(map(len, options)) > MOST_CELLS:
        raise NoFormula
    total = number(0)
    for choice in itertools.product(*options):
        block = tuple(c for blocks, _ in choice for c in blocks)
        local = tuple(c for _, inner in choice for c in inner)
        if pruned(local, places) is not None:
            total = total + _by_blocks(block, local, s, rows, columns, sizes)
    return total


def _by_blocks(
    block: tuple[Expr, ...], local: tuple[Expr, ...], s: int, rows: Expr, columns: Expr, sizes: Sizes
) -> Poly:
    """Pairs whose blocks of ``s`` meet ``block`` and whose places inside them meet ``local``."""
    charge(BLOCKS, "counting edges")
    (row_blocks, row_rest), (column_blocks, column_rest) = sizes.split(rows, s), sizes.split(columns, s)
    # Each axis: the whole blocks, then the ragged one, whose index is the number of whole ones. A ragged
    # block that does not exist has no places in it, and counts nothing.
    row_kinds = ((row_blocks, ZERO, Const(s)), (ONE, row_blocks, row_rest))
    column_kinds = ((column_blocks, ZERO, Const(s)), (ONE, column_blocks, column_rest))
    total = number(0)
    for (down, row_shift, height), (across, column_shift, width) in itertools.product(
        row_kinds, column_kinds
    ):
        if 0 in (constant(height), constant(width), constant(down), constant(across)):
            continue
        shift: dict[Expr, Expr] = {Q: add(Q, row_shift), K: add(K, column_shift)}
        outer = count_pairs((substitute(c, shift) for c in block), down, across, sizes)
        if outer.terms:
            total = total + sizes.product(outer, count_pairs(local, height, width, sizes))
    return total

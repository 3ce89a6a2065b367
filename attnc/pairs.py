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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import sympy

from attnc.expression import (
    ONE,
    ZERO,
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    IntLike,
    K,
    Le0,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Param,
    Q,
    Select,
    Sum,
    Truth,
    Var,
    add,
    as_expr,
    children,
    conj,
    constant,
    disj,
    eq,
    floor_div,
    fold,
    le,
    maximum,
    minimum,
    mod,
    neg,
    negate,
    rebuild,
    scale,
    sub,
    substitute,
    variables,
    walk,
)

Ranges = Mapping[str, tuple[float, float]]

# A conjunction that falls into more cells than this is not worth a formula.
MOST_CELLS = 256


class NoFormula(Exception):
    """The conjunction is outside of what can be counted in closed form."""


@dataclass
class Sizes:
    """The symbols of one count: sympy symbols by variable name, what they range over and what they stand for.

    ``n`` is the only free one; ``n/64`` and ``n%64`` are its quotient and remainder.
    """

    symbols: dict[str, sympy.Symbol] = field(default_factory=dict)
    meaning: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=lambda: {"n": (0, math.inf)})
    known: dict[tuple[object, ...], sympy.Expr] = field(default_factory=dict)

    def symbol(self, name: str) -> sympy.Symbol:
        if name not in self.symbols:
            self.symbols[name] = sympy.Symbol(name, integer=True, nonnegative=True)
        return self.symbols[name]

    def split(self, size: Expr, s: int) -> tuple[Expr, Expr]:
        """``size // s`` and ``size % s``, as new variables unless they are numbers."""
        value = constant(size)
        if value is not None:
            return Const(value // s), Const(value % s)
        if not isinstance(size, Var):
            raise NoFormula
        quotient, rest = f"{size.name}/{s}", f"{size.name}%{s}"
        if quotient not in self.ranges:
            least, most = self.ranges[size.name]
            self.ranges[quotient] = (least // s, most if most == math.inf else most // s)
            self.ranges[rest] = (0, min(s - 1, most))
            whole = self.symbol(size.name)
            self.meaning[self.symbol(quotient)] = sympy.floor(whole / s)
            self.meaning[self.symbol(rest)] = sympy.Mod(whole, s)
        return Var(quotient), Var(rest)

    def plain(self, expr: sympy.Expr) -> sympy.Expr:
        """The formula with quotients and remainders written out over ``n``."""
        while expr.free_symbols & self.meaning.keys():
            expr = expr.xreplace(self.meaning)
        return expr


def numeric(expr: Expr, ranges: Ranges) -> tuple[float, float]:
    """Least and greatest value that an expression may take: sound, not always attained."""
    match expr:
        case Const(value) | Param(_, value):
            return value, value
        case Var(name):
            return ranges.get(name, (-math.inf, math.inf))
        case Sum(terms, start):
            low: float = start
            high: float = start
            for c, atom in terms:
                a, b = numeric(atom, ranges)
                low += c * (a if c > 0 else b)
                high += c * (b if c > 0 else a)
            return low, high
        case Min(args) | Max(args):
            pick: Callable[[Iterable[float]], float] = min if isinstance(expr, Min) else max
            each = [numeric(arg, ranges) for arg in args]
            return pick(a for a, _ in each), pick(b for _, b in each)
        case FloorDiv(left, right):
            divisor = constant(right)
            if divisor is not None and divisor > 0:
                a, b = numeric(left, ranges)
                return (a if math.isinf(a) else a // divisor), (b if math.isinf(b) else b // divisor)
        case Mod(left, right):
            divisor = constant(right)
            if divisor is not None and divisor > 0:
                a, b = numeric(left, ranges)
                return (a, b) if a >= 0 and b < divisor else (0, divisor - 1)
    return -math.inf, math.inf


def linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    """Coefficients by atom, and the constant."""
    match expr:
        case Const(value) | Param(_, value):
            return {}, value
        case Sum(terms, start):
            return {atom: c for c, atom in terms}, start
    return {expr: 1}, 0


def greatest(ranges: Ranges, *args: IntLike) -> Expr:
    """``maximum`` without the arguments that another one always reaches."""
    kept: list[Expr] = []
    for arg in map(as_expr, args):
        if any(numeric(sub(other, arg), ranges)[0] >= 0 for other in kept):
            continue
        kept = [other for other in kept if numeric(sub(arg, other), ranges)[0] < 0]
        kept.append(arg)
    return maximum(*kept)


def least(ranges: Ranges, *args: IntLike) -> Expr:
    kept: list[Expr] = []
    for arg in map(as_expr, args):
        if any(numeric(sub(arg, other), ranges)[0] >= 0 for other in kept):
            continue
        kept = [other for other in kept if numeric(sub(other, arg), ranges)[0] < 0]
        kept.append(arg)
    return minimum(*kept)


def to_sympy(expr: Expr, sizes: Sizes) -> sympy.Expr:
    """Sums, products, divisions and extrema of numbers and of the variables of ``sizes``."""
    match expr:
        case Const(value) | Param(_, value):
            return sympy.Integer(value)
        case Var(name):
            return sizes.symbol(name)
        case Sum(terms, start):
            return sympy.Add(start, *(c * to_sympy(atom, sizes) for c, atom in terms))
        case Mul(left, right):
            return to_sympy(left, sizes) * to_sympy(right, sizes)
        case FloorDiv(left, right):
            return sympy.floor(to_sympy(left, sizes) / to_sympy(right, sizes))
        case Mod(left, right):
            return sympy.Mod(to_sympy(left, sizes), to_sympy(right, sizes))
        case Min(args):
            return sympy.Min(*(to_sympy(arg, sizes) for arg in args))
        case Max(args):
            return sympy.Max(*(to_sympy(arg, sizes) for arg in args))
    raise NoFormula


# --- logic ----------------------------------------------------------------------------------------------


def cells(conditions: Iterable[Expr]) -> Iterator[tuple[int, tuple[Expr, ...]]]:
    """Conjunctions of plain comparisons whose counts, added with their signs, are the count of all.

    What is not a conjunction is counted by its complement: all, minus those where it fails.
    """
    budget = [MOST_CELLS]

    def expand(pending: tuple[Expr, ...], done: tuple[Expr, ...]) -> Iterator[tuple[int, tuple[Expr, ...]]]:
        if not pending:
            budget[0] -= 1
            if budget[0] < 0:
                raise NoFormula
            yield 1, done
            return
        first, rest = pending[0], pending[1:]
        match first:
            case Truth(value):
                if value:
                    yield from expand(rest, done)
            case And(args):
                yield from expand((*args, *rest), done)
            case Or(args) if _exclusive(args):
                for arg in args:
                    yield from expand((arg, *rest), done)
            case Or(_) | Not(Eq0(_)):
                yield from expand(rest, done)
                for sign, cell in expand((negate(first), *rest), done):
                    yield -sign, cell
            case Le0(body):
                opened = _open(body)
                if opened is None:
                    yield from expand(rest, (*done, first))
                else:
                    yield from expand((opened, *rest), done)
            case Eq0(body):
                if _open(body) is None:
                    yield from expand(rest, (*done, first))
                else:
                    yield from expand((le(body, 0), le(neg(body), 0), *rest), done)
            case _:
                raise NoFormula

    return expand(tuple(conditions), ())


def _exclusive(args: tuple[Expr, ...]) -> bool:
    """Equalities that differ by constants: no two hold at once."""
    bodies = [arg.body for arg in args if isinstance(arg, Eq0)]
    if len(bodies) < len(args):
        return False
    differences = [constant(sub(bodies[0], other)) for other in bodies]
    return None not in differences and len(set(differences)) == len(differences)


def _open(body: Expr) -> Expr | None:
    """``body <= 0`` without its first minimum, maximum or choice, or None when it has none."""
    terms, _ = linear(body)
    for atom, c in terms.items():
        if isinstance(atom, (Min, Max)):
            rest = sub(body, scale(c, atom))
            parts = [le(add(scale(c, arg), rest), 0) for arg in atom.args]
            return conj(*parts) if isinstance(atom, Max) == (c > 0) else disj(*parts)
        if isinstance(atom, Select):
            rest = sub(body, scale(c, atom))
            then, otherwise = (le(add(scale(c, arm), rest), 0) for arm in (atom.then, atom.otherwise))
            return disj(conj(atom.condition, then), conj(negate(atom.condition), otherwise))
    return None


def _flat(expr: Expr) -> Expr:
    """``((x // a) + c) // b`` as one division, so that moduli divide each other."""
    parts = children(expr)
    if not parts:
        return expr
    expr = rebuild(expr, tuple(map(_flat, parts)))
    if isinstance(expr, FloorDiv) and isinstance(expr.left, Sum) and (b := constant(expr.right) or 0) > 0:
        terms, start = linear(expr.left)
        if [(type(atom), c) for atom, c in terms.items()] == [(FloorDiv, 1)]:
            (inner,) = terms
            assert isinstance(inner, FloorDiv)
            if (a := constant(inner.right) or 0) > 0:
                return floor_div(add(inner.left, a * start), a * b)
    return expr


# --- counting -------------------------------------------------------------------------------------------


def count_pairs(conditions: Iterable[Expr], rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
    """The number of pairs ``0 <= q < rows``, ``0 <= k < columns`` where all conditions hold.

    ``rows`` and ``columns`` are numbers or variables of ``sizes``.
    The result is over the symbols of ``sizes``. Raises NoFormula when this method does not reach.
    """
    flat = [_flat(fold(condition)) for condition in conditions]
    return sympy.Add(*(sign * _count(cell, rows, columns, sizes) for sign, cell in cells(flat)))


def _count(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
    if constant(rows) == 0 or constant(columns) == 0:
        return sympy.S.Zero
    ranges = {
        **sizes.ranges,
        "q": (0, numeric(rows, sizes.ranges)[1] - 1),
        "k": (0, numeric(columns, sizes.ranges)[1] - 1),
    }
    kept = _pruned(cell, ranges)
    if kept is None:
        return sympy.S.Zero
    names = sorted(frozenset().union(variables(rows), variables(columns), *map(variables, kept)))
    key = (frozenset(kept), rows, columns, tuple(sizes.ranges.get(name) for name in names))
    if key not in sizes.known:
        sizes.known[key] = _counted_from_one(kept, rows, columns, sizes)
    return sizes.known[key]


def _counted_from_one(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
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
        if isinstance(size, Var) and ranges[size.name][0] < 1:
            gone = [symbol for name, symbol in sizes.symbols.items() if _part_of(name, size.name)]
            if sympy.expand(found.xreplace(dict.fromkeys(gone, sympy.S.Zero))) != 0:
                return _counted(cell, rows, columns, sizes)
    return found


def _part_of(name: str, whole: str) -> bool:
    """Whether a size is 0 when another one is: itself, and what it was split into."""
    return name == whole or name.startswith((f"{whole}/", f"{whole}%"))


def _counted(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
    divisors = set()
    for part in itertools.chain.from_iterable(map(walk, cell)):
        if isinstance(part, (FloorDiv, Mod)):
            divisor = constant(part.right)
            if divisor is None or divisor <= 0:
                raise NoFormula
            divisors.add(divisor)
        elif isinstance(part, (Min, Max, Mul, Select)):
            raise NoFormula
    if not divisors:
        return _linear_count(cell, rows, columns, sizes)
    s = max(divisors)
    if any(s % other for other in divisors):
        raise NoFormula
    return _two_level(cell, s, rows, columns, sizes)


def _pruned(cell: tuple[Expr, ...], ranges: Ranges) -> tuple[Expr, ...] | None:
    """The conditions that are not always true; None when they contradict each other or the ranges."""
    kept: list[Expr] = []
    tightest: dict[Expr, tuple[float, float]] = {}
    for condition in dict.fromkeys(cell):
        match condition:
            case Truth(value):
                if not value:
                    return None
                continue
            case Le0(body) | Eq0(body):
                low, high = numeric(body, ranges)
                if low > 0 or (isinstance(condition, Eq0) and high < 0):
                    return None
                if high <= 0 and (isinstance(condition, Le0) or low == 0):
                    continue
            case _:
                raise NoFormula
        start = linear(body)[1]
        shape, sign = sub(body, start), 1
        if repr(neg(shape)) < repr(shape):
            shape, sign = neg(shape), -1
        # The condition reads sign * shape + start <= 0, or == 0.
        below, above = tightest.get(shape, (-math.inf, math.inf))
        if sign > 0 or isinstance(condition, Eq0):
            above = min(above, -sign * start)
        if sign < 0 or isinstance(condition, Eq0):
            below = max(below, -sign * start)
        if below > above:
            return None
        tightest[shape] = (below, above)
        kept.append(condition)
    return tuple(kept)


def _linear_count(cell: tuple[Expr, ...], rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
    """Linear conditions only: each row's keys are an interval, summed as triangles."""
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

    def triangle(top: Expr) -> sympy.Expr:
        # 0 + 1 + … + top; nothing when top is negative, which -1 gives by itself
        x = to_sympy(top if numeric(top, ranges)[0] >= -1 else greatest(ranges, top, 0), sizes)
        return x * (x + 1) / 2

    total = to_sympy(sub(hi, lo), sizes) * to_sympy(sub(end, start), sizes)
    if up is not None:
        # min(q + up, hi) is hi less max(0, gap - q)
        gap = sub(hi, up)
        total -= triangle(sub(gap, start)) - triangle(sub(gap, end))
    if down is not None:
        # max(q + down, lo) is lo plus max(0, q - gap)
        gap = sub(lo, down)
        total -= triangle(sub(add(end, -1), gap)) - triangle(sub(add(start, -1), gap))
    for gate in gates:
        total *= to_sympy(least(ranges, 1, greatest(ranges, 0, sub(1, gate))), sizes)
    return sympy.expand(total)


def _two_level(cell: tuple[Expr, ...], s: int, rows: Expr, columns: Expr, sizes: Sizes) -> sympy.Expr:
    (row_blocks, row_rest), (column_blocks, column_rest) = sizes.split(rows, s), sizes.split(columns, s)
    wholes: dict[str, Expr] = {"q": Q, "k": K}
    rests: dict[str, Expr] = {"q": Q, "k": K}
    for name in frozenset().union(*map(variables, cell)) - {"q", "k"}:
        wholes[name], rests[name] = sizes.split(Var(name), s)
    places = {**sizes.ranges, "q": (0.0, s - 1.0), "k": (0.0, s - 1.0)}

    splitter = _Splitter(s, wholes, rests, places)
    options = [list(splitter.condition(condition)) for condition in cell]
    if math.prod(map(len, options)) > MOST_CELLS:
        raise NoFormula
    # Each axis: the whole blocks, then the ragged one, whose index is the number of whole ones. A ragged
    # block that does not exist has no places in it, and counts nothing.
    row_kinds = ((row_blocks, ZERO, Const(s)), (ONE, row_blocks, row_rest))
    column_kinds = ((column_blocks, ZERO, Const(s)), (ONE, column_blocks, column_rest))
    parts: list[sympy.Expr] = []
    for choice in itertools.product(*options):
        block = tuple(c for blocks, _ in choice for c in blocks)
        local = tuple(c for _, inner in choice for c in inner)
        if _pruned(local, places) is None:
            continue
        for (down, row_shift, height), (across, column_shift, width) in itertools.product(
            row_kinds, column_kinds
        ):
            if 0 in (constant(height), constant(width), constant(down), constant(across)):
                continue
            shift: dict[Expr, Expr] = {Q: add(Q, row_shift), K: add(K, column_shift)}
            outer = count_pairs((substitute(c, shift) for c in block), down, across, sizes)
            if outer != 0:
                parts.append(outer * count_pairs(local, height, width, sizes))
    return sympy.Add(*parts)


Halves = tuple[Expr, Expr, tuple[Expr, ...]]


@dataclass(frozen=True)
class _Splitter:
    """Conditions over positions as conditions over blocks of size ``s`` and over places inside a block.

    wholes, rests: every variable is ``s * whole + rest``. places: what the rests range over.
    """

    s: int
    wholes: Mapping[str, Expr]
    rests: Mapping[str, Expr]
    places: Ranges

    def condition(self, condition: Expr) -> Iterator[tuple[tuple[Expr, ...], tuple[Expr, ...]]]:
        """The exclusive ways in which it holds: conditions on blocks, conditions on places."""
        assert isinstance(condition, (Le0, Eq0))
        equality = isinstance(condition, Eq0)
        for whole, rest, local in self.halves(condition.body):
            terms, _ = linear(whole)
            if not terms:
                yield (), (*local, eq(rest, 0) if equality else le(rest, 0))
                continue
            g = math.gcd(*terms.values())
            unit = _divided(whole, g)
            low, high = self.finite(rest)
            last = high // g if equality else -(-high // g)
            for j in range(-(-low // g), last + 1):
                if equality:
                    yield (eq(add(unit, j), 0),), (*local, eq(rest, g * j))
                else:
                    yield (le(add(unit, j), 0),), (*local, *self.within((j - 1) * g + 1, rest, j * g))

    def halves(self, expr: Expr) -> Iterator[Halves]:
        """``expr`` as a sum of a part over blocks and one over places, under conditions on the places."""
        match expr:
            case Const() | Param():
                yield ZERO, expr, ()
            case Var(name):
                yield scale(self.s, self.wholes[name]), self.rests[name], ()
            case Sum(terms, start):
                alternatives = [list(self.halves(atom)) for _, atom in terms]
                for choice in itertools.product(*alternatives):
                    pairs = list(zip((c for c, _ in terms), choice, strict=True))
                    whole = add(*(scale(c, part[0]) for c, part in pairs))
                    rest = add(start, *(scale(c, part[1]) for c, part in pairs))
                    # A constant belongs to the places, whose range is finite.
                    extra = linear(whole)[1]
                    yield sub(whole, extra), add(rest, extra), tuple(c for part in choice for c in part[2])
            case FloorDiv(left, right) | Mod(left, right):
                divisor = constant(right)
                assert divisor is not None
                for whole, rest, local in self.halves(left):
                    quotient = _divided(whole, divisor)
                    block = quotient if isinstance(expr, FloorDiv) else ZERO
                    if divisor < self.s:
                        inner = floor_div(rest, divisor) if isinstance(expr, FloorDiv) else mod(rest, divisor)
                        yield block, inner, local
                        continue
                    low, high = self.finite(rest)
                    for j in range(low // divisor, high // divisor + 1):
                        inner = Const(j) if isinstance(expr, FloorDiv) else sub(rest, j * divisor)
                        inside = self.within(j * divisor, rest, (j + 1) * divisor - 1)
                        yield block, inner, (*local, *inside)
            case _:
                raise NoFormula

    def finite(self, expr: Expr) -> tuple[int, int]:
        low, high = numeric(expr, self.places)
        if math.isinf(low) or math.isinf(high):
            raise NoFormula
        return int(low), int(high)

    def within(self, low: int, expr: Expr, high: int) -> tuple[Expr, ...]:
        kept = _pruned((le(low, expr), le(expr, high)), self.places)
        return (Truth(False),) if kept is None else kept


def _divided(expr: Expr, by: int) -> Expr:
    terms, start = linear(expr)
    if start % by or any(c % by for c in terms.values()):
        raise NoFormula
    return add(start // by, *(scale(c // by, atom) for atom, c in terms.items()))

"""How many edges at most? Bounds that hold for every length and input, read off a relation's comparisons.

A relation is multiplied out into conjunctions, and each is counted as its rows times the most columns that a
row can have (or the other way round), or as the area under an interval whose width grows from row to row. A
row's columns: the width of an interval, one residue in so many, the product of what two digits of a position
can be, the size of a set. The bounds of a union add up: they are never below the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import ceil, floor

from attnc.expression import (
    ONE,
    ZERO,
    And,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    N,
    Or,
    Q,
    Sum,
    Truth,
    Var,
    add,
    constant,
    floor_div,
    fold,
    le,
    mod,
    neg,
    scale,
    sub,
    variables,
    walk,
)
from attnc.polynomial import Poly, from_expr, number, rest_limit, symbol

MOST_CONJUNCTIONS = 48
MOST_BOUNDS = 5


@dataclass(frozen=True)
class Bound:
    """``value``, from ``n = start`` on; 0 below that."""

    value: Poly
    start: int = 0


def conjunctions(expr: Expr) -> list[tuple[Expr, ...]]:
    """The relation multiplied out; an ``or`` too many stays whole."""
    match expr:
        case Truth(value):
            return [()] if value else []
        case Or(args):
            return [conjunction for arg in args for conjunction in conjunctions(arg)]
        case And(args):
            parts = [conjunctions(arg) for arg in args]
            size = 1
            for part in parts:
                size *= len(part)
            if size > MOST_CONJUNCTIONS:
                return [args]
            return [tuple(p for piece in pick for p in piece) for pick in product(*parts)]
    return [(expr,)]


def edge_bounds(conjunction: Iterable[Expr]) -> list[Bound]:
    """Upper bounds of the number of pairs that meet all conditions."""
    parts = [fold(part) for part in conjunction]
    rows = _values([part for part in parts if "k" not in variables(part)], Q)
    columns = _values([part for part in parts if "q" not in variables(part)], K)
    areas = _Counter.of(parts, K).areas()
    pairs = [*product(rows, _values(parts, K)), *product(columns, _values(parts, Q))]
    return _best([Bound(a.value * b.value, max(a.start, b.start)) for a, b in pairs] + areas)


def _values(parts: list[Expr], var: Var) -> list[Bound]:
    """Upper bounds of how many values ``var`` can have, all else being fixed."""
    return _Counter.of(parts, var).values(var, 4)


@dataclass
class _Range:
    lows: list[Expr] = field(default_factory=list)
    highs: list[Expr] = field(default_factory=list)


@dataclass
class _Counter:
    """The conditions on one variable, sorted by the function of it that they speak about."""

    var: Var
    ranges: dict[Expr, _Range] = field(default_factory=dict)
    residues: list[tuple[Expr, int]] = field(default_factory=list)
    sizes: dict[Expr, list[Poly]] = field(default_factory=dict)

    @staticmethod
    def of(parts: Iterable[Expr], var: Var) -> _Counter:
        counter = _Counter(var)
        for part in parts:
            counter._learn(part)
        return counter

    def _learn(self, part: Expr) -> None:
        match part:
            case Le0(Sum(terms, _) as body) if any(c > 0 and isinstance(a, Max) for c, a in terms):
                # At most something: so are all of which it is the greatest. The whole of it cancels against
                # itself, where it is the other end of a window, too.
                self._compare(body)
                c, most = next((c, a) for c, a in terms if c > 0 and isinstance(a, Max))
                for arg in most.args if isinstance(most, Max) else ():
                    self._learn(le(add(sub(body, scale(c, most)), scale(c, arg)), 0))
            case Le0(Max(args)):
                for arg in args:
                    self._learn(le(arg, 0))
            case Le0(body):
                self._compare(body)
            case Eq0(body):
                self._compare(body)
                self._compare(neg(body))
            case Lookup(table, (index,), "bool"):
                self.sizes.setdefault(index, []).append(symbol(f"count({table})"))
            case Drawn(count, _, _, row, column, _):
                drawn = constant(count)
                if drawn is not None and self.var.name not in variables(row):
                    self.sizes.setdefault(column, []).append(number(drawn))

    def _compare(self, body: Expr) -> None:
        """``body <= 0``, for a body that speaks of the variable in one place."""
        terms = body.terms if isinstance(body, Sum) else ((1, body),)
        inside = [(c, atom) for c, atom in terms if self.var.name in variables(atom)]
        if len(inside) != 1:
            return
        c, atom = inside[0]
        rest = sub(body, scale(c, atom))
        held = self.ranges.setdefault(atom, _Range())
        if c > 0:
            held.highs += _parts(floor_div(neg(rest), c), Min)
        else:
            held.lows += _parts(neg(floor_div(neg(rest), -c)), Max)
        if isinstance(atom, Mod):
            self._residue(atom)

    def _residue(self, atom: Mod) -> None:
        step = constant(atom.right) or 0
        inner = atom.left.terms if isinstance(atom.left, Sum) else ((1, atom.left),)
        own = [(c, a) for c, a in inner if self.var.name in variables(a)]
        if step > 1 and len(own) == 1 and abs(own[0][0]) == 1 and self._single(atom):
            self.residues.append((own[0][1], step))

    def _single(self, atom: Expr) -> bool:
        """Whether one value of ``atom`` is all that is allowed."""
        return any(width.value.value() == 1 for width in self._widths(atom))

    def _widths(self, atom: Expr) -> list[Bound]:
        held = self.ranges.get(atom)
        if held is None:
            return []
        lows, highs = list(held.lows), list(held.highs)
        match atom:
            case Var():
                lows.append(ZERO)
                highs.append(sub(N, 1))
            case FloorDiv(Var(), Const(size)) if size > 0:
                lows.append(ZERO)
            case Mod(_, Const(size)) if size > 0:
                lows.append(ZERO)
                highs.append(Const(size - 1))
        found = [_greatest(add(sub(high, low), ONE)) for low in lows for high in highs]
        return [
            bound for item in found if item is not None for bound in [_clamped(item)] if bound is not None
        ]

    def values(self, atom: Expr, depth: int) -> list[Bound]:
        """Upper bounds of how many values ``atom`` can have."""
        found = self._widths(atom)
        if atom == self.var:
            found.append(Bound(symbol("n")))
        # Of an interval, one residue; of no more than one residue at a time, and of nothing but intervals.
        steps = {step for inner, step in self.residues if inner == atom}
        found += [_thinned(bound, step) for bound in found for step in steps]
        found += [Bound(size) for size in self.sizes.get(atom, ())]
        match atom:
            case Mod(_, Const(size)) if size > 0:
                found.append(Bound(number(size)))
            case FloorDiv(Var(name), Const(size)) if name == self.var.name and size > 0:
                found.append(Bound((symbol("n") + number(size - 1)).scaled(Fraction(1, size))))
        if depth:
            found += self._coarser(atom, depth - 1)
            found += self._digits(atom, depth - 1)
        return _best(found)

    def areas(self) -> list[Bound]:
        """Upper bounds of the pairs as a sum over the queries of an interval's width, linear in the query."""
        held = self.ranges.get(K, _Range())
        found = []
        for low, high in product([*held.lows, ZERO], [*held.highs, sub(N, 1)]):
            width = _linear(add(sub(high, low), ONE))
            if width is None:
                continue
            slope, growth, start = (width.get(name, Fraction(0)) for name in ("q", "n", ""))
            # Nowhere negative, for any length: at the first query, and at the last.
            ends = ((growth, start), (slope + growth, start - slope))
            if slope and all(by >= 0 and by + at >= 0 for by, at in ends):
                n = symbol("n")
                area = (n * n - n).scaled(slope / 2) + (n * n).scaled(growth) + n.scaled(start)
                found.append(Bound(area))
                steps = {step for inner, step in self.residues if inner == K}
                found += [
                    Bound((area + n.scaled(step - 1)).scaled(Fraction(1, step))) for step in sorted(steps)
                ]
        return found

    def _coarser(self, atom: Expr, depth: int) -> Iterable[Bound]:
        """From the values of ``(atom + m) // s``: each is that of ``s`` values of the atom."""
        for other in {*self.ranges, *self.sizes}:
            if not isinstance(other, FloorDiv) or not isinstance(other.right, Const) or other == atom:
                continue
            shift = sub(other.left, atom)
            size: int | None = None
            if constant(shift) is not None:
                size = other.right.value
            elif isinstance(atom, FloorDiv) and atom.left == other.left and isinstance(atom.right, Const):
                ratio, remainder = divmod(other.right.value, max(atom.right.value, 1))
                size = ratio if remainder == 0 and atom.right.value > 0 else None
            if size is not None and size > 0:
                for bound in self.values(other, depth):
                    yield Bound(bound.value.scaled(size), bound.start)

    def _digits(self, atom: Expr, depth: int) -> Iterable[Bound]:
        """A number is known by its quotient and its remainder."""
        bases = {
            constant(part.right) or 1
            for place in {*self.ranges, *self.sizes}
            for part in walk(place)
            if isinstance(part, Mod) and part.left == atom and (constant(part.right) or 0) > 0
        }
        for base in bases:
            highs = self.values(floor_div(atom, base), depth)
            lows = self.values(mod(atom, base), depth)
            for a, b in product(highs, lows):
                yield Bound(a.value * b.value, max(a.start, b.start))


def _parts(expr: Expr, kind: type[Min] | type[Max]) -> tuple[Expr, ...]:
    """A bound that is the least (greatest) of several is as good as any of them.

    The whole of it comes first: it may cancel against the same in the other bound, of a clamped window.
    """
    if isinstance(expr, kind):
        return (expr, *expr.args)
    if isinstance(expr, Sum):
        hidden = [(c, a) for c, a in expr.terms if isinstance(a, kind)]
        if len(hidden) == 1 and hidden[0][0] == 1 and isinstance(hidden[0][1], (Min, Max)):
            rest = sub(expr, hidden[0][1])
            return (expr, *(add(rest, arg) for arg in hidden[0][1].args))
    return (expr,)


def _linear(expr: Expr) -> dict[str, Fraction] | None:
    """Coefficients of ``q``, ``n`` and 1 (under the empty name), remainders at their worst."""
    p = from_expr(expr)
    if p is None or not all(len(monomial) <= 1 for monomial, _ in p.terms):
        return None
    for monomial, c in p.terms:
        for name in monomial:
            if (limit := rest_limit(name)) is not None:
                p = p.replaced(name, number(limit if c > 0 else 0))
    if not p.names() <= {"q", "n"}:
        return None
    return {"".join(monomial): c for monomial, c in p.terms}


def _greatest(expr: Expr) -> Poly | None:
    """The greatest value over all positions of the other side, in terms of ``n``."""
    p = from_expr(expr)
    if p is None or not all(len(monomial) <= 1 for monomial, _ in p.terms):
        return None
    for monomial, c in p.terms:
        for name in monomial:
            limit = rest_limit(name)
            if limit is not None:
                p = p.replaced(name, number(limit if c > 0 else 0))
            elif name in ("q", "k"):
                p = p.replaced(name, symbol("n") - number(1) if c > 0 else number(0))
    return p if p.names() <= {"n"} else None


def _clamped(width: Poly) -> Bound | None:
    """A width as a number of values: never below zero."""
    terms = dict(width.terms)
    slope, start = terms.get(("n",), Fraction(0)), terms.get((), Fraction(0))
    if slope < 0:
        return None
    if slope == 0:
        return Bound(number(max(floor(start), 0)))
    return Bound(width, max(ceil(-start / slope), 0))


def _thinned(bound: Bound, step: int) -> Bound:
    """How many of so many neighbours have one residue: ``ceil(width / step)`` at most."""
    value = (bound.value + number(step - 1)).scaled(Fraction(1, step))
    exact = value.value()
    return Bound(value if exact is None else number(floor(exact)), bound.start)


def _best(bounds: Iterable[Bound]) -> list[Bound]:
    """A few of the bounds: of numbers only the least."""
    kept: list[Bound] = []
    least: Fraction | None = None
    for bound in dict.fromkeys(bounds):
        value = bound.value.value() if bound.start == 0 else None
        if value is None:
            kept.append(bound)
        elif least is None or value < least:
            least = value
    if least is not None:
        kept.insert(0, Bound(number(least)))
    return sorted(kept, key=_weight)[:MOST_BOUNDS]


def _weight(bound: Bound) -> tuple[int, Fraction]:
    """Lower powers first, then smaller leading coefficients."""
    degree = max((len(monomial) for monomial, _ in bound.value.terms), default=0)
    leading = sum((c for monomial, c in bound.value.terms if len(monomial) == degree), Fraction(0))
    return degree, leading

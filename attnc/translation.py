"""Expressions in the solver's vocabulary, and what is known about what they read.

A question has a context of its own: what the solver was asked before changes neither the names of its terms
nor the order it looks at them in, and with those its answers and how much work they take.

Products of variables are variables of their own to the solver, which is asked about linear arithmetic alone.
What is known of a product (its sign, how it grows with its factors) is added as linear facts; where an
assignment gives a product another value than that of its factors, ``corrections`` says more about it there.

Nodes are made by the solver's own constructors rather than by its overloaded operators: those ask about the
sorts of every operand, which costs more than all the solving of a usual question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import z3

from attnc.expression import (
    And,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Param,
    PowerOfTwo,
    Select,
    Sum,
    TileMax,
    TileMin,
    Truth,
    Var,
    constant,
)

# A product that comes to more terms than this is left to nobody: the question is not asked.
MOST_MONOMIALS = 16
# Products are compared with each other as long as they are few.
MOST_COMPARED = 6

# A context takes 17 MB. The C library of Linux gives the system back what is free beyond twice the largest
# block that was ever freed, and this one makes that 48 MB: without it every question gives back its pages and
# fetches them again, which takes ten times as long as all else that making a context does.
np.empty(24 << 20, np.uint8)


class NotLinear(ValueError):
    """What the solver is never asked about, in words."""


@dataclass(frozen=True)
class Product:
    """What stands for a product, and its two factors, as terms of the solver."""

    term: Any
    left: Any
    right: Any


class Translation:
    """One question's vocabulary: solver terms by expression, and the facts that came with them."""

    def __init__(self) -> None:
        self.context = z3.Context()
        self.cache: dict[Expr, Any] = {}
        self.facts: list[Any] = []
        self.lookups: dict[Lookup, tuple[Any, tuple[Any, ...]]] = {}
        self.products: dict[tuple[Expr, ...], Product] = {}
        self._ref = self.context.ref()
        self._integers, self._booleans = z3.IntSort(self.context), z3.BoolSort(self.context)
        self._zero = self.number(0)

    # --- the solver's constructors ----------------------------------------------------------------------

    def integer(self, made: Any) -> Any:
        return z3.ArithRef(made, self.context)

    def boolean(self, made: Any) -> Any:
        return z3.BoolRef(made, self.context)

    def many(self, make: Callable[..., Any], parts: Sequence[Any]) -> Any:
        return make(self._ref, len(parts), (z3.Ast * len(parts))(*(part.ast for part in parts)))

    def two(self, make: Callable[..., Any], left: Any, right: Any) -> Any:
        return make(self._ref, left.ast, right.ast)

    def number(self, value: int) -> Any:
        if -(1 << 63) <= value < 1 << 63:
            return self.integer(z3.Z3_mk_int64(self._ref, value, self._integers.ast))
        return z3.IntVal(value, self.context)

    def variable(self, name: str) -> Any:
        return z3.Int(name, self.context)

    def function(self, name: str, places: int, sort: Any) -> Any:
        return z3.Function(name, *[self._integers] * places, sort)

    # --- expressions ------------------------------------------------------------------------------------

    def of(self, expr: Expr) -> Any:
        found = self.cache.get(expr)
        if found is None:
            found = self.cache[expr] = self._of(expr)
        return found

    def _of(self, expr: Expr) -> Any:
        of = self.of
        match expr:
            case Const(value) | Param(_, value):
                return self.number(value)
            case Truth(value):
                return z3.BoolVal(value, self.context)
            case Var(name):
                return self.variable(name)
            case Sum(terms, start):
                parts = [self.scaled(c, of(atom)) for c, atom in terms]
                return self.sum([*parts, self.number(start)] if start else parts)
            case Mul():
                return self._multiplied(expr)
            case FloorDiv(a, b):
                return self._divide(a, b)[0]
            case Mod(a, b):
                return self._divide(a, b)[1]
            case Min(args) | Max(args):
                first, *rest = map(of, args)
                for other in rest:
                    order = z3.Z3_mk_lt if isinstance(expr, Min) else z3.Z3_mk_gt
                    better = self.boolean(self.two(order, other, first))
                    first = self.integer(z3.Z3_mk_ite(self._ref, better.ast, other.ast, first.ast))
                return first
            case Select(condition, then, otherwise):
                return z3.If(of(condition), of(then), of(otherwise))
            case Le0(body):
                return self.boolean(self.two(z3.Z3_mk_le, of(body), self._zero))
            case Eq0(body):
                return self.boolean(self.two(z3.Z3_mk_eq, of(body), self._zero))
            case Not(body):
                return self.boolean(z3.Z3_mk_not(self._ref, of(body).ast))
            case And(args):
                return self.boolean(self.many(z3.Z3_mk_and, list(map(of, args))))
            case Or(args):
                return self.boolean(self.many(z3.Z3_mk_or, list(map(of, args))))
            case TileMin() | TileMax():
                return self._tile_end(expr)
            case Lookup(table, index, kind):
                places = tuple(map(of, index))
                sort = self._booleans if kind == "bool" else self._integers
                value = self.function(table, len(places), sort)(*places)
                self.lookups[expr] = (value, places)
                return value
            case PowerOfTwo(body):
                value = of(body)
                held = self.function("power of two", 1, self._booleans)(value)
                self.facts += [z3.Implies(held, value >= 0)]
                self.facts += [z3.Implies(value == small, held) for small in (0, 1, 2, 4)]
                return held
            case Drawn():
                return self._draw(expr)
        raise TypeError(f"no solver term for {type(expr).__name__}")

    def sum(self, parts: Sequence[Any]) -> Any:
        return self.integer(self.many(z3.Z3_mk_add, parts))

    def scaled(self, factor: int, term: Any) -> Any:
        if factor == 1:
            return term
        return self.integer(self.many(z3.Z3_mk_mul, [self.number(factor), term]))

    def _divide(self, left: Expr, right: Expr) -> tuple[Any, Any]:
        divisor = constant(right)
        if divisor is None or divisor == 0:
            raise NotLinear("division by something that is not a non-zero constant")
        a, b = self.of(left), self.number(abs(divisor))
        if divisor < 0:  # rounds down and takes the divisor's sign, as the language says
            return (-a) / b, -((-a) % b)
        return self.integer(self.two(z3.Z3_mk_div, a, b)), self.integer(self.two(z3.Z3_mk_mod, a, b))

    def _tile_end(self, expr: TileMin | TileMax) -> Any:
        body = expr.body
        bound = self.variable(f"tile{len(self.cache)}")
        value = self.of(body)
        self.facts.append(bound <= value if isinstance(expr, TileMin) else bound >= value)
        if isinstance(body, Lookup) and "." in body.table:  # a position of the sequence
            self.facts.append(z3.And(bound >= 0, bound < self.variable("n")))
        return bound

    def _draw(self, expr: Drawn) -> Any:
        row, column, population = map(self.of, (expr.row, expr.column, expr.population))
        count, seed = constant(expr.count), constant(expr.seed)
        name = f"drawn {count} of seed {seed}{' past' if expr.past else ''}"
        # Draws among all columns depend on how many there are; draws from the past do not.
        head = self.variable("h")
        places = (head, row, column) if expr.past else (head, row, column, population)
        held = self.function(name, len(places), self._booleans)(*places)
        among = row + 1 if expr.past else population
        self.facts += [z3.Implies(held, z3.And(column >= 0, column < among))]
        self.facts += [z3.Implies(z3.And(among <= count, column >= 0, column < among), held)]
        return held

    # --- products ---------------------------------------------------------------------------------------

    def _multiplied(self, expr: Mul) -> Any:
        parts = [self.scaled(c, self._monomial(atoms)) for atoms, c in _monomials(expr).items()]
        return self.sum(parts) if parts else self._zero

    def _monomial(self, atoms: tuple[Expr, ...]) -> Any:
        if not atoms:
            return self.number(1)
        if len(atoms) == 1:
            return self.of(atoms[0])
        found = self.products.get(atoms)
        if found is None:
            left, right = self._monomial(atoms[:-1]), self.of(atoms[-1])
            found = Product(self.variable(f"product{len(self.products)}"), left, right)
            self.facts += _signs(found)
            for other in list(self.products.values())[:MOST_COMPARED]:
                self.facts += _ordered(found, other)
            self.products[atoms] = found
        return found.term

    def corrections(self, model: Any) -> list[Any]:
        """What is true of products that an assignment gets wrong: none of it holds under that assignment."""
        facts = []
        for item in self.products.values():
            a, b, value = (
                model.eval(term, model_completion=True).as_long()
                for term in (item.left, item.right, item.term)
            )
            if value != a * b:
                facts += _near(item, a, b)
        return facts

    # --- inputs -----------------------------------------------------------------------------------------

    def input_facts(self) -> list[Any]:
        """What holds between an input and the tables derived from it, for all places in use."""
        facts = []
        plain = [(e.table, v, p) for e, (v, p) in self.lookups.items() if "." not in e.table and len(p) == 1]
        for lookup, (value, places) in list(self.lookups.items()):
            if "." not in lookup.table:
                continue
            table, which = lookup.table.split(".")
            own = self.function(table, 1, self._integers)(places[0])
            low = which in ("first", "run_first")
            facts.append(value <= places[0] if low else value >= places[0])
            for other, entry, (place,) in plain:
                if other != table:
                    continue
                if which in ("first", "last"):
                    inside = value <= place if low else value >= place
                    facts.append(z3.Implies(entry == own, inside))
                else:  # one end of a run: everything between it and the place is equal
                    between = (
                        z3.And(value <= place, place <= places[0])
                        if low
                        else z3.And(places[0] <= place, place <= value)
                    )
                    facts.append(z3.Implies(between, entry == own))
        return facts


def _monomials(expr: Expr) -> dict[tuple[Expr, ...], int]:
    """A sum of products multiplied out: by the sorted factors of each term, how often it is there."""
    match expr:
        case Const(value) | Param(_, value):
            return {(): value} if value else {}
        case Sum(terms, start):
            total: dict[tuple[Expr, ...], int] = {(): start} if start else {}
            for c, atom in terms:
                for atoms, count in _monomials(atom).items():
                    total[atoms] = total.get(atoms, 0) + c * count
        case Mul(left, right):
            total = {}
            for one, several in _monomials(left).items():
                for two, count in _monomials(right).items():
                    atoms = tuple(sorted((*one, *two), key=repr))
                    total[atoms] = total.get(atoms, 0) + several * count
        case _:
            return {(expr,): 1}
    found = {atoms: count for atoms, count in total.items() if count}
    if len(found) > MOST_MONOMIALS:
        raise NotLinear(f"a product comes to more than {MOST_MONOMIALS} terms")
    return found


def _signs(item: Product) -> list[Any]:
    """What holds of any product of integers: when it is zero, its sign, how it compares with its factors."""
    value, a, b = item.term, item.left, item.right
    facts = [(value == 0) == z3.Or(a == 0, b == 0)]
    for up, right in product((1, -1), repeat=2):  # the signs of the factors
        x, y, z = up * a, right * b, up * right * value
        facts.append(z3.Implies(z3.And(x >= 1, y >= 1), z >= x + y - 1))
    facts += [z3.Implies(a == 1, value == b), z3.Implies(b == 1, value == a)]
    if a.eq(b):
        facts.append(value >= 0)
    return facts


def _ordered(one: Product, two: Product) -> list[Any]:
    """That of two products the one whose factors have the larger magnitudes has the larger magnitude."""
    facts = []
    for c, d in ((two.left, two.right), (two.right, two.left)):
        for (a, b, p), (x, y, r) in (
            ((one.left, one.right, one.term), (c, d, two.term)),
            ((c, d, two.term), (one.left, one.right, one.term)),
        ):
            a, b, p, x, y, r = map(_magnitude, (a, b, p, x, y, r))
            facts.append(z3.Implies(z3.And(a <= x, b <= y), p <= r))
            facts.append(z3.Implies(z3.And(b >= 1, a < x, b <= y), p < r))
    return facts


def _magnitude(term: Any) -> Any:
    return z3.If(term >= 0, term, -term)


def _near(item: Product, a: int, b: int) -> list[Any]:
    """What holds of a product around factors ``a`` and ``b``, by the sign of ``(x - a) * (y - b)``."""
    x, y, value = item.left, item.right, item.term
    plane = b * x + a * y - a * b
    same = z3.Or(z3.And(x <= a, y <= b), z3.And(x >= a, y >= b))
    other = z3.Or(z3.And(x <= a, y >= b), z3.And(x >= a, y <= b))
    return [z3.Implies(same, value >= plane), z3.Implies(other, value <= plane)]

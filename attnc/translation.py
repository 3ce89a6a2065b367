"""Expressions in the solver's vocabulary, and what is known about what they read.

Nodes are made by the solver's own constructors rather than by its overloaded operators: those ask about the
sorts of every operand, which costs more than all the solving of a usual question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    children,
    constant,
    remembered,
)

_CONTEXT = z3.main_ctx()
_REF = _CONTEXT.ref()
_INTEGER, _BOOLEAN = z3.IntSort(), z3.BoolSort()


def _integer(made: Any) -> Any:
    return z3.ArithRef(made, _CONTEXT)


def _boolean(made: Any) -> Any:
    return z3.BoolRef(made, _CONTEXT)


def _many(make: Callable[..., Any], parts: Sequence[Any]) -> Any:
    return make(_REF, len(parts), (z3.Ast * len(parts))(*(part.ast for part in parts)))


def _two(make: Callable[..., Any], left: Any, right: Any) -> Any:
    return make(_REF, left.ast, right.ast)


def _number(value: int) -> Any:
    if -(1 << 63) <= value < 1 << 63:
        return _integer(z3.Z3_mk_int64(_REF, value, _INTEGER.ast))
    return z3.IntVal(value)


_ZERO = _number(0)


@dataclass
class Translation:
    """One question's vocabulary: solver terms by expression, and the facts that came with them."""

    cache: dict[Expr, Any] = field(default_factory=dict)
    facts: list[Any] = field(default_factory=list)
    lookups: dict[Lookup, tuple[Any, tuple[Any, ...]]] = field(default_factory=dict)

    def of(self, expr: Expr) -> Any:
        found = self.cache.get(expr)
        if found is None:
            found = self.cache[expr] = _plain(expr) if _is_plain(expr) else self._of(expr)
        return found

    def _of(self, expr: Expr) -> Any:
        match expr:
            case TileMin(body) | TileMax(body):
                bound = z3.Int(f"tile{len(self.cache)}")
                value = self.of(body)
                self.facts.append(bound <= value if isinstance(expr, TileMin) else bound >= value)
                if isinstance(body, Lookup) and "." in body.table:  # a position of the sequence
                    self.facts.append(z3.And(bound >= 0, bound < z3.Int("n")))
                return bound
            case Lookup(table, index, kind):
                places = tuple(map(self.of, index))
                sort = _BOOLEAN if kind == "bool" else _INTEGER
                value = z3.Function(table, *[_INTEGER] * len(places), sort)(*places)
                self.lookups[expr] = (value, places)
                return value
            case PowerOfTwo(body):
                value = self.of(body)
                held = z3.Function("power of two", _INTEGER, _BOOLEAN)(value)
                self.facts += [z3.Implies(held, value >= 0)]
                self.facts += [z3.Implies(value == small, held) for small in (0, 1, 2, 4)]
                return held
            case Drawn():
                return self._draw(expr)
        return _built(expr, self.of)

    def _draw(self, expr: Drawn) -> Any:
        row, column, population = map(self.of, (expr.row, expr.column, expr.population))
        count, seed = constant(expr.count), constant(expr.seed)
        name = f"drawn {count} of seed {seed}{' past' if expr.past else ''}"
        # Draws among all columns hang on how many there are; draws from the past do not.
        places = (z3.Int("h"), row, column) if expr.past else (z3.Int("h"), row, column, population)
        held = z3.Function(name, *[_INTEGER] * len(places), _BOOLEAN)(*places)
        among = row + 1 if expr.past else population
        self.facts += [z3.Implies(held, z3.And(column >= 0, column < among))]
        self.facts += [z3.Implies(z3.And(among <= count, column >= 0, column < among), held)]
        return held

    def input_facts(self) -> list[Any]:
        """What holds between an input and the tables derived from it, for all places in use."""
        facts = []
        plain = [(e.table, v, p) for e, (v, p) in self.lookups.items() if "." not in e.table and len(p) == 1]
        for lookup, (value, places) in list(self.lookups.items()):
            if "." not in lookup.table:
                continue
            table, which = lookup.table.split(".")
            own = z3.Function(table, _INTEGER, _INTEGER)(places[0])
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


@remembered
def _is_plain(expr: Expr) -> bool:
    """Whether no facts belong to an expression, so that it means the same in every question."""
    if isinstance(expr, (TileMin, TileMax, Lookup, PowerOfTwo, Drawn)):
        return False
    return all(map(_is_plain, children(expr)))


@remembered
def _plain(expr: Expr) -> Any:
    """The term of a plain expression, made once for all questions."""
    return _built(expr, _plain)


def _built(expr: Expr, of: Callable[[Expr], Any]) -> Any:
    """The term of an expression, made of those of its parts."""
    match expr:
        case Const(value) | Param(_, value):
            return _number(value)
        case Truth(value):
            return z3.BoolVal(value)
        case Var(name):
            return z3.Int(name)
        case Sum(terms, start):
            parts = [_scaled(c, of(atom)) for c, atom in terms]
            return _integer(_many(z3.Z3_mk_add, [*parts, _number(start)] if start else parts))
        case Mul(a, b):
            return _integer(_many(z3.Z3_mk_mul, [of(a), of(b)]))
        case FloorDiv(a, b):
            return _divide(a, b, of)[0]
        case Mod(a, b):
            return _divide(a, b, of)[1]
        case Min(args) | Max(args):
            first, *rest = map(of, args)
            for other in rest:
                order = z3.Z3_mk_lt if isinstance(expr, Min) else z3.Z3_mk_gt
                better = _boolean(_two(order, other, first))
                first = _integer(z3.Z3_mk_ite(_REF, better.ast, other.ast, first.ast))
            return first
        case Select(condition, then, otherwise):
            return z3.If(of(condition), of(then), of(otherwise))
        case Le0(body):
            return _boolean(_two(z3.Z3_mk_le, of(body), _ZERO))
        case Eq0(body):
            return _boolean(_two(z3.Z3_mk_eq, of(body), _ZERO))
        case Not(body):
            return _boolean(z3.Z3_mk_not(_REF, of(body).ast))
        case And(args):
            return _boolean(_many(z3.Z3_mk_and, list(map(of, args))))
        case Or(args):
            return _boolean(_many(z3.Z3_mk_or, list(map(of, args))))
    raise TypeError(f"no solver term for {type(expr).__name__}")


def _scaled(factor: int, term: Any) -> Any:
    return term if factor == 1 else _integer(_many(z3.Z3_mk_mul, [_number(factor), term]))


def _divide(left: Expr, right: Expr, of: Callable[[Expr], Any]) -> tuple[Any, Any]:
    divisor = constant(right)
    if divisor is None or divisor == 0:
        raise ValueError("division by something that is not a non-zero constant")
    a, b = of(left), _number(abs(divisor))
    if divisor < 0:  # rounds down and takes the divisor's sign, as the language says
        return (-a) / b, -((-a) % b)
    return _integer(_two(z3.Z3_mk_div, a, b)), _integer(_two(z3.Z3_mk_mod, a, b))

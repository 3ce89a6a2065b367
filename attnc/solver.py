"""Questions about expressions, put to the SMT solver.

A question is always "does this hold for all integers, and all contents of the runtime inputs?". What the
solver cannot answer within its time limit is *undecided*, and nobody may read that as a yes.

Runtime inputs are uninterpreted functions, and so are random draws; what is known about them (a past draw
lies in the past, the first equal entry lies before the last) is added for every place where they are used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
    conj,
    constant,
    negate,
)

TIMEOUT_MS = 2000

Outcome = Literal["proven", "refuted", "undecided"]


@dataclass(frozen=True)
class Answer:
    """What the solver said.

    variables, tables: a counterexample when refuted: values of the variables, and of every input entry that
    the question reads, keyed by table and index. Draws are unconstrained in it, so whoever needs a witness
    that really exists must replay it through the reference interpreter.
    reason: why it is undecided.
    minimal: of an answer of ``least``: whether nothing smaller exists, for certain.
    """

    outcome: Outcome
    variables: dict[str, int] = field(default_factory=dict)
    tables: dict[tuple[str, tuple[int, ...]], int | bool] = field(default_factory=dict)
    reason: str = ""
    minimal: bool = False


@dataclass
class _Translation:
    """One question's vocabulary: solver terms by expression, and the facts that came with them."""

    cache: dict[Expr, Any] = field(default_factory=dict)
    facts: list[Any] = field(default_factory=list)
    lookups: dict[Lookup, tuple[Any, tuple[Any, ...]]] = field(default_factory=dict)

    def of(self, expr: Expr) -> Any:
        found = self.cache.get(expr)
        if found is None:
            found = self.cache[expr] = self._of(expr)
        return found

    def _of(self, expr: Expr) -> Any:
        match expr:
            case Const(value) | Param(_, value):
                return z3.IntVal(value)
            case Truth(value):
                return z3.BoolVal(value)
            case Var(name):
                return z3.Int(name)
            case Sum(terms, start):
                parts = [self.of(atom) if c == 1 else z3.IntVal(c) * self.of(atom) for c, atom in terms]
                return z3.Sum(*parts, z3.IntVal(start)) if start else z3.Sum(*parts)
            case Mul(a, b):
                return self.of(a) * self.of(b)
            case FloorDiv(a, b):
                return self._divide(a, b)[0]
            case Mod(a, b):
                return self._divide(a, b)[1]
            case Min(args) | Max(args):
                first, *rest = map(self.of, args)
                for other in rest:
                    better = other < first if isinstance(expr, Min) else other > first
                    first = z3.If(better, other, first)
                return first
            case Select(condition, then, otherwise):
                return z3.If(self.of(condition), self.of(then), self.of(otherwise))
            case TileMin(body) | TileMax(body):
                bound = z3.Int(f"tile{len(self.cache)}")
                value = self.of(body)
                self.facts.append(bound <= value if isinstance(expr, TileMin) else bound >= value)
                if isinstance(body, Lookup) and "." in body.table:  # a position of the sequence
                    self.facts.append(z3.And(bound >= 0, bound < z3.Int("n")))
                return bound
            case Lookup(table, index, kind):
                places = tuple(map(self.of, index))
                sort = z3.BoolSort() if kind == "bool" else z3.IntSort()
                value = z3.Function(table, *[z3.IntSort()] * len(places), sort)(*places)
                self.lookups[expr] = (value, places)
                return value
            case Le0(body):
                return self.of(body) <= 0
            case Eq0(body):
                return self.of(body) == 0
            case PowerOfTwo(body):
                value = self.of(body)
                held = z3.Function("power of two", z3.IntSort(), z3.BoolSort())(value)
                self.facts += [z3.Implies(held, value >= 0)]
                self.facts += [z3.Implies(value == small, held) for small in (0, 1, 2, 4)]
                return held
            case Drawn():
                return self._draw(expr)
            case Not(body):
                return z3.Not(self.of(body))
            case And(args):
                return z3.And(*map(self.of, args))
            case Or(args):
                return z3.Or(*map(self.of, args))
        raise TypeError(f"no solver term for {type(expr).__name__}")

    def _divide(self, left: Expr, right: Expr) -> tuple[Any, Any]:
        divisor = constant(right)
        if divisor is None or divisor == 0:
            raise ValueError("division by something that is not a non-zero constant")
        a, b = self.of(left), z3.IntVal(abs(divisor))
        if divisor < 0:  # rounds down and takes the divisor's sign, as the language says
            return (-a) / b, -((-a) % b)
        return a / b, a % b

    def _draw(self, expr: Drawn) -> Any:
        row, column, population = map(self.of, (expr.row, expr.column, expr.population))
        count, seed = constant(expr.count), constant(expr.seed)
        name = f"drawn {count} of seed {seed}{' past' if expr.past else ''}"
        # Draws among all columns hang on how many there are; draws from the past do not.
        places = (z3.Int("h"), row, column) if expr.past else (z3.Int("h"), row, column, population)
        held = z3.Function(name, *[z3.IntSort()] * len(places), z3.BoolSort())(*places)
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
            own = z3.Function(table, z3.IntSort(), z3.IntSort())(places[0])
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


def satisfiable(condition: Expr, timeout_ms: int = TIMEOUT_MS) -> Answer:
    """Is there any assignment under which ``condition`` holds?

    Answers ``refuted`` with the assignment when there is (the claim "never" is refuted), ``proven`` when
    there is none.
    """
    return least(condition, (), timeout_ms)


def least(condition: Expr, order: Iterable[Var], timeout_ms: int = TIMEOUT_MS) -> Answer:
    """Like ``satisfiable``, with a particular assignment: the least first variable, then the least second, …

    ``condition`` must keep these variables from being negative.
    """
    if isinstance(condition, Truth):
        return Answer("refuted" if condition.value else "proven")
    translation = _Translation()
    try:
        question = translation.of(condition)
    except ValueError as error:
        return Answer("undecided", reason=str(error))
    solver = z3.SimpleSolver()
    solver.set("timeout", timeout_ms)
    solver.add(question, *translation.input_facts(), *translation.facts)
    result = solver.check()
    if result == z3.unsat:
        return Answer("proven")
    if result == z3.unknown:
        return Answer("undecided", reason=f"the solver gave up: {solver.reason_unknown()}")
    model, minimal = solver.model(), True
    for var in order:
        term = translation.of(var)
        low, high = 0, model.eval(term, model_completion=True).as_long()
        while minimal and low < high:
            middle = (low + high) // 2
            solver.push()
            solver.add(term <= middle)
            result = solver.check()
            if result == z3.sat:
                model = solver.model()
                high = model.eval(term, model_completion=True).as_long()
            else:  # without an answer nothing is lost but the certainty that this is the least
                minimal = result == z3.unsat
                low = middle + 1
            solver.pop()
        solver.add(term == high)
    return replace(_model(model, translation), minimal=minimal)


def valid(claim: Expr, given: Iterable[Expr] = (), timeout_ms: int = TIMEOUT_MS) -> Answer:
    """Does ``claim`` hold wherever all of ``given`` hold?"""
    return satisfiable(conj(*given, negate(claim)), timeout_ms)


def _model(model: Any, translation: _Translation) -> Answer:
    def value(term: Any) -> int | bool:
        found = model.eval(term, model_completion=True)
        return z3.is_true(found) if z3.is_bool(found) else int(found.as_long())

    variables = {e.name: int(value(t)) for e, t in translation.cache.items() if isinstance(e, Var)}
    tables = {
        (lookup.table, tuple(int(value(place)) for place in places)): value(term)
        for lookup, (term, places) in translation.lookups.items()
    }
    return Answer("refuted", variables, tables)

"""Questions about expressions, put to the SMT solver.

A question is always "does this hold for all integers, and all contents of the runtime inputs?". What the
solver cannot answer within its budget of work or time is *undecided*, and nobody may read that as a yes.

Runtime inputs are uninterpreted functions, and so are random draws; what is known about them (a past draw
lies in the past, the first equal entry lies before the last) is added for every place where they are used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import z3

from attnc.expression import (
    Expr,
    Lookup,
    Truth,
    Var,
    conj,
    mentioned,
    negate,
)
from attnc.translation import Translation

# What one check may cost, in the solver's own steps: some three million a second, and the same on every
# machine. The clock is only there for what the solver does not count.
WORK = 400_000
# Most questions are small, and are answered in half the time by a plainer way of working. What that does not
# settle soon is asked again.
QUICK_WORK = 150_000
PLAIN = {"auto_config": False, "arith.solver": 2}
TIMEOUT_MS = 10_000
KEPT_ANSWERS = 4096

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


class Question:
    """A condition that an assignment is wanted for; it may learn more facts between one answer and the next.

    work: what each check may cost, in the solver's steps.
    """

    def __init__(self, condition: Expr, work: int = WORK, solver: Any = None) -> None:
        self._translation = Translation()
        self._work = work
        self._plain = True
        self._solver = _solver(min(work, QUICK_WORK), PLAIN) if solver is None else solver
        self._told = 0
        self._refused = ""
        self._variables: set[Var] = set()
        self.learn(condition)

    def learn(self, fact: Expr) -> None:
        """Nothing that contradicts ``fact`` is an answer from now on."""
        known = len(self._translation.lookups)
        self._variables |= mentioned(fact)
        try:
            self._solver.add(self._translation.of(fact))
        except ValueError as error:
            self._refused = str(error)
            return
        if len(self._translation.lookups) > known:
            self._solver.add(*self._translation.input_facts())
        self._solver.add(*self._translation.facts[self._told :])
        self._told = len(self._translation.facts)

    def least(self, order: Iterable[Var]) -> Answer:
        """The assignment with the least first variable, then the least second, …; as in ``least``."""
        if self._refused:
            return Answer("undecided", reason=self._refused)
        order = tuple(order)
        answer = self._least(order)
        if self._plain and (answer.outcome == "undecided" or not answer.minimal):
            careful = _solver(self._work, {})
            careful.add(*self._solver.assertions())
            self._plain, self._solver = False, careful
            answer = self._least(order)
        return answer

    def _least(self, order: tuple[Var, ...]) -> Answer:
        started = time.monotonic()
        result = self._solver.check()
        if result == z3.unsat:
            return Answer("proven", minimal=True)
        if result == z3.unknown:
            took = time.monotonic() - started
            return Answer("undecided", reason=_unknown(self._solver.reason_unknown(), took))
        model = self._solver.model()
        self._solver.push()
        try:
            model, minimal = self._descend(model, order)
        finally:
            self._solver.pop()
        return replace(_model(model, self._variables, self._translation.lookups), minimal=minimal)

    def _descend(self, model: Any, order: Iterable[Var]) -> tuple[Any, bool]:
        solver, minimal = self._solver, True
        for var in order:
            term = self._translation.of(var)
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
        return model, minimal


# Solvers between two questions: one, unless several threads ask at once.
_idle: list[Any] = []
MOST_IDLE = 4


def _solver(work: int, ways: Mapping[str, bool | int]) -> Any:
    made = z3.SimpleSolver()
    for name, value in {"rlimit": work, "timeout": TIMEOUT_MS, **ways}.items():
        made.set(name, value)
    return made


def satisfiable(condition: Expr, work: int = WORK) -> Answer:
    """Is there any assignment under which ``condition`` holds?

    Answers ``refuted`` with the assignment when there is (the claim "never" is refuted), ``proven`` when
    there is none.
    """
    return least(condition, (), work)


@lru_cache(maxsize=KEPT_ANSWERS)
def least(condition: Expr, order: tuple[Var, ...], work: int = WORK) -> Answer:
    """Like ``satisfiable``, with a particular assignment: the least first variable, then the least second, …

    ``condition`` must keep these variables from being negative.
    """
    if isinstance(condition, Truth):
        return Answer("refuted" if condition.value else "proven")
    # A solver that has worked before is quicker than a new one; nothing but its memory is left of that work.
    solver = _idle.pop() if _idle and work == WORK else _solver(min(work, QUICK_WORK), PLAIN)
    solver.push()
    answer = Question(condition, work, solver).least(order)
    solver.pop()
    if work == WORK and solver.num_scopes() == 0 and len(_idle) < MOST_IDLE:
        _idle.append(solver)
    return answer


def valid(claim: Expr, given: Iterable[Expr] = (), work: int = WORK) -> Answer:
    """Does ``claim`` hold wherever all of ``given`` hold?"""
    return satisfiable(conj(*given, negate(claim)), work)


def _unknown(reason: str, seconds: float) -> str:
    """Why there is no answer, after so many seconds."""
    if not any(word in reason for word in ("cancel", "resource", "timeout")):
        return f"the solver gave up: {reason}"
    # The solver calls both "canceled", but only one of them hangs on how busy the machine is.
    if 1000 * seconds >= TIMEOUT_MS:
        return f"the solver found no answer within {TIMEOUT_MS / 1000:g} seconds"
    return "the solver found no answer within its budget of work"


def _model(
    model: Any, variables: Iterable[Var], lookups: Mapping[Lookup, tuple[Any, tuple[Any, ...]]]
) -> Answer:
    def value(term: Any) -> int | bool:
        found = model.eval(term, model_completion=True)
        return z3.is_true(found) if z3.is_bool(found) else int(found.as_long())

    tables = {
        (lookup.table, tuple(int(value(place)) for place in places)): value(term)
        for lookup, (term, places) in lookups.items()
    }
    return Answer("refuted", {var.name: int(value(z3.Int(var.name))) for var in variables}, tables)

"""Questions about expressions, put to the SMT solver.

A question is always "does this hold for all integers, and all contents of the runtime inputs?". What the
solver cannot answer within its budget of work is *undecided*, and nobody may read that as a yes. The work is
counted in the solver's own steps, which are the same on every machine; there is no clock.

The solver is asked about linear arithmetic alone: its ways of solving products do not count their work.
What ``Translation`` knows of products is added, and an assignment that multiplies wrongly is no answer: the
question is asked again with what is true there.

Runtime inputs are uninterpreted functions, and so are random draws; what is known about them (a past draw
lies in the past, the first equal entry lies before the last) is added for every place where they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from math import lcm
from typing import Any, Literal

import z3

from attnc import budget
from attnc.differences import contradictory
from attnc.expression import (
    Const,
    Drawn,
    Expr,
    FloorDiv,
    Mod,
    Truth,
    Var,
    conj,
    mentioned,
    negate,
)
from attnc.translation import NotLinear, Translation

# What one question may cost, in the solver's steps: some three million a second.
WORK = 400_000
# Most questions are small, and are answered in half the time by a plainer way of working. What that does not
# answer soon is asked again.
QUICK_WORK = 150_000
PLAIN = {"auto_config": False, "arith.solver": 2}
# The other way does more in a step: cuts and divisibility, with numbers of any size.
CAREFUL = 6
# It works with numbers as long as the period of all remainders together, in bits: where that is longer, a
# step may take a thousand times as long as another.
LONGEST_PERIOD = 128
# How often an assignment that gets products wrong is set right.
CORRECTIONS = 40
# What one question costs at most, but for what it takes to write it down.
DEAREST = QUICK_WORK + CAREFUL * WORK
# What it takes to begin a question, to make one term of the solver, and to say what is known of one draw, in
# its steps.
QUESTION, TERM, DRAW = 6_000, 100, 3_000
KEPT_ANSWERS = 4096

ASKING, SPENT = "a question to the solver", "the work that a pattern may cost is spent"

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

    work: what each answer may cost, in the solver's steps.
    """

    def __init__(self, condition: Expr, work: int = WORK) -> None:
        self._refused = ""
        if not budget.allows(0, ASKING):
            self._refused = SPENT
            return
        self._translation = Translation()
        self._allowed, self._work = min(work, QUICK_WORK), work
        self._solver = self._made(PLAIN)
        self._careful = False
        self._known = 0
        self._variables: set[Var] = set()
        self._corrections: list[Any] = []
        budget.charge(QUESTION, ASKING)
        self.learn(condition)

    def learn(self, fact: Expr) -> None:
        """Nothing that contradicts ``fact`` is an answer from now on."""
        if self._refused:
            return
        terms, lookups = len(self._translation.cache), len(self._translation.lookups)
        self._variables |= mentioned(fact)
        try:
            self._solver.add(self._translation.of(fact))
        except NotLinear as error:
            self._refused = f"the solver is not asked: {error}"
            return
        if len(self._translation.lookups) > lookups:
            self._solver.add(*self._translation.input_facts())
        self._solver.add(*self._translation.facts[self._known :])
        self._known = len(self._translation.facts)
        new = list(islice(self._translation.cache, terms, None))
        draws = sum(isinstance(part, Drawn) for part in new)
        budget.charge(len(new) * TERM + draws * DRAW, ASKING)

    def least(self, order: Iterable[Var]) -> Answer:
        """The assignment with the least first variable, then the least second, …; as in ``least``."""
        if self._refused:
            return Answer("undecided", reason=self._refused)
        if not budget.allows(0, ASKING):
            return Answer("undecided", reason=SPENT)
        order = tuple(order)
        answer = self._least(order)
        unanswered = answer.outcome == "undecided" or not answer.minimal
        if unanswered and not self._careful and _period_bits(self._translation.cache) <= LONGEST_PERIOD:
            careful = self._made({})
            careful.add(*self._solver.assertions())
            self._careful, self._solver, self._allowed = True, careful, self._work
            answer = self._least(order)
        return answer

    def _made(self, ways: Mapping[str, bool | int]) -> Any:
        made = z3.SimpleSolver(self._translation.context)
        for name, value in {"arith.nl": False, **ways}.items():
            made.set(name, value)
        return made

    def _steps(self) -> int:
        """How many steps the solver has taken so far, whatever it was asked."""
        return next((int(value) for name, value in self._solver.statistics() if name == "rlimit count"), 0)

    def _least(self, order: tuple[Var, ...]) -> Answer:
        started = self._steps()
        ends = started + self._allowed
        try:
            result, model = self._check(ends)
            if result == z3.unsat:
                return Answer("proven", minimal=True)
            if result == z3.unknown:
                return Answer("undecided", reason=self._unknown(ends))
            self._solver.push()
            try:
                model, minimal = self._descend(model, order, ends)
            finally:
                self._pop(0)
            answer = _model(model, self._translation, self._variables)
            return replace(answer, minimal=minimal)
        finally:
            budget.charge((self._steps() - started) * (CAREFUL if self._careful else 1), ASKING)

    def _descend(self, model: Any, order: Iterable[Var], ends: int) -> tuple[Any, bool]:
        solver, minimal = self._solver, True
        for var in order:
            term = self._translation.of(var)
            low, high = 0, model.eval(term, model_completion=True).as_long()
            while minimal and low < high:
                middle = (low + high) // 2
                known = len(self._corrections)
                solver.push()
                solver.add(term <= middle)
                result, found = self._check(ends)
                if result == z3.sat:
                    model = found
                    high = model.eval(term, model_completion=True).as_long()
                else:  # without an answer nothing is lost but the certainty that this is the least
                    minimal = result == z3.unsat
                    low = middle + 1
                self._pop(known)
            solver.add(term == high)
        return model, minimal

    def _check(self, ends: int) -> tuple[Any, Any]:
        """The solver's answer and its model, in which all products are right, within so many steps."""
        for _ in range(CORRECTIONS):
            left = ends - self._steps()
            if left <= 0:
                break
            self._solver.set("rlimit", left)
            result = self._solver.check()
            if result != z3.sat:
                return result, None
            model = self._solver.model()
            corrections = self._translation.corrections(model)
            if not corrections:
                return result, model
            self._corrections += corrections
            self._solver.add(*corrections)
        return z3.unknown, None

    def _pop(self, known: int) -> None:
        """Back to before the last ``push``, but for what was found out about products since."""
        self._solver.pop()
        self._solver.add(*self._corrections[known:])

    def _unknown(self, ends: int) -> str:
        """Why there is no answer."""
        if self._steps() < ends:
            reason = self._solver.reason_unknown()
            if self._translation.products:
                return "the solver found no answer that multiplies variables rightly"
            if "cancel" not in reason and "resource" not in reason:
                return f"the solver gave up: {reason}"
        return "the solver found no answer within its budget of work"


def _period_bits(parts: Iterable[Expr]) -> int:
    """How many bits the least common multiple of all constant divisors has."""
    divided = (part.right for part in parts if isinstance(part, (FloorDiv, Mod)))
    return lcm(*{size.value for size in divided if isinstance(size, Const) and size.value}).bit_length()


def decided(condition: Expr) -> bool | None:
    """Whether a condition never holds (True), or does somewhere (False), where its differences tell."""
    return contradictory(condition) if budget.allows(0, ASKING) else None


def satisfiable(condition: Expr, work: int = WORK) -> Answer:
    """Is there any assignment under which ``condition`` holds?

    Answers ``refuted`` with the assignment when there is (the claim "never" is refuted), ``proven`` when
    there is none.
    """
    return least(condition, (), work)


@budget.priced(KEPT_ANSWERS)
def least(condition: Expr, order: tuple[Var, ...], work: int = WORK) -> Answer:
    """Like ``satisfiable``, with a particular assignment: the least first variable, then the least second, …

    ``condition`` must keep these variables from being negative.
    """
    if isinstance(condition, Truth):
        return Answer("refuted" if condition.value else "proven")
    if decided(condition):
        return Answer("proven", minimal=True)
    return Question(condition, work).least(order)


def valid(claim: Expr, given: Iterable[Expr] = (), work: int = WORK) -> Answer:
    """Does ``claim`` hold wherever all of ``given`` hold?"""
    return satisfiable(conj(*given, negate(claim)), work)


def _model(model: Any, translation: Translation, variables: Iterable[Var]) -> Answer:
    def value(term: Any) -> int | bool:
        found = model.eval(term, model_completion=True)
        return z3.is_true(found) if z3.is_bool(found) else int(found.as_long())

    tables = {
        (lookup.table, tuple(int(value(place)) for place in places)): value(term)
        for lookup, (term, places) in translation.lookups.items()
    }
    names = sorted(var.name for var in variables)
    return Answer("refuted", {name: int(value(translation.variable(name))) for name in names}, tables)

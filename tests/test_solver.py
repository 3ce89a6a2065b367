"""The solver's answers: real assignments, the least ones, and an honest "undecided"."""

from __future__ import annotations

import pytest

from attnc import solver
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    FALSE,
    ONE,
    TRUE,
    Expr,
    K,
    Lookup,
    N,
    Q,
    Var,
    add,
    conj,
    disj,
    eq,
    floor_div,
    ge,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    negate,
)
from attnc.solver import Answer, Question, least, satisfiable, valid

FUTURE = conj(le(0, Q), lt(Q, K), lt(K, N))


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (FUTURE, (2, 0, 1)),
        (conj(FUTURE, eq(mod(K, 128), 120)), (121, 0, 120)),
        (conj(FUTURE, le(add(Q, 4096), K)), (4097, 0, 4096)),
        (conj(FUTURE, ge(Q, 3), eq(floor_div(Q, 4), floor_div(K, 4))), (6, 4, 5)),
        (conj(FUTURE, disj(eq(K, 70), conj(ge(Q, 5), eq(K, 60)))), (61, 5, 60)),
        (conj(FUTURE, eq(minimum(K, maximum(Q, 9)), 9)), (10, 0, 9)),
    ],
)
def test_the_least_assignment(condition: Expr, wanted: tuple[int, int, int]) -> None:
    answer = least(condition, (N, Q, K))
    assert answer.outcome == "refuted" and answer.minimal
    assert tuple(answer.variables[name] for name in ("n", "q", "k")) == wanted
    assert bool(evaluate(condition, Env(answer.variables)))


def test_a_question_learns_what_is_no_answer() -> None:
    question = Question(FUTURE)
    found = []
    for _ in range(3):
        answer = question.least((N, Q, K))
        found.append(tuple(answer.variables[name] for name in ("n", "q", "k")))
        question.learn(disj(*(negate(eq(Var(name), value)) for name, value in answer.variables.items())))
    assert found == [(2, 0, 1), (3, 0, 1), (3, 0, 2)]
    question.learn(le(N, 3))
    assert question.least((N, Q, K)).variables == {"n": 3, "q": 1, "k": 2}
    question.learn(Lookup("x", (Q,), "bool"))
    question.learn(negate(Lookup("x", (ONE,), "bool")))
    assert question.least((N, Q, K)).outcome == "proven"


def test_a_budget_ends_a_question_with_the_reason() -> None:
    hard = conj(
        ge(Q, 0),
        ge(K, 0),
        eq(mul(Q, Q), add(mul(K, mul(K, N)), 7)),
        eq(mul(N, Q), mul(K, add(Q, 3))),
        ge(N, 9),
    )
    answer = satisfiable(hard, work=1_000)
    assert answer == satisfiable(hard, work=1_000)
    assert (answer.outcome, answer.reason) == (
        "undecided",
        "the solver found no answer within its budget of work",
    )


def test_a_reason_says_that_the_clock_ended_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "TIMEOUT_MS", 50)
    cubes = [mul(x, mul(x, x)) for x in (Q, K, N)]
    hard = conj(eq(add(cubes[0], add(cubes[1], cubes[2])), 114), ge(Q, 50), lt(K, -50))
    answer = satisfiable(hard, work=1_000_000_000)
    assert answer == Answer("undecided", reason="the solver found no answer within 0.05 seconds")


def test_never_is_proven() -> None:
    assert least(conj(FUTURE, lt(K, Q)), (N,)).outcome == "proven"
    assert satisfiable(FALSE).outcome == "proven"
    assert satisfiable(TRUE).outcome == "refuted"


def test_division_rounds_down_for_every_sign() -> None:
    for divisor in (-7, -1, 2, 5):
        for value in (-11, -5, 0, 3, 14):
            held = conj(
                eq(Q, value),
                eq(floor_div(Q, divisor), value // divisor),
                eq(mod(Q, divisor), value % divisor),
            )
            assert valid(held, [eq(Q, value)]).outcome == "proven"


def test_a_counterexample_holds_the_entries_that_were_read() -> None:
    entry = Lookup("x", (K,), "bool")
    answer = least(conj(FUTURE, entry, negate(Lookup("x", (Q,), "bool"))), (N, Q, K))
    assert answer.tables == {("x", (0,)): False, ("x", (1,)): True}


def test_what_the_solver_cannot_say_is_undecided() -> None:
    answer = satisfiable(eq(floor_div(K, Q), 3))
    assert answer.outcome == "undecided" and answer.reason
    hard = conj(
        ge(Q, 2), ge(K, 2), ge(N, 3), eq(mul(Q, mul(Q, Q)), add(mul(K, mul(K, K)), mul(N, mul(N, N))))
    )
    assert least(hard, (N,), work=100_000).outcome != "refuted"

"""The solver's answers: real assignments, the least ones, and an honest "undecided"."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from attnc.budget import compiling
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
from attnc.solver import DEAREST, Answer, Question, least, satisfiable, valid

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


def test_products_are_asked_about_without_a_clock() -> None:
    cubes = [mul(x, mul(x, x)) for x in (Q, K, N)]
    hard = conj(eq(add(cubes[0], add(cubes[1], cubes[2])), 114), ge(Q, 50), lt(K, -50))
    with compiling() as left:
        answer = satisfiable(hard)
    assert answer == Answer("undecided", reason="the solver found no answer within its budget of work")
    # All that it did is charged, and it did no more than it may: the rest is writing the question down.
    assert abs(left.spent - DEAREST) < DEAREST // 50


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


@pytest.mark.parametrize(
    ("claim", "given"),
    [
        (ge(mul(Q, Q), 0), TRUE),
        (ge(mul(Q, K), Q), conj(ge(Q, 0), ge(K, 1))),
        (le(mul(Q, K), mul(N, N)), conj(le(0, Q), lt(Q, N), le(0, K), lt(K, N))),
        (lt(mul(Q, K), mul(N, N)), conj(le(0, Q), lt(Q, N), le(0, K), lt(K, N))),
        (eq(mul(add(Q, K), add(Q, K)), add(mul(Q, Q), mul(2, mul(Q, K)), mul(K, K))), TRUE),
        (le(mul(Q, mul(Q, K)), mul(N, mul(N, N))), conj(le(0, Q), lt(Q, N), le(0, K), lt(K, N))),
        (eq(mul(K, mod(Q, 2)), 0), conj(ge(K, 0), eq(mod(Q, 4), 2))),
        (lt(mul(K, -1), mul(Q, K)), conj(ge(K, 1), ge(Q, 0))),
        (eq(mul(Q, K), 12), conj(eq(Q, 3), eq(K, 4))),
        (eq(floor_div(mul(Q, K), 7), 5), conj(eq(Q, 6), eq(K, 6))),
    ],
)
def test_products_of_variables(claim: Expr, given: Expr) -> None:
    assert valid(claim, [given]).outcome == "proven"


@pytest.mark.parametrize(
    "condition",
    [
        eq(mul(Q, K), 35),
        lt(mul(K, K), mul(N, Q)),
        lt(mul(N, 3), mul(Q, K)),
        conj(ge(Q, 1), eq(mod(mul(Q, K), 7), 3)),
        lt(add(mul(N, N), 5), mul(mul(Q, Q), add(K, -2))),
    ],
)
def test_the_least_assignment_that_multiplies(condition: Expr) -> None:
    places = ((n, q, k) for n in range(12) for q in range(n) for k in range(q + 1, n))
    wanted = next(at for at in places if bool(evaluate(condition, Env(dict(zip("nqk", at, strict=True))))))
    answer = least(conj(FUTURE, condition), (N, Q, K))
    assert answer.outcome == "refuted" and answer.minimal
    assert tuple(answer.variables[name] for name in ("n", "q", "k")) == wanted


def test_the_same_question_takes_the_same_work_whatever_was_asked_before() -> None:
    first = conj(FUTURE, eq(mod(mul(3, K), 128), 120), ge(floor_div(Q, 7), 5))
    spent = []
    for before in (
        TRUE,
        conj(FUTURE, eq(floor_div(mul(5, Q), 11), add(K, -100))),
        eq(mod(K, 97), mod(N, 89)),
    ):
        least.cache_clear()  # type: ignore[attr-defined]
        least(before, ())
        with compiling() as left:
            least(first, (N, Q, K))
        spent.append(left.spent)
    assert len(set(spent)) == 1 and spent[0] > 0


FAULTS = """
import resource
import attnc.codegen.module, attnc.pipeline
from attnc.expression import K, N, Q, add, conj, le, lt
from attnc.solver import Question
taken = []
for distance in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    Question(conj(le(0, Q), lt(Q, K), lt(K, N), le(add(Q, distance), K))).least((N,))
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(taken)[4])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about the C library of Linux")
def test_a_question_takes_the_memory_that_the_one_before_it_left() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # pages; a context has some 4,000

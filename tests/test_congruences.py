"""Several congruences as one: the same numbers, whatever they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attnc.congruences import joined
from attnc.evaluation import Env, evaluate
from attnc.expression import FALSE, K, Q, add, conj, eq, le, mod, neg

DIVISORS = st.integers(1, 12)


@given(st.lists(st.tuples(DIVISORS, st.integers(0, 11), st.integers(-9, 9)), min_size=2, max_size=4))
def test_joined_congruences_say_the_same(found: list[tuple[int, int, int]]) -> None:
    distance = add(Q, neg(K))
    parts = [eq(mod(add(distance, shift), divisor), rest % divisor) for divisor, rest, shift in found]
    one = conj(*joined(parts))
    for k in range(0, 400, 7):
        places = Env({"q": 150, "k": k})
        assert bool(evaluate(one, places)) == bool(evaluate(conj(*parts), places))


def test_what_contradicts_itself_is_nothing() -> None:
    assert joined([eq(mod(Q, 6), 1), eq(mod(Q, 10), 2)]) == (FALSE,)


def test_other_conditions_stay() -> None:
    other, first, second = le(Q, K), eq(mod(Q, 6), 1), eq(mod(K, 10), 3)
    assert joined([first, other, second]) == (other, first, second)

"""Short files do not take long: a compile counts its work, and says so where that is too much."""

from __future__ import annotations

import pytest

from attnc import budget
from attnc.budget import OutOfWork, allows, charge, compiling, priced, share, spend


def test_work_is_refused_once_the_budget_is_spent() -> None:
    with compiling(100) as left:
        spend(60, "one")
        assert not allows(41, "two") and not allows(1, "three")  # after the first refusal all is refused
        assert (left.spent, left.refused, left.refusals) == (60, "two", 2)
        with pytest.raises(OutOfWork, match=r"four takes more than the 100 steps"):
            spend(1, "four")
    with compiling(100):  # every pattern has its own
        spend(100, "one")
        assert not allows(0, "nothing is left")
    assert budget.current() is None and allows(1 << 62, "nothing is limited")


def test_a_share_keeps_the_rest_for_later() -> None:
    with compiling(100):
        with share(0.5):
            assert allows(50, "one") and not allows(1, "two")
        assert allows(50, "three")
        charge(1)
        assert not allows(0, "four")


def test_what_was_found_before_costs_the_same_again() -> None:
    calls = []

    @priced(2)
    def work(steps: int) -> bool:
        calls.append(steps)
        return allows(steps, "it")

    for _ in range(2):
        with compiling(100) as left:
            assert work(40) and work(40) and left.spent == 80
            assert not work(40)  # what there is too little for is not taken from the cache, nor kept there
            assert not work(10)
    assert calls == [40, 40, 10, 40, 10]
    assert work(40) and work(10) and calls[5:] == [10]

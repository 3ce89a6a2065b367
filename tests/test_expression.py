"""Expressions: one object each, however they come about, and none kept that nobody holds."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from attnc.expression import Const, Expr, K, Lookup, N, Q, Sum, Var, add, conj, floor_div, le, mod


def _some(size: int) -> Expr:
    return conj(le(floor_div(Q, size), add(floor_div(K, size), 1)), le(mod(K, size), Lookup("x", (Q,))))


def test_equal_expressions_are_one_object() -> None:
    assert _some(640) is _some(640) and _some(640) is not _some(641)
    assert Lookup("x", (Q,)) is Lookup("x", index=(Q,), kind="int")
    assert Var("q") is Q and Var("q") != Const(1)


def test_copies_are_the_expression_itself() -> None:
    expr = _some(64)
    assert copy.deepcopy(expr) is expr and pickle.loads(pickle.dumps(expr)) is expr


def test_fields_are_fixed_and_complete() -> None:
    with pytest.raises(AttributeError):
        N.name = "m"  # type: ignore[misc]
    with pytest.raises(TypeError, match="Sum takes terms, constant"):
        Sum(())  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Var("q", "k")  # type: ignore[call-arg]


def test_what_nobody_holds_is_forgotten() -> None:
    before = len(Lookup._held)
    many = [Lookup(f"table {i}", (Q,)) for i in range(100)]
    assert len(Lookup._held) == before + 100
    del many
    gc.collect()
    assert len(Lookup._held) == before


def test_threads_agree() -> None:
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(20):
            found = list(pool.map(lambda i: Var(f"thread {i % 4}"), range(round_, round_ + 64)))
            assert len(set(found)) == 4

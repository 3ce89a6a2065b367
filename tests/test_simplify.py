"""Conditions that are met at some place the solver needn't be asked about; no other is taken for such."""

from __future__ import annotations

import pytest

from attnc import simplify
from attnc.expression import (
    FALSE,
    HEAD,
    ZERO,
    Const,
    Drawn,
    Expr,
    K,
    Lookup,
    N,
    Q,
    Var,
    add,
    between,
    conj,
    eq,
    floor_div,
    le,
    lt,
    mod,
    mul,
    negate,
    scale,
)
from attnc.relation import POSITIONS

DRAW = Drawn(Const(2), Const(0), False, Q, K, N)
MET: list[Expr] = [
    lt(Q, K),
    conj(le(add(Q, -63), K), le(K, Q), lt(floor_div(K, 64), floor_div(Q, 64))),
    eq(mod(add(Q, scale(-1, K)), 64), 0),
    DRAW,
    conj(DRAW, le(HEAD, 7)),
]
NEVER: list[Expr] = [
    FALSE,
    lt(K, 0),
    lt(N, add(K, 1)),
    conj(lt(Q, K), lt(K, Q)),
    eq(mod(scale(2, K), 2), 1),
    conj(DRAW, le(N, K)),
    conj(le(Q, scale(-(2**62), K)), lt(ZERO, Q)),
    # Beyond 64 bits, where numpy would go round and find something.
    lt(mul(mul(mul(N, N), mul(N, N)), mul(N, N)), 0),
]


@pytest.mark.parametrize("condition", MET, ids=str)
def test_what_is_met_is_not_asked(condition: Expr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplify, "satisfiable", lambda *_: pytest.fail("the solver was asked"))
    assert not simplify.impossible(POSITIONS, condition)


@pytest.mark.parametrize("condition", NEVER, ids=str)
def test_what_never_holds_is_not_found(condition: Expr) -> None:
    assert not simplify._met(conj(POSITIONS, condition))


@pytest.mark.parametrize("condition", [Lookup("x", (Q,), "bool"), lt(Var("q0"), K), negate(DRAW)], ids=str)
def test_what_hangs_on_more_is_left_to_the_solver(condition: Expr) -> None:
    assert not simplify._met(conj(POSITIONS, condition))
    assert not simplify.impossible(POSITIONS, condition)


def test_proofs_are_the_solver_s() -> None:
    assert simplify.holds(le(K, Q), POSITIONS, between(ZERO, K, Q))
    assert simplify.impossible(POSITIONS, lt(N, 1))

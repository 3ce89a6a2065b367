"""The dense interpreter, on patterns built by hand: what it means, what it refuses, what it computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from attnc import draws, reference
from attnc.diagnostics import Source, Span
from attnc.expression import (
    HEAD,
    HEADS,
    TRUE,
    Const,
    Drawn,
    Expr,
    K,
    Lookup,
    N,
    Q,
    add,
    between,
    conj,
    disj,
    eq,
    floor_div,
    ge,
    le,
    lt,
    mod,
    sub,
)
from attnc.pattern import (
    Atom,
    Body,
    Complement,
    Difference,
    Heads,
    Input,
    Intersection,
    Pattern,
    Relation,
    Union,
)

NOWHERE = Span(0, 0)


def atom(formula: Expr) -> Atom:
    return Atom(formula, "…", NOWHERE)


def body(relation: Relation, condition: Expr = TRUE, text: str = "all") -> Body:
    return Body(Heads(condition, text, NOWHERE), relation)


def pattern(*bodies: Body, inputs: tuple[Input, ...] = ()) -> Pattern:
    return Pattern("p", (), inputs, (), bodies, (), NOWHERE, Source("p.attn", ""))


CAUSAL = atom(le(K, Q))
WINDOW = atom(between(0, sub(Q, K), 2))
MARKED = Input("marked", "bool", (N,), NOWHERE)
DOCUMENT = Input("document", "int", (N,), NOWHERE)


# --- masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_causal(n: int) -> None:
    got = reference.mask(pattern(body(CAUSAL)), n, heads=2)
    assert got.shape == (2, n, n)
    assert got.dtype == np.bool_
    assert (got == np.tri(n, dtype=bool)).all()


def test_fewer_queries_are_the_last_ones() -> None:
    whole = reference.mask(pattern(body(WINDOW)), 9)
    for n_q in range(10):
        assert (reference.mask(pattern(body(WINDOW)), 9, n_q=n_q) == whole[:, 9 - n_q :]).all()


def test_the_tree_of_relations() -> None:
    stride = atom(eq(mod(sub(Q, K), 3), 0))
    n = 8
    q, k = np.mgrid[:n, :n]
    causal, window, strided = k <= q, (q - k >= 0) & (q - k <= 2), (q - k) % 3 == 0
    for relation, wanted in [
        (Union((WINDOW, stride), NOWHERE), window | strided),
        (Intersection((CAUSAL, stride), NOWHERE), causal & strided),
        (Difference(CAUSAL, WINDOW, NOWHERE), causal & ~window),
        (Complement(stride, NOWHERE), ~strided),
        (
            Complement(Difference(CAUSAL, Union((WINDOW, stride), NOWHERE), NOWHERE), NOWHERE),
            ~causal | window | strided,
        ),
    ]:
        assert (reference.mask(pattern(body(relation)), n)[0] == wanted).all()


def test_a_relation_without_variables_fills_the_mask() -> None:
    assert reference.mask(pattern(body(atom(TRUE))), 3, heads=2, n_q=2).tolist() == [[[True] * 3] * 2] * 2


def test_heads_have_their_own_bodies() -> None:
    even, odd = eq(mod(HEAD, 2), 0), eq(mod(HEAD, 2), 1)
    got = reference.mask(pattern(body(CAUSAL, even), body(WINDOW, odd)), 6, heads=3)
    alone = [reference.mask(pattern(body(one)), 6)[0] for one in (CAUSAL, WINDOW)]
    assert (got == np.stack([alone[0], alone[1], alone[0]])).all()


def test_a_formula_may_read_the_head_and_their_number() -> None:
    got = reference.mask(pattern(body(atom(le(sub(Q, K), add(HEAD, HEADS))))), 9, heads=3)
    q, k = np.mgrid[:9, :9]
    assert (got == np.stack([q - k <= h + 3 for h in range(3)])).all()


@pytest.mark.parametrize(
    ("conditions", "heads", "message"),
    [
        ([lt(HEAD, 2)], 3, r"head 2 of 3 has no body in `p`"),
        ([eq(mod(HEAD, 2), 1)], 1, r"head 0 of 1 has no body in `p`"),
        ([lt(HEAD, 2), ge(HEAD, 1)], 4, r"head 1 of 4 has 2 bodies in `p`, `0` and `1`"),
        ([TRUE, eq(HEAD, sub(HEADS, 1))], 5, r"head 4 of 5 has 2 bodies in `p`, `0` and `1`"),
    ],
)
def test_heads_are_covered_exactly_once(conditions: list[Expr], heads: int, message: str) -> None:
    bodies = [body(CAUSAL, condition, str(place)) for place, condition in enumerate(conditions)]
    with pytest.raises(ValueError, match=message):
        reference.mask(pattern(*bodies), 4, heads=heads)


def test_draws_are_those_of_the_draws_module() -> None:
    drawing = atom(Drawn(Const(3), Const(5), False, Q, K, N))
    got = reference.mask(pattern(body(drawing)), 20, heads=2, n_q=15)
    assert (got.sum(axis=-1) == 3).all()
    chosen = draws.picks(3, 5, False, np.arange(2)[:, None], np.arange(5, 20), 20)
    for h, row, slot in np.ndindex(chosen.shape):
        assert got[h, row, chosen[h, row, slot]]


def test_draws_of_blocks_take_whole_blocks() -> None:
    size, blocks = 4, 6
    drawing = Drawn(
        Const(2), Const(5), False, floor_div(Q, size), floor_div(K, size), floor_div(add(N, size - 1), size)
    )
    got = reference.mask(pattern(body(atom(drawing))), 22)[0]
    chosen = draws.picks(2, 5, False, 0, np.arange(blocks), blocks)
    for q, k in np.ndindex(22, 22):
        assert got[q, k] == (k // size in chosen[q // size].tolist())


def test_draws_in_signed_64_bit_arithmetic_of_torch_are_the_same() -> None:
    row = np.arange(0, 2**31 - 1, 2**31 // 999)

    def mix(x: torch.Tensor) -> torch.Tensor:
        x = x ^ (x >> 15)
        x = (x * 0x2C1B3C6D) & 0xFFFFFFFF
        x = x ^ (x >> 12)
        x = (x * 0x297A2D39) & 0xFFFFFFFF
        return x ^ (x >> 15)

    start = mix(torch.tensor(7 ^ 0x9E3779B9))
    twin = mix(mix(mix(start ^ 3) ^ torch.from_numpy(row)) ^ 2)
    assert twin.tolist() == draws.hashed(7, 3, row, 2).tolist()


# --- inputs ---------------------------------------------------------------------------------------------

TO_MARKED = pattern(body(atom(Lookup("marked", (K,), "bool"))), inputs=(MARKED,))
SAME = pattern(body(atom(eq(Lookup("document", (Q,)), Lookup("document", (K,))))), inputs=(DOCUMENT,))
BOTH = pattern(
    body(atom(disj(Lookup("marked", (K,), "bool"), eq(Lookup("document", (Q,)), Lookup("document", (K,)))))),
    inputs=(MARKED, DOCUMENT),
)


def test_inputs_are_read() -> None:
    marked = np.array([True, False, False, True])
    assert (reference.mask(TO_MARKED, 4, inputs={"marked": marked})[0] == marked).all()
    document = np.array([0, 0, 5, 5, 0], dtype=np.int32)
    got = reference.mask(SAME, 5, inputs={"document": document}, n_q=2)[0]
    assert (got == (document[3:, None] == document)).all()


def test_a_batch_axis_gives_a_batch_of_masks() -> None:
    rng = np.random.default_rng(0)
    marked, document = rng.random((3, 6)) < 0.3, rng.integers(0, 3, (3, 6))
    got = reference.mask(BOTH, 6, heads=2, inputs={"marked": marked, "document": document})
    assert got.shape == (3, 2, 6, 6)
    for entry in range(3):
        single = reference.mask(BOTH, 6, 2, {"marked": marked[entry], "document": document[entry]})
        assert (got[entry] == single).all()
    shared = reference.mask(BOTH, 6, inputs={"marked": marked[0], "document": document})
    assert shared.shape == (3, 1, 6, 6)
    assert (shared == reference.mask(BOTH, 6, inputs={"marked": marked[:1], "document": document})).all()
    assert (shared[0, 0] == got[0, 0]).all()


def test_torch_tensors_and_lists_are_inputs_too() -> None:
    wanted = reference.mask(TO_MARKED, 3, inputs={"marked": np.array([True, False, True])})
    for given in ([True, False, True], torch.tensor([True, False, True])):
        assert (reference.mask(TO_MARKED, 3, inputs={"marked": given}) == wanted).all()


def test_declared_shapes_are_expressions() -> None:
    blocks = Input("marked", "bool", (floor_div(add(N, 63), 64), HEADS), NOWHERE)
    flagged = Lookup("marked", (floor_div(K, 64), HEAD), "bool")
    per_block = pattern(body(atom(conj(flagged, le(K, Q)))), inputs=(blocks,))
    marked = np.array([[True, False], [False, True]])
    got = reference.mask(per_block, 100, heads=2, inputs={"marked": marked})
    q, k = np.mgrid[:100, :100]
    assert (got == np.stack([(k <= q) & marked[k // 64, h] for h in range(2)])).all()
    with pytest.raises(ValueError, match=r"that is \[3, 2\] for n = 129, H = 2"):
        reference.mask(per_block, 129, heads=2, inputs={"marked": marked})


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        ({}, TypeError, r"a mask of `p` needs its input `marked`, `document`: give `inputs=\{'marked': …\}`"),
        ({"marked": np.zeros(4, bool)}, TypeError, r"a mask of `p` needs its input `document`"),
        (
            {"marked": np.zeros(4, bool), "document": np.zeros(4, int), "documents": [0]},
            TypeError,
            r"`p` has no input `documents`: what it has is `marked`, `document`",
        ),
        (
            {"marked": np.zeros(4, int), "document": np.zeros(4, int)},
            TypeError,
            r"input `marked` of `p` must be of kind bool, but has dtype int64",
        ),
        (
            {"marked": np.zeros(4, bool), "document": np.zeros(4)},
            TypeError,
            r"input `document` of `p` must be of kind int, but has dtype float64",
        ),
        (
            {"marked": np.zeros(5, bool), "document": np.zeros(4, int)},
            ValueError,
            r"input `marked` of `p` is declared bool\[n\], that is \[4\] .* given was \[5\]",
        ),
        (
            {"marked": np.zeros((1, 2, 4), bool), "document": np.zeros(4, int)},
            ValueError,
            r"given was \[1, 2, 4\]",
        ),
        (
            {"marked": np.zeros((2, 4), bool), "document": np.zeros((3, 4), int)},
            ValueError,
            r"batch axes of different sizes: `marked` has 2, `document` has 3",
        ),
    ],
)
def test_bad_inputs(inputs: dict[str, np.ndarray], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        reference.mask(BOTH, 4, inputs=inputs)


def test_superfluous_input_of_a_pattern_without_any() -> None:
    with pytest.raises(TypeError, match="has no input `x`: it has none"):
        reference.mask(pattern(body(CAUSAL)), 4, inputs={"x": [1]})


@pytest.mark.parametrize(
    ("n", "heads", "n_q", "kind", "words"),
    [
        (-1, 1, None, ValueError, "n must be at least 0, not -1"),
        (4, 0, None, ValueError, "heads must be at least 1, not 0"),
        (4, 1, 5, ValueError, "n_q must be at most n = 4, not 5"),
        (4, 1, -1, ValueError, "n_q must be at least 0, not -1"),
        ("5", 1, None, TypeError, "n must be an integer, not '5'"),
        (2.5, 1, None, TypeError, "n must be an integer, not 2.5"),
        (True, 1, None, TypeError, "n must be an integer, not True"),
        (4, None, None, TypeError, "heads must be an integer, not None"),
        (4, 1, "3", TypeError, "n_q must be an integer, not '3'"),
        (10**7, 1, None, ValueError, "would have 1 x 10000000 x 10000000 entries.*at most 268435456"),
        (1 << 14, 2, None, ValueError, "would have 2 x 16384 x 16384 entries"),
    ],
)
def test_impossible_sizes(n: Any, heads: Any, n_q: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        reference.mask(pattern(body(CAUSAL)), n, heads, n_q=n_q)


def test_a_batch_can_be_too_large() -> None:
    marked, document = np.zeros((2, 1 << 14), bool), np.zeros(1 << 14, int)
    with pytest.raises(ValueError, match="would have 2 x 1 x 16384 x 16384 entries"):
        reference.mask(BOTH, 1 << 14, inputs={"marked": marked, "document": document})


def test_a_long_mask_of_few_queries() -> None:
    assert reference.mask(pattern(body(CAUSAL)), 10**6, n_q=np.int64(1)).sum() == 10**6


def test_no_keys() -> None:
    assert reference.mask(
        replace(BOTH), 0, 2, {"marked": np.zeros(0, bool), "document": np.zeros(0, int)}
    ).shape == (2, 0, 0)

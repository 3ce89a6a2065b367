"""Claims: what is proven has no counterexample, what is refuted has a real one, and the least."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnc import proofs, reference
from attnc.decompose import decompose
from attnc.diagnostics import Diagnostic, Source, render
from attnc.parser import parse, read
from attnc.pattern import Pattern
from attnc.proofs import ClaimResult, Finding
from attnc.resolver import resolve

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.attn"))

INPUTS = {"b": "input b: bool[n]", "x": "input x: int[n]"}


def pattern(body: str, *claims: str) -> Pattern:
    """A pattern of one relation (or several items), with the inputs that it names and some claims."""
    used = [line for name, line in INPUTS.items() if f"({name})" in body or f"{name}[" in body]
    attend = body if "attend" in body else f"attend {body}"
    lines = [*used, attend, *(f"require {claim}" for claim in claims)]
    return resolve(parse(Source("t.attn", "pattern t() {\n" + "\n".join(lines) + "\n}\n"))).patterns[0]


def judged(body: str, claim: str) -> Finding:
    made = pattern(body, claim)
    (result,) = proofs.prove_claims(made, decompose(made))
    return result.finding


def complaint(body: str, *claims: str) -> Diagnostic:
    made = pattern(body, *claims)
    (found,) = proofs.claim_diagnostics(made, proofs.prove_claims(made, decompose(made)))
    return found


def under(made: Pattern, finding: Finding) -> str:
    assert finding.span is not None
    return made.source.text[finding.span.start : finding.span.end]


# --- causal ---------------------------------------------------------------------------------------------

CAUSAL = [
    "causal",
    "self",
    "none",
    "window(4095)",
    "window(511, dilation=3)",
    "chunk(8192) & causal",
    "stride(128) & causal",
    "(chunk(128) | to(every(128, 120))) & causal",
    "offsets({0, 3, 17})",
    "offsets(powers(2))",
    "causal & !same(x)",
    "same(x) - !causal",
    "to(b) & from(b) & causal",
    "random(3, seed=5, past=true)",
    "random(3, seed=5) & causal",
    "where k <= q and q < n / 2 | window(4)",
    "where 3 * k <= 2 * q",
    "heads even { attend causal } heads odd { attend window(7) }",
]


@pytest.mark.parametrize("body", CAUSAL)
def test_causal_is_proven(body: str) -> None:
    assert judged(body, "causal").verdict == "proven"


# Body, witness (n, q, k), the part that is to blame.
NOT_CAUSAL = [
    ("all", (2, 0, 1), "all"),
    ("chunk(128) & causal | to(every(128, 120))", (121, 0, 120), "to(every(128, 120))"),
    ("window(4, 1)", (2, 0, 1), "window(4, 1)"),
    ("causal | to({500})", (501, 0, 500), "to({500})"),
    ("causal | where k == q + 4096", (4097, 0, 4096), "where k == q + 4096"),
    (
        "causal | (chunk(64) & from(every(64, 63))) | where q == 100000 and k > q",
        (100002, 100000, 100001),
        None,
    ),
    ("window(4) | to(b)", (2, 0, 1), "to(b)"),
    ("same(x)", (2, 0, 1), "same(x)"),
    ("all - where k > q and k < 200", (201, 0, 200), "all"),
    ("causal | to(last(2)) & from({3})", (5, 3, 4), "to(last(2)) & from({3})"),
    ("causal | blocks(16, to(first(2)))", (2, 0, 1), "to(first(2))"),
    ("blocks(16, causal)", (2, 0, 1), "causal"),
    ("!causal", (2, 0, 1), "!causal"),
    ("heads even { attend causal } heads odd { attend causal | to({9}) }", (10, 0, 9), "to({9})"),
]


@pytest.mark.parametrize(("body", "witness", "blamed"), NOT_CAUSAL, ids=[row[0] for row in NOT_CAUSAL])
def test_causal_is_refuted_with_the_least_witness(
    body: str, witness: tuple[int, int, int], blamed: str | None
) -> None:
    made = pattern(body)
    found = proofs.causal(made)
    assert found.verdict == "refuted" and found.witness is not None
    n, q, k = (found.witness[name] for name in ("n", "q", "k"))
    assert (n, q, k) == witness
    if blamed is not None:
        assert under(made, found) == blamed
    if n < 1000:
        assert reference.mask(made, n, found.heads, found.inputs)[found.head, q, k]


def test_a_global_token_in_the_middle_breaks_a_causal_window() -> None:
    found = complaint("window(7) | to({12})", "causal")
    assert found.code == "not-causal"
    assert found.label == "query 0 reads key 12"
    assert found.notes == ("refuted for n = 13; holds for no n > 12",)
    assert found.help == "write `(… | to({12})) & causal`"


def test_a_refutation_that_does_not_last_says_so() -> None:
    # The last position is read only by the one before it, and only at one length.
    assert judged("causal | where q == 3 and k == n - 1 and n == 7", "causal").note == (
        "refuted for n = 7; holds for every n < 7"
    )


def test_a_draw_from_all_keys_reads_the_future_for_real() -> None:
    made = pattern("random(2, seed=1)")
    found = proofs.causal(made)
    assert found.verdict == "refuted" and found.witness is not None
    n, q, k = (found.witness[name] for name in ("n", "q", "k"))
    assert reference.mask(made, n, found.heads)[found.head, q, k]
    assert not any(np.triu(reference.mask(made, m, found.heads), 1).any() for m in range(n))


def test_draws_that_never_fall_outside_are_not_called_causal() -> None:
    # Whether the one pair was drawn is a matter of the draw, and the real draws are asked.
    for row in range(2, 9):
        body = f"causal | random(1, seed=3) & where q == {row} and k == q + 1 and n == 200 and h == 0"
        found = judged(body, "causal")
        drawn = bool(reference.mask(pattern("random(1, seed=3)"), 200)[0, row, row + 1])
        assert found.verdict == ("refuted" if drawn else "proven")


# --- nonempty -------------------------------------------------------------------------------------------

NONEMPTY = [
    "all",
    "self",
    "causal",
    "window(511)",
    "window(0, 0)",
    "same(x)",
    "same(x) & causal",
    "to(first(4))",
    "to(last(3))",
    "to(every(128))",
    "causal & to(first(1)) | from(first(0 + 7))",
    "random(3, seed=0)",
    "random(3, seed=0, past=true)",
    "blocks(64, random(2, seed=9))",
    "offsets(powers(2)) & causal",
    "stride(7)",
    "where k <= q - 100 | from(first(100)) - to({3})",
    "where k == q / 2",
    "where k == n - 1 - q",
    "where abs(q - k) == 1 or n == 1",
    "where k % 64 == 3 | where k < 3",
    "where k >= q / 16 * 16 and k < q / 16 * 16 + 1",
    "blocks(8, window(1, 1) - self) | window(3, 3)",
    "heads even { attend self } heads odd { attend to(first(2)) }",
]


@pytest.mark.parametrize("body", NONEMPTY)
def test_nonempty_is_proven(body: str) -> None:
    assert judged(body, "nonempty").verdict == "proven"


# Body and witness (n, q).
MAY_BE_EMPTY: list[tuple[str, tuple[int, int]]] = [
    ("none", (1, 0)),
    ("causal - self", (1, 0)),
    ("to(b)", (1, 0)),
    ("from(b)", (1, 0)),
    ("same(x) - self", (1, 0)),
    ("causal & to(last(3))", (4, 0)),
    ("to({500}) | from(first(3))", (4, 3)),
    ("window(5) - window(4096)", (1, 0)),
    ("window(9000) - from({4096})", (4097, 4096)),
    ("offsets(powers(2)) & where q - k >= 3", (1, 0)),
    ("self - where q % 3000 == 2999", (3000, 2999)),
    ("heads even { attend causal } heads odd { attend causal - from({6}) }", (7, 6)),
]


@pytest.mark.parametrize(("body", "witness"), MAY_BE_EMPTY, ids=[row[0] for row in MAY_BE_EMPTY])
def test_nonempty_is_refuted_with_the_least_witness(body: str, witness: tuple[int, int]) -> None:
    made = pattern(body)
    found = proofs.nonempty(made, decompose(made))
    assert found.verdict == "refuted" and found.witness is not None
    n, q = found.witness["n"], found.witness["q"]
    assert (n, q) == witness
    assert not reference.mask(made, n, found.heads, found.inputs, min(n, n - q))[found.head, 0].any()


def test_an_empty_row_that_hangs_on_draws_is_a_real_one() -> None:
    made = pattern("random(2, seed=1) & causal")
    found = proofs.nonempty(made, decompose(made))
    assert found.verdict == "refuted" and found.witness is not None
    n, q = found.witness["n"], found.witness["q"]
    assert not reference.mask(made, n, found.heads)[found.head, q].any()


def test_a_witness_need_not_be_short() -> None:
    found = proofs.causal(pattern("where q + 5000000 <= k"))
    assert found.witness == {"q": 0, "k": 5000000, "n": 5000001}


def test_draws_are_blamed_for_nothing_that_is_not_drawn() -> None:
    made = pattern("where k <= q and q < 5000000")
    found = proofs.nonempty(made, decompose(made))
    assert found.verdict == "undecided"
    assert found.note == "the solver's counterexample has n = 5,000,001, too long to be replayed"


def test_inputs_that_are_too_large_are_not_filled_in() -> None:
    """Of 2**31 heads, say: 16 GB."""
    text = "heads 0..2147483647 { attend causal }\nheads rest { attend where k > q"
    made = pattern(f"input t: int[H]\n{text} and t[h] == 0 }}")
    for found in (proofs.causal(made), proofs.nonempty(made, decompose(made))):
        assert found.verdict == "undecided"
        assert "H = 2,147,483,648, and inputs too large to be replayed" in found.note
    weighed = pattern(f"input t: float[H]\n{text} }}")  # the mask does not depend on these
    for found in (proofs.causal(weighed), proofs.nonempty(weighed, decompose(weighed))):
        assert (found.verdict, found.heads, found.inputs) == ("refuted", 2**31, {})


def test_empty_rows_are_told_with_the_mend() -> None:
    found = complaint("causal - self", "nonempty")
    assert (found.code, found.label) == ("may-be-empty", "query 0 reads no key when n = 1")
    assert found.help == "write `causal - self | self`"


# --- edges and FLOPs ------------------------------------------------------------------------------------

WITHIN = [
    ("all", "edges <= n * n"),
    ("causal", "edges <= n * (n + 1) / 2"),
    ("causal - self", "edges <= n * (n - 1) / 2 + n"),
    ("window(4095)", "edges <= n * 4096"),
    ("window(256, 256)", "edges <= n * 513"),
    ("window(15, 16, dilation=4)", "edges <= 32 * n"),
    ("window(256, 256) | to(b) | from(b)", "edges <= n * 513 + 2 * n * count(b)"),
    ("chunk(512)", "edges <= 512 * n"),
    ("chunk(512) & causal", "edges <= 512 * n"),
    ("stride(128)", "edges <= n * (n + 128) / 128 + n"),
    ("stride(128) & causal", "edges <= n * (n + 256) / 256"),
    ("blocks(64, window(1, 1))", "edges <= 192 * n"),
    ("blocks(64, window(1, 1) | to(first(1)))", "edges <= 256 * n"),
    ("to(every(128, 120)) & causal", "edges <= n * (n + 128) / 128"),
    ("random(3, seed=0)", "edges <= 3 * n"),
    ("random(3, seed=0) | window(4)", "edges <= 8 * n"),
    ("to({0, 7, 19})", "edges <= 3 * n"),
    ("to(b) & from(b)", "edges <= count(b) * count(b)"),
    ("to(b)", "edges <= n * count(b)"),
    ("window(99) - from(first(230))", "edges <= 100 * n"),
    ("where abs(q - k) <= 10", "edges <= 21 * n"),
    ("heads even { attend window(9) } heads odd { attend window(19) }", "edges <= 20 * n"),
    ("window(9)", "edges <= min(10 * n, n * n)"),
    ("none", "edges <= 0"),
    ("causal", "flops <= 2 * d * n * (n + 1)"),
    ("window(1023)", "flops <= 4096 * d * n"),
]


@pytest.mark.parametrize(("body", "claim"), WITHIN, ids=[" ".join(row) for row in WITHIN])
def test_bounds_are_proven(body: str, claim: str) -> None:
    assert judged(body, claim).verdict == "proven"


# Body, claim, the least n (for some input).
EXCEEDED = [
    ("all", "edges <= n * (n - 1)", 1),
    ("causal", "edges <= n * n / 2", 1),
    ("causal", "edges <= 4096 * n", 8192),
    ("causal", "edges <= 100000 * n", 200000),
    ("window(15)", "edges <= 15 * n", 121),
    ("window(7, 7)", "edges <= 14 * n", 57),
    ("window(8, 8) | to(b)", "edges <= 17 * n", 18),
    ("to(b)", "edges <= n * count(b) - 1", 0),
    ("window(100, 100) | to(b)", "edges <= 201 * n", 202),
    ("window(200, 200) | to(b) | from(b)", "edges <= 401 * n + n * count(b)", None),
    ("none", "edges <= n - 2", 0),
    ("heads even { attend self } heads odd { attend window(2) }", "edges <= 2 * n", 4),
    ("window(3)", "flops <= 12 * d * n", 7),
]


@pytest.mark.parametrize(("body", "claim", "n"), EXCEEDED, ids=[" ".join(row[:2]) for row in EXCEEDED])
def test_bounds_are_refuted_at_the_least_length(body: str, claim: str, n: int | None) -> None:
    found = judged(body, claim)
    assert found.verdict == "refuted" and found.witness is not None
    assert n in (None, found.witness["n"]), found.note


def test_an_exceeded_bound_is_told() -> None:
    found = complaint("window(15)", "edges <= 15 * n")
    assert (found.code, found.label) == ("edges-exceeded", "more edges when n = 121")
    assert found.notes == ("refuted for n = 121: 1,816 edges, claimed 1,815",)


def test_what_reaches_too_late_is_mended_without_reading_the_future() -> None:
    late = complaint("(window(32) | to(every(64))) & causal", "causal", "reach <= 2")
    assert (late.code, late.label) == ("reach-exceeded", "key 1 does not reach query 66 when n = 67")
    assert late.help == "claim more layers, or let fewer steps lead from key 1 to query 66"
    either = complaint("window(32) | to(every(64))", "reach <= 2")
    assert either.help is not None and either.help.endswith("`| to({0}) | from({0})`")


APART = [
    ("self", "reach <= 3", "key 0 never reaches query 1 when n = 2", "from({0})"),
    ("causal & chunk(8)", "causal reach <= 9", "key 0 never reaches query 8 when n = 9", "key 0 to query 8"),
    ("chunk(2048)", "reach <= 3", "never reaches", "from({0})"),
    ("to(b) | from(b)", "reach <= 2", "key 1 never reaches query 0 when n = 2", "from({0})"),
]


@pytest.mark.parametrize(("body", "claims", "label", "help"), APART)
def test_what_no_number_of_layers_connects_is_not_answered_by_more(body, claims, label, help) -> None:
    found = complaint(body, *re.split(r" (?=reach)", claims))
    assert found.message.endswith("but no number of layers is enough")
    assert label in found.label and "more layers" not in found.help
    assert "edges between positions" in found.help and help in found.help


# --- assumed claims, undecided claims -------------------------------------------------------------------


def test_an_assumed_claim_is_no_error() -> None:
    text = "pattern t() { attend all assume causal }"
    made = resolve(parse(Source("t.attn", text))).patterns[0]
    results = proofs.prove_claims(made, decompose(made))
    assert [r.finding.verdict for r in results] == ["refuted"]
    assert proofs.claim_diagnostics(made, results) == ()


def test_undecided_is_an_error_that_names_the_way_out() -> None:
    made = pattern("causal", "causal")
    result = ClaimResult(made.claims[0], Finding("undecided", note="the solver gave up: timeout"))
    (found,) = proofs.claim_diagnostics(made, (result,))
    assert found.code == "undecided-claim"
    assert found.notes == ("the solver gave up: timeout",)
    assert found.help is not None and "assume" in found.help


# --- index bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "same(x)",
        "where x[q] == x[k]",
        "where q >= 3 and x[q - 3] == x[k]",
        "where q < 3 or x[q - 3] == x[k]",
        "where x[n - 1 - q] == x[k / 2]",
        "where q >= 3 & where x[q - 3] == x[k]",
        "where x[max(q - 3, 0)] == x[min(k + 5, n - 1)]",
        "blocks(4, where k == q) & where b[q]",
        "(where k > 2) - (where k > 3 and x[k - 3] == 0)",
    ],
)
def test_indices_that_stay_inside(body: str) -> None:
    assert proofs.index_bounds(pattern(body)) == ()


@pytest.mark.parametrize(
    ("body", "label"),
    [
        ("where x[q - 3] == x[k]", "`q - 3` is outside of 0..n when q = 0, n = 1"),
        ("where q >= 2 and x[q - 3] == x[k]", "`q - 3` is outside of 0..n when q = 2, n = 3"),
        ("where x[k + 1] == 0", "`k + 1` is outside of 0..n when k = 0, n = 1"),
        ("where b[q + k]", "`k + q` is outside of 0..n when q = 1, k = 1, n = 2"),
    ],
)
def test_indices_that_leave_the_input(body: str, label: str) -> None:
    (found,) = proofs.index_bounds(pattern(body))
    assert found.code == "index-out-of-range"
    assert found.label == label


# --- against brute force --------------------------------------------------------------------------------

ATOMS = [
    "causal",
    "self",
    "window(2)",
    "window(1, 2)",
    "window(2, 1, dilation=2)",
    "chunk(4)",
    "stride(3)",
    "to(first(2))",
    "to(last(2))",
    "to({5})",
    "from({3, 9})",
    "to(every(4, 2))",
    "offsets({-2, 0, 3})",
    "offsets(powers(2))",
    "where k < q / 2 + 1",
    "where q + k < n",
    "where q % 3 == 1",
    "blocks(3, window(1))",
    "blocks(4, to(last(1)))",
    "to(b)",
    "same(x)",
]


def drawn_relation(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        atom = rng.choice(ATOMS)
        return f"!({atom})" if rng.random() < 0.15 else atom
    parts = [drawn_relation(rng, depth - 1) for _ in range(rng.choice((2, 2, 3)))]
    # Brackets everywhere: `where` reaches as far as it can.
    return f" {rng.choice('||&-')} ".join(f"({part})" for part in parts)


def contents(made: Pattern, n: int) -> Iterator[Mapping[str, np.ndarray[Any, Any]]]:
    """All contents of short inputs, a few of long ones."""
    names = [given.name for given in made.inputs]
    choices = (
        {"b": [np.array(bits, dtype=bool) for bits in product((False, True), repeat=n)]}
        if n <= 4
        else {"b": [np.zeros(n, bool), np.ones(n, bool), np.arange(n) % 3 == 1, np.arange(n) == n - 1]}
    )
    choices["x"] = [np.zeros(n, int), np.arange(n), np.arange(n) // 3, np.arange(n) % 2]
    yield from (
        dict(zip(names, values, strict=True)) for values in product(*(choices[name] for name in names))
    )


@pytest.mark.parametrize("seed", range(60))
def test_verdicts_agree_with_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    made = pattern(drawn_relation(rng, 2))
    causal, filled = proofs.causal(made), proofs.nonempty(made, ())
    first_future: int | None = None
    first_empty: int | None = None
    for n in (*range(1, 15), 17, 23, 40):
        for tables in contents(made, n):
            mask = reference.mask(made, n, 1, tables)[0]
            if first_future is None and np.triu(mask, 1).any():
                first_future = n
            if first_empty is None and not mask.any(axis=1).all():
                first_empty = n
    text = made.source.text
    assert causal.verdict != "undecided", text
    for found, first in ((causal, first_future), (filled, first_empty)):
        if found.verdict == "proven":
            assert first is None, text
        if found.verdict == "refuted":
            assert found.witness is not None
            n, q = found.witness["n"], found.witness["q"]
            row = reference.mask(made, n, 1, found.inputs)[0, q]
            assert row[found.witness["k"]] if "k" in found.witness else not row.any(), text
            assert first is None or n <= first, text


@pytest.mark.parametrize("seed", range(40))
def test_edge_bounds_are_never_too_low(seed: int) -> None:
    """A bound that is tight at one length is proven only if it holds at all of them."""
    rng = random.Random(1000 + seed)
    body = drawn_relation(rng, 2)
    bare = pattern(body)
    per_row = rng.choice((1, 2, 3, 4, 5, 8))
    claim = rng.choice(
        (f"edges <= {per_row} * n", f"edges <= n * (n + {per_row}) / 2", "edges <= n * n / 2 + n")
    )
    (result,) = proofs.prove_claims(pattern(body, claim), ())
    found = result.finding
    limit = {
        "edges <= n * n / 2 + n": lambda n: n * n // 2 + n,
        f"edges <= {per_row} * n": lambda n: per_row * n,
    }.get(claim, lambda n: n * (n + per_row) // 2)
    worst = None
    for n in range(41) if not bare.inputs else (*range(12), 23, 40):
        for tables in contents(bare, n):
            if worst is None and int(reference.mask(bare, n, 1, tables).sum()) > limit(n):
                worst = n
    if found.verdict == "proven":
        assert worst is None, bare.source.text
    if found.verdict == "refuted":
        assert found.witness is not None
        n = found.witness["n"]
        assert int(reference.mask(bare, n, 1, found.inputs).sum()) > limit(n)
        assert worst is None or bare.inputs or n == worst, bare.source.text


# --- the examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_keep_their_claims(path: Path) -> None:
    for made in resolve(parse(read(path))).patterns:
        results = proofs.prove_claims(made, decompose(made))
        assert {r.claim.text: r.finding.verdict for r in results} == {c.text: "proven" for c in made.claims}
        assert proofs.index_bounds(made) == ()


# --- bounds that forget the shortest sequences ----------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "claim", "help"),
    [
        ("window(1)", "2*n - 1", "of n <= 64, it fails only for n = 0; write `edges <= 2 * n`"),
        ("window(5)", "6*n - 15", "of n <= 64, it fails only for n = 0 to 4; write `edges <= 6 * n`"),
        ("window(w)", "n*(w+1) - w", "it fails only for n = 0; write `edges <= (w + 1) * n`"),
        ("to(hub)", "n*count(hub) - 3", "write `edges <= count(hub) * n`"),
        ("where q < 3", "3*n - 2", "write `edges <= 3 * n`"),  # fails for n = 0 and for every n > 2
        ("all", "n*n - n", "raise the bound, or let the relation have fewer edges"),
        ("window(1)", "n - 1", "raise the bound, or let the relation have fewer edges"),
        ("window(1)", "n", "raise the bound, or let the relation have fewer edges"),
    ],
)
def test_a_bound_that_forgets_no_keys_comes_with_one_that_holds(relation: str, claim: str, help: str) -> None:
    text = f"pattern p(w: int = 4) {{\n input hub: bool[n]\n attend {relation}\n require edges <= {claim}\n}}"
    if "hub" not in relation:
        text = text.replace(" input hub: bool[n]", "")

    def complaints(written: str) -> tuple[Diagnostic, ...]:
        (made,) = resolve(parse(Source("t.attn", written))).patterns
        bodies = decompose(made)
        return proofs.claim_diagnostics(made, proofs.prove_claims(made, bodies), bodies)

    (found,) = complaints(text)
    assert found.code == "edges-exceeded" and render(found).splitlines()[1] == " --> t.attn:3:9"
    assert found.help is not None and help in found.help
    if proposed := re.search(r"`edges <= (.*)`, which holds for every n, 0 included", found.help):
        assert complaints(text.replace(claim, proposed[1])) == ()
    assert ("raise the bound" in found.help) is (proposed is None)

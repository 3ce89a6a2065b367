"""The closed form against the number of true entries of the mask."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy

import attnc
from attnc import cost as costs
from attnc import steady
from attnc.budget import compiling
from attnc.cells import cells
from attnc.cost import Cost, all_pairs, combine, d, edges, flops, n, traffic
from attnc.counts import cost_of, edges_of
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.evaluation import Env, evaluate
from attnc.expression import K, Q, eq, negate, sub
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.reference import mask
from attnc.resolver import resolve
from attnc.sizes import NoFormula

EXAMPLES = Path(__file__).parent.parent / "examples"

# Constants small enough for short sequences to show what they do.
SMALL: dict[str, dict[str, object]] = {
    "axial": {"height": 4, "width": 4},
    "bigbird": {"block": 4, "picks": 2},
    "dilated": {"width": 5, "dilation": 3},
    "etc": {"globals": 5, "radius": 3},
    "image_transformer_1d": {"block": 6},
    "image_transformer_2d": {"block": 2, "width": 6},
    "llama4_chunked": {"size": 7},
    "longformer": {"window": 6},
    "mistral": {"window": 5},
    "natten_1d": {"size": 5, "dilation": 3},
    "natten_2d": {"size": 3, "width": 6},
    "natten_3d": {"frames": 2, "rows": 3, "columns": 2, "height": 4, "width": 3},
    "sparse_transformer_fixed": {"step": 8, "summary": 3},
    "sparse_transformer_strided": {"step": 6},
    "streaming_llm": {"sinks": 3, "window": 7},
    "strided": {"step": 5},
    "swin": {"size": 2, "height": 6, "width": 6},
    "swin_shifted": {"size": 3, "shift": 1, "height": 6, "width": 6},
}

EXACT = [
    "all",
    "none",
    "self",
    "causal",
    "!causal",
    "window(3)",
    "window(3, 2)",
    "window(0, 7)",
    "window(5, dilation=3)",
    "window(2, 3, dilation=4)",
    "window(9) - window(4)",
    "window(9, 3) - window(4, 1)",
    "!window(3, 2)",
    "causal - window(6)",
    "chunk(5)",
    "chunk(5) & causal",
    "chunk(5) & !causal",
    "chunk(8) & window(3)",
    "chunk(4) | window(2)",
    "chunk(4) - chunk(2)",
    "causal - chunk(5)",
    "stride(4)",
    "stride(4) & causal",
    "stride(3) | window(2)",
    "stride(4) | chunk(4)",
    "stride(2) - stride(6)",
    "causal & to(first(4))",
    "window(3) | to(first(2))",
    "window(3, 1) | to(first(3)) | from(first(3))",
    "to(last(3)) | window(2)",
    "from(last(2)) | causal",
    "to(every(4))",
    "to(every(6, 5)) & causal",
    "from(every(5, 2))",
    "to(every(4, 3)) & from(every(6, 1))",
    "window(4) | to(every(5, 4)) & causal",
    "chunk(6) & causal | to(every(6, 5)) & causal",
    "to({0, 7, 19})",
    "to({0, 7, 19}) & causal",
    "to(first(3) + last(2)) - window(1, 1)",
    "offsets({0, 1, 5, -3})",
    "offsets({2, 9}) | window(3)",
    "offsets(powers(2))",
    "offsets(powers(2)) & causal",
    "causal - offsets(powers(2))",
    "blocks(4, window(1, 1))",
    "blocks(4, causal)",
    "blocks(4, causal) & causal",
    "blocks(3, window(1)) & causal",
    "blocks(4, to(first(1)) | to(last(1)) | self)",
    "blocks(2, blocks(3, window(1)))",
    "blocks(3, stride(2))",
    "random(3, seed=1)",
    "random(3, seed=1, past=true)",
    "where q + k < n",
    "where q + k == 11",
    "where q + 2 <= k < q + 6",
    "where k <= n - 1 - q and k % 3 == 1",
    "where k % 4 < 2",
    "where q % 4 <= k % 4",
    "where abs(q - k) >= 5",
    "where min(q, k) < 3",
    "where max(q, k) < 9",
    "where q < k < 9",
    "where (q + 1) // 3 == (k + 2) // 3",
    "where n >= 17",
    "neighborhood(1)",
    "neighborhood(4)",
    "neighborhood(3, dilation=4)",
    "neighborhood(6, dilation=2) & causal",
    "where (q - k) % 9 != 1",
    "where not ((q - k) % 5 == 2 or (q - k) % 10 == 1)",
    "blocks(3, neighborhood(3))",
    "where max(0, min(q - 2, n - 9)) <= k < max(0, min(q - 2, n - 9)) + 9",
]

GRIDS = [
    "grid(y: 4, x: 5) attend neighborhood(3, axis=y) & neighborhood(2, axis=x)",
    "grid(y: 4, x: 3) attend neighborhood(5, axis=y) & neighborhood(3, axis=x)",
    "grid(t: 2, y: 4, x: 3) "
    "attend neighborhood(2, axis=t) & neighborhood(3, axis=y) & neighborhood(2, axis=x)",
    "grid(t: 2, y: 2, x: 3) attend window(1, axis=t) & neighborhood(2, axis=y) & neighborhood(2, axis=x)",
    "grid(y: 4, x: 8) attend neighborhood(2, dilation=2, axis=y) & neighborhood(3, dilation=2, axis=x)",
    "grid(y: 5, x: 7) attend neighborhood(2, dilation=2, axis=y) & neighborhood(2, dilation=3, axis=x)",
    "grid(y: 3, x: 4) attend neighborhood(3, dilation=4, axis=y) & window(1, dilation=2, axis=x)",
    "grid(t: 2, y: 3, x: 4) attend window(1, axis=t) & neighborhood(2, dilation=2, axis=y) "
    "& neighborhood(2, dilation=2, axis=x)",
    "grid(t: 3, y: 3, x: 2) attend neighborhood(2, dilation=2, axis=t) & neighborhood(2, axis=y) & causal",
    "grid(y: 4, x: 6) attend where q.y // 2 * 2 - 1 <= k.y < q.y // 2 * 2 + 3 and k.x // 3 == q.x // 3",
]

BOUNDED = [
    "input x: bool[n] attend to(x)",
    "input x: bool[n] attend to(x) | from(x) | window(2, 2)",
    "input x: bool[n] attend to(x) & causal",
    "input x: bool[n] attend from(x) & window(3)",
    "input x: bool[n] attend from(x) - to(x)",
    "input x: bool[n] attend to(x) & from(x)",
    "input x: bool[(n + 3) / 4] attend blocks(4, to(x))",
    "input x: int[n] attend same(x)",
    "input x: int[n] attend same(x) & causal",
    "attend random(2, seed=0) | window(3)",
    "attend blocks(4, random(2, seed=0))",
    "attend where q * k < 40",
    "attend where not ((q - k) % 5 == 2 or (q + k) % 5 == 1)",
    "attend where q % 6 != k % 4 and k <= q",
    "attend where k * k <= 40 * q and 3 <= q - k < 9",
    "attend chunk(4) | chunk(6) & causal",
    "attend to(every(4)) & blocks(6, window(1, 1))",
]


def pattern(text: str, name: str = "t.attn", **params: object) -> Pattern:
    text = text if text.lstrip().startswith(("pattern", "#")) else f"pattern p() {{ {text} }}"
    return resolve(parse(Source(name, text)), params).patterns[0]


def found(item: Pattern) -> Cost:
    return cost_of(decompose(item))


def check(item: Pattern, lengths: list[int], exact: bool | None = None) -> None:
    cost = found(item)
    assert exact is None or cost.exact is exact
    heads = 2
    rng = np.random.default_rng(0)
    for length in lengths:
        inputs: dict[str, np.ndarray] = {}
        for given in item.inputs:
            if given.kind == "float":  # they weigh edges, and choose none
                sizes = Env({"n": length, "H": heads, "d": 1})
                inputs[given.name] = np.zeros([int(evaluate(size, sizes)) for size in given.shape])
                continue
            size = (length + 3) // 4 if "x: bool[(n" in item.source.text else length
            inputs[given.name] = rng.random(size) < 0.3 if given.kind == "bool" else rng.integers(0, 3, size)
        dense = mask(item, length, heads, inputs).reshape(heads, -1)
        most = int(dense.sum(axis=1).max()) if length else 0
        counts = {name: int(value.sum()) for name, value in inputs.items() if value.dtype == np.bool_}
        told = cost.at(length, **counts)
        assert told == most if cost.exact else told >= most, (length, told, most, cost.expr)
        assert told <= length * length
        if length >= cost.steady_from:
            settled = replace(cost, expr=cost.steady)
            assert settled.at(length, **counts) == told, (length, cost.steady)
        if length >= cost.whole_from and length % cost.period == 0:
            whole = replace(cost, expr=cost.whole)
            assert whole.at(length, **counts) == told, (length, cost.whole)


@pytest.mark.parametrize("relation", EXACT)
def test_closed_forms_are_exact(relation: str) -> None:
    check(pattern(f"attend {relation}"), [*range(0, 42), 64, 97], exact=True)


@pytest.mark.parametrize("text", GRIDS)
def test_closed_forms_of_grids_are_exact(text: str) -> None:
    check(pattern(text), [*range(0, 26), 36, 48, 49, 60, 77], exact=True)


@pytest.mark.parametrize("text", BOUNDED)
def test_bounds_hold(text: str) -> None:
    check(pattern(text), [*range(0, 26), 50])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.attn")), ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    source = Source(str(path), path.read_text())
    for item in resolve(parse(source)).patterns:
        small = resolve(parse(source), SMALL.get(item.name, {}), item.name).patterns[0]
        check(small, [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 120])


def test_a_window_is_told_as_people_tell_it() -> None:
    cost = found(pattern("pattern p(window: int = 4096) { attend window(window - 1) }"))
    assert cost.exact
    assert cost.steady == 4096 * n - 8386560
    assert cost.steady_from == 4096
    assert cost.growth == "O(n*window)"


@pytest.mark.parametrize(
    ("text", "growth"),
    [
        ("pattern p() { attend causal }", "O(n^2)"),
        ("pattern p() { attend window(7) }", "O(n)"),
        ("pattern p(step: int = 8) { attend stride(step) & causal }", "O(n^2/step)"),
        ("pattern p(size: int = 8) { attend chunk(size) & causal }", "O(n*size)"),
        ("pattern p(m: int = 4) { attend to(first(m)) }", "O(n*m)"),
        ("pattern p() { attend offsets(powers(2)) & causal }", "O(n*log(n))"),
        (
            "pattern p(window: int = 8) { input is_global: bool[n] attend window(window) | to(is_global) }",
            "O(n*count(is_global) + n*window)",
        ),
        ("pattern p(window: int = 8) { attend window(window) | causal }", "O(n^2)"),
        (
            "pattern p(block: int = 8, picks: int = 3) { attend blocks(block, random(picks, 0)) }",
            "O(n*block*picks)",
        ),
    ],
)
def test_growth(text: str, growth: str) -> None:
    assert found(pattern(text)).growth == growth


def test_bodies_are_joined_by_their_maximum() -> None:
    item = pattern("pattern p() { heads even { attend window(3) } heads odd { attend causal } }")
    cost = found(item)
    assert [cost.at(length) for length in (0, 1, 5, 40)] == [0, 1, 15, 820]
    assert combine([]).expr == 0


def test_flops_and_bytes() -> None:
    cost = found(pattern("attend all"))
    assert flops(cost) == 4 * d * n**2
    assert flops(cost, forward=False) == 10 * d * n**2
    assert traffic(2) == 8 * n * d


def test_a_bound_needs_its_counts() -> None:
    cost = found(pattern("input x: bool[n] attend to(x)"))
    assert cost.expr == n * costs.count(sympy.Symbol("x"))
    assert cost.at(10, x=3) == 30
    with pytest.raises(ValueError, match="x"):
        cost.at(10)


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ("attend where q // 3 * 3 - k // 5 * 5 == 0 or q // 6 == k // 8", n**2),
        ("attend (where q // 3 * 3 - k // 5 * 5 == 0 or q // 6 == k // 8) & causal", n**2 / 2 + n / 2),
    ],
)
def test_a_bound_is_never_more_than_all_pairs(body: str, most: sympy.Expr) -> None:
    cost = found(pattern(body))
    # A smaller one is read off the relation, and is above all pairs where sequences are short.
    assert (cost.exact, cost.most) == (False, most)
    assert set(cost.expr.args) == {9 * n, most}


def test_a_bound_below_all_pairs_stands_alone() -> None:
    below = [n, n / 2, n**2 / 2 + n / 2, n**2 / 3, sympy.S.Zero]
    assert [all_pairs().within(bound).expr for bound in below] == below
    cut = [2 * n, n + 1, n**2 / 2 + n, 5 + 0 * n, n * costs.count(sympy.Symbol("x"))]
    assert [set(all_pairs().within(bound).expr.args) for bound in cut] == [{bound, n**2} for bound in cut]


def test_a_bound_that_counts_is_cut_to_all_pairs_where_it_is_asked_for() -> None:
    cost = found(pattern("input x: bool[n] attend (to(x) | from(x)) & causal"))
    assert not cost.exact and cost.at(10, x=10) == 55


def test_a_conjunction_of_very_many_comparisons_is_bounded() -> None:
    apart = [negate(eq(sub(Q, K), distance * distance)) for distance in range(2000)]
    with pytest.raises(NoFormula):
        list(cells(apart))


def test_sizes_that_nobody_would_count_through_are_bounded() -> None:
    cost = found(pattern("attend where q - k == 7 - 2 * (q // 40000000 * 8)"))
    assert not cost.exact and cost.at(10) <= 100


def test_large_lengths_are_exact_integers() -> None:
    length = 3_000_000_019
    cost = found(pattern("attend chunk(1024) & causal"))
    whole, rest = divmod(length, 1024)
    assert cost.at(length) == whole * 1024 * 1025 // 2 + rest * (rest + 1) // 2


def test_typical_patterns_cost_little_time() -> None:
    terms = decompose(pattern("attend window(1023) | to(first(4)) & causal"))[0].terms
    edges(terms)
    start = time.perf_counter()
    edges(terms)
    assert time.perf_counter() - start < 1.0


POWERS = ("offsets(powers(2)) | window(10)", "stride(8)")


def test_the_most_expensive_of_bodies_with_powers_is_found_in_little_time() -> None:
    """Which of two sums is the larger is nothing that sympy should brood over."""
    bodies = (decompose(pattern(f"attend {relation}"))[0].terms for relation in POWERS)
    costs_ = [edges(terms) for terms in bodies]
    start = time.process_time()
    cost = combine(costs_)
    assert time.process_time() - start < 6.0
    assert cost.at(100) == max(one.at(100) for one in costs_)


def test_long_formulas_are_not_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With extrema of extrema that takes sympy many seconds."""
    sizes: list[int] = []
    whole = steady.expanded

    def expanded(expr: sympy.Expr) -> sympy.Expr:
        found = whole(expr)
        if found is not expr:
            sizes.append(sum(1 for _ in sympy.preorder_traversal(expr)))
        return found

    monkeypatch.setattr(steady, "expanded", expanded)
    strides = " | ".join(f"(where (q - k) % {step} == 2)" for step in (3, 7, 29, 2147483647, 10, 11))
    attnc.check(f"pattern p() {{ attend {strides} }}")
    assert sizes and max(sizes) <= steady.MOST_EXPANDED


VOLUME = "grid(t: 32, y: 48, x: 48)\nattend where k.t <= q.t" + "".join(
    f" & neighborhood(3, axis={axis}, dilation=2)" for axis in "tyx"
)


@pytest.mark.parametrize("limit", [0, 1, 20_000, 200_000, 2_000_000])
def test_what_takes_too_much_work_to_count_is_bounded_by_its_comparisons(limit: int) -> None:
    """A pattern is compiled, whether its edges can be counted or not."""
    bodies = decompose(pattern(VOLUME))
    edges_of.cache_clear()  # type: ignore[attr-defined]
    with compiling(limit, overrun=limit // 10) as work:
        cost = cost_of(bodies)
    assert not cost.exact and cost.at(32 * 48 * 48) <= 27 * 32 * 48 * 48
    assert work.spent <= limit + limit // 10 + 10_000


def test_the_form_that_is_shown_is_always_the_same(tmp_path: Path) -> None:
    """Whichever order sets have: remainders by two numbers can be written out one after the other, or not."""
    path = tmp_path / "p.attn"
    path.write_text("pattern p() { attend window(5) & stride(3) | to(every(7)) }")
    printed = {
        subprocess.run(
            [sys.executable, "-m", "attnc", "check", str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(printed) == 1

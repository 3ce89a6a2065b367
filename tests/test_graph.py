"""The block graph against the mask: EMPTY and FULL must be true, for interval patterns nothing else."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from attnc.budget import compiling
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.evaluation import Env, evaluate
from attnc.graph import BlockGraph, Kind, Run, block_graph
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.reference import head_bodies, mask
from attnc.resolver import resolve

EXAMPLES = Path(__file__).parent.parent / "examples"

EXACT = [
    "all",
    "none",
    "self",
    "causal",
    "window(5)",
    "window(9, 4)",
    "causal - window(7)",
    "chunk(5)",
    "chunk(12) & causal",
    "window(20) | to(first(3))",
    "window(20) & chunk(16) & causal",
    "window(6, 6) | to(first(2)) | from(first(2))",
    "window(3) | from(last(4)) | to(last(1))",
    "blocks(4, window(1, 1))",
    "blocks(6, causal)",
    "from(every(8, 3))",
    "to({0, 7, 19, 61})",
    "offsets({0, 30}) ",
    "where k <= q // 2",
]

LOOSE = [
    "stride(7)",
    "stride(30) & causal",
    "window(5, dilation=4)",
    "to(every(9, 2)) & causal",
    "offsets(powers(2))",
    "random(3, seed=2)",
    "window(4) | random(2, seed=5)",
    "blocks(8, random(2, seed=1)) | window(3)",
    "random(2, seed=0, past=true)",
    "causal - to(every(3))",
    "where q % 5 <= k % 7",
    "where q * k % 3 == 1",
    "where abs(q - 2 * k) < 4",
    "chunk(4) | chunk(6)",
    "where h % 2 == 0 and k <= q or h % 2 == 1 and k >= q",
]

INPUTS = [
    "input x: bool[n] attend to(x)",
    "input x: bool[n] attend from(x) | window(3)",
    "input x: bool[n] attend window(4, 4) | to(x) | from(x)",
    "input x: int[n] attend same(x)",
    "input x: int[n] attend same(x) & causal",
    "input x: bool[n] attend where x[q] or k <= q",
    "input x: int[n] attend where x[q] <= x[k] + 1",
]


def pattern(text: str) -> Pattern:
    text = text if text.startswith("pattern") else f"pattern p() {{ {text} }}"
    return resolve(parse(Source("t.attn", text))).patterns[0]


def kinds(graph: BlockGraph) -> npt.NDArray[np.int64]:
    found = np.zeros((graph.tiles, graph.tiles), dtype=np.int64)
    for i, row in enumerate(graph.rows()):
        at = 0
        for run in row:
            assert at <= run.start < run.stop <= graph.tiles
            at = run.stop
            found[i, run.start : run.stop] = run.kind
    return found


def truth(dense: npt.NDArray[np.bool_], tile: int) -> npt.NDArray[np.int64]:
    n = len(dense)
    edges = np.arange(0, n, tile)

    def by_tile(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.add.reduceat(np.add.reduceat(values.astype(np.int64), edges, axis=0), edges, axis=1)

    edge_count, pairs = by_tile(dense), by_tile(np.ones_like(dense))
    return np.where(edge_count == 0, 0, np.where(edge_count == pairs, 2, 1))


def check(item: Pattern, n: int, tile: int, inputs: Mapping[str, Any], given: bool = True) -> int:
    """The number of tiles that are PARTIAL without need."""
    heads = 2
    dense = mask(item, n, heads, inputs)
    bodies = decompose(item)
    loose = 0
    for head in range(heads):
        body = bodies[head_bodies(item, heads)[head]]
        graph = block_graph(body, n, tile, head, heads, inputs if given else None)
        told, real = kinds(graph), truth(dense[head], tile)
        assert not ((told == Kind.EMPTY) & (real != Kind.EMPTY)).any(), "an EMPTY tile has an edge"
        assert not ((told == Kind.FULL) & (real != Kind.FULL)).any(), "a FULL tile lacks an edge"
        assert graph.counts() == {kind: int((told == kind).sum()) for kind in Kind}
        loose += int((told != real).sum())
    return loose


def contents(item: Pattern, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    found: dict[str, Any] = {}
    for given in item.inputs:
        if given.kind == "float":  # no edge hangs on it
            shape = tuple(int(evaluate(size, Env({"n": n, "H": 2, "d": 1}))) for size in given.shape)
            found[given.name] = np.zeros(shape)
            continue
        found[given.name] = rng.random(n) < 0.1 if given.kind == "bool" else np.sort(rng.integers(0, 4, n))
    return found


@pytest.mark.parametrize("relation", EXACT)
def test_intervals_are_classified_exactly(relation: str) -> None:
    item = pattern(f"attend {relation}")
    for n in (1, 7, 33, 64):
        for tile in (1, 4, 7, 16, 100):
            assert check(item, n, tile, {}) == 0, (n, tile)


@pytest.mark.parametrize("relation", LOOSE)
def test_everything_is_sound(relation: str) -> None:
    item = pattern(f"attend {relation}")
    for n in (1, 7, 50, 64):
        for tile in (1, 3, 8, 16):
            check(item, n, tile, {})


@pytest.mark.parametrize("text", INPUTS)
def test_inputs_given_and_not_given(text: str) -> None:
    item = pattern(text)
    for n in (1, 40, 61):
        for tile in (1, 4, 16):
            inputs = contents(item, n)
            check(item, n, tile, inputs)
            check(item, n, tile, inputs, given=False)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.attn")), ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    for item in resolve(parse(Source(str(path), path.read_text()))).patterns:
        check(item, 150, 16, contents(item, 150))


@pytest.mark.parametrize(
    ("relation", "partial", "full"),
    [
        ("window(4095)", 15_594, 241_707),
        ("causal", 7_813, 30_517_578),
        ("chunk(8192) & causal", 7_813, 245_962),
        ("window(1023) | to(first(4)) & causal", None, None),
        ("stride(64) & causal", 30_525_391, 0),
    ],
)
def test_a_million_tokens_are_quick_and_small(relation: str, partial: int | None, full: int | None) -> None:
    body = decompose(pattern(f"attend {relation}"))[0]
    tracemalloc.start()
    start = time.perf_counter()
    graph = block_graph(body, 1_000_000)
    found = graph.counts()
    spent = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert graph.nbytes < 1_000_000
    assert peak < 20_000_000
    assert spent < 5
    assert sum(found.values()) == graph.tiles**2
    if partial is not None:
        assert (found[Kind.PARTIAL], found[Kind.FULL]) == (partial, full)


def test_inputs_are_read_once_for_all_terms() -> None:
    n = 1 << 17
    body = decompose(pattern("input x: int[n] attend causal & where x[q] >= x[k]"))[0]
    spent = []
    for terms in (body.terms, body.terms * 16):
        with compiling(1 << 40) as budget:
            block_graph(replace(body, terms=terms), n, 1 << 13, inputs={"x": np.arange(n) % 1000})
        spent.append(budget.spent)
    assert spent[1] < 4 * spent[0]


def test_far_apart_members_are_kept_as_one_list() -> None:
    body = decompose(pattern("attend to(every(4096, 5)) & causal"))[0]
    graph = block_graph(body, 1_000_000)
    assert graph.nbytes < 1_000_000
    assert [run.start for run in graph.row(100)] == [0, 32, 64, 96]
    assert graph.kind(100, 32) is Kind.PARTIAL
    assert graph.kind(100, 33) is Kind.EMPTY


def test_rows_and_kinds() -> None:
    graph = block_graph(decompose(pattern("attend window(4)"))[0], 12, tile=2)
    assert graph.row(3) == (Run(1, 2, Kind.PARTIAL), Run(2, 3, Kind.FULL), Run(3, 4, Kind.PARTIAL))
    assert graph.kind(3, 2) is Kind.FULL
    assert graph.kind(3, 5) is Kind.EMPTY
    with pytest.raises(IndexError, match=r"\(6, 0\)"):
        graph.kind(6, 0)


def test_networkx() -> None:
    graph = block_graph(decompose(pattern("attend causal"))[0], 10, tile=4)
    view = graph.to_networkx()
    assert view.nodes["q", 2] == {"side": "q", "first": 8, "last": 9}
    assert view.edges[("q", 1), ("k", 0)] == {"kind": "full"}
    assert view.edges[("q", 1), ("k", 1)] == {"kind": "partial"}
    assert not view.has_edge(("q", 0), ("k", 1))
    assert view.number_of_edges() == 6
    with pytest.raises(ValueError, match="larger tile"):
        block_graph(decompose(pattern("attend causal"))[0], 1_000_000).to_networkx()


def test_bad_arguments() -> None:
    body = decompose(pattern("attend causal"))[0]
    for arguments, message in (((-1,), "-1"), ((5, 0), "tile"), ((5, 4, 2, 2), "head 2")):
        with pytest.raises(ValueError, match=message):
            block_graph(body, *arguments)
    assert block_graph(body, 0).counts() == dict.fromkeys(Kind, 0)

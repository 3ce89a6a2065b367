"""Layers until everything has arrived: measured against plain search, proven for every length."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from attnc import tiles
from attnc.diagnostics import Source
from attnc.expression import EQUAL_ENDS
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.reach import Reach, is_causal, least_heads, prove_reach, reach
from attnc.reference import mask
from attnc.resolver import resolve


def pattern(text: str) -> Pattern:
    text = text if text.startswith("pattern") else f"pattern p() {{ {text} }}"
    return resolve(parse(Source("t.attn", text))).patterns[0]


def distance(item: Pattern, n: int, causal: bool) -> int | None:
    """The greatest number of layers that any legal pair needs, by breadth-first search."""
    step = mask(item, n, 2).any(axis=0)
    graph = nx.from_numpy_array(step, create_using=nx.DiGraph)
    most = 0
    for q in range(n):
        found = nx.single_source_shortest_path_length(graph, q)
        for k in range(q + 1 if causal else n):
            if k not in found:
                return None
            most = max(most, found[k])
    return most


MEASURED = [
    "all",
    "causal",
    "window(3)",
    "window(2, 1)",
    "window(4) | to(first(1)) | from(first(1))",
    "chunk(4) | to(first(1))",
    "chunk(4)",
    "stride(4) | window(3)",
    "(stride(4) | window(3)) & causal",
    "window(4, dilation=2)",
    "offsets(powers(2))",
    "blocks(4, window(1, 1) | to(first(1)) | from(first(1)))",
    "none",
    "self",
]


@pytest.mark.parametrize("relation", MEASURED)
def test_measured(relation: str) -> None:
    item = pattern(f"attend {relation}")
    causal = is_causal(item)
    found = reach(item, limit=256)
    assert found.exact
    for n, layers in found.layers.items():
        if n <= 64:
            assert layers == distance(item, n, causal), n
    if found.unreached is not None:
        n, k, q = found.unreached
        assert found.layers[n] is None
        step = nx.from_numpy_array(mask(item, n).any(axis=0), create_using=nx.DiGraph)
        assert not nx.has_path(step, q, k)
        assert k <= q or not causal


def test_heads_work_together() -> None:
    item = pattern("pattern p() { heads even { attend window(3) } heads odd { attend stride(4) & causal } }")
    assert set(reach(item).layers.values()) == {2}
    assert prove_reach(item, 2).outcome == "proven"
    assert prove_reach(item, 1).outcome == "refuted"


def test_large_constants_are_followed_by_tiles() -> None:
    found = reach(pattern("attend window(4095)"))
    assert not found.exact
    assert found.grows
    assert found.layers == {16380: 4, 32760: 8, 65520: 16}
    assert "at least" in str(found)


def test_words() -> None:
    assert str(Reach({64: 1, 128: 1, 256: 1}, True, None)) == "1 layer at n = 256"
    assert str(Reach({64: 2, 128: 4}, True, None)) == "grows with n: 2 at n = 64, 4 at n = 128 layers"
    text = str(reach(pattern("attend chunk(4)")))
    assert text == "key 4 never reaches query 0 when n = 64, however many layers"
    text = str(reach(pattern("input x: bool[n] attend window(2) | to(x) & causal")))
    assert text.endswith("in the worst case of x")
    weighed = pattern("input x: float[H] attend causal score s + x[h]")
    assert str(reach(weighed)) == "1 layer at n = 256"


def test_ends_of_equal_entries_are_found_when_they_are_looked_up() -> None:
    given = {"doc": np.array([4, 4, 1, 4, 1]), "m": np.zeros((5, 5))}
    found = tiles.Tables(given)
    assert "doc.last" in found and "m.last" not in found and "x" not in found
    assert found["doc.last"].tolist() == [3, 3, 4, 3, 4]
    assert found["doc.run_first"].tolist() == [0, 0, 2, 3, 4]
    assert set(found) == {"doc", "m", *(f"doc.{end}" for end in EQUAL_ENDS)} and len(found) == 6
    with pytest.raises(KeyError):
        found["m.last"]


def test_inputs_that_the_mask_does_not_depend_on_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(values: object) -> None:
        raise AssertionError("equal entries are asked for")

    monkeypatch.setattr(tiles, "equal_entries", never)
    inputs = "input doc: int[n] input x: int[n] input m: float[n, n]"
    for relation, read in (("window(700)", ()), ("window(700) & where x[k] > 3", ("x",))):
        found = reach(pattern(f"{inputs} attend {relation} score s + m[q, k]"))
        assert found is not None and found.hangs_on == read


PROVEN = [
    ("all", 1),
    ("causal", 1),
    ("causal", 2),
    ("causal | window(3)", 1),
    ("to(first(1)) | from(first(1))", 2),
    ("(to(last(1)) | from(last(1)))", 2),
    ("blocks(8, window(1, 1) | to(first(1)) | from(first(1)) | random(2, seed=0))", 2),
    ("(chunk(8) | to(every(8, 7))) & causal", 2),
    ("(stride(8) | window(7)) & causal", 2),
    ("stride(8) | window(7, 7)", 2),
    ("(stride(8) | window(7)) & causal", 3),
]


@pytest.mark.parametrize(("relation", "layers"), PROVEN)
def test_proven(relation: str, layers: int) -> None:
    item = pattern(f"attend {relation}")
    answer = prove_reach(item, layers)
    assert answer.outcome == "proven"
    for n in (1, 2, 7, 8, 9, 17, 40):
        found = distance(item, n, is_causal(item))
        assert found is not None
        assert found <= layers


REFUTED = [
    ("none", 1, 2),
    ("self", 5, 2),
    ("causal - self", 0, 2),
    ("window(3)", 1, 5),
    ("window(3)", 2, 8),
    ("window(3)", 4, 14),
    ("chunk(4)", 3, 5),
    ("window(2, 2)", 2, 6),
    ("(chunk(8) | to(every(8, 7))) & causal", 1, 9),
    ("stride(8) | window(6)", 1, 2),
    ("all - window(2, 2)", 3, 2),
]


@pytest.mark.parametrize(("relation", "layers", "shortest"), REFUTED)
def test_refuted(relation: str, layers: int, shortest: int) -> None:
    item = pattern(f"attend {relation}")
    answer = prove_reach(item, layers)
    assert answer.outcome == "refuted"
    n, q, k = (answer.variables[name] for name in ("n", "q", "k"))
    assert n == shortest
    step = mask(item, n).any(axis=0) | np.eye(n, dtype=np.bool_)
    assert not np.linalg.matrix_power(step.astype(object), layers)[q, k]
    assert k <= q or not is_causal(item)


def test_inputs_in_the_worst_case() -> None:
    item = pattern("input x: bool[n] attend window(2, 2) | to(x) | from(x)")
    assert prove_reach(item, 2).outcome == "refuted"
    item = pattern("input x: bool[n] attend all - to(x) | from(first(1)) | to(first(1))")
    assert prove_reach(item, 2).outcome == "proven"


def test_large_constants_are_refuted_by_tiles() -> None:
    answer = prove_reach(pattern("attend window(4095)"), 2)
    assert answer.outcome == "refuted"
    assert answer.variables["q"] - answer.variables["k"] > 2 * 4095


# --- heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        # Some head of every layer reads all that may be read, however many there are.
        ("heads {3} { attend causal } heads rest { attend self }", "proven"),
        ("heads 0..H-1 { attend self } heads rest { attend causal }", "proven"),
        ("attend self | causal & where h == 0", "proven"),
        ("attend causal & where h < H", "proven"),
        ("heads 1..9 { attend causal & where h < 5 } heads rest { attend self }", "proven"),
        # With one head, none does.
        ("attend self | causal & where h == 1", "refuted"),
        ("attend self | causal & where h < H - 1", "refuted"),
        ("heads H-1..H { attend causal & where h == 0 } heads rest { attend self }", "refuted"),
        # With one head it does, with two none.
        ("attend self | causal & where H == 1", "undecided"),
        # What one head may read, all may hear of.
        ("attend causal | to({5}) & where h > 0", "refuted"),
    ],
)
def test_heads_of_a_layer_work_together_however_many_there_are(text: str, outcome: str) -> None:
    assert prove_reach(pattern(text), 1).outcome == outcome


@pytest.mark.parametrize(
    ("text", "causal"),
    [
        ("attend causal | to({5}) & where h > 0", False),
        ("attend causal | all & where h == H", True),
        ("heads 0..2 { attend causal | all & where h == 2 } heads rest { attend self }", True),
        ("heads rest { attend causal } heads {7} { attend all }", False),
    ],
)
def test_causal_means_every_head(text: str, causal: bool) -> None:
    assert is_causal(pattern(text)) is causal


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("attend causal", 1),
        ("heads {1} { attend causal } heads rest { attend self }", 2),
        ("heads 3..H { attend causal } heads 0..3 { attend self }", 4),
        # No number of heads gives both a head and every head a body.
        ("heads {0} { attend causal } heads {2} { attend self }", 1),
        ("heads 70..H { attend causal } heads 0..70 { attend causal | self }", 1),
    ],
)
def test_fewest_heads(text: str, heads: int) -> None:
    item = pattern(f"pattern p() {{ {text} }}")
    assert least_heads(item) == heads
    assert set(reach(item).layers.values()) == {1}

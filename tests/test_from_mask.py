"""``attnc.from_mask``: which rule a dense mask follows. Masks are the reference interpreter's."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import attnc

N = 48
DOCUMENT = torch.tensor([0] * 11 + [1] * 20 + [2] * 17)
MARKED = torch.rand(N, generator=torch.Generator().manual_seed(0)) < 0.5


def text(body: str) -> str:
    return f"pattern p() {{ {body} }}"


def body(pattern: Any) -> str:
    """What a recognised pattern says, on one line."""
    return " ".join(pattern.source.partition("{\n")[2].rpartition("}")[0].split())


def recognised(mask: torch.Tensor) -> Any:
    """The pattern for a mask, which holds for it."""
    found = attnc.from_mask(mask)
    heads, n_q, n = mask.shape
    assert torch.equal(found.mask(n, heads, n_q), mask), found.source
    return found


# What is recognised is said as it was written, or in these words.
RULES: list[str | tuple[str, str]] = [
    "attend all",
    "attend none",
    "attend self",
    "attend causal",
    "attend window(5)",
    "attend window(5, 3)",
    "attend window(3, 3, dilation=4)",
    ("attend window(9) & stride(3)", "attend window(3, dilation=3)"),
    "attend stride(5)",
    "attend stride(7) & causal",
    "attend chunk(8)",
    "attend chunk(8) & causal",
    "attend window(6) & chunk(16)",
    "attend offsets({0, 3, 11})",
    ("attend offsets(powers(2)) & causal", "attend offsets(powers(2))"),
    "attend where 3 <= q - k <= 9",
    "attend to(first(20))",
    "attend causal | to(first(10))",
    "attend (window(4) | to(first(3))) & causal",
    ("attend (to(every(8, 6)) | chunk(8)) & causal"),
    "attend window(3, 3) | to({7, 20}) | from({7, 20})",
    "attend window(2, 2) | from(last(2))",
    ("attend causal - to({5})", "attend !to({5}) & causal"),
    ("attend where q % 3 == 1 and k < 7", "attend to(first(7)) & from(every(3, 1))"),
    "attend blocks(8, window(1, 1) | to(first(1)))",
    "grid(y: 6, x: 8) attend window(1, 1, axis=y) & window(2, 2, axis=x)",
    "grid(y: 6, x: 8) attend chunk(3, axis=y) & chunk(4, axis=x)",
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules(rule: str | tuple[str, str]) -> None:
    written, said = (rule, rule) if isinstance(rule, str) else rule
    found = recognised(attnc.mask(text(written), n=N))
    assert body(found) == said
    assert not found.tables and "other lengths are taken to go on alike" in found.notes[0]
    # They do go on alike.
    assert torch.equal(found.mask(N + 24), attnc.mask(text(written), n=N + 24))


@pytest.mark.parametrize(
    ("written", "said", "table"),
    [
        ("attend same(x)", "input document: int[n] attend same(document)", DOCUMENT),
        ("attend same(x) & causal", "input document: int[n] attend same(document) & causal", DOCUMENT),
        ("attend same(x) & window(6)", "input document: int[n] attend window(6) & same(document)", DOCUMENT),
        ("attend causal & to(x)", "input marked: bool[n] attend to(marked) & causal", MARKED),
        ("attend window(1, 1) | to(x)", "input marked: bool[n] attend window(1, 1) | to(marked)", MARKED),
    ],
)
def test_rules_with_tables(written: str, said: str, table: torch.Tensor) -> None:
    kind = "bool" if table.dtype == torch.bool else "int"
    mask = attnc.mask(text(f"input x: {kind}[n] {written}"), n=N, inputs={"x": table})
    found = recognised(mask)
    assert body(found) == said
    ((_, kept),) = found.tables.items()
    assert torch.equal(kept.tensor.to(table.dtype), table)
    assert any("are an input, as" in note for note in found.notes)
    q, k, v = torch.randn(3, 1, 1, N, 8, dtype=torch.float64)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(found(q, k, v), dense)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("heads even { attend window(4) } heads odd { attend stride(4) & causal }", None),
        ("heads 0..2 { attend causal } heads 2..4 { attend self }", None),
        ("heads {0, 2, 3} { attend self } heads {1} { attend causal }", None),
        ("attend window(5)", "attend window(5)"),
    ],
)  # fmt: skip
def test_heads(written: str, said: str | None) -> None:
    found = recognised(attnc.mask(text(written), n=N, heads=4))
    assert body(found) == (said or written)
    assert ("4 heads were seen" in " ".join(found.notes)) == ("heads" in written)


@pytest.mark.parametrize("written", ["window(5)", "window(4) | to(first(3))", "chunk(10) & causal"])
def test_fewer_queries_than_keys(written: str) -> None:
    found = recognised(attnc.mask(text(f"attend {written}"), n=N, n_q=20))
    assert torch.equal(found.mask(N), attnc.mask(text(f"attend {written}"), n=N))
    assert "only the last 20 queries of 48 were seen" in found.notes


def test_what_follows_no_rule_is_listed_and_says_so() -> None:
    mask = attnc.mask(text("attend random(5, seed=1)"), n=N)
    found = recognised(mask)
    assert body(found) == "input block: bool[n, n] attend where block[q, k]"
    assert (
        "no rule was recognised: edges are listed by blocks of 1 x 1 tokens, for 48 keys alone"
        in found.notes[1]
    )
    picks = attnc.mask(text("attend blocks(8, random(2, seed=1) | self)"), n=N)
    found = recognised(picks)
    assert "block: bool[(n + 7) / 8, (n + 7) / 8] attend where block[q // 8, k // 8]" in body(found)
    assert list(found.tables["block"].tensor.shape) == [6, 6]
    q, k, v = torch.randn(3, 1, 1, N, 8, dtype=torch.float64)
    torch.testing.assert_close(
        found(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v, picks)
    )
    apart = torch.cat([mask, attnc.mask(text("attend causal"), n=N), picks])
    assert "heads {1} { attend causal }" in body(recognised(apart))


@pytest.mark.parametrize("seed", range(12))
def test_any_mask_holds(seed: int) -> None:
    """Rules joined at random, and some of their edges taken out: recognised or listed, never wrong."""
    make = np.random.default_rng(seed)
    parts = [
        "window(3)",
        "chunk(7)",
        "to(first(2))",
        "stride(6)",
        "from({3})",
        "window(2, 2, dilation=5)",
        "causal",
    ]
    joined = " | ".join(make.choice(parts, 3, replace=False)) + (" & chunk(20)" if seed % 2 else "")
    n = int(make.integers(5, 40))
    mask = attnc.mask(text(f"attend {joined}"), n=n)
    if seed % 3 == 0:
        mask &= torch.from_numpy(make.random(mask.shape) < 0.97)
    recognised(mask)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_masks(n: int) -> None:
    for bits in range(1 << n * n):
        edges = torch.tensor([bool(bits >> i & 1) for i in range(n * n)]).view(1, n, n)
        if n < 3 or bits % 37 == 0:
            recognised(edges)


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_arrays_and_single_masks(kind: type) -> None:
    mask = attnc.mask(text("attend window(5)"), n=N)[0]
    found = attnc.from_mask(mask if kind is torch.Tensor else mask.numpy(), name="near")
    assert found.name == "near" and "pattern near() {" in found.source


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.zeros(4, 4), TypeError, "got one of torch.float32. Of a mask that is added to scores"),
        ([[True]], TypeError, "got list"),
        (torch.ones(4, dtype=torch.bool), ValueError, r"takes (n_q, n) or (heads, n_q, n); got (4,)"),
        (torch.ones(1, 2, 4, 4, dtype=torch.bool), ValueError, "give one entry: `mask[0]`"),
        (torch.ones(5, 4, dtype=torch.bool), ValueError, "no more queries (5) than keys (4)"),
        (torch.ones(0, 4, dtype=torch.bool), ValueError, "has no entries"),
        (torch.ones(1, dtype=torch.bool).expand(5000, 5000), ValueError, "too large to be looked at"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_mask(mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        attnc.from_mask(mask)


def test_a_name_that_patterns_cannot_have() -> None:
    with pytest.raises(TypeError, match="cannot be called 'where'"):
        attnc.from_mask(torch.ones(2, 2, dtype=torch.bool), name="where")

"""``attnc.from_mask_mod``: FlexAttention's mask functions, read as patterns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import (
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
    or_masks,
)

import attnc
from attnc.diagnostics import AttncError, Source
from attnc.pipeline import emit
from attnc.request import Request

N, BATCH, HEADS = 45, 2, 4

DOCUMENT = torch.arange(N) // 13
OFFSETS = torch.tensor([0, 13, 26, 39])
BY_BATCH = torch.stack([torch.arange(N) // 7, torch.arange(N) // 11])
STARTS = torch.tensor([0, 2, 19, 4, 30, 7, 11])
PREFIX = torch.tensor([5, 9])
HUB = torch.rand(N, generator=torch.Generator().manual_seed(0)) < 0.2
WIDTHS = torch.tensor([3, 5, 7, 9])
BLOCKS = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.5
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(2))
LIMIT = torch.tensor(7)


def causal(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx


def sliding(width: int) -> Any:
    def sliding_window(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return q_idx - kv_idx <= width

    return and_masks(sliding_window, causal)


def in_documents(inner: Any, document_id: torch.Tensor, offsets: torch.Tensor) -> Any:
    def doc_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        same_doc = document_id[q_idx] == document_id[kv_idx]
        q_logical = q_idx - offsets[document_id[q_idx]]
        kv_logical = kv_idx - offsets[document_id[kv_idx]]
        return same_doc & inner(b, h, q_logical, kv_logical)

    return doc_mask


def neighbourhood(height: int, width: int, size: int) -> Any:
    """NATTEN's neighbourhood, moved inwards at the image's edge."""

    def natten_mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        q_x, q_y = q_idx // width, q_idx % width
        kv_x, kv_y = kv_idx // width, kv_idx % width
        center_x = q_x.clamp(size // 2, (height - 1) - size // 2)
        center_y = q_y.clamp(size // 2, (width - 1) - size // 2)
        return ((center_x - kv_x).abs() <= size // 2) & ((center_y - kv_y).abs() <= size // 2)

    return natten_mask


def tiles(height: int, width: int) -> Any:
    """Tiles of a grid whose tokens lie tile after tile: their coordinates are computed, then compared."""
    columns = 3

    def place(i: Any) -> Any:
        tile, inner = i // (height * width), i % (height * width)
        return tile // columns * height + inner // width, tile % columns * width + inner % width

    def tiled(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        (q_y, q_x), (k_y, k_x) = place(q_idx), place(kv_idx)
        return (torch.abs(q_y - k_y) <= 2) & (torch.abs(q_x - k_x) <= 2)

    return tiled


# Title, function, and the same as a person would write it in the language.
Case = tuple[str, Callable[..., Any], str]
WRITTEN: list[Case] = [
    ("causal", causal, "attend causal"),
    ("window", sliding(6), "attend window(6)"),
    ("both ways", lambda b, h, q, k: (q - k).abs() <= 6, "attend window(6, 6)"),
    ("both ways, causal", lambda b, h, q, k: (torch.abs(q - k) <= 6) & (k <= q), "attend window(6)"),
    (
        "dilated",
        lambda b, h, q, k: ((q - k).abs() <= 12) & ((q - k) % 4 == 0),
        "attend window(3, 3, dilation=4)",
    ),
    (
        "dilated, by the distance",
        lambda b, h, q, k: ((q - k).abs() <= 13) & (torch.abs(q - k) % 4 == 0),
        "attend window(3, 3, dilation=4)",
    ),
    ("stride", lambda b, h, q, k: (q % 7 == k % 7) & (q >= k), "attend stride(7) & causal"),
    ("chunk", lambda b, h, q, k: (q // 16 == k // 16) & (q >= k), "attend chunk(16) & causal"),
    (
        "sinks",
        lambda b, h, q, k: (q >= k) & ((k < 4) | (q - k < 9)),
        "attend (to(first(4)) | window(8)) & causal",
    ),
    (
        "fixed",
        lambda b, h, q, k: (q >= k) & ((k // 16 == q // 16) | (k % 16 >= 12)),
        "attend (chunk(16) | where 12 <= k % 16) & causal",
    ),
    ("prefix", or_masks(causal, lambda b, h, q, k: k < 10), "attend causal | to(first(10))"),
    ("every", lambda b, h, q, k: (k % 8 == 3) & (k <= q), "attend to(every(8, 3)) & causal"),
    ("listed", lambda b, h, q, k: (k == 3) | (k == 0) | (q == 9), "attend from({9}) | to({0, 3})"),
    (
        "document",
        lambda b, h, q, k: (DOCUMENT[q] == DOCUMENT[k]) & (q >= k),
        "input DOCUMENT: int[n] attend same(DOCUMENT) & causal",
    ),
    (
        "document, positions counted in each",
        in_documents(causal, DOCUMENT, OFFSETS),
        "input document_id: int[n] attend same(document_id) & causal",
    ),
    (
        "document and window",
        in_documents(sliding(5), DOCUMENT, OFFSETS),
        "input document_id: int[n] attend window(5) & same(document_id)",
    ),
    (
        "longformer",
        lambda b, h, q, k: ((q - k).abs() <= 3) | HUB[q] | HUB[k],
        "input HUB: bool[n] attend window(3, 3) | from(HUB) | to(HUB)",
    ),
    (
        "neighbourhood",
        lambda b, h, q, k: ((q // 9 - k // 9).abs() <= 2) & ((q % 9 - k % 9).abs() <= 1),
        "grid(y: 9, x: 9) attend window(2, 2, axis=y) & window(1, 1, axis=x)",
    ),
    (
        "clamped neighbourhood",
        neighbourhood(9, 9, 3),
        "grid(y: 9, x: 9) attend where min(7, max(1, q.y)) <= k.y + 1 and k.y <= 8 and "
        "k.y <= max(1, q.y) + 1 and k.x <= max(1, q.x) + 1 and min(7, max(1, q.x)) <= k.x + 1",
    ),
    (
        "squares",
        lambda b, h, q, k: (q // 9 // 3 == k // 9 // 3) & (q % 9 // 3 == k % 9 // 3),
        "grid(y: 9, x: 9) attend chunk(3, axis=y) & chunk(3, axis=x)",
    ),
    (
        "heads",
        lambda b, h, q, k: torch.where(h % 2 == 0, q - k <= 5, (q - k) % 4 == 0) & (k <= q),
        "heads even { attend window(5) } heads odd { attend stride(4) & causal }",
    ),
    (
        "the first head",
        lambda b, h, q, k: (q >= k) & ((h != 0) | (q - k < 5)),
        "heads {0} { attend window(4) } heads rest { attend causal }",
    ),
    (
        "odd heads",
        lambda b, h, q, k: (q >= k) & ((h % 2 != 1) | (q - k < 5)),
        "heads odd { attend window(4) } heads even { attend causal }",
    ),
    (
        "some heads",
        lambda b, h, q, k: (q >= k) & (q - k < torch.where(h < 3, 5, 9)),
        "heads 0..3 { attend window(4) } heads rest { attend window(8) }",
    ),
]  # fmt: skip

OTHERS: list[tuple[str, Callable[..., Any]]] = [
    ("prefix of each batch entry", lambda b, h, q, k: (k < PREFIX[b]) | (q >= k)),
    ("documents of each batch entry", lambda b, h, q, k: (BY_BATCH[b, q] == BY_BATCH[b, k]) & (k <= q)),
    ("documents of each, counted", lambda b, h, q, k: STARTS[BY_BATCH[b, q]] <= k),
    ("a width for each head", lambda b, h, q, k: (q - k < WIDTHS[h]) & (q >= k)),
    ("blocks", lambda b, h, q, k: BLOCKS[q // 8, k // 8] & (q >= k)),
    ("a number in a tensor", lambda b, h, q, k: (k < LIMIT) | (q >= LIMIT)),
    ("clamped neighbourhood", neighbourhood(5, 9, 3)),
    ("tiles", tiles(3, 5)),
    ("another order", lambda b, h, q, k: (ORDER[q] // 8 == ORDER[k] // 8)),
    ("bits", lambda b, h, q, k: ((q & 7) == (k & 7)) | (q >> 3 == (k >> 3) + 1)),
    ("exclusive", lambda b, h, q, k: (q < 20) ^ (k >= 12)),
    ("agreeing conditions", lambda b, h, q, k: (q < 20) == (k < 12)),
    ("conditions as numbers", lambda b, h, q, k: (q < 20).int() + (k < 12).to(torch.int32) >= 1),
    ("extremes", lambda b, h, q, k: torch.maximum(q, k) - torch.minimum(q, k) < 5),
    ("not", lambda b, h, q, k: ~((k > q) | torch.logical_not(HUB[k]))),
    ("a partial function", functools.partial(lambda w, b, h, q, k: (q - k).abs() < w, 4)),
    ("constants", lambda b, h, q, k: q.new_ones((), dtype=torch.bool)),
    ("two-sided", lambda b, h, q, k: (q - k >= 3) & (q - k < 9)),
    ("past the distance", lambda b, h, q, k: (q - k).abs() == 4),
    ("negative", lambda b, h, q, k: (-q + 20) // 3 <= k),
    ("nothing", lambda b, h, q, k: (k > q) & (k < q)),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "written"), [case[1:] for case in WRITTEN], ids=[case[0] for case in WRITTEN])
def test_what_has_a_name_is_called_by_it(fn: Any, written: str) -> None:
    """The body is what a person writes; the plan, therefore, is that of the written pattern."""
    pattern = attnc.from_mask_mod(fn, name="mod")
    body = pattern.source.partition("{\n")[2].rpartition("}")[0]
    assert " ".join(body.split()) == " ".join(written.split()) or plan(pattern.source) == plan(
        f"pattern mod() {{ {written} }}"
    )
    agrees(pattern, fn)


def plan(text: str) -> str:
    return emit(Request(Source("<text>", text)), "schedule")


@pytest.mark.parametrize("fn", [case[1] for case in OTHERS], ids=[case[0] for case in OTHERS])
def test_what_has_no_name_means_the_same(fn: Any) -> None:
    agrees(attnc.from_mask_mod(fn), fn)


def agrees(pattern: Any, fn: Any) -> None:
    theirs = create_mask(fn, BATCH, HEADS, N, N, device="cpu")
    ours = pattern.mask(N, HEADS)
    assert torch.equal(ours.expand(BATCH, HEADS, N, N), theirs), pattern.source


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("fn", [in_documents(sliding(5), DOCUMENT, OFFSETS), OTHERS[0][1], OTHERS[3][1]])
def test_attention_is_theirs(fn: Any) -> None:
    make = torch.Generator().manual_seed(0)
    q = torch.randn(BATCH, HEADS, N, 16, generator=make, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(BATCH, 2, N, 16, generator=make, dtype=torch.float64) for _ in range(2))
    grad = torch.randn(BATCH, HEADS, N, 16, generator=make, dtype=torch.float64)
    block_mask = create_block_mask(fn, BATCH, HEADS, N, N, device="cpu", BLOCK_SIZE=16)
    wanted = flex_attention(q.detach(), k, v, block_mask=block_mask, enable_gqa=True, scale=0.2)
    out = attnc.from_mask_mod(fn)(q, k, v, scale=0.2)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-12)
    # Theirs has no backward on the CPU: dense attention under their mask has.
    dense = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, create_mask(fn, BATCH, HEADS, N, N, device="cpu"), scale=0.2, enable_gqa=True
    )
    ours, theirs = (torch.autograd.grad(x, q, grad)[0] for x in (out, dense))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_tensors_are_inputs_that_others_can_replace() -> None:
    pattern = attnc.from_mask_mod(in_documents(causal, DOCUMENT, OFFSETS))
    assert pattern.name == "doc_mask" and list(pattern.tables) == ["document_id"]
    q, k, v = torch.randn(3, 1, 2, 20, 8)
    cut = pattern(q, k, v)  # fewer keys than entries: the first ones
    assert torch.equal(cut, pattern(q, k, v, document_id=DOCUMENT[:20]))
    assert not torch.equal(cut, pattern(q, k, v, document_id=torch.zeros(20, dtype=torch.int64)))
    with pytest.raises(TypeError, match="no input is called `documents`; its inputs are `document_id`"):
        pattern(q, k, v, documents=DOCUMENT)
    long = torch.randn(1, 2, N + 1, 8)
    with pytest.raises(ValueError, match=f"`document_id` has {N} entries, and {N + 1} keys read {N + 1}"):
        pattern(long, long, long)


def test_the_text_can_be_kept(tmp_path: Path) -> None:
    pattern = attnc.from_mask_mod(sliding(5), name="near")
    (tmp_path / "near.attn").write_text(pattern.source, encoding="utf-8")
    q, k, v = torch.randn(3, 1, 2, 20, 8)
    assert torch.equal(attnc.load(tmp_path / "near.attn")(q, k, v), pattern(q, k, v))


# --- refused --------------------------------------------------------------------------------------------


def branching(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    if q_idx > kv_idx:  # data-dependent
        return q_idx >= 0
    return q_idx < 0


def joined(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx >= kv_idx and kv_idx > 3  # and


def chained(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return 0 <= q_idx - kv_idx < 4  # chain


def fraction(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx / 2 >= kv_idx  # divided


def listed(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return (kv_idx == OFFSETS).any()  # as a whole


def wave(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return torch.sin(q_idx) > 0  # unknown


def floats(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return torch.ones(N)[kv_idx] > 0.5  # floats


def sliced(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return BLOCKS[q_idx // 8, :].any()  # slice


def half(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return q_idx * 0.5 > kv_idx  # half


def nested(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return branching(b, h, q_idx, kv_idx) & causal(b, h, q_idx, kv_idx)


REFUSED = [
    (branching, "a condition has no value", "# data-dependent"),
    (joined, "a condition has no value", "# and"),
    (chained, "a condition has no value", "# chain"),
    (fraction, "`/` makes fractions", "# divided"),
    (listed, "a tensor of shape (4,) meets a position as a whole", "# as a whole"),
    (wave, "`sin` is not known to patterns", "# unknown"),
    (floats, "cannot hang on the entries of a float32 tensor", "# floats"),
    (sliced, "a table is read entry by entry", "# slice"),
    (half, "0.5 is no whole number", "# half"),
    (nested, "a condition has no value", "# data-dependent"),
]


@pytest.mark.parametrize(("fn", "message", "line"), REFUSED, ids=[case[0].__name__ for case in REFUSED])
def test_what_cannot_be_traced_is_marked_where_it_stands(fn: Any, message: str, line: str) -> None:
    with pytest.raises(AttncError) as caught:
        attnc.from_mask_mod(fn)
    (found,) = caught.value.diagnostics
    assert found.message.startswith(message) or message in found.message
    assert found.source.name == __file__
    start = found.source.text.rfind("\n", 0, found.span.start) + 1
    assert found.source.text[start:].splitlines()[0].endswith(line)
    assert f"{Path(__file__).name}:" in str(caught.value)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda b, h, q, k: q - k, "answers with a condition, and this one with a number"),
        (lambda b, h, q, k: None, "this one with NoneType"),
        (lambda b, h, q, k: (b == 0) & (q >= k), "it hangs on the number of the batch entry"),
        (lambda b, h, q, k: STARTS[DOCUMENT[q] + 1] < k, "computed from another tensor's entries"),
        (lambda b, h, q, k: BY_BATCH.T[q, b] == 0, "read at `b` in an axis that is not its first"),
    ],
)
def test_what_a_function_means_as_a_whole(fn: Any, message: str) -> None:
    with pytest.raises(AttncError, match=message):
        attnc.from_mask_mod(fn)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="takes a function of"):
        attnc.from_mask_mod("causal")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must take \(b, h, q_idx, kv_idx\), .* and takes \(q, k\)"):
        attnc.from_mask_mod(lambda q, k: q >= k)
    with pytest.raises(TypeError, match=r"must take \(score, b, h, q_idx, kv_idx\), .* \(b, h, q, k\)"):
        attnc.from_mask_mod(None, score_mod=lambda b, h, q, k: q - k)
    with pytest.raises(TypeError, match="cannot be called 'where'"):
        attnc.from_mask_mod(causal, name="where")
    with pytest.raises(ValueError, match=f"`DOCUMENT` has {N} entries, and 100 keys read 100"):
        attnc.from_mask_mod(lambda b, h, q, k: DOCUMENT[q] == DOCUMENT[k], n=100)


def test_their_own_errors_go_through() -> None:
    def broken(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        attnc.from_mask_mod(broken)

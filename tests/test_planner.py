"""Which tiling is chosen for what, and how much more than its edges a plan computes."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnc import reference
from attnc.counting import TILE, tile_and_step, touched
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.digits import PLAIN, sized
from attnc.parser import parse
from attnc.planner import plan
from attnc.resolver import resolve
from attnc.schedule import BodyPlan, Pass
from tests.test_plan_proofs import bodies

N = 1 << 16
EXAMPLES = Path(__file__).parent.parent / "examples"


def planned(text: str) -> BodyPlan:
    (item,) = bodies(f"pattern p() {{ {text} }}")
    return item


def tilings(passes: tuple[Pass, ...]) -> list[tuple[Any, ...]]:
    """Of every pass: the sizes of its digits, its tiles' extents in them, and the digits of every sweep."""
    return [
        (part.walk.radix.sizes, part.extents, [sweep.walk.radix.sizes for sweep in part.sweeps])
        for part in passes
    ]


# --- which ----------------------------------------------------------------------------------------------

# Both sides are tiled alike, but where another row says otherwise.
CHOSEN: dict[str, tuple[str, list[tuple[Any, ...]], list[tuple[Any, ...]] | None]] = {
    "causal": ("attend causal", [((), (), [()])], None),
    "window": ("attend window(1023)", [((), (), [()])], None),
    "stride": ("attend stride(64) & causal", [((64,), (1,), [(64,)])], None),
    "a residue of the distance": ("attend where (q - k) % 64 == 5", [((64,), (1,), [(64,)])], None),
    "a dilated window": ("attend window(127, dilation=4)", [((4,), (1,), [(4,)])], None),
    "a fixed pattern": (
        "attend where k % 128 >= 120",
        [((), (), [(128,)])],
        [((128,), (8,), [()])],
    ),
    "a fixed pattern of queries": (
        "attend where q % 128 >= 120",
        [((), (), []), ((128,), (8,), [()])],  # the first gives zeros to all other queries
        [((), (), [(128,)])],
    ),
    "every so many keys": ("attend to(every(128))", [((), (), [(128,)])], [((128,), (1,), [()])]),
    "a neighbourhood": (
        "grid(y: 256, x: 256) attend window(6, 6, axis=y) & window(6, 6, axis=x)",
        [((256,), (8,), [(256,)])],
        None,
    ),
    "a neighbourhood in a cube": (
        "grid(z: 16, y: 64, x: 64) attend window(2, 2, axis=z) & window(2, 2, axis=y) & window(2, 2, axis=x)",
        [((64, 64), (4, 4), [(64, 64)])],
        None,
    ),
    "windows that do not overlap": (
        "grid(y: 64, x: 64) attend chunk(8, axis=y) & chunk(8, axis=x)",
        [((64,), (8,), [(64,)])],
        None,
    ),
    "windows of odd sizes": (
        "grid(y: 56, x: 56) attend chunk(7, axis=y) & chunk(7, axis=x)",
        [((8, 7), (1, 7), [(56,)])],
        None,
    ),
    "a neighbourhood of every fourth column": (
        "grid(y: 256, x: 256) attend window(6, 6, axis=y) & window(6, 6, dilation=4, axis=x)",
        [((64, 4), (8, 1), [(64, 4)])],
        None,
    ),
    "several remainders": (
        "attend where (q - k) % 6 == 1 and (q - k) % 10 == 3 and (q - k) % 4 == 3",
        [((60,), (1,), [(60,)])],
        None,
    ),
    "remainders that seldom meet": (
        "attend where (q - k) % 64 == 0 and (q - k) % 8191 == 0",
        [((), (), [(524224,)])],
        None,
    ),
    "a column": ("grid(y: 256, x: 256) attend chunk(1, axis=x)", [((256,), (1,), [(256,)])], None),
    "a row": ("grid(y: 256, x: 256) attend chunk(1, axis=y)", [((), (), [()])], None),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_tiling_suits_the_pattern(name: str) -> None:
    text, query, key = CHOSEN[name]
    item = planned(text)
    assert tilings(item.query) == query
    assert tilings(item.key) == (query if key is None else key)
    assert not any(part.continues for part in item.query)


JOINED = {
    "rows and columns": ("grid(y: 256, x: 256) attend chunk(1, axis=y) | chunk(1, axis=x)", 256),
    "a window and a stride": ("attend (window(127) | stride(128)) & causal", 128),
    "a narrow window and a stride": ("attend (window(31) | stride(64)) & causal", 64),
}


@pytest.mark.parametrize("name", JOINED)
def test_what_no_one_tiling_suits_takes_two_passes(name: str) -> None:
    text, size = JOINED[name]
    item = planned(text)
    for passes in (item.query, item.key):
        assert [part.walk.radix for part in passes] == [PLAIN, sized(size)]
    assert [part.continues for part in item.query] == [False, True]


def test_few_pairs_are_not_worth_a_second_pass() -> None:
    """A pass more costs every row something: more than visiting a short stride within a window's tiles."""
    (part,) = planned("attend window(200) | window(3, dilation=100)").query
    assert not part.continues and len(part.sweeps) == 2


def test_a_second_pass_is_paid_by_what_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "attend (window(127) | stride(128)) & causal"
    assert len(planned(text).query) == 2
    monkeypatch.setattr("attnc.planner.JOINING", 1 << 20)
    assert len(planned(text).query) == 1


def test_what_is_drawn_is_tiled_by_consecutive_positions() -> None:
    """Lists of drawn tiles are kept for those; what a query draws by tokens it takes one by one, anywhere."""
    item = planned("attend (random(3, seed=0) | stride(128)) & causal")
    assert any(sweep.scatter is not None for part in item.query for sweep in part.sweeps)
    for passes in (item.query, item.key):
        for part in passes:
            if any(sweep.drawn is not None and sweep.scatter is None for sweep in part.sweeps):
                assert part.walk.radix == PLAIN


@pytest.mark.parametrize(
    ("text", "shifted"),
    [("attend offsets(powers(2)) & causal", True), ("attend random(3, seed=1)", False)],
)
def test_few_edges_far_apart_are_taken_one_by_one(text: str, shifted: bool) -> None:
    """So that a row costs its edges, not the tiles around them."""
    (part,) = planned(text).query
    scatters = [sweep.scatter for sweep in part.sweeps if sweep.scatter is not None]
    assert [scatter.shifted for scatter in scatters] == [shifted]


def test_what_is_read_from_inputs_is_packed() -> None:
    item = planned("input hub: bool[n] attend window(2, 2) | to(hub) | from(hub)")
    assert [part.walk.members is not None for part in item.query] == [False, True]
    assert any(sweep.walk.members is not None for part in item.query for sweep in part.sweeps)


# --- how much -------------------------------------------------------------------------------------------

SIDE = "grid(y: SIDE, x: SIDE) "


def near(n: int, left: int, right: int = 0) -> int:
    """Pairs of ``n`` positions of which one is at most ``left`` behind the other, or ``right`` ahead."""
    q = np.arange(n)
    return int((np.minimum(q, left) + 1 + np.minimum(n - 1 - q, right)).sum())


# A pattern, how many edges it has at n tokens, and how many pairs may be computed for each of them.
WASTE: dict[str, tuple[str, Callable[[int], int], float]] = {
    "stride": ("attend stride(64)", lambda n: n * n // 64, 1.2),
    "stride, causal": ("attend stride(64) & causal", lambda n: 64 * near(n // 64, n), 1.2),
    "fixed": ("attend where k % 128 >= 120", lambda n: n * n // 16, 1.2),
    "fixed and its chunk": (
        "attend (chunk(128) | where k % 128 >= 120) & causal",
        lambda n: n // 128 * near(128, 128) + 128 * 8 * (near(n // 128, n) - n // 128),
        1.2,
    ),
    "window 1024": ("attend window(1023)", lambda n: near(n, 1023), 1.2),
    "window 128": ("attend window(127)", lambda n: near(n, 127), 1.6),
    "dilated": ("attend window(127, dilation=4)", lambda n: 4 * near(n // 4, 127), 1.6),
    "dilated, both ways": (
        "attend window(64, 64, dilation=4)",
        lambda n: 4 * near(n // 4, 64, 64),
        1.6,
    ),
    "neighbourhood": (
        f"{SIDE} attend window(6, 6, axis=y) & window(6, 6, axis=x)",
        lambda n: near(isqrt(n), 6, 6) ** 2,
        3.5,
    ),
    "axial": (f"{SIDE} attend chunk(1, axis=y) | chunk(1, axis=x)", lambda n: n * (2 * isqrt(n) - 1), 1.3),
    "a window and a stride": (
        "attend (window(127) | stride(128)) & causal",
        lambda n: near(n, 127) + 128 * (near(n // 128, n) - n // 128),
        1.4,
    ),
}


def computed(passes: tuple[Pass, ...], n: int) -> float:
    """Pairs that a side's tiles compute, in the tiles and steps that were chosen."""
    return sum(touched(part, sweep, n, *tile_and_step(part)) for part in passes for sweep in part.sweeps)


@pytest.mark.parametrize("name", WASTE)
def test_little_more_is_computed_than_needed(name: str) -> None:
    text, edges, most = WASTE[name]
    item = planned(text.replace("SIDE", str(isqrt(N))))
    for passes in (item.query, item.key):
        assert 1 <= computed(passes, N) / edges(N) <= most


@pytest.mark.parametrize("name", WASTE)
def test_the_edges_are_told_rightly(name: str) -> None:
    """What the waste is told by, held against the mask of fewer tokens."""
    text, edges, _ = WASTE[name]
    n = 1024
    source = Source("p.attn", f"pattern p() {{ {text.replace('SIDE', str(isqrt(n)))} }}")
    assert int(reference.mask(resolve(parse(source)).patterns[0], n, 1).sum()) == edges(n)


def test_bigbird_wastes_nothing() -> None:
    text = (EXAMPLES / "bigbird.attn").read_text(encoding="utf-8")
    pattern = resolve(parse(Source("bigbird.attn", text))).patterns[0]
    (item,) = plan(pattern, decompose(pattern)).bodies
    tokens = "let hubs = first(1) + last(1) attend window(1, 1) | to(hubs) | from(hubs) | random(3, seed=0)"
    blocks = resolve(parse(Source("b.attn", f"pattern b() {{ {tokens} }}"))).patterns[0]
    edges = int(reference.mask(blocks, N // 64, 1).sum()) * 64 * 64
    for passes in (item.query, item.key):
        assert computed(passes, N) / edges <= 1.05


@pytest.mark.parametrize(
    ("text", "n", "edges", "most"),
    [
        ("grid(y: 56, x: 56) attend chunk(7, axis=y) & chunk(7, axis=x)", 56 * 56, 56 * 56 * 49, 3.0),
        (
            "grid(y: 256, x: 256) attend window(6, 6, axis=y) & window(6, 6, dilation=4, axis=x)",
            N,
            near(256, 6, 6) * 4 * near(64, 6, 6),
            2.7,
        ),
        (
            "attend where (q - k) % 6 == 0 and (q - k) % 10 == 0",
            N,
            sum(len(range(residue, N, 30)) ** 2 for residue in range(30)),
            1.12,  # in steps of 128
        ),
    ],
    ids=["windows of a grid", "every fourth column", "two remainders"],
)
def test_digits_within_digits_waste_little(text: str, n: int, edges: int, most: float) -> None:
    item = planned(text)
    for passes in (item.query, item.key):
        assert 1 <= computed(passes, n) / edges <= most


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("attend causal", "long"),
        ("attend window(4095)", "long"),
        ("attend window(511)", "long"),
        ("attend window(255)", "long"),
        ("attend window(160)", "wide"),
        ("attend window(31)", "narrow"),
        ("grid(y: 64, x: 64) attend neighborhood(13, axis=y) & neighborhood(13, axis=x)", "wide"),
    ],
)
def test_steps_are_long_where_sweeps_are(text: str, form: str) -> None:
    """Longer steps compute more pairs that are no edges, at fewer instructions for each."""
    [part] = planned(text).query
    assert part.form == form
    [sweep] = part.sweeps
    short, long = (touched(part, sweep, N, TILE, step) for step in (64, 128))
    assert form != "long" or long <= 1.06 * short

"""What a plan is counted to touch is what its tiles touch, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attnc.counting import touched, unmasked
from attnc.pattern import formula
from attnc.schedule import BodyPlan, Pass, Sweep
from tests import enumeration
from tests.test_plan_proofs import bodies, small_bodies

PATTERNS = {
    "window": ("attend window(9, 4)", 64),
    "causal": ("attend causal", 64),
    "chunk": ("attend chunk(8) & causal", 64),
    "stride": ("attend stride(4) & causal", 64),
    "dilated": ("attend window(3, 1, dilation=4)", 64),
    "tail": ("attend (chunk(8) | where k % 8 >= 6) & causal", 64),
    "summary": ("attend to(every(4, 3)) | from(every(8))", 64),
    "sparse": ("attend (window(5) | stride(8)) & causal", 64),
    "grid": ("grid(y: 8, x: 8) attend window(1, 1, axis=y) & window(2, 1, axis=x)", 64),
    "cross": ("grid(y: 8, x: 8) attend chunk(1, axis=y) | chunk(1, axis=x)", 64),
    "cube": ("grid(z: 4, y: 4, x: 4) attend window(1, 1, axis=z) & window(1, axis=y)", 64),
    "shifted": ("grid(y: 8, x: 8) attend where (q.x + 2) // 4 == (k.x + 2) // 4 & chunk(4, axis=y)", 64),
}


def sweeps(item: BodyPlan) -> list[tuple[Pass, Sweep]]:
    return [(part, sweep) for part in (*item.query, *item.key) for sweep in part.sweeps]


def grids(part: Pass, sweep: Sweep, n: int, tile: int) -> Iterator[enumeration.Grid]:
    return enumeration.grids(part, sweep, n, tile, {})


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("digits", [False, True], ids=["plain", "digits"])
def test_the_count_is_what_tiles_touch(name: str, digits: bool) -> None:
    text, n = PATTERNS[name]
    for item in (small_bodies if digits else bodies)(f"pattern p() {{ {text} }}"):
        for part, sweep in sweeps(item):
            for tile, step in ((16, 1), (16, 4), (32, 16)):
                others = [int(grid.reached().any(0).sum()) for grid in grids(part, sweep, n, tile)]
                expected = sum(-(-count // step) * step * tile for count in others)
                assert touched(part, sweep, n, tile, step) == expected, (part.side, sweep.origin, tile, step)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("n", [1, 37, 61])
def test_ragged_ends_are_never_forgotten(name: str, n: int) -> None:
    """Of rectangles of digits some lie beyond the sequence's end; they are computed, and counted."""
    text, _ = PATTERNS[name]
    for item in small_bodies(f"pattern p() {{ {text} }}"):
        for part, sweep in sweeps(item):
            pairs = sum(int(grid.reached().sum()) for grid in grids(part, sweep, n, 16))
            assert touched(part, sweep, n, 16, 1) >= pairs


@pytest.mark.parametrize("digits", [False, True], ids=["plain", "digits"])
def test_loops_without_a_mask_are_kept_where_they_are_run(digits: bool) -> None:
    """Both answers are given, and a tile that has so many unmasked places is found wherever there is one."""
    answers = set()
    for text, n in PATTERNS.values():
        for item in (small_bodies if digits else bodies)(f"pattern p() {{ {text} }}"):
            for part, sweep in sweeps(item):
                # Every row of a tile finds the same unmasked.
                most = max(int(grid.full().all(0).sum()) for grid in grids(part, sweep, n, 8))
                for step in (1, 4, 16, 64):
                    found = unmasked(part, sweep, n, 8, step)
                    assert found == (most >= step), (text, part.side, sweep.origin, most, step)
                    answers.add(found)
    assert answers == {True, False}


def test_a_draw_is_counted_by_its_tiles() -> None:
    """Lists hold what was drawn for every row of a tile, a whole tile of keys for each at worst."""
    (item,) = bodies("pattern p() { attend blocks(64, random(3, seed=0)) }")
    (part,) = item.query
    (sweep,) = part.sweeps
    assert touched(part, sweep, 4096, 128, 64) == 4096 * 3 * 64 * 2
    assert touched(part, sweep, 4096, 64, 64) == 4096 * 3 * 64
    assert touched(part, sweep, 128, 64, 64) == 128 * 128


def test_the_relation_is_never_larger_than_what_is_touched() -> None:
    for text, n in PATTERNS.values():
        for item in small_bodies(f"pattern p() {{ {text} }}"):
            tables = enumeration.example_tables([formula(item.body.relation)], n, 1, 0)
            edges = int(enumeration.edges(item, n, 0, 1, tables).sum())
            for passes in (item.query, item.key):
                total = sum(touched(part, sweep, n, 16, 4) for part in passes for sweep in part.sweeps)
                assert total >= edges

"""Sweeps that come in shares: every place is swept once, whatever the tiles and shares are."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import rule_proofs
from attnc.codegen.module import _sections as module_parts
from attnc.evaluation import Env, evaluate
from attnc.expression import ZERO, Const, Expr, N, Var, add, floor_div, fold
from attnc.rule_proofs import share_ends, shares_are_a_partition
from tests.test_plan_proofs import bodies


class Language:
    """What the helpers need of Triton's language, on Python's integers."""

    minimum, maximum = staticmethod(min), staticmethod(max)

    @staticmethod
    def where(condition: bool, a: int, b: int) -> int:
        return a if condition else b


def emitted(section: str, *names: str, part: str = "shares") -> dict[str, Any]:
    """Functions of the emitted modules as functions on Python's integers."""
    tree = ast.parse(module_parts(part)[section])
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            for argument in node.args.args:
                argument.annotation = None
            kept.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            kept.append(node)
    space: dict[str, Any] = {"tl": Language}
    exec(compile(ast.unparse(ast.Module(kept, [])), section, "exec"), space)
    return space


KERNELS = emitted("kernels", "_share", "_share_of")


@pytest.mark.parametrize(("shares", "block"), [(2, 64), (3, 32), (7, 128), (2, 1), (5, 1)])
def test_shares_are_a_partition(shares: int, block: int) -> None:
    assert shares_are_a_partition(shares, block).outcome == "proven"


def test_wrong_shares_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    right = share_ends

    def late(*args: Any) -> tuple[Expr, Expr]:
        first, stop = right(*args)
        return add(first, 1), stop

    monkeypatch.setattr(rule_proofs, "share_ends", late)
    assert shares_are_a_partition(3, 16).outcome == "refuted"


@settings(max_examples=200, deadline=None)
@given(st.integers(-40, 200), st.integers(-40, 2000), st.integers(1, 9), st.sampled_from((1, 16, 64)))
def test_the_emitted_shares_are_those_that_are_proven(begin: int, end: int, shares: int, block: int) -> None:
    values = Env({"begin": begin, "end": end})
    seen: list[int] = []
    for share in range(shares):
        first, stop = KERNELS["_share"](begin, end, share, shares, block, True)
        told = share_ends(Var("begin"), Var("end"), share, shares, block)
        assert (first, stop) == tuple(int(evaluate(fold(side), values)) for side in told)
        seen += range(first, stop)
    assert seen == list(range(begin, end))
    assert KERNELS["_share"](begin, end, 0, 1, block, False) == (begin, end)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 9))
def test_every_tile_is_taken_once_with_all_its_shares(tiles: int, split: int, shares: int) -> None:
    split = min(split, tiles)
    taken = [KERNELS["_share_of"](turn, split, shares, True) for turn in range(tiles + split * (shares - 1))]
    wanted = [(tile, share, shares) for tile in range(split) for share in range(shares)]
    assert Counter(taken) == Counter(wanted + [(tile, 0, 1) for tile in range(split, tiles)])


@pytest.mark.parametrize(
    ("places", "tiles", "heads", "counted", "heavy", "split", "shares"),
    [
        (1 << 20, 1, 8, True, 0, 1, 32),  # decoding one token: 8 programs become 256
        (1 << 20, 512, 32, True, 0, 0, 1),  # enough to do as it is
        (1 << 20, 1, 1, True, 0, 1, 64),  # as many shares as are ever joined
        (4096, 1, 8, True, 0, 1, 8),  # no shares that would take but a few steps
        (300, 1, 8, True, 0, 0, 1),
        (1 << 20, 1 << 14, 16, False, 0, 4, 16),  # some chosen rows of many: the first tiles of those
        (1 << 20, 2, 16, False, 0, 2, 16),
        (1 << 20, 1, 300, False, 0, 0, 1),
        (1 << 20, 512, 32, True, 2, 2, 64),  # many tiles, of which two have far more to do
        (1 << 14, 512, 32, True, 1, 1, 8),
        (2048, 512, 32, True, 1, 0, 1),  # not so much that it would pay
        (1 << 20, 4, 8, True, 2, 4, 8),  # few tiles, all in shares
    ],
)
def test_few_and_heavy_tiles_come_in_shares(
    places: int, tiles: int, heads: int, counted: bool, heavy: int, split: int, shares: int
) -> None:
    found = emitted("launch", "_shares")["_shares"](places, 64, tiles, heads, counted, heavy)
    assert found == (split, shares)


@pytest.mark.parametrize(
    ("text", "query", "key"),
    [
        ("attend causal", [N], [N]),
        ("attend window(4095)", [Const(4223)], [Const(4223)]),
        ("attend window(127)", [ZERO], [ZERO]),
        ("attend stride(64) & causal", [floor_div(N, 64)], [floor_div(N, 64)]),
        ("input hub: bool[n] attend window(9) | to(hub) | from(hub)", [ZERO, N], [ZERO, N]),
        ("input doc: int[n] attend same(doc)", [N], [N]),
        ("attend offsets(powers(2))", [ZERO], [ZERO]),
    ],
)
def test_long_sweeps_may_come_in_shares(text: str, query: list[Expr], key: list[Expr]) -> None:
    (item,) = bodies(f"pattern p() {{ {text} }}")
    assert [part.longest for part in item.query] == query
    assert [part.longest for part in item.key] == key


@pytest.mark.parametrize(
    ("text", "query", "key"),
    [
        ("attend causal", [("backwards", 0)], [("forwards", 0)]),
        ("attend window(300)", [("forwards", 0)], [("forwards", 0)]),
        ("attend window(9) | to(first(16))", [("forwards", 0)], [("forwards", 128)]),
        ("attend window(9) | from(first(16))", [("forwards", 128)], [("forwards", 0)]),
        ("attend window(9) | from(last(200))", [("backwards", 256)], [("forwards", 0)]),
        ("attend window(9) | from(first(16) + last(200))", [("inwards", 512)], None),
        ("input hub: bool[n] attend window(9) | from(hub)", None, None),
        ("attend window(9) | from(every(500, 0))", None, None),
    ],
)
def test_tiles_with_far_more_to_do_come_first(
    text: str, query: list[tuple[str, int]] | None, key: list[tuple[str, int]] | None
) -> None:
    (item,) = bodies(f"pattern p() {{ {text} }}")
    for passes, wanted in ((item.query, query), (item.key, key)):
        found = [(part.order, part.heavy) for part in passes]
        assert wanted is None or found[: len(wanted)] == wanted
    if "hub" in text or "500" in text:  # inputs decide, and tiles here and there
        assert all(not part.heavy for part in (*item.query, *item.key))

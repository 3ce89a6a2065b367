"""The random draws: distinct, uniform, the same everywhere, and blind to the future where they should be."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import comb
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attnc import draws
from attnc.expression import (
    HEAD,
    Const,
    Drawn,
    K,
    N,
    Q,
)
from tests import oracle

MASK = 0xFFFFFFFF


def plain_mix(x: int) -> int:
    x ^= x >> 15
    x = x * 0x2C1B3C6D & MASK
    x ^= x >> 12
    x = x * 0x297A2D39 & MASK
    return x ^ x >> 15


def plain_picks(count: int, seed: int, head: int, row: int, columns: int) -> list[int]:
    """The docstring's definition once more, in Python integers and one row at a time."""
    if columns <= count:
        return [i if i < columns else -1 for i in range(count)]
    chosen: list[int] = []
    for i in range(count):
        x = plain_mix(seed & MASK ^ 0x9E3779B9)
        for part in (head, row, i):
            x = plain_mix(x ^ part & MASK)
        j = columns - count + i
        t = x % (j + 1)
        chosen.append(j if t in chosen else t)
    return chosen


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize(("count", "seed", "population"), [(1, 0, 1), (3, 7, 50), (5, -1, 4), (8, 2**40, 9)])
def test_agrees_with_python_integers(count: int, seed: int, population: int, past: bool) -> None:
    heads, rows = np.arange(3)[:, None], np.arange(population)[None, :]
    got = draws.picks(count, seed, past, heads, rows, population)
    assert got.shape == (3, population, count)
    for head in range(3):
        for row in range(population):
            columns = row + 1 if past else population
            assert got[head, row].tolist() == plain_picks(count, seed, head, row, columns)


@pytest.mark.parametrize(("count", "columns"), [(300, 301), (300, 330), (300, 5000), (2, 3), (1, 2)])
def test_many_draws_among_few_columns(count: int, columns: int) -> None:
    """Where most draws meet a pick before, or what stands in the place of one."""
    rows = np.arange(5)
    got = draws.picks(count, 9, False, 1, rows, columns)
    assert got.tolist() == [plain_picks(count, 9, 1, row, columns) for row in rows.tolist()]


@pytest.mark.parametrize("shape", ["table", "row", "pairs", "far", "one"])
@pytest.mark.parametrize(("count", "population"), [(3, 40), (5, 3), (40, 41)])
def test_what_is_drawn_is_what_was_picked(count: int, population: int, shape: str) -> None:
    """However many columns are asked about at once, and where they lie."""
    expr = Drawn(Const(count), Const(4), False, Q, K, N)
    rows = np.arange(50)
    row, column = {
        "table": (rows[:, None], np.arange(-2, population + 3)[None, :]),
        "row": (rows[:1], np.arange(population)),
        "pairs": (rows, rows[::-1] % population),
        "far": (rows, rows * 10**9),
        "one": (rows[:, None], np.array([[2]])),
    }[shape]
    got = draws.drawn(expr, row, column, population, 2)
    wanted = [set(plain_picks(count, 4, 2, r, population)) - {-1} for r in range(50)]
    at, asked = np.broadcast_arrays(row, column)
    assert got.shape == at.shape and got.dtype == np.bool_
    assert got.ravel().tolist() == [c in wanted[r] for r, c in zip(at.ravel(), asked.ravel(), strict=True)]


def test_known_values() -> None:
    """The draws are part of the language: a change of them changes every model that uses them."""
    assert draws.picks(4, 0, False, 0, np.arange(3), 100).tolist() == [
        [85, 51, 44, 59],
        [63, 33, 96, 27],
        [37, 14, 97, 31],
    ]
    assert draws.picks(3, 1, True, 2, 1_000_000, 5).tolist() == [898042, 516316, 433099]


@pytest.mark.parametrize("population", [1, 2, 7, 8, 9, 1000, 2**31 - 1])
def test_distinct_and_in_range(population: int) -> None:
    got = draws.picks(8, 3, False, np.arange(4)[:, None], np.arange(200), population)
    real = np.sort(got, axis=-1)[..., max(0, 8 - population) :]
    assert real.min() >= 0
    assert real.max() < population
    assert (np.diff(real, axis=-1) > 0).all()
    assert (got < 0).sum() == got[..., 0].size * max(0, 8 - population)


def test_too_few_columns_gives_all_of_them() -> None:
    assert draws.picks(4, 9, False, 0, 5, 3).tolist() == [0, 1, 2, -1]
    assert draws.picks(4, 9, True, 0, 1, 1000).tolist() == [0, 1, -1, -1]
    assert draws.picks(4, 9, False, 0, 0, 0).tolist() == [-1, -1, -1, -1]


@pytest.mark.parametrize(("columns", "count"), [(6, 3), (5, 4), (9, 1), (7, 2)])
def test_every_subset_is_equally_likely(columns: int, count: int) -> None:
    """Pearson's chi square over all subsets stays below a bound passed once in about 10**5 fair trials."""
    trials = 60_000
    got = draws.picks(count, 11, False, np.arange(6)[:, None], np.arange(trials // 6), columns)
    seen = Counter(map(tuple, np.sort(got.reshape(trials, count), axis=-1).tolist()))
    subsets = list(combinations(range(columns), count))
    expected = trials / len(subsets)
    freedom = comb(columns, count) - 1
    chi_square = sum((seen[subset] - expected) ** 2 / expected for subset in subsets)
    assert sum(seen[subset] for subset in subsets) == trials
    # Wilson and Hilferty's approximation of the quantile at 4.3 standard deviations.
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 4.3 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_rows_heads_and_seeds_are_independent() -> None:
    """Any two rows share about as many columns as chance has it: count**2 / columns."""
    columns, count = 400, 20
    for first, second in [
        (
            draws.picks(count, 5, False, 0, np.arange(2000), columns),
            draws.picks(count, 5, False, 1, np.arange(2000), columns),
        ),
        (
            draws.picks(count, 5, False, 0, np.arange(2000), columns),
            draws.picks(count, 6, False, 0, np.arange(2000), columns),
        ),
        (
            draws.picks(count, 5, False, 0, np.arange(2000), columns),
            draws.picks(count, 5, False, 0, np.arange(1, 2001), columns),
        ),
    ]:
        shared = (first[:, :, None] == second[:, None, :]).sum() / 2000
        assert abs(shared - count**2 / columns) < 0.1


def test_past_draws_do_not_hang_on_the_population() -> None:
    rows = np.arange(300)
    short = draws.picks(6, 2, True, 1, rows[:100], 100)
    long = draws.picks(6, 2, True, 1, rows, 300)
    assert (short == long[:100]).all()
    assert (long <= rows[:, None]).all()
    # Draws among all columns do hang on it, so the test above is one that can fail.
    assert (
        draws.picks(6, 2, False, 1, rows[:100], 100) != draws.picks(6, 2, False, 1, rows, 300)[:100]
    ).any()


@pytest.mark.parametrize("past", [False, True])
def test_drawn_is_membership(past: bool) -> None:
    n, heads, count = 40, 3, 5
    expr = Drawn(Const(count), Const(13), past, Q, K, N)
    head, row, column = (
        np.arange(heads)[:, None, None],
        np.arange(n)[None, :, None],
        np.arange(n)[None, None, :],
    )
    got = draws.drawn(expr, row, column, n, head)
    assert got.shape == (heads, n, n)
    for h in range(heads):
        for q in range(n):
            wanted = set(plain_picks(count, 13, h, q, q + 1 if past else n)) - {-1}
            assert set(np.flatnonzero(got[h, q]).tolist()) == wanted


def test_membership_of_scalars_and_of_no_column() -> None:
    expr = Drawn(Const(4), Const(0), False, Q, K, N)
    assert draws.drawn(expr, 0, 1, 2, 0).tolist() is True
    assert draws.drawn(expr, 0, -1, 2, 0).tolist() is False


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least one column, but count is 0"):
        draws.picks(0, 0, False, 0, 0, 1)
    with pytest.raises(ValueError, match="known when compiling"):
        draws.drawn(Drawn(HEAD, Const(0), False, Q, K, N), 0, 0, 1, 0)


def test_draws_are_made_once_for_all_layers() -> None:
    module = oracle.compiled("pattern p() { attend random(3, seed=1) | random(2, seed=2) }").module
    device = torch.device("cpu")

    def tables(n: int) -> list[int]:
        return [x.data_ptr() for x in module._tables([], n, n, 2, device).values()]

    first = tables(40)
    assert tables(40) == first
    assert tables(41) != first
    with patch.object(module, "_MOST_CACHED", 0):  # what is kept is none too many, and nothing is added
        tables(42)
        assert len(module._CACHED) == 4
    size = sum(kept[2] for kept in module._CACHED.values())
    with patch.object(module, "_MOST_CACHED", size):
        tables(39)
    kept = {args[6] for _, args, _ in module._CACHED.values()}
    assert kept == {41, 39}  # the oldest, of 40 positions, went
    assert sum(kept[2] for kept in module._CACHED.values()) <= size


def test_nothing_is_cached_under_a_mode() -> None:
    module = oracle.compiled("pattern p() { attend random(3, seed=8) }").module
    with FakeTensorMode():
        module._tables([], 20, 20, 2, torch.device("cpu"))
    assert not module._CACHED
    [table] = module._tables([], 20, 20, 2, torch.device("cpu")).values()
    assert type(table) is torch.Tensor
    with FakeTensorMode():
        assert module._tables([], 20, 20, 2, torch.device("cpu"))["picks_0"] is not table


def test_nothing_is_cached_in_a_graph() -> None:
    module = oracle.compiled("pattern p() { attend random(3, seed=1) }").module
    cuda = torch.device("cuda")
    with patch("torch.cuda.is_current_stream_capturing", lambda: True):
        assert module._cached(lambda *_: 7, 1, cuda) == 7
    assert not module._CACHED
    streams = iter((1, 2, 1))

    def make(*_: object) -> torch.Tensor:
        return torch.zeros(1)

    with (
        patch("torch.cuda.is_current_stream_capturing", lambda: False),
        patch("torch.cuda.current_stream", lambda device: SimpleNamespace(cuda_stream=next(streams))),
    ):
        one, other, again = (module._cached(make, 1, cuda) for _ in range(3))
    assert one is again and one is not other


def test_a_module_that_draws_checks_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        oracle.compiled("pattern p() { attend blocks(4, random(2, seed=5)) | self }").module.main()
    assert ended.value.code == 0
    assert "all within bounds" in capsys.readouterr().out

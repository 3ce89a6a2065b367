"""The torch path's plan: its batches hold every edge of a pattern exactly once, and nothing else.

No numbers are computed, so that many more lengths can be tried than where results are compared.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnc import reference
from tests import oracle
from tests.fuzzing import try_all
from tests.strategies import Call, Case, cases
from tests.test_oracle_torch import call, cut_small

EXAMPLES, SHARDS = 24, 2
# Around whole vectors and tiles of the torch path.
LENGTHS = [size + more for size in (16, 32, 64, 96, 128, 192, 256) for more in (-1, 0, 1)]
RELATIONS = ("causal", "causal", "causal", "all", "window({a})", "chunk({a}) & causal", "stride(2) & causal")
LIMITS = (
    "& where k >= {b}",
    "- to(first({b}))",
    "& to(every(1) - first({b}))",
    "& where k % {a} >= {c}",
    "& where q >= k and k >= {b}",
    "& where k < n - {b}",
    "& where {b} <= k and k < n - {c}",
)


def counted(done: oracle.Compiled, tables: list[torch.Tensor], given: Call) -> np.ndarray:
    """How often the plan's batches have each pair of a query and a key as an edge: (heads, n_q, n)."""
    module, first = done.module, given.n - given.n_q
    q, k = torch.zeros(1, given.heads, given.n_q, 8), torch.zeros(1, given.key_heads, given.n, 8)
    found = np.zeros((given.heads, given.n_q, given.n), dtype=np.int64)
    heads = np.arange(given.heads).reshape(given.key_heads, -1)
    for batch, (_, *shared) in module._all_batches(q, k, tables, module._TILE_COSTS)[0]:
        rows, keys = (
            torch.stack([module._index(x, None) for x in some]) for some in (batch.rows, batch.keys)
        )
        edges = torch.ones(*rows.shape, keys.shape[1], dtype=torch.bool)
        if batch.mask is not None and batch.mask.causal:
            edges = edges.tril()
        elif batch.mask is not None and batch.mask.absent is not None:
            edges = edges & ~batch.mask.absent
        if batch.some is not None:
            edges = edges & batch.some[:, :, None]
        for h in heads[tuple(shared)].flatten():
            np.add.at(found[h], (rows[:, :, None].numpy() - first, keys[:, None, :].numpy()), edges.numpy())
    return found


def wrong_pairs(done: oracle.Compiled, given: Call) -> str:
    """Which pairs the plan has too often or too seldom, in words; empty if none."""
    tables = {
        name: x[0] if given.batched_inputs else x for name, x in oracle.inputs(done.pattern, given).items()
    }
    done.module._PLANS.clear()
    got = counted(done, list(tables.values()), given)
    arrays = {name: table.numpy() for name, table in tables.items()}
    wrong = np.argwhere(got != reference.mask(done.pattern, given.n, given.heads, arrays, given.n_q))
    return f"{len(wrong)} pairs, {wrong[0]} {got[tuple(wrong[0])]} times" if len(wrong) else ""


def run(case: Case) -> None:
    done = oracle.compiled(case.text, small=case.weighed_small)
    cut_small(done.module, case.call.seed)
    pick = random.Random(case.call.seed)
    for i, n in enumerate([*pick.sample(LENGTHS, 6), case.call.n]):
        n_q = n if i % 3 else pick.randint(0, n)
        given = replace(case.call, n=n, n_q=n_q, seed=pick.randrange(2**31))
        wrong = wrong_pairs(done, given)
        assert not wrong, f"{wrong}\n{case.text}{given}"


@st.composite
def limited(draw: st.DrawFn) -> Case:
    """A relation within bounds that fit no vector and no tile."""
    relation = draw(st.sampled_from(RELATIONS))
    for limit in draw(st.lists(st.sampled_from(LIMITS), min_size=1, max_size=2)):
        relation = f"({relation}) {limit}"
    sizes = st.one_of(st.integers(1, 40), st.integers(1, 40), st.integers(41, 140))
    bounds = {name: draw(sizes) for name in "abc"}
    text = f"pattern p() {{ attend {relation.format(**bounds)} }}"
    return Case(text, call(n=draw(st.integers(1, 260)), seed=draw(st.integers(0, 2**31))))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_patterns(shard: int) -> None:
    try_all(run, cases(), EXAMPLES, shard, SHARDS)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_bounds_that_fit_no_tile(shard: int) -> None:
    try_all(run, limited(), EXAMPLES, shard, SHARDS)

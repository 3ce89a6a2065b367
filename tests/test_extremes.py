"""Scores of minus infinity and at the ends of what numbers can say, and such sinks, on the torch path."""

from __future__ import annotations

import pytest
import torch

from tests import extremes, oracle


@pytest.mark.parametrize(("name", "value", "sink"), extremes.CASES)
def test_extreme_scores(name: str, value: str, sink: str) -> None:
    with oracle.poisoned():
        assert extremes.faults(name, value, sink, "torch") == []


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("name", extremes.LIMITLESS)
def test_a_score_without_a_limit_spoils_its_row(name: str, value: float) -> None:
    with oracle.poisoned():
        assert extremes.spoiled(name, value, "torch") == []


@pytest.mark.parametrize("name", ["mask", "a sink", "near and far"])
def test_the_definition_agrees(name: str) -> None:
    """``attnc.weighing``, which other tests compare with, says the same."""
    from attnc import weighing

    item = extremes.PATTERNS[name]
    for value, sink in ((-torch.inf, torch.inf), (extremes.LEAST, -torch.inf), (-torch.inf, 3e38)):
        given = extremes.tables(item, value, sink)
        q, k, v, grad = torch.randn(4, 1, 2, item.n, 16, dtype=torch.float64)
        wanted = extremes.dense(item, q, k, v, given, grad)
        leaves = [x.double().requires_grad_() for x in (q, k, v, *given.values())]
        named = dict(zip(given, leaves[3:], strict=True))
        out, _ = weighing.attention(extremes.compiled(name).pattern, *leaves[:3], named)
        found = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b.to(a.dtype), rtol=1e-5, atol=1e-5)

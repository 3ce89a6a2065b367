"""Scores of minus infinity and at the ends of numbers, and such sinks, under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from tests import extremes, oracle
from tests.device import needs_kernels

needs_kernels()

# Infinity less infinity, and the logarithm of nothing: numpy, too, finds no value, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize(("name", "value", "sink"), extremes.CASES)
def test_extreme_scores(name: str, value: str, sink: str) -> None:
    with oracle.tiles(extremes.compiled(name).module, 16, 16), oracle.poisoned():
        assert extremes.faults(name, value, sink, "triton") == []


@pytest.mark.parametrize(
    ("name", "value"), [("mask", torch.inf), ("passes", torch.nan), ("one by one", torch.inf)]
)
def test_a_score_without_a_limit_spoils_its_row(name: str, value: float) -> None:
    with oracle.tiles(extremes.compiled(name).module, 16, 16):
        assert extremes.spoiled(name, value, "triton") == []

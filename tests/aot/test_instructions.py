"""The fit of instructions a step, against machine code."""

from __future__ import annotations

import pytest
import triton

from attnc.prediction.instructions import fitted
from tests.aot import instructions


@pytest.mark.parametrize("name", ["causal", "mistral"])
def test_the_fit_is_of_these_kernels(name: str) -> None:
    if triton.__version__ not in fitted()["origin"]:
        pytest.skip("the fit was made with another version of Triton")
    found = list(instructions.counted(name, 128))
    assert [loop.masked for loop in found] == [False, True] * 3
    for loop in found:
        assert instructions.told(loop) == pytest.approx(loop.each, rel=0.15)

"""What once went wrong, on the Triton path under Triton's interpreter."""

from __future__ import annotations

import pytest

from tests import oracle
from tests.device import needs_kernels
from tests.test_oracle_torch import call
from tests.test_regressions import CASES, DIGITS, NAMES, WEIGHED, check_weighed, planned

needs_kernels()


@pytest.mark.parametrize(
    "name", [*CASES, *(name for name in DIGITS if "worth" in name or "clamped" in name or "divide" in name)]
)
def test_on_the_triton_path(name: str) -> None:
    done, changes = planned(name)
    given = call(**{"n": 30, "n_q": 30, "dim": 16, "value_dim": 16, **changes})
    assert oracle.check(done, given, "triton") == []


@pytest.mark.parametrize("name", NAMES)
def test_an_input_may_be_named_like_something_in_a_kernel(name: str) -> None:
    text = f"pattern p() {{ input {name}: int[n] attend same({name}) & causal | where {name}[q] < k }}"
    assert oracle.check(oracle.compiled(text), call(n=20, n_q=20, dim=16, value_dim=16), "triton") == []


@pytest.mark.parametrize("name", [name for name in WEIGHED if "fp64" not in name])
def test_what_weighs_edges(name: str) -> None:
    assert check_weighed(name, "triton") == []

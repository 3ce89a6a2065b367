"""The comparison sees damaged kernels: each place of the emitted text that is off by one is found out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests import oracle
from tests.device import needs_kernels
from tests.test_oracle_torch import call

needs_kernels()

TEXT = "pattern p() { attend window(30, 12) | to(every(7)) }"

# What stands in the kernels, what it becomes, and in how many kernels at least.
DAMAGES = (
    (r"\(tl\.minimum\(full_end, end\) - middle\) // BLOCK", "(full_end - middle + BLOCK - 1) // BLOCK", 1),
    (r"k\[None, :\] \+ 30\b", "k[None, :] + 31", 2),
    (r"q\[:, None\] \+ 12\b", "q[:, None] + 11", 2),
    (r"q\[:, None\] \+ 13\b", "q[:, None] + 14", 2),
    (r"tl\.maximum\(0, first - 30\)", "tl.maximum(0, first - 29)", 2),
    (r"end = tl\.minimum\(last \+ 12, n - 1\) \+ 1", "end = tl.minimum(last + 12, n - 1)", 2),
    (r"(?<!# )k = 7 \* k0", "k = 7 * k0 + 1", 3),
    (r"delta -= ", "delta += ", 1),
    (r"\+ \(i - leading\) \* BLOCK_", "+ (i - leading + 1) * BLOCK_", 3),
)


HEAD, MARK, KERNELS = oracle.compiled(TEXT, small=True).text.partition("# --- The Triton path")


def damaged(damage: tuple[str, str, int]) -> Iterator[tuple[str, str]]:
    """The kernels' text with the damage done to one place after the other."""
    old, new, least = damage
    found = list(re.finditer(old, KERNELS))
    assert len(found) >= least, f"{old} stands in the module {len(found)} times"
    for match in found:
        yield f"{match.group()} to {new}", KERNELS[: match.start()] + new + KERNELS[match.end() :]


def faults(kernels: str) -> list[str]:
    given = call(n=54, n_q=54, heads=1, dim=16, value_dim=16)
    module = oracle.imported(HEAD + MARK + kernels)
    with oracle.tiles(module, 16, 16):
        return oracle.check(replace(oracle.compiled(TEXT, small=True), module=module), given, "triton")


def test_nothing_is_wrong_without_damage() -> None:
    assert MARK and faults(KERNELS) == []


@pytest.mark.parametrize("damage", DAMAGES, ids=[old for old, *_ in DAMAGES])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the arithmetic that went wrong
def test_every_damage_is_seen(damage: tuple[str, str, int]) -> None:
    for what, kernels in damaged(damage):
        assert faults(kernels), what

"""What a module builds from integers that queries and keys are compared by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import oracle

ROWS = {
    "in order": [[3, 3, 3, 5, 5, 9], [0, 1, 1, 1, 1, 2]],
    "all one": [[4] * 6],
    "one entry": [[7], [7]],
    "one row in order": [[1, 2, 3, 3, 3, 3], [1, 1, 2, 1, 1, 0]],
    "falling": [[5, 5, 3, 3, 3, -1]],
    "scattered": [[2, 2, 1, 2, 1, 1], [0, 9, 0, 9, 9, 0]],
    "none": [[]],
}


@pytest.mark.parametrize("name", ROWS)
def test_equal_entries(name: str) -> None:
    """Against a search through every row."""
    module = oracle.compiled("pattern p() { input document: int[n]  attend same(document) & causal }").module
    x = torch.tensor(ROWS[name], dtype=torch.int32)
    first, last, run_first, run_last = (found.tolist() for found in module._equal_entries(x))
    for b, row in enumerate(np.array(ROWS[name])):
        for p, value in enumerate(row):
            places, others = np.flatnonzero(row == value), np.flatnonzero(row != value)
            assert (first[b][p], last[b][p]) == (places[0], places[-1])
            before, behind = others[others < p], others[others > p]
            assert run_first[b][p] == (before[-1] + 1 if len(before) else 0)
            assert run_last[b][p] == (behind[0] - 1 if len(behind) else len(row) - 1)

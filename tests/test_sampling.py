"""What a plan computes for sample inputs, beside the count for all lengths and plans walked pair by pair."""

from __future__ import annotations

import pytest

from attnc import reference
from attnc.counting import tile_and_step, touched
from attnc.sampling import Sample
from tests import enumeration, oracle

LENGTH = 512


@pytest.mark.parametrize(
    "text",
    [
        "attend causal",
        "attend window(40)",
        "attend stride(16) & causal",
        "attend window(7, dilation=32)",
        "grid(y: 16, x: 32) attend neighborhood(5, axis=y) & neighborhood(6, axis=x)",
        "attend chunk(100)",
    ],
)
def test_the_same_as_plans_are_weighed_by(text: str) -> None:
    planned = oracle.planned(f"pattern p() {{ {text} }}")
    [body] = planned.schedule.bodies
    sample = Sample.of(planned.pattern, body.body, LENGTH)
    assert sample is not None
    assert sample.edges() == int(reference.mask(planned.pattern, LENGTH).sum())
    whole = sum(
        touched(part, sweep, LENGTH, *tile_and_step(part)) for part in body.query for sweep in part.sweeps
    )
    assert abs(sample.computed(body.query) / whole - 1) < 0.02


def test_edges_of_some_rows() -> None:
    planned = oracle.planned("pattern p() { attend causal & stride(7) }")
    [body] = planned.schedule.bodies
    sample = Sample.of(planned.pattern, body.body, 2000)
    assert sample is not None
    assert sample.edges(4000) == sample.edges()
    assert sample.edges(500) == pytest.approx(sample.edges(), rel=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "input x: int[n] attend same(x)",
        "input x: int[n] attend same(x) & causal",
        "input x: bool[n] attend to(x) & causal | window(9)",
        "input x: bool[n] attend from(x) | to(x)",
        "input x: int[n] attend where x[q] < x[k]",
        "input x: int[(n + 15) / 16] attend blocks(16, same(x))",
        "input x: int[n] attend stride(8) & same(x)",
        "heads even { attend causal } heads odd { attend window(9) } input y: bool[n]",
        "attend random(3, seed=1) | self",
    ],
)
def test_no_less_than_what_is_visited(text: str) -> None:
    """A tile computes whole steps of keys, and at least every pair that some row of it visits."""
    planned = oracle.planned(f"pattern p() {{ {text} }}")
    for body in planned.schedule.bodies:
        sample = Sample.of(planned.pattern, body.body, LENGTH)
        assert sample is not None
        tables = enumeration.derived(sample.inputs)
        edges = enumeration.edges(body, LENGTH, sample.head, sample.heads, tables)
        assert sample.edges() == int(edges.sum())
        assert int(edges.sum()) <= sample.computed(body.query) <= 1.3 * LENGTH**2 * len(body.query)

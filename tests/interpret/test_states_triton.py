"""Linear attention through states on the Triton path, under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from tests import weights_oracle as oracle
from tests.device import needs_kernels, there
from tests.test_states import (
    PATTERNS,
    VANISHING,
    check_vanishing_sums,
    closed,
    drawn_gates,
    gates_of_a_document,
    lost_beside_strong_gates,
    pattern,
)
from tests.weights_oracle import Given

needs_kernels()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", PATTERNS)
def test_states_are_the_definition(name: str) -> None:
    """Several chunks, some of them without a query, dims that are no powers of two."""
    dim = 9 if "taylor" in PATTERNS[name] else 20  # whose features are its square
    given = Given(n=140, n_q=70, heads=2, key_heads=1, dim=dim, value_dim=40, batch=1, again=True)
    assert oracle.check(pattern(name), given, "triton") == []


@pytest.mark.parametrize(
    "name", ["linear", "token gates", "gated documents", "everything", "window and rest", "taylor"]
)
def test_long_chunks(name: str) -> None:
    """With more features than those, chunks have more positions and so more tiles: here two of 128."""
    dim = 7 if name == "taylor" else 40
    given = Given(n=140, n_q=90, heads=2, key_heads=1, dim=dim, value_dim=12, batch=1, again=True, long=True)
    assert oracle.check(pattern(name), given, "triton") == []


@pytest.mark.parametrize(
    "name", ["linear", "token gates", "everything", "window and rest", "taylor", "favor"]
)
def test_half_precision(name: str) -> None:
    given = Given(n=70, heads=2, key_heads=1, batch=1)
    assert oracle.check(pattern(name), given, "triton", torch.bfloat16) == []


@pytest.mark.parametrize("name", ["token gates", "gates and a sum", "gated documents"])
def test_strong_and_weak_decays(name: str) -> None:
    given = Given(n=70, heads=2, batch=1, gates=(-50.0, -1e-4))
    assert oracle.check(pattern(name), given, "triton") == []


@pytest.mark.parametrize("name", ["token gates", "gates and a sum", "gated documents", "head gates"])
def test_a_gate_may_let_nothing_through(name: str) -> None:
    given = Given(n=100, n_q=90, heads=2, key_heads=1, batch=1, again=True)
    assert oracle.check(pattern(name), given, "triton", tables=closed(name, given)) == []


@pytest.mark.parametrize("seed", range(6))
def test_gates_at_random(seed: int) -> None:
    name, given = drawn_gates(seed)
    dtype = torch.bfloat16 if seed % 3 == 0 else torch.float32
    assert oracle.check(pattern(name), given, "triton", dtype) == []


@pytest.mark.parametrize("ends", ["", "exclusive"])
def test_gates_of_chunks_with_many_tiles(ends: str) -> None:
    text = f"input g: float[n, H] attend causal kernel cosine(400) normalize none decay g {ends}"
    given = Given(n=140, n_q=90, heads=1, key_heads=1, dim=132, value_dim=8, batch=1)
    assert oracle.check(f"pattern p() {{ {text} }}", given, "triton") == []


@pytest.mark.parametrize("name", ["token gates", "gated documents"])
def test_weak_gates_are_not_lost_beside_strong_ones(name: str) -> None:
    got, wanted = lost_beside_strong_gates(name, "triton")
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_gates_gradients_take_nothing_from_other_documents() -> None:
    first, second = gates_of_a_document("gated documents", "triton")
    assert torch.equal(first, second)
    assert first.any()


@pytest.mark.parametrize("name", ["linear", "retention", "token gates", "taylor", "favor"])
def test_going_on_with_a_state(name: str) -> None:
    assert oracle.check(pattern(name), Given(n=66, heads=2, batch=1, state=True), "triton") == []


@pytest.mark.parametrize("n", [0, 1])
def test_short_sequences(n: int) -> None:
    assert oracle.check(pattern("gates and a sum"), Given(n=n, heads=2, batch=1), "triton") == []


@pytest.mark.parametrize("name", ["linear", "token gates"])
def test_the_future_changes_no_bit_of_the_past(name: str) -> None:
    done, given = oracle.compiled(pattern(name)), Given(n=70, heads=2, batch=1)
    function = there(getattr(done.module, done.pattern.name))
    args, tables = oracle.arguments(given, torch.float32), oracle.inputs(done.pattern, given)
    before = function(*args.values(), **tables, backend="triton")
    moved = {key: x.clone() for key, x in args.items()}
    for key in ("k", "v"):
        moved[key][:, :, 40:] *= -37.0
    after = function(*moved.values(), **tables, backend="triton")
    assert torch.equal(before[:, :, :40], after[:, :, :40])
    assert not torch.equal(before, after)


@pytest.mark.parametrize("gates", VANISHING)
def test_sums_that_vanish(gates: str) -> None:
    check_vanishing_sums(gates, "triton")

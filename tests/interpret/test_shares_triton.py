"""Few tiles with long sweeps, shared out between programs, under Triton's interpreter."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from attnc import reference
from tests import oracle
from tests.device import needs_kernels, there
from tests.test_oracle_torch import call

needs_kernels()

# A pattern, what is called, and how many launches join outputs and add up gradients.
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "one token": ("attend all", {"n_q": 1, "heads": 4, "key_heads": 2}, (1, 3)),
    "causal, a few tokens": ("attend causal", {"n_q": 19, "value_dim": 20}, (1, 3)),
    "rows and columns": ("input hub: bool[n] attend to(hub) | from(hub)", {}, (1, 3)),
    "a second pass": ("attend window(20) | stride(5)", {"n": 90, "n_q": 23, "heads": 1}, (2, 6)),
    "some heads": (
        "heads even { attend window(20) } heads odd { attend stride(3) & causal }",
        {"n": 70, "n_q": 20, "key_heads": 1},
        (2, 6),
    ),
    "edges one by one": ("attend (causal & stride(2)) | offsets(powers(2))", {"n_q": 17}, (1, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_shares_are_joined_exactly_and_always_alike(name: str) -> None:
    text, changes, wanted = CASES[name]
    done = oracle.compiled(f"pattern p() {{ {text} }}", small=True)
    given = call(**{"n": 50, "n_q": 50, "dim": 16, "value_dim": 16, **changes})
    joined: list[str] = []

    class Counting(done.module._Cells):  # type: ignore[misc, name-defined]
        def join(self, add: bool) -> None:
            joined.extend(name for name in self.names if name != "lse" and self.tiles)
            super().join(add)

    args, grads = oracle.tensors(given)
    tables = oracle.inputs(done.pattern, given)
    with patch.object(done.module, "_Cells", Counting), oracle.tiles(done.module, 16, 16):
        got, again = (
            oracle.ours(done.module, args, grads, list(tables.values()), given, "triton") for _ in range(2)
        )
    arrays = {name: table.numpy() for name, table in tables.items()}
    mask = reference.mask(done.pattern, given.n, given.heads, arrays, given.n_q)
    assert oracle.against(got, args, grads, mask, given, torch.float32) == []
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    assert (joined.count("out"), len(joined) - joined.count("out")) == (2 * wanted[0], 2 * wanted[1])


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("attend window(2) | from(first(3)) | to(last(2))", {"n": 90}),
        ("attend window(2) | from(first(3) + last(20))", {"n": 90, "n_q": 41}),
        ("attend blocks(8, window(1, 1) | to(first(1) + last(1)) | from(first(1) + last(1)))", {"n": 85}),
        ("attend blocks(8, window(1, 1) | to(first(1)) | random(2, seed=0))", {"n": 85, "heads": 1}),
    ],
)
def test_heavy_tiles_among_light_ones_come_in_shares(text: str, changes: dict[str, Any]) -> None:
    done = oracle.compiled(f"pattern p() {{ {text} }}", small=True)
    assert any(part.heavy for item in done.schedule.bodies for part in (*item.query, *item.key))
    given = call(**{"n_q": changes["n"], "dim": 16, "value_dim": 20, **changes})
    split: list[tuple[int, int]] = []

    class Counting(done.module._Cells):  # type: ignore[misc, name-defined]
        def join(self, add: bool) -> None:
            split.append((self.steps["split"], self.steps["shares"]))
            super().join(add)

    args, grads = oracle.tensors(given)
    with (
        patch.object(done.module, "_Cells", Counting),
        oracle.tiles(done.module, 16, 16),
        oracle.shared(done.module, programs=0),
    ):
        got, again = (oracle.ours(done.module, args, grads, [], given, "triton") for _ in range(2))
    mask = reference.mask(done.pattern, given.n, given.heads, {}, given.n_q)
    assert oracle.against(got, args, grads, mask, given, torch.float32) == []
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    assert any(0 < tiles <= 4 and shares > 1 for tiles, shares in split)


def test_enough_tiles_are_launched_once() -> None:
    """One kernel forward, and none that joins, where tiles are many or sweeps short."""
    done = oracle.compiled("pattern p() { attend causal }")
    launched: list[Any] = []

    class Recorder:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda **given: launched.append((grid, given["SHARES"]))

    (((_, *rest),),) = done.module._QUERY_PASSES
    q = torch.zeros(1, 16, 4096, 16)
    with patch.object(done.module, "_QUERY_PASSES", (((Recorder(), *rest),),)):
        done.module._forward_triton(q, q, q, [], 1.0)
    block = done.module._tile_sizes("forward", 16, 4, done.module._TILES)["BLOCK_M"]
    assert launched == [((16 * 4096 // block,), False)]


def test_a_sink_is_in_one_share() -> None:
    """Against softmax in fp64 with one column more, which is then dropped."""
    done = oracle.compiled("pattern p() { input x: float[H] attend causal sink x[h] }", small=True)
    args, (grad, _) = oracle.tensors(call(n=40, n_q=20, dim=16, value_dim=16))
    x = torch.tensor([0.5, -1.0], requires_grad=True)
    with oracle.tiles(done.module, 16, 16), oracle.poisoned():
        out = there(done.module.p)(*args, x=x, backend="triton")
        got = torch.autograd.grad(out, (*args, x), grad)
    q, k, v, sink = (a.detach().double().requires_grad_() for a in (*args, x))
    later = torch.ones(20, 40, dtype=torch.bool).triu(21)
    scores = (q @ k.transpose(2, 3) / 4).masked_fill(later, -torch.inf)
    column = sink[None, :, None, None].expand(*scores.shape[:3], 1)
    exact = torch.cat((scores, column), 3).softmax(3)[..., :-1] @ v
    wanted = torch.autograd.grad(exact, (q, k, v, sink), grad.double())
    for a, b in zip((out, *got), (exact, *wanted), strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)

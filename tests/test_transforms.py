"""What PyTorch does to functions and models: compiled, exported, mapped, checkpointed, cast, spread out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import attnc
from attnc.nn import PatternAttention
from tests import oracle

HUBS = "pattern hubs() { input hub: bool[n] attend window(2, 2) | to(hub) }"
NEAR = "pattern near(width: int = 3) { attend window(width) }"
TIMES, BATCH, HEADS, N, DIM = 3, 2, 4, 11, 8


def tensors() -> list[torch.Tensor]:
    """q, k and v with an axis more in front: fewer key heads, and values of another dim."""
    make = torch.Generator().manual_seed(0)
    shapes = ((HEADS, N, DIM), (2, N, DIM), (2, N, 5))
    return [torch.randn(TIMES, BATCH, *shape, generator=make, dtype=torch.float64) for shape in shapes]


def hubs(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, N, generator=torch.Generator().manual_seed(1)) < 0.3


HUB = hubs()


@pytest.fixture(scope="module")
def function() -> Callable[..., torch.Tensor]:
    return attnc.load(HUBS)


# --- vmap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "axis"),
    [(hubs(), None), (hubs(BATCH), None), (hubs(TIMES), 0), (hubs(TIMES, BATCH), 0), (hubs(TIMES).T, 1)],
    ids=["shared", "batch", "mapped", "mapped batch", "mapped behind"],
)
def test_vmap_over_an_axis_in_front(
    function: Callable[..., torch.Tensor], table: torch.Tensor, axis: int | None
) -> None:
    q, k, v = tensors()
    rows = [table if axis is None else table.select(axis, i) for i in range(TIMES)]
    wanted = torch.stack([function(q[i], k[i], v[i], hub=rows[i]) for i in range(TIMES)])
    found = vmap(lambda q, k, v, hub: function(q, k, v, hub=hub), in_dims=(0, 0, 0, axis))(q, k, v, table)
    torch.testing.assert_close(found, wanted)
    # Somewhere else, or not at all: one key and value for all.
    found = vmap(lambda q, hub: function(q, k[0], v[0], hub=hub), in_dims=(3, axis), out_dims=2)(
        q.movedim(0, 3), table
    )
    wanted = torch.stack([function(q[i], k[0], v[0], hub=rows[i]) for i in range(TIMES)], 2)
    torch.testing.assert_close(found, wanted)


def test_vmap_over_nothing(function: Callable[..., torch.Tensor]) -> None:
    q, k, v = (x[:0] for x in tensors())
    assert vmap(lambda q, k, v: function(q, k, v, hub=HUB))(q, k, v).shape == (0, BATCH, HEADS, N, 5)


def test_vmap_twice(function: Callable[..., torch.Tensor]) -> None:
    q, k, v = tensors()
    found = vmap(vmap(lambda q, k, v: function(q[None], k[None], v[None], hub=HUB)))(q, k, v)
    wanted = torch.stack([function(q[i], k[i], v[i], hub=HUB) for i in range(TIMES)])
    torch.testing.assert_close(found[:, :, 0], wanted)


def test_gradients_one_by_one(function: Callable[..., torch.Tensor]) -> None:
    """Gradients within ``vmap`` and through it."""

    def loss(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return function(q, k, v, hub=HUB).square().sum()

    given = tensors()
    found = vmap(grad(loss, argnums=(0, 1, 2)))(*given)
    for i in range(TIMES):
        leaves = [x[i].clone().requires_grad_() for x in given]
        wanted = torch.autograd.grad(loss(*leaves), leaves)
        torch.testing.assert_close([x[i] for x in found], list(wanted))
    leaves = [x.clone().requires_grad_() for x in given]
    through = torch.autograd.grad(vmap(loss)(*leaves).sum(), leaves)
    torch.testing.assert_close(list(through), list(found))


STATES = {
    "sums": "attend causal kernel elu(x) + 1",
    "no sums": "attend causal kernel x normalize none decay -0.1 * (h + 1)",
    "gates": "input g: float[n, H] attend causal kernel x normalize none decay g",
    "channels": (
        "input g: float[n, H, d] input u: float[H, d] "
        "attend causal kernel x normalize none decay g exclusive bonus u"
    ),
    "delta": (
        "input g: float[n, H] input b: float[n, H] attend causal kernel x normalize none decay g "
        "update delta(b)"
    ),
    "documents": "input doc: int[n] input g: float[n, H] attend causal & same(doc) kernel elu(x) + 1 decay g",
    "everything": "attend all kernel elu(x) + 1",
    "window and rest": "attend window(3) with softmax attend causal - window(3) with kernel elu(x) + 1",
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("name", STATES)
def test_functions_with_states_are_mapped(name: str, batched: bool, mapped: bool) -> None:
    """Forward, gradients within ``vmap``, and the inputs shared by all or one for each."""
    function = attnc.load(f"pattern p() {{ {STATES[name]} }}")
    make = torch.Generator().manual_seed(2)
    lead = (*[TIMES] * mapped, *[BATCH] * batched)
    shapes = {"g": (N, HEADS, DIM) if name == "channels" else (N, HEADS), "u": (HEADS, DIM), "b": (N, HEADS)}
    inputs = {
        x: -torch.rand(*lead, *shape, generator=make, dtype=torch.float64)
        for x, shape in shapes.items()
        if f"input {x}:" in STATES[name]
    }
    if "b" in inputs:
        inputs["b"] = -inputs["b"] / DIM
    doc = {"doc": torch.arange(N) // 4} if name == "documents" else {}

    def loss(*given: torch.Tensor) -> torch.Tensor:
        return function(*given[:3], **dict(zip(inputs, given[3:], strict=True)), **doc).square().sum()

    given, axis = tensors(), 0 if mapped else None
    wanted_for = tuple(range(3 + len(inputs)))
    places = (0, 0, 0, *[axis] * len(inputs))
    values = vmap(loss, in_dims=places)(*given, *inputs.values())
    found = vmap(grad(loss, argnums=wanted_for), in_dims=places)(*given, *inputs.values())
    for i in range(TIMES):
        leaves = [x[i].clone().requires_grad_() for x in given]
        leaves += [(x[i] if mapped else x).clone().requires_grad_() for x in inputs.values()]
        value = loss(*leaves)
        torch.testing.assert_close(values[i], value.detach())
        torch.testing.assert_close([x[i] for x in found], list(torch.autograd.grad(value, leaves)))


def test_states_are_mapped() -> None:
    """A piece that goes on with a state, and what it leaves, for every entry; nothing of nobody."""
    function = attnc.load(f"pattern p() {{ {STATES['gates']} }}")
    q, k, v = tensors()
    g = -torch.rand(N, HEADS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = torch.randn(TIMES, BATCH, HEADS, DIM, 5, dtype=torch.float64)
    run = lambda q, k, v, state: function(q, k, v, g=g, state=state, return_state=True)  # noqa: E731
    out, final = vmap(run)(q, k, v, state)
    for i in range(TIMES):
        torch.testing.assert_close((out[i], final[i]), run(q[i], k[i], v[i], state[i]))
    shared = vmap(run, in_dims=(0, 0, 0, None))(q, k, v, state[0])
    torch.testing.assert_close(shared[1][2], run(q[2], k[2], v[2], state[0])[1])
    gradient = vmap(grad(lambda *x: sum(y.square().sum() for y in run(*x)), argnums=3))(q, k, v, state)
    leaf = state[1].clone().requires_grad_()
    alone = torch.autograd.grad(sum(y.square().sum() for y in run(q[1], k[1], v[1], leaf)), leaf)[0]
    torch.testing.assert_close(gradient[1], alone)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_what_weighs_edges(mapped: bool, batched: bool) -> None:
    function = attnc.load(
        "pattern sloped() { input slope: float[H] input sink_of: float[H] attend causal "
        "score s + slope[h] * (k - q) sink sink_of[h] }"
    )
    make = torch.Generator().manual_seed(2)
    shape = (*[TIMES] * mapped, *[BATCH] * batched, HEADS)
    slope, sink = (torch.randn(shape, generator=make, dtype=torch.float64) for _ in range(2))

    def loss(*given: torch.Tensor) -> torch.Tensor:
        return function(*given[:3], slope=given[3], sink_of=given[4]).square().sum()

    given, axis = tensors(), 0 if mapped else None
    found = vmap(grad(loss, argnums=(0, 3, 4)), in_dims=(0, 0, 0, axis, axis))(*given, slope, sink)
    for i in range(TIMES):
        leaves = [x[i].clone().requires_grad_() for x in given]
        leaves += [(x[i] if mapped else x).clone().requires_grad_() for x in (slope, sink)]
        wanted = torch.autograd.grad(loss(*leaves), [leaves[j] for j in (0, 3, 4)])
        torch.testing.assert_close([x[i] for x in found], list(wanted))


def test_a_jacobian(function: Callable[..., torch.Tensor]) -> None:
    q, k, v = (x[0, :1, :, :4] for x in tensors())
    table = HUB[:4]
    found = jacrev(lambda v: function(q, k, v, hub=table))(v)
    dense = torch.autograd.functional.jacobian(lambda v: function(q, k, v, hub=table), v)
    torch.testing.assert_close(found, dense)


def test_gradients_of_every_sample_of_a_model() -> None:
    layer = PatternAttention(16, 2, batch_first=True, pattern=NEAR, dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    x = torch.randn(TIMES, 1, N, 16, dtype=torch.float64)

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = functional_call(layer, parameters, (x, x, x))[0].square().sum()
        return out

    found = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(TIMES):
        wanted = torch.autograd.grad(loss(parameters, x[i]), list(parameters.values()))
        for one, other in zip(found.values(), wanted, strict=True):
            torch.testing.assert_close(one[i], other)


def test_what_cannot_be_mapped_or_derived_is_named(function: Callable[..., torch.Tensor]) -> None:
    q, k, v = (x[0] for x in tensors())
    with pytest.raises(ValueError, match=r"hubs: q must be \(batch, heads, length, dim\), but its shape is"):
        vmap(lambda q: function(q, k, v, hub=HUB), in_dims=1)(q)
    with pytest.raises(NotImplementedError, match="there are no second derivatives: use dense attention"):
        grad(lambda q: grad(lambda q: function(q, k, v, hub=HUB).square().sum())(q).sum())(q)
    with pytest.raises(NotImplementedError, match="there is no forward mode"):
        jvp(lambda q: function(q, k, v, hub=HUB), (q,), (q,))


# --- compile, export ------------------------------------------------------------------------------------


def test_a_compiled_layer_trains() -> None:
    layer = PatternAttention(16, 2, batch_first=True, pattern=NEAR)
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (N, N + 6):
        x = torch.randn(BATCH, n, 16)
        found = []
        for each in (layer, fast):
            layer.zero_grad()
            out = each(x, x, x)[0]
            out.square().sum().backward()
            found.append([out.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)])
        torch.testing.assert_close(found[1], found[0])


def test_an_exported_layer_takes_every_length(tmp_path: Path) -> None:
    layer = PatternAttention(16, 2, batch_first=True, pattern=HUBS).eval()

    class Itself(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor, hub: torch.Tensor) -> Any:
            return self.layer(x, x, x, hub=hub)[0]

    x = torch.randn(BATCH, N, 16)
    length = torch.export.Dim("length", min=2, max=512)
    exported = torch.export.export(Itself(), (x, HUB), dynamic_shapes=({1: length}, {0: length}))
    torch.export.save(exported, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    more, table = torch.randn(BATCH, 40, 16), torch.arange(40) % 7 == 0
    torch.testing.assert_close(loaded(more, table), layer(more, more, more, hub=table)[0])


# --- autocast, checkpointing, several processes ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_what_goes_in_and_not_how_it_is_summed(
    function: Callable[..., torch.Tensor], dtype: torch.dtype
) -> None:
    q, k, v = (x[0].to(dtype) for x in tensors())
    plain = function(q, k, v, hub=HUB)
    with torch.autocast("cpu", dtype):
        assert torch.equal(function(q, k, v, hub=HUB), plain)
        layer = PatternAttention(16, 2, batch_first=True, pattern=NEAR)
        x = torch.randn(BATCH, N, 16, requires_grad=True)
        out = layer(x, x, x)[0]
    assert out.dtype == dtype
    out.float().square().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32 and x.grad.isfinite().all()
    torch.testing.assert_close(out.float(), layer(x, x, x)[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing(function: Callable[..., torch.Tensor], reentrant: bool) -> None:
    given = [x[0] for x in tensors()]
    found = []
    for kept in (False, True):
        leaves = [x.clone().requires_grad_() for x in given]
        run = lambda q, k, v: function(q, k, v, hub=HUB)  # noqa: E731
        out = checkpoint(run, *leaves, use_reentrant=reentrant) if kept else run(*leaves)
        found.append(
            [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)] if not reentrant else [out]
        )
        if reentrant:
            out.square().sum().backward()
            found[-1] = [out.detach(), *(x.grad for x in leaves if x.grad is not None)]
    assert len(found[0]) == 4
    assert all(map(torch.equal, *found))


PROCESS = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from attnc.nn import PatternAttention

rank, meeting, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
torch.manual_seed(rank)  # rank 0 decides how the weights begin
layer = PatternAttention(16, 2, batch_first=True, dtype=torch.float64, pattern=%r)
model = DistributedDataParallel(layer)
x = torch.arange(4 * 11 * 16, dtype=torch.float64).sin().view(4, 11, 16)
own = x[2 * rank : 2 * rank + 2]
model(own, own, own)[0].square().mean().backward()
if rank == 0:
    torch.save((layer.state_dict(), {n: p.grad for n, p in layer.named_parameters()}, x), out)
torch.distributed.destroy_process_group()
"""


def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    """Each takes half of it; their gradients are those of the whole."""
    layer = PatternAttention(16, 2, batch_first=True, dtype=torch.float64, pattern=NEAR)  # compiled once
    arguments = [str(tmp_path / "meeting"), str(tmp_path / "found.pt")]
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS % NEAR, str(rank), *arguments]) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    weights, gradients, x = torch.load(tmp_path / "found.pt")
    layer.load_state_dict(weights)
    layer(x, x, x)[0].square().mean().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


@pytest.mark.parametrize("text", ["attend causal", "attend causal kernel x normalize none"])
def test_operators_are_called_where_somebody_looks_at_them(text: str) -> None:
    """Modes and other kinds of tensors see operators; an ordinary call does without the registry."""
    module = oracle.compiled(f"pattern p() {{ {text} }}").module
    args = [torch.randn(1, 2, 9, 16, requires_grad=True) for _ in range(3)]
    with patch.multiple(module, _forward=None, _backward=None):
        out = module.p(*args)
        found = torch.autograd.grad(out, args, torch.ones_like(out))
        with torch.no_grad():
            assert torch.equal(module.p(*args), out)

    class Kind(torch.Tensor):
        pass

    class Seen(TorchDispatchMode):
        names: ClassVar[list[str]] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    with patch.multiple(module, _compute=None, _compute_gradients=None):
        kinds = [x.detach().as_subclass(Kind).requires_grad_() for x in args]
        again = module.p(*kinds)
        assert torch.equal(again, out)
        assert all(map(torch.equal, torch.autograd.grad(again, kinds, torch.ones_like(out)), found))
        with Seen():
            assert torch.equal(module.p(*args), out)
    assert any(name.startswith("attnc.p_") for name in Seen.names)

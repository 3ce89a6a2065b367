"""Linear attention through states on the torch path, against the definition in fp64."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import attnc
from tests import weights_oracle as oracle
from tests.device import there
from tests.weights_oracle import Given

PATTERNS = {
    "linear": "attend causal kernel elu(x) + 1",
    "everything": "attend all kernel elu(x) + 1",
    "plain sums": "attend causal kernel x * tanh(x) + exp(min(x, 1.0)) normalize none",
    "retention": "attend causal kernel x normalize none decay log(1.0 - exp2(-5.0 - h))",
    "head gates": "input g: float[H] attend causal kernel elu(x) + 1 decay g exclusive",
    "token gates": "input g: float[n, H] attend causal kernel x normalize none decay g",
    "gates and a sum": "input g: float[n, H] attend causal kernel elu(x) + 1 decay g",
    "bonus": (
        "input g: float[n, H] input u: float[H, d] attend causal kernel x normalize none decay g exclusive "
        "bonus u"
    ),
    "favor": "attend causal kernel favor(24, seed=3)",
    "favor, everything": "attend all kernel favor(24, seed=3)",
    "taylor": "attend causal kernel taylor()",
    "cosine": "attend causal kernel cosine(400)",
    "gated cosine": "input g: float[n, H] attend causal kernel cosine(400) normalize none decay g exclusive",
    "relu": "attend causal kernel relu(x)",
    "chunks": "attend causal & chunk(48) kernel elu(x) + 1",
    "documents": "input doc: int[n] attend causal & same(doc) kernel elu(x) + 1",
    "gated documents": (
        "input doc: int[n] input g: float[n, H] attend causal & same(doc) kernel x normalize none decay g"
    ),
    "documents in chunks": "input doc: int[n] attend causal & same(doc) & chunk(32) kernel elu(x) + 1",
    "far": "attend causal - window(20) kernel elu(x) + 1",
    "farther than a chunk": "attend causal - window(80) kernel elu(x) + 1",
    "heads": (
        "kernel elu(x) + 1 heads even { attend causal } heads odd { attend causal decay log(0.5 + 0.1 * h) }"
    ),
    "states of two sizes": (
        "heads even { attend causal kernel elu(x) + 1 } heads odd { attend causal kernel x normalize none }"
    ),
    "window and rest": ("attend window(20) with softmax attend causal - window(20) with kernel taylor()"),
    "window and rest, positive": (
        "attend window(30) with softmax attend causal - window(30) with kernel elu(x) + 1"
    ),
    "undivided beside states": (
        "kernel elu(x) + 1 normalize none heads even { attend causal } heads odd { attend window(9) }"
    ),
    "softmax beside": "heads even { attend window(9) } heads odd { attend causal kernel elu(x) + 1 }",
}
CALLS = (
    Given(),
    Given(n=200, n_q=90, heads=6, key_heads=3, dim=24, value_dim=40, batch=1),
    Given(n=130, layout="slice", batched=True),
    Given(n=110, n_q=80, again=True),
    Given(n=1),
    Given(n=0),
)


def pattern(name: str) -> str:
    return f"pattern p() {{ {PATTERNS[name]} }}"


@pytest.mark.parametrize("name", PATTERNS)
def test_states_are_the_definition(name: str) -> None:
    for given in CALLS:
        assert oracle.check(pattern(name), given, "torch") == [], given


@pytest.mark.parametrize("name", ["linear", "retention", "token gates", "window and rest"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(name: str, dtype: torch.dtype) -> None:
    assert oracle.check(pattern(name), CALLS[0], "torch", dtype) == []


@pytest.mark.parametrize("name", ["head gates", "token gates", "gates and a sum", "gated documents"])
def test_strong_and_weak_decays(name: str) -> None:
    given = Given(n=150, gates=(-50.0, -1e-4))
    assert oracle.check(pattern(name), given, "torch") == []


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "retention",
        "token gates",
        "gates and a sum",
        "taylor",
        "favor",
        "documents",
        "gated documents",
    ],
)
def test_going_on_with_a_state(name: str) -> None:
    assert oracle.check(pattern(name), Given(n=100, state=True), "torch") == []


@pytest.mark.parametrize(
    "name", ["linear", "retention", "token gates", "favor", "taylor", "cosine", "documents"]
)
@pytest.mark.parametrize("cuts", [(1, 63), (64, 65, 66), (100,)])
def test_pieces_and_whole_agree(name: str, cuts: tuple[int, ...]) -> None:
    """Outputs and gradients, through the states from piece to piece."""
    function = attnc.load(pattern(name))
    given = Given(n=150)
    args = oracle.arguments(given, torch.float64)
    tables = oracle.inputs(oracle.compiled(pattern(name)).pattern, given)
    tables = {
        key: x.double().requires_grad_() if x.is_floating_point() else torch.zeros_like(x)
        for key, x in tables.items()
    }
    leaves = [x.requires_grad_() for x in args.values()]
    floats = [x for x in tables.values() if x.is_floating_point()]

    def pieces(ends: tuple[int, ...]) -> torch.Tensor:
        state, outs, begin = None, [], 0
        for end in (*ends, given.n):
            part = [x[:, :, begin:end] for x in leaves]
            own = {key: x[begin:end] for key, x in tables.items()}
            out, state = function(*part, **own, state=state, return_state=True)
            outs.append(out)
            begin = end
        assert state is not None
        return torch.cat([torch.cat(outs, 2).flatten(), state.flatten()])

    whole, cut = pieces(()), pieces(cuts)
    torch.testing.assert_close(cut, whole)
    grad = torch.randn(whole.shape, generator=torch.Generator().manual_seed(0), dtype=whole.dtype)
    first, second = (torch.autograd.grad(x, (*leaves, *floats), grad) for x in (whole, cut))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["documents", "gated documents"])
def test_a_state_is_that_of_the_last_documents_position(name: str) -> None:
    """Documents that come again: what is left is what the last position's own document alone leaves."""
    function = attnc.load(pattern(name))
    args = oracle.arguments(Given(n=40), torch.float64)
    doc = torch.tensor([0] * 9 + [1] * 11 + [0] * 8 + [2] * 5 + [1] * 7)
    gates = {"g": torch.zeros(40, 4, dtype=torch.float64)} if "gated" in name else {}
    whole, state = function(*args.values(), doc=doc, **gates, return_state=True)
    alone = {key: x[:, :, doc == 1] for key, x in args.items()}
    some = {key: x[doc == 1] for key, x in gates.items()}
    out, wanted = function(*alone.values(), doc=doc[doc == 1], **some, return_state=True)
    torch.testing.assert_close(state, wanted)
    torch.testing.assert_close(whole[:, :, doc == 1], out)
    # Going on with it: the first document of the next piece is that one, and others may come between.
    for rest in ([1] * 3 + [3] * 2 + [1] * 4 + [5] * 3, [1] * 12):
        doc = torch.tensor(rest)
        args = oracle.arguments(Given(n=12, seed=4), torch.float64)
        gates = {key: x[:12] for key, x in gates.items()}
        got = function(*args.values(), doc=doc, **gates, state=wanted, return_state=True)
        own = doc == 1
        alone = {key: x[:, :, own] for key, x in args.items()}
        some = {key: x[own] for key, x in gates.items()}
        out, last = function(*alone.values(), doc=doc[own], **some, state=wanted, return_state=True)
        torch.testing.assert_close(got[0][:, :, own], out)
        if rest[-1] == 1:
            torch.testing.assert_close(got[1], last)
    with pytest.raises(ValueError, match="positions of a document side by side"):
        doc = torch.tensor([1] * 3 + [3] * 5 + [1] * 4)
        function(*args.values(), doc=doc, **gates, state=wanted, return_state=True)


@pytest.mark.parametrize(
    "name", ["linear", "retention", "token gates", "cosine", "window and rest", "documents"]
)
def test_the_future_changes_no_bit_of_the_past(name: str) -> None:
    function, given = attnc.load(pattern(name)), Given(n=150)
    args = oracle.arguments(given, torch.float32)
    tables = oracle.inputs(oracle.compiled(pattern(name)).pattern, given)
    before = function(*args.values(), **tables)
    for place in (3, 64, 100):
        moved = {key: x.clone() for key, x in args.items()}
        for key in ("k", "v"):
            moved[key][:, :, place:] *= -37.0
        own = {key: x.clone() for key, x in tables.items()}
        if "g" in own:
            own["g"][place:] *= 50.0
        after = function(*moved.values(), **own)
        assert torch.equal(before[:, :, :place], after[:, :, :place])
        assert not torch.equal(before, after)


def test_a_state_that_does_not_fit_is_refused() -> None:
    function = attnc.load(pattern("linear"))
    q, k, v = torch.randn(3, 1, 2, 8, 16)
    with pytest.raises(ValueError, match=r"state must be .* \(1, 2, 16, 17\)"):
        function(q, k, v, state=torch.zeros(1, 2, 16, 16))
    with pytest.raises(TypeError, match=r"state must be torch\.float32"):
        function(q, k, v, state=torch.zeros(1, 2, 16, 17, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="as many queries as keys"):
        function(q[:, :, 4:], k, v, state=torch.zeros(1, 2, 16, 17))
    with pytest.raises(TypeError, match="state must be a tensor"):
        function(q, k, v, state=1)


def closed(name: str, given: Given) -> oracle.Tensors:
    """Inputs with gates of which one in ten lets nothing through."""
    tables = oracle.inputs(oracle.compiled(pattern(name)).pattern, given)
    some = torch.rand(tables["g"].shape, generator=torch.Generator().manual_seed(5)) < 0.1
    some.view(-1)[:2][-1] = True
    return tables | {"g": tables["g"].masked_fill(some, -torch.inf)}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["token gates", "gates and a sum", "gated documents", "bonus", "head gates"])
def test_a_gate_may_let_nothing_through(name: str, again: bool) -> None:
    given = Given(n=150, again=again)
    assert oracle.check(pattern(name), given, "torch", tables=closed(name, given)) == []


def drawn_gates(seed: int) -> tuple[str, Given]:
    """A pattern with gates and a call at random, among them documents that come again."""
    pick = random.Random(seed)
    name = pick.choice(("token gates", "gates and a sum", "head gates", *["gated documents"] * 3))
    n, heads = pick.choice((40, 66, 100, 140)), pick.choice((1, 2))
    gates = pick.choice(((-1.0, -1e-4), (-500.0, -1e-3), (-1e-2, -1e-6)))
    n_q, dim, value_dim = pick.choice((-1, n // 2, n - 3)), pick.choice((16, 20)), pick.choice((8, 16, 24))
    again = pick.random() < 0.7
    return name, Given(
        n, n_q, 1, heads, 1, dim, value_dim, gates, batched=pick.random() < 0.5, seed=seed, again=again
    )


@pytest.mark.parametrize("seed", range(24))
def test_gates_at_random(seed: int) -> None:
    name, given = drawn_gates(seed)
    tables = closed(name, given) if seed % 3 == 0 else None
    assert oracle.check(pattern(name), given, "torch", tables=tables) == []


def lost_beside_strong_gates(name: str, backend: str) -> tuple[oracle.Tensors, oracle.Tensors]:
    """Output and gradients of the last positions, of a sequence whose gates let nothing through to them.

    And of those positions alone. In a sum of such gates and the last ones these would be lost.
    """
    done, n, last = oracle.compiled(pattern(name)), 60, 25
    args, grads = (
        oracle.arguments(Given(n=n, batch=1, heads=1, key_heads=1, seed=seed), torch.float32)
        for seed in (0, 1)
    )
    tables = {"g": torch.full((n, 1), -0.01), "doc": torch.arange(n) % 2}
    tables["g"][: n - last + 1] = -110.0
    tables = {item.name: tables[item.name] for item in done.pattern.inputs}

    def run(first: int) -> oracle.Tensors:
        leaves = {key: x[:, :, first:].clone().requires_grad_() for key, x in args.items()}
        own = {key: x[first:].clone() for key, x in tables.items()}
        own["g"].requires_grad_()
        out = there(getattr(done.module, done.pattern.name))(*leaves.values(), **own, backend=backend)
        out.backward(grads["v"][:, :, first:])
        found = {
            f"d_{key}": x.grad[:, :, n - last - first :] for key, x in leaves.items() if x.grad is not None
        }
        assert own["g"].grad is not None
        return found | {
            "output": out[:, :, n - last - first :].detach(),
            "d_g": own["g"].grad[n - last - first :],
        }

    return run(0), run(n - last)


@pytest.mark.parametrize("name", ["token gates", "gates and a sum", "gated documents"])
def test_weak_gates_are_not_lost_beside_strong_ones(name: str) -> None:
    got, wanted = lost_beside_strong_gates(name, "torch")
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def gates_of_a_document(name: str, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the gates of one document, with small and with large values in that behind it."""
    done, n, end = oracle.compiled(pattern(name)), 60, 25
    args = oracle.arguments(Given(n=n, batch=1, heads=1, key_heads=1), torch.float32)
    found = []
    for size in (1.0, 1e6):
        g = torch.full((n, 1), -0.1, requires_grad=True)
        v = args["v"].clone()
        v[:, :, end:] *= size
        doc = (torch.arange(n) >= end).long()
        function = there(getattr(done.module, done.pattern.name))
        function(args["q"], args["k"], v, g=g, doc=doc, backend=backend).sum().backward()
        assert g.grad is not None
        found.append(g.grad[:end])
    first, second = found
    return first, second


def test_gates_gradients_take_nothing_from_other_documents() -> None:
    first, second = gates_of_a_document("gated documents", "torch")
    assert torch.equal(first, second)
    assert first.any()


@pytest.mark.parametrize(
    ("declared", "decay", "shape"),
    [
        ("float[n, H]", "g", (8, 2)),
        ("float[n, H, d]", "g", (8, 2, 16)),
        ("float[H]", "g[h] - 1", (2,)),
        ("float[n, H], doc: int[n]", "g", (8, 2)),
    ],
)
def test_positive_gates_are_refused(declared: str, decay: str, shape: tuple[int, ...]) -> None:
    documents = ", doc" in declared
    lines = [f"input g: {declared.partition(', doc')[0]}", *["input doc: int[n]"] * documents]
    relation = "causal & same(doc)" if documents else "causal"
    text = f"pattern p() {{ {' '.join(lines)} kernel x normalize none decay {decay} attend {relation} }}"
    function = attnc.load(text)
    q, k, v = torch.randn(3, 1, 2, 8, 16)
    inputs = {"doc": torch.zeros(8, dtype=torch.int64)} if documents else {}
    gates = torch.full(shape, -0.5)
    function(q, k, v, g=gates, **inputs)
    gates.view(-1)[-1] = 1.25
    with pytest.raises(ValueError, match=r"gates are logarithms .* none above zero, and `g.* comes to .*25"):
        function(q, k, v, g=gates, **inputs)


@pytest.mark.parametrize("name", ["linear", "token gates", "window and rest"])
def test_operators_are_well_behaved(name: str) -> None:
    done = oracle.compiled(pattern(name))
    given = Given(n=20, batch=1, heads=2, key_heads=1, dim=4, value_dim=4)
    args = [x.double().requires_grad_() for x in oracle.arguments(given, torch.float32).values()]
    tables = [x.double().requires_grad_() for x in oracle.inputs(done.pattern, given).values()]
    module = done.module
    more = module._gates(tables, args[0], given.n) if hasattr(module, "_gates") else []
    listed = [*tables, *(x.detach().requires_grad_() for x in more)]
    torch.library.opcheck(module._forward, (*args, listed, None, 0.5, "torch"))


def test_functions_are_compiled_whole() -> None:
    for name in ("linear", "token gates"):
        function = attnc.load(pattern(name))
        given = Given(n=40)
        args = [x.requires_grad_() for x in oracle.arguments(given, torch.float32).values()]
        tables = oracle.inputs(oracle.compiled(pattern(name)).pattern, given)
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        out = compiled(*args, **tables)
        torch.testing.assert_close(out, function(*args, **tables))
        torch.autograd.grad(out.sum(), args)


def check_vanishing_sums(gates: str, backend: str) -> None:
    """Rows fade by about 1e-13 a step: to sums by which nothing can be divided in fp32, and to nothing."""
    function = there(oracle.compiled(f"pattern p() {{ {gates} }}").module.p)
    q, k, v = torch.ones(3, 1, 2, 90, 8)
    k[:, :, 1:] = -1.0  # without a feature
    leaves = [x.clone().requires_grad_() for x in (q, k, v + torch.arange(8))]
    tables = {"g": torch.full((90, 2, 8), -30.0)} if "input" in gates else {}
    out = function(*leaves, **tables, backend=backend)
    assert torch.allclose(out[:, :, :3], leaves[2][:, :, :1].expand(1, 2, 3, 8), rtol=1e-6)
    assert torch.equal(out[:, :, 3:], torch.zeros(1, 2, 87, 8))
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), leaves))


VANISHING = (
    "attend causal kernel relu(x) decay -30.0",
    "attend causal kernel relu(x) decay -28.9",
    "input g: float[n, H, d] attend causal kernel relu(x) decay g",
)


@pytest.mark.parametrize("gates", VANISHING)
def test_sums_that_vanish(gates: str) -> None:
    check_vanishing_sums(gates, "torch")


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that anything in here makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return out


def test_memory_grows_with_the_length_alone() -> None:
    """The largest tensor that a forward and a backward pass make."""
    function = attnc.load(pattern("linear"))
    peaks = []
    for n in (1024, 4096):
        args = [x.requires_grad_() for x in torch.randn(3, 1, 2, n, 16)]
        with Largest() as seen:
            function(*args).sum().backward()
        peaks.append(seen.numbers)
    assert peaks[1] <= 4 * peaks[0]


def test_relations_without_such_a_form_are_swept() -> None:
    for text in ("attend window(5) kernel elu(x) + 1", "attend causal & stride(2) kernel elu(x) + 1"):
        done = attnc.check(f"pattern p() {{ {text} }}")
        assert "states" not in str(done.patterns[0].plan)


def test_relations_are_known_however_they_are_written() -> None:
    for text in (
        "attend where k <= q",
        "attend window(5) | (causal - window(5))",
        "attend !(where k > q)",
        "attend all & causal",
    ):
        plan = str(attnc.check(f"pattern p() {{ {text} kernel elu(x) + 1 }}").patterns[0].plan)
        assert plan.startswith("states over all keys"), text

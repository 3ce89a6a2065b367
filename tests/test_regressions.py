"""What once went wrong, each case by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attnc.diagnostics import AttncError
from attnc.reach import reach
from attnc.schedule import describe
from tests import oracle, weights_oracle
from tests.test_oracle_torch import call
from tests.weights_oracle import Given

CASES = {
    # The torch path cut no positions at all into one tile of none.
    "no tokens": ("attend all - to(first(1))", {"n": 0, "n_q": 0}),
    "no queries": ("attend window(3)", {"n": 20, "n_q": 0}),
    "a pass without rows": ("attend from(first(3))", {"n_q": 20}),
    "heads without rows": ("heads 0..1 { attend from(first(0)) } heads rest { attend causal }", {}),
    # Digits of which none is chosen were divided by their number.
    "rows and digits that are none": (
        "grid(z: 8, y: 5, x: 4) attend window(9) | where (q.y % 6) % 5 > 4 | where k.y % 8 > 5",
        {},
    ),
    # A mask that hangs on neither position came as a plain truth, where a tensor was wanted.
    "a mask of the head alone": ("attend where abs(h) // 6 <= 24", {}),
    "a mask of the number of heads": ("heads even { attend where H < 2 } heads rest { attend self }", {}),
    # A minus in front of a quotient was printed as one of its dividend.
    "minus before a quotient": ("attend where (0 - q) // 3 == -k", {}),
    "minus before quotients in bounds": (
        "attend where -(q // 4) <= k - 10 and k - 10 <= -((0 - k) // 2) % 7",
        {},
    ),
    "minus before a quotient of inputs": (
        "input p: int[n] attend where (p[q] - p[k]) // 3 == -(p[q] % 4) // 2 & causal",
        {},
    ),
    # Tables were named like other things in the same kernel.
    "inputs named like tables": (
        "input x: int[n] input x_first: int[n] attend same(x) & causal | same(x_first) & where q < k",
        {},
    ),
    "inputs named like pointers": (
        "input x: bool[n] input x_ptr: bool[n] input x_batch: bool[n] "
        "attend window(2) | to(x) | from(x_ptr) | to(x_batch)",
        {},
    ),
    "inputs named like packed positions": (
        "input members_0: bool[n] input members_0_rank: bool[n] "
        "attend window(2) | to(members_0) | from(members_0_rank) | random(2, 1)",
        {},
    ),
    # Keys that are the same for all queries were taken one by one, as if every query had its own.
    "powers of two among the keys": ("attend to(powers(2)) & causal", {}),
    "distances and keys": ("attend offsets(powers(2)) | to(powers(2))", {}),
    "keys that queries compute": ("attend where k == (q * 7) % 4096", {}),
    # What hangs on the head or the length alone was asked of every key that is taken by itself, as a number.
    "single edges of some heads": ("attend offsets({1, 5}) & where h >= 1", {}),
    "single edges of long sequences": ("attend offsets(powers(2)) & where n - H >= 8", {}),
    "draws of tiles that are far enough": (
        "attend (where 2 <= q - k < 37) | where max(H % 8, q % 3) <= 5 * q | random(4, seed=95)",
        {"n_q": 11},
    ),
    "draws of many heads": ("attend random(2, seed=0) & where H >= 2", {}),
    # Of several conditions one is a draw whose keys are taken one by one; another draw was taken for it.
    "draws of chosen queries": ("input hub: bool[n] attend random(3, seed=0) & from(hub)", {}),
    "one draw of two": ("attend random(9, seed=0) & random(4, seed=1)", {}),
    "the other draw of two": ("attend random(4, seed=0) & random(9, seed=1)", {}),
    "draws where there are few heads": (
        "attend stride(7) & (random(1, seed=70, past=true) | where not (q % 1 >= H or k + q - h % 5 <= 64))",
        {},
    ),
    # Keys that fill up a vector made of a tile a square, which was taken for one without further bounds.
    "causal from a key on": ("attend causal & where k >= 6", {"n": 64, "n_q": 64}),
    "causal without the first": ("attend causal - to(first(31))", {"n": 32, "n_q": 32}),
    "causal but to the first": ("attend causal & to(every(1) - first(5))", {"n": 96, "n_q": 96}),
    "causal to the ends of blocks": ("attend causal & where k % 41 >= 19", {"n": 64, "n_q": 64}),
    "clamped windows of an image's residues": (
        "grid(y: 8, x: 8) attend neighborhood(2, dilation=2, axis=y) & neighborhood(3, dilation=2, axis=x)",
        {"n": 61, "n_q": 61},
    ),
    "both bounds in one condition": ("attend where q >= k and k >= 6", {"n": 64, "n_q": 64}),
}


# The same, where it went wrong for plans in digits.
DIGITS = {
    # Whether a tile was worth it was asked of positions, which a kernel has for neither side.
    "worth of dilated windows": ("attend window(2, 2, dilation=3) | window(0, 5, dilation=6)", {}),
    "worth of a stride and a set": ("attend (to(every(5, 3)) | stride(2)) & causal", {}),
    "worth of a tail and a chunk": ("attend (where k % 5 >= 2) | (where (q + 2) // 8 == (k + 2) // 8)", {}),
    "worth of a disc": (
        "grid(z: 5, y: 4, x: 10) attend ((where k.z >= q.z // 2) & (where k.x >= q.x // 2) "
        "| where (q.y - k.y) * (q.y - k.y) + (q.x - k.x) * (q.x - k.x) <= 8) & causal",
        {},
    ),
    "worth of what is looked up": ("input x: int[n] attend stride(7) & where x[q] <= x[k]", {}),
    # Tiles of residue classes were put in one batch though the second began before the first.
    "a batch that goes back": (
        "attend window(1, 4, dilation=2) | (where (q - k) % 26 == 25 and abs(q - k) <= 38) "
        "| window(1, 1, dilation=2)",
        {"n": 7, "n_q": 4},
    ),
    "keys that go back": (
        "attend window(3, 5, dilation=10) | where (q + 3) // 5 == (k + 3) // 5",
        {"n": 59, "n_q": 33},
    ),
    # A residue class without a query was a range that ran backwards.
    "a class without a query": ("attend stride(3) | self", {"n": 100, "n_q": 1}),
    "classes without queries and draws": (
        "attend stride(32) & causal | random(2, seed=1, past=true)",
        {"n": 130, "n_q": 15},
    ),
    # A window that is clamped at the borders fell apart into as many terms as its ends have cases.
    "clamped windows": ("attend neighborhood(5)", {}),
    "clamped windows that are longer than sequences": ("attend neighborhood(40)", {"n": 17, "n_q": 17}),
    "clamped windows of residues": ("attend neighborhood(4, dilation=3)", {"n": 65, "n_q": 30}),
    "clamped windows of an image": (
        "grid(y: 8, x: 9) attend neighborhood(3, axis=y) & neighborhood(4, axis=x)",
        {"n": 67, "n_q": 67},
    ),
    "clamped windows of a video, causal in time": (
        "grid(t: 4, y: 4, x: 5) attend window(1, axis=t) & neighborhood(3, axis=y) & neighborhood(2, axis=x)",
        {"n": 77, "n_q": 50},
    ),
    "clamped windows of a video": (
        "grid(t: 4, y: 4, x: 3) "
        "attend neighborhood(2, axis=t) & neighborhood(3, axis=y) & neighborhood(2, axis=x)",
        {"n": 48, "n_q": 48},
    ),
    # Residues that no row or frame is a multiple of were told in no digits, and computed against everything.
    "clamped windows of rows that no residue divides": (
        "grid(y: 9, x: 11) attend neighborhood(3, dilation=2, axis=y) & neighborhood(2, dilation=3, axis=x)",
        {"n": 97, "n_q": 61, "value_dim": 32},
    ),
    "clamped windows of an image's residues, causal in rows": (
        "grid(y: 8, x: 10) attend window(2, dilation=3, axis=y) & neighborhood(3, dilation=4, axis=x)",
        {"n": 80, "n_q": 80},
    ),
    "clamped windows of residues of a video": (
        "grid(t: 4, y: 5, x: 5) attend neighborhood(2, dilation=2, axis=t) "
        "& neighborhood(2, dilation=3, axis=y) & neighborhood(3, dilation=2, axis=x)",
        {"n": 93, "n_q": 40},
    ),
    "clamped windows of residues of a video, causal in time": (
        "grid(t: 4, y: 4, x: 7) attend window(1, dilation=2, axis=t) "
        "& neighborhood(3, dilation=1, axis=y) & neighborhood(2, dilation=3, axis=x)",
        {"n": 110, "n_q": 110},
    ),
    "chunks that divide no row": (
        "grid(y: 6, x: 13) attend chunk(2, axis=y) & chunk(5, axis=x)",
        {"n": 78, "n_q": 70},
    ),
    # What is drawn beside residues on both sides is no list of tiles, and was counted as one.
    "a draw beside residues": ("attend from(every(7)) & to(every(7)) | random(4, seed=4)", {}),
}


def planned(name: str) -> tuple[oracle.Compiled, dict[str, object]]:
    small = name in DIGITS
    text, changes = (DIGITS if small else CASES)[name]
    return oracle.compiled(f"pattern p() {{ {text} }}", small=small), changes


@pytest.mark.parametrize("name", [*CASES, *DIGITS])
def test_on_the_torch_path(name: str) -> None:
    done, changes = planned(name)
    given = call(**{"n": 60, "n_q": 60, "dim": 16, "value_dim": 16, **changes})
    assert oracle.check(done, given, "torch") == []


@pytest.mark.parametrize("name", DIGITS)
def test_plans_in_digits_are_proven(name: str) -> None:
    done, _ = planned(name)
    assert done.schedule.reports == ()
    walks = [part.walk for item in done.schedule.bodies for part in (*item.query, *item.key)]
    plain = name in ("clamped windows", "clamped windows that are longer than sequences")
    assert any(walk.radix.sizes for walk in walks) != plain


@pytest.mark.parametrize(
    "text", ["stride(2147483647)", "to(every(1000000000))", "window(2, dilation=1000000000)"]
)
def test_plans_of_huge_steps_are_weighed_on_some_tiles(text: str) -> None:
    """They took as long as there are residues."""
    done = oracle.planned(f"pattern p() {{ attend {text} }}")
    assert done.schedule.reports == ()


def test_reach_does_not_follow_how_many_are_drawn_or_from_which_seed() -> None:
    text = "pattern p() {{ attend random(9, seed={}) | window(2) }}"
    found = [reach(oracle.planned(text.format(seed)).pattern).layers for seed in (0, 1 << 20)]
    assert found[0].keys() == found[1].keys() and max(found[0]) <= 256


def test_runs_of_equal_digits_are_taken_apart_at_the_largest() -> None:
    """Layers of a grid by three: told by the first digit, not by rows of layers."""
    text = "grid(z: 3, y: 4, x: 5) attend chunk(3, axis=z) & window(0, 1, axis=y) & where k.x >= q.x // 2"
    plan = oracle.planned(f"pattern p() {{ {text} }}", small=True).schedule
    assert plan.reports == ()
    assert "k0 in [max(0, 3 * (first0 // 3))" in describe(plan)


NAMES = (
    "out",
    "lse",
    "dq",
    "first",
    "row",
    "mask",
    "n_q",
    "UNIT",
    "end",
    "batch",
    "tiles",
    "key",
    "inputs",
    "os",
)


@pytest.mark.parametrize("name", NAMES)
def test_an_input_may_be_named_like_something_in_the_module(name: str) -> None:
    text = f"pattern p() {{ input {name}: int[n] attend same({name}) & causal | where {name}[q] < k }}"
    done, given = oracle.compiled(text), call(n=20, n_q=20)
    assert oracle.check(done, given, "torch") == []
    assert not done.module.p(*oracle.tensors(given)[0], **oracle.inputs(done.pattern, given)).isnan().any()


def test_odd_strides_of_every_argument() -> None:
    """A last axis that is not dense, and one that is repeated."""
    done, given = oracle.compiled("pattern p() { attend window(9, 2) }"), call(n=50, n_q=33)
    args, grads = oracle.tensors(given)
    spread = tuple(torch.stack([x.detach()] * 2, -1)[..., 0].requires_grad_() for x in args)
    assert spread[0].stride(3) == 2
    plain = oracle.ours(done.module, args, grads, [], given, "torch")
    again = oracle.ours(done.module, spread, grads, [], given, "torch")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_gradients_of_permuted_views_compile() -> None:
    """q, k and v as views of one projection: the gradients' strides must be those that were promised."""
    done = oracle.compiled("pattern p() { attend window(5) }")
    x = torch.randn(2, 30, 3, 4, 8, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return done.module.p(*x.permute(2, 0, 3, 1, 4)).square().sum()

    (eager,) = torch.autograd.grad(loss(x), x)
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    assert torch.equal(eager, compiled)
    for grad in done.module._backward(*promised(done, x)):
        assert grad.is_contiguous()


def promised(done: oracle.Compiled, x: torch.Tensor) -> tuple[object, ...]:
    """Arguments of the backward operator for permuted views."""
    q, k, v = x.detach().permute(2, 0, 3, 1, 4)
    out, lse = done.module._forward(q, k, v, [], 0.3, "")
    return torch.ones_like(out), torch.zeros_like(lse), q, k, v, [], out, lse, 0.3, ""


@pytest.mark.parametrize("text", ["attend window(5)", "attend causal kernel elu(x) + 1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_autocast_is_followed_as_by_attention_of_pytorch(text: str, dtype: torch.dtype) -> None:
    function = oracle.compiled(f"pattern p() {{ {text} }}").module.p
    q, k, v = (torch.randn(1, 2, 20, 16, dtype=dtype, requires_grad=True) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        out = function(q, k, v)
    assert out.dtype == theirs.dtype
    assert torch.equal(out, function(*(x.to(out.dtype) for x in (q, k, v))))
    assert {x.dtype for x in torch.autograd.grad(out.float().sum(), (q, k, v))} == {dtype}


@pytest.mark.parametrize("text", ["attend window(5)", "attend causal kernel elu(x) + 1"])
def test_what_other_attention_functions_take_is_answered(text: str) -> None:
    function = oracle.compiled(f"pattern p() {{ {text} }}").module.p
    q, k, v = torch.randn(3, 1, 2, 20, 16).unbind(0)
    for name in ("attn_mask", "is_causal", "dropout_p", "enable_gqa", "return_lse", "anything"):
        with pytest.raises(TypeError, match=f"p: there is no argument {name}: "):
            function(q, k, v, **{name: None})
    assert torch.equal(function(q, k, v, scale=np.float32(0.5)), function(q, k, v, scale=0.5))
    with pytest.raises(TypeError, match=r"take scale.item\(\)"):
        function(q, k, v, scale=torch.tensor(0.5))
    with pytest.raises(NotImplementedError, match=r"p: .* there is no forward mode"):
        torch.func.hessian(lambda q: function(q, k, v).sum())(q)
    q.requires_grad_()
    (once,) = torch.autograd.grad(function(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="p: there are no second derivatives"):
        once.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_autocast_leaves_the_sums_alone(dtype: torch.dtype) -> None:
    done = oracle.compiled("pattern p() { attend window(5) }")
    q, k, v = (torch.randn(1, 2, 20, 16, dtype=dtype, requires_grad=True) for _ in range(3))
    plain = done.module.p(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        cast = done.module.p(q, k, v)
        gradients = torch.autograd.grad(cast.sum(), (q, k, v))
    assert torch.equal(plain, cast)
    for one, two in zip(gradients, torch.autograd.grad(plain.sum(), (q, k, v)), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("text", ["attend window(5)", "attend causal kernel elu(x) + 1"])
def test_autocast_joins_dtypes_that_differ(text: str) -> None:
    """As PyTorch's own attention does; without autocast they are refused."""
    function = oracle.compiled(f"pattern p() {{ {text} }}").module.p
    q, k, v = torch.randn(3, 1, 2, 20, 16).unbind(0)
    q = q.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        joined = function(q, k, v)
        assert torch.equal(torch.compile(function, fullgraph=True, backend="eager")(q, k, v), joined)
    assert torch.equal(joined, function(q, k.bfloat16(), v.bfloat16()))
    joined.sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()
    with pytest.raises(TypeError, match="k must have the dtype of q"):
        function(q, k, v)


def test_products_of_narrow_inputs_do_not_wrap() -> None:
    function = oracle.compiled("pattern p() { input x: int[n] attend where x[q] * x[k] > 50 }").module.p
    q, k, v = torch.randn(3, 1, 2, 20, 16).unbind(0)
    x = (torch.arange(20) - 5) * 100_003
    assert torch.equal(function(q, k, v, x=x.int()), function(q, k, v, x=x))
    small = torch.arange(20) - 5
    assert torch.equal(function(q, k, v, x=small.to(torch.int8)), function(q, k, v, x=small))


def test_the_self_check_judges(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = oracle.compiled("pattern p() { attend window(5) & causal }").module
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    right = module.mask
    monkeypatch.setattr(module, "mask", lambda *args: right(*args).roll(1, -1))
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 1
    assert "wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("relation", "code"),
    [
        ("where q * 2147483647 * 2147483647 * 2147483647 >= k", "huge-integer"),
        ("random(2147483647, seed=0)", "bad-argument"),
        (f"where {'abs(' * 60}q - k{')' * 60} == 1", "too-"),
    ],
)
def test_what_is_too_large_is_refused_at_once(relation: str, code: str) -> None:
    with pytest.raises(AttncError, match=code):
        oracle.compiled(f"pattern p() {{ attend {relation} }}")


# What weighs edges, and what of a call is not as usual.
WEIGHED = {
    # The function of a module with states gave what is swept beside them divided by its sum.
    "undivided weights beside large sums": (
        "heads even { attend causal kernel exp(x) + 40.0 } "
        "heads odd { attend stride(5) kernel relu(x) normalize none }",
        {},
    ),
    # Of a table by distances nothing was left where no pair of positions is as near as its entries.
    "entries nearer than any pair": ("input t: float[5] attend !causal score s + t[abs(q - k)]", {"n": 1}),
    "entries nearer than any pair of two": (
        "input t: float[5] attend where k > q + 1 score s + t[k - q]",
        {"n": 2},
    ),
    "entries nearer than any pair, and no query": (
        "input t: float[5] attend !causal score s + t[abs(q - k)]",
        {"n": 1, "n_q": 0},
    ),
    # They were told to have no value.
    "functions of a parameter": ("attend causal score s * exp(low) + max(low, 0.25) * tanh(s)", {}),
    "the logarithm of a parameter": ("attend causal kernel x normalize none decay log(low)", {}),
    # With two of them there was none that goes on with what the states gave.
    "two parts of softmax beside states": (
        "attend causal - window(3) with kernel elu(x) + 1 attend window(3) & to(every(2)) with softmax "
        "attend window(3) - to(every(2)) with softmax",
        {},
    ),
    # A scale of zero was taken for the mark of heads whose weights are divided.
    "undivided weights of nothing": ("attend window(9) kernel sigmoid(x) normalize none", {"scale": 0.0}),
    # Without a head the list of a body's heads was one of floats.
    "gates of no head": (
        "heads even { attend causal kernel x normalize none } "
        "heads odd { attend causal kernel x normalize none decay -0.5 / (h + 1) }",
        {"heads": 1, "key_heads": 1},
    ),
    "gates read for no head": (
        "input g: float[H] heads even { attend causal kernel x normalize none } "
        "heads odd { attend causal kernel x normalize none decay min(g[h], 0.0) }",
        {"heads": 1, "key_heads": 1},
    ),
    # A gate that is a number was made in fp32, whatever the dtype.
    "gates in fp64": ("attend causal kernel x normalize none decay log(0.9)", {"dtype": torch.float64}),
    # PyTorch's softplus overflows above 88 where its threshold for large arguments is raised.
    "a large softplus": ("attend window(9) score softplus(s)", {"scale": 1.0, "size": 6.0}),
    # A condition on head and length alone made no mask that Triton's interpreter stores by.
    "a choice of heads in a mask": (
        "input t: float[7] attend where max(h, n) <= n + 11 or q - k > 5 score s + t[abs(q - 2 * k) % 7]",
        {"heads": 2, "key_heads": 1},
    ),
    # A choice between numbers that are known came as a plain truth, where a tensor was wanted.
    "a choice that is known": ("attend causal score s * select(0.75 > 0.25, 0.5, 2.0)", {}),
    "a choice that a parameter makes": (
        "attend causal kernel select(low > 0.25, elu(x) + 1, exp(x))",
        {},
    ),
}


def check_weighed(name: str, backend: str) -> list[str]:
    text, changes = WEIGHED[name]
    given = Given(**{"n": 37, "batch": 1, **{key: x for key, x in changes.items() if key != "dtype"}})
    text = f"pattern p(low: float = 0.5) {{ {text} }}"
    return weights_oracle.check(text, given, backend, changes.get("dtype", torch.float32))


@pytest.mark.parametrize("scale", [1e-46, -1e-300, 1e-31])
def test_scales_that_round_to_zero(scale: float) -> None:
    """Handed on, they were zero for PyTorch's kernel and not for its caller, and gave NaN."""
    function = oracle.compiled("pattern p() { attend causal }").module.p
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 1, 5, 8))
    out, other = function(q, k, v, scale=scale), function(q, k, v, scale=0.0)
    assert torch.equal(out, other)
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(map(torch.equal, grads, torch.autograd.grad(other.sum(), (q, k, v))))


@pytest.mark.parametrize("name", WEIGHED)
def test_what_weighs_edges(name: str) -> None:
    assert check_weighed(name, "torch") == []

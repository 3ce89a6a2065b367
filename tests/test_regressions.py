"""What once went wrong, each case by name."""

from __future__ import annotations

import pytest
import torch

from attnc.diagnostics import AttncError
from tests import oracle
from tests.test_oracle_torch import call

CASES = {
    # The torch path cut no positions at all into one tile of none.
    "no tokens": ("attend all - to(first(1))", {"n": 0, "n_q": 0}),
    "no queries": ("attend window(3)", {"n": 20, "n_q": 0}),
    "a pass without rows": ("attend from(first(3))", {"n_q": 20}),
    "heads without rows": ("heads 0..1 { attend from(first(0)) } heads rest { attend causal }", {}),
    # A mask that hangs on neither position came as a plain truth, where a tensor was wanted.
    "a mask of the head alone": ("attend where abs(h) // 6 <= 24", {}),
    "a mask of the number of heads": ("heads even { attend where H < 2 } heads rest { attend self }", {}),
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
}


@pytest.mark.parametrize("name", CASES)
def test_on_the_torch_path(name: str) -> None:
    text, changes = CASES[name]
    done = oracle.compiled(f"pattern p() {{ {text} }}")
    given = call(**{"n": 60, "n_q": 60, "dim": 16, "value_dim": 16, **changes})
    assert oracle.check(done, given, "torch") == []


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


@pytest.mark.parametrize("name", ["mask", "main", "math", "os", "NAME", "DIGEST", "INPUTS", "torch"])
def test_a_pattern_is_not_named_like_what_its_module_needs(name: str) -> None:
    with pytest.raises(AttncError, match="the emitted module has its own"):
        oracle.compiled(f"pattern {name}() {{ attend causal }}")


def test_an_input_does_not_hide_what_the_function_needs() -> None:
    with pytest.raises(AttncError, match="the emitted module has its own `math`"):
        oracle.compiled("pattern p() { input math: bool[n] attend to(math) }")


def test_odd_strides_of_every_argument() -> None:
    """A last axis that is not dense, and one that is repeated."""
    done, given = oracle.compiled("pattern p() { attend window(9, 2) }"), call(n=50, n_q=33)
    args, grads = oracle.tensors(given)
    spread = tuple(torch.stack([x.detach()] * 2, -1)[..., 0].requires_grad_() for x in args)
    assert spread[0].stride(3) == 2
    plain = oracle.ours(done.module, args, grads, [], given, "torch")
    again = oracle.ours(done.module, spread, grads, [], given, "torch")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))

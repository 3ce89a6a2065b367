"""Gates for each channel and the delta rule on the torch path: their definitions, pieces, causality."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnc import weighing
from tests import oracle, stepwise, weights_oracle
from tests.stepwise import GATES, RULES, Call

DOUBLE, SINGLE = torch.float64, torch.float32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_what_the_definition_says(rule: str) -> None:
    call = Call(rule, n=23, n_q=9, batch=2, chunk=8)
    args = stepwise.arguments(call, DOUBLE)
    inputs = {name: x for name, x in args.items() if name not in ("q", "k", "v")}
    pattern = oracle.compiled(call.text).pattern
    wanted = weighing.attention(pattern, args["q"], args["k"], args["v"], inputs)[0]
    assert torch.allclose(stepwise.attention(call, args)["output"], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_calls_at_random(seed: int) -> None:
    call = stepwise.drawn(seed)
    for dtype in (DOUBLE, SINGLE):
        assert stepwise.check(call, dtype) == [], call


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n, dim", [(1, 60), (15, 256), (63, 128), (500, 64), (1023, 60), (300, 100)])
def test_lengths_and_dims(rule: str, n: int, dim: int) -> None:
    assert stepwise.check(Call(rule, n=n, dim=dim, value_dim=dim), SINGLE) == []


@pytest.mark.parametrize("rule", RULES)
def test_half_dtypes(rule: str) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert stepwise.check(Call(rule, n=150, n_q=100, dim=24, value_dim=32), dtype) == []


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "deltanet"])
def test_gates_of_all_sizes(rule: str, gates: str) -> None:
    assert stepwise.check(Call(rule, n=200, gates=gates, state=True), SINGLE) == []


@pytest.mark.parametrize("rule", RULES)
def test_pieces_are_the_whole(rule: str) -> None:
    for at in (1, 37, 64, 90):
        call = Call(rule, n=100, state=True, batched=True, batch=2)
        args = stepwise.arguments(call, DOUBLE)
        got = stepwise.halves(call, args, at)
        whole = stepwise.results(call, args)
        for name in ("output", "final"):
            assert torch.allclose(got[name], whole[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_the_future_changes_no_bit(rule: str) -> None:
    call = Call(rule, n=150, dim=20)
    args = stepwise.arguments(call, SINGLE)
    whole = stepwise.results(call, args)["output"]
    assert torch.equal(stepwise.results(call, args)["output"], whole)
    for cut in (1, 40, 64, 149):
        later = stepwise.arguments(replace(call, seed=9), SINGLE)
        mixed = dict(args)
        for name, axis in (("q", 2), ("k", 2), ("v", 2), ("g", 0), ("beta", 0)):
            if name in args:
                parts = args[name].narrow(axis, 0, cut), later[name].narrow(axis, cut, call.n - cut)
                mixed[name] = torch.cat(parts, axis)
        assert torch.equal(stepwise.results(call, mixed)["output"][:, :, :cut], whole[:, :, :cut])


OTHERS = {
    "sums of weights": "pattern p() { input g: float[n, H, d] attend causal kernel elu(x) + 1 decay g }",
    "documents": "pattern p() { input doc: int[n] input g: float[n, H, d] attend causal & same(doc) "
    "kernel x normalize none decay g }",
    "documents of facts": "pattern p() { input doc: int[n] input beta: float[n, H] "
    "attend causal & same(doc) kernel x update delta(beta) }",
    "fading documents of facts": "pattern p() { input doc: int[n] input g: float[n, H, d] "
    "input beta: float[n, H] attend causal & same(doc) & chunk(20) kernel x decay g update delta(beta) }",
    "features of facts": "pattern p() { input beta: float[n, H] attend causal kernel taylor() "
    "update delta(beta) }",
    "a gate a head": "pattern p() { input beta: float[n, H] attend causal kernel x "
    "decay log(1.0 - exp2(-5.0 - h)) update delta(beta) }",
    "heads apart": "pattern p() { input g: float[n, H, d] input beta: float[n, H] "
    "heads even { attend causal kernel x normalize none decay g } "
    "heads odd { attend causal kernel x update delta(beta) } }",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_patterns_against_the_definition(name: str) -> None:
    once, again = weights_oracle.Given(), weights_oracle.Given(n=33, n_q=17, batched=True, again=True)
    for given in (once, again):
        for dtype in (DOUBLE, SINGLE):
            assert weights_oracle.check(OTHERS[name], given, "torch", dtype) == []

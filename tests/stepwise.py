"""Gated linear attention and the delta rule position by position: an oracle for long sequences.

``tests/test_gates.py`` holds it against ``attnc.weighing`` where that can go.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import pytest
import torch

from tests import oracle, weights_oracle
from tests.device import there

Tensors = dict[str, torch.Tensor]

RULES = {
    "gla": "input g: float[n, H, d] attend causal kernel x normalize none decay g",
    "rwkv6": "input g: float[n, H, d] input u: float[H, d] attend causal kernel x normalize none "
    "decay g exclusive bonus u",
    "deltanet": "input beta: float[n, H] attend causal kernel x update delta(beta)",
    "gated_deltanet": "input g: float[n, H] input beta: float[n, H] attend causal kernel x decay g "
    "update delta(beta)",
    "kimi_delta": "input g: float[n, H, d] input beta: float[n, H] attend causal kernel x decay g "
    "update delta(beta)",
}
GATES = ("mixed", "slow", "fast", "open", "shut")


@dataclass(frozen=True)
class Call:
    """One call. gates: logarithms of all sizes, near zero, to -50, zero, or now and then minus infinity.

    chunk: positions after which everything begins anew, or 0; with those no state goes in or out.
    documents: how many there are, whose positions lie in any order; 0: all is one.
    """

    rule: str
    n: int = 70
    n_q: int = -1
    batch: int = 1
    heads: int = 2
    key_heads: int = 1
    dim: int = 16
    value_dim: int = 16
    gates: str = "mixed"
    batched: bool = False
    state: bool = False
    chunk: int = 0
    documents: int = 0
    seed: int = 0

    @property
    def queries(self) -> int:
        return self.n if self.n_q < 0 or self.state else self.n_q

    @property
    def text(self) -> str:
        within = f"causal & chunk({self.chunk})" if self.chunk else "causal"
        declared = "input doc: int[n] " * bool(self.documents)
        within += " & same(doc)" * bool(self.documents)
        return f"pattern p() {{ {declared}{RULES[self.rule].replace('causal', within)} }}"


def drawn(seed: int) -> Call:
    """A call at random, among them lengths about those of chunks and dims that are no powers of two."""
    pick = random.Random(seed)
    key_heads, rule = pick.choice((1, 1, 2)), pick.choice(tuple(RULES))
    chunk = pick.choice((0, 0, 24, 70))
    n = pick.choice((0, 1, 15, 16, 17, 63, 64, 65, 100, 130))
    return Call(
        rule=rule,
        n=n,
        n_q=pick.choice((-1, -1, n // 3, max(n - 1, 0), min(n, 1))),
        batch=pick.choice((1, 2)),
        heads=key_heads * pick.choice((1, 2)),
        key_heads=key_heads,
        # A key of one channel recalls all there is: the delta rule leaves nothing but rounding of it.
        dim=pick.choice((7, 16, 20, 33) if "delta" in rule else (1, 7, 16, 20, 33)),
        value_dim=pick.choice((1, 5, 16, 24)),
        gates=pick.choice(GATES),
        batched=pick.random() < 0.5,
        state=pick.random() < 0.4 and not chunk,
        chunk=chunk,
        documents=pick.choice((0, 1, 2, 4)) if rule != "rwkv6" else 0,
        seed=seed,
    )


def arguments(call: Call, dtype: torch.dtype) -> Tensors:
    """q, k, v and the inputs, and a state if there is one; what is not q, k or v is at least fp32."""
    generator = torch.Generator().manual_seed(call.seed)
    b, n = call.batch, call.n

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    found = {
        "q": normal(b, call.heads, call.queries, call.dim),
        "k": normal(b, call.key_heads, n, call.dim),
        "v": normal(b, call.key_heads, n, call.value_dim),
    }
    delta = "delta" in call.rule
    if delta:  # which is made for keys of length one
        found["k"] = torch.nn.functional.normalize(found["k"], dim=-1)
    lead = (b,) if call.batched else ()
    if call.rule != "deltanet":
        channels = () if call.rule == "gated_deltanet" else (call.dim,)
        share = torch.rand((*lead, n, call.heads, *channels), generator=generator, dtype=torch.float64)
        found["g"] = {
            "mixed": -(1e-4 ** (1 - share)) * 50**share,
            "slow": -1e-4 * share,
            "fast": -50 * share,
            "open": torch.zeros_like(share),
            "shut": torch.where(share < 0.1, -torch.inf, torch.where(share < 0.2, -1e30, -0.1 * share)),
        }[call.gates]
    if call.rule == "rwkv6":
        found["u"] = normal(*lead, call.heads, call.dim)
    if delta:
        found["beta"] = torch.sigmoid(normal(*lead, n, call.heads) * 2)
    if call.state:
        found["state"] = normal(b, call.heads, call.dim, call.value_dim)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    found = {name: x.to(dtype if name in ("q", "k", "v") else wide) for name, x in found.items()}
    if call.documents:
        found["doc"] = torch.randint(call.documents, (*lead, n), generator=generator) * 7 - 5
    return found


def attention(
    call: Call,
    args: Tensors,
    recorded: list[torch.Tensor] | None = None,
    recalled: list[torch.Tensor] | None = None,
) -> Tensors:
    """Output and final state by the rules' own words, in the dtype of ``args``.

    Every document has a state of its own, which fades at every position, and is that of nobody else's.
    recorded: gets the size of what keys recall at every position. recalled: that, to be added in its place.
    """
    q, k, v = (args[name] for name in ("q", "k", "v"))
    group, first = call.heads // call.key_heads, call.n - call.queries
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    size = (call.batch, call.heads, call.dim, call.value_dim)
    doc = torch.zeros(call.batch, call.n, dtype=torch.int64)
    if "doc" in args:
        doc += (args["doc"] + 5) // 7
    states = {number: q.new_zeros(size) for number in range(max(call.documents, 1))}
    final = args.get("state", states[0])
    if "state" in args and call.n:
        for number in states:
            begun = doc[:, 0] == number
            states[number] = torch.where(begun[:, None, None, None], final, states[number])
    outs = []
    g, beta, bonus = (args.get(name) for name in ("g", "beta", "u"))
    for t in range(call.n):
        if call.chunk and t and t % call.chunk == 0:
            states = {number: torch.zeros_like(state) for number, state in states.items()}
        own = {number: (doc[:, t] == number)[:, None, None, None] for number in states}
        before = _of_document(states, own)
        if g is not None:
            gate = (g[:, t] if call.batched else g[t]).exp()
            gate = gate[..., None] if call.rule != "gated_deltanet" else gate[..., None, None]
            states = {number: state * gate for number, state in states.items()}
        state = _of_document(states, own)
        key, value = k[:, :, t], v[:, :, t]
        if beta is not None:
            rate = (beta[:, t] if call.batched else beta[t])[..., None]
            known = (state * key[..., None]).sum(2) if recalled is None else -recalled[t]
            if recorded is not None:
                recorded.append(known.abs())
            value = rate * (value - known)
        final = state + key[..., None] * value[:, :, None]
        states = {number: torch.where(own[number], final, state) for number, state in states.items()}
        if t >= first:
            query = q[:, :, t - first] * call.dim**-0.5
            found = (query[..., None] * (before if call.rule == "rwkv6" else final)).sum(2)
            if bonus is not None:
                found = found + (query * bonus * key).sum(-1, keepdim=True) * value
            outs.append(found)
    empty = q.new_zeros(call.batch, call.heads, 0, call.value_dim)
    out = torch.stack(outs, 2) if outs else empty
    return {"output": out} if call.chunk else {"output": out, "final": final}


def _of_document(states: dict[int, torch.Tensor], own: dict[int, torch.Tensor]) -> torch.Tensor:
    """The state of the document at a position, of every sequence."""
    found = states[0]
    for number, state in states.items():
        found = torch.where(own[number], state, found)
    return found


def magnitudes(call: Call, args: Tensors) -> Tensors:
    """For every number of a result about the sum of the absolute values of what it is the sum of.

    What is taken away under the delta rule counts as much as it is, else nothing would ever be forgotten.
    """
    wide = {name: x.double() if x.is_floating_point() else x for name, x in args.items()}
    recalled: list[torch.Tensor] = []
    attention(call, wide, recorded=recalled)
    size = {name: x if name in ("g", "doc") else x.abs() for name, x in wide.items()}
    return results(call, size, torch.float64, recalled=recalled)


def emitted(call: Call, args: Tensors, backend: str) -> Tensors:
    """The same by the emitted module; what is allocated without being filled is NaN."""
    function = oracle.compiled(call.text).module.p
    with oracle.poisoned():
        if call.chunk:
            return {"output": there(function)(**args, backend=backend)}
        out, final = there(function)(**args, return_state=True, backend=backend)
    return {"output": out, "final": final}


def results(
    call: Call,
    args: Tensors,
    dtype: torch.dtype | None = None,
    backend: str = "torch",
    recalled: list[torch.Tensor] | None = None,
) -> Tensors:
    """Output, final state and gradients of everything: step by step in a dtype, or by the emitted module.

    recalled: as in ``attention``; gradients of the results come without their signs then.
    """
    leaves = {
        name: (x.to(dtype) if dtype else x).detach().requires_grad_()
        for name, x in args.items()
        if x.is_floating_point()
    }
    given = args | leaves
    found = emitted(call, given, backend) if dtype is None else attention(call, given, recalled=recalled)
    generator = torch.Generator().manual_seed(call.seed + 1)
    loss = 0.0 * leaves["q"].sum()
    for x in found.values():
        pull = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        loss = loss + ((pull if recalled is None else pull.abs()) * x).sum()
    with oracle.poisoned():
        pulled = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    grads = {
        f"d_{name}": torch.zeros_like(x) if pull is None else pull
        for (name, x), pull in zip(leaves.items(), pulled, strict=True)
    }
    return {name: x.detach() for name, x in found.items()} | grads


def torn(call: Call, args: Tensors) -> bool:
    """Whether a state is given to a document that ends at the last position, with another in between."""
    if "state" not in args or "doc" not in args or not call.n:
        return False
    doc = args["doc"].reshape(-1, call.n)
    return bool(((doc[:, 0] == doc[:, -1]) & (doc != doc[:, :1]).any(1)).any())


def check(call: Call, dtype: torch.dtype, backend: str = "torch") -> list[str]:
    """Everything that is wrong with the emitted module under one call, in words."""
    args = arguments(call, dtype)
    if torn(call, args):
        with pytest.raises(ValueError, match="side by side"):
            results(call, args, backend=backend)
        return []
    got = results(call, args, backend=backend)
    exact = results(call, args, torch.float64)
    yardstick = results(call, args, dtype)
    return weights_oracle.judge(got, exact, yardstick, magnitudes(call, args), dtype)


def halves(call: Call, args: Tensors, at: int) -> Tensors:
    """Output and final state of a sequence in two pieces; of calls with as many queries as keys."""
    function = oracle.compiled(call.text).module.p
    outs, state = [], args.get("state")
    for begin, end in itertools.pairwise((0, at, call.n)):
        part = {name: x[:, :, begin:end] for name, x in args.items() if name in ("q", "k", "v")}
        for name in ("g", "beta"):
            if name in args:
                part[name] = args[name][:, begin:end] if call.batched else args[name][begin:end]
        if "u" in args:
            part["u"] = args["u"]
        out, state = function(**part, state=state, return_state=True, backend="torch")
        outs.append(out)
    assert state is not None
    return {"output": torch.cat(outs, 2), "final": state}

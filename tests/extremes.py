"""Scores and sinks at the ends of what numbers can say, by their definition: plain softmax in fp64.

A score is rounded to fp32, where a table's least number swallows all that is added to it, and everything else
is computed in fp64. An edge whose score is minus infinity is no edge; a sink of infinity takes all weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests import oracle
from tests.device import there

Tables = dict[str, torch.Tensor]

LEAST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Extreme:
    """A pattern, and its definition.

    edges, score: of positions ``(n_q, 1)`` and ``(1, n)``; a score may be anything where there is no edge.
        products: of what ``elu(x) + 1`` makes of queries and keys.
    shapes: of its tables, where a letter is a length. sink: the table of sinks.
    """

    text: str
    edges: Callable[..., torch.Tensor]
    score: Callable[..., torch.Tensor]
    shapes: dict[str, str]
    sink: str = ""
    n: int = 24
    n_q: int = 24


def _added(s: torch.Tensor, q: torch.Tensor, k: torch.Tensor, m: torch.Tensor, **_: Any) -> torch.Tensor:
    return s + m[q, k]


def _everything(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q >= 0) & (k >= 0)


def _causal(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return k <= q


PATTERNS = {
    "mask": Extreme("input m: float[n, n] attend all score s + m[q, k]", _everything, _added, {"m": "nn"}),
    "causal": Extreme("input m: float[n, n] attend causal score s + m[q, k]", _causal, _added, {"m": "nn"}),
    "a sink": Extreme(
        "input m: float[n, n] input z: float[H] attend causal score s + m[q, k] sink z[h]",
        _causal,
        _added,
        {"m": "nn", "z": "h"},
        sink="z",
    ),
    "a sink alone": Extreme(
        "input z: float[H] attend window(9) sink z[h]",
        lambda q, k: (k <= q) & (q - k <= 9),
        lambda s, q, k, **_: s,
        {"z": "h"},
        sink="z",
    ),
    "logarithms": Extreme(
        "input w: float[n] attend causal score s + log(w[k])",
        _causal,
        lambda s, q, k, w, **_: s + torch.log(w[k]),
        {"w": "n"},
    ),
    "capped": Extreme(
        "input b: float[n] attend all score 9.0 * tanh(s / 9.0) * exp(min(b[k], 1.0)) + b[q]",
        _everything,
        lambda s, q, k, b, **_: 9 * torch.tanh(s / 9) * torch.exp(b[k].clamp(max=1)) + b[q],
        {"b": "n"},
    ),
    "passes": Extreme(
        "input m: float[n, n] attend window(3, 3) | stride(5) score s + m[q, k]",
        lambda q, k: ((q - k).abs() <= 3) | ((q - k) % 5 == 0),
        _added,
        {"m": "nn"},
    ),
    "one by one": Extreme(
        "input m: float[n, n] attend offsets(powers(2)) score s + m[q, k]",
        lambda q, k: (q >= k) & (((q - k) & (q - k - 1)) == 0),
        _added,
        {"m": "nn"},
    ),
    "by distance": Extreme(
        "input b: float[n] attend causal score s + b[q - k]",
        _causal,
        lambda s, q, k, b, **_: s + b[(q - k).clamp(min=0)],
        {"b": "n"},
    ),
    "few queries": Extreme(
        "input m: float[n, n] attend all score s + m[q, k]",
        _everything,
        _added,
        {"m": "nn"},
        n=150,
        n_q=3,
    ),
    "near and far": Extreme(
        "input m: float[n, n] attend window(5) with score s + m[q, k] "
        "attend causal - window(5) with kernel elu(x) + 1",
        _causal,
        lambda s, q, k, m, products: torch.where(q - k <= 5, s + m[q, k], torch.log(products)),
        {"m": "nn"},
    ),
}


def dense(
    item: Extreme, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tables: Tables, grad: torch.Tensor
) -> list[torch.Tensor]:
    """Output and gradients of q, k, v and the tables by the definition."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v, *tables.values())]
    wide = dict(zip(tables, leaves[3:], strict=True))
    for x in wide.values():  # the logarithm of nothing has no gradient that zero could be multiplied with
        x.register_hook(lambda g: g.nan_to_num(0.0))
    at = torch.arange(item.n - item.n_q, item.n)[:, None], torch.arange(item.n)[None, :]
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in leaves[1:3])
    s = leaves[0] @ keys.transpose(2, 3) * q.shape[3] ** -0.5
    q, k = (torch.nn.functional.elu(x) + 1 for x in (leaves[0], keys))
    scores = item.score(s, *at, **wide, products=q @ k.transpose(2, 3)).float().double()
    scores = scores.masked_fill(~item.edges(*at) | (scores == -torch.inf), -torch.inf)
    if item.sink:
        sinks = wide[item.sink].clamp(max=1e300)[None, :, None, None]
        scores = torch.cat([scores, sinks.expand(*scores.shape[:3], 1)], 3)
    empty = (scores == -torch.inf).all(3, keepdim=True)
    weights = scores.masked_fill(empty, 0.0).softmax(3).masked_fill(empty, 0.0)
    out = weights[..., : item.n] @ values
    found = torch.autograd.grad(out, leaves, grad.double(), allow_unused=True, materialize_grads=True)
    return [out.detach(), *found]


def tables(item: Extreme, value: float, sink: float, dtype: torch.dtype = torch.float32) -> Tables:
    """Tables with a value in whole rows, in the first columns of all rows, and here and there; and sinks."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in item.shapes.items():
        x = torch.randn([{"n": item.n, "h": 2}[letter] for letter in shape], generator=generator)
        if name == item.sink:
            x[1] = sink
        elif name == "w":
            x = x.abs().masked_fill(x > 1.0, 0.0)
            x[:6] = 0.0
        else:
            x[torch.rand(x.shape, generator=generator) < 0.2] = value
            x[..., :6] = value
            x[-5:-2] = value
        found[name] = x.to(dtype)
    return found


# What tables hold, and in what dtype; and what sinks are.
VALUES = {
    "-inf": (-torch.inf, torch.float32),
    "least": (LEAST, torch.float32),
    "-1e4": (-1e4, torch.float32),
    "least of bf16": (torch.finfo(torch.bfloat16).min, torch.bfloat16),
    "least of fp16": (torch.finfo(torch.float16).min, torch.float16),
}
SINKS = {"inf": torch.inf, "-inf": -torch.inf, "largest": -LEAST, "least": LEAST}
CASES = [(name, value, "") for name, item in PATTERNS.items() if not item.sink for value in ("-inf", "least")]
CASES += [("mask", value, "") for value in VALUES if value not in ("-inf", "least")]
CASES += [("a sink", value, sink) for value in ("-inf", "least") for sink in ("-inf", "least")]
CASES += [("a sink alone", "-inf", sink) for sink in SINKS]


def faults(name: str, value: str, sink: str, backend: str) -> list[str]:
    """What is wrong with a pattern's output and gradients, in words."""
    item = PATTERNS[name]
    given = tables(item, VALUES[value][0], SINKS.get(sink, 0.0), VALUES[value][1])
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 2, item.n_q, 16, generator=generator)
    k, v = torch.randn(2, 2, 1, item.n, 16, generator=generator)
    grad = torch.randn(2, 2, item.n_q, 16, generator=generator)
    leaves = [x.requires_grad_() for x in (q, k, v, *given.values())]
    out = there(compiled(name).module.p)(*leaves[:3], **given, backend=backend)
    got = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
    wanted = dense(item, q, k, v, given, grad)
    found = []
    for of, a, b in zip(("output", "dq", "dk", "dv", *given), got, wanted, strict=True):
        off, unit = (a.double() - b).abs().amax(), max(2.0**-16, torch.finfo(a.dtype).eps)
        if not off <= unit * max(1.0, float(b.abs().amax())):
            found.append(f"{of} is off by {float(off):.2e}")
    return found


def compiled(name: str) -> oracle.Compiled:
    return oracle.compiled(f"pattern p() {{ {PATTERNS[name].text} }}")


# Scores without a limit: a pattern, and what it weighs a table's entries by.
LIMITLESS = ("mask", "passes", "one by one", "a sink")


def spoiled(name: str, value: float, backend: str) -> list[str]:
    """A score of infinity or NaN makes NaN of its row and of its gradients, and of no other row."""
    item = PATTERNS[name]
    given = tables(item, -1.0, 0.0)
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, item.n, 16, generator=generator)
    right = there(compiled(name).module.p)(q, k, v, **given, backend=backend)
    given["m"][9, 9] = value
    leaves = [x.requires_grad_() for x in (q, k, v, given["m"])]
    out = there(compiled(name).module.p)(q, k, v, **given, backend=backend)
    dq, _, _, dm = torch.autograd.grad(out.sum(), leaves)
    rows = torch.arange(item.n) == 9
    found = []
    for of, x in (("output", out), ("dq", dq), ("dm", dm[None, None])):
        if not x[:, :, 9].isnan().any():
            found.append(f"{of} has no NaN in the row")
        if x[:, :, ~rows].isnan().any():
            found.append(f"{of} has NaN in other rows")
    if not torch.equal(out[:, :, ~rows], right[:, :, ~rows]):
        found.append("other rows are different")
    return found

"""What is right: dense attention in fp64 on the reference interpreter's mask, on some rows of queries; for
patterns that weigh edges, their definition.

Every function is held against it before its clock starts. With the output's gradient zero on all other rows,
the gradients of q, k and v hang on these rows alone, so that they are compared whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from attnc import reference, weighing
from attnc.bench.case import BadCase, Case

# Up to this length every row is compared; beyond it this many at random, with the first and the last.
EVERY_ROW = 1024
SOME_ROWS = 256
# Mask entries that the interpreter computes at a time.
CHUNK = 1 << 24
# Bytes that the delta rule, which takes all rows at once, may keep for the way back.
MOST_STEPPED = 1 << 32


@dataclass(frozen=True, eq=False)
class Truth:
    """Dense attention on some rows.

    rows: query positions, ascending. grad: the output's gradient, zero on all other rows.
    exact: output on the rows and gradients of q, k, v, in fp64; the output alone without ``backward``.
    limits: how far each may be away: twice what dense attention in the same dtype is, and some rounding.
    """

    rows: torch.Tensor
    grad: torch.Tensor
    exact: tuple[torch.Tensor, ...]
    limits: tuple[float, ...]

    def judge(self, out: torch.Tensor) -> tuple[float, float]:
        """The largest error of an output (batch, heads, n, dim) and its limit."""
        return _distance(out[:, :, self.rows], self.exact[0]), self.limits[0]

    def judge_gradients(self, found: tuple[torch.Tensor, ...]) -> tuple[float, float]:
        """The largest error of the gradients for ``grad`` and its limit, of the one that is furthest off."""
        errors = [_distance(x, y) for x, y in zip(found, self.exact[1:], strict=True)]
        pairs = list(zip(errors, self.limits[1:], strict=True))
        return max(pairs, key=lambda pair: pair[0] / pair[1] if pair[0] == pair[0] else float("inf"))


def some_rows(n: int, seed: int) -> torch.Tensor:
    """Query positions to compare, ascending."""
    if n <= EVERY_ROW:
        return torch.arange(n)
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: SOME_ROWS - 2]
    return torch.tensor(sorted({0, n - 1, *drawn.tolist()}))


def truth(case: Case, backward: bool = True, causal: bool = False) -> Truth:
    """The truth of a case, or with ``causal`` of plain causal attention on its tensors.

    Raises ``BadCase`` where the definition itself would take too much memory.
    """
    n = case.shape.n
    rows = some_rows(n, case.seed)
    edges = torch.empty(0)
    if causal:
        edges = (torch.arange(n) <= rows[:, None])[None].expand(case.shape.heads, -1, -1)
    elif not case.weighed:
        edges = reference_rows(case, rows)
    rows = rows.to(case.device)
    grad = torch.zeros_like(case.grad)
    grad[:, :, rows] = case.grad[:, :, rows]
    if case.weighed and not causal:
        exact = _weighed(case, rows, grad, torch.float64, backward)
        plain = _weighed(case, rows, grad, case.q.dtype, backward)
    else:
        exact = _dense(case, rows, edges, grad, torch.float64, backward)
        plain = _dense(case, rows, edges, grad, case.q.dtype, backward)
    rounding = 8 * torch.finfo(case.q.dtype).eps
    limits = tuple(
        2 * _finite(_distance(x, y)) + rounding * max(1.0, float(y.abs().max()))
        for x, y in zip(plain, exact, strict=True)
    )
    return Truth(rows, grad, exact, limits)


def reference_rows(case: Case, rows: torch.Tensor) -> torch.Tensor:
    """The interpreter's mask of some rows: (heads, rows, n) booleans on the CPU."""
    arrays = {name: value.cpu().numpy() for name, value in case.inputs.items()}
    shape = case.shape
    parts = [
        reference.rows(case.pattern, part.numpy().astype(np.int64), shape.n, shape.heads, arrays)
        for part in torch.split(rows, max(1, CHUNK // (shape.n * shape.heads)))
    ]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _dense(
    case: Case,
    rows: torch.Tensor,
    edges: torch.Tensor,
    grad: torch.Tensor,
    dtype: torch.dtype,
    backward: bool,
) -> tuple[torch.Tensor, ...]:
    """Output on the rows and gradients of q, k, v by the book, one head at a time."""
    group = case.shape.heads // case.shape.kv_heads
    q, k, v = (x.to(dtype) for x in (case.q, case.k, case.v))
    out = torch.zeros((*q.shape[:2], len(rows), v.shape[3]), dtype=dtype, device=q.device)
    dq, dk, dv = (torch.zeros(x.shape, dtype=torch.float64, device=q.device) for x in (q, k, v))
    for head in range(case.shape.heads):
        allowed = edges[head : head + 1].to(q.device)
        for entry in range(case.shape.batch):
            one, other = slice(entry, entry + 1), slice(head // group, head // group + 1)
            picked = (q[one, head : head + 1, rows], k[one, other], v[one, other])
            mine, keys, values = (x.detach().requires_grad_(backward) for x in picked)
            part, _ = reference.attention(mine, keys, values, allowed)
            out[one, head : head + 1] = part.detach()
            if backward:
                upstream = grad[one, head : head + 1, rows].to(dtype)
                found = torch.autograd.grad(part, (mine, keys, values), upstream)
                dq[one, head : head + 1, rows] = found[0].double()
                dk[one, other] += found[1].double()
                dv[one, other] += found[2].double()
    return (out.double(), dq, dk, dv) if backward else (out.double(),)


def _weighed(
    case: Case, rows: torch.Tensor, grad: torch.Tensor, dtype: torch.dtype, backward: bool
) -> tuple[torch.Tensor, ...]:
    """The same by the definition of weights, some rows at a time; on the CPU, where that is at home."""
    weights = [part.weights for body in case.pattern.bodies for part in body.parts]
    shape, stepped = case.shape, any(item.beta is not None for item in weights)
    wide = any(item.decay is not None for item in weights) * shape.dim or 1
    if stepped and 32 * shape.n**2 * shape.batch * shape.heads * wide > MOST_STEPPED:
        raise BadCase(
            f"the delta rule's definition takes too much memory for {shape.n} tokens: take fewer of them, "
            "or fewer heads"
        )
    step = max(1, CHUNK // (shape.batch * shape.heads * shape.n * wide))
    q, k, v = (x.detach().cpu().to(dtype).requires_grad_(backward) for x in (case.q, case.k, case.v))
    rows, grad = rows.cpu(), grad.cpu().to(dtype)
    inputs = {name: x.cpu() for name, x in case.inputs.items()}
    outs, gradients = [], [torch.zeros(x.shape, dtype=torch.float64) for x in (q, k, v)]
    for some in torch.split(rows, len(rows) if stepped else step):
        out, _ = weighing.attention(case.pattern, q[:, :, some], k, v, inputs, rows=some)
        outs.append(out.detach().double())
        if backward:
            found = torch.autograd.grad(out, (q, k, v), grad[:, :, some])
            for total, part in zip(gradients, found, strict=True):
                total += part.double()
    results = (torch.cat(outs, 2), *gradients) if backward else (torch.cat(outs, 2),)
    return tuple(x.to(case.device) for x in results)


def _finite(distance: float) -> float:
    """What overflows in the dtype of the case allows for nothing."""
    return distance if distance < float("inf") else 0.0


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference; not a number where either is not."""
    return float((found.detach().double() - wanted.double()).abs().max()) if found.numel() else 0.0

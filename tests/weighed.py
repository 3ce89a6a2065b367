"""What softmax with scores and sinks comes to by its definition, and how far rounding can take it.

The definition is ``attnc.weighing``. The sizes are a running error analysis of it: for every number of a
result, what rounding is in proportion to, as in ``oracle.magnitudes``, followed through the score's functions
by their slopes.
"""

from __future__ import annotations

import numpy as np
import torch

from attnc import reference, weighing
from attnc.expression import Expr
from attnc.pattern import Body, Pattern
from attnc.real import (
    FUNCTIONS,
    ONE,
    Apply,
    Choice,
    Entry,
    Greater,
    Number,
    Over,
    Plus,
    Real,
    S,
    Score,
    Times,
    Whole,
    derivative,
    entries,
    folded,
)
from tests.strategies import Call

Tensors = tuple[torch.Tensor, ...]
Tables = dict[str, torch.Tensor]
Sized = tuple[torch.Tensor, torch.Tensor]


def is_weighed(pattern: Pattern) -> bool:
    return any(not part.weights.plain for body in pattern.bodies for part in body.parts)


def leaves(tables: Tables) -> Tables:
    """The inputs that gradients are asked of."""
    return {name: table for name, table in tables.items() if table.requires_grad}


def dense(
    pattern: Pattern, args: Tensors, grads: Tensors, tables: Tables, call: Call, dtype: torch.dtype
) -> Tensors:
    """Output, log-sum-exp and all gradients by the definition, in the given dtype."""
    args = tuple(x.detach().to(dtype).requires_grad_() for x in args)
    given = {
        name: x.detach().to(dtype).requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for name, x in tables.items()
    }
    out, lse = weighing.attention(pattern, *args, given, call.scale)
    pull = torch.where(lse.detach() == -torch.inf, 0.0, grads[1].to(lse.dtype))
    total = (out * grads[0].to(dtype)).sum()
    if lse.requires_grad:  # else it hangs on positions alone
        total = total + torch.where(pull == 0, 0.0, lse * pull).sum()
    wanted = (*args, *leaves(given).values())
    found = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return (out.detach(), lse.detach(), *found)


# --- sizes ----------------------------------------------------------------------------------------------


class _Analysis:
    """Real expressions of one body: values, and what their rounding is in proportion to."""

    def __init__(self, scene: weighing._Scene, batch: int, s: Sized | None, unit: float) -> None:
        self.scene, self.batch, self.s, self.unit = scene, batch, s, unit
        self.known: dict[Real, Sized] = {}

    def __call__(self, expr: Real) -> Sized:
        if expr not in self.known:
            value = self._value(expr)
            self.known[expr] = value, self._size(expr, value)
        return self.known[expr]

    def _rounded(self, value: torch.Tensor) -> torch.Tensor:
        """What rounding a result is in proportion to: not where it swallows all that is added to it."""
        return torch.where(value.abs() > 1e30, 0.0, value.abs())

    def _value(self, expr: Real) -> torch.Tensor:
        return self.scene.real(expr, self.batch, {} if self.s is None else {Score: self.s[0]}).detach()

    def _size(self, expr: Real, value: torch.Tensor) -> torch.Tensor:
        own = self._rounded(value)  # an operation rounds its own result
        match expr:
            case Whole():
                return torch.zeros_like(own)
            case Number() | Entry():
                return own
            case Score():
                assert self.s is not None
                return self.s[1]
            case Plus(args):
                return own + sum(self(arg)[1] for arg in args)
            case Times(args):
                found = [self(arg) for arg in args]
                for i, (_, size) in enumerate(found):
                    for other, _ in (*found[:i], *found[i + 1 :]):
                        size = size * other.abs()
                    own = own + size
                return own
            case Over(left, right):
                (a, a_size), (b, b_size) = self(left), self(right)
                return own + a_size / b.abs() + a.abs() * b_size / b.square()
            case Apply("min" | "max", (left, right)):
                return own + torch.maximum(self(left)[1], self(right)[1])
            case Apply("abs" | "relu" | "elu", (arg,)):  # slopes of at most one
                return own + self(arg)[1]
            case Apply(function, args):
                for slope, arg in zip(FUNCTIONS[function].slopes(*args), args, strict=True):
                    size = self(arg)[1]
                    own = own + torch.where(size == 0, 0.0, self._value(slope).abs() * size)
                return own
            case Choice(condition, then, otherwise):
                (a, a_size), (b, b_size) = self(then), self(otherwise)
                if isinstance(condition, Expr):
                    chosen = self._value(Choice(condition, ONE, Number(0.0))) == 1.0
                    return torch.where(chosen, a_size, b_size)
                return self._near(condition, a, b) + torch.maximum(a_size, b_size)
        raise TypeError(f"cannot tell the size of {type(expr).__name__}")

    def _near(self, condition: Greater, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What a choice jumps by, where rounding may decide it."""
        (left, left_size), (right, right_size) = self(condition.left), self(condition.right)
        close = (left - right).abs() < 8 * self.unit * (left_size + right_size)
        return torch.where(close, (a - b).abs() / self.unit, 0.0)


def sizes(
    pattern: Pattern, args: Tensors, grads: Tensors, tables: Tables, call: Call, exact: Tensors
) -> Tensors:
    """For every number of a result, the sum of the absolute values of what it is the sum of; fp64.

    A score that is off by a little takes its weight with it, in proportion; how far it is off is told by its
    own analysis, and by that of its derivative how far its gradient is.
    """
    out, lse = exact[:2]
    dtype = args[0].dtype
    unit = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    q, k, v = (x.detach().double() for x in args)
    grad, pull = (x.double() for x in grads)
    group = call.heads // call.key_heads
    keys, values = (x.repeat_interleave(group, 1) for x in (k, v))
    scale = call.dim**-0.5 if call.scale is None else call.scale
    s = q @ keys.transpose(2, 3) * scale
    s_size = q.abs() @ keys.abs().transpose(2, 3) * abs(scale)
    given = {name: x.detach().double() if x.is_floating_point() else x for name, x in tables.items()}
    wanted = {name: given[name].requires_grad_() for name in leaves(tables)}
    totals = {name: torch.zeros_like(x) for name, x in wanted.items()}

    d_weights = grad.abs() @ values.abs().transpose(2, 3)
    plain, heavy, lse_size = torch.zeros_like(s), torch.zeros_like(s), torch.ones_like(lse)
    steep, steep_size = torch.zeros_like(s), torch.zeros_like(s)
    sunk, sunk_size = torch.zeros_like(lse), torch.zeros_like(lse)
    numbers = reference.head_bodies(pattern, call.heads)
    analyses = []
    for i, body in enumerate(pattern.bodies):
        members = np.flatnonzero(numbers == i)
        if not members.size:
            continue
        some = torch.from_numpy(members)
        of_body = _BodySizes(pattern, body, members, call, given, dtype, unit)
        analyses.append((some, of_body))
        score, size = of_body.scores(s[:, some], s_size[:, some])
        edges = of_body.edges
        weights = torch.exp(torch.where(edges, score, -torch.inf) - lse[:, some, :, None]).nan_to_num()
        plain[:, some], heavy[:, some] = weights, torch.where(edges, weights * (1 + size), 0.0)
        steep[:, some], steep_size[:, some] = of_body.slope(S)
        if call.n:
            lse_size[:, some] = torch.where(edges, size, 0.0).amax(3) + 1
        if of_body.sink is not None:
            sink, size, _ = of_body.sinks()
            sunk[:, some] = torch.exp(sink - lse[:, some])
            sunk_size[:, some] = sunk[:, some] * (1 + size)
            lse_size[:, some] = torch.maximum(lse_size[:, some], size + 1)
    # To first order: a product's error is that of either factor times the other.
    out_size = heavy @ values.abs() + sunk_size[..., None] * out.abs()
    delta = (grad.abs() * (plain @ values.abs())).sum(3) + pull.abs()
    delta_size = (grad.abs() * out_size).sum(3) + pull.abs()
    d_scores = plain * (d_weights + delta[..., None])
    d_sizes = heavy * (d_weights + delta[..., None]) + plain * (d_weights + delta_size[..., None])
    for some, of_body in analyses:
        of_sinks = (sunk * delta, sunk_size * delta + sunk * delta_size)
        of_body.add_to(
            totals, wanted, (d_scores[:, some], d_sizes[:, some]), tuple(x[:, some] for x in of_sinks)
        )
    d_products = (d_sizes * steep + d_scores * steep_size) * abs(scale)
    d_keys, d_values = d_products.transpose(2, 3) @ q.abs(), heavy.transpose(2, 3) @ grad.abs()

    def shared(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (call.key_heads, group)).sum(2)

    return out_size, lse_size, d_products @ keys.abs(), shared(d_keys), shared(d_values), *totals.values()


class _BodySizes:
    """The analysis of one body's scores and sinks, for its heads."""

    def __init__(
        self,
        pattern: Pattern,
        body: Body,
        members: np.ndarray,
        call: Call,
        tables: Tables,
        dtype: torch.dtype,
        unit: float,
    ) -> None:
        self.batch, self.unit = call.batch, unit
        arrays = {name: x.numpy() for name, x in tables.items() if not x.is_floating_point()}
        self.scene = weighing._Scene(
            pattern, body, members, call.heads, call.n_q, call.n, tables, arrays, torch.float64
        )
        self.edges = self.scene.mask(body.parts[0], call.batch)
        self.score = folded(body.weights.score)
        self.sink = None if body.weights.sink is None else folded(body.weights.sink)

    def scores(self, s: torch.Tensor, s_size: torch.Tensor) -> Sized:
        """Scores, and the size of each."""
        self.of_edges = _Analysis(self.scene, self.batch, (s, s_size), self.unit)
        value, size = self.of_edges(self.score)
        return value.expand(s.shape), size.expand(s.shape)

    def slope(self, by: Real) -> Sized:
        """How steep the score is by something, and the size of that; zero where there is no edge."""
        value, size = self.of_edges(derivative(self.score, by))
        return torch.where(self.edges, value.abs(), 0.0), torch.where(self.edges, size, 0.0)

    def sinks(self) -> tuple[torch.Tensor, torch.Tensor, _Analysis]:
        """Logarithms (batch or 1, heads, 1), the size of each, and the analysis that told them."""
        assert self.sink is not None
        analysis = _Analysis(self.scene, self.batch, None, self.unit)
        value, size = (weighing._ranked(x)[..., 0] for x in analysis(self.sink))
        return value.clamp(max=torch.finfo(value.dtype).max), size, analysis

    def add_to(self, totals: Tables, wanted: Tables, d_scores: Sized, d_sinks: Tensors) -> None:
        """Adds to every entry what the edges give it that read it, and the rows with a sink made of it.

        d_scores, d_sinks: what each may come to at most, and its size.
        """
        for entry in entries(self.score):
            steep, size = self.slope(entry)
            self._add(totals, wanted, entry, d_scores[1] * steep + d_scores[0] * size)
        for entry in () if self.sink is None else entries(self.sink):
            value, size = self.sinks()[2](derivative(self.sink, entry))
            most, own = (x[..., None] for x in d_sinks)
            self._add(totals, wanted, entry, own * value.abs() + most * size)

    def _add(self, totals: Tables, wanted: Tables, entry: Entry, gradient: torch.Tensor) -> None:
        if entry.table in totals:
            read = self.scene.real(entry, self.batch, {}).expand(gradient.shape)
            totals[entry.table] += torch.autograd.grad(read, wanted[entry.table], gradient)[0]

"""Linear attention through states, on either path: which heads, which segments, which gates."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


def _head_sets(heads): ...
def _progressions(heads): ...
def _batched(x, name, n, heads): ...
def _equal_entries(x): ...
def _runs(x, place): ...
def _sum_dtype(x): ...
def _linear_forward_triton(*args): ...
def _linear_backward_triton(*args): ...


_STATES, NAME, _CARRIES = (), "", False

# --- begin: common ---


class _Linear(NamedTuple):
    """How a body is computed through states.

    causal: a query reads what lies at least ``near`` positions behind it; otherwise it reads everything.
    normalized: rows are divided by their sum of weights. summed: that sum itself is kept, not its logarithm,
        because no other weights share the denominator.
    root, factor: whether vectors are scaled before they are mapped, or weights afterwards.
    exclusive: whether gates end a step earlier, and no query reads itself.
    features, gradient: the feature map on torch tensors and how gradients go back through it.
    width: how many features a vector has. segments: where they begin, or None. gate: its place, or None.
    decay: what gates are made of, as it was written.
    kind, seed, length: of the feature map. kernels: those of the Triton path, by name.
    plain: whether features are the vectors themselves. delta, extra: whether the delta rule updates states,
        and the place of its rates or, otherwise, of what a query's own position weighs; or None.
    forward, backward: what computes it on the torch path, and on the Triton path.
    """

    causal: bool
    near: int
    normalized: bool
    summed: bool
    root: bool
    factor: bool
    exclusive: bool
    features: object
    gradient: object
    width: object
    segments: object
    gate: object
    decay: str
    kind: str
    seed: int
    length: int
    kernels: object
    plain: bool
    delta: bool
    extra: object
    forward: object
    backward: object


def _chunk_of(width):
    """How many positions a chunk has: with large states, more."""
    return 64 if width <= 128 else min(1024, 1 << (width // 4 - 1).bit_length())


def _segmented(ids, together, goes_on):
    """Where segments begin: (order, begin, lost), the first two (batch or 1, length).

    ids: integers that are equal within a segment. together: segments need not be runs; ``order`` is then the
    positions put together segment by segment, otherwise None. begin: -1 in the segment that begins with what
    is stored before. lost: (batch or 1), whether what is stored at the end is not of the last position's
    segment. goes_on: whether something is stored before, which belongs to the segment of the first position.
    """
    n = ids.shape[1]
    place = torch.arange(n, device=ids.device).expand(ids.shape)
    order = lost = None
    if together and n:
        first = _equal_entries(ids)[0].long()
        # On the host it costs nothing to see that segments are runs, as they nearly always are.
        if ids.device.type != "cpu" or not bool((first[:, 1:] >= first[:, :-1]).all()):
            last = first == first[:, -1:]
            if goes_on:
                lost = last[:, 0] & ~last.all(1)
                last = last & (first > 0)
            ids, order = torch.where(last, n, first).sort(dim=1, stable=True)
    begin = _runs(ids, place)[0]
    return order, torch.where(begin == 0, -1, begin).to(torch.int32).contiguous(), lost


def _moved_to(x, order, axis):
    """Positions along an axis put in another order, (batch or 1, length)."""
    shape = [1] * x.dim()
    shape[0], shape[axis] = order.shape
    size = list(torch.broadcast_shapes(x.shape[:1], order.shape[:1])) + list(x.shape[1:])
    return x.expand(size).gather(axis, order.reshape(shape).expand(size))


def _moved_back(x, order, axis):
    """The inverse of ``_moved_to``."""
    return _moved_to(x, order.argsort(1), axis)


def _summed(x):
    """Sums up to and including every position of (batch, length, heads), in fp64 and in a fixed order."""
    n = x.shape[1]
    size = max(1, math.isqrt(n))
    padded = torch.nn.functional.pad(x.double(), (0, 0, 0, -n % size)).unflatten(1, (-1, size))
    ones = torch.ones(size, size, dtype=torch.float64, device=x.device).tril()
    inner = torch.matmul(ones, padded)
    rows = inner.shape[1]
    before = torch.ones(rows, rows, dtype=torch.float64, device=x.device).tril(-1)
    return (inner + torch.einsum("ij,bjh->bih", before, inner[:, :, -1])[:, :, None]).flatten(1, 2)[:, :n]


def _summable(gates):
    """Gates that can be added up, so that what is let through is told by differences.

    Of those that let nothing through there are none beside which smaller ones would be lost, and no infinite
    ones. What is no gate spoils what it reaches.
    """
    if gates.device.type != "cpu":
        gates = torch.where(gates > 0, float("nan"), gates)
    return gates.clamp(min=-800.0 if gates.dtype == torch.float64 else -120.0)


def _moved_gates(gates, order, begin, n):
    """Gates of one step in the new order: what lies between a position and the one before it in its segment.

    gates: (batch or 1, n or 1, heads).
    """
    gates = _summable(gates)
    if gates.shape[1] == 1:
        steps = torch.cat([order[:, :1] + 1, order[:, 1:] - order[:, :-1]], 1)[..., None]
        found = gates * steps.to(gates.dtype)
    else:
        sums = _moved_to(_summed(gates), order, 1)
        found = torch.cat([sums[:, :1], sums[:, 1:] - sums[:, :-1]], 1).to(gates.dtype)
        found = found.clamp(max=0.0)  # which rounding may have left behind
    found = _summable(found)
    place = torch.arange(n, device=gates.device)
    return torch.where((begin == place)[..., None], 0.0, found)


def _gates_moved_back(grad, order, begin, gates):
    """The gradient of ``gates`` from that of what ``_moved_gates`` gave."""
    place, dtype = torch.arange(grad.shape[1], device=grad.device), grad.dtype
    grad = torch.where((begin == place)[..., None], 0.0, grad).double()
    if gates.shape[1] == 1:
        steps = torch.cat([order[:, :1] + 1, order[:, 1:] - order[:, :-1]], 1)[..., None]
        return (grad * steps).to(dtype)
    ends = torch.cat([grad[:, :-1] - grad[:, 1:], grad[:, -1:]], 1)
    ends = _moved_back(ends, order, 1)
    return _summed(ends.flip(1)).flip(1).to(dtype)


def _fading(gates, name):
    """The gates, none of which is positive: logarithms of factors that do not let weights grow.

    Raises ValueError where one is. On a GPU nobody waits to see: it becomes NaN, and so does all it reaches.
    """
    if gates.device.type == "cpu" and gates.numel() and bool(gates.max() > 0):
        raise ValueError(
            f"{NAME}: gates are logarithms of factors up to one, none above zero, and `{name}` comes to "
            f"{float(gates.max()):.4g}; make them with logsigmoid(x) or -softplus(x)"
        )
    if gates.dim() == 4:
        return gates  # what takes one for each channel adds up none, and sees for itself
    return _summable(gates)


class _Moved:
    """One launch's tensors, with segments put together where they are not."""

    def __init__(self, body, q, k, v, inputs, heads, numbers, state):
        self.body, self.q, self.k, self.v, self.state = body, q, k, v, state
        start, step, count = numbers
        self.heads = slice(start, start + (count - 1) * step + 1, step)
        self.numbers, self.n, self.n_q, self.group = numbers, k.shape[2], q.shape[2], heads // k.shape[1]
        self.q = q[:, self.heads]
        self.state = None if state is None else state[:, self.heads]
        self.order = self.begin = self.lost = self.gates = self.extra = None
        if body.gate is not None:
            self.given = inputs[body.gate][:, :, self.inside(inputs[body.gate])]
            self.gates = _fading(self.given, body.decay)
        if body.extra is not None:
            self.extra = self.extra_of(inputs[body.extra])
        if body.segments is not None:
            found = body.segments(inputs, self.n, heads, q.device, state is not None)
            self.order, self.begin, self.lost = found
        if self.order is not None:
            self.q = self.moved(self.padded(self.q))
            self.k, self.v = self.moved(self.k), self.moved(self.v)
            if self.gates is not None:
                moved = _moved_gates(self.gates.flatten(2), self.order, self.begin, self.n)
                self.gates = moved.unflatten(2, self.gates.shape[2:])
            if body.delta:
                self.extra = _moved_to(self.extra, self.order, 1)

    def inside(self, gates):
        """Which of the gates' heads: all bodies' heads have some, those of others are not used."""
        return self.heads if gates.shape[2] > 1 else slice(None)

    def extra_of(self, x):
        """Of its heads: rates are (batch or 1, n, heads), own positions' weights (batch or 1, heads, …)."""
        return x[:, :, self.heads] if self.body.delta else x[:, self.heads]

    def padded(self, x):
        """Queries are the last positions; put in order they may be anywhere."""
        return torch.nn.functional.pad(x, (0, 0, self.n - self.n_q, 0)) if self.n > self.n_q else x

    def moved(self, x):
        return _moved_to(x, self.order, 2)

    def rows(self, x):
        """Something for every query, in the new order, (batch, heads, n_q or n, …)."""
        if self.order is None:
            return x
        wide = x if x.dim() == 4 else x[..., None]
        wide = self.moved(self.padded(wide))
        return wide if x.dim() == 4 else wide[..., 0]

    def rows_back(self, x):
        if self.order is None:
            return x
        wide = _moved_back(x if x.dim() == 4 else x[..., None], self.order, 2)[:, :, self.n - self.n_q :]
        return wide if x.dim() == 4 else wide[..., 0]

    def keys_back(self, x):
        return x if self.order is None else _moved_back(x, self.order, 2)

    def gates_back(self, grad):
        """(batch, n, heads, …) to the shape of what was given."""
        if self.order is not None:
            flat = _gates_moved_back(grad.flatten(2), self.order, self.begin, self.given.flatten(2))
            grad = flat.unflatten(2, grad.shape[2:])
        for axis in (0, 1):
            if self.given.shape[axis] == 1 and grad.shape[axis] != 1:
                grad = grad.sum(axis, keepdim=True)
        return grad

    def extra_back(self, grad, target):
        """Adds the gradient of ``extra`` to that of what was given."""
        target = self.extra_of(target)
        if self.order is not None and self.body.delta:
            grad = _moved_back(grad, self.order, 1)
        target.add_(grad.sum(0, keepdim=True) if target.shape[0] < grad.shape[0] else grad)

    def last_state(self, state):
        """The state behind the last position. On a GPU, where nobody waits to see, NaN if it is not there.

        Raises ValueError elsewhere.
        """
        if self.lost is None:
            return state
        if self.lost.device.type == "cpu" and bool(self.lost.any()):
            raise ValueError(
                f"{NAME}: the document of the first position, which goes on with the given state, comes "
                "again at the last position after another, and one state cannot be of both: put positions "
                "of a document side by side, or compute whole sequences without `state`"
            )
        return state.masked_fill(self.lost[:, None, None, None], float("nan"))


def _launches(heads):
    """Every body with states and a progression of its heads."""
    for body, numbers in zip(_STATES, _head_sets(heads), strict=True):
        if body is not None:
            for progression in _progressions(numbers):
                yield body, progression


def _inner(body, scale):
    """What vectors and what weights are multiplied by."""
    if body.root and scale < 0:
        raise ValueError("the features of `favor` and `taylor` take a scale that is not negative")
    return math.sqrt(scale) if body.root else 1.0, scale if body.factor else 1.0


def _forward_states(q, k, v, inputs, state, scale, path):
    """Output, log-sum of weights and final state of all heads with states, and zeros for the others.

    Where nothing else shares the denominator, the sum of weights stands in place of its logarithm.
    """
    dtype, heads = _sum_dtype(q), q.shape[1]
    alone = all(body is None or body.summed for body in _STATES)  # nothing is joined with what is found here
    out = torch.zeros((*q.shape[:3], v.shape[3]), dtype=q.dtype if alone else dtype, device=q.device)
    lse = torch.full(q.shape[:3], float("-inf"), dtype=dtype, device=q.device)
    final = lse.new_empty(0)
    for body, numbers in _launches(heads):
        moved = _Moved(body, q, k, v, inputs, heads, numbers, state)
        found, sums, last = body.forward[path](body, moved, *_inner(body, scale))
        out[:, moved.heads] = moved.rows_back(found).to(out.dtype)
        lse[:, moved.heads] = moved.rows_back(sums)
        if _CARRIES:  # else heads may have states of different sizes
            if not final.numel():
                final = last.new_zeros(last.shape[0], heads, *last.shape[2:])
            final[:, moved.heads] = moved.last_state(last)
    return out, lse, final


def _backward_states(grad, lse_grad, state_grad, q, k, v, inputs, state, out, lse, scale, path):
    """Gradients of q, k and v in the dtype of sums, of gates and other inputs by place, and of the state."""
    dtype, heads = _sum_dtype(q), q.shape[1]
    dq = torch.zeros(q.shape, dtype=dtype, device=q.device)
    dk = dv = 0
    d_state = None if state is None else torch.zeros_like(state)
    d_inputs = {}
    for body, numbers in _launches(heads):
        moved = _Moved(body, q, k, v, inputs, heads, numbers, state)
        rows = (moved.rows(x[:, moved.heads]) for x in (grad, lse_grad, out, lse))
        own = state_grad[:, moved.heads] if _CARRIES and state_grad is not None else None
        found = body.backward[path](body, moved, *rows, own, *_inner(body, scale))
        dq[:, moved.heads] = moved.rows_back(found[0])
        dk, dv = dk + moved.keys_back(found[1]), dv + moved.keys_back(found[2])
        if found[3] is not None:
            if body.gate not in d_inputs:
                d_inputs[body.gate] = torch.zeros(inputs[body.gate].shape, dtype=dtype, device=q.device)
            d_inputs[body.gate][:, :, moved.inside(inputs[body.gate])] += moved.gates_back(found[3])
        if body.extra is not None:
            if body.extra not in d_inputs:
                d_inputs[body.extra] = torch.zeros(inputs[body.extra].shape, dtype=dtype, device=q.device)
            moved.extra_back(found[5], d_inputs[body.extra])
        if d_state is not None:
            d_state[:, moved.heads] = found[4]
    return dq, dk, dv, d_inputs, d_state


# --- end ---

"""Linear attention through states, on either path: which heads, which segments; and the torch path itself."""

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


_STATES = ()

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


def _segmented(ids, sorted_first):
    """Where segments begin: (order, begin), (batch or 1, length) both; begin is -1 in the first segment.

    ids: integers that are equal within a segment. sorted_first: segments need not be runs; ``order`` is then
    the positions put together segment by segment, those that begin first in front; otherwise it is None.
    """
    place = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    order = None
    if sorted_first and ids.shape[1]:
        first = _equal_entries(ids)[0].long()
        # On the host it costs nothing to see that segments are runs, as they nearly always are.
        if ids.device.type != "cpu" or not bool((first[:, 1:] >= first[:, :-1]).all()):
            ids, order = first.sort(dim=1, stable=True)
    begin = _runs(ids, place)[0]
    return order, torch.where(begin == 0, -1, begin).to(torch.int32).contiguous()


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


def _moved_gates(gates, order, begin, n):
    """Gates of one step in the new order: what lies between a position and the one before it in its segment.

    gates: (batch or 1, n or 1, heads). One so small that nothing is left says no more than -1e4, beside which
    others are not lost in a sum.
    """
    gates = gates.clamp(min=-1e4)
    if gates.shape[1] == 1:
        steps = torch.cat([order[:, :1] + 1, order[:, 1:] - order[:, :-1]], 1)[..., None]
        found = gates * steps.to(gates.dtype)
    else:
        sums = _moved_to(_summed(gates), order, 1)
        found = torch.cat([sums[:, :1], sums[:, 1:] - sums[:, :-1]], 1).to(gates.dtype)
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


class _Moved:
    """One launch's tensors, with segments put together where they are not."""

    def __init__(self, body, q, k, v, inputs, heads, numbers, state):
        self.body, self.q, self.k, self.v, self.state = body, q, k, v, state
        start, step, count = numbers
        self.heads = slice(start, start + (count - 1) * step + 1, step)
        self.numbers, self.n, self.n_q, self.group = numbers, k.shape[2], q.shape[2], heads // k.shape[1]
        self.q = q[:, self.heads]
        self.state = None if state is None else state[:, self.heads]
        self.order, self.begin, self.gates, self.extra = None, None, None, None
        if body.gate is not None:
            self.given = self.gates = inputs[body.gate][:, :, self.inside(inputs[body.gate])]
        if body.extra is not None:
            self.extra = self.extra_of(inputs[body.extra])
        if body.segments is not None:
            self.order, self.begin = body.segments(inputs, self.n, heads, q.device)
        if self.order is not None:
            self.q = self.moved(self.padded(self.q))
            self.k, self.v = self.moved(self.k), self.moved(self.v)
            if self.gates is not None:
                moved = _moved_gates(self.gates.flatten(2), self.order, self.begin, self.n)
                self.gates = moved.unflatten(2, self.gates.shape[2:])

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
    final = None
    for body, numbers in _launches(heads):
        moved = _Moved(body, q, k, v, inputs, heads, numbers, state)
        found, sums, last = body.forward[path](body, moved, *_inner(body, scale))
        out[:, moved.heads] = moved.rows_back(found).to(out.dtype)
        lse[:, moved.heads] = moved.rows_back(sums)
        if final is None:
            final = last.new_zeros(last.shape[0], heads, *last.shape[2:])
        final[:, moved.heads] = last
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
        own = None if state_grad is None else state_grad[:, moved.heads]
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
            moved.extra_of(d_inputs[body.extra]).add_(found[5])
        if d_state is not None:
            d_state[:, moved.heads] = found[4]
    return dq, dk, dv, d_inputs, d_state


# --- begin: torch ---

_STATE_BUDGET = 1 << 18  # numbers that the features of some chunks take


def _taken(x, first, last, offset=0):
    """Positions ``first..last - 1`` of (batch, heads, length, …) from ``offset`` on, zeros beyond."""
    begin, end = first - offset, last - offset
    inner = x[:, :, max(begin, 0) : max(min(end, x.shape[2]), 0)]
    front = min(max(-begin, 0), last - first)
    behind = last - first - front - inner.shape[2]
    if not front and not behind:
        return inner
    return torch.nn.functional.pad(inner, (*(0, 0) * (x.dim() - 3), front, behind))


class _Blocks:
    """Some chunks at a time: their features, values, gates, masks. Chunks are (batch, heads, chunks, …)."""

    def __init__(self, body, moved, inner):
        self.body, self.moved, self.inner = body, moved, inner
        self.dtype, self.device = _sum_dtype(moved.q), moved.q.device
        start, step, count = moved.numbers
        group = moved.group
        self.sharing = [(start + i * step) // group for i in range(count)]
        self.own = self.sharing == list(range(moved.k.shape[1]))
        self.n, self.offset = moved.n, moved.n - moved.q.shape[2]
        self.dim, self.value_dim = moved.q.shape[3], moved.v.shape[3]
        self.width = body.width(self.dim)
        self.columns = self.value_dim + body.normalized
        self.chunk = _chunk_of(self.width)
        self.chunks = -(-self.n // self.chunk)
        # Keys that lie nearer than `near` are no part of the states that a query reads.
        self.behind = -(-(body.near - 1) // self.chunk) if body.near > 1 else 0
        numbers = moved.q.shape[0] * count * self.chunk * max(self.width, self.columns, self.chunk)
        self.step = max(1, _STATE_BUDGET // max(numbers, 1))

    def runs(self):
        return [(c, min(c + self.step, self.chunks)) for c in range(0, self.chunks, self.step)]

    def chunked(self, x):
        return x.unflatten(2, (-1, self.chunk))

    def positions(self, begin, end):
        return torch.arange(begin * self.chunk, end * self.chunk, device=self.device)

    def shared(self, x):
        """Keys or values for every query head."""
        return x if self.own else x[:, self.sharing]

    def features(self, x, begin, end, offset=0):
        """Vectors of some chunks, scaled, and their features."""
        x = _taken(x, begin * self.chunk, end * self.chunk, offset).to(self.dtype)
        x = x * self.inner if self.inner != 1 else x
        return x, self.body.features(x, self.positions(begin, end)[:, None])

    def keys(self, begin, end):
        return self.chunked(self.features(self.shared(self.moved.k), begin, end)[1])

    def values(self, begin, end):
        """Values, and a column of ones that adds up to the sum of weights."""
        first, last = begin * self.chunk, end * self.chunk
        found = _taken(self.shared(self.moved.v), first, last).to(self.dtype)
        if self.body.normalized:
            place = self.positions(begin, end)
            ones = ((place >= 0) & (place < self.n)).to(self.dtype)
            found = torch.cat([found, ones[:, None].expand(*found.shape[:3], 1)], 3)
        return self.chunked(found)

    def gates(self, begin, end):
        """Sums of gates from the beginning of a chunk on: up to each position, and up to each query."""
        gates = self.moved.gates
        if gates is None:
            return None, None
        gates = gates.to(self.dtype).transpose(1, 2)
        if gates.shape[2] == 1:
            steps = torch.arange(1, self.chunk + 1, device=self.device, dtype=self.dtype)
            last = self.positions(begin, end).unflatten(0, (-1, self.chunk))
            left = (self.n - last[:, :1]).clamp(max=self.chunk)  # no gates behind the end
            sums = gates[..., None] * torch.minimum(steps, left)
        else:
            taken = _taken(gates[..., None], begin * self.chunk, end * self.chunk)[..., 0]
            sums = self.chunked(taken).cumsum(3)
        if not self.body.exclusive:
            return sums, sums
        return sums, torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], 3)

    def begins(self, begin, end):
        """Of each position of some chunks, where its segment begins, (batch or 1, 1, chunks, chunk)."""
        begins = self.moved.begin[:, None, :, None]
        first, last = begin * self.chunk, end * self.chunk
        found = _taken(begins, first, last)[..., 0]
        beyond = torch.arange(first, last, device=self.device) >= self.n
        return self.chunked(torch.where(beyond, begins[:, :, -1], found))

    def factors(self, begin, end):
        """What keys weigh at the end of their chunk, queries at its beginning, and what of a state goes on.

        (batch, heads, chunks, chunk) twice and (batch, heads, chunks), or None for ones.
        """
        sums, at_query = self.gates(begin, end)
        key = query = kept = None
        if sums is not None:
            key, query, kept = (sums[..., -1:] - sums).exp(), at_query.exp(), sums[..., -1].exp()
        if self.moved.begin is not None:
            begins = self.begins(begin, end)
            starts = self.positions(begin, end).unflatten(0, (-1, self.chunk))
            last = begins[..., -1:]
            mine, theirs = (starts >= last).to(self.dtype), (begins < starts[:, :1]).to(self.dtype)
            goes_on = (last < starts[:, :1])[..., 0].to(self.dtype)
            key = mine if key is None else key * mine
            query = theirs if query is None else query * theirs
            kept = goes_on if kept is None else kept * goes_on
        return key, query, kept

    def pairs(self, begin, end, distance):
        """What queries of some chunks and keys of those ``distance`` chunks before weigh each other by."""
        place = torch.arange(self.chunk, device=self.device)
        far = place[:, None] + distance * self.chunk - place
        mask = far >= max(self.body.near, int(self.body.exclusive))
        if self.moved.begin is not None:
            begins, starts = (
                self.begins(begin, end),
                self.positions(begin, end).unflatten(0, (-1, self.chunk)),
            )
            mask = mask & (begins[..., None] <= starts[:, None, :])
        sums, at_query = self.gates(begin, end)
        if sums is None:
            return mask, None
        return mask, torch.where(mask, at_query[..., None] - sums[..., None, :], -torch.inf).exp_()

    def weighed(self, products, begin, end, distance):
        mask, faded = self.pairs(begin, end, distance)
        return products.masked_fill_(~mask, 0.0) if faded is None else products.mul_(faded)

    def states(self, keys, values, factor, kept, state):
        """The states before each of some chunks, and behind the last; ``state`` is what went before."""
        keys = keys if factor is None else keys * factor[..., None]
        added = keys.transpose(3, 4) @ values
        found = torch.empty_like(added)
        for i in range(added.shape[2]):
            found[:, :, i] = state
            state = added[:, :, i] + (state if kept is None else state * kept[:, :, i, None, None])
        return found, state

    def first_state(self):
        shape = (self.moved.q.shape[0], self.moved.q.shape[1], self.width, self.columns)
        given = self.moved.state
        zeros = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return zeros if given is None else zeros + given

    def of_queries(self, begin, end):
        """Whether some chunks hold a query."""
        return end * self.chunk > self.offset


def _linear_forward_torch(body, moved, inner, outer):
    blocks = _Blocks(body, moved, inner)
    state = blocks.first_state()
    shape = (*moved.q.shape[:3], blocks.columns)
    out = torch.zeros(shape, dtype=blocks.dtype, device=blocks.device)
    if not body.causal:
        for begin, end in blocks.runs():
            keys, values = blocks.keys(begin, end).flatten(2, 3), blocks.values(begin, end).flatten(2, 3)
            state = state + keys.transpose(2, 3) @ values
    for begin, end in blocks.runs():
        asked = blocks.of_queries(begin, end)
        if not body.causal:
            if asked:
                queries = blocks.features(moved.q, begin, end, blocks.offset)[1]
                _put(out, queries @ state, begin * blocks.chunk - blocks.offset)
            continue
        behind = blocks.behind
        keys, values = blocks.keys(begin - behind, end), blocks.values(begin - behind, end)
        key, query, kept = blocks.factors(begin, end)
        count = end - begin
        states, state = blocks.states(keys[:, :, :count], values[:, :, :count], key, kept, state)
        if not asked:
            continue
        queries = blocks.chunked(blocks.features(moved.q, begin, end, blocks.offset)[1])
        found = queries @ states
        if query is not None:
            found = found * query[..., None]
        for distance in range(behind + 1):
            part = slice(behind - distance, behind - distance + count)
            products = queries @ keys[:, :, part].transpose(3, 4)
            found += blocks.weighed(products, begin, end, distance) @ values[:, :, part]
        _put(out, found.flatten(2, 3), begin * blocks.chunk - blocks.offset)
    if outer != 1:
        out *= outer
    if not body.normalized:
        return out, out.new_zeros(out.shape[:3]), state
    total = out[..., -1]
    some = total != 0
    found = (out[..., :-1] / torch.where(some, total, 1.0)[..., None]).masked_fill(~some[..., None], 0.0)
    if not body.summed:
        total = torch.where(some, total, 1.0).log().masked_fill(~some, -torch.inf)
    return found, total, state


def _put(x, part, begin):
    """Writes rows from ``begin`` on, as far as there are such."""
    first, last = max(begin, 0), min(begin + part.shape[2], x.shape[2])
    x[:, :, first:last] = part[:, :, first - begin : last - begin]


def _row_weights(body, grad, lse_grad, out, lse, outer, dtype):
    """The gradient of numerators and of the sum of weights, (batch, heads, n_q, columns)."""
    grad = grad.to(dtype)
    if not body.normalized:
        return grad * outer
    delta = (grad * out.to(dtype)).sum(3)
    if body.summed:
        some = lse != 0
        weight = torch.where(some, 1 / torch.where(some, lse, 1.0), 0.0)
        return torch.cat([grad * weight[..., None], (lse_grad - delta * weight)[..., None]], 3)
    weight = torch.where(lse > -torch.inf, torch.exp(-lse), 0.0)
    return torch.cat([grad, (lse_grad - delta)[..., None]], 3) * weight[..., None]


def _linear_backward_torch(body, moved, grad, lse_grad, out, lse, state_grad, inner, outer):
    blocks = _Blocks(body, moved, inner)
    dtype, runs = blocks.dtype, blocks.runs()
    grads = _row_weights(body, grad, lse_grad, out, lse, outer, dtype)
    # The states that every run of chunks begins with; within one they are made anew.
    begun, state = [], blocks.first_state()
    for begin, end in runs:
        begun.append(state)
        keys = blocks.keys(begin - blocks.behind, end - blocks.behind)
        values = blocks.values(begin - blocks.behind, end - blocks.behind)
        key, _, kept = blocks.factors(begin, end)
        state = blocks.states(keys, values, key, kept, state)[1]
    heads = moved.q.shape[1]
    dq = torch.zeros(moved.q.shape, dtype=dtype, device=blocks.device)
    dk, dv = (
        torch.zeros((x.shape[0], heads, *x.shape[2:]), dtype=dtype, device=blocks.device)
        for x in (moved.k, moved.v)
    )
    d_gates = None
    if moved.gates is not None:
        d_gates = torch.zeros((moved.q.shape[0], heads, blocks.n), dtype=dtype, device=blocks.device)
    final = state
    d_state = torch.zeros_like(final) if state_grad is None else torch.zeros_like(final) + state_grad
    if not body.causal:
        d_state = torch.zeros_like(final)
        for begin, end in runs:
            if blocks.of_queries(begin, end):
                x, queries = blocks.features(moved.q, begin, end, blocks.offset)
                pulls = _taken(grads, begin * blocks.chunk, end * blocks.chunk, blocks.offset)
                d_state += queries.transpose(2, 3) @ pulls
                found = body.gradient(x, blocks.positions(begin, end)[:, None], pulls @ final.transpose(2, 3))
                _put(dq, found, begin * blocks.chunk - blocks.offset)
    for (begin, end), state in zip(reversed(runs), reversed(begun), strict=True):
        place = blocks.positions(begin, end)[:, None]
        if not body.causal:
            x, keys = blocks.features(blocks.shared(moved.k), begin, end)
            values = blocks.values(begin, end).flatten(2, 3)
            _put(dv, (keys @ d_state)[..., : blocks.value_dim], begin * blocks.chunk)
            _put(dk, body.gradient(x, place, values @ d_state.transpose(2, 3)), begin * blocks.chunk)
            continue
        behind, count = blocks.behind, end - begin
        early = blocks.positions(begin - behind, end)[:, None]
        x, keys = blocks.features(blocks.shared(moved.k), begin - behind, end)
        keys, values = blocks.chunked(keys), blocks.values(begin - behind, end)
        key, query, kept = blocks.factors(begin, end)
        states, _ = blocks.states(keys[:, :, :count], values[:, :, :count], key, kept, state)
        d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
        rows = columns = None
        asked = blocks.of_queries(begin, end)
        if asked:
            x_q, queries = blocks.features(moved.q, begin, end, blocks.offset)
            queries = blocks.chunked(queries)
            pulls = blocks.chunked(_taken(grads, begin * blocks.chunk, end * blocks.chunk, blocks.offset))
            d_queries = pulls @ states.transpose(3, 4)
            if query is not None:
                d_queries = d_queries * query[..., None]
            if d_gates is not None:
                rows = (d_queries * queries).sum(4)
            for distance in range(behind + 1):
                part = slice(behind - distance, behind - distance + count)
                weights = blocks.weighed(queries @ keys[:, :, part].transpose(3, 4), begin, end, distance)
                d_weights = pulls @ values[:, :, part].transpose(3, 4)
                if d_gates is not None:
                    # A query's own key has a share in no gate: it would be added here and taken off there.
                    both = weights * d_weights if distance else (weights * d_weights).tril(-1)
                    rows, columns = rows + both.sum(4), both.sum(3)
                d_weights = blocks.weighed(d_weights, begin, end, distance)
                d_queries += d_weights @ keys[:, :, part]
                d_keys[:, :, part] += d_weights.transpose(3, 4) @ queries
                d_values[:, :, part] += weights.transpose(3, 4) @ pulls
            found = body.gradient(x_q, place, d_queries.flatten(2, 3))
            _put(dq, found, begin * blocks.chunk - blocks.offset)
            pulled = (queries if query is None else queries * query[..., None]).transpose(3, 4) @ pulls
        # Backwards from chunk to chunk: the gradients of the states behind each.
        d_states = torch.empty_like(states)
        for i in reversed(range(count)):
            d_states[:, :, i] = d_state
            if kept is not None:
                d_state = d_state * kept[:, :, i, None, None]
            if asked:
                d_state = d_state + pulled[:, :, i]
        part_values = values[:, :, :count] if key is None else values[:, :, :count] * key[..., None]
        part_keys = keys[:, :, :count] if key is None else keys[:, :, :count] * key[..., None]
        from_states = part_values @ d_states.transpose(3, 4)
        d_keys[:, :, :count] += from_states
        d_values[:, :, :count] += part_keys @ d_states
        if d_gates is not None:
            carried = (from_states * keys[:, :, :count]).sum(4)
            # What goes through the whole chunk, what its keys before a gate leave behind, and its own pairs:
            # nothing large is taken from anything large.
            through = (states * d_states).sum((3, 4)) * kept
            found = through[..., None] + carried.cumsum(3) - carried
            if rows is not None:
                found += (rows - columns).flip(3).cumsum(3).flip(3)
                if body.exclusive:
                    found -= rows
            _put(d_gates[..., None], found.flatten(2, 3)[..., None], begin * blocks.chunk)
        d_keys = body.gradient(x, early, d_keys.flatten(2, 3))
        _add(dk, d_keys, (begin - behind) * blocks.chunk)
        _add(dv, d_values.flatten(2, 3)[..., : blocks.value_dim], (begin - behind) * blocks.chunk)
    if inner != 1:
        dq, dk = dq * inner, dk * inner
    dk, dv = (_for_key_heads(x, blocks.sharing, moved.k.shape[1]) for x in (dk, dv))
    return dq, dk, dv, None if d_gates is None else d_gates.transpose(1, 2), d_state


def _add(x, part, begin):
    """Adds rows from ``begin`` on, as far as there are such."""
    first, last = max(begin, 0), min(begin + part.shape[2], x.shape[2])
    if first < last:
        x[:, :, first:last] += part[:, :, first - begin : last - begin]


def _for_key_heads(x, sharing, key_heads):
    """Sums over the query heads that share a key head."""
    if sharing == list(range(key_heads)):
        return x
    found = x.new_zeros(x.shape[0], key_heads, *x.shape[2:])
    for i, key_head in enumerate(sharing):
        found[:, key_head] += x[:, i]
    return found


# --- end ---

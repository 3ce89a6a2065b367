"""Linear attention through states: the torch path, some chunks at a time."""

from __future__ import annotations

import math

import torch


def _sum_dtype(x): ...


# --- begin ---

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
        """Sums of gates from the beginning of a chunk on: up to each position, and up to each query.

        In fp64, because differences of them are taken, in which strong gates before a key must leave nothing.
        """
        gates = self.moved.gates
        if gates is None:
            return None, None
        gates = gates.double().transpose(1, 2)
        if gates.shape[2] == 1:
            steps = torch.arange(1, self.chunk + 1, device=self.device, dtype=gates.dtype)
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
            found = (sums[..., -1:] - sums, at_query, sums[..., -1])
            key, query, kept = (x.to(self.dtype).exp() for x in found)
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
        passed = (at_query[..., None] - sums[..., None, :]).to(self.dtype)
        return mask, torch.where(mask, passed, -torch.inf).exp_()

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
    return *_divided_by_sums(out[..., :-1], total, body.summed), state


def _least_sum(dtype):
    """The least sum of weights that rows are divided by: 2**-100 in fp32."""
    return torch.finfo(dtype).tiny * 2.0**26


def _divided_by_sums(out, total, summed):
    """Rows divided by their sums of weights, and those sums, or their logarithms unless summed.

    A smaller sum than the least one counts as zero: gradients divided by it would not be finite.
    """
    some = total.abs() >= _least_sum(total.dtype)
    out = (out / torch.where(some, total, 1.0)[..., None]).masked_fill(~some[..., None], 0.0)
    if summed:
        return out, total.masked_fill(~some, 0.0)
    return out, torch.where(some, total, 1.0).log().masked_fill(~some, -torch.inf)


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
    # A sum below the least one has no share from states: such a row has scores alone.
    weight = torch.where(lse < math.log(_least_sum(lse.dtype)), 0.0, torch.exp(-lse))
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
        rows = across = None
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
                    across = _across_gates(weights * d_weights, body.exclusive)
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
            # What goes through the whole chunk, what its keys before a gate leave behind, what its queries
            # behind a gate read of it, and its own pairs: nothing is taken from a sum.
            through = (states * d_states).sum((3, 4)) * kept
            found = through[..., None] + _shifted(carried.cumsum(3), 3, 1)
            if rows is not None:
                rows = rows.flip(3).cumsum(3).flip(3)
                found += across + (_shifted(rows, 3, -1) if body.exclusive else rows)
            _put(d_gates[..., None], found.flatten(2, 3)[..., None], begin * blocks.chunk)
        d_keys = body.gradient(x, early, d_keys.flatten(2, 3))
        _add(dk, d_keys, (begin - behind) * blocks.chunk)
        _add(dv, d_values.flatten(2, 3)[..., : blocks.value_dim], (begin - behind) * blocks.chunk)
    if inner != 1:
        dq, dk = dq * inner, dk * inner
    dk, dv = (_for_key_heads(x, blocks.sharing, moved.k.shape[1]) for x in (dk, dv))
    return dq, dk, dv, None if d_gates is None else d_gates.transpose(1, 2), d_state


def _shifted(x, axis, steps):
    """Entries moved along an axis by one step forth or, for -1, back; a zero where none comes."""
    empty = torch.zeros_like(x.narrow(axis, 0, 1))
    if steps > 0:
        return torch.cat([empty, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), empty], axis)


def _across_gates(pairs, exclusive):
    """Of (…, queries, keys) for every gate of a chunk the sum over those pairs that it lies between."""
    below = pairs.flip(3).cumsum(3).flip(3)
    below = _shifted(below, 3, -1) if exclusive else below
    return below.tril_(-1).sum(4)


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

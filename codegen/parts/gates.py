"""Linear attention with a gate for each channel, and the delta rule: the torch path, chunk by chunk.

What is stored after position ``t`` is ``S[t] = exp(g[t]) * S[t-1] + k[t] w[t]^T``, and queries read it. In
plain linear attention ``w`` is ``v``; under the delta rule it is what ``v`` differs from what is already
stored, ``w[t] = beta[t] (v[t] - (exp(g[t]) * S[t-1])^T k[t])``, which within a chunk is a triangular system.
"""

from __future__ import annotations

import torch


def _sum_dtype(x): ...


# --- begin ---

_GATED_BUDGET = 1 << 21  # numbers that a run of chunks takes


def _running_sums(x, backwards=False):
    """Sums along the last but one axis up to and including each place, or from it on.

    By doubling: nothing is ever subtracted, so that gates of minus infinity are right, too, and small ones
    next to large ones are not lost.
    """
    step, length = 1, x.shape[-2]
    while step < length:
        if backwards:
            x = x + torch.nn.functional.pad(x[..., step:, :], (0, 0, 0, step))
        else:
            x = x + torch.nn.functional.pad(x[..., :-step, :], (0, 0, step, 0))
        step *= 2
    return x


def _after(x):
    """Along the last but one axis the next place's entry, and a zero at the end."""
    return torch.nn.functional.pad(x[..., 1:, :], (0, 0, 0, 1))


def _before(x):
    """Along the last but one axis the place before's entry, and a zero at the start."""
    return torch.nn.functional.pad(x[..., :-1, :], (0, 0, 1, 0))


def _token_fading(gates):
    """Of gates (…, C, 1) the products from ``j + 1`` to ``i`` as (…, C, C), zero for ``j > i``."""
    length = gates.shape[-2]
    later = torch.ones(length, length, dtype=torch.bool, device=gates.device).tril_(-1)
    sums = _running_sums(gates.expand(*gates.shape[:-1], length).masked_fill(~later, 0.0))
    return sums.exp_().tril_()


def _across(pairs):
    """What (…, C, C) holds on either side of each place: sums over ``i >= m > j``, as (…, C, 1)."""
    return _running_sums(pairs, backwards=True).tril(-1).sum(-1, keepdim=True)


def _channel_pairs(q, k, steps, exclusive):
    """``sum_d q[i] k[j] * product of steps[j+1..i]`` of (…, C, D), or ``..i-1``, then without ``i = j``.

    One place after the other: no product of gates is ever divided by another.
    """
    faded, found = torch.zeros_like(k), k.new_empty(*k.shape[:-1], k.shape[-2])
    for i in range(k.shape[-2]):
        if exclusive:
            torch.matmul(faded, q[..., i, :, None], out=found[..., i, :, None])
        faded[..., :i, :] *= steps[..., i : i + 1, :]
        faded[..., i, :] = k[..., i, :]
        if not exclusive:
            torch.matmul(faded, q[..., i, :, None], out=found[..., i, :, None])
    return found


def _channel_pair_gradients(q, k, steps, grad, exclusive):
    """Gradients of q, k and the steps' logarithms, given that of what ``_channel_pairs`` found."""
    length = k.shape[-2]
    faded = k.new_zeros(length + 1, *k.shape)  # after each place
    for i in range(length):
        torch.mul(faded[i, ..., :i, :], steps[..., i : i + 1, :], out=faded[i + 1, ..., :i, :])
        faded[i + 1, ..., i, :] = k[..., i, :]
    dq, dk, d_steps = (torch.empty_like(x) for x in (q, k, steps))
    d_faded = torch.zeros_like(k)
    for i in reversed(range(length)):
        row = grad[..., i : i + 1, :]
        dq[..., i, :] = torch.matmul(row, faded[i + (not exclusive)]).squeeze(-2)
        if not exclusive:
            d_faded[..., : i + 1, :] += row.mT[..., : i + 1, :] * q[..., i : i + 1, :]
        dk[..., i, :] = d_faded[..., i, :]
        older = d_faded[..., :i, :]
        d_steps[..., i, :] = (older * faded[i + 1, ..., :i, :]).sum(-2)
        older *= steps[..., i : i + 1, :]
        if exclusive:
            older += row.mT[..., :i, :] * q[..., i : i + 1, :]
    return dq, dk, d_steps


class _Gated:
    """One call: what was given, and the runs of chunks in which it is worked through.

    In a run everything is (chunks, batch * heads, C, dim), padded with zeros, in the dtype of sums.
    """

    def __init__(self, q, k, v, gates, beta, bonus, state, begin, scale, exclusive):
        self.q, self.k, self.v, self.scale, self.exclusive = q, k, v, scale, exclusive
        self.batch, self.heads, self.n = q.shape[0], q.shape[1], k.shape[2]
        self.rows, self.offset = self.batch * self.heads, self.n - q.shape[2]
        self.dtype, self.size = _sum_dtype(q), (k.shape[3], v.shape[3])
        self.gated, self.channels = gates is not None, gates is not None and gates.dim() == 4
        self.chunk = 16 if self.channels else 64
        self.gates = self.beta = self.bonus = self.starts = None
        if self.gated:
            self.gates = (gates if self.channels else gates[..., None]).transpose(1, 2).to(self.dtype)
        if beta is not None:
            self.beta = beta[..., None].transpose(1, 2)
        if bonus is not None:
            self.bonus = bonus.to(self.dtype).expand(self.batch, -1, -1).reshape(self.rows, 1, self.size[0])
        if begin is not None:
            place = torch.arange(self.n, device=q.device, dtype=begin.dtype)
            self.starts = (begin == place)[:, None, :, None]
            gates = q.new_zeros(1, 1, self.n, 1, dtype=self.dtype) if self.gates is None else self.gates
            self.gates = gates.masked_fill(self.starts, float("-inf"))  # nothing passes a start
        self.initial = self.stored(state)

    def stored(self, state):
        """A state as (batch * heads, features, values)."""
        if state is None:
            return self.q.new_zeros(self.rows, *self.size, dtype=self.dtype)
        return state.to(self.dtype).reshape(self.rows, *self.size)

    def runs(self, held):
        """Where runs start and stop; ``held`` numbers are kept for a position of a head beside states."""
        work = self.rows * (held + self.size[0] * self.size[1] // self.chunk)
        step = max(1, _GATED_BUDGET // max(1, work * self.chunk)) * self.chunk
        return [(start, min(start + step, self.n)) for start in range(0, self.n, step)]

    def take(self, x, start, stop, offset=0):
        """The positions of a run; what lies before ``offset`` or behind the end is zero."""
        x = x[:, :, max(start - offset, 0) : max(stop - offset, 0)].to(self.dtype)
        if x.shape[1] not in (1, self.heads):
            x = x.repeat_interleave(self.heads // x.shape[1], 1)
        front, back = stop - start - x.shape[2], -(stop - start) % self.chunk
        x = torch.nn.functional.pad(x, (0, 0, front, back)).expand(self.batch, self.heads, -1, -1)
        x = x.unflatten(2, (-1, self.chunk)).permute(2, 0, 1, 3, 4)
        return x.reshape(x.shape[0], self.rows, self.chunk, x.shape[4])

    def give(self, target, x, start, stop, offset=0):
        """Stores what was found for a run, summed over the heads that share keys."""
        x = x.unflatten(1, (self.batch, self.heads)).permute(1, 2, 0, 3, 4).flatten(2, 3)
        x = x[:, :, max(offset - start, 0) : stop - start]
        if target.shape[1] != self.heads:
            x = x.unflatten(1, (target.shape[1], -1)).sum(2)
        target[:, :, max(start - offset, 0) : max(stop - offset, 0)] = x


class _GatedRun:
    """What there is in one run before its state is known.

    reading: queries as they read the state before their chunk. asking: keys, likewise. writing: keys as the
    state after their chunk has them. passing: what is left of a state after the chunk. pairs: how queries
    weigh the keys of their chunk.
    """

    def __init__(self, call, start, stop):
        self.call, self.start, self.stop = call, start, stop
        self.q = call.take(call.q, start, stop, call.offset) * call.scale
        self.k, self.v = call.take(call.k, start, stop), call.take(call.v, start, stop)
        gates = self.k.new_zeros(1, 1, call.chunk, 1) if call.gates is None else self.load(call.gates)
        self.head, self.tail = _running_sums(gates).exp_(), _running_sums(_after(gates), True).exp_()
        self.passing = self.head[..., -1:, :].mT
        self.read_head = _running_sums(_before(gates)).exp_() if call.exclusive else self.head
        self.read = self.q
        if call.exclusive and call.starts is not None:
            self.read = self.q * (1.0 - self.load(call.starts))  # what is before a start is not read there
        self.reading, self.writing = self.read * self.read_head, self.k * self.tail
        self.steps = gates.exp() if call.channels else None
        self.fading = None if call.channels else _token_fading(gates)
        self.pairs = self.weighed(self.read)
        if call.bonus is not None:
            self.pairs.diagonal(dim1=-2, dim2=-1).add_((self.q * call.bonus * self.k).sum(-1))
        self.written, self.system = self.v, None
        if call.beta is not None:
            self.beta, self.asking = self.load(call.beta), self.k * self.head
            self.likeness = self.weighed(self.k).tril_(-1)
            self.system = self.likeness * self.beta
            found = self.solved(torch.cat([self.v, self.asking], -1) * self.beta)
            self.written, self.correction = found.split([self.v.shape[-1], self.k.shape[-1]], -1)

    def load(self, x):
        return self.call.take(x, self.start, self.stop)

    def weighed(self, x):
        """Products of ``x`` with the keys of its chunk, faded."""
        if self.steps is not None:
            return _channel_pairs(x, self.k, self.steps, self.call.exclusive)
        return (x @ self.k.mT).mul_(self.fading)

    def solved(self, right, transposed=False):
        """``(1 + system)^-1 right``: forward substitution, or backward for the transpose."""
        system = self.system.mT if transposed else self.system
        return torch.linalg.solve_triangular(system, right, upper=transposed, unitriangular=True)

    def states(self, state):
        """The states before every chunk and after the last; the delta rule finds what it writes here."""
        found = state.new_empty(len(self.k) + 1, *state.shape)
        found[0] = state
        passing = self.passing.expand(len(self.k), -1, -1, -1)
        if self.system is None:
            added = self.writing.mT @ self.v
            for i in range(len(self.k)):
                torch.addcmul(added[i], passing[i], found[i], out=found[i + 1])
            return found
        written = []
        for i in range(len(self.k)):
            written.append(torch.baddbmm(self.written[i], self.correction[i], found[i], alpha=-1))
            torch.baddbmm(passing[i] * found[i], self.writing[i].mT, written[i], out=found[i + 1])
        self.written = torch.stack(written)
        return found

    def out(self, states):
        return (self.reading @ states[:-1]).add_(self.pairs @ self.written)

    def gradients(self, states, grad, d_state):
        """Gradients of q, k, v, gates and beta or bonus, and of the state before the run.

        grad: of the run's output. d_state: of the state after it.
        """
        before, after = states[:-1], torch.empty_like(states[1:])
        d_written, added = self.pairs.mT @ grad, self.reading.mT @ grad
        passing = self.passing.expand(len(self.k), -1, -1, -1)
        for i in reversed(range(len(self.k))):
            after[i] = d_state
            d_state = torch.addcmul(added[i], passing[i], after[i])
            if self.system is not None:
                d_written[i].baddbmm_(self.writing[i], after[i])
                d_state.baddbmm_(self.correction[i].mT, d_written[i], alpha=-1)
        if self.system is None:
            d_written += self.writing @ after
        d_reading, d_writing = grad @ before.mT, self.written @ after.mT
        dq, dk, dv, extra = d_reading * self.read_head, d_writing * self.tail, d_written, None
        # What hangs on the gates up to each place of a chunk, and on those behind it.
        up_to, behind = self.reading * d_reading, self.writing * d_writing
        if self.call.exclusive:
            up_to = _after(up_to)
        d_pairs, d_likeness = grad @ self.written.mT, None
        if self.call.bonus is not None:
            own = d_pairs.diagonal(dim1=-2, dim2=-1)[..., None]
            extra = own * self.q * self.k
            dk += own * self.q * self.call.bonus
        if self.system is not None:
            d_right = self.solved(d_written, transposed=True)
            dv = d_right * self.beta
            d_system = (d_right @ self.written.mT).neg_()
            d_likeness = (d_system * self.beta).tril_(-1)
            d_asking = -(dv @ before.mT)
            extra = (d_right * (self.v - self.asking @ before)).sum(-1, keepdim=True)
            extra += (d_system * self.likeness).sum(-1, keepdim=True)
            up_to = up_to + self.asking * d_asking
            dk += d_asking * self.head
        d_gates = None
        if self.call.gated:
            passed = (before * after).sum(-1)[..., None, :] * self.passing.mT
            hanging = _running_sums(up_to, backwards=True) + _running_sums(_before(behind)) + passed
            d_gates = hanging if self.steps is not None else hanging.sum(-1, keepdim=True)
        for x, dx, grads in ((self.read, dq, d_pairs), (self.k, dk, d_likeness)):
            if grads is not None:
                self.add_pairs(x, grads, dx, dk, d_gates)
        if self.read is not self.q:
            dq *= 1.0 - self.load(self.call.starts)
        if self.call.bonus is not None:
            dq += own * self.k * self.call.bonus
        return (dq * self.call.scale, dk, dv, d_gates, extra), d_state

    def add_pairs(self, x, grads, dx, dk, d_gates):
        """Adds what gradients of ``weighed(x)`` give."""
        if self.steps is not None:
            found = _channel_pair_gradients(x, self.k, self.steps, grads, self.call.exclusive)
            for target, part in zip((dx, dk, d_gates), found, strict=True):
                target += part
            return
        faded = grads * self.fading
        dx += faded @ self.k
        dk += faded.mT @ x
        if d_gates is not None:
            d_gates += _across(faded * (x @ self.k.mT))


def _gated_forward(call):
    """Output (batch, heads, n_q, values) and the state after the last position."""
    out = call.q.new_zeros(*call.q.shape[:3], call.size[1], dtype=call.dtype)
    state = call.initial
    for start, stop in call.runs(call.chunk):
        run = _GatedRun(call, start, stop)
        states = run.states(state)
        state = states[-1]
        if stop > call.offset:
            call.give(out, run.out(states), start, stop, call.offset)
    return out, state.reshape(call.batch, call.heads, *call.size).clone()


def _gated_backward(call, grad, final_grad):
    """Gradients of q, k, v, gates, what is extra, and the state, all in the dtype of sums."""
    dq, dk, dv = (torch.zeros_like(x, dtype=call.dtype) for x in (call.q, call.k, call.v))
    runs = call.runs((3 if call.channels else 1) * call.chunk * 16)
    entered, state = [], call.initial
    for start, stop in runs:  # again, for the state at the start of every run
        entered.append(state)
        state = _GatedRun(call, start, stop).states(state)[-1]
    d_gates = d_extra = None
    if call.gated:
        d_gates = call.q.new_zeros(call.batch, call.heads, call.n, call.gates.shape[3], dtype=call.dtype)
    if call.beta is not None:
        d_extra = call.q.new_zeros(call.batch, call.heads, call.n, 1, dtype=call.dtype)
    if call.bonus is not None:
        d_extra = call.q.new_zeros(call.batch, call.heads, call.size[0], dtype=call.dtype)
    d_state = call.stored(final_grad)
    for (start, stop), state in reversed(list(zip(runs, entered, strict=True))):
        run = _GatedRun(call, start, stop)
        found, d_state = run.gradients(run.states(state), call.take(grad, start, stop, call.offset), d_state)
        call.give(dq, found[0], start, stop, call.offset)
        for target, x in zip((dk, dv, d_gates, d_extra), found[1:], strict=True):
            if x is None:
                continue
            if call.bonus is not None and target is d_extra:
                target += x.sum((0, 2)).unflatten(0, (call.batch, call.heads))
            else:
                call.give(target, x, start, stop)
    return dq, dk, dv, d_gates, d_extra, d_state.reshape(call.batch, call.heads, *call.size)


# --- end ---

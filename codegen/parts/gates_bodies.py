"""Bodies with a gate for each channel, or under the delta rule: from a call's tensors to the two paths."""

from __future__ import annotations

import torch


def _sum_dtype(x): ...
def _for_key_heads(x, sharing, key_heads): ...
def _row_weights(body, grad, lse_grad, out, lse, outer, dtype): ...
def _divided_by_sums(*args): ...
def _gated_forward(call): ...
def _gated_backward(call, grad, final_grad): ...


class _Gated: ...


class _GatedLaunch: ...


# --- begin: torch ---


class _GatedBody:
    """Features, values and gates of a body's heads, as both paths take them.

    Where rows are divided by their sum of weights, values have a column of ones, which adds up to that.
    """

    def __init__(self, body, moved, inner, outer):
        self.body, self.moved, self.inner, self.outer = body, moved, inner, outer
        start, step, count = moved.numbers
        self.sharing = None
        k, v = moved.k, moved.v
        if count < k.shape[1] * moved.group:  # some heads: keys for each of them
            self.sharing = [(start + i * step) // moved.group for i in range(count)]
            k, v = k[:, self.sharing], v[:, self.sharing]
        self.value_dim = v.shape[3]
        self.x, self.given = (moved.q, k), [self.mapped(moved.q), self.mapped(k)]
        if body.normalized:
            v = torch.cat([v, v.new_ones(*v.shape[:3], 1)], 3)
        gates = moved.gates
        if gates is not None and gates.shape[1] == 1:
            gates = gates.expand(-1, moved.n, *gates.shape[2:])
        beta, bonus = (moved.extra, None) if body.delta else (None, moved.extra)
        self.gates, self.extra = gates, moved.extra
        self.given += [v, gates, beta, bonus, moved.state, moved.begin, outer, body.exclusive]

    def places(self, x):
        """The positions of queries or keys."""
        return torch.arange(self.moved.n - x.shape[2], self.moved.n, device=x.device)[:, None]

    def scaled(self, x):
        return x.to(_sum_dtype(x)) * self.inner

    def mapped(self, x):
        if self.body.plain and self.inner == 1:
            return x
        return self.body.features(self.scaled(x), self.places(x)).to(x.dtype)

    def back(self, x, grad):
        """The gradient of vectors from that of their features."""
        if self.body.plain and self.inner == 1:
            return grad
        return self.body.gradient(self.scaled(x), self.places(x), grad) * self.inner

    def divided(self, out, state):
        """Output, sums of weights, and the state behind the last position."""
        if not self.body.normalized:
            return out, out.new_zeros(out.shape[:3]), state
        return *_divided_by_sums(out[..., :-1], out[..., -1], self.body.summed), state

    def pulled(self, grad, lse_grad, out, lse, state_grad):
        """The gradients of what is not yet divided, and of the state behind the last position."""
        dtype = _sum_dtype(self.moved.q)
        grads = _row_weights(self.body, grad, lse_grad, out, lse, 1.0, dtype)
        shape = (*self.moved.q.shape[:2], self.given[1].shape[3], self.given[2].shape[3])
        return grads, torch.zeros(
            shape, dtype=dtype, device=grad.device
        ) if state_grad is None else state_grad

    def gradients(self, dq, dk, dv, d_gates, d_extra, d_state):
        """Of q, k, v, the gates, the state, and what else there is, each in the shape of what was given."""
        dq, dk, dv = self.back(self.x[0], dq), self.back(self.x[1], dk), dv[..., : self.value_dim]
        if self.sharing is not None:
            dk, dv = (_for_key_heads(x, self.sharing, self.moved.k.shape[1]) for x in (dk, dv))
        # By head, then by position, and for every sequence of the batch.
        if d_gates is not None:
            d_gates = d_gates.transpose(1, 2).reshape(d_gates.shape[0], *self.gates.shape[1:])
            d_gates = _as_shared(d_gates, self.gates)
        if self.extra is not None:
            d_extra = d_extra.transpose(1, 2)[..., 0] if self.body.delta else d_extra
            d_extra = _as_shared(d_extra, self.extra)
        return dq, dk, dv, d_gates, d_state, d_extra


def _as_shared(grad, given):
    """Summed over the batch where what was given is shared by it."""
    return grad.sum(0, keepdim=True) if given.shape[0] < grad.shape[0] else grad


def _gated_forward_torch(body, moved, inner, outer):
    call = _GatedBody(body, moved, inner, outer)
    return call.divided(*_gated_forward(_Gated(*call.given)))


def _gated_backward_torch(body, moved, grad, lse_grad, out, lse, state_grad, inner, outer):
    call = _GatedBody(body, moved, inner, outer)
    pulled = call.pulled(grad, lse_grad, out, lse, state_grad)
    return call.gradients(*_gated_backward(_Gated(*call.given), *pulled))


# --- begin: triton ---


def _gated_forward_triton(body, moved, inner, outer):
    call = _GatedBody(body, moved, inner, outer)
    return call.divided(*_GatedLaunch(*call.given).forward())


def _gated_backward_triton(body, moved, grad, lse_grad, out, lse, state_grad, inner, outer):
    call = _GatedBody(body, moved, inner, outer)
    pulled = call.pulled(grad, lse_grad, out, lse, state_grad)
    return call.gradients(*_GatedLaunch(*call.given).backward(*pulled))


# --- end ---

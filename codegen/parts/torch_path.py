"""The torch path: attention and its gradients, batch by batch, through the library's fused kernel."""

from __future__ import annotations

import torch


def _sum_dtype(x): ...
def _rows_contiguous(x): ...
def _all_batches(q, k, inputs): ...


_BUDGET = 0

# --- begin ---


def _over_two(function, views, *options):
    """Calls ``function`` on tensors (a, b, length, dim), for views with four axes in front of those two.

    The longest two of the four are a and b, the others are looped over; results are put together again.
    """
    axes = views[0].shape[:4]
    order = sorted(range(4), key=lambda axis: -axes[axis])
    moved = [None if x is None else x.expand(*axes, -1, -1).permute(*order, 4, 5) for x in views]
    loops = axes[order[2]], axes[order[3]]
    found = [
        function(*(x if x is None else x[:, :, i, j] for x in moved), *options)
        for i in range(loops[0])
        for j in range(loops[1])
    ]
    back = [order.index(axis) for axis in range(4)]
    joined = [
        some[0][:, :, None] if len(some) == 1 else torch.stack(some, 2) for some in zip(*found, strict=True)
    ]
    return [x.unflatten(2, loops).permute(*back, 4, 5) for x in joined]


def _is_fused(q):
    """Whether the library's fused kernel for the CPU takes tensors like this one."""
    return q.device.type == "cpu"


def _attention(q, k, v, added, causal, scale):
    """Output and log-sum-exp (…, 1) of (a, b, length, dim) tensors, ``added`` to their scores."""
    if _is_fused(q):
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = fused(q, k, v, 0.0, causal, attn_mask=added, scale=scale)
        return out, lse[..., None]
    out, lse = [], []
    for _, scores in _scores(q, k, added, causal, scale):
        top = scores.amax(3, keepdim=True)
        weights = scores.sub_(top.masked_fill(top == float("-inf"), 0.0)).exp_()
        total = weights.sum(3, keepdim=True)
        out.append(torch.matmul(weights, v.to(weights.dtype)) / total.clamp(min=1e-30))
        lse.append(total.log() + top)
    return torch.cat(out, 2), torch.cat(lse, 2)


def _scores(q, k, added, causal, scale):
    """Scaled scores in the dtype of sums, some rows at a time."""
    dtype = _sum_dtype(q)
    k = k.to(dtype).transpose(2, 3)
    step = max(1, _BUDGET // (q.shape[0] * q.shape[1] * k.shape[3]))
    for start in range(0, q.shape[2], step):
        rows = slice(start, start + step)
        scores = torch.matmul(q[:, :, rows].to(dtype), k).mul_(scale)
        if added is not None:
            scores += added[:, :, rows]
        if causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu_(start + 1)
            scores.masked_fill_(later, float("-inf"))
        yield rows, scores


def _attention_gradients(q, k, v, grad, out, lse, pull, added, causal, scale):
    """Gradients of q, k and v from these rows and keys, given the rows' final output and log-sum-exp.

    All in the dtype of sums. pull: the gradient of the log-sum-exp, or None.
    """
    if _is_fused(q) and pull is None:
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return fused(grad, q, k, v, out, lse[..., 0], 0.0, causal, attn_mask=added, scale=scale)
    delta = (grad * out).sum(3, keepdim=True)
    if pull is not None:
        delta -= pull
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows, scores in _scores(q, k, added, causal, scale):
        weights = scores.sub_(lse[:, :, rows]).exp_()
        dv += torch.matmul(weights.transpose(2, 3), grad[:, :, rows])
        d_weights = torch.matmul(grad[:, :, rows], v.transpose(2, 3))
        d_scores = d_weights.sub_(delta[:, :, rows]).mul_(weights).mul_(scale)
        dq[:, :, rows] = torch.matmul(d_scores, k)
        dk += torch.matmul(d_scores.transpose(2, 3), q[:, :, rows])
    return dq, dk, dv


# --- forward and backward ---


class _Call:
    """q, k and v as (batch, key heads, heads of each, length, dim), rows dense, all of one dim."""

    def __init__(self, q, k, v, inputs, scale):
        self.scale, self.offset = scale, k.shape[2] - q.shape[2]
        self.group, self.dim = q.shape[1] // k.shape[1], max(q.shape[3], v.shape[3])
        self.dtype = _sum_dtype(q)
        self.q, self.k, self.v = self.shared(q), self.padded(k)[:, :, None], self.padded(v)[:, :, None]
        self.plan = _all_batches(q, k, inputs) if q.numel() and k.numel() else ()

    def padded(self, x):
        """Zeros behind q and k change no score, zeros behind v only give zeros."""
        missing = self.dim - x.shape[3]
        return torch.nn.functional.pad(x, (0, missing)) if missing else _rows_contiguous(x)

    def shared(self, x):
        """Something for every query, by key head."""
        return self.padded(x).unflatten(1, (-1, self.group))

    def views(self, found, place):
        """A batch's queries, keys and values."""
        return found.of_rows(self.q, place, self.offset), *(found.of_keys(x, place) for x in (self.k, self.v))

    def masks(self, found):
        """What a batch adds to its scores, or None; and whether it is the causal triangle."""
        mask = found.mask
        if mask is None or mask.absent is None:
            return None, False
        if mask.causal and self.scale > 0:  # the library masks before it scales
            return None, True
        added = torch.zeros(mask.absent.shape, dtype=self.q.dtype, device=self.q.device)
        return added.masked_fill_(mask.absent, float("-inf"))[None, :, None, None], False


def _forward_torch(q, k, v, inputs, scale):
    call = _Call(q, k, v, inputs, scale)
    out = torch.zeros(call.q.shape, dtype=call.dtype, device=q.device)
    lse = torch.full((*call.q.shape[:4], 1), float("-inf"), dtype=call.dtype, device=q.device)
    for found, place in call.plan:
        added, causal = call.masks(found)
        part, part_lse = _over_two(
            _attention,
            (*call.views(found, place), added),
            causal,
            scale,
        )
        if found.some is not None:
            part_lse = part_lse.masked_fill(~found.some[None, :, None, None, :, None], float("-inf"))
        # Pieces of a row are joined by their log-sum-exps.
        so_far, so_far_lse = (found.of_rows(x, place, call.offset) for x in (out, lse))
        joined = torch.logaddexp(so_far_lse, part_lse)
        weight = (part_lse - joined).exp_().masked_fill_(part_lse == float("-inf"), 0.0)
        found.store(out, so_far.lerp_(part.to(call.dtype), weight), place, call.offset)
        found.store(lse, so_far_lse.copy_(joined), place, call.offset)
    return out.flatten(1, 2)[..., : v.shape[3]].to(q.dtype).contiguous(), lse.flatten(1, 2).squeeze(3)


def _backward_torch(grad, lse_grad, q, k, v, inputs, out, lse, scale):
    # In the dtype of sums, because the library adds up gradients in the dtype of its arguments.
    dtype = _sum_dtype(q)
    call = _Call(*(x.to(dtype) for x in (q, k, v)), inputs, scale)
    grad, out = call.shared(grad.to(dtype)), call.shared(out.to(dtype))
    # A row without edges has a log-sum-exp of minus infinity and only weights of zero.
    lse = lse.masked_fill(lse == float("-inf"), float("inf")).unflatten(1, (-1, call.group))[..., None]
    pull = lse_grad.unflatten(1, (-1, call.group))[..., None].to(dtype) if lse_grad.any() else None
    dq, dk, dv = (torch.zeros(x.shape, dtype=dtype, device=q.device) for x in (call.q, call.k, call.v))
    for found, place in call.plan:
        added, causal = call.masks(found)
        row_lse = found.of_rows(lse, place, call.offset)
        if found.some is not None:
            row_lse = row_lse.masked_fill(~found.some[None, :, None, None, :, None], float("inf"))
        parts = _over_two(
            _attention_gradients,
            (
                *call.views(found, place),
                found.of_rows(grad, place, call.offset),
                found.of_rows(out, place, call.offset),
                row_lse,
                None if pull is None else found.of_rows(pull, place, call.offset),
                added,
            ),
            causal,
            scale,
        )
        so_far = found.of_rows(dq, place, call.offset)
        found.store(dq, so_far.add_(parts[0]), place, call.offset)
        for total, part in ((dk, parts[1]), (dv, parts[2])):
            found.add_to_keys(total, part if part.shape[3] == 1 else part.sum(3, keepdim=True), place)
    given = zip((dq, dk, dv), (q, k, v), strict=True)
    return tuple(total.flatten(1, 2)[..., : x.shape[3]].to(x.dtype).contiguous() for total, x in given)


# --- end ---

"""The torch path: attention and its gradients, batch by batch, through the library's fused kernel."""

from __future__ import annotations

import math

import torch


def _sum_dtype(x): ...
def _rows_contiguous(x): ...
def _all_batches(q, k, inputs, costs): ...
def _index(positions, device): ...
def _tables(inputs, n_q, n, heads, device): ...
def _Totals(inputs, tables): ...
def _joined_sums(so_far, part): ...
def _weighed_attention(found, call, *given): ...
def _weighed_gradients(found, call, totals, *given): ...


_BUDGET, _AT_HAND = 0, 0
begun = ()
_TILE_COSTS, _UNITS_COSTS, _GRADIENT_COSTS = {}, {}, {}

# --- begin ---


def _stacks(*views):
    """Views with four axes in front of (length, dim), as stacks (a, b, length, dim): views, too.

    The longest two of the four are a and b, the others are looped over; and so are parts of a, so that what
    is found fits into memory that is at hand. What is None stays None.
    """
    axes = views[0].shape[:4]
    order = sorted(range(4), key=lambda axis: axes[axis])
    moved = [None if x is None else x.expand(*axes, -1, -1).permute(*order, 4, 5) for x in views]
    outer, inner, a = moved[0].shape[:3]
    numbers = max(x[0, 0, 0].numel() for x in moved[:2])
    some = max(1, _AT_HAND * torch.get_num_threads() // max(numbers, 1))
    parts = [slice(start, start + some) for start in range(0, a, some)]
    for place in [(i, j, part) for i in range(outer) for j in range(inner) for part in parts]:
        yield [None if x is None else x[place] for x in moved]


def _is_fused(q):
    """Whether the library's fused kernel for the CPU takes tensors like this one."""
    return q.device.type == "cpu"


def _work_dtype(x):
    """What products are made in: the dtype of sums, but where the CPU multiplies matrices of bfloat16."""
    units = x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return x.dtype if units else _sum_dtype(x)


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
            scores += _rows_of(added, rows)
        if causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu_(start + 1)
            scores.masked_fill_(later, float("-inf"))
        yield rows, scores


def _rows_of(added, rows):
    """What is added to the scores of some rows; it may be the same for all."""
    return added if added.shape[2] == 1 else added[:, :, rows]


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


def _add_up(total, parts):
    """Adds stacked parts to a view (a, b, keys, dim) of the total, some of whose tiles may share memory."""
    for axis in (0, 1):
        if total.stride(axis) == 0:
            total, parts = total.narrow(axis, 0, 1), parts.sum(axis, keepdim=True)
    tiles = min((1, 0), key=lambda axis: total.stride(axis) if total.shape[axis] > 1 else math.inf)
    total, parts = total.movedim(tiles, 0), parts.movedim(tiles, 0)
    apart = 1
    if len(total) > 1:  # tiles meet again after some: in one lattice of keys, or in the same one
        hop, step = total.stride(0), total.stride(2)
        period = step // math.gcd(hop, step)
        apart = 1 if len(total) <= period else period * -(-total.shape[2] * step // (period * hop))
    for i in range(min(apart, len(total))):
        total[i::apart] += parts[i::apart]


# --- forward and backward ---


class _Call:
    """q, k and v as (batch, key heads, heads of each, length, dim), rows dense, all of one dim and dtype."""

    def __init__(self, q, k, v, inputs, scale, dtype, costs):
        self.offset, self.dtype = k.shape[2] - q.shape[2], dtype
        self.group, self.dim = q.shape[1] // k.shape[1], max(q.shape[3], v.shape[3])
        # --- only: weights ---
        self.vector_dim = q.shape[3]
        # --- only: end ---
        self.q, self.k, self.v = self.shared(q), self.padded(k)[:, :, None], self.padded(v)[:, :, None]
        # --- only: plain ---
        # The library masks before it scales: what is not positive, goes into q.
        self.scale, self.factor = (scale, 1.0) if scale > 0 else (1.0, scale)
        # --- only: weights ---
        self.scale, self.factor = scale, 1.0
        # --- only: end ---
        if self.factor != 1.0:
            self.q = self.q * self.factor
        self.plan, self.once = (), False
        if q.numel() and k.numel():
            self.plan, self.once = _all_batches(q, k, inputs, costs)
        self.gathered, self.added = {}, (None, None)

    def padded(self, x):
        """Zeros behind q and k change no scaled product, zeros behind v only give zeros."""
        missing = self.dim - x.shape[3]
        x = x.to(self.dtype)
        return torch.nn.functional.pad(x, (0, missing)) if missing else _rows_contiguous(x)

    def shared(self, x):
        """Something for every query, by key head."""
        return self.padded(x).unflatten(1, (-1, self.group))

    def views(self, found, place):
        """A batch's queries, keys and values."""
        keys = found.of_one_tile()
        if keys is None:
            swept = (found.of_keys(x, place) for x in (self.k, self.v))
        else:  # tiles often sweep the beginning of what another one sweeps: it is gathered once
            held, own = self.gathered.get(str(place)), len(keys) - found.spare[0][1]
            if held is None or len(held[0]) < len(keys) or not torch.equal(held[0][:own], keys[:own]):
                held = keys, found.of_keys(self.k, place), found.of_keys(self.v, place)
                self.gathered[str(place)] = held
            swept = (x[..., : len(keys), :] for x in held[1:])
        return found.of_rows(self.q, place, self.offset), *swept

    # --- only: weights ---
    def places(self, found, place):
        """A batch's positions and heads: of queries, of keys, of heads; each (1, …, 1) beside the views."""
        q, k = (torch.stack([_index(x, self.q.device) for x in some]) for some in (found.rows, found.keys))
        heads = torch.arange(self.q.shape[1] * self.group, device=self.q.device).unflatten(
            0, (-1, self.group)
        )
        h = heads[place[1:]][None, None, :, :, None, None]
        return *(x[None, :, None, None, :, None] for x in (q, k)), h

    # --- only: end ---
    def masks(self, found):
        """What a batch adds to its scores, or None; which rows it answers for; whether it is a triangle."""
        mask, some = found.mask, found.some
        if some is not None:
            some = some[None, :, None, None, :, None]
        if mask is None or mask.causal or mask.absent is None:
            return None, some, mask is not None and mask.causal
        if self.added[0] is not mask:  # one batch after another may have the same
            added = torch.zeros(mask.absent.shape, dtype=self.dtype, device=self.q.device)
            self.added = mask, added.masked_fill_(mask.absent, float("-inf"))[None, :, None, None]
        return self.added[1], some, False


def _forward_torch(q, k, v, inputs, scale):
    work, sums = _work_dtype(q), _sum_dtype(q)
    call = _Call(q, k, v, inputs, scale, work, _TILE_COSTS if work == sums else _UNITS_COSTS)
    # --- only: states ---
    call.once = False  # what is in states is joined, too
    # --- only: end ---
    # Pieces of a row are joined in the dtype of sums.
    out = torch.empty(call.q.shape, dtype=q.dtype if call.once else sums, device=q.device)
    # --- only: plain ---
    lse = torch.full((*call.q.shape[:4], 1), float("-inf"), dtype=sums, device=q.device)
    # --- only: weights ---
    # A row's sum of weights: the largest score, and the logarithm of the sum beside that.
    lse = torch.zeros((*call.q.shape[:4], 2), dtype=sums, device=q.device)
    lse[..., 0] = float("-inf")
    # --- only: sinks ---
    # A sink is there before any edge, with a weight and without a value.
    lse[..., 0] = inputs[-1].unflatten(1, (-1, call.group))[..., None]
    out.zero_()
    # --- only: states ---
    # What is in states is there before any edge that is swept.
    out[..., : v.shape[3]] = begun[0].unflatten(1, (-1, call.group))
    lse[..., 0] = begun[1].unflatten(1, (-1, call.group))
    # --- only: end ---
    for found, place in call.plan:
        added, some, causal = call.masks(found)
        rows = [found.of_rows(x, place, call.offset) for x in (out, lse)]
        unwritten = None if call.once else rows[1][..., :1] == float("-inf")
        first = call.once or (some is None and bool(unwritten.all()))
        if not first and unwritten.any():
            rows[0].masked_fill_(unwritten, 0.0)
        views = call.views(found, place)
        # --- only: weights ---
        views += call.places(found, place)
        # --- only: end ---
        for *given, some_here, so_far, so_far_lse in _stacks(*views, added, some, *rows):
            # --- only: plain ---
            part, part_lse = _attention(*given, causal, call.scale)
            # --- only: weights ---
            part, part_lse = _weighed_attention(found, call, *given, causal)
            # --- only: end ---
            if first:
                so_far.copy_(part)
                so_far_lse.copy_(part_lse)
                continue
            if some is not None:
                part_lse = part_lse.masked_fill(~some_here, float("-inf"))
            # --- only: plain ---
            # Pieces of a row are joined by their log-sum-exps.
            joined = torch.logaddexp(so_far_lse, part_lse)
            weight = torch.sigmoid(part_lse - so_far_lse)  # not by `joined`, which is rounded
            weight.masked_fill_(part_lse == float("-inf"), 0.0)
            # --- only: weights ---
            joined, weight = _joined_sums(so_far_lse, part_lse)
            # --- only: end ---
            so_far.lerp_(part.to(sums), weight)
            so_far_lse.copy_(joined)
        for total, view in zip((out, lse), rows, strict=True):
            found.store(total, view, place, call.offset)
    empty = lse[..., :1] == float("-inf")
    if empty.any():
        out.masked_fill_(empty, 0.0)
    # --- only: plain ---
    lse = lse[..., 0]
    # --- only: end ---
    return out.flatten(1, 2)[..., : v.shape[3]].to(q.dtype).contiguous(), lse.flatten(1, 2)


def _backward_torch(grad, lse_grad, q, k, v, inputs, out, lse, scale):
    # In the dtype of sums, because the library adds up gradients in the dtype of its arguments.
    call = _Call(q, k, v, inputs, scale, _sum_dtype(q), _GRADIENT_COSTS)
    grad, out = call.shared(grad), call.shared(out)
    # --- only: weights ---
    totals = _Totals(inputs, _tables(inputs, q.shape[2], k.shape[2], q.shape[1], q.device))
    # --- only: sinks ---
    delta = (grad * out).sum(4).flatten(1, 2) - lse_grad
    totals.add_sinks(lse, delta)
    # --- only: end ---
    # --- only: plain ---
    # A row without edges has a log-sum-exp of minus infinity and only weights of zero.
    lse = lse.masked_fill(lse == float("-inf"), float("inf"))
    # --- only: end ---
    lse = lse.unflatten(1, (-1, call.group))[..., None]
    pull = lse_grad.unflatten(1, (-1, call.group))[..., None].to(call.dtype) if lse_grad.any() else None
    dq, dk, dv = (torch.zeros(x.shape, dtype=call.dtype, device=q.device) for x in (call.q, call.k, call.v))
    for found, place in call.plan:
        added, some, causal = call.masks(found)
        grad_rows, out_rows, lse_rows, pull_rows, dq_rows = (
            None if x is None else found.of_rows(x, place, call.offset) for x in (grad, out, lse, pull, dq)
        )
        if some is not None:
            lse_rows = lse_rows.masked_fill(~some, float("inf"))
        keys = [found.of_keys(x, place, empty=True) for x in (dk, dv)]
        rows = grad_rows, out_rows, lse_rows, pull_rows
        views = call.views(found, place)
        # --- only: weights ---
        views += call.places(found, place)
        # --- only: end ---
        for *given, to_q, to_k, to_v in _stacks(*views, *rows, added, dq_rows, *keys):
            # --- only: plain ---
            parts = _attention_gradients(*given, causal, call.scale)
            # --- only: weights ---
            parts = _weighed_gradients(found, call, totals, *given, causal)
            # --- only: end ---
            to_q += parts[0]
            _add_up(to_k, parts[1])
            _add_up(to_v, parts[2])
        found.store(dq, dq_rows, place, call.offset)
        for total, view in zip((dk, dv), keys, strict=True):
            found.add_to_keys(total, view, place)
    if call.factor != 1.0:
        dq *= call.factor
    given = zip((dq, dk, dv), (q, k, v), strict=True)
    # --- only: plain ---
    return tuple(total.flatten(1, 2)[..., : x.shape[3]].to(x.dtype).contiguous() for total, x in given)
    # --- only: weights ---
    found = (total.flatten(1, 2)[..., : x.shape[3]].to(x.dtype).contiguous() for total, x in given)
    return *found, totals.results()
    # --- only: end ---


# --- end ---

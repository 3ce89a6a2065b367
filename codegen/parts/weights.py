"""Gradients of what weighs edges, for every pattern alike: sums of the scores' gradients, by entry."""

from __future__ import annotations

import torch

WEIGHING, INPUTS = {}, {}
_WEIGHTS = ()


def _head_sets(heads): ...
def _batched(x, name, n, heads): ...
def _progressions(heads): ...
def _numbers(heads, device): ...
def _tiles_of(device): ...
def _scores(q, k, added, causal, scale): ...
def _rows_of(added, rows): ...
def _attention(*given): ...
def _attention_gradients(*given): ...


_PAIR_KERNELS, _TILES = (), {}


# --- begin: bodies ---


class _Weights:
    """What the edges of a body weigh.

    score: what softmax takes exponentials of, over scaled dot products; None for those themselves.
    slopes: the derivatives of it. entries: which entries of inputs it reads: of which table, along what the
        edges that read one are summed, and where. maps: the feature map and its derivative.
    scaled: whether the scale is a factor of scores. normalized: whether a row's weights are divided by
        their sum.
    """

    def __init__(self, score=None, slopes=None, entries=(), maps=None, scaled=True, normalized=True):
        self.score, self.slopes, self.entries = score, slopes, entries
        self.maps, self.scaled, self.normalized = maps, scaled, normalized


# --- begin: unnormalized ---


def _without_fp16(*tensors):
    """fp16 as fp32: gradients times sums of weights, by which nothing is divided, may leave its range."""
    return [x.float() if x.dtype == torch.float16 else x for x in tensors]


def _not_divided(out, lse, scale):
    """The output of those heads whose weights are not divided by their sum; the others' as it is."""
    divided = torch.ones(out.shape[1], dtype=torch.bool, device=lse.device)
    factor = torch.ones(out.shape[1], dtype=lse.dtype, device=lse.device)
    for numbers, weights in zip(_head_sets(out.shape[1]), _WEIGHTS, strict=True):
        if not weights.normalized:
            divided[numbers] = False
            factor[numbers] = 1.0 if weights.scaled else scale
    sums = lse.sum(3).masked_fill(divided[:, None], 0.0).exp() * factor[:, None]
    return out * sums[..., None]


# --- begin: sums ---


def _divided(grad, lse_grad, lse):
    """What gradient kernels take of rows: log-sum-exps in one number, and gradients that make up for it.

    lse: the largest score of every row, and the logarithm of its sum of weights beside that. Where a score is
    as large as a million, the sum of both is off by much: all weights of a row are then off by one factor, by
    which its gradients are divided. A row without any weight has none for any edge.
    """
    top, logs = lse.unbind(3)
    empty = top == float("-inf")
    lse = (top + logs).masked_fill(empty, float("inf"))
    factor = torch.exp(lse - top - logs).masked_fill(empty, 0.0)
    return (grad * factor[..., None]).to(grad.dtype), lse_grad[..., 1] * factor, lse


# --- begin: totals ---


class _Totals:
    """The gradients of the inputs that weigh edges, while they are added up: (batch or 1, …) tables.

    In 64 bits, because one by one as many terms come to an entry as there are edges.
    """

    def __init__(self, inputs, tables):
        self.inputs = inputs
        self.of = {name: torch.zeros_like(tables[name], dtype=torch.float64) for name in WEIGHING.values()}

    def add(self, name, index, values, row=slice(None)):
        """Adds values (batch, …) to a table's entries at ``index``, which broadcasts to (…); in one order.

        row: the sequence of the batch that all values are of, where the table has one for each of them.
        """
        total = self.of[name] if self.of[name].shape[0] == 1 else self.of[name][row]
        place = torch.zeros((), dtype=torch.int64, device=values.device)
        for at, size in zip(index, total.shape[1:], strict=True):
            place = place * size + torch.as_tensor(at, device=values.device).clamp(0, max(size - 1, 0))
        while place.dim() < values.dim() - 1:
            place = place[None]
        values = values.sum_to_size(total.shape[0] if total.shape[0] > 1 else 1, *place.shape).to(total.dtype)
        flat, place = total.view(total.shape[0], -1), place.flatten()
        if values.device.type == "cpu":
            flat.scatter_add_(1, place.expand(flat.shape[0], -1), values.flatten(1))
        else:  # sorted by place first, and so the same every time
            for row, own in zip(flat, values.flatten(1), strict=True):
                row.index_put_((place,), own, accumulate=True)

    def add_sinks(self, lse, delta):
        """A sink has a weight, but no value: what its logarithm gets is ``-weight * delta``."""
        if "sinks" in self.of:
            sinks = self.inputs[-1][..., None].to(lse.dtype)
            weights = torch.exp(sinks - lse)
            self.of["sinks"] -= (weights * delta).sum(2).sum_to_size(self.of["sinks"].shape)

    def results(self):
        """One for each of ``WEIGHING``, in the shapes and dtypes of the inputs."""
        return [
            self.of[name].reshape(self.inputs[i].shape).to(self.inputs[i].dtype)
            for i, name in WEIGHING.items()
        ]


# --- begin: torch ---


def _weighed_scores(found, call, q, k, q_at, k_at, h, added, causal):
    """Some rows at a time: which, where, scaled products, and what becomes of them."""
    n, heads = call.k.shape[3], call.q.shape[1] * call.group
    score = found.weights.score
    for rows, s in _scores(q, k, None, False, call.scale if found.weights.scaled else 1.0):
        at = (q_at[:, :, rows], k_at.transpose(2, 3), h, n, heads, found.tables)
        absent = None if added is None else _rows_of(added, rows) < 0
        if causal:
            absent = torch.ones(s.shape[2:], dtype=torch.bool, device=s.device).triu_(rows.start + 1)
        weighed = s if score is None else score(s, *at).expand(s.shape)
        if absent is not None:
            weighed = weighed.masked_fill(absent, float("-inf"))
        yield rows, at, s, weighed


def _weighed_attention(found, call, q, k, v, q_at, k_at, h, added, causal):
    """Output and sums (…, 2) of (a, b, length, dim) tensors, at these positions."""
    if found.weights.maps is not None:  # of nothing but the vectors: a map may make something of the padding
        q, k = (found.weights.maps[0](x[..., : call.vector_dim]) for x in (q, k))
    if found.weights.score is None and call.scale > 0:
        out, lse = _attention(q, k, v, added, causal, call.scale)
        return out, torch.cat([lse, torch.zeros_like(lse)], 3)
    out, lse = [], []
    for _, _, _, scores in _weighed_scores(found, call, q, k, q_at, k_at, h, added, causal):
        top = scores.amax(3, keepdim=True)
        weights = scores.sub(top.masked_fill(top == float("-inf"), 0.0)).exp_()
        total = weights.sum(3, keepdim=True)
        out.append(torch.matmul(weights, v.to(weights.dtype)) / total.clamp(min=1e-30))
        lse.append(torch.cat([top, total.log()], 3))
    return torch.cat(out, 2), torch.cat(lse, 2)


def _joined_sums(so_far, part):
    """The sums of two pieces of rows as those of both, and what share of the weight the second one has."""
    top = torch.maximum(so_far[..., :1], part[..., :1])
    shift = top.masked_fill(top == float("-inf"), 0.0)
    before, more = (torch.exp(x[..., :1] - shift + x[..., 1:]) for x in (so_far, part))
    total = before + more
    return torch.cat([top, total.log()], 3), more / total.clamp(min=1e-30)


def _weighed_gradients(found, call, totals, q, k, v, q_at, k_at, h, grad, out, lse, pull, added, causal):
    """Gradients of q, k and v as in ``_attention_gradients``; those of weights' entries go to ``totals``."""
    slopes, entries, maps = found.weights.slopes, found.weights.entries, found.weights.maps
    if slopes is None and call.scale > 0:
        return _attention_gradients(q, k, v, grad, out, lse, pull, added, causal, call.scale)
    delta = (grad * out).sum(3, keepdim=True)
    if pull is not None:
        delta -= pull
    vectors = q[..., : call.vector_dim], k[..., : call.vector_dim]
    if maps is not None:
        q, k = (maps[0](x) for x in vectors)
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows, at, s, scores in _weighed_scores(found, call, q, k, q_at, k_at, h, added, causal):
        weights = (scores - lse[:, :, rows]).exp_()
        dv += torch.matmul(weights.transpose(2, 3), grad[:, :, rows])
        d_scores = (torch.matmul(grad[:, :, rows], v.transpose(2, 3)) - delta[:, :, rows]).mul_(weights)
        slope, entry_slopes = (1.0, ()) if slopes is None else slopes(s, *at)
        nothing = d_scores == 0.0  # where nothing weighs anything a slope may be infinite
        for (name, _, index), entry_slope in zip(entries, entry_slopes, strict=True):
            values = (d_scores * entry_slope).masked_fill(nothing, 0.0)
            totals.add(name, index(*at), values[None], slice(found.entry, found.entry + 1))
        d_scores = d_scores * (slope * (call.scale if found.weights.scaled else 1.0))
        d_scores = d_scores.masked_fill(nothing, 0.0)
        dq[:, :, rows] = torch.matmul(d_scores, k)
        dk += torch.matmul(d_scores.transpose(2, 3), q[:, :, rows])
    if maps is not None:
        padding = (0, call.dim - call.vector_dim)
        grads = (d * maps[1](x) for d, x in zip((dq, dk), vectors, strict=True))
        dq, dk = (torch.nn.functional.pad(d, padding) for d in grads)
    return dq, dk, dv


# --- begin: sinks ---


def _leading(name, inputs, heads):
    """An input as (batch or 1, …); differentiable."""
    x = inputs[name]
    return x if x.dim() > len(INPUTS[name][1](1, heads, 1)) else x[None]


def _by_head(bodies, heads, dtype, device):
    """What a body's function gives for its heads, or minus infinity if it has none: (batch or 1, heads)."""
    found = torch.full((1, heads), float("-inf"), dtype=dtype, device=device)
    for numbers, value in zip(_head_sets(heads), bodies, strict=True):
        if value is not None:
            h = _numbers(numbers, device)
            part = torch.zeros((1, len(numbers)), dtype=dtype, device=device) + value(h)
            found = found.expand(max(found.shape[0], part.shape[0]), -1)
            found = found.index_copy(1, h, part.expand(found.shape[0], -1).to(dtype))
    # Beside the largest number edges weigh as little as beside infinity, which is none to subtract.
    return found.masked_fill(found == float("inf"), torch.finfo(dtype).max)


# --- begin: launch ---


class _EntrySums:
    """Sums over rows and columns that the gradient kernels keep for the entries of weights."""

    def __init__(self, call):
        def sums(kind, length):
            most = max(sum(entry[1] == kind for entry in weights.entries) for weights in _WEIGHTS)
            shape = (call.batch, call.heads, length)
            return {f"d_{kind}{i}": torch.zeros(shape, device=call.device) for i in range(most)}

        self.rows, self.columns = sums("row", call.n_q), sums("column", call.n)

    def add_to(self, totals, call):
        """Brings the sums to the entries that they belong to."""
        q = torch.arange(call.n - call.n_q, call.n, device=call.device)
        k = torch.arange(call.n, device=call.device)
        for numbers, weights in zip(_head_sets(call.heads), _WEIGHTS, strict=True):
            h = _numbers(numbers, call.device)
            found = {"row": iter(self.rows.values()), "column": iter(self.columns.values())}
            for name, kind, index in weights.entries:
                if kind in found:
                    values = next(found[kind])[:, h]
                    totals.add(name, index(q, k, h[:, None], call.n, call.heads, call.tables), values)


# --- begin: pairs ---

_HELD_PAIRS = 1 << 25  # gradients of single pairs that are held at once


def _add_pairs(totals, call, grad, lse, delta):
    """Adds up what entries get that hang on query and key together."""
    dim = max(call.dim, call.value_dim)
    block = (64 if dim <= 128 else 32) // (2 if call.q.element_size() == 4 else 1)
    # Six tiles are fetched ahead, where they fit.
    ahead = block == 64 and _tiles_of(call.device) not in (_SMALL_TILES, _HIP_TILES)
    sizes = {"BLOCK": block, "num_warps": 8 if block == 64 else 4, "num_stages": 2 if ahead else 1} | _FUSED
    for numbers, weights, found in zip(_head_sets(call.heads), _WEIGHTS, _PAIR_KERNELS, strict=True):
        if found is None or not call.n_q or not numbers:
            continue
        diagonal, pair, low, high, needed = found
        h = _numbers(numbers, call.device)
        lengths = (call.n, call.heads, call.tables)

        def sums(
            kernel, kind, shape, tiles, more, numbers=numbers, h=h, needed=needed, entries=weights.entries
        ):
            """Launches a kernel, and gives the entries of its kind, each with what it got."""
            names = [(name, index) for name, of_kind, index in entries if of_kind == kind]
            made = [torch.zeros(call.batch, call.heads, *shape, device=call.device) for _ in names]
            given = call.arguments(grad=grad) | {f"d_{kind}{i}_ptr": x for i, x in enumerate(made)}
            given |= call.needs(needed, "query", sizes) | sizes | {"tiles": tiles} | more
            for start, step, count in _progressions(numbers):
                grid = (tiles * call.batch * count,)
                heads = {"head_start": start, "head_step": step, "head_count": count}
                kernel[grid](lse_ptr=lse, delta_ptr=delta, **heads, **given)
            return [(*name, x[:, h]) for name, x in zip(names, made, strict=True)]

        if diagonal is not None:
            low = 1 - call.n if low is None else max(low, 1 - call.n)
            length = (call.n - 1 if high is None else min(high, call.n - 1)) - low + 1
            if length > 0:
                distances = torch.arange(low, low + length, device=call.device)
                more = {"low": low, "length": length}
                for name, index, values in sums(diagonal, "diagonal", (length,), -(-length // block), more):
                    totals.add(name, index(distances, 0 * distances, h[:, None], *lengths), values)
        if pair is not None:
            k = torch.arange(call.n, device=call.device)
            rows = max(block, _HELD_PAIRS // (call.batch * call.heads * call.n) // block * block)
            for first in range(call.n - call.n_q, call.n, rows):
                rows = min(rows, call.n - first)
                tiles = -(-rows // block) * -(-call.n // block)
                q = torch.arange(first, first + rows, device=call.device)[:, None]
                more = {"first": first, "rows": rows}
                for name, index, values in sums(pair, "pair", (rows, call.n), tiles, more):
                    totals.add(name, index(q, k, h[:, None, None], *lengths), values)


# --- end ---

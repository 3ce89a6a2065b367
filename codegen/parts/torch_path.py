"""The torch path: the schedule's query-side passes, tile by tile, with library products."""

from __future__ import annotations

import torch


def _sum_dtype(x): ...
def _head_sets(heads): ...
def _tables(inputs, n_q, n, heads, device): ...
def _progressions(heads): ...


_BODIES = ()

# --- begin ---

_TILE = 128  # queries a tile
_BUDGET = 1 << 24  # scores held at a time


def _tiles(q, k, inputs):
    """Every tile of every pass: batch, heads, key heads, query positions, and the sweeps over keys.

    Yields (batch slice, head indices, key head indices, positions, sweeps), each sweep the keys' positions
    and either None or a list of (begin, end, mask), booleans (queries, end - begin), for the columns that are
    not all edges.
    """
    batch, heads, n_q, _ = q.shape
    n, group = k.shape[2], heads // k.shape[1]
    tables = _tables(inputs, n_q, n, heads, q.device)
    apart = any(table.shape[0] > 1 for name, table in tables.items() if not name.startswith("picks"))
    for b in range(batch) if apart else (None,):
        own = {
            name: table if b is None or table.shape[0] == 1 or name.startswith("picks") else table[b : b + 1]
            for name, table in tables.items()
        }
        entries = slice(None) if b is None else slice(b, b + 1)
        for (by_head, passes), numbers in zip(_BODIES, _head_sets(heads), strict=True):
            groups = [[h] for h in numbers] if by_head else [numbers]
            for members in groups:
                if not members:
                    continue
                h = members[0]
                for rows, sweeps in passes:
                    positions = rows(n_q, n, h, heads, own, q.device)
                    for chosen in positions.split(_TILE) if positions.numel() else ():
                        found = list(sweeps(chosen, n_q, n, h, heads, own))
                        width = sum(keys.numel() for keys, _ in found)
                        many = max(1, _BUDGET // max(1, width * chosen.numel() * (batch if b is None else 1)))
                        for start in range(0, len(members), many):
                            part = members[start : start + many]
                            index = torch.tensor(part, device=q.device)
                            yield entries, index, index // group, chosen, found


def _range(low, high, device):
    """Positions ``low..high``."""
    return torch.arange(low, max(low, high + 1), device=device)


def _lattice(low, high, step, offset, device):
    """Positions ``p`` in ``low..high`` with ``p % step == offset``."""
    low += (offset - low) % step
    return torch.arange(low, max(low, high + 1), step, device=device)


def _chosen(member, low, high):
    """Positions in ``low..high`` where ``member`` is true."""
    low = max(low, 0)
    return member[low : max(low, high + 1)].nonzero().flatten() + low


def _masked_columns(keys, low, high, mask, q):
    """The columns of a sweep that need a mask: those outside ``low..high``."""
    below = int(torch.searchsorted(keys, low)) if low <= high else keys.numel()
    above = int(torch.searchsorted(keys, high, right=True)) if low <= high else keys.numel()
    ranges = [(0, below), (max(below, above), keys.numel())]
    ranges = [(a, b) for a, b in ranges if a < b]
    # A mask that hangs on neither position comes as a plain truth.
    return [(a, b, torch.as_tensor(mask(q[:, None], keys[None, a:b]), device=q.device)) for a, b in ranges]


def _take(x, entries, heads, positions):
    """Rows of (batch, heads, length, dim): a view where heads and positions are ranges."""
    x = x[entries]
    x = x[:, heads[0] : heads[-1] + 1] if _is_range(heads) else x[:, heads]
    return x[:, :, positions[0] : positions[-1] + 1] if _is_range(positions) else x[:, :, positions]


def _is_range(index):
    return bool(index[-1] - index[0] + 1 == index.numel())


def _scores(query, keys, scale, sweeps):
    """Scaled scores (batch, heads, queries, keys of all sweeps), minus infinity where there is no edge."""
    parts = []
    for (_, masked), key in zip(sweeps, keys, strict=True):
        part = torch.matmul(query, key.transpose(2, 3)).mul_(scale)
        for begin, end, mask in masked:
            part[..., begin:end].masked_fill_(~mask, float("-inf"))
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 3)


def _forward_torch(q, k, v, inputs, scale):
    dtype = _sum_dtype(q)
    out = q.new_zeros((*q.shape[:3], v.shape[3]))
    lse = torch.full(q.shape[:3], float("-inf"), dtype=dtype, device=q.device)
    query, key, value = q.to(dtype), k.to(dtype), v.to(dtype)
    offset = k.shape[2] - q.shape[2]
    for entries, heads, key_heads, rows, found in _tiles(q, k, inputs):
        sweeps = [sweep for sweep in found if sweep[0].numel()]
        if not sweeps:
            continue
        places = [(entries, key_heads, keys) for keys, _ in sweeps]
        scores = _scores(
            _take(query, entries, heads, rows - offset),
            [_take(key, *place) for place in places],
            scale,
            sweeps,
        )
        top = scores.amax(3, keepdim=True)
        top.masked_fill_(top == float("-inf"), 0.0)
        weights = scores.sub_(top).exp_()
        total = weights.sum(3, keepdim=True)
        widths = [keys.numel() for keys, _ in sweeps]
        mixed = sum(
            torch.matmul(part, _take(value, *place))
            for part, place in zip(weights.split(widths, 3), places, strict=True)
        )
        index = _row_index(entries, heads, rows - offset)
        out[index] = torch.where(total > 0, mixed / total, 0.0).to(out.dtype)
        lse[index] = (total.log() + top).squeeze(3)
    return out, lse


def _row_index(entries, heads, rows):
    return (entries, heads[:, None], rows[None, :])


def _backward_torch(grad, lse_grad, q, k, v, inputs, out, lse, scale):
    dtype = _sum_dtype(q)
    query, key, value, grad = q.to(dtype), k.to(dtype), v.to(dtype), grad.to(dtype)
    dq, dk, dv = (torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (q, k, v))
    delta = (grad * out.to(dtype)).sum(3) - lse_grad
    offset = k.shape[2] - q.shape[2]
    for entries, heads, key_heads, rows, found in _tiles(q, k, inputs):
        sweeps = [sweep for sweep in found if sweep[0].numel()]
        if not sweeps:
            continue
        places = [(entries, key_heads, keys) for keys, _ in sweeps]
        index = _row_index(entries, heads, rows - offset)
        tile, tile_grad = query[index], grad[index]
        scores = _scores(tile, [_take(key, *place) for place in places], scale, sweeps)
        # A row without edges has a log-sum-exp of minus infinity and only weights of zero.
        top = lse[index].masked_fill(lse[index] == float("-inf"), 0.0)
        weights = scores.sub_(top[..., None]).exp_()
        widths = [keys.numel() for keys, _ in sweeps]
        total = 0
        for part, place in zip(weights.split(widths, 3), places, strict=True):
            d_part = torch.matmul(tile_grad, _take(value, *place).transpose(2, 3))
            d_scores = d_part.sub_(delta[index][..., None]).mul_(part)
            total = total + torch.matmul(d_scores, _take(key, *place))
            _add_rows(dk, place, torch.matmul(d_scores.transpose(2, 3), tile))
            _add_rows(dv, place, torch.matmul(part.transpose(2, 3), tile_grad))
        dq[index] = total
    return (dq * scale).to(q.dtype), (dk * scale).to(k.dtype), dv.to(v.dtype)


def _add_rows(total, place, part):
    """Adds (batch, heads, keys, dim) to the rows of ``total``, heads that share a key head in order."""
    entries, key_heads, keys = place
    place = slice(int(keys[0]), int(keys[-1]) + 1) if _is_range(keys) else keys
    for i, head in enumerate(key_heads.tolist()):
        total[entries, head, place] += part[:, i]


# --- end ---

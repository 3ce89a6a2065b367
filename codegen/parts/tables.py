"""What is built on the device before a launch, for patterns that hang on inputs or draws; without a copy
to the host."""

from __future__ import annotations

import torch


def _plain_call(*tensors): ...


# --- begin: arithmetic ---


def _minimum(a, b, *more):
    """Elementwise minimum of tensors and integers."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        a = (
            torch.minimum(a, b)
            if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
            else _clip(a, b, "max")
        )
    else:
        a = min(a, b)
    return _minimum(a, *more) if more else a


def _maximum(a, b, *more):
    """Elementwise maximum of tensors and integers."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        a = (
            torch.maximum(a, b)
            if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
            else _clip(a, b, "min")
        )
    else:
        a = max(a, b)
    return _maximum(a, *more) if more else a


def _clip(a, b, side):
    tensor, limit = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return tensor.clamp(**{side: limit})


# --- begin: read ---


def _full(edges, n_q, n, device):
    """A condition over both positions as (batch or 1, n_q, n) booleans."""
    edges = torch.as_tensor(edges, device=device)
    return edges.expand(edges.shape[0] if edges.dim() == 3 else 1, n_q, n)


def _read(table, *index):
    """Entries of ``table``, (batch or 1, …), at broadcasting positions; (batch or 1, …) of their shape.

    Under a mask a position may lie outside; what is read there is never used.
    """
    places = [
        torch.as_tensor(place, device=table.device).clamp(0, max(size - 1, 0))
        for place, size in zip(index, table.shape[1:], strict=True)
    ]
    if 0 in table.shape:
        return table.new_zeros((table.shape[0], *torch.broadcast_shapes(*(place.shape for place in places))))
    return table[(slice(None), *torch.broadcast_tensors(*places))]


# --- begin: spread ---


def _spread(entries, heads):
    """Entries (batch or 1, length), or of every head, as (batch or 1, heads, length), dense."""
    return (entries if entries.dim() == 3 else entries[:, None]).expand(-1, heads, -1).contiguous()


# --- begin: continued ---


def _continued(values, before, length):
    """Values (…, near) for ``length`` places, the first and the last of them over and over at the ends.

    before: how many places there are in front of the values; if negative, how many values to leave out.
    """
    values = values[..., min(max(0, -before), values.shape[-1] - 1) :][..., :length]
    first, last = values[..., :1], values[..., -1:]
    before = max(0, before)
    after = length - before - values.shape[-1]
    sizes = values.shape[:-1]
    return torch.cat((first.expand(*sizes, before), values, last.expand(*sizes, after)), -1)


# --- begin: members ---


def _as_rows(member):
    """A choice of positions as (batch or 1, length) booleans."""
    return member if member.dim() == 2 else member[None]


# --- begin: pack ---


def _pack(member):
    """Packs a choice of positions: (batch or 1, length) booleans to their index and their rank, int32.

    ``index[b, j]`` is the position of the j-th member, ``rank[b, p]`` the number of members before ``p``,
    for ``p`` up to and including the length.
    """
    batch, length = member.shape
    rank = torch.zeros(batch, length + 1, dtype=torch.int32, device=member.device)
    rank[:, 1:] = member.cumsum(1)
    # Positions that are not members all go to a slot behind the end, which is cut off.
    slot = torch.where(member, rank[:, :-1], length).long()
    index = torch.zeros(batch, length + 1, dtype=torch.int32, device=member.device)
    index.scatter_(1, slot, torch.arange(length, dtype=torch.int32, device=member.device).expand(batch, -1))
    return index[:, :-1].contiguous(), rank


# --- begin: equal ---


def _equal_entries(x):
    """For (batch or 1, length) integers: where the first and last equal entry is, and the run around each.

    Returns first, last, run_first, run_last: int32 of the same shape. ``x`` equals ``x[p]`` nowhere outside
    ``[first[p], last[p]]`` and everywhere in ``[run_first[p], run_last[p]]``.
    """
    place = torch.arange(x.shape[1], dtype=torch.int32, device=x.device).expand(x.shape)
    run_first, run_last = _runs(x, place)
    # Numbers in order are not sorted again. A GPU would wait for the host to know that, and sorts faster.
    if x.device.type == "cpu" and bool((x[:, 1:] >= x[:, :-1]).all()):
        return run_first, run_last, run_first, run_last
    values, order = torch.sort(x, dim=1, stable=True)
    # Sorted stably, equal entries stand in order of position, so a run's ends are its extremes.
    ends = _runs(values, order.to(torch.int32))
    return *(torch.empty_like(end).scatter_(1, order, end) for end in ends), run_first, run_last


def _runs(x, value):
    """``value`` (int32) at both ends of the unbroken run of equal entries of ``x`` around each position."""
    changes = torch.ones_like(x, dtype=torch.bool)
    changes[:, 1:] = x[:, 1:] != x[:, :-1]
    last = torch.ones_like(changes)
    last[:, :-1] = changes[:, 1:]
    number = changes.cumsum(1)
    found = []
    for end in (changes, last):
        # Slot 0 is for all that is not an end of a run, and nobody's.
        slots = value.new_empty(x.shape[0], x.shape[1] + 1)
        found.append(slots.scatter_(1, torch.where(end, number, 0), value).gather(1, number))
    return found


# --- begin: draws ---

_MOST_CACHED = 1 << 26  # bytes
_CACHED = {}


def _cached(make, *args):
    """``make(*args)``, which depends on shapes alone: kept for other layers and for the backward.

    The latest that fit into ``_MOST_CACHED``; nothing in a CUDA graph, whose memory is its own, and nothing
    under a tracer or a mode, which may make tensors of another kind.
    """
    if not _plain_call():
        return make(*args)
    device = args[0].device if isinstance(args[0], torch.Tensor) else torch.device(args[-1])
    stream = 0
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return make(*args)
        stream = torch.cuda.current_stream(device).cuda_stream
    key = (make, stream, *(id(x) if isinstance(x, torch.Tensor) else x for x in args))
    if key in _CACHED:
        return _CACHED[key][0]
    made = make(*args)
    tensors = [
        x for x in (*args, *(made if isinstance(made, tuple) else (made,))) if isinstance(x, torch.Tensor)
    ]
    size = sum(x.nbytes for x in tensors)
    if size <= _MOST_CACHED:
        for old in list(_CACHED):
            if size + sum(kept[2] for kept in list(_CACHED.values())) <= _MOST_CACHED:
                break
            _CACHED.pop(old, None)
        _CACHED[key] = made, args, size  # a tensor's id is its own for as long as it is kept
    return made


def _hash_step(x):
    """A bijective mix of 32-bit values held in int64; no product leaves 63 bits."""
    x = x ^ (x >> 15)
    x = (x * 0x2C1B3C6D) & 0xFFFFFFFF
    x = x ^ (x >> 12)
    x = (x * 0x297A2D39) & 0xFFFFFFFF
    return x ^ (x >> 15)


def _picks(count, seed, past, heads, first_row, last_row, population, device):
    """The columns drawn for rows ``first_row..last_row``: (heads, rows, count) int32, -1 in empty slots.

    Draws hang on (seed, head, row, draw) alone, through a counter-based hash; columns are distinct by Floyd's
    sampling (Bentley and Floyd, CACM 30(9), 1987). With ``past`` a row draws among ``0..row``.
    """
    row = torch.arange(first_row, last_row + 1, device=device)[None, :]
    head = torch.arange(heads, device=device)[:, None]
    size = row + 1 if past else torch.full_like(row, population)
    start = _hash_step(torch.full_like(row, (seed & 0xFFFFFFFF) ^ 0x9E3779B9))
    state = _hash_step(_hash_step(start ^ head) ^ row)
    chosen = torch.full((*state.shape, count), -1, dtype=torch.int64, device=device)
    for i in range(count):
        last = size - count + i
        value = _hash_step(state ^ i) % (last + 1).clamp(min=1)
        taken = (chosen[..., :i] == value[..., None]).any(-1)
        everything = torch.where(size > i, i, -1)
        chosen[..., i] = torch.where(size <= count, everything, torch.where(taken, last, value))
    return chosen.to(torch.int32)


def _is_drawn(picks, row, column, first_row):
    """Whether ``column`` is among the picks of ``row``; (heads, …) of the broadcast shape of both."""
    place = (row - first_row).clamp(0, max(picks.shape[1] - 1, 0))
    row_picks = picks[:, place]
    found = torch.zeros((), dtype=torch.bool, device=picks.device)
    for i in range(picks.shape[2]):
        found = found | (row_picks[..., i] == column)
    return found


# --- begin: lists ---


def _tile_lists(picks, first_row, size, n_q, n, query_tile, key_tile):
    """Which pairs of tiles hold a pick, as lists for every query tile and for every key tile.

    picks: (heads, rows, count) as ``_picks`` gives them, of rows and columns of ``size`` positions each.
    Query tiles are counted from query ``n - n_q``, key tiles from key 0. Returns for either side
    offsets (heads, tiles + 1) and the other side's tiles (heads, capacity), int32, ascending.
    """
    device = picks.device
    row = torch.arange(first_row, first_row + picks.shape[1], device=device)[None, :, None]
    query_tiles, key_tiles = -(-n_q // query_tile), -(-n // key_tile)

    def touched(begin, end, tile):
        """Tiles that the positions ``begin..end`` lie in, padded by repetition: a new last axis."""
        steps = torch.arange((size + tile - 2) // tile + 1, device=device)
        return torch.minimum(begin.clamp(min=0)[..., None] // tile + steps, end[..., None] // tile)

    row_begin, row_end = row * size - (n - n_q), (row * size + size - 1).clamp(max=n - 1) - (n - n_q)
    queries = touched(row_begin, row_end, query_tile)
    column = picks.long()
    keys = touched(column * size, (column * size + size - 1).clamp(max=n - 1), key_tile)
    queries, keys = torch.broadcast_tensors(queries[..., :, None], keys[..., None, :])
    valid = (column >= 0) & (row_end >= 0)

    def lists(own, other, own_tiles, other_tiles):
        nothing = own_tiles * other_tiles
        code = (
            torch.where(valid[..., None, None], own * other_tiles + other, nothing).flatten(1).sort(1).values
        )
        code[:, 1:] = torch.where(code[:, 1:] == code[:, :-1], nothing, code[:, 1:])
        code = code.sort(1).values
        ends = torch.arange(own_tiles + 1, device=device) * other_tiles
        offsets = torch.searchsorted(code, ends.expand(code.shape[0], -1).contiguous())
        return offsets.to(torch.int32), (code % max(other_tiles, 1)).to(torch.int32).contiguous()

    return (*lists(queries, keys, query_tiles, key_tiles), *lists(keys, queries, key_tiles, query_tiles))


# --- end ---

"""The torch path's pieces: tiles of queries, what they sweep under one mask, and the masks."""

from __future__ import annotations

import torch


def _index(positions, device): ...
def _form(positions): ...
def _below(positions, bound): ...
def _within(positions, low, high): ...


# --- begin ---

# A tile is some queries of a pass, as many as suit a sweep; a piece of it, the same queries and some of the
# keys that they sweep, under one mask or none.

# What a score costs, by queries a tile; where the CPU multiplies matrices of bfloat16; and its gradient.
_TILE_COSTS = {32: 1.4, 64: 1.12, 128: 1.0, 256: 0.93, 512: 0.88, 1024: 0.8}
_UNITS_COSTS = {32: 2.2, 64: 1.8, 128: 1.0, 192: 0.7, 256: 0.67, 512: 0.58, 1024: 0.5}
_GRADIENT_COSTS = {32: 2.2, 64: 1.45, 128: 1.0, 256: 0.8, 512: 0.7, 1024: 0.65}
_OWN_MASK = 1.5  # times as much, where the tile needs a mask of its own
_LANES = 32  # keys that the library's kernel takes at once: a rest costs more than they do
_SPLIT = 64  # queries that the library's kernel takes at once, in a triangle
_MOST_MASKED = 1 << 20  # pairs of a masked piece
_LEAST_UNMASKED = 1024  # keys that are worth a piece of their own
_MOST_KNOWN = 32  # masks that are kept for tiles to come


def _causal(q, k):
    """A condition that needs no mask: the library's kernel knows it."""
    return k <= q


def _is_triangle(rows, keys, condition):
    """Whether the edges are the lower triangle of a square."""
    return condition is _causal and isinstance(rows, range) and isinstance(keys, range) and rows == keys


def _tiles(run, length):
    """Queries of a pass cut into tiles, on a grid of the tile's length as chunks and blocks are."""
    begin = 0
    while begin < len(run):
        place = run[begin] // run.step if isinstance(run, range) else begin
        end = begin + length - place % length
        yield run[begin:end]
        begin = end


def _tile_length(run, sweep, period, costs):
    """How many queries a tile has: what costs least by the keys it sweeps.

    They are counted for a tile in the middle of the run; where that sweeps none, few queries at an end may
    sweep some. It may be all queries, where edges are a triangle.
    """
    lengths = {max(length // period, 1) * period if 0 < period <= 1024 else length for length in costs}
    last = int(run[-1]) // run.step if isinstance(run, range) else int(run[-1])
    middle, most = len(run) // 2, max(lengths)
    for end in (None, run[:most], run[-most:]):
        found = {}
        for length in (*lengths, last + 1):
            if end is None:
                begin = (
                    max(0, middle - run[middle] // run.step % length) if isinstance(run, range) else middle
                )
                tiles = [run[begin : begin + length]]
            else:
                tiles = list(_tiles(end, length))
            scores = [_scores_of(tile, sweep, period, length) for tile in tiles]
            if length in lengths or all(triangle for _, triangle in scores):
                cost = costs[min(costs, key=lambda known: abs(known - length))]
                found[length] = cost * sum(count for count, _ in scores) / sum(map(len, tiles))
        if any(found.values()):
            break
    return min(found, key=lambda length: (found[length], -length))


def _scores_of(tile, sweep, period, length):
    """How many scores a tile comes to, dear ones counting for more; and whether they are a triangle."""
    keys, unmasked, condition = sweep(tile)
    pairs = -(-len(keys) // _LANES) * _LANES * length
    if condition is not None and not period and len(keys) and not _within(keys, *unmasked):
        pairs *= _OWN_MASK
    triangle = _is_triangle(tile, keys[-len(tile) :], condition)
    if triangle:
        pairs -= max(0, len(tile) - _SPLIT) * length // 2
    return pairs, triangle


def _widened(keys, n):
    """A range in whole steps of the library's kernel; and how many lie before and behind the one given."""
    missing = -len(keys) % _LANES
    before = min(missing, keys.start // keys.step)
    behind = missing - before
    if keys[-1] + behind * keys.step >= n:
        return keys, (0, 0)
    wider = range(keys.start - before * keys.step, keys.stop + behind * keys.step, keys.step)
    return wider, (before, behind)


class _Mask:
    """What a condition comes to on pieces (tiles, rows, keys), or on one that stands for all.

    condition: None if all pairs are edges. spare: how many keys at the beginning and at the end are none of
    its own, for every piece. empty: whether no pair is an edge; causal: whether the edges are the lower
    triangle; absent: what is no edge, alike for all rows perhaps, or None; some: which rows have an edge,
    (tiles, rows), or None if all have.
    """

    def __init__(self, condition, rows, keys, device, spare):
        self.empty, self.causal, self.absent, self.some = False, False, None, None
        padded = any(some != (0, 0) for some in spare)
        if not padded and all(_is_triangle(*piece, condition) for piece in zip(rows, keys, strict=True)):
            self.causal = True
            return
        q = torch.stack([_index(positions, device) for positions in rows])[:, :, None]
        k = torch.stack([_index(positions, device) for positions in keys])[:, None, :]
        edges = torch.ones(k.shape, dtype=torch.bool, device=device)
        if condition is not None:
            # A condition may hang on neither.
            edges = torch.as_tensor(condition(q, k), device=device).expand(len(rows), q.shape[1], k.shape[2])
        if padded:
            before, behind = torch.tensor(spare, device=device).T[:, :, None, None]
            place = torch.arange(k.shape[2], device=device)
            edges = edges & (place >= before) & (place < k.shape[2] - behind)
        if edges.all():
            return
        some = edges.any(2)
        self.empty, self.absent, self.some = not some.any(), ~edges, None if some.all() else some
        square = edges.shape[1] == edges.shape[2]
        self.causal = square and torch.equal(edges, edges.new_ones(edges.shape).tril())


def _pieces(rows, sweep, period, n, known, device):
    """The pieces of a tile: keys; None, a mask, or a condition to be judged for a batch; spare keys; a name.

    Pieces of one name and form have the same mask, and no two pieces of a tile have one name.
    """
    keys, unmasked, condition = sweep(rows)
    begin, end = 0, len(keys)
    if condition is not None:
        low, high = unmasked
        begin, end = (_below(keys, low), _below(keys, high + 1)) if low <= high else (0, 0)
        # The masked ends get the tile's length where there is room: so they are alike, and squares.
        begin = max(begin, min(len(rows), end)) if begin > 0 else 0
        end = min(end, max(len(keys) - len(rows), begin)) if end < len(keys) else end
        few = end - begin < _LEAST_UNMASKED and not _is_triangle(rows, keys[end:], condition)
        if few and (begin, end) != (0, len(keys)):
            begin, end = len(keys), len(keys)
    if begin < end:
        yield keys[begin:end], None, (0, 0), ()
    most = max(1, _MOST_MASKED // len(rows))
    for first, last in ((0, begin), (end, len(keys))):
        triangle = _is_triangle(rows, keys[first:last], condition)
        if triangle:
            most = len(rows)
        for start in range(first, last, most):
            part, spare = keys[start : min(start + most, last)], (0, 0)
            if isinstance(part, range) and not triangle:
                part, spare = _widened(part, n)
            if not period or not isinstance(rows, range) or not isinstance(part, range):
                yield part, condition, spare, (start, *spare)
                continue
            place = (rows[0] - part[0], rows[0] % period, _form(rows), _form(part), *spare)
            if place not in known:
                if len(known) == _MOST_KNOWN:
                    known.clear()
                known[place] = _Mask(condition, [rows], [part], device, [spare])
            if not known[place].empty:
                yield part, known[place], spare, place


# --- end ---

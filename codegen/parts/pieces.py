"""The torch path's work: the schedule's query-side passes as batches of equal pieces."""

from __future__ import annotations

import math

import torch


def _head_sets(heads): ...
def _tables(inputs, n_q, n, heads, device): ...
def _progressions(heads): ...


_BODIES, _WEIGHTS = (), ()

# --- begin ---

# Positions are a `range`, which is taken as a view, or an index tensor, which is gathered. A tile is some
# queries of a pass, as many as suit a sweep; a piece of it, the same queries and some of the keys that they
# sweep, under one mask or none; a batch, pieces of one shape whose positions go up in equal steps.

# What a score costs, by queries a tile; and where the CPU multiplies matrices of bfloat16.
_TILE_COSTS = {32: 1.4, 64: 1.12, 128: 1.0, 256: 0.93, 512: 0.88, 1024: 0.8}
_UNITS_COSTS = {32: 2.2, 64: 1.8, 128: 1.0, 192: 0.7, 256: 0.67, 512: 0.58, 1024: 0.5}
_OWN_MASK = 1.5  # times as much, where the tile needs a mask of its own
_MOST_SPARE = 1.5  # times as many keys as are read, in tiles beside each other
_LANES = 32  # keys that the library's kernel takes at once: a rest costs more than they do
_BUDGET = 1 << 22  # numbers that a batch takes, or scores that are held
_AT_HAND = 1 << 18  # numbers that a thread finds at a time: new memory costs page faults
_SPLIT = 64  # queries that the library's kernel takes at once, in a triangle
_MOST_MASKED = 1 << 20  # pairs of a masked piece
_LEAST_UNMASKED = 1024  # keys that are worth a piece of their own
_WORTH = 64  # keys that are asked about at once, where many hold no edge
_MOST_KNOWN = 32  # masks that are kept for tiles to come
_PLANS = {}  # the batches of calls to come, by shapes
_MOST_PLANS = 8


def _range(low, high):
    """Positions ``low..high``."""
    return range(low, max(low, high + 1))


def _digit_runs(begin, end, sizes, ranges, extents, device):
    """Positions ``begin..end - 1`` in runs of one value, or few, of every digit but the first.

    sizes: how many values those digits take; ranges: which of them count; extents: how many go together.
    """
    weight, offsets = math.prod(sizes), [[0]]
    for size, (low, high), extent in zip(sizes, ranges, extents, strict=True):
        parts = [range(d, min(d + extent, high + 1)) for d in range(low, high + 1, extent)]
        offsets = [[o * size + d for o in some for d in part] for some in offsets for part in parts]
    for some in offsets:
        if len(some) == 1:
            first = begin + (some[0] - begin) % weight
            yield range(first, max(first, end), weight)
        else:
            rows = torch.arange(begin // weight, (end - 1) // weight + 1, device=device)[:, None] * weight
            places = (rows + torch.tensor(some, device=device)).flatten()
            yield places[(places >= begin) & (places < end)]


def _digit_ends(positions, sizes):
    """The least and greatest value of every digit of some positions."""
    if isinstance(positions, range) and positions.step % math.prod(sizes) == 0:
        ends = torch.tensor([positions[0], positions[-1]])
    else:
        ends = _index(positions, None)
    found = []
    for size in reversed(sizes):
        found.insert(0, ends % size)
        ends = ends // size
    return [(int(digit.min()), int(digit.max())) for digit in (ends, *found)]


def _digit_box(low, high, sizes, n, device):
    """Positions below ``n`` all of whose digits lie between ``low`` and ``high``."""
    if any(a > b for a, b in zip(low, high, strict=True)):
        return range(0)
    weight, offsets = math.prod(sizes), [0]
    for size, a, b in zip(sizes, low[1:], high[1:], strict=True):
        offsets = [o * size + d for o in offsets for d in range(a, b + 1)]
    begin, end = low[0] * weight + offsets[0], min(high[0] * weight + offsets[-1] + 1, n)
    if len(offsets) == 1:
        return range(begin, end, weight)
    if len(offsets) == weight or (low[0] == high[0] and offsets[-1] - offsets[0] + 1 == len(offsets)):
        return range(begin, max(begin, end))
    rows = torch.arange(low[0], high[0] + 1, device=device)[:, None] * weight
    places = (rows + torch.tensor(offsets, device=device)).flatten()
    return places[places < n]


def _chosen(member, low, high):
    """Positions in ``low..high`` where ``member`` is true."""
    low = max(low, 0)
    return member[low : max(low, high + 1)].nonzero().flatten() + low


def _worthwhile(positions, test, weight, device):
    """Positions without those tiles of them that hold no edge by a test on the ends of their first digit."""
    places = _index(positions, device)
    starts = torch.arange(0, len(positions), _WORTH, device=device)
    if not len(starts):
        return positions
    least, most = places[starts], places[(starts + _WORTH - 1).clamp(max=len(positions) - 1)]
    good = torch.as_tensor(test(least // weight, most // weight), device=device).expand(len(starts))
    if good.all():
        return positions
    return places[good.repeat_interleave(_WORTH)[: len(positions)]]


def _index(positions, device):
    """Positions as a tensor."""
    if isinstance(positions, range):
        return torch.arange(positions.start, positions.stop, positions.step, device=device)
    return positions


def _form(positions):
    """What the positions of a batch have in common: how many they are and how far apart."""
    return len(positions), positions.step if isinstance(positions, range) else None


def _below(positions, bound):
    """How many of the ascending positions are less than ``bound``."""
    if isinstance(positions, range):
        return min(max(-((positions.start - bound) // positions.step), 0), len(positions))
    return int(torch.searchsorted(positions, bound))


# --- tiles and pieces ---


def _within(positions, low, high):
    """Whether all of the ascending positions lie in ``low..high``."""
    return low <= int(positions[0]) and int(positions[-1]) <= high


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

    They are counted in the middle of the run; where that sweeps none, few queries at an end may sweep some.
    It may be all queries, where edges are a triangle.
    """
    step = run.step if isinstance(run, range) else 1
    lengths = {max(length // period, 1) * period if 0 < period <= 1024 else length for length in costs}
    for place in (len(run) // 2, 0, len(run) - 1):
        found = {}
        for length in (*lengths, int(run[-1]) // step + 1):
            begin = max(0, place - run[place] // step % length) if isinstance(run, range) else place
            tile = run[begin : begin + length]
            keys, unmasked, condition = sweep(tile)
            pairs = -(-len(keys) // _LANES) * _LANES * length
            if condition is not None and not period and len(keys) and not _within(keys, *unmasked):
                pairs *= _OWN_MASK
            triangle = _is_triangle(tile, keys[-len(tile) :], condition)
            if triangle:
                pairs -= max(0, len(tile) - _SPLIT) * length // 2
            if length in lengths or triangle:
                pairs *= costs[min(costs, key=lambda known: abs(known - length))]
                found[length] = pairs / len(tile) if place == len(run) // 2 else pairs
        if any(found.values()):
            break
    return min(found, key=lambda length: (found[length], -length))


def _widened(keys, n):
    """A range in whole steps of the library's kernel, and how many lie before and behind the one given."""
    missing = -len(keys) % _LANES
    before = min(missing, keys.start // keys.step)
    behind = missing - before
    if keys[-1] + behind * keys.step >= n:
        return keys, 0, 0
    return range(keys.start - before * keys.step, keys.stop + behind * keys.step, keys.step), before, behind


class _Mask:
    """What a condition comes to on pieces (tiles, rows, keys), or on one that stands for all.

    condition: None if all pairs are edges. spare: how many keys at the beginning and at the end are none of
    its own, for every piece. empty: whether no pair is an edge; causal: whether the edges are the lower
    triangle; absent: what is no edge, alike for all rows perhaps, or None; some: which rows have an edge,
    (tiles, rows), or None if all have.
    """

    def __init__(self, condition, rows, keys, device, spare):
        self.empty, self.causal, self.absent, self.some = False, False, None, None
        if all(_is_triangle(*piece, condition) for piece in zip(rows, keys, strict=True)):
            self.causal = True
            return
        q = torch.stack([_index(positions, device) for positions in rows])[:, :, None]
        k = torch.stack([_index(positions, device) for positions in keys])[:, None, :]
        edges = torch.ones(k.shape, dtype=torch.bool, device=device)
        if condition is not None:
            # A condition may hang on neither.
            edges = torch.as_tensor(condition(q, k), device=device).expand(len(rows), q.shape[1], k.shape[2])
        if any(some != (0, 0) for some in spare):
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
                part, *spare = _widened(part, n)
            if not period or not isinstance(rows, range) or not isinstance(part, range):
                yield part, condition, tuple(spare), (start, *spare)
                continue
            place = (rows[0] - part[0], rows[0] % period, _form(rows), _form(part), *spare)
            if place not in known:
                if len(known) == _MOST_KNOWN:
                    known.clear()
                known[place] = _Mask(condition, [rows], [part], device, [tuple(spare)])
            if not known[place].empty:
                yield part, known[place], tuple(spare), place


# --- batches ---


class _Batch:
    """Pieces of one shape: the rows and keys of each, which rows are answered for, and what masks them.

    spare: how many keys before and behind are none of a piece's own, for every piece once it is settled.
    """

    def __init__(self, mask, spare=(0, 0)):
        self.mask, self.spare, self.rows, self.keys, self.owned = mask, spare, [], [], []

    def continues(self, rows, keys):
        """Whether one more piece goes on where the others are heading; no query is in a batch twice."""
        if rows is self.rows[-1]:
            return False
        for new, old in ((rows, self.rows), (keys, self.keys)):
            if isinstance(new, range):
                hop = new[0] - old[-1][0]
                if hop < 0 or (len(old) > 1 and hop != old[1][0] - old[0][0]):
                    return False
        return isinstance(keys, range) or len(keys) == len(self.keys[-1]) or self.takes(keys)

    def takes(self, keys):
        """Whether gathered keys may lie beside others that are more or fewer.

        Where one tile's are the beginning of another's, they are better gathered once.
        """
        common = min(len(keys), len(self.keys[-1]))
        lengths = [len(keys), *(len(some) for some in self.keys)]
        alike = torch.equal(keys[:common], self.keys[-1][:common])
        return not alike and max(lengths) * len(lengths) <= _MOST_SPARE * sum(lengths)

    def even(self):
        """Gathered keys are made as many for every piece, by repetition."""
        if isinstance(self.keys[0], range):
            self.spare = [self.spare] * len(self.keys)
            return
        lengths = [len(keys) for keys in self.keys]
        wanted = max(lengths)
        if callable(self.mask) or min(lengths) < wanted:
            wanted += -wanted % _LANES
        self.spare = [(0, wanted - length) for length in lengths]
        self.keys = [torch.cat([keys, keys[-1:].expand(wanted - len(keys))]) for keys in self.keys]

    def settled(self, device):
        """The batch with its mask judged, in a list; an empty one if it has no edge."""
        self.even()
        if callable(self.mask) or (self.mask is None and any(some != (0, 0) for some in self.spare)):
            self.mask = _Mask(self.mask, self.rows, self.keys, device, self.spare)
        self.some = self.mask and self.mask.some
        if self.owned[0] is not None:
            owned = torch.stack(self.owned)
            self.some = owned if self.some is None else self.some & owned
        return [] if self.mask and self.mask.empty else [self]

    def held(self):
        """How many numbers it holds, more or less."""
        positions = sum(8 if isinstance(some, range) else len(some) for some in (*self.rows, *self.keys))
        return positions + (self.mask.absent.numel() if self.mask and self.mask.absent is not None else 0)

    def of_rows(self, x, place, offset=0):
        """(entries, tiles, key heads, heads of each, rows, dim) of a tensor without the tiles' axis."""
        return _view(x[place], [_moved(rows, -offset) for rows in self.rows])

    def of_one_tile(self):
        """The keys, if they are gathered, and for one tile alone; else None."""
        return self.keys[0] if len(self.keys) == 1 and not isinstance(self.keys[0], range) else None

    def of_keys(self, x, place, empty=False):
        """The same of the keys; empty: zeros for what is gathered."""
        found = _view(x[place[:2]], self.keys)
        return found.zero_() if empty and not isinstance(self.keys[0], range) else found

    def store(self, x, view, place, offset=0):
        """Puts back what ``of_rows`` gave, where that is not a view."""
        if not isinstance(self.rows[0], range):
            x[place].index_copy_(3, torch.cat(list(self.rows)) - offset, view.movedim(1, 3).flatten(3, 4))

    def add_to_keys(self, x, parts, place):
        """Adds to the keys' rows what ``of_keys`` gave, where that is not a view; tiles may share keys."""
        if not isinstance(self.keys[0], range):
            for keys, part in zip(self.keys, parts.unbind(1), strict=True):
                x[place[:2]].index_add_(3, keys, part)


class _Alone(_Batch):
    """Queries that have a few keys of their own, as tiles of one query: positions (tiles, 1), (tiles, keys).

    ``edges`` says which of the keys are there.
    """

    def __init__(self, rows, keys, edges):
        super().__init__(_Mask(lambda q, k: edges[:, None, :], rows[:, None], keys, keys.device, ()))
        self.rows, self.keys, self.owned, self.spare = rows, keys, [None], [(0, 0)] * len(rows)

    def even(self):
        """They are already."""

    def add_to_keys(self, x, parts, place):
        x[place[:2]].index_add_(3, self.keys.flatten(), parts.movedim(1, 3).flatten(3, 4))


def _alone(runs, owned, keys, most, given):
    """Batches for the keys that queries read one by one; ``most`` edges at a time."""
    device = given[-1]
    for run in runs:
        rows = _index(run, device)[:, None]
        for part in rows.split(max(1, most)) if len(rows) else ():
            for found, edges in keys(part, *given):
                found, edges = torch.broadcast_tensors(found, edges)
                if owned is not None:
                    edges = edges & owned(part, *given)
                yield from _Alone(part, torch.where(edges, found, 0), edges).settled(device)


def _shifts(n, device):
    """0 and the powers of two below ``n``."""
    powers = [1 << i for i in range(max(n - 1, 0).bit_length())]
    return torch.tensor([0, *powers], device=device)


def _moved(positions, distance):
    if isinstance(positions, range):
        return range(positions.start + distance, positions.stop + distance, positions.step)
    return positions + distance


def _view(x, tiles):
    """Tiles of (entries, key heads, heads of each, length, dim), as a new axis behind the entries."""
    if not isinstance(tiles[0], range):
        places = torch.stack(list(tiles))
        return x.index_select(3, places.flatten()).unflatten(3, places.shape).movedim(3, 1)
    first = tiles[0]
    hop = tiles[1][0] - first[0] if len(tiles) > 1 else 0
    entries, key_heads, heads, step, dense = x.stride()
    return x.as_strided(
        (x.shape[0], len(tiles), *x.shape[1:3], len(first), x.shape[4]),
        (entries, hop * step, key_heads, heads, first.step * step, dense),
        x.storage_offset() + first[0] * step,
    )


def _batches(pieces, work, device):
    """Pieces in batches that take no more than the budget; ``work`` is how many numbers a position has."""
    waiting, waits = {}, 0
    for rows, owned, keys, mask, spare, name in pieces:
        kind = (_form(rows), _form(keys) if isinstance(keys, range) else None, name, owned is None)
        if kind in waiting and not waiting[kind].continues(rows, keys):
            yield from waiting.pop(kind).settled(device)
        found = waiting.setdefault(kind, _Batch(mask, spare))
        found.rows.append(rows)
        found.keys.append(keys)
        found.owned.append(owned)
        waits += max(len(rows), len(keys)) * work + (len(rows) * len(keys) if callable(mask) else 0)
        if waits > _BUDGET:
            yield from [settled for some in waiting.values() for settled in some.settled(device)]
            waiting, waits = {}, 0
    yield from [settled for some in waiting.values() for settled in some.settled(device)]


def _all_batches(q, k, inputs, dtype):
    """Every batch of every pass, and its place: entries, key heads, heads of each. No edge is in two.

    And whether no query is in two, as far as is known. dtype: what products are made in. Without inputs the
    batches hang on shapes alone, and are kept if they are not too large.
    """
    plan = _plan(q, k, inputs, _UNITS_COSTS if dtype == torch.bfloat16 else _TILE_COSTS)
    if inputs:
        return plan, False
    key = q.shape, k.shape, q.device, dtype
    if key not in _PLANS:
        kept, held = [], 0
        for found in plan:
            kept.append(found)
            held += found[0].held()
            if held > _BUDGET:
                return (found for part in (kept, plan) for found in part), False
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        # From the last to the first: later tiles often sweep all that earlier ones do, and more.
        _PLANS[key] = kept[::-1], _read_once(kept, q, k)
    return _PLANS[key]


def _read_once(plan, q, k):
    """Whether no query is in two of the batches, and every batch answers for all that are in it."""
    seen = torch.zeros(*q.shape[:3], 1, dtype=torch.bool, device=q.device).unflatten(1, (k.shape[1], -1))
    for found, place in plan:
        rows = found.of_rows(seen, place, k.shape[2] - q.shape[2])
        if found.some is not None or rows.any():
            return False
        found.store(seen, rows.fill_(True), place, k.shape[2] - q.shape[2])
    return True


def _plan(q, k, inputs, costs):
    batch, heads, n_q, dim = q.shape
    n, group, device = k.shape[2], heads // k.shape[1], q.device
    tables = _tables(inputs, n_q, n, heads, device)
    apart = any(table.shape[0] > 1 for name, table in tables.items() if not name.startswith("picks"))
    for b in range(batch) if apart else (None,):
        own = {
            name: table if b is None or table.shape[0] == 1 or name.startswith("picks") else table[b : b + 1]
            for name, table in tables.items()
        }
        entries = slice(None) if b is None else slice(b, b + 1)
        for body, numbers in enumerate(_head_sets(heads)):
            # What does not hang on the head is the same for all of them, and read at once.
            for by_head, members in ((False, numbers), *((True, [h]) for h in numbers)) if numbers else ():
                places = [(entries, *place) for place in _head_places(members, group)]
                work = dim * len(members) * (batch if b is None else 1)
                given = (n_q, n, members[0], heads, own, device)
                for part in _BODIES[body]:
                    for found in _pass(part, by_head, costs, work, given):
                        # --- only: weights ---
                        found.weights, found.tables, found.entry = _WEIGHTS[body], own, b or 0
                        # --- only: end ---
                        yield from ((found, place) for place in places)


def _pass(part, by_head, costs, work, given):
    """The batches of a pass: of what hangs on the head, or of the rest."""
    rows, owned, sweeps, alone = part
    sweeps = [(sweep, period) for sweep, hangs, period in sweeps if hangs == by_head]
    runs = [run for run in rows(*given) if len(run)]
    yield from _batches(_pass_pieces(runs, owned, sweeps, costs, given), work, given[-1])
    # --- only: alone ---
    if alone is not None and alone[1] == by_head:
        yield from _alone(runs, owned, alone[0], _BUDGET // (32 * work), given)
    # --- only: end ---


def _pass_pieces(runs, owned, sweeps, costs, given):
    """The pieces of a pass, after their rows and which of them are answered for, or None for all."""
    n, device, cuts = given[1], given[-1], {}
    sweeps = [(lambda rows, sweep=sweep: sweep(rows, *given), period, {}) for sweep, period in sweeps]
    for run in runs:
        form = _form(run)
        if form not in cuts:
            cuts[form] = {}
            for i, (sweep, period, _) in enumerate(sweeps):
                cuts[form].setdefault(_tile_length(run, sweep, period, costs), []).append(i)
        for length, some in cuts[form].items():
            for rows in _tiles(run, length):
                mine = None if owned is None else owned(_index(rows, device), *given)
                if mine is not None and mine.all():
                    mine = None
                for i in some:
                    for *piece, name in _pieces(rows, *sweeps[i][:2], n, sweeps[i][2], device):
                        yield rows, mine, *piece, (i, *name)


def _head_places(heads, group):
    """Heads as (key heads, heads of each), slices both, without a copy: one pair if they are regular."""
    by_key_head = {}
    for h in heads:
        by_key_head.setdefault(h // group, []).append(h % group)
    sharing = {}
    for key_head, members in by_key_head.items():
        sharing.setdefault(tuple(members), []).append(key_head)
    return [
        (_slice(*key_heads), _slice(*some))
        for members, alike in sharing.items()
        for key_heads in _progressions(alike)
        for some in _progressions(list(members))
    ]


def _slice(start, step, count):
    return slice(start, start + (count - 1) * step + 1, step)


# --- end ---

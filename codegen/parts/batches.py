"""The torch path's work: the schedule's query-side passes as batches of equal pieces."""

from __future__ import annotations

import torch


def _head_sets(heads): ...
def _tables(inputs, n_q, n, heads, device): ...
def _progressions(heads): ...
def _index(positions, device): ...
def _form(positions): ...
def _moved(positions, distance): ...
def _tiles(run, length): ...
def _tile_length(run, sweep, period, costs): ...
def _Mask(condition, rows, keys, device, spare): ...
def _pieces(rows, sweep, period, n, known, device): ...


_BODIES, _WEIGHTS = (), ()
_LANES = 0

# --- begin ---

# A batch is pieces of one shape whose positions go up in equal steps.

_BUDGET = 1 << 22  # numbers that a batch takes, or scores that are held
_AT_HAND = 1 << 18  # numbers that a thread finds at a time: new memory costs page faults
_MOST_SPARE = 1.5  # times as many keys as are read, in tiles beside each other
_PLANS = {}  # the batches of calls to come, by shapes
_MOST_PLANS = 16


class _Batch:
    """Pieces of one shape: the rows and keys of each, which rows are answered for, and what masks them.

    spare: how many keys before and behind are none of a piece's own.
    """

    def __init__(self, mask):
        self.mask, self.rows, self.keys, self.spare, self.owned = mask, [], [], [], []

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
            x[place[:2]].index_add_(3, torch.cat(list(self.keys)), parts.movedim(1, 3).flatten(3, 4))


class _Alone(_Batch):
    """Queries that have a few keys of their own, as tiles of one query: positions (tiles, 1), (tiles, keys).

    ``edges`` says which of the keys are there.
    """

    def __init__(self, rows, keys, edges):
        super().__init__(_Mask(lambda q, k: edges[:, None, :], rows[:, None], keys, keys.device, ()))
        self.rows, self.keys, self.owned, self.spare = rows, keys, [None], [(0, 0)] * len(rows)

    def even(self):
        """They are already."""


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
        found = waiting.setdefault(kind, _Batch(mask))
        found.rows.append(rows)
        found.keys.append(keys)
        found.spare.append(spare)
        found.owned.append(owned)
        waits += max(len(rows), len(keys)) * work + (len(rows) * len(keys) if callable(mask) else 0)
        if waits > _BUDGET:
            yield from [settled for some in waiting.values() for settled in some.settled(device)]
            waiting, waits = {}, 0
    yield from [settled for some in waiting.values() for settled in some.settled(device)]


def _all_batches(q, k, inputs, costs):
    """Every batch of every pass, and its place: entries, key heads, heads of each. No edge is in two.

    And whether no query is in two, as far as is known. costs: of a score, by queries a tile. Without inputs
    the batches hang on shapes alone, and are kept if they are not too large.
    """
    plan = _plan(q, k, inputs, costs)
    if inputs:
        return plan, False
    key = q.shape, k.shape, q.device, tuple(costs.items())
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
    by_one = alone is not None and alone[1] == by_head
    runs = [run for run in rows(*given) if len(run)] if sweeps or by_one else []
    yield from _batches(_pass_pieces(runs, owned, sweeps, costs, given), work, given[-1])
    # --- only: alone ---
    if by_one:
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

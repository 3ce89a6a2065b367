"""The torch path's positions: sequences of queries or keys, regular or not."""

from __future__ import annotations

import math

import torch

# --- begin ---

# Positions are a `range`, which is taken as a view, or an index tensor, which is gathered.

_WORTH = 64  # keys that are asked about at once, where many hold no edge


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


def _cut_runs(begin, end, weights, ranges, extents, device):
    """As ``_digit_runs``, of digits that are worth ``weights``."""
    sizes = _values(weights)
    last = (end - 1) // weights[0] + 1
    for places in _digit_runs(0, last * math.prod(sizes), sizes, ranges, extents, device):
        found = _uncut(places, weights, device)
        yield found[(found >= begin) & (found < end)]


def _cut_ends(positions, weights):
    """As ``_digit_ends``, of digits that are worth ``weights``."""
    rest, found = _index(positions, None), []
    for weight in weights:
        digit = rest // weight
        rest = rest - weight * digit
        found.append((int(digit.min()), int(digit.max())))
    return found


def _cut_box(low, high, weights, n, device):
    """As ``_digit_box``, of digits that are worth ``weights``."""
    sizes = _values(weights)
    places = _digit_box(low, high, sizes, ((n - 1) // weights[0] + 1) * math.prod(sizes), device)
    found = _uncut(places, weights, device)
    return found[found < n]


def _values(weights):
    """How many values every digit but the first takes."""
    return tuple(-(-weights[i] // weights[i + 1]) for i in range(len(weights) - 1))


def _uncut(places, weights, device):
    """The positions at places that are counted as if every weight divided the one before it.

    Where it does not, some digits that there could be together are no position's: those places are left out.
    """
    rest = _index(places, device)
    found, there = torch.zeros_like(rest), torch.ones_like(rest, dtype=torch.bool)
    for before, weight, size in reversed([*zip(weights[:-1], weights[1:], _values(weights), strict=True)]):
        found = found + weight * (rest % size)
        there = there & (found < before)
        rest = rest // size
    return (found + weights[0] * rest)[there]


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


def _within(positions, low, high):
    """Whether all of the ascending positions lie in ``low..high``."""
    return low <= int(positions[0]) and int(positions[-1]) <= high


def _moved(positions, distance):
    if isinstance(positions, range):
        return range(positions.start + distance, positions.stop + distance, positions.step)
    return positions + distance


def _shifts(n, device):
    """0 and the powers of two below ``n``."""
    powers = [1 << i for i in range(max(n - 1, 0).bit_length())]
    return torch.tensor([0, *powers], device=device)


# --- end ---

"""Relations that a dense mask may be made of: those within it, as large as they go, and those around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

# A rule is believed that was followed this many times.
TIMES = 3
# Positions or offsets that are listed one by one, at most.
LISTED = 16


@dataclass(frozen=True)
class Candidate:
    """A relation as text, what it says at the positions of a mask, and what is to be known about it.

    table: the entries of an input ``bool[n]`` or ``int[n]``, where it needs one; its text then has ``{}``.
    """

    text: str
    edges: Callable[[], Bools]
    note: str = ""
    table: npt.NDArray[np.bool_] | Integers | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """A mask (n_q, n), and what is asked of it again and again.

    space: where edges can be: what is joined by ``&`` with all else.
    """

    mask: Bools
    space: Bools

    @property
    def n(self) -> int:
        return int(self.mask.shape[1])

    @cached_property
    def q(self) -> Integers:
        n_q, n = self.mask.shape
        return np.arange(n - n_q, n)[:, None]

    @cached_property
    def k(self) -> Integers:
        return np.arange(self.n)[None]

    @cached_property
    def missing(self) -> Bools:
        """What is no edge and could be one."""
        return self.space & ~self.mask

    @cached_property
    def distance(self) -> Integers:
        found: Integers = self.q - self.k
        return found

    def near(self, low: int, high: int, step: int = 1) -> Bools:
        """Pairs in a window."""
        found: Bools = (self.distance >= low) & (self.distance <= high) & (self.distance % step == 0)
        return found

    def chunk(self, size: int) -> Bools:
        found: Bools = self.q // size == self.k // size
        return found

    def at(self, word: str, member: Bools) -> Bools:
        """Pairs whose key (``to``) or query (``from``) is in a set."""
        return np.broadcast_to(member[self.k if word == "to" else self.q], self.mask.shape)

    def same(self, document: Integers) -> Bools:
        found: Bools = document[self.q] == document[self.k]
        return found

    def within(self, edges: Bools) -> bool:
        """Whether a relation says nothing that the mask does not."""
        return not (edges & self.missing).any()

    @cached_property
    def full_offsets(self) -> Integers:
        """The offsets ``q - k`` at which every pair is an edge, ascending."""
        n = self.n
        shift = n - 1
        offsets = self.q - self.k + shift
        lacking = np.bincount(offsets[self.missing], minlength=shift + n)
        there = np.bincount(offsets[self.space], minlength=shift + n)
        full: Integers = np.flatnonzero((lacking == 0) & (there > 0)) - shift
        return full

    @cached_property
    def offsets(self) -> Integers:
        """The offsets at which there could be an edge."""
        return np.unique((self.q - self.k)[self.space])

    def full_positions(self, axis: int) -> Integers:
        """Keys that every query reads, or queries that read every key."""
        lacking, there = self.missing.any(axis), self.space.any(axis)
        found = np.flatnonzero(~lacking & there)
        return found + (self.n - self.mask.shape[0]) if axis == 1 else found

    def positions(self, axis: int) -> Integers:
        """Keys that could be read, or queries that could read."""
        found = np.flatnonzero(self.space.any(axis))
        return found + (self.n - self.mask.shape[0]) if axis == 1 else found


def inner(seen: Seen) -> Iterator[Candidate]:
    """Relations within the mask, each as large as it can be; simple ones first."""
    n = seen.n
    for relation, low in (("all", -n), ("causal", 0)):
        edges = partial(seen.near, low, n)
        if seen.within(edges()):
            yield Candidate(relation, edges)
    for low, high in _runs(seen.full_offsets):
        if low < high or low == 0:
            yield Candidate(_window(low, high, seen), partial(seen.near, low, high))
    yield from _sets(seen)
    yield from _chunks(seen)
    yield from _strides(seen)
    yield from _offsets(seen)
    document = _documents(seen.mask)
    if document is not None and seen.within(seen.same(document)):
        yield Candidate("same({})", partial(seen.same, document), _AS_LONG, document)


def outer(seen: Seen) -> Iterator[Candidate]:
    """Relations around the mask, each as small as it can be."""
    n, mask = seen.n, seen.mask
    at_q, at_k = np.nonzero(mask)
    at_q = at_q + (n - mask.shape[0])
    distance = at_q - at_k
    if not distance.size:
        return
    low, high = int(distance.min()), int(distance.max())
    last = n - 1
    if low >= 0:
        yield Candidate("causal", partial(seen.near, 0, n))
    if low < 0 and high <= 0:
        yield Candidate("where q <= k", partial(seen.near, -n, 0))
    edges = partial(seen.near, low, high)
    if low <= 0 <= high < last and -low < last:
        yield Candidate(_window(low, high, seen), edges)
    elif low <= 0 < high < last:
        yield Candidate(f"where q - k <= {high}", partial(seen.near, -n, high))
    elif low > 0 or high < 0:
        yield Candidate(f"where {low} <= q - k <= {high}", edges)
    step = int(np.gcd.reduce(np.abs(distance)))
    if step > 1:
        yield Candidate(f"stride({step})", partial(seen.near, -n, n, step))
    size = next((size for size in range(2, n) if (at_q // size == at_k // size).all()), None)
    if size is not None:
        yield Candidate(f"chunk({size})", partial(seen.chunk, size), _shown(-(-n // size)))
    document = _documents(mask)
    if document is not None:
        yield Candidate("same({})", partial(seen.same, document), _AS_LONG, document)
    for word, axis, places in (("to", 0, at_k), ("from", 1, at_q)):
        positions = np.unique(places)
        if len(positions) < len(seen.positions(axis)):
            yield _named_set(word, positions, seen)


_AS_LONG = "documents are an input, as long as they were seen"


# --- one by one -----------------------------------------------------------------------------------------


def _shown(times: int) -> str:
    return f"only {times} chunks were seen" if times < TIMES else ""


def _window(low: int, high: int, seen: Seen, step: int = 1) -> str:
    """A run of offsets as a window, open where the mask ends."""
    first, last = int(seen.offsets[0]), int(seen.offsets[-1])
    dilation = f", dilation={step}" if step > 1 else ""
    if low == high == 0:
        return "self"
    if low <= 0 <= high:
        right = f", {-low // step}" if low < 0 else ""
        return f"window({high // step}{right}{dilation})"
    if high == last:
        return f"where q - k >= {low}"
    return f"where q - k <= {high}" if low == first else f"where {low} <= q - k <= {high}"


def _runs(values: Integers) -> list[tuple[int, int]]:
    """First and last of every unbroken run of ascending integers."""
    if not values.size:
        return []
    breaks = np.flatnonzero(np.diff(values) != 1)
    starts = values[np.concatenate(([0], breaks + 1))]
    ends = values[np.concatenate((breaks, [len(values) - 1]))]
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _strides(seen: Seen) -> Iterator[Candidate]:
    n, full = seen.n, set(seen.full_offsets.tolist())
    if 0 not in full:
        return
    offsets = seen.offsets
    for step in range(2, n // TIMES + 1):
        if full.issuperset(offsets[offsets % step == 0].tolist()):
            yield Candidate(f"stride({step})", partial(seen.near, -n, n, step))
            continue
        low = high = 0
        while high + step in full:
            high += step
        while low - step in full:
            low -= step
        if (high - low) // step >= TIMES - 1:
            yield Candidate(_window(low, high, seen, step), partial(seen.near, low, high, step))


def _offsets(seen: Seen) -> Iterator[Candidate]:
    full = seen.full_offsets
    powers = [0, *(1 << bit for bit in range(seen.n.bit_length()))]
    powers = [offset for offset in powers if offset <= seen.offsets.max(initial=-1)]
    if len(powers) > TIMES + 1 and np.isin(powers, full).all():
        yield Candidate("offsets(powers(2))", partial(np.isin, seen.distance, powers))
    single = [low for low, high in _runs(full) if low == high]
    if 0 < len(single) <= LISTED:
        listed = ", ".join(map(str, single))
        yield Candidate(f"offsets({{{listed}}})", partial(np.isin, seen.distance, single))


def _chunks(seen: Seen) -> Iterator[Candidate]:
    """Chunks that lie within the mask whole; every size is tried, by sums over rectangles."""
    n_q, n = seen.mask.shape
    sums = np.zeros((n_q + 1, n + 1), dtype=np.int64)
    sums[1:, 1:] = seen.missing.cumsum(0).cumsum(1)
    first = n - n_q
    for size in range(n - 1, 1, -1):
        starts = np.arange(first // size * size, n, size)
        ends = np.minimum(starts + size, n)
        top, bottom = np.maximum(starts - first, 0), ends - first
        inside = sums[bottom, ends] - sums[top, ends] - sums[bottom, starts] + sums[top, starts]
        if not inside.any():
            yield Candidate(f"chunk({size})", partial(seen.chunk, size), _shown(-(-n // size)))


def _sets(seen: Seen) -> Iterator[Candidate]:
    for word, axis in (("to", 0), ("from", 1)):
        found = seen.full_positions(axis)
        if found.size and len(found) < len(seen.positions(axis)):
            yield from _plain_sets(word, found, seen)
            yield _named_set(word, found, seen)


def _plain_sets(word: str, found: Integers, seen: Seen) -> Iterator[Candidate]:
    """Sets with a rule that lie within those found."""
    n, members = seen.n, _member(found, seen)
    first = n - seen.mask.shape[0] if word == "from" else 0
    for low, high in _runs(found):
        if low == 0:
            yield _set(word, f"first({high + 1})", np.arange(high + 1), seen)
        if high == n - 1:
            yield _set(word, f"last({n - low})", np.arange(low, n), seen)
    for step in range(2, n // TIMES + 1):
        for offset in range(step):
            if members[offset::step][-(-max(first - offset, 0) // step) :].all():
                yield _set(word, _every(step, offset), np.arange(offset, n, step), seen)


def _every(step: int, offset: int) -> str:
    return f"every({step}, {offset})" if offset else f"every({step})"


def _member(positions: Integers, seen: Seen) -> Bools:
    member = np.zeros(seen.n, dtype=np.bool_)
    member[positions] = True
    return member


def _set(word: str, text: str, positions: Integers, seen: Seen, note: str = "") -> Candidate:
    return Candidate(f"{word}({text})", partial(seen.at, word, _member(positions, seen)), note)


def _named_set(word: str, found: Integers, seen: Seen) -> Candidate:
    """A set in the shortest words: a prefix, a suffix, every so many, a list, or else an input."""
    n = seen.n
    (low, high), *more = _runs(found)
    if not more and low == 0:
        return _set(word, f"first({high + 1})", found, seen)
    if not more and high == n - 1:
        return _set(word, f"last({n - low})", found, seen)
    step = int(found[1] - found[0]) if len(found) >= TIMES else n
    if np.array_equal(found, np.arange(found[0] % step, n, step)):
        return _set(word, _every(step, int(found[0] % step)), found, seen)
    others = np.setdiff1d(np.arange(n), found)
    listed, sign = (others, "!") if len(others) < len(found) else (found, "")
    edges = partial(seen.at, word, _member(found, seen))
    if len(listed) <= LISTED:
        text = f"{sign}{word}({{{', '.join(map(str, listed.tolist()))}}})"
        return Candidate(text, edges, "positions are listed as they were seen")
    return Candidate(
        f"{word}({{}})", edges, "positions are an input, as they were seen", _member(found, seen)
    )


def _documents(mask: Bools) -> Integers | None:
    """Every token's document, if several show in which tokens next to each other are linked."""
    n_q, n = mask.shape
    if n_q != n:
        return None
    # An edge links all that lies between its ends.
    rows, columns = np.nonzero(mask)
    reach = np.zeros(n, dtype=np.int64)
    np.add.at(reach, np.minimum(rows, columns), 1)
    np.add.at(reach, np.maximum(rows, columns), -1)
    document: Integers = np.concatenate(([0], np.cumsum(reach.cumsum()[: n - 1] == 0)))
    lengths = np.bincount(document)
    return document if 1 < len(lengths) < n and lengths.max() > 1 else None

"""``from_mask``: the pattern that a dense mask follows, held against it edge by edge; or a list of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnc import runtime
from attnc.masks.bound import BoundPattern, Size, Table
from attnc.masks.candidates import Bools, Candidate, Seen, inner, outer
from attnc.names import refusal

LARGEST = 1 << 24
# More parts than these are no rule, but a description.
MOST_PARTS = 6
MOST_BLOCK = 128


def from_mask(mask: Any, *, name: str = "recognised") -> BoundPattern:
    """A pattern that holds for a dense mask: the rule that it follows, or else a list of its blocks.

    mask: a tensor or array of booleans, (n_q, n) or (heads, n_q, n), True where a query reads a key; with
        fewer queries than keys the queries are the last positions.
    name: of the pattern.

    Windows, dilated ones, causality, strides, chunks, documents, neighbourhoods of a grid, prefixes, sets of
    tokens that read or are read by all, lists of distances, their unions, what is common to some of them, and
    all of that between blocks are recognised, for heads together or apart. What was recognised has been held
    against the mask by ``attnc.mask``, edge by edge. ``.notes`` says what the mask shows of it and what it
    cannot: a mask of one length shows no other length.

    Raises ``TypeError`` for what is no mask of booleans, ``ValueError`` for other shapes, and for masks of
    more than 2**24 entries, of which a part is enough to recognise a rule.
    """
    edges = _checked(mask)
    if why := refusal(name, "pattern") if isinstance(name, str) and name.isidentifier() else "it is no name":
        raise TypeError(f"a pattern cannot be called {name!r:.60}: {why}")
    heads, n_q, n = edges.shape
    groups: dict[bytes, list[int]] = {}
    for head in range(heads):
        groups.setdefault(np.packbits(edges[head]).tobytes(), []).append(head)
    tables: dict[str, Table] = {}
    notes: dict[str, None] = {}
    bodies = []
    for members in groups.values():
        found = _found(edges[members[0]])
        text = _bound(found, tables)
        bodies.append((members, text))
        notes.update(dict.fromkeys(note for note in found.notes if note))
    told = [f"held against the mask of {n} keys, edge by edge; other lengths are taken to go on alike"]
    if n_q < n:
        told.append(f"only the last {n_q} queries of {n} were seen")
    if len(bodies) > 1:
        told.append(f"{heads} heads were seen; a call with others is refused or read by the same rule")
    lines = [table.declared(table_name) for table_name, table in tables.items()]
    width = {found_width for _, text in bodies for found_width in _widths(text)}
    if len(width) > 1:  # a pattern has one grid
        return _listed(edges, name)
    if width:
        (columns,) = width
        lines.append(f"grid(y: {max(1, -(-n // columns))}, x: {columns})")
    lines += [""] if lines else []
    if len(bodies) == 1:
        lines.append(f"attend {_plain(bodies[0][1])}")
    else:
        lines += [
            f"heads {_selector(members, bodies, heads)} {{ attend {_plain(text)} }}"
            for members, text in bodies
        ]
    made = BoundPattern(_source(name, n, lines), name, tables, (*told, *notes))
    if not np.array_equal(_mask_of(made, n, heads, n_q), edges):
        return _listed(edges, name)  # never a rule that does not hold
    return made


def _checked(mask: Any) -> Bools:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().numpy() if mask.dtype == torch.bool else mask
    dtype = getattr(mask, "dtype", None)
    if dtype is None or str(dtype) != "bool":
        told = f"one of {dtype}" if dtype is not None else type(mask).__name__
        raise TypeError(
            f"from_mask takes a tensor or array of booleans, True where a query reads a key; got {told}. "
            "Of a mask that is added to scores, give `mask == 0`"
        )
    edges: Bools = np.asarray(mask)
    if edges.ndim not in (2, 3):
        raise ValueError(
            f"from_mask takes (n_q, n) or (heads, n_q, n); got {tuple(edges.shape)}. Of a batch, give "
            "one entry: `mask[0]`"
        )
    edges = edges if edges.ndim == 3 else edges[None]
    if 0 in edges.shape:
        raise ValueError(f"a mask of shape {tuple(edges.shape)} has no entries that could be recognised")
    if edges.shape[1] > edges.shape[2]:
        raise ValueError(
            f"queries are the last of the keys' positions, so a mask has no more queries ({edges.shape[1]}) "
            f"than keys ({edges.shape[2]})"
        )
    if edges.size > LARGEST:
        raise ValueError(
            f"a mask of {edges.size} entries is too large to be looked at; up to {LARGEST} are, and a rule "
            "shows in fewer: give a part, `mask[..., :512, :512]`"
        )
    return edges


# --- rules ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A relation with its tables in the order of its ``{}``, and what is to be said about it."""

    text: str
    tables: tuple[tuple[Any, tuple[Size, ...], str], ...] = ()
    notes: tuple[str, ...] = ()


def _found(edges: Bools) -> _Found:
    return _rule(edges) or _grid(edges) or _blocks(edges) or _list(edges)


def _rule(edges: Bools) -> _Found | None:
    """A union, within what lies around the mask."""
    if not edges.any():
        return _Found("none")
    everywhere = np.ones(edges.shape, dtype=np.bool_)
    seen = Seen(edges, everywhere)
    around = list(outer(seen))
    causal = [item for item in around if item.text == "causal"]
    common = _needed(around, edges, everywhere)
    if common is not None and (len(common) == 1 or not _simple(seen, causal)):
        return _joined([], common, seen)
    for within in ([], causal, around) if not causal else (causal, around):
        space = everywhere.copy()
        for item in within:
            space &= item.edges()
        parts = _cover(Seen(edges, space))
        if parts is not None:
            kept = _around(parts, within, edges)
            return _joined(parts, kept, seen)
    return None if common is None else _joined([], common, seen)


def _simple(seen: Seen, causal: list[Candidate]) -> bool:
    """Whether one relation, causal or not, says it all."""
    space = causal[0].edges() if causal else seen.space
    parts = _cover(Seen(seen.mask, space))
    return parts is not None and len(parts) == 1


def _needed(around: list[Candidate], edges: Bools, everywhere: Bools) -> list[Candidate] | None:
    """Relations whose common part is the mask, without those that nothing hangs on."""

    def common(items: list[Candidate]) -> Bools:
        left = everywhere.copy()
        for item in items:
            left &= item.edges()
        return left

    if not np.array_equal(common(around), edges):
        return None
    kept = list(around)
    for item in sorted(around, key=lambda item: -_clumsiness(item)):
        fewer = [other for other in kept if other is not item]
        if np.array_equal(common(fewer), edges):
            kept = fewer
    return kept


def _clumsiness(item: Candidate) -> int:
    """What is given up first: what brings a table, then lists and conditions, and at last what has a name."""
    return 3 if item.table is not None else 2 if "{" in item.text else 1 if "where" in item.text else 0


def _cover(seen: Seen) -> list[Candidate] | None:
    """A few relations within the mask that have all of its edges between them."""
    options = [(item, item.edges() & seen.mask) for item in inner(seen)]
    for most in range(4):  # rules first, lists only where there are none
        found = _chosen([option for option in options if _clumsiness(option[0]) <= most], seen)
        if found is not None:
            return found
    return None


def _chosen(options: list[tuple[Candidate, Bools]], seen: Seen) -> list[Candidate] | None:
    left = seen.mask.copy()
    chosen: list[tuple[Candidate, Bools]] = []
    while left.any():
        if len(chosen) == MOST_PARTS or not options:
            return None
        best = max(options, key=lambda option: (int((option[1] & left).sum()), -_clumsiness(option[0])))
        if not (best[1] & left).any():
            return None
        chosen.append(best)
        left &= ~best[1]
    for item in list(chosen):
        others = np.zeros_like(left)
        for other in chosen:
            if other is not item:
                others |= other[1]
        if len(chosen) > 1 and np.array_equal(others & seen.mask, seen.mask):
            chosen.remove(item)
    order = [option[0] for option in options]
    return sorted((item for item, _ in chosen), key=order.index)


def _around(parts: list[Candidate], within: list[Candidate], edges: Bools) -> list[Candidate]:
    """Which of the relations around are needed, given the parts of the union."""
    union = np.zeros_like(edges)
    for part in parts:
        union |= part.edges()
    kept = list(within)
    for item in sorted(within, key=lambda item: -_clumsiness(item)):
        left = union.copy()
        for other in kept:
            if other is not item:
                left &= other.edges()
        if np.array_equal(left, edges):
            kept = [other for other in kept if other is not item]
    return kept


def _joined(parts: list[Candidate], around: list[Candidate], seen: Seen) -> _Found:
    union = " | ".join(item.text for item in parts)
    pieces = [f"({union})" if len(parts) > 1 and around else union] if parts else []
    # `window(5) & causal` is `window(5)`, and a condition goes on until an operator: it stands last.
    rest = sorted(
        (item.text for item in around), key=lambda text: (text.startswith("where"), text == "causal")
    )
    tables = [item.table for item in (*parts, *_in_order(around)) if item.table is not None]
    notes = [item.note for item in (*parts, *around)]
    text = " & ".join([*pieces, *rest]) or "all"
    return _Found(
        text, tuple((table, ("n",), _called(table)) for table in tables), (*notes, *_limits(text, seen))
    )


def _in_order(around: list[Candidate]) -> list[Candidate]:
    return sorted(around, key=lambda item: (item.text.startswith("where"), item.text == "causal"))


def _called(table: Any) -> str:
    return "document" if table.dtype != np.bool_ else "marked"


def _limits(text: str, seen: Seen) -> list[str]:
    """What a mask of this length cannot show."""
    found = []
    if "causal" in text and "window" not in text:
        found.append(f"`causal` may be a window of {seen.n} keys or more: no distance beyond was seen")
    if "last(" in text:
        found.append("`last` counts from the end, wherever that is")
    return found


# --- grids and blocks -----------------------------------------------------------------------------------


def _grid(edges: Bools) -> _Found | None:
    """A rectangle around every token of a grid, or squares that it is cut into."""
    n_q, n = edges.shape
    if n_q != n:
        return None
    at_q, at_k = np.nonzero(edges)
    for width in range(2, n // 2 + 1):
        if n % width:
            continue
        y, x = np.divmod(np.arange(n), width)
        rows, columns = y[at_q] - y[at_k], x[at_q] - x[at_k]
        sides = []
        inside = np.ones((n, n), dtype=np.bool_)
        for axis, distance, place in (("y", rows, y), ("x", columns, x)):
            low, high = int(distance.min()), int(distance.max())
            if low > 0 or high < 0:
                break
            apart = place[:, None] - place[None]
            if high < place.max() or -low < place.max():
                right = f", {-low}" if low else ""
                sides.append(f"window({high}{right}, axis={axis})")
                inside &= (apart <= high) & (apart >= low)
        if len(sides) == 2 and np.array_equal(inside, edges):
            note = f"a grid of {n // width} rows of {width} tokens was seen, and a rectangle in it"
            return _Found(f"{' & '.join(sides)}{_WIDTH}{width}", (), (note,))
        sizes = [_square(place[at_q], place[at_k]) for place in (y, x)]
        if None not in sizes:
            cut = [place // size for place, size in zip((y, x), sizes, strict=True)]
            inside = np.logical_and(*(part[:, None] == part[None] for part in cut))
            if np.array_equal(inside, edges):
                text = f"chunk({sizes[0]}, axis=y) & chunk({sizes[1]}, axis=x)"
                return _Found(f"{text}{_WIDTH}{width}", (), (f"a grid of rows of {width} tokens was seen",))
    return None


_WIDTH = "\0"


def _square(one: Any, other: Any) -> int | None:
    for size in range(1, int(max(one.max(), other.max())) + 1):
        if (one // size == other // size).all():
            return size
    return None


def _widths(text: str) -> set[int]:
    return {int(part) for part in text.split(_WIDTH)[1:]}


def _plain(text: str) -> str:
    return text.split(_WIDTH)[0]


def _block_size(edges: Bools) -> int:
    """The largest power of two such that blocks of it, counted from the first key, are all or nothing."""
    n_q, n = edges.shape
    if n_q != n:
        return 1
    size = 1
    while size * 2 <= min(n // 2, MOST_BLOCK):
        starts = np.arange(0, n, size * 2)
        some = np.logical_or.reduceat(np.logical_or.reduceat(edges, starts, 0), starts, 1)
        every = np.logical_and.reduceat(np.logical_and.reduceat(edges, starts, 0), starts, 1)
        if not np.array_equal(some, every):
            break
        size *= 2
    return size


def _blocks(edges: Bools) -> _Found | None:
    """A rule between blocks."""
    size = _block_size(edges)
    if size == 1:
        return None
    found = _rule(edges[::size, ::size])
    if found is None or found.tables:
        return None
    return _Found(f"blocks({size}, {found.text})", (), found.notes)


def _list(edges: Bools) -> _Found:
    """Whatever it is, as a table of blocks."""
    n_q, n = edges.shape
    size = _block_size(edges)
    whole = np.zeros((n, n), dtype=np.bool_)
    whole[n - n_q :] = edges
    places = "q, k" if size == 1 else f"q // {size}, k // {size}"
    axis: Size = "n" if size == 1 else ("block", size)
    note = (
        f"no rule was recognised: edges are listed by blocks of {size} x {size} tokens, for {n} keys alone, "
        "and every tile between the outermost edges of a row is computed"
    )
    return _Found(f"where {{}}[{places}]", ((whole[::size, ::size], (axis, axis), "block"),), (note,))


def _listed(edges: Bools, name: str) -> BoundPattern:
    """Every head as a list of blocks."""
    heads, _, n = edges.shape
    tables: dict[str, Table] = {}
    lines = []
    notes: list[str] = []
    for head in range(heads):
        found = _list(edges[head])
        text = _bound(found, tables)
        lines.append(f"attend {text}" if heads == 1 else f"heads {{{head}}} {{ attend {text} }}")
        notes += found.notes
    declared = [table.declared(table_name) for table_name, table in tables.items()]
    return BoundPattern(_source(name, n, [*declared, "", *lines]), name, tables, tuple(dict.fromkeys(notes)))


# --- text -----------------------------------------------------------------------------------------------


def _bound(found: _Found, tables: dict[str, Table]) -> str:
    """The relation with its tables named and kept."""
    text = found.text
    for entries, sizes, wish in found.tables:
        table_name, number = wish, 2
        while table_name in tables:
            table_name, number = f"{wish}_{number}", number + 1
        tables[table_name] = Table(torch.from_numpy(np.ascontiguousarray(entries)), sizes)
        text = text.replace("{}", table_name, 1)
    return text


def _selector(members: list[int], bodies: Sequence[tuple[list[int], str]], heads: int) -> str:
    if len(bodies) == 2 and heads > 2 and members == list(range(members[0], heads, 2)):
        return "odd" if members[0] else "even"
    first, last = members[0], members[-1]
    if len(members) > 1 and members == list(range(first, last + 1)):
        return f"{first}..{last + 1}"
    return f"{{{', '.join(map(str, members))}}}"


def _source(name: str, n: int, lines: list[str]) -> str:
    inside = "".join(f"    {line}".rstrip() + "\n" for line in lines)
    return f"# Recognised in a mask of {n} keys.\npattern {name}() {{\n{inside}}}\n"


def _mask_of(made: BoundPattern, n: int, heads: int, n_q: int) -> Bools:
    found: Bools = runtime.mask(made.source, n, heads, inputs=made.inputs(n), n_q=n_q).numpy()
    return found

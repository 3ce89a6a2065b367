"""``from_mask_mod``: a FlexAttention mask function as a pattern."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from attnc import real
from attnc.expression import (
    HEAD,
    HEADS,
    TRUE,
    Const,
    Expr,
    FloorDiv,
    K,
    Lookup,
    Q,
    Var,
    add,
    children,
    conj,
    fold,
    le,
    lt,
    minimum,
    rebuild,
    select,
    walk,
)
from attnc.masks.bodies import words
from attnc.masks.bound import BoundPattern, Size, Table
from attnc.masks.places import refuse_function
from attnc.masks.scores import said
from attnc.masks.tidying import tidy
from attnc.masks.tracing import BATCH, trace, trace_score
from attnc.names import FUNCTIONS, RELATIONS, RESERVED, SETS, refusal
from attnc.relation import POSITIONS
from attnc.solver import valid

MaskMod = Callable[[Any, Any, Any, Any], Any]
ScoreMod = Callable[[Any, Any, Any, Any, Any], Any]


def from_mask_mod(
    fn: MaskMod | None = None,
    *,
    score_mod: ScoreMod | None = None,
    n: int | None = None,
    name: str | None = None,
) -> BoundPattern:
    """The pattern that a FlexAttention ``mask_mod(b, h, q_idx, kv_idx)`` says.

    fn: the function; also several, joined by ``and_masks`` and ``or_masks``. It is run once, on symbols in
        the place of positions. Whole numbers that it closes over become numbers of the pattern, tensors its
        inputs: those read at ``b`` first have a batch axis. What it does to positions must be known to
        patterns: ``+ - * // %``, ``abs``, ``torch.minimum``, ``torch.maximum``, ``torch.where``, comparisons,
        ``& | ~ ^``, and tensors of integers or booleans read at a position. None for all pairs,
        where there is a ``score_mod``.
    score_mod: ``score_mod(score, b, h, q_idx, kv_idx)``, which changes scores: with ``+ - * /``, ``abs``,
        ``torch.minimum``, ``torch.maximum``, ``exp``, ``exp2``, ``log``, ``log2``, ``sqrt``, ``tanh``,
        ``sigmoid``, ``softplus``, ``relu``, ``elu``, ``sin``, ``cos``, ``torch.where``, and tensors of
        fractions read at positions, which get gradients. Minus infinity takes an edge out. As in torch a
        negative index counts from behind; where torch would raise an error, because an index is outside, the
        entry at the border is read, which ``.notes`` says.
    n: the number of keys that the function was written for, if it knows one: the tensors that it reads are
        then held against it at once.
    name: of the pattern; the function's own by default.

    Gives an attention function, ``pattern(q, k, v)``, that brings the function's tensors with it; others can
    be given by their names. ``.source`` is the pattern as the text of a ``.attn`` file. With fewer queries
    than keys, the queries are the last positions, where FlexAttention counts them from 0.

    Raises ``AttncError`` with the place in the function's file for what cannot be read without a value (``if
    q_idx > k``, ``and``, ``or``, ``not``, chains of comparisons) or is not known to patterns, and what
    ``attnc.load`` raises when the pattern does not compile. ``TypeError`` for what is no function, ``n`` that
    is no integer, and a name that patterns cannot have.
    """
    if not callable(fn) and (fn is not None or score_mod is None):
        raise TypeError(f"from_mask_mod takes a function of (b, h, q_idx, kv_idx); got {fn!r:.80}")
    if score_mod is not None and not callable(score_mod):
        raise TypeError(
            f"`score_mod` must be a function of (score, b, h, q_idx, kv_idx); got {score_mod!r:.80}"
        )
    _check_arguments(fn, "(b, h, q_idx, kv_idx)")
    _check_arguments(score_mod, "(score, b, h, q_idx, kv_idx)")
    length = None if n is None else operator.index(n)
    if name is not None and (why := _unfit(name, "pattern")):
        raise TypeError(f"a pattern cannot be called {name!r:.60}: {why}")
    tables = _Tables(length)
    condition: Expr = TRUE
    score = ""
    if fn is not None:
        condition, tensors = trace(fn)
        condition = tables.settled(fn, tensors, tidy(condition))
    if score_mod is not None:
        changed, edges, tensors = trace_score(score_mod)
        condition = conj(condition, tables.settled(score_mod, tensors, tidy(edges)))
        changed = tables.settled_score(score_mod, tensors, changed, condition)
        score = "" if changed == real.S else f" score {said(changed)}"
    own = name or _fit(_own_name(score_mod if fn is None else fn), "pattern", "mask_mod", set(tables.found))
    text = _text(own, condition, score, tables.found, length)
    return BoundPattern(text, own, tables.found, tuple(tables.notes.values()))


def _check_arguments(function: Callable[..., Any] | None, wanted: str) -> None:
    """Raises ``TypeError`` for a function that cannot be called with what it will be called with."""
    if function is None:
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables have none that could be asked for
        return
    try:
        signature.bind(*wanted.split(","))
    except TypeError as error:
        called = getattr(function, "__name__", function)
        raise TypeError(
            f"`{called}` must take {wanted}, as FlexAttention calls it, and takes {signature}: {error}"
        ) from None


def _text(name: str, condition: Expr, score: str, tables: dict[str, Table], n: int | None) -> str:
    body = words(condition, score)
    lines = [table.declared(name) for name, table in tables.items()]
    if body.width is not None:
        height = body.width if n is None else max(1, -(-n // body.width))
        lines.append(f"grid(y: {height}, x: {body.width})")
    if lines:
        lines.append("")
    inside = "".join(f"    {line}".rstrip() + "\n" for line in (*lines, *body.lines))
    return f"# Read from a mask function.\npattern {name}() {{\n{inside}}}\n"


# --- tables ---------------------------------------------------------------------------------------------


class _Tables:
    """Gives the tensors that were read their names, and the axes of each their sizes."""

    def __init__(self, n: int | None) -> None:
        self.n = n
        self.function: Callable[..., Any] = tidy
        self.tensors: dict[str, torch.Tensor] = {}
        self.wanted: dict[int, str] = {}
        self.found: dict[str, Table] = {}
        self.names: dict[tuple[bool, tuple[int, ...]], str] = {}
        self.whole: set[tuple[str, int]] = set()  # tables that are read from behind, and the axis
        self.notes: dict[str, str] = {}

    def settled(self, function: Callable[..., Any], tensors: dict[str, torch.Tensor], expr: Expr) -> Expr:
        """An expression of what a function was traced to, with the names that tables have in the pattern."""
        self.function, self.tensors = function, tensors
        self.wanted |= {id(tensor): name for name, tensor in _closed_over(function)}
        return self._without_batch(self._named(expr))

    def settled_score(
        self, function: Callable[..., Any], tensors: dict[str, torch.Tensor], score: real.Real, edges: Expr
    ) -> real.Real:
        """The same of a score. An index that is negative at an edge counts from behind, as in torch."""
        self.function, self.tensors = function, tensors

        def entry(part: real.Real) -> real.Real | None:
            if not isinstance(part, real.Entry):
                return None
            found = self._named(Lookup(part.table, part.index, "float"))
            assert isinstance(found, Lookup)
            places = tuple(map(self._without_batch, found.index))
            return real.Entry(found.table, self._from_behind(found.table, places, edges))

        return self._within(real.rebuilt(score, entry, lambda expr: self._without_batch(self._named(expr))))

    def _within(self, score: real.Real) -> real.Real:
        """Positions within axes that have not an entry for each, because they are read from behind, too."""

        def entry(part: real.Real) -> real.Real | None:
            if not isinstance(part, real.Entry):
                return None
            sizes = self.found[part.table].sizes
            return real.Entry(
                part.table,
                tuple(
                    minimum(place, size - 1) if place in (Q, K, HEAD) and isinstance(size, int) else place
                    for place, size in zip(part.index, sizes, strict=True)
                ),
            )

        return real.rebuilt(score, entry, lambda expr: expr)

    def _from_behind(self, name: str, places: tuple[Expr, ...], edges: Expr) -> tuple[Expr, ...]:
        table = self.found[name]
        among = [POSITIONS, conj(le(0, HEAD), lt(HEAD, HEADS)), fold(edges)]
        found: list[Expr] = []
        for axis, (place, extent) in enumerate(
            zip(places, table.tensor.shape[int(table.batched) :], strict=True)
        ):
            if place in (Q, K, HEAD):
                found.append(place)
                continue
            inside = conj(le(-int(extent), place), lt(place, int(extent)))
            if valid(inside, among).outcome != "proven":
                self.notes[name] = (
                    f"`{name}` may be read outside of its {extent} entries: torch raises an error there, and "
                    "here it is the entry at the border"
                )
            if valid(le(0, place), among).outcome != "proven":
                always = valid(lt(place, 0), among).outcome == "proven"
                behind = add(place, int(extent))
                place = behind if always else select(lt(place, 0), behind, place)
                self.whole.add((name, axis))
            found.append(place)
        self.found[name] = replace(table, sizes=self._sizes(name, table.sizes, table))
        return tuple(found)

    def _sizes(self, name: str, sizes: tuple[Size, ...], table: Table) -> tuple[Size, ...]:
        """Tables that are read from behind are never cut to the number of keys."""
        extents = table.tensor.shape[int(table.batched) :]
        return tuple(
            int(extent) if (name, axis) in self.whole else size
            for axis, (size, extent) in enumerate(zip(sizes, extents, strict=True))
        )

    def _without_batch(self, expr: Expr) -> Expr:
        if BATCH in set(walk(expr)):
            refuse_function(
                self.function,
                "it hangs on the number of the batch entry, which patterns do not know",
                "let it read a tensor at `b`, with an entry for every one: `allowed[b]`",
            )
        return expr

    def _named(self, expr: Expr) -> Expr:
        if isinstance(expr, Lookup):
            return self._lookup(expr)
        parts = children(expr)
        return rebuild(expr, tuple(map(self._named, parts))) if parts else expr

    def _lookup(self, lookup: Lookup) -> Expr:
        key, tensor, places = self._composed(lookup)
        batched = bool(places) and places[0] == BATCH
        if batched:
            places = places[1:]
        if any(isinstance(part, Lookup) for place in places for part in walk(place)):
            refuse_function(
                self.function,
                "a tensor is read at a place that is computed from another tensor's entries",
                "read one at the other outside of the function, `joined = table[other]`, and `joined` inside",
            )
        if any(BATCH in set(walk(place)) for place in places):
            refuse_function(
                self.function,
                "a tensor is read at `b` in an axis that is not its first",
                "make the batch its first axis: `table[b, …]`",
            )
        if not places or (places == (Const(0),) and tensor.dim() == int(batched)):
            places, tensor = (Const(0),), tensor.unsqueeze(-1)
        name = self.names.get((batched, key))
        if name is None:
            wish = "_of_".join(self.wanted.get(part, "table") for part in key)
            name = self.names[batched, key] = _fit(wish, "input", "table", set(self.found))
        sizes = tuple(
            _size(place, int(extent))
            for place, extent in zip(places, tensor.shape[int(batched) :], strict=True)
        )
        earlier = self.found.get(name)
        if earlier is not None:
            sizes = tuple(max(pair, key=_rank) for pair in zip(earlier.sizes, sizes, strict=True))
        made = Table(tensor, sizes, batched)
        self.found[name] = replace(made, sizes=self._sizes(name, sizes, made))
        if self.n is not None:
            self.found[name].cut(name, self.n, tensor.device)
        return Lookup(name, places, lookup.kind)

    def _composed(self, lookup: Lookup) -> tuple[tuple[int, ...], torch.Tensor, tuple[Expr, ...]]:
        """The tensors that an entry comes from, by id; one tensor in their place; and its place there."""
        tensor = self.tensors[lookup.table]
        own = id(tensor)
        match lookup.index:
            case (Lookup() as inner,):
                names, positions, places = self._composed(inner)
                return (own, *names), tensor[positions.long()], places
            case (Var("b"), Lookup() as inner) if inner.index[0] == BATCH:
                names, positions, places = self._composed(inner)
                rows = torch.arange(len(positions)).view(-1, *[1] * (positions.dim() - 1))
                return (own, *names), tensor[rows.to(positions.device), positions.long()], places
        return (own,), tensor, lookup.index


def _rank(size: Size) -> int:
    """Of what an axis is read at, positions say most about its size."""
    return 3 if size == "n" else 2 if size == "H" else 1 if isinstance(size, tuple) else 0


def _size(place: Expr, extent: int) -> Size:
    if place == HEAD:
        return "H"
    match place:
        case FloorDiv(Var("q" | "k"), Const(size)) if size > 1:
            return "block", size
    return "n" if place in (Q, K) else extent


# --- names ----------------------------------------------------------------------------------------------


def _own_name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", "mask_mod"))


def _unfit(name: str, role: str) -> str | None:
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        return "names are made of letters, digits and `_`"
    if name in (*RESERVED, *SETS, *FUNCTIONS, *RELATIONS) and name != "causal":
        return "it is a word of the language"
    return refusal(name, role)


def _fit(name: str, role: str, instead: str, taken: set[str]) -> str:
    """The name itself where patterns can have it, else one that is close."""
    name = name if name.isidentifier() and name.isascii() else instead
    name = name.strip("_") or instead
    if _unfit(name, role):
        name = f"{name}_table" if role == "input" else f"{name}_mask"
    if _unfit(name, role):
        name = instead
    fresh, number = name, 2
    while fresh in taken:
        fresh, number = f"{name}_{number}", number + 1
    return fresh


def _closed_over(function: Any, depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a function, or one within it, closes over, with the names that they have there."""
    if depth > 8:
        return
    if isinstance(function, functools.partial):
        yield from _held("table", (function.args, *function.keywords.items()), depth)
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:
        for name, value in getattr(function, "__dict__", {}).items():
            yield from _held(name, value, depth)
        return
    bound = getattr(function, "__self__", None)
    if hasattr(bound, "__dict__"):
        for name, value in vars(bound).items():
            yield from _held(name, value, depth)
    for name, cell in zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=False):
        try:
            yield from _held(name, cell.cell_contents, depth)
        except ValueError:  # not filled yet
            continue
    arguments = code.co_varnames[: code.co_argcount]
    defaults = getattr(function, "__defaults__", None) or ()
    for name, value in zip(arguments[::-1], defaults[::-1], strict=False):
        yield from _held(name, value, depth)
    for name in code.co_names:
        if name in getattr(function, "__globals__", {}):
            yield from _held(name, function.__globals__[name], depth)


def _held(name: str, value: Any, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (tuple, list)) and len(value) <= 64:
        for part in value:
            yield from _held(name, part, depth + 1)
    elif callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") != "torch":
        yield from _closed_over(value, depth + 1)

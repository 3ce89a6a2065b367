"""Expressions as text of either path: by what names tables, draws and the ends of tiles go there."""

from __future__ import annotations

import re
from dataclasses import replace

from attnc.codegen.needs import Draw, Names, identifier
from attnc.codegen.printer import Printer
from attnc.codegen.real_text import RealPrinter
from attnc.evaluation import farthest
from attnc.expression import (
    Drawn,
    Expr,
    Lookup,
    Max,
    Min,
    Sum,
    TileMax,
    TileMin,
    Var,
    fold,
    substitute,
    tables,
    variables,
    walk,
)
from attnc.pattern import Input
from attnc.real import Coordinate, Entry, Real, Score, everywhere
from attnc.schedule import LEAST, MOST

FAR = 2**31 - 1  # beyond every position

# The ends of a tile and of what it sweeps, and the digits of those: what goes by its own name.
_END = re.compile(r"(?:first|last|low|high)\d*")


class _Names(dict[str, str]):
    """Texts of variables; the ends of tiles, of however many digits, go by their own names."""

    def __missing__(self, name: str) -> str:
        if _END.fullmatch(name) is None:
            raise KeyError(name)
        return name


def ends_in(expr: Expr) -> list[str]:
    """The names of a tile's ends that an expression mentions, in order."""
    return sorted(name for name in variables(expr) if _END.fullmatch(name))


class TensorText:
    """Writes torch expressions; tables stand in a dictionary ``tables``, each of them (batch or 1, …)."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def tensor(self, expr: Expr, variables: dict[str, str], batched: bool = False) -> str:
        """An expression over position tensors. ``batched`` keeps the tables' leading axis."""
        entry = "" if batched else "[0]"

        def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            return _read(table, index, kind, entry)

        def drawn(expr: Drawn, row: str, column: str) -> str:
            name, draw = self.names.of_draw(expr)
            return f"_is_drawn(tables[{name!r}][h : h + 1], {row}, {column}, {first_row(draw)}){entry}"

        scalars = {"n": "n", "h": "h", "H": "heads"}
        return Printer("tensor", scalars | variables, lookup, drawn)(expr)

    def real(self, expr: Real, names: dict[str, str], batched: bool = False) -> str:
        """A real expression over tensors of positions and heads, in the dtype ``dtype``; always a tensor."""
        leading = "" if batched else "[0]"

        def entry(found: Entry) -> str:
            index = tuple(self.tensor(place, names) for place in found.index)
            return f"{_read(found.table, index, 'float', leading)}.to(dtype)"

        scalars = {"n": "n", "h": "h", "H": "heads"}
        integers = Printer(
            "tensor", scalars | names, lambda table, index, kind: _read(table, index, kind, leading)
        )
        return RealPrinter(integers, entry).tensor(expr)

    def host(self, expr: Expr, own: str) -> str:
        """An integer (or truth) over ``first`` and ``last``; ``own`` names the tile's positions in it."""

        def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            return f"_read(tables[{identifier(table)!r}], {', '.join(index)})[0]"

        def scalar_lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            return f"int({lookup(table, index, kind)})"

        def bound(table: str, index: tuple[str, ...], kind: str) -> str:
            text = lookup(table, index, kind)
            return f"{text}.clamp(-(1 << 40), 1 << 40)" if _given(table, kind) else text

        names = _Names({"n": "n", "h": "h", "H": "heads", own: own})
        # What is added within a tile is added to tensors, whose integers wrap.
        reduced = [part.body for part in walk(expr) if isinstance(part, TileMin | TileMax)]
        added = any(isinstance(part, Sum) and tables(part) for body in reduced for part in walk(body))
        inner = Printer("tensor", names, bound if added and _one_entry_each(expr) else lookup)
        outer = Printer("host", names, scalar_lookup)
        return _HostPrinter(outer, inner)(expr)


class KernelText:
    """Writes expressions of Triton kernels that stand on tiles of ``own`` positions."""

    def __init__(self, own: Var, names: Names, inputs: tuple[Input, ...]) -> None:
        self.own = own
        self.names = names
        self.inputs = {item.name: item for item in inputs}  # tables made of them go by names of their own

    def _printer(self, names: dict[str, str]) -> Printer:
        scalars = {"n": "n", "h": "h", "H": "heads", LEAST.name: LEAST.name, MOST.name: MOST.name}
        return Printer("kernel", _Names(scalars | names), self._lookup, self._drawn, self._reduce)

    def _scalar(self, expr: Expr) -> str:
        # Inside a reduction over the tile's rows the own position is a vector.
        return self._printer({self.own.name: self.own.name})(expr)

    def _near(self, expr: Expr) -> str:
        """A bound on positions; entries of inputs far beyond them are cut off, so that no sum wraps."""

        def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            text = self._lookup(table, index, kind)
            return text.replace("_entry(", "_bound(", 1) if _given(table, kind) else text

        if not _one_entry_each(expr):
            return self._scalar(expr)
        return replace(self._printer({self.own.name: self.own.name}), lookup=lookup)(expr)

    def _vector(self, expr: Expr, names: dict[str, str]) -> str:
        text = self._printer(names)(expr)
        return text if text.startswith("(") and _closes_at_end(text) else f"({text})"

    def _reduce(self, kind: str, value: str) -> str:
        return f"tl.{kind}(tl.where(inside, {value}, {FAR if kind == 'min' else -1}))"

    def _lookup(self, table: str, index: tuple[str, ...], kind: str) -> str:
        base = table.partition(".")[0]
        sizes = tuple(map(fold, (self.inputs.get(table) or self.inputs[base]).shape))
        shape = tuple(map(self._printer({}), sizes))
        place, size = "", ""
        if sum("n" in variables(axis) for axis in sizes) > 1:  # as large as the square of the length
            index, shape = ((f"tl.cast({some[0]}, tl.int64)", *some[1:]) for some in (index, shape))
        for position, length in zip(index, shape, strict=True):
            place = f"{_factor(place)} * {_factor(length)} + {position}" if place else position
            size = f"{size} * {_factor(length)}" if size else _factor(length)
        text = f"_entry({identifier(table)}, {place}, {size})"
        return f"({text} != 0)" if kind == "bool" else text

    def _real(self, expr: Real, names: dict[str, str], score: str) -> str:
        """A real expression; ``score`` is the text of ``s``."""
        printer = self._printer(names)

        def entry(found: Entry) -> str:
            return f"{self._lookup(found.table, tuple(map(printer, found.index)), 'float')}.to(tl.float32)"

        text = RealPrinter(printer, entry, score)(expr)
        hangs = any(isinstance(part, Score) for part in everywhere(expr))
        return text if hangs else f"tl.zeros_like({score}) + {text}"

    def coordinates(self, expr: Real) -> str:
        """A real expression over ``x``, the coordinates of a tile of vectors, as a tile."""
        text = RealPrinter(self._printer({}), lambda entry: "")(expr)
        return (
            text
            if any(isinstance(part, Coordinate) for part in everywhere(expr))
            else f"tl.zeros_like(x) + {text}"
        )

    def _drawn(self, drawn: Drawn, row: str, column: str) -> str:
        name, draw = self.names.of_draw(drawn)
        first = f"(n - n_q) // {draw.size}" if draw.size > 1 else "(n - n_q)"
        base = f"{name}_ptr + tl.cast(h, tl.int64) * ({name}_row * {draw.count})"
        return f"_is_picked({base}, {row} - {first}, {column}, {name}_row, {draw.count})"


def _given(table: str, kind: str) -> bool:
    """Whether what is looked up is an integer that came with the call."""
    return kind == "int" and "." not in table


def _one_entry_each(expr: Expr) -> bool:
    """Whether entries of inputs, or multiples, are added to positions, but not computed with in other ways.

    Where one is cut off, all that it is part of then stays beyond all positions on the same side.
    """
    for part in walk(expr):
        match part:
            case Sum(terms, start):
                read = [abs(factor) for factor, atom in terms if tables(atom)]
                others = Sum(tuple(item for item in terms if not tables(item[1])), start)
                if len(read) > 1 or max(read, default=0) > 1 << 20 or farthest(others, FAR) > 1 << 39:
                    return False
            case Min() | Max() | TileMin() | TileMax() | Lookup():
                pass
            case _:
                if tables(part):
                    return False
    return True


def _read(table: str, index: tuple[str, ...], kind: str, entry: str) -> str:
    """Entries of a table in torch text; ``entry`` takes the leading axis off, or does not."""
    text = f"_read(tables[{identifier(table)!r}], {', '.join(index)}){entry}"
    return f"({text} != 0)" if kind == "bool" else text


class _HostPrinter:
    """Prints host integers; what is reduced over a tile is printed as a tensor inside."""

    def __init__(self, outer: Printer, inner: Printer) -> None:
        self.outer, self.inner = outer, inner

    def __call__(self, expr: Expr) -> str:
        reduced = dict.fromkeys(part for part in walk(expr) if isinstance(part, (TileMin, TileMax)))
        names = _Names(self.outer.names)
        mapping: dict[Expr, Expr] = {}
        for i, part in enumerate(reduced):
            kind = "min" if isinstance(part, TileMin) else "max"
            names[f"tile{i}"] = f"int({self.inner(part.body)}.{kind}())"
            mapping[part] = Var(f"tile{i}")
        printer = Printer("host", names, self.outer.lookup, None, None)
        return printer(substitute(expr, mapping))


def first_row(draw: Draw) -> str:
    """The first row of a draw that any query belongs to."""
    return "(n - n_q)" if draw.size == 1 else f"(n - n_q) // {draw.size}"


def _factor(text: str) -> str:
    """In brackets, unless it is a name, a number or a call."""
    name, bracket, rest = text.partition("(")
    whole = re.fullmatch(r"[\w.]*", name) and (not bracket or _closes_at_end(bracket + rest))
    return text if whole else f"({text})"


def _closes_at_end(text: str) -> bool:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1
    return False

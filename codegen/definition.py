"""Torch text for one pattern: its dense mask, its tables, and the sweeps of the torch path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from math import lcm
from textwrap import indent

from attnc.codegen.needs import Draw, Names, identifier
from attnc.codegen.printer import Printer
from attnc.digits import PLAIN
from attnc.expression import (
    FALSE,
    TRUE,
    Drawn,
    Expr,
    FloorDiv,
    K,
    Mod,
    Q,
    TileMax,
    TileMin,
    Var,
    add,
    constant,
    fold,
    merged,
    scale,
    substitute,
    variables,
    walk,
)
from attnc.pattern import Pattern, formula
from attnc.schedule import LEAST, MOST, SHIFT, BodyPlan, Pass, Sweep, Walk, tile_ends

# Masks that repeat after more positions than this are made anew for every tile.
MOST_PERIOD = 1 << 16


class TorchWriter:
    """Writes torch expressions; tables stand in a dictionary ``tables``, each of them (batch or 1, …)."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def tensor(self, expr: Expr, variables: dict[str, str], batched: bool = False) -> str:
        """An expression over position tensors. ``batched`` keeps the tables' leading axis."""
        entry = "" if batched else "[0]"

        def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            text = f"_read(tables[{identifier(table)!r}], {', '.join(index)}){entry}"
            return f"({text} != 0)" if kind == "bool" else text

        def drawn(expr: Drawn, row: str, column: str) -> str:
            name, draw = self.names.of_draw(expr)
            return f"_is_drawn(tables[{name!r}][h : h + 1], {row}, {column}, {first_row(draw)}){entry}"

        scalars = {"n": "n", "h": "h", "H": "heads"}
        return Printer("tensor", scalars | variables, lookup, drawn)(expr)

    def host(self, expr: Expr, own: str) -> str:
        """An integer (or truth) over ``first`` and ``last``; ``own`` names the tile's positions in it."""

        def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            return f"_read(tables[{identifier(table)!r}], {', '.join(index)})[0]"

        def scalar_lookup(table: str, index: tuple[str, ...], kind: str) -> str:
            return f"int({lookup(table, index, kind)})"

        ends = (f"{end}{i}" for end in ("first", "last") for i in ("", *range(3)))
        names = {name: name for name in ("n", "h", *ends)} | {"H": "heads"}
        inner = Printer("tensor", names | {own: own}, lookup)
        outer = Printer("host", names | {own: own}, scalar_lookup)
        return _HostPrinter(outer, inner)(expr)

    # --- the definition ---

    def mask(self, pattern: Pattern) -> str:
        """The dense mask, as the pattern was written."""
        bodies = [(fold(item.heads.condition), fold(formula(item.relation))) for item in pattern.bodies]
        head = (
            'def mask(n_q, n, heads, tables, device="cpu"):\n'
            '    """The pattern itself: (batch or 1, heads, n_q, n) booleans, true where q reads k."""\n'
            "    q = torch.arange(n - n_q, n, device=device)[:, None]\n"
            "    k = torch.arange(n, device=device)[None, :]\n"
        )
        if len(bodies) == 1 and bodies[0][0] == TRUE and not by_head(bodies[0][1]):
            text = self.tensor(bodies[0][1], {"q": "q", "k": "k"}, batched=True)
            result = "_full(edges, n_q, n, device)[:, None].expand(-1, heads, -1, -1)"
            return f"{head}    edges = {text}\n    return {result}\n"
        lines = ["rows = []", "for h in range(heads):"]
        for condition, relation in bodies:
            text = self.tensor(relation, {"q": "q", "k": "k"}, batched=True)
            test = Printer("host", {"h": "h", "H": "heads"})(condition)
            lines += (
                [f"    edges = {text}"]
                if condition == TRUE
                else [f"    if {test}:", f"        edges = {text}"]
            )
        lines += [
            "    rows.append(_full(edges, n_q, n, device))",
            "return torch.stack(torch.broadcast_tensors(*rows), 1)",
        ]
        return head + indent("\n".join(lines), "    ") + "\n"

    # --- tables ---

    def tables(self, pattern: Pattern, found: frozenset[str]) -> str:
        """The function that builds every table the plan reads from the inputs."""
        used = {name.partition(".")[0] for name in found}
        lines = []
        for item in pattern.inputs:
            if item.name in used:
                name = item.name
                lines.append(
                    f'tables["{identifier(name)}"] = '
                    f'_batched(inputs[{_position(pattern, name)}], "{name}", n, heads)'
                )
        for base in sorted({name.partition(".")[0] for name in found if "." in name}):
            parts = ", ".join(
                f'tables["{identifier(f"{base}.{which}")}"]'
                for which in ("first", "last", "run_first", "run_last")
            )
            lines.append(f'{parts} = _equal_entries(tables["{identifier(base)}"])')
        for draw, name in self.names.draws.items():
            population = Printer("host", {"n": "n"})(fold(draw.population))
            last = "n - 1" if draw.size == 1 else f"(n - 1) // {draw.size}"
            lines.append(
                f'tables["{name}"] = _picks({draw.count}, {draw.seed}, {draw.past}, '
                f"heads, {first_row(draw)}, {last}, {population}, device)"
            )
        if self.names.members:
            lines.append("p = torch.arange(n, device=device)")
        for condition, name in self.names.members.items():
            text = self.tensor(condition, {"p": "p"}, batched=True)
            lines.append(f'tables["{name}"] = _as_rows({text})')
        body = "\n".join(lines)
        return (
            "def _tables(inputs, n_q, n, heads, device):\n"
            '    """What the pattern reads besides q, k and v, as (batch or 1, …) tensors on the device."""\n'
            f"    tables = {{}}\n{indent(body, '    ')}{chr(10) if body else ''}    return tables\n"
        )

    # --- sweeps ---

    def passes(self, plan: BodyPlan, suffix: str) -> tuple[str, list[str]]:
        """Functions for every query-side pass, and what the torch path is told of it.

        That is: its rows, which of them it answers for, the keys that a tile of rows sweeps, and after how
        many positions all its masks repeat.
        """
        text, found = "", []
        for i, part in enumerate(plan.query):
            rows, owned, sweeps = (f"_{what}{suffix}_{i}" for what in ("rows", "owned", "sweeps"))
            text += self._rows(part, rows) + "\n\n"
            if part.owned == TRUE:
                owned = "None"
            else:
                text += self._owned(part, owned) + "\n\n"
            tiled = replace(part, sweeps=tuple(sweep for sweep in part.sweeps if sweep.scatter is None))
            text += self._sweeps(tiled, sweeps) + "\n\n"
            alone = "None"
            if tiled != part:
                alone = f"_alone{suffix}_{i}"
                text += self._alone(part, alone) + "\n\n"
            masks = (_in_positions(sweep.mask, (part.walk, sweep.walk)) for sweep in tiled.sweeps)
            common = lcm(*(period(mask) or 1 for mask in masks))
            found.append(f"({rows}, {owned}, {sweeps}, {common}, {alone})")
        return text, found

    def _rows(self, part: Pass, name: str) -> str:
        walked = part.walk
        if walked.members is not None:
            runs = f"[_chosen(tables[{self.names.of_walk(walked)!r}][0], n - n_q, n - 1)]"
        elif walked.radix == PLAIN:
            runs = "[_range(n - n_q, n - 1)]"
        else:
            ranges = tuple((constant(low), constant(high)) for low, high in walked.ranges)
            runs = f"_digit_runs(n - n_q, n, {walked.radix.sizes}, {ranges}, {part.extents}, device)"
        return (
            f"def {name}(n_q, n, h, heads, tables, device):\n"
            '    """Queries of this pass, ascending, in runs."""\n'
            f"    return {runs}\n"
        )

    def _owned(self, part: Pass, name: str) -> str:
        return (
            f"def {name}(q, n_q, n, h, heads, tables, device):\n"
            '    """Which queries this pass answers for."""\n'
            f"    return {self.tensor(part.owned, {'q': 'q'})}\n"
        )

    def _sweeps(self, part: Pass, name: str) -> str:
        lines = []
        for sweep in part.sweeps:
            lines.append(f"# {' '.join(sweep.origin.split())}")
            lines += self._sweep(sweep, part.walk)
        body = "\n".join(lines) or "return\nyield"
        start = "first, last = int(rows[0]), int(rows[-1])\n"
        if part.walk.radix != PLAIN:
            ends = tile_ends(part.walk.var, part.walk.radix, part.extents).values()
            names = ", ".join(f"({first.name}, {last.name})" for first, last in ends)
            start = f"{names} = _digit_ends(rows, {part.walk.radix.sizes})\n"
        if re.search(r"\bq\b", re.sub(r"lambda q, k: .*|#.*", "", body)):
            start += "q = _index(rows, device)\n"
        return (
            f"def {name}(rows, n_q, n, h, heads, tables, device):\n"
            '    """What a tile of queries sweeps: keys, the first and last that need no mask, the mask of\n'
            '    the others, and after how many positions that repeats, or 0."""\n'
            f"{indent(start + body, '    ')}\n"
        )

    def _alone(self, part: Pass, name: str) -> str:
        """Keys that are taken one by one."""
        lines = []
        for sweep in part.sweeps:
            if sweep.scatter is None:
                continue
            lines.append(f"# {' '.join(sweep.origin.split())}")
            if sweep.scatter.at is None:
                assert sweep.drawn is not None
                picks, draw = self.names.of_draw(sweep.drawn)
                lines.append(f"k = tables[{picks!r}][h][q[:, 0] - {first_row(draw)}].long()")
            else:
                if sweep.scatter.shifted:
                    lines.append("shift = _shifts(n, device)")
                at = self.tensor(sweep.scatter.at, {"q": "q", SHIFT.name: SHIFT.name})
                lines.append(f"k = {at}")
            mask = self.tensor(_in_positions(sweep.mask, (part.walk,)), {"q": "q", "k": "k"})
            edges = "(k >= 0) & (k < n)" + ("" if sweep.mask == TRUE else f" & ({mask})")
            lines.append(f"yield k, {edges}")
        body = "\n".join(lines)
        return (
            f"def {name}(q, n_q, n, h, heads, tables, device):\n"
            '    """Keys that queries (queries, 1) read one by one, (queries, keys), and which of them are edges."""\n'
            f"{indent(body, '    ')}\n"
        )

    def _sweep(self, sweep: Sweep, own: Walk) -> list[str]:
        if sweep.drawn is not None:
            name, draw = self.names.of_draw(sweep.drawn)
            place = "" if draw.size == 1 else f" // {draw.size}"
            rows = f"first{place} - {first_row(draw)} : last{place} - {first_row(draw)} + 1"
            keys = [
                f"columns = tables[{name!r}][h, {rows}].unique()",
                f"k = columns[columns >= 0, None] * {draw.size} + torch.arange({draw.size}, device=device)",
                "k = k[k < n].long()",
            ]
            unmasked = "(0, -1)"
        else:
            low, high = ([self.host(bound, "q") for bound in ends] for ends in (sweep.low, sweep.high))
            if sweep.when != TRUE:
                high[0] = f"{high[0]} if {self.host(sweep.when, 'q')} else -1"
            weight = sweep.walk.radix.weights[0]
            positions = self._positions(sweep.walk, low, high)
            if sweep.worth != TRUE:
                worth = self._worth(sweep)
                positions = f"_worthwhile({positions}, lambda least, most: {worth}, {weight}, device)"
            keys = [f"k = {positions}"]
            full_low = self.host(scale(weight, sweep.full_low), "q")
            full_high = self.host(add(scale(weight, sweep.full_high), weight - 1), "q")
            if sweep.full_when == FALSE:
                full_low, full_high = "0", "-1"
            elif sweep.full_when != TRUE:
                full_high = f"{full_high} if {self.host(sweep.full_when, 'q')} else -1"
            unmasked = f"({full_low}, {full_high})"
        if sweep.mask == TRUE:
            return [*keys, "yield k, None, None, 1"]
        told = _in_positions(sweep.mask, (own, sweep.walk))
        mask = self.tensor(told, {"q": "q", "k": "k"})
        return [*keys, f"yield k, {unmasked}, lambda q, k: {mask}, {period(told)}"]

    def _worth(self, sweep: Sweep) -> str:
        """Which of many tiles of keys can hold an edge, over tensors of their ends."""
        reduced = [part for part in walk(sweep.worth) if isinstance(part, (TileMin, TileMax))]
        names = {f"tile{i}": self.host(part, "q") for i, part in enumerate(dict.fromkeys(reduced))}
        mapping = {part: Var(f"tile{i}") for i, part in enumerate(dict.fromkeys(reduced))}
        ends = (f"{end}{i}" for end in ("first", "last") for i in ("", *range(3)))
        # The tile's own ends are made tensors, so that every condition is one.
        own = {name: f"(0 * least + {text})" for name, text in ({end: end for end in ends} | names).items()}
        scalars = {LEAST.name: LEAST.name, MOST.name: MOST.name}
        return self.tensor(substitute(sweep.worth, {**mapping}), scalars | own)

    def _positions(self, walk: Walk, low: list[str], high: list[str]) -> str:
        if walk.members is not None:
            return f"_chosen(tables[{self.names.of_walk(walk)!r}][0], {low[0]}, {high[0]})"
        if walk.radix == PLAIN:
            return f"_range({low[0]}, {high[0]})"
        bounds = (f"({', '.join(ends)})" for ends in (low, high))
        return f"_digit_box({', '.join(bounds)}, {walk.radix.sizes}, n, device)"


def _in_positions(condition: Expr, walks: Iterable[Walk]) -> Expr:
    """A condition on digits as one on positions."""
    mapping: dict[Expr, Expr] = {}
    for item in walks:
        if item.radix != PLAIN:
            mapping |= dict(zip(item.digits, item.radix.of(item.var), strict=True))
    return substitute(condition, mapping)


def period(condition: Expr) -> int:
    """After how many positions of query and key alike a condition repeats; 0 if it does not, or seldom."""
    divisors = [constant(part.right) or 0 for part in walk(condition) if isinstance(part, (FloorDiv, Mod))]
    length = lcm(*divisors)
    if not 0 < length <= MOST_PERIOD:
        return 0
    later = substitute(condition, {Q: add(Q, length), K: add(K, length)})
    return length if merged(fold(later)) == merged(fold(condition)) else 0


class _HostPrinter:
    """Prints host integers; what is reduced over a tile is printed as a tensor inside."""

    def __init__(self, outer: Printer, inner: Printer) -> None:
        self.outer, self.inner = outer, inner

    def __call__(self, expr: Expr) -> str:
        reduced = [part for part in walk(expr) if isinstance(part, (TileMin, TileMax))]
        names = dict(self.outer.names)
        mapping: dict[Expr, Expr] = {}
        for i, part in enumerate(dict.fromkeys(reduced)):
            kind = "min" if isinstance(part, TileMin) else "max"
            assert isinstance(part, (TileMin, TileMax))
            names[f"tile{i}"] = f"int({self.inner(part.body)}.{kind}())"
            mapping[part] = Var(f"tile{i}")
        printer = Printer("host", names, self.outer.lookup, None, None)
        return printer(substitute(expr, mapping))


def by_head(relation: Expr) -> bool:
    """Whether the edges differ between the heads of one body."""
    return "h" in variables(relation)


def first_row(draw: Draw) -> str:
    """The first row of a draw that any query belongs to."""
    return "(n - n_q)" if draw.size == 1 else f"(n - n_q) // {draw.size}"


def _position(pattern: Pattern, name: str) -> int:
    return [item.name for item in pattern.inputs].index(name)

"""How the torch path walks a pattern: rows of a pass, keys that a tile of them sweeps, keys taken alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import lcm
from textwrap import indent

from attnc.codegen.expressions import TensorText, ends_in, first_row
from attnc.digits import PLAIN, Radix
from attnc.expression import (
    FALSE,
    TRUE,
    And,
    Expr,
    FloorDiv,
    K,
    Mod,
    Q,
    TileMax,
    TileMin,
    Var,
    add,
    conj,
    constant,
    disj,
    floor_div,
    fold,
    le,
    merged,
    negate,
    scale,
    substitute,
    variables,
    walk,
)
from attnc.relation import POSITIONS
from attnc.schedule import LEAST, MOST, SHIFT, BodyPlan, Pass, Sweep, Walk, tile_ends
from attnc.solver import valid

# Masks that repeat after more positions than this are made anew for every tile.
MOST_PERIOD = 1 << 16


class SweepWriter(TensorText):
    """Writes the functions that tell the torch path what to read."""

    def passes(self, plan: BodyPlan, suffix: str) -> tuple[str, list[str]]:
        """Functions for every query-side pass, and what the torch path is told of it.

        That is: its rows, which of them it answers for, its sweeps, and what reads keys one by one. With a
        sweep goes whether it hangs on the head, and after how many positions its mask repeats.
        """
        text, found = "", []
        for i, part in enumerate(plan.query):
            rows, owned, alone = (f"_{what}{suffix}_{i}" for what in ("rows", "owned", "alone"))
            text += self._rows(part, rows) + "\n\n"
            owns = "" if part.owned == TRUE else self._owned(part, owned) + "\n\n"
            text += owns
            sweeps: list[str] = []
            for sweep in part.sweeps:
                if sweep.scatter is not None:
                    continue
                name = f"_sweep{suffix}_{i}_{len(sweeps)}"
                body = self._sweep(sweep, part, name)
                text += body + "\n\n"
                repeats = (
                    1 if sweep.mask == TRUE else period(_in_positions(sweep.mask, (part.walk, sweep.walk)))
                )
                sweeps.append(f"({name}, {_reads_head(owns + body)}, {repeats})")
            by_one = "None"
            if len(sweeps) < len(part.sweeps):
                body = self._alone(part, alone)
                text += body + "\n\n"
                by_one = f"({alone}, {_reads_head(owns + body)})"
            swept = f"({', '.join(sweeps)},)" if sweeps else "()"
            found.append(f"({rows}, {owned if owns else None}, {swept}, {by_one})")
        return text, found

    def _rows(self, part: Pass, name: str) -> str:
        walked = part.walk
        if walked.members is not None:
            runs = f"[_chosen(tables[{self.names.of_walk(walked)!r}][0], n - n_q, n - 1)]"
        elif walked.radix == PLAIN:
            runs = "[_range(n - n_q, n - 1)]"
        else:
            ranges = tuple((constant(low), constant(high)) for low, high in walked.ranges)
            name_of, told = _told(walked.radix, "runs")
            runs = f"{name_of}(n - n_q, n, {told}, {ranges}, {part.extents}, device)"
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

    def _sweep(self, sweep: Sweep, part: Pass, name: str) -> str:
        body = "\n".join(self._swept(sweep, part.walk))
        read = re.sub(r"lambda q, k: .*", "", body)
        start = ""
        if part.walk.radix != PLAIN:
            ends = tile_ends(part.walk.var, part.walk.radix, part.extents).values()
            names = ", ".join(f"({a.name}, {b.name if a != b else '_'})" for a, b in ends)
            name_of, told = _told(part.walk.radix, "ends")
            start = f"{names} = {name_of}(rows, {told})\n"
        elif re.search(r"\b(first|last)\b", read):
            start = "first, last = int(rows[0]), int(rows[-1])\n"
        if re.search(r"\bq\b", read):
            start += "q = _index(rows, device)\n"
        return (
            f"def {name}(rows, n_q, n, h, heads, tables, device):\n"
            f"    # {' '.join(sweep.origin.split())}\n"
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
            # What hangs on no position is asked of a tile in kernels; the rest of that knows a tile's ends.
            whens = sweep.when.args if isinstance(sweep.when, And) else (sweep.when,)
            scalars = (item for item in whens if variables(item) <= {"h", "H", "n"})
            condition = conj(*scalars, _in_positions(sweep.mask, (part.walk,)))
            mask = self.tensor(condition, {"q": "q", "k": "k"})
            edges = "(k >= 0) & (k < n)" + ("" if condition == TRUE else f" & ({mask})")
            lines.append(f"yield k, {edges}")
        body = "\n".join(lines)
        return (
            f"def {name}(q, n_q, n, h, heads, tables, device):\n"
            '    """Keys that queries (queries, 1) read one by one, and which of them: (queries, keys)."""\n'
            f"{indent(body, '    ')}\n"
        )

    def _swept(self, sweep: Sweep, own: Walk) -> list[str]:
        if sweep.drawn is not None:
            name, draw = self.names.of_draw(sweep.drawn)
            place = "" if draw.size == 1 else f" // {draw.size}"
            rows = f"first{place} - {first_row(draw)} : last{place} - {first_row(draw)} + 1"
            read = self.tensor(_in_positions(sweep.mask, (own, sweep.walk)), {"q": "q[:1]", "k": "k"})
            whole = draw.size > 1 and _holds_for_blocks(sweep.mask, draw.size)
            one = f"first // {draw.size} == last // {draw.size}"
            keys = [
                f"columns = tables[{name!r}][h, {rows}].unique()",
                f"k = columns[columns >= 0].long() * {draw.size}",
                *([f"if {one}:  # all edges of a block, or none", f"    k = k[{read}]"] if whole else []),
                f"k = (k[:, None] + torch.arange({draw.size}, device=device)).flatten()",
                "k = k[k < n]",
            ]
            unmasked = f"(0, n - 1 if {one} else -1)" if whole else "(0, -1)"
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
            return [*keys, "return k, None, None"]
        told = _in_positions(sweep.mask, (own, sweep.walk))
        mask = self.tensor(told, {"q": "q", "k": "k"})
        condition = "_causal" if told == le(K, Q) else f"lambda q, k: {mask}"
        return [*keys, f"return k, {unmasked}, {condition}"]

    def _worth(self, sweep: Sweep) -> str:
        """Which of many tiles of keys can hold an edge, over tensors of their ends."""
        reduced = dict.fromkeys(part for part in walk(sweep.worth) if isinstance(part, (TileMin, TileMax)))
        names = {f"tile{i}": self.host(part, "q") for i, part in enumerate(reduced)}
        mapping: dict[Expr, Expr] = {part: Var(f"tile{i}") for i, part in enumerate(reduced)}
        # The tile's own ends are made tensors, so that every condition is one.
        own = {
            name: f"(0 * least + {text})"
            for name, text in ({end: end for end in ends_in(sweep.worth)} | names).items()
        }
        scalars = {LEAST.name: LEAST.name, MOST.name: MOST.name}
        return self.tensor(substitute(sweep.worth, mapping), scalars | own)

    def _positions(self, walk: Walk, low: list[str], high: list[str]) -> str:
        if walk.members is not None:
            return f"_chosen(tables[{self.names.of_walk(walk)!r}][0], {low[0]}, {high[0]})"
        if walk.radix == PLAIN:
            return f"_range({low[0]}, {high[0]})"
        bounds = (f"({', '.join(ends)})" for ends in (low, high))
        name, told = _told(walk.radix, "box")
        return f"{name}({', '.join(bounds)}, {told}, n, device)"


def _told(radix: Radix, what: str) -> tuple[str, tuple[int, ...]]:
    """The function that knows positions by their digits, and what it is told of those."""
    if radix.limits(Q):
        return f"_cut_{what}", radix.weights
    return f"_digit_{what}", radix.sizes


def _in_positions(condition: Expr, walks: Iterable[Walk]) -> Expr:
    """A condition on digits as one on positions."""
    mapping: dict[Expr, Expr] = {}
    for item in walks:
        if item.radix != PLAIN:
            mapping |= dict.fromkeys(item.radix.limits(item.var), TRUE)  # a position's digits meet them
            mapping |= dict(zip(item.digits, item.radix.of(item.var), strict=True))
    return substitute(condition, mapping)


def _holds_for_blocks(condition: Expr, size: int) -> bool:
    """Whether a condition is known to hold for all of a block of positions, or for none of them."""
    first = substitute(condition, {x: scale(size, floor_div(x, size)) for x in (Q, K)})
    alike = conj(disj(negate(condition), first), disj(condition, negate(first)))
    return valid(alike, (POSITIONS,)).outcome == "proven"


def _reads_head(text: str) -> bool:
    """Whether a function, or several, do something with the head that they are given."""
    return re.search(r"\bh\b(?!, heads, tables, device\))", re.sub(r"#.*", "", text)) is not None


def period(condition: Expr) -> int:
    """After how many positions of query and key alike a condition repeats; 0 if it does not, or seldom."""
    divisors = [constant(part.right) or 0 for part in walk(condition) if isinstance(part, (FloorDiv, Mod))]
    length = lcm(*divisors)
    if not 0 < length <= MOST_PERIOD:
        return 0
    later = substitute(condition, {Q: add(Q, length), K: add(K, length)})
    return length if merged(fold(later)) == merged(fold(condition)) else 0

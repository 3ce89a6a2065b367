"""Which positions a kernel walks: its own tile's and those of a sweep's tiles; plain, packed or in digits."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from attnc.codegen.expressions import KernelText
from attnc.codegen.kinds import Kind
from attnc.codegen.needs import Names, other_side
from attnc.digits import PLAIN
from attnc.expression import TRUE, ZERO, Expr, Q, Var, constant, substitute, variables
from attnc.notation import show
from attnc.pattern import Input
from attnc.schedule import Pass, Sweep, Walk


class WalkWriter(KernelText):
    """Writes how the kernels of one pass get from tiles to positions."""

    def __init__(self, part: Pass, names: Names, inputs: tuple[Input, ...]) -> None:
        super().__init__(part.walk.var, names, inputs)
        self.part = part
        self.other = other_side(part.walk.var)

    # --- the tile's own positions ---

    def _own_positions(self, kind: Kind) -> str:
        walk, own = self.part.walk, self.own.name
        block = "BLOCK_M" if kind.side == "query" else "BLOCK_N"
        start = "offset" if kind.side == "query" else "0"
        if walk.members is not None:
            name = self.names.of_walk(walk)
            lines = [
                f"begin = {self._rank(walk, start)} + tile * {block}",
                f"end = {self._rank(walk, 'n')}",
                "if begin >= end:",
                "    return",
                f"place = begin + tl.arange(0, {block})",
                "inside = place < end",
                f"{own} = tl.load({name}_index + place, mask=inside, other=0)",
                f"first = tl.load({name}_index + begin)",
                f"last = tl.load({name}_index + (tl.minimum(begin + {block}, end) - 1))",
            ]
        elif walk.radix == PLAIN:
            lines = [
                f"first = {f'{start} + ' if start != '0' else ''}tile * {block}",
                f"last = tl.minimum(first + {block}, n) - 1",
                f"{own} = first + tl.arange(0, {block})",
                f"inside = {own} < n",
            ]
        else:
            lines = self._own_digits(block, start)
        # Rows are counted from the tile's first, so that only one number needs 64 bits.
        if walk.members is None and walk.radix == PLAIN:
            origin = "first - offset" if kind.side == "query" else "first"
            lines.append(f"origin, row = {origin}, tl.arange(0, {block})")
        else:
            row = f"({own} - offset)" if kind.side == "query" else own
            lines.append(f"origin, row = 0, {row}.to(tl.int64)")
        if kind.side == "query":
            owned = "" if self.part.owned == TRUE else f" & {self._vector(self.part.owned, {own: own})}"
            lines.append(f"stored = inside{owned}")
        return "\n".join(lines)

    def _own_digits(self, block: str, start: str) -> list[str]:
        """A tile that is a rectangle of digits: the first digit takes what the others leave of the block."""
        walk, own, extents = self.part.walk, self.own.name, self.part.extents
        weights, span = walk.radix.weights, prod(extents)
        limits = [(constant(low) or 0, constant(high) or 0) for low, high in walk.ranges]
        counts = [-(-(high - low + 1) // extent) for (low, high), extent in zip(limits, extents, strict=True)]
        rows = block if span == 1 else f"({block} // {span})"
        lines = [f"# {own} = {show(walk.radix.position(walk.digits))}"]
        first = f"{start} // {weights[0]} + " if start != "0" else ""
        inner = prod(counts)
        lines += [
            f"first0 = {first}tile{f' // {inner}' if inner > 1 else ''} * {rows}",
            f"last0 = tl.minimum(first0 + {rows}, (n - 1) // {weights[0]} + 1) - 1",
        ]
        place = f"tl.arange(0, {block})"
        inside = [f"({own}0 <= last0)"]
        digits = []
        for i in reversed(range(1, len(weights))):
            (low, high), extent, count = limits[i - 1], extents[i - 1], counts[i - 1]
            after = prod(counts[i:])
            number = "tile" if after == 1 else f"(tile // {after})"
            number = f"{number} % {count}"
            number = number if extent == 1 else f"{number} * {extent}"
            begin = f"{low} + {number}" if low else number
            lines.append(f"first{i} = {low if count == 1 else begin}")
            if extent == 1:
                digits.append(f"{own}{i} = first{i}")
                continue
            lines.append(f"last{i} = tl.minimum(first{i} + {extent}, {high + 1}) - 1")
            later = prod(extents[i:])
            within = place if later == 1 else f"{place} // {later}"
            digits.append(f"{own}{i} = first{i} + {within} % {extent}")
            inside.append(f"({own}{i} <= last{i})")
        single = {i: f"first{i}" for i, extent in enumerate(extents, 1) if extent == 1}
        if start != "0":
            least, most = _position(walk, "first"), _position(walk, "last", single)
            # One query has one residue: the tiles of all others have nothing to do.
            lines += [f"if ({most} < offset) | ({least} >= n):  # no query is among them", "    return"]
        within = place if span == 1 else f"{place} // {span}"
        lines += [*digits, f"{own}0 = first0 + {within}"]
        lines.append(f"{own} = {_position(walk, own)}")
        if walk.radix.limits(walk.var):
            names = {digit.name: single.get(i, digit.name) for i, digit in enumerate(walk.digits)}
            inside += [self._vector(limit, names) for limit in walk.radix.limits(walk.var)]
        inside += [f"({own} < n)", *([f"({own} >= offset)"] if start != "0" else [])]
        lines.append(f"inside = {' & '.join(inside)}")
        return lines

    # --- the places of a sweep ---

    def _range(self, sweep: Sweep) -> tuple[list[str], str, str]:
        """Where a sweep's places begin and end, and the lines that say so: ranges of the later digits.

        Places are counted row by row: the first digit times the number of values that the others take.
        """
        walk, low, high = sweep.walk, sweep.low, sweep.high
        lines = []
        for i in self._moving(sweep):
            lines += [
                f"low{i} = {self._near(self._named(sweep, low[i], i))}",
                f"high{i} = {self._near(self._named(sweep, high[i], i))}",
                f"count{i} = tl.maximum(high{i} - low{i} + 1, 0)",
            ]
        begin, end = (self._near(self._named(sweep, bound, 0)) for bound in (low[0], high[0]))
        if self.other == Q:
            start = "offset" if walk.radix == PLAIN else f"offset // {walk.radix.weights[0]}"
            begin = f"tl.maximum({begin}, {start})" if begin != "0" else start
        return lines, self._places(sweep, begin), self._places(sweep, f"{end} + 1")

    def _full_range(self, sweep: Sweep) -> tuple[str, str]:
        walk = sweep.walk
        low, high = (self._near(self._named(sweep, bound, 0)) for bound in (sweep.full_low, sweep.full_high))
        if self.other == Q and walk.radix != PLAIN:
            # The first row of digits that holds no query before the first.
            least = walk.radix.position(
                (ZERO, *(self._named(sweep, bound, i + 1) for i, bound in enumerate(sweep.low[1:])))
            )
            weight = walk.radix.weights[0]
            low = f"tl.maximum({low}, (offset - ({self._scalar(least)}) + {weight - 1}) // {weight})"
        return self._places(sweep, low), self._places(sweep, f"{high} + 1")

    def _moving(self, sweep: Sweep) -> list[int]:
        """The digits but the first that take more than one value in a sweep, the last one first."""
        return list(reversed(sweep.moving))

    def _named(self, sweep: Sweep, bound: Expr, place: int) -> Expr:
        """A bound in which the later digits' bounds go by their names."""
        mapping: dict[Expr, Expr] = {}
        for i in self._moving(sweep):
            if i > place:
                mapping |= {sweep.low[i]: Var(f"low{i}"), sweep.high[i]: Var(f"high{i}")}
        mapping = {expr: name for expr, name in mapping.items() if variables(expr)}
        return substitute(bound, mapping)

    def _places(self, sweep: Sweep, row: str) -> str:
        if sweep.walk.members is not None:
            return self._rank(sweep.walk, row)
        factors = "".join(f" * count{i}" for i in self._moving(sweep))
        row = _simplified(row)
        return f"({row}){factors}" if factors and " " in row else f"{row}{factors}"

    def _swept_positions(self, sweep: Sweep, masked: bool) -> list[str]:
        """The positions at the places of a tile, and which of them are there at all."""
        walk, other = sweep.walk, self.other.name
        if walk.members is not None:
            name = self.names.of_walk(walk)
            load = f"{other} = tl.load({name}_index + place, mask={other}_inside, other=0)"
            return [f"{other}_inside = place < end", load]
        lines, rest = [], "place"
        for i in self._moving(sweep):
            lines.append(f"{other}{i} = low{i} + {rest} % count{i}")
            rest = f"{rest} // count{i}"
        lines.append(f"{other}0 = {rest}")
        lines.append(f"{other} = {_position(walk, other, self._fixed(sweep))}")
        if masked:
            early = f" & ({other} >= offset)" if other == "q" else ""
            lines.append(f"{other}_inside = (place < end) & ({other} < n){early}")
        return lines

    def _fixed(self, sweep: Sweep) -> dict[int, str]:
        """The digits but the first that take one value in a sweep, as text."""
        moving = self._moving(sweep)
        return {i: self._scalar(sweep.low[i]) for i in range(1, len(sweep.low)) if i not in moving}

    def _pair_names(self, sweep: Sweep) -> dict[str, str]:
        """Positions and digits of either side, as they stand in a mask (own, other)."""
        own, other = self.own.name, self.other.name
        names = {own: f"{own}[:, None]", other: f"{other}[None, :]"}
        for i, digit in enumerate(self.part.walk.digits):
            single = i > 0 and self.part.extents[i - 1] == 1
            names.setdefault(digit.name, f"first{i}" if single else f"{digit.name}[:, None]")
        fixed = self._fixed(sweep)
        for i, digit in enumerate(sweep.walk.digits):
            names.setdefault(digit.name, f"({fixed[i]})" if i in fixed else f"{digit.name}[None, :]")
        return names

    def _rank(self, walk: Walk, position: str) -> str:
        """The number of packed positions before ``position``, which may lie outside the sequence."""
        return f"tl.load({self.names.of_walk(walk)}_rank + tl.minimum(tl.maximum({position}, 0), n))"


def _position(walk: Walk, name: str, fixed: Mapping[int, str] | None = None) -> str:
    """A position from its digits; those that are ``fixed`` go by other texts."""
    terms = []
    for i, weight in enumerate(walk.radix.weights):
        digit = (fixed or {}).get(i, f"{name}{i}")
        if digit == "0":
            continue
        terms.append(f"{weight} * {digit}" if weight > 1 else f"({digit})" if " - " in digit else digit)
    return " + ".join(terms)


def _simplified(text: str) -> str:
    return text[: -len(" - 1 + 1")] if text.endswith(" - 1 + 1") else text

"""The Triton kernels of one pass: forward and query gradients over query tiles, key gradients over key tiles.

What differs between the three is what is loaded, what is done with a pair of tiles and what is stored; the
walk is the same and written once, in ``_sweep``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from textwrap import indent

from attnc.codegen.kinds import Kind
from attnc.codegen.needs import Names, Need, identifier, needs, other_side
from attnc.codegen.printer import Printer
from attnc.digits import PLAIN
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    Drawn,
    Expr,
    Q,
    Var,
    constant,
    substitute,
    variables,
)
from attnc.notation import show
from attnc.pattern import Input
from attnc.schedule import LEAST, MOST, SHIFT, Pass, Scatter, Sweep, Walk

FAR = 2**31 - 1  # beyond every position


_CONSTANTS = ("DIM", "VALUE_DIM", "BLOCK_DIM", "BLOCK_VALUE_DIM", "BLOCK_M", "BLOCK_N", "UNIT", "PRECISION")


class KernelWriter:
    """Writes the kernels of one pass. ``inputs`` tells the shapes of what is looked up."""

    def __init__(self, part: Pass, names: Names, inputs: tuple[Input, ...], suffix: str) -> None:
        self.part = part
        self.names = names
        self.inputs = {item.name: item for item in inputs}
        self.suffix = suffix
        self.needs: tuple[Need, ...] = needs(part, names)
        self.own, self.other = part.walk.var, other_side(part.walk.var)

    @property
    def crowded(self) -> bool:
        """Whether much is kept in registers beside the tiles: several sweeps, look-ups, masks, digits."""
        masked = any(sweep.full_when == FALSE and sweep.scatter is None for sweep in self.part.sweeps)
        digits = any(self._moving(sweep) for sweep in self.part.sweeps)
        return len(self.part.sweeps) > 1 or bool(self.needs) or masked or digits

    def kernel_name(self, kind: Kind) -> str:
        return f"_{kind.name}_kernel{self.suffix}"

    def kernel(self, kind: Kind) -> str:
        """The text of one kernel, from decorator to last line."""
        key_side = kind.side == "key"
        state = (self.part.continues and kind.resume) or kind.begin
        body = [self._prologue(kind), self._own_positions(kind), kind.load, state]
        sweeps = "\n".join(self._sweep(sweep, kind) for sweep in self.part.sweeps)
        if key_side:
            bases = self._bases(kind, ("q", "grad"), "batch", "h")
            loop = f"{bases}head_rows = (batch * heads + h) * n_q\n{sweeps}"
            # What is the same for every head would otherwise be kept in registers through all sweeps.
            heads = "tl.range(first_head, stop_head, head_step, disable_licm=True)"
            body.append(f"for h in {heads}:\n{indent(loop or 'pass', '    ')}")
        else:
            body.append(sweeps)
        body.append((self.part.continues and kind.add) or kind.store)
        text = "\n".join(part.rstrip("\n") for part in body if part.strip())
        parameters = indent(self._parameters(kind), "    ")
        return f"@_jit\ndef {self.kernel_name(kind)}(\n{parameters}):\n{indent(text, '    ')}\n"

    # --- head ---

    def _parameters(self, kind: Kind) -> str:
        rows = [", ".join(f"{name}_ptr" for name in kind.pointers)]
        rows += [", ".join(f"{name}_{axis}" for axis in ("batch", "head", "row")) for name in kind.strided]
        rows += [", ".join(parameters) for need in self.needs if (parameters := _parameters_of(need))]
        rows.append("scale, n_q, n, heads, group, tiles, head_start, head_step, head_count")
        constants = (*_CONSTANTS, *(("ADD",) if kind.side == "key" else ()))
        rows += [f"{name}: tl.constexpr" for name in constants]
        return "".join(f"{row},\n" for row in dict.fromkeys(rows))

    def _prologue(self, kind: Kind) -> str:
        tile = "tiles - 1 - program % tiles  # those with most to do first"
        lines = ["program = tl.program_id(0)", f"tile = {tile if self.part.backwards else 'program % tiles'}"]
        if kind.side == "query":
            lines += [
                "h = head_start + head_step * (program // tiles % head_count)",
                "batch = (program // tiles // head_count).to(tl.int64)",
                "key_head = h // group",
            ]
        else:
            lines += [
                "key_heads = heads // group",
                "key_head = program // tiles % key_heads",
                "batch = (program // tiles // key_heads).to(tl.int64)",
                "# The query heads of this launch that share the key head.",
                "skipped = (tl.maximum(key_head * group - head_start, 0) + head_step - 1) // head_step",
                "first_head = head_start + skipped * head_step",
                "stop_head = tl.minimum((key_head + 1) * group, head_start + head_count * head_step)",
            ]
        lines.append("offset = n - n_q  # the first query's position")
        for need in self.needs:
            match need.kind:
                case "table":
                    lines.append(f"{need.name} = {need.name}_ptr + batch * {need.name}_batch")
                case "members":
                    for part in ("index", "rank"):
                        name = f"{need.name}_{part}"
                        lines.append(f"{name} = {name}_ptr + batch * {name}_batch")
        lines.append("log2_scale = scale * 1.4426950408889634")
        for name in kind.strided:
            lines.append(f"{name}_row = {name}_row * UNIT")
        heads = {"query": {"k": "key_head", "v": "key_head"}, "key": {}}[kind.side]
        text = "\n".join(lines) + "\n"
        for name in kind.strided:
            if kind.side == "key":
                if name not in ("q", "grad"):
                    text += self._bases(kind, (name,), "batch", "key_head")
            else:
                text += self._bases(kind, (name,), "batch", heads.get(name, "h"))
        if kind.side == "query":
            text += "head_rows = (batch * heads + h) * n_q\n"
        return text

    def _bases(self, kind: Kind, names: tuple[str, ...], batch: str, head: str) -> str:
        return "".join(
            f"{name}_base = {name}_ptr + {batch} * ({name}_batch * UNIT)"
            f" + tl.cast({head}, tl.int64) * ({name}_head * UNIT)\n"
            for name in names
        )

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
        within = place if span == 1 else f"{place} // {span}"
        lines += [*digits, f"{own}0 = first0 + {within}"]
        lines.append(f"{own} = {_position(walk, own)}")
        inside += [f"({own} < n)", *([f"({own} >= offset)"] if start != "0" else [])]
        lines.append(f"inside = {' & '.join(inside)}")
        return lines

    # --- one sweep ---

    def _sweep(self, sweep: Sweep, kind: Kind) -> str:
        comment = f"\n# {_one_line(sweep.origin)}\n"
        if sweep.scatter is not None:
            return comment + self._scatter_sweep(sweep, sweep.scatter, kind)
        if sweep.drawn is not None:
            return comment + self._list_sweep(sweep, kind)
        other, block = self.other.name, self._other_block(kind)
        lines, begin, end = self._range(sweep)
        lines += [f"begin = {begin}", f"end = {end}"]
        if sweep.when != TRUE:
            lines.append(f"end = tl.where({self._scalar(sweep.when)}, end, begin)")
        masked = self._guarded(sweep, block, self._step(sweep, kind, masked=True))
        if sweep.full_when == FALSE:
            lines.append(f"for start in tl.range(begin, end, {block}):")
            return comment + "\n".join(lines) + "\n" + indent(masked, "    ")
        full_begin, full_end = self._full_range(sweep)
        lines += [f"full_begin = {full_begin}", f"full_end = {full_end}"]
        if sweep.full_when != TRUE:
            lines.append(f"full_end = tl.where({self._scalar(sweep.full_when)}, full_end, full_begin)")
        full = self._step(sweep, kind, masked=False)
        lines += [
            f"leading, middle, stop, trailing = _parts(begin, end, full_begin, full_end, {block})",
            f"for start in tl.range(middle, stop, {block}):  # every {other} is an edge",
            indent(full.rstrip("\n"), "    "),
            "for i in tl.range(0, leading + trailing):  # the ends, masked",
            f"    start = tl.where(i < leading, begin + i * {block}, stop + (i - leading) * {block})",
            indent(masked.rstrip("\n"), "    "),
        ]
        return comment + "\n".join(lines) + "\n"

    def _range(self, sweep: Sweep) -> tuple[list[str], str, str]:
        """Where a sweep's places begin and end, and the lines that say so: ranges of the later digits.

        Places are counted row by row: the first digit times the number of values that the others take.
        """
        walk, low, high = sweep.walk, sweep.low, sweep.high
        lines = []
        for i in self._moving(sweep):
            lines += [
                f"low{i} = {self._scalar(self._named(sweep, low[i], i))}",
                f"high{i} = {self._scalar(self._named(sweep, high[i], i))}",
                f"count{i} = tl.maximum(high{i} - low{i} + 1, 0)",
            ]
        begin, end = (self._scalar(self._named(sweep, bound, 0)) for bound in (low[0], high[0]))
        if self.other == Q:
            start = "offset" if walk.radix == PLAIN else f"offset // {walk.radix.weights[0]}"
            begin = f"tl.maximum({begin}, {start})" if begin != "0" else start
        return lines, self._places(sweep, begin), self._places(sweep, f"{end} + 1")

    def _full_range(self, sweep: Sweep) -> tuple[str, str]:
        walk = sweep.walk
        low, high = (
            self._scalar(self._named(sweep, bound, 0)) for bound in (sweep.full_low, sweep.full_high)
        )
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
        return [i for i in reversed(range(1, len(sweep.low))) if sweep.low[i] != sweep.high[i]]

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

    def _guarded(self, sweep: Sweep, block: str, step: str) -> str:
        """A masked step that passes over tiles which can hold no edge."""
        if sweep.worth == TRUE:
            return step
        factors = self._moving(sweep)
        width = " * ".join(f"count{i}" for i in factors)
        rows = f" // ({width})" if len(factors) > 1 else f" // {width}" if factors else ""
        return (
            f"least = start{rows}\n"
            f"most = (tl.minimum(start + {block}, end) - 1){rows}\n"
            f"if {self._scalar(sweep.worth)}:\n{indent(step, '    ')}"
        )

    def _list_sweep(self, sweep: Sweep, kind: Kind) -> str:
        assert sweep.drawn is not None
        name = self.names.of_draw(sweep.drawn)[0]
        block = self._other_block(kind)
        shift = "offset + " if self.other == Q else ""
        body = f"start = {shift}tl.load(listed + slot) * {block}\n" + self._step(sweep, kind, masked=True)
        return (
            f"listed = {name}_tiles_ptr + tl.cast(h, tl.int64) * {name}_tiles_row\n"
            f"offsets = {name}_offsets_ptr + h * (tiles + 1) + tile\n"
            "end = n\n"
            "for slot in tl.range(tl.load(offsets), tl.load(offsets + 1)):\n" + indent(body, "    ")
        )

    def _scatter_sweep(self, sweep: Sweep, scatter: Scatter, kind: Kind) -> str:
        """Positions that are taken one by one: a tile has one for every row."""
        own, other = self.own.name, self.other.name
        digits = (digit.name for digit in self.part.walk.digits)
        vectors = {own: own, other: other} | {name: name for name in digits}
        lines = []
        if scatter.at is None:
            assert sweep.drawn is not None
            name, draw = self.names.of_draw(sweep.drawn)
            base = f"{name}_ptr + tl.cast(h, tl.int64) * ({name}_row * {draw.count})"
            steps = str(draw.count)
            at = f"tl.load({base} + ({own} - offset) * {draw.count} + i, mask=inside, other=-1)"
        else:
            steps = "1"
            if scatter.shifted:
                lines += [
                    "powers = tl.full([32], 1, tl.int64) << tl.arange(0, 32)",
                    "steps = 1 + tl.sum((powers < n).to(tl.int32), 0)",
                ]
                steps = "steps"
            at = self._printer(vectors | {SHIFT.name: SHIFT.name})(scatter.at)
        if sweep.when != TRUE:
            steps = f"tl.where({self._scalar(sweep.when)}, {steps}, 0)"
        body = ["shift = tl.where(i > 0, 1 << tl.maximum(i - 1, 0), 0)"] if scatter.shifted else []
        start = "offset" if other == "q" else "0"
        inside = [f"inside & ({other} >= {start}) & ({other} < n)"]
        if sweep.mask != TRUE:
            inside.append(self._vector(sweep.mask, vectors))
        body += [f"{other} = {at}", f"{other}_inside = {' & '.join(inside)}"]
        body.append(kind.alone.format(inside=f"{other}_inside").rstrip("\n"))
        return "\n".join((*lines, f"for i in tl.range(0, {steps}):", indent("\n".join(body), "    "))) + "\n"

    def _other_block(self, kind: Kind) -> str:
        return "BLOCK_N" if kind.side == "query" else "BLOCK_M"

    def _step(self, sweep: Sweep, kind: Kind, masked: bool) -> str:
        walk, other, block = sweep.walk, self.other.name, self._other_block(kind)
        lines = []
        if walk.members is not None or walk.radix != PLAIN:
            lines += [f"place = start + tl.arange(0, {block})", *self._swept_positions(sweep, masked)]
            place = f"0, ({other} - offset).to(tl.int64)" if other == "q" else f"0, {other}.to(tl.int64)"
        else:
            if masked or kind.side == "key":
                lines.append(f"{other} = start + tl.arange(0, {block})")
            if masked:
                lines.append(f"{other}_inside = {other} < end")
            place = f"{'start - offset' if other == 'q' else 'start'}, tl.arange(0, {block})"
        # What is inside is not taken from the mask: tiles are fetched ahead, and whatever is shared with the
        # mask would wait for it in registers. Digits leave the sequence in the middle of a tile, though.
        inside = f"tl.arange(0, {block}) < end - start" if walk.radix == PLAIN else f"{other}_inside"
        loads = kind.swept.format(place=place, even=str(not masked), inside=inside if masked else "None")
        lines.append(loads.rstrip("\n"))
        if sweep.selection != TRUE:
            # Queries that another pass answers for weigh nothing here.
            chosen = self._vector(sweep.selection, {other: other})
            lines.append(f'lse = tl.where({chosen}, lse, float("inf"))')
        mask = "None"
        if masked:
            condition = self._vector(sweep.mask, self._pair_names(sweep))
            within = f"{other}_inside[None, :]"
            lines.append(f"mask = {within}" if sweep.mask == TRUE else f"mask = {within} & {condition}")
            mask = "mask"
        lines.append(kind.step.format(mask=mask, masked=str(masked)).rstrip("\n"))
        return "\n".join(lines) + "\n"

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

    # --- expressions ---

    def _printer(self, names: dict[str, str]) -> Printer:
        ends = (f"{end}{i}" for end in ("first", "last", "low", "high") for i in ("", *range(3)))
        scalars = {name: name for name in ("n", "h", LEAST.name, MOST.name, *ends)} | {"H": "heads"}
        return Printer("kernel", scalars | names, self._lookup, self._drawn, self._reduce)

    def _scalar(self, expr: Expr) -> str:
        # Inside a reduction over the tile's rows the own position is a vector.
        return self._printer({self.own.name: self.own.name})(expr)

    def _vector(self, expr: Expr, names: dict[str, str]) -> str:
        text = self._printer(names)(expr)
        return text if text.startswith("(") and _closes_at_end(text) else f"({text})"

    def _reduce(self, kind: str, value: str) -> str:
        return f"tl.{kind}(tl.where(inside, {value}, {FAR if kind == 'min' else -1}))"

    def _lookup(self, table: str, index: tuple[str, ...], kind: str) -> str:
        base = table.partition(".")[0]
        shape = (self._printer({})(size) for size in self.inputs[base].shape)
        place, size = "", ""
        for position, length in zip(index, shape, strict=True):
            place = f"({place}) * ({length}) + {position}" if place else position
            size = f"{size} * ({length})" if size else f"({length})" if " " in length else length
        text = f"_entry({identifier(table)}, {place}, {size})"
        return f"({text} != 0)" if kind == "bool" else text

    def _drawn(self, drawn: Drawn, row: str, column: str) -> str:
        name, draw = self.names.of_draw(drawn)
        first = f"(n - n_q) // {draw.size}" if draw.size > 1 else "(n - n_q)"
        base = f"{name}_ptr + tl.cast(h, tl.int64) * ({name}_row * {draw.count})"
        return f"_is_picked({base}, {row} - {first}, {column}, {name}_row, {draw.count})"

    def _rank(self, walk: Walk, position: str) -> str:
        """The number of packed positions before ``position``, which may lie outside the sequence."""
        return f"tl.load({self.names.of_walk(walk)}_rank + tl.minimum(tl.maximum({position}, 0), n))"


def _position(walk: Walk, name: str, fixed: Mapping[int, str] | None = None) -> str:
    """A position from its digits; those that are ``fixed`` go by other texts."""
    terms = []
    for i, weight in enumerate(walk.radix.weights):
        digit = (fixed or {}).get(i, f"{name}{i}")
        terms.append(f"{weight} * {digit}" if weight > 1 else f"({digit})" if " - " in digit else digit)
    return " + ".join(terms)


def _parameters_of(need: Need) -> list[str]:
    match need.kind:
        case "table":
            return [f"{need.name}_ptr", f"{need.name}_batch"]
        case "members":
            return [f"{need.name}_{part}_{what}" for part in ("index", "rank") for what in ("ptr", "batch")]
        case "picks":
            return [f"{need.name}_ptr", f"{need.name}_row"]
    return [f"{need.name}_offsets_ptr", f"{need.name}_tiles_ptr", f"{need.name}_tiles_row"]


def _simplified(text: str) -> str:
    return text[: -len(" - 1 + 1")] if text.endswith(" - 1 + 1") else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _closes_at_end(text: str) -> bool:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1
    return False

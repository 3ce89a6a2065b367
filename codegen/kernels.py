"""The Triton kernels of one pass: forward and query gradients over query tiles, key gradients over key tiles.

What differs between the three is what is loaded, what is done with a pair of tiles and what is stored; the
walk is the same and written once, in ``_sweep``. Which positions it meets is said in ``walks``.
"""

from __future__ import annotations

from textwrap import indent

from attnc.codegen.kinds import Kind
from attnc.codegen.needs import Names, Need, needs
from attnc.codegen.walks import WalkWriter
from attnc.digits import PLAIN
from attnc.expression import FALSE, TRUE, Q
from attnc.pattern import Input
from attnc.schedule import SHIFT, Pass, Scatter, Sweep

_CONSTANTS = ("DIM", "VALUE_DIM", "BLOCK_DIM", "BLOCK_VALUE_DIM", "BLOCK_M", "BLOCK_N", "UNIT", "PRECISION")


class KernelWriter(WalkWriter):
    """Writes the kernels of one pass. ``inputs`` tells the shapes of what is looked up."""

    def __init__(self, part: Pass, names: Names, inputs: tuple[Input, ...], suffix: str) -> None:
        super().__init__(part, names, inputs)
        self.suffix = suffix
        self.needs: tuple[Need, ...] = needs(part, names)

    @property
    def alone(self) -> bool:
        """Whether all positions are taken one by one, so that no products of matrices are made."""
        return all(sweep.scatter is not None for sweep in self.part.sweeps) and bool(self.part.sweeps)

    @property
    def crowded(self) -> bool:
        """Whether much is kept in registers beside the tiles: several sweeps, look-ups, masks, digits."""
        masked = any(sweep.full_when == FALSE for sweep in self.part.sweeps)
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


def _parameters_of(need: Need) -> list[str]:
    match need.kind:
        case "table":
            return [f"{need.name}_ptr", f"{need.name}_batch"]
        case "members":
            return [f"{need.name}_{part}_{what}" for part in ("index", "rank") for what in ("ptr", "batch")]
        case "picks":
            return [f"{need.name}_ptr", f"{need.name}_row"]
    return [f"{need.name}_offsets_ptr", f"{need.name}_tiles_ptr", f"{need.name}_tiles_row"]


def _one_line(text: str) -> str:
    return " ".join(text.split())

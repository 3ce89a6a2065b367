"""The Triton kernels of one pass: forward and query gradients over query tiles, key gradients over key tiles.

What differs between the three is what is loaded, what is done with a pair of tiles and what is stored; the
walk is the same and written once, in ``_sweep``. Which positions it meets is said in ``walks``.
"""

from __future__ import annotations

from textwrap import indent

from attnc.codegen.expressions import KernelText
from attnc.codegen.kinds import KINDS, Kind
from attnc.codegen.needs import Names, Need, bases_of, needs, parameters_of
from attnc.codegen.shares import first_share, kept, share_of
from attnc.codegen.tile_tables import TileShape, tile_shape
from attnc.codegen.walks import WalkWriter
from attnc.codegen.weights import BodyWeights, EntryKind, sloped
from attnc.digits import PLAIN
from attnc.expression import FALSE, TRUE, ZERO, Q
from attnc.pattern import Input
from attnc.real import ONE, X, derivative
from attnc.schedule import SHIFT, Pass, Scatter, Sweep

# Which sums of the scores' gradients a kernel keeps for the entries that weights read.
_SUMS: dict[str, EntryKind] = {"query_gradient": "row", "key_gradient": "column"}
# How a pass stores its rows' softmax statistics for later passes, by whether there are scores or sinks.
_STORED_SUMS = {
    False: "tl.store(lse_ptr + head_rows + (q - offset), logs * 0.6931471805599453, mask=stored)",
    True: "_store_sums(lse_ptr + head_rows, head_rows, q - offset, stored, row_max, logs)",
}
_CONSTANTS = ("DIM", "VALUE_DIM", "BLOCK_DIM", "BLOCK_VALUE_DIM", "BLOCK_M", "BLOCK_N", "UNIT", "PRECISION")


class KernelWriter(WalkWriter):
    """Writes the kernels of one pass.

    inputs: tell the shapes of what is looked up. weighed: whether the module weighs edges by anything but
        scaled products; scores are then natural logarithms, and else those to the base of 2.
    """

    def __init__(
        self,
        part: Pass,
        names: Names,
        inputs: tuple[Input, ...],
        suffix: str,
        weights: BodyWeights,
        weighed: bool,
    ) -> None:
        super().__init__(part, names, (*inputs, *(item.input for item in weights.by_distance)))
        self.suffix = suffix
        self.weights = weights
        self.weighed = weighed
        self.needs: tuple[Need, ...] = needs(part, names, (weights.score,))

    @property
    def long(self) -> bool:
        """Whether a tile's sweeps may come in shares; not where sums for weights' entries are kept, too."""
        summed = any(self._entry_sums(kind) for kind in KINDS[self.part.side])
        return self.part.longest != ZERO and not summed

    @property
    def counted(self) -> bool:
        """Whether the number of tiles is known before anything runs."""
        return self.part.walk.members is None

    @property
    def all_shared(self) -> bool:
        """Whether all tiles of a launch come in shares, if any do."""
        return self.counted and not self.part.heavy

    @property
    def _in_shares(self) -> str:
        return "SHARES" if self.counted else "True"

    @property
    def shape(self) -> TileShape:
        return tile_shape(self.part, self.weights)

    def kernel_name(self, kind: Kind) -> str:
        return f"_{kind.name}_kernel{self.suffix}"

    def kernel(self, kind: Kind) -> str:
        """The text of one kernel, from decorator to last line."""
        key_side = kind.side == "key"
        state = (self.part.continues and kind.resume) or kind.begin
        if self.weights.weights.sink is not None and not self.part.continues:
            state = kind.sunk or state
        if self.long and state != kind.begin:
            state = first_share(kind, state)
        own = "query" if kind.side == "query" else "key"
        body = [self._prologue(kind), self._own_positions(kind), kind.load, self._mapped(own), state]
        if kind.plain and not self.weighed:
            body.insert(3, "query, factor = _positive_factor(query, scale, factor)")
        sums = self._entry_sums(kind)
        begin = "\n".join(f"{name} = tl.zeros([{self._own_block(kind)}], dtype=tl.float32)" for name in sums)
        keep = "\n".join(self._kept(name, kind) for name in sums)
        sweeps = "\n".join(self._sweep(sweep, kind) for sweep in self.part.sweeps)
        sweeps = "\n".join(part for part in (begin, sweeps, keep) if part)
        if key_side:
            bases = self._bases(kind, ("q", "grad"), "batch", "h")
            loop = f"{bases}head_rows = (batch * heads + h) * n_q\n{sweeps}"
            # What is the same for every head would otherwise be kept in registers through all sweeps.
            heads = "tl.range(first_head, stop_head, head_step, disable_licm=True)"
            body.append(f"for h in {heads}:\n{indent(loop or 'pass', '    ')}")
        else:
            body.append(sweeps)
        store = (self.part.continues and kind.add) or kind.store
        store = store.replace("{sums}", _STORED_SUMS[self.weighed])
        body += [
            kind.finish,
            self._unmapped(kind),
            kept(kind, store, "SHARES" if self.all_shared else "shares > 1") if self.long else store,
        ]
        text = "\n".join(part.rstrip("\n") for part in body if part.strip())
        parameters = indent(self._parameters(kind), "    ")
        return f"@_jit\ndef {self.kernel_name(kind)}(\n{parameters}):\n{indent(text, '    ')}\n"

    # --- head ---

    def _parameters(self, kind: Kind) -> str:
        rows = [", ".join(f"{name}_ptr" for name in (*kind.pointers, *self._entry_sums(kind)))]
        if self.long:
            rows.append(", ".join(f"shares_{name}_ptr" for name in (*kind.found, "row")))
        rows += [", ".join(f"{name}_{axis}" for axis in ("batch", "head", "row")) for name in kind.strided]
        rows += [", ".join(parameters) for need in self.needs if (parameters := parameters_of(need))]
        rows.append("scale, n_q, n, heads, group, tiles, head_start, head_step, head_count")
        rows += ["abreast"] * (kind.side == "query") + ["split, shares"] * self.long
        constants = (*_CONSTANTS, *["ADD"] * (kind.side == "key"), *["SHARES"] * (self.long and self.counted))
        rows += [f"{name}: tl.constexpr" for name in constants]
        return "".join(f"{row},\n" for row in dict.fromkeys(rows))

    def _prologue(self, kind: Kind) -> str:
        lines = ["program = tl.program_id(0)"]
        turns, turn = "tiles", "program // abreast" if kind.side == "query" else "program"
        if self.long:
            turns = "turns"
            lines.append("turns = tiles + split * (shares - 1)  # the first `split` tiles come in shares")
        if kind.side == "query":
            lines += [
                "# Heads with the same keys run next to each other: what one has read is in the cache.",
                f"number = {turn} // {turns} % (head_count // abreast) * abreast + program % abreast",
                "h = head_start + head_step * number",
                f"batch = (program // {turns} // head_count).to(tl.int64)",
                "key_head = h // group",
            ]
        else:
            lines += [
                "key_heads = heads // group",
                f"key_head = program // {turns} % key_heads",
                f"batch = (program // {turns} // key_heads).to(tl.int64)",
                "# The query heads of this launch that share the key head.",
                "skipped = (tl.maximum(key_head * group - head_start, 0) + head_step - 1) // head_step",
                "first_head = head_start + skipped * head_step",
                "stop_head = tl.minimum((key_head + 1) * group, head_start + head_count * head_step)",
            ]
        if self.long:
            head = "head_count + number" if kind.side == "query" else "key_heads + key_head"
            lines += share_of(turn, head, self._in_shares)
        else:
            lines.append(f"tile = {turn} % tiles")
        if self.part.order == "backwards":
            lines.append("tile = tiles - 1 - tile  # those with most to do first")
        if self.part.order == "inwards":
            turned = "tl.where(tile % 2 == 0, tile // 2, tiles - 1 - tile // 2)"
            lines.append(f"tile = {turned}  # those with most to do first, at both ends")
        lines.append("offset = n - n_q  # the first query's position")
        lines += bases_of(self.needs).splitlines()
        if not self.weights.scaled:
            lines.append("scale = 1.0  # it is a factor of weights, not of the products of features")
        lines.append(f"factor = scale{'' if self.weighed else ' * 1.4426950408889634'}")
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
            f"{name}_base = {name}_ptr + {batch} * {name}_batch * UNIT"
            f" + tl.cast({head}, tl.int64) * {name}_head * UNIT\n"
            for name in names
        )

    # --- weights ---

    def _mapped(self, name: str) -> str:
        """A tile of vectors as their features."""
        if self.weights.weights.feature is None:
            return ""
        if self.weights.feature is None:
            return f"{name} = _as_operand({name})\n"
        return f"{name} = _feature{self.weights.suffix}({name}, DIM, BLOCK_DIM)\n"

    def _unmapped(self, kind: Kind) -> str:
        """The gradients of features as those of the vectors."""
        if self.weights.feature is None or kind.name == "forward":
            return ""
        own, base = ("query", "q") if kind.side == "query" else ("key", "k")
        return (
            f"{own} = _load_tile({base}_base, origin, row, {base}_row, inside, False, DIM, BLOCK_DIM)\n"
            f"d_{own} *= _feature_slope{self.weights.suffix}({own})\n"
        )

    def _entry_sums(self, kind: Kind) -> list[str]:
        """Names of the sums that a kernel keeps for the gradients of weights' entries."""
        kept = _SUMS.get(kind.name)
        return [f"d_{kept}{i}" for i, _ in self.weights.of_kind(kept)] if kept else []

    def _own_block(self, kind: Kind) -> str:
        return "BLOCK_M" if kind.side == "query" else "BLOCK_N"

    def _kept(self, name: str, kind: Kind) -> str:
        """Adds a sum to what other passes found for the same positions."""
        rows, inside = ("head_rows + (q - offset)", "stored")
        if kind.side == "key":
            rows, inside = ("(batch * heads + h) * n + k", "inside")
        return (
            f"{name} += tl.load({name}_ptr + {rows}, mask={inside}, other=0.0)\n"
            f"tl.store({name}_ptr + {rows}, {name}, mask={inside})"
        )

    def _weighing(self, kind: Kind, names: dict[str, str], axis: int | None) -> dict[str, str]:
        """What stands in the holes of a step that have to do with weights.

        axis: over which sums are made; None: over none.
        """
        weights = self.weights
        mapped = self._mapped("key" if kind.side == "query" else "query")
        if weights.plain:
            return {"map": mapped, "factor": "factor", "weigh": "", "scores": "scores", "slope": ""}

        weigh = f"logits = {self._real(weights.score, names, 'scores')}\n"
        slope = ""
        kept = _SUMS.get(kind.name)
        for i, item in weights.of_kind(kept) if kept else ():
            text = "d_scores"
            if item.slope != ONE:
                text = sloped(self._real(item.slope, names, "scores"))
            slope += f"d_{kept}{i} += {text if axis is None else f'tl.sum({text}, {axis})'}\n"
        if weights.slope != ONE and kind.name != "forward":
            factor = self._real(weights.slope, names, "scores")
            slope += f"d_scores = {sloped(factor)}\n"
        return {"map": mapped, "factor": "scale", "weigh": weigh, "scores": "logits", "slope": slope}

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
        if self.long:
            lines.append(f"begin, end = _share(begin, end, share, shares, {block}, {self._in_shares})")
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
            f"{self._shared('slot', 'tl.load(offsets)', 'tl.load(offsets + 1)')}\n" + indent(body, "    ")
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
        weighing = self._weighing(kind, vectors, None)
        body.append(kind.alone.format(inside=f"{other}_inside", **weighing).rstrip("\n"))
        loop = self._shared("i", "0", steps)
        return "\n".join((*lines, loop, indent("\n".join(body), "    "))) + "\n"

    def _shared(self, name: str, begin: str, end: str) -> str:
        """The head of a loop, over this program's share where tiles come in shares."""
        if not self.long:
            return f"for {name} in tl.range({begin}, {end}):"
        # The compiler, unlike the interpreter, takes no starred arguments.
        share = f"_share({begin}, {end}, share, shares, 1, {self._in_shares})"
        return f"begin, stop = {share}\nfor {name} in tl.range(begin, stop):"

    def _other_block(self, kind: Kind) -> str:
        return "BLOCK_N" if kind.side == "query" else "BLOCK_M"

    def _step(self, sweep: Sweep, kind: Kind, masked: bool) -> str:
        walk, other, block = sweep.walk, self.other.name, self._other_block(kind)
        lines = []
        if walk.members is not None or walk.radix != PLAIN:
            lines += [f"place = start + tl.arange(0, {block})", *self._swept_positions(sweep, masked)]
            place = f"0, ({other} - offset).to(tl.int64)" if other == "q" else f"0, {other}.to(tl.int64)"
        else:
            if masked or kind.side == "key" or not self.weights.plain:
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
        names = self._pair_names(sweep)
        weighing = self._weighing(kind, names, 1)
        step = kind.step if self.weighed else kind.plain or kind.step
        lines.append(step.format(mask=mask, masked=str(masked), **weighing).rstrip("\n"))
        return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


class FeatureWriter(KernelText):
    """Writes the feature map of a body for kernels."""

    def __init__(self, weights: BodyWeights, names: Names) -> None:
        super().__init__(Q, names, ())
        self.weights = weights

    def text(self) -> str:
        """The map of a tile and its derivative; nothing where vectors are their own features."""
        if self.weights.feature is None:
            return ""
        suffix = self.weights.suffix
        value, slope = (
            self.coordinates(expr) for expr in (self.weights.feature, derivative(self.weights.feature, X))
        )
        return f'''\
@_jit
def _feature{suffix}(vectors, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """The features of a tile of vectors; what pads them stays zero."""
    x = vectors.to(tl.float32)
    features = tl.where((tl.arange(0, BLOCK_DIM) < DIM)[None, :], {value}, 0.0)
    return features.to(_as_operand(vectors).dtype)


@_jit
def _feature_slope{suffix}(vectors):
    """The derivative of ``_feature``."""
    x = vectors.to(tl.float32)
    return {slope}
'''

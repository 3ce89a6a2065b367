"""Kernels that sum the gradients of entries which hang on query and key together, one body at a time.

They walk over pairs in a way of their own, masked by the relation itself: along diagonals where an entry is
read at a distance, and else pair by pair, into memory that is summed up afterwards.
"""

from __future__ import annotations

from textwrap import indent

from attnc.codegen.expressions import KernelText
from attnc.codegen.needs import Names, Need, bases_of, needs_of, parameters_of
from attnc.codegen.weights import BodyWeights, EntryKind, sloped
from attnc.expression import Q, fold
from attnc.pattern import Input, formula
from attnc.real import ONE

PAIR_KINDS: tuple[EntryKind, ...] = ("diagonal", "pair")
_STRIDED = ("q", "k", "v", "grad")
_CONSTANTS = ("DIM", "VALUE_DIM", "BLOCK_DIM", "BLOCK_VALUE_DIM", "BLOCK", "UNIT", "PRECISION")
_NAMES = {"q": "q[:, None]", "k": "k[None, :]"}
# What a launch says besides: the least distance or the first query, and how many there are.
_EXTRA = {"diagonal": ("low", "length"), "pair": ("first", "rows")}

_PROLOGUE = """\
program = tl.program_id(0)
tile = program % tiles
h = head_start + head_step * (program // tiles % head_count)
batch = (program // tiles // head_count).to(tl.int64)
key_head = h // group
offset = n - n_q  # the first query's position
head_rows = (batch * heads + h) * n_q
row = tl.arange(0, BLOCK)
"""

_QUERIES = """\
query = _load_tile(q_base, {start}, row, q_row, inside, False, DIM, BLOCK_DIM)
grad = _load_tile(grad_base, {start}, row, grad_row, inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
lse = _from_natural(_load_row(lse_ptr + head_rows, {start}, row, inside, False))
delta = _load_row(delta_ptr + head_rows, {start}, row, inside, False)
"""

_MASK = """\
k = begin + row
k_inside = (k >= 0) & (k < n)
mask = inside[:, None] & k_inside[None, :] & {mask}
"""

_GRADIENT = """\
key = _load_tile(k_base, begin, row, k_row, k_inside, False, DIM, BLOCK_DIM)
value = _load_tile(v_base, begin, row, v_row, k_inside, False, VALUE_DIM, BLOCK_VALUE_DIM)
scores = _tile_scores(query, key, scale, PRECISION)
logits = {score}
d_scores = _score_gradient(logits, grad, value, mask, lse, delta, True, PRECISION)
"""


class PairWriter(KernelText):
    """Writes the kernels of one body that need walks of their own, if there are any."""

    def __init__(self, weights: BodyWeights, names: Names, inputs: tuple[Input, ...], suffix: str) -> None:
        super().__init__(Q, names, (*inputs, *(item.input for item in weights.by_distance)))
        self.weights, self.body = weights, weights.body
        self.suffix = suffix
        self.needs: tuple[Need, ...] = needs_of(
            (fold(formula(self.body.relation)),), names, (self.weights.score,)
        )

    def kernels(self) -> str:
        """Their text."""
        return "\n\n".join(self._kernel(kind) for kind in PAIR_KINDS if self.weights.of_kind(kind))

    def told(self) -> str:
        """What a launcher knows: the kernels, the least and greatest distance, the tables that are read."""
        names = [self._name(kind) if self.weights.of_kind(kind) else "None" for kind in PAIR_KINDS]
        if names == ["None", "None"]:
            return "None"
        low, high = self.weights.distances if self.weights.of_kind("diagonal") else (None, None)
        needed = "".join(f"({need.kind!r}, {need.name!r}, {need.size!r}), " for need in self.needs)
        return f"({', '.join(names)}, {low}, {high}, ({needed}))"

    def _name(self, kind: EntryKind) -> str:
        return f"_{kind}_kernel{self.suffix}"

    def _kernel(self, kind: EntryKind) -> str:
        sums = [f"d_{kind}{i}" for i, _ in self.weights.of_kind(kind)]
        body = self._diagonals(sums) if kind == "diagonal" else self._pairs(sums)
        bases = bases_of(self.needs) + "".join(
            f"{name}_row = {name}_row * UNIT\n"
            f"{name}_base = {name}_ptr + batch * {name}_batch * UNIT"
            f" + tl.cast({'key_head' if name in 'kv' else 'h'}, tl.int64) * {name}_head * UNIT\n"
            for name in _STRIDED
        )
        rows = [", ".join(f"{name}_ptr" for name in (*_STRIDED, "lse", "delta", *sums))]
        rows += [", ".join(f"{name}_{axis}" for axis in ("batch", "head", "row")) for name in _STRIDED]
        rows += [", ".join(parameters) for need in self.needs if (parameters := parameters_of(need))]
        rows.append("scale, n_q, n, heads, group, tiles, head_start, head_step, head_count")
        rows.append(", ".join(_EXTRA[kind]))
        rows += [f"{name}: tl.constexpr" for name in _CONSTANTS]
        listed = indent("".join(f"{row},\n" for row in rows), "    ")
        text = indent(_PROLOGUE + bases + body, "    ")
        return f"@_jit\ndef {self._name(kind)}(\n{listed}):\n{text}"

    def _diagonals(self, sums: list[str]) -> str:
        """A block of distances a program; queries by tiles, their keys in two tiles side by side."""
        slopes = self._slopes("diagonal")
        lines = [
            "# Distances q - k from `nearest` on, a block of them.",
            "nearest = low + tile * BLOCK",
            *(f"{name} = tl.zeros([BLOCK], dtype=tl.float32)" for name in sums),
            "stop = tl.minimum(n, n + nearest + BLOCK - 1)",
            "for start in tl.range(tl.maximum(offset, nearest), stop, BLOCK):",
            "    q = start + row",
            "    inside = q < n",
            indent(_QUERIES.format(start="start - offset"), "    ").rstrip("\n"),
        ]
        for second in (False, True):
            adds = (
                f"{name} += _diagonal_sums({value}, {second})"
                for name, value in zip(sums, slopes, strict=True)
            )
            lines += [
                f"    begin = start - nearest{'' if second else ' - BLOCK'}",
                indent(self._mask() + self._gradient() + "\n".join(adds), "    "),
            ]
        lines.append("place = tile * BLOCK + row")
        at = "(batch * heads + h) * length + place"
        lines += [f"tl.store({name}_ptr + {at}, {name}, mask=place < length)" for name in sums]
        return "\n".join(lines) + "\n"

    def _pairs(self, sums: list[str]) -> str:
        """A tile of queries and one of keys, by the program."""
        at = "((batch * heads + h) * rows + (q - first))[:, None] * n + k[None, :]"
        stores = (
            f"tl.store({name}_ptr + {at}, {value}, mask=mask)"
            for name, value in zip(sums, self._slopes("pair"), strict=True)
        )
        lines = [
            "columns = (n + BLOCK - 1) // BLOCK",
            "start, begin = first + tile // columns * BLOCK, tile % columns * BLOCK",
            "q = start + row",
            "inside = q < tl.minimum(first + rows, n)",
            self._mask().rstrip("\n"),
            "if tl.max(tl.max(mask.to(tl.int32), 1), 0) > 0:",
            indent(_QUERIES.format(start="start - offset") + self._gradient() + "\n".join(stores), "    "),
        ]
        return "\n".join(lines) + "\n"

    def _mask(self) -> str:
        return _MASK.format(mask=self._vector(fold(formula(self.body.relation)), _NAMES))

    def _gradient(self) -> str:
        return _GRADIENT.format(score=self._real(self.weights.score, _NAMES, "scores"))

    def _slopes(self, kind: EntryKind) -> list[str]:
        """The gradient of every entry of a kind, over the tile."""
        found = []
        for _, item in self.weights.of_kind(kind):
            slope = self._real(item.slope, _NAMES, "scores")
            found.append("d_scores" if item.slope == ONE else sloped(slope))
        return found

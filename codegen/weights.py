"""What edges weigh, in the kernels of a pass: scores on their way to softmax, and their gradients back.

Every entry of a float input that a score reads gets a gradient. Where the entry hangs on the query or the
head alone it is the sum of a row, where it hangs on the key, the sum of a column: kernels keep those as they
sweep. What hangs on both is summed pair by pair, in kernels of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from attnc.codegen.expressions import TensorText
from attnc.codegen.needs import identifier
from attnc.codegen.printer import Printer
from attnc.diagnostics import Span
from attnc.distances import distances
from attnc.expression import (
    HEAD,
    HEADS,
    ZERO,
    Const,
    Expr,
    K,
    N,
    Q,
    Sum,
    Var,
    add,
    as_expr,
    fold,
    maximum,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.intervals import Tile, bounds
from attnc.pattern import Body, Cosine, Elementwise, Input, Taylor, Weights, formula
from attnc.real import (
    ONE,
    Entry,
    Number,
    Real,
    S,
    Whole,
    X,
    apply,
    derivative,
    entries,
    folded,
    over,
    plus,
    replace,
    times,
)

# The smallest normal number of fp32: what is divided by a weight is divided by no less.
LEAST, NOTHING = Number(2.0**-126), Number(0.0)
# What the sum over the edges that read an entry runs along; or the entry is summed up pair by pair.
EntryKind = Literal["row", "column", "diagonal", "pair"]


def sloped(slope: str) -> str:
    """The text of scores' gradients times a slope, which may be infinite where nothing weighs anything."""
    return f"tl.where(d_scores != 0.0, d_scores * ({slope}), 0.0)"


@dataclass(frozen=True)
class Weighed:
    """An entry that a score reads: where, and the derivative of the score by it."""

    entry: Entry
    slope: Real

    @property
    def kind(self) -> EntryKind:
        return _kind(self.entry)


def _kind(entry: Entry) -> EntryKind:
    found = frozenset().union(*map(variables, entry.index)) & {"q", "k"}
    if found == {"q", "k"}:
        return "diagonal" if all(_moved(fold(index)) == fold(index) for index in entry.index) else "pair"
    return "column" if "k" in found else "row"


def _is_plain(entry: Entry) -> bool:
    """Whether an entry's place takes no more than adding up to find."""
    return all(_flat(fold(index)) for index in entry.index)


def _flat(expr: Expr) -> bool:
    return all(isinstance(part, Const | Var | Sum) for part in walk(expr))


def _moved(expr: Expr) -> Expr:
    """The expression for the next query and the next key: the same where it hangs on their distance alone."""
    return fold(substitute(expr, {Q: add(Q, 1), K: add(K, 1)}))


def _stays(expr: Expr, low: int, high: int) -> bool:
    """Whether intervals tell that an expression has one value while ``q`` is between two numbers."""
    ends = bounds(expr, Tile({Q: (as_expr(low), as_expr(high))}))
    return ends[0] is not None and ends[0] == ends[1]


# Distances among which to look for where an entry stops changing, and one that is farther than any.
_MOST_NEAR = 1 << 12
_FAR = 1 << 62


@dataclass(frozen=True)
class ByDistance:
    """A table of what an entry is at every distance ``q - k``: (heads, length).

    Where an index takes some arithmetic, it is done once for each distance, and not once for each pair.

    least, most: what no distance goes beyond; None where that is the length's affair.
    """

    entry: Entry
    suffix: str
    least: int | None
    most: int | None

    @cached_property
    def low(self) -> Expr:
        """The distance that the table begins with."""
        return sub(1, N) if self.least is None else as_expr(self.least)

    @cached_property
    def length(self) -> Expr:
        return add(sub(sub(N, 1) if self.most is None else as_expr(self.most), self.low), 1)

    @cached_property
    def index(self) -> tuple[Expr, ...]:
        """Where the entry is, by its distance, which is called ``q``."""
        return tuple(substitute(fold(index), {K: ZERO}) for index in self.entry.index)

    @cached_property
    def near(self) -> tuple[int, int] | None:
        """Distances beyond which, to either side, the entry is what it is at their ends.

        None if it goes on changing, as far as intervals can tell, or if the relation ends before.
        """
        if self.least is not None and self.most is not None:
            return None
        for reach in (1 << i for i in range(_MOST_NEAR.bit_length())):
            low = -reach if self.least is None else self.least
            high = reach if self.most is None else self.most
            beyond = [(-_FAR, low)] * (self.least is None) + [(high, _FAR)] * (self.most is None)
            if low <= high and all(_stays(index, *ends) for index in self.index for ends in beyond):
                return low, high
        return None

    @property
    def name(self) -> str:
        return f"{self.entry.table}.by_distance{self.suffix}"

    @property
    def input(self) -> Input:
        """As if it were given: what kernels know of its shape."""
        return Input(self.name, "float", (HEADS, self.length), Span(0, 0))

    @property
    def read(self) -> Entry:
        """What the entry is read as."""
        return Entry(self.name, (HEAD, sub(sub(Q, K), self.low)))


@dataclass(frozen=True)
class BodyWeights:
    """The weights of one body of softmax attention, as codegen wants them."""

    body: Body
    suffix: str = ""

    @property
    def weights(self) -> Weights:
        return self.body.weights

    @cached_property
    def definition(self) -> Real:
        """What softmax takes exponentials of, as it is defined; under a feature map, logarithms of weights.

        A sum of weights over their sum is the softmax of their logarithms: minus infinity for no weight, so
        that a row of such has a sum of zero.
        """
        weight = self._weight
        return folded(self.weights.score) if weight is None else apply("log", weight)

    @property
    def _weight(self) -> Real | None:
        """What an edge weighs under a feature map, from products of features; never negative."""
        match self.weights.feature:
            case None:
                return None
            case Taylor():
                return plus(ONE, S, times(Number(0.5), S, S))
            case Cosine():
                return apply("max", times(S, self._fading), NOTHING)
        return apply("max", S, NOTHING)

    @property
    def _fading(self) -> Real:
        """By what ``cosine`` weighs a distance."""
        assert isinstance(self.weights.feature, Cosine)
        return apply("cos", times(Number(math.pi / 2 / self.weights.feature.length), Whole(sub(Q, K))))

    @property
    def feature(self) -> Real | None:
        """The map of every coordinate, where it changes any."""
        match self.weights.feature:
            case Elementwise(value) if value != X:
                return folded(value)
            case Cosine():
                return apply("relu", X)
        return None

    @property
    def scaled(self) -> bool:
        """Whether the scale is a factor of ``s``, and not of weights."""
        return self.weights.feature is None or isinstance(self.weights.feature, Taylor)

    @cached_property
    def score(self) -> Real:
        """The same, read from tables by distance where that saves arithmetic."""
        return self._read(self.definition)

    def _read(self, expr: Real) -> Real:
        return replace(expr, {item.entry: item.read for item in self.by_distance})

    @cached_property
    def distances(self) -> tuple[int | None, int | None]:
        return distances(formula(self.body.relation))

    @cached_property
    def by_distance(self) -> tuple[ByDistance, ...]:
        read = dict.fromkeys(entries(self.definition))
        found = [entry for entry in read if _kind(entry) == "diagonal" and not _is_plain(entry)]
        if not found:
            return ()
        return tuple(
            ByDistance(entry, f"{self.suffix}_{i}", *self.distances) for i, entry in enumerate(found)
        )

    @property
    def plain(self) -> bool:
        """Whether scores go to softmax as they are."""
        return self.score == S

    @cached_property
    def slope(self) -> Real:
        """The derivative by the scaled dot product, or by the product of features.

        It is multiplied with the weight: where there is none it may be any number, because a product of
        features that are never negative is zero only where each is least, or its partner zero.
        """
        weight = self._weight
        if weight is None:
            return self._read(derivative(self.definition, S))
        match self.weights.feature:
            case Taylor():
                return over(plus(ONE, S), weight)
            case Cosine():
                return over(self._fading, apply("max", times(S, self._fading), LEAST))
        return over(ONE, apply("max", S, LEAST))

    @cached_property
    def entries(self) -> tuple[Weighed, ...]:
        read = entries(self.definition)
        return tuple(Weighed(entry, self._read(derivative(self.definition, entry))) for entry in read)

    def of_kind(self, kind: EntryKind) -> list[tuple[int, Weighed]]:
        """Entries of one kind, numbered."""
        return list(enumerate(item for item in self.entries if item.kind == kind))


class WeightsWriter(TensorText):
    """Writes what weights are for torch: scores, their derivatives, which entries those are of, and sinks."""

    def by_distance(self, found: Sequence[BodyWeights]) -> list[str]:
        """Lines that build the tables by distance, for the function that builds all tables."""
        lines = []
        for item in (item for weights in found for item in weights.by_distance):
            # A relation may need more tokens than there are before it has any edge.
            low, length = fold(item.low), fold(maximum(item.length, 1))
            host = Printer("host", {"n": "n"})
            first, count, made = host(low), host(length), "{}"
            if item.near is not None:
                made = f"_continued({{}}, {host(fold(sub(item.near[0], low)))}, {count})"
                first, count = str(item.near[0]), str(item.near[1] - item.near[0] + 1)
            places = ", ".join(self.tensor(place, {"q": "distance", "h": "head"}) for place in item.index)
            read = f'_spread(_read(tables["{identifier(item.entry.table)}"], {places}), heads)'
            lines += [
                "head = torch.arange(heads, device=device)[:, None]",
                f"distance = torch.arange({count}, device=device) + {first}",
                f'tables["{identifier(item.name)}"] = {made.format(read)}',
            ]
        return lines

    def bodies(self, found: Sequence[BodyWeights]) -> str:
        """A function each for every body whose scores are not plain, and the table of them."""
        text, rows = "", []
        for i, weights in enumerate(found):
            suffix = f"_{i}" if len(found) > 1 else ""
            if weights.plain:
                rows.append("_Weights()")
                continue
            told = [f"score=_score{suffix}", f"slopes=_slopes{suffix}"]
            if weights.entries:
                told.append(f"entries=({''.join(f'{self._entry(item)}, ' for item in weights.entries)})")
            if weights.feature is not None:
                text += self.maps(weights, suffix) + "\n\n"
                told.append(f"maps=(_map{suffix}, _map_slope{suffix})")
            told += ["scaled=False"] * (not weights.scaled)
            told += ["normalized=False"] * (not weights.weights.normalized)
            text += self._score(weights, suffix) + "\n\n" + self._slopes(weights, suffix) + "\n\n"
            rows.append(f"_Weights({', '.join(told)})")
        return f"{text}_WEIGHTS = ({', '.join(rows)},)\n"

    def _score(self, weights: BodyWeights, suffix: str) -> str:
        return (
            f"def _score{suffix}(s, q, k, h, n, heads, tables):\n"
            '    """What softmax takes exponentials of, from scaled dot products ``s``."""\n'
            "    dtype = s.dtype\n"
            f"    return {self.real(weights.score, _PLACES)}\n"
        )

    def _slopes(self, weights: BodyWeights, suffix: str) -> str:
        slopes = "".join(f"{self.real(item.slope, _PLACES)}, " for item in weights.entries)
        return (
            f"def _slopes{suffix}(s, q, k, h, n, heads, tables):\n"
            '    """The derivatives of ``_score`` by ``s``, and by every entry that it reads."""\n'
            "    dtype = s.dtype\n"
            f"    return {self.real(weights.slope, _PLACES)}, ({slopes})\n"
        )

    def maps(self, weights: BodyWeights, suffix: str) -> str:
        """The feature map of a body and its derivative, for torch."""
        assert weights.feature is not None
        slope = self.real(derivative(weights.feature, X), {})
        return (
            f"def _map{suffix}(x):\n"
            '    """The features of vectors."""\n'
            "    dtype = x.dtype\n"
            f"    return {self.real(weights.feature, {})}\n\n\n"
            f"def _map_slope{suffix}(x):\n"
            '    """The derivative of ``_map``."""\n'
            "    dtype = x.dtype\n"
            f"    return {slope}\n"
        )

    def _entry(self, item: Weighed) -> str:
        places = "".join(f"{self.tensor(fold(index), _PLACES)}, " for index in item.entry.index)
        place = f"lambda q, k, h, n, heads, tables: ({places})"
        return f'("{identifier(item.entry.table)}", "{item.kind}", {place})'

    def sinks(self, bodies: Sequence[Body]) -> str:
        """The function that gives the logarithm added to the denominator of every head."""
        lines = []
        for body in bodies:
            sink = body.weights.sink
            text = (
                "None" if sink is None else f"lambda h: {self.real(folded(sink), {'h': 'h'}, batched=True)}"
            )
            lines.append(f"        {text},\n")
        read = sorted({part.table for body in bodies for part in _sink_entries(body)})
        tables = "".join(f'"{identifier(name)}": _leading({name!r}, inputs, heads), ' for name in read)
        return (
            "def _sinks(inputs, heads, dtype, device):\n"
            '    """The logarithms that are added to denominators: (batch or 1, heads); differentiable."""\n'
            f"    tables = {{{tables}}}\n"
            f"    bodies = (\n{''.join(lines)}    )\n"
            "    return _by_head(bodies, heads, dtype, device)\n"
        )


# Variables of torch text: tensors that broadcast together.
_PLACES = {"q": "q", "k": "k", "h": "h"}


def _sink_entries(body: Body) -> tuple[Entry, ...]:
    sink = body.weights.sink
    return () if sink is None else entries(sink)

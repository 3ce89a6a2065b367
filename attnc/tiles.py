"""A length cut into tiles, and what expressions are worth there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.budget import use
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    EQUAL_ENDS,
    Expr,
    tables,
)
from attnc.runs import Ints

# Positions that are looked at together.
CHUNK = 1 << 16


@dataclass(frozen=True)
class Tiles:
    """A length cut into tiles, and what expressions are evaluated under.

    known: values of ``n``, ``h`` and ``H``. inputs: the arrays that were given.
    """

    n: int
    size: int
    known: Mapping[str, int]
    inputs: Mapping[str, npt.NDArray[Any]]

    @property
    def count(self) -> int:
        return -(-self.n // self.size)

    @property
    def first(self) -> Ints:
        return np.arange(self.count, dtype=np.int64) * self.size

    @property
    def last(self) -> Ints:
        return np.minimum(self.first + self.size, self.n) - 1

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.inputs)

    def knows(self, *exprs: Expr) -> bool:
        """Whether everything that the expressions look up was given."""
        return all(name in self._tables for expr in exprs for name in tables(expr))

    def value(self, expr: Expr, **variables: Any) -> Any:
        return evaluate(expr, Env({**self.known, **variables}, self._tables, draws.drawn))

    @cached_property
    def _extremes(self) -> dict[tuple[Expr, str], tuple[Ints, Ints]]:
        return {}

    def extremes(self, part: Expr, side: str) -> tuple[Ints, Ints]:
        """The least and the greatest value, in every tile, of what depends on the position ``side`` alone."""
        key = part, side
        if key not in self._extremes:
            low, high = np.zeros((2, self.count), dtype=np.int64)
            for at, positions in self.spans():
                values = np.asarray(self.value(part, **{side: positions}), dtype=np.int64)
                edges = np.arange(0, len(positions), self.size)
                low[at], high[at] = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
            self._extremes[key] = low, high
        return self._extremes[key]

    def spans(self) -> Iterator[tuple[slice, Ints]]:
        """The positions in chunks of whole tiles, with the tiles that each chunk covers."""
        step = max(1, CHUNK // self.size)
        for i in range(0, self.count, step):
            j = min(i + step, self.count)
            yield slice(i, j), np.arange(i * self.size, min(j * self.size, self.n), dtype=np.int64)


class Tables(Mapping[str, npt.NDArray[Any]]):
    """Inputs by name, and the ends of equal entries of those with one axis: ``doc.first`` beside ``doc``.

    Ends are computed when they are looked up.
    """

    def __init__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        self._inputs = inputs
        self._ends = {
            f"{name}.{end}": (name, end) for name, x in inputs.items() if x.ndim == 1 for end in EQUAL_ENDS
        }
        self._found: dict[str, dict[str, Ints]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name in self._inputs:
            return self._inputs[name]
        given, end = self._ends[name]
        if given not in self._found:
            self._found[given] = equal_entries(self._inputs[given])
        return self._found[given][end]

    def __contains__(self, name: object) -> bool:
        return name in self._inputs or name in self._ends

    def __iter__(self) -> Iterator[str]:
        yield from self._inputs
        yield from self._ends

    def __len__(self) -> int:
        return len(self._inputs) + len(self._ends)


def equal_entries(values: npt.NDArray[Any]) -> dict[str, Ints]:
    """For every position the first and last equal entry, and the ends of the unbroken run around it."""
    use(len(values), "finding equal entries")
    positions = np.arange(len(values), dtype=np.int64)
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    last = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(last, inverse, positions)
    breaks = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts, ends = np.concatenate(([0], breaks)), np.concatenate((breaks, [len(values)])) - 1
    run = np.zeros(len(values), dtype=np.int64)
    run[breaks] = 1
    run = np.cumsum(run)
    return dict(zip(EQUAL_ENDS, (first[inverse], last[inverse], starts[run], ends[run]), strict=True))

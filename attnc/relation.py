"""The algebra: a relation as a union of disjoint *terms*, each easy to walk.

A term is rows, columns, and for every row one interval of columns, plus conditions on pairs that the interval
does not say. Those are masked element by element, unless the schedule finds digits in which they are
intervals, too. These are the types; ``attnc.decompose`` brings a pattern there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnc.diagnostics import Span
from attnc.expression import (
    TRUE,
    ZERO,
    Drawn,
    Expr,
    K,
    Q,
    Var,
    between,
    conj,
    eq,
    fold,
    le,
    mod,
)
from attnc.notation import show
from attnc.pattern import Body
from attnc.simplify import LAST


@dataclass(frozen=True)
class Lattice:
    """Positions ``p`` with ``p % step == offset``; neither number hangs on a position.

    A residue of ``q - k`` is no lattice but one of a term's conditions on pairs.
    """

    step: Expr
    offset: Expr


@dataclass(frozen=True)
class Axis:
    """The positions along one side of a term.

    var: ``q`` or ``k``.
    first, last: an interval of positions, both inclusive, over ``n``.
    lattice: only these residues, where given.
    members: a predicate over ``var``: only these positions, where given.
    packed: whether lattice and members are few enough to be gathered into dense tiles, by digits or by an
        index; otherwise they only say which positions of a contiguous tile count.
    """

    var: Var
    first: Expr = ZERO
    last: Expr = LAST
    lattice: Lattice | None = None
    members: Expr | None = None
    packed: bool = False

    def condition(self) -> Expr:
        """What a position of the sequence must meet to lie on the axis."""
        return conj(self.interval(), self.selection())

    def interval(self) -> Expr:
        """The part of the condition that is an interval; the sequence's own ends go without saying."""
        low = TRUE if self.first == ZERO else le(self.first, self.var)
        high = TRUE if self.last == LAST else le(self.var, self.last)
        return conj(low, high)

    def selection(self) -> Expr:
        """The part of the condition that is not an interval."""
        residue = TRUE if self.lattice is None else eq(mod(self.var, self.lattice.step), self.lattice.offset)
        return conj(residue, TRUE if self.members is None else self.members)


@dataclass(frozen=True)
class Term:
    """Rows, columns, and for every row one interval of columns; plus conditions that it does not say.

    low, high: inclusive bounds on the column's position over the row's position, not clamped to the axis.
    leftover: conditions over both positions that the bounds do not say.
    drawn: random columns; then the interval only clips them.
    origin, span: how the term was written, for comments and messages.
    """

    rows: Axis
    columns: Axis
    low: Expr
    high: Expr
    leftover: tuple[Expr, ...]
    drawn: Drawn | None
    origin: str
    span: Span

    def inside(self) -> Expr:
        """Which columns a row has, given that both positions lie on their axes and in the sequence."""
        var = self.columns.var
        return conj(
            TRUE if self.low == ZERO else le(self.low, var),
            TRUE if self.high == LAST else le(var, self.high),
            *self.leftover,
            TRUE if self.drawn is None else self.drawn,
        )

    def formula(self) -> Expr:
        return conj(self.rows.condition(), self.columns.condition(), self.inside())

    @property
    def plain(self) -> bool:
        """An interval of tokens and nothing else."""
        axis = self.columns
        return not self.leftover and self.drawn is None and axis.lattice is None and axis.members is None


@dataclass(frozen=True)
class BodyTerms:
    """The disjoint terms of one body of a pattern; their union is the body's relation."""

    body: Body
    terms: tuple[Term, ...]


POSITIONS = conj(between(0, Q, LAST), between(0, K, LAST))


def describe(bodies: Iterable[BodyTerms]) -> str:
    """The terms, a few lines each, for ``--emit terms``."""
    lines: list[str] = []
    for item in bodies:
        if item.body.heads.text:
            lines.append(f"heads {item.body.heads.text}")
        for term in item.terms:
            lines += [f"term {term.origin}", *(f"    {line}" for line in _describe(term))]
        if not item.terms:
            lines.append("no terms: no query reads any key")
    return "\n".join(lines)


def _describe(term: Term) -> list[str]:
    lines = [f"rows     {_axis(term.rows)}", f"columns  {_axis(term.columns)}"]
    lines.append(f"interval [{show(fold(term.low))}, {show(fold(term.high))}]")
    lines += [f"leftover {show(fold(item))}" for item in term.leftover]
    if term.drawn is not None:
        lines.append(f"list     {show(fold(term.drawn))}")
    return lines


def _axis(axis: Axis) -> str:
    text = f"{axis.var.name} in [{show(fold(axis.first))}, {show(fold(axis.last))}]"
    if axis.selection() != TRUE:
        text += f" where {show(fold(axis.selection()))}{', packed' if axis.packed else ''}"
    return text

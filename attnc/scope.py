"""What names stand for while a pattern is being resolved, and where its mistakes are gathered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from attnc import elsewhere
from attnc import syntax as tree
from attnc.diagnostics import Diagnostic, Edit, Label, Source, Span
from attnc.expression import (
    Expr,
    Param,
    children,
)
from attnc.names import meant
from attnc.pattern import Atom, Input, Relation, operands
from attnc.real import Real, integers, parts

# --- values ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Integer:
    expr: Expr


@dataclass(frozen=True)
class Boolean:
    expr: Expr


@dataclass(frozen=True)
class Floating:
    value: float


@dataclass(frozen=True)
class Positions:
    """A set of positions: a predicate over ``atoms.POSITION``.

    listed: written as a list (or ``powers``), so that it may also name offsets.
    least: the smallest number in the list; a list with a negative one names offsets only.
    """

    members: Expr
    listed: bool = False
    least: int = 0


@dataclass(frozen=True)
class Edges:
    relation: Relation


@dataclass(frozen=True)
class Weighing:
    """A real number that hangs on the edge or the head at hand."""

    expr: Real


Value = Integer | Boolean | Floating | Weighing | Positions | Edges

KIND_NAMES: dict[type[Value], str] = {
    Integer: "a number",
    Boolean: "a condition",
    Floating: "a float",
    Weighing: "a float",
    Positions: "a set of positions",
    Edges: "a relation",
}

# --- definitions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterDef:
    value: Param | bool | float
    span: Span
    role: Literal["parameter"] = "parameter"


@dataclass(frozen=True)
class InputDef:
    input: Input
    span: Span
    role: Literal["input"] = "input"


@dataclass(frozen=True)
class LetDef:
    """Resolved again for every depth of ``blocks`` it is used at; ``values`` remembers."""

    value: tree.Expression
    span: Span
    values: dict[tuple[int, ...] | None, Value] = field(default_factory=dict)
    role: Literal["let"] = "let"


@dataclass(frozen=True)
class BrokenDef:
    """Something whose definition was already complained about; its uses say nothing."""

    span: Span
    role: Literal["name"] = "name"


Definition = ParameterDef | InputDef | LetDef | BrokenDef


def article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"


def bound_terms(kind: str) -> str:
    """What the bound of a claim of this kind is made of, in words."""
    if kind == "reach":
        return "the bound of `reach` is a number of layers, made of numbers and parameters"
    names = "`n`, `d`, parameters" if kind == "flops" else "`n`, parameters"
    return f"bounds are made of {names}, `count(x)` of bool inputs, numbers and `+ - * // min max`"


class Mistake(Exception):
    """A diagnostic on its way to the report; None when it has been reported before."""

    def __init__(self, diagnostic: Diagnostic | None) -> None:
        super().__init__()
        self.diagnostic = diagnostic


_SCORES = "`s`, the scaled dot product of query and key, stands in `score` alone"
_PER_HEAD = "a sink is a number for each head, as in `input sinks: float[H]` and `sink sinks[h]`"


@dataclass
class Report:
    """Every error and warning found so far, none twice."""

    source: Source
    errors: dict[tuple[str, Span, str], Diagnostic] = field(default_factory=dict)
    warnings: list[Diagnostic] = field(default_factory=list)

    def record(self, found: Diagnostic) -> None:
        if found.level == "warning":
            self.warnings.append(found)
        else:
            self.errors.setdefault((found.code, found.span, found.message), found)

    def sorted_errors(self) -> tuple[Diagnostic, ...]:
        return tuple(sorted(self.errors.values(), key=lambda d: (d.span.start, d.span.end)))


# Beyond this later rooms could do nothing with an expression, and lets can make one grow without end.
LARGEST = 50_000
DEEPEST = 200
LONGEST_QUOTE = 60


@dataclass
class Scope:
    """Names known at some point of one pattern.

    faulty_grid: whether the grid was complained about already, so that uses of its axes say nothing.
    blocks: sizes of the ``blocks`` around the place at hand, outermost first; None where that is not known
    yet, because a ``let`` is being looked at before its first use.
    bound: inside the bound of a claim: None elsewhere, else the kind of claim.
    weighing: inside of what weighs edges: None elsewhere, else the names that it has besides the usual ones.
    """

    report: Report
    names: dict[str, Definition] = field(default_factory=dict)
    axes: tuple[tuple[str, Expr], ...] = ()
    faulty_grid: bool = False
    later_grid: Span | None = None
    used: set[str] = field(default_factory=set)
    later: dict[str, Span] = field(default_factory=dict)
    blocks: tuple[int, ...] | None = ()
    bound: str | None = None
    weighing: frozenset[str] | None = None
    spent: int = 0

    @property
    def source(self) -> Source:
        return self.report.source

    def text(self, span: Span) -> str:
        """The source text at a place, without comments, with runs of white space as one blank."""
        lines = self.source.text[span.start : span.end].splitlines()
        return " ".join(" ".join(line.split("#", 1)[0] for line in lines).split())

    def brief(self, span: Span) -> str:
        """The same where it is short enough to be quoted within a line, else three dots."""
        text = self.text(span)
        return text if len(text) <= LONGEST_QUOTE else "…"

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        label: str = "",
        help: str | None = None,
        notes: tuple[str, ...] = (),
        secondary: tuple[Label, ...] = (),
        edits: tuple[Edit, ...] = (),
    ) -> Mistake:
        return Mistake(
            Diagnostic(code, "error", message, self.source, span, label, secondary, notes, help, edits)
        )

    def warn(self, code: str, message: str, span: Span, help: str | None = None) -> None:
        self.report.record(Diagnostic(code, "warning", message, self.source, span, help=help))

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Records a mistake made inside and goes on after it."""
        try:
            yield
        except Mistake as mistake:
            if mistake.diagnostic is not None:
                self.report.record(mistake.diagnostic)

    @contextmanager
    def inside(self, blocks: tuple[int, ...] | None) -> Iterator[None]:
        before, self.blocks = self.blocks, blocks
        try:
            yield
        finally:
            self.blocks = before

    @contextmanager
    def weigh(self, *names: str) -> Iterator[None]:
        """In here floats weigh edges; ``names`` are known besides the usual ones."""
        before, self.weighing = self.weighing, frozenset(names)
        try:
            yield
        finally:
            self.weighing = before

    def define(self, name: tree.Ident, definition: Definition) -> None:
        """Binds a name; one that is taken raises."""
        previous = self.names.get(name.text)
        if previous is not None:
            raise self.error(
                "duplicate-name",
                f"`{name.text}` is already the name of {article(previous.role)}"
                if previous.role != "name"
                else f"`{name.text}` is already defined",
                name.span,
                secondary=(Label(previous.span, "first defined here"),),
                help="use another name",
            )
        self.names[name.text] = definition

    def unknown(
        self, name: str, span: Span, candidates: tuple[str, ...], otherwise: str | None = None
    ) -> Mistake:
        """There is no such name; ``otherwise`` is the help where no known word is near."""
        below = self.later.get(name)
        if below is not None and below.start < span.start:
            # What is defined above has a name by now, unless this is its own definition.
            return self.error(
                "unknown-name",
                f"`{name}` is used in its own definition",
                span,
                secondary=(Label(below, "defined here"),),
                help="what it is made of must be known before; is another name meant?",
            )
        if below is not None:
            return self.error(
                "unknown-name",
                f"`{name}` is used before it is defined",
                span,
                secondary=(Label(below, "defined only here"),),
                help="move its definition up",
            )
        near = meant(name, (*self.names, *candidates))
        help = elsewhere.NAMES.get(name) or near
        if name == "s":
            help = _SCORES if self.weighing != frozenset() else f"{_SCORES}; {_PER_HEAD}"
        before = self.source.text[max(0, span.start - LONGEST_QUOTE) : span.start]
        if near is None and re.search(rf"{elsewhere.COMMENT}\Z", before):
            help = "comments start with `#`"
        return self.error("unknown-name", f"there is no `{name}`", span, help=help or otherwise)

    def check_size(self, value: Value, span: Span) -> None:
        """Raises for a value that is too deep, or when uses of lets have added up to too much."""
        size, depth = measure(value)
        known_too_large = self.spent > LARGEST
        self.spent += size
        if depth > DEEPEST:
            raise self.error("too-deep", "this is nested too deep once its names are filled in", span)
        if known_too_large:  # said at the first such place
            raise Mistake(None)
        if self.spent > LARGEST:
            raise self.error(
                "too-large",
                "this grows too large once its names are filled in",
                span,
                help="use the names fewer times",
            )


def measure(value: Value) -> tuple[int, int]:
    """Number of nodes of a value (counting stops at ``LARGEST``) and how deep they go."""
    match value:
        case Integer(expr) | Boolean(expr) | Positions(members=expr):
            start: Expr | Relation | Real = expr
        case Weighing(real):
            start = real
        case Edges(relation):
            start = relation
        case Floating():
            return 1, 1
    size = depth = 0
    todo: list[tuple[Expr | Relation | Real, int]] = [(start, 1)]
    while todo and size <= LARGEST:
        node, level = todo.pop()
        size += 1
        depth = max(depth, level)
        todo.extend((child, level + 1) for child in _inner(node))
    return size, depth


def _inner(node: Expr | Relation | Real) -> tuple[Expr | Relation | Real, ...]:
    match node:
        case Real():
            return (*parts(node), *integers(node))
        case Atom(formula=expr):
            return (expr,)
        case Expr():
            return children(node)
    return operands(node)

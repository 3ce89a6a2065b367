"""The tree of a source text: what was written, where, and nothing about what it means.

Numbers, booleans, sets and relations are one kind of expression here; the resolver tells them apart.
Operators of one level are kept side by side (``a | b | c`` is one ``Chain``): depth only comes from brackets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from attnc.diagnostics import Source, Span, printable


@dataclass(frozen=True)
class Ident:
    text: str
    span: Span


# --- expressions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    value: int
    span: Span


@dataclass(frozen=True)
class Decimal:
    value: float
    span: Span


@dataclass(frozen=True)
class Flag:
    value: bool
    span: Span


@dataclass(frozen=True)
class Name:
    name: str
    span: Span


@dataclass(frozen=True)
class Member:
    """``q.y``."""

    name: Ident
    member: Ident
    span: Span


@dataclass(frozen=True)
class Argument:
    keyword: Ident | None
    value: Expression
    span: Span


@dataclass(frozen=True)
class Call:
    name: Ident
    args: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True)
class Index:
    """``x[q, h]``."""

    name: Ident
    places: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Listing:
    """``{0, 7, 19}``."""

    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Where:
    condition: Expression
    span: Span


@dataclass(frozen=True)
class Group:
    """Parentheses: kept because a place in the source includes them."""

    inner: Expression
    span: Span


@dataclass(frozen=True)
class Prefix:
    """``!R``, ``-x`` or ``not c``."""

    operator: Ident
    operand: Expression
    span: Span


@dataclass(frozen=True)
class Chain:
    """Operands joined by operators of one level, left to right; one operator less than operands."""

    operands: tuple[Expression, ...]
    operators: tuple[Ident, ...]
    span: Span


Expression = Number | Decimal | Flag | Name | Member | Call | Index | Listing | Where | Group | Prefix | Chain


# --- items ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    name: Ident
    kind: Ident
    default: Expression | None
    span: Span


@dataclass(frozen=True)
class Input:
    name: Ident
    kind: Ident
    shape: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Axis:
    name: Ident
    size: Expression
    span: Span


@dataclass(frozen=True)
class Grid:
    axes: tuple[Axis, ...]
    span: Span


@dataclass(frozen=True)
class Let:
    name: Ident
    value: Expression
    span: Span


@dataclass(frozen=True)
class Weight:
    """``score s / 2``, ``normalize none``, ``decay g exclusive``: what edges weigh.

    word: the item's first word. value: its expression. mode: a word in place of it, or behind it.
    """

    word: Ident
    value: Expression | None
    mode: Ident | None
    span: Span


@dataclass(frozen=True)
class Attend:
    """``weight``: what stands behind ``with``; a plain name is a weight without a value."""

    relation: Expression
    weight: Weight | None
    span: Span


@dataclass(frozen=True)
class Range:
    """``first..last``, half open."""

    first: Expression
    last: Expression
    span: Span


@dataclass(frozen=True)
class Heads:
    """``selector`` is a ``Range``, a ``Listing``, or a ``Name`` (``even``, ``odd``, ``rest``)."""

    selector: Expression | Range
    items: tuple[Item, ...]
    span: Span


@dataclass(frozen=True)
class Claim:
    assumed: bool
    kind: Ident
    bound: Expression | None
    span: Span


Item = Input | Grid | Let | Attend | Weight | Heads | Claim


@dataclass(frozen=True)
class Pattern:
    name: Ident
    params: tuple[Parameter, ...]
    items: tuple[Item, ...]
    span: Span


@dataclass(frozen=True)
class File:
    """``listed`` names the inputs that a Python signature has, where the pattern came from a docstring."""

    patterns: tuple[Pattern, ...]
    source: Source
    listed: tuple[str, ...] | None = None


Node = Expression | Range | Ident | Argument | Parameter | Axis | Item | Pattern

_NODES = (
    Number,
    Decimal,
    Flag,
    Name,
    Member,
    Argument,
    Call,
    Index,
    Listing,
    Where,
    Group,
    Prefix,
    Chain,
    Range,
    Ident,
    Parameter,
    Input,
    Axis,
    Grid,
    Let,
    Attend,
    Weight,
    Heads,
    Claim,
    Pattern,
)


def ungroup(expr: Expression) -> Expression:
    """The expression inside any number of parentheses."""
    while isinstance(expr, Group):
        expr = expr.inner
    return expr


def everywhere(node: Node) -> Iterator[Node]:
    """The node and all nodes in it."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo += [inner for _, inner in _parts(node)[1]]


# --- text -----------------------------------------------------------------------------------------------


def dump(file: File) -> str:
    """The tree as indented text, one node a line with its place in the source as ``@start:end``."""
    lines = [f"File {printable(file.source.name)}"]
    todo: list[tuple[int, str, Node]] = [(1, "", pattern) for pattern in reversed(file.patterns)]
    while todo:
        depth, role, node = todo.pop()
        values, inner = _parts(node)
        head = " ".join((type(node).__name__, *values))
        lines.append(f"{'  ' * depth}{role}{head} @{node.span.start}:{node.span.end}")
        todo.extend((depth + 1, f"{name}: ", child) for name, child in reversed(inner))
    return "\n".join(lines)


def _parts(node: Node) -> tuple[list[str], list[tuple[str, Node]]]:
    """Plain values of a node, as text, and its child nodes with their roles."""
    values: list[str] = []
    inner: list[tuple[str, Node]] = []
    for name, value in _named_values(node):
        if isinstance(value, Ident):
            values.append(value.text)
        elif isinstance(value, _NODES):
            inner.append((name, value))
        elif value is not None:
            values.append(f"{name}={value!r}" if isinstance(value, bool) else repr(value))
    if isinstance(node, Ident):
        values = [node.text]
    elif isinstance(node, Name):
        values = [node.name]
    return values, inner


def _named_values(node: Node) -> Iterator[tuple[str, object]]:
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, tuple):
            yield from ((item.name, part) for part in value)
        elif not isinstance(value, Span):
            yield item.name, value

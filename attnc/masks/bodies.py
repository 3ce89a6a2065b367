"""A condition as the body of a pattern: on a grid, where it is about one, and told apart by heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnc.expression import (
    FALSE,
    HEAD,
    TRUE,
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Mod,
    Not,
    Or,
    Sum,
    Var,
    add,
    children,
    floor_div,
    negate,
    rebuild,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.masks.tidying import tidy
from attnc.masks.wording import UNION, Writer
from attnc.notation import show


@dataclass(frozen=True)
class Wording:
    """The items of a pattern's body; ``width`` is a grid's, where the condition is about one."""

    lines: tuple[str, ...]
    width: int | None


def words(expr: Expr, more: str = "") -> Wording:
    """The body that says a condition over ``q k n h H`` and tables; ``more`` goes with each ``attend``."""
    expr = tidy(expr)
    width = _width(expr)
    if width is not None:
        expr = _on_grid(expr, width)
    writer = Writer(width is not None)
    parts = _by_head(expr)
    if len(parts) == 1:
        return Wording((f"attend {writer.relation(parts[0][1], UNION)}{more}",), width)
    lines = [f"heads {who} {{ attend {writer.relation(body, UNION)}{more} }}" for who, body in parts]
    return Wording(tuple(lines), width)


# --- grids ----------------------------------------------------------------------------------------------


def _width(expr: Expr) -> int | None:
    """The width of the grid that a condition tells rows and columns of, for queries and for keys."""
    columns: dict[str, set[int]] = {"q": set(), "k": set()}
    rows: dict[str, set[int]] = {"q": set(), "k": set()}
    for part in walk(expr):
        match part:
            case Mod(Var("q" | "k") as position, Const(size)) if size > 1:
                columns[position.name].add(size)
            case FloorDiv(Var("q" | "k") as position, Const(size)):
                rows[position.name].add(size)
    found = [
        size
        for size in columns["q"] & columns["k"]
        if all(any(row % size == 0 for row in rows[name]) for name in "qk")
    ]
    return found[0] if len(found) == 1 else None


def _on_grid(expr: Expr, width: int) -> Expr:
    """The condition in coordinates; what is told of positions otherwise stays as it is."""
    match expr:
        case FloorDiv(Var("q" | "k") as position, Const(size)) if size % width == 0:
            return floor_div(Var(f"{position.name}.y"), size // width)
        case Mod(Var("q" | "k") as position, Const(size)) if size == width:
            return Var(f"{position.name}.x")
    parts = children(expr)
    return rebuild(expr, tuple(_on_grid(part, width) for part in parts)) if parts else expr


# --- heads ----------------------------------------------------------------------------------------------


def _by_head(expr: Expr) -> list[tuple[str, Expr]]:
    """Who, and the condition for them: several where one question about the head tells them apart."""
    asked = {_positive(part) for part in _questions(expr)}
    if len(asked) != 1:
        return [("", expr)]
    (question,) = asked
    who = _selector(question)
    if who is None:
        return [("", expr)]
    answers = {question: TRUE, negate(question): FALSE}
    bodies = [
        tidy(substitute(expr, answers)),
        tidy(substitute(expr, {a: negate(b) for a, b in answers.items()})),
    ]
    if any("h" in variables(body) for body in bodies):
        return [("", expr)]
    first, rest = who
    return [(first, bodies[0]), (rest, bodies[1])]


def _questions(expr: Expr) -> Iterable[Expr]:
    if isinstance(expr, (And, Or, Not)):
        for part in children(expr):
            yield from _questions(part)
    elif (
        variables(expr)
        and variables(expr) <= {"h", "H"}
        and not any(isinstance(part, Lookup) for part in walk(expr))
    ):
        yield expr


def _positive(question: Expr) -> Expr:
    """One of a question and its opposite."""
    opposite = negate(question)
    return (
        opposite
        if isinstance(question, Not) or (isinstance(question, Le0) and _falls(question))
        else question
    )


def _falls(question: Le0) -> bool:
    """Whether ``h >= c`` is asked, and not ``h < c``."""
    match question.body:
        case Sum(((c, Var("h")), *_), _):
            return c < 0
    return False


def _selector(question: Expr) -> tuple[str, str] | None:
    match question:
        case Eq0(Mod(Var("h"), Const(2))):
            return "even", "odd"
        case Eq0(Sum(((c, Mod(Var("h"), Const(2))),), start)) if c * start == -1:
            return "odd", "even"
        case Eq0(Var("h")):
            return "{0}", "rest"
        case Eq0(Sum(((c, Var("h")),), start)) if abs(c) == 1 and -start * c >= 0:
            return f"{{{-start * c}}}", "rest"
    match question:
        case Le0(body) if HEAD in set(walk(body)):
            limit = add(sub(HEAD, body), 1)
            if variables(limit) <= {"H"}:
                return f"0..{show(limit)}", "rest"
    return None

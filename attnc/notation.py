"""Expressions in the language's own notation, for people: dumps, comments, reports."""

from __future__ import annotations

from attnc.expression import (
    And,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Param,
    PowerOfTwo,
    Select,
    Sum,
    TileMax,
    TileMin,
    Truth,
    Var,
    sides,
)


def show(expr: Expr) -> str:
    """The expression in the language's own notation, for people: IR dumps, comments, reports."""
    return _show(expr, 0)


def _show(expr: Expr, level: int) -> str:
    # Levels: 0 or, 1 and, 2 not and comparison, 3 sum, 4 product, 5 atom.
    def wrap(text: str, own: int) -> str:
        return f"({text})" if own < level else text

    match expr:
        case Const(value):
            return wrap(str(value), 3 if value < 0 else 5)
        case Truth(value):
            return "true" if value else "false"
        case Param(name, _) | Var(name):
            return name
        case Sum():
            return wrap(_show_sum(expr), 3)
        case Mul(a, b):
            return wrap(f"{_show(a, 4)} * {_show(b, 5)}", 4)
        case FloorDiv(a, b):
            return wrap(f"{_show(a, 4)} // {_show(b, 5)}", 4)
        case Mod(a, b):
            return wrap(f"{_show(a, 4)} % {_show(b, 5)}", 4)
        case Min(args) | Max(args):
            return f"{type(expr).__name__.lower()}({', '.join(map(show, args))})"
        case Select(c, a, b):
            return f"select({show(c)}, {show(a)}, {show(b)})"
        case TileMin(body):
            return f"least({show(body)})"
        case TileMax(body):
            return f"greatest({show(body)})"
        case Lookup(table, index, _):
            return f"{table}[{', '.join(map(show, index))}]"
        case Le0(body):
            left, right = sides(body)
            return wrap(f"{show(left)} <= {show(right)}", 2)
        case Eq0(body):
            left, right = sides(body)
            return wrap(f"{show(left)} == {show(right)}", 2)
        case Not(Eq0(body)):
            left, right = sides(body)
            return wrap(f"{show(left)} != {show(right)}", 2)
        case Not(body):
            return wrap(f"not {_show(body, 3)}", 2)
        case PowerOfTwo(body):
            return f"power_of_two({show(body)})"
        case Drawn(count, seed, past, row, column, _):
            tail = ", past" if past else ""
            return f"drawn({show(row)}, {show(column)}; {show(count)} of seed {show(seed)}{tail})"
        case And(args):
            return wrap(" and ".join(_show(arg, 2) for arg in args), 1)
        case Or(args):
            return wrap(" or ".join(_show(arg, 1) for arg in args), 0)
    raise TypeError(f"cannot show {type(expr).__name__}")


def _show_sum(expr: Sum) -> str:
    ordered = sorted(expr.terms, key=lambda item: item[0] < 0)
    text = ""
    for c, atom in ordered:
        # A minus in front binds tighter than a division behind it.
        leading = c < 0 and not text
        body = _show(atom, 5 if leading else 4) if abs(c) == 1 else f"{abs(c)} * {_show(atom, 5)}"
        text += (" - " if c < 0 else " + ") + body if text else ("-" if c < 0 else "") + body
    if expr.constant:
        text += f" {'-' if expr.constant < 0 else '+'} {abs(expr.constant)}"
    return text

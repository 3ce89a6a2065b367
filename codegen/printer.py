"""Expressions as program text, in three dialects.

``host`` is plain Python on integers, ``tensor`` is torch on broadcasting integer tensors, ``kernel`` is
Triton on scalars and blocks. Division rounds down in all three: where Triton's, which truncates, could see a
negative number, a helper is called instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

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
    PowerOfTwo,
    Select,
    Sum,
    TileMax,
    TileMin,
    Truth,
    Var,
    compared,
    constant,
    sides,
    tables,
    variables,
    with_entries_alone,
)

Dialect = Literal["host", "tensor", "kernel"]

_MINIMUM = {"host": "min({})", "tensor": "_minimum({})", "kernel": "tl.minimum({})"}
_MAXIMUM = {"host": "max({})", "tensor": "_maximum({})", "kernel": "tl.maximum({})"}

# Beyond this a product with a position of a million-token sequence may leave 32 bits.
_WIDE = 1024
# And a sum with a number from here on, with a position of any sequence.
_LARGE = 1 << 30


@dataclass(frozen=True)
class Printer:
    """How expressions are written at one place of a module.

    names: the text of every variable there.
    lookup: text for reading a table at already printed indices; ``(table, indices, kind)``.
    drawn: text for membership in a draw; ``(expr, row, column)``.
    reduce: text for the least or greatest value over a tile's rows; ``("min"|"max", printed value)``.
    """

    dialect: Dialect
    names: Mapping[str, str]
    lookup: Callable[[str, tuple[str, ...], str], str] | None = None
    drawn: Callable[[Drawn, str, str], str] | None = None
    reduce: Callable[[str, str], str] | None = None

    def __call__(self, expr: Expr) -> str:
        return self._text(expr, 0)

    def _text(self, expr: Expr, level: int) -> str:
        # Levels: 0 anything, 1 or, 2 and, 3 comparison, 4 sum, 5 product, 6 atom. On tensors and in kernels
        # `&` and `|` bind tighter than comparisons, so there operands of connectives are always bracketed.
        def wrap(text: str, own: int) -> str:
            return f"({text})" if own < level else text

        match expr:
            case Const(value):
                return wrap(self._number(value), 4 if value < 0 else 6)
            case Truth(value):
                return str(value)
            case Var(name):
                return self.names[name]
            case Sum():
                return wrap(self._sum(expr), 4)
            case Mul(a, b):
                return wrap(f"{self._wide(self._text(a, 6))} * {self._text(b, 6)}", 5)
            case FloorDiv(a, b):
                return self._divide("//", "_floor_div", a, b, wrap)
            case Mod(a, b):
                return self._divide("%", "_floor_mod", a, b, wrap)
            case Min(args):
                return self._fold(_MINIMUM[self.dialect], args)
            case Max(args):
                return self._fold(_MAXIMUM[self.dialect], args)
            case Select(condition, then, otherwise):
                plain = self.dialect == "tensor" and of_sizes(condition)
                asked = replace(self, dialect="host") if plain else self
                return self._select(plain, asked(condition), self(then), self(otherwise))
            case TileMin(body) | TileMax(body):
                if self.reduce is None:
                    raise ValueError("nothing can be reduced over a tile here")
                return self.reduce("min" if isinstance(expr, TileMin) else "max", self(body))
            case Lookup(table, index, kind):
                if self.lookup is None:
                    raise ValueError("no table can be read here")
                return self.lookup(table, tuple(map(self, index)), kind)
            case Le0() if tables(expr) and (other := with_entries_alone(expr)) != expr:
                return self._text(other, level)
            case Le0(body):
                # Entries of inputs may be as large as integers get: nothing is added to them.
                left, right, strict = compared(body) if tables(body) else (*sides(body), False)
                return wrap(f"{self._text(left, 4)} {'<' if strict else '<='} {self._text(right, 4)}", 3)
            case Eq0(body):
                left, right = sides(body)
                return wrap(f"{self._text(left, 4)} == {self._text(right, 4)}", 3)
            case Not(Eq0(body)):
                left, right = sides(body)
                return wrap(f"{self._text(left, 4)} != {self._text(right, 4)}", 3)
            case Not(body):
                if self.dialect == "host":
                    return wrap(f"not {self._text(body, 3)}", 2)
                return f"~{self._text(body, 6)}"
            case PowerOfTwo(body):
                number = self._text(body, 6)
                return f"(({number} >= 0) & (({number} & ({number} - 1)) == 0))"
            case Drawn(_, _, _, row, column, _):
                if self.drawn is None:
                    raise ValueError("nothing can be drawn here")
                return self.drawn(expr, self(row), self(column))
            case And(args):
                return wrap(
                    self._join("&", [self._text(arg, 6 if self._bracketed(arg) else 0) for arg in args]), 2
                )
            case Or(args):
                return wrap(
                    self._join("|", [self._text(arg, 6 if self._bracketed(arg) else 0) for arg in args]), 1
                )
        raise TypeError(f"cannot print {type(expr).__name__}")

    def _bracketed(self, arg: Expr) -> bool:
        return not isinstance(arg, (Lookup, Drawn, Truth, PowerOfTwo))

    def _join(self, operator: str, parts: list[str]) -> str:
        if self.dialect == "host":
            return (" and " if operator == "&" else " or ").join(parts)
        return f" {operator} ".join(parts)

    def _fold(self, call: str, args: tuple[Expr, ...]) -> str:
        first, *rest = map(self, args)
        if self.dialect == "host":
            return call.format(", ".join((first, *rest)))
        for other in rest:
            first = call.format(f"{first}, {other}")
        return first

    def _select(self, plain: bool, condition: str, then: str, otherwise: str) -> str:
        """plain: in torch, too, the condition is one of Python's own."""
        match self.dialect:
            case "tensor" if not plain:
                return f"torch.where({condition}, {then}, {otherwise})"
            case "host" | "tensor":
                return f"({then} if {condition} else {otherwise})"
        return f"tl.where({condition}, {then}, {otherwise})"

    def _number(self, value: int) -> str:
        """Kernels count positions in 32 bits; what is added to a large number is in 64."""
        far = self.dialect == "kernel" and abs(value) >= _LARGE
        return f"tl.full([], {value}, tl.int64)" if far else str(value)

    def _wide(self, text: str) -> str:
        return f"({text}).to(tl.int64)" if self.dialect == "kernel" else text

    def _divide(self, operator: str, helper: str, a: Expr, b: Expr, wrap: Callable[[str, int], str]) -> str:
        divisor = constant(b)
        safe = divisor is not None and divisor > 0 and _never_negative(a)
        if self.dialect != "kernel" or safe:
            return wrap(f"{self._text(a, 5)} {operator} {self._text(b, 6)}", 5)
        return f"{helper}({self(a)}, {self(b)})"

    def _sum(self, expr: Sum) -> str:
        ordered = sorted(expr.terms, key=lambda item: item[0] < 0)
        text = ""
        for c, atom in ordered:
            # A minus in front binds tighter than a division behind it.
            body = self._text(atom, 6 if c < 0 and not text else 5)
            if abs(c) != 1:
                body = self._text(atom, 6)
                wide = abs(c) >= _WIDE and not (isinstance(atom, FloorDiv) and atom.right == Const(abs(c)))
                body = f"{abs(c)} * {self._wide(body) if wide else body}"
            text += (" - " if c < 0 else " + ") + body if text else ("-" if c < 0 else "") + body
        if expr.constant:
            text += f" {'-' if expr.constant < 0 else '+'} {self._number(abs(expr.constant))}"
        return text


def of_sizes(expr: Expr) -> bool:
    """Whether it hangs on sizes alone, and so is a number or truth of Python in torch text, and no tensor."""
    return variables(expr) <= {"n", "H"} and not tables(expr)


def _never_negative(expr: Expr) -> bool:
    match expr:
        case Const(value):
            return value >= 0
        case Var():
            return True  # positions, lengths and heads
        case Sum(terms, start):
            return start >= 0 and all(c >= 0 and _never_negative(atom) for c, atom in terms)
        case FloorDiv(a, b):
            return (constant(b) or 0) > 0 and _never_negative(a)
        case Mod(_, b):
            return (constant(b) or 0) > 0
        case Max(args):
            return any(map(_never_negative, args))
        case Min(args):
            return all(map(_never_negative, args))
        case Select(_, then, otherwise):
            return _never_negative(then) and _never_negative(otherwise)
        case Lookup(table, _, _):
            return "." in table
        case TileMin(body) | TileMax(body):
            return _never_negative(body)
        case Mul(a, b):
            return _never_negative(a) and _never_negative(b)
    return False

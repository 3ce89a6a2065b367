"""Conditions as relations of the language: what has a name there is called by it, the rest is a `where`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnc.expression import (
    FALSE,
    ONE,
    TRUE,
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Lookup,
    Mod,
    N,
    Not,
    Or,
    Q,
    Sum,
    Var,
    add,
    children,
    conj,
    constant,
    disj,
    sides,
    sub,
    variables,
)
from attnc.notation import show

# How tightly the operators of relations bind, from the loosest on.
UNION, MEET, ATOM = 0, 1, 2


@dataclass(frozen=True)
class Writer:
    """grid: whether there are coordinates, `q.y` and `q.x`."""

    grid: bool

    def relation(self, expr: Expr, level: int) -> str:
        """The relation as text that binds at least as tightly as ``level``."""
        match expr:
            case Or(args):
                return _wrapped(self.union(args), UNION, level)
            case And(args):
                return _wrapped(self.meet(args), MEET, level)
            case Not(body) if not isinstance(body, (And, Or)):
                named = self.named(body)
                if named is not None:
                    return f"!{named}"
        named = self.named(expr)
        if named is not None:
            return named
        text, single = self.meet((expr,))
        return _wrapped((text, single), MEET, level)

    def union(self, args: tuple[Expr, ...]) -> tuple[str, bool]:
        listed: dict[str, list[int]] = {"q": [], "k": []}
        others = []
        for arg in args:
            found = _single(arg)
            if found is None:
                others.append(arg)
            else:
                listed[found[0]].append(found[1])
        parts = [self.relation(arg, MEET) for arg in others]
        for name, places in listed.items():
            if places:
                word = {"q": "from", "k": "to"}[name]
                parts.append(f"{word}({{{', '.join(map(str, sorted(places)))}}})")
        return " | ".join(parts), len(parts) == 1

    def meet(self, args: tuple[Expr, ...]) -> tuple[str, bool]:
        """A conjunction: windows first, then what has a name, then one ``where`` for what has none."""
        parts, left = self.windows(args)
        plain = []
        if _CAUSAL in left:  # said last
            left = [*(arg for arg in left if arg != _CAUSAL), _CAUSAL]
        for arg in left:
            if _CAUSAL in left:
                arg = _with_windows(arg)
            named = self.named(arg)
            if named is not None:
                parts.append(named)
            elif isinstance(arg, Or) and self.worth_naming(arg):
                parts.append(self.relation(arg, ATOM))
            elif isinstance(arg, Not) and self.named(arg.body) is not None:
                parts.append(f"!{self.named(arg.body)}")
            else:
                plain.append(arg)
        if plain:
            parts.append(f"where {_said(conj(*plain), 0)}")
        return " & ".join(parts), len(parts) == 1 and not plain

    def worth_naming(self, expr: Expr) -> bool:
        """Whether some part of a condition has a name of its own, or is an alternative that holds one."""
        if isinstance(expr, (And, Or)):
            return any(self.worth_naming(arg) for arg in expr.args) or bool(self.windows(expr.args)[0])
        return self.named(expr) is not None or (isinstance(expr, Not) and self.named(expr.body) is not None)

    def windows(self, args: tuple[Expr, ...]) -> tuple[list[str], list[Expr]]:
        """Bounds on a distance and its remainder, joined into windows; and what is left."""
        axes = ["", "y", "x"] if self.grid else [""]
        parts, left = [], list(args)
        for axis in axes:
            q, k = (Var(f"{name}.{axis}") if axis else Var(name) for name in "qk")
            distance = sub(q, k)
            upper, lower, step = _bounds(left, distance)
            on = f", axis={axis}" if axis else ""
            if upper is not None and lower is not None:
                text, used = _window(distance, upper, lower, step, on)
                parts.append(text)
            elif step is not None:
                parts.append(f"stride({step[0]}{on})")
                used = [step[1]]
            else:
                continue
            left = [arg for arg in left if arg not in used]
        # What is joined into a `where` stands last: a condition goes on until the next operator.
        parts.sort(key=lambda part: part.startswith("where"))
        return parts, left

    def named(self, expr: Expr) -> str | None:
        """The relation of the language that a condition by itself is."""
        if expr == TRUE:
            return "all"
        if expr == FALSE:
            return "none"
        if expr == _CAUSAL:
            return "causal"
        match expr:
            case Eq0(body) if body in (sub(Q, K), sub(K, Q)):
                return "self"
            case Eq0(Mod(Sum() as body, Const(size))) if body in (sub(Q, K), sub(K, Q)):
                return f"stride({size})"
            case Eq0(Sum(((a, FloorDiv(one, Const(size))), (b, FloorDiv(other, Const(same)))), 0)) if (
                a == -b and size == same and (axis := _axis({one, other})) is not None
            ):
                return f"chunk({size}{f', axis={axis}' if axis else ''})"
            case Eq0(Sum(((a, Lookup(table, one, _)), (b, Lookup(same, other, _))), 0)) if (
                a == -b and table == same and {one, other} == {(Q,), (K,)}
            ):
                return f"same({table})"
        for position, word in ((K, "to"), (Q, "from")):
            if variables(expr) <= {position.name, "n"} and variables(expr):
                found = self.positions(expr, position)
                if found is not None:
                    return f"{word}({found})"
        return None

    def positions(self, expr: Expr, at: Var) -> str | None:
        """A condition on one position as a set."""
        match expr:
            case Lookup(table, (place,), "bool") if place == at:
                return table
            case Le0(body):
                last = sub(at, body)
                count = constant(last)
                if count is not None and count >= 0:
                    return f"first({count + 1})"
                # n - m <= p
                least = constant(sub(N, add(body, at)))
                if least is not None and least >= 1:
                    return f"last({least})"
            case Eq0(Mod(place, Const(size))) if place == at:
                return f"every({size})"
            case Eq0(Sum(((c, Mod(place, Const(size))),), start)) if place == at and 0 < -start * c < size:
                return f"every({size}, {-start * c})"
        found = _single(expr)
        return None if found is None else f"{{{found[1]}}}"


_CAUSAL = Le0(sub(K, Q))


def _with_windows(expr: Expr) -> Expr:
    """What is meant beside ``causal``: there, ``q - k <= 8`` is a window."""
    if not isinstance(expr, Or):
        return expr
    near = [
        conj(arg, _CAUSAL) if isinstance(arg, Le0) and (constant(sub(arg.body, sub(Q, K))) or 1) <= 0 else arg
        for arg in expr.args
    ]
    return disj(*near)


def _wrapped(written: tuple[str, bool], own: int, level: int) -> str:
    text, single = written
    return text if single or own >= level else f"({text})"


def _said(expr: Expr, level: int) -> str:
    """A condition as people write it: ``k < m``, where the normal form has ``k + 1 <= m``."""
    match expr:
        case And(args):
            text, own = " and ".join(_said(arg, 2) for arg in args), 1
        case Or(args):
            text, own = " or ".join(_said(arg, 1) for arg in args), 0
        case Le0(body):
            (left, right), own = sides(body), 2
            strict = _constant_of(left) == 1 and left != ONE
            text = f"{show(sub(left, 1))} < {show(right)}" if strict else f"{show(left)} <= {show(right)}"
        case _:
            return show(expr) if level < 2 or not isinstance(expr, Not) else f"({show(expr)})"
    return f"({text})" if own < level else text


def _constant_of(expr: Expr) -> int:
    match expr:
        case Sum(_, start):
            return start
        case Const(value):
            return value
    return 0


def _single(expr: Expr) -> tuple[str, int] | None:
    """``q`` or ``k`` and the one position that it is at."""
    match expr:
        case Eq0(Var("q" | "k") as position):
            return position.name, 0
        case Eq0(Sum(((c, Var("q" | "k") as position),), start)) if abs(c) == 1 and -start * c >= 0:
            return position.name, -start * c
    return None


def _axis(places: set[Expr]) -> str | None:
    for axis, pair in {"": {Q, K}, "y": {Var("q.y"), Var("k.y")}, "x": {Var("q.x"), Var("k.x")}}.items():
        if places == pair:
            return axis
    return None


Bound = tuple[int, Expr]


def _window(
    distance: Expr, upper: Bound, lower: Bound, step: Bound | None, on: str
) -> tuple[str, list[Expr]]:
    """A window, or where it would not hold the query itself a condition; and which conditions that says."""
    first, last = -lower[0], upper[0]
    if first > 0 or last < 0:
        middle = f"{show(distance)} == {last}" if first == last else f"{first} <= {show(distance)} <= {last}"
        return f"where {middle}", [upper[1], lower[1]]
    size = 1 if step is None else step[0]
    arguments = [str(last // size)]
    if -first // size:
        arguments.append(str(-first // size))
    if size > 1:
        arguments.append(f"dilation={size}")
    return f"window({', '.join(arguments)}{on})", [upper[1], lower[1], *([] if step is None else [step[1]])]


def _bounds(args: Iterable[Expr], distance: Expr) -> tuple[Bound | None, Bound | None, Bound | None]:
    """The largest distance, the largest the other way, and a step, each with the condition that says so."""
    upper: Bound | None = None
    lower: Bound | None = None
    step: Bound | None = None
    for arg in args:
        match arg:
            case Le0(body):
                above, below = constant(sub(body, distance)), constant(add(body, distance))
                if above is not None:
                    upper = -above, arg
                if below is not None:
                    lower = -below, arg
            case Eq0(Mod(body, Const(size))) if body in (distance, sub(0, distance)):
                step = size, arg
            case Eq0(body) if body in (distance, sub(0, distance)) and _axis(set(children(body))) in (
                "y",
                "x",
            ):
                upper = lower = 0, arg
    return upper, lower, step

"""Conditions as they were traced, brought into the form in which relations of the language show."""

from __future__ import annotations

from collections.abc import Callable

from attnc.expression import (
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Not,
    Or,
    Sum,
    Truth,
    Var,
    add,
    children,
    conj,
    constant,
    disj,
    eq,
    le,
    mod,
    negate,
    rebuild,
    scale,
    sub,
    substitute,
)


def tidy(expr: Expr) -> Expr:
    """An equal condition: extremes split into comparisons, remainders joined, bounds told once."""
    match expr:
        case And(args):
            return _tightest(_equals_replaced(tuple(map(tidy, args))))
        case Or(args):
            return _loosest(tuple(map(tidy, args)))
        case Not(body):
            inner = tidy(body)
            return negate(inner)
        case Le0(body):
            return _bound(body)
        case Eq0(body):
            return _equation(body)
    return expr


def _bound(body: Expr) -> Expr:
    """``body <= 0``, several bounds for one that holds an extreme.

    What comes to alternatives stays an extreme: a bound tells more of what may be read than they do.
    """
    terms, start = _terms(body)
    for c, atom in terms:
        if isinstance(atom, (Max, Min)) and isinstance(atom, Max) == (c > 0):
            rest = add(start, *(scale(d, other) for d, other in terms if other is not atom))
            return tidy(conj(*(le(add(rest, scale(c, arg)), 0) for arg in atom.args)))
    low, high = _range(body)
    if high is not None and high <= 0:
        return Truth(True)
    return Truth(False) if low is not None and low > 0 else Le0(body)


Range = tuple[int | None, int | None]


def _range(expr: Expr) -> Range:
    """What lies between which numbers whatever the input is; None where there is no end."""
    match expr:
        case Const(value):
            return value, value
        case Var("q" | "k" | "h" | "b"):
            return 0, None
        case Var(name) if name.startswith(("q.", "k.")):
            return 0, None
        case Mod(_, Const(size)) if size > 0:
            return 0, size - 1
        case FloorDiv(body, Const(size)) if size > 0:
            low, high = _range(body)
            return (None if low is None else low // size), (None if high is None else high // size)
        case Sum(terms, start):
            least: int | None = start
            most: int | None = start
            for c, atom in terms:
                ends = _range(atom) if c > 0 else _range(atom)[::-1]
                least = None if least is None or ends[0] is None else least + c * ends[0]
                most = None if most is None or ends[1] is None else most + c * ends[1]
            return least, most
    return None, None


def _equation(body: Expr) -> Expr:
    terms, start = _terms(body)
    match [atom for _, atom in terms]:
        # q % s == k % s
        case [Mod(one, Const(step)), Mod(other, Const(again))] if (
            step == again and start == 0 and {c for c, _ in terms} == {1, -1}
        ):
            return eq(mod(sub(one, other), step), 0)
        # |x| % s == 0, which is max(x, -x) % s == 0
        case [Mod(Max((one, other)), Const(step))] if start == 0 and constant(add(one, other)) == 0:
            return eq(mod(one, step), 0)
        # |x| == c, which is max(x, -x) == c
        case [Max((one, other))] if abs(terms[0][0]) == 1 and constant(add(one, other)) == 0:
            value = -start * terms[0][0]
            return disj(eq(one, value), eq(other, value)) if value >= 0 else Truth(False)
    return Eq0(body)


def _terms(body: Expr) -> tuple[tuple[tuple[int, Expr], ...], int]:
    match body:
        case Sum(terms, start):
            return terms, start
        case Const(value):
            return (), value
    return ((1, body),), 0


def _equals_replaced(args: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Beside ``x[q] == x[k]``, the other conditions read the same entry: what hangs on it cancels."""
    for equation in args:
        match equation:
            case Eq0(Sum(((a, Lookup(table, _, _) as one), (b, Lookup(same, _, _) as other)), 0)) if (
                a == -b and table == same
            ):
                args = tuple(arg if arg == equation else tidy(_replaced(arg, {other: one})) for arg in args)
    return args


def _replaced(expr: Expr, mapping: dict[Expr, Expr]) -> Expr:
    # Only where an entry decides about another: replaced everywhere, plain conditions would read worse.
    if isinstance(expr, Lookup) and any(isinstance(place, Lookup) for place in expr.index):
        return substitute(expr, mapping)
    parts = children(expr)
    return rebuild(expr, tuple(_replaced(part, mapping) for part in parts)) if parts else expr


def _tightest(args: tuple[Expr, ...]) -> Expr:
    return _once(conj(*args), And, conj, max)


def _loosest(args: tuple[Expr, ...]) -> Expr:
    return _once(disj(*args), Or, disj, min)


def _once(
    expr: Expr, kind: type[And] | type[Or], join: Callable[..., Expr], pick: Callable[..., int]
) -> Expr:
    """Of bounds that differ by a constant, the one that decides."""
    if not isinstance(expr, (And, Or)) or not isinstance(expr, kind):
        return expr
    best: dict[Expr, int] = {}
    for arg in expr.args:
        if isinstance(arg, Le0):
            start = _terms(arg.body)[1]
            rest = sub(arg.body, start)
            best[rest] = pick(best[rest], start) if rest in best else start
    kept = []
    for arg in expr.args:
        if isinstance(arg, Le0):
            start = _terms(arg.body)[1]
            if best.get(sub(arg.body, start)) != start:
                continue
        kept.append(arg)
    # A and (A or B) is A, and so is A or (A and B).
    kept = [arg for arg in kept if not (isinstance(arg, (And, Or)) and set(arg.args) & set(kept))]
    return join(*kept)

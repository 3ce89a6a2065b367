"""How a term's edges grow, in terms of the names that people gave: parameters and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sympy

from attnc.expression import (
    TRUE,
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Lookup,
    Max,
    Min,
    Mod,
    Mul,
    Or,
    Param,
    PowerOfTwo,
    Q,
    Sum,
    Var,
    add,
    mentioned,
    neg,
    scale,
    sub,
    walk,
)
from attnc.notation import show
from attnc.relation import Axis, Term

# A remainder or a rounding: some share of the divisor.
_share = sympy.Symbol("_share", positive=True)
_n = sympy.Symbol("n", positive=True)
_EXTREMUM = "_extremum "


def _relaxed(expr: Expr) -> sympy.Expr | None:
    """The expression over the rationals, parameters as symbols; rounding becomes a share of the divisor."""
    match expr:
        case Const(value):
            return sympy.Integer(value)
        case Param(name, _) | Var(name):
            return sympy.Symbol(name, positive=True)
        case Sum(terms, start):
            total: sympy.Expr = sympy.Integer(start)
            for c, atom in terms:
                part = _relaxed(atom)
                if part is None:
                    return None
                total += c * part
            return total
        case Mul(a, b):
            left, right = _relaxed(a), _relaxed(b)
            return None if left is None or right is None else left * right
        case FloorDiv(a, b):
            left, right = _relaxed(a), _relaxed(b)
            return None if left is None or right is None else left / right - _share
        case Mod(_, b):
            right = _relaxed(b)
            return None if right is None else right * _share
        case Min() | Max():
            # Of no known size, but the same at both ends of a clamped window.
            return sympy.Symbol(f"{_EXTREMUM}{show(expr)}", positive=True)
    return None


def _arms(expr: Expr, kind: type[Min] | type[Max]) -> tuple[Expr, ...]:
    return expr.args if isinstance(expr, kind) else (expr,)


def _width(lows: Iterable[Expr], highs: Iterable[Expr]) -> sympy.Expr:
    """The narrowest of the intervals that these bounds make: free of positions where there is such."""
    widths: list[sympy.Expr] = []
    highs = tuple(highs)
    for low in lows:
        for high in highs:
            relaxed = _relaxed(add(sub(high, low), 1))
            if relaxed is not None:
                widths.append(sympy.expand(relaxed))
    bounded = [w for w in widths if not any(_unknown(symbol.name) for symbol in w.free_symbols)]
    if bounded:
        return min(bounded, key=lambda w: (len(w.free_symbols - {_share}), str(w)))
    return _n


def _unknown(name: str) -> bool:
    return name in ("q", "k", "n") or name.startswith(_EXTREMUM)


def _steps(conditions: Iterable[Expr], names: set[Expr]) -> sympy.Expr:
    """The product of the steps of congruences that hang on ``names`` alone."""
    total: sympy.Expr = sympy.S.One
    for condition in conditions:
        if not isinstance(condition, Eq0):
            continue
        for part in walk(condition.body):
            if isinstance(part, Mod) and {p for p in walk(part.left) if p in (Q, K)} & names:
                step = _relaxed(part.right)
                total *= sympy.S.One if step is None else step
                break
    return total


def _shares(conditions: Iterable[Expr]) -> sympy.Expr:
    """Which share of the keys lies within intervals of their coordinates, such as a column in an image."""
    ends: dict[Expr, tuple[list[Expr], list[Expr]]] = {}
    for condition in conditions:
        if not isinstance(condition, Le0) or not isinstance(condition.body, Sum):
            continue
        found = [(c, atom) for c, atom in condition.body.terms if K in mentioned(atom)]
        match found:
            case [(1 | -1 as c, Mod() | FloorDiv(Mod(), _) as atom)]:
                rest = sub(condition.body, scale(c, atom))
                ends.setdefault(atom, ([], []))[c > 0].append(neg(rest) if c > 0 else rest)
    total: sympy.Expr = sympy.S.One
    for digit, (lows, highs) in ends.items():
        inner: Expr = digit
        step: sympy.Expr | None = sympy.S.One
        if isinstance(digit, FloorDiv):
            inner, step = digit.left, _relaxed(digit.right)
        width = _width(lows, highs)
        size = _relaxed(inner.right) if isinstance(inner, Mod) else None
        if width != _n and size is not None and step is not None and not width.is_number:
            total *= width * step / size
    return total


def _axis_size(axis: Axis) -> sympy.Expr:
    size = _width(_arms(axis.first, Max), _arms(axis.last, Min))
    named = [table for condition in _parts(axis.selection()) for table in _inputs(condition)]
    if named and size == _n:
        return sympy.Add(*(sympy.Symbol(f"count({name})", positive=True) for name in dict.fromkeys(named)))
    return size / _steps(_parts(axis.selection()), {axis.var})


def _inputs(condition: Expr) -> Iterator[str]:
    """Boolean inputs of which one must be true."""
    match condition:
        case Lookup(table, _, "bool"):
            yield table
        case Or(args) if all(isinstance(arg, Lookup) for arg in args):
            for arg in args:
                yield from _inputs(arg)


def _parts(condition: Expr) -> tuple[Expr, ...]:
    if condition == TRUE:
        return ()
    return condition.args if isinstance(condition, And) else (condition,)


def term_growth(term: Term) -> tuple[str, ...]:
    """The monomials of the term's growth: ``("n*window",)``."""
    rows = _axis_size(term.rows)
    columns = _axis_size(term.columns)
    if term.drawn is not None:
        draws, block = _relaxed(term.drawn.count), sympy.S.One
        for part in walk(term.drawn.column):
            if isinstance(part, FloorDiv):
                block *= _relaxed(part.right) or sympy.S.One
        return _monomials(rows * (draws or sympy.S.One) * block)
    powers = [part for item in term.leftover for part in _parts(item) if isinstance(part, PowerOfTwo)]
    # The whole of a bound, too: of a clamped window it cancels against the other end.
    lows = (term.columns.first, *_arms(term.low, Max), term.low)
    inside = _width(lows, (term.columns.last, *_arms(term.high, Min), term.high))
    if columns == _n:
        columns = inside
    elif inside != _n and not columns.has(_n):
        columns = min(columns, inside, key=lambda w: len(w.free_symbols))
    elif inside != _n:
        columns = inside * columns / _n
    two_sided = [part for item in term.leftover for part in _parts(item)]
    columns *= _shares(two_sided) / _steps(two_sided, {Q, K})
    if powers and columns.has(_n):
        columns = sympy.log(_n)
    return _monomials(rows * columns)


def _monomials(expr: sympy.Expr) -> tuple[str, ...]:
    found: dict[sympy.Expr, None] = {}
    for part in sympy.Add.make_args(sympy.expand(expr)):
        _, rest = part.as_coeff_Mul()
        found[rest.subs(_share, 1)] = None
    # A constant times n says nothing beside n times a parameter, nor does what is divided by one.
    kept = [
        m
        for m in found
        if not any(
            other != m and (ratio := other / m).is_number is False and _at_least_one(ratio) for other in found
        )
    ]
    return tuple(sorted(map(_text, kept)))


def _at_least_one(ratio: sympy.Expr) -> bool:
    """Powers of parameters with no negative exponent: never below one."""
    return all(power.is_nonnegative for power in ratio.as_powers_dict().values())


def _text(monomial: sympy.Expr) -> str:
    top, bottom = sympy.fraction(monomial)
    factors: list[str] = []
    powers = top.as_powers_dict()
    for base in sorted(powers, key=lambda base: (base != _n, str(base))):
        if base != 1:
            factors.append(str(base) if powers[base] == 1 else f"{base}^{powers[base]}")
    text = "*".join(factors) or "1"
    if bottom != 1:
        text += f"/{bottom}" if bottom.is_Symbol else f"/({bottom})"
    return text


def joined(parts: Iterable[Iterable[str] | str]) -> str:
    """``O(...)`` of all monomials together, without those that others swallow."""
    names: dict[str, None] = {}
    for part in parts:
        names.update(dict.fromkeys((part,) if isinstance(part, str) else part))
    if "n^2" in names:
        return "O(n^2)"
    if any(name.startswith("n") for name in names):
        for small in [name for name in names if not name.startswith("n")]:
            del names[small]
    for small in list(names):
        if any(other != small and _swallows(other, small) for other in names):
            del names[small]
    return f"O({' + '.join(sorted(names)) or '1'})"


def _swallows(large: str, small: str) -> bool:
    """Whether ``large`` is ``small`` times something of at least 1."""
    rest = large.split("*")
    for factor in small.split("*"):
        if factor not in rest:
            return small == "1"
        rest.remove(factor)
    return not any("/" in factor for factor in rest)


__all__ = ["joined", "term_growth"]

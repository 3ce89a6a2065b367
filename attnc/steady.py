"""What a closed form is worth at a length, and the form that it settles into once lengths are large."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import sympy

# A formula with more minima and maxima is nothing that people would read, and slow to work on.
MOST_EXTREMA = 80
MOST_PERIOD = 1 << 20
MOST_NODES = 200  # of a formula that is made shorter by hand
MOST_EXPANDED = 800  # of one that is multiplied out

# slope * n + something between low and high
Course = tuple[Fraction, Fraction, Fraction]


def steady_form(expr: sympy.Expr, n: sympy.Symbol) -> tuple[sympy.Expr, int]:
    """``expr`` with its minima and maxima decided, and a length from which on that form holds.

    What goes on changing (the last, ragged block) stays as it is, and so do formulas too long to read.
    """
    start = 0
    extrema = expr.atoms(sympy.Max, sympy.Min)
    # Nobody knows the course of a sum, so an extremum of one stays; sympy would try for long to tell which.
    if len(extrema) > MOST_EXTREMA or any(part.has(sympy.Sum) for part in extrema):
        return expr, start
    lasting: dict[sympy.Expr, sympy.Expr] = {}
    while True:
        inner = [
            part
            for part in expr.atoms(sympy.Max, sympy.Min)
            if not any(arg.has(sympy.Max, sympy.Min) for arg in part.args)
        ]
        if not inner:
            while expr.free_symbols & lasting.keys():
                expr = replaced(expr, lasting)
            return _without_remainders(expanded(expr), n), start
        settled = {}
        for part in inner:
            found = _winner(part, n)
            if found is None:
                stays = sympy.Dummy(integer=True)
                settled[part], lasting[stays] = stays, part
                continue
            settled[part], since = found
            start = max(start, since)
        expr = replaced(expr, settled)


def replaced(expr: sympy.Expr, mapping: Mapping[sympy.Expr, sympy.Expr]) -> sympy.Expr:
    """``expr.xreplace(mapping)``; of extrema, which of the arguments decides is not looked for."""
    known = dict(mapping)

    def of(part: sympy.Expr) -> sympy.Expr:
        if part not in known:
            args = [of(arg) for arg in part.args]
            known[part] = part if list(part.args) == args else rebuilt(part, args)
        return known[part]

    return of(expr)


def rebuilt(part: sympy.Expr, args: Sequence[sympy.Expr]) -> sympy.Expr:
    """The same function of other arguments; an extremum is only computed of numbers."""
    if not isinstance(part, (sympy.Max, sympy.Min)):
        return part.func(*args)
    args = list(dict.fromkeys(args))
    return part.func(*args, evaluate=len(args) == 1 or all(arg.is_number for arg in args))


def nodes(expr: sympy.Expr) -> int:
    """How many parts a formula has, itself among them."""
    return sum(1 for _ in sympy.preorder_traversal(expr))


def _without_remainders(expr: sympy.Expr, n: sympy.Symbol) -> sympy.Expr:
    """``n`` in place of its quotient times the divisor and its remainder, where that is shorter."""
    if nodes(expr) > MOST_NODES:
        return expr
    for part in sorted(expr.atoms(sympy.Mod), key=str):  # whichever order a set has
        left, step = part.args
        if left != n or not step.is_Integer:
            continue
        if int(step) == 2:  # 0 or 1, and so are its powers
            expr = expr.xreplace({part**power: part for power in (2, 3)})
        other = expanded(replaced(expr, {part: n - step * sympy.floor(n / step)}))
        expr = min(expr, other, key=sympy.count_ops)
    return expr


def multiples(expr: sympy.Expr, n: sympy.Symbol) -> tuple[sympy.Expr, int]:
    """``expr`` for multiples of a period, where no remainder of ``n`` is left, and that period.

    The period is 1 where ``expr`` has no remainders, or some that no period of ``MOST_PERIOD`` settles.
    """
    period = 1
    while True:
        found, missing = _at_multiples(expr, n, period)
        if missing == 1:
            return found, period
        period *= missing
        if period > MOST_PERIOD:
            return expr, 1


def _at_multiples(expr: sympy.Expr, n: sympy.Symbol, period: int) -> tuple[sympy.Expr, int]:
    """``expr`` where ``n`` is a multiple of the period, and what the period lacks for that."""
    missing = 1
    known: dict[sympy.Expr, sympy.Expr] = {}

    def of(part: sympy.Expr) -> sympy.Expr:
        if part not in known:
            known[part] = made(part)
        return known[part]

    def made(part: sympy.Expr) -> sympy.Expr:
        nonlocal missing
        if not part.args or isinstance(part, sympy.Sum):
            return part
        args = [of(arg) for arg in part.args]
        if isinstance(part, (sympy.floor, sympy.Mod)):
            start, rest = args[0].as_coeff_Add()
            slope, rest = rest.as_coeff_Mul()
            step = args[1] if isinstance(part, sympy.Mod) else sympy.S.One
            if rest in (n, 1) and step.is_Integer:
                turns = sympy.Rational(slope * period, step)
                if rest == n and not turns.is_Integer:
                    missing = math.lcm(missing, int(turns.q))
                elif rest == n:
                    return part.func(start, *args[1:]) + (slope * n if isinstance(part, sympy.floor) else 0)
        return rebuilt(part, args)

    return of(expr), missing


def expanded(expr: sympy.Expr) -> sympy.Expr:
    """``sympy.expand`` without what counts are hardly ever made of; long formulas stay as they are."""
    if nodes(expr) > MOST_EXPANDED:
        return expr
    if not all(part.is_Pow and part.exp.is_Integer for part in expr.atoms(sympy.log, sympy.Pow)):
        return sympy.expand(expr)
    return expr.expand(power_base=False, power_exp=False, log=False, basic=False)


def _winner(part: sympy.Expr, n: sympy.Symbol) -> tuple[sympy.Expr, int] | None:
    """The argument that is the extremum of all from some length on, and that length."""
    sign = 1 if isinstance(part, sympy.Max) else -1
    for candidate in part.args:
        since = 0
        for other in part.args:
            if other is candidate:
                continue
            course = _course(expanded(sign * (candidate - other)), n)
            if course is None:
                return None
            slope, low, _ = course
            if slope < 0 or (slope == 0 and low < 0):
                break
            if slope > 0:
                since = max(since, math.ceil(-low / slope))
        else:
            return candidate, since
    return None


def _course(expr: sympy.Expr, n: sympy.Symbol) -> Course | None:
    zero = Fraction(0)
    if expr == n:
        return Fraction(1), zero, zero
    if expr.is_Rational:
        value = Fraction(int(expr.p), int(expr.q))
        return zero, value, value
    if expr.is_Add:
        parts = [_course(arg, n) for arg in expr.args]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        slope, low, high = (sum(column, zero) for column in zip(*known, strict=True))
        return slope, low, high
    if expr.is_Mul:
        factor, rest = expr.as_coeff_Mul()
        course = _course(rest, n) if factor != 1 else None
        numerator, denominator = sympy.fraction(factor)
        if course is None or not (numerator.is_Integer and denominator.is_Integer):
            return None
        by = Fraction(int(numerator), int(denominator))
        slope, low, high = course
        return (slope * by, low * by, high * by) if by >= 0 else (slope * by, high * by, low * by)
    if isinstance(expr, sympy.floor):
        course = _course(expr.args[0], n)
        if course is None:
            return None
        slope, low, high = course
        return slope, low - 1, high
    if isinstance(expr, sympy.Mod) and expr.args[1].is_Integer:
        return zero, zero, Fraction(int(expr.args[1]) - 1)
    return None


def value_of(expr: sympy.Expr, values: Mapping[sympy.Expr, int]) -> Fraction:
    """The exact value of a closed form; quicker than sympy's own substitution by far.

    Raises KeyError with the first symbol or ``count(x)`` that ``values`` says nothing about.
    """
    known: dict[sympy.Expr, Fraction] = {key: Fraction(value) for key, value in values.items()}

    def of(part: sympy.Expr) -> Fraction:
        if part not in known:
            known[part] = _value(part, of, values)
        return known[part]

    return of(expr)


def _value(
    part: sympy.Expr, of: Callable[[sympy.Expr], Fraction], values: Mapping[sympy.Expr, int]
) -> Fraction:
    if part.is_Rational:
        return Fraction(int(part.p), int(part.q))
    if isinstance(part, sympy.Sum):
        body, (index, low, high) = part.function, part.limits[0]
        places = range(int(of(low)), int(of(high)) + 1)
        return sum((value_of(body, {**values, index: place}) for place in places), Fraction(0))
    if isinstance(part, sympy.ceiling) and part.has(sympy.log):
        # How many powers of two lie below: the only logarithm there is.
        (logarithm,) = part.atoms(sympy.log) - {sympy.log(2)}
        return Fraction((int(of(logarithm.args[0])) - 1).bit_length())
    if part.is_Symbol or (
        part.is_Function
        and not isinstance(part, (sympy.floor, sympy.ceiling, sympy.Max, sympy.Min, sympy.Mod))
    ):
        raise KeyError(part)
    args = [of(arg) for arg in part.args]
    if part.is_Add:
        return sum(args, Fraction(0))
    if part.is_Mul:
        return math.prod(args, start=Fraction(1))
    if part.is_Pow and args[1].denominator == 1:
        return args[0] ** int(args[1])
    if isinstance(part, sympy.Max):
        return max(args)
    if isinstance(part, sympy.Min):
        return min(args)
    if isinstance(part, sympy.floor):
        return Fraction(math.floor(args[0]))
    if isinstance(part, sympy.ceiling):
        return Fraction(math.ceil(args[0]))
    if isinstance(part, sympy.Mod):
        return args[0] % args[1]
    raise TypeError(f"a closed form cannot hold {type(part).__name__}")

"""Polynomials with rational coefficients, and whether one is never negative.

The variables are counts: ``n``, ``count(x)`` (at most ``n``), ``d`` (at least 1), and remainders of
divisions, which lie in ``0..c-1`` and are named ``rest:c:…``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, product, repeat

from attnc.budget import allows
from attnc.expression import (
    Const,
    Expr,
    FloorDiv,
    Mod,
    Mul,
    Param,
    Sum,
    Var,
    constant,
)

Monomial = tuple[str, ...]  # the variables, each as often as its power, sorted

# How many parts of the ranges of its variables a polynomial is looked at in, how many variables it may have
# for that, and what a term of it takes in steps of work.
MOST_PARTS, MOST_SHARES, TERM = 96, 4, 60


@dataclass(frozen=True)
class Poly:
    terms: tuple[tuple[Monomial, Fraction], ...]

    def __add__(self, other: Poly) -> Poly:
        total = dict(self.terms)
        for monomial, c in other.terms:
            total[monomial] = total.get(monomial, Fraction(0)) + c
        return poly(total)

    def __sub__(self, other: Poly) -> Poly:
        return self + other.scaled(-1)

    def __mul__(self, other: Poly) -> Poly:
        total: dict[Monomial, Fraction] = {}
        for left, a in self.terms:
            for right, b in other.terms:
                product = tuple(sorted(left + right))
                total[product] = total.get(product, Fraction(0)) + a * b
        return poly(total)

    def scaled(self, factor: int | Fraction) -> Poly:
        return poly({monomial: c * factor for monomial, c in self.terms})

    def names(self) -> frozenset[str]:
        return frozenset(name for monomial, _ in self.terms for name in monomial)

    def value(self) -> Fraction | None:
        """The number that the polynomial is, if it is one."""
        return None if self.names() else sum((c for _, c in self.terms), Fraction(0))

    def replaced(self, name: str, by: Poly) -> Poly:
        total: dict[Monomial, Fraction] = {}
        for monomial, c in self.terms:
            times = monomial.count(name)
            part = poly({tuple(v for v in monomial if v != name): c}) if times else Poly(((monomial, c),))
            for _ in range(times):
                part = part * by
            for other, more in part.terms:
                total[other] = total.get(other, Fraction(0)) + more
        return poly(total)

    def at(self, values: Mapping[str, int]) -> Fraction:
        result = Fraction(0)
        for monomial, c in self.terms:
            for name in monomial:
                c *= values[name]
            result += c
        return result


def poly(terms: Mapping[Monomial, Fraction]) -> Poly:
    return Poly(tuple(sorted((monomial, c) for monomial, c in terms.items() if c)))


def number(value: int | Fraction) -> Poly:
    return poly({(): Fraction(value)})


def symbol(name: str) -> Poly:
    return poly({(name,): Fraction(1)})


def from_expr(expr: Expr) -> Poly | None:
    """The expression as a polynomial, with a variable for the remainder of every division.

    None for what is none: minima, maxima, choices, entries of inputs.
    """
    match expr:
        case Const(value) | Param(_, value):
            return number(value)
        case Var(name):
            return symbol(name)
        case Sum(terms, start):
            total = number(start)
            for c, atom in terms:
                part = from_expr(atom)
                if part is None:
                    return None
                total = total + part.scaled(c)
            return total
        case Mul(a, b):
            left, right = from_expr(a), from_expr(b)
            return None if left is None or right is None else left * right
        case FloorDiv(a, b) | Mod(a, b):
            divisor, left = constant(b), from_expr(a)
            if divisor is None or divisor <= 0 or left is None:
                return None
            rest = symbol(f"rest:{divisor}:{a!r}")
            return rest if isinstance(expr, Mod) else (left - rest).scaled(Fraction(1, divisor))
    return None


def rest_limit(name: str) -> int | None:
    """The greatest value of a remainder; None for other variables."""
    return int(name.split(":")[1]) - 1 if name.startswith("rest:") else None


def never_below(p: Poly, floor: Fraction, low: int, high: int | None) -> bool:
    """Whether ``p > floor`` for all ``low <= n <= high`` (or all beyond) and all other variables."""
    p = _worst_rests(p) - number(floor)
    counts = sorted(name for name in p.names() if name.startswith("count("))
    known = {"n", "d", *counts} | {name for name in p.names() if rest_limit(name) is not None}
    if not p.names() <= known:
        return False
    if high is not None and high <= low + 4096 and p.names() <= {"n"}:
        return all(p.at({"n": n}) > 0 for n in range(low, high + 1))
    return _plainly_positive(p, low, counts) or _positive(p, low, high)


def _worst_rests(p: Poly) -> Poly:
    """Remainders that only help, or only hurt, set to their worst value."""
    for name in sorted(p.names()):
        limit = rest_limit(name)
        if limit is not None:
            signs = {c > 0 for monomial, c in p.terms if name in monomial}
            if len(signs) == 1:  # everything else in these monomials is a count, never negative
                p = p.replaced(name, number(0 if signs.pop() else limit))
    return p


def _plainly_positive(p: Poly, low: int, counts: Iterable[str]) -> bool:
    """Whether it is seen by shifting every variable to start at zero: no coefficient is negative then."""
    shifted = p.replaced("d", symbol("d") + number(1)).replaced("n", symbol("n") + number(low))
    if any(rest_limit(name) is not None for name in p.names()):
        return False
    total = dict(shifted.terms)
    return all(c >= 0 for c in total.values()) and total.get((), Fraction(0)) > 0


def _positive(p: Poly, low: int, high: int | None) -> bool:
    """Whether a polynomial is positive for all real values of its variables; no, if that is not found soon.

    Counts and remainders become shares of the greatest that they may be. Ranges are cut in two, in turn,
    until all coefficients of each part agree that it is positive.
    """
    if high is not None and _positive(p, low, None):  # then the ends of what is short are near
        return True
    p = p.replaced("d", symbol("d") + number(1))
    shares = tuple(name for name in sorted(p.names()) if name not in ("n", "d"))
    if len(shares) > MOST_SHARES:
        return False
    for name in shares:
        limit = rest_limit(name)
        p = p.replaced(name, symbol(name) * (symbol("n") if limit is None else number(limit)))
    if high is None:
        parts = [(p.replaced("n", symbol("n") + number(low)), shares, 0)]
    else:
        length = symbol("n").scaled(high - low) + number(low)
        parts = [(p.replaced("n", length), (*shares, "n"), 0)]
    for _ in range(MOST_PARTS):
        if not parts:
            return True
        part, shares, cuts = parts.pop()
        if not allows(TERM * len(part.terms) << len(shares), "the proof of a bound"):
            return False
        agreed = _agreed(part, shares)
        if agreed is False:
            return False
        if agreed:
            continue
        names = shares if "n" in shares else (*shares, "n")
        name = names[cuts % len(names)]
        if name in shares:
            half = symbol(name).scaled(Fraction(1, 2))
            cut = ((half, shares), (half + number(Fraction(1, 2)), shares))
        else:  # what is short, and all that is longer
            edge = (low + 1) << cuts // len(names)
            cut = ((symbol("n").scaled(edge), (*shares, "n")), (symbol("n") + number(edge), shares))
        parts += [(part.replaced(name, by), ranges, cuts + 1) for by, ranges in cut]
    return False


def _agreed(p: Poly, shares: tuple[str, ...]) -> bool | None:
    """Whether a polynomial is positive, by the coefficients of Bernstein's form; None if they do not agree.

    shares: the variables that lie in 0..1; the others are not negative. A corner's coefficient is the value
    there.
    """
    degrees = {name: max((m.count(name) for m, _ in p.terms), default=0) for name in shares}
    for name, degree in degrees.items():  # x becomes x / (1 + x), times what that is divided by
        total = number(0)
        for monomial, c in p.terms:
            part = poly({monomial: c})
            for _ in range(degree - monomial.count(name)):
                part = part * (symbol(name) + number(1))
            total = total + part
        p = total
    found = dict(p.terms)
    corners = product(*((0, degree) for degree in degrees.values()))
    monomials = (
        tuple(sorted(chain.from_iterable(repeat(*item) for item in zip(degrees, corner, strict=True))))
        for corner in corners
    )
    if any(found.get(monomial, 0) <= 0 for monomial in monomials):
        return False
    return True if all(c > 0 for c in found.values()) else None

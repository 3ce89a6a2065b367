"""Several congruences of one expression as a single one (the Chinese remainder theorem)."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd, lcm

from attnc.expression import FALSE, Const, Eq0, Expr, Mod, Sum, add, eq, mod

# No position is so large: with a longer period there is at most one.
MOST_PERIOD = 1 << 31


def joined(conditions: Iterable[Expr]) -> tuple[Expr, ...]:
    """The same conditions, with ``x % 6 == 1`` and ``x % 10 == 3`` as ``x % 30 == 13``."""
    kept: list[Expr] = []
    known: dict[Expr, tuple[int, int]] = {}
    for condition in conditions:
        found = _congruence(condition)
        if found is None:
            kept.append(condition)
            continue
        expr, rest, divisor = found
        before, period = known.get(expr, (0, 1))
        if lcm(divisor, period) >= MOST_PERIOD:
            kept.append(condition)
            continue
        if (rest - before) % gcd(divisor, period):
            return (FALSE,)
        # The least number from `before` on, in steps of the period, that has the new remainder, too.
        step = divisor // gcd(divisor, period)
        turns = (rest - before) // gcd(divisor, period) * pow(period // gcd(divisor, period), -1, step) % step
        known[expr] = ((before + period * turns) % lcm(divisor, period), lcm(divisor, period))
    return (*kept, *(eq(mod(expr, period), rest) for expr, (rest, period) in known.items()))


def _congruence(condition: Expr) -> tuple[Expr, int, int] | None:
    """``x, r, m`` of ``x % m == r``, where x has no constant part."""
    match condition:
        case Eq0(Mod(left, Const(divisor))):
            rest = 0
        case Eq0(Sum(((sign, Mod(left, Const(divisor))),), start)) if abs(sign) == 1:
            rest = -sign * start
        case _:
            return None
    if divisor < 1:
        return None
    moved = left.constant if isinstance(left, Sum) else 0
    return add(left, -moved), (rest - moved) % divisor, divisor

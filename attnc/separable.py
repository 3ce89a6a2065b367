"""Conditions on pairs that separate: into blocks and places of positions, or into rows and a clamped window.

Both steps are taken before a relation is multiplied out into conjunctions, whose number is the product of the
alternatives of all axes. A grid's axes separate, so each is counted by itself. A window of fixed width whose
ends are a ``min`` or ``max`` of the query (clamped at the borders) is counted from its first key on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.digits import Known
from attnc.expression import (
    And,
    Const,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Max,
    Min,
    Mod,
    Not,
    Or,
    Q,
    Select,
    Var,
    add,
    conj,
    constant,
    eq,
    le,
    mentioned,
    neg,
    scale,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.intervals import Tile
from attnc.notation import show
from attnc.sizes import Sizes, linear, numeric


def flattened(conditions: Sequence[Expr]) -> list[Expr]:
    """The conditions with every conjunction among them taken apart."""
    whole = conj(*conditions)
    return list(whole.args) if isinstance(whole, And) else [whole]


def branching(condition: Expr) -> bool:
    """Whether a condition is more than one comparison of sums."""
    return any(isinstance(part, (Or, Min, Max, Select)) for part in walk(condition)) or isinstance(
        condition, Not
    )


# --- blocks and places ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Separated:
    """Conditions on positions ``q = s * Q + r`` and ``k = s * K + t``.

    blocks: those on ``(Q, K)``; places: those on ``(r, t)``. Both are over the variables ``q`` and ``k``.
    """

    s: int
    blocks: tuple[Expr, ...]
    places: tuple[Expr, ...]


def separated(conditions: Sequence[Expr], sizes: Sizes, positions: float) -> Separated | None:
    """The conditions by blocks and places of the coarsest modulus; None where some condition needs both.

    positions: the most that there are; within one block nothing is gained.
    """
    divisors = {
        constant(part.right) or 0
        for condition in conditions
        for part in walk(condition)
        if isinstance(part, (FloorDiv, Mod))
    }
    s = max(divisors, default=0)
    if s < 2 or s >= positions or any(d < 1 for d in divisors):
        return None
    names = frozenset().union(*map(variables, conditions)) - {"q", "k"}
    if not names <= sizes.ranges.keys():
        return None
    wholes: dict[Expr, Expr] = {Q: Var("Q"), K: Var("K")}
    rests: dict[Expr, Expr] = {Q: Var("r"), K: Var("t")}
    for name in names:
        wholes[Var(name)], rests[Var(name)] = sizes.split(Var(name), s)
    ranges = {rest: (Const(0), Const(s - 1)) for rest in rests.values() if isinstance(rest, Var)}
    mapping = {var: add(scale(s, wholes[var]), rests[var]) for var in wholes}
    known = Known(Tile(ranges), tuple(sorted({d for d in divisors if d > 1})), mapping)
    blocks: list[Expr] = []
    places: list[Expr] = []
    for condition in flattened([known.condition(known.expression(item)) for item in conditions]):
        condition = _named(condition, frozenset(rests.values()), sizes)
        found = mentioned(condition)
        if found.isdisjoint(ranges):
            blocks.append(substitute(condition, {Var("Q"): Q, Var("K"): K}))
        elif found.isdisjoint(wholes.values()):
            places.append(substitute(condition, {Var("r"): Q, Var("t"): K}))
        else:
            return None
    return Separated(s, tuple(blocks), tuple(places))


def _named(condition: Expr, rests: frozenset[Expr], sizes: Sizes) -> Expr:
    """The condition with roundings of a size's rest as sizes: of ``(n + 55) // 56``, 1 for a last short row.

    They must be zero where the rest is, as sizes that are split off another one are.
    """
    names: dict[Expr, Expr] = {}
    for part in walk(condition):
        if not isinstance(part, FloorDiv):
            continue
        inside = mentioned(part)
        if len(inside) == 1 and inside <= rests and not inside & {Var("r"), Var("t")}:
            [rest] = inside
            low, high = numeric(part, sizes.ranges)
            if low == 0 and substitute(part, {rest: Const(0)}) == Const(0):
                name = f"{rest.name}/({show(part)})"
                sizes.ranges[name], sizes.meaning[name] = (low, high), part
                names[part] = Var(name)
    return substitute(condition, names) if names else condition


# --- residues of the query ------------------------------------------------------------------------------

MOST_RESIDUES = 32


def by_residue(conditions: Sequence[Expr]) -> list[list[Expr]] | None:
    """The conditions for every residue of the query that an extremum depends on; None where there is none.

    Where a window is clamped follows from the residue in a dilated neighborhood.
    """
    for condition in conditions:
        for part in walk(condition):
            if not isinstance(part, (Min, Max)):
                continue
            for inner in walk(part):
                match inner:
                    case Mod(left, Const(size)) if 1 < size <= MOST_RESIDUES and mentioned(left) == {Q}:
                        return [
                            [*(substitute(item, {inner: Const(i)}) for item in conditions), eq(inner, i)]
                            for i in range(size)
                        ]
    return None


# --- windows of fixed width -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shifted:
    """Conditions over the place of a key within its query's window, as ``k``; the window has ``width``."""

    conditions: tuple[Expr, ...]
    width: int


def shifted(conditions: Sequence[Expr], columns: Expr) -> Shifted | None:
    """The conditions told from the first key of a window of fixed width, if its ends are extrema.

    ``low <= k <= low + width - 1`` becomes ``0 <= k <= width - 1``, and ``k`` elsewhere ``low + k``.
    """
    lows: dict[Expr, Expr] = {}
    highs: dict[Expr, Expr] = {}
    for condition in conditions:
        if "k" not in variables(condition):
            continue
        if not isinstance(condition, (Le0, Eq0)):
            return None
        terms, _ = linear(condition.body)
        c = terms.get(K, 0)
        if any(K in mentioned(atom) for atom in terms if atom != K):
            return None
        rest = sub(condition.body, scale(c, K))
        if isinstance(condition, Le0) and abs(c) == 1:
            (highs if c > 0 else lows)[condition] = neg(rest) if c > 0 else rest
    for low_bound, low in lows.items():
        if not any(isinstance(part, (Min, Max)) and Q in mentioned(part) for part in walk(low)):
            continue
        for high_bound, high in highs.items():
            width = constant(add(sub(high, low), 1))
            if width is not None:
                kept = [item for item in conditions if item not in (low_bound, high_bound)]
                place = add(low, K)
                moved = [substitute(item, {K: place}) for item in kept]
                within = [le(0, place), le(add(place, 1), columns)]
                return Shifted((*moved, *within), max(width, 0))
    return None

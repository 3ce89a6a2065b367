"""One term, seen from either side: for each position of one's own, bounds on the other's, digit by digit.

The query's view is the term as it stands, the key's its transpose: the conditions solved for the query. The
class of terms is closed under this up to conditions that cannot be solved; those give everything, masked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.budget import priced
from attnc.digits import PLAIN, Digits, Radix
from attnc.expression import (
    EQUAL_ENDS,
    TRUE,
    ZERO,
    And,
    Expr,
    K,
    Le0,
    Lookup,
    N,
    Or,
    Q,
    Sum,
    Var,
    add,
    between,
    conj,
    constant,
    disj,
    floor_div,
    le,
    maximum,
    minimum,
    mul,
    scale,
    select,
    size,
    variables,
)
from attnc.isolate import Bounds, equal_entries, expand, mentions, residue, solve
from attnc.relation import POSITIONS, Axis, Term
from attnc.simplify import LAST, holds


@dataclass(frozen=True)
class Digit:
    """What is known of one digit of the other side, over the own digits and the other side's later digits.

    low, high: outside of them there is no edge.
    inner_low, inner_high: inside of them this digit breaks no condition.
    """

    var: Var
    low: Expr
    high: Expr
    inner_low: Expr
    inner_high: Expr


@dataclass(frozen=True)
class View:
    """A term as one side sees it.

    own_radix, other_radix: the digits in which either side's positions are told.
    indexed: the other side's selection, when its members are gathered through an index.
    passed_over: the other side's selection, when its positions are visited all the same.
    digits: bounds for every digit of the other side, the first digit's first.
    unsolved: what is left to be masked even where all digits lie within their inner bounds, in digits.
    on_own: what the own position alone must meet.
    mask: all that a pair must meet, each condition in the digits or the positions that say it shortest.
    limits: what the other side's digits must meet together to be a position's.
    """

    term: Term
    own: Axis
    other: Axis
    own_radix: Radix
    other_radix: Radix
    indexed: Expr
    passed_over: Expr
    digits: tuple[Digit, ...]
    unsolved: tuple[Expr, ...]
    on_own: tuple[Expr, ...]
    mask: tuple[Expr, ...]
    limits: tuple[Expr, ...]


@priced(256)
def view(
    term: Term, own: Var, owned: Expr = TRUE, own_radix: Radix = PLAIN, other_radix: Radix = PLAIN
) -> View:
    """``term`` from the side of ``own``, both sides counted in the given digits.

    owned: what every own position that is asked about meets.
    """
    own_axis, other_axis = (term.rows, term.columns) if own == Q else (term.columns, term.rows)
    other = other_axis.var
    rewrite = Digits({own: own_radix, other: other_radix})
    selection = other_axis.selection()
    arithmetic = other_axis.packed and ranges_of(other_axis, other_radix) is not None
    indexed = selection if other_axis.packed and not arithmetic else TRUE
    passed_over = TRUE if other_axis.packed else selection
    given = [other_axis.interval() if indexed == TRUE else TRUE, selection if arithmetic else TRUE]
    given += [TRUE if term.low == ZERO else le(term.low, K), TRUE if term.high == LAST else le(K, term.high)]
    conditions = (*given, *_unknown(own_axis, owned))
    literals = [part for item in conditions for part in _parts(_decided(expand(item, other), other))]
    found = [_Condition.of(item, rewrite, own, other) for item in (*literals, *term.leftover)]
    within = _Condition.of(le(other, LAST), rewrite, own, other)
    limits = [_Condition(item, item, (item,), (item,)) for item in other_radix.limits(other)]
    names = {other.name, *(digit.name for digit in other_radix.digits(other))}
    pairs = [item for item in found if not names.isdisjoint(variables(item.mask))]
    alone = [item for item in found if names.isdisjoint(variables(item.mask))]
    drawn = () if term.drawn is None else (term.drawn,)
    digits, unsolved = _digits([*pairs, within], other, other_radix, limits)
    return View(
        term,
        own_axis,
        other_axis,
        own_radix,
        other_radix,
        indexed,
        passed_over,
        digits,
        (*(item.told for item in unsolved), *drawn),
        tuple(item.mask for item in alone),
        (*(item.mask for item in pairs), *drawn),
        tuple(item.mask for item in limits),
    )


def _decided(condition: Expr, other: Var) -> Expr:
    """Without alternatives that hold for every own position there is, such as that it is before the end."""
    match condition:
        case And(args):
            return conj(*(_decided(arg, other) for arg in args))
        case Or(args):
            return disj(*(_decided(arg, other) for arg in args))
        case Le0() if not mentions(condition, other) and holds(condition, POSITIONS):
            return TRUE
    return condition


def _unknown(own: Axis, owned: Expr) -> tuple[Expr, ...]:
    """What a row must meet to be the term's, but for what all owned rows meet."""
    if own.packed:
        return ()
    selection = own.selection()
    if selection != TRUE and holds(selection, between(ZERO, own.var, LAST), owned, own.interval()):
        selection = TRUE
    return own.interval(), selection


def ranges_of(axis: Axis, radix: Radix) -> tuple[tuple[Expr, Expr], ...] | None:
    """The ranges of all digits but the first to which an axis' selection comes down, or None."""
    rewrite = Digits({axis.var: radix})
    condition = _Condition.of(axis.selection(), rewrite, axis.var, axis.var)
    first, *_ = radix.digits(axis.var)
    if mentions(condition.mask, first) or (axis.var.name in variables(condition.mask) and radix != PLAIN):
        return None
    if radix == PLAIN:
        return () if condition.mask == TRUE else None
    digits, unsolved = _digits([condition], axis.var, radix)
    ends = tuple((digit.low, digit.high) for digit in digits[1:])
    plain = all(not variables(end) for pair in ends for end in pair)
    unmoved = all(digit.low == digit.inner_low and digit.high == digit.inner_high for digit in digits[1:])
    return ends if not unsolved and plain and unmoved else None


# --- conditions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Condition:
    """One condition on a pair, told in digits. outer follows from it, it follows from inner; both are flat.

    mask: the condition in digits or in positions, whichever is shorter.
    inner is None where nothing simple implies the condition.
    """

    mask: Expr
    told: Expr
    outer: tuple[Expr, ...]
    inner: tuple[Expr, ...] | None

    @staticmethod
    def of(condition: Expr, rewrite: Digits, own: Var, other: Var) -> _Condition:
        equal = equal_entries(condition)
        if equal is None:
            told = rewrite(condition)
            parts = tuple(_parts(expand(told, other, *rewrite.sides[other].digits(other))))
            shorter = min((told, condition), key=size)
            return _Condition(shorter, told, parts, parts)
        # Equal entries lie between the first and the last of them, and a run of them has nothing else in it.
        table, step = equal
        ends = [Lookup(f"{table}.{name}", (floor_div(own, step),)) for name in EQUAL_ENDS]
        first, last, run_first, run_last = (mul(step, end) for end in ends)
        outer = between(first, other, add(last, step, -1))
        inner = between(run_first, other, add(run_last, step, -1))
        bounding = (tuple(_parts(rewrite(item))) for item in (outer, inner))
        return _Condition(condition, condition, *bounding)


def _parts(condition: Expr) -> tuple[Expr, ...]:
    if condition == TRUE:
        return ()
    return condition.args if isinstance(condition, And) else (condition,)


def _digits(
    conditions: list[_Condition], other: Var, radix: Radix, limits: Sequence[_Condition] = ()
) -> tuple[tuple[Digit, ...], list[_Condition]]:
    """Bounds for every digit of ``other``, and the conditions that the inner ones do not imply.

    limits: further conditions, of which each bounds the first digit that it mentions and no other.
    """
    digits = radix.digits(other)
    known = radix.ranges(other)
    sizes = dict(zip(digits[1:], radix.sizes, strict=True))
    outer = [part for condition in conditions for part in condition.outer]
    if len(digits) > 1:
        apart = [part for part in outer if not mentions(part, N)]
        outer += [part for digit in digits for part in _without(digit, apart)]
    conditions = [*conditions, *limits]
    outer += [part for limit in limits for part in limit.outer]
    unsolved: dict[int, _Condition] = {}
    found: list[Digit] = []
    for digit in digits:
        low, high = known.get(digit, (ZERO, None))
        lows, highs = [low], [high] if high is not None else []
        inner_lows, inner_highs = list(lows), list(highs)
        for part in outer:
            if _target(part, digits, other) == digit:
                bounds, _ = _solved(part, digit, sizes)
                lows += [bounds.low] if bounds.low is not None else []
                highs += [bounds.high] if bounds.high is not None else []
        for number, condition in enumerate(conditions):
            for part in condition.inner or ():
                if _target(part, digits, other) == digit:
                    bounds, sure = _solved(part, digit, sizes)
                    if not sure:
                        unsolved[number] = condition
                    inner_lows += [bounds.low] if bounds.low is not None else []
                    inner_highs += [bounds.high] if bounds.high is not None else []
        found.append(
            Digit(digit, maximum(*lows), minimum(*highs), maximum(*inner_lows), minimum(*inner_highs))
        )
    for number, condition in enumerate(conditions):
        parts = condition.inner
        if parts is None or any(
            _target(part, digits, other) is None and mentions(part, other) for part in parts
        ):
            unsolved[number] = condition
    return tuple(found), list(unsolved.values())


def _without(digit: Var, parts: list[Expr]) -> list[Expr]:
    """What pairs of comparisons say together without a digit that both mention (Fourier and Motzkin)."""
    above: list[tuple[int, Expr]] = []
    below: list[tuple[int, Expr]] = []
    for part in parts:
        if isinstance(part, Le0) and isinstance(part.body, Sum):
            factor = next((c for c, atom in part.body.terms if atom == digit), 0)
            if factor and not any(mentions(atom, digit) for _, atom in part.body.terms if atom != digit):
                (above if factor > 0 else below).append((abs(factor), part.body))
    return [le(add(scale(b, one), scale(a, two)), 0) for a, one in above for b, two in below]


def _target(part: Expr, digits: tuple[Var, ...], other: Var) -> Var | None:
    """The digit that a condition is solved for: the first that it mentions outside of look-ups."""
    if other not in digits and mentions(part, other):
        return None
    return next((digit for digit in digits if mentions(part, digit)), None)


def _solved(condition: Expr, var: Var, sizes: Mapping[Var, int]) -> tuple[Bounds, bool]:
    """Bounds on ``var`` that ``condition`` implies, and whether they say all that it says.

    sizes: of digits, how many values they take.
    """
    match condition:
        case And(args):
            parts = [_solved(arg, var, sizes) for arg in args]
            below = [b.low for b, _ in parts if b.low is not None]
            above = [b.high for b, _ in parts if b.high is not None]
            exact = all(sure for _, sure in parts)
            return Bounds(maximum(*below) if below else None, minimum(*above) if above else None), exact
        case Or(args):
            free = [arg for arg in args if not mentions(arg, var)]
            parts = [_solved(arg, var, sizes) for arg in args if mentions(arg, var)]
            lows, highs = [b.low for b, _ in parts], [b.high for b, _ in parts]
            sure = all(exact for _, exact in parts)
            # What doesn't hang on the variable opens or shuts the range, at whichever end the rest bounds.
            opening = disj(*free)
            if all(low is not None for low in lows):
                ends = [x for x in lows if x is not None]
                low = minimum(*ends, *([select(opening, 0, N)] if free else []))
                return Bounds(low), sure and all(high is None for high in highs)
            if all(high is not None for high in highs):
                ends = [x for x in highs if x is not None]
                high = maximum(*ends, *([select(opening, LAST, -1)] if free else []))
                return Bounds(high=high), sure and all(low is None for low in lows)
            return Bounds(), False
    if condition == TRUE:
        return Bounds(), True
    if not mentions(condition, var):
        return Bounds(low=select(condition, 0, N)), True
    found = solve(condition, var)
    one = residue(condition, var) if found is None and var in sizes else None
    if one is not None and constant(one[0]) == sizes[var]:
        # A digit that takes as many values as there are residues takes each once.
        return Bounds(one[1], one[1]), True
    return (Bounds(), False) if found is None else (found, True)

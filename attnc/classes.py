"""Taking a relation apart: rows into classes, each class into conjunctions of literals.

Conditions that hang on the query alone (``from(S)``, ``where q >= 5``) are decided first, by cases. What is
left of the relation in each case has the same shape for all of the case's rows, so the rows of one class can
be walked together and no row is ever walked twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from attnc.diagnostics import Span
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    And,
    Eq0,
    Expr,
    K,
    Le0,
    Lookup,
    N,
    Not,
    Or,
    PowerOfTwo,
    Q,
    between,
    conj,
    disj,
    ge,
    maximum,
    minimum,
    negate,
    substitute,
    variables,
)
from attnc.isolate import expand, mentions, residue, solve
from attnc.pattern import Atom, Complement, Difference, Intersection, Relation, Union, formula
from attnc.relation import Axis, Lattice
from attnc.simplify import LAST, impossible, widest, without_idle

IN_ROWS = between(0, Q, LAST)
MAX_CASES = 4  # conditions on the row that are decided by cases; further ones are masked
MAX_BRANCHES = 24  # conjunctions of one class; beyond that the class is one masked term


@dataclass(frozen=True)
class RowClass:
    """Rows that share one relation."""

    rows: Axis
    relation: Relation


@dataclass(frozen=True)
class Branch:
    """One conjunction, with the text and place of the atoms it came from."""

    literals: tuple[Expr, ...]
    origin: str
    span: Span


def map_atoms(relation: Relation, change: dict[Expr, Expr] | None = None) -> Relation:
    """The relation with every atom's formula expanded, and some conditions replaced."""
    match relation:
        case Atom(formula=expr):
            return replace(relation, formula=substitute(expr, change) if change else expand(expr, K))
        case Union(args=args) | Intersection(args=args):
            return replace(relation, args=tuple(map_atoms(arg, change) for arg in args))
        case Difference(left=left, right=right):
            return replace(relation, left=map_atoms(left, change), right=map_atoms(right, change))
        case Complement(arg=arg):
            return replace(relation, arg=map_atoms(arg, change))


# --- rows -----------------------------------------------------------------------------------------------


def row_classes(relation: Relation) -> tuple[RowClass, ...]:
    """Classes of rows, disjoint; rows in none of them read nothing."""
    relation = map_atoms(relation)
    cuts: dict[Expr, None] = {}
    choices: dict[Expr, None] = {}
    _row_conditions(formula(relation), cuts, choices)
    chosen = list(choices)[: MAX_CASES - min(len(cuts), 2)]
    intervals = list(cuts)[: MAX_CASES - len(chosen)]
    classes: list[RowClass] = []
    for sides in product((True, False), repeat=len(intervals)):
        rows = _interval_rows(intervals, sides)
        if rows is None:
            continue
        truths = _assignment(intervals, sides)
        parts = _chosen_classes(relation, rows, truths, chosen)
        for part in parts:
            _absorb(classes, part)
    return tuple(classes)


def _row_conditions(expr: Expr, cuts: dict[Expr, None], choices: dict[Expr, None]) -> None:
    """Collects conditions on the row alone: ``cuts`` split the rows into intervals, ``choices`` pick some."""
    if not _depends_on(expr, Q):
        if isinstance(expr, (And, Or, Not)):
            for part in expr.args if isinstance(expr, (And, Or)) else (expr.body,):
                _row_conditions(part, cuts, choices)
        return
    positive = expr.body if isinstance(expr, Not) else expr
    if isinstance(expr, (And, Or)) and not _is_list(expr):
        for part in expr.args:
            _row_conditions(part, cuts, choices)
    elif not isinstance(positive, Eq0) and solve(positive, Q) is not None:
        # A cut and its negation are one cut.
        if negate(positive) not in cuts:
            cuts[positive] = None
    else:
        choices[positive] = None


def _depends_on(expr: Expr, var: Expr) -> bool:
    return variables(expr) <= {"q" if var == Q else "k", "n"} and (Q if var == Q else K).name in variables(
        expr
    )


def _is_list(expr: Expr) -> bool:
    """An explicit list of positions (``{0, 7, 19}``), which is kept as one condition."""
    return isinstance(expr, Or) and sum(isinstance(arg, Eq0) for arg in expr.args) > 2


def _assignment(conditions: list[Expr], sides: tuple[bool, ...]) -> dict[Expr, Expr]:
    truths: dict[Expr, Expr] = {}
    for condition, side in zip(conditions, sides, strict=True):
        truths[condition] = TRUE if side else FALSE
        truths[negate(condition)] = FALSE if side else TRUE
    return truths


def _interval_rows(intervals: list[Expr], sides: tuple[bool, ...]) -> Axis | None:
    lows: list[Expr] = [ZERO]
    highs: list[Expr] = [LAST]
    for condition, side in zip(intervals, sides, strict=True):
        bounds = solve(condition if side else negate(condition), Q)
        if bounds is None:
            raise AssertionError("a cut that bounds the rows on one side bounds them on the other")
        lows += [bounds.low] if bounds.low is not None else []
        highs += [bounds.high] if bounds.high is not None else []
    first, last = maximum(*lows), minimum(*highs)
    if impossible(IN_ROWS, between(first, Q, last)):
        return None
    some = (ge(N, 1),)
    return Axis(Q, without_idle(first, some, ZERO), without_idle(last, some, LAST))


def _chosen_classes(
    relation: Relation, rows: Axis, truths: dict[Expr, Expr], choices: list[Expr]
) -> list[RowClass]:
    """The rows of one interval, told apart by which of the ``choices`` they meet."""
    if not choices:
        left = map_atoms(relation, truths) if truths else relation
        return [] if formula(left) == FALSE else [RowClass(rows, left)]
    groups: dict[Expr, tuple[Relation, list[tuple[bool, ...]]]] = {}
    for sides in product((True, False), repeat=len(choices)):
        left = map_atoms(relation, truths | _assignment(choices, sides))
        groups.setdefault(formula(left), (left, []))[1].append(sides)
    classes = []
    for left, cases in groups.values():
        if formula(left) == FALSE:
            continue
        if len(cases) == 2 ** len(choices):
            classes.append(RowClass(rows, left))
            continue
        picked = disj(
            *(
                conj(*(c if side else negate(c) for c, side in zip(choices, sides, strict=True)))
                for sides in cases
            )
        )
        rest = any(not any(sides) for sides in cases)
        classes.append(RowClass(selected(rows, picked, packed=not rest), left))
    return classes


def selected(axis: Axis, condition: Expr, packed: bool) -> Axis:
    """The axis with only the positions that meet ``condition``, in the form that is cheapest to walk."""
    bounds = solve(condition, axis.var) if isinstance(condition, Eq0) else None
    if bounds is not None and bounds.low is not None and bounds.high is not None:
        first, last = maximum(axis.first, bounds.low), minimum(axis.last, bounds.high)
        return replace(axis, first=first, last=last)
    lattice = residue(condition, axis.var)
    if lattice is not None and not variables(lattice[1]) and axis.lattice is None:
        return replace(axis, lattice=Lattice(*lattice), packed=packed)
    members = condition if axis.members is None else conj(axis.members, condition)
    return replace(axis, members=members, packed=packed)


def _absorb(classes: list[RowClass], new: RowClass) -> None:
    """Adds a class, joined with an earlier one where the relation is the same and the rows are neighbours."""
    for i, old in enumerate(classes):
        same_rows = old.rows.selection() == new.rows.selection()
        if not same_rows or formula(old.relation) != formula(new.relation):
            continue
        first = widest(old.rows.first, new.rows.first, (IN_ROWS,), ZERO)
        last = widest(old.rows.last, new.rows.last, (IN_ROWS,), LAST)
        parts = [negate(between(rows.first, Q, rows.last)) for rows in (old.rows, new.rows)]
        if impossible(IN_ROWS, between(first, Q, last), *parts):
            classes[i] = replace(old, rows=replace(old.rows, first=first, last=last))
            return
    classes.append(new)


# --- conjunctions ---------------------------------------------------------------------------------------


def branches(relation: Relation) -> tuple[Branch, ...] | None:
    """The relation as an or of ands, or None where that would be too long."""
    try:
        found = _branches(relation, True)
    except _TooMany:
        return None
    return tuple(Branch(literals, " & ".join(dict.fromkeys(texts)), span) for literals, texts, span in found)


class _TooMany(Exception):
    pass


_Raw = tuple[tuple[Expr, ...], tuple[str, ...], Span]


def _branches(relation: Relation, positive: bool) -> list[_Raw]:
    match relation:
        case Atom(formula=expr, text=text, span=span):
            options = _alternatives(expand(expr if positive else negate(expr), K))
            label = text if positive else f"!{text}"
            return [(literals, (label,), span) for literals in options]
        case Complement(arg=arg):
            return _branches(arg, not positive)
        case Difference(left=left, right=right):
            parts = [_branches(left, positive), _branches(right, not positive)]
            return _all_of(parts, relation.span) if positive else _any_of(parts)
        case Union(args=args) | Intersection(args=args):
            parts = [_branches(arg, positive) for arg in args]
            any_of = isinstance(relation, Union) == positive
            return _any_of(parts) if any_of else _all_of(parts, relation.span)


def _any_of(parts: list[list[_Raw]]) -> list[_Raw]:
    joined = [raw for part in parts for raw in part]
    if len(joined) > MAX_BRANCHES:
        raise _TooMany
    return joined


def _all_of(parts: list[list[_Raw]], span: Span) -> list[_Raw]:
    total: list[_Raw] = [((), (), span)]
    for part in parts:
        if len(total) * len(part) > MAX_BRANCHES:
            raise _TooMany
        total = [
            (literals, one[1] + two[1], span)
            for one, two in product(total, part)
            if (literals := _conjunction(one[0] + two[0])) is not None
        ]
    return total


def _conjunction(literals: tuple[Expr, ...]) -> tuple[Expr, ...] | None:
    whole = conj(*literals)
    if whole == FALSE:
        return None
    return whole.args if isinstance(whole, And) else () if whole == TRUE else (whole,)


def _alternatives(expr: Expr) -> list[tuple[Expr, ...]]:
    """A formula as an or of ands; an explicit list of keys, or a choice of keys, stays one literal."""
    match expr:
        case And(args):
            total: list[tuple[Expr, ...]] = [()]
            for part in map(_alternatives, args):
                if len(total) * len(part) > MAX_BRANCHES:
                    raise _TooMany
                mixed = (_conjunction(one + two) for one, two in product(total, part))
                total = [literals for literals in mixed if literals is not None]
            return total
        case Or(args):
            picks = [arg for arg in args if _depends_on(arg, K) and not _bounded(arg)]
            equal = [arg for arg in args if isinstance(arg, Eq0) and _depends_on(arg, K)]
            picks = list(dict.fromkeys((*picks, *equal))) if len(equal) > 2 else picks
            picked = set(picks)
            rest = [arg for arg in args if arg not in picked]
            if len(picks) > 1 or (picks and not rest):
                return [(disj(*picks),), *(literals for arg in rest for literals in _alternatives(arg))]
            return [literals for arg in args for literals in _alternatives(arg)]
    literal = _conjunction((expr,))
    return [] if literal is None else [literal]


def _bounded(expr: Expr) -> bool:
    return solve(expr, K) is not None


def picks_keys(literal: Expr) -> bool:
    """Whether a literal chooses keys, by the key alone and not by exclusion: a set that can be packed."""
    match literal:
        case Lookup() | Or() | And():
            return _depends_on(literal, K)
        case Eq0() | Le0() | PowerOfTwo():
            return _depends_on(literal, K) and mentions(literal, K)
    return False

"""Is every index into a runtime input inside its declared shape? Proven, or shown with a counterexample.

Conditions that stand beside an entry guard it: in ``q >= 3 and x[q - 3] == x[k]`` the index is never negative
where it matters, and what is read elsewhere is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from attnc.budget import charge
from attnc.diagnostics import Diagnostic, Span
from attnc.expression import (
    HEAD,
    HEADS,
    TRUE,
    And,
    Expr,
    K,
    Lookup,
    N,
    Or,
    Q,
    Select,
    add,
    between,
    children,
    conj,
    fold,
    le,
    lt,
    maximum,
    minimum,
    negate,
    sub,
    tables,
    variables,
)
from attnc.notation import show
from attnc.pattern import (
    Atom,
    Body,
    Complement,
    Difference,
    Input,
    Intersection,
    Part,
    Pattern,
    Relation,
    Union,
    formula,
)
from attnc.real import Entry, Real, everywhere, integers, rebuilt
from attnc.solver import Answer, least

Guards = tuple[Expr, ...]
# What it takes to look for inputs in one condition, in steps of work.
READ = 60


def index_bounds(pattern: Pattern) -> tuple[Diagnostic, ...]:
    """One error for every index into an input that may lie outside of the declared shape."""
    shapes = {given.name: given for given in pattern.inputs}
    found: dict[tuple[Span, Lookup], Diagnostic] = {}
    for body in pattern.bodies:
        for span, lookup, guards in (*_in_relation(body.relation, ()), *_in_weights(body)):
            if (span, lookup) not in found and lookup.table in shapes:
                answer, axis = _outside(shapes[lookup.table], lookup, body, guards)
                if answer is not None:
                    found[span, lookup] = _complaint(
                        pattern, shapes[lookup.table], lookup, axis, span, answer
                    )
    return tuple(found.values())


# --- entries of weights ---------------------------------------------------------------------------------


def clamped(pattern: Pattern) -> tuple[Pattern, tuple[Diagnostic, ...]]:
    """The pattern with every index of a weight that may lie outside held within its axis, and warnings of it.

    An index counts where there is an edge: what is read elsewhere weighs nothing.
    """
    shapes = {given.name: given for given in pattern.inputs}
    warnings: dict[tuple[Span, str], Diagnostic] = {}

    def part_of(body: Body, part: Part) -> Part:
        edges = formula(part.relation)

        def held(found: Real) -> Real | None:
            if not isinstance(found, Entry):
                return None
            given, index = shapes[found.table], list(found.index)
            for axis, size in enumerate(given.shape):
                lookup = Lookup(found.table, found.index)
                answer = _leaves(given, lookup, axis, body, (edges,))
                if answer is None:
                    continue
                index[axis] = maximum(0, minimum(index[axis], sub(size, 1)))
                warning = _held(pattern, given, lookup, axis, part.span, answer)
                warnings.setdefault((part.span, warning.message), warning)
            return Entry(found.table, tuple(index))

        def within(expr: Real) -> Real:
            return rebuilt(expr, held, lambda integer: integer)

        weights = part.weights
        sink = None if weights.sink is None else within(weights.sink)
        return replace(part, weights=replace(weights, score=within(weights.score), sink=sink))

    if not any(given.kind == "float" for given in pattern.inputs):
        return pattern, ()
    bodies = tuple(
        replace(body, parts=tuple(part_of(body, part) for part in body.parts)) for body in pattern.bodies
    )
    return replace(pattern, bodies=bodies), tuple(warnings.values())


def _held(
    pattern: Pattern, given: Input, lookup: Lookup, axis: int, span: Span, answer: Answer
) -> Diagnostic:
    index, size = show(lookup.index[axis]), show(given.shape[axis])
    at = _told(lookup.index[axis], answer.variables) if answer.outcome == "refuted" else ""
    where = f"it is outside when {at}" if at else "it may be outside"
    return Diagnostic(
        "index-clamped",
        "warning",
        f"the index `{index}` of `{given.name}` is not always in 0..{size}, and is held within it",
        pattern.source,
        span,
        where,
        help=f"say so yourself, as in `min(max({index}, 0), {size} - 1)`, or declare a longer axis",
    )


# --- what both ask --------------------------------------------------------------------------------------


def _outside(given: Input, lookup: Lookup, body: Body, guards: Guards) -> tuple[Answer | None, int]:
    """A place where an index is outside, or None when there is none; and which of the indices it is."""
    for axis in range(len(given.shape)):
        answer = _leaves(given, lookup, axis, body, guards)
        if answer is not None:
            return answer, axis
    return None, 0


def _leaves(given: Input, lookup: Lookup, axis: int, body: Body, guards: Guards) -> Answer | None:
    """Where one index is outside of its axis, or None where that is proven to happen nowhere."""
    index, size = fold(lookup.index[axis]), fold(given.shape[axis])
    if (index, size) in ((Q, N), (K, N), (HEAD, HEADS)):
        return None
    anywhere = conj(
        between(0, Q, add(N, -1)),
        between(0, K, add(N, -1)),
        le(0, HEAD),
        lt(HEAD, HEADS),
        fold(body.heads.condition),
        *map(fold, guards),
    )
    answer = least(conj(anywhere, negate(between(0, index, add(size, -1)))), (N, Q, K, HEADS, HEAD))
    return None if answer.outcome == "proven" else answer


def _in_weights(body: Body) -> Iterable[tuple[Span, Lookup, Guards]]:
    """What the integers of weights read of bool and int inputs."""
    for part in body.parts:
        exprs = (part.weights.score, part.weights.sink)
        inner = (x for expr in exprs if expr for place in everywhere(expr) for x in integers(place))
        for expr in inner:
            for lookup, known in lookups(expr, _plain([formula(part.relation)])):
                yield part.span, lookup, known


def _in_relation(relation: Relation, guards: Guards) -> Iterable[tuple[Span, Lookup, Guards]]:
    if not tables(formula(relation)):
        return
    match relation:
        case Atom(expr, _, span):
            for lookup, known in lookups(expr, guards):
                yield span, lookup, known
        case Union(args=args):
            for arg in args:
                yield from _in_relation(arg, guards)
        case Intersection(args=args):
            for i, arg in enumerate(args):
                if tables(formula(arg)):
                    beside = (formula(other) for j, other in enumerate(args) if i != j)
                    yield from _in_relation(arg, (*guards, *_plain(beside)))
        case Difference(left=left, right=right):
            yield from _in_relation(left, (*guards, *_plain([negate(formula(right))])))
            yield from _in_relation(right, (*guards, *_plain([formula(left)])))
        case Complement(arg=arg):
            yield from _in_relation(arg, guards)


def _plain(conditions: Iterable[Expr]) -> Guards:
    """The conditions that read no input themselves, so that no two of them lean on each other."""
    parts = [part for c in conditions for part in (c.args if isinstance(c, And) else (c,))]
    charge(READ * len(parts), "what is known where an input is read")
    return tuple(part for part in parts if not tables(part) and part != TRUE)


def lookups(expr: Expr, guards: Guards = ()) -> Iterable[tuple[Lookup, Guards]]:
    """Every entry that ``expr`` reads, with the conditions under which its value matters."""
    if not tables(expr):  # nothing to look for, among however many conditions
        return
    match expr:
        case And(args):
            for i, arg in enumerate(args):
                if tables(arg):
                    yield from lookups(arg, (*guards, *_plain(a for j, a in enumerate(args) if i != j)))
        case Or(args):
            for i, arg in enumerate(args):
                if tables(arg):
                    beside = (negate(a) for j, a in enumerate(args) if i != j)
                    yield from lookups(arg, (*guards, *_plain(beside)))
        case Select(condition, then, otherwise):
            yield from lookups(condition, guards)
            yield from lookups(then, (*guards, *_plain([condition])))
            yield from lookups(otherwise, (*guards, *_plain([negate(condition)])))
        case _:
            if isinstance(expr, Lookup):
                yield expr, guards
            for child in children(expr):
                yield from lookups(child, guards)


def _complaint(
    pattern: Pattern, given: Input, lookup: Lookup, axis: int, span: Span, answer: Answer
) -> Diagnostic:
    entry, index, size = show(lookup), show(lookup.index[axis]), show(given.shape[axis])
    if answer.outcome == "undecided":
        label = f"`{index}` may be outside of 0..{size}"
        note = f"it could not be decided: {answer.reason}"
    else:
        at = _told(lookup.index[axis], answer.variables)
        label = f"`{index}` is outside of 0..{size} when {at}"
        note = f"`{given.name}` is declared with {size} entries there; the indices are 0 to {size} - 1"
    return Diagnostic(
        "index-out-of-range",
        "error",
        f"`{pattern.name}` reads `{entry}`, which is not always an entry of `{given.name}`",
        pattern.source,
        span,
        label,
        notes=(note,),
        help=f"guard it: write `0 <= {index} and {index} < {size} and …` beside it",
    )


def _told(index: Expr, at: Mapping[str, int]) -> str:
    used = [name for name in ("q", "k", "h", "H") if name in variables(index)]
    return ", ".join(f"{name} = {at[name]}" for name in (*used, "n") if name in at)

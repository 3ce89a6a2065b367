"""Is every index into a runtime input inside its declared shape? Proven, or shown with a counterexample.

Conditions that stand beside an entry guard it: in ``q >= 3 and x[q - 3] == x[k]`` the index is never negative
where it matters, and what is read elsewhere is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    negate,
    tables,
)
from attnc.notation import show
from attnc.pattern import (
    Atom,
    Body,
    Complement,
    Difference,
    Input,
    Intersection,
    Pattern,
    Relation,
    Union,
    formula,
)
from attnc.solver import Answer, least

Guards = tuple[Expr, ...]


def index_bounds(pattern: Pattern) -> tuple[Diagnostic, ...]:
    """One error for every index into an input that may lie outside of the declared shape."""
    shapes = {given.name: given for given in pattern.inputs}
    found: dict[tuple[Span, Lookup], Diagnostic] = {}
    for body in pattern.bodies:
        for span, lookup, guards in _in_relation(body.relation, ()):
            if (span, lookup) not in found and lookup.table in shapes:
                answer, axis = _outside(shapes[lookup.table], lookup, body, guards)
                if answer is not None:
                    found[span, lookup] = _complaint(
                        pattern, shapes[lookup.table], lookup, axis, span, answer
                    )
    return tuple(found.values())


def _outside(given: Input, lookup: Lookup, body: Body, guards: Guards) -> tuple[Answer | None, int]:
    """A place where an index is outside, or None when there is none; and which of the indices it is."""
    for axis, (index, size) in enumerate(zip(lookup.index, given.shape, strict=True)):
        index, size = fold(index), fold(size)
        if (index, size) in ((Q, N), (K, N), (HEAD, HEADS)):
            continue
        everywhere = conj(
            between(0, Q, add(N, -1)),
            between(0, K, add(N, -1)),
            le(0, HEAD),
            lt(HEAD, HEADS),
            fold(body.heads.condition),
            *map(fold, guards),
        )
        answer = least(conj(everywhere, negate(between(0, index, add(size, -1)))), (N, Q, K, HEADS, HEAD))
        if answer.outcome != "proven":
            return answer, axis
    return None, 0


def _in_relation(relation: Relation, guards: Guards) -> Iterable[tuple[Span, Lookup, Guards]]:
    match relation:
        case Atom(expr, _, span):
            for lookup, known in lookups(expr, guards):
                yield span, lookup, known
        case Union(args=args):
            for arg in args:
                yield from _in_relation(arg, guards)
        case Intersection(args=args):
            for i, arg in enumerate(args):
                beside = (formula(other) for j, other in enumerate(args) if i != j)
                yield from _in_relation(arg, (*guards, *_plain(beside)))
        case Difference(left=left, right=right):
            yield from _in_relation(left, (*guards, *_plain([negate(formula(right))])))
            yield from _in_relation(right, (*guards, *_plain([formula(left)])))
        case Complement(arg=arg):
            yield from _in_relation(arg, guards)


def _plain(conditions: Iterable[Expr]) -> Guards:
    """The conditions that read no input themselves, so that no two of them lean on each other."""
    parts = (part for c in conditions for part in (c.args if isinstance(c, And) else (c,)))
    return tuple(part for part in parts if not tables(part) and part != TRUE)


def lookups(expr: Expr, guards: Guards = ()) -> Iterable[tuple[Lookup, Guards]]:
    """Every entry that ``expr`` reads, with the conditions under which its value matters."""
    match expr:
        case And(args):
            for i, arg in enumerate(args):
                yield from lookups(arg, (*guards, *_plain(a for j, a in enumerate(args) if i != j)))
        case Or(args):
            for i, arg in enumerate(args):
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
    from attnc.expression import variables

    used = [name for name in ("q", "k", "h", "H") if name in variables(index)]
    return ", ".join(f"{name} = {at[name]}" for name in (*used, "n") if name in at)

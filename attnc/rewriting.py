"""Relations rewritten atom by atom: under the name of a ``let``, and between blocks."""

from __future__ import annotations

from dataclasses import replace

from attnc import atoms
from attnc.diagnostics import Span
from attnc.expression import Expr
from attnc.pattern import Atom, Complement, Difference, Intersection, Relation, Union


def as_used(found: Relation, text: str, span: Span) -> Relation:
    """A named relation where its name stands: the place to point at is the use."""
    match found:
        case Atom():
            return replace(found, text=text, span=span)
        case Union(args=args) | Intersection(args=args):
            return replace(found, args=tuple([as_used(arg, text, span) for arg in args]), span=span)
        case Difference(left=left, right=right):
            return Difference(as_used(left, text, span), as_used(right, text, span), span)
        case Complement(arg=arg):
            return Complement(as_used(arg, text, span), span)


def lift(found: Relation, size: Expr) -> Relation:
    match found:
        case Atom():
            return replace(found, formula=atoms.lift(found.formula, size))
        case Union(args=args) | Intersection(args=args):
            return replace(found, args=tuple([lift(arg, size) for arg in args]))
        case Difference(left=left, right=right):
            return replace(found, left=lift(left, size), right=lift(right, size))
        case Complement(arg=arg):
            return replace(found, arg=lift(arg, size))

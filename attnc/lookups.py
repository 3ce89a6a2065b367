"""Names to values: variables, parameters, inputs, coordinates."""

from __future__ import annotations

from attnc import atoms
from attnc import syntax as tree
from attnc.diagnostics import Label, Span
from attnc.expression import (
    HEAD,
    HEADS,
    Expr,
    K,
    N,
    Param,
    Q,
    Truth,
    Var,
)
from attnc.inputs import as_set
from attnc.names import CONSTANT_RELATIONS, FUNCTIONS, RELATIONS, RESERVED, SETS, VARIABLES, meant, reserved
from attnc.pattern import Atom
from attnc.real import S, X
from attnc.scope import (
    Boolean,
    BrokenDef,
    Edges,
    Floating,
    InputDef,
    Integer,
    LetDef,
    Mistake,
    ParameterDef,
    Scope,
    Value,
    Weighing,
    article,
)

_VARIABLES: dict[str, Expr] = {"q": Q, "k": K, "n": N, "h": HEAD, "H": HEADS}


def named(scope: Scope, name: str, span: Span, otherwise: str | None = None) -> Value | LetDef:
    """What a name stands for; a ``let`` is left to be resolved where it is used.

    otherwise: the help where there is no such name, and none that is near.
    """
    if name in (scope.weighing or ()):
        return _weighing(scope, name, span)
    definition = scope.names.get(name)
    if definition is not None:
        scope.used.add(name)
    match definition:
        case ParameterDef(value=Param() as param):
            return Integer(param)
        case ParameterDef(value=bool(flag)):
            return Boolean(Truth(flag))
        case ParameterDef(value=float(value)):
            return Floating(value)
        case InputDef(input=entries):
            return as_set(scope, entries, span)
        case LetDef() as let:
            return let
        case BrokenDef():
            raise Mistake(None)
        case _:
            pass
    if name in _VARIABLES:
        return Integer(_VARIABLES[name])
    if name == "d" and scope.bound is not None:
        return Integer(Var("d"))
    if name in CONSTANT_RELATIONS:
        return Edges(Atom(atoms.CONSTANTS[name], scope.text(span), span))
    if name in RESERVED:
        raise Mistake(reserved(scope.source, name, span))
    if name in (*RELATIONS, *SETS, *FUNCTIONS):
        slots = {**atoms.RELATIONS, **atoms.SETS}.get(name, ())
        shown = ", ".join(slot.name for slot in slots if slot.default is None)
        raise scope.error(
            "missing-argument", f"`{name}` needs its arguments", span, help=f"write `{name}({shown or '…'})`"
        )
    if name == "d":
        raise scope.error(
            "unknown-name",
            "`d`, the head dimension, is known only in the bound of `flops`",
            span,
            help="`s` is divided by its root already; a size that is known when compiling can be a parameter",
        )
    if name in dict(scope.axes):
        raise scope.error(
            "unknown-name", f"there is no `{name}` by itself", span, help=f"write `q.{name}` or `k.{name}`"
        )
    raise scope.unknown(name, span, (*VARIABLES, *CONSTANT_RELATIONS, "true", "false"), otherwise)


def _weighing(scope: Scope, name: str, span: Span) -> Weighing:
    """`s` in a score and `x` in a feature map, which nothing else may be called beside them."""
    other = scope.names.get(name)
    if other is not None:
        meaning = "the scaled dot product" if name == "s" else "the coordinate of a vector"
        raise scope.error(
            "ambiguous-name",
            f"`{name}` stands for {meaning} here, and is the name of {article(other.role)}, too",
            span,
            secondary=(Label(other.span, "defined here"),),
            help=f"give the {other.role} another name",
        )
    return Weighing(S if name == "s" else X)


def member(scope: Scope, node: tree.Member) -> Integer:
    owner = {"q": Q, "k": K}.get(node.name.text)
    if owner is None:
        raise scope.error(
            "unknown-name",
            f"`{node.name.text}` has no coordinates",
            node.name.span,
            help="only `q` and `k` do, once the pattern says `grid(y: 32, x: 32)`",
        )
    return Integer(coordinate(scope, owner, node.member.text, node.member.span))


def coordinate(scope: Scope, position: Expr, axis: str, span: Span) -> Expr:
    found = atoms.coordinates(position, scope.axes)
    if not found and scope.faulty_grid:
        raise Mistake(None)
    if not found and scope.later_grid is not None:
        raise scope.error(
            "no-grid",
            f"the axis `{axis}` is used before the grid is declared",
            span,
            secondary=(Label(scope.later_grid, "declared only here"),),
            help="move it up",
        )
    if not found:
        raise scope.error(
            "no-grid",
            f"there is no axis `{axis}`, because the pattern has no grid",
            span,
            help=f"write `grid({axis}: 32, x: 32)` above"
            if axis != "x"
            else "write `grid(y: 32, x: 32)` above",
        )
    if axis not in found:
        listed = " and ".join(f"`{name}`" for name, _ in scope.axes)
        raise scope.error(
            "unknown-axis",
            f"there is no axis `{axis}`; the grid has {listed}",
            span,
            help=meant(axis, found),
        )
    return found[axis]

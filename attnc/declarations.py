"""Parameters and inputs: names checked, types known, parameters bound to values."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping

from attnc import syntax as tree
from attnc.arithmetic import LIMIT, fitting
from attnc.expression import (
    DIM,
    Expr,
    Param,
    constant,
    tables,
    variables,
)
from attnc.names import RESERVED, meant, refusal, reserved
from attnc.pattern import Input, InputKind
from attnc.scope import BrokenDef, InputDef, Mistake, ParameterDef, Scope, article
from attnc.values import integer, number


def check_name(scope: Scope, name: tree.Ident, role: str) -> None:
    """Raises for a name that is taken by the language or by what is emitted."""
    if name.text in RESERVED:
        raise Mistake(reserved(scope.source, name.text, name.span))
    reason = refusal(name.text, role)
    if reason is not None:
        what = "anything here" if role == "let" else article(role)
        raise scope.error(
            "reserved-name", f"`{name.text}` cannot name {what}: {reason}", name.span, help="use another name"
        )


def parameter(
    scope: Scope, node: tree.Parameter, params: Mapping[str, object]
) -> Param | bool | float | None:
    """The bound parameter: a ``Param`` for int, else its value; None after a mistake."""
    name = node.name
    value: Param | bool | float | None = None
    with scope.catching():
        check_name(scope, name, "parameter")
        if node.kind.text not in ("int", "float", "bool"):
            raise scope.error(
                "unknown-type",
                f"there is no type `{node.kind.text}` for parameters",
                node.kind.span,
                help=meant(node.kind.text, ("int", "float", "bool")) or "write `int`, `float` or `bool`",
            )
        if name.text in params:
            value = _given(scope, node, params[name.text])
        elif node.default is None:
            raise scope.error(
                "unbound-parameter",
                f"the parameter `{name.text}` has no value",
                name.span,
                help=f"pass one, or give it a default: `{name.text}: {node.kind.text} = …`",
            )
        else:
            value = _default(scope, node, node.default)
    with scope.catching():
        scope.define(name, BrokenDef(name.span) if value is None else ParameterDef(value, name.span))
    return value


def _default(scope: Scope, node: tree.Parameter, default: tree.Expression) -> Param | bool | float:
    what = f"the default of `{node.name.text}`"
    if node.kind.text == "int":
        if isinstance(literal(scope, default), float):
            raise scope.error("parameter-type", f"{what} must be an integer", default.span)
        expr = number(scope, default, what)
        return Param(node.name.text, constant(expr) or 0)
    value = literal(scope, default)
    if node.kind.text == "bool" and isinstance(value, bool):
        return value
    if node.kind.text == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return fitting(scope, float(value), default.span)
    expected = "`true` or `false`" if node.kind.text == "bool" else "a number"
    raise scope.error("parameter-type", f"{what} must be {expected}", default.span)


_INT_TEXT = re.compile(r"\s*[+-]?[0-9]+\s*")


def _given(scope: Scope, node: tree.Parameter, value: object) -> Param | bool | float:
    name, kind = node.name.text, node.kind.text
    if kind == "bool":
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if isinstance(value, bool):
            return value
    elif kind == "int" and not isinstance(value, bool):
        found: int | None = None
        if isinstance(value, str):
            # Python refuses to convert thousands of digits.
            found = int(value.strip()[:20]) if _INT_TEXT.fullmatch(value) else None
        else:
            try:
                found = operator.index(value)  # type: ignore[arg-type]
            except TypeError:
                found = None
        if found is not None and abs(found) >= LIMIT:
            raise scope.error(
                "huge-integer",
                f"the value of `{name}` does not fit: its magnitude must be less than {LIMIT}",
                node.name.span,
            )
        if found is not None:
            return Param(name, found)
    elif kind == "float" and isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number_ = float(value)
        except (ValueError, OverflowError):
            number_ = math.nan
        if math.isfinite(number_):
            return fitting(scope, number_, node.name.span)
    shown = {"int": "an integer", "float": "a finite number", "bool": "true or false"}[kind]
    raise scope.error(
        "parameter-type", f"`{name}` takes {shown}, not {value!r:.60}", node.span, label="declared here"
    )


def runtime_input(scope: Scope, node: tree.Input) -> Input:
    defined: Input | None = None
    try:
        check_name(scope, node.name, "input")
        if node.kind.text not in ("bool", "int", "float"):
            raise scope.error(
                "unknown-type",
                f"there is no type `{node.kind.text}` for inputs",
                node.kind.span,
                help=meant(node.kind.text, ("bool", "int", "float")) or "write `bool`, `int` or `float`",
            )
        kind: InputKind = node.kind.text  # type: ignore[assignment]
        shape = tuple([_axis_size(scope, part, kind) for part in node.shape])
        defined = Input(node.name.text, kind, shape, node.span)
        return defined
    finally:
        with scope.catching():
            scope.define(
                node.name,
                BrokenDef(node.name.span) if defined is None else InputDef(defined, node.name.span),
            )


def _axis_size(scope: Scope, node: tree.Expression, kind: InputKind) -> Expr:
    if kind == "float" and isinstance(node, tree.Name) and node.name == "d":
        return DIM
    size = integer(scope, node)
    beyond = sorted(variables(size) - {"n", "H"})
    if beyond or tables(size):
        shown = f"`{beyond[0]}`" if beyond else "an input"
        raise scope.error(
            "bad-shape",
            f"a shape is in terms of `n`, `H` and parameters, and this one has {shown}",
            node.span,
        )
    value = constant(size)
    if value is not None and value < 1:
        raise scope.error("bad-shape", f"an axis has at least one entry, and this one has {value}", node.span)
    return size


def literal(scope: Scope, node: tree.Expression) -> bool | int | float | None:
    """The value of a literal, a negated one, or an earlier parameter; None for anything else."""
    match tree.ungroup(node):
        case tree.Flag(value) | tree.Number(value) | tree.Decimal(value):
            return value
        case tree.Prefix(operator, operand) if operator.text == "-":
            inner = literal(scope, operand)
            return None if inner is None or isinstance(inner, bool) else -inner
        case tree.Prefix(operator, operand) if operator.text == "not":
            inner = literal(scope, operand)
            return not inner if isinstance(inner, bool) else None
        case tree.Name(name):
            match scope.names.get(name):
                case ParameterDef(value=Param(value=value)) | ParameterDef(value=bool(value) | float(value)):
                    scope.used.add(name)
                    return value
    return None

"""Operands to real numbers: what ``+ - * /`` and functions make of them inside of what weighs edges."""

from __future__ import annotations

import math

from attnc import real
from attnc import syntax as tree
from attnc.diagnostics import Span
from attnc.expression import Expr, add, constant, ge, minimum, select
from attnc.names import REAL_FUNCTIONS, WEIGHING_FUNCTIONS
from attnc.real import Greater, Real
from attnc.scope import (
    KIND_NAMES,
    Floating,
    InputDef,
    Integer,
    LetDef,
    ParameterDef,
    Scope,
    Value,
    Weighing,
    bound_terms,
)

# Each of the ever wider ones takes a comparison in every kernel.
MOST_BUCKETS = 256


def is_real(value: Value) -> bool:
    return isinstance(value, Floating | Weighing)


def as_real(scope: Scope, node: tree.Expression, value: Value) -> Real:
    """A number of any kind as a real one; anything else raises."""
    match value:
        case Weighing(expr):
            return expr
        case Floating(number):
            return real.Number(number, _name(node, number))
        case Integer(expr):
            found = constant(expr)
            return real.whole(expr) if found is None or abs(found) >= 2**53 else real.Number(float(found))
    raise scope.error("type-mismatch", f"expected a number, found {KIND_NAMES[type(value)]}", node.span)


def _name(node: tree.Expression, value: float) -> str:
    """The name of the parameter that a float came from."""
    inner = tree.ungroup(node)
    return inner.name if isinstance(inner, tree.Name) else ""


def compute(scope: Scope, chain: tree.Chain, values: list[Value]) -> Weighing:
    """``+ - * /`` from left to right, some operand of which is real."""
    operands = [as_real(scope, node, value) for node, value in zip(chain.operands, values, strict=True)]
    total = operands[0]
    for operator, operand, node in zip(chain.operators, operands[1:], chain.operands[1:], strict=True):
        match operator.text:
            case "+":
                total = real.plus(total, operand)
            case "-":
                total = real.minus(total, operand)
            case "*":
                total = real.times(total, operand)
            case "/":
                if real.known(operand) == 0:
                    raise scope.error("division-by-zero", "`/` by zero", node.span)
                total = real.over(total, operand)
            case _:
                raise scope.error(
                    "type-mismatch",
                    f"`{operator.text}` is for whole numbers, and this is a float",
                    node.span,
                    help="divide with `/`",
                )
    return Weighing(total)


def refuse_rounding(scope: Scope, chain: tree.Chain, values: list[Value]) -> None:
    """Raises where ``/`` would round a quotient of whole numbers down among floats, which nobody means."""
    for operator, left, right in zip(chain.operators, values, values[1:], strict=False):
        if operator.text != "/" or not isinstance(left, Integer) or not isinstance(right, Integer):
            continue
        above, below = constant(left.expr), constant(right.expr)
        if above is None or below is None or (below and above % below):
            raise scope.error(
                "inexact-division",
                "`/` of whole numbers rounds down, and here floats are computed with",
                chain.span,
                help="write `//` to round down, or one of the two as a float, as in `/ 64.0`",
            )


def call(scope: Scope, name: str, nodes: list[tree.Expression], values: list[Value], span: Span) -> Weighing:
    """``exp(…)`` and the like, and ``abs``, ``min``, ``max`` of reals."""
    arity = real.FUNCTIONS[name].arity
    if arity is not None and len(nodes) > arity:
        raise scope.error("too-many-arguments", f"`{name}` takes one argument", nodes[1].span)
    args = [as_real(scope, node, value) for node, value in zip(nodes, values, strict=True)]
    found = real.apply(name, *args)
    numbers = [real.known(arg) for arg in args]
    known = [number for number in numbers if number is not None]
    if len(known) == len(args) and isinstance(real.apply(name, *map(real.Number, known)), real.Apply):
        shown = ", ".join(map(real.decimal, known))
        raise scope.error("bad-argument", f"`{name}({shown})` has no value", span)
    if isinstance(found, real.Number) and not math.isfinite(found.value):
        raise scope.error("bad-argument", f"`{name}` of this is not finite", span)
    return Weighing(found)


def greater(scope: Scope, chain: tree.Chain, values: list[Value]) -> Greater:
    """A comparison of reals, as the condition of ``select``."""
    words = [operator.text for operator in chain.operators]
    if len(words) > 1 or words[0] not in ("<", ">"):
        raise scope.error(
            "type-mismatch",
            "floats are compared by one `<` or `>`",
            chain.span,
            help="nest `select` for more",
        )
    left, right = (as_real(scope, node, value) for node, value in zip(chain.operands, values, strict=True))
    return Greater(left, right) if words[0] == ">" else Greater(right, left)


def choose(
    scope: Scope, condition: Expr | Greater, nodes: list[tree.Expression], values: list[Value]
) -> Integer | Weighing:
    """``select(condition, then, otherwise)``."""
    then, otherwise = values
    if isinstance(then, Integer) and isinstance(otherwise, Integer) and not isinstance(condition, Greater):
        return Integer(select(condition, then.expr, otherwise.expr))
    first, second = (as_real(scope, node, value) for node, value in zip(nodes, values, strict=True))
    return Weighing(real.choice(condition, first, second))


def bucket(scope: Scope, place: Expr, sizes: tuple[int, int, int], span: Span) -> Integer:
    """The bucket of a distance: one for each below ``exact``, then ever wider ones up to ``most``.

    As in Raffel et al. 2020 (T5): distance ``d >= exact`` is in the bucket
    ``exact + floor((buckets - exact) * log(d / exact) / log(most / exact))``, but at most ``buckets - 1``.
    """
    exact, buckets, most = sizes
    if not 1 <= exact < buckets or most <= exact:
        raise scope.error(
            "bad-argument",
            "`bucket(distance, exact, buckets, most)` needs 1 <= exact < buckets and exact < most",
            span,
            help="T5's are `bucket(max(q - k, 0), 16, 32, 128)`",
        )
    wide = buckets - exact
    if wide > MOST_BUCKETS:
        raise scope.error(
            "too-large",
            f"`bucket` has {wide} buckets from `exact` on, each with a comparison of its own: at most "
            f"{MOST_BUCKETS} are supported",
            span,
            help="take fewer buckets, or more of them exact: T5's are `bucket(max(q - k, 0), 16, 32, 128)`",
        )
    found: Expr = minimum(place, exact)
    for step in range(1, wide):
        # The least distance d with (d / exact)**wide >= (most / exact)**step, in whole numbers.
        low, high = exact, most
        while low < high:
            middle = (low + high) // 2
            if middle**wide * exact**step >= most**step * exact**wide:
                high = middle
            else:
                low = middle + 1
        found = add(found, select(ge(place, low), 1, 0))
    return Integer(found)


def refused(scope: Scope, name: str, span: Span) -> Exception:
    """A function of reals where edges are chosen, or in the bound of a claim."""
    if scope.bound is not None:
        beside = "; there are no logarithms" if name in ("log", "log2") else ""
        help = bound_terms(scope.bound) + beside
        return scope.error("float-value", f"`{name}` cannot stand in a bound", span, help=help)
    return scope.error(
        "float-value",
        f"`{name}` is a function of floats: floats weigh edges, they don't choose them",
        span,
        help="write both cases as conditions: `C and q - k < 8 or not C and q - k < 64`"
        if name == "select"
        else "it stands in `score`, `sink`, `kernel` and `decay`",
    )


def weighs(scope: Scope, node: tree.Expression) -> bool:
    """Whether floats are written anywhere in an expression: then it can only be a part of weights."""
    for part in tree.everywhere(node):
        match part:
            case tree.Decimal():
                return True
            case tree.Call(name=name) if name.text in (*REAL_FUNCTIONS, *WEIGHING_FUNCTIONS):
                if name.text not in scope.names:
                    return True
            case tree.Index(name=name):
                definition = scope.names.get(name.text)
                if isinstance(definition, InputDef) and definition.input.kind == "float":
                    return True
            case tree.Name(name="s" | "x" as text) if text not in scope.names:
                return True
            case tree.Name(name=text):
                match scope.names.get(text):
                    case ParameterDef(value=float()):
                        return True
                    case LetDef(values=values) if any(map(is_real, values.values())):
                        return True
    return False

"""Integer arithmetic as the language has it: sums, products, divisions and chains of comparisons."""

from __future__ import annotations

from collections.abc import Callable

from attnc import syntax as tree
from attnc.diagnostics import Span
from attnc.expression import (
    Expr,
    Sum,
    add,
    conj,
    constant,
    eq,
    floor_div,
    ge,
    gt,
    le,
    lt,
    mod,
    mul,
    neg,
    negate,
)
from attnc.scope import Scope

LIMIT = 1 << 31
# The largest float of 32 bits.
LARGEST_FLOAT = (2.0 - 2.0**-23) * 2.0**127
LONGEST_PRODUCT = 32

_COMPARISONS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "==": eq,
    "!=": lambda a, b: negate(eq(a, b)),
    "<=": le,
    ">=": ge,
    "<": lt,
    ">": gt,
}


def checked(scope: Scope, expr: Expr, span: Span) -> Expr:
    """The expression, unless one of its numbers does not fit 32 bits."""
    numbers = [constant(expr) or 0]
    if isinstance(expr, Sum):
        numbers += [expr.constant, *(factor for factor, _ in expr.terms)]
    if any(abs(number) >= LIMIT for number in numbers):
        raise scope.error(
            "huge-integer",
            "this number does not fit: its magnitude must be less than 2147483648",
            span,
        )
    return expr


def fitting(scope: Scope, value: float, span: Span) -> float:
    """The float, unless it would be infinite in 32 bits."""
    if abs(value) > LARGEST_FLOAT:
        raise scope.error("huge-float", "this number does not fit: what weighs edges goes up to 3.4e38", span)
    return value


def compare(values: list[Expr], operators: list[str]) -> Expr:
    """``a < b <= c`` as ``a < b and b <= c``."""
    pairs = zip(values, operators, values[1:], strict=False)
    return conj(*(_COMPARISONS[operator](left, right) for left, operator, right in pairs))


def add_up(scope: Scope, chain: tree.Chain, values: list[Expr]) -> Expr:
    first, *rest = values
    signed = [
        value if op.text == "+" else neg(value) for op, value in zip(chain.operators, rest, strict=True)
    ]
    return checked(scope, add(first, *signed), chain.span)


def multiply_out(scope: Scope, chain: tree.Chain, values: list[Expr]) -> Expr:
    """Left to right, as written."""
    if len(values) > LONGEST_PRODUCT:
        raise scope.error("too-deep", f"this product has more than {LONGEST_PRODUCT} factors", chain.span)
    total = values[0]
    for operator, value, node in zip(chain.operators, values[1:], chain.operands[1:], strict=True):
        if operator.text == "*":
            total = mul(total, value)
        else:
            total = _divide(scope, chain, operator, total, value, node)
        checked(scope, total, chain.span)
    return total


def _divide(
    scope: Scope, chain: tree.Chain, operator: tree.Ident, left: Expr, right: Expr, node: tree.Expression
) -> Expr:
    divisor = constant(right)
    if divisor is None:
        raise scope.error(
            "variable-divisor",
            "only constants divide, and this divisor is not known when compiling",
            node.span,
            help="divide by a number or a parameter",
        )
    if divisor == 0:
        raise scope.error("division-by-zero", f"`{operator.text}` by zero", node.span)
    value = constant(left)
    if operator.text == "/" and value is not None and value % divisor:
        raise scope.error(
            "inexact-division",
            f"{value} / {divisor} is not a whole number",
            chain.span,
            help="write `//` to round down",
        )
    if divisor < 0:
        # Later rooms only see positive divisors.
        flipped = floor_div(neg(left), neg(right))
        return flipped if operator.text != "%" else neg(mod(neg(left), neg(right)))
    return mod(left, right) if operator.text == "%" else floor_div(left, right)

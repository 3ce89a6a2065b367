"""Real expressions: what an edge weighs, over its scaled dot product, its positions and entries of inputs.

Integers stay what they are (``attnc.expression``) until they meet a real number. Expressions are built
through the small constructors below, which fold constants and drop what changes nothing, so that a
derivative reads like one written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from attnc import notation
from attnc.budget import spend
from attnc.expression import FALSE, TRUE, Expr, constant, fold


class Real:
    """Base of all real expressions."""


@dataclass(frozen=True)
class Number(Real):
    """A number that is known when compiling; ``name`` is that of the parameter it came from, if any."""

    value: float
    name: str = ""


@dataclass(frozen=True)
class Whole(Real):
    """An integer expression as a real number."""

    expr: Expr


@dataclass(frozen=True)
class Score(Real):
    """``s``: the scaled dot product of query and key."""


@dataclass(frozen=True)
class Coordinate(Real):
    """``x``: a coordinate of a query or key vector, in a feature map."""


@dataclass(frozen=True)
class Entry(Real):
    """An entry of a float input."""

    table: str
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class Plus(Real):
    args: tuple[Real, ...]


@dataclass(frozen=True)
class Times(Real):
    args: tuple[Real, ...]


@dataclass(frozen=True)
class Over(Real):
    left: Real
    right: Real


@dataclass(frozen=True)
class Apply(Real):
    """One of ``FUNCTIONS`` of its arguments."""

    function: str
    args: tuple[Real, ...]


@dataclass(frozen=True)
class Greater:
    """``left > right``, as a condition of a choice."""

    left: Real
    right: Real


@dataclass(frozen=True)
class Choice(Real):
    """``then`` where ``condition`` holds, ``otherwise`` elsewhere."""

    condition: Expr | Greater
    then: Real
    otherwise: Real


# Of the work that a pattern may cost: the derivative of one part.
SLOPE_STEPS = 60
S, X = Score(), Coordinate()
ZERO, ONE = Number(0.0), Number(1.0)

# --- functions ------------------------------------------------------------------------------------------


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True)
class Function:
    """arity: number of arguments; None for two or more. value: of numbers. slopes: one a argument."""

    arity: int | None
    value: Callable[..., float]
    slopes: Callable[..., tuple[Real, ...]]


def _one(value: Callable[[float], float], slope: Callable[[Real], Real]) -> Function:
    return Function(1, value, lambda x: (slope(x),))


def _extreme(value: Callable[..., float], wins: Callable[[Real, Real], Greater]) -> Function:
    half = Number(0.5)

    def slopes(a: Real, b: Real) -> tuple[Real, ...]:
        # Where both are equal each takes half, as in torch.
        first = choice(wins(a, b), ONE, choice(wins(b, a), ZERO, half))
        return first, choice(wins(b, a), ONE, choice(wins(a, b), ZERO, half))

    return Function(None, value, slopes)


FUNCTIONS: dict[str, Function] = {
    "exp": _one(math.exp, lambda x: apply("exp", x)),
    "exp2": _one(lambda x: 2.0**x, lambda x: times(Number(math.log(2.0)), apply("exp2", x))),
    "log": _one(math.log, lambda x: over(ONE, x)),
    "log2": _one(math.log2, lambda x: over(Number(1 / math.log(2.0)), x)),
    "sqrt": _one(math.sqrt, lambda x: over(Number(0.5), apply("sqrt", x))),
    "tanh": _one(math.tanh, lambda x: minus(ONE, times(apply("tanh", x), apply("tanh", x)))),
    "sigmoid": _one(_sigmoid, lambda x: times(apply("sigmoid", x), minus(ONE, apply("sigmoid", x)))),
    "softplus": _one(lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))), lambda x: apply("sigmoid", x)),
    "relu": _one(lambda x: max(x, 0.0), lambda x: choice(Greater(x, ZERO), ONE, ZERO)),
    "elu": _one(
        lambda x: x if x > 0 else math.expm1(x), lambda x: choice(Greater(x, ZERO), ONE, apply("exp", x))
    ),
    "sin": _one(math.sin, lambda x: apply("cos", x)),
    "cos": _one(math.cos, lambda x: negative(apply("sin", x))),
    "abs": _one(abs, lambda x: choice(Greater(x, ZERO), ONE, choice(Greater(ZERO, x), Number(-1.0), ZERO))),
    "min": _extreme(min, lambda a, b: Greater(b, a)),
    "max": _extreme(max, lambda a, b: Greater(a, b)),
}

# --- constructors ---------------------------------------------------------------------------------------


def known(expr: Real) -> float | None:
    """The value of a number that is known when compiling, else None."""
    match expr:
        case Number(value):
            return value
        case Whole(inner):
            value_ = constant(inner)
            return None if value_ is None else float(value_)
    return None


def whole(expr: Expr) -> Real:
    return Whole(expr)


def plus(*args: Real) -> Real:
    flat: list[Real] = []
    start = 0.0
    for arg in args:
        for part in arg.args if isinstance(arg, Plus) else (arg,):
            if isinstance(part, Number) and not part.name:
                start += part.value
            elif known(part) != 0:
                flat.append(part)
    if start or not flat:
        flat.append(Number(start))
    return flat[0] if len(flat) == 1 else Plus(tuple(flat))


def negative(expr: Real) -> Real:
    return times(Number(-1.0), expr)


def minus(left: Real, right: Real) -> Real:
    return plus(left, negative(right))


def times(*args: Real) -> Real:
    flat: list[Real] = []
    factor = 1.0
    for arg in args:
        for part in arg.args if isinstance(arg, Times) else (arg,):
            if known(part) == 0:
                return ZERO
            if isinstance(part, Number) and not part.name:
                factor *= part.value
            else:
                flat.append(part)
    if factor != 1 or not flat:
        flat.insert(0, Number(factor))
    return flat[0] if len(flat) == 1 else Times(tuple(flat))


def over(left: Real, right: Real) -> Real:
    divisor = known(right)
    if known(left) == 0:
        return ZERO
    if divisor == 1:
        return left
    if (
        divisor
        and isinstance(left, Number)
        and isinstance(right, Number)
        and not left.name
        and not right.name
    ):
        return Number(left.value / divisor)
    return Over(left, right)


def apply(function: str, *args: Real) -> Real:
    """A function of ``FUNCTIONS``; ``min`` and ``max`` take any number of arguments, two at a time."""
    if FUNCTIONS[function].arity is None and len(args) > 2:
        return reduce(lambda a, b: apply(function, a, b), args)
    if len(args) == 1 and FUNCTIONS[function].arity is None:
        return args[0]
    values = [arg.value for arg in args if isinstance(arg, Number) and not arg.name]
    if len(values) == len(args):
        try:
            return Number(float(FUNCTIONS[function].value(*values)))
        except (ValueError, OverflowError, ZeroDivisionError):
            pass  # left as it is: outside of its domain it has no value
    return Apply(function, args)


def choice(condition: Expr | Greater, then: Real, otherwise: Real) -> Real:
    if condition == TRUE or then == otherwise:
        return then
    if condition == FALSE:
        return otherwise
    if isinstance(condition, Greater):
        left, right = condition.left, condition.right
        named = any(isinstance(side, Number) and side.name for side in (left, right))
        first, second = known(left), known(right)
        if first is not None and second is not None and not named:
            return then if first > second else otherwise
    return Choice(condition, then, otherwise)


# --- structure ------------------------------------------------------------------------------------------


def parts(expr: Real) -> tuple[Real, ...]:
    """The real expressions that an expression is made of."""
    match expr:
        case Plus(args) | Times(args) | Apply(_, args):
            return args
        case Over(left, right):
            return left, right
        case Choice(Greater(left, right), then, otherwise):
            return left, right, then, otherwise
        case Choice(_, then, otherwise):
            return then, otherwise
    return ()


def integers(expr: Real) -> tuple[Expr, ...]:
    """The integer expressions and conditions that stand in it directly."""
    match expr:
        case Whole(inner):
            return (inner,)
        case Entry(_, index):
            return index
        case Choice(condition, _, _) if not isinstance(condition, Greater):
            return (condition,)
    return ()


def everywhere(expr: Real) -> Iterable[Real]:
    """The expression and all its parts, outermost first."""
    yield expr
    for part in parts(expr):
        yield from everywhere(part)


def entries(expr: Real) -> tuple[Entry, ...]:
    """The distinct entries of float inputs that it reads, in order of appearance."""
    return tuple(dict.fromkeys(part for part in everywhere(expr) if isinstance(part, Entry)))


def rebuilt(expr: Real, change: Callable[[Real], Real | None], inner: Callable[[Expr], Expr] = fold) -> Real:
    """The expression with parts replaced by what ``change`` gives for them, and integers by ``inner``."""
    found = change(expr)
    if found is not None:
        return found

    def again(part: Real) -> Real:
        return rebuilt(part, change, inner)

    match expr:
        case Whole(integer):
            return Whole(inner(integer))
        case Entry(table, index):
            return Entry(table, tuple(map(inner, index)))
        case Plus(args):
            return plus(*map(again, args))
        case Times(args):
            return times(*map(again, args))
        case Over(left, right):
            return over(again(left), again(right))
        case Apply(function, args):
            return apply(function, *map(again, args))
        case Choice(Greater(left, right), then, otherwise):
            return choice(Greater(again(left), again(right)), again(then), again(otherwise))
        case Choice(condition, then, otherwise):
            assert isinstance(condition, Expr)
            return choice(inner(condition), again(then), again(otherwise))
    return expr


def replace(expr: Real, mapping: Mapping[Real, Real]) -> Real:
    """Every occurrence of a key of ``mapping`` replaced by its value."""
    return rebuilt(expr, mapping.get, lambda integer: integer)


def folded(expr: Real) -> Real:
    """The expression with every parameter replaced by its value."""
    return rebuilt(expr, lambda part: Number(part.value) if isinstance(part, Number) else None)


def derivative(expr: Real, by: Real) -> Real:
    """The derivative by ``S``, ``X`` or an ``Entry``; where there is none, the usual subgradient.

    Raises ``OutOfWork`` for one that is too long to be written out.
    """
    spend(SLOPE_STEPS, "the gradient of the score")
    if expr == by:
        return ONE
    match expr:
        case Plus(args):
            return plus(*(derivative(arg, by) for arg in args))
        case Times(args):
            slopes = [derivative(arg, by) for arg in args]
            return plus(
                *(times(*args[:i], slope, *args[i + 1 :]) for i, slope in enumerate(slopes) if slope != ZERO)
            )
        case Over(left, right):
            first, second = derivative(left, by), derivative(right, by)
            return minus(over(first, right), over(times(left, second), times(right, right)))
        case Apply(function, args):
            inner = [derivative(arg, by) for arg in args]
            if all(slope == ZERO for slope in inner):
                return ZERO
            outer = FUNCTIONS[function].slopes(*args)
            return plus(*(times(a, b) for a, b in zip(outer, inner, strict=True)))
        case Choice(condition, then, otherwise):
            return choice(condition, derivative(then, by), derivative(otherwise, by))
    return ZERO


# --- text -----------------------------------------------------------------------------------------------


def show(expr: Real) -> str:
    """The expression in the language's own notation, for people."""
    return _show(expr, 0)


def _show(expr: Real, level: int) -> str:
    # Levels: 0 sum, 1 product, 2 factor, 3 atom.
    def wrap(text: str, own: int) -> str:
        return f"({text})" if own < level else text

    match expr:
        case Number(value, name):
            return name or wrap(decimal(value), 0 if value < 0 else 3)
        case Whole(integer):
            text = notation.show(integer)
            return text if text.isalnum() or level == 0 else f"({text})"
        case Score():
            return "s"
        case Coordinate():
            return "x"
        case Entry(table, index):
            return f"{table}[{', '.join(map(notation.show, index))}]"
        case Plus(args):
            text = _show(args[0], 1)
            for arg in args[1:]:
                positive = _negated(arg)
                text += f" + {_show(arg, 1)}" if positive is None else f" - {_show(positive, 1)}"
            return wrap(text, 0)
        case Times(args):
            positive = _negated(expr)
            if positive is not None:
                return wrap(f"-{_show(positive, 2)}", 0)
            return wrap(" * ".join(_show(arg, 2) for arg in args), 1)
        case Over(left, right):
            if not (_reads_whole(left) and _reads_whole(right)):
                return wrap(f"{_show(left, 1)} / {_show(right, 2)}", 1)
            # Two whole numbers would be divided as such: one of them says that it is real.
            if isinstance(right, Number):
                return wrap(f"{_show(left, 1)} / {_real_number(right)}", 1)
            if isinstance(left, Number):
                return wrap(f"{_real_number(left)} / {_show(right, 2)}", 1)
            factors = left.args if isinstance(left, Times) else (left,)
            first, *rest = factors if isinstance(factors[0], Number) else (ONE, *factors)
            assert isinstance(first, Number)
            product = " * ".join((f"{decimal(first.value)}.0", *(_show(part, 2) for part in rest)))
            return wrap(f"{product} / {_show(right, 2)}", 1)
        case Apply(function, args):
            return f"{function}({', '.join(map(show, args))})"
        case Choice(Greater(left, right), then, otherwise):
            return f"select({show(left)} > {show(right)}, {show(then)}, {show(otherwise)})"
        case Choice(condition, then, otherwise):
            assert isinstance(condition, Expr)
            return f"select({notation.show(condition)}, {show(then)}, {show(otherwise)})"
    raise TypeError(f"cannot show {type(expr).__name__}")


def _real_number(expr: Number) -> str:
    text = f"{decimal(expr.value)}.0"
    return f"({text})" if expr.value < 0 else text


def _reads_whole(expr: Real) -> bool:
    """Whether its text would be read as a whole number."""
    match expr:
        case Number(value, name):
            return not name and value == int(value) and abs(value) < 1e15
        case Whole():
            return True
        case Plus(args) | Times(args) | Apply("abs" | "min" | "max", args):
            return all(map(_reads_whole, args))
        case Choice(condition, then, otherwise):
            return not isinstance(condition, Greater) and _reads_whole(then) and _reads_whole(otherwise)
    return False


def _negated(expr: Real) -> Real | None:
    """What an expression with a minus in front is the negative of."""
    match expr:
        case Number(value, "") if value < 0:
            return Number(-value)
        case Times((Number(value, ""), *rest)) if value < 0:
            return times(Number(-value), *rest)
    return None


def decimal(value: float) -> str:
    """A number as the language writes it: whole where it is whole."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)

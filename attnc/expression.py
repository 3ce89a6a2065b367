"""Integer and boolean expressions: the one arithmetic that every later room shares.

A relation is a boolean expression over the query position ``q``, the key position ``k``, the number of
keys ``n``, the head ``h`` and the number of heads ``H``. The same expression is evaluated by the reference
interpreter, asked about by the solver, bounded over tiles by the scheduler and printed into kernels.

Everything is built through the small constructors below (``add``, ``floor_div``, ``le``, ``conj`` …), which
keep expressions in a normal form: sums are linear combinations, comparisons are against zero, connectives
are flat. Integer division and remainder round towards minus infinity, as in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from threading import RLock
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform
from weakref import KeyedRef

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Expr:
    """Base of all expressions; integers and booleans alike.

    There is one object of every expression, for as long as anybody holds it: equal expressions are the same
    object, and comparing or looking up a large one costs no more than a small one.
    """

    # Of every kind: its fields with their defaults, and the expressions there are, by what their fields hold.
    _defaults: ClassVar[dict[str, Any]]
    _held: ClassVar[dict[tuple[Any, ...], _Held]]

    def __new__(cls, *args: Any, **named: Any) -> Self:
        if named or len(args) < len(cls._defaults):
            args = tuple({**cls._defaults, **dict(zip(cls._defaults, args, strict=False)), **named}.values())
        held = cls._held.get(args)
        found = None if held is None else held()
        return _made(cls, args) if found is None else found  # type: ignore[return-value]

    def __reduce__(self) -> tuple[type[Expr], tuple[Any, ...]]:
        return type(self), tuple(getattr(self, name) for name in self._defaults)


_Held = KeyedRef[tuple[Any, ...], Expr]
# An expression may be let go at any moment, in the middle of making another one, too.
_making = RLock()


def _made(kind: type[T], args: tuple[Any, ...]) -> T:
    """The expression of these fields, which nobody held a moment ago."""
    held, defaults = kind._held, kind._defaults  # type: ignore[attr-defined]
    if len(args) != len(defaults) or any(value is MISSING for value in args):
        raise TypeError(f"{kind.__name__} takes {', '.join(defaults)}")
    with _making:
        known = held.get(args)
        found = None if known is None else known()
        if found is None:
            found = object.__new__(kind)
            found.__dict__.update(zip(defaults, args, strict=True))
            held[args] = KeyedRef(found, kind._let_go, args)  # type: ignore[attr-defined]
        return found


@dataclass_transform(frozen_default=True, eq_default=False)
def _node(cls: type[T]) -> type[T]:
    """A frozen dataclass that is compared by identity, which is equality of expressions."""
    kind: Any = dataclass(frozen=True, eq=False, init=False)(cls)
    kind._defaults = {item.name: item.default for item in fields(kind)}
    held: dict[tuple[Any, ...], _Held] = {}
    kind._held = held
    making = _making  # at the interpreter's end the last expressions go after the module's own names

    def let_go(gone: _Held) -> None:
        with making:
            if held.get(gone.key) is gone:  # it may have been made anew meanwhile
                del held[gone.key]

    kind._let_go = staticmethod(let_go)
    return kind  # type: ignore[no-any-return]


# --- integers -------------------------------------------------------------------------------------------


@_node
class Const(Expr):
    value: int


@_node
class Param(Expr):
    """A pattern's parameter: a constant that kept its name, so that costs can be told in its terms."""

    name: str
    value: int


@_node
class Var(Expr):
    name: str


@_node
class Sum(Expr):
    """``constant + sum(coefficient * atom)``; atoms are distinct, not sums, and sorted."""

    terms: tuple[tuple[int, Expr], ...]
    constant: int


@_node
class Mul(Expr):
    """A product that no coefficient can say: of two variables, or with a named parameter."""

    left: Expr
    right: Expr


@_node
class FloorDiv(Expr):
    left: Expr
    right: Expr


@_node
class Mod(Expr):
    left: Expr
    right: Expr


@_node
class Min(Expr):
    args: tuple[Expr, ...]


@_node
class Max(Expr):
    args: tuple[Expr, ...]


@_node
class Select(Expr):
    """``then`` where ``condition`` holds, ``otherwise`` elsewhere."""

    condition: Expr
    then: Expr
    otherwise: Expr


@_node
class TileMin(Expr):
    """The least value of ``body`` over the rows of the tile at hand; known to kernels, not to proofs."""

    body: Expr


@_node
class TileMax(Expr):
    """The greatest value of ``body`` over the rows of the tile at hand."""

    body: Expr


@_node
class Lookup(Expr):
    """An entry of a runtime input; boolean when ``kind`` is ``bool``.

    ``table`` names the input or something derived from it: for an input ``x``, ``x.first`` and ``x.last``
    hold for every position the first and last position with an equal entry, ``x.run_first`` and
    ``x.run_last`` the ends of the unbroken run of equal entries around it.
    """

    table: str
    index: tuple[Expr, ...]
    kind: str = "int"


# What is derived from an input whose entries are compared, in the order in which it is told.
EQUAL_ENDS = ("first", "last", "run_first", "run_last")


# --- booleans -------------------------------------------------------------------------------------------


@_node
class Truth(Expr):
    value: bool


@_node
class Le0(Expr):
    """``body <= 0``."""

    body: Expr


@_node
class Eq0(Expr):
    """``body == 0``."""

    body: Expr


@_node
class PowerOfTwo(Expr):
    """``body`` is 0 or a power of two: the members of ``powers(2)``."""

    body: Expr


@_node
class Drawn(Expr):
    """``column`` is among the ``count`` columns drawn for ``row``, out of ``population`` columns.

    Drawn anew for every head, by ``attnc.draws``. With ``past`` the draw is among ``0..row`` instead.
    """

    count: Expr
    seed: Expr
    past: bool
    row: Expr
    column: Expr
    population: Expr


@_node
class Not(Expr):
    """Of an ``Eq0``, a ``Lookup``, a ``PowerOfTwo`` or a ``Drawn``; everything else absorbs its negation."""

    body: Expr


@_node
class And(Expr):
    args: tuple[Expr, ...]


@_node
class Or(Expr):
    args: tuple[Expr, ...]


Q, K, N, HEAD, HEADS, DIM = Var("q"), Var("k"), Var("n"), Var("h"), Var("H"), Var("d")
ZERO, ONE = Const(0), Const(1)
TRUE, FALSE = Truth(True), Truth(False)

IntLike = Expr | int

# Each of the functions below remembers what it made of so many expressions.
KEPT = 1 << 14


def remembered(function: F) -> F:
    return cast(F, lru_cache(maxsize=KEPT)(function))


# --- constructors ---------------------------------------------------------------------------------------


def as_expr(value: IntLike) -> Expr:
    return Const(value) if isinstance(value, int) else value


@remembered
def constant(expr: Expr) -> int | None:
    """The value of an expression without variables, else None."""
    match expr:
        case Const(value) | Param(_, value):
            return value
        case Var() | Lookup() | TileMin() | TileMax():
            return None
    parts = [constant(child) for child in children(expr)]
    if any(part is None for part in parts):
        return None
    match expr, parts:
        case Sum(terms, start), _:
            return start + sum(c * v for (c, _), v in zip(terms, parts, strict=True) if v is not None)
        case Mul(), [int(a), int(b)]:
            return a * b
        case FloorDiv(), [int(a), int(b)]:
            return a // b
        case Mod(), [int(a), int(b)]:
            return a % b
        case Min(), values:
            return min(v for v in values if v is not None)
        case Max(), values:
            return max(v for v in values if v is not None)
    return None


def _linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    match expr:
        case Const(value):
            return {}, value
        case Sum(terms, start):
            return {atom: c for c, atom in terms}, start
    return {expr: 1}, 0


# Longer texts than this are not compared in full.
LONGEST_ORDER = 2000


@remembered
def order(expr: Expr) -> str:
    """What arguments are sorted by, so that equal expressions are built equal: their ``repr``, if not long.

    Made of the texts of its parts, so that what stands in many places is written once.
    """
    named = (f"{name}={_ordered(getattr(expr, name))}" for name in expr._defaults)
    text = f"{type(expr).__qualname__}({', '.join(named)})"
    if len(text) <= LONGEST_ORDER:
        return text
    return f"{text[:40]}#{blake2b(text.encode()).hexdigest()}"


def _ordered(value: object) -> str:
    if isinstance(value, Expr):
        return order(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_ordered, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _from_linear(terms: Mapping[Expr, int], start: int) -> Expr:
    kept = [(c, atom) for atom, c in terms.items() if c]
    if not kept:
        return Const(start)
    if len(kept) == 1 and kept[0][0] == 1 and start == 0:
        return kept[0][1]
    return Sum(tuple(sorted(kept, key=lambda item: order(item[1]))), start)


@remembered
def add(*args: IntLike) -> Expr:
    total: dict[Expr, int] = {}
    start = 0
    for arg in args:
        terms, extra = _linear(as_expr(arg))
        start += extra
        for atom, c in terms.items():
            total[atom] = total.get(atom, 0) + c
    return _from_linear(total, start)


@remembered
def scale(factor: int, expr: IntLike) -> Expr:
    terms, start = _linear(as_expr(expr))
    return _from_linear({atom: factor * c for atom, c in terms.items()}, factor * start)


def neg(expr: IntLike) -> Expr:
    return scale(-1, expr)


@remembered
def sub(left: IntLike, right: IntLike) -> Expr:
    return add(left, neg(right))


def mul(left: IntLike, right: IntLike) -> Expr:
    left, right = as_expr(left), as_expr(right)
    if isinstance(left, Const):
        return scale(left.value, right)
    if isinstance(right, Const):
        return scale(right.value, left)
    first, second = sorted((left, right), key=order)
    return Mul(first, second)


@remembered
def floor_div(left: IntLike, right: IntLike) -> Expr:
    """``left // right``; ``right`` must not be a zero constant."""
    left, right = as_expr(left), as_expr(right)
    if isinstance(left, Const) and isinstance(right, Const):
        return Const(left.value // right.value)
    if constant(right) == 1:
        return left
    if isinstance(left, FloorDiv) and (constant(left.right) or 0) > 0 and (constant(right) or 0) > 0:
        return floor_div(left.left, mul(left.right, right))
    if isinstance(right, Const) and right.value > 0:
        whole, rest = _multiples(left, right.value)
        if whole != ZERO:
            return add(whole, floor_div(rest, right))
    return FloorDiv(left, right)


def _multiples(expr: Expr, step: int) -> tuple[Expr, Expr]:
    """``whole, rest`` with ``expr == step * whole + rest``; the rest's constant lies in ``0..step-1``."""
    terms, start = _linear(expr)
    whole = {atom: c // step for atom, c in terms.items() if c % step == 0}
    rest = {atom: c for atom, c in terms.items() if c % step}
    return _from_linear(whole, start // step), _from_linear(rest, start % step)


def ceil_div(left: IntLike, right: IntLike) -> Expr:
    """Division rounded up, for a positive ``right``."""
    right = as_expr(right)
    return floor_div(add(left, right, -1), right)


@remembered
def mod(left: IntLike, right: IntLike) -> Expr:
    left, right = as_expr(left), as_expr(right)
    if isinstance(left, Const) and isinstance(right, Const):
        return Const(left.value % right.value)
    if constant(right) == 1:
        return ZERO
    if isinstance(right, Const) and right.value > 0:
        left = _multiples(left, right.value)[1]
        if isinstance(left, Const):
            return left
    return Mod(left, right)


def _extremum(kind: type[Min] | type[Max], pick: Callable[[int, int], int], args: Iterable[IntLike]) -> Expr:
    flat: list[Expr] = []
    for arg in map(as_expr, args):
        flat.extend(arg.args if isinstance(arg, kind) else (arg,))
    # Among sums that differ only by their constant, one wins.
    best: dict[Expr, int] = {}
    for arg in flat:
        terms, start = _linear(arg)
        rest = _from_linear(terms, 0)
        best[rest] = pick(best[rest], start) if rest in best else start
    kept = tuple(sorted((add(rest, start) for rest, start in best.items()), key=order))
    return kept[0] if len(kept) == 1 else kind(kept)


@remembered
def minimum(*args: IntLike) -> Expr:
    return _extremum(Min, min, args)


@remembered
def maximum(*args: IntLike) -> Expr:
    return _extremum(Max, max, args)


def absolute(expr: IntLike) -> Expr:
    return maximum(expr, neg(expr))


def select(condition: Expr, then: IntLike, otherwise: IntLike) -> Expr:
    then, otherwise = as_expr(then), as_expr(otherwise)
    if condition == TRUE or then == otherwise:
        return then
    if condition == FALSE:
        return otherwise
    return Select(condition, then, otherwise)


@remembered
def le(left: IntLike, right: IntLike) -> Expr:
    body = sub(left, right)
    value = constant(body)
    return Le0(body) if value is None else Truth(value <= 0)


def lt(left: IntLike, right: IntLike) -> Expr:
    return le(add(left, 1), right)


def ge(left: IntLike, right: IntLike) -> Expr:
    return le(right, left)


def gt(left: IntLike, right: IntLike) -> Expr:
    return lt(right, left)


@remembered
def eq(left: IntLike, right: IntLike) -> Expr:
    body = sub(left, right)
    value = constant(body)
    if value is not None:
        return Truth(value == 0)
    flipped = neg(body)
    return Eq0(min(body, flipped, key=order))


def between(low: IntLike, expr: IntLike, high: IntLike) -> Expr:
    """``low <= expr <= high``."""
    return conj(le(low, expr), le(expr, high))


@remembered
def negate(expr: Expr) -> Expr:
    match expr:
        case Truth(value):
            return Truth(not value)
        case Le0(body):
            return ge(body, 1)
        case And(args):
            return disj(*map(negate, args))
        case Or(args):
            return conj(*map(negate, args))
        case Not(body):
            return body
    return Not(expr)


def _connect(kind: type[And] | type[Or], args: Iterable[Expr], neutral: Truth, absorbing: Truth) -> Expr:
    flat: dict[Expr, None] = {}
    for arg in args:
        flat.update(dict.fromkeys(arg.args if isinstance(arg, kind) else (arg,)))
    flat.pop(neutral, None)
    if absorbing in flat or any(negate(arg) in flat for arg in flat if not isinstance(arg, (And, Or))):
        return absorbing
    if not flat:
        return neutral
    return next(iter(flat)) if len(flat) == 1 else kind(tuple(flat))


@remembered
def conj(*args: Expr) -> Expr:
    return _connect(And, args, TRUE, FALSE)


@remembered
def disj(*args: Expr) -> Expr:
    return _connect(Or, args, FALSE, TRUE)


# --- structure ------------------------------------------------------------------------------------------


@remembered
def children(expr: Expr) -> tuple[Expr, ...]:
    match expr:
        case Sum(terms, _):
            return tuple(atom for _, atom in terms)
        case Mul(a, b) | FloorDiv(a, b) | Mod(a, b):
            return (a, b)
        case Min(args) | Max(args) | And(args) | Or(args):
            return args
        case Select(condition, then, otherwise):
            return (condition, then, otherwise)
        case Lookup(_, index, _):
            return index
        case Le0(body) | Eq0(body) | PowerOfTwo(body) | Not(body) | TileMin(body) | TileMax(body):
            return (body,)
        case Drawn(count, seed, _, row, column, population):
            return (count, seed, row, column, population)
    return ()


def rebuild(expr: Expr, parts: tuple[Expr, ...]) -> Expr:
    """``expr`` with other children, brought into normal form again."""
    match expr:
        case Sum(terms, start):
            return add(start, *(scale(c, part) for (c, _), part in zip(terms, parts, strict=True)))
        case Mul():
            return mul(*parts)
        case FloorDiv():
            return floor_div(*parts)
        case Mod():
            return mod(*parts)
        case Min():
            return minimum(*parts)
        case Max():
            return maximum(*parts)
        case And():
            return conj(*parts)
        case Or():
            return disj(*parts)
        case Select():
            return select(*parts)
        case Lookup(table, _, kind):
            return Lookup(table, parts, kind)
        case Le0():
            return le(parts[0], 0)
        case Eq0():
            return eq(parts[0], 0)
        case PowerOfTwo():
            return PowerOfTwo(parts[0])
        case Not():
            return negate(parts[0])
        case TileMin():
            return TileMin(parts[0])
        case TileMax():
            return TileMax(parts[0])
        case Drawn(_, _, past, _, _, _):
            count, seed, row, column, population = parts
            return Drawn(count, seed, past, row, column, population)
    return expr


def substitute(expr: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """Every occurrence of a key of ``mapping`` replaced by its value, all at once."""
    made: dict[Expr, Expr] = dict(mapping)

    def of(part: Expr) -> Expr:
        found = made.get(part)
        if found is None:
            parts = children(part)
            fresh = tuple(map(of, parts))
            found = made[part] = part if fresh == parts else rebuild(part, fresh)
        return found

    return of(expr)


@remembered
def fold(expr: Expr) -> Expr:
    """The expression with every parameter replaced by its value."""
    if isinstance(expr, Param):
        return Const(expr.value)
    parts = children(expr)
    return rebuild(expr, tuple(map(fold, parts))) if parts else expr


@remembered
def merged(expr: Expr) -> Expr:
    """The expression with a quotient of a shifted quotient as one quotient.

    ``(x // a + c) // b`` is ``(x + a*c) // (a*b)``. The solver follows one division with ease, and two with
    luck.
    """
    parts = children(expr)
    if not parts:
        return expr
    expr = rebuild(expr, tuple(map(merged, parts)))
    match expr:
        case FloorDiv(Sum(((1, FloorDiv(inner, Const(size))),), shift), Const(step)) if size > 0 and step > 0:
            return floor_div(add(inner, size * shift), size * step)
    return expr


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all its parts, each once, outermost first."""
    seen: set[Expr] = set()
    todo = [expr]
    while todo:
        part = todo.pop()
        if part not in seen:
            seen.add(part)
            yield part
            todo.extend(reversed(children(part)))


def innermost_first(expr: Expr) -> list[Expr]:
    """The expression and all its parts, each once and after all that it is made of."""
    found: dict[Expr, None] = {}

    def visit(part: Expr) -> None:
        if part not in found:
            for child in reversed(children(part)):
                visit(child)
            found[part] = None

    visit(expr)
    return list(found)


@remembered
def shared(expr: Expr) -> frozenset[Expr]:
    """The parts that stand in several places of an expression."""
    once: set[Expr] = set()
    often: set[Expr] = set()
    for part in walk(expr):
        for child in children(part):
            (often if child in once else once).add(child)
    return frozenset(part for part in often if children(part))


@remembered
def size(expr: Expr) -> int:
    """How many parts an expression has, written out in full."""
    return 1 + sum(map(size, children(expr)))


@remembered
def mentioned(expr: Expr) -> frozenset[Var]:
    """The variables that stand in an expression."""
    if isinstance(expr, Var):
        return frozenset((expr,))
    return frozenset().union(*map(mentioned, children(expr)))


@remembered
def variables(expr: Expr) -> frozenset[str]:
    """Names of the variables, parameters and inputs not included. A draw hangs on the head, too."""
    found = {part.name for part in mentioned(expr)}
    if any(isinstance(part, Drawn) for part in walk(expr)):
        found.add("h")
    return frozenset(found)


def tables(expr: Expr) -> frozenset[str]:
    """Names of the runtime tables that are read: inputs and what is derived from them."""
    return frozenset(part.table for part in walk(expr) if isinstance(part, Lookup))


def compared(body: Expr) -> tuple[Expr, Expr, bool]:
    """``left, right, strict`` where ``body <= 0`` is ``left < right``, or ``left <= right`` if not strict.

    One entry of an input stands alone: it may be as large as integers get, and is neither added to nor
    multiplied.
    """
    terms, start = _linear(body)
    read = [atom for atom in terms if tables(atom)]
    if len(read) == 1:
        (entry,) = read
        factor, rest = terms[entry], {atom: c for atom, c in terms.items() if atom != entry}
        strict = start == 1 and abs(factor) == 1
        if factor < 0:
            return ceil_div(_from_linear(rest, 0 if strict else start), -factor), entry, strict
        turned = {atom: -c for atom, c in rest.items()}
        return entry, floor_div(_from_linear(turned, 0 if strict else -start), factor), strict
    left, right = sides(body)
    terms, start = _linear(left)
    return (_from_linear(terms, 0), right, True) if start == 1 and terms else (left, right, False)


def with_entries_alone(comparison: Le0) -> Expr:
    """The same comparison where no entry of an input is added to within a least or greatest of several.

    What is not above the least of them is above none of them, and so on.
    """
    terms, start = _linear(comparison.body)
    read = [atom for atom in terms if tables(atom)]
    match read:
        case [Min(args) | Max(args) as entry]:
            factor, others = terms.pop(entry), _from_linear(terms, start)
            parts = [le(add(scale(factor, arg), others), 0) for arg in args]
            every = isinstance(entry, Max) == (factor > 0)
            return conj(*parts) if every else disj(*parts)
    return comparison


def sides(body: Expr) -> tuple[Expr, Expr]:
    """``left, right`` with ``body == left - right`` and no negative coefficient on either side."""
    terms, start = _linear(body)
    left = _from_linear({atom: c for atom, c in terms.items() if c > 0}, max(start, 0))
    right = _from_linear({atom: -c for atom, c in terms.items() if c < 0}, max(-start, 0))
    return left, right

"""The relations and sets that have names: what arguments they take and what they mean.

A relation's meaning is a boolean expression over ``Q`` and ``K``, a set's is one over ``POSITION``. Arguments
come here already checked, so that every function below is its definition and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from attnc.expression import (
    FALSE,
    ONE,
    TRUE,
    ZERO,
    Drawn,
    Expr,
    FloorDiv,
    K,
    Lookup,
    N,
    PowerOfTwo,
    Q,
    Sum,
    Var,
    add,
    ceil_div,
    conj,
    constant,
    eq,
    floor_div,
    fold,
    ge,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    sub,
    substitute,
)

POSITION = Var("p")

CONSTANTS: dict[str, Expr] = {"all": TRUE, "none": FALSE, "self": eq(Q, K), "causal": le(K, Q)}

SlotKind = Literal["int", "flag", "set", "offsets", "relation", "axis", "input"]


@dataclass(frozen=True)
class Slot:
    """An argument: ``least`` and ``most`` bound an int, ``default`` is None where it must be given.

    below: what to write in place of an int that is less than ``least``.
    """

    name: str
    kind: SlotKind = "int"
    least: int | None = None
    default: Any = None
    most: int | None = None
    below: str | None = None


# A row's draws are compared with each other and with every key of a tile.
MOST_DRAWS = 1024
# Where a query and a key stand along an axis, and its length.
_AXIS = Slot("axis", "axis", default=(Q, K, N))

RELATIONS: dict[str, tuple[Slot, ...]] = {
    "window": (
        Slot("left", least=0, below="a window that begins after the query: `where 1 <= k - q <= 5`"),
        Slot(
            "right",
            least=0,
            default=ZERO,
            below="a window that ends before the query: `where 1 <= q - k <= 5`",
        ),
        Slot("dilation", least=1, default=ONE),
        _AXIS,
    ),
    "chunk": (Slot("size", least=1), _AXIS),
    "stride": (Slot("step", least=1), _AXIS),
    "neighborhood": (Slot("size", least=1), Slot("dilation", least=1, default=ONE), _AXIS),
    "to": (Slot("positions", "set"),),
    "from": (Slot("positions", "set"),),
    "offsets": (Slot("numbers", "offsets"),),
    "same": (Slot("entries", "input"),),
    "random": (Slot("count", least=1, most=MOST_DRAWS), Slot("seed"), Slot("past", "flag", default=False)),
    "blocks": (Slot("size", least=1), Slot("relation", "relation")),
}

SETS: dict[str, tuple[Slot, ...]] = {
    "first": (Slot("count", least=0),),
    "last": (Slot("count", least=0),),
    "every": (Slot("step", least=1), Slot("offset", least=0, default=ZERO)),
    "powers": (Slot("base"),),
}

Arguments = Mapping[str, Any]


def window(a: Arguments) -> Expr:
    row, column, _ = a["axis"]
    distance = sub(row, column)
    return conj(
        le(neg(mul(a["right"], a["dilation"])), distance),
        le(distance, mul(a["left"], a["dilation"])),
        eq(mod(distance, a["dilation"]), 0),
    )


def chunk(a: Arguments) -> Expr:
    row, column, _ = a["axis"]
    return eq(floor_div(row, a["size"]), floor_div(column, a["size"]))


def stride(a: Arguments) -> Expr:
    row, column, _ = a["axis"]
    return eq(mod(sub(row, column), a["step"]), 0)


def neighborhood(a: Arguments) -> Expr:
    """NATTEN's: of the query's residue class, the ``size`` keys around it; at a border, the nearest ones.

    Hassani et al., "Neighborhood Attention Transformer", 2023; dilated: Hassani and Shi, 2022.
    """
    (row, column, length), size, dilation = a["axis"], a["size"], a["dilation"]
    residue, place = mod(row, dilation), floor_div(row, dilation)
    members = ceil_div(sub(length, residue), dilation)
    first = maximum(0, minimum(sub(place, floor_div(size, 2)), sub(members, size)))
    slot = floor_div(column, dilation)
    return conj(eq(mod(column, dilation), residue), le(first, slot), lt(slot, add(first, size)))


def drawn(a: Arguments) -> Expr:
    return Drawn(a["count"], a["seed"], a["past"], Q, K, N)


def same(a: Arguments) -> Expr:
    name = a["entries"].name
    return eq(Lookup(name, (Q,)), Lookup(name, (K,)))


MEANINGS: dict[str, Callable[[Arguments], Expr]] = {
    "window": window,
    "chunk": chunk,
    "stride": stride,
    "neighborhood": neighborhood,
    "to": lambda a: substitute(a["positions"], {POSITION: K}),
    "from": lambda a: substitute(a["positions"], {POSITION: Q}),
    "offsets": lambda a: substitute(a["numbers"], {POSITION: sub(Q, K)}),
    "same": same,
    "random": drawn,
    "first": lambda a: lt(POSITION, a["count"]),
    "last": lambda a: ge(POSITION, sub(N, a["count"])),
    "every": lambda a: eq(mod(POSITION, a["step"]), a["offset"]),
    "powers": lambda a: PowerOfTwo(POSITION),
}


def lift(formula: Expr, size: Expr) -> Expr:
    """A relation between blocks as one between tokens."""
    return substitute(formula, {Q: floor_div(Q, size), K: floor_div(K, size), N: ceil_div(N, size)})


def block_of(shape: Expr) -> int | None:
    """How many tokens share an entry of an axis of this size: 1 for ``n``, 64 for ``(n + 63) / 64``.

    None for a size that is not the number of blocks of anything.
    """
    match fold(shape):
        case Var("n"):
            return 1
        case FloorDiv(Sum(((1, inner),), extra), right) if (size := constant(right)) and extra == size - 1:
            outer = block_of(inner)
            return None if outer is None else outer * size
    return None


def block_shape(size: int) -> str:
    """How the number of blocks of this many tokens is written in an input's shape."""
    return "n" if size == 1 else f"(n + {size - 1}) / {size}"


def axis_length(name: str, axes: tuple[tuple[str, Expr], ...]) -> Expr:
    """How many coordinates there are along an axis of the grid: along the first, as many as tokens need."""
    (first, _), *inner = axes
    return ceil_div(N, reduce(mul, [size for _, size in inner])) if name == first else dict(axes)[name]


def coordinates(position: Expr, axes: tuple[tuple[str, Expr], ...]) -> dict[str, Expr]:
    """A token's coordinates in a row-major grid; the first axis goes on for as long as there are tokens."""
    found: dict[str, Expr] = {}
    inner: Expr = ONE
    for number, (name, size) in reversed(list(enumerate(axes))):
        place = floor_div(position, inner)
        found[name] = place if number == 0 else mod(place, size)
        inner = mul(inner, size)
    return found

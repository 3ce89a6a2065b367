"""Symbols: what a user's function gets in the place of positions and scores, and what it makes of them.

A symbol is no tensor. It answers Python's operators and, by ``__torch_function__``, the functions of torch
that ``OPERATIONS`` and ``REAL_OPERATIONS`` hold; what would need a value is refused, with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NoReturn

import torch

from attnc.expression import TRUE, Expr
from attnc.masks.places import refuse
from attnc.real import Greater, Real

Kind = Literal["bool", "int", "real", "greater"]
# What is known of whole numbers and conditions, and of real numbers: by the name of torch's function or
# Python's operator, without its underscores.
OPERATIONS: dict[str, Callable[..., Any]] = {}
REAL_OPERATIONS: dict[str, Callable[..., Any]] = {}


@dataclass
class Tables:
    """The tensors that a function reads, under the names by which expressions know them.

    real: whether real numbers are known, as in a score, and not in a mask.
    """

    real: bool = False
    names: dict[int, str] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def name_of(self, tensor: torch.Tensor) -> str:
        if tensor.dtype.is_complex or (tensor.dtype.is_floating_point and not self.real):
            refuse(
                f"a mask cannot hang on the entries of a {str(tensor.dtype).removeprefix('torch.')} tensor",
                "read at a position here",
                "compare before reading: `near = distance < 0.5` outside, and `near[q_idx]` here",
            )
        name = self.names.get(id(tensor))
        if name is None:
            name = self.names[id(tensor)] = f"table_{len(self.names)}"
            self.tensors[name] = tensor  # which also keeps its id from being used again
        return name


class Symbol:
    """A whole number, a condition or a real number that hangs on positions.

    edges: where a real number is not minus infinity.
    """

    def __init__(self, expr: Expr | Real | Greater, kind: Kind, tables: Tables, edges: Expr = TRUE) -> None:
        self.expr: Any = expr
        self.kind, self.tables, self.edges = kind, tables, edges

    @property
    def is_bool(self) -> bool:
        return self.kind == "bool"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = next(part for part in parts_of((args, kwargs or {})) if isinstance(part, Symbol))
        return call(found.tables, func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _ATTRIBUTES:
            return _ATTRIBUTES[name](self)
        if name in OPERATIONS or (self.tables.real and name in REAL_OPERATIONS):
            return partial(apply, self.tables, name, self)
        refuse(f"`.{name}` of {self.told} is not known to patterns", help=_KNOWN)

    def _valueless(self, *_: Any) -> NoReturn:
        refuse(
            f"{self.told} has no value while the function is read",
            "a value is needed here",
            "join conditions by `&`, `|` and `~`, never by `if`, `and`, `or`, `not` or a chain such as "
            "`a <= b < c`; choose by `torch.where`, `torch.minimum` and `torch.maximum`",
        )

    __bool__ = __int__ = __index__ = __float__ = __iter__ = __len__ = _valueless
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.told}>"

    @property
    def told(self) -> str:
        return {"int": "a position", "real": "a score"}.get(self.kind, "a condition")


def call(tables: Tables, func: Any, args: Any, kwargs: Any) -> Any:
    return apply(tables, getattr(func, "__name__", str(func)), *args, **kwargs)


def apply(tables: Tables, name: str, *args: Any, **kwargs: Any) -> Any:
    plain = name if name in OPERATIONS else name.strip("_")
    among = OPERATIONS
    if tables.real and (
        plain not in OPERATIONS or any(map(_is_real, parts_of((args, kwargs)))) or "div" in plain
    ):
        among = REAL_OPERATIONS if "floor" not in plain else OPERATIONS
    operation = among.get(plain)
    if operation is None:
        known = _KNOWN_REAL if tables.real else _KNOWN
        refuse(f"`{name}` is not known to patterns", "called here", known)
    return operation(tables, *args, **kwargs)


def _is_real(value: Any) -> bool:
    if isinstance(value, Symbol):
        return value.kind in ("real", "greater")
    return isinstance(value, float) or (isinstance(value, torch.Tensor) and value.dtype.is_floating_point)


def parts_of(value: Any) -> Iterator[Any]:
    """What arguments are made of, inside of tuples, lists and dictionaries."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from parts_of(part)
    elif isinstance(value, dict):
        yield from parts_of(tuple(value.values()))
    else:
        yield value


_KNOWN = (
    "patterns know + - * // % abs, minimum, maximum, clamp, comparisons, & | ~ ^, where, "
    "and tensors of integers or booleans read at a position"
)
_KNOWN_REAL = (
    "scores know + - * / abs, minimum, maximum, exp, exp2, log, log2, sqrt, tanh, sigmoid, softplus, relu, "
    "elu, sin, cos, where, and tensors read at a position"
)

_DTYPES = {"bool": torch.bool, "greater": torch.bool, "int": torch.int64, "real": torch.float32}

_ATTRIBUTES: dict[str, Callable[[Symbol], Any]] = {
    "device": lambda symbol: torch.device("cpu"),
    "dtype": lambda symbol: _DTYPES[symbol.kind],
    "shape": lambda symbol: torch.Size(()),
    "ndim": lambda symbol: 0,
}

_SPECIAL = (
    *("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "mod", "rmod", "truediv"),
    *("rtruediv", "eq", "ne", "le", "lt", "ge", "gt", "and", "rand", "or", "ror", "xor", "rxor"),
    *("neg", "pos", "abs", "invert", "lshift", "rshift", "getitem", "pow", "rpow"),
)


def _special(name: str) -> Callable[..., Any]:
    def method(self: Symbol, *args: Any) -> Any:
        return apply(self.tables, name, self, *args)

    return method


for _name in _SPECIAL:
    setattr(Symbol, f"__{_name}__", _special(_name))

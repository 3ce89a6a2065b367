"""What a pattern means, read off its syntax tree by brute force: edge by edge, as grammar/README.md has it.

Nothing here comes from the compiler but the parser. Positions are arrays that broadcast against each other;
scores are evaluated at edges alone, so what has no value elsewhere never exists; linear attention is the
matrix of all weights, and the delta rule goes step by step. Gradients are torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch

from attnc import syntax as tree
from attnc.diagnostics import Source
from attnc.parser import parse

Tensor = torch.Tensor


@dataclass(frozen=True)
class Members:
    """A set of positions: whether each of an array of positions is in it."""

    has: Callable[[Any], Any]


@dataclass(frozen=True)
class Axis:
    divisor: int
    size: int | None


@dataclass(frozen=True)
class At:
    """Where an expression is evaluated: batch entry, head and positions, as arrays that broadcast."""

    b: Any
    h: Any
    q: Any
    k: Any
    n: int
    s: Tensor | None = None
    x: Tensor | None = None

    def some(self, chosen: Any) -> At:
        """At some of the places, where all are one after another."""
        kept = torch.from_numpy(np.flatnonzero(chosen))
        b, h, q, k = (
            np.broadcast_to(part, chosen.shape)[chosen] for part in (self.b, self.h, self.q, self.k)
        )
        return replace(self, b=b, h=h, q=q, k=k, s=None if self.s is None else self.s[kept])


class Meaning:
    """One pattern called with given sizes and inputs, computed in a dtype.

    noise: every result of an operation on real numbers, and its gradient, is off by about so much of itself:
    what comes of it says how far rounding can take a result. seed: of what is drawn for that.
    """

    def __init__(
        self,
        text: str,
        inputs: Mapping[str, Tensor],
        heads: int,
        dtype: torch.dtype = torch.float64,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        [self.pattern] = parse(Source("fuzz.attn", text)).patterns
        self.inputs, self.heads, self.dtype, self.noise = inputs, heads, dtype, noise
        self.generator = torch.Generator().manual_seed(seed)
        self.declared = {item.name.text: item for item in self.pattern.items if isinstance(item, tree.Input)}
        self.lets: dict[str, tree.Expression] = {}
        self.axes: dict[str, Axis] = {}
        self.params: dict[str, Any] = {}
        empty = At(0, 0, 0, 0, 0)
        for param in self.pattern.params:
            assert param.default is not None
            value = self.value(param.default, empty)
            self.params[param.name.text] = float(value) if param.kind.text == "float" else value
        for item in self.pattern.items:
            if isinstance(item, tree.Let):
                self.lets[item.name.text] = item.value
            elif isinstance(item, tree.Grid):
                sizes = [int(self.value(axis.size, empty)) for axis in item.axes]
                for i, axis in enumerate(item.axes):
                    self.axes[axis.name.text] = Axis(math.prod(sizes[i + 1 :]), sizes[i] if i else None)

    # --- numbers, conditions, sets, relations -------------------------------------------------------

    def value(self, node: tree.Expression, at: At) -> Any:
        match node:
            case tree.Number(value) | tree.Decimal(value) | tree.Flag(value):
                return value
            case tree.Group(inner) | tree.Where(inner):
                return self.value(inner, at)
            case tree.Name(name):
                return self._name(name, at)
            case tree.Member(name, member):
                return self._coordinate(member.text, at.q if name.text == "q" else at.k)
            case tree.Listing(items):
                found = [self.value(item, at) for item in items]
                return Members(lambda p: np.isin(p, found))
            case tree.Prefix(operator, operand):
                found = self.value(operand, at)
                return -found if operator.text == "-" else np.logical_not(found)
            case tree.Index(name, places):
                return self._entry(name.text, [self.value(place, at) for place in places], at)
            case tree.Chain(operands, operators):
                return self._chain(operands, [operator.text for operator in operators], at)
            case tree.Call(name, args):
                given = [(arg.keyword.text if arg.keyword else "", arg.value) for arg in args]
                return self._call(name.text, given, at)
        raise TypeError(f"no meaning for {type(node).__name__}")

    def _name(self, name: str, at: At) -> Any:
        match name:
            case "q" | "k" | "h" | "n" | "s" | "x":
                return getattr(at, name)
            case "H":
                return self.heads
            case "all":
                return np.True_
            case "none":
                return np.False_
            case "self":
                return at.q == at.k
            case "causal":
                return at.k <= at.q
        if name in self.params:
            return self.params[name]
        if name in self.lets:
            return self.value(self.lets[name], at)
        return Members(lambda p: self._entry(name, [p], at))

    def _coordinate(self, axis: str, position: Any) -> Any:
        found = position // self.axes[axis].divisor
        size = self.axes[axis].size
        return found if size is None else found % size

    def _entry(self, name: str, places: list[Any], at: At) -> Any:
        """An entry of an input; an index beyond the axis reads the entry beside its border."""
        table = self.inputs[name]
        b = at.b if table.dim() > len(places) else 0
        table = table if table.dim() > len(places) else table[None]
        if table.shape[0] == 1:
            b = 0
        inside = [
            np.clip(place, 0, max(size - 1, 0)) for place, size in zip(places, table.shape[1:], strict=True)
        ]
        index = tuple(np.broadcast_arrays(np.asarray(b), *map(np.asarray, inside)))
        if not table.is_floating_point():
            found = table.numpy()[index]
            return found if found.dtype == np.bool_ else found.astype(np.int64)
        return self.off(table.to(self.dtype)[tuple(torch.from_numpy(np.array(place)) for place in index)])

    def _chain(self, operands: tuple[tree.Expression, ...], operators: list[str], at: At) -> Any:
        values = [self.value(operand, at) for operand in operands]
        first, *rest = values
        if operators[0] in _COMPARISONS:
            pairs = zip(values[:-1], operators, values[1:], strict=True)
            return reduce(np.logical_and, (_COMPARISONS[sign](*self._alike(a, b)) for a, sign, b in pairs))
        for sign, other in zip(operators, rest, strict=True):
            first = self._join(sign, first, other)
        return first

    def _join(self, sign: str, a: Any, b: Any) -> Any:
        if isinstance(a, Members):
            join = {
                "+": np.logical_or, "-": lambda x, y: np.logical_and(x, ~np.asarray(y)), "&": np.logical_and
            }[sign]  # fmt: skip
            return Members(lambda p, a=a, b=b: join(a.has(p), b.has(p)))
        if sign in ("and", "&"):
            return np.logical_and(a, b)
        if sign in ("or", "|"):
            return np.logical_or(a, b)
        if _is_real(a) or _is_real(b):
            a, b = self.real(a), self.real(b)
            return self.off({"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div}[sign](a, b))
        if sign == "-" and np.asarray(a).dtype == np.bool_:
            return np.logical_and(a, np.logical_not(b))
        match sign:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "%":
                return a % b
        return a // b  # between whole numbers `/` comes out even

    def _alike(self, a: Any, b: Any) -> tuple[Any, Any]:
        if not (_is_real(a) or _is_real(b)):
            return a, b
        return self.real(a).detach().numpy(), self.real(b).detach().numpy()

    def _call(self, name: str, args: list[tuple[str, tree.Expression]], at: At) -> Any:
        if name in _SIGNATURES:
            given = dict(zip(_SIGNATURES[name], (node for key, node in args if not key), strict=False))
            given |= {key: node for key, node in args if key}
            return self._relation(name, given, at)
        if name == "select":
            return self._select(*(node for _, node in args), at)
        values = [self.value(node, at) for _, node in args]
        if name == "bucket":
            return _bucket(*values)
        if name in ("abs", "min", "max") and not any(map(_is_real, values)):
            return np.abs(values[0]) if name == "abs" else reduce(_WHOLE[name], values)
        reals = [self.real(value) for value in values]
        return self.off(reduce(_REAL[name], reals) if len(reals) > 1 else _REAL[name](reals[0]))

    def _select(self, condition: tree.Expression, a: tree.Expression, b: tree.Expression, at: At) -> Any:
        """Either side is evaluated where it is chosen alone."""
        if at.x is not None:
            chosen = torch.from_numpy(np.asarray(self.value(condition, at)))
            return torch.where(chosen, self.real(self.value(a, at)), self.real(self.value(b, at)))
        shape = np.broadcast_shapes(*(np.shape(part) for part in (at.b, at.h, at.q, at.k)))
        chosen = np.broadcast_to(np.asarray(self.value(condition, at)), shape)
        if len(shape) != 1:  # whole numbers of a relation, which always have a value
            return np.where(chosen, self.value(a, at), self.value(b, at))
        sides = [self.value(a, at.some(chosen)), self.value(b, at.some(~chosen))]
        if not any(map(_is_real, sides)):
            found = np.zeros(shape, dtype=np.int64)
            found[chosen], found[~chosen] = sides
            return found
        joined = torch.zeros(shape, dtype=self.dtype)
        for which, side in zip((chosen, ~chosen), sides, strict=True):
            where = torch.from_numpy(np.flatnonzero(which))
            joined = joined.index_copy(0, where, self.real(side).expand(where.shape))
        return joined

    def _relation(self, name: str, given: dict[str, tree.Expression], at: At) -> Any:
        axis = given.pop("axis", None)
        q, k, length = at.q, at.k, at.n
        if axis is not None:
            assert isinstance(axis, tree.Name)
            along = self.axes[axis.name]
            length = along.size or -(-at.n // along.divisor)
            q, k = self._coordinate(axis.name, q), self._coordinate(axis.name, k)
        if name == "blocks":
            size = self.value(given["size"], at)
            inside = replace(at, q=at.q // size, k=at.k // size, n=-(-at.n // size))
            return self.value(given["relation"], inside)
        if name == "same":
            [node] = given.values()
            assert isinstance(node, tree.Name)
            return self._entry(node.name, [at.q], at) == self._entry(node.name, [at.k], at)
        value = {key: self.value(node, at) for key, node in given.items()}
        match name:
            case "window":
                dilation = value.get("dilation", 1)
                inside = (q - k <= value["left"] * dilation) & (k - q <= value.get("right", 0) * dilation)
                return inside & ((q - k) % dilation == 0)
            case "chunk":
                return q // value["size"] == k // value["size"]
            case "stride":
                return (q - k) % value["step"] == 0
            case "neighborhood":
                return _nearest(int(length), int(value["size"]), int(value.get("dilation", 1)))[q, k]
            case "to":
                return value["set"].has(k)
            case "from":
                return value["set"].has(q)
            case "offsets":
                return value["set"].has(q - k)
            case "random":
                past = bool(value.get("past", False))
                return _random(int(value["count"]), int(value["seed"]), past, at)
            case "first":
                return Members(lambda p: p < value["count"])
            case "last":
                return Members(lambda p: p >= at.n - value["count"])
            case "every":
                return Members(lambda p: p % value["step"] == value.get("offset", 0))
            case "powers":
                return Members(lambda p: (p >= 0) & (p & (p - 1) == 0))
        raise TypeError(f"no meaning for {name}")

    # --- real numbers ---------------------------------------------------------------------------------

    def real(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return torch.as_tensor(np.asarray(value)).to(self.dtype)

    def off(self, x: Tensor) -> Tensor:
        """As it is, or off by the noise."""
        if not self.noise:
            return x
        there, back = torch.randn((2, *x.shape), generator=self.generator, dtype=torch.float64)
        off: Tensor = _Off.apply(x, 1 + self.noise * there, 1 + self.noise * back)
        return off


class _Off(torch.autograd.Function):
    """A number off by a factor, whose gradient is off by another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x * there

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.saved_tensors[0], None, None


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor | float)


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: np.equal(a, b), "!=": lambda a, b: np.not_equal(a, b), "<": lambda a, b: np.less(a, b),
    "<=": lambda a, b: np.less_equal(a, b), ">": lambda a, b: np.greater(a, b),
    ">=": lambda a, b: np.greater_equal(a, b),
}  # fmt: skip
_WHOLE: dict[str, Callable[[Any, Any], Any]] = {"min": np.minimum, "max": np.maximum}
_REAL: dict[str, Callable[..., Tensor]] = {
    name: getattr(torch, name)
    for name in ("exp", "exp2", "log", "log2", "sqrt", "tanh", "sigmoid", "sin", "cos", "abs")
} | {
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e9),
    "relu": torch.nn.functional.relu,
    "elu": torch.nn.functional.elu,
    "min": torch.minimum,
    "max": torch.maximum,
}
_SIGNATURES = {
    "window": ("left", "right", "dilation"), "chunk": ("size",), "stride": ("step",), "to": ("set",),
    "neighborhood": ("size", "dilation"),
    "from": ("set",), "offsets": ("set",), "same": ("input",), "random": ("count", "seed", "past"),
    "blocks": ("size", "relation"), "first": ("count",), "last": ("count",), "every": ("step", "offset"),
    "powers": ("base",),
}  # fmt: skip


def _nearest(length: int, size: int, dilation: int) -> Any:
    """Which keys a query attends to, (query, key): of its residue class as many in a row around it."""
    found = np.zeros((length, length), dtype=np.bool_)
    for query in range(length):
        members = range(query % dilation, length, dilation)
        start = max(0, min(members.index(query) - size // 2, len(members) - size))
        found[query, members[start : start + size]] = True
    return found


def _bucket(x: Any, exact: int, buckets: int, most: int) -> Any:
    """Whole distances below ``exact``, then ever wider ones (T5)."""
    wide = np.log(np.maximum(x, exact) / exact) / math.log(most / exact) * (buckets - exact)
    return np.where(x < exact, x, np.minimum(exact + np.floor(wide + 1e-12).astype(np.int64), buckets - 1))


def _random(count: int, seed: int, past: bool, at: At) -> Any:
    """Floyd's sampling by a hash of seed, head, row and draw, on 32 bits."""
    word = 0xFFFFFFFF

    def mix(x: int) -> int:
        x = ((x ^ x >> 15) * 0x2C1B3C6D) & word
        x = ((x ^ x >> 12) * 0x297A2D39) & word
        return x ^ x >> 15

    def picks(head: int, row: int) -> set[int]:
        size = row + 1 if past else at.n
        if size <= count:
            return set(range(size))
        found: set[int] = set()
        start = mix(mix(mix(seed & word ^ 0x9E3779B9) ^ head) ^ row)
        for i in range(count):
            last = size - count + i
            column = mix(start ^ i) % (last + 1)
            found.add(last if column in found else column)
        return found

    heads, rows = np.unique(at.h).tolist(), np.unique(at.q).tolist()
    chosen = np.zeros((max(heads, default=0) + 1, max(rows, default=0) + 1, at.n + 1), dtype=np.bool_)
    for head in heads:
        for row in rows:
            chosen[head, row, sorted(picks(head, row))] = True
    return chosen[np.broadcast_arrays(at.h, at.q, at.k)[0], np.broadcast_arrays(at.h, at.q, at.k)[1],
                  np.broadcast_arrays(at.h, at.q, at.k)[2]]  # fmt: skip

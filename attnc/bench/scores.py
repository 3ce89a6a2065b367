"""What a pattern weighs edges by, as functions of tensors: a `score_mod` of FlexAttention, maps, gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from attnc.codegen.needs import identifier
from attnc.codegen.parts.tables import _maximum, _minimum
from attnc.codegen.printer import Printer
from attnc.codegen.real_text import RealPrinter
from attnc.expression import HEADS, TRUE, Const, Expr, N, constant, fold, substitute
from attnc.pattern import Pattern
from attnc.real import Entry, Number, Real, S, Whole, folded, rebuilt

ScoreFunction = Callable[[Any, Any, Any, Any, Any], Any]


def score_function(pattern: Pattern, n: int, heads: int, inputs: Mapping[str, torch.Tensor]) -> ScoreFunction:
    """``score(s, b, h, q, k)`` for ``n`` keys and that many heads, of a pattern that weighs by softmax.

    inputs: without a batch axis. Every call makes a new function, with code of its own.
    """
    closure = {identifier(name): value for name, value in inputs.items()}
    written, printer = _writer(inputs, {"q": "q", "k": "k", "h": "h", "n": str(n), "H": str(heads)})
    text = "s"
    for body in reversed(pattern.bodies):
        value = written(_known(folded(body.weights.score), n, heads))
        condition = fold(body.heads.condition)
        text = value if condition == TRUE else f"torch.where({printer(condition)}, {value}, {text})"
    lines = [
        f"def make({', '.join(closure)}):",
        f"    def {pattern.name}_score(s, b, h, q, k):",
        "        dtype = s.dtype",
        f"        return {text}",
        f"    return {pattern.name}_score",
    ]
    made: ScoreFunction = _run(lines)["make"](**closure)
    return made


def feature_function(value: Real) -> Callable[[torch.Tensor], torch.Tensor]:
    """The elementwise feature map ``value`` of ``x``, in the dtype of its argument."""
    written, _ = _writer({}, {})
    text = f"    return {written(folded(value))}"
    made: Callable[[torch.Tensor], torch.Tensor] = _run(["def mapped(x):", "    dtype = x.dtype", text])[
        "mapped"
    ]
    return made


def head_values(
    value: Real, heads: int, inputs: Mapping[str, torch.Tensor], device: torch.device
) -> torch.Tensor:
    """The value of an expression over ``h`` for every head, (heads,) in fp32."""
    written, _ = _writer(inputs, {"h": "h", "H": str(heads)})
    names = ", ".join(("h", "dtype", *map(identifier, inputs)))
    made = _run([f"def valued({names}):", f"    return {written(_known(folded(value), heads, heads))}"])[
        "valued"
    ]
    found = made(torch.arange(heads, device=device), torch.float32, *inputs.values())
    return torch.as_tensor(found, dtype=torch.float32, device=device).expand(heads).contiguous()


def _writer(
    inputs: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> tuple[Callable[[Real], str], Callable[[Expr], str]]:
    """What writes real expressions, and integer ones, as text over tensors of positions and inputs."""

    def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
        # What is read outside of a table is never used.
        sizes = inputs[table].shape
        places = (f"_held({text}, {size - 1})" for text, size in zip(index, sizes, strict=True))
        return f"{identifier(table)}[{', '.join(places)}]"

    printer = Printer("tensor", dict(names), lookup)

    def entry(found: Entry) -> str:
        return f"{lookup(found.table, tuple(map(printer, found.index)), 'float')}.to(dtype)"

    return RealPrinter(printer, entry), printer


def _run(lines: list[str]) -> dict[str, Any]:
    """What the text of a function defines."""
    scope: dict[str, Any] = {
        "torch": torch,
        "_held": _held,
        "_minimum": _minimum,
        "_maximum": _maximum,
        "__name__": __name__,
    }
    exec("\n".join(lines), scope)
    return scope


def _known(score: Real, n: int, heads: int) -> Real:
    """The score with sizes as the numbers that they are."""

    def sized(expr: Expr) -> Expr:
        return fold(substitute(expr, {N: Const(n), HEADS: Const(heads)}))

    def number(part: Real) -> Real | None:
        value = constant(part.expr) if isinstance(part, Whole) else None
        return None if value is None else Number(float(value))

    return rebuilt(rebuilt(score, lambda part: None, sized), number) if score != S else S


def _held(place: Any, last: int) -> Any:
    """An index within 0 .. last."""
    return place.clamp(0, last) if isinstance(place, torch.Tensor) else min(max(place, 0), last)

"""A pattern's score as a `score_mod` of FlexAttention, where that can be said."""

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

    def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
        # What is read outside of a table is never used.
        sizes = inputs[table].shape
        places = (f"_held({text}, {size - 1})" for text, size in zip(index, sizes, strict=True))
        return f"{identifier(table)}[{', '.join(places)}]"

    printer = Printer("tensor", {"q": "q", "k": "k", "h": "h", "n": str(n), "H": str(heads)}, lookup)

    def entry(found: Entry) -> str:
        return f"{lookup(found.table, tuple(map(printer, found.index)), 'float')}.to(dtype)"

    written = RealPrinter(printer, entry)
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
    scope: dict[str, Any] = {
        "torch": torch,
        "_held": _held,
        "_minimum": _minimum,
        "_maximum": _maximum,
        "__name__": __name__,
    }
    exec("\n".join(lines), scope)
    made: ScoreFunction = scope["make"](**closure)
    return made


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

"""A pattern's mask as one torch function of (batch, head, query, key).

It is what FlexAttention calls a mask function, and broadcasts over position tensors as well: dense masks,
block masks and edge counts are all made from it. Inputs and random draws are tensors in its closure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from attnc import draws
from attnc.codegen.needs import Draw, draw_of, identifier
from attnc.codegen.parts.tables import _maximum, _minimum
from attnc.codegen.printer import Printer
from attnc.evaluation import Env, evaluate
from attnc.expression import TRUE, Drawn, Expr, Truth, fold, variables, walk
from attnc.pattern import Pattern, formula

MaskFunction = Callable[[Any, Any, Any, Any], Any]

# Entries of a mask that are computed at a time: temporaries of that many 64-bit integers.
CHUNK = 1 << 22


def by_head(pattern: Pattern) -> bool:
    """Whether heads may read different keys."""
    body, *others = pattern.bodies
    if others:
        return True
    relation = formula(body.relation)
    return "h" in variables(relation) or any(isinstance(part, Drawn) for part in walk(relation))


def mask_function(
    pattern: Pattern, n: int, heads: int, inputs: Mapping[str, torch.Tensor], device: torch.device
) -> MaskFunction:
    """The pattern for ``n`` queries and keys: ``mask(b, h, q, k)`` is true where ``q`` reads ``k``.

    inputs: without a batch axis, on ``device``. The arguments of the function are integer tensors that
    broadcast together. Every call makes a new function, with code of its own.
    """
    closure: dict[str, Any] = {identifier(name): value for name, value in inputs.items()}
    picks: dict[Draw, str] = {}

    def lookup(table: str, index: tuple[str, ...], kind: str) -> str:
        # What is read outside of a table is never used: a condition beside it says so.
        sizes = inputs[table].shape
        places = (f"({text}).clamp(0, {size - 1})" for text, size in zip(index, sizes, strict=True))
        return f"{identifier(table)}[{', '.join(places)}]"

    def drawn(expr: Drawn, row: str, column: str) -> str:
        draw = draw_of(expr)
        name = picks.setdefault(draw, f"picks_{len(picks)}")
        # A table for every slot: torch's compiler cannot vectorize an index that is partly constant.
        slots = (f"({name}_{slot}[h, {row}] == {column})" for slot in range(draw.count))
        return f"({' | '.join(slots)})"

    printer = Printer("tensor", {"q": "q", "k": "k", "h": "h", "n": str(n), "H": str(heads)}, lookup, drawn)
    choices = []
    for body in pattern.bodies:
        edges, condition = fold(formula(body.relation)), fold(body.heads.condition)
        parts = [_tensor(printer, part) for part in (condition, edges) if part != TRUE]
        choices.append(" & ".join(parts) or "(q >= 0)")
    for draw, name in picks.items():
        columns = _drawn_columns(draw, n, heads).to(device)
        closure |= {f"{name}_{slot}": columns[..., slot].contiguous() for slot in range(draw.count)}
    lines = [
        f"def make({', '.join(closure)}):",
        f"    def {pattern.name}_mask(b, h, q, k):",
        f"        return {' | '.join(choices)}",
        f"    return {pattern.name}_mask",
    ]
    scope: dict[str, Any] = {
        "torch": torch,
        "_minimum": _minimum,
        "_maximum": _maximum,
        "__name__": __name__,
    }
    exec("\n".join(lines), scope)
    made: MaskFunction = scope["make"](**closure)
    return made


def _tensor(printer: Printer, expr: Expr) -> str:
    """A condition in brackets; a constant one as a tensor."""
    return "(q < 0)" if isinstance(expr, Truth) else f"({printer(expr)})"


def _drawn_columns(draw: Draw, n: int, heads: int) -> torch.Tensor:
    """What every row draws: (heads, rows, count) int64, -1 in empty slots."""
    population = int(evaluate(draw.population, Env({"n": n})))
    rows = np.arange(-(-n // draw.size), dtype=np.int64)[None, :]
    numbers = np.arange(heads, dtype=np.int64)[:, None]
    return torch.from_numpy(draws.picks(draw.count, draw.seed, draw.past, numbers, rows, population))


def masks_of(
    mask: MaskFunction, rows: torch.Tensor, n: int, heads: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The mask of query positions ``rows``, a chunk at a time: the chunk, and (heads, rows, n) booleans.

    heads: 1 where all heads read the same keys.
    """
    device = rows.device
    h = torch.arange(heads, device=device)[:, None, None]
    k = torch.arange(n, device=device)[None, None, :]
    b = torch.zeros((), dtype=torch.int64, device=device)
    for part in torch.split(rows, max(1, CHUNK // max(1, n * heads))):
        yield part, mask(b, h, part[None, :, None], k).expand(heads, len(part), n)

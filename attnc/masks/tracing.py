"""A user's function is run once, on symbols; what it does to them is written down as an expression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from attnc.expression import HEAD, TRUE, Expr, K, Q, Truth, Var
from attnc.masks import operations, scores
from attnc.masks.places import refuse_function
from attnc.masks.symbols import Symbol, Tables, call, parts_of
from attnc.real import Number, Real, S

BATCH = Var("b")

assert operations and scores  # they fill the tables of what is known


def trace(function: Callable[..., Any]) -> tuple[Expr, dict[str, torch.Tensor]]:
    """What a function of batch, head, query and key says, as a condition, and the tensors that it reads.

    Raises ``AttncError`` that marks what cannot be traced; what the function raises itself goes through.
    """
    tables = Tables()
    answer = _answer(function, tables)
    if isinstance(answer, bool):
        return Truth(answer), {}
    if isinstance(answer, Symbol) and answer.is_bool:
        return answer.expr, tables.tensors
    told = "a number" if isinstance(answer, (Symbol, int, float)) else f"{type(answer).__name__}"
    refuse_function(
        function,
        f"a mask function answers with a condition, and this one with {told}",
        "let it return a comparison, or several joined by `&`, `|` and `~`",
    )


def trace_score(function: Callable[..., Any]) -> tuple[Real, Expr, dict[str, torch.Tensor]]:
    """What a function of score, batch, head, query and key makes of the score, where it is not minus
    infinity, and the tensors that it reads. Raises as ``trace`` does.
    """
    tables = Tables(real=True)
    answer = _answer(function, tables, Symbol(S, "real", tables))
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return Number(float(answer)), TRUE, tables.tensors
    if isinstance(answer, Symbol) and answer.kind in ("real", "int"):
        return scores.real_of(tables, answer), answer.edges, tables.tensors
    told = "a condition" if isinstance(answer, (Symbol, bool)) else f"{type(answer).__name__}"
    refuse_function(
        function,
        f"a score function answers with a score, and this one with {told}",
        "choose by `torch.where(condition, score, -float('inf'))`",
    )


def _answer(function: Callable[..., Any], tables: Tables, *first: Symbol) -> Any:
    symbols = [Symbol(variable, "int", tables) for variable in (BATCH, HEAD, Q, K)]
    with _Reading(tables):
        answer = function(*first, *symbols)
    return answer.item() if isinstance(answer, torch.Tensor) and answer.dim() == 0 else answer


class _Reading(TorchFunctionMode):
    """While a function is traced: reading a tensor at a symbol, which only a mode gets to see."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(part, Symbol) for part in parts_of((args, kwargs or {}))):
            return call(self.tables, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

"""How many instructions a step of a sweep issues, beside matrix products: fitted to machine code.

``instructions.json`` holds what the fit found, and how far off it is. What a pattern adds to a step is told
by the operations that are done for every pair: those of its mask and of its score.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from attnc.codegen.tile_tables import Sizes, level
from attnc.codegen.weights import BodyWeights
from attnc.expression import Const, Expr, Var, variables, walk
from attnc.real import Apply, Entry, Real, Score, everywhere, integers
from attnc.schedule import Pass, Sweep

# Functions that take an instruction or two.
CHEAP = {"abs", "min", "max", "relu"}
THREADS = 32


@cache
def fitted() -> dict[str, Any]:
    """The fit: ``full`` by kernel, shape of tile and level; what masks and operations add."""
    text = files("attnc.prediction").joinpath("instructions.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def of_mask(part: Pass, sweep: Sweep) -> int:
    """The operations of a sweep's mask that are done for every pair."""
    own = {part.walk.var.name, *(digit.name for digit in part.walk.digits)}
    other = {sweep.walk.var.name, *(digit.name for digit in sweep.walk.digits)}
    return sum(_of_pairs(item, own, other) for item in set(walk(sweep.mask)))


def _of_pairs(expr: Expr, own: set[str], other: set[str]) -> bool:
    if isinstance(expr, Const | Var):
        return False
    found = variables(expr)
    return bool(found & own and found & other)


class Scored(NamedTuple):
    """What a score does for every pair: operations, functions such as ``tanh``, and entries that it reads."""

    operations: int = 0
    functions: int = 0
    entries: int = 0


def of_score(weights: BodyWeights) -> Scored:
    """What is done for every pair, beside the product's scale."""
    if weights.plain:
        return Scored()
    found = [part for part in set(everywhere(weights.score)) if _moves(part)]
    entries = sum(isinstance(part, Entry) for part in found)
    functions = sum(isinstance(part, Apply) and part.function not in CHEAP for part in found)
    leaves = sum(isinstance(part, Score) for part in found)
    return Scored(len(found) - entries - functions - leaves, functions, entries)


def _moves(expr: Real) -> bool:
    """Whether it is another number for every pair."""
    if any(isinstance(part, Score) for part in everywhere(expr)):
        return True
    return any({"q", "k"} <= variables(number) for part in everywhere(expr) for number in integers(part))


def instructions(
    kernel: str, shape: str, dim: int, sizes: Sizes, part: Pass, sweep: Sweep | None, weights: BodyWeights
) -> float:
    """Instructions that a warp issues in a step; sweep: whose mask is looked at, None where none is."""
    scored = of_score(weights)
    operations = scored.operations + (0 if sweep is None else of_mask(part, sweep))
    each = of_step(kernel, shape, dim, sweep is not None, scored._replace(operations=operations))
    return each * sizes.queries * sizes.keys / (sizes.warps * THREADS)


def of_step(kernel: str, shape: str, dim: int, masked: bool, done: Scored) -> float:
    """Instructions for every score that a thread has. done: for every pair, by score and mask."""
    fit = fitted()
    known = fit["full"][kernel]
    each = known.get(shape, known["wide"])[min(level(dim), 1)] + fit["masked"] * masked
    each += fit["operation"] * done.operations + fit["function"] * done.functions
    return float(each + fit["entry"] * done.entries)

"""Sample contents of inputs, each a word: ``spread:5``, ``every:512``, ``random:0.02``, ``runs:8``.

What is counted, drawn or timed with sample inputs has the same ones everywhere: those of ``chosen``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc.evaluation import Env, evaluate
from attnc.pattern import Input, Pattern

# How an input is filled when nothing is said: five true entries far apart (random ones would touch every tile
# of a picture), eight documents, numbers around zero; gates as logarithms, and rates of the delta rule.
DEFAULTS = {"bool": "spread:5", "int": "runs:8", "float": "normal"}
GATES, RATES = "uniform:-0.1:0", "uniform:0:1"
_FORMS = {
    "bool": "spread:COUNT, first:COUNT, every:STEP or random:SHARE, where counts are whole numbers below "
    "10**9, a step is at least 1, and a share is from 0 to 1",
    "int": "runs:COUNT, a whole number from 1 on",
    "float": "normal, normal:DEVIATION or uniform:LEAST:MOST",
}
_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"


class BadFill(ValueError):
    """An input that is not there or cannot be filled so; the text says what and how to mend it."""


def chosen(pattern: Pattern, fills: Mapping[str, str] | None = None) -> dict[str, str]:
    """The word for every input: the one that was given, or the usual one of its kind.

    Raises ``BadFill`` for inputs that the pattern does not have.
    """
    given = {item.name: item for item in pattern.inputs}
    for name in fills or {}:
        if name not in given:
            known = f"its inputs are {', '.join(given)}" if given else "it has none"
            raise BadFill(f"`{pattern.name}` has no input {name!r}: {known}")
    usual = {name: DEFAULTS[item.kind] for name, item in given.items()} | _of_weights(pattern)
    return {name: (fills or {}).get(name, usual[name]) for name in given}


def _of_weights(pattern: Pattern) -> dict[str, str]:
    """What inputs hold that not every number would do for."""
    found = {}
    for weights in (part.weights for body in pattern.bodies for part in body.parts):
        if weights.decay is not None and weights.decay.table:
            found[weights.decay.table] = GATES
        if weights.beta is not None:
            found[weights.beta] = RATES
    return found


def known(fills: Iterable[str], patterns: Sequence[Pattern]) -> None:
    """Raises ``BadFill`` for a name that is no input of any of the patterns."""
    everywhere = {item.name for pattern in patterns for item in pattern.inputs}
    for name in fills:
        if name not in everywhere:
            names = f"the inputs are {', '.join(sorted(everywhere))}" if everywhere else "there are none"
            raise BadFill(f"there is no input {name!r} to fill: {names}")


def filled(
    pattern: Pattern,
    n: int,
    heads: int,
    fills: Mapping[str, str] | None = None,
    seed: int = 0,
    dim: int = 64,
) -> dict[str, npt.NDArray[Any]]:
    """An array for every input, of the shape that the pattern declares: bool, int64 or float32.

    dim: of a head; 0 leaves out float inputs, which choose no edges.
    Raises ``BadFill`` for inputs that are not there or cannot be filled so.
    """
    words = chosen(pattern, fills)
    generator = np.random.Generator(np.random.PCG64(seed))
    return {
        item.name: _filled(item, words[item.name], {"n": n, "H": heads, "d": dim}, generator)
        for item in pattern.inputs
        if dim or item.kind != "float"
    }


def true_entries(item: Input, fill: str, n: int) -> int:
    """About how many entries of a bool input are true when it is filled so, with one head."""
    shape = _shape(item, {"n": n, "H": 1, "d": 1})
    size, longest = int(np.prod(shape)), max(shape)
    word, _, number = fill.partition(":")
    match word:
        case "first":
            return min(int(number), size)
        case "spread":
            return len(_spread(int(number), longest)) * (size // max(longest, 1))
        case "every":
            return -(-size // int(number))
    return round(float(number) * size)


def _shape(item: Input, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(max(int(evaluate(size, Env(sizes))), 0) for size in item.shape)


def _filled(
    item: Input, fill: str, sizes: Mapping[str, int], generator: np.random.Generator
) -> npt.NDArray[Any]:
    shape = _shape(item, sizes)
    word, _, number = fill.partition(":")
    match item.kind, word:
        case "bool", "first" if _whole(number):
            return np.broadcast_to(np.arange(shape[-1]) < int(number), shape).copy()
        case "bool", "spread" if _whole(number):
            true = np.zeros(shape, dtype=np.bool_)
            longest = int(np.argmax(shape))
            np.moveaxis(true, longest, -1)[..., _spread(int(number), shape[longest])] = True
            return true
        case "bool", "every" if _whole(number) and int(number):
            return np.broadcast_to(np.arange(shape[-1]) % int(number) == 0, shape).copy()
        case "bool", "random" if re.fullmatch(r"0?\.\d+|0|1|[01]\.0*", number):
            return np.asarray(generator.random(shape) < float(number))
        case "int", "runs" if _whole(number) and int(number):
            # Runs of equal numbers whose borders fall anywhere: documents of random length.
            borders = np.zeros(shape, dtype=np.int64)
            count = min(int(number), max(shape[-1], 1)) - 1
            for row in borders.reshape(-1, shape[-1]) if borders.size else ():
                row[1 + np.argsort(generator.random(shape[-1] - 1))[:count]] = 1
            return np.asarray(borders.cumsum(-1))
        case "float", "normal" if not number or re.fullmatch(_NUMBER, number):
            return generator.standard_normal(shape, dtype=np.float32) * np.float32(number or 1)
        case "float", "uniform" if re.fullmatch(f"{_NUMBER}:{_NUMBER}", number):
            least, most = map(float, number.split(":"))
            return generator.uniform(least, max(least, most), shape).astype(np.float32)
    raise BadFill(
        f"input `{item.name}` is of kind {item.kind} and cannot be filled by {fill!r}: "
        f"write {_FORMS[item.kind]}"
    )


def _spread(count: int, size: int) -> npt.NDArray[np.int64]:
    """So many places of an axis far apart, and no more than half of all."""
    count = min(count, -(-size // 2))
    return np.arange(count) * size // max(count, 1)


def _whole(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None

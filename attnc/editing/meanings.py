"""What every word of the language means: the tables of the language reference, and what stands in none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from attnc import grammar, names

WORDS = frozenset(
    (
        *("pattern", *names.ITEMS, *names.WEIGHTS, "with", "softmax", *chain(*names.MODES.values())),
        *(*names.RELATIONS, *names.SETS, "where"),
        *(*names.FUNCTIONS, *names.REAL_FUNCTIONS, *names.WEIGHING_FUNCTIONS, *names.MAPS, *names.UPDATES),
        *(*names.VARIABLES, "d", *names.CLAIMS, *names.SELECTORS, *names.KINDS),
        *("and", "or", "not", "true", "false"),
    )
)


@dataclass(frozen=True)
class Meaning:
    """kind: what sort of word it is; form: how it is written; text: what it says, in Markdown."""

    kind: str
    form: str
    text: str


def meanings(word: str) -> tuple[Meaning, ...]:
    """All that a word means in some place or other; nothing for what is no word of the language."""
    if word not in WORDS:
        return ()
    told = _documented().get(word, ())
    kinds = {meaning.kind for meaning in told}
    return (*told, *(meaning for meaning in _OTHERS.get(word, ()) if meaning.kind not in kinds))


# --- the reference --------------------------------------------------------------------------------------

_ROW = re.compile(r"^\|((?:[^|\\`]|\\.|`[^`]*`)*)\|(.*)\|\s*$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_RULE = re.compile(r"[\s|:-]+")


@cache
def _documented() -> dict[str, tuple[Meaning, ...]]:
    """The rows of the reference's tables, by the words that they are about."""
    found: dict[str, list[Meaning]] = {}
    kind = ""
    before = ""
    for line in Path(grammar.__file__).with_name("README.md").read_text(encoding="utf-8").splitlines():
        row = _ROW.match(line)
        if row is not None and not before.startswith("|"):
            kind = row[1].strip().split(",")[0]
        elif row is not None and not _RULE.fullmatch(line):
            for meaning in [] if not row[2].strip() else _read(kind, row[1].strip(), row[2].strip()):
                word = re.match(r"[A-Za-z_]\w*", meaning.form)
                if word is not None:
                    found.setdefault(word[0], []).append(meaning)
        before = line
    return {word: tuple(listed) for word, listed in found.items()}


def _read(kind: str, cell: str, text: str) -> list[Meaning]:
    """The meanings that a row tells; one that tells of several in turn is taken apart."""
    forms = [form.replace("\\|", "|") for form in _CODE.findall(cell)]
    text = text.replace("\\|", "|")
    told = re.split(r", (?![^(]*\))", text)
    if ". " in text or ";" in text or len(told) != len(forms):
        told = [text] * len(forms)
    return [Meaning(kind, form, part) for form, part in zip(forms, told, strict=True)]


# --- words that stand in no table -----------------------------------------------------------------------


def _others() -> dict[str, tuple[Meaning, ...]]:
    rows = (
        ("item", "pattern name(parameter: int = 64) { … }", "which query reads which key, under a name"),
        (
            "item",
            "score EXPR",
            "softmax over EXPR: of `s`, the scaled dot product, positions, heads and inputs",
        ),
        ("item", "sink x[h]", "adds `exp(x[h])` to the denominator of softmax"),
        (
            "item",
            "kernel EXPR",
            "in place of softmax an edge weighs `phi(q) . phi(k)`; EXPR is of `x`, a coordinate of either, "
            "or one of `favor(…)`, `taylor()`, `cosine(length)`",
        ),
        (
            "item",
            "normalize sum",
            "`sum` divides by the row's sum of weights, as `kernel` does; `none` does not",
        ),
        (
            "item",
            "decay g",
            "weights times the product of gates from `k + 1` to `q`, which are given as logarithms; "
            "`exclusive`: to `q - 1`",
        ),
        ("item", "bonus u", "the weight of a query's own position, which an exclusive decay leaves out"),
        ("item", "update delta(beta)", "the delta rule in the place of plain addition"),
        (
            "weight",
            "attend R with score EXPR",
            "what the edges of this relation weigh, where others weigh otherwise",
        ),
        ("weight", "with softmax", "these edges are weighed by softmax"),
        ("mode", "normalize sum", "weights are divided by their row's sum"),
        ("mode", "normalize none", "weights are taken as they are"),
        ("mode", "decay g exclusive", "gates up to `q - 1`"),
        ("map", "favor(features, seed)", "positive random features of the softmax kernel (Performer)"),
        ("map", "taylor()", "the exponential's series, up to its second power"),
        ("map", "cosine(length)", "reweighs by the cosine of the distance over a length (cosFormer)"),
        ("update", "delta(beta)", "the delta rule: what a key held before is taken out, by `beta`"),
        ("function", "abs(x)", "the number without its sign"),
        ("function", "min(x, …)", "the smallest"),
        ("function", "max(x, …)", "the largest"),
        ("function", "count(x)", "the number of true entries of a bool input, in the bound of a claim"),
        ("function", "exp(x)", "e to the power of x"),
        ("function", "exp2(x)", "2 to the power of x"),
        ("function", "log(x)", "the natural logarithm"),
        ("function", "log2(x)", "the logarithm to base 2"),
        ("function", "sqrt(x)", "the square root"),
        ("function", "tanh(x)", "the hyperbolic tangent"),
        ("function", "sigmoid(x)", "`1 / (1 + exp(-x))`"),
        ("function", "softplus(x)", "`log(1 + exp(x))`"),
        ("function", "relu(x)", "`max(x, 0)`"),
        ("function", "elu(x)", "x where it is positive, `exp(x) - 1` elsewhere"),
        ("function", "sin(x)", "the sine"),
        ("function", "cos(x)", "the cosine"),
        ("function", "select(condition, then, otherwise)", "one of two numbers, by a condition"),
        (
            "function",
            "bucket(distance, exact, buckets, most)",
            "the bucket of a distance: one for each below `exact`, then ever wider ones up to `most` (T5)",
        ),
        ("heads", "heads even { … }", "heads 0, 2, 4, …"),
        ("heads", "heads odd { … }", "heads 1, 3, 5, …"),
        ("heads", "heads rest { … }", "heads that no other body has"),
        ("operator", "A and B", "both conditions hold"),
        ("operator", "A or B", "either condition holds"),
        ("operator", "not A", "the condition does not hold"),
        ("condition", "true", "always"),
        ("condition", "false", "never"),
        ("type", "int", "whole numbers"),
        ("type", "float", "numbers with a fraction; they weigh edges, and don't choose them"),
        ("type", "bool", "`true` or `false`"),
    )
    found: dict[str, list[Meaning]] = {}
    for kind, form, text in rows:
        for word in _words_of(kind, form):
            found.setdefault(word, []).append(Meaning(kind, form, text))
    return {word: tuple(listed) for word, listed in found.items()}


def _words_of(kind: str, form: str) -> tuple[str, ...]:
    """Which word of a form its row is about."""
    listed = re.findall(r"[A-Za-z_]\w*", form)
    match kind:
        case "mode":
            return (listed[-1],)
        case "heads":
            return (listed[1],)
        case "operator":
            return tuple(word for word in listed if word in ("and", "or", "not"))
        case "weight":
            return ("with",) if listed[0] == "attend" else ("softmax",)
    return (listed[0],)


_OTHERS = _others()

"""The words of the language: which are taken, which are kept free for later, and which one was meant."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable

from attnc.diagnostics import Diagnostic, Source, Span

ITEMS = ("attend", "input", "let", "heads", "grid", "require", "assume")
# What edges weigh.
WEIGHTS = ("score", "sink", "kernel", "normalize", "decay", "bonus", "update")

# Reserved word → what it is reserved for.
RESERVED: dict[str, str] = {
    "keys": "keys derived from tokens",
    "pool": "keys derived from tokens",
    "conv": "keys derived from tokens",
    "project": "keys derived from tokens",
    "learned": "keys derived from tokens",
    "memory": "keys derived from tokens",
    "route": "edges chosen by content",
    "lsh": "edges chosen by content",
    "kmeans": "edges chosen by content",
    "sort": "edges chosen by content",
    "topk": "edges chosen by content",
    "stage": "several attentions in one pattern",
    "sum_of": "several attentions in one pattern",
    "cache": "the state of a decoder",
    "order": "generation orders other than left to right",
}

VARIABLES = ("q", "k", "n", "h", "H")
CONSTANT_RELATIONS = ("all", "none", "self", "causal")
RELATIONS = (
    *CONSTANT_RELATIONS,
    "window",
    "chunk",
    "stride",
    "neighborhood",
    "to",
    "from",
    "offsets",
    "same",
    "random",
    "blocks",
)
SETS = ("first", "last", "every", "powers")
FUNCTIONS = ("abs", "min", "max", "count")
# Functions of real numbers, in weights; and feature maps, after `kernel`.
REAL_FUNCTIONS = (
    "exp",
    "exp2",
    "log",
    "log2",
    "sqrt",
    "tanh",
    "sigmoid",
    "softplus",
    "relu",
    "elu",
    "sin",
    "cos",
)
WEIGHING_FUNCTIONS = ("select", "bucket")
MAPS = ("favor", "taylor", "cosine")
UPDATES = ("delta",)
# Words that stand behind some item and nowhere else.
SELECTORS = ("even", "odd", "rest")
CLAIMS = ("causal", "nonempty", "edges", "flops", "reach")
MODES = {"normalize": ("sum", "none"), "decay": ("exclusive",)}
# Types: of parameters and of the entries of inputs.
KINDS = ("int", "float", "bool")

# Arguments of the emitted function.
_EMITTED = frozenset({"q", "k", "v", "scale", "backend", "self"})
_MODULE = {
    # What the emitted module has by itself, which a function of the pattern's name would replace.
    "pattern": frozenset(
        {
            *("annotations", "contextlib", "math", "os", "sys", "NamedTuple", "torch", "triton", "tl"),
            *("NAME", "DIGEST", "INPUTS", "WEIGHING", "mask", "main"),
        }
    ),
    # A function of linear attention takes a state, and says whether to return one.
    "input": frozenset({"state", "return_state"}),
}
_OWN_WORDS = frozenset(
    (
        *ITEMS,
        *WEIGHTS,
        *MAPS,
        *UPDATES,
        "pattern",
        "where",
        "and",
        "or",
        "not",
        "true",
        "false",
        "with",
        "softmax",
    )
)
_PYTHON_BUILTINS = frozenset(dir(builtins))


def refusal(name: str, role: str) -> str | None:
    """Why ``name`` cannot name a pattern, parameter, input, let or axis (the ``role``), or None."""
    if name.startswith("_"):
        return "names that start with `_` belong to the emitted module"
    if name in _OWN_WORDS:
        return "it is a word of the language"
    if role == "axis":
        return None
    if name in VARIABLES or name == "d":
        return f"`{name}` always stands for {_MEANING[name]}"
    if name in CONSTANT_RELATIONS and not (role == "pattern" and name == "causal"):
        return f"`{name}` is a relation of the language"
    if keyword.iskeyword(name):
        return "it is a keyword of Python, in which the pattern is emitted"
    if name in _EMITTED or name in _MODULE.get(role, ()):
        return f"the emitted module has its own `{name}`"
    if role == "pattern" and name in _PYTHON_BUILTINS:
        return "it is built into Python, in which the pattern is emitted"
    return None


_MEANING = {
    "q": "the query position",
    "k": "the key position",
    "n": "the number of keys",
    "h": "the head",
    "H": "the number of heads",
    "d": "the head dimension",
}


def distance(left: str, right: str, limit: int) -> int:
    """Edits (a letter put in, left out, replaced, or swapped with the next) between two words.

    Anything beyond ``limit`` comes back as ``limit + 1``.
    """
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row = row, [i]
        for j, b in enumerate(right, 1):
            best = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before = previous
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if any is close enough."""
    limit = max(1, len(word) // 3)
    if len(word) > 64:
        return None
    lowered = word.lower()
    scored = [
        (distance(lowered, other.lower(), limit), other) for other in dict.fromkeys(known) if other != word
    ]
    found = min((item for item in scored if item[0] <= limit), default=None)
    return found[1] if found and found[0] < len(word) else None


def meant(word: str, known: Iterable[str]) -> str | None:
    """A help line that names the nearest known word, if there is one."""
    found = nearest(word, known)
    return f"did you mean `{found}`?" if found else None


def reserved(source: Source, word: str, span: Span) -> Diagnostic:
    """A word that is kept for a part of the language that does not exist yet."""
    return Diagnostic(
        "reserved-word",
        "error",
        f"`{word}` is reserved for {RESERVED[word]}",
        source,
        span,
        help="use another name; this part of the language is not available yet",
    )

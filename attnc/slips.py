"""Syntax errors that people make by habit: what stands before the word at fault, and what is meant by it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from attnc import elsewhere
from attnc.diagnostics import Diagnostic
from attnc.names import RELATIONS, SETS

LOOK_BACK = 400

_PARAMETERS = r"\bpattern\s+\w+\s*\([^()]*"
_GRID = r"\bgrid\s*\([^()]*"
_CLAIM = r"\b(require|assume)\s+\w+\s*"
_CALLED = "|".join((*RELATIONS, *SETS))


@dataclass(frozen=True)
class Slip:
    """``{0}`` in message and help is the word at fault, ``{1}`` … are the groups of ``before``.

    before: a pattern for the text that ends where the word begins; word: one for all of the word.
    message: None where the usual one says it.
    """

    before: str
    word: str
    message: str | None
    help: str


SLIPS = (
    # Headers.
    Slip(r"\bpattern\s+\w+\s*", r"-", None, "names are made of letters, digits and `_`"),
    Slip(_PARAMETERS + r"\b(int|float|bool)\s+", r"[A-Za-z]\w*", None, "the name comes first: `{0}: {1}`"),
    Slip(_PARAMETERS + r"\b(\w+)\s*", r"[,)]", None, "a parameter has a type: `{1}: int`"),
    Slip(
        _PARAMETERS + r":\s*\w+\s*", r"\[", None, "a parameter is one number; tensors are declared by `input`"
    ),
    # Items.
    Slip(
        r"\binput\s+(\w+)\s*:\s*(\w+)\s*", r"[^\[]+", None, "an input has a shape, as in `input {1}: {2}[n]`"
    ),
    Slip(_GRID + r"\b(\w+)\s*", r"=", "expected `:` and a size, found `=`", "write `{1}: …`"),
    Slip(_GRID + r"\b([a-z]\w*)\s*", r"[,)]", None, "an axis has a size, as in `{1}: 32`"),
    Slip(_GRID, r"[0-9]+", "expected the name of an axis, found the number `{0}`", "write `y: {0}`"),
    Slip(r"\bgrid\s*", r"[^(]+", None, "write `grid(y: 32, x: 32)`"),
    Slip(r"\battend\s*", r"[:=]", None, "the relation follows at once: `attend …`"),
    Slip(r"\bheads\s*", r"\[", None, "heads are listed in braces, as in `heads {{0, 1}}`"),
    Slip(r"\bheads\s*\{\s*", r"attend|let", None, "say which heads, as in `heads rest {{ … }}`"),
    # Claims.
    Slip(
        r"\b(require|assume)\s+",
        r"not|true|false|where",
        "expected a claim, found `{0}`",
        "a claim is `causal`, `nonempty`, or one of `edges`, `flops` and `reach` with a bound",
    ),
    Slip(_CLAIM, r"causal|nonempty|edges|flops|reach", None, "every claim is an item: write `{1} {0}`"),
    Slip(_CLAIM, r",|and|&", None, "every claim is an item: write `{1} causal {1} nonempty`"),
    Slip(_CLAIM, r"[-+*/%(]", None, "a bound stands behind `<=`, as in `{1} edges <= n * 64`"),
    # Expressions.
    Slip(r"\(\s*(?:[^()]*,\s*)?(\w+)\s*", r":", None, "an argument is named by `=`, as in `{1}=…`"),
    Slip(rf"\b({_CALLED})\s+", r"[0-9]+", None, "`{1}` takes its arguments in parentheses: `{1}({0})`"),
    Slip(
        r"(?<![A-Za-z_])[0-9]+", r"[A-Za-z_]\w*", "`{0}` does not belong to a number", "write decimal digits"
    ),
    Slip(
        r"\b[qk]\s+",
        r"in",
        "`in` is not an operator",
        "where the query is in a set is `from(S)`, a key `to(S)`",
    ),
    Slip(
        r"\bwhere\s*\([^()]*",
        r",",
        "`where` takes a condition alone, found `,`",
        "a number is chosen in a score by `select(C, a, b)`",
    ),
    Slip(
        r"\b(?:torch|math|np|F)\s*\.\s*(\w+)\s*",
        r"\(",
        "functions have no module before them",
        "write `{1}(…)`",
    ),
    Slip(
        r"-",
        r">",
        "`->` is not an operator",
        "which keys a query attends to is written as a condition: `where k <= q`",
    ),
    Slip(r"\blambda\s*", r"\w+|:", "there are no lambdas", elsewhere.LAMBDA),
    Slip(elsewhere.COMMENT + r"\w+[ \t]+", r"\w+", None, "comments start with `#`"),
    Slip(r"<\s*", r">", "`<>` is not an operator", "write `!=`"),
    Slip(r"/", r"\*", "expected an expression, found `/*`", "comments start with `#`"),
)


def reworded(found: Diagnostic) -> Diagnostic:
    """The diagnostic with what is meant, where the place is one of ``SLIPS``."""
    text, start = found.source.text, found.span.start
    before = re.sub(r"#[^\r\n]*", "", text[max(0, start - LOOK_BACK) : start])
    word = text[start : found.span.end]
    for slip in SLIPS:
        place = re.search(rf"{slip.before}\Z", before)
        if place and re.fullmatch(slip.word, word):
            groups = (word, *place.groups())
            message = found.message if slip.message is None else slip.message.format(*groups)
            return replace(found, message=message, help=slip.help.format(*groups))
    return found

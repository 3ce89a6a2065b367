"""Highlighting by Pygments: its lexer for pattern files, which asks the grammar itself for the words.

Pygments finds it through the entry point ``pygments.lexers``; nothing else imports this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pygments.lexer import Lexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, Whitespace

from attnc import names
from attnc.lexicon import Word, all_words

_FUNCTIONS = frozenset(
    (
        *names.RELATIONS,
        *names.SETS,
        *names.FUNCTIONS,
        *names.REAL_FUNCTIONS,
        *names.WEIGHING_FUNCTIONS,
        *names.MAPS,
        *names.UPDATES,
    )
)
_BEHIND = {
    "REQUIRE": names.CLAIMS,
    "ASSUME": names.CLAIMS,
    "HEADS": names.SELECTORS,
    "NORMALIZE": names.MODES["normalize"],
    "WITH": ("softmax",),
}
_PUNCTUATION = ("COMMA", "COLON", "DOT", "LPAR", "RPAR", "LSQB", "RSQB", "LBRACE", "RBRACE")


class AttnLexer(Lexer):  # type: ignore[misc]
    """Pattern files of attnc."""

    name = "attn"
    aliases = ("attn",)
    filenames = ("*.attn",)
    mimetypes = ("text/x-attn",)
    url = "https://pypi.org/project/attnc"

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        before = ""
        for word in all_words(text):
            yield word.start, _token(word, before), word.text
            if word.look not in ("space", "comment"):
                before = word.kind


def _token(word: Word, before: str) -> Any:
    """before: the terminal of the word before."""
    match word.look:
        case "space":
            return Whitespace
        case "comment":
            return Comment.Single
        case "number":
            return Number.Float if word.kind == "DECIMAL" else Number.Integer
        case "sign":
            return Punctuation if word.kind in _PUNCTUATION else Operator
        case "keyword":
            return _keyword(word)
        case "name" | "call":
            return _name(word, before)
    return Error


def _keyword(word: Word) -> Any:
    match word.text:
        case "and" | "or" | "not" | "where":
            return Operator.Word
        case "true" | "false":
            return Keyword.Constant
        case "pattern" | "let" | "input" | "grid":
            return Keyword.Declaration
    return Keyword


def _name(word: Word, before: str) -> Any:
    if before == "PATTERN":
        return Name.Function
    if before == "COLON" and word.text in names.KINDS:
        return Keyword.Type
    if word.text in _BEHIND.get(before, ()):
        return Keyword.Pseudo
    if word.text in names.CONSTANT_RELATIONS or (word.look == "call" and word.text in _FUNCTIONS):
        return Name.Builtin
    return Name.Builtin.Pseudo if word.text in names.VARIABLES else Name

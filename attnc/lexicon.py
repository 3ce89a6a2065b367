"""What kinds of words there are, as the grammar has them: a new item of the language is known at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from lark.exceptions import UnexpectedCharacters

from attnc import parser

Look = Literal["keyword", "call", "name", "number", "sign", "comment", "space", "unknown"]


@dataclass(frozen=True)
class Word:
    """A stretch of a text. kind: the terminal's name; look: what it is to a reader."""

    kind: str
    text: str
    start: int
    look: Look

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@cache
def hugging() -> frozenset[tuple[str, str]]:
    """Terminals that an opening bracket belongs to, such as the name of a call; with that bracket."""
    found = set()
    for _, symbols in parser.productions():
        for (before, is_word), (bracket, is_bracket) in pairwise(symbols):
            if is_word and is_bracket and bracket in ("LPAR", "LSQB"):
                found.add((before, bracket))
    return frozenset(found)


@cache
def _looks() -> dict[str, Look]:
    looks: dict[str, Look] = {"SPACE": "space", "COMMENT": "comment", "NAME": "name"}
    for name, text in parser.terminals().items():
        if text is not None:
            looks[name] = "keyword" if text.isidentifier() else "sign"
        else:
            looks.setdefault(name, "number")
    return looks


def words(text: str) -> Iterator[Word]:
    """A text word by word, spaces and comments included; what is no word comes as one last piece."""
    looks, at = _looks(), 0
    pending: Word | None = None
    try:
        for token in parser.lexemes(text):
            found = Word(token.type, str(token), at, looks.get(token.type, "sign"))
            at = found.end
            if pending is not None:
                called = (pending.kind, found.kind) in hugging()
                yield Word(pending.kind, pending.text, pending.start, "call") if called else pending
                pending = None
            if found.look == "name":
                pending = found
            else:
                yield found
    except UnexpectedCharacters:
        pass
    if pending is not None:
        yield pending
    if at < len(text):
        yield Word("", text[at:], at, "unknown")


# What begins no word, outside of comments.
_ALIEN = re.compile(r"#[^\r\n]*|([^A-Za-z0-9_ \t\r\n\f\ufeff.,:()\[\]{}=!<>|&+*/%#-]+)")


def all_words(text: str) -> Iterator[Word]:
    """As ``words``, but what is no word is told where it stands, and the words behind it as well."""
    spaced = sound(text)
    for word in words(spaced):
        if word.look != "space":
            yield word
            continue
        at = word.start
        for piece in _ALIEN.finditer(text, word.start, word.end):
            if at < piece.start():
                yield Word(word.kind, text[at : piece.start()], at, "space")
            yield Word("", piece[0], piece.start(), "unknown")
            at = piece.end()
        if at < word.end:
            yield Word(word.kind, text[at : word.end], at, "space")


def sound(text: str) -> str:
    """The text with spaces in the place of what is no word; its places stay."""
    return _ALIEN.sub(lambda piece: " " * len(piece[0]) if piece[1] else piece[0], text)

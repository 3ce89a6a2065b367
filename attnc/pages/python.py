"""Python's text in HTML, for the emitted module."""

from __future__ import annotations

import builtins
import io
import keyword
import token as tokens
import tokenize
from html import escape


def highlighted(text: str) -> str:
    """The text as HTML for the inside of a ``pre``; plain where it is no Python."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    pieces: list[str] = []
    at = 0
    try:
        for found in tokenize.generate_tokens(io.StringIO(text).readline):
            look = _look(found)
            if look is None:
                continue
            start = starts[found.start[0] - 1] + found.start[1]
            end = starts[found.end[0] - 1] + found.end[1]
            pieces += [escape(text[at:start]), f'<span class="{look}">{escape(text[start:end])}</span>']
            at = end
    except (tokenize.TokenError, SyntaxError, IndexError):
        return escape(text)
    return "".join([*pieces, escape(text[at:])])


def _look(found: tokenize.TokenInfo) -> str | None:
    match found.type:
        case tokens.COMMENT:
            return "comment"
        case tokens.STRING:
            return "string"
        case tokens.NUMBER:
            return "number"
        case tokens.NAME if keyword.iskeyword(found.string):
            return "keyword"
        case tokens.NAME if hasattr(builtins, found.string):
            return "call"
    return None

"""Words of a text that does not parse, and words for what could have stood there."""

from __future__ import annotations

import re

from lark import Token

from attnc.diagnostics import Source, Span
from attnc.names import ITEMS, WEIGHTS

SPELLED = {
    "COMMA": ",",
    "COLON": ":",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "LBRACE": "{",
    "RBRACE": "}",
    "EQ": "==",
    "NE": "!=",
    "LE": "<=",
    "GE": ">=",
    "LT": "<",
    "GT": ">",
    "EQUALS": "=",
    "BAR": "|",
    "AMP": "&",
    "BANG": "!",
    "PLUS": "+",
    "MINUS": "-",
    "STAR": "*",
    "SLASH": "/",
    "SLASHSLASH": "//",
    "PERCENT": "%",
    "DOT": ".",
    "DOTDOT": "..",
}


_WORD = re.compile(r"#[^\r\n]*|[A-Za-z_0-9]+|==|!=|<=|>=|//|\.\.|[^\s]")


def _words(source: Source, end: int) -> list[re.Match[str]]:
    return [match for match in _WORD.finditer(source.text, 0, end) if match.group()[0] != "#"]


def previous_word(source: Source, offset: int) -> str:
    words = _words(source, offset)
    return words[-1].group() if words else ""


def end_of_words(source: Source) -> Span:
    words = _words(source, len(source.text))
    end = words[-1].end() if words else 0
    return Span(end, end)


def open_bracket(source: Source, offset: int) -> Span | None:
    """The innermost bracket that is open at ``offset``."""
    opened: list[Span] = []
    for match in _words(source, offset):
        if match.group() in "([{":
            opened.append(Span(*match.span()))
        elif match.group() in ")]}" and opened:
            opened.pop()
    return opened[-1] if opened else None


def found_words(token: Token) -> str:
    match token.type:
        case "INT" | "DECIMAL":
            return f"the number `{_short(str(token))}`"
        case "NAME":
            return f"`{_short(str(token))}`"
    return f"`{token}`"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"


def item_words() -> str:
    return ", ".join(f"`{item}`" for item in (*ITEMS, *WEIGHTS))


def wanted_words(accepts: frozenset[str]) -> str:
    """What could stand here, in words."""
    words: list[str] = []
    if {"INT", "LPAR"} <= accepts:
        words.append("an expression")
    elif "NAME" in accepts:
        words.append("a name")
    if "PLUS" in accepts:
        words.append("an operator")
    if "ATTEND" in accepts:
        words.append("an item")
    if "PATTERN" in accepts:
        words.append("`pattern`")
    # After a name an index or arguments could always follow; that goes without saying.
    opening = ("LSQB", "LPAR") if not accepts & {"PLUS", "INT"} else ()
    for terminal in ("COLON", "EQUALS", "COMMA", "RPAR", "RSQB", "LBRACE", "RBRACE", *opening):
        if terminal in accepts and not (terminal == "LBRACE" and "INT" in accepts):
            words.append(f"`{SPELLED[terminal]}`")
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

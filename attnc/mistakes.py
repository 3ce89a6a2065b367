"""What to say about a syntax error: keyed on what could have stood there and on what does.

The automaton says which terminals it would have accepted; that names the position (an item, an operand, an
operator, a type …) without guessing, and each position words its own message.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from lark import Token

from attnc import elsewhere
from attnc.diagnostics import Diagnostic, Label, Source, Span
from attnc.names import ITEMS, RELATIONS, RESERVED, SETS, nearest, reserved
from attnc.slips import reworded
from attnc.words import (
    SPELLED,
    end_of_words,
    found_words,
    item_words,
    open_bracket,
    previous_word,
    wanted_words,
)

_KEYWORDS = frozenset(
    {"PATTERN", "INPUT", "GRID", "LET", "ATTEND", "HEADS", "REQUIRE", "ASSUME", "WHERE", "AND", "OR", "NOT"}
    | {"TRUE", "FALSE", "SCORE", "SINK", "KERNEL", "NORMALIZE", "DECAY", "BONUS", "UPDATE", "WITH"}
)
_OPERATORS = frozenset(
    {"OR", "AND", "EQ", "NE", "LE", "GE", "LT", "GT", "BAR", "AMP", "PLUS", "MINUS", "STAR", "SLASH"}
    | {"SLASHSLASH", "PERCENT"}
)


def unexpected_token(source: Source, token: Token, accepts: frozenset[str]) -> Diagnostic:
    """The message for a token that cannot stand here; ``accepts`` names the terminals that could."""
    if token.type == "$END":
        return _unfinished(source, accepts)
    where = _Place(source, token, accepts, previous_word(source, token.start_pos or 0))
    for look in (_reserved, _comment, _doubled, _equals, _item, _name, _operand, _separator):
        found = look(where)
        if found is not None:
            return reworded(found)
    return reworded(where.say(f"expected {wanted_words(accepts)}, found {found_words(token)}"))


class _Place:
    """The token at fault, what could have stood there, and the word before it."""

    def __init__(self, source: Source, token: Token, accepts: frozenset[str], before: str) -> None:
        self.source, self.token, self.accepts, self.before = source, token, accepts, before
        self.span = Span(token.start_pos or 0, token.end_pos or 0)

    def say(
        self, message: str, help: str | None = None, code: str = "syntax-error", label: str = ""
    ) -> Diagnostic:
        return Diagnostic(code, "error", message, self.source, self.span, label=label, help=help)

    @property
    def at_item(self) -> bool:
        return "ATTEND" in self.accepts

    @property
    def at_operand(self) -> bool:
        return "INT" in self.accepts and "LPAR" in self.accepts

    @property
    def after_operand(self) -> bool:
        return "PLUS" in self.accepts

    @property
    def on_new_line(self) -> bool:
        start = self.token.start_pos or 0
        gap = re.search(r"[\r\n][ \t]*$", self.source.text[max(0, start - 400) : start])
        return gap is not None


def _reserved(p: _Place) -> Diagnostic | None:
    if p.token.type == "NAME" and p.token in RESERVED:
        return reserved(p.source, str(p.token), p.span)
    return None


def _comment(p: _Place) -> Diagnostic | None:
    """Comments of C and SQL, where no operand stands before them."""
    found = p.source.text[p.span.start : p.span.start + 2]
    if found not in ("//", "/*", "--") or (found == "--" and p.at_operand):
        return None
    expected = "an item" if p.at_item else wanted_words(p.accepts)
    said = p.say(f"expected {expected}, found `{found}`", "comments start with `#`")
    return replace(said, span=Span(p.span.start, p.span.start + 2))


def _doubled(p: _Place) -> Diagnostic | None:
    if p.token.type in ("BAR", "AMP") and p.before == p.token:
        help = (
            "write `|` for a union of relations, or `or` between conditions"
            if p.token == "|"
            else "write `&` for an intersection of relations, or `and` between conditions"
        )
        return p.say(f"`{p.token}{p.token}` is not an operator", help)
    if p.token.type == "STAR" and p.before == "*":
        return p.say(
            "`**` is not an operator",
            "multiply the factors out, as in `s * s`, or write the number; powers of two are `exp2(s)`",
        )
    if p.token.type in ("BAR", "AMP", "BANG") and p.after_operand and "BAR" not in p.accepts:
        word = {"BAR": "or", "AMP": "and", "BANG": "not"}[p.token.type]
        return p.say(f"`{p.token}` joins relations, not conditions", f"inside `where`, write `{word}`")
    if p.token.type == "BANG" and p.at_operand:
        return p.say("`!` is for relations, not conditions", "inside `where`, write `not`")
    return None


def _item(p: _Place) -> Diagnostic | None:
    if not p.at_item and not ({"PATTERN"} <= p.accepts and "$END" in p.accepts):
        return None
    if not p.at_item:
        return _top_level(p)
    if p.token.type == "PATTERN" and open_bracket(p.source, p.span.start) is None:
        return p.say(
            "only the body of a pattern stands in a docstring",
            "the function's head is the pattern's: leave out `pattern …(…) {` and its `}`",
        )
    if p.token.type == "PATTERN":
        return p.say(
            "a new pattern starts inside another",
            "close the pattern above with `}`",
            label="expected `}` before this",
        )
    if p.after_operand and p.token.type in (
        "NAME",
        "INT",
        "LPAR",
        "LBRACE",
        "WHERE",
        "BANG",
        "NOT",
        "TRUE",
        "FALSE",
    ):
        item = nearest(str(p.token), ITEMS) if p.token.type == "NAME" else None
        if item is None and not (
            p.on_new_line and p.token.type == "NAME" and p.token not in (*RELATIONS, *SETS)
        ):
            return _side_by_side(p)
    if p.token.type == "NAME":
        return _unknown_item(p)
    if not p.after_operand:
        return p.say(f"expected an item ({item_words()}) or `}}`, found {found_words(p.token)}")
    return None


def _side_by_side(p: _Place) -> Diagnostic:
    numeric = p.token.type in ("INT", "DECIMAL")
    help = None if numeric else "join relations with `|` (either) or `&` (both)"
    help = elsewhere.WORDS.get(str(p.token), help)
    return p.say(
        f"two expressions stand side by side; an operator is missing before {found_words(p.token)}", help
    )


def _unknown_item(p: _Place) -> Diagnostic:
    word = str(p.token)
    if word in (*RELATIONS, *SETS):
        return p.say(f"a relation stands after `attend`, found `{word}`", f"write `attend {word}…`")
    found = nearest(word, ITEMS)
    help = f"did you mean `{found}`?" if found else f"a body holds {item_words()}"
    return p.say(f"`{word}` is not an item of the language", help, code="unknown-item")


def _top_level(p: _Place) -> Diagnostic:
    if p.token.type == "RBRACE":
        return p.say("this `}` closes nothing", "remove it, or open the pattern with `pattern name() {`")
    if p.token.type == "NAME" and nearest(str(p.token), ("pattern",)):
        return p.say(f"expected `pattern`, found `{p.token}`", "did you mean `pattern`?")
    if p.token.type in _KEYWORDS:
        return p.say(
            f"`{p.token}` stands outside of any pattern",
            "put it between the braces of `pattern name() { … }`",
        )
    return p.say(
        f"expected `pattern`, found {found_words(p.token)}", "a file is a list of `pattern name() { … }`"
    )


def _equals(p: _Place) -> Diagnostic | None:
    if p.token.type == "EQUALS" and "COLON" in p.accepts:
        return p.say("expected `:` and a type, found `=`", f"write `{p.before}: int = …`")
    if p.token.type == "EQUALS" and "EQ" in p.accepts:
        turned = {"<": "<=", ">": ">=", "!": "!="}.get(p.source.text[p.span.end : p.span.end + 1])
        if turned:
            return p.say(f"`={turned[0]}` is not an operator", f"write `{turned}`")
        return p.say("`=` does not compare", "write `==` to compare")
    if p.token.type == "EQ" and "EQUALS" in p.accepts:
        return p.say("`==` compares; here a value is given", "write `=`")
    if p.token.type == "COLON" and "EQUALS" in p.accepts:
        return p.say("expected `=`, found `:`", "a `let` has no type: write `let name = …`")
    if (
        p.token.type in ("LT", "GE", "GT", "EQ", "EQUALS", "NE")
        and "LE" in p.accepts
        and "PLUS" not in p.accepts
    ):
        help = f"write `{p.before} <= …`" if p.before in ("edges", "flops", "reach") else None
        return p.say(f"a claim is bounded by `<=`, found `{p.token}`", help)
    return None


def _name(p: _Place) -> Diagnostic | None:
    if p.accepts != {"NAME"} and not (p.token.type in _KEYWORDS and "NAME" in p.accepts and not p.at_operand):
        return None
    if p.token.type in _KEYWORDS:
        return p.say(f"`{p.token}` is a word of the language and cannot be a name", "use another name")
    what = {"pattern": "the pattern's name", ":": "a type (`int`, `float` or `bool`)", "require": "a claim"}
    if p.token.type in ("INT", "DECIMAL") and p.before not in (":", "require", "assume"):
        return p.say(f"expected a name, found {found_words(p.token)}", "names start with a letter")
    expected = what.get(p.before, "a name")
    return p.say(f"expected {expected}, found {found_words(p.token)}")


def _operand(p: _Place) -> Diagnostic | None:
    if not p.at_operand:
        return None
    if p.token.type in _KEYWORDS:
        hint = None
        if p.token.type == "WHERE":
            hint = "`where` stands outside, in front of the condition; a score chooses by `select(C, a, b)`"
        return p.say(f"expected an expression after `{p.before}`, found `{p.token}`", hint)
    if p.token.type in ("RPAR", "RBRACE", "RSQB", "COMMA"):
        return p.say(f"expected an expression after `{p.before}`, found `{p.token}`")
    if p.token.type in _OPERATORS:
        help = "two operators stand side by side" if p.before in SPELLED.values() else None
        return p.say(f"expected an expression, found the operator `{p.token}`", help)
    return p.say(f"expected an expression, found {found_words(p.token)}")


_STARTS = frozenset({"NAME", "INT", "DECIMAL", "LPAR", "LBRACE", "TRUE", "FALSE", "WHERE", "NOT", "BANG"})


def _separator(p: _Place) -> Diagnostic | None:
    closing = next((t for t in ("RPAR", "RSQB", "RBRACE") if t in p.accepts), None)
    if p.token.type == "DOTDOT":
        return p.say(
            "a range `a..b` stands only after `heads`", "write the bounds as comparisons: `a <= x < b`"
        )
    if p.token.type in _STARTS and "COMMA" in p.accepts:
        return p.say(f"expected `,` before {found_words(p.token)}", "separate arguments with `,`")
    if p.token.type in _STARTS and p.after_operand:
        return _side_by_side(p)
    if p.accepts == {"LPAR"}:
        return p.say(f"expected `(`, found {found_words(p.token)}", "write `()` even without parameters")
    if closing and p.token.type in ("RPAR", "RSQB", "RBRACE", *_KEYWORDS):
        opened = open_bracket(p.source, p.span.start)
        labels = (Label(opened, "opened here"),) if opened else ()
        message = f"expected `{SPELLED[closing]}`, found {found_words(p.token)}"
        return Diagnostic("syntax-error", "error", message, p.source, p.span, secondary=labels)
    return None


def _unfinished(source: Source, accepts: frozenset[str]) -> Diagnostic:
    end = end_of_words(source)
    opened = open_bracket(source, len(source.text))
    if opened is None:
        return Diagnostic(
            "syntax-error", "error", f"the text ends where {wanted_words(accepts)} was expected", source, end
        )
    bracket = source.text[opened.start]
    closing = {"{": "}", "(": ")", "[": "]"}[bracket]
    return Diagnostic(
        "syntax-error",
        "error",
        f"this `{bracket}` is never closed",
        source,
        opened,
        secondary=(Label(end, "the text ends here"),),
        help=f"add `{closing}`",
    )


def bad_character(source: Source, offset: int) -> Diagnostic:
    """A character that starts no word of the language."""
    char = source.text[offset]
    helps = {
        ";": "items need no separator: start a new one, or a new line",
        "^": "there is no exclusive or; multiply powers out",
        "~": "write `!` for the complement of a relation, `not` for a condition",
        **dict.fromkeys("'\"\u2018\u2019\u201c\u201d`", "there are no strings: leave the quotes out"),
        "?": "a number is chosen in a score by `select(C, a, b)`; conditions are joined by `and` and `or`",
        "\\": "a line needs no mark at its end to go on in the next",
        "\u2192": "which keys a query attends to is written as a condition: `where k <= q`",
        "\u00d7": "write `*`",
        "\u221e": elsewhere.NAMES["inf"],
        "@": "`s` is the product of query and key, scaled: `score s`; comments start with `#`",
        "\u2264": "write `<=`",
        "\u2265": "write `>=`",
        "\u2260": "write `!=`",
        "\u2212": "write `-`",
        "\u2013": "write `-`",
    }
    if re.search(r"\bfloat\s*\(\s*\Z", source.text[max(0, offset - 40) : offset]):
        helps |= dict.fromkeys("\"'", elsewhere.CALLS["float"])
    shown = f"`{char}`" if char.isprintable() and not char.isspace() else f"U+{ord(char):04X}"
    help = helps.get(char)
    if help is None and "\uff01" <= char <= "\uff5e":  # ASCII as wide as a Chinese character
        help = f"write `{unicodedata.normalize('NFKC', char)}`"
    if help is None and char.isspace():
        help = "write an ordinary space"
    if help is None and not char.isascii():
        help = "names are made of ASCII letters, digits and `_`; other characters belong in comments"
    message = f"{shown} does not belong to the language"
    return Diagnostic("bad-character", "error", message, source, Span(offset, offset + 1), help=help)


def too_deep(source: Source, span: Span) -> Diagnostic:
    """Brackets or prefixes inside one another beyond what any pattern needs."""
    help = "name the inner parts with `let`"
    return Diagnostic("too-deep", "error", "this is nested more than 200 deep", source, span, help=help)

"""Lays out the lines of a module that are too long to read, without changing what they say.

Only the written expressions of a pattern come out long; the parts that never change are laid out already.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import lru_cache
from itertools import pairwise

WIDTH = 110
_SHORT = 40  # characters of an item that may share a line
# A longer statement stays as it is: nobody reads it, and what is in brackets is read anew for each pair that
# it stands in.
_LONGEST = 1 << 13
# So much of a module is laid out, in characters: what is longer nobody reads to its end.
_MOST = 1 << 16

_OPEN, _CLOSE = "([{", ")]}"
# Operators from the loosest to the tightest: a line is broken before those that bind loosest. Comparisons are
# between the looser and the tighter ones, and stay on a line.
_LOOSER = (("if", "else"), ("or",), ("and",))
_COMPARED = {"<", ">", "==", ">=", "<=", "!=", "in", "is", "not"}
_TIGHTER = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "//", "%", "@"))
_STRINGS = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")


def laid_out(text: str) -> str:
    """The module's text with no statement on a line wider than ``WIDTH`` that can be broken."""
    lines: list[str] = []
    depth, quoted, left = 0, False, _MOST
    for line in text.splitlines():
        begins = depth == 0 and not quoted
        if line.count('"""') % 2:
            quoted = not quoted
        elif not quoted:
            code = _STRINGS.sub("", line).partition("#")[0]
            depth += sum(map(code.count, _OPEN)) - sum(map(code.count, _CLOSE))
        long = begins and WIDTH < len(line) <= min(_LONGEST, left) and line.isascii()
        left -= len(line) if long else 0
        lines += _statement(line) if long else [line]
    return "\n".join(lines) + "\n" * text.endswith("\n")


def _statement(line: str) -> list[str]:
    """One line with a whole simple statement, or an `if`, on it as several; any other as it is."""
    bare = line.lstrip()
    indent = len(line) - len(bare)
    code, comment = _split_comment(bare)
    above = [" " * indent + comment] if comment else []
    if code.startswith("if ") and code.endswith(":"):
        return [*above, *_value("if ", code[3:-1], indent, ":")]
    try:
        (parsed,) = ast.parse(code).body
    except (SyntaxError, ValueError):
        return [line]
    value = getattr(parsed, "value", None)
    if isinstance(parsed, ast.Expr) and isinstance(value, ast.Yield):
        value = value.value
    if not isinstance(parsed, ast.Assign | ast.AugAssign | ast.Return | ast.Expr) or value is None:
        return [line]
    # Brackets around a value are no part of its node.
    begin = len(code[: value.col_offset].rstrip("("))
    return [*above, *_value(code[:begin], code[begin:], indent)]


def _split_comment(code: str) -> tuple[str, str]:
    for token in _tokens(code):
        if token.type == tokenize.COMMENT:
            return code[: token.start[1]].rstrip(), token.string
    return code, ""


@lru_cache(maxsize=1024)
def _tokens(code: str) -> list[tokenize.TokenInfo]:
    try:
        return list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, IndentationError):
        return []


def _value(head: str, code: str, indent: int, tail: str = "", bracketed: bool = False) -> list[str]:
    """``head + code + tail`` in lines. bracketed: it stands in brackets, and may be broken anywhere."""
    if indent + len(head) + len(code) + len(tail) <= WIDTH:
        return [" " * indent + head + code + tail]
    if code.startswith("lambda"):
        body = next(token.end[1] for token in _outer(code) if token.string == ":") + 1
        return _value(head + code[:body], code[body:], indent, tail)
    if not bracketed and len(_items(code)) > 1:
        return _within(head + "(", code, ")" + tail, indent)
    places = _operators(code)
    group = _longest_group(code)
    # A product with something in brackets is broken within them; a value without operators, where most is.
    product = (
        group and len(places) == 1 and places[0] <= _SHORT and places[0] < group[0] and group[1] == len(code)
    )
    if group and (not places or product):
        begin, end = group
        return _within(head + code[: begin + 1], code[begin + 1 : end - 1], code[end - 1 :] + tail, indent)
    if not places:
        return [" " * indent + head + code + tail]
    if not bracketed:
        return _within(head + "(", code, ")" + tail, indent)
    parts = [code[a:b].strip() for a, b in pairwise((0, *places, len(code)))]
    lines = _value(head, parts[0], indent, "", True)
    for i, part in enumerate(parts[1:], 2):
        lines += _value("", part, indent, tail if i == len(parts) else "", True)
    return lines


def _within(head: str, code: str, tail: str, indent: int) -> list[str]:
    """What stands between two brackets, on lines of its own: several items on a line, if they are short."""
    items = _items(code)
    inner, lines = indent + 4, []
    if len(items) == 1:
        lines = _value("", items[0], inner, "," if code.rstrip().endswith(",") else "", True)
    elif inner + len(code) <= WIDTH:
        lines = [" " * inner + code.strip()]
    elif max(map(len, items)) <= _SHORT:
        row = ""
        for item in items:
            if row and inner + len(row) + len(item) + 2 > WIDTH:
                lines.append(" " * inner + row)
                row = ""
            row += f"{' ' if row else ''}{item},"
        lines.append(" " * inner + row)
    else:
        lines = [line for item in items for line in _value("", item, inner, ",", True)]
    return [" " * indent + head, *lines, " " * indent + tail]


@lru_cache(maxsize=1024)
def _outer(code: str) -> list[tokenize.TokenInfo]:
    """The tokens that stand in no brackets, brackets included."""
    depth, found = 0, []
    for token in _tokens(code):
        closes = token.type == tokenize.OP and token.string in _CLOSE
        depth -= closes
        if depth == 0:
            found.append(token)
        depth += token.type == tokenize.OP and token.string in _OPEN
    return found


def _longest_group(code: str) -> tuple[int, int] | None:
    """Where the longest of the brackets begin and end that stand in no others."""
    ends = [token for token in _outer(code) if token.type == tokenize.OP and token.string in _OPEN + _CLOSE]
    groups = [(first.start[1], last.end[1]) for first, last in zip(ends[::2], ends[1::2], strict=True)]
    return max(groups, key=lambda group: group[1] - group[0], default=None)


def _operators(code: str) -> list[int]:
    """Where the operators are that bind loosest outside of all brackets, if they do not bind everything."""
    outer = [token for token in _outer(code) if token.string.strip()]
    words = {token.string for token in outer}
    if words & {"for", "lambda", "yield", ":="}:
        return []
    for level in _LOOSER if words & _COMPARED else _LOOSER + _TIGHTER:
        places = [
            token.start[1]
            for before, token in pairwise(outer)
            # A sign is no operator between two operands.
            if token.string in level and (before.type != tokenize.OP or before.string in _CLOSE)
        ]
        if places:
            return places
    return []


def _items(code: str) -> list[str]:
    """What is between the commas outside of all brackets, and not among the arguments of a lambda."""
    places, named = [0], False
    for token in _outer(code):
        if token.string == "for":
            return [code.strip().removesuffix(",")]
        named = token.string == "lambda" or (named and token.string != ":")
        if token.string == "," and not named:
            places.append(token.start[1])
    found = [code[a:b].strip(" ,") for a, b in pairwise((*places, len(code)))]
    return [item for item in found if item]

"""A function's docstring as a source text whose lines are those of the Python file it stands in."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from typing import Any

from attnc.diagnostics import Source


def docstring_source(function: Any) -> tuple[Source, str]:
    """The docstring's text, and the same without padding, which is what the cache should know it by.

    The text is padded with empty lines and blanks so that every place in it has the line and column that it
    has in the Python file. Where that file cannot be had, the docstring stands for itself.

    Raises ``TypeError`` for a function without a docstring.
    """
    text = function.__doc__
    if text is None or not text.strip():
        stripped = " (`python -OO` takes docstrings away)" if sys.flags.optimize > 1 else ""
        raise TypeError(
            f"{function.__qualname__} has no docstring to take the pattern from{stripped}; write the pattern "
            'there, or name its file: `@attention_pattern("pattern.attn")`'
        )
    plain = inspect.cleandoc(text)
    literal = _literal(function)
    if literal is not None:
        line, column, written = literal
        if inspect.cleandoc(written) == plain:
            padding = "\n" * (line - 1) + " " * column
            return Source(function.__code__.co_filename, padding + written), plain
    return Source(f"<docstring of {function.__qualname__}>", plain), plain


def _literal(function: Any) -> tuple[int, int, str] | None:
    """Line and column (from 1 and 0) where the docstring's text begins in its file, and its text."""
    code = function.__code__
    linecache.checkcache(code.co_filename)  # the file may have been edited and imported again
    lines = linecache.getlines(code.co_filename, function.__globals__)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != function.__name__:
            continue
        first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
        if first != code.co_firstlineno or not node.body:
            continue
        return _inside(node.body[0], lines)
    return None


def _inside(statement: ast.stmt, lines: list[str]) -> tuple[int, int, str] | None:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return None
    text = ast.get_source_segment("".join(lines), statement.value)
    if text is None:
        return None
    prefix = len(text) - len(text.lstrip("rRuU"))
    quote = text[prefix : prefix + 3]
    quote = quote if quote in ('"""', "'''") else quote[:1]
    skipped = prefix + len(quote)
    # Columns of the tree count bytes, those of messages count characters.
    before = lines[statement.lineno - 1].encode()[: statement.col_offset].decode()
    return statement.lineno, len(before) + skipped, text[skipped : len(text) - len(quote)]

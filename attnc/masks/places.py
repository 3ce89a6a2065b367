"""Where in a user's Python code something was asked for, as a place that a message can mark."""

from __future__ import annotations

import linecache
import os
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import NoReturn

from attnc.diagnostics import AttncError, Diagnostic, Source, Span

_HERE = str(Path(__file__).resolve().parent) + os.sep


def refuse(message: str, label: str = "", help: str | None = None, notes: tuple[str, ...] = ()) -> NoReturn:
    """Raises an ``AttncError`` that marks the innermost place outside of this package and of torch."""
    source, span = _place(sys._getframe(1))
    raise AttncError(
        (Diagnostic("untraceable", "error", message, source, span, label, notes=notes, help=help),)
    )


def refuse_function(function: object, message: str, help: str | None = None) -> NoReturn:
    """The same about a function as a whole, marked at its first line."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    source, span = Source(f"<{name}>", ""), Span(0, 0)
    if isinstance(code, CodeType):
        source, span = _marked(code, code.co_firstlineno, None)
    raise AttncError((Diagnostic("untraceable", "error", message, source, span, help=help),))


def _place(frame: FrameType | None) -> tuple[Source, Span]:
    while frame is not None and _foreign(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return Source("<mask function>", ""), Span(0, 0)
    positions = list(frame.f_code.co_positions())
    at = frame.f_lasti // 2
    columns = positions[at] if 0 <= at < len(positions) else None
    return _marked(frame.f_code, frame.f_lineno, columns)


def _foreign(file: str) -> bool:
    return file.startswith(_HERE) or f"{os.sep}torch{os.sep}" in file


def _marked(
    code: CodeType, line: int, columns: tuple[int | None, int | None, int | None, int | None] | None
) -> tuple[Source, Span]:
    lines = linecache.getlines(code.co_filename)
    if not 0 < line <= len(lines):
        return Source(f"{code.co_filename}:{line}", ""), Span(0, 0)
    source = Source(code.co_filename, "".join(lines))
    text = lines[line - 1]
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if columns is not None and columns[0] == line and columns[2] is not None and columns[3] is not None:
        # Columns count bytes, places count characters.
        data = text.encode()
        start = len(data[: columns[2]].decode(errors="replace"))
        if columns[1] == line:
            end = len(data[: columns[3]].decode(errors="replace"))
    before = sum(map(len, lines[: line - 1]))
    return source, Span(before + start, before + end)

"""What went wrong, where, and how to mend it; and how that is drawn. Imports nothing of ours."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal


@dataclass(frozen=True)
class Span:
    """Half-open range of character offsets into a source text."""

    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """A text and the name under which messages refer to it (a path, or ``<docstring of f>``)."""

    name: str
    text: str


@dataclass(frozen=True)
class Label:
    """A secondary place with a few words about it."""

    span: Span
    text: str


@dataclass(frozen=True)
class Edit:
    """A text that is put in the place of a span; an empty span is where it is put in."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """``edits``: what ``help`` says, as changes of the source that belong together, where it is so exact."""

    code: str
    level: Literal["error", "warning"]
    message: str
    source: Source
    span: Span
    label: str = ""
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    edits: tuple[Edit, ...] = ()


class AttncError(Exception):
    """Raised with every error that was found; its text is the rendered diagnostics."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(diagnostics)
        self.diagnostics = diagnostics

    def __str__(self) -> str:
        return "\n\n".join(map(render, self.diagnostics))


# --- places ---------------------------------------------------------------------------------------------

_LINE_END = re.compile(r"\r\n|\r|\n")


@lru_cache(maxsize=16)
def _line_starts(text: str) -> tuple[int, ...]:
    return (0, *(match.end() for match in _LINE_END.finditer(text)))


def line_column(source: Source, offset: int) -> tuple[int, int]:
    """Line and column of a character offset, both counted from 1; a column is a character, tabs included."""
    offset = min(max(offset, 0), len(source.text))
    starts = _line_starts(source.text)
    line = bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1


def _line_text(source: Source, line: int) -> str:
    starts = _line_starts(source.text)
    end = starts[line] if line < len(starts) else len(source.text)
    return source.text[starts[line - 1] : end].rstrip("\r\n")


# --- drawing --------------------------------------------------------------------------------------------

# Control characters, characters that reorder or hide others, halves of characters, and line separators.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """One line in which characters that a terminal would obey are escaped as in Python: names of files."""
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _UNSEEN else char
        for char in text
    )


TAB = 4
# Terminal columns of a source line; of a longer one, what stands around a mark is drawn.
WIDEST = 100
_CONTINUATION = re.compile(r"\s*[|&+*/%-]")
_RED, _YELLOW, _BLUE, _BOLD, _RESET = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"


def _cell(char: str, column: int) -> str:
    """A character as it is drawn: tabs fill up, and control characters never reach a terminal."""
    if char == "\t":
        return " " * (TAB - column % TAB)
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in _UNSEEN else char


def _width(text: str) -> int:
    """Columns that a drawn text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


@lru_cache(16)  # many diagnostics may be about one long line
def _draw(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A source line as drawn, by character, and the terminal column of every character and of the end."""
    drawn, columns, column = [], [0], 0
    for char in text:
        cell = _cell(char, column)
        drawn.append(cell)
        column += _width(cell)
        columns.append(column)
    return tuple(drawn), tuple(columns)


@dataclass(frozen=True)
class _Mark:
    line: int
    first: int
    last: int
    text: str
    primary: bool


def _mark(source: Source, span: Span, text: str, primary: bool) -> _Mark:
    line, column = line_column(source, span.start)
    start = min(column - 1, len(_line_text(source, line)))
    # A span over several lines is underlined to the end of its first.
    end = min(start + max(span.end - span.start, 0), len(_line_text(source, line)))
    return _Mark(line, start, end, text, primary)


def _excerpts(columns: tuple[int, ...], marks: list[_Mark]) -> list[tuple[int, int, list[_Mark]]]:
    """Which characters of a line are drawn, from and to, each part with the marks below it.

    The whole of a line that is not too long; else a part around the marks, or around each when they are far
    apart. A mark that is too long itself is drawn from its beginning.
    """
    end = len(columns) - 1
    if columns[-1] <= WIDEST:
        return [(0, end, marks)]
    marks = marks or [_Mark(0, 0, 0, "", False)]
    first, last = min(mark.first for mark in marks), max(mark.last for mark in marks)
    if columns[last] - columns[first] > WIDEST and len(marks) > 1:
        return [part for mark in marks for part in _excerpts(columns, [mark])]
    # A third of what is left over before the marks, the rest behind them.
    spare = max(WIDEST - (columns[last] - columns[first]), WIDEST // 3)
    start = max(min(columns[first] - spare // 3, columns[-1] - WIDEST), 0)
    return [(bisect_left(columns, start), bisect_right(columns, start + WIDEST) - 1, marks)]


def _shown_lines(source: Source, marks: list[_Mark]) -> list[int | None]:
    """Line numbers to draw, with ``None`` where lines are left out."""
    wanted = {mark.line for mark in marks}
    for mark in marks:
        # A line that goes on with an operator is half a sentence without the one above it.
        if mark.primary and mark.line > 1 and _CONTINUATION.match(_line_text(source, mark.line)):
            wanted.add(mark.line - 1)
    shown: list[int | None] = []
    previous = None
    for line in sorted(wanted):
        if previous is not None and line == previous + 2:
            shown.append(line - 1)
        elif previous is not None and line > previous + 2:
            shown.append(None)
        shown.append(line)
        previous = line
    return shown


def render(d: Diagnostic, color: bool = False) -> str:
    """A diagnostic as text, over several lines without a trailing line end.

    Title, place, the source lines with the primary place underlined by ``^`` and secondary ones by ``-``,
    notes, help. With ``color``, ANSI escapes are added.
    """

    def paint(code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if color and text else text

    accent = _RED if d.level == "error" else _YELLOW
    marks = [_mark(d.source, d.span, d.label, True)]
    marks += [_mark(d.source, label.span, label.text, False) for label in d.secondary]
    gutter = len(str(max(mark.line for mark in marks)))
    bar = paint(_BLUE, f"{' ' * gutter} |")
    line, column = line_column(d.source, d.span.start)

    out = [f"{paint(accent, f'{d.level}[{d.code}]')}{paint(_BOLD, f': {printable(d.message)}')}"]
    out.append(f"{' ' * gutter}{paint(_BLUE, '-->')} {printable(d.source.name)}:{line}:{column}")
    out.append(bar)
    for number in _shown_lines(d.source, marks):
        if number is None:
            out.append(paint(_BLUE, "..."))
            continue
        cells, columns = _draw(_line_text(d.source, number))
        for begin, end, below in _excerpts(columns, [mark for mark in marks if mark.line == number]):
            before, after = "… " * (begin > 0), " …" * (end < len(cells))
            text = before + "".join(cells[begin:end]) + after
            out.append(f"{paint(_BLUE, f'{number:>{gutter}} |')} {text}".rstrip())
            for mark in below:
                width = max(columns[min(mark.last, end)] - columns[mark.first], 1)
                line_of = ("^" if mark.primary else "-") * width + (
                    f" {printable(mark.text)}" if mark.text else ""
                )
                indent = " " * (len(before) + columns[mark.first] - columns[begin])
                out.append(f"{bar} {indent}{paint(accent if mark.primary else _BLUE, line_of)}")
    remarks = [("note", note) for note in d.notes] + ([("help", d.help)] if d.help else [])
    if remarks:
        out.append(bar)
    for word, remark in remarks:
        first, *rest = map(printable, remark.split("\n"))
        out.append(f"{' ' * gutter} {paint(_BLUE, '=')} {paint(_BOLD, word)}: {first}")
        out.extend(f"{' ' * gutter}         {more}".rstrip() for more in rest)
    return "\n".join(out)


def to_json(d: Diagnostic) -> dict[str, Any]:
    """A diagnostic as plain data; ``line`` and ``column`` count from 1, ``help`` is a string or None."""
    line, column = line_column(d.source, d.span.start)
    return {
        "code": d.code,
        "level": d.level,
        "message": d.message,
        "file": d.source.name,
        "line": line,
        "column": column,
        "notes": list(d.notes),
        "help": d.help,
    }

"""Places of a text as the language server protocol tells them, and as the compiler does."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from attnc.diagnostics import Span

_LINE_END = re.compile(r"\r\n|\r|\n")
# Encoding of a client's columns → the codec that counts them, and bytes in a unit.
_CODECS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}

Place = tuple[int, int]


@dataclass(frozen=True)
class Positions:
    """Offsets of characters ↔ lines and columns, both from 0, columns in units of ``encoding``.

    encoding: ``utf-16``, where a character beyond the basic plane counts twice, unless client and server
    have agreed on ``utf-8`` or ``utf-32``.
    """

    text: str
    encoding: str = "utf-16"

    def place(self, offset: int) -> Place:
        """Line and column of a character; beyond the text, of its end."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self._starts, offset) - 1
        return line, self._units(self.text[self._starts[line] : offset])

    def range(self, span: Span) -> tuple[Place, Place]:
        return self.place(span.start), self.place(span.end)

    def offset(self, place: Place) -> int:
        """The character at a line and column; a column beyond its line stands for the line's end."""
        line, column = place
        if line >= len(self._starts):
            return len(self.text)
        offset, units = self._starts[line], 0
        end = self._line_end(line)
        while offset < end:
            units += self._units(self.text[offset])
            if units > column:
                break
            offset += 1
        return offset

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return (0, *(match.end() for match in _LINE_END.finditer(self.text)))

    def _line_end(self, line: int) -> int:
        last = line + 1 == len(self._starts)
        return len(self.text) if last else len(self.text[: self._starts[line + 1]].rstrip("\r\n"))

    def _units(self, text: str) -> int:
        codec, size = _CODECS.get(self.encoding, _CODECS["utf-16"])
        return len(text) if text.isascii() else len(text.encode(codec, "surrogatepass")) // size

"""A pattern's text in HTML, its words in the looks that the grammar gives them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from attnc.diagnostics import Span
from attnc.drawing.colors import color
from attnc.lexicon import words


def highlighted(text: str, part: Span | None = None, terms: Sequence[tuple[Span, int]] = ()) -> str:
    """The text, or a part of it, as HTML for the inside of a ``pre``.

    terms: places that are underlined in the colors of terms; where several meet, the shortest counts.
    """
    part = part or Span(0, len(text))
    by_length = sorted(terms, key=lambda item: item[0].end - item[0].start)
    pieces: list[str] = []
    for word in words(text):
        start, end = max(word.start, part.start), min(word.end, part.end)
        if start >= end:
            continue
        shown = escape(text[start:end])
        term = next((number for span, number in by_length if span.start <= start and end <= span.end), None)
        line = "" if term is None or word.look in ("space", "comment") else f"box-shadow:0 2px {color(term)}"
        kind = f' class="{word.look}"' if word.look in ("keyword", "call", "number", "comment") else ""
        style = f' style="{line}"' if line else ""
        pieces.append(f"<span{kind}{style}>{shown}</span>" if kind or style else shown)
    return "".join(pieces)

"""What a notebook shows of a pattern: facts beside a picture, in the notebook's own colors."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from attnc.drawing.picture import BadPicture, Picture, picture
from attnc.drawing.svg import svg
from attnc.pattern import Pattern
from attnc.reach import telling_length
from attnc.relation import BodyTerms

Facts = tuple[Pattern, Sequence[BodyTerms], Sequence[tuple[str, str]]]


def overview(pattern: Pattern, bodies: Sequence[BodyTerms]) -> Picture:
    """The picture for somebody who asked for nothing special: a length that shows the pattern's sizes."""
    return picture(pattern, bodies, telling_length(pattern))


def shown(patterns: Sequence[Facts], wrong: Sequence[str], seen: Picture | None = None) -> str:
    """HTML without a style sheet, so that nothing around it changes.

    wrong: rendered diagnostics. seen: a picture in place of the usual one.
    """
    parts = []
    for pattern, bodies, rows in patterns:
        cells = "".join(
            f'<tr><th style="text-align:left;vertical-align:top;padding-right:1em">{escape(name)}</th>'
            f'<td style="text-align:left;white-space:pre-wrap">{escape(fact)}</td></tr>'
            for name, fact in rows
        )
        try:
            drawn = svg(seen or overview(pattern, bodies), standalone=False)
        except BadPicture as error:
            drawn = escape(str(error))
        parts.append(
            '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
            f'<div style="flex:0 1 auto">{drawn}</div>'
            f'<div style="flex:1 1 24em;overflow-x:auto"><table>{cells}</table></div></div>'
        )
    parts += [f'<pre style="overflow-x:auto">{escape(text)}</pre>' for text in wrong]
    return "\n".join(parts)

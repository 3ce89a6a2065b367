"""A picture within a page: panels side by side as far as there is room, and what the colors mean."""

from __future__ import annotations

from html import escape

from attnc.drawing.picture import Picture
from attnc.drawing.svg import legend, panels


def figure(seen: Picture) -> str:
    drawn = "".join(f"<div>{panel}</div>" for panel in panels(seen))
    marks = "".join(
        f'<li><i style="background:{paint};opacity:{strength:.2g}"></i><code>{escape(text)}</code></li>'
        for paint, strength, text in legend(seen)
    )
    return f'<figure><div class="panels">{drawn}</div><ul class="legend">{marks}</ul></figure>'

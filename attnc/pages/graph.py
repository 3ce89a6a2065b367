"""A page with one picture."""

from __future__ import annotations

from html import escape

from attnc.drawing.picture import Picture
from attnc.pages.figure import figure
from attnc.pages.frame import page


def graph_page(seen: Picture) -> str:
    body = (
        f"<h1><code>{escape(seen.title)}</code></h1>\n"
        f'<p class="soft">{escape(seen.caption)}. Rows are queries, columns the keys that they read.</p>\n'
        + figure(seen)
    )
    return page(f"{seen.title}: who reads whom", body)

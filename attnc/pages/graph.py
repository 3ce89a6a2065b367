"""A page with one picture."""

from __future__ import annotations

from html import escape

from attnc.drawing.picture import Picture
from attnc.drawing.svg import svg
from attnc.pages.frame import page


def graph_page(seen: Picture) -> str:
    body = (
        f"<h1><code>{escape(seen.title)}</code></h1>\n"
        f'<p class="soft">{escape(seen.caption)}. Rows are queries, columns the keys that they read.</p>\n'
        f"<figure>{svg(seen, standalone=False, title=False)}</figure>"
    )
    return page(f"{seen.title}: who reads whom", body)

"""A folder's patterns on one page: a picture of each, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from attnc import proofs
from attnc.counts import cost_of
from attnc.drawing.notebook import overview
from attnc.drawing.picture import Picture
from attnc.factorise import factors
from attnc.pages.figure import figure
from attnc.pages.frame import page
from attnc.pattern import Pattern
from attnc.pipeline import Judged
from attnc.proofs import Finding

STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
  gap: 1.2rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; min-width: 0; }
.card h2 { margin: 0; padding: 0; border: 0; font-size: 1.02rem; }
"""

CAUSAL = {"proven": "causal", "refuted": "not causal", "undecided": "whether causal is not decided"}


@dataclass(frozen=True)
class Card:
    """One pattern. about: the first sentence above it, or nothing. growth: of edges, and what states save."""

    title: str
    file: str
    about: str
    growth: str
    causal: Finding
    seen: Picture


def card(made: Judged) -> Card:
    """What is shown of a pattern. Raises ``BadPicture`` where it cannot be drawn."""
    pattern = made.pattern
    found = next((result.finding for result in made.claims if result.claim.kind == "causal"), None)
    seen = overview(pattern, made.bodies)
    return Card(
        title=seen.title,
        file=pattern.source.name,
        about=_about(pattern.source.text),
        growth=cost_of(made.bodies).growth + _saved(pattern),
        causal=found or proofs.causal(pattern),
        seen=seen,
    )


def _saved(pattern: Pattern) -> str:
    """That not every edge is computed, where it is so."""
    through = [any(factors(body)) for body in pattern.bodies]
    if not any(through):
        return ""
    heads = "" if all(through) else " in some heads"
    return f" edges, a multiple of n through states{heads}"


def _about(text: str) -> str:
    """The comment at the head of a file, up to the first sentence's end."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
        if lines[-1].endswith("."):
            break
    return " ".join(lines)


def gallery_page(title: str, cards: Sequence[Card]) -> str:
    parts = [f"<h1>{escape(title)}</h1>", '<p class="soft">Rows are queries, columns the keys they read.</p>']
    parts.append('<div class="cards">')
    parts += map(_card, cards)
    parts.append("</div>")
    return page(title, "\n".join(parts), STYLE)


def _card(item: Card) -> str:
    about = f"<p>{escape(item.about)}</p>" if item.about else ""
    return (
        f'<section class="card"><h2><code>{escape(item.title)}</code></h2>{about}{figure(item.seen)}'
        f'<p class="soft">{escape(item.seen.caption)}</p>'
        f"<p>{escape(item.growth)}; {CAUSAL[item.causal.verdict]}; "
        f"<code>{escape(item.file)}</code></p></section>"
    )

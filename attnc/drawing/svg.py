"""A picture as SVG: small, readable on white and on black, with nothing from elsewhere.

Colors of text and frames are those of whatever is around (``currentColor``); a file of its own chooses black
or white by what its viewer prefers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from attnc.drawing import MADE
from attnc.drawing.colors import PARTIAL, color
from attnc.drawing.picture import Panel, Picture
from attnc.graph import Kind

SIDE = 288  # of a panel, in pixels
LEFT, TOP, GAP = 30, 24, 34
LINE = 17
MOST_ACROSS = 3
# A letter of the legend's typeface is about so wide; text is broken by that.
LETTER = 6.7
STYLE = (
    "svg{color:#1f2328;background:#fff;font:11px system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#d8dee6;background:#12161c}}"
)
MONO = 'font-family="ui-monospace,Menlo,Consolas,monospace"'


def svg(seen: Picture, standalone: bool = True, title: bool = True) -> str:
    """The whole picture: panels side by side, and below them what the colors mean.

    standalone: for a file of its own, and not within a page. title: with the pattern's name and the length.
    """
    across = min(len(seen.panels), MOST_ACROSS)
    width = LEFT + across * SIDE + (across - 1) * GAP + 14
    parts: list[str] = []
    y = 14
    if title:
        for line in _wrapped(seen.title, width - 20):
            parts.append(f'<text x="{LEFT}" y="{y}" font-weight="600" {MONO}>{escape(line)}</text>')
            y += LINE
        for line in _wrapped(seen.caption, width - 20):
            parts.append(f'<text x="{LEFT}" y="{y}" opacity=".75">{escape(line)}</text>')
            y += LINE
    headed = any(panel.title for panel in seen.panels)
    step = SIDE + TOP + GAP // 2 + (LINE if headed else 0)
    for place, panel in enumerate(seen.panels):
        x = LEFT + (place % across) * (SIDE + GAP)
        parts += _panel(seen, panel, x, y + TOP + (LINE if headed else 0) + (place // across) * step)
    y += step * -(-len(seen.panels) // across) + 6
    for paint, strength, text in legend(seen):
        lines = _wrapped(text, width - LEFT - 30)
        faint = "" if strength == 1 else f' fill-opacity="{strength:.2g}"'
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="22" height="11" fill="{paint}"{faint}/>')
        for line in lines:
            parts.append(f'<text x="{LEFT + 30}" y="{y}" {MONO}>{escape(line)}</text>')
            y += LINE
    return _document(seen, width, y, parts, standalone)


def panels(seen: Picture) -> list[str]:
    """Every panel as an SVG of its own, for pages that arrange them themselves."""
    found = []
    for panel in seen.panels:
        top = TOP + (LINE if panel.title else 0)
        parts = list(_panel(seen, panel, LEFT, top))
        found.append(_document(seen, LEFT + SIDE + 4, top + SIDE + 4, parts, standalone=False))
    return found


def thumbnail(seen: Picture) -> str:
    """A small file of the panels alone, without a word, for tables and galleries."""
    across = len(seen.panels)
    width = across * SIDE + (across - 1) * GAP // 2 + 2
    parts: list[str] = []
    for place, panel in enumerate(seen.panels):
        parts += _plot(seen, panel, 1 + place * (SIDE + GAP // 2), 1)
    return _document(seen, width, SIDE + 2, parts, standalone=True)


def legend(seen: Picture) -> list[tuple[str, float, str]]:
    """What the colors mean: a color, how strongly it is painted, and words."""
    found = [(color(number), 1.0, term) for number, term in enumerate(seen.terms)]
    if not seen.terms:
        found.append(("currentColor", 0.06, "no query reads any key"))
    if seen.tokens or not seen.terms:
        return found
    for kind, strength in ((Kind.FULL, 0.8), (Kind.PARTIAL, 0.35), (Kind.EMPTY, 0.06)):
        count = sum(panel.graph.counts()[kind] for panel in seen.panels)
        found.append(("currentColor", strength, f"{count} tiles {_state(seen, kind)}"))
    return found


def _document(seen: Picture, width: int, height: int, parts: list[str], standalone: bool) -> str:
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    style = f"<style>{STYLE}</style>" if standalone else ""
    # Within a page the typeface must not be told in a style, which would be the page's, too.
    face = "" if standalone else ' font-family="system-ui,sans-serif" font-size="11"'
    label = escape(f"{seen.title}: {seen.caption}")
    head = (f"<!-- {MADE} -->\n" if standalone else "") + (
        f'<svg{space} viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}" fill="currentColor" style="max-width:100%;height:auto"{face}>{style}'
    )
    return head + "\n" + "\n".join(parts) + "\n</svg>\n"


def _panel(seen: Picture, panel: Panel, x: int, y: int) -> Iterator[str]:
    last = seen.n - 1
    if panel.title:
        heading = textwrap.shorten(panel.title, int(SIDE / LETTER), placeholder=" …")
        yield f'<text x="{x}" y="{y - TOP}" font-weight="600">{escape(heading)}</text>'
    yield f'<g opacity=".75" text-anchor="middle"><text x="{x + SIDE // 2}" y="{y - 6}">keys</text>'
    yield f'<text x="{x + 3}" y="{y - 6}">0</text>'
    yield f'<text x="{x + SIDE}" y="{y - 6}" text-anchor="end">{last}</text>'
    yield f'<text transform="translate({x - 8} {y + SIDE // 2}) rotate(-90)">queries</text></g>'
    yield from _plot(seen, panel, x, y)


def _plot(seen: Picture, panel: Panel, x: int, y: int) -> Iterator[str]:
    yield f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill-opacity=".06"/>'
    scale = f"{SIDE / seen.tiles:.6g}"
    yield f'<g transform="translate({x} {y}) scale({scale})" shape-rendering="crispEdges">'
    for (term, kind), data in _paths(panel).items():
        faint = f' fill-opacity="{PARTIAL:.2g}"' if kind is Kind.PARTIAL else ""
        said = escape(f"{seen.terms[term]}: {_state(seen, kind)}")
        yield f'<path fill="{color(term)}"{faint} d="{data}"><title>{said}</title></path>'
    yield "</g>"
    yield (
        f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" '
        'stroke-opacity=".35"/>'
    )


@dataclass
class _Open:
    """A rectangle that the next row may make taller."""

    top: int
    height: int = 1


@dataclass
class _Ink:
    """What is painted in the color of one term and kind; equal runs of rows below each other are one."""

    done: list[str] = field(default_factory=list)
    open: dict[tuple[int, int], _Open] = field(default_factory=dict)

    def close(self, row: int) -> None:
        for (start, stop), rect in list(self.open.items()):
            if rect.top + rect.height < row:
                self.done.append(f"M{start} {rect.top}h{stop - start}v{rect.height}H{start}z")
                del self.open[start, stop]


def _paths(panel: Panel) -> dict[tuple[int, Kind], str]:
    """Rectangles by term and kind, in tiles, as the data of paths."""
    inks: dict[tuple[int, Kind], _Ink] = {}
    for i, row in enumerate(panel.rows()):
        for part in row:
            for place, term in enumerate(part.terms):
                ink = inks.setdefault((term, part.kind), _Ink())
                if len(part.terms) == 1:
                    ends = (part.start, part.stop)
                    rect = ink.open.get(ends)
                    if rect is not None and rect.top + rect.height == i:
                        rect.height += 1
                    else:
                        ink.open.setdefault(ends, _Open(i))
                    continue
                # Where several terms meet, each has its share of the row.
                share = 1 / len(part.terms)
                top = f"{round(i + place * share, 3):.7g}"
                ink.done.append(f"M{part.start} {top}h{part.stop - part.start}v{share:.3g}H{part.start}z")
        for ink in inks.values():
            ink.close(i + 1)
    for ink in inks.values():
        ink.close(panel.graph.tiles + 1)
    return {key: "".join(ink.done) for key, ink in sorted(inks.items())}


def _state(seen: Picture, kind: Kind) -> str:
    if seen.tokens:
        return "an edge"
    return {Kind.FULL: "full", Kind.PARTIAL: "partial: some pairs", Kind.EMPTY: "empty"}[kind]


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, max(8, int(width / LETTER)), subsequent_indent="  ") or [""]

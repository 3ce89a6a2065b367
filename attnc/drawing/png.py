"""A picture as PNG, by matplotlib."""

from __future__ import annotations

import io
import textwrap
from importlib import import_module

from attnc.drawing import MADE
from attnc.drawing.colors import PARTIAL, color
from attnc.drawing.picture import Panel, Picture
from attnc.graph import Kind

MOST_ACROSS = 3
PAPER, FRAME = "#f3f4f6", "#9aa0a6"


class NoMatplotlib(RuntimeError):
    """Matplotlib is not installed; the text says what to install."""


def png(seen: Picture) -> bytes:
    """The bytes of the file. Raises ``NoMatplotlib``."""
    try:
        make_figure = import_module("matplotlib.figure").Figure
        make_canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
        patches = import_module("matplotlib.patches")
        collections = import_module("matplotlib.collections")
    except ImportError:
        raise NoMatplotlib(
            "a PNG is drawn with matplotlib: `pip install '.[pictures]'` in a checkout of attnc installs it, "
            "and an SVG needs nothing"
        ) from None
    across = min(len(seen.panels), MOST_ACROSS)
    down = -(-len(seen.panels) // across)
    wide = max(4.0, 3.4 * across)
    letters = int(wide * 12)
    legend = ["\n".join(textwrap.wrap(term, letters)) for term in seen.terms]
    below = 0.22 * (sum(term.count("\n") + 1 for term in legend) + 1)
    figure = make_figure(figsize=(wide, 3.6 * down + below + 0.5), layout="constrained")
    make_canvas(figure)
    figure.suptitle(
        "\n".join(textwrap.wrap(f"{seen.title}: {seen.caption}", letters)), fontsize=9, parse_math=False
    )
    for place, plot in enumerate(figure.subplots(down, across, squeeze=False).flat):
        if place >= len(seen.panels):
            plot.set_axis_off()
            continue
        panel = seen.panels[place]
        boxes, colors = _boxes(panel)
        plot.set_facecolor(PAPER)
        plot.add_collection(
            collections.PolyCollection(boxes, facecolors=colors, linewidths=0, antialiased=False)
        )
        plot.set(xlim=(0, seen.n), ylim=(seen.n, 0), aspect="equal")
        plot.set_xlabel("keys", fontsize=8)
        plot.set_ylabel("queries", fontsize=8)
        plot.set_title(panel.title, fontsize=9, parse_math=False)
        plot.tick_params(labelsize=7)
        plot.spines[:].set_color(FRAME)
    marks = [patches.Patch(color=color(i), label=term) for i, term in enumerate(legend)]
    if not seen.tokens:
        marks.append(patches.Patch(color=color(0), alpha=PARTIAL, label="paler: partial tiles"))
    if marks:
        found = figure.legend(handles=marks, loc="outside lower left", fontsize=8, frameon=False)
        for label in found.get_texts():
            label.set(parse_math=False, family="monospace")
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=150, metadata={"Software": MADE})
    return held.getvalue()


Corners = list[tuple[float, float]]


def _boxes(panel: Panel) -> tuple[list[Corners], list[tuple[str, float]]]:
    """Rectangles in positions, and the color of each."""
    tile, n = panel.graph.tile, panel.graph.n
    boxes: list[Corners] = []
    colors: list[tuple[str, float]] = []
    for i, row in enumerate(panel.rows()):
        top, bottom = i * tile, min((i + 1) * tile, n)
        for part in row:
            left, right = part.start * tile, min(part.stop * tile, n)
            for place, term in enumerate(part.terms):
                share = (bottom - top) / len(part.terms)
                a, b = top + place * share, top + (place + 1) * share
                boxes.append([(left, a), (right, a), (right, b), (left, b)])
                colors.append((color(term), 1.0 if part.kind is Kind.FULL else PARTIAL))
    return boxes, colors

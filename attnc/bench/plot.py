"""A picture of a run's times: one panel for every case, one row for every peer."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib import import_module
from typing import Any

FORMATS = ("png", "svg")


class NoMatplotlib(RuntimeError):
    """Matplotlib is not installed; the text says what to install."""


def available() -> None:
    """Raises ``NoMatplotlib`` if nothing can be drawn."""
    try:
        import_module("matplotlib")
    except ImportError:
        raise NoMatplotlib(
            "`--plot` draws with matplotlib: `pip install '.[bench]'` in a checkout of attnc installs it"
        ) from None


def draw(document: Mapping[str, Any], kind: str) -> bytes:
    """The picture of a document as the bytes of a ``png`` or ``svg`` file."""
    held = io.BytesIO()
    figure(document).savefig(held, format=kind, dpi=150)
    return held.getvalue()


def figure(document: Mapping[str, Any]) -> Any:
    """Matplotlib's figure of a document: times as points, because a logarithmic axis has no zero for bars."""
    available()
    make_figure = import_module("matplotlib.figure").Figure
    make_canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
    cases = document["cases"]
    rows = [[peer for peer in case["peers"] if "seconds" in peer["forward"]] for case in cases]
    heights = [max(1, len(row)) for row in rows]
    made = make_figure(figsize=(8, 1.1 * len(cases) + 0.36 * sum(heights)), layout="constrained")
    make_canvas(made)
    panels = made.subplots(len(cases), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, case, row in zip(panels, cases, rows, strict=True):
        names = [peer["peer"] + ("*" if peer["other_edges"] else "") for peer in row]
        both = any("seconds" in peer.get("backward", ()) for peer in row)
        for offset, direction, color, marker in (
            (0.2, "forward", "#3b6ea5", "o"),
            (-0.2, "backward", "#d08c3f", "D"),
        ):
            timed = [
                (i, peer[direction]) for i, peer in enumerate(row) if "seconds" in peer.get(direction, ())
            ]
            places = [len(row) - 1 - i + (offset if both else 0) for i, _ in timed]
            values = [phase["seconds"] * 1e3 for _, phase in timed]
            if values:
                panel.plot(values, places, marker, label=direction, color=color)
            for value, place in zip(values, places, strict=True):
                panel.annotate(
                    f"{value:.3g}",
                    (value, place),
                    (7, 0),
                    textcoords="offset points",
                    verticalalignment="center",
                    fontsize=8,
                )
        panel.set_yticks(range(len(row) - 1, -1, -1), names)
        panel.set_ylim(-0.6, max(len(row) - 0.4, 0.6))
        panel.set_title(f"{case['pattern']}, n {case['n']}, {case['dtype']}, {case['device']}", fontsize=10)
        panel.set_xscale("log")
        panel.margins(x=0.15)
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    panels[-1].set_xlabel("milliseconds on a logarithmic axis, the median of alternating runs")
    return made

"""Curves and bars as inline SVG, in the colors of the page around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 96, 14, 42
_FACE = 'font-family="system-ui,sans-serif" font-size="12"'
SUFFIXES = ("", "k", "M", "G", "T", "P", "E")


@dataclass(frozen=True)
class Curve:
    """Points with positive coordinates; dashed for what is only compared with."""

    name: str
    points: tuple[tuple[int, int], ...]
    color: str
    dashed: bool = False


def curves(lines: Sequence[Curve], across: str, up: str) -> str:
    """Curves over logarithmic axes, each with its name at its end. Points at 0 are left out."""
    drawn = [(line, [point for point in line.points if point[1] > 0]) for line in lines]
    points = [point for _, kept in drawn for point in kept]
    x = _Axis.of([point[0] for point in points], LEFT, WIDTH - RIGHT)
    y = _Axis.of([point[1] for point in points], HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y)]
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(across)}</text>"
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(up)}</text>'
    )
    ends: list[tuple[float, Curve]] = []
    for line, kept in drawn:
        if not kept:
            continue
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in kept)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2"{dash}/>')
        ends.append((y.at(kept[-1][1]), line))
    for place, line in _apart(ends):
        words = f'<tspan fill="{line.color}">\N{EM DASH}</tspan> {escape(line.name)}'
        parts.append(f'<text x="{WIDTH - RIGHT + 6}" y="{place + 4:.1f}">{words}</text>')
    return _document(WIDTH, HEIGHT, f"{up} against {across}", parts)


def bars(shares: Sequence[tuple[str, float, str]], color: str) -> str:
    """Horizontal bars: what each is called, how long it is from 0 to 1, and what is written behind it."""
    left, length, step = 70, 240, 24
    parts = []
    for place, (name, share, text) in enumerate(shares):
        y = 6 + place * step
        parts.append(
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{length}" height="16" fill-opacity=".07"/>'
            f'<rect x="{left}" y="{y}" width="{length * share:.1f}" height="16" fill="{color}"/>'
            f'<text x="{left + length + 8}" y="{y + 12}">{escape(text)}</text>'
        )
    return _document(left + length + 84, 10 + len(shares) * step, "shares", parts)


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from ``low`` to ``high``, drawn from pixel ``start`` to pixel ``end``."""

    low: float
    high: float
    start: int
    end: int

    @staticmethod
    def of(values: Sequence[int], start: int, end: int) -> _Axis:
        low, high = (log10(pick(values, default=1)) for pick in (min, max))
        return _Axis(low, max(high, low + 1), start, end)

    def at(self, value: float) -> float:
        return self.start + (log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> Iterator[int]:
        """Powers of ten, as many as can be told apart."""
        first, last = ceil(self.low - 1e-9), floor(self.high + 1e-9)
        yield from range(first, last + 1, max(1, ceil((last - first + 1) / 7)))


def _grid(x: _Axis, y: _Axis) -> Iterator[str]:
    line = '<path d="M{} {}L{} {}" stroke="currentColor" stroke-opacity=".15"/>'
    for power in x.ticks():
        place = f"{x.at(10**power):.1f}"
        yield line.format(place, TOP, place, HEIGHT - BOTTOM)
        yield f'<text x="{place}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(10**power)}</text>'
    for power in y.ticks():
        place = f"{y.at(10**power):.1f}"
        yield line.format(LEFT, place, WIDTH - RIGHT, place)
        yield (f'<text x="{LEFT - 6}" y="{float(place) + 4:.1f}" text-anchor="end">{short(10**power)}</text>')


def _apart(ends: list[tuple[float, Curve]]) -> Iterator[tuple[float, Curve]]:
    """Names that would lie on each other are moved down."""
    last = -100.0
    for place, line in sorted(ends, key=lambda item: item[0]):
        last = max(place, last + 14)
        yield last, line


def short(value: int) -> str:
    """A number in a few letters: 1024 is 1.02k."""
    power, scaled = 0, float(value)
    while scaled >= 999.5 and power + 1 < len(SUFFIXES):
        scaled, power = scaled / 1000, power + 1
    return f"{scaled:.3g}{SUFFIXES[power]}"


def _document(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}" fill="currentColor" style="max-width:100%;height:auto" {_FACE}>'
        + "".join(parts)
        + "</svg>"
    )

"""A picture in characters, for terminals: two columns a tile, panels side by side as far as there is room."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from attnc.drawing.colors import terminal_color
from attnc.drawing.picture import Panel, Picture, Segment
from attnc.graph import Kind

GAP = 3
_RESET = "\x1b[0m"
# Empty, partial and full; the second for terminals that know ASCII alone.
_BLOCKS = {Kind.EMPTY: "·", Kind.PARTIAL: "▒", Kind.FULL: "█"}
_ASCII = {Kind.EMPTY: ".", Kind.PARTIAL: "+", Kind.FULL: "#"}


def tiles_for(columns: int, most: int = 32) -> int:
    """How many tiles a side there is room for."""
    return max(4, min(most, (columns - 1) // 2))


def text(seen: Picture, columns: int = 80, color: bool = False, encoding: str = "utf-8") -> str:
    """The picture in lines of at most ``columns`` characters.

    Terms are told apart by colors, and without them by letters: small ones for partial tiles.
    """
    blocks = _BLOCKS if _knows(encoding, "·▒█…") else _ASCII
    across = max(1, (columns + GAP) // (2 * seen.tiles + GAP))
    lines = [_cut(seen.title, columns), _cut(seen.caption, columns), ""]
    for first in range(0, len(seen.panels), across):
        group = seen.panels[first : first + across]
        if any(panel.title for panel in group):
            headings = (_cut(panel.title, 2 * seen.tiles).ljust(2 * seen.tiles) for panel in group)
            lines.append((" " * GAP).join(headings).rstrip())
        drawn = [_rows(seen, panel, blocks, color) for panel in group]
        lines += [(" " * GAP).join(row) for row in zip(*drawn, strict=True)]
        lines.append("")
    lines += [_cut(line, columns, mark) for line, mark in _legend(seen, blocks, color)]
    if blocks is _ASCII:
        lines = [line.replace("…", "...") for line in lines]
    return "\n".join(lines)


def _rows(seen: Picture, panel: Panel, blocks: dict[Kind, str], color: bool) -> Iterator[str]:
    lettered = not color and len(seen.terms) > 1
    for row in panel.rows():
        line, at = "", 0
        for part in row:
            line += 2 * blocks[Kind.EMPTY] * (part.start - at)
            line += _cell(part, blocks, color, lettered) * (part.stop - part.start)
            at = part.stop
        yield line + 2 * blocks[Kind.EMPTY] * (seen.tiles - at) + (_RESET if color else "")


def _cell(part: Segment, blocks: dict[Kind, str], color: bool, lettered: bool) -> str:
    first, second = part.terms[0], part.terms[min(1, len(part.terms) - 1)]
    if lettered:
        return _letter(first, part.kind) + _letter(second, part.kind)
    if not color:
        return 2 * blocks[part.kind]
    halves = "".join(_paint(term, blocks[part.kind]) for term in (first, second))
    return halves + _RESET


def _letter(term: int, kind: Kind) -> str:
    letter = chr(ord("a") + term % 26)
    return letter.upper() if kind is Kind.FULL else letter


def _paint(term: int, block: str) -> str:
    return f"\x1b[38;5;{terminal_color(term)}m{block}"


def _legend(seen: Picture, blocks: dict[Kind, str], color: bool) -> Iterator[tuple[str, str]]:
    """Lines, and the mark that stands before each."""
    lettered = not color and len(seen.terms) > 1
    full = 2 * blocks[Kind.FULL]
    for number, term in enumerate(seen.terms):
        if color:
            yield term, f"{_paint(number, full)}{_RESET} "
        elif lettered:
            yield term, f"{2 * _letter(number, Kind.FULL)} "
        else:
            yield term, f"{full} "
    if not seen.terms:
        yield "no query reads any key", ""
    if seen.tokens:
        return
    if lettered:
        yield f"capitals are full tiles, small letters partial, {blocks[Kind.EMPTY]} empty", ""
    else:
        full, partial, empty = (blocks[kind] for kind in (Kind.FULL, Kind.PARTIAL, Kind.EMPTY))
        yield f"{full} full, {partial} partial, {empty} empty", ""


def _cut(line: str, columns: int, mark: str = "") -> str:
    """A line that fits, with a mark of three columns before it; no control character gets through."""
    room = columns - (3 if mark else 0)
    plain = "".join("?" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in line)
    return mark + (plain if len(plain) <= room else plain[: max(room - 1, 0)] + "…")


def _knows(encoding: str, characters: str) -> bool:
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True

"""The one way in which a pattern file is laid out: ``attnc fmt``.

Spaces and indentation are settled here, and where lines break: before the operators of a chain, all of them
or none, as it was written, and wherever a line would be too long. Words, comments and single empty lines
stay. What comes out is parsed again and compared before anyone sees it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise

from attnc import syntax as tree
from attnc.diagnostics import Source, Span
from attnc.lexicon import Word, hugging, words
from attnc.parser import parse

WIDTH = 110
INDENT = 4
_LINE_END = re.compile(r"\r\n|\r|\n")
_OPENING, _CLOSING = ("LPAR", "LSQB", "LBRACE"), ("RPAR", "RSQB", "RBRACE")


class FormatError(RuntimeError):
    """Laying a text out would have changed what it says: a fault of attnc, and nothing was done."""


def formatted(source: Source) -> str:
    """The text of a pattern file in its canonical form; the form of that is itself.

    Raises ``AttncError`` where the text does not parse, ``FormatError`` if something would be lost.
    """
    file = parse(source)
    text = _Layout(_lexemes(source.text), _Facts.of(file)).text()
    _compare(source, file, text)
    return text


# --- what is known of the text --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lexeme:
    """A word or comment. lines: how many line ends stand before it."""

    word: Word
    lines: int

    @property
    def kind(self) -> str:
        return self.word.kind

    @property
    def is_comment(self) -> bool:
        return self.word.look == "comment"


@dataclass(frozen=True, eq=False)
class _Chain:
    """Operators of one level. first: where the first operand begins; depth: how deep it is nested."""

    first: int
    depth: int
    operators: tuple[int, ...]


@dataclass
class _Facts:
    """What the tree says about words, by where they begin.

    begins: patterns and items. sets: braces that are no block's. keywords: every place between the name of an
    argument and its value.
    """

    begins: set[int] = field(default_factory=set)
    chains: dict[int, _Chain] = field(default_factory=dict)
    prefixes: set[int] = field(default_factory=set)
    sets: set[int] = field(default_factory=set)
    keywords: set[int] = field(default_factory=set)

    @staticmethod
    def of(file: tree.File) -> _Facts:
        facts = _Facts()
        todo: list[tuple[object, int]] = [(pattern, 0) for pattern in file.patterns]
        while todo:
            node, depth = todo.pop()
            match node:
                case tree.Chain(operands, operators, _):
                    places = tuple(operator.span.start for operator in operators)
                    chain = _Chain(operands[0].span.start, depth, places)
                    facts.chains.update(dict.fromkeys(places, chain))
                case tree.Prefix(operator):
                    facts.prefixes.add(operator.span.start)
                case tree.Listing(span=span):
                    facts.sets |= {span.start, span.end - 1}
                case tree.Pattern(items=items, span=span) | tree.Heads(items=items, span=span):
                    facts.begins |= {span.start, *(item.span.start for item in items)}
                case tree.Argument(tree.Ident(span=name), value):
                    facts.keywords.update(range(name.end, value.span.start))
            todo += [(child, depth + 1) for child in _children(node)]
        return facts


def _children(node: object) -> Iterator[object]:
    if is_dataclass(node):
        for item in fields(node):
            value = getattr(node, item.name)
            yield from value if isinstance(value, tuple) else (value,)


def _lexemes(text: str) -> list[_Lexeme]:
    """Words and comments. Commas before a closing bracket go, operators stand before what they join."""
    found: list[_Lexeme] = []
    lines = 0
    for word in words(text):
        if word.look == "space":
            lines += len(_LINE_END.findall(word.text))
        else:
            found.append(_Lexeme(word, lines))
            lines = 0
    kept: list[_Lexeme] = []
    after = ""
    for item in reversed(found):
        if item.kind != "COMMA" or after not in _CLOSING:
            kept.append(item)
        after = after if item.is_comment else item.kind
    return kept[::-1]


# --- the layout -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spot:
    """Where a line begins or ends.

    place: of its first word; depth: how many blocks are open; brackets: the column behind every open bracket
    that is no block's.
    """

    place: int = 0
    depth: int = 0
    brackets: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Line:
    """A line from its first word to the first of the next. apart: whether an empty line stands before it."""

    begin: _Spot
    end: _Spot
    text: str
    apart: bool


class _Layout:
    """Lays words out line by line; a line that is too long is broken, and laid out anew from there on."""

    def __init__(self, lexemes: list[_Lexeme], facts: _Facts) -> None:
        self.facts = facts
        self.lexemes = self._moved(lexemes)
        self.places = {item.word.start: place for place, item in enumerate(self.lexemes)}
        self.breaks = self._written_breaks()
        self.blocks = self._blocks()
        self.begins = self._beginnings()
        self.columns: dict[int, int] = {}

    def text(self) -> str:
        lines: list[_Line] = []
        spot = _Spot()
        while spot.place < len(self.lexemes):
            line = self._line(spot)
            lines.append(line)
            spot = line.end
            broken = self._shorten(line) if len(line.text) > WIDTH else []
            if broken:
                first = min(self.places[start] for start in broken)
                while spot.place > first:
                    spot = lines.pop().begin
        return "".join("\n" * line.apart + f"{line.text}\n" for line in lines)

    # --- where lines break ----

    def _moved(self, lexemes: list[_Lexeme]) -> list[_Lexeme]:
        """An operator at the end of a line goes to the beginning of the next, behind comments between."""
        items = list(lexemes)
        for i in range(len(items) - 1, -1, -1):
            j = i
            if (
                items[i].word.start not in self.facts.chains
                or i + 1 >= len(items)
                or not (items[i + 1].lines or items[i + 1].is_comment)
            ):
                continue
            while items[j + 1].is_comment:
                items[j] = items[j + 1]
                j += 1
            items[j] = _Lexeme(lexemes[i].word, 1)
        return items

    def _written_breaks(self) -> set[int]:
        """Words that begin a line because they did, or because another of their chain did."""
        found: set[int] = set()
        for before, item in pairwise(self.lexemes):
            start = item.word.start
            if start in self.facts.chains and (item.lines or before.is_comment):
                found.update(self.facts.chains[start].operators)
            elif before.kind == "COMMA" and item.lines and not item.is_comment:
                found.add(start)
        return found

    def _blocks(self) -> dict[int, bool]:
        """Braces of blocks, and whether what stands between them may stay on one line."""
        found: dict[int, bool] = {}
        opened: list[tuple[int, int, bool, int]] = []  # brace, its place, whether it may, items in it
        for place, item in enumerate(self.lexemes):
            start = item.word.start
            if opened and (item.lines or item.is_comment):
                opened = [(brace, at, False, count) for brace, at, _, count in opened]
            if start in self.facts.begins:
                opened = [(brace, at, may, count + 1) for brace, at, may, count in opened]
            if item.kind == "LBRACE" and start not in self.facts.sets:
                opened.append((start, place, True, 0))
            elif item.kind == "RBRACE" and start not in self.facts.sets:
                brace, _, may, count = opened.pop()
                found[brace] = found[start] = may and count <= 1
        return found

    def _shorten(self, line: _Line) -> Collection[int]:
        """Breaks a line at the loosest place that it has; the words that are laid out in another way now."""
        here = self.lexemes[line.begin.place : line.end.place]
        inline = [item.word.start for item in here if self.blocks.get(item.word.start)]
        if inline:
            # Both braces of a block stand on its line.
            self.blocks |= dict.fromkeys(inline, False)
            return inline
        chains = {
            self.facts.chains[item.word.start]
            for item in here
            if item.word.start in self.facts.chains and item.word.start not in self.breaks
        }
        if chains:
            loosest = min(chains, key=lambda chain: (chain.depth, chain.first))
            self.breaks.update(loosest.operators)
            return loosest.operators
        commas = self._outer_commas(here)
        self.breaks.update(commas)
        return commas

    def _outer_commas(self, here: list[_Lexeme]) -> list[int]:
        """What follows the commas of a line that are nested least."""
        depth, found = 0, []
        for before, item in pairwise(here):
            depth += (before.kind in _OPENING) - (before.kind in _CLOSING)
            if before.kind == "COMMA" and not item.is_comment:
                found.append((depth, item.word.start))
        least = min(found, default=(0, 0))[0]
        return [start for level, start in found if level == least and start not in self.breaks]

    # --- word after word ----

    def _line(self, begin: _Spot) -> _Line:
        """The line that begins with a word: as far as the next one that begins a line."""
        depth, brackets = begin.depth, begin.brackets
        line, apart = "", False
        place = begin.place
        while place < len(self.lexemes):
            item = self.lexemes[place]
            start, kind = item.word.start, item.kind
            closed = self.blocks.get(start) is False
            own = depth - (closed and kind == "RBRACE")
            indent = self._indent(place, own, brackets)
            if place == begin.place:
                apart = self._empty_line(place, own, brackets)
                line = " " * (indent or 0)
            elif indent is not None:
                break
            else:
                line += self._space(self.lexemes[place - 1], item)
            self.columns[start] = len(line)
            line += item.word.text.rstrip() if item.is_comment else item.word.text
            depth = own
            if start in self.blocks:
                depth += closed and kind == "LBRACE"
            elif kind in _OPENING:
                brackets = (*brackets, len(line))
            elif kind in _CLOSING:
                brackets = brackets[:-1]
            place += 1
        return _Line(begin, _Spot(place, depth, brackets), line, apart)

    def _indent(self, place: int, depth: int, brackets: tuple[int, ...]) -> int | None:
        """The indentation of a word that begins a line; None for one that goes on."""
        if place == 0:
            return 0
        item, before = self.lexemes[place], self.lexemes[place - 1]
        start = item.word.start
        if item.is_comment and not item.lines and not before.is_comment:
            return None
        own = INDENT * depth
        if not brackets and self.begins[place]:
            inline = self.blocks.get(before.word.start) and before.kind == "LBRACE"
            closing = self.blocks.get(start) and item.kind == "RBRACE"
            return None if inline or closing else own
        hanging = brackets[-1] if brackets else own + INDENT
        if start in self.facts.chains and (start in self.breaks or before.is_comment):
            first = self.columns[self.facts.chains[start].first]
            return max(first - len(item.word.text) - 1, own)
        if item.is_comment or before.is_comment or start in self.breaks:
            return hanging
        return None

    def _beginnings(self) -> list[bool]:
        """Of every word: whether an item, a pattern, the end of a block, or a comment before one begins."""
        found, after = [], True
        for item in reversed(self.lexemes):
            if not item.is_comment:
                closes = item.kind == "RBRACE" and item.word.start in self.blocks
                after = closes or item.word.start in self.facts.begins
            found.append(after)
        return found[::-1]

    def _empty_line(self, place: int, depth: int, brackets: tuple[int, ...]) -> bool:
        if place == 0:
            return False
        item, before = self.lexemes[place], self.lexemes[place - 1]
        closes = item.kind == "RBRACE" and item.word.start in self.blocks
        opens = before.kind == "LBRACE" and before.word.start in self.blocks
        if brackets or closes or opens or not self.begins[place]:
            return False
        return item.lines > 1 or (depth == 0 and before.kind == "RBRACE")

    def _space(self, before: _Lexeme, item: _Lexeme) -> str:
        """What stands between two words of a line."""
        if item.is_comment:
            return "  "
        left, right = before.word, item.word
        tight_left = left.kind in ("LPAR", "LSQB", "DOT", "DOTDOT") or left.start in self.facts.sets
        tight_right = right.kind in ("RPAR", "RSQB", "COMMA", "COLON", "DOT", "DOTDOT")
        if tight_right or (tight_left and left.kind not in _CLOSING):
            return ""
        if right.kind == "RBRACE" and (right.start in self.facts.sets or left.kind == "LBRACE"):
            return ""
        if left.start in self.facts.prefixes and left.look != "keyword":
            return ""
        if (left.kind, right.kind) in hugging() and left.look != "sign":
            return ""
        equals = (left, right) if left.kind == "EQUALS" else (right, left)
        if equals[0].kind == "EQUALS" and equals[0].start in self.facts.keywords:
            return ""
        return " "


# --- nothing may be lost --------------------------------------------------------------------------------


def _compare(source: Source, file: tree.File, text: str) -> None:
    """Raises ``FormatError`` unless the new text has the same words, comments and tree."""
    same_words = _spoken(source.text) == _spoken(text)
    if not same_words or _shape(parse(Source(source.name, text))) != _shape(file):
        raise FormatError(
            f"laying out `{source.name}` would change what it says; the file is left as it is, and this is a "
            "fault of attnc"
        )


def _spoken(text: str) -> tuple[list[str], list[str]]:
    """The words but for idle commas, and the comments."""
    listed = _lexemes(text)
    return (
        [item.word.text for item in listed if not item.is_comment],
        [item.word.text.rstrip() for item in listed if item.is_comment],
    )


def _shape(node: object) -> object:
    """A tree without places."""
    if isinstance(node, (Span, Source)):
        return None
    if isinstance(node, tuple):
        return tuple(map(_shape, node))
    if is_dataclass(node):
        return (type(node).__name__, *(_shape(getattr(node, item.name)) for item in fields(node)))
    return node

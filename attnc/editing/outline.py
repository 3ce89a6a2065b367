"""What a text defines, and where: told from its words, for a text that is being written does not parse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from attnc import names
from attnc.diagnostics import Span
from attnc.lexicon import Word, all_words

Kind = Literal["pattern", "parameter", "input", "axis", "let", "heads"]
_OPENING = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
_ITEM_WORDS = frozenset((*names.ITEMS, *names.WEIGHTS))


@dataclass(frozen=True)
class Symbol:
    """Something that has a name. name: where that stands; whole: what defines it; parts: what is in it.

    For a ``heads`` body the name is what chooses the heads.
    """

    text: str
    kind: Kind
    name: Span
    whole: Span
    parts: tuple[Symbol, ...] = ()


@lru_cache(maxsize=16)
def spoken(text: str) -> tuple[Word, ...]:
    """The words of a text without spaces and comments."""
    return tuple(word for word in all_words(text) if word.look not in ("space", "comment"))


@lru_cache(maxsize=16)
def outline(text: str) -> tuple[Symbol, ...]:
    """The patterns of a text, with what each defines."""
    return tuple(_patterns(spoken(text)))


def word_at(text: str, offset: int) -> Word | None:
    """The word that a place is in or just behind."""
    found = [word for word in spoken(text) if word.start <= offset <= word.end]
    named = [word for word in found if word.look in ("name", "call", "keyword")]
    return next(iter(reversed(named or found)), None)


def pattern_at(text: str, offset: int) -> Symbol | None:
    return next((symbol for symbol in outline(text) if _inside(offset, symbol)), None)


def item_at(text: str, offset: int) -> Word | None:
    """The first word of the item that a place is in or behind."""
    found = [word for word in spoken(text) if word.look == "keyword" and word.start < offset]
    return next((word for word in reversed(found) if word.text in _ITEM_WORDS), None)


def known_at(text: str, offset: int) -> tuple[Symbol, ...]:
    """What has a name at a place, itself included where it is being defined: the nearest last."""
    pattern = pattern_at(text, offset)
    return () if pattern is None else tuple(_known(pattern, offset))


def definition(text: str, offset: int) -> Symbol | None:
    """What the word at a place was defined as: a pattern, parameter, input, axis or let."""
    word = word_at(text, offset)
    if word is None or word.look not in ("name", "call"):
        return None
    pattern = pattern_at(text, offset)
    if pattern is not None and pattern.name == Span(word.start, word.end):
        return pattern
    here = spoken(text)
    place = here.index(word)
    before = here[place - 1].kind if place else ""
    if before == "EQUALS" and place > 1 and here[place - 2].text == "axis":
        before = "DOT"
    after = here[place + 1].kind if place + 1 < len(here) else ""
    keyword = after == "EQUALS" and before in ("COMMA", "LPAR")
    found = [
        symbol for symbol in known_at(text, offset) if symbol.text == word.text and symbol.kind != "heads"
    ]
    itself = [symbol for symbol in found if symbol.name.start == word.start]
    if itself or keyword:
        return itself[0] if itself else None
    axes = before == "DOT"
    return next((symbol for symbol in reversed(found) if (symbol.kind == "axis") == axes), None)


def _known(symbol: Symbol, offset: int) -> Iterator[Symbol]:
    for part in symbol.parts:
        if part.kind == "heads":
            if _inside(offset, part):
                yield from _known(part, offset)
        elif part.name.start <= offset:
            yield part


def _inside(offset: int, symbol: Symbol) -> bool:
    return symbol.whole.start <= offset <= symbol.whole.end


# --- from words to symbols ------------------------------------------------------------------------------


def _patterns(words: tuple[Word, ...]) -> Iterator[Symbol]:
    starts = [place for place, word in enumerate(words) if word.kind == "PATTERN"]
    for start, stop in pairwise([*starts, len(words)]):
        inner = words[start:stop]
        if len(inner) < 2 or inner[1].look not in ("name", "call"):
            continue
        opened = next((place for place, word in enumerate(inner) if word.kind == "LBRACE"), len(inner))
        closed = _closing(inner, opened)
        # An open pattern goes on to the next one, so that what is written at its end belongs to it.
        following = words[stop].start if stop < len(words) else inner[-1].end + (1 << 20)
        end = inner[closed].end if closed < len(inner) else following
        parts = (*_parameters(inner[:opened]), *_items(inner[opened + 1 : closed], end))
        yield Symbol(inner[1].text, "pattern", _span(inner[1]), Span(inner[0].start, end), parts)


def _closing(words: tuple[Word, ...], opened: int) -> int:
    """The place of the bracket that closes the one at a place; the number of words where there is none.

    Brackets of other kinds may be out of order. No item stands within parentheses: one ends them.
    """
    depth = 0
    if opened == len(words):
        return opened
    opening, closing = words[opened].kind, _OPENING[words[opened].kind]
    for place in range(opened, len(words)):
        word = words[place]
        depth += (word.kind == opening) - (word.kind == closing)
        if depth == 0:
            return place
        if opening != "LBRACE" and word.look == "keyword" and word.text in _ITEM_WORDS:
            return place - 1
    return len(words)


def _parameters(words: tuple[Word, ...]) -> Iterator[Symbol]:
    for place in range(2, len(words) - 1):
        name, colon = words[place], words[place + 1]
        if name.look == "name" and colon.kind == "COLON":
            stop = place
            while stop < len(words) and words[stop].kind not in ("COMMA", "LBRACE"):
                stop = _closing(words, stop) + 1 if words[stop].kind in _OPENING else stop + 1
            last = words[min(stop, len(words)) - 1]
            if last.kind == "RPAR" and stop == len(words):
                last = words[len(words) - 2]
            yield Symbol(name.text, "parameter", _span(name), Span(name.start, last.end))


def _items(words: tuple[Word, ...], end: int) -> Iterator[Symbol]:
    """What the items of a body define. end: where the body ends."""
    starts = []
    place = 0
    while place < len(words):
        word = words[place]
        if word.look == "keyword" and word.text in _ITEM_WORDS and words[place - 1].kind != "WITH":
            starts.append(place)
        place = _closing(words, place) + 1 if word.kind in _OPENING else place + 1
    for start, stop in pairwise([*starts, len(words)]):
        yield from _item(words[start:stop], end)


def _item(words: tuple[Word, ...], end: int) -> Iterator[Symbol]:
    whole = Span(words[0].start, words[-1].end)
    match words[0].text:
        case "let" | "input" if len(words) > 1 and words[1].look in ("name", "call"):
            kind: Kind = "let" if words[0].text == "let" else "input"
            yield Symbol(words[1].text, kind, _span(words[1]), whole)
        case "grid":
            for name, colon in pairwise(words):
                if name.look == "name" and colon.kind == "COLON":
                    yield Symbol(name.text, "axis", _span(name), whole)
        case "heads":
            opened = _body(words)
            if opened is None:
                return
            chosen = list(words[1:opened])
            closed = _closing(words, opened)
            whole = whole if closed < len(words) else Span(whole.start, end)
            yield Symbol(
                "".join(f"{word.text} " if word.kind == "COMMA" else word.text for word in chosen),
                "heads",
                Span(chosen[0].start, chosen[-1].end),
                whole,
                tuple(_items(words[opened + 1 : closed], whole.end)),
            )


def _body(words: tuple[Word, ...]) -> int | None:
    """Which brace opens the body of ``heads``: not the list of heads that may stand before it."""
    start = 2
    if len(words) > 1 and words[1].kind == "LBRACE":
        start = _closing(words, 1) + 1
    return next((place for place in range(start, len(words)) if words[place].kind == "LBRACE"), None)


def _span(word: Word) -> Span:
    return Span(word.start, word.end)

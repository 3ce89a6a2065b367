"""What could be written at a place: asked of the grammar, which knows what may follow, and of the outline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from attnc import atoms, names
from attnc.editing.outline import item_at, known_at, spoken
from attnc.lexicon import Word, all_words, sound
from attnc.parser import expected, terminals

Kind = Literal["keyword", "relation", "set", "function", "name", "argument", "value", "type"]
_PARTIAL = re.compile(r"[A-Za-z0-9_]*\Z")
_BRACKETS = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}


@dataclass(frozen=True)
class Proposal:
    """A word, and what it is. text: what is written, where that is more than the word."""

    word: str
    kind: Kind
    detail: str = ""
    text: str = ""


def completions(text: str, offset: int) -> tuple[Proposal, ...]:
    """The words that may stand at a place, none twice; those that the client does not want it leaves out."""
    if any(word.look == "comment" and word.start < offset <= word.end for word in all_words(text)):
        return ()
    partial = _PARTIAL.search(text, 0, offset)
    assert partial is not None
    if partial[0][:1].isdigit():
        return ()
    before = [word for word in spoken(text) if word.end <= partial.start()]
    begun = next((place for place in range(len(before) - 1, -1, -1) if before[place].kind == "PATTERN"), 0)
    before = before[begun:]
    start = before[0].start if before else partial.start()
    accepted = expected(sound(text[start : partial.start()]))
    found: dict[str, Proposal] = {}
    for proposal in _proposals(text, partial.start(), before, accepted):
        found.setdefault(proposal.word, proposal)
    return tuple(found.values())


def _proposals(text: str, at: int, before: list[Word], accepted: frozenset[str] | None) -> Iterator[Proposal]:
    last = before[-1] if before else None
    if last is not None and last.kind == "DOT":
        yield from _named(text, at, ("axis",))
        return
    special = _special(before)
    if special is not None:
        yield from special
        if last is None or last.kind not in ("WITH", "HEADS"):
            return
    if last is not None and last.kind in ("PATTERN", "LET", "INPUT"):
        return  # a name that is new
    if accepted is not None and "NAME" in accepted and not _is_operand(accepted):
        yield from _listed(names.MODES.get(_item(before), ()), "value")
    if accepted is None or _is_operand(accepted):
        yield from _arguments(text, at, before)
        yield from _operands(text, at, before)
    for terminal, word in terminals().items():
        if word is not None and word.isidentifier() and (accepted is None or terminal in accepted):
            yield Proposal(word, "keyword")


def _is_operand(accepted: frozenset[str]) -> bool:
    return {"INT", "NAME"} <= accepted


def _special(before: list[Word]) -> list[Proposal] | None:
    """Words that some place takes instead of expressions."""
    last = before[-1] if before else None
    if last is None:
        return None
    match last.kind:
        case "REQUIRE" | "ASSUME":
            return _listed(names.CLAIMS, "value")
        case "HEADS":
            return _listed(names.SELECTORS, "value")
        case "WITH":
            return _listed(("softmax",), "value")
        case "COLON" if not _in_grid(before):
            return _listed(names.KINDS, "type")
        case "NORMALIZE":
            return _listed(names.MODES["normalize"], "value")
    return None


def _in_grid(before: list[Word]) -> bool:
    opened = _open(before)
    return opened is not None and opened > 0 and before[opened - 1].kind == "GRID"


def _listed(words: Iterable[str], kind: Kind) -> list[Proposal]:
    return [Proposal(word, kind) for word in words]


def _open(before: list[Word]) -> int | None:
    """The place of the innermost bracket that is open."""
    opened: list[int] = []
    for place, word in enumerate(before):
        if word.kind in _BRACKETS.values():
            opened.append(place)
        elif word.kind in _BRACKETS and opened:
            opened.pop()
    return opened[-1] if opened else None


# --- expressions ----------------------------------------------------------------------------------------


def _arguments(text: str, at: int, before: list[Word]) -> Iterator[Proposal]:
    """Names of the arguments that the call at hand has not been given yet; or the value of ``axis=``."""
    opened = _open(before)
    if opened is None or opened == 0 or before[opened].kind != "LPAR":
        return
    call = before[opened - 1].text
    inside = before[opened + 1 :]
    if [word.text for word in inside[-2:]] == ["axis", "="]:
        yield from _named(text, at, ("axis",))
        return
    if inside and inside[-1].kind != "COMMA":
        return
    given = {name.text for name, sign in pairwise(inside) if sign.kind == "EQUALS"}
    for slot in {**atoms.RELATIONS, **atoms.SETS}.get(call, ()):
        if slot.name not in given:
            yield Proposal(f"{slot.name}=", "argument", f"argument of {call}")


def _operands(text: str, at: int, before: list[Word]) -> Iterator[Proposal]:
    item = _item(before)
    yield from _named(text, at, ("parameter", "input", "let"))
    yield from _weighing(item, before[-1].text if before else "")
    yield from _listed(names.VARIABLES, "name")
    if item in names.WEIGHTS:
        yield from _listed(names.FUNCTIONS, "function")
        return
    for name in names.RELATIONS:
        yield Proposal(name, "relation", form(name))
    for name in names.SETS:
        yield Proposal(name, "set", form(name))
    yield from _listed(names.FUNCTIONS, "function")


def _weighing(item: str, last: str) -> Iterator[Proposal]:
    """What only stands in what weighs edges; a ``let`` may name such a thing, too."""
    if item == last == "kernel":
        yield from _listed(names.MAPS, "function")
    if item == last == "update":
        yield from _listed(names.UPDATES, "function")
    if item in ("score", "kernel"):
        yield Proposal("s" if item == "score" else "x", "name")
    if item in names.WEIGHTS or item == "let":
        yield from _listed((*names.REAL_FUNCTIONS, *names.WEIGHING_FUNCTIONS), "function")


def _item(before: list[Word]) -> str:
    """The word of the item that a place is in."""
    items = (*names.ITEMS, *names.WEIGHTS)
    return next((word.text for word in reversed(before) if word.look == "keyword" and word.text in items), "")


def _named(text: str, at: int, kinds: tuple[str, ...]) -> Iterator[Proposal]:
    item = item_at(text, at)
    for symbol in reversed(known_at(text, at)):
        # What is being defined does not know itself.
        if symbol.kind in kinds and (item is None or symbol.whole.start != item.start):
            shown = " ".join(text[symbol.whole.start : symbol.whole.end].split())
            yield Proposal(symbol.text, "name", shown if len(shown) <= 80 else f"{shown[:79]}…")


def form(name: str) -> str:
    """How a relation or a set is called."""
    slots = {**atoms.RELATIONS, **atoms.SETS}.get(name, ())
    listed = ", ".join(slot.name if slot.default is None else f"{slot.name}=…" for slot in slots)
    return f"{name}({listed})" if slots else name

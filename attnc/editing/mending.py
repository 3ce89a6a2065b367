"""Changes of a text that do what a diagnostic's help says, each of them tried before it is proposed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from attnc.diagnostics import AttncError, Diagnostic, Edit, Source
from attnc.parser import parse
from attnc.resolver import resolve

_MEANT = re.compile(r"did you mean `([^`…]+)`\?")
_WRITE = re.compile(r"(?:use|write) (`.*)")
_CODE = re.compile(r"`([^`…]+)`")


@dataclass(frozen=True)
class Mend:
    """title: what a person is asked."""

    title: str
    edits: tuple[Edit, ...]


def mends(found: Diagnostic) -> tuple[Mend, ...]:
    """What could be done about a diagnostic. Each takes the mistake away and makes no other."""
    return tuple(mend for mend in _proposed(found) if _helps(found, mend.edits))


def edited(text: str, edits: tuple[Edit, ...]) -> str:
    for edit in sorted(edits, key=lambda item: item.span.start, reverse=True):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def mistakes(source: Source) -> tuple[Diagnostic, ...]:
    """What can be told at once: errors of the text, or warnings where there are none."""
    try:
        return resolve(parse(source)).warnings
    except AttncError as error:
        return error.diagnostics


def _proposed(found: Diagnostic) -> Iterator[Mend]:
    help = found.help or ""
    if found.edits:
        yield Mend(help[:1].upper() + help[1:], found.edits)
        return
    meant = _MEANT.fullmatch(help)
    written = _WRITE.match(help)
    for code in [meant[1]] if meant else _CODE.findall(written[1]) if written else []:
        yield Mend(f"Write `{code}`", (Edit(found.span, code),))


def _helps(found: Diagnostic, edits: tuple[Edit, ...]) -> bool:
    source = found.source
    before = [item for item in mistakes(source) if item.level == "error"]
    after = [
        item for item in mistakes(Source(source.name, edited(source.text, edits))) if item.level == "error"
    ]
    if not after:
        return True
    if len(before) == 1 and not _parses(source):
        # Of syntax errors the first alone is known.
        return after[0].span.start > found.span.end
    return len(after) < len(before) and all(item.message in {b.message for b in before} for item in after)


def _parses(source: Source) -> bool:
    try:
        parse(source)
    except AttncError:
        return False
    return True

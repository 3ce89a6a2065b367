"""The examples by name, for the comparisons with other people's implementations in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from attnc.diagnostics import Source
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.resolver import resolve

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Example(Protocol):
    def __call__(self, name: str, pattern: str | None = None, **params: int) -> Pattern: ...


@pytest.fixture(scope="session")
def example() -> Example:
    """``example(file, pattern, **parameters)``: the pattern, by default the one named like the file."""

    def load(name: str, pattern: str | None = None, **params: int) -> Pattern:
        text = (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")
        (found,) = resolve(parse(Source(f"{name}.attn", text)), params, pattern or name).patterns
        return found

    return load

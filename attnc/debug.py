"""``ATTNC_DEBUG``: 1 tells the passes and their times on standard error, 2 prints their outcomes, too."""

from __future__ import annotations

import os
import sys

from attnc.diagnostics import printable


def level() -> int:
    wanted = os.environ.get("ATTNC_DEBUG", "").strip()
    return int(wanted) if wanted.isdecimal() else int(bool(wanted))


def say(text: str, at: int = 1) -> None:
    if level() >= at:
        print("\n".join(map(printable, f"attnc: {text}".split("\n"))), file=sys.stderr)

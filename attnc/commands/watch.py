"""Doing something again whenever a file has changed; how it was changed does not matter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 0.25  # seconds between two looks

Look = tuple[int, int, int] | None


def look(path: str) -> Look:
    """What changes when a file does; None while there is none, as when an editor puts a new one there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def watch(path: str, act: Callable[[], object], wait: Callable[[float], object] = time.sleep) -> None:
    """Calls ``act`` now, and again after every change of the file's content, until Ctrl-C."""
    try:
        seen, content = look(path), _content(path)
        act()
        while True:
            wait(PAUSE)
            found = look(path)
            if found is None or found == seen:
                continue
            seen = _settled(path, wait)
            text = _content(path)
            if text is not None and text != content:
                content = text
                act()
    except KeyboardInterrupt:
        return


def _settled(path: str, wait: Callable[[float], object]) -> Look:
    """Waits until two looks agree: half of a file may not be written yet."""
    before = None
    while (found := look(path)) is None or found != before:
        before = found
        wait(PAUSE / 5)
    return found


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None

"""A progress bar on a terminal; silence elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import IO

WIDTH = 24


class Bar:
    """Tells of ``total`` steps on one line of ``stream``, which it leaves empty behind it."""

    def __init__(self, total: int, stream: IO[str] | None) -> None:
        self.total, self.done = total, 0
        self.stream = stream if stream is not None and stream.isatty() else None
        self.started = time.monotonic()

    def step(self, label: str) -> None:
        """A step begins."""
        self.show(label)
        self.done += 1

    def skip(self, steps: int) -> None:
        """Steps that will not come."""
        self.total -= steps

    def show(self, label: str) -> None:
        if self.stream is None:
            return
        filled = WIDTH * self.done // max(self.total, 1)
        seconds = time.monotonic() - self.started
        text = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self.done}/{self.total} {seconds:4.0f} s  {label}"
        columns = max(20, shutil.get_terminal_size().columns - 1)
        self.stream.write(f"\r\x1b[K{text[:columns]}")
        self.stream.flush()

    def clear(self) -> None:
        if self.stream is not None:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

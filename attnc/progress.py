"""A progress bar on a terminal; silence elsewhere."""

from __future__ import annotations

import shutil
import threading
import time
from types import TracebackType
from typing import IO

WIDTH = 24
TICK = 0.2  # seconds


class Bar:
    """Tells of ``total`` steps on one line of ``stream``, which it leaves empty behind it.

    In a ``with`` statement the seconds go on while a step takes its time, and nothing is shown of what is
    over within a second.
    """

    def __init__(self, total: int, stream: IO[str] | None) -> None:
        self.total, self.done = total, 0
        self.stream = stream if stream is not None and stream.isatty() else None
        self.started = time.monotonic()
        self.label = ""
        self._patience = 0.0
        self._over = threading.Event()
        self._ticking: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Bar:
        self._patience = 1.0
        if self.stream is not None:
            self._ticking = threading.Thread(target=self._tick, daemon=True)
            self._ticking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._ticking is not None:
            self._ticking.join()
        self.clear()

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            self.show(self.label)

    def step(self, label: str) -> None:
        """A step begins."""
        self.show(label)
        self.done += 1

    def skip(self, steps: int) -> None:
        """Steps that will not come."""
        self.total -= steps

    def more(self, steps: int) -> None:
        """Steps that nobody knew of."""
        self.total += steps

    def show(self, label: str) -> None:
        self.label = label
        seconds = time.monotonic() - self.started
        if self.stream is None or seconds < self._patience:
            return
        filled = min(WIDTH, WIDTH * self.done // max(self.total, 1))
        text = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self.done}/{self.total} {seconds:4.0f} s  {label}"
        columns = max(20, shutil.get_terminal_size().columns - 1)
        with self._lock:
            self.stream.write(f"\r\x1b[K{text[:columns]}")
            self.stream.flush()

    def clear(self) -> None:
        if self.stream is not None and time.monotonic() - self.started >= self._patience:
            with self._lock:
                self.stream.write("\r\x1b[K")
                self.stream.flush()

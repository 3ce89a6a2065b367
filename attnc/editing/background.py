"""Questions to the process of ``examining.py``: answered while people type, given up when time is over."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from attnc.diagnostics import Source
from attnc.editing.examining import Facts, facts, question

_LONGEST_ANSWER = 1 << 26  # bytes


class Background:
    """One process, made when it is first needed and ended with whatever it is in the middle of."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Makes the process, so that it is ready when it is asked."""
        async with self._turn:
            await self._ready()

    async def ask(self, source: Source) -> Facts:
        """What is known of a source. When this is cancelled, or takes too long, the process is ended."""
        async with self._turn:
            try:
                # Making the process is no part of the time that a pattern is given.
                process = await self._ready()
                return facts(source, await asyncio.wait_for(self._answer(process, source), self.seconds))
            except TimeoutError:
                self.end()
                told = f"not known: examining it takes longer than {self.seconds:g} s; `attnc check` goes on"
            except (OSError, ValueError) as error:
                self.end()
                told = f"not known: the process that examines patterns has ended ({error})"
            except BaseException:
                self.end()
                raise
        return Facts({}, (), told)

    def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process = None

    async def _ready(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "attnc.editing.examining"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_LONGEST_ANSWER,
            )
            # A text without a pattern is answered as soon as everything is imported.
            await self._answer(self._process, Source("", ""))
        return self._process

    async def _answer(self, process: Process, source: Source) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{question(source)}\n".encode())
        await process.stdin.drain()
        answer = await process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise OSError(f"status {await process.wait()}")
        return answer.decode()

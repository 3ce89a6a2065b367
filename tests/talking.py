"""A client of the language server: it speaks the protocol over pipes, as an editor does."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0  # seconds: the machine may have much else to do


class Client:
    """``notes``: every notification that came, in order."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attnc", "lsp", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.notes: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._arrived: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, method: str, params: Any = None) -> Any:
        """Sends a request; gives the result, or raises with the error."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        answer = self._next(lambda message: message.get("id") == number and "method" not in message)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def tell(self, method: str, params: Any = None) -> None:
        self._send({"method": method, "params": params})

    def diagnostics(self, uri: str, version: int, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        """The next diagnostics of a version of a text that are as wanted."""
        found = self._next(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics"
                and message["params"]["uri"] == uri
                and message["params"].get("version") == version
                and wanted(message["params"]["diagnostics"])
            )
        )
        return list(found["params"]["diagnostics"])

    def leave(self) -> int:
        self.ask("shutdown")
        self.tell("exit")
        return self.process.wait(PATIENCE)

    def _next(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while True:
            message = self._arrived.get(timeout=max(end - time.monotonic(), 0.01))
            if wanted(message):
                return message
            self.notes.append(message)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while head := stream.readline():
            length = 0
            while head.strip():
                name, _, value = head.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                head = stream.readline()
            self._arrived.put(json.loads(stream.read(length)))

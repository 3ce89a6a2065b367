"""The command line: ``attnc COMMAND …``. The commands stand in ``attnc.commands``.

Exit status: 0 when all is well, 1 when a pattern is wrong, 2 when the command itself is (an unknown flag, a
missing file, an output that must not be written). Nothing is imported before it is needed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from attnc import __version__
from attnc.commands import bench, check, compile, completion, explain, fmt, gallery, graph, lsp, new, report
from attnc.commands.options import Misuse, print_json
from attnc.diagnostics import Diagnostic, Source, Span, printable, to_json

COMMANDS = (check, compile, graph, report, gallery, fmt, new, lsp, bench, explain, completion)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # A shortened option would mean something else as soon as there is a longer one.
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise Misuse(message, usage=self.format_usage())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a file's name or a comment may not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except OSError as error:
        # Whoever was reading has gone, as in `attnc explain | head`, or the disk is full.
        if not isinstance(error, BrokenPipeError):
            print(f"attnc: cannot write to the standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter must not flush again
        return 2
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    try:
        known = parser()
        options = known.parse_args(words)
        options.words, options.parser, options.version = words, known, __version__
        status: int = options.command(options)
        return status
    except Misuse as misuse:
        if misuse.usage:
            print(misuse.usage.rstrip(), file=sys.stderr)
        print(f"attnc: {printable(str(misuse))}", file=sys.stderr)
        if "--json" in words and words[0] != "bench":  # where it names a file
            found = Diagnostic(misuse.code, "error", str(misuse), Source(misuse.file, ""), Span(0, 0))
            print_json({"patterns": [], "diagnostics": [to_json(found)]})
        return 2


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    found = _Parser(prog="attnc", description="Compiles attention patterns to readable PyTorch modules.")
    found.add_argument("--version", action="version", version=f"attnc {__version__}")
    commands = found.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return found

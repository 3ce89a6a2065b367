"""The command line: ``attnc check``, ``attnc compile``, ``attnc explain``.

Exit status: 0 when all is well, 1 when a pattern is wrong, 2 when the command itself is (an unknown flag, a
missing file, an output that must not be written). Nothing is imported before it is needed.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

from attnc import __version__
from attnc.diagnostics import AttncError, Diagnostic, Source, Span, render, to_json
from attnc.request import Request

STAGES = ("syntax", "pattern", "terms", "schedule", "module")


class Misuse(Exception):
    """The command was used wrongly; ``code`` is the code of the diagnostic that ``--json`` shows."""

    def __init__(self, message: str, code: str = "usage", file: str = "", usage: str = "") -> None:
        super().__init__(message)
        self.code, self.file, self.usage = code, file, usage


class _Parser(argparse.ArgumentParser):
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
        options = _parser().parse_args(words)
        status: int = options.command(options)
        return status
    except Misuse as misuse:
        if misuse.usage:
            print(misuse.usage.rstrip(), file=sys.stderr)
        print(f"attnc: {misuse}", file=sys.stderr)
        if "--json" in words:
            found = Diagnostic(misuse.code, "error", str(misuse), Source(misuse.file, ""), Span(0, 0))
            _print_json({"patterns": [], "diagnostics": [to_json(found)]})
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="attnc", description="Compiles attention patterns to readable PyTorch modules.")
    parser.add_argument("--version", action="version", version=f"attnc {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser("check", help="tell everything that is known of a file's patterns")
    _add_source(check)
    check.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    check.set_defaults(command=_check)

    compile_ = commands.add_parser("compile", help="write a pattern's Python module")
    _add_source(compile_)
    compile_.add_argument("-o", "--output", metavar="OUT.py", help="where the module is written")
    compile_.add_argument(
        "--force",
        action="store_true",
        help="write OUT.py even if it exists and is not attnc's, or has a bad name",
    )
    compile_.add_argument(
        "--emit", choices=STAGES, help="print the outcome of a pass in place of a module's file"
    )
    compile_.set_defaults(command=_compile)

    explain = commands.add_parser("explain", help="explain a diagnostic's code, or list all codes")
    explain.add_argument("code", nargs="?", metavar="CODE", help="for example `not-causal`")
    explain.set_defaults(command=_explain)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a pattern file")
    parser.add_argument("--pattern", metavar="NAME", help="which pattern of the file")
    parser.add_argument(
        "-p",
        dest="params",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="the value of a parameter; may be given many times",
    )


# --- the commands ---------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from attnc.report import Report, examine

    params = _params(options.params)
    try:
        report = examine(_request(options, params))
    except AttncError as error:
        report = Report((), error.diagnostics)
    if options.json:
        _print_json(report.to_json())
    else:
        print(report.render(_colored(sys.stdout)))
    return 0 if report.ok else 1


def _compile(options: argparse.Namespace) -> int:
    params = _params(options.params)
    if options.output is None and options.emit is None:
        raise Misuse("compile needs an output: `-o OUT.py`, or `--emit module` to print the module")
    if options.output is not None and options.emit not in (None, "module"):
        raise Misuse(f"`-o` writes a module; `--emit {options.emit}` prints, so leave out one of the two")
    try:
        request = _request(options, params)
        from attnc.pipeline import compile_pattern, emit

        if options.output is None and options.emit is not None:
            print(emit(request, options.emit).rstrip("\n"))
            return 0
        emitted = compile_pattern(request)
    except AttncError as error:
        _complain(error.diagnostics)
        return 1
    _complain(emitted.warnings)
    from attnc.files import Refused, write_module

    output = str(options.output)
    try:
        write_module(output, emitted.text, source=options.file, force=options.force)
    except Refused as refused:
        raise Misuse(str(refused), "unwritable-file", output) from None
    if options.emit == "module":
        print(emitted.text.rstrip("\n"))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from attnc.explanations import EXPLANATIONS

    if options.code is None:
        width = max(map(len, EXPLANATIONS))
        for code in sorted(EXPLANATIONS):
            print(f"{code:<{width}}  {EXPLANATIONS[code].strip().splitlines()[0]}")
        return 0
    if options.code not in EXPLANATIONS:
        near = difflib.get_close_matches(options.code.lower(), EXPLANATIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`attnc explain` lists them all"
        raise Misuse(f"there is no diagnostic called {options.code!r}; {hint}")
    print(f"{options.code}\n\n{EXPLANATIONS[options.code].strip()}")
    return 0


# --- what they share ------------------------------------------------------------------------------------


def _params(given: Sequence[str]) -> dict[str, str]:
    params: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise Misuse(f"`-p {item}` is no parameter: write `-p NAME=VALUE`, as in `-p window=256`")
        if name in params:
            raise Misuse(f"parameter {name!r} is given twice: `-p {name}={params[name]}` and `-p {item}`")
        params[name] = value.strip()
    return params


def _request(options: argparse.Namespace, params: dict[str, str]) -> Request:
    from attnc.files import read_path

    try:
        source = read_path(options.file)
    except OSError as error:
        raise Misuse(str(error), "unreadable-file", options.file) from None
    return Request(source, options.pattern, dict(params))


def _complain(diagnostics: Sequence[Diagnostic]) -> None:
    for found in diagnostics:
        print(render(found, _colored(sys.stderr)), file=sys.stderr)


def _colored(stream: IO[str] | None) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream is not None and stream.isatty() and not plain


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))

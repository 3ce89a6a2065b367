"""The command line: ``attnc check``, ``attnc compile``, ``attnc bench``, ``attnc explain``.

Exit status: 0 when all is well, 1 when a pattern is wrong, 2 when the command itself is (an unknown flag, a
missing file, an output that must not be written). Nothing is imported before it is needed.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, NoReturn

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
        options.words = words
        status: int = options.command(options)
        return status
    except Misuse as misuse:
        if misuse.usage:
            print(misuse.usage.rstrip(), file=sys.stderr)
        print(f"attnc: {misuse}", file=sys.stderr)
        if "--json" in words and words[0] != "bench":  # where it names a file
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

    _add_bench(commands.add_parser("bench", help="measure a pattern's function beside its peers"))

    explain = commands.add_parser("explain", help="explain a diagnostic's code, or list all codes")
    explain.add_argument("code", nargs="?", metavar="CODE", help="for example `not-causal`")
    explain.set_defaults(command=_explain)
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_source(parser, many=True)
    number, numbers, words = _whole_number, _listed(_whole_number), _listed(str)
    shape = (
        ("--n", "N", numbers, (8192,), "tokens, or several lengths: `1024,8192` (default: 8192)"),
        ("--heads", "N", number, 8, "query heads (default: 8)"),
        ("--kv-heads", "N", number, None, "key heads (default: as many as query heads)"),
        ("--dim", "N", number, 64, "dimension of a head (default: 64)"),
        ("--batch", "N", number, 1, "sequences (default: 1)"),
        ("--dtype", "NAME", words, None, "float32, bfloat16, float16 or several (default: float32 on a CPU)"),
        ("--device", "NAME", str, None, "cpu, cuda, cuda:1 (default: a GPU where there is one)"),
        ("--against", "PEER", str, None, "flex, sdpa, flash, natten, xformers or several, or none"),
        ("--repeats", "N", number, 5, "rounds of alternating runs (default: 5)"),
        ("--seed", "N", _seed, 0, "of the random tensors and inputs (default: 0)"),
        ("--json", "OUT.json", str, None, "write everything that was measured"),
        ("--plot", "OUT.png|svg", str, None, "draw it"),
    )
    for flag, metavar, kind, default, text in shape:
        parser.add_argument(flag, metavar=metavar, type=kind, default=default, help=text)
    parser.add_argument("--no-backward", action="store_true", help="measure the forward alone")
    parser.add_argument(
        "--input",
        dest="fills",
        metavar="NAME=FILL",
        action="append",
        default=[],
        help="what an input holds: first:16, every:512, random:0.02 (the default) for bool; "
        "runs:8 (the default) for int",
    )
    parser.set_defaults(command=_bench)


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _seed(text: str) -> int:
    return 0 if text == "0" else _whole_number(text)


def _listed(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter of comma-separated values."""

    def listed(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return listed


def _add_source(parser: argparse.ArgumentParser, many: bool = False) -> None:
    if many:
        parser.add_argument("files", metavar="FILE", nargs="+", help="pattern files")
    else:
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

    params = _pairs(options.params)
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
    params = _pairs(options.params)
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


def _bench(options: argparse.Namespace) -> int:
    params, fills = _pairs(options.params), _pairs(options.fills, "--input", "is_global=every:512")
    try:
        requests = [_request(options, params, file) for file in options.files]
        from attnc.bench.case import DTYPES, BadCase
        from attnc.bench.command import Plan, bench
        from attnc.bench.plot import NoMatplotlib
        from attnc.bench.run import Wrong
        from attnc.files import Refused

        for name in options.dtype or ():
            if name not in DTYPES:
                raise Misuse(f"there is no dtype called {name!r}: choose among {', '.join(DTYPES)}")
        plan = Plan(
            requests=tuple(requests),
            lengths=options.n,
            heads=options.heads,
            kv_heads=options.kv_heads,
            dim=options.dim,
            batch=options.batch,
            dtypes=options.dtype,
            device=options.device,
            against=options.against,
            repeats=options.repeats,
            backward=not options.no_backward,
            seed=options.seed,
            fills=tuple(fills.items()),
            json=options.json,
            plot=options.plot,
            command=shlex.join(("attnc", *options.words)),
            version=__version__,
        )
        try:
            bench(plan)
        except (BadCase, NoMatplotlib, Refused) as error:
            raise Misuse(str(error)) from None
        except Wrong as wrong:
            print(f"attnc: the compiled function is {wrong}; this is a fault of attnc", file=sys.stderr)
            return 1
    except AttncError as error:
        _complain(error.diagnostics)
        return 1
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


def _pairs(given: Sequence[str], flag: str = "-p", example: str = "window=256") -> dict[str, str]:
    pairs: dict[str, str] = {}
    kind = "parameter" if flag == "-p" else "input"
    for item in given:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            shape = f"NAME={'VALUE' if flag == '-p' else 'FILL'}"
            raise Misuse(f"`{flag} {item}` is no {kind}: write `{flag} {shape}`, as in `{flag} {example}`")
        if name in pairs:
            raise Misuse(f"{kind} {name!r} is given twice: `{flag} {name}={pairs[name]}` and `{flag} {item}`")
        pairs[name] = value.strip()
    return pairs


def _request(options: argparse.Namespace, params: dict[str, str], file: str | None = None) -> Request:
    from attnc.files import read_path

    name = options.file if file is None else file
    try:
        source = read_path(name)
    except OSError as error:
        raise Misuse(str(error), "unreadable-file", name) from None
    return Request(source, options.pattern, dict(params))


def _complain(diagnostics: Sequence[Diagnostic]) -> None:
    for found in diagnostics:
        print(render(found, _colored(sys.stderr)), file=sys.stderr)


def _colored(stream: IO[str] | None) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream is not None and stream.isatty() and not plain


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))

"""What commands share: how they are used wrongly, which pattern is meant, where their words are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from attnc.diagnostics import Diagnostic, render
from attnc.request import Request

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# Longer sequences than this take no picture: positions of columns and draws are looked at one by one.
LONGEST = 1 << 24
MOST_HEADS = 4096


class Misuse(Exception):
    """The command was used wrongly; ``code`` is the code of the diagnostic that ``--json`` shows."""

    def __init__(self, message: str, code: str = "usage", file: str = "", usage: str = "") -> None:
        super().__init__(message)
        self.code, self.file, self.usage = code, file, usage


# --- which pattern --------------------------------------------------------------------------------------


def add_source(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """The pattern file, or several, the pattern in it, and values of its parameters."""
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


def add_fills(parser: argparse.ArgumentParser) -> None:
    """What inputs hold."""
    parser.add_argument(
        "--input",
        dest="fills",
        metavar="NAME=FILL",
        action="append",
        default=[],
        help="what an input holds: spread:5 (the default), first:16, every:512, random:0.02 for bool; "
        "runs:8 (the default) for int; normal, normal:0.1 or uniform:-0.1:0 for float, by default what suits "
        "its place",
    )


def add_output(parser: argparse.ArgumentParser, metavar: str, required: bool = False) -> None:
    """Where a picture or a page is written."""
    parser.add_argument("-o", "--output", metavar=metavar, required=required, help="the file to write")
    parser.add_argument("--force", action="store_true", help="write it even if it exists and is not attnc's")


def params_of(options: argparse.Namespace) -> dict[str, str]:
    return pairs(options.params, "-p", "window=256")


def fills_of(options: argparse.Namespace) -> dict[str, str]:
    return pairs(options.fills, "--input", "is_global=every:512")


def pairs(given: Sequence[str], flag: str, example: str) -> dict[str, str]:
    """``NAME=VALUE`` words as names and values."""
    found: dict[str, str] = {}
    kind = "parameter" if flag == "-p" else "input"
    for item in given:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            shape = f"NAME={'VALUE' if flag == '-p' else 'FILL'}"
            raise Misuse(f"`{flag} {item}` is no {kind}: write `{flag} {shape}`, as in `{flag} {example}`")
        if name in found:
            raise Misuse(f"{kind} {name!r} is given twice: `{flag} {name}={found[name]}` and `{flag} {item}`")
        found[name] = value.strip()
    return found


def request(options: argparse.Namespace, params: dict[str, str], file: str | None = None) -> Request:
    """The pattern that is meant; raises ``Misuse`` where there is no such file."""
    from attnc.files import read_path

    name = options.file if file is None else file
    try:
        source = read_path(name)
    except OSError as error:
        raise Misuse(str(error), "unreadable-file", name) from None
    return Request(source, options.pattern, dict(params))


# --- numbers --------------------------------------------------------------------------------------------


def whole_number(text: str) -> int:
    return _number(text, 1)


def seed(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    # Python refuses to convert thousands of digits; twenty are too many already.
    if not (text.isascii() and text.isdigit() and int(text[:20]) >= least):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number from {least} on")
    if int(text[:20]) >= 1 << 31:
        raise argparse.ArgumentTypeError(f"{text:.40} is too large: numbers go up to {(1 << 31) - 1}")
    return int(text)


def length(text: str) -> int:
    """A number of tokens that something can be drawn for."""
    n = whole_number(text)
    if n > LONGEST:
        raise argparse.ArgumentTypeError(f"{n} tokens are more than can be drawn: {LONGEST} at most")
    return n


def heads(text: str) -> int:
    """A number of heads that something can be drawn for."""
    count = whole_number(text)
    if count > MOST_HEADS:
        raise argparse.ArgumentTypeError(f"{count} heads are more than can be drawn: {MOST_HEADS} at most")
    return count


def listed(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter of comma-separated values."""

    def values(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",")))

    return values


# --- words ----------------------------------------------------------------------------------------------


def complain(diagnostics: Sequence[Diagnostic]) -> None:
    for found in diagnostics:
        print(render(found, colored(sys.stderr)), file=sys.stderr)


def colored(stream: IO[str] | None) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream is not None and stream.isatty() and not plain


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))

"""``attnc compile``: a pattern's Python module."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse, add_source, complain, params_of, request
from attnc.diagnostics import AttncError, printable

if TYPE_CHECKING:
    from attnc.commands.options import Commands

STAGES = ("syntax", "pattern", "terms", "schedule", "module")


def add(commands: Commands) -> None:
    parser = commands.add_parser("compile", help="write a pattern's Python module")
    add_source(parser)
    parser.add_argument("-o", "--output", metavar="OUT.py", help="where the module is written")
    parser.add_argument(
        "--force",
        action="store_true",
        help="write OUT.py even if it exists and is not attnc's, or has a bad name",
    )
    parser.add_argument(
        "--emit", choices=STAGES, help="print the outcome of a pass in place of a module's file"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    params = params_of(options)
    if options.output is None and options.emit is None:
        raise Misuse("compile needs an output: `-o OUT.py`, or `--emit module` to print the module")
    if options.output is not None and options.emit not in (None, "module"):
        raise Misuse(f"`-o` writes a module; `--emit {options.emit}` prints, so leave out one of the two")
    try:
        asked = request(options, params)
        from attnc.pipeline import compile_pattern, emit
        from attnc.progress import Bar

        with Bar(1, sys.stderr) as bar:
            bar.step(f"compiling {printable(options.file)}")
            shown = None if options.output is not None else emit(asked, str(options.emit))
            emitted = None if shown is not None else compile_pattern(asked)
        if emitted is None:
            print(str(shown).rstrip("\n"))
            return 0
    except AttncError as error:
        complain(error.diagnostics)
        return 1
    complain(emitted.warnings)
    from attnc.files import Refused, write_module

    output = str(options.output)
    try:
        write_module(output, emitted.text, source=options.file, force=options.force)
    except Refused as refused:
        raise Misuse(str(refused), "unwritable-file", output) from None
    if options.emit == "module":
        print(emitted.text.rstrip("\n"))
    return 0

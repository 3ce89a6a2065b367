"""``attnc check``: everything that is known of a file's patterns."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse, add_source, colored, params_of, print_json, request
from attnc.diagnostics import AttncError, printable

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("check", help="tell everything that is known of a file's patterns")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.add_argument("--watch", action="store_true", help="check again whenever the file changes")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    if not options.watch:
        return _once(options)
    if options.json:
        raise Misuse("`--watch` is for people and `--json` for programs: leave out one of the two")
    from attnc.commands.watch import watch

    status = 0

    def again() -> None:
        nonlocal status
        if sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        try:
            status = _once(options)
        except Misuse as misuse:  # it is gone for the moment, and may come back
            print(f"attnc: {printable(str(misuse))}", file=sys.stderr)
        print(
            f"\n{time.strftime('%H:%M:%S')}, waiting for changes of {printable(options.file)}; Ctrl-C ends",
            flush=True,
        )

    request(options, params_of(options))  # what is wrong with the command itself is said once
    watch(options.file, again)
    print()
    return status


def _once(options: argparse.Namespace) -> int:
    from attnc.progress import Bar
    from attnc.report import Report, examine

    params = params_of(options)
    try:
        asked = request(options, params)
        with Bar(1, sys.stderr) as bar:
            report = examine(asked, bar)
    except AttncError as error:
        report = Report((), error.diagnostics)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.render(colored(sys.stdout)))
    return 0 if report.ok else 1

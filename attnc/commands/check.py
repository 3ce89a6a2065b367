"""``attnc check``: everything that is known of a file's patterns."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import add_source, colored, params_of, print_json, request
from attnc.diagnostics import AttncError

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("check", help="tell everything that is known of a file's patterns")
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    from attnc.report import Report, examine

    params = params_of(options)
    try:
        report = examine(request(options, params))
    except AttncError as error:
        report = Report((), error.diagnostics)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.render(colored(sys.stdout)))
    return 0 if report.ok else 1

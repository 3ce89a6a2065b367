"""``attnc report``: a page about a file's patterns, with nothing from elsewhere."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import (
    Misuse,
    add_fills,
    add_output,
    add_source,
    complain,
    fills_of,
    heads,
    length,
    params_of,
    request,
)
from attnc.diagnostics import AttncError

if TYPE_CHECKING:
    from attnc.commands.options import Commands
    from attnc.request import Request


def add(commands: Commands) -> None:
    parser = commands.add_parser("report", help="write a page: source, picture, proofs, cost, plan, kernels")
    add_source(parser)
    parser.add_argument(
        "--n", metavar="N", type=length, help="tokens of the picture (default: what shows most)"
    )
    parser.add_argument(
        "--heads", metavar="H", type=heads, help="query heads (default: one for each kind of head)"
    )
    add_fills(parser)
    add_output(parser, "OUT.html", required=True)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    params, fills = params_of(options), fills_of(options)
    try:
        asked = request(options, params)
    except AttncError as error:
        complain(error.diagnostics)
        return 1
    from attnc.drawing.picture import BadPicture
    from attnc.files import Refused, output
    from attnc.fills import BadFill
    from attnc.pages.report import Wishes, report_page
    from attnc.progress import Bar
    from attnc.report import examine

    try:
        place = output(options.output, ("html",), (options.file,), only_ours=not options.force)
        with Bar(1, sys.stderr) as bar:
            _check_fills(asked, fills)
            report = examine(asked, bar)
            text = ""
            if report.patterns:
                text = report_page(report, Wishes(options.n, options.heads, fills), bar)
        complain(report.diagnostics)
        if text:
            place.write(text.encode())
    except (BadFill, BadPicture, Refused) as error:
        raise Misuse(str(error)) from None
    return 0 if report.ok else 1


def _check_fills(asked: Request, fills: dict[str, str]) -> None:
    """Raises ``BadFill`` before anything takes its time; what is wrong with the patterns is told later."""
    from attnc.fills import filled, known
    from attnc.parser import parse
    from attnc.resolver import resolve

    if not fills:
        return
    try:
        patterns = resolve(parse(asked.source), asked.params, asked.pattern).patterns
    except AttncError:
        return
    known(fills, patterns)
    for pattern in patterns:
        own = {item.name for item in pattern.inputs}
        filled(pattern, 8, 1, {name: fill for name, fill in fills.items() if name in own})

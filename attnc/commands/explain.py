"""``attnc explain``: what a diagnostic's code means."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("explain", help="explain a diagnostic's code, or list all codes")
    parser.add_argument("code", nargs="?", metavar="CODE", help="for example `not-causal`")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
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

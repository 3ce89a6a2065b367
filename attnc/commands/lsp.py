"""``attnc lsp``: the language server, which an editor starts and talks to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse, whole_number

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("lsp", help="speak the language server protocol, for editors")
    # Editors add it by habit; there is no other way to talk.
    parser.add_argument("--stdio", action="store_true", help="talk over the standard streams, as always")
    parser.add_argument(
        "--seconds", metavar="S", type=whole_number, default=20, help="time to examine a file (20 by default)"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    try:
        import pygls  # noqa: F401
    except ImportError:
        raise Misuse(
            "the language server needs pygls: `pip install '.[lsp]'` in a checkout of attnc installs it"
        ) from None
    from attnc.editing.server import serve

    return serve(options.seconds, options.version)

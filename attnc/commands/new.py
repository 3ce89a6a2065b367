"""``attnc new``: a commented pattern file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse
from attnc.diagnostics import printable

if TYPE_CHECKING:
    from attnc.commands.options import Commands

START = """\
# Which token reads which, and what must be provable about it. Look at it, and compile it:
#
#     attnc check {name}.attn
#     attnc graph {name}.attn --n 256 -p window=32
#     attnc compile {name}.attn -o {name}.py

# Parameters are bound when the pattern is compiled: `-p window=512`.
pattern {name}(window: int = 256, sinks: int = 4) {{
    # An input is a tensor that every call gets, for instance the number of each token's document:
    # input document: int[n]

    # `|` joins relations, `&` intersects them, `-` takes away; `q` is a query's position and `k` a key's.
    # Others are chunk, stride, from, same, offsets, random, blocks, and `where` with any condition.
    attend (window(window - 1) | to(first(sinks))) & causal

    # Claims are proven for every length, or refuted with a witness; only what is proven compiles.
    require causal
    require nonempty
    require edges <= n * (window + sinks)
}}
"""


def add(commands: Commands) -> None:
    parser = commands.add_parser("new", help="write a commented pattern file to start from")
    parser.add_argument("name", metavar="NAME", help="of the pattern; NAME.attn must not exist yet")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    from attnc.files import create_whole
    from attnc.names import refusal

    path = Path(options.name)
    if path.suffix != ".attn":
        path = path.with_name(f"{path.name}.attn") if path.name else path / ".attn"
    name = path.stem
    if not (name.isascii() and name.isidentifier()):
        raise Misuse(
            f"{name!r} cannot name a pattern: names are letters, digits and `_`, and start with a letter"
        )
    if reason := refusal(name, "pattern"):
        raise Misuse(f"{name!r} cannot name a pattern: {reason}")
    shown = str(path)
    if not path.parent.is_dir():
        raise Misuse(f"cannot write {shown!r}: there is no folder {str(path.parent)!r}; make it first")
    try:
        create_whole(path, START.format(name=name).encode())
    except FileExistsError:
        raise Misuse(
            f"will not overwrite {shown!r}: take another name, or move it away", "unwritable-file", shown
        ) from None
    except OSError as error:
        raise Misuse(f"cannot write {shown!r}: {error.strerror or error}", "unwritable-file", shown) from None
    name = printable(shown)
    print(f"wrote {name}; `attnc check {name}` tells what is known of it")
    return 0

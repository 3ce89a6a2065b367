"""``attnc graph``: which queries read which keys, as a picture or as data."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import (
    Misuse,
    add_fills,
    add_output,
    add_source,
    colored,
    complain,
    fills_of,
    heads,
    length,
    params_of,
    request,
    whole_number,
)
from attnc.diagnostics import AttncError

if TYPE_CHECKING:
    from attnc.commands.options import Commands
    from attnc.drawing.picture import Picture

FORMATS = ("svg", "png", "html", "dot", "json")


def add(commands: Commands) -> None:
    parser = commands.add_parser("graph", help="draw who reads whom, tile by tile or token by token")
    add_source(parser)
    parser.add_argument("--n", metavar="N", type=length, default=4096, help="tokens (default: 4096)")
    parser.add_argument("--tile", metavar="SIZE", type=whole_number, help="positions a side of a tile")
    parser.add_argument(
        "--heads", metavar="H", type=heads, help="query heads (default: one for each kind of head)"
    )
    add_fills(parser)
    add_output(parser, "OUT.svg|png|html|dot|json")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    params, fills = params_of(options), fills_of(options)
    try:
        asked = request(options, params)
        from attnc import pipeline
        from attnc.drawing.picture import USUAL_TILES, BadPicture, picture
        from attnc.drawing.png import NoMatplotlib
        from attnc.drawing.text import text, tiles_for
        from attnc.files import Refused, output
        from attnc.fills import BadFill
        from attnc.progress import Bar

        try:
            place = None
            if options.output is not None:
                place = output(options.output, FORMATS, (options.file,), only_ours=not options.force)
            columns = shutil.get_terminal_size().columns
            with Bar(2, sys.stderr) as bar:
                bar.step("reading the pattern")
                done = pipeline.run(asked, "terms")
                bar.step(f"looking at {options.n} tokens")
                tiles = tiles_for(columns) if place is None else USUAL_TILES
                seen = picture(
                    done.pattern,
                    done.bodies,
                    options.n,
                    tile=options.tile,
                    heads=options.heads,
                    fills=fills,
                    usual_tiles=tiles,
                )
                drawn = b"" if place is None else _drawn(seen, place.suffix)
            complain(done.warnings)
            if place is None:
                if 2 * seen.tiles > columns:
                    raise BadPicture(
                        f"{seen.tiles} x {seen.tiles} tiles are too many for {columns} columns: leave out "
                        "`--tile`, or draw into a file with `-o OUT.svg`"
                    )
                print(text(seen, columns, colored(sys.stdout), sys.stdout.encoding or "ascii"))
            else:
                place.write(drawn)
        except (BadFill, BadPicture, NoMatplotlib, Refused) as error:
            raise Misuse(str(error)) from None
    except AttncError as error:
        complain(error.diagnostics)
        return 1
    return 0


def _drawn(seen: Picture, form: str) -> bytes:
    from attnc.drawing.picture import check_tiles

    match form:
        case "json":
            from attnc.drawing.data import to_json

            return to_json(seen).encode()
        case "dot":
            from attnc.drawing.data import to_dot

            return to_dot(seen).encode()
    check_tiles(seen)
    match form:
        case "png":
            from attnc.drawing.png import png

            return png(seen)
        case "html":
            from attnc.pages.graph import graph_page

            return graph_page(seen).encode()
    from attnc.drawing.svg import svg

    return svg(seen).encode()

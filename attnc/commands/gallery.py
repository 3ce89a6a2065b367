"""``attnc gallery``: a folder's patterns on one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse, add_output, complain
from attnc.diagnostics import AttncError

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("gallery", help="write a page with pictures of all patterns of a folder")
    parser.add_argument("folder", metavar="DIR", help="the folder with the pattern files")
    add_output(parser, "OUT.html", required=True)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    if not folder.is_dir():
        why = (
            "it is a file; name the folder that it is in, or draw it alone by `attnc graph`"
            if folder.exists()
            else "there is no such folder"
        )
        raise Misuse(f"cannot read {options.folder!r}: {why}", "unreadable-file")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".attn" and path.is_file())
    if not files:
        raise Misuse(f"there are no pattern files in {options.folder!r}: their names end in .attn")
    from attnc import pipeline
    from attnc.drawing.picture import BadPicture
    from attnc.files import Refused, output, read_path
    from attnc.pages.gallery import Card, card, gallery_page
    from attnc.progress import Bar
    from attnc.request import Request

    cards: list[Card] = []
    try:
        place = output(options.output, ("html",), only_ours=not options.force)
        with Bar(len(files), sys.stderr) as bar:
            for file in files:
                bar.step(file.name)
                source = read_path(file)
                parsed = pipeline.run(Request(source), "syntax")
                for pattern in parsed.file.patterns:
                    made = pipeline.run(Request(source, pattern.name.text), "claims")
                    cards.append(card(made))
        place.write(gallery_page(folder.resolve().name, cards).encode())
    except AttncError as error:
        complain(error.diagnostics)
        return 1
    except (BadPicture, Refused) as error:
        raise Misuse(str(error)) from None
    except OSError as error:
        raise Misuse(str(error), "unreadable-file") from None
    return 0

"""``attnc fmt``: pattern files in their canonical form."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import Misuse, complain
from attnc.diagnostics import AttncError, Source, printable

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("fmt", help="lay pattern files out in the one canonical way")
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="pattern files; `-` reads the standard input and prints"
    )
    parser.add_argument("--check", action="store_true", help="only name the files that would change")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    from attnc.files import Refused, read_path, rewritable
    from attnc.formatting import FormatError, formatted

    status = 0
    for name in dict.fromkeys(options.files):
        try:
            source = _standard_input() if name == "-" else read_path(name)
            text = formatted(source)
            if name == "-" and not options.check:
                sys.stdout.write(text)
            elif text != source.text:
                if not options.check:
                    rewritable(name).write(text.encode())
                print(f"{'would change' if options.check else 'changed'} {printable(source.name)}")
                status = max(status, int(options.check))
        except AttncError as error:
            complain(error.diagnostics)
            status = 1
        except FormatError as error:
            print(f"attnc: {printable(str(error))}", file=sys.stderr)
            status = 1
        except Refused as error:
            raise Misuse(str(error), "unwritable-file", name) from None
        except OSError as error:
            raise Misuse(str(error), "unreadable-file", name) from None
    return status


def _standard_input() -> Source:
    data = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
    try:
        return Source("<stdin>", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Misuse(f"the standard input is no text: byte {error.start} is not UTF-8") from None

"""The tables of tile sizes of emitted modules, each from the data file of a kind of device.

Files lie in ``codegen/tiles``: ``tables`` holds queries, keys, warps and stages, by shape of tile, by kernel
and by level. Levels are dim up to 64, 128, 256 in 16 bits, then in 32 bits; where a shape has fewer, those of
"wide" are taken. ``name`` is the table's in the module, ``devices`` says which they are for, ``origin`` where
the numbers come from. A file with ``capability`` was measured on devices of that compute capability, and is
for those.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from textwrap import wrap
from typing import Any

_HEAD = """\
# Queries, keys, warps and stages by level: dim up to 64, 128, 256 in 16 bits, then in 32 bits.
# Hopper's matrix instructions want 4 warps for every 64 of the rows that accumulate: queries, but keys for
# their gradients; more warps than that would do the same work twice.
"""


@cache
def tables_text() -> str:
    """All tables, and which of them were measured, as Python."""
    paths = (path for path in files("attnc.codegen").joinpath("tiles").iterdir())
    found = sorted((path.name, path.read_text(encoding="utf-8")) for path in paths if path.is_file())
    tables = [json.loads(text) for name, text in found if name.endswith(".json")]
    measured = [f"{tuple(item['capability'])}: {item['name']}" for item in tables if "capability" in item]
    return (
        f"{_HEAD}{''.join(map(_table, tables))}"
        "# Those that were measured, by the compute capability of the device.\n"
        f"_MEASURED_TILES = {{{', '.join(measured)}}}\n"
    )


def _table(table: dict[str, Any]) -> str:
    lines = [f"# {line}" for line in wrap(f"For {table['devices']}; {table['origin']}.", 105)]
    lines.append(f"{table['name']} = {{")
    for shape, kinds in table["tables"].items():
        lines.append(f'    "{shape}": {{')
        for kind, rows in kinds.items():
            levels = [", ".join(str(tuple(row)) for row in rows[i : i + 3]) for i in range(0, len(rows), 3)]
            lines += [f'        "{kind}": (', *(f"            {level}," for level in levels), "        ),"]
        lines.append("    },")
    return "\n".join((*lines, "}", ""))

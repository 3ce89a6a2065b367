"""The tables of tile sizes of emitted modules, each from the data file of a kind of device.

Files lie in ``codegen/tiles``: ``tables`` holds queries, keys, warps and stages, by shape of tile, by kernel
and by level. Levels are dim up to 64, 128, 256 in 16 bits, then in 32 bits; where a shape has fewer, or not
this kernel, those of "wide" are taken. ``name`` is the table's in the module, ``devices`` says which they are
for, ``origin`` where the numbers come from. A file with ``capability`` was measured on devices of that
compute capability, and is for those.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from textwrap import wrap
from typing import Any, Literal, NamedTuple

from attnc.codegen.weights import BodyWeights
from attnc.schedule import Pass

TileShape = Literal["wide", "narrow", "long", "slim", "alone"]

_HEAD = """\
# Queries, keys, warps and stages by level: dim up to 64, 128, 256 in 16 bits, then in 32 bits.
# Hopper's matrix instructions want 4 warps for every 64 of the rows that accumulate: queries, but keys for
# their gradients; more warps than that would do the same work twice.
"""


class Sizes(NamedTuple):
    """Queries and keys of a tile, warps of a program, stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


def tile_shape(part: Pass, weights: BodyWeights) -> TileShape:
    """What shape of tile suits a pass' kernels: see ``_tile_sizes``. weights: of the edges of its body."""
    if part.sweeps and all(sweep.scatter is not None for sweep in part.sweeps):
        return "alone"
    deep = part.side == "key" and any(len(sweep.moving) > 1 for sweep in part.sweeps)
    if deep or weights.of_kind("pair"):
        return "slim"
    # What weights are made of takes the registers, and features the shared memory, that larger tiles would.
    small = weights.weights.feature is not None or (part.side == "key" and not weights.plain)
    return "wide" if part.form == "long" and small else part.form


def level(dim: int) -> int:
    """Which entry of a table is for a head dim, in 16 bits."""
    return (dim > 64) + (dim > 128)


def sizes_of(kernel: str, dim: int, shape: TileShape) -> Sizes:
    """The tiles of a kernel in 16 bits on Hopper: as ``_tile_sizes`` of modules."""
    measured = {tuple(item["capability"]): item["tables"] for item in _files() if "capability" in item}
    large = next(item for item in _files() if item["name"] == "_TILES")
    table = measured.get((9, 0), large["tables"])
    rows = table.get(shape, {}).get(kernel, ())
    row = rows[level(dim)] if level(dim) < len(rows) else table["wide"][kernel][level(dim)]
    queries, keys, warps, stages = row
    return Sizes(queries, min(keys, 64), 4, stages) if dim <= 32 else Sizes(queries, keys, warps, stages)


@cache
def _files() -> list[dict[str, Any]]:
    paths = (path for path in files("attnc.codegen").joinpath("tiles").iterdir())
    found = sorted((path.name, path.read_text(encoding="utf-8")) for path in paths if path.is_file())
    return [json.loads(text) for name, text in found if name.endswith(".json")]


@cache
def tables_text() -> str:
    """All tables, and which of them were measured, as Python."""
    measured = [f"{tuple(item['capability'])}: {item['name']}" for item in _files() if "capability" in item]
    return (
        f"{_HEAD}{''.join(map(_table, _files()))}"
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

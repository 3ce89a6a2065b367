"""Makes a data file of tile sizes of what tuning found: see ``attnc/codegen/tile_tables.py``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnc.files import write_whole

TILES = Path(__file__).parents[2] / "codegen" / "tiles"
LEVELS = {64: 0, 128: 1}


def best(times: Sequence[dict[str, Any]]) -> list[int]:
    """The size that is the least slower than the fastest, over all patterns: by the geometric mean."""
    fastest: dict[str, float] = {}
    for one in times:
        fastest[one["pattern"]] = min(fastest.get(one["pattern"], math.inf), one["us"])
    ratios: dict[tuple[int, ...], list[float]] = {}
    for one in times:
        ratios.setdefault(tuple(one["size"]), []).append(math.log(one["us"] / fastest[one["pattern"]]))
    # A size that could not be used for one of the patterns is none for their shape.
    whole = {size: found for size, found in ratios.items() if len(found) == len(fastest)}
    return list(min(whole or ratios, key=lambda size: sum(ratios[size]) / len(ratios[size])))


def adopted(times: Sequence[dict[str, Any]], target: Path, command: str) -> Iterator[str]:
    """Writes the file of every device that times are of, and says what has changed.

    target: a file or a folder. What was not measured stays as it is in the table for large devices.
    """
    base = json.loads((TILES / "large.json").read_text(encoding="utf-8"))
    devices = dict.fromkeys((tuple(one["capability"]), one["device"]) for one in times)
    for capability, device in devices:
        own = [one for one in times if (tuple(one["capability"]), one["device"]) == (capability, device)]
        tables = json.loads(json.dumps(base["tables"]))
        for shape in dict.fromkeys(shape for one in own for shape in one["shapes"]):
            for kind in ("forward", "query", "key"):
                for dim, level in LEVELS.items():
                    some = [
                        one
                        for one in own
                        if one["shapes"] == [shape] and one["kind"] == kind and one["dim"] == dim
                    ]
                    if some:
                        rows = tables[shape].setdefault(kind, list(tables["wide"][kind][: len(LEVELS)]))
                        before, rows[level] = rows[level], best(some)
                        yield f"{device}, {shape} {kind} {dim}: {before} -> {rows[level]}"
        name = f"sm_{capability[0]}{capability[1]}"
        made = {
            "name": f"_{name.upper()}_TILES",
            "capability": list(capability),
            "devices": f"devices of compute capability {capability[0]}.{capability[1]}",
            "origin": f"measured on {device} with Triton {own[0]['triton']}, {own[0]['date']}, `{command}`",
            "tables": tables,
        }
        path = target if target.suffix == ".json" else target / f"{name}.json"
        write_whole(path, (json.dumps(made, indent=1) + "\n").encode())
        yield f"written to {path}"

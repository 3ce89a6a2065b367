"""Counts the instructions of kernels' loops in machine code for sm_90, and fits ``instructions.json``.

    python tests/aot/instructions.py [EXAMPLE …]

Of every example whose edges are swept, in bfloat16 with head dims of 64 and 128; prints every count. With
names it counts those alone, and fits nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
import triton

from attnc.codegen.tile_tables import tile_shape
from attnc.codegen.weights import BodyWeights
from attnc.expression import FALSE
from attnc.parser import read
from attnc.pipeline import Planned, run
from attnc.prediction import instructions
from attnc.request import Request
from attnc.schedule import Pass, Sweep
from tests.aot import compiler

FILE = Path(instructions.__file__).with_name("instructions.json")
DIMS = (64, 128)
_OPERATION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.M)
_KERNELS = {"forward": "forward", "query_gradient": "query", "key_gradient": "key"}


@dataclass(frozen=True)
class Loop:
    """One loop over tiles of a kernel: instructions of a warp in a step, beside matrix products.

    each: for every score that a thread has. operations, functions, entries: of the pattern, for every pair.
    """

    example: str
    dim: int
    kernel: str
    shape: str
    masked: bool
    instructions: int
    each: float
    operations: int
    functions: int
    entries: int


def loops(machine: str) -> list[int]:
    """Instructions of the innermost loops that multiply matrices, without the products, in their order."""
    lines = machine.splitlines()
    labels = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"(\.L_x_\d+):", line))}
    jumps = [
        (labels[match[1]], i)
        for i, line in enumerate(lines)
        if (match := re.search(r"BRA.*(\.L_x_\d+)\)", line))
    ]
    back = sorted({(first, last) for first, last in jumps if first < last})
    found = []
    for first, last in back:
        if any((a, b) != (first, last) and a >= first and b <= last for a, b in back):
            continue
        names = _OPERATION.findall("\n".join(lines[first : last + 1]))
        products = sum(name.startswith("HGMMA") for name in names)
        if products:
            found.append(len(names) - products)
    return found


def expected(part: Pass) -> Iterator[tuple[Sweep, bool]]:
    """The loops of a pass' kernels, and whether they are masked, in their order."""
    for sweep in part.sweeps:
        if sweep.scatter is not None:
            continue
        if sweep.drawn is None and sweep.full_when != FALSE:
            yield sweep, False
        yield sweep, True


def counted(name: str, dim: int) -> Iterator[Loop]:
    planned: Planned = run(Request(read(str(compiler.EXAMPLES / f"{name}.attn")), name), "schedule")
    launches = compiler.record(compiler.example(name), torch.bfloat16, dim, "_TILES")
    for kind, kernel in _KERNELS.items():
        texts = list(dict.fromkeys(launch.name for launch in launches if launch.kind == kind))
        by_name = {launch.name: launch for launch in launches if launch.kind == kind}
        passes = [
            (plan, part)
            for plan in planned.schedule.bodies
            for part in (plan.key if kernel == "key" else plan.query)
        ]
        assert len(texts) == len(passes), (name, kind, texts, len(passes))
        for text, (plan, part) in zip(texts, passes, strict=True):
            launch, weights = by_name[text], BodyWeights(plan.body)
            wanted = list(expected(part))
            found = loops(compiler.machine_code(launch))
            if len(found) != len(wanted):
                print(f"{name} {dim} {text}: {len(found)} loops for {len(wanted)}", file=sys.stderr)
                continue
            rows, columns = map(int, launch.tile.split(" x "))
            scores = rows * columns / (dict(launch.options)["num_warps"] * 32)
            for (sweep, masked), number in zip(wanted, found, strict=True):
                scored = instructions.of_score(weights)
                operations = scored.operations + masked * instructions.of_mask(part, sweep)
                yield Loop(
                    name, dim, kernel, tile_shape(part, weights), masked, number,
                    number / scores, operations, scored.functions, scored.entries,
                )  # fmt: skip


def told(loop: Loop) -> float:
    """What the fit says of a loop, for every score that a thread has."""
    done = instructions.Scored(loop.operations, loop.functions, loop.entries)
    return instructions.of_step(loop.kernel, loop.shape, loop.dim, loop.masked, done)


def fit(found: Sequence[Loop]) -> dict[str, Any]:
    """Instructions for a score: of a full step by kernel, shape of tile and dim; what the rest adds.

    Relative errors are made small, as a whole.
    """
    groups = sorted({(loop.kernel, loop.shape, loop.dim) for loop in found})
    rows = [
        [float((loop.kernel, loop.shape, loop.dim) == group) for group in groups]
        + [loop.operations, loop.functions, loop.entries, float(loop.masked)]
        for loop in found
    ]
    each = np.array([loop.each for loop in found])
    solved, *_ = np.linalg.lstsq(np.array(rows) / each[:, None], np.ones(len(found)), rcond=None)
    errors = np.abs(np.array(rows) @ solved / each - 1)
    full: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (kernel, shape, _), value in zip(groups, solved, strict=False):
        full[kernel][shape].append(round(float(value), 2))
    names = ("operation", "function", "entry", "masked")
    more = {name: round(float(value), 2) for name, value in zip(names, solved[-4:], strict=True)}
    return {
        "origin": f"tests/aot/instructions.py, Triton {triton.__version__}, sm_90, bf16",
        "loops": len(found),
        "error": {"median": round(float(np.median(errors)), 3), "most": round(float(errors.max()), 3)},
        "full": full,
    } | more


def main(names: list[str]) -> None:
    found: list[Loop] = []
    for name in names or compiler.swept():
        for dim in DIMS:
            for loop in counted(name, dim):
                print(json.dumps(asdict(loop)), flush=True)
                found.append(loop)
    if not names:
        FILE.write_text(json.dumps(fit(found), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compiles kernels for sm_90 in bfloat16 and writes down what they take: `budget.json`.

    python tests/aot/record.py [EXAMPLE …]

Of every example, and of the patterns of `summed.py`. With names those are measured anew, and the others keep
what stands there.
A test holds the kernels to these numbers. Look at the difference before it is committed: a number that grew
is speed that was lost, unless the change says what it was given for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import triton

from tests.aot import budget, compiler, summed

CASES = [(name, dim) for name in compiler.swept() for dim in budget.DIMS] + summed.CASES


def launches(name: str, dim: int) -> Iterator[compiler.Launch]:
    if (name, dim) in summed.CASES:
        for some in summed.launches(name, dim):
            yield from some
    else:
        yield from compiler.launches(name, torch.bfloat16, dim, "_TILES")


def main(names: list[str]) -> None:
    target = compiler.TARGETS["sm_90"]
    known: dict[object, compiler.Binary] = {}
    before = budget.Budget.read()
    if names and before.triton != triton.__version__:
        sys.exit(
            f"what stands there is of Triton {before.triton}, and this is {triton.__version__}: measure all"
        )
    uses = {key: use for key, use in before.uses.items() if names and key[0] not in names}
    for name, dim in CASES:
        if names and name not in names:
            continue
        taken: dict[str, list[compiler.Binary]] = {}
        for launch in launches(name, dim):
            if launch.identity not in known:
                known[launch.identity] = compiler.build(launch, target)
            taken.setdefault(launch.label, []).append(known[launch.identity])
        for label, some in taken.items():
            uses[name, dim, label] = budget.Use.most(*some)
            print(name, dim, label, uses[name, dim, label], flush=True)
    budget.Budget(triton.__version__, uses).write()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compiles every example's kernels for sm_90 in bfloat16 and writes down what they take: `budget.json`.

    python tests/aot/record.py [EXAMPLE …]

With names of examples those are measured anew, and the others keep what stands there.
A test holds the kernels to these numbers. Look at the difference before it is committed: a number that grew
is speed that was lost, unless the change says what it was given for.
"""

from __future__ import annotations

import sys

import budget
import compiler
import torch
import triton


def main(names: list[str]) -> None:
    target = compiler.TARGETS["sm_90"]
    known: dict[object, budget.Use] = {}
    before = budget.Budget.read()
    if names and before.triton != triton.__version__:
        sys.exit(
            f"what stands there is of Triton {before.triton}, and this is {triton.__version__}: measure all"
        )
    uses = {key: use for key, use in before.uses.items() if names and key[0] not in names}
    for name in names or compiler.swept():
        for dim in budget.DIMS:
            for launch in compiler.launches(name, torch.bfloat16, dim, target.tiles):
                if launch.identity not in known:
                    binary = compiler.build(launch, target)
                    known[launch.identity] = budget.Use(binary.registers, binary.spilled, binary.shared)
                    print(name, dim, launch.label, known[launch.identity], flush=True)
                uses[name, dim, launch.label] = known[launch.identity]
    budget.Budget(triton.__version__, uses).write()


if __name__ == "__main__":
    main(sys.argv[1:])

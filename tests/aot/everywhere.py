"""Compiles one example of each kind of kernel for every target, with the Triton that is installed.

    python tests/aot/everywhere.py [EXAMPLE …]

`make targets` runs it with the oldest Triton that is supported and with the newest. Each example has a
process of its own, which an assertion of the compiler would end. What fails is printed, and the exit status
is then 1.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import triton

from tests.aot import compiler, summed

# Intervals, residues, sets, documents, lists, sums by distance and by pair, rows one by one, states, gates.
SWEPT = ("mistral", "strided", "longformer", "packed_documents", "bigbird", "t5", "natten_2d", "logsparse")
STATES = ("linear_transformer", "mamba2", "performer", "cosine")
GATES = ("rwkv6", "gla", "gated_deltanet", "kimi_delta")
TARGETS = ("sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "gfx942")
DIM = 64


def launches(name: str, target: compiler.Target) -> Iterator[compiler.Launch]:
    """What an example launches, each kernel once; tiles in shares have another binary, and are left out."""
    if name in SWEPT:
        found = compiler.launches(name, torch.bfloat16, DIM, target.tiles)
    else:
        hip = "6.0" if target.triton.backend == "hip" else None  # by which a launch chooses how to add up
        with patch.object(torch.version, "hip", hip):
            found = sum(summed.launches.__wrapped__(name, DIM), ())
    kinds = {launch.identity: launch for launch in found if not launch.in_shares}
    yield from kinds.values()


def main(name: str) -> int:
    """Compiles one example for all targets; how many kernels failed."""
    failed = compiled = 0
    for target in map(compiler.TARGETS.__getitem__, TARGETS):
        for launch in launches(name, target):
            print(f"{name}, {target.name}: {launch.label}", flush=True)  # the last line, if the process ends
            try:
                needed = compiler.build(launch, target).shared
            except RuntimeError as error:
                failed += 1
                print(f"FAILED: {error}", flush=True)
                continue
            compiled += 1
            if needed > target.shared:
                failed += 1
                print(f"FAILED: it needs {needed} bytes of shared memory, and there are {target.shared}")
    print(f"{name}: {compiled} kernels compiled")
    return failed


def run(name: str) -> tuple[int, list[str]]:
    """The exit status of an example's process, and what it said."""
    given = [sys.executable, __file__, "--one", name]
    done = subprocess.run(given, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines() or done.stderr.splitlines()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.exit(min(main(sys.argv[2]), 100))
    print(f"Triton {triton.__version__}, head dim {DIM}, bf16, for {', '.join(TARGETS)}", flush=True)
    wrong = 0
    with ThreadPoolExecutor(2) as pool:
        for status, lines in pool.map(run, sys.argv[1:] or [*SWEPT, *STATES, *GATES]):
            wrong += status != 0
            shown = [lines[-1]]
            if status:
                at = [i for i, line in enumerate(lines) if line.startswith("FAILED")]
                shown = [line for i in at for line in lines[i - 1 : i + 1]] or lines[-3:]
            print("\n".join(shown), flush=True)
    sys.exit(wrong > 0)

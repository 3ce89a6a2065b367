"""Compile patterns in random orders while the machine is busy: texts, verdicts and work stay the same.

    python tools/same_answers.py [--runs 3] [--busy 6] [files or folders, by default examples/]

Every run is a process of its own that compiles all patterns, one after another, in an order of its own and
with another hash seed. The first run is not disturbed. Prints what differs; exits with 1 if anything does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from attnc import budget
from attnc.diagnostics import AttncError, render
from attnc.files import read_source
from attnc.parser import parse
from attnc.pipeline import compile_pattern
from attnc.report import examine
from attnc.request import Request

EXAMPLES = Path(__file__).parent.parent / "examples"


def outcome(path: Path, name: str) -> dict[str, Any]:
    """What compiling and checking one pattern gives, and how much work the compile was."""
    request = Request(read_source(path), name, {})
    with budget.compiling(1 << 62) as spent:
        try:
            text = compile_pattern(request).text
        except AttncError as error:
            text = "\n".join(map(render, error.diagnostics))
        compiled = spent.spent
        report = json.dumps(examine(request).to_json(), sort_keys=True)
    return {
        "module": hashlib.sha256(text.encode()).hexdigest(),
        "report": hashlib.sha256(report.encode()).hexdigest(),
        "work": (compiled, spent.spent),
    }


def work(files: list[Path], seed: int) -> dict[str, Any]:
    """The outcomes of all patterns, compiled in the order of ``seed``."""
    patterns = [(path, pattern.name.text) for path in files for pattern in parse(read_source(path)).patterns]
    random.Random(seed).shuffle(patterns)
    return {f"{path.name}: {name}": outcome(path, name) for path, name in patterns}


def run(files: list[Path], seed: int) -> tuple[dict[str, Any], float]:
    """The outcomes of a process of its own, and how long it took."""
    started = time.monotonic()
    words = [sys.executable, __file__, "--seed", str(seed), *map(str, files)]
    env = os.environ | {"PYTHONHASHSEED": str(seed)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, default=[EXAMPLES])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--busy", type=int, default=6)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = [
        file for path in options.paths for file in (sorted(path.glob("*.attn")) if path.is_dir() else [path])
    ]
    if options.seed is not None:
        json.dump(work(files, options.seed), sys.stdout)
        return 0
    wanted, took = run(files, 0)
    print(f"{len(wanted)} patterns, {took:.0f} s undisturbed")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    wrong = 0
    try:
        for seed in range(1, options.runs + 1):
            found, took = run(files, seed)
            different = sorted(name for name in wanted if found[name] != wanted[name])
            wrong += len(different)
            print(f"run {seed}: {took:.0f} s beside {len(busy)} busy processes, {len(different)} differ")
            for name in different:
                parts = [part for part in wanted[name] if found[name][part] != wanted[name][part]]
                print(f"    {name}: {', '.join(parts)}")
    finally:
        for process in busy:
            process.kill()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

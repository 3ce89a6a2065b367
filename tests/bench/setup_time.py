"""How long a pattern takes from its text to a ready function: compiled afresh, and from the cache.

    python tests/bench/setup_time.py [FILE.attn …]

Every number is the CPU time of ``attnc.load`` in a process of its own, in milliseconds, after PyTorch,
Triton, the solver and attnc itself were imported; the least of a few runs. Of a file with several patterns
the first is loaded.
Nothing here passes or fails: times belong to the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

ONE_LOAD = """
import importlib, sys, time
for name in ("torch", "triton", "triton.language", "attnc.pipeline", "attnc.runtime", "attnc.reach"):
    try:
        importlib.import_module(name)
    except ImportError:
        if not name.startswith("triton"):
            raise
from attnc.parser import parse, read
from attnc.runtime import load
name = parse(read(sys.argv[1])).patterns[0].name.text
started = time.process_time()
load(sys.argv[1], name)
print(1e3 * (time.process_time() - started))
"""


def timed(path: Path, cache: str) -> float:
    """Milliseconds of one load in a fresh process."""
    places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "ATTNC_CACHE_DIR": cache, "PYTHONPATH": places}
    words = [sys.executable, "-c", ONE_LOAD, str(path)]
    return float(subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time from a pattern's text to a ready function")
    parser.add_argument("files", nargs="*", type=Path, default=sorted((ROOT / "examples").glob("*.attn")))
    parser.add_argument("--runs", type=int, default=2, help="processes for each number; the least counts")
    given = parser.parse_args()
    print(f"{'example':<34}{'compiled':>10}{'cached':>10}   ms of CPU time")
    for path in given.files:
        fresh, cached = [], []
        for _ in range(given.runs):
            with tempfile.TemporaryDirectory() as cache:
                fresh.append(timed(path, cache))
                cached.append(timed(path, cache))
        print(f"{path.stem:<34}{min(fresh):>10.0f}{min(cached):>10.0f}", flush=True)


if __name__ == "__main__":
    main()

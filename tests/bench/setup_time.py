"""How long a pattern takes from its text to a ready function, and what a million tokens add to a call.

    python tests/bench/setup_time.py [FILE.attn …]

``compiled`` and ``cached`` are the CPU time of ``attnc.load`` in a process of its own, in milliseconds, after
PyTorch, Triton, the solver and attnc itself were imported; the line ``imports`` says what importing the last
two took. ``tables`` is the CPU time of everything that is built from inputs and draws, for one head, before
kernels are launched at a million tokens; ``kept`` is the size of that, ``peak`` how much the process grew
meanwhile; ``nan`` where an input alone would be too large. Everything is the least of a few runs. Of a file
with several patterns the first is loaded.
Nothing here passes or fails: times belong to the machine. What misses its target is listed at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMPILED, CACHED = 250, 30  # ms
# ms and MB at a million tokens: where everything is computed in closed form, and where inputs are read.
CLOSED, READ = (5, 1), (50, 64)

ONE_LOAD = """
import importlib, sys, time
for name in ("torch", "triton", "triton.language"):
    try:
        importlib.import_module(name)
    except ImportError:
        if not name.startswith("triton"):
            raise
started = time.process_time()
for name in ("attnc.pipeline", "attnc.runtime", "attnc.reach"):
    importlib.import_module(name)
imports = time.process_time() - started
from attnc.parser import parse, read
from attnc.runtime import load
name = parse(read(sys.argv[1])).patterns[0].name.text
started = time.process_time()
function = load(sys.argv[1], name)
print(1e3 * (time.process_time() - started), 1e3 * imports)
"""

# Told that kernels will run, a module makes them, and the tables that only kernels need are built, too.
MILLION = """
import math, resource, torch
torch.set_num_threads(1)
module = sys.modules[function.__module__]
kinds = {"bool": torch.bool, "int": torch.int64}

def build(n):
    if not hasattr(module, "_Launcher"):  # everything is summed up in states, which need no tables
        return 0.0, 0.0, 0.0, False
    inputs = []
    for kind, shape in module.INPUTS.values():
        size = shape(*(n, 1, 64)[: shape.__code__.co_argcount])  # the head dim, where a shape hangs on it
        if math.prod(size) > 2**30:
            return math.nan, math.nan, math.nan, True  # what is given does not fit in itself
        if kind == "float":  # weights, which no table is built from
            inputs.append(torch.zeros(size))
            continue
        # Documents of a thousand tokens; one token in a thousand is chosen.
        x = torch.arange(n) // 1000 if kind == "int" else torch.arange(n) % 1000 == 0
        inputs.append(x.to(kinds[kind]).expand(size).contiguous())
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    call = module._Launcher.__new__(module._Launcher)
    call.n = call.n_q = n
    call.tables, call.packed, call.lists = module._tables(inputs, n, n, 1, torch.device("cpu")), {}, {}
    sizes = {"BLOCK_M": 128, "BLOCK_N": 64}
    for part in (part for passes in module._QUERY_PASSES for part in passes):
        call.needs(part[2], "query", sizes)
    for part in (part for passes in module._KEY_PASSES for part in passes):
        call.needs(part[1], "key", sizes)
    took = 1e3 * (time.process_time() - started)
    made = [*call.packed.values(), *call.lists.values()]
    kept = [x for x in (*call.tables.values(), *(x for several in made for x in several)) if x is not None]
    own = [x for x in kept if not any(x.data_ptr() == given.data_ptr() for given in inputs)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return took, sum(x.nbytes for x in own) / 2**20, grown / 2**10, bool(call.tables)

build(1000)
print(*build(1_000_000))
"""


@dataclass(frozen=True)
class Row:
    """Of one pattern: ms of CPU time, MB, and whether any table is built at all."""

    name: str
    compiled: float
    cached: float
    imports: float
    tables: float
    kept: float
    peak: float
    reads: bool

    def misses(self) -> Iterator[str]:
        """What it takes more of than the target."""
        most, memory = READ if self.reads else CLOSED
        for value, target, unit, what in (
            (self.compiled, COMPILED, "ms", "to compile"),
            (self.cached, CACHED, "ms", "from the cache"),
            (self.tables, most, "ms", "for tables at a million tokens"),
            (self.peak, memory, "MB", "of memory meanwhile"),
        ):
            if value >= target:
                yield f"{value:.0f} {unit} {what}, not under {target}"


def run(script: str, path: Path, folder: str, **environment: str) -> list[str]:
    """What a script about one pattern prints at last, in a fresh process."""
    places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PYTHONPATH": places, "ATTNC_CACHE_DIR": f"{folder}/cache", **environment}
    # As where attnc is installed, its files are compiled already; in a folder that nobody else writes to.
    env |= {"PYTHONPYCACHEPREFIX": str(ROOT / "build" / "setup-time")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    words = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1].split()


def measured(path: Path, runs: int) -> Row:
    fresh, cached, million = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            fresh.append(run(ONE_LOAD, path, folder))
            cached.append(run(ONE_LOAD, path, folder))
            million.append(run(ONE_LOAD + MILLION, path, folder, ATTNC_BACKEND="triton"))

    def least(found: list[list[str]], place: int) -> float:
        return min(float(values[place]) for values in found)

    imports = least(fresh, 1)
    tables = (least(million, place) for place in range(3))
    return Row(path.stem, least(fresh, 0), least(cached, 0), imports, *tables, million[0][3] == "True")


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time from a pattern's text to a ready function")
    parser.add_argument("files", nargs="*", type=Path, default=sorted((ROOT / "examples").glob("*.attn")))
    parser.add_argument("--runs", type=int, default=2, help="processes for each number; the least counts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(ONE_LOAD, given.files[0], folder)  # compiles attnc's own files
    print(f"{'':<34}{'ms of CPU time':>20}{'a million tokens':>31}")
    print(f"{'example':<34}{'compiled':>10}{'cached':>10}{'tables':>10}{'kept':>10}{'peak':>11}")
    rows = []
    for path in given.files:
        row = measured(path, given.runs)
        rows.append(row)
        print(
            f"{row.name:<34}{row.compiled:>10.0f}{row.cached:>10.0f}"
            f"{row.tables:>7.1f} ms{row.kept:>7.1f} MB{row.peak:>8.1f} MB",
            flush=True,
        )
    print(
        f"imports of attnc, the solver and sympy, once a process: {min(row.imports for row in rows):.0f} ms"
    )
    late = [(row.name, miss) for row in rows for miss in row.misses()]
    for what, target, slow in (
        ("compiled", COMPILED, [row for row in rows if row.compiled >= COMPILED]),
        ("from the cache", CACHED, [row for row in rows if row.cached >= CACHED]),
    ):
        print(f"{what} in under {target} ms: {len(rows) - len(slow)} of {len(rows)}")
    for name, miss in late:
        print(f"miss: {name}: {miss}")


if __name__ == "__main__":
    main()

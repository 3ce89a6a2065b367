"""Everything that a GPU is wanted for, in calls of a few minutes each.

    python tools/gpu.py prepare     here: the packages that the GPU machine lacks, into .gpu/wheels
    python tools/gpu.py check       there: the kernel suite, all examples in all dtypes, graphs, torch.compile
    python tools/gpu.py sanitize    there: one kernel of each kind under compute-sanitizer
    python tools/gpu.py tune        there: tile sizes by the clock
    python tools/gpu.py bench       there: all patterns beside their peers
    python tools/gpu.py profile     there: hardware counters of a few kernels
    python tools/gpu.py adopt       here: the best tile sizes, into codegen/tiles

`make gpu` is all of them in this order, on a machine that has a GPU. What a step found stands in
.gpu/STEP.jsonl, a line for each of its items, as soon as the item has ended; called again, a step does what
failed first, then what is left, and nothing twice. No call takes more than --minutes. `all --dry-run
--device cpu` does a little of everything in Triton's interpreter, so that no minute there is lost to a typo.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.aot.everywhere import GATES, STATES, SWEPT

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("bfloat16", "float16", "float32")
# What tile sizes are tuned on: long sweeps and short ones, sets, documents, residues, digits.
TUNED = (
    "causal",
    "mistral",
    "longformer",
    "packed_documents",
    "strided",
    "image_transformer_2d",
    "natten_2d",
)
PROFILED = {
    "causal": "_forward_kernel",
    "mistral": "_key_gradient_kernel",
    "packed_documents": "_forward_kernel",
    "retnet": "_chunk_states_kernel",
}
STEPS = ("check", "sanitize", "tune", "bench", "profile")
# What the GPU machine is without, and the Python that it runs.
PACKAGES, PYTHON = ("lark", "z3-solver"), "3.12"


@dataclass(frozen=True)
class Item:
    """One process: its words, its environment, and after how many seconds it is ended."""

    name: str
    words: tuple[str, ...]
    limit: float
    env: tuple[tuple[str, str], ...] = ()


@dataclass
class Run:
    """How a step runs. little: of everything a little."""

    out: Path
    device: str
    minutes: float
    jobs: int
    little: bool

    def env(self) -> dict[str, str]:
        more = {"ATTNC_TEST_DEVICE": self.device, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if self.device == "cpu":
            more["TRITON_INTERPRET"] = "1"
        return {**os.environ, **more}


# --- items ----------------------------------------------------------------------------------------------


def check(run: Run) -> list[Item]:
    """The suite that the interpreter runs, file by file; examples, each dtype in a process of its own."""
    files = sorted(path.name for path in (ROOT / "tests/interpret").glob("test_*_triton.py"))
    files.remove("test_far_triton.py")  # of memory that is never touched, which a GPU does not have
    names, dtypes = examples(), DTYPES
    more, some = (), ()
    if run.little:
        files, names, dtypes = ["test_regressions_triton.py"], ["causal", "retnet"], DTYPES[:1]
        more, some = ("--little",), ("-k", "softplus")
    suite = [
        Item(f"suite {name}", _python("-m", "pytest", "-q", f"tests/interpret/{name}", *some), 480.0)
        for name in files
    ]
    return suite + [
        Item(f"{name} {dtype}", _python("-m", "tests.gpu.checks", name, dtype, *more), 240.0)
        for dtype in dtypes
        for name in names
    ]


def sanitize(run: Run) -> list[Item]:
    """Loads, stores and races as the hardware sees them."""
    tools, kinds = ("memcheck", "racecheck", "synccheck"), (*SWEPT, *STATES, *GATES)
    if run.little:
        tools, kinds = tools[:1], kinds[:1]
    return [
        Item(
            f"{tool} {name}",
            _under(("compute-sanitizer", "--tool", tool, "--error-exitcode", "9"), run, name),
            240.0,
        )
        for tool in tools
        for name in kinds
        if tool != "synccheck" or name in GATES
    ]


def tune(run: Run) -> list[Item]:
    """Times of tile sizes, for each pattern, kernel and head dim."""
    names, dims = TUNED, (64, 128)
    kinds = ("forward", "query", "key")
    if run.little:
        names, dims, kinds = ("causal",), (64,), ("forward", "key")
    more = ("--little",) if run.little else ()
    return [
        Item(
            f"{name} {kind} {dim}",
            _python("-m", "tests.gpu.tuning", name, kind, str(dim), *more),
            300.0,
            (("ATTNC_TUNE_LOCK", str(run.out / "tune.lock")),),
        )
        for name in names
        for dim in dims
        for kind in kinds
    ]


def bench(run: Run) -> list[Item]:
    """The benchmark of the project, a pattern at a time: many heads on few key heads, and small heads."""
    shapes = (("--heads=64", "--kv-heads=8", "--dim=128"), ("--heads=16", "--dim=64"))
    sizes: tuple[int, ...] = (32768, 4096)
    names = ["causal", "window", "stride", "dilated", "longformer", "bigbird", "fixed"]
    if run.little:
        shapes, sizes, names = (
            (("--heads=2", "--dim=16", "--repeats=1", "--dtypes=float32"),),
            (128,),
            names[:1],
        )
    found = []
    for n in sizes:
        for shape in shapes:
            for name in names:
                words = (f"--patterns={name}", f"--n={n}", *shape)
                target = (
                    run.out / "bench" / f"{name}-{n}-{'-'.join(re.findall('[0-9]+', ' '.join(shape)))}.json"
                )
                made = _python("tests/bench/run.py", *words, "--backward", f"--json={target}")
                found.append(Item(f"{name} {n} {' '.join(shape)}", made, 150.0))
    return found


def profile(run: Run) -> list[Item]:
    """Hardware counters."""
    wanted = dict([*PROFILED.items()][:1]) if run.little else PROFILED
    tool = ("ncu", "--clock-control", "none", "--set", "full", "--launch-count", "1", "--kernel-name")
    return [
        Item(f"{name} {kernel}", _under((*tool, f"regex:{kernel}"), run, name, "--large"), 200.0)
        for name, kernel in wanted.items()
    ]


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def _under(tool: tuple[str, ...], run: Run, name: str, *more: str) -> tuple[str, ...]:
    """One example under a tool; without it where there is no GPU for it to look at."""
    little = ("--little",) if run.little else ()
    words = _python("-m", "tests.gpu.checks", name, "bfloat16", "--once", *more, *little)
    return words if run.device == "cpu" else (*tool, *words)


def examples() -> list[str]:
    """The names of all patterns of the examples."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "examples").glob("*.attn"))]
    return [name for text in texts for name in re.findall(r"(?m)^pattern (\w+)", text)]


ITEMS: dict[str, Callable[[Run], list[Item]]] = {
    "check": check,
    "sanitize": sanitize,
    "tune": tune,
    "bench": bench,
    "profile": profile,
}
# Items that run at once: what is timed runs alone, but for tuning, whose compiles share the cores.
ALONE = ("bench", "profile")


# --- running --------------------------------------------------------------------------------------------


def results(path: Path) -> dict[str, dict[str, Any]]:
    """The last result of every item that a file tells of."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {found["item"]: found for found in map(json.loads, lines)}


def step(name: str, run: Run, items: Iterable[Item] | None = None) -> int:
    """Runs what is to be done of a step; 1 if anything failed, 2 if something is left for want of time."""
    run.out.mkdir(parents=True, exist_ok=True)
    path = run.out / f"{name}.jsonl"
    known = results(path)
    wanted = list(ITEMS[name](run) if items is None else items)
    todo = [item for item in wanted if not known.get(item.name, {}).get("ok")]
    todo.sort(key=lambda item: item.name not in known)  # what failed comes first
    print(f"== {name}: {len(todo)} of {len(wanted)} items", flush=True)
    until, lock = time.monotonic() + 60 * run.minutes, Lock()
    left: list[str] = []

    def one(item: Item) -> None:
        room = until - time.monotonic()
        if room <= 0:
            left.append(item.name)
            return
        found = outcome(item, run, min(item.limit, room))
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
            mark = "ok" if found["ok"] else "FAILED"
            print(f"{mark:7}{item.name}  {found['seconds']:.1f} s", flush=True)
            if not found["ok"]:
                print("    " + "\n    ".join(found["said"][-12:]), flush=True)

    with ThreadPoolExecutor(1 if name in ALONE else run.jobs) as pool:
        list(pool.map(one, todo))
    failed = [found["item"] for found in results(path).values() if not found["ok"]]
    print(f"== {name}: {len(failed)} failed, {len(left)} left for the next call", flush=True)
    for item in failed:
        print(f"    {item}")
    return 1 if failed else 2 if left else 0


def outcome(item: Item, run: Run, limit: float) -> dict[str, Any]:
    """What came of an item: whether it went well, what it said at the end, and the result it printed."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            item.words,
            cwd=ROOT,
            env={**run.env(), **dict(item.env)},
            capture_output=True,
            text=True,
            timeout=limit,
            stdin=subprocess.DEVNULL,
        )
        status, said = done.returncode, (done.stdout + done.stderr).splitlines()
    except subprocess.TimeoutExpired as error:
        status = -1
        said = [*_text(error.stdout).splitlines(), f"ended after {limit:.0f} s"]
    except FileNotFoundError as error:
        status, said = -1, [f"there is no {error.filename} on this machine"]
    found = [json.loads(line.removeprefix("RESULT ")) for line in said if line.startswith("RESULT ")]
    return {
        "item": item.name,
        "ok": status == 0,
        "seconds": round(time.monotonic() - start, 1),
        "result": found,
        "said": [] if status == 0 else said[-40:],
        "command": " ".join(item.words[1:] if item.words[0] == sys.executable else item.words),
    }


def _text(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


# --- here -----------------------------------------------------------------------------------------------


def prepare(run: Run) -> int:
    """Downloads what the GPU machine lacks."""
    target = run.out / "wheels"
    shutil.rmtree(target, ignore_errors=True)
    if run.little:
        return 0
    platforms = [f"--platform=manylinux{end}_x86_64" for end in ("_2_28", "_2_27", "_2_17", "2014", "1")]
    words = _python("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    words += ("--python-version", PYTHON, "--implementation", "cp", *platforms, "-d", str(target), *PACKAGES)
    status = subprocess.run(words).returncode
    print(
        f"{len([*target.glob('*.whl')])} packages in {target}: there, `pip install --no-deps {target}/*.whl`"
    )
    return status


def adopt(run: Run) -> int:
    """Makes the tables of the device that was tuned on of what was found fastest there."""
    from tests.gpu.adopting import adopted

    path = run.out / "tune.jsonl"
    times = [one for found in results(path).values() if found["ok"] for one in found["result"]]
    if not times:
        print(f"{path} has no times: run `python tools/gpu.py tune` on a GPU first", file=sys.stderr)
        return 1
    target = run.out / "adopted.json" if run.little else ROOT / "codegen" / "tiles"
    for line in adopted(times, target, "python tools/gpu.py tune, then adopt"):
        print(line)
    return 0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="tools/gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="+", choices=("prepare", *STEPS, "adopt", "all"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry-run", action="store_true", help="a little of everything")
    parser.add_argument("--minutes", type=float, default=9.0, help="that a step may take (9)")
    parser.add_argument("--jobs", type=int, default=min(12, os.cpu_count() or 1), help="processes at once")
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu", help="where results go (.gpu)")
    given = parser.parse_args(words)
    if given.device == "cpu" and not given.dry_run:
        parser.error("without a GPU there is nothing to measure: --device cpu goes with --dry-run")
    if given.device == "cuda" and not torch.cuda.is_available() and set(given.steps) - {"prepare", "adopt"}:
        parser.error(
            "torch sees no GPU here: `--dry-run --device cpu` does a little of everything without one"
        )
    run = Run(given.out.resolve(), given.device, given.minutes, given.jobs, given.dry_run)
    names = ("prepare", *STEPS, "adopt") if "all" in given.steps else given.steps
    worst = 0
    for name in names:
        own = {"prepare": prepare, "adopt": adopt}.get(name)
        worst = max(worst, own(run) if own else step(name, run))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs random patterns and holds what comes of them against what they mean, read off their text.

    python tools/fuzz_numerics.py --kind linear --path torch --minutes 5 --seed 0
    python tools/fuzz_numerics.py --kind all --path all --cases 50 --jobs 2
    python tools/fuzz_numerics.py --replay fuzz-failures/linear-torch-0-17.json --shrink

Case ``i`` of a kind and path is the same for one seed, however many are run. What fails is kept in a file
with its seed and the command that repeats it. The status is 1 where anything was wrong or crashed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KINDS, PATHS = ("relations", "weights", "linear"), ("torch", "triton")
CHUNK = 100  # cases a process: what modules leave behind is given back with it
SLOWER = 4  # times as many cases are run on the torch path as in Triton's interpreter
HANGS = 200  # seconds of CPU after which a case is taken to hang


@dataclass
class Tally:
    """What came of one kind on one path."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    cases: int = 0
    seconds: float = 0.0


# --- a process with some cases --------------------------------------------------------------------------


def work(kind: str, path: str, seed: int, first: int, count: int) -> None:
    """Prints a line of JSON for every case before it is run, and one after."""
    _prepare()
    from tests.fuzz import judging

    for index in range(first, first + count):
        case = drawn(kind, path, seed, index)
        print(json.dumps({"begins": index, "case": case.as_dict()}), flush=True)
        before = time.process_time()
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(before) + HANGS, hard))
        outcomes = [
            {"what": found.what, "why": found.why, "shape": found.shape and vars(found.shape)}
            for found in judging.check(case, path)
        ]
        spent = time.process_time() - before
        print(json.dumps({"ends": index, "outcomes": outcomes, "seconds": spent}), flush=True)


def drawn(kind: str, path: str, seed: int, index: int) -> Any:
    from tests.fuzz import calls, drawing, judging

    rng = random.Random(f"{kind} {path} {seed} {index}")
    groups = [group for group in calls.GROUPS if path == "torch" or group[0] <= 4]
    heads, key_heads = rng.choice(groups)
    text = drawing.pattern(rng, kind, heads)
    some = 1 if path == "triton" else rng.choice((1, 2, 3))
    shapes = tuple(calls.shape(rng, text, heads, key_heads, path == "triton") for _ in range(some))
    return judging.Case(kind, text, shapes, rng.random() < 0.35)


def _prepare() -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(1)


def replay(file: Path, shrink: bool) -> int:
    """Runs a kept case again, and makes it smaller if asked to."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    if kept["path"] == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        os.environ["TRITON_INTERPRET"] = "1"
    _prepare()
    from tests.fuzz import judging, shrinking

    case = judging.case_of(kept["case"])
    if shrink:
        case = shrinking.smaller(case, kept["path"])
    print(case.text)
    wrong = False
    for found in judging.check(case, kept["path"]):
        print(found.what, found.why, found.shape or "", sep="\n    ")
        wrong |= found.what in ("wrong", "crashed")
    return int(wrong)


# --- all of them ----------------------------------------------------------------------------------------


class Campaign:
    """Cases of some kinds and paths, in processes of their own."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = Path(args.failures)
        self.lock = threading.Lock()
        self.tallies = {(kind, path): Tally() for path in args.paths for kind in args.kinds}

    def run(self) -> int:
        with ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(self._chunks, self.tallies))
        for (kind, path), tally in self.tallies.items():
            print(report(kind, path, tally))
        return int(any(tally.failures for tally in self.tallies.values()))

    def _chunks(self, what: tuple[str, str]) -> None:
        """Runs chunk after chunk until there are enough cases, or they took enough processor time."""
        tally, done, cases = self.tallies[what], 0, self.args.cases
        most = math.inf if self.args.minutes is None else 60 * self.args.minutes
        if cases is not None and what[1] == "triton":
            cases = -(-cases // SLOWER)
        while tally.seconds < most and (cases is None or done < cases):
            count = CHUNK if cases is None else min(CHUNK, cases - done)
            done += self._chunk(*what, self.args.first + done, count, most)

    def _chunk(self, kind: str, path: str, first: int, count: int, most: float) -> int:
        """How many cases were run: fewer where a process dies or hangs, or time is over."""
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1" if path == "triton" else ""}
        if path == "torch":
            del env["TRITON_INTERPRET"]
        command = [
            sys.executable,
            __file__,
            "--worker",
            kind,
            path,
            *map(str, (self.args.seed, first, count)),
        ]
        tally, begun, ran = self.tallies[kind, path], None, 0
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
            assert process.stdout is not None
            for line in process.stdout:
                found = json.loads(line)
                if "begins" in found:
                    if tally.seconds >= most:
                        break
                    begun = found
                    continue
                assert begun is not None
                self._count(tally, kind, path, begun, found)
                begun, ran = None, ran + 1
            else:
                process.wait()
                if begun is not None or process.returncode:
                    errors.seek(0)
                    why = (
                        "it hangs"
                        if process.returncode == -signal.SIGXCPU
                        else f"the process ended: {errors.read()[-1500:]}"
                    )
                    if begun is None:
                        raise RuntimeError(why)
                    ended = {"outcomes": [{"what": "crashed", "why": why, "shape": None}], "seconds": 0.0}
                    self._count(tally, kind, path, begun, ended)
                    ran += 1
            process.kill()
            process.wait()
        return ran

    def _count(
        self, tally: Tally, kind: str, path: str, begun: dict[str, Any], found: dict[str, Any]
    ) -> None:
        tally.cases += 1
        tally.seconds += found["seconds"]
        reached = False
        for outcome in found["outcomes"]:
            what, why = outcome["what"], outcome["why"]
            failed = what in ("wrong", "crashed")
            tally.outcomes[what, "" if failed else why] += 1
            reached |= what == "checked"
            if failed:
                self._keep(tally, kind, path, begun, outcome)
        if reached:
            tally.words.update(set(words(begun["case"])))

    def _keep(
        self, tally: Tally, kind: str, path: str, begun: dict[str, Any], outcome: dict[str, Any]
    ) -> None:
        name = f"{kind}-{path}-{self.args.seed}-{begun['begins']}.json"
        case = dict(begun["case"])
        if outcome["shape"] is not None:
            case["shapes"] = [outcome["shape"]]
        with self.lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / name
            kept = {"path": path, "why": outcome["why"], "case": case}
            kept["replay"] = f"python tools/fuzz_numerics.py --replay {file} --shrink"
            file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            tally.failures.append(str(file))
            print(
                f"{outcome['what']}: {outcome['why'][:600]}\n{case['text']}    {kept['replay']}\n", flush=True
            )


def words(case: dict[str, Any]) -> Iterator[str]:
    """What a case is made of: words of the language, operators, dtypes, layouts, lengths, counts of heads."""
    yield from re.findall(r"[A-Za-z]+|//|\.\.|[!&|%{]| - | \+ ", case["text"])
    for shape in case["shapes"]:
        yield from (shape["dtype"], *shape["layouts"], f"heads {shape['heads']}/{shape['key_heads']}")
        yield "n_q < n" if shape["n_q"] < shape["n"] else "n_q = n"
        yield from ["in pieces"] * bool(shape["cuts"]) + ["batched inputs"] * shape["batched"]
        yield "scale" if shape["scale"] is not None else "default scale"
        yield from ["dims apart"] * (shape["dim"] != shape["value_dim"]) + ["odd dim"] * (shape["dim"] % 2)
        yield f"length {shape['n'] // 64 * 64}.."
    yield from ["planned small"] * case["weighed_small"]


def report(kind: str, path: str, tally: Tally) -> str:
    per = tally.seconds / max(tally.cases, 1)
    lines = [f"{kind} on {path}: {tally.cases} patterns, {tally.seconds:.0f} s of CPU ({per:.2f} s each)"]
    for (what, why), count in sorted(tally.outcomes.items(), key=lambda item: (item[0][0], -item[1])):
        lines.append(f"    {count:6} {what}{': ' if why else ''}{why}")
    known = " ".join(f"{word.strip()} {count}" for word, count in sorted(tally.words.items()))
    return "\n".join([*lines, f"    reached: {known}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kind", choices=(*KINDS, "all"), default="all")
    parser.add_argument(
        "--path", choices=(*PATHS, "all"), default="all", help="triton: in Triton's interpreter"
    )
    parser.add_argument("--minutes", type=float, help="of processor time, for each kind on each path")
    parser.add_argument(
        "--cases",
        type=int,
        help="patterns of each kind on the torch path; a fourth of that in Triton's interpreter",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first case's number")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--failures", default="fuzz-failures", help="where cases that fail are kept")
    parser.add_argument("--replay", type=Path, help="a kept case to run again")
    parser.add_argument("--shrink", action="store_true", help="make a replayed case smaller first")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        kind, path, *numbers = args.worker
        work(kind, path, *map(int, numbers))
        return 0
    if args.replay:
        return replay(args.replay, args.shrink)
    if args.minutes is None and args.cases is None:
        args.minutes = 5.0
    args.kinds = KINDS if args.kind == "all" else (args.kind,)
    args.paths = PATHS if args.path == "all" else (args.path,)
    return Campaign(args).run()


if __name__ == "__main__":
    sys.exit(main())

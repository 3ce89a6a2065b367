"""Gives odd pattern files to the compiler: none may hang, exhaust memory or end in a traceback.

    python tools/fuzz_compiler.py --cases 200 --seed 1
    python tools/fuzz_compiler.py --seconds 3600 --save findings     # an hour of processor time
    python tools/fuzz_compiler.py findings/*.attn                    # these files again

Every file goes through ``attnc check``, ``compile`` and ``fmt``, each in a process of its own with 10 s of
processor time and 1 GiB of memory. Whatever is wrong with a file must come back as a diagnostic.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import odd_patterns

from attnc import cli, formatting, pipeline, report  # noqa: F401 - imported once, before there are children

SECONDS = 10
MEMORY = 1 << 30
ADDRESSES = 4 << 30  # what is mapped and never used counts only here
RAISED, MISUSED = 70, 2
FAULTS = ("traceback", "no diagnostic", "processor time", "memory", "killed")
COMMANDS = {
    "check": ("check", "{}"),
    "compile": ("compile", "{}", "--emit", "module"),
    "fmt": ("fmt", "--check", "{}"),
    "graph": ("graph", "{}", "-o", "{}.svg", "--force"),
    "report": ("report", "{}", "-o", "{}.html", "--force"),
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``done``, ``refused``, or one of ``FAULTS``; seconds of its processor, its MiB."""

    word: str
    seconds: float
    mib: int
    said: str = ""


def run_command(command: str, path: Path) -> Outcome:
    """Runs one command on a file in a child process, under the limits."""
    words = [word.replace("{}", str(path)) for word in COMMANDS[command]]
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            _child(words, printed.fileno())
        _, status, used = os.wait4(child, 0)
        printed.seek(0)
        said = printed.read().decode("utf-8", "replace")
    seconds, mib = used.ru_utime + used.ru_stime, used.ru_maxrss >> 10
    return Outcome(_word(os.waitstatus_to_exitcode(status), seconds, mib, said), seconds, mib, said)


def _word(status: int, seconds: float, mib: int, said: str) -> str:
    if mib << 20 > MEMORY or "MemoryError" in said:
        return "memory"
    if seconds > SECONDS:
        return "processor time"
    if status == RAISED or "Traceback (most recent call last)" in said:
        return "traceback"
    if status < 0:
        return "killed"
    if status == 0 or said.startswith("would change"):
        return "done"
    wrong = any(line.startswith(("error[", "attnc: ")) for line in said.splitlines())
    return "refused" if wrong else "no diagnostic"


def _child(words: Sequence[str], printed: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    status = RAISED
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 1, SECONDS + 2))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = cli.main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def odd_files(seed: int, cases: int | None) -> Iterator[tuple[str, bytes]]:
    """A name that says how each file is made again, and the file."""
    number = 0
    while cases is None or number < cases:
        kind, data = odd_patterns.odd_file(f"{seed}/{number}")
        yield f"{seed}-{number}-{kind}", data
        number += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="these files, in place of odd ones")
    parser.add_argument("--cases", type=int, help="how many files (default: until the time is up)")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time, in all (default: 60)")
    parser.add_argument("--seed", type=int, help="the same seed, the same files (default: by the clock)")
    parser.add_argument("--save", type=Path, help="a folder for the files that something was wrong with")
    parser.add_argument(
        "--commands", default="check,compile,fmt", help=f"of {', '.join(COMMANDS)} (default: %(default)s)"
    )
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    given = ((path.stem, path.read_bytes()) for path in options.files)
    counts: Counter[str] = Counter()
    spent, cases, slowest, largest = 0.0, 0, 0.0, 0
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.attn"
        for name, data in given if options.files else odd_files(seed, options.cases):
            path.write_bytes(data)
            cases += 1
            for command in options.commands.split(","):
                found = run_command(command, path)
                counts[f"{command}: {found.word}"] += 1
                spent += found.seconds
                slowest, largest = max(slowest, found.seconds), max(largest, found.mib)
                if found.word in FAULTS:
                    print(
                        f"{name}: {command}: {found.word} ({found.seconds:.1f} s, {found.mib} MiB)",
                        flush=True,
                    )
                    print("\n".join(found.said.strip().splitlines()[-3:])[-600:], flush=True)
                    if options.save is not None:
                        options.save.mkdir(parents=True, exist_ok=True)
                        (options.save / f"{name}.attn").write_bytes(data)
            if spent > options.seconds and options.cases is None:
                break
    print(f"{cases} files, {spent:.0f} s in all, at most {slowest:.1f} s and {largest} MiB for a command")
    for what, times in sorted(counts.items()):
        print(f"{times:8}  {what}")
    return 1 if any(what.endswith(FAULTS) for what in counts) else 0


if __name__ == "__main__":
    sys.exit(main())

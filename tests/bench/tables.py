"""The tables of the README, made from the results and nothing else.

python tests/bench/tables.py          writes them into README.md, between its marks
python tests/bench/tables.py --print  prints them
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnc.bench.results import duration
from attnc.files import write_whole

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- results: (\S+) -->\n)(.*?)(<!-- end of results -->)", re.S)

# Variants and backends of one function share a column, in which the fastest stands.
COLUMNS = ("flex", "sdpa-mask", "sdpa-causal", "flash", "natten", "xformers")
NAMES = {"flex": "FlexAttention", "sdpa-mask": "SDPA, masked", "sdpa-causal": "SDPA, causal"}


def filled(readme: str) -> str:
    """The README's text with the tables of the results that its marks name."""

    def table(found: re.Match[str]) -> str:
        results = json.loads((ROOT / found[2]).read_text(encoding="utf-8"))
        return f"{found[1]}{markdown(results)}\n{found[4]}"

    return MARKED.sub(table, readme)


def markdown(results: Mapping[str, Any]) -> str:
    """A line about the machine, and a table for every direction and dtype."""
    cases = results["cases"]
    machine, versions = results["machine"], results["versions"]
    parts = [machine.get("gpu"), machine["processor"], f"{machine['cores']} cores"]
    if "threads" in machine:
        parts.append(f"{machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}")
    parts += [f"load {machine['load']}", f"torch {versions['torch']}"]
    text = [f"{', '.join(filter(None, parts))}; {_shape(cases[0])}.\n"]
    for direction in ("forward", "backward"):
        for dtype in dict.fromkeys(case["dtype"] for case in cases):
            chosen = [case for case in cases if case["dtype"] == dtype and direction in case["peers"][0]]
            if chosen:
                text += [*_table(chosen, direction, dtype), ""]
    return "\n".join(text)


def _shape(case: Mapping[str, Any]) -> str:
    return f"n {case['n']}, batch {case['batch']}, {case['heads']} heads, dim {case['dim']}"


def _table(cases: Sequence[Mapping[str, Any]], direction: str, dtype: str) -> Iterator[str]:
    there = {_column(peer["peer"]) for case in cases for peer in case["peers"]}
    columns = [name for name in COLUMNS if name in there]
    head = [f"{direction}, {dtype}", "edges", "attnc", "of ceiling"]
    head += [NAMES.get(name, name) for name in columns] + ["set-up: attnc", "flex"]
    yield _row(head)
    yield _row(["---", *["---:"] * (len(head) - 1)])
    for case in cases:
        ours = case["peers"][0][direction]
        pairs = case["batch"] * case["heads"] * case["n"] ** 2
        cells = [case["name"], f"{case['edges'] / pairs:.1%}", _time(ours)]
        cells.append(f"{ours['of_ceiling']:.0%}" if "seconds" in ours else "")
        for name in columns:
            phases = [p[direction] for p in case["peers"] if _column(p["peer"]) == name and direction in p]
            cells.append(_time(_fastest(phases)))
        cells += [_setup(case, "attnc", direction), _setup(case, "flex", direction)]
        yield _row(cells)


def _column(peer: str) -> str:
    return next((name for name in COLUMNS if peer == name or peer.startswith(f"{name}-")), peer)


def _fastest(phases: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    timed = [phase for phase in phases if "seconds" in phase]
    return min(timed, key=lambda phase: phase["seconds"], default=phases[0] if phases else {})


def _time(phase: Mapping[str, Any]) -> str:
    """A time, and how many times attnc's it is."""
    if "seconds" not in phase:
        return "cannot" if "cannot" in phase else ""
    ratio = phase["against_attnc"]
    return duration(phase["seconds"]) + ("" if ratio in (None, 1.0) else f" ({ratio:.2f}x)")


def _setup(case: Mapping[str, Any], name: str, direction: str) -> str:
    for peer in case["peers"]:
        if peer["peer"] == name and "setup_s" in peer.get(direction, ()):
            return duration(peer[direction]["setup_s"])
    return ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str]) -> int:
    text = README.read_text(encoding="utf-8")
    made = filled(text)
    if words == ["--print"]:
        print("\n".join(found[3] for found in MARKED.finditer(made)))
    elif words:
        print(__doc__, file=sys.stderr)
        return 2
    elif made != text:
        write_whole(README, made.encode())
        print(f"{README.name} has new tables")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

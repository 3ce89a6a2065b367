"""What becomes of results: JSON, which holds everything, and tables for people, made from that JSON alone."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnc.bench.clock import machine, median
from attnc.bench.run import Entry, Phase, Result

Json = dict[str, Any]

FORMAT = 1
MIB = 1 << 20


# --- JSON -----------------------------------------------------------------------------------------------


def document(cases: Sequence[Result | Json], command: str = "", date: str = "", version: str = "") -> Json:
    """Everything that is known of a run: the command, the machine, versions, and every sample.

    cases: what was measured, or cases of documents already.
    """
    import torch

    versions = {"attnc": version, "python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        import triton

        versions["triton"] = triton.__version__
    except ImportError:
        pass
    if torch.version.cuda is not None:
        versions["cuda"] = torch.version.cuda
    made = [case_of(item) if isinstance(item, Result) else item for item in cases]
    return {
        "format": FORMAT,
        "command": command,
        "date": date,
        "machine": machine(torch.device(made[0]["device"])) if made and made[0]["peers"] else {},
        "versions": versions,
        "cases": made,
    }


def case_of(result: Result) -> Json:
    """A case of a document."""
    case = result.case
    edges, counted = case.edges
    ours = result.entries[0]
    return {
        "pattern": case.pattern.name,
        "file": case.request.source.name,
        "params": dict(case.params),
        "inputs": dict(case.fills),
        "n": case.shape.n,
        "batch": case.shape.batch,
        "heads": case.shape.heads,
        "kv_heads": case.shape.kv_heads,
        "dim": case.shape.dim,
        "dtype": case.shape.dtype,
        "device": str(case.device),
        "seed": case.seed,
        "edges": edges,
        "edges_counted": counted,
        "rows_checked": result.rows_checked,
        "ceiling": {"flops": result.ceiling.flops, "bytes_per_s": result.ceiling.bytes},
        "peers": [_entry(result, entry, ours) for entry in result.entries],
    }


def _entry(result: Result, entry: Entry, ours: Entry) -> Json:
    found: Json = {"peer": entry.peer, "other_edges": entry.other_edges}
    for name in ("forward", "backward"):
        phase, own = getattr(entry, name), getattr(ours, name)
        if isinstance(phase, str):
            found[name] = {"cannot": phase}
        elif phase is not None:
            found[name] = _phase(result, phase, own, name == "backward")
    return found


def _phase(result: Result, phase: Phase, own: Phase | str | None, backward: bool) -> Json:
    case, seconds = result.case, median(phase.samples)
    flops = case.flops(backward)
    floor = result.ceiling.floor(flops, case.traffic(backward))
    return {
        "seconds": seconds,
        "samples": list(phase.samples),
        "setup_s": phase.setup,
        "peak_bytes": phase.memory,
        "flops": flops,
        "tflops": flops / seconds / 1e12,
        "of_ceiling": floor / seconds,
        "floor_s": floor,
        "over_floor": seconds / floor if floor else None,
        "against_attnc": seconds / median(own.samples) if isinstance(own, Phase) else None,
        "error": phase.error,
        "error_limit": phase.limit,
    }


# --- tables for the terminal ----------------------------------------------------------------------------

_HEAD = ("peer", "set-up", "time", "TFLOP/s", "of ceiling", "memory", "against attnc")


def table(case: Mapping[str, Any]) -> str:
    """One case of a document: what it was, and a table for each direction."""
    lines = [label(case), _facts(case)]
    for direction in ("forward", "backward"):
        listed = [peer for peer in case["peers"] if direction in peer]
        listed += _expectation(case, direction)
        if listed:
            lines += ["", *_rows((direction, *_HEAD[1:]), listed, direction)]
    if "expected" in case:
        lines += ["", *_about_expectation(case)]
    if any(peer["other_edges"] for peer in case["peers"]):
        lines += ["", "* computes all causal edges, which are not the pattern's"]
    return "\n".join(lines)


def _expectation(case: Mapping[str, Any], direction: str) -> list[Json]:
    """The model's row, as if it were a peer's."""
    if direction not in case.get("expected", {}):
        return []
    found = case["expected"][direction]
    own: Mapping[str, Any] = case["peers"][0].get(direction, {}) if case["peers"] else {}
    phase = {
        "setup_s": None,
        "seconds": found["seconds"],
        "tflops": found["tflops"],
        "of_ceiling": found["of_floor"],
        "peak_bytes": None,
        "against_attnc": found["seconds"] / own["seconds"] if "seconds" in own else None,
    }
    return [{"peer": f"expected on {case['expected']['gpu']}", "other_edges": False, direction: phase}]


def _about_expectation(case: Mapping[str, Any]) -> Iterator[str]:
    """What limits the expected times, and how they came about."""
    found = case["expected"]
    for direction in ("forward", "backward"):
        if direction in found:
            item = found[direction]
            least = "at least, as arithmetic is left out; " if item["at_least"] else ""
            count = f"{item['launches']} kernel{'s' * (item['launches'] != 1)}"
            yield f"{direction}: {least}limited by {item['limit']}; {count}"
    yield "expected: by a model of the kernels' machine code, not measured"


def label(case: Mapping[str, Any]) -> str:
    """A case in one line: what was measured, at which shape, where."""
    params = ", ".join(f"{name} = {value}" for name, value in case["params"].items())
    shape = f"n {case['n']}, batch {case['batch']}, {_heads(case)}, dim {case['dim']}"
    return f"{case['pattern']}({params}): {shape}, {case['dtype']}, {case['device']}"


def _heads(case: Mapping[str, Any]) -> str:
    few = "" if case["heads"] == case["kv_heads"] else f" and {case['kv_heads']} of keys"
    return f"{case['heads']} heads{few}"


def _facts(case: Mapping[str, Any]) -> str:
    whole = case["batch"] * case["heads"] * case["n"] ** 2
    about = "" if case["edges_counted"] else "about "
    filled = "".join(f"; {name} {fill}" for name, fill in case["inputs"].items())
    if "ceiling" not in case:
        return f"{about}{case['edges'] / whole:.2%} of all pairs{filled}; nothing was measured"
    ceiling = case["ceiling"]
    return (
        f"{about}{case['edges'] / whole:.2%} of all pairs{filled}; "
        f"checked on {case['rows_checked']} of {case['n']} rows; "
        f"ceiling {ceiling['flops'] / 1e12:.3g} TFLOP/s, {ceiling['bytes_per_s'] / 1e9:.3g} GB/s"
    )


def _rows(head: tuple[str, ...], peers: Sequence[Mapping[str, Any]], direction: str) -> Iterator[str]:
    cells = [head]
    for peer in peers:
        phase, star = peer[direction], "*" if peer["other_edges"] else ""
        name = peer["peer"] + star
        cells.append((name, f"cannot: {phase['cannot']}") if "cannot" in phase else (name, *_cells(phase)))
    widths = [max(len(row[i]) for row in cells if len(row) == len(head)) for i in range(len(head))]
    widths[0] = max(len(row[0]) for row in cells)
    for first, *rest in cells:
        if len(rest) == 1:
            yield f"{first:<{widths[0]}}  {rest[0]}"
        else:
            parts = (f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True))
            yield f"{first:<{widths[0]}}  {'  '.join(parts)}"


def _cells(phase: Mapping[str, Any]) -> tuple[str, ...]:
    ratio, memory = phase["against_attnc"], phase["peak_bytes"]
    return (
        "-" if phase["setup_s"] is None else duration(phase["setup_s"]),
        duration(phase["seconds"]),
        f"{phase['tflops']:.3g}" if phase["tflops"] else "-",
        f"{phase['of_ceiling']:.0%}",
        "-" if memory is None else f"{memory / MIB:.0f} MiB",
        "-" if ratio is None else f"{ratio:.2f}",
    )


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= unit or unit == 1e-6:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 100 else f"{value:.{1 if value >= 10 else 2}f} {name}"
    raise AssertionError(seconds)

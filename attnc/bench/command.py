"""The command's work: options to cases, cases to results, results to a table and files."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attnc.bench import plot
from attnc.bench.case import DTYPES, BadCase, Shape, make_case
from attnc.bench.clock import Ceiling, measure_ceiling
from attnc.bench.expected import expected, known_gpu
from attnc.bench.peers import Peer, default_names, select
from attnc.bench.results import Json, case_of, document, table
from attnc.bench.run import measure, steps
from attnc.files import Output, output
from attnc.fills import BadFill, known
from attnc.pattern import Pattern
from attnc.pipeline import settle_pattern
from attnc.progress import Bar
from attnc.request import Request


@dataclass(frozen=True)
class Plan:
    """Everything that is asked for. fills: how inputs are filled, by name; kv_heads None: as many as heads.

    device, dtypes, against None: what the machine offers. json, plot: paths, or None.
    predict: the GPU whose times a model is to tell; nothing is measured then, unless there is a GPU or a
        device was named. command, version: what was called, for the document.
    """

    requests: tuple[Request, ...]
    lengths: tuple[int, ...] = (8192,)
    heads: int = 8
    kv_heads: int | None = None
    dim: int = 64
    batch: int = 1
    dtypes: tuple[str, ...] | None = None
    device: str | None = None
    against: str | None = None
    repeats: int = 5
    backward: bool = True
    seed: int = 0
    fills: tuple[tuple[str, str], ...] = ()
    json: str | None = None
    plot: str | None = None
    predict: str | None = None
    command: str = ""
    version: str = ""


def bench(plan: Plan, print_table: bool = True) -> Json:
    """Measures every pattern at every length in every dtype; gives the document that ``--json`` writes.

    Whatever can be known to be wrong is said before anything is measured. Raises ``BadCase`` and
    ``NoMatplotlib`` for what cannot be done, ``Refused`` for files that must not be written, ``AttncError``
    for patterns that do not compile, and ``Wrong`` when a compiled function computes something else; then no
    file is written.
    """
    device = _device(plan.device)
    peers = _peers(plan, device)
    files = _outputs(plan, device)
    measured = _measures(plan, device)
    shapes = _shapes(plan, device)
    if plan.predict is not None:
        known_gpu(plan.predict)
    patterns = [(request, settle_pattern(request).pattern) for request in plan.requests]
    fills = _fills(plan.fills, [pattern for _, pattern in patterns])
    each = steps(len(peers), plan.repeats, plan.backward) if measured else 1
    bar = Bar(len(patterns) * len(shapes) * each, sys.stderr)
    ceilings: dict[str, Ceiling] = {}
    cases: list[Json] = []
    try:
        for (request, pattern), filled in zip(patterns, fills, strict=True):
            for shape in shapes:
                one: Json = {}
                if plan.predict is not None:
                    bar.show(f"{pattern.name}, n {shape.n}: what is expected on {plan.predict}")
                    one = expected(request, shape, plan.predict, filled, plan.backward)
                if measured:
                    case = make_case(request, pattern, shape, device, filled, plan.seed)
                    if shape.dtype not in ceilings:
                        bar.show(f"what the machine can do in {shape.dtype}")
                        ceilings[shape.dtype] = measure_ceiling(device, DTYPES[shape.dtype])
                    ceiling = ceilings[shape.dtype]
                    one |= case_of(measure(case, peers, plan.repeats, plan.backward, ceiling, bar))
                cases.append(one)
                if print_table:
                    bar.clear()
                    print(("\n\n" if len(cases) > 1 else "") + table(one), flush=True)
    finally:
        bar.clear()
    made = document(cases, plan.command, datetime.date.today().isoformat(), plan.version)
    if "json" in files:
        files["json"].write((json.dumps(made, indent=1) + "\n").encode())
    if "plot" in files:
        files["plot"].write(plot.draw(made, files["plot"].suffix))
    return made


def _measures(plan: Plan, device: torch.device) -> bool:
    return plan.predict is None or plan.device is not None or device.type == "cuda"


def _outputs(plan: Plan, device: torch.device) -> dict[str, Output]:
    """Files to write, looked at before anything is measured."""
    sources = tuple(request.source.name for request in plan.requests)
    found = {}
    if plan.json is not None:
        found["json"] = output(plan.json, ("json",), sources)
    if plan.plot is not None:
        if not _measures(plan, device):
            raise BadCase(
                "`--plot` draws what was measured, and nothing will be: leave out `--predict` or it"
            )
        plot.available()
        found["plot"] = output(plan.plot, plot.FORMATS, sources)
    if len({Path(file.target) for file in found.values()}) < len(found):
        raise BadCase("`--json` and `--plot` name the same file")
    return found


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise BadCase(f"there is no device called {name!r}: write cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise BadCase(f"nothing can be measured on {name!r}: write cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BadCase(f"torch sees {count or 'no'} GPU{'' if count == 1 else 's'} here, so not {name!r}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _peers(plan: Plan, device: torch.device) -> tuple[Peer, ...]:
    names = default_names(device) if plan.against is None else plan.against
    try:
        return () if names.strip() == "none" else select(names, device)
    except ValueError as error:
        raise BadCase(str(error)) from None


def _shapes(plan: Plan, device: torch.device) -> list[Shape]:
    kv_heads = plan.heads if plan.kv_heads is None else plan.kv_heads
    if plan.heads % kv_heads:
        raise BadCase(f"{plan.heads} query heads cannot share {kv_heads} key heads evenly")
    if plan.dim > 256:
        raise BadCase(f"head dimensions go up to 256, not {plan.dim}")
    wide = device.type == "cpu" and plan.predict is None
    dtypes = plan.dtypes or (("float32",) if wide else ("bfloat16",))
    if plan.predict is not None and "float32" in dtypes:
        raise BadCase("times are predicted in 16 bits: leave `--dtype` out, or take bfloat16 or float16")
    return [
        Shape(n, plan.heads, kv_heads, plan.dim, plan.batch, dtype) for n in plan.lengths for dtype in dtypes
    ]


def _fills(given: Sequence[tuple[str, str]], patterns: Sequence[Pattern]) -> list[Mapping[str, str]]:
    """The fills of every pattern: one that has no such input is not concerned, but some pattern must be."""
    try:
        known((name for name, _ in given), patterns)
    except BadFill as error:
        raise BadCase(str(error)) from None
    inputs = [{item.name for item in pattern.inputs} for pattern in patterns]
    return [{name: fill for name, fill in given if name in own} for own in inputs]

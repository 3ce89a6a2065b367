"""What a model expects of a pattern's kernels on a GPU: beside what was measured, or alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnc import prediction
from attnc.bench.case import BadCase, Shape
from attnc.fills import BadFill, chosen
from attnc.pipeline import Planned, run
from attnc.request import Request

Json = dict[str, Any]


def known_gpu(name: str) -> prediction.Gpu:
    """Raises ``BadCase`` for one that the model knows nothing of."""
    gpus = prediction.gpus()
    if name not in gpus:
        raise BadCase(f"no times can be predicted for {name!r}: choose among {', '.join(gpus)}")
    return gpus[name]


def expected(request: Request, shape: Shape, gpu: str, fills: Mapping[str, str], backward: bool) -> Json:
    """One case of a document without anything measured; ``expected`` in it is what the model says."""
    planned: Planned = run(request, "schedule")
    pattern = planned.pattern
    try:
        counted = prediction.Shape(shape.n, shape.heads, shape.kv_heads, shape.dim, shape.batch)
        work = prediction.count(planned, counted, fills)
        words = chosen(pattern, fills)
    except (prediction.Unpredictable, BadFill) as error:
        raise BadCase(str(error)) from None
    directions = work.on(known_gpu(gpu))
    found: Json = {"gpu": gpu}
    for name in ("forward", "backward") if backward else ("forward",):
        item = directions[name]
        found[name] = {
            "seconds": item.seconds,
            "floor_s": item.floor,
            "tflops": item.flops / item.seconds / 1e12,
            "of_floor": item.share,
            "launches": item.launches,
            "limit": item.limit,
            "at_least": item.least,
        }
    return {
        "pattern": pattern.name,
        "file": request.source.name,
        "params": {**{param.name: param.value for param in pattern.params}, **dict(pattern.float_params)},
        "inputs": dict(words),
        "n": shape.n,
        "batch": shape.batch,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "dim": shape.dim,
        "dtype": shape.dtype,
        "device": gpu,
        "edges": work.edges,
        "edges_counted": False,
        "peers": [],
        "expected": found,
    }

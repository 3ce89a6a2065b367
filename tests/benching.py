"""Cases and peers for the tests of `attnc bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from attnc.bench.case import Case, Shape, make_case
from attnc.bench.clock import Ceiling
from attnc.bench.peers import Peer
from attnc.bench.results import document
from attnc.bench.run import measure
from attnc.diagnostics import Source
from attnc.files import read_path
from attnc.pipeline import settle_pattern
from attnc.request import Request

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
CEILING = Ceiling(1e12, 1e11)
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.attn"))
SLIDING = "pattern sliding(window: int = 8) { attend window(window - 1) require causal }\n"
HUBS = "pattern hubs() { input hub: bool[n] attend window(3, 3) | to(hub) | from(hub) }\n"


class Silent:
    """A ticker that remembers what it was told."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.skipped = 0

    def step(self, label: str) -> None:
        self.labels.append(label)

    def skip(self, steps: int) -> None:
        self.skipped += steps


def make(text: str = SLIDING, n: int = 40, **more: Any) -> Case:
    fills = more.pop("fills", None)
    source = Source("given.attn", text) if "{" in text else read_path(ROOT / "examples" / f"{text}.attn")
    request = Request(source, more.pop("pattern", None), more.pop("params", {}))
    shape = Shape(n, **{"heads": 4, "kv_heads": 2, "dim": 16, **more})
    return make_case(request, settle_pattern(request).pattern, shape, CPU, fills)


def example(name: str, n: int, params: dict[str, int] | None = None, **more: Any) -> Case:
    pattern = name if (ROOT / "examples" / f"{name}.attn").exists() else None
    return make(name, n, params=params or {}, pattern=pattern, **more)


def results(case: Case, *rivals: Peer, backward: bool = True, rounds: int = 2) -> dict[str, Any]:
    return document([measure(case, rivals, rounds, backward, CEILING, Silent())])["cases"][0]


def rival(name: str, attend: Callable[..., torch.Tensor], refusal: str | None = None) -> Peer:
    return Peer(name, lambda case: attend, lambda case: refusal)


def failing(error: Exception) -> Callable[..., torch.Tensor]:
    def attend(*args: torch.Tensor) -> torch.Tensor:
        raise error

    return attend

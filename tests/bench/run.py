"""The benchmark of the project: seven patterns, beside FlexAttention and scaled_dot_product_attention.

    python tests/bench/run.py [--patterns causal,stride] [--dtypes float32] [--n 8192] [--json OUT.json]

Writes tests/bench/results/MACHINE.json, from which tests/bench/tables.py makes the tables of the README.
With a choice of patterns or dtypes the other results of that file stay, each with the command that made it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from attnc import __version__
from attnc.bench.command import Plan, bench
from attnc.bench.results import Json, label
from attnc.files import read_path, write_whole
from attnc.request import Request

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"


@dataclass(frozen=True)
class Entry:
    """One pattern: its example, parameters, and what its inputs hold."""

    example: str
    params: tuple[tuple[str, int], ...] = ()
    fills: tuple[tuple[str, str], ...] = ()

    def request(self) -> Request:
        source = read_path(EXAMPLES / f"{self.example}.attn")
        return Request(replace(source, name=f"examples/{self.example}.attn"), params=dict(self.params))


# Longformer's global tokens are the first ones, as for question answering: the best case for block masks.
PATTERNS = {
    "causal": Entry("causal"),
    "window": Entry("mistral", (("window", 256),)),
    "stride": Entry("strided", (("step", 64),)),
    "dilated": Entry("dilated", (("width", 128), ("dilation", 4))),
    "longformer": Entry("longformer", fills=(("is_global", "first:16"),)),
    "bigbird": Entry("bigbird"),
    "fixed": Entry("sparse_transformer_fixed", (("step", 128), ("summary", 8))),
}


def main(words: list[str]) -> int:
    options = _options(words)
    path = options.json or HERE / "results" / f"{_machine()}.json"
    made: Json = {}
    for name in options.patterns:
        entry = PATTERNS[name]
        plan = Plan(
            requests=(entry.request(),),
            lengths=(options.n,),
            heads=options.heads,
            kv_heads=options.kv_heads,
            dim=options.dim,
            dtypes=tuple(options.dtypes),
            against=options.against,
            repeats=options.repeats,
            backward=options.backward,
            fills=entry.fills,
            command=shlex.join(("python", "tests/bench/run.py", *words)),
            version=__version__,
        )
        one = bench(plan)
        print(flush=True)
        cases = [{"name": name, **case} for case in one["cases"]]
        made = {**one, "cases": [*made.get("cases", ()), *cases]}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(_joined(path, made), indent=1) + "\n").encode())
    print(f"written to {path}")
    return 0


def _joined(path: Path, made: Json) -> Json:
    """The new results, and those old ones that were not measured again, in the order of the patterns."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": []}
    cases = {
        label(case): {"command": results["command"], "date": results["date"], **case}
        for results in (old, made)
        for case in results["cases"]
    }
    order = list(PATTERNS)
    return {
        **made,
        "cases": sorted(cases.values(), key=lambda case: (order.index(case["name"]), label(case))),
    }


def _machine() -> str:
    """A name for this machine that says what matters: the GPU, or how many cores of what."""
    if torch.cuda.is_available():
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return f"cpu-{torch.get_num_threads()}-cores"


def _options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run.py", description="The benchmark of the project.")

    def chosen(known: tuple[str, ...]):  # type: ignore[no-untyped-def]
        def convert(text: str) -> list[str]:
            names = [name.strip() for name in text.split(",")]
            if unknown := [name for name in names if name not in known]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
            return names

        return convert

    gpu = torch.cuda.is_available()
    dtypes = ("float32", "bfloat16", "float16")
    everything = list(PATTERNS)
    parser.add_argument(
        "--patterns", type=chosen(tuple(PATTERNS)), default=everything, help=", ".join(everything)
    )
    parser.add_argument(
        "--dtypes", type=chosen(dtypes), default=["bfloat16"] if gpu else ["float32", "bfloat16"]
    )
    parser.add_argument("--n", type=int, default=32768 if gpu else 8192)
    parser.add_argument("--heads", type=int, default=16 if gpu else 8)
    parser.add_argument("--kv-heads", type=int, help="key heads (default: as many as query heads)")
    parser.add_argument("--dim", type=int, default=128 if gpu else 64)
    parser.add_argument("--against", default=None, help="peers, as in `attnc bench`")
    parser.add_argument("--repeats", type=int, default=5 if gpu else 3)
    parser.add_argument("--backward", action=argparse.BooleanOptionalAction, default=gpu)
    parser.add_argument("--json", type=Path, help="where results go")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

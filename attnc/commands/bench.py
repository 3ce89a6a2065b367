"""``attnc bench``: a pattern's function measured beside its peers."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from attnc.commands.options import (
    Misuse,
    add_fills,
    add_source,
    complain,
    fills_of,
    listed,
    params_of,
    request,
    seed,
    whole_number,
)
from attnc.diagnostics import AttncError

if TYPE_CHECKING:
    from attnc.commands.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser("bench", help="measure a pattern's function beside its peers")
    add_source(parser, many=True)
    numbers, words = listed(whole_number), listed(str)
    shape = (
        ("--n", "N", numbers, (8192,), "tokens, or several lengths: `1024,8192` (default: 8192)"),
        ("--heads", "N", whole_number, 8, "query heads (default: 8)"),
        ("--kv-heads", "N", whole_number, None, "key heads (default: as many as query heads)"),
        ("--dim", "N", whole_number, 64, "dimension of a head (default: 64)"),
        ("--batch", "N", whole_number, 1, "sequences (default: 1)"),
        ("--dtype", "NAME", words, None, "float32, bfloat16, float16 or several (default: float32 on a CPU)"),
        ("--device", "NAME", str, None, "cpu, cuda, cuda:1 (default: a GPU where there is one)"),
        ("--against", "PEER", str, None, "flex, sdpa, flash, natten, xformers, fla or several, or none"),
        ("--repeats", "N", whole_number, 5, "rounds of alternating runs (default: 5)"),
        ("--predict", "GPU", str, None, "what a model expects there: H100 or H200; measures on a GPU alone"),
        ("--seed", "N", seed, 0, "of the random tensors and inputs (default: 0)"),
        ("--json", "OUT.json", str, None, "write everything that was measured"),
        ("--plot", "OUT.png|svg", str, None, "draw it"),
    )
    for flag, metavar, kind, default, text in shape:
        parser.add_argument(flag, metavar=metavar, type=kind, default=default, help=text)
    parser.add_argument("--no-backward", action="store_true", help="measure the forward alone")
    add_fills(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    params, fills = params_of(options), fills_of(options)
    try:
        requests = [request(options, params, file) for file in options.files]
        from attnc.bench.case import DTYPES, BadCase
        from attnc.bench.command import Plan, bench
        from attnc.bench.plot import NoMatplotlib
        from attnc.bench.run import Wrong
        from attnc.files import Refused

        for name in options.dtype or ():
            if name not in DTYPES:
                raise Misuse(f"there is no dtype called {name!r}: choose among {', '.join(DTYPES)}")
        plan = Plan(
            requests=tuple(requests),
            lengths=options.n,
            heads=options.heads,
            kv_heads=options.kv_heads,
            dim=options.dim,
            batch=options.batch,
            dtypes=options.dtype,
            device=options.device,
            against=options.against,
            repeats=options.repeats,
            backward=not options.no_backward,
            seed=options.seed,
            fills=tuple(fills.items()),
            json=options.json,
            plot=options.plot,
            predict=options.predict,
            command=shlex.join(("attnc", *options.words)),
            version=options.version,
        )
        try:
            bench(plan)
        except (BadCase, NoMatplotlib, Refused) as error:
            raise Misuse(str(error)) from None
        except Wrong as wrong:
            print(f"attnc: the compiled function is {wrong}; this is a fault of attnc", file=sys.stderr)
            return 1
    except AttncError as error:
        complain(error.diagnostics)
        return 1
    return 0

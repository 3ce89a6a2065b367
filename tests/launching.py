"""Runs the kernels of examples and of random patterns under the checker of ``tests/checking.py``.

    TRITON_INTERPRET=1 python tests/launching.py [EXAMPLE …] [--random CASES] [--seed SEED] [--first CASE]

Without arguments all examples: forward and backward, all rows and few, whole and in shares. With ``--random``
so many cases of each kind that ``make fuzz`` draws. What is found is printed, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from attnc.diagnostics import AttncError
from attnc.pattern import Taylor
from tests import oracle
from tests.checking import Faults, checked
from tests.fuzz import calls, drawing, judging
from tests.strategies import Call

EXAMPLES = Path(__file__).parent.parent / "examples"
# What makes the sequences of ``LENGTH`` positions long beside windows, blocks and grids.
PARAMS: dict[str, dict[str, Any]] = {
    "axial": {"height": 9, "width": 8},
    "based": {"window": 16},
    "bigbird": {"block": 8, "picks": 2},
    "cosformer": {"length": 80},
    "dilated": {"width": 8},
    "etc": {"globals": 5, "radius": 6},
    "gemma2_local": {"window": 20},
    "gpt_oss": {"window": 20},
    "image_transformer_1d": {"block": 16, "before": 16},
    "image_transformer_2d": {"block": 4, "above": 2, "beside": 4, "width": 12},
    "llama4_chunked": {"size": 24},
    "lolcats": {"window": 16},
    "longformer": {"window": 8},
    "mistral": {"window": 20},
    "natten_1d": {"size": 7},
    "natten_2d": {"size": 3, "width": 8},
    "natten_3d": {"frames": 3, "rows": 3, "columns": 3, "height": 4, "width": 5},
    "overlapping_windows": {"size": 4, "overlap": 2, "width": 9},
    "performer": {"features": 20},
    "sparse_transformer_fixed": {"step": 16, "summary": 4},
    "sparse_transformer_strided": {"step": 8},
    "streaming_llm": {"sinks": 3, "window": 20},
    "strided": {"step": 6},
    "swin": {"size": 3, "height": 9, "width": 8},
    "swin_shifted": {"size": 3, "shift": 1, "height": 9, "width": 8},
}
LENGTH, FEW = 70, 5


def patterns() -> dict[str, str]:
    """All patterns of the examples with the text of their files, and what no example has."""
    texts = [file.read_text("utf-8") for file in sorted(EXAMPLES.glob("*.attn"))]
    named = {name: text for text in texts for name in re.findall(r"(?m)^pattern (\w+)", text)}
    return named | {"cosine": "pattern p() { attend causal kernel cosine(80) }"}


def compiled(name: str) -> oracle.Compiled:
    """A pattern, planned as if it were long."""
    own = "p" if name == "cosine" else name  # a word of the language names no pattern
    return oracle.compiled(patterns()[name], tuple(PARAMS.get(name, {}).items()), own, small=True)


def launched(done: oracle.Compiled, rows: int = LENGTH, shares: bool = False, heads: int = 2) -> Faults:
    """What is wrong with the loads and stores of a pattern's kernels, forward and backward.

    rows: how many of the last positions are queries. shares: whether tiles come in shares, if they can.
    """
    module, function = done.module, getattr(done.module, done.pattern.name)
    parts = [part for body in done.pattern.bodies for part in body.parts]
    wide = any(isinstance(part.weights.feature, Taylor) for part in parts)  # features are the dim's square
    call = Call(
        n=LENGTH,
        n_q=rows,
        batch=1,
        heads=heads,
        key_heads=1,
        dim=6 if wide else 20,
        value_dim=12,
        dtype="float32",
        layout="slice",
        scale=None,
        batched_inputs=False,
        seed=3,
    )
    args, (grad, _) = oracle.tensors(call)
    tables = {
        key: x.detach().requires_grad_(x.is_floating_point())
        for key, x in oracle.inputs(done.pattern, call).items()
    }
    wanted = [x for x in (*args, *tables.values()) if x.requires_grad]
    with ExitStack() as stack:
        faults = stack.enter_context(checked())
        if hasattr(module, "_tile_sizes"):
            stack.enter_context(oracle.tiles(module, 16, 16))
            stack.enter_context(oracle.shared(module, programs=4096 if shares else 0))
        stack.enter_context(oracle.poisoned())
        if rows == LENGTH and "return_state" in (function.__kwdefaults__ or {}):
            with torch.no_grad():
                _, state = function(*args, **tables, backend="triton", return_state=True)
            state.requires_grad_()
            out, last = function(*args, **tables, backend="triton", state=state, return_state=True)
            torch.autograd.grad((out, last), (*wanted, state), (grad, torch.ones_like(last)))
        else:
            out = function(*args, **tables, backend="triton")
            torch.autograd.grad(out, wanted, grad, allow_unused=True)
    return faults


def ways(done: oracle.Compiled) -> tuple[tuple[int, bool], ...]:
    """How many rows, and whether in shares: every way that a pattern's kernels can be launched."""
    both = (False, True) if hasattr(done.module, "_SHARE_STEPS") else (False,)
    return tuple((rows, shares) for shares in both for rows in (LENGTH, FEW))


def drawn(kind: str, seed: int, index: int) -> judging.Case:
    """A random pattern and a call of it; ``kind`` as of ``make fuzz``."""
    rng = random.Random(f"{kind} {seed} {index}")
    heads, key_heads = rng.choice([group for group in calls.GROUPS if group[0] <= 4])
    text = drawing.pattern(rng, kind, heads)
    shape = calls.shape(rng, text, heads, key_heads, triton=True)
    return judging.Case(kind, text, (shape,), rng.random() < 0.35)


def at_random(case: judging.Case) -> tuple[Faults, str]:
    """What is wrong with the loads and stores of a random case, and why it didn't run, if it did not."""
    [shape] = case.shapes
    args, pull = calls.tensors(case.text, shape)
    inputs = calls.inputs(case.text, shape)
    with ExitStack() as stack:
        faults = stack.enter_context(checked())
        try:
            module = judging.compiled(case.text, case.weighed_small)
            if shape.small:
                size = judging.SMALL[shape.seed % len(judging.SMALL)]
                stack.enter_context(oracle.tiles(module, *size))
            judging.ours(case.text, module, args, inputs, pull, shape, "triton")
        except (AttncError, TypeError, ValueError) as error:
            return faults, f"refused: {error}"
    return faults, ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs kernels under the checker of loads and stores.")
    parser.add_argument("examples", nargs="*")
    parser.add_argument("--random", type=int, default=0, metavar="CASES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="CASE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    for name in given.examples or (() if given.random else patterns()):
        done = compiled(name)
        for rows, shares in ways(done):
            before = time.process_time()
            faults = launched(done, rows, shares)
            wrong += len(faults)
            what = f"{name}, {rows} rows{', in shares' * shares}"
            said = f"{faults.kernels.total()} launches, {time.process_time() - before:.1f} s"
            print("\n    ".join((f"{what}: {said}, {len(faults)} faults", *faults)), flush=True)
    for index in range(given.first, given.first + given.random):
        for kind in ("relations", "weights", "linear"):
            before, case = time.process_time(), drawn(kind, given.seed, index)
            faults, refused = at_random(case)
            wrong += len(faults)
            said = refused.split("\n")[0] or f"{faults.kernels.total()} launches"
            print(
                f"{kind} {index}: {said}, {time.process_time() - before:.1f} s, {len(faults)} faults",
                flush=True,
            )
            if faults:
                print("\n    ".join((case.text, str(case.shapes[0]), *faults)), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Train a small byte-level language model on the source of Python's standard library: once with Mistral's
sliding window, compiled from ``mistral.attn``, and once with dense causal attention.

Both models start from the same weights, take the same number of steps and see the same bytes in the same
order; only their attention differs. Each is trained in a process of its own, so that its peak memory is its
own.

    python examples/train_bytes.py [--steps 48] [--length 8192] [--window 256]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import sys
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attnc
from attnc.cli import main as command

PATTERN = Path(__file__).parent / "mistral.attn"
MODULE, PICTURE = Path("build/demo/mistral.py"), Path("build/demo/mistral.svg")

WIDTH, HEADS, LAYERS, TOKENS_PER_STEP = 128, 4, 2, 8192
HELD_OUT_TOKENS = 1 << 16
MATRIX_RATE, OTHER_RATE = 0.03, 0.004
# Muon works in bf16, which many CPUs multiply slowly: with its default of five iterations it would take more
# time than the rest of a step.
MUON_ITERATIONS = 2

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One training run: which attention, for how many steps, over sequences of which length."""

    attention: str
    steps: int
    length: int
    window: int


@dataclass(frozen=True)
class Result:
    bits: float
    step_seconds: float
    start_bytes: int
    peak_bytes: int


# --- data -----------------------------------------------------------------------------------------------


def corpus() -> tuple[Tensor, Tensor]:
    """The standard library's sources as bytes: those to train on, and every sixteenth file, held out."""
    library = Path(sysconfig.get_path("stdlib"))
    foreign = {"site-packages", "dist-packages"}
    paths = sorted(path for path in library.rglob("*.py") if foreign.isdisjoint(path.parts))
    if len(paths) < 32:
        raise SystemExit(
            f"error: the demo trains on Python's own sources, but finds {len(paths)} of them in {library}; "
            "use a Python that came with its standard library as files"
        )
    held = paths[::16]
    return _joined([path for path in paths if path not in set(held)]), _joined(held)


def _joined(paths: list[Path]) -> Tensor:
    text = b"\0".join(path.read_bytes() for path in paths)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def sequences(data: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Bytes and their successors, both (len(starts), length)."""
    rows = torch.stack([data[start : start + length + 1] for start in starts.tolist()]).long()
    return rows[:, :-1], rows[:, 1:]


# --- model ----------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention
        self.norm1 = nn.RMSNorm(WIDTH)
        self.qkv = nn.Linear(2 * WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.RMSNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        # Every token sees its predecessor too. That takes the place of a position table: a head can look for
        # what came after the bytes at hand the last time.
        y = torch.cat((y, F.pad(y, (0, 0, 1, -1))), dim=-1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(y).chunk(3, dim=-1))
        x = x + self.out(self.attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))).square())


class Model(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.layers = nn.ModuleList(Layer(attention) for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 256, bias=False)
        nn.init.zeros_(self.head.weight)

    def bits(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of predicting ``targets`` from ``inputs``, both (batch, length), in bits per byte."""
        x = self.embedding(inputs)
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / math.log(2)


def optimizers(model: Model) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, Adam for everything else."""
    matrices = [p for p in model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.0, ns_steps=MUON_ITERATIONS),
        torch.optim.Adam(others, lr=OTHER_RATE, betas=(0.9, 0.95)),
    ]


# --- training -------------------------------------------------------------------------------------------


def attention_named(task: Task) -> Attention:
    if task.attention == "dense":
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    compiled: Attention = attnc.load(PATTERN, window=task.window)
    return compiled


def train(task: Task) -> Result:
    """Train one model and judge it on the held-out files."""
    torch.manual_seed(0)
    chooser = torch.Generator().manual_seed(0)
    data, held = corpus()
    batch = max(TOKENS_PER_STEP // task.length, 1)
    model = Model(attention_named(task))
    parts = optimizers(model)
    warm, cool = min(10, task.steps), max(task.steps // 2, 1)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(part, lambda i: min((i + 1) / warm, (task.steps - i) / cool, 1.0))
        for part in parts
    ]
    start_bytes = peak_memory()
    times = []
    for step in range(task.steps):
        starts = torch.randint(len(data) - task.length, (batch,), generator=chooser)
        begin = time.perf_counter()
        loss = model.bits(*sequences(data, starts, task.length))
        model.zero_grad()
        loss.backward()
        for part, schedule in zip(parts, schedules, strict=True):
            part.step()
            schedule.step()
        times.append(time.perf_counter() - begin)
        progress(task, step + 1, loss.item())
    peak_bytes = peak_memory()
    times.sort()
    return Result(judge(model, held, task.length, batch), times[len(times) // 2], start_bytes, peak_bytes)


@torch.no_grad()
def judge(model: Model, held: Tensor, length: int, batch: int) -> float:
    """Mean bits per byte over sequences spread evenly over the held-out bytes."""
    count = max(HELD_OUT_TOKENS // length, 1)
    starts = torch.linspace(0, len(held) - length - 1, count).long()
    losses = [model.bits(*sequences(held, some, length)) * len(some) for some in starts.split(batch)]
    return torch.stack(losses).sum().item() / count


def peak_memory() -> int:
    """The most bytes of memory that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, this starts anew with the program and does not carry the parent's peak over.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def progress(task: Task, step: int, bits: float) -> None:
    """On a terminal one bar that moves; elsewhere a line now and then."""
    bar = "#" * (30 * step // task.steps)
    text = f"{task.attention:>8} [{bar:30}] {step:4}/{task.steps}  {bits:.2f} bits per byte"
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if step == task.steps else "", file=sys.stderr, flush=True)
    elif step % 25 == 0 or step == task.steps:
        print(text, file=sys.stderr, flush=True)


def trained_alone(task: Task) -> Result:
    """``train`` in a fresh process."""
    # Threads that sleep while they wait lose little on an idle machine, and save the run on a busy one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(train, task).result()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a byte-level language model with a compiled pattern.")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--length", type=int, default=8192, help="bytes a sequence")
    parser.add_argument("--window", type=int, default=256, help="keys that a query may read")
    options = parser.parse_args()
    for name in ("steps", "length", "window"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")

    print(f"what is proven of {PATTERN.name}, for every length:\n")
    print(attnc.check(PATTERN, window=options.window))
    MODULE.parent.mkdir(parents=True, exist_ok=True)
    MODULE.write_text(attnc.compile(PATTERN, window=options.window), encoding="utf-8")
    values = ["-p", f"window={options.window}", "--n", str(options.length)]
    if status := command(["graph", str(PATTERN), *values, "-o", str(PICTURE)]):
        raise SystemExit(status)
    print(
        f"\nits picture:                    {PICTURE}\nthe compiled module, to read:   {MODULE}\n", flush=True
    )

    tasks = [Task(name, options.steps, options.length, options.window) for name in ("mistral", "dense")]
    results = [trained_alone(task) for task in tasks]

    tokens = max(TOKENS_PER_STEP // options.length, 1) * options.length
    print(f"\nboth after {options.steps} steps of {tokens} bytes, in sequences of {options.length}:")
    for task, result in zip(tasks, results, strict=True):
        peak, start = result.peak_bytes / 2**20, result.start_bytes / 2**20
        print(
            f"{task.attention:>8}  held-out: {result.bits:.2f} bits per byte, "
            f"{result.step_seconds * 1e3:.0f} ms a step, "
            f"peak memory {peak:.0f} MiB ({peak - start:.0f} MiB of it for training)"
        )
    ratio = results[1].step_seconds / results[0].step_seconds
    print(f"a step of dense attention takes {ratio:.1f} times as long as one of the compiled pattern")


if __name__ == "__main__":
    main()

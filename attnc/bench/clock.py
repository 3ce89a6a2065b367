"""Time and memory: medians of alternating runs, peaks, and what the machine can do at best."""

from __future__ import annotations

import ctypes
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# A sample is repeated until it has lasted this long: shorter ones measure the clock.
SHORTEST_SAMPLE = 0.01
MOST_REPEATS = 100
# A product of matrices that lasts longer need not be larger.
LONG = 0.05
# On a GPU a shorter job is timed as a CUDA graph, because launching it takes about as long.
SHORT = 2e-3

Run = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """Something to time: ``prepare`` runs before every ``run``, which gets its result, and is not counted."""

    run: Callable[[object], object]
    prepare: Run | None = None

    def prepared(self) -> object:
        return None if self.prepare is None else self.prepare()


def synchronize(device: torch.device) -> None:
    """Waits for the device, so that the host's clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def once(job: Job, device: torch.device) -> float:
    """Seconds of one run, by the host's clock."""
    prepared = job.prepared()
    synchronize(device)
    start = time.perf_counter()
    job.run(prepared)
    synchronize(device)
    return time.perf_counter() - start


def alternate(
    jobs: Mapping[str, Job],
    rounds: int,
    device: torch.device,
    tick: Callable[[str], None] = lambda name: None,
    warm: Mapping[str, float | None] | None = None,
    sample: Callable[[Job, torch.device, int], float] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Seconds of ``rounds`` samples of every job, taken in turns, every round begun by another.

    What disturbs the machine for a while disturbs all of them alike. tick: told before each sample.
    warm: about how long a job took that has just run; the others run once beforehand. sample: how one is
    taken, given how often to repeat it.
    """
    take, known = sample or _sample, warm or {}
    seconds = {name: known.get(name) or once(job, device) for name, job in jobs.items()}
    repeats = {name: _repeats(time) for name, time in seconds.items()}
    if device.type == "cuda":
        jobs = {name: replayed(job) if seconds[name] < SHORT else job for name, job in jobs.items()}
    found: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for turn in range(rounds):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            tick(name)
            found[name].append(take(jobs[name], device, repeats[name]))
    return {name: tuple(times) for name, times in found.items()}


def _repeats(seconds: float) -> int:
    return max(1, min(MOST_REPEATS, round(SHORTEST_SAMPLE / max(seconds, 1e-6))))


def _sample(job: Job, device: torch.device, repeats: int) -> float:
    if device.type == "cuda":
        return _sample_cuda(job, device, repeats)
    return sum(once(job, device) for _ in range(repeats)) / repeats


def _sample_cuda(job: Job, device: torch.device, repeats: int) -> float:
    """The GPU's own time: launches are queued behind one another, and its cache is emptied before each."""
    flush = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    events = []
    for _ in range(repeats):
        prepared = job.prepared()
        flush.zero_()
        pair = _event(), _event()
        pair[0].record()
        job.run(prepared)
        pair[1].record()
        events.append(pair)
    synchronize(device)
    return float(sum(start.elapsed_time(end) for start, end in events)) / 1e3 / repeats


def replayed(job: Job) -> Job:
    """The same as CUDA graphs, whose kernels follow one another at once; the job itself if it cannot be one.

    A short kernel that Python launches waits for Python, within what events measure.
    """
    graph = torch.cuda.CUDAGraph
    try:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # whatever is compiled, drawn or allocated once
                job.run(job.prepared())
        torch.cuda.current_stream().wait_stream(stream)
        before, counted = graph(), graph()
        if job.prepare is None:
            with torch.cuda.graph(counted):
                job.run(None)
            return Job(lambda _: counted.replay())
        with torch.cuda.graph(before):
            made = job.prepare()
        with torch.cuda.graph(counted, pool=before.pool()):
            job.run(made)
    except RuntimeError:
        torch.cuda.synchronize()
        return job
    # What was made is held: its memory is what the second graph reads.
    return Job(lambda _, made=made: counted.replay(), before.replay)  # type: ignore[misc]


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


# --- memory ---------------------------------------------------------------------------------------------


@dataclass
class Peak:
    """Bytes at the peak beyond what was held before; None where the system does not tell."""

    bytes: int | None = field(default=None)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measures the block: memory allocated on a GPU, or resident memory of the process on a CPU."""
    peak = Peak()
    if device.type == "cuda":
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    # What was freed may still be held by the allocator, and would be used again unseen.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before_kib = _reset_peak()
    yield peak
    if before_kib is not None and (after := _status("VmHWM")) is not None:
        peak.bytes = max(0, after - before_kib) * 1024


def _reset_peak() -> int | None:
    """Sets the kernel's mark of the largest resident size back; the size now in KiB, or None."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmHWM")


def _status(name: str) -> int | None:
    with suppress(OSError):
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        if found := re.search(rf"^{name}:\s*(\d+) kB", text, re.M):
            return int(found[1])
    return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
        if found := re.search(r"^MemAvailable:\s*(\d+) kB", text, re.M):
            return int(found[1]) * 1024
    return None


# --- the machine ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ceiling:
    """The best that was measured: FLOP/s of a large matrix product, bytes a second of a large copy."""

    flops: float
    bytes: float

    def floor(self, flops: int, traffic: int) -> float:
        """Seconds below which nothing can be done that takes so many operations and bytes."""
        return max(flops / self.flops, traffic / self.bytes)


def measure_ceiling(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> Ceiling:
    """The ceiling of this machine for a dtype, now, with this number of threads."""
    length = 1 << (30 if device.type == "cuda" else 28)
    size, product = _product(device, dtype)
    source = torch.ones(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy(_: object) -> None:
        target.copy_(source)

    times = alternate({"product": product, "copy": Job(copy)}, rounds, device)
    return Ceiling(2 * size**3 / min(times["product"]), 2 * length / min(times["copy"]))


def _product(device: torch.device, dtype: torch.dtype) -> tuple[int, Job]:
    """A product of two square matrices that are large enough to be timed, and their size."""
    size = 8192 if device.type == "cuda" else 256
    job = _square(size, device, dtype)
    # Some processors multiply in fp16 a thousand times slower than in fp32.
    while size < 2048 and once(job, device) <= LONG:
        size *= 2
        job = _square(size, device, dtype)
    return size, job


def _square(size: int, device: torch.device, dtype: torch.dtype) -> Job:
    a, b, out = (torch.randn((size, size), device=device).to(dtype) for _ in range(3))
    return Job(lambda _: torch.mm(a, b, out=out))


def machine(device: torch.device) -> dict[str, str | int | float]:
    """The machine in words: processor, cores, threads, GPU; how many processes ran in the last minute."""
    found: dict[str, str | int | float] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu memory GiB": round(properties.total_memory / 2**30)}
    else:
        found["threads"] = torch.get_num_threads()
    return found


def _processor() -> str:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.M):
            return found[1].strip()
    return os.uname().machine


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)

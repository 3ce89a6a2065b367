"""One case through all of its peers: checked first, then timed in turns."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol
from unittest.mock import patch

import torch
from sympy.core.cache import clear_cache

from attnc import expression
from attnc.bench.case import Case
from attnc.bench.clock import Ceiling, Job, alternate, peak_memory, synchronize
from attnc.bench.peers import OURS, Attend, Peer, ours
from attnc.bench.truth import Truth, reference_rows, truth
from attnc.diagnostics import AttncError

# A reason stands in a table.
LONGEST_REASON = 90


class Wrong(RuntimeError):
    """A function that computes something else; its text says how far off it is."""


@dataclass(frozen=True)
class Phase:
    """One direction of one peer. setup: seconds to the first result, compilers included. samples: seconds.

    memory: bytes at the peak beyond inputs and what was built before; of the backward, with its forward.
    error, limit: the largest error against the truth, and how large it might have been.
    """

    setup: float
    memory: int | None
    error: float
    limit: float
    samples: tuple[float, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A peer's outcome; in the place of a phase why there is none, or None where it was not asked for.

    other_edges: it computed all causal edges, which are not the pattern's.
    """

    peer: str
    forward: Phase | str
    backward: Phase | str | None
    other_edges: bool = False


@dataclass(frozen=True)
class Result:
    case: Case
    ceiling: Ceiling
    rows_checked: int
    entries: tuple[Entry, ...]


class Ticker(Protocol):
    """Told about every step before it begins, and about steps that will not come."""

    def step(self, label: str) -> None: ...
    def skip(self, steps: int) -> None: ...


def steps(peers: int, rounds: int, backward: bool) -> int:
    """How many steps ``measure`` tells a ticker of, at most."""
    phases = 2 if backward else 1
    return 1 + (peers + 1) * phases * (1 + rounds)


def measure(
    case: Case, peers: Sequence[Peer], rounds: int, backward: bool, ceiling: Ceiling, ticker: Ticker
) -> Result:
    """Checks and times attnc and its peers on one case.

    Raises ``Wrong`` when attnc's own result is: then no clock has started. What a peer cannot do, or does
    wrong, stands in its entry.
    """
    everyone = (ours, *peers)
    label = f"{case.pattern.name}, {case.shape.dtype}, n {case.shape.n}"
    ticker.step(f"{label}: dense attention")
    right = truth(case, backward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _forget_compiled()
        live = [_Subject(case, peer) for peer in everyone]
        yardstick = _Yardstick(case, backward)
        for peer in everyone:
            peer.once(case.device)
        for direction in ("forward", "backward") if backward else ("forward",):
            for subject in live:
                ticker.step(f"{label}: {subject.peer.name}, first {direction}")
                if direction == "backward":
                    subject.begin_backward()
                elif subject.peer.causal_only:
                    subject.begin(yardstick.causal, backward)
                else:
                    subject.begin(lambda: right, backward)
                if not subject.able(
                    direction
                ):  # torch's compiler was made to forget, which nobody is to pay for
                    for other in live:
                        other.warm = None
            jobs = {s.peer.name: s.job(direction) for s in live if s.able(direction)}
            ticker.skip(rounds * (len(live) - len(jobs)))
            tell = partial(_tell, ticker, f"{label}: {direction} of")
            warm = {s.peer.name: s.warm for s in live}
            times = alternate(jobs, rounds, case.device, tell, warm)
            for subject in live:
                subject.note(direction, times.get(subject.peer.name))
        entries = tuple(subject.entry(yardstick) for subject in live)
    return Result(case, ceiling, len(right.rows), entries)


@dataclass
class _Subject:
    """A peer while it is measured."""

    case: Case
    peer: Peer
    attend: Attend | None = None
    truth: Truth | None = None
    forward: Phase | str = ""
    backward: Phase | str | None = None
    warm: float | None = None
    times: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def begin(self, right: Callable[[], Truth], backward: bool) -> None:
        """Set-up, first result, its check, its memory."""
        case = self.case
        if reason := self.peer.refuses(case):
            self.forward, self.backward = reason, reason if backward else None
            return
        self.truth = right()
        try:
            with torch.no_grad(), _fresh_caches():
                start = time.perf_counter()
                attend = self.peer.prepare(case)
                out = attend(case.q, case.k, case.v)
                synchronize(case.device)
                setup = time.perf_counter() - start
                error, limit = _checked(*self.truth.judge(out))
                del out
                with peak_memory(case.device) as peak:
                    again = time.perf_counter()
                    attend(case.q, case.k, case.v)
                    synchronize(case.device)
                    self.warm = time.perf_counter() - again
            self.attend, self.forward = attend, Phase(setup, peak.bytes, error, limit)
        except Exception as error_:
            self.forward = self._failed(error_)
            self.backward = self.forward if backward else None

    def begin_backward(self) -> None:
        """The same for the backward, by the gradients for some rows."""
        if self.attend is None or self.truth is None:
            return
        case = self.case
        try:
            with _fresh_caches():
                start = time.perf_counter()
                found = _gradients(self._with_graph(), self.truth.grad)
                synchronize(case.device)
                setup = time.perf_counter() - start
                error, limit = _checked(*self.truth.judge_gradients(found))
                del found
                with peak_memory(case.device) as peak:
                    again = time.perf_counter()
                    _gradients(self._with_graph(), case.grad)
                    synchronize(case.device)
                    self.warm = time.perf_counter() - again
            self.backward = Phase(setup, peak.bytes, error, limit)
        except Exception as error_:
            self.backward = self._failed(error_)

    def able(self, direction: str) -> bool:
        return isinstance(self.forward if direction == "forward" else self.backward, Phase)

    def job(self, direction: str) -> Job:
        case, attend = self.case, self.attend
        assert attend is not None

        def forward(_: object) -> None:
            with torch.no_grad():
                attend(case.q, case.k, case.v)

        if direction == "forward":
            return Job(forward)
        return Job(lambda made: _gradients(made, case.grad), self._with_graph)

    def note(self, direction: str, times: tuple[float, ...] | None) -> None:
        if times is not None:
            self.times[direction] = times

    def entry(self, yardstick: _Yardstick) -> Entry:
        def timed(phase: Phase | str | None, direction: str) -> Any:
            if not isinstance(phase, Phase):
                return phase
            return replace(phase, samples=self.times[direction])

        other = self.peer.causal_only and isinstance(self.forward, Phase) and not yardstick.same
        return Entry(self.peer.name, timed(self.forward, "forward"), timed(self.backward, "backward"), other)

    def _with_graph(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        assert self.attend is not None
        case = self.case
        leaves = tuple(x.detach().requires_grad_() for x in (case.q, case.k, case.v))
        return self.attend(*leaves), leaves

    def _failed(self, error: Exception) -> str:
        if isinstance(error, AttncError) or (isinstance(error, Wrong) and self.peer.name == OURS):
            raise error
        gc.collect()
        # Where compiling failed once, torch may run the function uncompiled the next time, and say nothing.
        _reset_compiler()
        if self.case.device.type == "cuda":
            torch.cuda.empty_cache()
        return reason_of(error)


class _Yardstick:
    """Plain causal attention, computed when a peer needs it: many cases have none."""

    def __init__(self, case: Case, backward: bool) -> None:
        self.case, self.backward = case, backward
        self._truth: Truth | None = None

    def causal(self) -> Truth:
        if self._truth is None:
            self._truth = truth(self.case, self.backward, causal=True)
        return self._truth

    @property
    def same(self) -> bool:
        """Whether the pattern itself is causal attention, on the rows that are compared."""
        if self.case.weighed:
            return False
        rows = self.causal().rows.cpu()
        everything = torch.arange(self.case.shape.n) <= rows[:, None]
        return bool((reference_rows(self.case, rows) == everything).all())


def _checked(error: float, limit: float) -> tuple[float, float]:
    if not error <= limit:  # not a number is wrong, too
        raise Wrong(f"wrong: off by {error:.1e}, where {limit:.1e} is allowed")
    return error, limit


def _tell(ticker: Ticker, before: str, name: str) -> None:
    ticker.step(f"{before} {name}")


def _gradients(made: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out, leaves = made
    found: tuple[torch.Tensor, ...] = torch.autograd.grad(out, leaves, grad)
    return found


def reason_of(error: BaseException) -> str:
    """Why something could not be done, in one short line."""
    # Torch's compiler wraps what went wrong in what that means for the compiler.
    while type(error).__module__.startswith("torch._") and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__ or error
    text = re.sub(r"^raised exception \w+\((['\"])(.*)\1\)$", r"\2", str(error), flags=re.S)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
        return "out of memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    if len(first) > LONGEST_REASON:
        first = first.partition(". ")[0]
    return first if len(first) <= LONGEST_REASON else first[: LONGEST_REASON - 1] + "…"


@contextmanager
def _fresh_caches() -> Iterator[None]:
    """What compilers kept on disk and in memory is out of sight: set-up is what it is for the first time."""
    from torch._inductor.utils import clear_caches

    clear_caches()
    with tempfile.TemporaryDirectory(prefix="attnc-bench-", ignore_cleanup_errors=True) as folder:
        caches = {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": os.path.join(folder, "triton")}
        with patch.dict(os.environ, caches):
            yield


def _reset_compiler() -> None:
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def _forget_compiled() -> None:
    """No case may profit from an earlier one, nor count towards its limit of recompilations."""
    _reset_compiler()
    for remembering in vars(expression).values():
        if hasattr(remembering, "cache_clear"):
            remembering.cache_clear()
    clear_cache()

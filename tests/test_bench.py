"""``attnc bench``: what is measured, that it is checked before, and the clock."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnc import reference
from attnc.bench import case as cases
from attnc.bench import clock, peers, run
from attnc.bench.case import BadCase
from attnc.bench.clock import Job, alternate, peak_memory
from attnc.bench.formula import masks_of
from attnc.bench.results import duration
from attnc.bench.run import Wrong, measure
from attnc.bench.truth import SOME_ROWS, truth
from attnc.cli import main
from attnc.progress import Bar
from tests.benching import (
    CEILING,
    CPU,
    EXAMPLES,
    HUBS,
    SLIDING,
    Silent,
    example,
    make,
)

# --- what is measured -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_mask_function_is_the_pattern(name: str) -> None:
    case = example(name, 150, {"globals": 9} if name == "etc" else None)
    arrays = {key: value.numpy() for key, value in case.inputs.items()}
    wanted = reference.mask(case.pattern, 150, 4, arrays)
    rows = torch.arange(150)
    parts = [part for _, part in masks_of(case.mask(), rows, 150, case.mask_heads)]
    assert (torch.cat(parts, 1).expand(4, -1, -1).numpy() == wanted).all()
    assert case.edges == (int(wanted.sum()), True)


def test_mask_function_of_constants_and_lookups() -> None:
    for text in (
        "pattern p() { attend all }",
        "pattern p() { heads even { attend none } heads odd { attend self } }",
        "pattern p() { input x: int[n] attend where x[q] % 3 == min(k, 2) and k <= max(q, 7) }",
    ):
        case = make(text, 33)
        arrays = {key: value.numpy() for key, value in case.inputs.items()}
        h, q, k = (torch.arange(size) for size in (4, 33, 33))
        found = case.mask()(torch.tensor(0), h[:, None, None], q[:, None], k)
        assert (found.expand(4, 33, 33).numpy() == reference.mask(case.pattern, 33, 4, arrays)).all()


def test_every_mask_function_has_code_of_its_own() -> None:
    """FlexAttention is compiled anew for each: one peer's set-up must not be another's."""
    case = make()
    first, second = case.mask(), case.mask()
    assert first.__code__ is not second.__code__


def test_edges_beyond_the_limit_are_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, whole = make("strided", 5000, params={"step": 64}, heads=1, kv_heads=1).edges
    assert whole
    monkeypatch.setitem(cases.MOST_COUNTED, "cpu", 1)
    guess, whole = make("strided", 5000, params={"step": 64}, heads=1, kv_heads=1).edges
    assert not whole and abs(guess / exact - 1) < 0.01


def test_fills() -> None:
    case = make("packed_documents", 100, fills={"document": "runs:4"})
    document_ = case.inputs["document"]
    assert len(document_.unique()) == 4 and (document_.diff() >= 0).all()
    for fill, count in (
        ("first:5", 5),
        ("every:30", 4),
        ("random:1.0", 100),
        ("random:0", 0),
        ("spread:7", 7),
    ):
        assert int(make(HUBS, 100, fills={"hub": fill}).inputs["hub"].sum()) == count
    assert make(HUBS, 10_000).inputs["hub"].nonzero().flatten().tolist() == [0, 2000, 4000, 6000, 8000]


@pytest.mark.parametrize(
    "fill", ["first", "first:-1", "every:0", "random:2", "random:x", "runs:3", "normal", ""]
)
def test_fills_that_are_none(fill: str) -> None:
    with pytest.raises(BadCase, match="write spread:COUNT, first:COUNT, every:STEP or random:SHARE"):
        make(HUBS, fills={"hub": fill})


def test_rows_of_the_reference() -> None:
    case = make("bigbird", 300)
    rows = np.array([0, 7, 299, 64])
    wanted = reference.mask(case.pattern, 300, 4)[:, rows]
    assert (reference.rows(case.pattern, rows, 300, 4) == wanted).all()
    with pytest.raises(ValueError, match=r"query positions lie in 0 \.\. 299, not in 0 \.\. 300"):
        reference.rows(case.pattern, np.array([0, 300]), 300, 4)


@pytest.mark.parametrize("name", ["causal", "bigbird", "longformer"])
def test_own_block_mask_is_flex_attentions(name: str) -> None:
    case = example(name, 700, fills={"is_global": "first:3"} if name == "longformer" else None)
    ours, theirs = peers._own_block_mask(case, case.mask()), peers._made_block_mask(case, case.mask())
    assert ours.shape == theirs.shape
    for part in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert (getattr(ours, part) == getattr(theirs, part)).all(), part
    assert (ours.to_dense() == theirs.to_dense()).all()


def test_large_block_masks_are_made_by_a_compiled_function(monkeypatch: pytest.MonkeyPatch) -> None:
    case = example("bigbird", 300)
    eager = peers._made_block_mask(case, case.mask())
    monkeypatch.setattr(peers, "MOST_EAGER", 0)
    compiled = peers._made_block_mask(case, case.mask())
    assert (eager.to_dense() == compiled.to_dense()).all()


# --- checked first --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_truth_on_some_rows_is_dense_attention(dtype: str) -> None:
    case = make(HUBS, 1500, dtype=dtype, heads=2, kv_heads=1, dim=8, batch=2)
    right = truth(case)
    assert len(right.rows) == SOME_ROWS and {0, 1499} <= set(right.rows.tolist())
    mask = reference.mask(case.pattern, 1500, 2, {"hub": case.inputs["hub"].numpy()})
    leaves = [x.double().requires_grad_() for x in (case.q, case.k, case.v)]
    out, _ = reference.attention(*leaves, mask)
    found = torch.autograd.grad(out, leaves, right.grad.double())
    torch.testing.assert_close(out[:, :, right.rows], right.exact[0])
    for x, y in zip(found, right.exact[1:], strict=True):
        torch.testing.assert_close(x, y)
    error, limit = right.judge(out.detach())
    assert error < 1e-12 < limit
    wrong = out.detach().clone()
    wrong[1, 0, right.rows[5], 3] += 3 * limit
    assert right.judge(wrong)[0] > limit
    wrong[1, 0, right.rows[5], 3] = float("nan")
    assert not right.judge(wrong)[0] <= limit


Damage = Callable[[torch.Tensor], torch.Tensor]


def damaged(damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on attnc's own function is damaged."""
    imported = peers._imported

    def broken(text: str, name: str) -> Callable[..., torch.Tensor]:
        function = imported(text, name)
        return lambda *args, **kwargs: damage(function(*args, **kwargs))

    monkeypatch.setattr(peers, "_imported", broken)


def one_entry(out: torch.Tensor) -> torch.Tensor:
    bad = torch.zeros_like(out)
    bad[0, 0, -1, 0] = 1e-2
    return out + bad


DAMAGES = {
    "forward": one_entry,
    "no number": lambda out: torch.where(one_entry(out) == out, out, torch.nan),
    "backward": lambda out: out.detach() + 1.01 * (out - out.detach()),
}


@pytest.mark.parametrize("which", DAMAGES)
def test_wrong_results_stop_the_clock(
    which: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(DAMAGES[which], monkeypatch)
    timed: list[str] = []

    def never(jobs: Any, *rest: Any) -> dict[str, tuple[float, ...]]:
        timed.extend(jobs)
        return {name: (1.0,) for name in jobs}

    monkeypatch.setattr(run, "alternate", never)
    with pytest.raises(Wrong, match=r"wrong: off by \S+, where \S+ is allowed"):
        measure(make(), (), 1, True, CEILING, Silent())
    assert timed == (["attnc"] if which == "backward" else [])  # the forward alone was right

    monkeypatch.chdir(tmp_path)
    Path("sliding.attn").write_text(SLIDING)
    words = [
        "bench",
        "sliding.attn",
        "--n",
        "40",
        "--against",
        "none",
        "--device",
        "cpu",
        "--json",
        "out.json",
    ]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert err.startswith("attnc: the compiled function is wrong: off by") and out == ""
    assert not Path("out.json").exists()


# --- the clock ------------------------------------------------------------------------------------------


def test_runs_alternate() -> None:
    order: list[str] = []

    def sample(job: Job, device: torch.device, repeats: int) -> float:
        job.run(None)
        return float(len(order))

    jobs = {name: Job(lambda _, name=name: order.append(name)) for name in ("a", "b", "c")}
    times = alternate(jobs, 4, CPU, warm={"a": 1.0, "b": 1.0, "c": 1.0}, sample=sample)
    assert "".join(order) == "abcbcacababc"
    assert times == {"a": (1, 6, 8, 10), "b": (2, 4, 9, 11), "c": (3, 5, 7, 12)}


def test_short_runs_are_repeated_and_preparation_is_not_counted() -> None:
    calls = {"prepare": 0, "run": 0}

    def prepare() -> None:
        calls["prepare"] += 1
        torch.randn(300, 300) @ torch.randn(300, 300)

    def job(_: object) -> None:
        calls["run"] += 1

    times = alternate({"short": Job(job, prepare)}, 2, CPU)["short"]
    assert calls["run"] == calls["prepare"] == 201
    assert max(times) < 1e-3


def test_peak_memory() -> None:
    with peak_memory(CPU) as peak:
        torch.ones(64 << 20, dtype=torch.uint8)
    assert peak.bytes is None or 60 << 20 <= peak.bytes <= 80 << 20


def test_durations() -> None:
    assert [duration(x) for x in (1234.5, 12.34, 1.0, 0.4567, 0.01, 2.5e-5)] == [
        "1234 s",
        "12.3 s",
        "1.00 s",
        "457 ms",
        "10.0 ms",
        "25.0 us",
    ]


def test_ceiling_is_of_operations_or_bytes() -> None:
    assert CEILING.floor(10**12, 0) == 1.0
    assert CEILING.floor(0, 10**11) == 1.0
    assert CEILING.floor(10**12, 2 * 10**11) == 2.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar() -> None:
    silent, shown = io.StringIO(), Terminal()
    for stream in (silent, shown):
        bar = Bar(4, stream)
        bar.step("first")
        bar.skip(2)
        bar.step("second")
        bar.clear()
    assert silent.getvalue() == ""
    assert "0/4" in shown.getvalue() and "1/2" in shown.getvalue() and "second" in shown.getvalue()
    assert shown.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(("seconds", "size"), [(1.0, 256), (0.0, 2048)])
def test_products_for_the_ceiling_are_small_where_a_processor_is_slow(
    monkeypatch: pytest.MonkeyPatch, seconds: float, size: int
) -> None:
    monkeypatch.setattr(clock, "once", lambda job, device: seconds)
    assert clock._product(CPU, torch.float16)[0] == size

"""``attnc bench``: what is measured, checked before it is, and said of everything that cannot be."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attnc import reference
from attnc.bench import case as cases
from attnc.bench import command, others, peers, run
from attnc.bench.case import BadCase, Case, Shape, make_case
from attnc.bench.clock import Ceiling, Job, alternate, peak_memory
from attnc.bench.formula import masks_of
from attnc.bench.others import Window, window_of
from attnc.bench.peers import Peer
from attnc.bench.progress import Bar
from attnc.bench.results import document, duration, table
from attnc.bench.run import Wrong, measure, reason_of
from attnc.bench.truth import SOME_ROWS, truth
from attnc.cli import main
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
    pattern = name if name in ("swin", "axial") else None
    return make(name, n, params=params or {}, pattern=pattern, **more)


def results(case: Case, *rivals: Peer, backward: bool = True, rounds: int = 2) -> dict[str, Any]:
    return document([measure(case, rivals, rounds, backward, CEILING, Silent())])["cases"][0]


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
    for fill, count in (("first:5", 5), ("every:30", 4), ("random:1.0", 100), ("random:0", 0)):
        assert int(make(HUBS, 100, fills={"hub": fill}).inputs["hub"].sum()) == count
    share = float(make(HUBS, 10_000).inputs["hub"].float().mean())
    assert 0.01 < share < 0.03


@pytest.mark.parametrize(
    "fill", ["first", "first:-1", "every:0", "random:2", "random:x", "runs:3", "normal", ""]
)
def test_fills_that_are_none(fill: str) -> None:
    with pytest.raises(BadCase, match="write first:COUNT, every:STEP or random:SHARE"):
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


# --- peers ----------------------------------------------------------------------------------------------


def rival(name: str, attend: Callable[..., torch.Tensor], refusal: str | None = None) -> Peer:
    return Peer(name, lambda case: attend, lambda case: refusal)


def failing(error: Exception) -> Callable[..., torch.Tensor]:
    def attend(*args: torch.Tensor) -> torch.Tensor:
        raise error

    return attend


def test_what_peers_cannot_do() -> None:
    case = make(n=50)
    (dense,) = (peer for peer in peers.known_peers(CPU) if peer.name == "sdpa-mask")
    good = dense.prepare(case)

    def no_backward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.requires_grad:
            raise NotImplementedError(
                "no backward here. And much more than anybody would ever want to read" * 3
            )
        return good(q, k, v)

    found = results(
        case,
        rival("good", good),
        rival("memory", failing(MemoryError())),
        rival("cuda memory", failing(torch.OutOfMemoryError("CUDA out of memory. Tried …"))),
        rival("talkative", failing(RuntimeError("\nfirst line\nsecond line"))),
        rival("speechless", failing(KeyError())),
        rival("wrong", lambda q, k, v: good(q, k, v) + 0.1),
        rival("wrong backward", lambda q, k, v: good(q, k, v) + (x := q.sum() * 0.1) - x.detach()),
        rival("no backward", no_backward),
        rival("refusing", good, "not today"),
    )
    shown = {peer["peer"]: peer for peer in found["peers"]}
    assert "seconds" in shown["good"]["forward"] and "seconds" in shown["good"]["backward"]
    for name, reason in (
        ("memory", "out of memory"),
        ("cuda memory", "out of memory"),
        ("talkative", "first line"),
        ("speechless", "KeyError"),
        ("refusing", "not today"),
    ):
        assert shown[name]["forward"] == shown[name]["backward"] == {"cannot": reason}
    assert shown["wrong"]["forward"]["cannot"].startswith("wrong: off by 1.0e-01, where ")
    assert "seconds" in shown["wrong backward"]["forward"]
    assert shown["wrong backward"]["backward"]["cannot"].startswith("wrong: off by ")
    assert "seconds" in shown["no backward"]["forward"]
    assert shown["no backward"]["backward"] == {"cannot": "no backward here"}
    printed = table(found)
    assert "refusing        cannot: not today\n" in printed
    assert printed.count("cannot: ") == 14


def test_progress_is_told_of_every_step() -> None:
    ticker = Silent()
    measure(make(), (rival("failing", failing(ValueError("no"))),), 3, True, CEILING, ticker)
    assert len(ticker.labels) + ticker.skipped == run.steps(1, 3, True)
    assert ticker.labels[-1] == "sliding, float32, n 40: backward of attnc"


def test_a_mask_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "free_memory", lambda device: 10_000)
    (dense,) = (peer for peer in peers.known_peers(CPU) if peer.name == "sdpa-mask")
    assert dense.refuses(make(n=40)) is None
    assert (dense.refuses(make(n=60)) or "").startswith("out of memory: the mask alone takes ")


def test_causal_attention_is_a_yardstick_for_causal_patterns() -> None:
    (causal,) = (peer for peer in peers.known_peers(CPU) if peer.causal_only)
    for text, starred in ((SLIDING, True), ("pattern p() { attend causal }", False)):
        entry = results(make(text), causal)["peers"][1]
        assert "seconds" in entry["forward"] and "seconds" in entry["backward"]
        assert entry["other_edges"] is starred
    entry = results(make(HUBS), causal)["peers"][1]
    assert entry["forward"] == {"cannot": "the pattern reads the future"} and entry["other_edges"] is False


def test_reasons_are_those_of_the_cause() -> None:
    class Unsupported(RuntimeError):
        pass

    Unsupported.__module__ = "torch._dynamo.exc"
    try:
        try:
            raise Unsupported("raised exception NotImplementedError('no backward')")
        except Unsupported as inner:
            raise Unsupported("observed exception") from inner
    except Unsupported as error:
        assert reason_of(error) == "no backward"


def test_flex_attention_on_a_cpu() -> None:
    """Compiled, right, and without a backward; after that failure nothing is timed uncompiled."""
    chosen = peers.select("flex", CPU)
    assert [peer.name for peer in chosen] == ["flex", "flex-blocks"]
    found = results(make(HUBS, 200, dim=32), *chosen)
    for peer in found["peers"][1:]:
        assert len(peer["forward"]["samples"]) == 2
        assert peer["backward"]["cannot"] == "FlexAttention does not support backward on CPU"
        assert peer["forward"]["setup_s"] > 0.5, "nothing was compiled"


def test_a_failure_makes_torchs_compiler_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would run what it could not compile once without compiling it the next time."""
    told: list[str] = []
    monkeypatch.setattr(run, "_reset_compiler", lambda: told.append("forget"))
    results(make(), rival("failing", failing(ValueError("no"))), backward=False)
    assert told == ["forget", "forget"]  # as the case begins, and for the failure


def test_names_of_peers() -> None:
    assert [peer.name for peer in peers.select("sdpa-mask, flex", CPU)] == [
        "sdpa-mask",
        "flex",
        "flex-blocks",
    ]
    on_gpu = [peer.name for peer in peers.select("sdpa", torch.device("cuda"))]
    assert "sdpa-mask-efficient" in on_gpu and "sdpa-causal-flash" in on_gpu and "sdpa-causal-cudnn" in on_gpu
    with pytest.raises(ValueError, match="no peer called 'felx': choose among flex, sdpa, flash, natten"):
        peers.select("felx", CPU)


# --- other people's packages, as far as they can be tried without them ----------------------------------


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("pattern p() { attend causal }", Window(99, 0, 1)),
        ("pattern p() { attend all }", Window(99, 99, 1)),
        ("pattern p() { attend window(7) }", Window(7, 0, 1)),
        ("pattern p() { attend window(7, 2) }", Window(7, 2, 1)),
        ("pattern p() { attend window(5, dilation=3) }", Window(5, 0, 3)),
        ("pattern p() { attend self }", Window(0, 0, 1)),
        ("pattern p() { attend window(7) | to(first(1)) }", None),
        ("pattern p() { attend chunk(10) }", None),
        ("pattern p() { attend none }", None),
        ("pattern p() { heads even { attend causal } heads odd { attend self } }", None),
    ],
)
def test_windows_are_recognised(text: str, window: Window | None) -> None:
    assert window_of(make(text, 100)) == window


def windowed(q: Any, k: Any, v: Any, left: int, right: int, dilation: int = 1) -> torch.Tensor:
    """Attention by the book over (batch, tokens, heads, dim) tensors; -1 for no bound."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    n = q.shape[2]
    apart = torch.arange(n)[:, None] - torch.arange(n)
    mask = apart % dilation == 0
    mask &= (apart <= left * dilation) if left >= 0 else mask
    mask &= (apart >= -right * dilation) if right >= 0 else mask
    return reference.attention(q, k, v, mask)[0].transpose(1, 2)


def flash(q: Any, k: Any, v: Any, causal: bool = False, window_size: Any = (-1, -1)) -> torch.Tensor:
    left, right = window_size
    return windowed(q, k, v, left, 0 if causal else right)


def na1d(
    q: Any, k: Any, v: Any, kernel_size: int, dilation: int = 1, is_causal: bool = False
) -> torch.Tensor:
    assert is_causal
    return windowed(q, k, v, kernel_size - 1, 0, dilation)


def memory_efficient_attention(q: Any, k: Any, v: Any, attn_bias: Any) -> torch.Tensor:
    return windowed(q, k, v, attn_bias.window_left, attn_bias.window_right)


@pytest.mark.parametrize("name", ["flash-2", "flash-3", "natten", "xformers"])
@pytest.mark.parametrize(
    "pattern", ["causal", "window(7)", "window(7, 2)", "window(5, dilation=3)", "chunk(9)"]
)
def test_other_packages_are_called_as_they_are_written(
    name: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins with the signatures of the real functions; the real ones need a GPU."""
    fakes: dict[str, dict[str, Any]] = {
        "flash_attn": {"flash_attn_func": flash},
        "flash_attn_interface": {"flash_attn_func": lambda *args, **given: (flash(*args, **given), None)},
        "natten": {"na1d": na1d},
        "xformers": {},
        "xformers.ops": {"memory_efficient_attention": memory_efficient_attention},
        "xformers.ops.fmha": {},
        "xformers.ops.fmha.attn_bias": {
            "LowerTriangularMask": lambda: SimpleNamespace(window_left=-1, window_right=0),
            "LocalAttentionFromBottomRightMask": SimpleNamespace,
        },
    }
    for module, contents in fakes.items():
        fake = ModuleType(module)
        vars(fake).update(contents)
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr(others, "_half_on_gpu", lambda case: None)
    (peer,) = peers.select(name, CPU)
    case = make(f"pattern p() {{ attend {pattern} }}", 60, kv_heads=4)
    can = {
        "causal": True,
        "window(7)": True,
        "window(7, 2)": name != "natten",
        "window(5, dilation=3)": name == "natten",
        "chunk(9)": False,
    }
    entry = results(case, peer)["peers"][1]
    assert ("seconds" in entry["forward"]) is can[pattern], entry
    assert ("seconds" in entry["backward"]) is can[pattern], entry


@pytest.mark.parametrize("name", ["flash", "natten", "xformers"])
def test_what_is_not_installed_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "installed", lambda other: False)
    found = results(make(), *peers.select(name, CPU), backward=False)
    for peer in found["peers"][1:]:
        assert peer["forward"]["cannot"].endswith("is not installed")
    assert peers.default_names(CPU) == "flex,sdpa"


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


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("sliding.attn").write_text(SLIDING)
    Path("hubs.attn").write_text(HUBS)
    Path("broken.attn").write_text("pattern broken( { attend all }\n")
    Path("false.attn").write_text("pattern false_claim() { attend all require causal }\n")
    Path("notes.txt").write_text("mine\n")
    Path("folder.json").mkdir()
    return tmp_path


SMALL = ["--device", "cpu", "--heads", "2", "--dim", "8", "--repeats", "2"]


def test_table_and_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "sliding.attn",
        "hubs.attn",
        "--n",
        "30,50",
        "--kv-heads",
        "1",
        "--against",
        "sdpa",
        *SMALL,
    ]
    assert main([*words, "--input", "hub=first:3", "--json", "out.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "sliding(window = 8): n 30, batch 1, 2 heads and 1 of keys, dim 8, float32, cpu" in out
    assert "hubs(): n 50" in out and "; hub first:3; checked on 50 of 50 rows" in out
    heads = [line.split() for line in out.splitlines() if line.startswith(("forward", "backward"))]
    assert heads[0] == ["forward", "set-up", "time", "TFLOP/s", "of", "ceiling", "memory", "against", "attnc"]
    assert len(heads) == 8

    made = json.loads(Path("out.json").read_text())
    assert made["command"].startswith("attnc bench sliding.attn hubs.attn --n 30,50")
    assert {"processor", "cores", "threads"} <= made["machine"].keys()
    assert {"attnc", "python", "torch"} <= made["versions"].keys()
    assert [(case["pattern"], case["n"]) for case in made["cases"]] == [
        ("sliding", 30),
        ("sliding", 50),
        ("hubs", 30),
        ("hubs", 50),
    ]
    case = made["cases"][1]
    edges = 2 * (8 * 50 - 28)
    assert (case["edges"], case["edges_counted"], case["rows_checked"]) == (edges, True, 50)
    ours, dense, causal = case["peers"]
    assert [peer["peer"] for peer in case["peers"]] == ["attnc", "sdpa-mask", "sdpa-causal"]
    assert ours["forward"]["against_attnc"] == 1.0 and causal["other_edges"]
    assert ours["forward"]["flops"] == 4 * edges * 8 and ours["backward"]["flops"] == 10 * edges * 8
    ratio = dense["backward"]["seconds"] / ours["backward"]["seconds"]
    assert dense["backward"]["against_attnc"] == pytest.approx(ratio)
    for peer in case["peers"]:
        for phase in (peer["forward"], peer["backward"]):
            assert len(phase["samples"]) == 2 and min(phase["samples"]) > 0
            assert phase["seconds"] == pytest.approx(sum(phase["samples"]) / 2)
            assert phase["tflops"] == pytest.approx(phase["flops"] / phase["seconds"] / 1e12)
            assert phase["over_floor"] == pytest.approx(1 / phase["of_ceiling"])
            assert phase["setup_s"] > 0 and phase["error"] <= phase["error_limit"]


def test_forward_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sliding.attn", "--n", "20", "--against", "none", "--no-backward", *SMALL]) == 0
    out, _ = capsys.readouterr()
    assert "backward" not in out and "attnc" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "0"], "'0' is no number from 1 on"),
        (["--n", "8,x"], "'x' is no number from 1 on"),
        (["--repeats", "0"], "'0' is no number from 1 on"),
        (["--seed", "-1"], "'-1' is no number from 1 on"),
        (["--against", "felx"], "there is no peer called 'felx': choose among flex, sdpa"),
        (["--dtype", "float8"], "there is no dtype called 'float8': choose among float32, bfloat16, float16"),
        (["--heads", "3", "--kv-heads", "2"], "3 query heads cannot share 2 key heads evenly"),
        (["--dim", "257"], "head dimensions go up to 256, not 257"),
        (["--device", "quantum"], "there is no device called 'quantum'"),
        (["--device", "meta"], "nothing can be measured on 'meta'"),
        (["--device", "cuda:77"], "so not 'cuda:77'"),
        (["--input", "hub"], "`--input hub` is no input: write `--input NAME=FILL`"),
        (["--input", "hub=first:1"], "there is no input 'hub' to fill: there are none"),
        (["-p", "window"], "`-p window` is no parameter"),
        (["--json", "nowhere/out.json"], "there is no folder"),
        (["--json", "folder.json"], "it is a folder"),
        (["--json", "notes.txt"], "its name must end in .json"),
        (["--json", "sliding.attn"], "it is the pattern file itself"),
        (["--plot", "out.pdf"], "its name must end in .png or .svg"),
        (["--plot", "-"], "its name must end in .png or .svg"),
        (["missing.attn"], "there is no such file"),
        (["--window", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_use(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    """Everything is said before anything is measured, and nothing is written."""
    monkeypatch.setattr(command, "measure", lambda *args: pytest.fail("something was measured"))
    monkeypatch.setattr(command, "measure_ceiling", lambda *args: pytest.fail("something was measured"))
    monkeypatch.setattr(command.plot, "available", lambda: None)
    before = {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert main(["bench", "sliding.attn", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err and out == ""
    assert {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


def test_fills_are_for_whoever_has_the_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "hubs.attn", "sliding.attn", "--n", "20", "--against", "none", "--no-backward", *SMALL]
    assert main([*words, "--input", "hub=every:4"]) == 0
    assert "hub every:4" in capsys.readouterr().out
    assert main([*words, "--input", "hubs=every:4"]) == 2
    assert "there is no input 'hubs' to fill: the inputs are hub" in capsys.readouterr().err
    assert main([*words, "--input", "hub=often"]) == 2
    assert "cannot be filled by 'often': write first:COUNT" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "code"), [("broken.attn", "error["), ("false.attn", "error[not-causal]")])
def test_patterns_that_do_not_compile(
    here: Path, capsys: pytest.CaptureFixture[str], file: str, code: str
) -> None:
    assert main(["bench", file, "--n", "20", "--against", "none", "--json", "out.json", *SMALL]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(code) and out == ""
    assert not Path("out.json").exists()


def test_no_matplotlib(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "sliding.attn", "--n", "20", "--plot", "out.png", *SMALL]) == 2
    out, err = capsys.readouterr()
    assert "`pip install 'attnc[bench]'` installs it" in err and out == ""
    assert not Path("out.png").exists()


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(here: Path, kind: str, start: bytes) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    words = ["bench", "sliding.attn", "--n", "20,30", "--against", "sdpa", *SMALL]
    assert main([*words, "--plot", f"out.{kind}"]) == 0
    assert Path(f"out.{kind}").read_bytes().startswith(start)


# --- the project's own benchmark ------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "tests" / "bench" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_benchmark_keeps_what_it_does_not_measure_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, path = script("run"), tmp_path / "new" / "out.json"
    words = [
        "--n",
        "64",
        "--heads",
        "2",
        "--dim",
        "8",
        "--against",
        "none",
        "--repeats",
        "1",
        "--json",
        str(path),
    ]
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--patterns", "window,fixed", "--dtypes", "float32", *words]) == 0
    first = json.loads(path.read_text())
    assert benchmark.main(["--patterns", "window,causal", "--dtypes", "float32", *words]) == 0
    second = json.loads(path.read_text())
    assert [case["name"] for case in second["cases"]] == ["causal", "window", "fixed"]
    assert second["cases"][2] == first["cases"][1]
    assert (
        "window,fixed" in second["cases"][2]["command"] and "window,causal" in second["cases"][1]["command"]
    )
    with pytest.raises(SystemExit):
        benchmark.main(["--patterns", "windows"])
    assert "'windows' is none of causal, window" in capsys.readouterr().err


def test_benchmark_has_its_patterns() -> None:
    benchmark = script("run")
    assert len(benchmark.PATTERNS) == 7
    for entry in benchmark.PATTERNS.values():
        pattern = settle_pattern(entry.request()).pattern
        assert {name for name, _ in entry.fills} == {item.name for item in pattern.inputs}


def test_tables_of_the_readme_are_those_of_the_results() -> None:
    tables = script("tables")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text, "`python tests/bench/tables.py` writes them anew"
    assert "| causal |" in text


def test_tables_show_slower_cases_and_failures() -> None:
    tables = script("tables")
    case = make(HUBS)
    (dense,) = (peer for peer in peers.known_peers(CPU) if peer.name == "sdpa-mask")
    fast = rival("flex", dense.prepare(case))
    made = document(
        [measure(case, (fast, replace(dense, refuses=lambda case: "no")), 1, True, CEILING, Silent())]
    )
    made["cases"][0]["name"] = "hubs"
    made["cases"][0]["peers"][1]["forward"] |= {"seconds": 0.5, "against_attnc": 0.25}
    text = tables.markdown(made)
    assert "| forward, float32 | edges | attnc | of ceiling | FlexAttention | SDPA, masked | set-up" in text
    assert "| 500 ms (0.25x) | cannot |" in text
    assert "| backward, float32 |" in text

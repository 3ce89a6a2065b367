"""The peers of ``attnc bench``: what each is called with, and what is said of what it cannot do."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from attnc import reference
from attnc.bench import others, peers, run
from attnc.bench.others import Window, window_of
from attnc.bench.results import table
from attnc.bench.run import measure, reason_of
from tests.benching import (
    CEILING,
    CPU,
    HUBS,
    SLIDING,
    Silent,
    failing,
    make,
    results,
    rival,
)

# --- peers ----------------------------------------------------------------------------------------------


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

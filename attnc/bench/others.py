"""Peers that may be installed: FlashAttention, NATTEN, xformers, and flash-linear-attention. All but the last
compute windows; which window a pattern is, if it is one, is read off its mask."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from attnc.bench import linear
from attnc.bench.case import Case
from attnc.bench.truth import reference_rows, some_rows

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

NO_WINDOW = "the pattern is no window"


@dataclass(frozen=True)
class Window:
    """Keys ``q - left*dilation .. q + right*dilation`` in steps of ``dilation``."""

    left: int
    right: int
    dilation: int


@dataclass(frozen=True)
class Other:
    """name: of the peer. package, module: what pip and Python call it. The rest as in ``Peer``.

    weighs: whether it knows other weights than those of plain softmax.
    """

    name: str
    package: str
    module: str
    refuses: Callable[[Case], str | None]
    prepare: Callable[[Case], Attend]
    weighs: bool = False


def installed(other: Other) -> bool:
    """Whether its module can be imported, as far as can be told without importing it."""
    return other.module in sys.modules or importlib.util.find_spec(other.module) is not None


def is_causal(case: Case) -> bool:
    """Whether no query among some rows reads what comes after it; the first and the last are among them."""
    rows = some_rows(case.shape.n, case.seed)
    return not bool((reference_rows(case, rows) & (torch.arange(case.shape.n) > rows[:, None])).any())


def window_of(case: Case) -> Window | None:
    """The window that a pattern is on some rows, or None."""
    n = case.shape.n
    rows = torch.cat([some_rows(n, case.seed), torch.tensor([n // 2])])
    mask = reference_rows(case, rows)
    behind = mask[0, -2].nonzero().flatten()  # the last query reads its window to the left,
    ahead = mask[0, 0].nonzero().flatten()  # and the first one to the right
    if not len(behind) or not len(ahead):
        return None
    gaps = torch.cat([behind.diff(), ahead.diff()])
    dilation = int(gaps.min()) if len(gaps) else 1
    left, right = int(n - 1 - behind[0]) // dilation, int(ahead[-1]) // dilation
    apart = rows[:, None] - torch.arange(n)
    wanted = (apart <= left * dilation) & (apart >= -right * dilation) & (apart % dilation == 0)
    return Window(left, right, dilation) if bool((mask == wanted).all()) else None


def _by_tokens(attend: Callable[..., Any], **given: Any) -> Attend:
    """A function of (batch, tokens, heads, dim) tensors as one of (batch, heads, tokens, dim)."""

    def turned(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = attend(*(x.transpose(1, 2) for x in (q, k, v)), **given)
        return out.transpose(1, 2)

    return turned


def _half_on_gpu(case: Case) -> str | None:
    if case.device.type != "cuda":
        return "needs a GPU"
    return None if case.q.dtype in (torch.float16, torch.bfloat16) else f"takes no {case.shape.dtype}"


# --- FlashAttention: causal and local windows -----------------------------------------------------------


def _flash_refuses(case: Case) -> str | None:
    if reason := _half_on_gpu(case):
        return reason
    window = window_of(case)
    return None if window is not None and window.dilation == 1 else NO_WINDOW


def _flash(case: Case) -> Attend:
    return _by_tokens(import_module("flash_attn").flash_attn_func, **_flash_arguments(case))


def _flash_3(case: Case) -> Attend:
    attend = import_module("flash_attn_interface").flash_attn_func

    def first(*tensors: torch.Tensor, **given: Any) -> Any:
        out = attend(*tensors, **given)
        return out[0] if isinstance(out, tuple) else out  # older ones give the log-sum-exp, too

    return _by_tokens(first, **_flash_arguments(case))


def _flash_arguments(case: Case) -> dict[str, Any]:
    window = window_of(case)
    if window is None:
        raise ValueError(NO_WINDOW)
    last = case.shape.n - 1
    sizes = tuple(-1 if size >= last else size for size in (window.left, window.right))
    return {"causal": window.right == 0, "window_size": sizes}


# --- NATTEN: causal windows, dilated ones too. Its other windows are shifted at the ends ----------------


def _natten_refuses(case: Case) -> str | None:
    if case.shape.heads != case.shape.kv_heads:
        return "needs as many key heads as query heads"
    window = window_of(case)
    if window is None or window.right:
        return "the pattern is no causal window"
    reaches = (window.left + 1) * window.dilation
    return (
        None if window.left >= 1 and reaches <= case.shape.n else "the window does not fit into the sequence"
    )


def _natten(case: Case) -> Attend:
    window = window_of(case)
    if window is None:
        raise ValueError(NO_WINDOW)
    given = {"kernel_size": window.left + 1, "dilation": window.dilation, "is_causal": True}
    return _by_tokens(import_module("natten").na1d, **given)


# --- xformers: causal and local windows -----------------------------------------------------------------


def _xformers_refuses(case: Case) -> str | None:
    if case.shape.heads != case.shape.kv_heads:
        return "needs as many key heads as query heads"
    return _flash_refuses(case)


def _xformers(case: Case) -> Attend:
    window = window_of(case)
    if window is None:
        raise ValueError(NO_WINDOW)
    operators = import_module("xformers.ops")
    biases = import_module("xformers.ops.fmha.attn_bias")
    if window.left >= case.shape.n - 1 and not window.right:
        bias = biases.LowerTriangularMask()
    else:
        bias = biases.LocalAttentionFromBottomRightMask(window_left=window.left, window_right=window.right)
    return _by_tokens(operators.memory_efficient_attention, attn_bias=bias)


OTHERS = (
    Other("flash-2", "flash-attn", "flash_attn", _flash_refuses, _flash),
    Other("flash-3", "flash-attn-3", "flash_attn_interface", _flash_refuses, _flash_3),
    Other("natten", "natten", "natten", _natten_refuses, _natten),
    Other("xformers", "xformers", "xformers", _xformers_refuses, _xformers),
    Other("fla", "fla-core", "fla", linear.refuses, linear.prepare, weighs=True),
)

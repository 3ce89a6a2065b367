"""Who is measured: attnc itself, and everybody else that can compute the same attention.

A peer says why it cannot take a case, or prepares a function of (q, k, v). What it builds for that belongs to
its set-up; what it raises later, or gets wrong, is reported as it is.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attnc.bench import others
from attnc.bench.case import Case
from attnc.bench.clock import free_memory
from attnc.bench.formula import MaskFunction, masks_of
from attnc.diagnostics import Source
from attnc.pipeline import compile_pattern
from attnc.request import Request

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

OURS = "attnc"
# Why somebody cannot take a pattern that weighs edges.
PLAIN_ONLY = "weighs edges by plain softmax alone"
# Queries and keys of one entry of a block mask: FlexAttention's own default.
BLOCK = 128
# Mask entries from which FlexAttention's block mask is made by a compiled function, which needs no
# temporaries of that size.
MOST_EAGER = 1 << 28


@dataclass(frozen=True)
class Peer:
    """name: as in a table. refuses: why a case cannot be taken, or None. prepare: the function for a case.

    causal_only: computes all causal edges, whatever the pattern says: a yardstick, where the two differ.
    once: what a process pays a single time, whatever it compiles: before any clock starts.
    """

    name: str
    prepare: Callable[[Case], Attend]
    refuses: Callable[[Case], str | None] = lambda case: None
    causal_only: bool = False
    once: Callable[[torch.device], None] = lambda device: None


def known_peers(device: torch.device) -> tuple[Peer, ...]:
    """Every peer there is for a kind of device, whether installed or not; attnc is not among them."""
    return (*_flex(), *_sdpa(device), *(_optional(other) for other in others.OTHERS))


def select(names: str, device: torch.device) -> tuple[Peer, ...]:
    """The peers that a comma-separated list of names or groups (``flex,sdpa``) means, in order.

    Raises ``ValueError`` for a name that means none.
    """
    everyone, chosen = known_peers(device), dict[str, Peer]()
    for word in filter(None, (part.strip() for part in names.split(","))):
        meant = [peer for peer in everyone if word in (peer.name, group(peer))]
        if not meant:
            listed = ", ".join(dict.fromkeys(map(group, everyone)))
            raise ValueError(f"there is no peer called {word!r}: choose among {listed}")
        chosen |= {peer.name: peer for peer in meant}
    return tuple(chosen.values())


def default_names(device: torch.device) -> str:
    """The groups that are measured when nothing is said: what comes with torch, and what is installed."""
    found = [other.name for other in others.OTHERS if others.installed(other)]
    return ",".join(("flex", "sdpa", *found))


def group(peer: Peer) -> str:
    return peer.name.partition("-")[0]


# --- attnc ----------------------------------------------------------------------------------------------


def _prepare_ours(case: Case) -> Attend:
    """From the text, past the cache: what somebody waits for who compiles a pattern for the first time."""
    emitted = compile_pattern(case.request)
    function = _imported(emitted.text, emitted.pattern.name)
    inputs = dict(case.inputs)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = function(q, k, v, **inputs)
        return out

    return attend


_imports = 0


def _imported(text: str, name: str) -> Callable[..., torch.Tensor]:
    """The function of a module's text. Its file is gone afterwards: by then Triton has read its kernels."""
    global _imports
    _imports += 1
    with tempfile.TemporaryDirectory(prefix="attnc-bench-") as folder:
        path = Path(folder, f"{name}.py")
        path.write_text(text, encoding="utf-8")
        label = f"attnc_bench_{_imports}_{name}"
        spec = importlib.util.spec_from_file_location(label, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot import {str(path)!r}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[label] = module
        spec.loader.exec_module(module)
    found: Callable[..., torch.Tensor] = getattr(module, name)
    return found


def _first_pattern(device: torch.device) -> None:
    """Imports the compiler and the solver."""
    compile_pattern(Request(Source("<text>", "pattern first() { attend window(3) }")))


ours = Peer(OURS, _prepare_ours, once=_first_pattern)


# --- FlexAttention --------------------------------------------------------------------------------------


def _flex() -> tuple[Peer, ...]:
    return (
        Peer("flex", lambda case: _compiled_flex(case, _made_block_mask), _no_score, once=_first_compile),
        Peer(
            "flex-blocks", lambda case: _compiled_flex(case, _own_block_mask), _no_score, once=_first_compile
        ),
    )


def _no_score(case: Case) -> str | None:
    """FlexAttention is softmax of a score function."""
    weights = [part.weights for body in case.pattern.bodies for part in body.parts]
    if any(item.feature is not None for item in weights):
        return "has softmax alone, and no linear attention"
    if any(item.sink is not None for item in weights):
        return "has no sinks"
    return "has one score for all edges" if len(weights) > len(case.pattern.bodies) else None


def _first_compile(device: torch.device) -> None:
    """Imports torch's compiler and lets it find out about the machine."""
    torch.compile(lambda x: x + 1)(torch.ones(8, device=device))


def _compiled_flex(case: Case, make: Callable[[Case, MaskFunction], Any]) -> Attend:
    from torch.nn.attention.flex_attention import flex_attention

    block_mask, score = make(case, case.mask()), case.score()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    grouped = case.shape.heads != case.shape.kv_heads

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = compiled(q, k, v, score_mod=score, block_mask=block_mask, enable_gqa=grouped)
        return out

    return attend


def _made_block_mask(case: Case, mask: MaskFunction) -> Any:
    """FlexAttention's own way: the mask function is asked about every pair of positions."""
    from torch.nn.attention.flex_attention import create_block_mask

    n, heads = case.shape.n, case.mask_heads
    large = n * n * heads > MOST_EAGER
    wanted = None if heads == 1 else heads
    return create_block_mask(mask, None, wanted, n, n, device=case.device, _compile=large)


def _own_block_mask(case: Case, mask: MaskFunction) -> Any:
    """The same tables, built by hand: in chunks, without a mask of the whole."""
    from torch.nn.attention.flex_attention import BlockMask

    n, heads = case.shape.n, case.mask_heads
    tiles = -(-n // BLOCK)
    edges = torch.zeros((heads, tiles, tiles), dtype=torch.int32, device=case.device)
    for rows, part in masks_of(mask, torch.arange(n, device=case.device), n, heads):
        padded = torch.nn.functional.pad(part, (0, tiles * BLOCK - n))
        counts = padded.view(heads, len(rows), tiles, BLOCK).sum(-1, dtype=torch.int32)
        edges.index_add_(1, rows // BLOCK, counts)
    full = edges == BLOCK * BLOCK
    partial = (edges > 0) & ~full
    return BlockMask.from_kv_blocks(
        *_listed(partial), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=mask, seq_lengths=(n, n)
    )


def _listed(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts (1, heads, tiles) of chosen key tiles, and their numbers first in (1, heads, tiles, tiles)."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[None], order.to(torch.int32)[None]


# --- scaled_dot_product_attention -----------------------------------------------------------------------


def _sdpa(device: torch.device) -> tuple[Peer, ...]:
    """On a GPU each backend by name: which of them torch would take is no matter of the pattern."""
    if device.type != "cuda":
        return (_sdpa_mask("sdpa-mask", None), _sdpa_causal("sdpa-causal", None))
    return (
        *(_sdpa_mask(f"sdpa-mask-{name}", name) for name in ("efficient", "cudnn", "math")),
        *(_sdpa_causal(f"sdpa-causal-{name}", name) for name in ("flash", "efficient", "cudnn", "math")),
    )


def _sdpa_mask(name: str, backend: str | None) -> Peer:
    def prepare(case: Case) -> Attend:
        n, heads = case.shape.n, case.mask_heads
        mask = torch.empty((1, heads, n, n), dtype=torch.bool, device=case.device)
        for rows, part in masks_of(case.mask(), torch.arange(n, device=case.device), n, heads):
            mask[0, :, rows] = part
        return _dot_product(case, backend, attn_mask=mask)

    return Peer(name, prepare, lambda case: PLAIN_ONLY if case.weighed else _too_large(case))


def _too_large(case: Case) -> str | None:
    """A mask that does not fit is refused before it takes the machine down; most backends widen it, too."""
    wanted = case.shape.n**2 * case.mask_heads * (1 + case.q.element_size())
    free = free_memory(case.device)
    if free is None or wanted <= free:
        return None
    return f"out of memory: the mask alone takes {wanted / 2**30:.0f} GiB, and {free / 2**30:.0f} are free"


def _sdpa_causal(name: str, backend: str | None) -> Peer:
    return Peer(
        name,
        lambda case: _dot_product(case, backend, is_causal=True),
        lambda case: None if others.is_causal(case) else "the pattern reads the future",
        causal_only=True,
    )


def _dot_product(case: Case, backend: str | None, **given: Any) -> Attend:
    grouped = case.shape.heads != case.shape.kv_heads

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with _chosen(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped, **given)

    return attend


@contextmanager
def _chosen(backend: str | None) -> Iterator[None]:
    if backend is None:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    with sdpa_kernel(names[backend]):
        yield


# --- what may be installed ------------------------------------------------------------------------------


def _optional(other: others.Other) -> Peer:
    def refuses(case: Case) -> str | None:
        if not others.installed(other):
            return f"`{other.package}` is not installed"
        return PLAIN_ONLY if case.weighed and not other.weighs else other.refuses(case)

    return Peer(other.name, other.prepare, refuses)

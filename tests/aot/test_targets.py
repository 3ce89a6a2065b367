"""Every example's kernels compile for real GPUs, fit into them, and keep their tiles in registers.

None of this needs a GPU. A run covers every kernel for Hopper in bfloat16, and one of each kind of kernel for
tiles in shares and for the other targets and dtypes, because those differ in what the compiler is given and
not in what the patterns say; ``ATTNC_AOT=full`` covers everything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import attnc
from tests.aot import budget, compiler, summed

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)


EXAMPLES = compiler.swept()
# One of every kind of kernel: an interval, residue classes, packed sets, documents.
KINDS = ("mistral", "strided", "longformer", "packed_documents")
FULL = os.environ.get("ATTNC_AOT") == "full"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# Bytes a thread that may be spilled on Hopper, by kernel and dim; else nothing. What keys' gradients keep
# beside several sweeps leaves registers for tiles of half the size, and those take a half more instructions
# for a pair.
SPILLS = {
    ("forward", 128): 256,
    ("query_gradient", 128): 64,
    ("key_gradient", 64): 48,
    ("key_gradient", 128): 264,
}
# Accesses to them in the loops; else none. Steps of twice the positions take a quarter to a third fewer
# instructions for a pair, those accesses among them; nearly all are in the masked loops, which are short.
IN_LOOPS = {("forward", 128): 120, ("key_gradient", 128): 40}
# Bigbird has five sweeps in one kernel: with 32 keys a step in place of 64 nothing would be spilled, and a
# pair would take a half more instructions.
MORE_SPILLS = {
    ("packed_documents", "forward", 64): 136,
    ("packed_documents", "forward", 128): 288,
    ("bigbird", "forward", 64): 448,
    ("bigbird", "forward", 128): 784,
    ("bigbird", "query_gradient", 64): 448,
    ("bigbird", "query_gradient", 128): 704,
}
MORE_IN_LOOPS = {("packed_documents", "forward", 64): 26}


def cases() -> Iterator[tuple[str, str, str, int]]:
    """Example, target, dtype and dim of every test."""
    everywhere = ("sm_80", "sm_90", "sm_100", "gfx942")
    for dim in (64, 128):
        for name in EXAMPLES:
            for target in everywhere:
                for dtype in ("bf16", "fp16"):
                    if FULL or (target, dtype) == ("sm_90", "bf16"):
                        yield name, target, dtype, dim
    for dim in (64, 128):
        yield "mistral", "sm_90", "fp16", dim
        yield "mistral", "sm_90", "fp32", dim
        yield from (("mistral", target, "bf16", dim) for target in ("sm_80", "sm_100", "gfx942", "sm_86"))
    yield from ((name, "sm_80", "bf16", 128) for name in KINDS)
    yield from (("mistral", target, "bf16", 128) for target in ("sm_89", "sm_120"))
    yield from (("longformer", target, "bf16", 128) for target in ("sm_100", "gfx942"))
    yield from (("mistral", "sm_90", "bf16", dim) for dim in (16, 80, 256))
    yield from (("mistral", target, "bf16", 256) for target in ("sm_80", "sm_86", "gfx942"))


@cache
def compiled(name: str, target: str, dtype: str, dim: int) -> tuple[tuple[Any, Any], ...]:
    """Launches and their binaries, but for those that an earlier example has too."""
    others = EXAMPLES[: EXAMPLES.index(name)] if (name, target, dtype, dim) in _SWEPT else []
    before = {identity for other in others for identity in wanted(other, target, dtype, dim)}
    own = wanted(name, target, dtype, dim)
    goal = compiler.TARGETS[target]
    return tuple((launch, compiler.build(launch, goal)) for key, launch in own.items() if key not in before)


def wanted(name: str, target: str, dtype: str, dim: int) -> dict[Any, Any]:
    """The launches of an example that are compiled, by their identity."""
    found = compiler.launches(name, DTYPES[dtype], dim, compiler.TARGETS[target].tiles)
    shares = FULL or name in KINDS
    return {launch.identity: launch for launch in found if shares or not launch.in_shares}


CASES = list(dict.fromkeys(cases()))
# Cases whose target, dtype and dim are compiled for every example: equal kernels need compiling only once.
_SWEPT = {case for case in CASES if all((name, *case[1:]) in CASES for name in EXAMPLES)}


@pytest.mark.parametrize(("name", "target", "dtype", "dim"), CASES, ids=lambda value: str(value))
def test_kernels_compile_and_fit(name: str, target: str, dtype: str, dim: int) -> None:
    problems = []
    for launch, binary in compiled(name, target, dtype, dim):
        where = f"{launch.label} with {dict(launch.options)}, {launch.tile}"
        if binary.shared > compiler.TARGETS[target].shared:
            problems.append(f"{where}: needs {binary.shared} bytes of shared memory")
        if target == "sm_90" and dtype != "fp32":
            problems += [f"{where}: {problem}" for problem in _on_hopper(name, launch, binary, dim)]
        if (target, dtype) == ("sm_90", "bf16") and dim in budget.DIMS:
            faults = budget.faults(name, dim, launch.label, binary)
            problems += [f"{fault}; {where}" for fault in faults]
        if target == "gfx942" and dim <= 128 and binary.spilled:
            problems.append(f"{where}: spills {binary.spilled} bytes a thread")
    assert not problems, "\n".join(problems)


def _on_hopper(name: str, launch: Any, binary: Any, dim: int) -> Iterator[str]:
    """What is wrong with a kernel in 16 bits for sm_90."""
    if "mma.sync" in binary.assembly or re.search(r"\btt\.dot\b", binary.intermediate):
        yield "a product does not use wgmma"
    # A kernel that takes all rows one by one multiplies no matrices, and fetches no tiles ahead for them.
    multiplies = launch.multiplies
    if multiplies and "wgmma.mma_async" not in binary.assembly:
        yield "no product uses wgmma"
    if dim > 128:
        return
    if (times := compiler.repeats(binary.intermediate)) > 1:
        yield f"its warps make the same products {times:g} times"
    # A program for one pair of tiles has no loop that could fetch ahead.
    if (
        multiplies
        and launch.kind != "pair"
        and not re.search(r"cp\.async\.cg\.shared\.global \[[^;]*\], 0x10,", binary.assembly)
    ):
        yield "tiles are not fetched ahead in pieces of 16 bytes"
    kind = launch.kind, 64 if dim <= 64 else 128
    most = MORE_SPILLS.get((name, *kind), SPILLS.get(kind, 0))
    if binary.spilled > most:
        yield f"spills {binary.spilled} bytes a thread, and {most} are allowed"
    # A program for one pair of tiles is in no loop.
    count = compiler.spills if launch.kind == "pair" else compiler.spills_in_loops
    most = MORE_IN_LOOPS.get((name, *kind), IN_LOOPS.get(kind, 0))
    if count(binary.machine) > most:
        yield f"{count(binary.machine)} accesses to spilled registers in the loops over tiles"


@pytest.mark.parametrize("target", ["sm_90", "sm_80", "gfx942"])
def test_features_that_are_swept_fit(target: str) -> None:
    """Where fp16 is multiplied as fp32, tiles are twice as large."""
    module = compiler.load(attnc.compile("pattern p() { attend window(300) kernel elu(x) + 1 }", "p"), "p")
    goal = compiler.TARGETS[target]
    for launch in dict.fromkeys(compiler.record(module, torch.float16, 128, goal.tiles)):
        needed = compiler.build(launch, goal).shared
        assert needed <= goal.shared, f"{launch.label} needs {needed} bytes"


def test_every_kernel_has_a_budget_and_every_budget_a_kernel() -> None:
    launched = {
        (name, dim, launch.label)
        for name in EXAMPLES
        for dim in budget.DIMS
        for launch in compiler.launches(name, torch.bfloat16, dim, "_TILES")
    } | {
        (name, dim, launch.label)
        for name, dim in summed.CASES
        for some in summed.launches(name, dim)
        for launch in some
    }
    assert set(budget.Budget.read().uses) == launched, "run `python tests/aot/record.py`"


def test_a_kernel_beyond_its_budget_is_seen() -> None:
    most = budget.Use(registers=128, spilled=0, shared=4096)
    assert not budget.Use(128, 0, 4096).beyond(most) and not budget.Use(90, 0, 1024).beyond(most)
    (registers,) = budget.Use(129, 0, 4096).beyond(most)
    assert registers == "129 registers, and its budget is 128"
    assert len(budget.Use(129, 8, 8192).beyond(most)) == 3


def test_a_process_leaves_no_folder_behind(tmp_path: Path) -> None:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import compiler; compiler.example('dense')"
    given = [sys.executable, "-c", script, str(Path(__file__).parent)]
    subprocess.run(given, check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert not list(tmp_path.glob("attnc-aot-*"))


def test_equal_kernels_are_recognized_and_different_ones_are_not() -> None:
    """What is compiled only once is the same text with the same arguments."""
    one, other = (compiler.launches(name, torch.bfloat16, 64, "_TILES") for name in ("causal", "causal"))
    assert {launch.identity for launch in one} == {launch.identity for launch in other}
    mistral = compiler.launches("mistral", torch.bfloat16, 64, "_TILES")
    identities = {launch.identity for launch in one}
    # What joins shares is the same for all patterns, and nothing else is.
    assert {launch.kind for launch in mistral if launch.identity in identities} == {"join", "sum"}
    kinds = {launch.kind for launch in one}
    assert kinds == {"forward", "query_gradient", "key_gradient", "join", "sum"}


def test_lengths_are_no_part_of_a_kernel() -> None:
    """One binary serves every length: neither a length nor a stride is specialized on."""
    module = compiler.example("longformer")
    lengths = (1, 77, 512, 4096)
    found = [compiler.record(module, torch.bfloat16, 64, "_TILES", n) for n in lengths]
    assert len({tuple(launch.identity for launch in launches) for launches in found}) == 1


class _Copies(TorchFunctionMode):
    """Writes down where lists become tensors on a device: their copies wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, named = getattr(function, "__name__", ""), kwargs or {}
        made = name in ("tensor", "as_tensor") and not isinstance(args[0], torch.Tensor) and "device" in named
        places = args[1] if len(args) > 1 and isinstance(args[1], tuple) else args[1:2]
        if made or (name in ("__getitem__", "__setitem__") and any(isinstance(at, list) for at in places)):
            self.found.add(f"{name} in {traceback.extract_stack()[-2].name}")
        return function(*args, **named)


SOME_HEADS = """
    input b: float[n, n]
    heads {0, 1, 3} { attend window(9) score s + b[q, k] sink h }
    heads rest { attend causal & where (q - k) % 3 == 0 }
"""


def test_no_list_is_copied_to_the_device() -> None:
    """A copy waits for the device, and a CUDA graph cannot hold it."""
    with _Copies() as copies:
        torch.zeros(3)[:, None][[0, 1]], torch.tensor([1], device="cpu")
    assert len(copies.found) == 2
    modules = [compiler.example(name) for name in EXAMPLES]
    modules.append(compiler.load(attnc.compile(f"pattern p() {{ {SOME_HEADS} }}", "p"), "some_heads"))
    with _Copies() as copies:
        for module in modules:
            compiler.record(module, torch.bfloat16, 64, "_TILES")
        for name in dict.fromkeys(name for name, _ in summed.CASES):
            summed.launches.__wrapped__(name, 64)
    assert not copies.found


def test_a_forced_spill_is_seen() -> None:
    """The measure itself: a tile too large for the registers of its warps is spilled within the loop."""
    (launch,) = {
        launch.identity: launch
        for launch in compiler.launches("mistral", torch.bfloat16, 128, "_TILES")
        if launch.label == "_key_gradient_kernel"
    }.values()
    binary = compiler.build(launch.with_tile(64, 64, warps=4, stages=2), compiler.TARGETS["sm_90"])
    assert binary.spilled > 0 and compiler.spills_in_loops(binary.machine) > 0


def test_work_that_warps_do_twice_is_seen() -> None:
    """The measure itself: 8 warps on 64 keys, of which each has 16 rows of an instruction."""
    (launch,) = {
        launch.identity: launch
        for launch in compiler.launches("mistral", torch.bfloat16, 64, "_TILES")
        if launch.label == "_key_gradient_kernel"
    }.values()
    for warps, times in ((4, 1), (8, 2)):
        binary = compiler.build(launch.with_tile(32, 64, warps, stages=2), compiler.TARGETS["sm_90"])
        assert compiler.repeats(binary.intermediate) == times

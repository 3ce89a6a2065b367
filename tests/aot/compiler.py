"""Compiles the kernels of emitted modules for GPUs that are not there, and reads off what they will use.

A module is asked to launch its kernels; what it would launch is written down instead, and compiled for a
named target exactly as Triton would on that device.
"""

from __future__ import annotations

import atexit
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import attnc

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
_TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}

# The matrix instructions of Hopper, of Ampere and its kin, of Blackwell.
_PRODUCT = re.compile(r"\b(?:HGMMA|HMMA|UTCHMMA)\b")


def swept() -> list[str]:
    """The examples whose kernels sweep; the others are in ``summed``."""
    paths = sorted(EXAMPLES.glob("*.attn"))
    return [path.stem for path in paths if "kernel " not in path.read_text(encoding="utf-8")]


@dataclass(frozen=True)
class Target:
    """A kind of device: its architecture, and bytes of shared memory that a block may have.

    tiles: the name of the table of tile sizes that a module uses there.
    """

    name: str
    triton: GPUTarget
    shared: int
    tiles: str = "_TILES"


def _cuda(capability: int, shared: int, tiles: str = "_TILES") -> Target:
    measured = EXAMPLES.parent / "codegen" / "tiles" / f"sm_{capability}.json"
    tiles = f"_SM_{capability}_TILES" if measured.exists() else tiles
    return Target(f"sm_{capability}", GPUTarget("cuda", capability, 32), shared * 1024, tiles)


TARGETS = {
    target.name: target
    for target in (
        _cuda(80, 163),
        _cuda(90, 227),
        _cuda(100, 227),
        _cuda(86, 99, "_SMALL_TILES"),
        _cuda(89, 99, "_SMALL_TILES"),
        _cuda(120, 99, "_SMALL_TILES"),
        Target("gfx942", GPUTarget("hip", "gfx942", 64), 64 * 1024, "_HIP_TILES"),
    )
}


@dataclass(frozen=True)
class Launch:
    """A kernel and everything that its binary hangs on.

    types, constants and attributes are by the place of the argument, as Triton wants them.
    """

    kernel: Any
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    attributes: tuple[tuple[int, int], ...]
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    @property
    def label(self) -> str:
        """The kernel's name, and whether it is the binary for tiles that come in shares."""
        return self.name + " in shares" * self.in_shares

    @property
    def in_shares(self) -> bool:
        return bool(dict(self.constants).get("SHARES"))

    @property
    def kind(self) -> str:
        """``forward``, ``query_gradient`` or ``key_gradient``."""
        return re.sub(r"^_|(_kernel)?(_\d+)*$", "", self.name)

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices, and does not take all its rows one by one."""
        return bool(
            re.search(r"\b(_attend|_attend_products|_score_gradient|_add_value_gradient)\(", self.kernel.src)
        )

    @property
    def tile(self) -> str:
        constants = dict(self.constants)
        if "ROWS" in constants:  # joins what others found
            return f"{constants['ROWS']} rows"
        if "BLOCK" in constants:
            return f"{constants['BLOCK']} x {constants['BLOCK']}"
        return f"{constants['BLOCK_M']} x {constants['BLOCK_N']}"

    def with_tile(self, block_m: int, block_n: int, warps: int, stages: int) -> Launch:
        """The same launch with another tile size."""
        sizes = {"BLOCK_M": block_m, "BLOCK_N": block_n}
        constants = tuple((name, sizes.get(name, value)) for name, value in self.constants)
        return replace(self, constants=constants, options=(("num_stages", stages), ("num_warps", warps)))

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for launches of equal binaries: the code without names and comments, and the arguments."""
        lines = (line.split("  #")[0].rstrip() for line in self.kernel.src.splitlines())
        text = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
        text = text.replace(f"def {self.name}(", f"def _{self.kind}(")
        return (text, self.types, self.constants, self.attributes, self.options)


@dataclass(frozen=True)
class Binary:
    """What a compiled kernel uses.

    registers: of one thread. spilled: bytes a thread. shared: bytes a block. machine: the machine code, where
    something is spilled (not for AMD).
    """

    registers: int
    spilled: int
    shared: int
    machine: str
    assembly: str
    intermediate: str


class Recorder:
    """Stands in for a kernel: ``recorder[grid](**arguments)`` is written down."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert len(grid) == 1 and grid[0] > 0
        return lambda **arguments: self.launches.append(launch_of(self.kernel, arguments))


def launch_of(kernel: Any, arguments: dict[str, Any]) -> Launch:
    """What a launch with these arguments hangs on."""
    types, constants, attributes = [], [], []
    for place, parameter in enumerate(kernel.params):
        value = arguments.pop(parameter.name)
        kind, aligned = _kind(value)
        if parameter.is_constexpr or (kind == "i32" and value == 1 and not parameter.do_not_specialize):
            types.append((parameter.name, "constexpr"))
            constants.append((parameter.name, value))
            continue
        types.append((parameter.name, kind))
        if aligned and not parameter.do_not_specialize:
            attributes.append((place, 16))
    return Launch(kernel, tuple(types), tuple(constants), tuple(attributes), tuple(sorted(arguments.items())))


def _kind(value: Any) -> tuple[str, bool]:
    """Triton's name of an argument's type, and whether it is known to be a multiple of 16."""
    match value:
        case torch.Tensor():
            return _TYPES[value.dtype], value.data_ptr() % 16 == 0
        case bool():
            return "i1", False
        case int():
            return "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
        case float():
            return "fp32", False
    return "constexpr", False


@cache
def example(name: str) -> ModuleType:
    """An example's module with the constants of its paper."""
    return load(attnc.compile(EXAMPLES / f"{name}.attn", name), name)


@cache
def _modules() -> str:
    """The folder of all modules of this process, which leaves with it."""
    folder = tempfile.mkdtemp(prefix="attnc-aot-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def load(text: str, name: str) -> ModuleType:
    """A module's text as a module. It needs a file: Triton reads its kernels' source from there."""
    path = Path(tempfile.mkdtemp(dir=_modules())) / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"aot_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A module makes kernels only where they could run, or where it is told that they will.
    with patch.dict(os.environ, {"ATTNC_BACKEND": "triton"}):
        spec.loader.exec_module(module)
    return module


@cache
def launches(name: str, dtype: torch.dtype, dim: int, tiles: str) -> tuple[Launch, ...]:
    """What the forward and the backward of an example launch; 4 heads that share 2 key heads, 512 tokens.

    First as if tiles were many, then as if they were few.
    """
    many = record(example(name), dtype, dim, tiles)
    return (
        *many,
        *(found for found in record(example(name), dtype, dim, tiles, few=True) if found not in many),
    )


def record(
    module: ModuleType, dtype: torch.dtype, dim: int, tiles: str, n: int = 512, few: bool = False
) -> tuple[Launch, ...]:
    """What the forward and the backward of a module launch with one table of tile sizes.

    few: as if there were too few tiles for the device, so that they come in shares.
    """
    found: list[Launch] = []
    replaced = {
        "_QUERY_PASSES": _recorders(module._QUERY_PASSES, found),
        "_KEY_PASSES": _recorders(module._KEY_PASSES, found),
        "_tiles_of": lambda device: getattr(module, tiles),
        **{
            name: Recorder(getattr(module, name), found)
            for name in ("_join_kernel", "_sum_kernel")
            if hasattr(module, name)
        },
        **({"_PROGRAMS": 1 << 16 if few else 0, "_SHARE_STEPS": 1} if hasattr(module, "_PROGRAMS") else {}),
    }
    if hasattr(module, "_PAIR_KERNELS"):
        replaced["_PAIR_KERNELS"] = _recorders(module._PAIR_KERNELS, found)
    before = {key: getattr(module, key) for key in replaced}
    q = torch.zeros(1, 4, n, dim, dtype=dtype)
    k, v = torch.zeros(2, 1, 2, n, dim, dtype=dtype)
    dtypes = {"bool": torch.bool, "int": torch.int64, "float": torch.float32}
    inputs = [torch.zeros(shape(n, 4, dim), dtype=dtypes[kind]) for kind, shape in module.INPUTS.values()]
    if "sinks" in getattr(module, "WEIGHING", {}).values():
        inputs.append(torch.zeros(1, 4))
    try:
        for key, value in replaced.items():
            setattr(module, key, value)
        out, lse = module._forward_triton(q, k, v, inputs, 0.1)
        rows = (q, torch.zeros_like(lse), lse)
        grad, lse_grad, lse = module._divided(*rows) if hasattr(module, "_divided") else rows
        module._backward_triton(grad, lse_grad, q, k, v, inputs, out, lse, 0.1)
    finally:
        for key, value in before.items():
            setattr(module, key, value)
    return tuple(found)


def _recorders(passes: Any, found: list[Launch]) -> Any:
    """The table of passes with a recorder for every kernel in it."""
    if isinstance(passes, tuple):
        return tuple(_recorders(part, found) for part in passes)
    return Recorder(passes, found) if isinstance(passes, triton.JITFunction) else passes


def build(launch: Launch, target: Target) -> Binary:
    """The kernel for a target; Triton's own cache keeps it."""
    attributes = {(place,): [["tt.divisibility", multiple]] for place, multiple in launch.attributes}
    source = ASTSource(launch.kernel, dict(launch.types), dict(launch.constants), attributes)
    binary = triton.compile(source, target=target.triton, options=dict(launch.options))
    shared = int(binary.metadata.shared)
    if target.triton.backend == "hip":
        text = str(binary.asm["amdgcn"])
        numbers = {key: int(value) for key, value in re.findall(r"\.(\w+):\s+(\d+)", text)}
        return Binary(
            numbers["vgpr_count"],
            numbers["private_segment_fixed_size"],
            shared,
            "",
            text,
            str(binary.asm["ttgir"]),
        )
    used = dict(
        re.findall(
            r"(REG|STACK|LOCAL):(\d+)", _read("cuobjdump", "--dump-resource-usage", binary.asm["cubin"])
        )
    )
    spilled = int(used["STACK"]) + int(used["LOCAL"])
    # The disassembler takes longer than the compiler.
    machine = _read("nvdisasm", "-c", binary.asm["cubin"]) if spilled else ""
    return Binary(
        int(used["REG"]), spilled, shared, machine, str(binary.asm["ptx"]), str(binary.asm["ttgir"])
    )


def machine_code(launch: Launch, target: str = "sm_90") -> str:
    """The disassembled kernel for one of NVIDIA's devices."""
    attributes = {(place,): [["tt.divisibility", multiple]] for place, multiple in launch.attributes}
    source = ASTSource(launch.kernel, dict(launch.types), dict(launch.constants), attributes)
    binary = triton.compile(source, target=TARGETS[target].triton, options=dict(launch.options))
    return _read("nvdisasm", "-c", binary.asm["cubin"])


def _read(tool: str, option: str, cubin: bytes) -> str:
    """What one of the tools that come with Triton says about a binary."""
    path = Path(inspect.getfile(triton)).parent / "backends/nvidia/bin" / tool
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [str(path), option, file.name], check=True, capture_output=True, text=True
        ).stdout


def repeats(intermediate: str) -> float:
    """How many times warps make the same product, by the layouts of matrix products in TTGIR: 1 is once each.

    Warps beside those that a tile has rows for do what others do, exponentials of the product included.
    """
    layouts = {}
    for name, text in re.findall(r"(#\w+) = #ttg\.nvidia_mma<\{(.*?)\}>", intermediate):
        warps, shape = (
            [int(x) for x in re.search(rf"{key} = \[([\d, ]+)\]", text)[1].split(",")[:2]]  # type: ignore[index]
            for key in ("warpsPerCTA", "instrShape")
        )
        layouts[name] = [a * b for a, b in zip(warps, shape, strict=True)]
    products = re.findall(r"_?dot [^\n]*-> tensor<(\d+)x(\d+)xf32, (#\w+)>", intermediate)
    found = [
        prod(max(1.0, most / int(size)) for most, size in zip(layouts[layout], sizes, strict=True))
        for *sizes, layout in products
        if layout in layouts
    ]
    return max(found, default=1.0)


def spills_in_loops(machine: str) -> int:
    """Accesses to spilled registers within the innermost loops that multiply matrices, in machine code.

    What is spilled before such a loop and fetched after it, as the rows' addresses often are, costs nothing.
    """
    lines = machine.splitlines()
    labels = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"(\.L_x_\d+):", line))}
    jumps = [
        (labels[match[1]], i)
        for i, line in enumerate(lines)
        if (match := re.search(r"BRA.*(\.L_x_\d+)\)", line))
    ]
    loops = [(first, last) for first, last in jumps if first < last]
    inner = [loop for loop in loops if not any(a >= loop[0] and b < loop[1] for a, b in loops)]
    texts = ["\n".join(lines[first:last]) for first, last in inner]
    busy = [text for text in texts if _PRODUCT.search(text)]
    assert busy or not _PRODUCT.search(machine), (
        "the loops over tiles were not recognized in the machine code"
    )
    return sum(map(spills, busy))


def spills(machine: str) -> int:
    """Accesses to spilled registers."""
    return len(re.findall(r"\b(?:LDL|STL)\b", machine))

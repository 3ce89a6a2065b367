"""What every emitted module promises besides its numbers."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad

from attnc.codegen import module as emitter
from attnc.diagnostics import Source
from attnc.expression import (
    Drawn,
    N,
    walk,
)
from attnc.parser import parse
from attnc.pattern import formula
from tests import oracle
from tests.strategies import Call
from tests.test_examples_claims import SMALL
from tests.test_oracle_torch import call

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.attn"))
NAMED = {
    tree.name.text: path
    for path in EXAMPLES
    for tree in parse(Source(path.name, path.read_text(encoding="utf-8"))).patterns
}
SOME = ("longformer", "sparse_transformer_strided", "bigbird", "packed_documents", "axial")
interpreted = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def example(name: str) -> oracle.Compiled:
    params = tuple(SMALL.get(name, {}).items())
    return oracle.compiled(NAMED[name].read_text(encoding="utf-8"), params, name)


def arguments(done: oracle.Compiled, given: Call) -> tuple[oracle.Tensors, dict[str, torch.Tensor]]:
    return oracle.tensors(given)[0], oracle.inputs(done.pattern, given)


def small(n: int, n_q: int | None = None, **changes: Any) -> Call:
    return call(**{"n": n, "n_q": n if n_q is None else n_q, "dim": 16, "value_dim": 16, **changes})


# --- PyTorch's machinery --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_compiles_as_one_graph_for_all_lengths(name: str) -> None:
    torch._dynamo.reset()
    done = example(name)
    function = getattr(done.module, name)
    counter = CompileCounterWithBackend("aot_eager")
    fast = torch.compile(function, fullgraph=True, backend=counter)
    for n in (37, 52, 41, 64):
        args, tables = arguments(done, small(n))
        grad = torch.randn((1, 2, n, 16), generator=torch.Generator().manual_seed(n))
        results = []
        for run in (function, fast):
            out = run(*args, **tables)
            results.append((out.detach(), *torch.autograd.grad(out, args, grad)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    # One graph for the first length, and one for all others.
    assert counter.frame_count <= 2


@pytest.mark.parametrize("name", SOME)
def test_exports_for_all_lengths(name: str) -> None:
    done = example(name)

    class Layer(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any, tables: dict[str, Any]) -> Any:
            return getattr(done.module, name)(q, k, v, **tables)

    args, tables = arguments(done, small(37))
    args = tuple(x.detach() for x in args)
    length = torch.export.Dim("length", min=2, max=4096)
    shapes = (*[{2: length}] * 3, {key: {0: length} for key in tables})
    exported = torch.export.export(Layer(), (*args, tables), dynamic_shapes=shapes)
    for n in (37, 52):
        args, tables = arguments(done, small(n))
        want = getattr(done.module, name)(*args, **tables)
        assert torch.equal(exported.module()(*[x.detach() for x in args], tables), want.detach())


@pytest.mark.parametrize("name", NAMED)
def test_operators_keep_their_contract(name: str) -> None:
    done = example(name)
    args, tables = arguments(done, small(19, 13))
    given = oracle.operands(done.module, args, list(tables.values()))
    every = name in SOME
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        done.module._forward,
        (*args, *given, 0.25, "torch"),
        test_utils=(*tests, "test_aot_dispatch_dynamic") if every else tests,
    )
    found = [x.detach() for x in done.module._forward(*args, *given, 0.25, "torch")]
    plain, grads = [x.detach() for x in args], [torch.ones_like(x) for x in found]
    back = (*grads, *plain, *given, *found[:2], 0.25, "torch")
    torch.library.opcheck(done.module._backward, back, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", NAMED)
def test_repeats_to_the_bit(name: str) -> None:
    done, given = example(name), small(61, 47, batch=2)
    args, tables = arguments(done, given)
    grads = oracle.tensors(given)[1]
    first, second = (
        oracle.ours(done.module, args, grads, list(tables.values()), given, "torch") for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["longformer", "sparse_transformer_strided", "strided", "packed_documents"])
def test_fp64_gradients_are_those_of_the_function(name: str) -> None:
    done, given = example(name), small(11, 9, batch=1)
    args = oracle.tensors(given, torch.float64)[0]
    tables = oracle.inputs(done.pattern, given)
    args = tuple(x[..., :3].detach().requires_grad_() for x in args)
    assert torch.autograd.gradcheck(lambda *x: getattr(done.module, name)(*x, **tables), args)
    assert oracle.check(done, given, "torch", torch.float64) == []


# --- nothing is built or rebuilt ------------------------------------------------------------------------


def kernels(module: ModuleType) -> list[Any]:
    """Everything that is launched; building blocks are inlined into that."""
    jitted = [item for item in vars(module).values() if hasattr(item, "params") and hasattr(item, "fn")]
    return [item for item in jitted if any(param.name == "q_ptr" for param in item.params)]


# What a kernel is specialized on: dims and dtypes, tile sizes and the unit of strides. No length among them.
CONSTANTS = {
    "DIM",
    "VALUE_DIM",
    "BLOCK_DIM",
    "BLOCK_VALUE_DIM",
    "BLOCK_M",
    "BLOCK_N",
    "BLOCK",
    "UNIT",
    "PRECISION",
    "SHARES",  # whether tiles are so few that they come in shares: a binary for either, whatever the length
    "ADD",
    # Of states: kinds, numbers of features, sizes of blocks, the length that `cosine` has.
    *("KIND", "WIDTH", "LENGTH", "CHUNK", "BLOCKS", "BLOCK_F", "BLOCK_V", "TYPE"),
    *("CAUSAL", "GATED", "SEGMENTED", "NORMALIZED", "SUMMED", "STATE", "BEHIND", "LEAST"),
    # Of gates and of the delta rule.
    *(
        "BLOCK_VALUE",
        "COUNT",
        "SIZE",
        "ROWS",
        "COLUMNS",
        "GATES",
        "GATE_UNIT",
        "TOKEN",
        "SEGMENTS",
        "EXCLUSIVE",
    ),
    *("BONUS", "OWN", "DELTA", "INITIAL", "OPERAND", "SUMS"),
}


@pytest.mark.skipif(interpreted, reason="Triton's interpreter compiles nothing")
@pytest.mark.parametrize("name", NAMED)
def test_no_kernel_is_specialized_on_a_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a GPU kernels are left alone, unless one asks for them.
    monkeypatch.setenv("ATTNC_BACKEND", "triton")
    found = kernels(oracle.imported(example(name).text))
    assert len(found) >= 3
    for kernel in found:
        for param in kernel.params:
            if param.is_constexpr:
                assert param.name in CONSTANTS, (kernel, param.name)
            elif not param.name.endswith("_ptr") and param.name != "scale":
                assert param.do_not_specialize, (kernel, param.name)


@pytest.mark.parametrize("layout", ["contiguous", "heads inside", "slice"])
@pytest.mark.parametrize("dim", [16, 20, 64])
def test_constants_of_a_launch_do_not_hang_on_the_length(layout: str, dim: int) -> None:
    done, seen = example("mistral"), set()
    for n in range(2, 50, 3):
        args = oracle.tensors(small(n, n - 1, dim=dim, value_dim=dim, layout=layout))[0]
        launcher = done.module._Launcher(*args, [], 1.0)
        given = launcher.arguments(out=args[0].detach().contiguous())
        seen.add(tuple((key, given[key]) for key in sorted(CONSTANTS & given.keys())))
    assert len(seen) == 1


@pytest.mark.parametrize(("asked", "made"), [("highest", "ieee"), ("high", "tf32")])
def test_fp32_is_exact_unless_torch_is_told_otherwise(asked: str, made: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        args = oracle.tensors(small(8, 8, dtype="float32"))[0]
        assert example("causal").module._Launcher(*args, [], 1.0).arguments()["PRECISION"] == made
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", NAMED)
def test_closed_forms_build_no_tables(name: str) -> None:
    done = example(name)
    expressions = [formula(body.relation) for body in done.pattern.bodies]
    draws = any(isinstance(piece, Drawn) for expr in expressions for piece in walk(expr))
    sizes = []
    for n in (200, 2000):
        tables = list(oracle.inputs(done.pattern, small(n)).values())
        found = done.module._tables(tables, n, n, 2, torch.device("cpu"))
        if name in CLOSED_FORMS:
            assert found == {}
        sizes.append(sum(table.numel() for table in found.values() if table is not None))
    if done.pattern.inputs or draws:
        # Linear in the length, unless an input is declared as its square.
        squared = any(item.shape.count(N) > 1 for item in done.pattern.inputs)
        apart = hasattr(done.module, "_gates")  # gates and rates are handed to kernels by themselves
        assert sizes[1] > 0 or "sinks" in found or apart
        assert sizes[1] <= (110 if squared else 11) * sizes[0]


CLOSED_FORMS = {
    "causal", "dense", "dilated", "etc", "image_transformer_1d", "llama4_chunked", "mistral",
    "sparse_transformer_strided", "streaming_llm", "strided",
}  # fmt: skip


MEMORY = """
import resource, sys, importlib.util, torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("emitted", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["emitted"] = module
spec.loader.exec_module(module)

def peak(n):
    q, k, v = (torch.randn(1, 1, n, 16, requires_grad=True) for _ in range(3))
    module.p(q, k, v).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(peak(256), peak(4096), peak(16384))
"""


def test_memory_grows_with_the_length_and_not_its_square() -> None:
    module = oracle.compiled("pattern p() { attend window(63) }").module
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, module.__file__], capture_output=True, text=True, check=True
    )
    start, short, long = map(float, done.stdout.split())
    # In MiB; a mask of booleans alone would take 256, and scores in fp32 four times that.
    assert short - start < 60 and long - short < 60


# --- a file that stands alone ---------------------------------------------------------------------------

ALLOWED = {"__future__", "contextlib", "math", "os", "sys", "torch", "triton", "typing"}


@pytest.mark.parametrize("name", NAMED)
def test_imports_nothing_of_ours(name: str) -> None:
    found = set()
    for node in ast.walk(ast.parse(example(name).text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    assert found <= ALLOWED and "torch" in found


def test_no_two_parts_of_a_module_define_one_name() -> None:
    """A module of a new combination would take one for the other."""
    where: dict[str, set[str]] = {}
    for path in (Path(emitter.__file__).parent / "parts").glob("*.py"):
        text = "\n".join(emitter._sections(path.stem).values())
        for name in re.findall(r"^(?:def|class) (\w+)|^(\w+) = ", text, re.M):
            where.setdefault("".join(name), set()).add(path.stem)
    shared = {"interface", "states_interface"}  # a module has one of them
    assert {name: files for name, files in where.items() if len(files) > 1 and files != shared} == {}


def test_one_file_loads_under_two_names() -> None:
    done = example("longformer")
    one, two = oracle.imported(done.text, "twin_one"), oracle.imported(done.text, "twin_two")
    args, tables = arguments(done, small(20))
    assert torch.equal(one.longformer(*args, **tables), two.longformer(*args, **tables))


def test_checks_itself_when_run() -> None:
    module = oracle.compiled("pattern p() { input hub: bool[n] attend window(5) | to(hub) }").module
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(module.__file__)], capture_output=True, text=True, check=True, env=env
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert "largest error" in done.stdout and "nan" not in done.stdout
    exact = [row for row in rows if row and row[0] == "float32"]
    assert exact and all(float(row[4]) < 1e-5 and float(row[6]) < 1e-4 for row in exact)


HOSTILE = 'x"""\nimport os; os.abort()\n"""\\\r\n\N{LINE SEPARATOR}\N{RIGHT-TO-LEFT OVERRIDE}\0\x0c{}%s\\'


def test_no_text_breaks_out_of_the_module() -> None:
    source = (
        "pattern p(width: int = 3) {\n"
        '    # """ \\\n'
        '    attend window(width, # """ import os; os.abort()\n 1) | # \\\n to(first(2)) \n'
        '    require nonempty # """\n'
        '    assume edges <= n * # """ \\ os.abort()\n 99\n'
        "}\n"
    )
    done = oracle.planned(source)
    facts = replace(oracle.facts(done), source=HOSTILE)
    text = oracle.emit(done.pattern, done.schedule, facts)
    tree = ast.parse(text)
    assert [type(node).__name__ for node in tree.body[:2]] == ["Expr", "ImportFrom"]
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert "os.abort" not in calls
    assert all(c == "\n" or " " <= c <= "~" or c in "…" for c in text)
    assert oracle.imported(text).p(*oracle.tensors(small(9))[0]).shape == (1, 2, 9, 16)


# --- arguments ------------------------------------------------------------------------------------------


def bad_calls() -> dict[str, tuple[dict[str, Any], type[Exception], str]]:
    """By title: what is changed in a good call, the error, and what its message says."""
    four = torch.zeros(1, 2, 8, 16)
    return {
        "not a tensor": ({"q": [1.0]}, TypeError, "q must be a tensor, not list"),
        "three axes": ({"k": four[0]}, ValueError, r"k must be \(batch, heads, length, dim\).*\(2, 8, 16\)"),
        "sparse": ({"q": four.to_sparse()}, TypeError, "q must be a dense tensor, neither sparse nor nested"),
        "nested": (
            {"v": torch.nested.nested_tensor([four[0], four[0]])},
            TypeError,
            "v must be a dense tensor, neither sparse nor nested",
        ),
        "integers": ({"q": four.int()}, TypeError, "q must be float16, .* not torch.int32"),
        "two dtypes": (
            {"v": four.half()},
            TypeError,
            "v must have the dtype of q, torch.float32, not torch.float16",
        ),
        "two devices": ({"k": four.to("meta")}, ValueError, "k must be on the device of q, cpu, not on meta"),
        "two batches": (
            {"v": torch.zeros(3, 2, 8, 16)},
            ValueError,
            "v must have the batch size of q, 1, not 3",
        ),
        "dim 0": ({"q": four[..., :0]}, ValueError, "q must have a dim of 1 to 256, not 0"),
        "dim 257": ({"v": torch.zeros(1, 2, 8, 257)}, ValueError, "v must have a dim of 1 to 256, not 257"),
        "k and v": ({"v": four[:, :, :5]}, ValueError, r"k and v .* not \(2, 8\) and \(2, 5\)"),
        "q and k": ({"q": four[..., :8]}, ValueError, "q and k must have the same dim, not 8 and 16"),
        "heads": (
            {"q": torch.zeros(1, 3, 8, 16)},
            ValueError,
            "multiple of those of k, but they are 3 and 2",
        ),
        "no heads": ({"q": four[:, :0]}, ValueError, "multiple of those of k, but they are 0 and 2"),
        "queries": ({"q": torch.zeros(1, 2, 9, 16)}, ValueError, r"more queries \(9\) than keys \(8\)"),
        "scale": ({"scale": "0.5"}, TypeError, "scale must be a number, not str"),
        "scale that is a truth value": ({"scale": True}, TypeError, "scale must be a number, not bool"),
        "scale nan": ({"scale": float("nan")}, ValueError, "scale must be a finite number, not nan"),
        "scale inf": ({"scale": -float("inf")}, ValueError, "scale must be a finite number, not -inf"),
        "backend": ({"backend": "cuda"}, ValueError, "backend must be 'triton', 'torch' or None, not 'cuda'"),
        "input": ({"hub": None}, TypeError, "hub must be a tensor, not NoneType"),
        "input dtype": (
            {"hub": torch.zeros(8)},
            TypeError,
            "hub must be a tensor of booleans, not torch.float32",
        ),
        "int input": (
            {"doc": torch.zeros(8)},
            TypeError,
            "doc must be a tensor of integers, not torch.float32",
        ),
        "bool for int": (
            {"doc": torch.ones(8) > 0},
            TypeError,
            "doc must be a tensor of integers, not torch.bool",
        ),
        "input shape": (
            {"hub": torch.zeros(9, dtype=torch.bool)},
            ValueError,
            r"hub must have the shape \(8,\) or \(1, 8\), not \(9,\)",
        ),
        "input device": (
            {"hub": torch.zeros(8, dtype=torch.bool, device="meta")},
            ValueError,
            "hub must be on the device of q, cpu, not on meta",
        ),
    }


BAD = bad_calls()


@pytest.mark.parametrize("title", BAD)
def test_a_bad_argument_is_named_with_what_is_wanted(title: str) -> None:
    text = "pattern p() { input hub: bool[n] input doc: int[n] attend same(doc) | to(hub) }"
    module = oracle.compiled(text).module
    good: dict[str, Any] = {name: torch.zeros(1, 2, 8, 16) for name in "qkv"}
    good |= {"hub": torch.zeros(8, dtype=torch.bool), "doc": torch.zeros(8, dtype=torch.int64)}
    assert module.p(**good).shape == (1, 2, 8, 16)
    changes, error, message = BAD[title]
    with pytest.raises(error, match=f"p: .*{message}"):
        module.p(**(good | changes))


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_is_refused_and_not_dropped(name: str, grad: bool) -> None:
    module = oracle.compiled("pattern p() { attend window(3) }").module
    given = {one: torch.randn(1, 2, 8, 16) for one in "qkv"}
    words = f"p: {name} carries a tangent, and there is no forward mode: take gradients in reverse"
    x, tangent = given[name].clone().requires_grad_(grad), torch.ones(1, 2, 8, 16)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=words):
        module.p(**{**given, name: forward_ad.make_dual(x, tangent)})
    with pytest.raises(NotImplementedError, match=words):
        torch.func.jvp(lambda part: module.p(**{**given, name: part}), (given[name],), (tangent,))
    with forward_ad.dual_level():  # a level without a tangent in it is none of ours
        assert torch.equal(module.p(**given), module.p(**given))


def test_a_head_without_a_body_is_named() -> None:
    module = oracle.compiled("pattern p() { heads 0..2 { attend causal } }").module
    q = torch.zeros(1, 3, 8, 16)
    with pytest.raises(ValueError, match="head 2 of 3 has no body"):
        module.p(q, q, q)
    assert module.p(q[:, :2], q[:, :2], q[:, :2]).shape == (1, 2, 8, 16)


@pytest.mark.skipif(interpreted, reason="under Triton's interpreter the Triton path takes CPU tensors")
def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    module = oracle.compiled("pattern p() { attend window(5) }").module
    args = oracle.tensors(small(12))[0]
    plain = module.p(*args)
    monkeypatch.setenv("ATTNC_BACKEND", "torch")
    assert torch.equal(module.p(*args), plain)
    monkeypatch.setenv("ATTNC_BACKEND", "fast")
    with pytest.raises(ValueError, match="ATTNC_BACKEND must be triton or torch, not 'fast'"):
        module.p(*args)
    assert torch.equal(module.p(*args, backend="torch"), plain)
    monkeypatch.setenv("ATTNC_BACKEND", "triton")
    with pytest.raises(RuntimeError, match=r"needs tensors on a GPU.*TRITON_INTERPRET=1"):
        module.p(*args)
    with pytest.raises(RuntimeError, match="use backend='torch' for float64"):
        module.p(*[x.detach().double() for x in args])
    monkeypatch.setenv("ATTNC_BACKEND", "")
    assert torch.equal(module.p(*args), plain)


@pytest.mark.parametrize(
    "name", ["p", "bigbird", "t5", "retnet", "mamba2", "gla", "deltanet", "kimi_delta", "lolcats"]
)
def test_without_triton_the_torch_path_works_and_the_other_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of kernel: swept, with learned tables, through states, with gates, with the delta rule."""
    file = EXAMPLES[0].with_name(f"{name}.attn")
    plain = "pattern p() { attend window(5) }"
    text = oracle.compiled(file.read_text() if file.exists() else plain, name=name).text
    for missing in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, missing, None)
    module = oracle.imported(text)
    kinds = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}
    inputs = {
        name: torch.zeros(shape(*(12, 2, 16)[: shape.__code__.co_argcount]), dtype=kinds[kind])
        for name, (kind, shape) in module.INPUTS.items()
    }
    q, k, v = torch.randn(3, 1, 2, 12, 16).unbind()
    q.requires_grad_()
    attend = getattr(module, name)
    out = attend(q, k, v, **inputs)
    out.sum().backward()
    assert out.shape == (1, 2, 12, 16) and q.grad is not None
    with pytest.raises(
        RuntimeError, match=r"needs the package `triton`.*`pip install triton`, or use backend='torch'"
    ):
        attend(q, k, v, **inputs, backend="triton")
    # A tensor on a GPU takes the Triton path without being asked to.
    with pytest.raises(RuntimeError, match="tensors on a GPU take by default, needs the package `triton`"):
        module._path(torch.device("cuda"), torch.float32, None)


def test_kernels_are_launched_on_the_device_of_the_tensors() -> None:
    """Neither PyTorch's operators nor Triton make it the current one."""
    module = oracle.compiled("pattern p() { attend causal }").module
    with patch("torch.cuda.device") as device, module._on(torch.device("cuda", 1)):
        device.assert_called_once_with(torch.device("cuda", 1))
        device.return_value.__enter__.assert_called_once_with()

"""From a pattern to a ready function: the doors in Python, and the cache behind them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch

import attnc
from attnc import cache, fills, reference, runtime
from attnc.diagnostics import AttncError
from attnc.reference import attention

ROOT = Path(__file__).parent.parent
SLIDING = """pattern sliding(window: int = 5) {
    attend window(window - 1)
    require causal
}
"""
# What a formula in a report may use besides `n` and `count(x)`; README.md says the same.
FORMULA = {"floor", "ceiling", "log", "Mod", "Min", "Max"}
HUBS = "pattern hubs(reach: int = 2) { input hub: bool[n] attend window(reach, reach) | to(hub) }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a process that has loaded nothing yet."""
    home = tmp_path / "cache"
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(home))
    monkeypatch.setattr(runtime, "_functions", {})
    yield home


def tensors(n: int = 37, n_q: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, n if n_q is None else n_q, 16, generator=make)
    k, v = (torch.randn(2, 2, n, 16, generator=make) for _ in range(2))
    return q, k, v


def agrees(out: torch.Tensor, mask: torch.Tensor, n: int = 37, n_q: int | None = None) -> None:
    q, k, v = (part.double() for part in tensors(n, n_q))
    wanted, _ = attention(q, k, v, mask.numpy())
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)


# --- load -----------------------------------------------------------------------------------------------


def test_from_a_text_and_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "sliding.attn"
    path.write_text(SLIDING)
    for given in (SLIDING, path, str(path)):
        function = attnc.load(given, window=3)
        assert function.__name__ == "sliding"
        agrees(function(*tensors()), attnc.mask(given, 37, heads=4, window=3))


def test_fewer_queries_than_keys() -> None:
    agrees(attnc.load(SLIDING)(*tensors(37, 9)), attnc.mask(SLIDING, 37, heads=4, n_q=9), 37, 9)


def test_inputs() -> None:
    hub = torch.zeros(37, dtype=torch.bool)
    hub[[0, 20]] = True
    agrees(attnc.load(HUBS)(*tensors(), hub=hub), attnc.mask(HUBS, 37, heads=4, inputs={"hub": hub}))


def test_which_pattern() -> None:
    both = SLIDING + HUBS
    assert attnc.load(both, "hubs").__name__ == "hubs"
    with pytest.raises(AttncError, match="sliding"):
        attnc.load(both)
    with pytest.raises(AttncError, match="unknown-pattern"):
        attnc.load(both, "hub")


def test_parameters() -> None:
    awkward = "pattern p(n_q: int = 1, params: int = 2) { attend window(params * n_q) }"
    assert attnc.mask(awkward, 9, params={"n_q": 2, "params": 3}).sum() == 9 * 7 - 21
    assert attnc.mask(SLIDING, 9, window=np.int64(2)).sum() == 17
    assert attnc.mask(SLIDING, 9, window="2").sum() == 17
    with pytest.raises(AttncError, match="unknown-parameter"):
        attnc.load(SLIDING, windw=3)
    with pytest.raises(TypeError, match=r"'window' must be an int.*list"):
        attnc.load(SLIDING, window=[3])
    with pytest.raises(TypeError, match="given twice"):
        attnc.load(SLIDING, params={"window": 3}, window=3)


@pytest.mark.parametrize(
    ("kind", "value", "plain"),
    [
        ("int", np.int8(3), 3),
        ("int", torch.tensor([3]), 3),
        ("float", np.float32(0.5), 0.5),
        ("float", torch.tensor(0.5), 0.5),
        ("bool", np.bool_(True), True),
        ("bool", torch.tensor(True), True),
    ],
)
def test_scalars_of_numpy_and_torch_are_what_they_hold(kind: str, value: object, plain: object) -> None:
    use = {"int": "window(a)", "float": "causal score a * s", "bool": "self | where a and q == k + 1"}[kind]
    text = f"pattern p(a: {kind}) {{ attend {use} }}"
    assert attnc.compile(text, a=value) == attnc.compile(text, a=plain)


@pytest.mark.parametrize("value", [torch.tensor([2, 3]), np.array([2, 3]), torch.tensor(2, device="meta")])
def test_more_than_a_scalar_is_no_parameter(value: object) -> None:
    with pytest.raises(TypeError, match="parameter 'a' must be an int, a float or a bool; got"):
        attnc.compile("pattern p(a: int) { attend window(a) }", a=value)


def test_backends() -> None:
    with pytest.raises(ValueError, match="unknown backend 'cuda': choose 'triton' or 'torch'"):
        attnc.load(SLIDING, backend="cuda")
    plain, bound = attnc.load(SLIDING), attnc.load(SLIDING, backend="torch")
    assert bound.__name__ == "sliding" and bound.__doc__ == plain.__doc__
    assert inspect.signature(bound) == inspect.signature(plain)
    assert torch.equal(bound(*tensors()), plain(*tensors(), backend="torch"))


DOORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: attnc.load(None), TypeError, r"path of its file, .*; got None of type NoneType"),
    (lambda: attnc.load(3), TypeError, r"path of its file, .*; got 3 of type int"),
    (lambda: attnc.load(b"p.attn"), TypeError, "of type bytes"),
    (lambda: attnc.check(None), TypeError, "got None of type NoneType"),
    (lambda: attnc.compile(None), TypeError, "got None of type NoneType"),
    (lambda: attnc.mask(None, 5), TypeError, "got None of type NoneType"),
    (lambda: attnc.load(SLIDING, 3), TypeError, r"`pattern` names one .* got 3 of type int"),
    (lambda: attnc.check(SLIDING, pattern=["p"]), TypeError, r"`pattern` names one .* of type list"),
    (
        lambda: attnc.load(SLIDING, params=[3]),
        TypeError,
        r"`params` must map names .* got \[3\] of type list",
    ),
    (
        lambda: attnc.check(SLIDING, params={3: 4}),
        TypeError,
        "`params` must map names to values; 3 is no name",
    ),
    (lambda: attnc.mask(SLIDING, "5"), TypeError, "mask of `sliding`: n must be an integer, not '5'"),
    (lambda: attnc.mask(SLIDING, 2.5), TypeError, "mask of `sliding`: n must be an integer, not 2.5"),
    (lambda: attnc.mask(SLIDING, 5, n_q=6), ValueError, "n_q must be at most n = 5, not 6"),
    (lambda: attnc.mask(SLIDING, 10**7), ValueError, "would have 1 x 10000000 x 10000000 entries"),
    (lambda: attnc.mask(SLIDING, 5, inputs=[3]), TypeError, "`inputs` must map names to tensors.* got list"),
]


@pytest.mark.parametrize(("call", "kind", "words"), DOORS)
def test_arguments_of_another_kind(call: Callable[[], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot read 'nowhere\.attn': there is no such file"):
        attnc.load("nowhere.attn")


def test_warnings_of_the_compiler() -> None:
    with pytest.warns(UserWarning, match="unused-name"):
        attnc.load("pattern p(spare: int = 1) { attend causal }")


# --- check, compile, mask -------------------------------------------------------------------------------


def test_check() -> None:
    report = attnc.check(SLIDING, window=3)
    assert report.ok and [pattern.name for pattern in report.patterns] == ["sliding"]
    assert "sliding(window = 3)" in str(report)
    report = attnc.check("pattern p() { attend window(1, 1) require causal }")
    assert not report.ok and report.diagnostics[0].code == "not-causal"
    assert report.to_json()["patterns"][0]["causal"]["witness"] == {"q": 0, "k": 1, "n": 2}
    assert [found.code for found in attnc.check("pattern p() {").diagnostics]


@pytest.mark.parametrize(
    "relation",
    ["window(5)", "window(5, dilation=2)", "stride(6)", "offsets(powers(2))", "chunk(7) & causal | to(hub)"],
)
def test_the_formula_in_json_is_made_of_what_the_readme_says(relation: str) -> None:
    given = "input hub: bool[n]" if "hub" in relation else ""
    text = f"pattern p() {{ {given} attend {relation} }}"
    (found,) = attnc.check(text).to_json()["patterns"]
    assert set(re.findall(r"[A-Za-z_]\w*", found["edges"])) <= FORMULA | {"n", "count", "hub"}
    hub = np.arange(64) % 9 == 4
    for n in range(1, 64, 7):
        names = {name: getattr(sympy, name) for name in FORMULA} | {"n": n, "hub": 0}
        edges = int(sympy.sympify(found["edges"], {**names, "count": lambda _, n=n: hub[:n].sum()}))
        real = int(attnc.mask(text, n, inputs={"hub": hub[:n]} if given else None).sum())
        assert edges == real if found["exact"] else edges >= real
        if n >= found["steady_from"] and not given:
            assert sympy.sympify(found["steady"], names) == edges


def test_what_the_tiles_compute_is_told_body_by_body() -> None:
    """Beside the edges as they are counted by hand; tiles on the diagonal are all that is wasted."""
    text = "pattern p() { heads even { attend causal } heads rest { attend stride(64) & causal } }"
    report = attnc.check(text)
    (found,) = report.to_json()["patterns"]
    assert [item["heads"] for item in found["computed"]] == ["even", "rest"]
    for item, step in zip(found["computed"], (1, 64), strict=True):
        n, tokens = item["n"], item["n"] // step
        assert item["edges"] == step * tokens * (tokens + 1) // 2
        assert item["edges"] <= item["computed"] <= 1.2 * item["edges"]
        assert item["ratio"] == item["computed"] / item["edges"]
        heads = f"pairs computed for an edge of heads {item['heads']} at n = {n}"
        assert f"{item['ratio']:.2f} {heads}" in str(report)


@pytest.mark.parametrize("relation", ["same(doc) & causal", "to(hub)", "window(3) | from(hub)"])
def test_what_inputs_decide_is_counted_for_sample_inputs(relation: str) -> None:
    text = f"pattern p() {{ input doc: int[n] input hub: bool[n] attend {relation} }}"
    report = attnc.check(text)
    [found] = report.to_json()["patterns"][0]["computed"]
    pattern = report.patterns[0].made.pattern
    sample = fills.filled(pattern, found["n"], 1)
    assert found["edges"] == int(reference.mask(pattern, found["n"], 1, sample).sum())
    assert found["edges"] <= found["computed"] <= found["n"] ** 2
    assert found["inputs"] == ("doc=runs:8" if "doc" in relation else "hub=spread:5")
    told = f"{found['ratio']:.2f} pairs computed for an edge at n = {found['n']}, for sample inputs ("
    assert f"{told}{found['inputs']})" in str(report)


def test_check_of_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.attn"
    path.write_bytes(b"\0")
    assert [found.code for found in attnc.check(path).diagnostics] == ["not-text"]


def test_compile_gives_the_module(tmp_path: Path) -> None:
    text = attnc.compile(SLIDING, window=3)
    assert "generated by attnc" in text.splitlines()[0]
    (tmp_path / "alone.py").write_text(text)
    lines = (
        "import sys, torch, alone",
        "out = alone.sliding(*torch.ones(3, 1, 1, 9, 8))",
        "assert not any(name.split('.')[0] == 'attnc' for name in sys.modules)",
        "assert torch.allclose(out, torch.ones(1, 1, 9, 8))",
    )
    subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=_bare(), check=True, timeout=120
    )


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_mask_of_inputs_with_a_batch() -> None:
    hub = torch.zeros(3, 9, dtype=torch.bool)
    hub[1, 8] = True
    mask = attnc.mask(HUBS, 9, heads=2, inputs={"hub": hub})
    assert mask.shape == (3, 2, 9, 9) and mask.dtype == torch.bool
    assert mask[1, 0, 0].tolist() == [True, True, True, *[False] * 5, True]
    with pytest.raises(TypeError, match=r"needs its input `hub`: give `inputs=\{'hub': …\}`"):
        attnc.mask(HUBS, 9)
    with pytest.raises(TypeError, match=r"'hub' is no number: inputs are given as `inputs=\{'hub': …\}`"):
        attnc.mask(HUBS, 9, hub=hub)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_mask_of_integers_of_every_width(dtype: str) -> None:
    """A sum of small integers does not wrap, and neither does the difference of unsigned ones."""
    text = "pattern p() { input x: int[n] attend where x[q] + x[k] > 200 | where x[q] - x[k] < -20 }"
    wide = torch.arange(30) * 4
    wanted = (wide[:, None] + wide > 200) | (wide[:, None] - wide < -20)
    assert torch.equal(attnc.mask(text, 30, inputs={"x": wide.to(getattr(torch, dtype))})[0], wanted)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn"])
def test_mask_beside_tables_of_every_dtype(dtype: str) -> None:
    text = "pattern p() { input bias: float[n] attend causal score s + bias[k] }"
    given = torch.zeros(5).to(getattr(torch, dtype))
    assert torch.equal(attnc.mask(text, 5, inputs={"bias": given})[0], torch.ones(5, 5).tril().bool())


# --- the cache ------------------------------------------------------------------------------------------


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_functions", {})


def count_compiles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from attnc import pipeline

    done: list[str] = []
    real = pipeline.compile_pattern

    def counted(request: Any, *more: Any) -> Any:
        done.append(request.source.text)
        return real(request, *more)

    monkeypatch.setattr(pipeline, "compile_pattern", counted)
    return done


def test_compiled_once(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    compiles = count_compiles(monkeypatch)
    first = attnc.load(SLIDING)
    assert attnc.load(SLIDING) is first and len(compiles) == 1
    forget(monkeypatch)
    again = attnc.load(SLIDING)
    assert inspect.unwrap(again) is inspect.unwrap(first) and len(compiles) == 1, "one module for one text"
    moved = tmp_path / "elsewhere.attn"
    moved.write_text(SLIDING)
    assert attnc.load(moved) is again and len(compiles) == 1
    assert attnc.load(SLIDING, window=6) is not first and len(compiles) == 2
    assert len(list(folder.glob("*.py"))) == 2


def test_equal_parameters_are_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    compiles = count_compiles(monkeypatch)
    made = attnc.load(SLIDING), attnc.load(SLIDING, window=5), attnc.load(SLIDING, window="5")
    functions = {inspect.unwrap(function) for function in made}
    assert len(functions) == 1 and len(compiles) == 3


def test_a_damaged_entry_is_rebuilt(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    compiles = count_compiles(monkeypatch)
    attnc.load(SLIDING)
    (entry,) = folder.glob("*.py")
    good = entry.read_bytes()
    entry.write_bytes(good.replace(b"def sliding", b"raise SystemExit\ndef sliding"))
    forget(monkeypatch)
    with pytest.warns(UserWarning, match="damaged"):
        function = attnc.load(SLIDING)
    agrees(function(*tensors()), attnc.mask(SLIDING, 37, heads=4))
    assert len(compiles) == 2 and entry.read_bytes() == good


def test_an_unusable_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(blocked))
    with pytest.warns(UserWarning, match="cannot be used"):
        function = attnc.load(SLIDING, window=7)
    agrees(function(*tensors()), attnc.mask(SLIDING, 37, heads=4, window=7))


def test_errors_are_not_kept(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(AttncError):
            attnc.load("pattern p() { attend window(1, 1) require causal }")
    assert not list(folder.glob("*.py"))


RACE = """
import os, sys, attnc, torch
text = sys.stdin.read()
q = torch.ones(1, 1, 9, 8)
print(attnc.load(text)(q, q, q).sum().item())
"""


def test_two_processes_at_once(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(SLIDING)
        process.stdin.close()
        process.stdin = None
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert float(out) == 72
    assert len(list(folder.glob("*.py"))) == 1 and not list(folder.glob(".*"))


CACHED = """
import sys, time
import torch, triton, attnc
start = time.perf_counter()
function = attnc.load(sys.argv[1])
took = time.perf_counter() - start
heavy = {"z3", "sympy.core", "lark", "networkx"} & set(sys.modules)
print(took, sorted({"z3", "lark", "attnc.pipeline"} & set(sys.modules)))
"""


def test_a_cached_load_needs_no_compiler(tmp_path: Path) -> None:
    path = tmp_path / "sliding.attn"
    path.write_text(SLIDING)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", CACHED, str(path)]
    first = subprocess.run(words, capture_output=True, text=True, env=env, check=True, timeout=120)
    assert "attnc.pipeline" in first.stdout
    second = subprocess.run(words, capture_output=True, text=True, env=env, check=True, timeout=120)
    assert re.fullmatch(r"[0-9.e-]+ \[\]\n", second.stdout)


def test_nothing_is_said_without_need() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attnc.load(SLIDING, window=11)
        attnc.load(SLIDING, window=11)


def test_the_key_follows_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    compiles = count_compiles(monkeypatch)
    attnc.load(SLIDING)
    monkeypatch.setattr(cache, "code_version", lambda: "another")
    forget(monkeypatch)
    attnc.load(SLIDING)
    assert len(compiles) == 2

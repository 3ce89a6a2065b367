"""``@attention_pattern``: the signature is the function's, the attention is the pattern's."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc import attention_pattern
from attnc.diagnostics import AttncError
from attnc.reference import attention

HERE = Path(__file__)
SLIDING = "pattern sliding(window: int = 5) { attend window(window - 1) require causal }\n"
HUBS = "pattern hubs(reach: int = 2) { input hub: bool[n] attend window(reach, reach) | to(hub) }\n"


def tensors(n: int = 37) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 16, generator=make) for _ in range(3))
    return q, k, v


def agrees(out: torch.Tensor, mask: torch.Tensor) -> None:
    wanted, _ = attention(*(part.double() for part in tensors()), mask.numpy())
    torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)


def test_a_pattern_in_the_docstring() -> None:
    @attention_pattern
    def tail(q: Any, k: Any, v: Any, *, window: int = 5) -> Any:
        """
        attend window(window - 1)  # the last few
        require causal
        """

    agrees(tail(*tensors()), attnc.mask(SLIDING, 37, heads=2))
    agrees(tail(*tensors(), window=9), attnc.mask(SLIDING, 37, heads=2, window=9))
    agrees(tail(*tensors(), window=5), attnc.mask(SLIDING, 37, heads=2))
    assert tail.__name__ == "tail" and "the last few" in (tail.__doc__ or "")
    assert str(inspect.signature(tail)).startswith("(q: 'Any', k: 'Any', v: 'Any', *, window: 'int' = 5)")


def test_brackets_without_a_path() -> None:
    @attention_pattern(backend="torch")
    def everything(q: Any, k: Any, v: Any) -> Any:
        "attend all"

    agrees(everything(*tensors()), attnc.mask("pattern p() { attend all }", 37, heads=2))


def test_inputs_and_what_is_passed_on() -> None:
    @attention_pattern
    def hubs(q: Any, k: Any, v: Any, *, hub: torch.Tensor, scale: float | None = None, reach: int = 2) -> Any:
        """
        input hub: bool[n]
        attend window(reach, reach) | to(hub)
        """

    hub = torch.arange(37) % 10 == 3
    agrees(hubs(*tensors(), hub=hub), attnc.mask(HUBS, 37, heads=2, inputs={"hub": hub}))
    q, k, v = tensors()
    agrees(hubs(q * 2, k, v, hub=hub, scale=0.125), attnc.mask(HUBS, 37, heads=2, inputs={"hub": hub}))
    with pytest.raises(TypeError, match=r"hubs\(\) got an unexpected keyword argument 'backend'"):
        hubs(q, k, v, hub=hub, backend="torch")
    with pytest.raises(TypeError, match="hub"):
        hubs(q, k, v)


# --- a pattern in a file --------------------------------------------------------------------------------


def define(tmp_path: Path, python: str, **files: str) -> Any:
    """Imports a module that stands in a folder of its own, with pattern files beside it."""
    import importlib.util

    folder = tmp_path / "package"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.attn").write_text(text)
    path = folder / "module.py"
    path.write_text("from attnc import attention_pattern\n" + python)
    spec = importlib.util.spec_from_file_location("module", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_beside_the_function(tmp_path: Path) -> None:
    module = define(
        tmp_path,
        '@attention_pattern("both.attn", window=3)\n'
        "def sliding(q, k, v):\n"
        "    'Reads the last three.'\n"
        '@attention_pattern("both.attn", "hubs")\n'
        "def other(q, k, v, *, hub, reach: int = 1): ...\n",
        both=SLIDING + HUBS,
    )
    agrees(module.sliding(*tensors()), attnc.mask(SLIDING, 37, heads=2, window=3))
    assert module.sliding.__doc__ == "Reads the last three."
    hub = torch.arange(37) % 10 == 3
    for reach in (1, 4):
        mask = attnc.mask(HUBS, 37, heads=2, inputs={"hub": hub}, reach=reach)
        agrees(module.other(*tensors(), hub=hub, reach=reach), mask)


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v): ...', "also has the inputs hub: add"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub, tub): ...', "no inputs tub: leave"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, *, hub): ...', "starts with `q, k, v`"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v=None, *, hub): ...', "starts with `q, k, v`"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *rest, hub): ...', "name every argument"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub, **more): ...', "name every argument"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub=None): ...', "needs the annotation"),
        (
            '@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub, state=None): ...',
            "takes and returns no states",
        ),
        (
            "@attention_pattern\ndef f(q, k, v, *, return_state: bool = False): ...",
            "takes and returns no states",
        ),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub, reach: int): ...', "needs a default"),
        ('@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub, reach: int = 0.5): ...', "no int"),
        (
            '@attention_pattern("p.attn", reach=3)\ndef hubs(q, k, v, *, hub, reach: int = 2): ...',
            "leave out one",
        ),
        ("@attention_pattern\ndef hubs(q, k, v, *, hub): ...", "has no docstring"),
        ('@attention_pattern(pattern="hubs")\ndef hubs(q, k, v, *, hub): "attend all"', "there is no file"),
        ("attention_pattern(3)", "takes a pattern file's path"),
        ("attention_pattern('pattern p() { attend all }')", "write its body into the function's docstring"),
        ('attention_pattern("p.attn")(3)', "decorates functions"),
        ("class A:\n @attention_pattern\n def m(self, q, k, v): 'attend all'", "starts with `self, q, k, v`"),
        ("class A:\n @attention_pattern\n def m(self, q, k, v): 'attend all'", "put `@staticmethod` above"),
        ("@attention_pattern\nasync def f(q, k, v): 'attend all'", "write `def` in place of `async def`"),
        ("@attention_pattern\nasync def f(q, k, v):\n 'attend all'\n yield", "not awaited"),
        ("@attention_pattern\ndef f(q, k, v):\n 'attend all'\n return q + k", "would never run"),
        ("@attention_pattern\ndef f(q, k, v):\n 'attend all'\n q = q * 2", "would never run"),
        ("@attention_pattern\ndef f(q, k, v):\n 'attend all'\n return 3", "would never run"),
        ("@attention_pattern\ndef f(q, k, v):\n 'attend all'\n yield", "would never run"),
        (
            '@attention_pattern("p.attn")\ndef hubs(q, k, v, *, hub): return None if hub is None else q',
            "would never run",
        ),
    ],
)
def test_signatures_that_do_not_fit(tmp_path: Path, python: str, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        define(tmp_path, python, p=HUBS)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "body", ["'attend all'", "'attend all'\n  ...", "'attend all'\n  pass\n  ...\n  return"]
)
def test_bodies_that_do_nothing(tmp_path: Path, body: str) -> None:
    python = f"class A:\n @staticmethod\n @attention_pattern\n def f(q, k, v):\n  {body}"
    module = define(tmp_path, python)
    agrees(module.A.f(*tensors()), attnc.mask("pattern p() { attend all }", 37, heads=2))


def test_without_docstrings(tmp_path: Path) -> None:
    script = "from attnc import attention_pattern\n@attention_pattern\ndef f(q, k, v): 'attend all'\n"
    done = subprocess.run(
        [sys.executable, "-OO", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        timeout=120,
    )
    assert "has no docstring" in done.stderr and "`python -OO` takes docstrings away" in done.stderr


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"package.missing\.attn"):
        define(tmp_path, '@attention_pattern("missing.attn")\ndef f(q, k, v): ...')
    with pytest.raises(ValueError, match="unknown backend"):
        define(tmp_path, '@attention_pattern(backend="tpu")\ndef f(q, k, v): "attend all"')
    with pytest.raises(AttncError, match="unknown-parameter"):
        define(tmp_path, '@attention_pattern("p.attn")\ndef f(q, k, v, *, hub, wide: int = 1): ...', p=HUBS)


# --- messages point into the Python file ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "line", "column"),
    [
        ('    """\n    attend nonsense\n    """', 5, 12),
        ('    """attend nonsense"""', 4, 15),
        ('    r"""attend nonsense"""', 4, 16),
        ("    'attend nonsense'", 4, 13),
        ('    """\n    # é\n    attend (\n        nonsense)"""', 7, 9),
    ],
)
def test_places_in_the_python_file(tmp_path: Path, docstring: str, line: int, column: int) -> None:
    with pytest.raises(AttncError) as caught:
        define(tmp_path, f"@attention_pattern\ndef f(q, k, v):\n{docstring}\n")
    path = tmp_path / "package" / "module.py"
    assert f"{path}:{line}:{column}" in str(caught.value)
    assert path.read_text().splitlines()[line - 1][column - 1 :].startswith("nonsense")


def test_a_value_that_is_no_number() -> None:
    @attention_pattern
    def tail(q: Any, k: Any, v: Any, *, window: int = 5) -> Any:
        """attend window(window - 1)"""

    for value, words in (([2], r"'window' must be an int, .*; got \[2\] of type list"), (None, "NoneType")):
        with pytest.raises(TypeError, match=words):
            tail(*tensors(), window=value)
    agrees(tail(*tensors(), window=torch.tensor(3)), attnc.mask(SLIDING, 37, heads=2, window=3))


def test_a_whole_pattern_in_the_docstring(tmp_path: Path) -> None:
    python = "@attention_pattern\ndef f(q, k, v):\n  'pattern f() { attend all }'\n"
    with pytest.raises(AttncError, match="only the body of a pattern stands in a docstring") as caught:
        define(tmp_path, python)
    assert "module.py:4:4\n" in str(caught.value) and "leave out `pattern …(…) {`" in str(caught.value)


def test_a_function_without_a_file() -> None:
    space: dict[str, Any] = {"attention_pattern": attention_pattern}
    with pytest.raises(AttncError, match="<docstring of f>"):
        exec("@attention_pattern\ndef f(q, k, v):\n  'attend nonsense'", space)
    exec("@attention_pattern\ndef f(q, k, v):\n  'attend causal'", space)
    agrees(space["f"](*tensors()), attnc.mask("pattern p() { attend causal }", 37, heads=2))


def test_places_of_what_the_signature_says(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"module\.py:4:"):
        define(tmp_path, '@attention_pattern\ndef f(q, k, v, *, spare: int = 1):\n  """attend all"""')
    with pytest.raises(AttncError, match=r"module\.py:4:"):
        define(tmp_path, '@attention_pattern\ndef _hidden(q, k, v):\n  """attend all"""')


# --- torch.compile --------------------------------------------------------------------------------------


def test_no_graph_breaks() -> None:
    @attention_pattern
    def tail(q: Any, k: Any, v: Any, *, window: int = 5) -> Any:
        """attend window(window - 1)"""

    whole = torch.compile(
        lambda q, k, v: tail(q, k, v) + tail(q, k, v, window=5), fullgraph=True, backend="eager"
    )
    out = whole(*tensors())
    torch.testing.assert_close(out, 2 * tail(*tensors()))

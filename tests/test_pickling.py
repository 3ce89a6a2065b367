"""What attnc makes comes back in another process that has attnc, and nothing of the first one's cache."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attnc
from attnc import attention_pattern, runtime

ROOT = Path(__file__).parent.parent
NEAR = "pattern near(w: int = 4) { attend window(w) & causal }\npattern far() { attend all }"
DOC = torch.arange(20) // 7
Q, K, V = torch.randn(3, 1, 2, 20, 16, generator=torch.Generator().manual_seed(0))
X = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(1))


@attention_pattern
def documents(q, k, v, *, doc: torch.Tensor, w: int = 5, scale: float | None = None):  # type: ignore[no-untyped-def]
    """
    input doc: int[n]
    attend window(w) & same(doc)
    """


class Layer(nn.Module):
    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **inputs: Any) -> torch.Tensor:
        found: torch.Tensor = self.attention(q, k, v, **inputs)
        return found


def local() -> Any:
    @attention_pattern
    def inner(q, k, v, *, w: int = 2):  # type: ignore[no-untyped-def]
        """attend window(w)"""

    return inner


def made(name: str, folder: Path) -> tuple[Any, tuple[torch.Tensor, ...], dict[str, Any]]:
    """Something to pickle, and what it is called with."""
    qkv = (Q, K, V)
    match name:
        case "load":
            return attnc.load(NEAR, "near", w=7), qkv, {}
        case "load a file":
            (folder / "near.attn").write_text(NEAR)
            return attnc.load(folder / "near.attn", "near", w=6), qkv, {}
        case "backend":
            return attnc.load(NEAR, "near", backend="torch"), qkv, {}
        case "decorated":
            return documents, qkv, {"doc": DOC}
        case "another parameter":
            return documents, qkv, {"doc": DOC, "w": 3, "scale": 0.5}
        case "decorated inside of a function":
            return local(), qkv, {}
        case "from_mask_mod":
            return attnc.from_mask_mod(lambda b, h, q, k: (k <= q) & (DOC[q] == DOC[k])), qkv, {}
        case "from_mask":
            return attnc.from_mask(torch.ones(20, 20, dtype=torch.bool).tril()), qkv, {}
        case "PatternAttention":
            return (
                attnc.nn.PatternAttention(32, 2, batch_first=True, pattern=NEAR, name="near"),
                (X, X, X),
                {},
            )
        case "replaced":
            layer = nn.TransformerEncoderLayer(32, 2, dim_feedforward=32, dropout=0.0, batch_first=True)
            return attnc.nn.replace(layer, pattern=NEAR, name="near"), (X,), {}
    raise AssertionError(name)


NAMES = (
    *("load", "load a file", "backend", "decorated", "another parameter", "decorated inside of a function"),
    *("from_mask_mod", "from_mask", "PatternAttention", "replaced"),
)

# Module by module, so that one that cannot be unpickled does not hide the others. The last line has no cache.
CHILD = """
import pickle, sys, torch
folder, *names = sys.argv[1:]
for name in names:
    try:
        thing, args, kwargs = torch.load(f"{folder}/{name}.pt", weights_only=False)
        torch.save((thing(*args, **kwargs), repr(thing)), f"{folder}/{name}.out")
    except Exception as error:
        print(name, repr(error))
assert "tests" not in sys.modules and not any(name.startswith("tests.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what another process made of what this one saved."""
    folder = tmp_path_factory.mktemp("pickles")
    for name in NAMES:
        torch.save(made(name, folder), folder / f"{name}.pt")
    (folder / "near.attn").unlink()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ATTNC_CACHE_DIR": str(folder / "cache")}
    words = [sys.executable, "-c", CHILD, str(folder), *NAMES]
    done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_back_in_another_process(elsewhere: Path, tmp_path: Path, name: str) -> None:
    thing, args, kwargs = torch.load(elsewhere / f"{name}.pt", weights_only=False)
    out, shown = torch.load(elsewhere / f"{name}.out", weights_only=False)
    wanted = thing(*args, **kwargs)
    for x, y in zip(*((x if isinstance(x, tuple) else (x,)) for x in (out, wanted)), strict=True):
        assert x is y is None or torch.equal(x, y)
    assert re.sub("[\"']", "", shown) == re.sub("[\"']", "", repr(thing))


@pytest.mark.parametrize("name", ["load", "decorated", "decorated inside of a function"])
def test_in_its_own_process_it_is_the_same(tmp_path: Path, name: str) -> None:
    thing, args, kwargs = made(name, tmp_path)
    assert copy.copy(thing) is thing and copy.deepcopy(thing) is thing
    back = pickle.loads(pickle.dumps(thing))
    assert (back is thing) == (name != "decorated inside of a function")
    assert torch.equal(back(*args, **kwargs), thing(*args, **kwargs))
    assert back.__name__ == thing.__name__ and back.__doc__ == thing.__doc__


def test_a_name_that_now_means_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pickle.dumps(documents)
    wanted = documents(Q, K, V, doc=DOC)

    def other(q, k, v, *, doc, w: int = 1, scale=None):  # type: ignore[no-untyped-def]
        """
        input doc: int[n]
        attend window(w) & same(doc)
        """

    other.__name__ = other.__qualname__ = "documents"
    monkeypatch.setattr(sys.modules[__name__], "documents", attention_pattern(other))
    assert torch.equal(pickle.loads(kept)(Q, K, V, doc=DOC), wanted)


def test_what_does_not_compile_says_so_when_it_is_unpickled() -> None:
    """As where another version of attnc refuses the pattern."""
    kept = pickle.dumps(attnc.load("pattern odd() { attend window(3) }"))
    harmed = kept.replace(b"attend window(3)", b"attend vindow(3)")
    assert harmed != kept
    with pytest.raises(attnc.AttncError, match="vindow"):
        pickle.loads(harmed)


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    """A data set whose workers call attention functions."""

    def __init__(self, *attentions: Any) -> None:
        self.attentions = attentions

    def __len__(self) -> int:
        return len(self.attentions)

    def __getitem__(self, i: int) -> torch.Tensor:
        found: torch.Tensor = self.attentions[i](Q, K, V)[0]
        return found


LOADER = """
import torch, attnc
from tests.test_pickling import NEAR, Q, K, V, Rows, local

if __name__ == "__main__":
    rows = Rows(attnc.load(NEAR, "near"), local())
    (found,) = torch.utils.data.DataLoader(rows, 2, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(found, torch.stack([rows[0], rows[1]]))
    print("done")
"""


def test_workers_that_are_spawned(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LOADER)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout == "done\n", done.stderr


# --- exported programs ----------------------------------------------------------------------------------

EXPORTED = """
import sys, torch, attnc
folder = sys.argv[1]
try:
    torch.export.load(f"{folder}/layer.pt2")
except Exception:
    print("refused")
attnc.load(f"{folder}/moved.attn", "near", w=3)  # from another place, and from no cache
program = torch.export.load(f"{folder}/layer.pt2").module()
qkv = torch.load(f"{folder}/qkv.pt")
torch.save(program(*qkv), f"{folder}/out.pt")
"""


def test_an_exported_program_needs_its_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README says that `attnc.load` brings them: their names are the same in every process."""
    monkeypatch.setattr(runtime, "_functions", {})
    for name in ("near.attn", "moved.attn"):
        (tmp_path / name).write_text(NEAR)
    layer = Layer(attnc.load(tmp_path / "near.attn", "near", w=3))
    torch.export.save(torch.export.export(layer, (Q, K, V)), tmp_path / "layer.pt2")
    torch.save((Q, K, V), tmp_path / "qkv.pt")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ATTNC_CACHE_DIR": str(tmp_path / "cache")}
    words = [sys.executable, "-c", EXPORTED, str(tmp_path)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n"
    assert "Please import the custom op" in done.stderr and "attnc.near_" in done.stderr
    assert torch.equal(torch.load(tmp_path / "out.pt"), layer(Q, K, V))


def test_the_same_code_is_one_module_wherever_its_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_functions", {})
    texts = []
    for name in ("one.attn", "two.attn"):
        (tmp_path / name).write_text(NEAR + f"\n# {name}\n")
        texts.append(attnc.load(tmp_path / name, "near", w=9).__module__)
    assert texts[0] == texts[1]

"""The README's table of libraries: what it says of those that are installed here, in the versions named."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

ROOT = Path(__file__).parent.parent.parent
SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").split("## Beside other libraries\n")[1].split("\n## ")[0]
)
ROWS = {
    cells[0]: dict(zip(("attnc", "flex", "natten", "xformers", "fla"), cells[1:], strict=True))
    for line in SECTION.splitlines()
    if line.startswith("| ") and not line.startswith("| ---")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def theirs(*path: str) -> Path:
    """A file of fla, which is read and not imported: the package wants a GPU."""
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        pytest.skip("fla-core is not installed")
    return Path(found.submodule_search_locations[0]).joinpath("ops", *path)


def test_versions_are_those_that_are_tested() -> None:
    [fla] = re.findall(r"fla-core==([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [pytorch] = re.findall(r"torch==(\d+\.\d+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert f"fla-core {fla}" in SECTION and f"torch {pytorch}, " in SECTION


def test_flex_attention() -> None:
    arguments = inspect.signature(create_block_mask).parameters
    assert arguments["BLOCK_SIZE"].default == 128 and "128 x 128" in ROWS["what is skipped"]["flex"]
    assert {"Q_LEN", "KV_LEN"} <= set(arguments) and "BlockMask" in ROWS["a new length"]["flex"]
    assert "return_aux" in inspect.signature(flex_attention).parameters  # the log-sum-exp
    assert not any("dropout" in name for name in inspect.signature(flex_attention).parameters)
    assert ROWS["dropout of weights"]["flex"] == "no"
    paged = importlib.util.find_spec("torch.nn.attention.experimental._paged_attention")
    assert paged is not None and ROWS["paged keys while decoding"]["flex"] == "experimental"
    q = torch.ones(1, 1, 8, 8, requires_grad=True)
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        flex_attention(q, q, q)
    assert ROWS["on the CPU"]["flex"] == "forward"


def test_fla() -> None:
    tree = ast.parse(theirs("attn", "parallel.py").read_text(encoding="utf-8"))
    [attention] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "parallel_attn"
    ]
    arguments = {argument.arg for argument in attention.args.args + attention.args.kwonlyargs}
    assert "window_size" in arguments and "windows" in ROWS["who reads whom"]["fla"]
    assert "sink_bias" in arguments and ROWS["learned sinks"]["fla"] == "yes"
    assert "g" in arguments and ROWS["scores"]["fla"] == "a decay added"
    assert not any("dropout" in name for name in arguments) and ROWS["dropout of weights"]["fla"] == "no"
    assert all(theirs(name).is_dir() for name in ("nsa", "moba"))


def test_attnc() -> None:
    examples = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.attn")]
    kinds = sum(re.search(r"^[^#\n]*\bkernel ", text, re.M) is not None for text in examples)
    assert ROWS["linear attention"]["attnc"].startswith(f"{kinds} published kinds")

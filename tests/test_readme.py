"""README.md is true, as ``tests/shown.py`` says."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.shown import ROOT, Block, check_blocks, check_everything_shown, check_links, document, matches

README = document("README.md")


def test_everything_that_is_shown_happens(tmp_path: Path) -> None:
    check_everything_shown(README, tmp_path)


def test_every_block_is_of_a_known_kind() -> None:
    check_blocks(README)


@pytest.mark.parametrize(
    "block", [block for block in README.blocks if block.language == "sh"], ids=lambda b: b.line
)
def test_make_knows_every_word(block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "make", f"README.md:{block.line}: `{line}` is run by no test"
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_what_is_installed_exists() -> None:
    """No index has attnc: extras are installed from a checkout, and are those of pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [
        path
        for room in ("attnc", "codegen", "docs", "editors", "examples", "grammar", "tools")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".md", ".js", ".sh") and "node_modules" not in path.parts
    ]
    named = set()
    for path in (*ROOT.glob("*.md"), *files):
        text = path.read_text(encoding="utf-8")
        assert "attnc[" not in text, path
        named |= {(path, extra) for extra in re.findall(r"pip install '\.\[(\w+)\]'", text)}
    assert {extra for _, extra in named} >= {"gpu", "lsp", "pictures", "transformers", "bench"}
    assert not {extra for _, extra in named} - set(extras)


def test_links_lead_somewhere() -> None:
    check_links(README)


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\n", "a\nb\n", True),
        ("...\nb\n", "a\n", False),
        ("a\n...\nd\n", "a\nb\n", False),
        ("7 a\n", "8 a\n", False),
    ],
)
def test_comparison_can_fail(shown: str, printed: str, agrees: bool) -> None:
    assert matches(shown, printed) is agrees


@pytest.mark.parametrize(
    ("printed", "agrees"),
    [
        ("a: 1.5 x, 200 ms", True),
        ("a: 2 x, 20.25 ms", True),
        ("a: x, 200 ms", False),
        ("b: 1.5 x, 200 ms", False),
    ],
)
def test_comparison_of_what_was_measured_can_fail(printed: str, agrees: bool) -> None:
    assert matches("a: 1.5 x, 200 ms", printed, measured=True) is agrees

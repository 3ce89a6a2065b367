"""README.md is true, as ``tests/shown.py`` says."""

from __future__ import annotations

import shlex
import subprocess
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

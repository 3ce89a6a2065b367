"""README.md is true: its files are written, its commands run and its Python executed, in the order in which
they stand, and what they print is what it shows.

A block ```attn NAME``` or ```python NAME``` is a file. A ```console``` block holds commands after ``$`` and
their output, in which a line ``...`` stands for any number of lines. In a plain ```python``` block, the
comment after a ``print`` is what it prints. A ```sh``` block holds make's words, which CI itself runs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(m["language"], m["name"], m["body"], text.count("\n", 0, m.start()) + 1)
        for m in re.finditer(r"^```(?P<language>\w+) ?(?P<name>\S*)\n(?P<body>.*?)^```$", text, re.M | re.S)
    ]


BLOCKS = blocks(README)


def environment(cache: Path) -> dict[str, str]:
    """As a user has it, with the commands of this interpreter first and a cache of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTNC_")}
    return clean | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        "ATTNC_CACHE_DIR": str(cache),
        "NO_COLOR": "1",
    }


def matches(shown: str, printed: str) -> bool:
    """Whether ``printed`` is what the README shows, where a line ``...`` stands for any lines."""
    parts = [re.escape(part.strip("\n")) for part in re.split(r"^\.\.\.$", shown.strip("\n"), flags=re.M)]
    lines = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return re.fullmatch(r"(?:\n|\n?.*\n?)".join(parts), lines, re.S) is not None


def dialogues(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown for it."""
    turns = re.split(r"^\$ ", block.text, flags=re.M)
    assert turns[0].strip() == "", f"README.md:{block.line}: a console block begins with a command"
    split = (turn.partition("\n") for turn in turns[1:])
    return [(command, output) for command, _, output in split]


def run(command: str, folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    # `attnc` is run as a module: from a checkout, too, and by this very interpreter.
    command = re.sub(r"^attnc ", f"{shlex.quote(sys.executable)} -m attnc ", command)
    command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(cache),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def test_everything_that_is_shown_happens(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = tmp_path / "work"
    folder.mkdir()
    script: list[str] = []
    expected: list[str] = []
    for block in BLOCKS:
        place = f"README.md:{block.line}"
        match block:
            case Block("attn" | "python", name, text) if name:
                (folder / name).write_text(text, encoding="utf-8")
            case Block("console", _, _):
                for command, shown in dialogues(block):
                    done = run(command, folder, cache)
                    assert matches(shown, done.stdout), f"{place}: `{command}` now prints\n{done.stdout}"
            case Block("python", _, text):
                script.append(text)
                expected += re.findall(r"^ *print\(.*\)  # (.*)$", text, re.M)
    assert script and expected
    (folder / "snippets.py").write_text("\n".join(script), encoding="utf-8")
    done = run("python snippets.py", folder, cache)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == expected


def test_every_block_is_of_a_known_kind() -> None:
    assert {block.language for block in BLOCKS} <= {"attn", "console", "python", "sh"}
    assert README.count("\n```") == 2 * len(BLOCKS), "a block without a language is not checked"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=lambda b: b.line)
def test_make_knows_every_word(block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "make", f"README.md:{block.line}: `{line}` is run by no test"
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (ROOT / target).exists(), f"README.md links to {target}, which is not there"


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\n", "a\nb\n", True),
        ("...\nb\n", "a\n", False),
        ("a\n...\nd\n", "a\nb\n", False),
    ],
)
def test_comparison_can_fail(shown: str, printed: str, agrees: bool) -> None:
    assert matches(shown, printed) is agrees

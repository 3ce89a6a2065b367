"""A document is true: its files are written, its commands run and its Python executed, in the order in which
they stand, and what they print is what it shows.

A block ```attn NAME``` or ```python NAME``` is a file. A ```console``` block holds commands after ``$`` and
their output, in which a line ``...`` stands for any number of lines. In ```console measured``` numbers may be
others: another machine takes other times, and what takes minutes is run with fewer ``--steps`` and a smaller
``--length``. In a plain ```python``` block, the comment after a ``print`` is what it prints. A ```sh``` block
holds make's words, which CI itself runs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str
    line: int


@dataclass(frozen=True)
class Document:
    path: Path
    text: str
    blocks: tuple[Block, ...]


def document(name: str) -> Document:
    """A document of the checkout, by its path from there."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.finditer(r"^```(?P<language>\w+) ?(?P<name>\S*)\n(?P<body>.*?)^```$", text, re.M | re.S)
    return Document(
        ROOT / name,
        text,
        tuple(Block(m["language"], m["name"], m["body"], text.count("\n", 0, m.start()) + 1) for m in found),
    )


def environment(cache: Path) -> dict[str, str]:
    """As a user has it, with the commands of this interpreter first and a cache of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTNC_")}
    return clean | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        "ATTNC_CACHE_DIR": str(cache),
        "NO_COLOR": "1",
    }


def matches(shown: str, printed: str, *, measured: bool = False) -> bool:
    """Whether ``printed`` is what is shown, where a line ``...`` stands for any lines.

    measured: whether any number may stand in the place of a number.
    """
    parts = [re.escape(part.strip("\n")) for part in re.split(r"^\.\.\.$", shown.strip("\n"), flags=re.M)]
    if measured:
        parts = [re.sub(r"\d+(?:\\\.\d+)?", lambda _: NUMBER.pattern, part) for part in parts]
    lines = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return re.fullmatch(r"(?:\n|\n?.*\n?)".join(parts), lines, re.S) is not None


def dialogues(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown for it."""
    turns = re.split(r"^\$ ", block.text, flags=re.M)
    assert turns[0].strip() == "", f"line {block.line}: a console block begins with a command"
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


def check_everything_shown(shown: Document, tmp_path: Path) -> Path:
    """Does what the document does, compares with what it shows, and gives the folder where that happened."""
    cache = tmp_path / "cache"
    folder = tmp_path / "work"
    folder.mkdir()
    script: list[str] = []
    expected: list[str] = []
    for block in shown.blocks:
        place = f"{shown.path.name}:{block.line}"
        match block:
            case Block("attn" | "python", name, text) if name:
                (folder / name).write_text(text, encoding="utf-8")
            case Block("console", kind, _):
                measured = kind == "measured"
                assert measured or not kind, f"{place}: no kind of console block is called {kind}"
                for command, output in dialogues(block):
                    if measured:
                        command = re.sub(r"--steps \d+", "--steps 3", command)
                        command = re.sub(r"--length \d+", "--length 1024", command)
                    done = run(command, folder, cache)
                    good = matches(output, done.stdout, measured=measured)
                    assert good, f"{place}: `{command}` now prints\n{done.stdout}"
            case Block("python", _, text):
                script.append(text)
                expected += re.findall(r"^ *print\(.*\)  # (.*)$", text, re.M)
    assert script and expected
    (folder / "snippets.py").write_text("\n".join(script), encoding="utf-8")
    done = run("python snippets.py", folder, cache)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == expected
    return folder


def check_blocks(shown: Document) -> None:
    """Every block is of a kind that is checked."""
    assert {block.language for block in shown.blocks} <= {"attn", "console", "python", "sh"}
    assert shown.text.count("\n```") == 2 * len(shown.blocks), "a block without a language is not checked"


def check_links(shown: Document) -> None:
    """Links and pictures lead to what is there."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", shown.text)
    for target in targets + re.findall(r'src="([^"]+)"', shown.text):
        assert (shown.path.parent / target).exists(), f"{shown.path.name}: {target} is not there"

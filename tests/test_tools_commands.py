"""``attnc new``, ``attnc completion`` and ``attnc check --watch``."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnc.cli import COMMANDS, main, parser
from attnc.commands import watch as watching
from attnc.commands.completion import described, script
from attnc.diagnostics import Source
from attnc.formatting import formatted
from attnc.progress import Bar

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- attnc new ------------------------------------------------------------------------------------------


def test_a_new_file_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine"]) == 0
    assert capsys.readouterr().out.startswith("wrote mine.attn")
    text = Path("mine.attn").read_text()
    assert formatted(Source("mine.attn", text)) == text
    assert main(["check", "mine.attn"]) == 0 and main(["compile", "mine.attn", "-o", "mine.py"]) == 0
    # Its own advice is good, the input that it shows included.
    assert main(["graph", "mine.attn", "--n", "256", "-p", "window=32"]) == 0
    Path("mine.attn").write_text(
        text.replace("# input document", "input document").replace(
            "& causal\n", "& causal & same(document)\n"
        )
    )
    assert main(["check", "mine.attn"]) == 0
    Path("sub").mkdir()
    assert main(["new", "sub/other.attn"]) == 0 and "pattern other(" in Path("sub/other.attn").read_text()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("there", "will not overwrite 'there.attn'"),
        ("9lives", "start with a letter"),
        ("né", "letters, digits"),
        ("a-b", "letters, digits"),
        ("class", "keyword of Python"),
        ("_x", "emitted module"),
        ("attend", "word of the language"),
        ("nowhere/x", "there is no folder 'nowhere'"),
        ("", "cannot name a pattern"),
    ],
)
def test_what_cannot_be_new(capsys: pytest.CaptureFixture[str], name: str, names: str) -> None:
    Path("there.attn").write_text("mine")
    assert main(["new", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and names in err
    assert os.listdir() == ["there.attn"] and Path("there.attn").read_text() == "mine"


# --- attnc completion -----------------------------------------------------------------------------------


def test_every_command_and_option_is_described() -> None:
    known = parser()
    found = {command.name: command for command in described(known)}
    assert len(found) == len(COMMANDS)
    (choices,) = (item for item in known._actions if isinstance(item, argparse._SubParsersAction))
    for name, command in choices.choices.items():
        flags = {flag for item in command._actions for flag in item.option_strings}
        assert {flag for option in found[name].options for flag in option.names} == flags
        for shell in ("bash", "zsh", "fish"):
            made = script(shell, list(found.values()))
            assert name in made and all(flag.lstrip("-") in made for flag in flags)
    assert "not-causal" in found["explain"].values and found["check"].files and found["gallery"].folders


def _completed(line: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What bash makes of a line."""
    assert main(["completion", "bash"]) == 0
    Path("completion.bash").write_text(capsys.readouterr().out)
    words = line.split(" ")
    program = (
        f"source completion.bash; COMP_WORDS=({' '.join(repr(word) for word in words)}); "
        f"COMP_CWORD={len(words) - 1}; _attnc; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    return set(done.stdout.splitlines()) - {""}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.attn").write_text("")
    Path("mine.txt").write_text("")
    assert _completed("attnc gr", capsys) == {"graph"}
    assert _completed("attnc check mi", capsys) == {"mine.attn"}
    assert _completed("attnc check --w", capsys) == {"--watch"}
    assert _completed("attnc compile mine.attn --emit s", capsys) == {"syntax", "schedule"}
    assert _completed("attnc compile mine.attn -o mi", capsys) == {"mine.attn", "mine.txt"}
    assert _completed("attnc explain not-ca", capsys) == {"not-causal", "not-callable"}
    assert _completed("attnc completion ", capsys) == {"bash", "zsh", "fish"}
    # A name with a space is one name; where a number or a name is wanted, no file is offered.
    Path("my own.attn").write_text("")
    Path("more").mkdir()
    assert _completed("attnc check m", capsys) == {"mine.attn", "my own.attn", "more"}
    assert _completed("attnc graph mine.attn --n ", capsys) == set()
    assert _completed("attnc bench mine.attn --json m", capsys) >= {"mine.txt", "mine.attn"}
    assert _completed("attnc gallery m", capsys) == {"more"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.attn").write_text("")
    Path("mine.txt").write_text("")
    assert main(["completion", "fish"]) == 0
    Path("script").write_text(capsys.readouterr().out)

    def completed(line: str) -> set[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"source script; complete -C '{line}'"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(Path.cwd())},
        )
        assert done.returncode == 0 and done.stderr == ""
        return {found.partition("\t")[0] for found in done.stdout.splitlines()}

    assert completed("attnc gr") == {"graph"}
    assert "mine.attn" in completed("attnc graph mi")
    assert completed("attnc graph mine.attn --n ") == set()
    assert completed("attnc compile mine.attn --emit s") == {"syntax", "schedule"}
    assert completed("attnc compile mine.attn -o mine.t") == {"mine.txt"}


def test_descriptions_are_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Colons, which separate things in zsh, belong to them."""
    said = {"zsh": r"first\:16, every\:512", "fish": "first:16, every:512"}
    for shell, words in said.items():
        assert main(["completion", shell]) == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    assert main(["completion", shell]) == 0
    Path("script").write_text(capsys.readouterr().out)
    done = subprocess.run([shell, "-n", "script"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err


# --- attnc check --watch --------------------------------------------------------------------------------


def _watched(steps: list[Callable[[], object]]) -> list[str]:
    """What a watcher sees of a file that is changed between its looks; then comes Ctrl-C."""
    seen: list[str] = []
    todo: Iterator[Callable[[], object]] = iter(steps)

    def wait(seconds: float) -> None:
        if seconds < watching.PAUSE:
            return  # it waits for the writing to end
        step = next(todo, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    path = Path("p.attn")
    path.write_text("one")
    watching.watch("p.attn", lambda: seen.append(path.read_text() if path.exists() else "gone"), wait)
    return seen


def _replace(text: str) -> None:
    """As editors do: the new file is written beside the old one and takes its place."""
    Path("new").write_text(text)
    os.replace("new", "p.attn")


def test_changes_are_seen() -> None:
    path = Path("p.attn")
    idle: Callable[[], object] = lambda: None  # noqa: E731
    assert _watched([idle, lambda: path.write_text("two"), idle, idle]) == ["one", "two"]
    assert _watched([lambda: _replace("two"), lambda: _replace("six")]) == ["one", "two", "six"]
    # Away for a moment, as with editors that move the old file first.
    assert _watched([path.unlink, idle, lambda: path.write_text("two"), idle]) == ["one", "two"]
    # Touched, and the same as before.
    assert _watched([lambda: _replace("one"), lambda: os.utime(path)]) == ["one"]


def test_watching_the_command() -> None:
    Path("p.attn").write_text("pattern p() { attend causal require causal }\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "attnc", "check", "--watch", "p.attn"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # What is started in the background of a shell ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as watched:
        try:
            assert watched.stdout is not None and watched.stderr is not None
            lines = iter(watched.stdout.readline, "")
            first = _until_waiting(lines)
            assert "causal    proven" in first
            _replace("pattern p() { attend all require causal }\n")
            assert "error[not-causal]" in _until_waiting(lines)
            _replace("pattern p( { attend all }\n")
            assert "error[" in _until_waiting(lines)
            time.sleep(0.1)
            watched.send_signal(signal.SIGINT)
            assert watched.wait(timeout=60) == 1, "as the last check ended"
            assert watched.stderr.read() == ""
        finally:
            # Leaving the block waits for the process, without end where it was not told to stop.
            watched.kill()


def _until_waiting(lines: Iterator[str]) -> str:
    found = []
    for line in lines:
        found.append(line)
        if "waiting for changes" in line:
            break
    return "".join(found)


def test_watching_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.attn").write_text("pattern p() { attend causal }\n")
    assert main(["check", "--watch", "missing.attn"]) == 2
    assert "missing.attn" in capsys.readouterr().err
    assert main(["check", "--watch", "p.attn", "--json"]) == 2
    assert "--json" in capsys.readouterr().err
    assert main(["check", "--watch", "p.attn", "-p", "x"]) == 2


# --- the rest -------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    with Bar(2, shown) as bar:
        bar.step("quick")
    assert shown.getvalue() == ""
    slow = Terminal()
    with Bar(2, slow) as bar:
        bar.more(3)
        bar.step("slow")
        bar.started -= 5  # as if five seconds had gone by
        deadline = time.monotonic() + 20
        while "slow" not in slow.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "1/5" in slow.getvalue() and "5 s  slow" in slow.getvalue()
    assert slow.getvalue().endswith("\r\x1b[K")


def test_options_are_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.attn").write_text("pattern p() { attend causal }\n")
    assert main(["check", "p.attn", "--wat"]) == 2
    assert "--wat" in capsys.readouterr().err
    assert main(["check", "p.attn", "--patt", "p"]) == 2


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    for name in (
        "check",
        "compile",
        "graph",
        "report",
        "gallery",
        "fmt",
        "new",
        "bench",
        "explain",
        "completion",
    ):
        assert re.search(rf"^    {name}\b", out, re.M)

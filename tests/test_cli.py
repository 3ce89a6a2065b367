"""The command line, from outside: what is printed where, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from attnc import __version__
from attnc.cli import main

SLIDING = """pattern sliding(window: int = 8) {
    attend window(window - 1)
    require causal
    require nonempty
}
"""
TWO = SLIDING + "pattern other(width: int = 3) { attend chunk(width) }\n"
NOT_CAUSAL = """pattern fixed() {
    attend chunk(128) & causal
         | to(every(128, 120))
    require causal
}
"""
BROKEN = "pattern broken( { attend all }\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (
        ("sliding", SLIDING),
        ("two", TWO),
        ("not_causal", NOT_CAUSAL),
        ("broken", BROKEN),
        ("empty", ""),
    ):
        Path(f"{name}.attn").write_text(text)
    Path("binary.attn").write_bytes(bytes(range(256)))
    Path("huge.attn").write_bytes(b"# " + b"x" * (1 << 20))
    Path("folder.attn").mkdir()
    return tmp_path


# --- attnc check ----------------------------------------------------------------------------------------


def test_check_for_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sliding.attn"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("sliding(window = 8)\n")
    assert "require" in out and "proven" in out
    assert "\x1b" not in out and err == ""


def test_check_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sliding.attn", "--json", "-p", "window=4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["diagnostics"] == []
    (pattern,) = report["patterns"]
    assert pattern["name"] == "sliding"
    assert pattern["params"] == {"window": 4}
    assert pattern["causal"]["verdict"] == pattern["nonempty"]["verdict"] == "proven"
    assert pattern["causal"]["witness"] is None
    assert pattern["growth"] == "O(n*window)"
    assert [claim["verdict"] for claim in pattern["claims"]] == ["proven", "proven"]
    assert [body["heads"] for body in pattern["bodies"]] == [""]


def test_check_tells_which_heads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "pattern two() { heads {0, 2} { attend causal } heads rest { attend window(3) } }"
    Path("heads.attn").write_text(text, encoding="utf-8")
    assert main(["check", "heads.attn", "--json"]) == 0
    (pattern,) = json.loads(capsys.readouterr().out)["patterns"]
    assert [body["heads"] for body in pattern["bodies"]] == ["{0, 2}", "rest"]
    assert main(["check", "heads.attn"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if "heads" in line[:9]] == [
        ["heads", "{0,"],
        ["heads", "rest"],
    ]


def test_check_shows_a_refuted_claim(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "not_causal.attn", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["patterns"][0]["causal"] == {
        "verdict": "refuted",
        "witness": {"q": 0, "k": 120, "n": 121},
        "note": report["patterns"][0]["causal"]["note"],
    }
    (found,) = report["diagnostics"]
    assert {key: found[key] for key in ("code", "level", "file", "line", "column")} == {
        "code": "not-causal",
        "level": "error",
        "file": "not_causal.attn",
        "line": 3,
        "column": 12,
    }
    assert main(["check", "not_causal.attn"]) == 1
    out = capsys.readouterr().out
    assert " --> not_causal.attn:3:12" in out and "query 0 reads key 120" in out


def test_check_tells_of_every_pattern(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "two.attn", "--json", "-p", "width=5"]) == 0
    names = [pattern["name"] for pattern in json.loads(capsys.readouterr().out)["patterns"]]
    assert names == ["sliding", "other"]
    assert main(["check", "two.attn", "--json", "--pattern", "other"]) == 0
    names = [pattern["name"] for pattern in json.loads(capsys.readouterr().out)["patterns"]]
    assert names == ["other"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["broken.attn"], None),
        (["empty.attn"], None),
        (["binary.attn"], "not-text"),
        (["huge.attn"], "file-too-large"),
        (["sliding.attn", "-p", "windw=4"], "unknown-parameter"),
        (["two.attn", "--pattern", "slidin"], "unknown-pattern"),
    ],
)
def test_check_of_what_is_wrong(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str | None
) -> None:
    assert main(["check", *words]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("error[") and words[0] in out and err == ""
    assert main(["check", "--json", *words]) == 1
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    assert found and all(item["file"] == words[0] for item in found)
    if code is not None:
        assert found[0]["code"] == code


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["check", "missing.attn"], "missing.attn"),
        (["check", "folder.attn"], "folder.attn"),
        (["check", "sliding.attn", "--wat"], "--wat"),
        (["check", "sliding.attn", "-p", "window"], "-p window"),
        (["check", "sliding.attn", "-p", "=4"], "-p =4"),
        (["check", "sliding.attn", "-p", "window=4", "-p", "window=5"], "window=5"),
        (["check"], "FILE"),
        (["compile", "sliding.attn"], "-o OUT.py"),
        (["compile", "sliding.attn", "--emit", "nonsense"], "nonsense"),
        (["compile", "sliding.attn", "--emit", "terms", "-o", "x.py"], "--emit terms"),
        (["explain", "not-casual"], "not-causal"),
        (["wat"], "wat"),
        ([], "COMMAND"),
    ],
)
def test_misuse_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], names: str
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and names in err
    assert main([*words, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["patterns"] == [] and report["diagnostics"][0]["level"] == "error"
    assert not Path("x.py").exists()


# --- attnc compile --------------------------------------------------------------------------------------


HOSTILE = "\x1b]0;owned\x07\u202e\nerror\r.attn"


@pytest.mark.parametrize(
    "words",
    [
        ["check", "FILE"],
        ["check", "--json", "FILE"],
        ["compile", "FILE", "-o", "out.py"],
        ["compile", "FILE", "-o", "FILE"],
        ["compile", "FILE", "--emit", "syntax"],
        ["compile", "missing FILE", "-o", "out.py"],
        ["fmt", "FILE"],
        ["fmt", "--check", "FILE"],
        ["graph", "FILE", "-o", "FILE.png.gif"],
        ["report", "FILE", "-o", "no folder/FILE.html"],
        ["gallery", "FILE", "-o", "out.html"],
        ["new", "FILE"],
        ["new", "FILE/good"],
        ["bench", "missing FILE"],
        ["explain", "FILE"],
        ["FILE"],
        ["check", "--FILE", "FILE"],
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.parametrize("text", ["pattern p() { attend vindow(3) }", "pattern  p() {attend all}\n"])
def test_a_file_s_name_never_reaches_the_terminal_raw(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    text: str,
) -> None:
    monkeypatch.setenv("ATTNC_DEBUG", "1")
    if "FILE/good" in words:
        Path(HOSTILE).mkdir()
    else:
        Path(HOSTILE).write_text(text)
    with suppress(SystemExit):
        main([word.replace("FILE", HOSTILE) for word in words])
    for stream in capsys.readouterr():
        assert not set("\x1b\x07\u202e\r") & set(stream)


def test_compile_writes_a_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir())
    assert main(["compile", "sliding.attn", "-o", "out.py", "-p", "window=4"]) == 0
    assert capsys.readouterr() == ("", "")
    text = Path("out.py").read_text()
    assert "generated by attnc" in text.splitlines()[0]
    assert sorted(os.listdir()) == sorted([*before, "out.py"])
    assert main(["compile", "sliding.attn", "-o", "out.py", "-p", "window=5"]) == 0
    assert Path("out.py").read_text() != text


def test_compile_keeps_foreign_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("x = 1\n")
    assert main(["compile", "sliding.attn", "-o", "mine.py"]) == 2
    assert "mine.py" in capsys.readouterr().err and Path("mine.py").read_text() == "x = 1\n"
    assert main(["compile", "sliding.attn", "-o", "sliding.attn", "--force"]) == 2
    assert Path("sliding.attn").read_text() == SLIDING
    assert main(["compile", "sliding.attn", "-o", "nowhere/out.py"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["compile", "sliding.attn", "-o", "mine.py", "--force"]) == 0
    assert "generated by attnc" in Path("mine.py").read_text()


@pytest.mark.parametrize("name", ["broken", "not_causal", "empty", "binary", "two"])
def test_compile_of_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["compile", f"{name}.attn", "-o", "out.py"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error[") and f"{name}.attn" in err
    assert not Path("out.py").exists()


def test_two_compile_to_one_place(here: Path) -> None:
    before = sorted(os.listdir())
    words = [sys.executable, "-m", "attnc", "compile", "sliding.attn", "-o", "out.py"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    both = [subprocess.Popen([*words, "-p", f"window={size}"], env=env) for size in (3, 4)]
    assert [one.wait(timeout=120) for one in both] == [0, 0]
    texts = []
    for size in (3, 4):
        assert main(["compile", "sliding.attn", "-o", f"alone{size}.py", "-p", f"window={size}"]) == 0
        texts.append(Path(f"alone{size}.py").read_text())
    assert Path("out.py").read_text() in texts
    assert sorted(os.listdir()) == sorted([*before, "out.py", "alone3.py", "alone4.py"])


def test_compile_of_several_patterns(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "two.attn", "-o", "out.py"]) == 1
    err = capsys.readouterr().err
    assert "`sliding`" in err and "`other`" in err and "--pattern sliding" in err
    assert main(["compile", "two.attn", "-o", "out.py", "--pattern", "other"]) == 0


def test_emit_prints_each_pass(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for stage in ("syntax", "pattern", "terms", "schedule", "module"):
        assert main(["compile", "sliding.attn", "--emit", stage]) == 0
        texts[stage], err = capsys.readouterr()
        assert texts[stage].strip() and err == ""
    assert len(set(texts.values())) == 5
    assert "sliding" in texts["syntax"] and "generated by attnc" in texts["module"]


def test_debug_names_the_passes(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNC_DEBUG", "1")
    assert main(["compile", "sliding.attn", "-o", "out.py"]) == 0
    err = capsys.readouterr().err
    assert [line.split()[1] for line in err.splitlines()] == [
        "syntax",
        "pattern",
        "terms",
        "claims",
        "schedule",
        "module",
    ]
    monkeypatch.setenv("ATTNC_DEBUG", "2")
    assert main(["compile", "sliding.attn", "-o", "out.py"]) == 0
    assert "def sliding(" in capsys.readouterr().err


# --- attnc explain and the rest -------------------------------------------------------------------------


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "not-causal"]) == 0
    assert capsys.readouterr().out.startswith("not-causal\n\n")
    assert main(["explain"]) == 0
    listed = capsys.readouterr().out
    for code in ("not-causal", "several-patterns", "unreadable-file", "unwritable-file", "usage"):
        assert any(line.split()[0] == code for line in listed.splitlines())


def _run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "attnc", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
        timeout=120,
    )


def test_version() -> None:
    done = _run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"attnc {__version__}\n", "")


def test_a_terminal_that_knows_no_unicode(here: Path) -> None:
    Path("é.attn").write_text("pattern p() { attend nonsens } # é\n")
    done = _run("check", "é.attn", PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and "nonsens" in done.stdout and "Traceback" not in done.stderr


def test_a_reader_that_goes_away(here: Path) -> None:
    command = f"{sys.executable} -m attnc explain | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=120,
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_full_disk() -> None:
    command = f"{sys.executable} -m attnc explain > /dev/full"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot write" in done.stderr


LIGHT = """
import sys
import attnc, attnc.cli
{action}
heavy = sorted({{"torch", "triton", "z3", "sympy", "lark", "networkx", "numpy"}} & set(sys.modules))
print(*heavy)
"""


def _heavy(action: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(action=action)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_what_is_imported(here: Path) -> None:
    assert _heavy("attnc.cli.main(['explain', 'not-causal'])") == set()
    assert _heavy("import attnc.runtime, attnc.decorator") == set()
    assert not _heavy("attnc.cli.main(['check', 'sliding.attn'])") & {"torch", "triton"}
    assert not _heavy("attnc.cli.main(['compile', 'sliding.attn', '-o', 'o.py'])") & {"torch", "triton"}
    assert not _heavy("attnc.cli.main(['graph', 'sliding.attn', '-o', 'o.svg'])") & {"torch", "triton"}
    assert not _heavy("attnc.cli.main(['report', 'sliding.attn', '-o', 'o.html'])") & {"torch", "triton"}
    assert _heavy("attnc.cli.main(['fmt', '--check', 'sliding.attn'])") == {"lark"}
    assert _heavy("attnc.cli.main(['new', 'other'])") == set()
    assert _heavy("attnc.cli.main(['completion', 'bash'])") == set()

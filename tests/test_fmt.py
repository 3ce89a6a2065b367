"""``attnc fmt``: one way to lay a pattern out, which changes nothing of what it says."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import formatting, lexicon
from attnc.cli import main
from attnc.diagnostics import AttncError, Source
from attnc.formatting import WIDTH, FormatError, formatted
from attnc.lexicon import words
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.resolver import resolve
from tests.strategies import Case, cases

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.attn"))
MESSY = """# head
pattern  a ( x:int=3 ,y : int = - 4, ) {
 input u:bool[n] # trailing

    # own


 let s = {1,2 , 3,} + first( 2 )   attend (window(x,right = 2) | # c1
   to(s) # c2
   | # c3
   !from( u )) &
   where not q<3 and -k>2 and   u[ q ] or (k>=1)
 require causal require edges<=n*(4+1) }
# after
pattern b(){attend causal}
pattern c(){heads even{attend causal} heads rest { attend all }  grid(y:3,x:2) } # end
"""
TIDY = """# head
pattern a(x: int = 3, y: int = -4) {
    input u: bool[n]  # trailing

    # own

    let s = {1, 2, 3} + first(2)
    attend (window(x, right=2)  # c1
          | to(s)  # c2
            # c3
          | !from(u))
         & where not q < 3 and -k > 2 and u[q] or (k >= 1)
    require causal
    require edges <= n * (4 + 1)
}

# after
pattern b() { attend causal }

pattern c() {
    heads even { attend causal }
    heads rest { attend all }
    grid(y: 3, x: 2)
}  # end
"""


def laid_out(text: str) -> str:
    return formatted(Source("t.attn", text))


def meaning(text: str) -> tuple[Pattern, ...]:
    """What the resolver makes of it, without places."""
    return resolve(parse(Source("t.attn", text))).patterns


def bare(text: str) -> list[str]:
    """Words and comments, without commas that say nothing."""
    found = [word.text.rstrip() for word in words(text) if word.look != "space"]
    return [
        word for word, after in zip(found, [*found[1:], ""], strict=True) if word != "," or after not in ")]}"
    ]


# --- the layout -----------------------------------------------------------------------------------------


def test_all_at_once() -> None:
    assert laid_out(MESSY) == TIDY
    assert laid_out(TIDY) == TIDY


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_laid_out(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert laid_out(text) == text, f"`attnc fmt {file}` lays it out"


@pytest.mark.parametrize("file", ["README.md", "grammar/README.md"])
def test_documents_are_laid_out(file: str) -> None:
    blocks = re.findall(r"^```attn.*?\n(.*?)^```", (ROOT / file).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        assert laid_out(block) == block


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("pattern p(){}", "pattern p() {}\n"),
        ("\ufeff\r\npattern p()\r{\r\nattend all\r\n}", "pattern p() {\n    attend all\n}\n"),
        ("pattern p() { attend all }\n\n\n\n# a\n\n\n# b", "pattern p() { attend all }\n\n# a\n\n# b\n"),
        ("pattern p() { # c\n attend all }", "pattern p() {  # c\n    attend all\n}\n"),
        ("pattern p() { attend all # c\n }", "pattern p() {\n    attend all  # c\n}\n"),
        ("pattern p() {\n\n attend all\n\n}", "pattern p() {\n    attend all\n}\n"),
        ("pattern p() { heads 0 .. H//2{attend q . y}}", None),
        (
            "pattern p() { heads 0 .. H//2 {attend where - q .y<- 3} }",
            "pattern p() {\n    heads 0..H // 2 { attend where -q.y < -3 }\n}\n",
        ),
        (
            "pattern p() { attend window(1,\n 2, axis =x) |\nall }",
            "pattern p() {\n    attend window(1,\n                  2, axis=x)\n         | all\n}\n",
        ),
        ("pattern p() { attend to({1,\n}) }", "pattern p() {\n    attend to({1})\n}\n"),
        (
            "pattern p() { attend all  with score s/2 attend causal kernel elu( x )+1 decay g exclusive }",
            "pattern p() {\n    attend all with score s / 2\n    attend causal\n    kernel elu(x) + 1\n"
            "    decay g exclusive\n}\n",
        ),
    ],
)
def test_layouts(text: str, tidy: str | None) -> None:
    found = laid_out(text)
    assert laid_out(found) == found
    if tidy is not None:
        assert found == tidy


def test_long_lines_are_broken_at_the_loosest_place() -> None:
    parts = [f"window({i}, right={i}, dilation={i}) & causal" for i in range(10, 16)]
    found = laid_out(f"pattern p() {{ attend {' | '.join(parts)} }}")
    assert [line.strip() for line in found.splitlines()[1:-1]] == [
        f"attend {parts[0]}",
        *(f"| {part}" for part in parts[1:]),
    ]
    listed = laid_out(f"pattern p() {{ attend to({{{', '.join(map(str, range(60)))}}}) }}")
    assert max(map(len, listed.splitlines())) <= WIDTH and laid_out(listed) == listed


def _nested(times: int, beside: int) -> str:
    parts = " | ".join(f"window({i}, right=2) & to(first({i}))" for i in range(1, beside + 1))
    return f"pattern p() {{ attend {f'blocks(64, {parts} | ' * times}causal{')' * times} }}"


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda size: _nested(size, 3), 5),  # what is left of a line is laid out anew as it gets deeper
        (lambda size: _nested(4, 3 * size), 2.2),
        (lambda size: f"pattern p() {{ attend to({{{', '.join(map(str, range(9 * size)))}}}) }}", 2.2),
        (lambda size: "pattern p() { attend all }\n" + "# c\n" * 9 * size, 2.2),
        (lambda size: "\n".join(f"pattern p{i}() {{ attend all | causal }}" for i in range(3 * size)), 2.2),
    ],
    ids=["deep", "wide", "list", "comments", "patterns"],
)
def test_a_file_twice_as_large_takes_about_twice_the_work(
    make: Callable[[int], str], most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that are laid out and looked at."""
    work = 0
    line, shorten = formatting._Layout._line, formatting._Layout._shorten

    def counted(self: formatting._Layout, begin: formatting._Spot) -> formatting._Line:
        nonlocal work
        found = line(self, begin)
        work += found.end.place - begin.place
        return found

    def looked(self: formatting._Layout, found: formatting._Line) -> object:
        nonlocal work
        work += found.end.place - found.begin.place
        return shorten(self, found)

    monkeypatch.setattr(formatting._Layout, "_line", counted)
    monkeypatch.setattr(formatting._Layout, "_shorten", looked)
    spent = []
    for size in (10, 20):
        work = 0
        assert laid_out(laid_out(make(size))) == laid_out(make(size))
        spent.append(work)
    assert 0 < spent[1] < most * spent[0]


# --- nothing is lost ------------------------------------------------------------------------------------


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[str, str]:
    """A drawn pattern, and the same with other spaces and with comments anywhere."""
    case: Case = draw(cases())
    found = [word.text for word in words(case.text) if word.look != "space"]
    gaps = st.sampled_from(
        (" ", " ", " ", "\n", "  \t", "\r\n", "\n\n\n", " # c\n", "\n#d #\n", "\n\n # e \r\n")
    )
    pieces = [piece for word in found for piece in (word, draw(gaps))]
    return case.text, draw(gaps) + "".join(pieces)


@given(spoiled())
@settings(max_examples=60)
def test_drawn_patterns_keep_their_meaning(texts: tuple[str, str]) -> None:
    for text in texts:
        found = laid_out(text)
        assert laid_out(found) == found
        assert bare(found) == bare(text) or sorted(bare(found)) == sorted(bare(text))
        assert [line for line in found.splitlines() if line != line.rstrip()] == []
        assert found.endswith("\n") and not found.endswith("\n\n")
        before, after = (formatting._shape(parse(Source("t.attn", one)).patterns) for one in (text, found))
        assert before == after
    assert [repr(pattern.name) for pattern in meaning(texts[0])]


def test_what_would_be_lost_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As when the grammar has an item that this file does not know how to lay out."""
    file = tmp_path / "p.attn"
    file.write_text(MESSY)
    lay = formatting._Layout.text
    for damage in (
        lambda text: text.replace("require causal", ""),
        lambda text: text.replace("# own", ""),
        lambda text: text.replace("first(2)", "first(3)"),
        lambda text: text.replace("right=2", "2"),
    ):
        monkeypatch.setattr(formatting._Layout, "text", lambda self, damage=damage: damage(lay(self)))
        with pytest.raises(FormatError, match="would change what it says"):
            laid_out(MESSY)
        assert main(["fmt", str(file)]) == 1 and file.read_text() == MESSY


def test_the_grammar_is_asked_for_its_words() -> None:
    looks = {word.text: word.look for word in words("pattern p() { score s with x } 1.5 2 # c")}
    assert looks["pattern"] == looks["score"] == looks["with"] == "keyword"
    assert looks["1.5"] == looks["2"] == "number" and looks["# c"] == "comment" and looks["p"] == "call"
    assert {("NAME", "LPAR"), ("NAME", "LSQB"), ("GRID", "LPAR")} <= lexicon.hugging()
    assert ("WHERE", "LPAR") not in lexicon.hugging()


def test_what_does_not_parse() -> None:
    for text in ("", "pattern p( { attend all }", "attend all", "pattern p() { attend $ }"):
        with pytest.raises(AttncError):
            laid_out(text)


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("messy.attn").write_text(MESSY)
    Path("tidy.attn").write_text(TIDY)
    Path("broken.attn").write_text("pattern broken( { attend all }\n")
    return tmp_path


def test_files_are_laid_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("messy.attn").chmod(0o640)
    Path("link.attn").symlink_to("messy.attn")
    before = Path("tidy.attn").stat().st_mtime_ns
    assert main(["fmt", "--check", "link.attn", "tidy.attn"]) == 1
    assert capsys.readouterr() == ("would change link.attn\n", "")
    assert Path("messy.attn").read_text() == MESSY
    assert main(["fmt", "link.attn", "tidy.attn"]) == 0
    assert capsys.readouterr() == ("changed link.attn\n", "")
    assert Path("messy.attn").read_text() == TIDY and Path("link.attn").is_symlink()
    assert stat.S_IMODE(Path("messy.attn").stat().st_mode) == 0o640
    assert Path("tidy.attn").stat().st_mtime_ns == before
    assert main(["fmt", "--check", "messy.attn", "tidy.attn"]) == 0
    assert sorted(os.listdir()) == ["broken.attn", "link.attn", "messy.attn", "tidy.attn"]


class Piped:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_standard_input(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(MESSY.encode()))
    assert main(["fmt", "-"]) == 0
    assert capsys.readouterr() == (TIDY, "")
    monkeypatch.setattr(sys, "stdin", Piped(MESSY.encode()))
    assert main(["fmt", "--check", "-"]) == 1
    assert capsys.readouterr().out == "would change <stdin>\n"
    monkeypatch.setattr(sys, "stdin", Piped(b"\xff"))
    assert main(["fmt", "-"]) == 2
    assert "byte 0 is not UTF-8" in capsys.readouterr().err


def test_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The others are laid out all the same.
    assert main(["fmt", "broken.attn", "messy.attn"]) == 1
    out, err = capsys.readouterr()
    assert out == "changed messy.attn\n" and err.startswith("error[")
    Path("binary.attn").write_bytes(bytes(range(256)))
    assert main(["fmt", "binary.attn"]) == 1
    assert "not-text" in capsys.readouterr().err
    for name in ("missing.attn", "."):
        assert main(["fmt", name]) == 2
        assert repr(name) in capsys.readouterr().err
    assert main(["fmt"]) == 2


def test_a_file_that_cannot_be_written_was_not_changed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write what is read-only
    assert main(["fmt", "messy.attn"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "the file is read-only" in err
    assert Path("messy.attn").read_text() == MESSY

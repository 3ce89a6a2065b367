"""How diagnostics are drawn, and that every one of them is explained."""

import ast
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnc
from attnc import diagnostics
from attnc.diagnostics import AttncError, Diagnostic, Label, Source, Span, line_column, render, to_json
from attnc.explanations import EXPLANATIONS
from attnc.names import nearest, refusal
from attnc.parser import parse
from attnc.resolver import resolve


def at(text: str, part: str) -> Span:
    start = text.index(part)
    return Span(start, start + len(part))


FIXED = """\
pattern fixed() {
    # one block, and the last eight of every block
    attend chunk(128) & causal
         | to(every(128, 120))
    require causal
}
"""

SAMPLE = """\
error[not-causal]: `fixed` claims to be causal, but reads the future
 --> fixed.attn:4:12
  |
3 |     attend chunk(128) & causal
4 |          | to(every(128, 120))
  |            ^^^^^^^^^^^^^^^^^^^ query 0 reads key 120
5 |     require causal
  |     -------------- claimed here
  |
  = note: refuted for n = 121; holds for no n > 120
  = help: write `(… | to(every(128, 120))) & causal`"""


def sample() -> Diagnostic:
    return Diagnostic(
        "not-causal",
        "error",
        "`fixed` claims to be causal, but reads the future",
        Source("fixed.attn", FIXED),
        at(FIXED, "to(every(128, 120))"),
        "query 0 reads key 120",
        (Label(at(FIXED, "require causal"), "claimed here"),),
        ("refuted for n = 121; holds for no n > 120",),
        "write `(… | to(every(128, 120))) & causal`",
    )


def test_a_diagnostic_at_its_best():
    assert render(sample()) == SAMPLE


def test_line_ends_do_not_change_the_picture():
    for end in ("\r\n", "\r"):
        text = FIXED.replace("\n", end)
        found = sample()
        moved = Diagnostic(
            found.code,
            found.level,
            found.message,
            Source("fixed.attn", text),
            at(text, "to(every(128, 120))"),
            found.label,
            (Label(at(text, "require causal"), "claimed here"),),
            found.notes,
            found.help,
        )
        assert render(moved) == SAMPLE


def test_color_adds_only_escapes():
    import re

    colored = render(sample(), color=True)
    assert colored != SAMPLE
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == SAMPLE


def draw(text: str, span: Span, *labels: Label) -> list[str]:
    return render(Diagnostic("c", "warning", "m", Source("t", text), span, secondary=labels)).splitlines()


def test_tabs_and_wide_characters_keep_carets_in_place():
    assert draw("\tab\tcd", Span(4, 6)) == [
        "warning[c]: m",
        " --> t:1:5",
        "  |",
        "1 |     ab  cd",
        "  |         ^^",
    ]
    text = "# 日本 e\u0301\nx # 日本 x"
    assert draw(text, at(text, "本"))[-1] == "  |     ^^"
    assert draw("e\u0301x", Span(2, 3))[-1] == "  |  ^"


def test_control_characters_of_names_are_escaped():
    evil = "\x1b[31m\u202e\x07\udcff\u2028"
    source = Source(f"a{evil}.attn", f"# x {evil}\n")
    labels = (Label(Span(0, 1), evil),)
    found = Diagnostic("c", "error", evil, source, Span(0, 1), evil, labels, (evil + "\n" + evil,), evil)
    text = render(found)
    assert "a\\x1b[31m\\u202e\\x07\\udcff\\u2028.attn:1:1" in text
    assert not set(evil.replace("[31m", "")) & set(text)
    assert text.count("\\x1b[31m") == 7


def test_control_characters_never_reach_the_terminal():
    for line in draw("# \x1b[31m\u202e\x07 x", Span(0, 1)):
        assert not set("\x1b\u202e\x07") & set(line)


def test_of_a_long_line_only_what_is_around_the_marks_is_drawn():
    text = "".join(f"{i:04} " for i in range(400))  # 2000 characters
    shown = draw(text, at(text, "0200"), Label(at(text, "0203"), "near"))
    assert shown[1:4] == [" --> t:1:1001", "  |", shown[3]]
    line, caret, near = shown[3:]
    assert line.startswith("1 | … ") and line.endswith(" …") and len(line) <= 110
    assert line[caret.index("^") :].startswith("0200") and caret.count("^") == 4
    assert line[near.index("-") :].startswith("0203") and near.endswith(" near")

    # Marks that are far apart have a part of the line each.
    first, caret, second, far = draw(text, at(text, "0001"), Label(at(text, "0399"), "far"))[3:]
    assert first.startswith("1 | 0000 0001") and first.endswith(" …") and caret == "  |      ^^^^"
    assert second.startswith("1 | … ") and second.endswith(" 0399")
    assert second[far.index("-") :] == "0399" and far.endswith("---- far")

    # A mark that is longer than the part is drawn from its beginning to the end of the part.
    line, caret = draw(text, Span(500, 1500))[3:]
    assert line[caret.index("^") :].startswith("0100") and 60 < caret.count("^") < 100
    assert len(caret) <= len(line)


def test_parts_of_long_lines_count_columns_and_not_characters():
    text = "# " + "日" * 300 + "\tx"
    line, caret = draw(text, at(text, "x"))[3:]
    assert caret.endswith("^") and line.endswith("x") and line.startswith("1 | … 日")
    wide = sum(2 if char == "日" else 1 for char in line[: line.index("x")])
    assert caret.index("^") == wide


def test_places_at_the_end_of_the_text():
    assert draw("ab", Span(2, 2)) == ["warning[c]: m", " --> t:1:3", "  |", "1 | ab", "  |   ^"]
    assert draw("ab\n", Span(3, 3)) == ["warning[c]: m", " --> t:2:1", "  |", "2 |", "  | ^"]
    assert draw("", Span(0, 0)) == ["warning[c]: m", " --> t:1:1", "  |", "1 |", "  | ^"]


def test_lines_between_are_left_out():
    text = "".join(f"line {i}\n" for i in range(1, 13))
    assert draw(
        text, at(text, "line 2"), Label(at(text, "line 4"), "near"), Label(at(text, "12"), "far")
    ) == [
        "warning[c]: m",
        "  --> t:2:1",
        "   |",
        " 2 | line 2",
        "   | ^^^^^^",
        " 3 | line 3",
        " 4 | line 4",
        "   | ------ near",
        "...",
        "12 | line 12",
        "   |      -- far",
    ]


def test_a_place_over_several_lines_is_underlined_on_its_first():
    assert draw("abc\ndef", Span(1, 6))[-2:] == ["1 | abc", "  |  ^^"]


def test_several_errors_are_drawn_one_after_another():
    with pytest.raises(AttncError) as caught:
        resolve(parse(Source("p.attn", "pattern f() {\n  attend causl | windw(3)\n}\n")))
    assert str(caught.value) == (
        "error[unknown-name]: there is no `causl`\n"
        " --> p.attn:2:10\n"
        "  |\n"
        "2 |   attend causl | windw(3)\n"
        "  |          ^^^^^\n"
        "  |\n"
        "  = help: did you mean `causal`?\n"
        "\n"
        "error[unknown-name]: there is no `windw(…)`\n"
        " --> p.attn:2:18\n"
        "  |\n"
        "2 |   attend causl | windw(3)\n"
        "  |                  ^^^^^\n"
        "  |\n"
        "  = help: did you mean `window`?"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_syntax_error_as_it_is_drawn():
    with pytest.raises(AttncError) as caught:
        parse(Source("p.attn", "pattern f(w = 3) {\n  attend window(w)\n}\n"))
    assert str(caught.value) == (
        "error[syntax-error]: expected `:` and a type, found `=`\n"
        " --> p.attn:1:13\n"
        "  |\n"
        "1 | pattern f(w = 3) {\n"
        "  |             ^\n"
        "  |\n"
        "  = help: write `w: int = …`"
    )


def test_json():
    found = to_json(sample())
    assert json.loads(json.dumps(found)) == {
        "code": "not-causal",
        "level": "error",
        "message": "`fixed` claims to be causal, but reads the future",
        "file": "fixed.attn",
        "line": 4,
        "column": 12,
        "notes": ["refuted for n = 121; holds for no n > 120"],
        "help": "write `(… | to(every(128, 120))) & causal`",
    }


@given(
    st.text(alphabet="a\r\n\t日 ") | st.text(alphabet="a\t日 ", min_size=90, max_size=300),
    st.integers(0, 250),
    st.integers(0, 250),
)
def test_any_place_in_any_text_can_be_drawn(text, start, length):
    source = Source("t", text)
    start = min(start, len(text))
    line, column = line_column(source, start)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert 1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) + 2
    rendered = render(Diagnostic("c", "error", "m", source, Span(start, min(start + length, len(text)))))
    assert f" --> t:{line}:{column}\n" in rendered and "^" in rendered


# --- codes ----------------------------------------------------------------------------------------------

FRONT = [
    "arguments",
    "arithmetic",
    "atoms",
    "clauses",
    "declarations",
    "inputs",
    "lookups",
    "masks/places",
    "mistakes",
    "names",
    "operators",
    "parser",
    "resolver",
    "rewriting",
    "scope",
    "values",
]
RAISERS = {"error", "warn", "Diagnostic", "_refused", "say"}


def codes(path: Path) -> set[str]:
    """Every code that a module can emit: the first argument of what builds diagnostics, or ``code=``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[:1] if name in RAISERS - {"say"} else []
            for value in [*first, *(k.value for k in node.keywords if k.arg == "code" and name in RAISERS)]:
                if isinstance(value, ast.Constant):
                    found.add(value.value)
    return found


def test_every_code_is_explained():
    folder = Path(attnc.__file__).parent
    emitted = set().union(*(codes(folder / f"{name}.py") for name in FRONT))
    assert len(emitted) > 50
    assert emitted - set(EXPLANATIONS) == set()


def test_explanations_start_with_a_sentence():
    for code, text in EXPLANATIONS.items():
        heading = text.splitlines()[0]
        assert heading.endswith((".", ":")), code


# --- names ----------------------------------------------------------------------------------------------


def test_the_nearest_word_is_near():
    assert nearest("causl", ["causal", "all"]) == "causal"
    assert nearest("widnow", ["window"]) == "window"
    assert nearest("Window", ["window"]) == "window"
    assert nearest("completely", ["window"]) is None
    assert nearest("x", ["y", "abc"]) is None


def test_names_that_would_break_what_is_emitted_are_refused():
    for name, role in (
        ("q", "parameter"),
        ("lambda", "let"),
        ("scale", "input"),
        ("_x", "pattern"),
        ("max", "pattern"),
        ("torch", "pattern"),
        ("d", "let"),
        ("attend", "let"),
    ):
        assert refusal(name, role), name
    for name, role in (
        ("causal", "pattern"),
        ("torch", "input"),
        ("window", "parameter"),
        ("x", "input"),
        ("y", "axis"),
        ("max", "let"),
    ):
        assert refusal(name, role) is None, name


def test_a_long_line_is_drawn_once_for_all_that_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    cell = diagnostics._cell
    monkeypatch.setattr(diagnostics, "_cell", lambda char, column: drawn.append(char) or cell(char, column))
    line = "once " + "ab " * 1000
    source = Source("long.attn", line)
    for i in range(5, 3000, 30):
        shown = render(Diagnostic("x", "error", "no", source, Span(i, i + 2), "here"))
        assert "^^ here" in shown and max(map(len, shown.splitlines())) < 120
    assert len(drawn) == len(line)

"""Long lines of emitted modules are broken for people, and mean what they meant."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from attnc.codegen.layout import WIDTH, laid_out
from attnc.parser import parse, read
from attnc.pipeline import compile_pattern
from attnc.request import Request

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.attn"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_modules_say_the_same_in_shorter_lines(path: Path) -> None:
    for item in parse(read(path)).patterns:
        found = Request(read(path), pattern=item.name.text, readable=False)
        plain = compile_pattern(found).text
        text = laid_out(plain)
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(plain))
        assert laid_out(text) == text
        code = [line for line in text.splitlines() if not line.lstrip().startswith(("#", '"""', "edges "))]
        # Many names on the left of an `=` stay on one line.
        assert [line for line in code if len(line) > WIDTH and not line.endswith(" = _equal_entries(")] == []


NAMES = {"A": "alpha" * 6, "B": "beta" * 7, "C": "gamma" * 6}


def written_out(text: str) -> str:
    """With long names in place of capitals."""
    return re.sub(r"\b[ABC]\b", lambda name: NAMES[name[0]], text)


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("x = A + B * B - C", "x = (\n    A\n    + B * B\n    - C\n)"),
        ("x = 2 * (A | B & B | C)", "x = 2 * (\n    A\n    | B & B\n    | C\n)"),
        ("x = (A <= B) & (C <= -A)", "x = (\n    (A <= B)\n    & (C <= -A)\n)"),
        ("f(A, B, C, key=A, b=B)", "f(\n    A, B, C,\n    key=A, b=B,\n)"),
        ("f(A, (B + C) * A, B)", "f(\n    A,\n    (B + C) * A,\n    B,\n)"),
        ("return A * A if B < C else -A", "return (\n    A * A\n    if B < C\n    else -A\n)"),
        ("yield A, lambda q, k: B and (C,), 0", "yield (\n    A,\n    lambda q, k: B and (C,),\n    0,\n)"),
        ("x = lambda q: A & B & C & A", "x = lambda q: (\n    A\n    & B\n    & C\n    & A\n)"),
        ("if A and B < C or A:  # why", "# why\nif (\n    A and B < C\n    or A\n):"),
        ("x[A] += f(B).g(A, B, C)[0]", "x[A] += f(B).g(\n    A, B, C\n)[0]"),
        ("x = [A + y for y in B if C > A]", "x = [\n    A + y for y in B if C > A\n]"),
        (f"x = (A,{' ' * 90})", "x = (\n    A,\n)"),
    ],
)
def test_where_lines_are_broken(line: str, lines: str) -> None:
    assert laid_out(written_out(line)) == written_out(lines)
    if not line.startswith(("yield", "if")):
        assert ast.dump(ast.parse(line)) == ast.dump(ast.parse(lines))


@pytest.mark.parametrize(
    "text",
    [
        "# A B C A B",
        '"""A = (B, C, A, B)"""',
        'def f():\n    """First.\n\n    A = (B, C, A, B)\n    """',
        "def f(\n    A, B, C, d, e, f, A\n): ...",
        f"x = {'y' * 200}",
        "x = 'A B, (C + A B'",
        "for x in f(A, B, C, A, B):\n    pass",
        "x = ä + A + B + C + A + B",
        f"x = {'(A + ' * 300}y{')' * 300}",  # too long for anybody to read
    ],
)
def test_what_is_left_as_it_is(text: str) -> None:
    assert laid_out(written_out(text)) == written_out(text)


def test_so_much_is_laid_out_and_no_more() -> None:
    line = written_out("x = A + B + C + A + B\n")
    text = line * 2000
    lines = laid_out(text).splitlines(keepends=True)
    assert line in lines and lines[0] != line
    assert [ast.dump(part) for part in ast.parse("".join(lines)).body] == [
        ast.dump(part) for part in ast.parse(text).body
    ]

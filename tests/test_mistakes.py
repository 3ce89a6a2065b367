"""What the resolver says about a mistake besides its name: how to mend it, and what a header got wrong."""

import pytest

from attnc.diagnostics import AttncError, Diagnostic, Source, render
from attnc.parser import parse
from attnc.resolver import resolve


def errors(text: str, **params: object) -> tuple[Diagnostic, ...]:
    with pytest.raises(AttncError) as caught:
        resolve(parse(Source("t.attn", text)), params)
    return caught.value.diagnostics


HELPS = [
    ("2:31", "as in `reach <= 2`", "attend all require reach <= n"),
    ("2:13", "`every(1) - first(3)`, or outside of the parentheses: `!to(first(3))`", "attend to(!first(3))"),
    (
        "2:26",
        "write `window(left, right, dilation)`; an axis of a grid is named",
        "attend window(1, 2, 3, 4)",
    ),
    ("2:19", "an axis of a grid is named, as in `axis=x`", "attend chunk(1, 2)"),
    ("2:17", "begins after the query: `where 1 <= k - q <= 5`", "attend window(-1, 5)"),
    ("2:20", "ends before the query: `where 1 <= q - k <= 5`", "attend window(9, -1)"),
    ("2:17", "the first axis goes on", "grid(y: 3, x: n) attend chunk(2, axis=x)"),
    ("2:14", "the last positions are `last(m)`", "attend to({n - 1})"),
    ("2:10", "as in `heads H - 2..H`", "heads {H - 1} { attend all }"),
    ("2:25", "move it up", "attend window(3, axis=y) grid(y: 4, x: 4)"),
]


@pytest.mark.parametrize(("place", "help", "text"), HELPS)
def test_mistakes_come_with_help(place, help, text):
    (found,) = errors(f"pattern f() {{\n  {text}\n}}")
    assert f" --> t.attn:{place}\n" in render(found)
    assert help in (found.help or "")


def test_what_is_long_is_not_quoted_in_help():
    condition = " and ".join(["q < k"] * 50)
    (found,) = errors(f"pattern f() {{ attend ({condition}) }}")
    assert found.help == "write `where …`"
    (found,) = errors("pattern f() { attend (q < k) }")
    assert found.help == "write `where (q < k)`"


HEADERS = [
    ("unknown-name", "pattern f(a: int = «b», b: int = 3) { attend window(a + b) }", {}),
    ("unknown-type", "pattern f(a: «integer» = 3) { attend all }", {}),
    ("unbound-parameter", "pattern f(«a»: int) { attend window(a) }", {}),
    ("unknown-parameter", "pattern «f»(window: int = 3) { attend window(window) }", {"windw": 4}),
    ("parameter-type", "pattern f(«a: int») { attend window(a) }", {"a": "3.5"}),
    ("parameter-type", "pattern f(«a: int») { attend window(a) }", {"a": True}),
    ("parameter-type", "pattern f(«a: bool») { attend where a }", {"a": 1}),
    ("parameter-type", "pattern f(«a: float») { attend all }", {"a": "nan"}),
    ("parameter-type", "pattern f(a: bool = «3») { attend where a }", {}),
    ("huge-integer", "pattern f(«a»: int) { attend window(a) }", {"a": 1 << 31}),
    ("duplicate-name", "pattern f(a: int = 1, «a»: int = 2) { attend window(a) }", {}),
    ("reserved-name", "pattern f(«backend»: int = 1) { attend window(backend) }", {}),
    ("reserved-name", "pattern «class»() { attend all }", {}),
    ("reserved-word", "pattern f(«order»: int = 1) { attend window(order) }", {}),
    ("duplicate-pattern", "pattern f() { attend all } pattern «f»() { attend self }", {}),
    ("no-attend", "pattern «f»() { require causal }", {}),
    ("inexact-division", "pattern f(w: int = 4) { attend window(«w / 2») }", {"w": 5}),
    ("division-by-zero", "pattern f(w: int = 4) { attend where q % «w» == 0 }", {"w": 0}),
    ("bad-argument", "pattern f(w: int = 4) { attend chunk(«w») }", {"w": 0}),
]


@pytest.mark.parametrize(("code", "text", "params"), HEADERS)
def test_mistakes_about_parameters_are_named_and_placed(code, text, params):
    start, end = text.index("«"), text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""), **params)
    assert (found.code, found.span.start, found.span.end) == (code, start, end)

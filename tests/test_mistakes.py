"""What the resolver says about a mistake besides its name: how to mend it, and what a header got wrong."""

import re

import pytest

from attnc.diagnostics import AttncError, Diagnostic, Source, render
from attnc.parser import parse
from attnc.resolver import resolve
from attnc.slips import SLIPS


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
    ("reserved-name", "pattern f() { input «state»: float[n, H] attend causal kernel x decay state }", {}),
    ("reserved-word", "pattern f(«order»: int = 1) { attend window(order) }", {}),
    ("duplicate-pattern", "pattern f() { attend all } pattern «f»() { attend self }", {}),
    ("no-attend", "pattern «f»() { require causal }", {}),
    ("parameter-type", "pattern f(w: int = «3.0») { attend window(w) }", {}),
    ("huge-integer", "pattern f(«a»: int) { attend window(a) }", {"a": "9" * 5000}),
    ("huge-float", "pattern f(«a»: float) { attend all score a * s }", {"a": 1e39}),
    ("huge-float", "pattern f(a: float = «1e400») { attend all score a * s }", {}),
    ("inexact-division", "pattern f(w: int = 4) { attend window(«w / 2») }", {"w": 5}),
    ("division-by-zero", "pattern f(w: int = 4) { attend where q % «w» == 0 }", {"w": 0}),
    ("bad-argument", "pattern f(w: int = 4) { attend chunk(«w») }", {"w": 0}),
]


@pytest.mark.parametrize(("code", "text", "params"), HEADERS)
def test_mistakes_about_parameters_are_named_and_placed(code, text, params):
    start, end = text.index("«"), text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""), **params)
    assert (found.code, found.span.start, found.span.end) == (code, start, end)


# --- habits ---------------------------------------------------------------------------------------------

HABITS = [
    ("pattern f«-»g() { attend all }", "expected `(`", "made of letters, digits and `_`"),
    ("pattern f(int «w») { attend all }", "expected `:`", "the name comes first: `w: int`"),
    ("pattern f(v: int, w«)» { attend all }", "expected `:`", "a parameter has a type: `w: int`"),
    ("pattern f(w: int«[»n]) { attend all }", "found `[`", "tensors are declared by `input`"),
    ("pattern f() { input x: bool «attend» to(x) }", "expected `[`", "as in `input x: bool[n]`"),
    ("pattern f() { grid(y: 3, x«=»4) attend all }", "expected `:` and a size", "write `x: …`"),
    ("pattern f() { grid(y«,» x) attend all }", "expected `:`", "an axis has a size, as in `y: 32`"),
    ("pattern f() { grid(«4», 4) attend all }", "expected the name of an axis", "write `y: 4`"),
    ("pattern f() { grid «y»: 4, x: 4 attend all }", "expected `(`", "write `grid(y: 32, x: 32)`"),
    ("pattern f() { attend«:» all }", "expected an expression", "the relation follows at once"),
    ("pattern f() { heads «[»0, 1] { attend all } }", "found `[`", "as in `heads {0, 1}`"),
    ("pattern f() { heads { «attend» all } }", "found `attend`", "as in `heads rest { … }`"),
    ("pattern f() { attend all require «not» causal }", "expected a claim", "a claim is `causal`"),
    ("pattern f() { attend all require causal «nonempty» }", "no", "write `require nonempty`"),
    ("pattern f() { attend all assume causal«,» nonempty }", "found `,`", "`assume causal assume nonempty`"),
    ("pattern f() { attend all require n«*»n >= edges }", "found `*`", "`require edges <= n * 64`"),
    ("pattern f() { attend window(left«:» 3) }", "expected `=`", "as in `left=…`"),
    ("pattern f() { attend window «3» }", "operator is missing", "parentheses: `window(3)`"),
    ("pattern f() { attend window(1«_000») }", "does not belong to a number", "decimal digits"),
    ("pattern f() { attend where q «in» first(3) }", "`in` is not an operator", "is `from(S)`"),
    ("pattern f() { attend all score where(q > k«,» s, 0) }", "takes a condition", "by `select(C, a, b)`"),
    ("pattern f() { attend all score torch.tanh«(»s) }", "functions have no module", "write `tanh(…)`"),
    ("pattern f() { attend where q <«>» k }", "`<>` is not an operator", "write `!=`"),
    ("pattern f() { attend all /«*» all */ }", "found `/*`", "comments start with `#`"),
    ("pattern f() { attend window(3) // the «latest» keys\n}", "operator is missing", "comments start"),
    ("pattern f() { attend q -«>» k }", "`->` is not an operator", "condition: `where k <= q`"),
    ("pattern f() { attend lambda «b», h, q, k: q >= k }", "there are no lambdas", "`attnc.from_mask_mod`"),
    ("pattern f() { attend all score lambda«:» s }", "there are no lambdas", "`attnc.from_mask_mod`"),
]


@pytest.mark.parametrize(("text", "message", "help"), HABITS)
def test_habits_of_other_languages_are_answered(text, message, help):
    text = "# a comment with ( and {\n" + text
    start, end = text.index("«"), text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""))
    assert (found.span.start, found.span.end) == (start, end)
    assert f" --> t.attn:2:{start - text.index('pattern') + 1}\n" in render(found)
    assert message in found.message and help in (found.help or "")


def test_every_slip_is_met_by_a_habit():
    met = set()
    for text, _, _ in HABITS:
        plain = text.replace("«", "").replace("»", "")
        start, word = text.index("«"), text[text.index("«") + 1 : text.index("»")]
        met.add(
            next(
                s for s in SLIPS if re.search(rf"{s.before}\Z", plain[:start]) and re.fullmatch(s.word, word)
            )
        )
    assert met == set(SLIPS)


MEANT = [
    ("attend where «d» < 3", "only in the bound of `flops`", "can be a parameter"),
    ("grid(y: 4, x: 4) attend where «y» == 0", "no `y` by itself", "write `q.y` or `k.y`"),
    ("attend to(«q < 3»)", "found a condition", "stands after `where`"),
    ("attend random(3, 1, «1»)", "`past` of `random` must be true or false", "`past=true`"),
    ("attend same(«q»)", "takes the name of an input", "as in `input x: int[n]`"),
    ("attend all kernel x update delta(«0.5»)", "takes the name of an input", "`input x: float[n, H]`"),
    ("attend all kernel x bonus «1.0»", "takes the name of an input", "`input x: float[H, d]`"),
    ("attend all require edges <= count(«3»)", "takes the name of an input", "`input x: bool[n]`"),
    ("attend «window»[3]", "is a word of the language", "parentheses: `window(…)`"),
    ("attend all require edges <= n * n * «0.5»", "made of whole numbers", "`x // 2`"),
    ("attend all require reach <= «1.5»", "made of whole numbers", "`x // 2`"),
    ("attend all require edges <= n * «log(n)»", "cannot stand in a bound", "there are no logarithms"),
    ("attend all require edges <= n * «log2(n)»", "cannot stand in a bound", "there are no logarithms"),
    ("attend all require flops <= n * «sqrt(n)»", "cannot stand in a bound", "made of `n`, `d`, parameters"),
    ("attend all require edges <= n * «ln»(n)", "there is no `ln(…)`", "`+ - * // min max`"),
    ("attend all require reach <= «log2(n)»", "cannot stand in a bound", "a number of layers"),
    ("input x: float[H] attend all require edges <= «x[h]»", "float input", "bounds are made of `n`"),
    ("attend all // «everything»", "there is no `everything`", "comments start with `#`"),
    ("let wide = 4 let a = (n + 3) // «wied» attend all", "there is no `wied`", "did you mean `wide`?"),
    ("attend causal -- «everything»", "there is no `everything`", "comments start with `#`"),
    ("attend window(3) // «latest»", "there is no `latest`", "comments start with `#`"),
    ("attend window(3, «causal»=true)", "no argument `causal`", "`& causal`; `window(a)` has no later ones"),
    ("attend all sink «s»", "there is no `s`", "`input sinks: float[H]` and `sink sinks[h]`"),
    ("attend all kernel «s»", "there is no `s`", "stands in `score` alone"),
    ("attend where «s» > 0", "there is no `s`", "stands in `score` alone"),
    ("attend to((«globals»))", "there is no `globals`", "declare `input globals: bool[n]`"),
    ("attend same(«doc»)", "there is no `doc`", "declare `input doc: int[n]`"),
    ("input x: bool[n] attend same(«x»)", "takes an int[n] input", "declare `input x: int[n]`"),
    ("input x: bool[n] attend where «x[q]» > 0", "found a condition", "`x[q]` is a condition already"),
    ("attend where «log(q)» > 1", "function of floats", "it stands in `score`"),
]


@pytest.mark.parametrize(("text", "message", "help"), MEANT)
def test_what_was_meant_is_answered(text, message, help):
    text = f"pattern f() {{\n{text}\n}}"
    start, end = text.index("«"), text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""))
    assert (found.span.start, found.span.end) == (start, end)
    assert f" --> t.attn:2:{start - text.index(chr(10))}\n" in render(found)
    assert message in found.message and help in (found.help or "")

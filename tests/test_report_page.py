"""``attnc report``: the page, and what stands on it."""

from __future__ import annotations

import functools
import inspect
import os
import pickle
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch

from attnc import attention_pattern, check, from_mask, from_mask_mod, load
from attnc.cli import main
from attnc.cost import edges
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.pages.charts import Curve, bars, curves, short
from attnc.pages.python import highlighted
from attnc.parser import parse
from attnc.reach import spread, telling_length
from attnc.reference import mask
from attnc.resolver import resolve
from tests.pages import assert_self_contained

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WRONG = """# Not what it says: q < k & "quotes" <b>.
pattern wrong(w: int = 4) {
    input x: bool[n]
    attend window(w) | where q < k and k % 3 == 1 | to(x)
    require causal
    require nonempty
    require edges <= n * 3
    require reach <= 1
    assume flops <= 4 * d * n
}

pattern right() { attend causal require causal }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("wrong<i>.attn").write_text(WRONG)
    Path("broken.attn").write_text("pattern broken( { attend all }\n")
    return tmp_path


def test_page_of_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.html"
    assert main(["report", str(EXAMPLES / "longformer.attn"), "-o", str(out), "-p", "window=64"]) == 0
    assert capsys.readouterr() == ("", "")
    page = out.read_text()
    said = assert_self_contained(page)
    for words in (
        "longformer(window = 64)",
        "Every query has a key",
        "The closed form of the number of edges never exceeds the bound",
        "With 2 tokens, query 0 reads key 1.",
        "is_global=spread:5",
        "two passes over the queries",
        "the queries with is_global[q], packed side by side",
        "import triton",
        "def longformer(",
        "Beltagy et al.",
    ):
        assert words in said, words
    # The source is there word for word, and so is the plan.
    text = (EXAMPLES / "longformer.attn").read_text()
    assert " ".join(text.split()).replace(" ", "") in said.replace(" ", "")
    assert "sweep window(window / 2, window / 2)" in said
    # Dense attention beside the pattern, and the numbers of the closed form.
    cost = edges(decompose(resolve(parse(Source("t", text)), {"window": "64"}).patterns[0])[0].terms)
    assert str(cost.at(8192, is_global=5)) in said and "dense" in said


def test_page_of_weighed_edges(tmp_path: Path) -> None:
    (tmp_path / "p.attn").write_text(
        "pattern p() { input slope: float[H] attend causal score s + slope[h] * (k - q) }"
    )
    assert main(["report", str(tmp_path / "p.attn"), "-o", str(tmp_path / "p.html")]) == 0
    said = assert_self_contained((tmp_path / "p.html").read_text())
    assert "What an edge weighs" in said and "slope[h] * (k - q)" in said
    # An expression as long as the one that ALiBi's names stand for is told by its names.
    assert main(["report", str(EXAMPLES / "alibi.attn"), "-o", str(tmp_path / "p.html")]) == 0
    said = assert_self_contained((tmp_path / "p.html").read_text())
    assert said.count("score s - select(h < power, lower, upper) * (q - k)") == 2  # the source, and the table
    (tmp_path / "p.attn").write_text("pattern p() { attend causal }")
    assert main(["report", str(tmp_path / "p.attn"), "-o", str(tmp_path / "p.html")]) == 0
    assert "What an edge weighs" not in (tmp_path / "p.html").read_text()


def test_page_of_states(tmp_path: Path) -> None:
    """What is computed through states is not told as passes over pairs, and its cost is linear."""
    assert main(["report", str(EXAMPLES / "gla.attn"), "-o", str(tmp_path / "p.html")]) == 0
    said = assert_self_contained((tmp_path / "p.html").read_text())
    for words in (
        "kernel x",
        "decay g",
        "d * dv numbers a head of which a query reads all up to itself",
        "faded by g, one gate a token, head and channel",
        "2 * n * d * dv multiplications, fewer than pair by pair from n = 128 on, with dims of 64",
        # 2 * n * 64 * 64 against 2 * 64 * n * (n + 1) / 2 at n = 1024.
        "102467.2M8.39M8.01x",
    ):
        assert words in said, words
    assert "pass over the queries" not in said and "passes over the queries" not in said

    assert main(["report", str(EXAMPLES / "lolcats.attn"), "-o", str(tmp_path / "p.html")]) == 0
    said = assert_self_contained((tmp_path / "p.html").read_text())
    assert "a query reads all at least 64 positions behind" in said
    # Which edges weigh how, and a color for either; joined they are one term.
    assert "causal - window(window - 1)kernel exp(x)" in said.replace("\n", "")
    assert "causal & !window(window - 1)2016 tiles full" in re.sub(r"\s*\n\s*", "", said)
    assert "one pass over the queries; what the states gave is joined with what they find" in said
    assert main(["report", str(EXAMPLES / "mistral.attn"), "-o", str(tmp_path / "p.html")]) == 0
    assert "through states" not in (tmp_path / "p.html").read_text()


def test_page_of_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "wrong<i>.attn", "-o", "out.html", "--input", "x=first:2"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("error[") == 3
    page = Path("out.html").read_text()
    said = assert_self_contained(page)
    assert "wrong&lt;i&gt;.attn" in page and "<b>.</span>" not in page and "&lt;b&gt;" in page
    assert "error[not-causal]" in said and "query 0 reads key 1" in said
    assert re.search(r"query \d+ has heard nothing of key \d+ after so many layers", said)
    assert "taken on trust" in said and "Nothing is planned" in said
    # The other pattern of the file has all of it.
    assert "def right(" in said and "def wrong(" not in said and "x=first:2" in said


def test_no_page_of_what_does_not_parse(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "broken.attn", "-o", "out.html"]) == 1
    assert capsys.readouterr().err.startswith("error[") and not Path("out.html").exists()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["wrong<i>.attn"], "--output"),
        (["wrong<i>.attn", "-o", "out.pdf"], ".html"),
        (["wrong<i>.attn", "-o", "nowhere/out.html"], "nowhere"),
        (["wrong<i>.attn", "-o", "out.html", "--n", "0"], "'0' is no number"),
        (["wrong<i>.attn", "-o", "out.html", "--input", "y=first:1"], "no input 'y'"),
        (["wrong<i>.attn", "-o", "out.html", "--input", "x=runs:1"], "write spread:COUNT"),
        (["missing.attn", "-o", "out.html"], "missing.attn"),
    ],
)
def test_misuse_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], names: str
) -> None:
    before = sorted(os.listdir())
    assert main(["report", *words]) == 2
    assert names in capsys.readouterr().err and sorted(os.listdir()) == before


def test_foreign_pages_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.html").write_text("<html></html>")
    assert main(["report", "wrong<i>.attn", "--pattern", "right", "-o", "mine.html"]) == 2
    assert "--force" in capsys.readouterr().err and Path("mine.html").read_text() == "<html></html>"
    assert main(["report", "wrong<i>.attn", "--pattern", "right", "-o", "mine.html", "--force"]) == 0
    assert main(["report", "wrong<i>.attn", "--pattern", "right", "-o", "mine.html"]) == 0


# --- its parts ------------------------------------------------------------------------------------------


def test_curves() -> None:
    made = curves(
        [Curve("a<b", ((64, 64), (128, 256)), "#123456"), Curve("none", ((64, 0),), "red")], "x", "y"
    )
    points = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', made)
    assert points is not None and "a&lt;b" in made and "red" not in made
    x0, y0, x1, y1 = map(float, points.groups())
    assert x1 > x0 and y1 < y0, "more is further right, and further up"
    assert 'width="120.0"' in bars([("one", 0.5, "half")], "red")
    assert [short(n) for n in (7, 999, 1024, 12_345, 10**6, 2**40)] == [
        "7",
        "999",
        "1.02k",
        "12.3k",
        "1M",
        "1.1T",
    ]


def test_python_is_highlighted_and_kept() -> None:
    text = 'def f(x):  # <c>\n    return "a" + str(x) < 2\n'
    made = highlighted(text)
    assert '<span class="keyword">def</span>' in made and "&lt;c&gt;" in made
    assert (
        re.sub("<[^>]*>", "", made).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"') == text
    )
    assert highlighted("'''<open") == "&#x27;&#x27;&#x27;&lt;open"


@pytest.mark.parametrize(
    "text", ["attend window(3)", "attend window(2, 2) | to(first(1))", "attend stride(4)"]
)
def test_spread_is_what_the_masks_say(text: str) -> None:
    (pattern,) = resolve(parse(Source("t", f"pattern p() {{ {text} }}"))).patterns
    found = spread(pattern, decompose(pattern), 40, {}, layers=6)
    step = mask(pattern, 40, 1)[0] | np.eye(40, dtype=np.bool_)
    legal = [[k <= q or not found.causal for k in range(40)] for q in range(40)]
    arrived = step.copy()
    for share in found.shares:
        right = sum(arrived[q, k] for q in range(40) for k in range(40) if legal[q][k])
        assert share == pytest.approx(right / sum(map(sum, legal)))
        arrived = (arrived.astype(int) @ step.astype(int)) > 0
    assert found.tile == 1 and len(found.shares) <= 6


def test_telling_lengths() -> None:
    def at(text: str) -> int:
        return telling_length(resolve(parse(Source("t", f"pattern p() {{ {text} }}"))).patterns[0])

    assert at("grid(y: 30, x: 20) attend chunk(2, axis=x)") == 600
    assert at("attend causal") == 64 and at("attend window(99)") == 2048
    assert at("attend window(1000000000)") == 1 << 20


# --- notebooks ------------------------------------------------------------------------------------------


def test_a_report_shows_itself() -> None:
    found = check(WRONG)._repr_html_()
    assert found.count("<svg") == 2 and "error[not-causal]" in found and "<style" not in found
    assert "<b>." not in found and "proven" in found
    # Without a style sheet, the longest name would touch what is said of it.
    assert all("padding-right" in style for style in re.findall(r"<th style=\"(.*?)\"", found))
    broken = check("pattern broken( { attend all }")._repr_html_()
    assert "<svg" not in broken and "error[" in broken


def test_masks_show_what_they_are() -> None:
    document = torch.arange(60) // 25
    found = from_mask_mod(lambda b, h, q, k: (document[q] == document[k]) & (k <= q), name="documents")
    shown = found._repr_html_()
    assert "n = 60" in shown and "=given" in shown and "documents" in shown and "<svg" in shown
    # The tensor itself was drawn: three triangles, and nothing else.
    image = ElementTree.fromstring(re.search(r"<svg.*?</svg>", shown, re.S)[0])  # type: ignore[index]
    boxes = " ".join(path.get("d", "") for path in image.iter("path"))
    cells = sum(int(w) * int(h) for w, h in re.findall(r"h(\d+)v(\d+)H", boxes))
    assert cells == 25 * 26 // 2 * 2 + 10 * 11 // 2
    blocks = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    dense = blocks.repeat_interleave(16, 0).repeat_interleave(16, 1)
    shown = from_mask(dense)._repr_html_()
    assert "<svg" in shown


def test_functions_show_their_patterns() -> None:
    function = load(
        "pattern near(w: int = 4) { attend window(w) }\npattern far() { attend all }", "near", w=7
    )
    shown = function._repr_html_()  # type: ignore[attr-defined]
    assert "near(w = 7)" in shown and "<svg" in shown and "far" not in shown

    @attention_pattern
    def recent(q, k, v, *, w: int = 5):  # type: ignore[no-untyped-def]
        """
        attend window(w - 1)
        require causal
        """

    assert "recent(w = 5)" in recent._repr_html_() and "window(w - 1)" in recent._repr_html_()
    assert recent.__name__ == "recent" and "require causal" in recent.__doc__ and recent.__wrapped__
    # They are functions all the same: pickled by name, wrapped, and compiled without a break.
    assert pickle.loads(pickle.dumps(function)) is function
    assert functools.wraps(function)(lambda *_: None).__name__ == "near"
    assert list(inspect.signature(function).parameters) == ["q", "k", "v", "scale", "backend"]
    q, k, v = torch.randn(3, 1, 2, 20, 16)
    for one in (function, recent):
        compiled = torch.compile(one, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(q, k, v), one(q, k, v))

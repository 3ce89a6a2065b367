"""Pictures against the mask: what is painted is what is read, in every form."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from attnc import fills, pipeline
from attnc.diagnostics import Source
from attnc.drawing.colors import PARTIAL, color
from attnc.drawing.data import to_dot, to_json
from attnc.drawing.highlight import highlighted
from attnc.drawing.picture import BadPicture, Picture, check_tiles, picture, usual_tile
from attnc.drawing.png import png
from attnc.drawing.svg import panels, svg, thumbnail
from attnc.drawing.text import text, tiles_for
from attnc.files import read_path
from attnc.graph import Kind, block_graph
from attnc.lexicon import words
from attnc.reference import mask
from attnc.request import Request
from tests.strategies import Case, cases

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
HUBS = "pattern hubs() { input x: bool[n] attend window(3, 3) | to(x) | from(x) }"
TWO = "pattern two() { heads even { attend window(4) } heads odd { attend stride(5) & causal } }"


def decomposed(pattern: str, **params: int) -> Any:
    source = read_path(EXAMPLES / f"{pattern}.attn") if pattern.isidentifier() else Source("t.attn", pattern)
    return pipeline.run(Request(source, params=params), "terms")


def seen(pattern: str, n: int, **options: Any) -> Picture:
    done = decomposed(pattern)
    return picture(done.pattern, done.bodies, n, **options)


def cells(found: Picture, place: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The kind of every cell of a panel, and how many terms touch it."""
    kinds, terms = (np.zeros((found.tiles, found.tiles), dtype=np.int64) for _ in range(2))
    for i, row in enumerate(found.panels[place].rows()):
        at = 0
        for part in row:
            assert at <= part.start < part.stop <= found.tiles and part.terms and part.kind is not Kind.EMPTY
            at = part.stop
            kinds[i, part.start : part.stop] = part.kind
            terms[i, part.start : part.stop] = len(part.terms)
    return kinds, terms


# --- what is seen ---------------------------------------------------------------------------------------


@given(cases(most=70))
@settings(max_examples=40)
def test_every_token_is_where_the_mask_has_it(case: Case) -> None:
    done = pipeline.run(Request(Source("t.attn", case.text)), "terms")
    n, heads = max(case.call.n, 1), case.call.heads
    found = picture(done.pattern, done.bodies, n, tile=1, heads=heads)
    dense = mask(done.pattern, n, heads, fills.filled(done.pattern, n, heads))
    shown = [head for panel in found.panels for head in panel.heads]
    assert sorted(shown) == list(range(heads))
    for place, panel in enumerate(found.panels):
        kinds, terms = cells(found, place)
        for head in panel.heads:
            assert ((kinds == Kind.FULL) == dense[head]).all()
        # Terms are disjoint, so that no pair of tokens belongs to two; nothing is left undecided.
        assert (terms <= 1).all() and not (kinds == Kind.PARTIAL).any()


@pytest.mark.parametrize("name", ["bigbird", "longformer", "strided", "etc", "sparse_transformer_fixed"])
def test_tiles_are_those_of_the_block_graph(name: str) -> None:
    done = decomposed(name)
    found = picture(done.pattern, done.bodies, 1500, tile=50)
    inputs = fills.filled(done.pattern, 1500, 1)
    graph = block_graph(done.bodies[0], 1500, 50, inputs=inputs)
    kinds, _ = cells(found, 0)
    assert {kind: int((kinds == kind).sum()) for kind in Kind} == graph.counts()


def test_heads_that_are_alike_share_a_panel() -> None:
    assert [panel.heads for panel in seen(TWO, 20).panels] == [(0,), (1,)]
    found = seen(TWO, 20, heads=5)
    assert [panel.heads for panel in found.panels] == [(0, 2, 4), (1, 3)]
    assert "even" in found.panels[0].title
    drawn = seen("pattern r() { attend random(2, seed=1) }", 20, heads=20)
    assert len(drawn.panels) == 16 and drawn.left_out == 4 and "4 more heads" in drawn.caption


def test_usual_tiles() -> None:
    swin = decomposed("pattern s() { grid(y: 56, x: 56) attend chunk(7, axis=y) }").pattern
    plain = decomposed("pattern c() { attend causal }").pattern
    assert usual_tile(swin, 56 * 56) == 56
    assert [usual_tile(plain, n) for n in (1, 128, 129, 4096, 1_000_000)] == [1, 1, 4, 64, 16384]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": 8, "tile": 9}, "a tile of 9"),
        ({"n": 100_000, "tile": 1}, "4096"),
        ({"n": 1 << 24, "tile": 2}, "tiles of 2"),
    ],
)
def test_pictures_that_cannot_be(options: dict[str, Any], names: str) -> None:
    with pytest.raises(BadPicture, match=names):
        seen("causal", **options)
    with pytest.raises(BadPicture, match="head 2"):
        seen("pattern p() { heads 0..2 { attend causal } }", 8, heads=3)
    with pytest.raises(BadPicture, match="tiles of 32 or more"):
        check_tiles(seen("causal", 1 << 16, tile=2))


def test_a_million_tokens_take_no_matrix() -> None:
    done = decomposed("bigbird")
    tracemalloc.start()
    started = time.perf_counter()
    made = svg(picture(done.pattern, done.bodies, 1_000_000))
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A matrix of tokens would be a terabyte, one bit each 125 gigabytes.
    assert peak < 200e6 and len(made) < 200_000 and seconds < 60


# --- SVG ------------------------------------------------------------------------------------------------

RECT = re.compile(r"M(\d+) ([\d.]+)h(\d+)v([\d.]+)H(\d+)z")


def painted(image: ElementTree.Element, tiles: int) -> npt.NDArray[np.float64]:
    """How much of every cell is painted, partial tiles by their strength."""
    ink = np.zeros((tiles, tiles))
    for path in image.iter():
        data = path.get("d")
        if not path.tag.endswith("path") or data is None or path.get("fill") == "none":
            continue
        strength = float(path.get("fill-opacity", "1"))
        assert RECT.sub("", data) == ""
        for x, y, width, height, back in RECT.findall(data):
            assert x == back
            top, tall = float(y), float(height)
            for row in range(int(top), int(np.ceil(top + tall - 0.01))):
                share = min(top + tall, row + 1) - max(top, row)
                ink[row, int(x) : int(x) + int(width)] += share * strength
    return ink


@pytest.mark.parametrize(
    ("name", "n"), [("bigbird", 1024), ("longformer", 4096), ("logsparse", 64), (TWO, 50)]
)
def test_what_is_painted_is_what_is_read(name: str, n: int) -> None:
    found = seen(name, n)
    for place, panel in enumerate(panels(found)):
        kinds, _ = cells(found, place)
        want = np.select([kinds == Kind.FULL, kinds == Kind.PARTIAL], [1.0, PARTIAL], 0.0)
        np.testing.assert_allclose(painted(ElementTree.fromstring(panel), found.tiles), want, atol=0.01)


def test_a_picture_says_what_it_shows() -> None:
    found = seen(HUBS, 1000, fills={"x": "every:100"})
    image = ElementTree.fromstring(svg(found))
    said = " ".join("".join(part.itertext()) for part in image.iter() if part.tag.endswith("text"))
    for words_ in ("hubs()", "n = 1000", "tiles of 16", "x=every:100", "to(x)", "keys", "queries", "999"):
        assert words_ in said
    counts = found.panels[0].graph.counts()
    assert f"{counts[Kind.FULL]} tiles full" in said and f"{counts[Kind.EMPTY]} tiles empty" in said
    fills_ = {part.get("fill") for part in image.iter()}
    assert {color(0), color(1), color(2)} <= fills_
    assert "text" not in thumbnail(found)


def test_nothing_of_a_pattern_becomes_markup() -> None:
    text_ = "pattern p() { attend where q < k and k > 3 | self }"
    for made in (svg(seen(text_, 30)), svg(seen(text_, 30), standalone=False)):
        image = ElementTree.fromstring(made)
        assert any("q < k" in (part.text or "") for part in image.iter())
    assert "<script>" not in highlighted("# <script>alert(1)</script>\npattern <b> & ' \"")


# --- PNG, JSON, DOT -------------------------------------------------------------------------------------


def test_png() -> None:
    pytest.importorskip("matplotlib")
    data = png(seen(TWO, 300))
    assert (
        data.startswith(b"\x89PNG")
        and data.endswith(b"IEND\xaeB`\x82")
        and b"generated by attnc" in data[:1024]
    )


def test_json_has_every_edge_of_the_block_graph() -> None:
    found = seen(HUBS, 1000, tile=50, fills={"x": "first:2"})
    document = json.loads(to_json(found))
    assert {key: document[key] for key in ("pattern", "n", "tile", "heads")} == {
        "pattern": "hubs",
        "n": 1000,
        "tile": 50,
        "heads": 1,
    }
    assert document["inputs"] == {"x": "first:2"}
    assert document["nodes"][0] == {"id": "q0", "side": "query", "first": 0, "last": 49}
    assert document["nodes"][-1] == {"id": "k19", "side": "key", "first": 950, "last": 999}
    (graph,) = document["graphs"]
    kinds, terms = cells(found, 0)
    listed = {(edge["from"], edge["to"]): edge for edge in graph["edges"]}
    assert len(listed) == len(graph["edges"]) == int((kinds > 0).sum())
    for (i, j), kind in np.ndenumerate(kinds):
        if kind:
            edge = listed[f"q{i}", f"k{j}"]
            assert edge["state"] == Kind(kind).name.lower() and len(edge["terms"]) == terms[i, j]
            assert all(0 <= term < len(document["terms"]) for term in edge["terms"])


def test_json_of_nothing() -> None:
    document = json.loads(to_json(seen("pattern p() { attend none }", 10)))
    assert document["graphs"] == [{"heads": [0], "edges": []}] and document["terms"] == []


def test_dot_has_every_edge() -> None:
    found = seen(TWO, 60, tile=10)
    made = to_dot(found)
    counts = [panel.graph.counts() for panel in found.panels]
    assert made.count(" -> ") == sum(count[Kind.FULL] + count[Kind.PARTIAL] for count in counts)
    assert made.count("style=dashed") == sum(count[Kind.PARTIAL] for count in counts)
    assert made.count("{") == made.count("}") and made.startswith("// generated by attnc\ndigraph")


def test_data_that_is_too_much_is_refused() -> None:
    found = seen("dense", 30_000, tile=30)
    with pytest.raises(BadPicture, match="1000000 edges"):
        to_json(found)
    with pytest.raises(BadPicture, match="20000"):
        to_dot(found)


# --- characters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 40, 79, 200])
@pytest.mark.parametrize("name", ["bigbird", "sparse_transformer_strided", "image_transformer_2d"])
def test_characters_fit(columns: int, name: str) -> None:
    found = seen(name, 4096, usual_tiles=tiles_for(columns))
    plain = text(found, columns)
    assert max(map(len, plain.splitlines())) <= columns and "\x1b" not in plain
    colored = text(found, columns, color=True)
    assert re.search("\x1b\\[38;5;\\d+m", colored)
    assert max(len(re.sub("\x1b\\[[\\d;]*m", "", line)) for line in colored.splitlines()) <= columns


def test_characters_are_the_cells() -> None:
    found = seen("causal", 64, tile=8)
    lines = text(found, 80).splitlines()[3 : 3 + found.tiles]
    assert lines[0] == "▒▒" + "··" * 7 and lines[-1] == "██" * 7 + "▒▒"
    ascii_ = text(found, 80, encoding="ascii")
    assert ascii_.isascii() and "##" * 7 + "++" in ascii_
    lettered = text(seen(HUBS, 64, tile=8, fills={"x": "first:1"}), 80)
    assert "capitals are full" in lettered and re.search(r"^BB ", lettered, re.M)


# --- words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.attn")), ids=lambda path: path.stem)
def test_words_are_the_text(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    found = list(words(source))
    assert "".join(word.text for word in found) == source
    looks = {word.text: word.look for word in found}
    assert looks["pattern"] == looks["require"] == "keyword" and looks["{"] == "sign"
    assert (
        re.sub(r"<[^>]*>", "", highlighted(source))
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .replace("&quot;", '"')
        .replace("&#x27;", "'")
        == source
    )


def test_words_of_what_is_no_pattern() -> None:
    found = list(words("attend $ causal"))
    assert [word.look for word in found] == ["keyword", "space", "unknown"]
    assert "".join(word.text for word in found) == "attend $ causal"

"""What editors ask, without a protocol: places, words that may follow, definitions, meanings, mends."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc import atoms, names
from attnc.diagnostics import Diagnostic, Edit, Source, Span
from attnc.editing.completion import completions
from attnc.editing.meanings import WORDS, meanings
from attnc.editing.mending import edited, mends, mistakes
from attnc.editing.outline import definition, outline, pattern_at, word_at
from attnc.editing.positions import Positions
from attnc.parser import terminals
from attnc.pattern import ClaimKind
from attnc.report import examine
from attnc.request import Request

# --- places ---------------------------------------------------------------------------------------------

LETTERS = st.sampled_from("ab\n\ré€\N{GRINNING FACE}\x0b\x0c\u2028\t")


@settings(max_examples=80)
@given(st.text(alphabet=LETTERS, max_size=30), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_places_and_back(text: str, encoding: str) -> None:
    positions = Positions(text, encoding)
    lines = re.split(r"\r\n|\r|\n", text)
    for offset in range(len(text) + 1):
        if text[offset - 1 : offset + 1] == "\r\n":
            continue  # no place is between the two
        line, column = positions.place(offset)
        # As the protocol has it: lines end at \r\n, \r or \n alone, columns count units of the encoding.
        size = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
        before = re.split(r"\r\n|\r|\n", text[:offset])
        assert line == len(before) - 1
        assert column * size == len(before[-1].encode(f"{encoding}-le" if size > 1 else encoding))
        assert positions.offset((line, column)) == offset
    assert positions.offset((0, 1000)) == len(lines[0])
    assert positions.offset((1000, 0)) == len(text) and positions.place(1000) == positions.place(len(text))


def test_a_place_within_a_character_is_its_beginning() -> None:
    assert Positions("\N{GRINNING FACE}b").offset((0, 1)) == 0
    assert Positions("\N{GRINNING FACE}b").offset((0, 2)) == 1


# --- completion -----------------------------------------------------------------------------------------


def proposed(text: str) -> set[str]:
    """What is proposed at the mark."""
    offset = text.index("@")
    return {proposal.word for proposal in completions(text.replace("@", ""), offset)}


ITEM_WORDS = {*names.ITEMS, *names.WEIGHTS}
HEAD = "pattern p(width: int = 8) { input hub: bool[n] grid(y: 4, x: 4) let near = window(width) "


@pytest.mark.parametrize(
    ("text", "there", "missing"),
    [
        ("@", {"pattern"}, {"attend", "window"}),
        ("# hello @", set(), {"pattern"}),
        ("pattern p@", set(), {"pattern", "window"}),
        ("pattern p(width: @", {"int", "float", "bool"}, {"q", "window"}),
        (HEAD + "@ }", ITEM_WORDS, {"pattern"}),
        (HEAD + "at@", {"attend", "or", "and"}, {"pattern", "window"}),
        (HEAD + "let @", set(), {"window", "near", "attend"}),
        (
            HEAD + "attend @",
            {"window", "near", "width", "hub", "first", "where", "q", "not"},
            {"tanh", "attend"},
        ),
        (HEAD + "attend wi@ndow(3) }", {"window", "width"}, {"attend"}),
        (HEAD + "attend window(3, right=2, @", {"left=", "dilation=", "axis=", "width"}, {"right=", "size="}),
        (HEAD + "attend window(3, axis=@", {"x", "y"}, {"left="}),
        (HEAD + "attend window(3 + @", {"width"}, {"left=", "x"}),
        (HEAD + "attend where q.@", {"x", "y"}, {"near", "window"}),
        (HEAD + "attend blocks(64, @", {"relation=", "size=", "random"}, set()),
        (HEAD + "attend near wi@", {"with", "attend", "require"}, {"window"}),
        (HEAD + "attend near with @", {"softmax", "score", "kernel"}, {"window", "attend"}),
        (HEAD + "attend near score @", {"s", "tanh", "select", "width", "q", "h"}, {"x", "window", "favor"}),
        (HEAD + "attend near kernel @", {"x", "elu", "favor", "taylor", "cosine"}, {"s", "window", "delta"}),
        (HEAD + "attend near kernel x + @", {"x", "elu"}, {"favor"}),
        (HEAD + "attend near kernel x update @", {"delta"}, {"window"}),
        (HEAD + "attend near kernel x normalize @", {"sum", "none"}, {"x"}),
        (HEAD + "attend near kernel x decay near e@", {"exclusive", "bonus"}, {"x"}),
        (HEAD + "heads @", {"even", "odd", "rest"}, {"attend"}),
        (HEAD + "heads even { let own = near attend @", {"own", "near"}, {"attend"}),
        (HEAD + "heads even { let own = near attend own } heads rest { attend @", {"near"}, {"own"}),
        (HEAD + "require @", set(names.CLAIMS), {"window", "near"}),
        (HEAD + "require edges <= @", {"n", "count", "width"}, {"attend"}),
        # What is wrong elsewhere does not keep it from answering.
        ("pattern broken( { ) } " + HEAD + "attend @", {"near", "window"}, {"attend"}),
        (HEAD + "attend ) $ | @", {"near", "window"}, set()),
        ("pattern p() { attend 3@", set(), {"window"}),
    ],
)
def test_what_may_follow(text: str, there: set[str], missing: set[str]) -> None:
    found = proposed(text)
    assert there <= found, there - found
    assert not missing & found


def test_a_let_is_not_proposed_to_itself() -> None:
    assert "later" not in proposed("pattern p() { let near = @ let later = all attend near }")
    assert "near" not in proposed("pattern p() { let near = chunk(4) & @")


# --- definitions and the outline ------------------------------------------------------------------------

NAMES = """pattern first_one(size: int = max(3, 4), y: bool = true) {
    grid(y: 4, x: size)
    let hubs = every(size)
    heads {0, 1} { let near = chunk(size, axis=x) attend near & where q.y == k.y and y }
    heads rest { let near = all attend near - to(hubs) }
}
pattern second(size: int = 2) { let hubs = first(size) attend to(hubs
"""


def spot(mark: str) -> int:
    return NAMES.index(mark)


@pytest.mark.parametrize(
    ("mark", "wanted"),
    [
        ("size)\n    let", "size: int = max"),
        ("near &", "near = chunk"),
        ("near -", "near = all"),
        ("hubs) }", "hubs = every"),
        ("hubs\n", "hubs = first"),
        ("size) attend", "size: int = 2"),
        ("x) attend", "x: size"),
        ("y ==", "y: 4"),
        ("y }", "y: bool"),
        ("second", "second"),
        ("hubs = every", "hubs = every"),
    ],
)
def test_definitions(mark: str, wanted: str) -> None:
    found = definition(NAMES, spot(mark))
    assert found is not None and found.name.start == spot(wanted)


@pytest.mark.parametrize("mark", ["chunk", "axis=", "int", "rest", "{", "every"])
def test_what_has_no_definition(mark: str) -> None:
    assert definition(NAMES, spot(mark)) is None


def test_the_outline() -> None:
    first, second = outline(NAMES)
    assert [(part.kind, part.text) for part in first.parts] == [
        ("parameter", "size"),
        ("parameter", "y"),
        ("axis", "y"),
        ("axis", "x"),
        ("let", "hubs"),
        ("heads", "{0, 1}"),
        ("heads", "rest"),
    ]
    assert [part.text for part in first.parts[-1].parts] == ["near"]
    assert NAMES[first.parts[0].whole.start : first.parts[0].whole.end] == "size: int = max(3, 4)"
    assert NAMES[first.parts[4].whole.start : first.parts[4].whole.end] == "let hubs = every(size)"
    assert NAMES[: first.whole.end].endswith("}") and pattern_at(NAMES, len(NAMES)) == second
    assert [(part.kind, part.text) for part in second.parts] == [("parameter", "size"), ("let", "hubs")]
    # Where names and bodies are nested, the protocol wants the name within the whole.
    todo = [first, second]
    while todo:
        symbol = todo.pop()
        assert symbol.whole.start <= symbol.name.start <= symbol.name.end <= symbol.whole.end
        todo += symbol.parts


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from([*NAMES.split(), "{", "}", "(", ")", "pattern", "heads", "let", "grid", "$"]))
)
def test_no_text_is_too_broken(pieces: list[str]) -> None:
    text = " ".join(pieces)
    outline(text)
    for offset in range(0, len(text) + 1, 5):
        word_at(text, offset)
        definition(text, offset)
        completions(text, offset)


# --- meanings -------------------------------------------------------------------------------------------


def test_every_word_has_a_meaning() -> None:
    keywords = {text for text in terminals().values() if text is not None and text.isidentifier()}
    assert keywords <= WORDS
    for word in WORDS:
        told = meanings(word)
        assert told, word
        assert all(item.text and item.kind and word in re.findall(r"\w+", item.form) for item in told), word
    assert meanings("hubs") == meanings("R") == ()


def test_meanings_are_those_of_the_reference() -> None:
    (told,) = meanings("stride")
    assert (told.kind, told.form, told.text) == ("relation", "stride(step)", "`(q - k) % step == 0`")
    assert [item.text for item in meanings("to")] == ["`k` in the set"]
    assert [item.text for item in meanings("last")] == ["`p >= n - m`"]
    assert [item.kind for item in meanings("causal")] == ["relation", "claim"]
    assert [item.form for item in meanings("offsets")] == ["offsets({…})", "offsets(powers(2))"]
    for name, slots in {**atoms.RELATIONS, **atoms.SETS}.items():
        for slot in slots:
            if slot.default is not None and slot.name != "axis":
                assert any(f"{slot.name}=" in item.form for item in meanings(name)), (name, slot.name)


# --- mends ----------------------------------------------------------------------------------------------


def mended(text: str) -> list[str]:
    """The texts that come out of the mends of the first mistake."""
    found = mistakes(Source("p.attn", text))[0]
    return [edited(text, mend.edits) for mend in mends(found)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pattern p() { attend windw(3) }", ["pattern p() { attend window(3) }"]),
        ("pattern p() { attned causal }", ["pattern p() { attend causal }"]),
        ("pattern p(a: nt = 3) { attend window(a) }", ["pattern p(a: int = 3) { attend window(a) }"]),
        ("pattern p() { attend causal require casual }", ["pattern p() { attend causal require causal }"]),
        # What only says what to do is no edit, and neither is what would break something else.
        ("pattern p() { attend chunk(4) & causal() }", ["pattern p() { attend chunk(4) & causal }"]),
        ("pattern p() { attend where q < 3 || k < 3 }", []),
        ("pattern p() { attend window }", []),
        ("pattern p() {", []),
    ],
)
def test_what_mends(text: str, wanted: list[str]) -> None:
    assert mended(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "pattern p() { attend window(3) | to(first(2)) # here\n require causal }",
            "pattern p() { attend (window(3) | to(first(2))) & causal # here\n require causal }",
        ),
        (
            "pattern p() { attend chunk(4) require causal }",
            "pattern p() { attend chunk(4) & causal require causal }",
        ),
        (
            "pattern p() { attend to({2}) require nonempty }",
            "pattern p() { attend to({2}) | self require nonempty }",
        ),
    ],
)
def test_a_claim_is_mended_by_what_its_help_says(text: str, wanted: str) -> None:
    (found,) = examine(Request(Source("p.attn", text))).diagnostics
    (mend,) = mends(found)
    assert mend.title.startswith("Write ") and edited(text, mend.edits) == wanted
    assert examine(Request(Source("p.attn", wanted))).ok


def test_a_mend_that_does_not_help_is_none() -> None:
    source = Source("p.attn", "pattern p() { attend windw(3) }")
    span = Span(21, 26)
    wrong = Diagnostic("c", "error", "m", source, span, help="h", edits=(Edit(span, "widow"),))
    assert mends(wrong) == ()


OTHERS = {
    "even": "heads odd { attend all }",
    "odd": "heads even { attend all }",
    "rest": "heads {0} { attend all }",
}


def test_words_behind_items_are_those_that_resolve() -> None:
    assert get_args(ClaimKind) == names.CLAIMS
    texts = [
        *(f"pattern p() {{ heads {word} {{ attend causal }} {OTHERS[word]} }}" for word in names.SELECTORS),
        *(
            f"pattern p() {{ attend causal kernel elu(x) + 1 normalize {mode} }}"
            for mode in names.MODES["normalize"]
        ),
        *(
            f"pattern p() {{ input g: float[H] attend causal kernel x normalize none decay g {mode} }}"
            for mode in names.MODES["decay"]
        ),
    ]
    for text in texts:
        assert mistakes(Source("p.attn", text)) == (), text

"""``attnc lsp``, spoken to as an editor speaks to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from attnc.cli import main
from tests.talking import PATIENCE, Client

URI = "file:///nowhere/local.attn"
# The comment's first character counts twice in UTF-16; the mistake stands behind such a character, too.
TEXT = """# \N{MATHEMATICAL BOLD SMALL A} window
pattern local(width: int = 8) {
    input hub: bool[n]
    let near = window(width - 1)
    attend near | to(hub)
    require causal
}
"""
BAD = TEXT.replace("    let near = window(width - 1)", "    let near = windw(width - 1)")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    found = Client("--seconds", "60")
    abilities = found.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert abilities["serverInfo"]["name"] == "attnc"
    found.tell("initialized", {})
    yield found
    assert found.leave() == 0


def opened(client: Client, text: str, uri: str = URI, version: int = 1) -> None:
    document = {"uri": uri, "languageId": "attn", "version": version, "text": text}
    client.tell("textDocument/didOpen", {"textDocument": document})


def changed(client: Client, text: str, version: int, uri: str = URI) -> None:
    client.tell(
        "textDocument/didChange",
        {"textDocument": {"uri": uri, "version": version}, "contentChanges": [{"text": text}]},
    )


def at(text: str, mark: str, uri: str = URI, behind: bool = False) -> dict[str, Any]:
    """The place of a mark in a text, columns in units of UTF-16, counted here once more by hand."""
    before = text[: text.index(mark) + (len(mark) if behind else 0)]
    line = before.rpartition("\n")[2]
    place = {"line": before.count("\n"), "character": sum(1 + (ord(char) > 0xFFFF) for char in line)}
    return {"textDocument": {"uri": uri}, "position": place}


def test_a_session(client: Client) -> None:
    opened(client, BAD)
    (found,) = client.diagnostics(URI, 1, bool)
    assert found["code"] == "unknown-name" and found["severity"] == 1 and found["source"] == "attnc"
    assert found["range"] == {"start": {"line": 3, "character": 15}, "end": {"line": 3, "character": 20}}
    assert found["message"] == "there is no `windw(…)`\nhelp: did you mean `window`?"

    # What help says exactly is one click away.
    (action,) = client.ask(
        "textDocument/codeAction",
        {"textDocument": {"uri": URI}, "range": found["range"], "context": {"diagnostics": [found]}},
    )
    assert action["edit"]["changes"][URI] == [{"range": found["range"], "newText": "window"}]
    assert action["isPreferred"] and action["kind"] == "quickfix"

    # Mended, the text has no mistakes; what its claims come to is told later.
    changed(client, TEXT, 2)
    assert client.diagnostics(URI, 2, lambda found: True) == []
    (found,) = client.diagnostics(URI, 2, bool)
    assert found["code"] == "not-causal"
    assert found["range"] == {"start": {"line": 4, "character": 18}, "end": {"line": 4, "character": 25}}
    (claimed,) = found["relatedInformation"]
    assert claimed["message"] == "claimed here"
    assert claimed["location"]["range"]["start"] == {"line": 5, "character": 4}
    assert "note: refuted" in found["message"] and "help: write" in found["message"]

    # A pattern's name tells what `attnc check` says.
    hover = client.ask("textDocument/hover", at(TEXT, "local"))
    assert "causal    refuted" in hover["contents"]["value"] and "growth" in hover["contents"]["value"]

    # The claim is mended by its own help, and proven then.
    (action,) = client.ask(
        "textDocument/codeAction",
        {"textDocument": {"uri": URI}, "range": found["range"], "context": {"diagnostics": []}},
    )
    edits = action["edit"]["changes"][URI]
    assert [edit["newText"] for edit in edits] == ["(", ") & causal"]
    mended = TEXT.replace("near | to(hub)\n", "(near | to(hub)) & causal\n")
    assert [edit["range"]["start"]["character"] for edit in edits] == [11, 25]
    changed(client, mended, 3)
    assert client.diagnostics(URI, 3, lambda found: True) == []
    assert "causal    proven" in _until(client, mended, "local", "proven")

    # Words of the language, and what the text defines.
    hover = client.ask("textDocument/hover", at(mended, "window("))
    assert "`window(left, right=0, dilation=1)`" in hover["contents"]["value"]
    hover = client.ask("textDocument/hover", at(mended, "hub)) &"))
    assert "input hub: bool[n]" in hover["contents"]["value"]
    assert client.ask("textDocument/hover", at(mended, "{")) is None

    for mark, line, column in (
        ("near | to", 3, 8),
        ("hub)) &", 2, 10),
        ("width - 1", 1, 14),
        ("local(", 1, 8),
    ):
        place = client.ask("textDocument/definition", at(mended, mark))
        assert place["uri"] == URI and place["range"]["start"] == {"line": line, "character": column}, mark
    assert client.ask("textDocument/definition", at(mended, "causal")) is None

    (pattern,) = client.ask("textDocument/documentSymbol", {"textDocument": {"uri": URI}})
    assert pattern["name"] == "local" and [part["name"] for part in pattern["children"]] == [
        "width",
        "hub",
        "near",
    ]

    messy = mended.replace("    let near = window(width - 1)", "  let near=window( width-1 )")
    changed(client, messy, 4)
    options = {"tabSize": 4, "insertSpaces": True}
    (edit,) = client.ask("textDocument/formatting", {"textDocument": {"uri": URI}, "options": options})
    assert edit["newText"] == mended
    assert edit["range"]["end"] == {"line": 7, "character": 0}
    changed(client, mended, 5)
    assert client.ask("textDocument/formatting", {"textDocument": {"uri": URI}, "options": options}) == []
    changed(client, BAD.replace("}", ""), 6)
    assert client.ask("textDocument/formatting", {"textDocument": {"uri": URI}, "options": options}) is None

    client.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
    assert client.diagnostics(URI, None, lambda found: True) == []  # type: ignore[arg-type]


def test_columns_behind_an_astral_character(client: Client) -> None:
    uri = "file:///nowhere/astral.attn"
    text = "pattern p() { # \N{MATHEMATICAL BOLD SMALL A}\n attend causal } pattern \N{GRINNING FACE} q() {}"
    opened(client, text, uri)
    (found,) = client.diagnostics(uri, 1, bool)
    assert found["code"] == "bad-character"
    assert found["range"] == {"start": {"line": 1, "character": 25}, "end": {"line": 1, "character": 27}}
    behind = text.replace("pattern \N{GRINNING FACE} q() {}", "# \N{GRINNING FACE}")
    changed(client, behind, 2, uri)
    words = client.ask("textDocument/completion", at(behind, "attend ", uri, behind=True))
    assert "window" in {word["label"] for word in words}
    assert client.ask("textDocument/completion", at(behind, "\N{GRINNING FACE}", uri, behind=True)) == []


def test_a_file_that_is_nowhere(client: Client) -> None:
    """Neither open nor on the disk: nothing is known of it."""
    place = {"textDocument": {"uri": "file:///nowhere/closed.attn"}, "position": {"line": 0, "character": 0}}
    assert client.ask("textDocument/hover", place) is None
    assert client.ask("textDocument/definition", place) is None


def test_completion(client: Client) -> None:
    uri = "file:///nowhere/new.attn"
    text = TEXT.replace("attend near | to(hub)", "attend near | window(3, dil")
    opened(client, text, uri)
    words = client.ask("textDocument/completion", at(text, "window(3, ", uri, behind=True))
    labels = [word["label"] for word in sorted(words, key=lambda word: word["sortText"])]
    assert labels[:4] == ["axis=", "dilation=", "left=", "right="]
    assert {"width", "hub", "near", "q", "first", "causal", "where"} <= set(labels)
    assert "attend" not in labels and "tanh" not in labels
    window = next(word for word in words if word["label"] == "window")
    assert window["detail"] == "window(left, right=…, dilation=…, axis=…)"
    assert "both bounds inclusive" in window["documentation"]["value"]


def test_a_text_that_takes_too_long() -> None:
    """Nobody waits for proofs: other questions are answered, and in the end it is said that time was over."""
    slow = Client("--seconds", "1")
    # This client counts columns in characters.
    capabilities = {"general": {"positionEncodings": ["utf-32"]}}
    abilities = slow.ask("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
    assert abilities["capabilities"]["positionEncoding"] == "utf-32"
    slow.tell("initialized", {})
    # Bounds of many draws are counted one by one.
    parts = " | ".join(f"random({200 + i}, seed={i})" for i in range(40))
    text = f"pattern slow() {{ attend blocks(3, {parts}) & !to(every(7)) require reach <= 2 }}\n"
    opened(slow, text)
    assert slow.diagnostics(URI, 1, lambda found: True) == []
    assert slow.ask("textDocument/hover", at(text, "every")) is not None
    assert "takes longer than 1 s" in _until(slow, text, "slow", "longer")
    changed(slow, "pattern p() { attend causal } pattern \N{GRINNING FACE} q() {}", 2)
    (told,) = slow.diagnostics(URI, 2, bool)
    assert [told["range"][end]["character"] for end in ("start", "end")] == [38, 39]
    assert slow.leave() == 0


def _until(client: Client, text: str, mark: str, wanted: str) -> str:
    """What is told of a pattern as soon as it holds the word that is waited for."""
    end = time.monotonic() + PATIENCE
    while True:
        told = str(client.ask("textDocument/hover", at(text, mark))["contents"]["value"])
        if wanted in told:
            return told
        assert "being examined" in told and time.monotonic() < end, told
        time.sleep(0.05)


def test_without_pygls(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pygls", None)
    assert main(["lsp"]) == 2
    assert capsys.readouterr().err == (
        "attnc: the language server needs pygls: `pip install '.[lsp]'` in a checkout of attnc installs it\n"
    )

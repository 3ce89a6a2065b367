"""Highlighters know the words of the language: Pygments, TextMate, the extension of VS Code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, Whitespace

from attnc import lexicon, names, parser
from attnc.diagnostics import Source
from attnc.editing.pygments_lexer import AttnLexer

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.attn"))
EXTENSION = ROOT / "editors" / "vscode"
GRAMMAR = json.loads((ROOT / "grammar" / "attn.tmLanguage.json").read_text())
# Every item, weights included.
WEIGHING = """# all of it: été
pattern weighing(width: int = 8, cap: float = 5e1, open: bool = true) {
    input slope: float[H]
    input gate: float[n, H]
    grid(y: 32, x: 32)
    let near = where 0 <= q - k < width and not q.y == k.y or open
    heads even {
        attend near & causal with score cap * tanh(s / 5.0) - slope[h] * abs(q - k)
        attend to(first(4) + {0, 7}) with softmax
        sink slope[h]
    }
    heads 1..2 { attend window(3, right=2, axis=y) kernel elu(x) + 1 normalize none }
    heads rest {
        attend causal kernel favor(features=64, seed=0)
        decay gate exclusive bonus slope update delta(gate)
    }
    require edges <= n * (width + 4) // 1
    assume causal
}
"""
TEXTS = [WEIGHING, *(path.read_text(encoding="utf-8") for path in EXAMPLES)]


def test_the_text_that_has_everything_is_right() -> None:
    parser.parse(Source("weighing.attn", WEIGHING))
    said = {word.text for word in lexicon.words(WEIGHING)}
    assert {*names.ITEMS, *names.WEIGHTS, "with"} <= said


# --- Pygments -------------------------------------------------------------------------------------------


def tokens(text: str) -> list[tuple[Any, str]]:
    return [(kind, piece) for _, kind, piece in AttnLexer().get_tokens_unprocessed(text)]


@pytest.mark.parametrize("text", TEXTS)
def test_no_word_is_unknown_to_pygments(text: str) -> None:
    found = tokens(text)
    assert "".join(piece for _, piece in found) == text
    assert not [piece for kind, piece in found if kind is Error]


def test_pygments_tells_words_apart() -> None:
    found = {piece: kind for kind, piece in tokens(WEIGHING)}
    for kind, pieces in {
        Keyword: (
            "attend",
            "heads",
            "with",
            "score",
            "sink",
            "kernel",
            "decay",
            "bonus",
            "update",
            "require",
        ),
        Keyword.Declaration: ("pattern", "let", "input", "grid"),
        Keyword.Type: ("int", "float", "bool"),
        Keyword.Constant: ("true",),
        Keyword.Pseudo: ("even", "rest", "softmax", "edges"),
        Operator.Word: ("and", "or", "not", "where"),
        Operator: ("<=", "-", "&", "//", "..", "==", "="),
        Punctuation: ("(", "}", ",", ":", "."),
        Number.Integer: ("8",),
        Number.Float: ("5e1", "5.0"),
        Comment.Single: ("# all of it: été",),
        Name.Function: ("weighing",),
        Name.Builtin: ("window", "first", "tanh", "favor", "delta", "abs"),
        Name.Builtin.Pseudo: ("q", "k", "n", "h", "H"),
        Name: ("width", "slope", "near"),
    }.items():
        assert {piece: found[piece] for piece in pieces} == dict.fromkeys(pieces, kind)


def test_pygments_goes_on_behind_what_is_no_word() -> None:
    found = tokens('attend "x" é | where q')
    assert [piece for kind, piece in found if kind is Error] == ['"', '"', "é"]
    assert (Operator.Word, "where") in found and "".join(
        piece for _, piece in found
    ) == 'attend "x" é | where q'


@settings(max_examples=60)
@given(st.text(alphabet=st.sampled_from('aq0.5e-+ \t\r\n\x0b\x0c\ufeff\u2028#"$é𝐚(){}=!<|/')))
def test_all_words_are_the_text(text: str) -> None:
    found = list(lexicon.all_words(text))
    assert "".join(word.text for word in found) == text
    assert all(text[word.start : word.end] == word.text for word in found)
    known = [word for word in found if word.look != "unknown"]
    assert all(next(lexicon.words(word.text)).end == len(word.text) for word in known)


def test_the_lexer_is_registered() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    (place,) = points["pygments.lexers"].values()
    module, _, name = place.partition(":")
    assert getattr(import_module(module), name) is AttnLexer


# --- TextMate -------------------------------------------------------------------------------------------

RULES = [
    (re.compile(rule["match"].replace(r"\x{feff}", "\ufeff"), re.ASCII), rule) for rule in GRAMMAR["patterns"]
]


def scopes(text: str) -> Iterator[tuple[int, str, str]]:
    """Where, what and its scope, by the rules of TextMate: the first match from a place on, line by line."""
    begin = 0
    for line in text.splitlines(keepends=True):
        at = 0
        body = line.rstrip("\r\n")
        while at < len(body):
            found = [(match.start(), number, match, rule) for number, (pattern, rule) in enumerate(RULES)
                     if (match := pattern.search(body, at))]  # fmt: skip
            if not found:
                break
            _, _, match, rule = min(found, key=lambda item: item[:2])
            if "name" in rule:
                yield begin + match.start(), match[0], rule["name"]
            for number, capture in rule.get("captures", {}).items():
                yield begin + match.start(int(number)), match[int(number)], capture["name"]
            at = match.end()
        begin += len(line)


@pytest.mark.parametrize("text", TEXTS)
def test_textmate_tells_the_words_that_the_grammar_has(text: str) -> None:
    wanted = {
        "comment": ("comment.",),
        "number": ("constant.numeric.",),
        "sign": ("keyword.operator.", "punctuation."),
        "keyword": ("keyword.", "constant.language."),
        "call": ("support.function.", "entity.name.function.", "variable.", "storage.type."),
        "name": ("variable.", "support.constant.", "storage.type.", "entity.name.function."),
    }
    found = {at: (piece, scope) for at, piece, scope in scopes(text)}
    words = [word for word in lexicon.words(text) if word.look != "space"]
    assert sorted(found) == [word.start for word in words]
    for word in words:
        piece, scope = found[word.start]
        assert piece == word.text.rstrip("\r") and scope.startswith(wanted[word.look]), (word, scope)
        if word.look == "call" and word.text in (*names.RELATIONS, *names.SETS):
            assert scope.startswith(("support.function.", "entity.name.")), word


def test_textmate_has_exactly_the_words_of_the_language() -> None:
    listed: dict[str, set[str]] = {}
    for rule in GRAMMAR["patterns"]:
        named = rule.get("name") or rule["captures"]["2"]["name"]
        for group in re.findall(r"\(((?:[A-Za-z_][A-Za-z0-9_]*\|)+[A-Za-z0-9_]+)\)", rule["match"]):
            listed.setdefault(named, set()).update(group.split("|"))
    keywords = {text for text in parser.terminals().values() if text is not None and text.isidentifier()}
    told = [words for name, words in listed.items() if name.startswith(("keyword.", "constant.language."))]
    assert set().union(*told) == keywords
    assert listed["support.function.relation.attn"] == set(names.RELATIONS) - set(names.CONSTANT_RELATIONS)
    assert listed["support.function.set.attn"] == set(names.SETS)
    assert listed["support.function.attn"] == {
        *(*names.FUNCTIONS, *names.REAL_FUNCTIONS, *names.WEIGHING_FUNCTIONS, *names.MAPS, *names.UPDATES)
    }
    assert listed["support.constant.relation.attn"] == set(names.CONSTANT_RELATIONS)
    assert listed["variable.language.attn"] == set(names.VARIABLES)
    assert listed["storage.type.attn"] == set(names.KINDS)
    assert listed["support.constant.claim.attn"] == set(names.CLAIMS) | {"require", "assume"}
    assert listed["support.constant.heads.attn"] == set(names.SELECTORS)
    assert listed["support.constant.mode.attn"] == set(names.MODES["normalize"])
    assert [(piece, scope) for _, piece, scope in scopes("attend $")][-1] == ("$", "invalid.illegal.attn")


# --- VS Code --------------------------------------------------------------------------------------------


def test_what_the_extension_names_is_there() -> None:
    package = json.loads((EXTENSION / "package.json").read_text())
    (language,), (grammar,) = package["contributes"]["languages"], package["contributes"]["grammars"]
    assert language["extensions"] == [".attn"] and language["id"] == grammar["language"] == "attn"
    assert grammar["scopeName"] == GRAMMAR["scopeName"]
    # One grammar: inside the extension, where VS Code wants it, by a link or word for word.
    assert json.loads((EXTENSION / grammar["path"]).read_text()) == GRAMMAR
    settings = json.loads((EXTENSION / language["configuration"]).read_text())
    assert settings["comments"] == {"lineComment": "#"}
    assert re.compile(settings["indentationRules"]["increaseIndentPattern"]).match("pattern p() { # here")
    command = package["contributes"]["configuration"]["properties"]["attnc.command"]
    assert command["default"] == ["attnc", "lsp"]
    assert (EXTENSION / package["main"]).is_file()


STUBBED = """
const Module = require("module");
const said = [];
const settings = { "attnc.command": ["a", "lsp"] };
const vscode = {
  workspace: { getConfiguration: (room) => ({ get: (key) => settings[`${room}.${key}`] }) },
  window: { showErrorMessage: (text) => said.push(text) },
  commands: { registerCommand: (name, act) => { said.push(name); vscode.act = act; return {}; } },
};
class LanguageClient {
  constructor(id, name, server, options) { said.push([id, server, options.documentSelector]); }
  async start() { if (process.argv[2] === "broken") throw new Error("ENOENT"); said.push("started"); }
  async stop() { said.push("stopped"); }
}
const load = Module._load;
const stubs = { vscode, "vscode-languageclient/node": { LanguageClient } };
Module._load = (name, ...rest) => stubs[name] ?? load(name, ...rest);
const extension = require(process.argv[1]);
(async () => {
  await extension.activate({ subscriptions: [] });
  await vscode.act();
  await extension.deactivate();
  console.log(JSON.stringify(said));
})();
"""


@pytest.mark.parametrize("broken", [False, True])
def test_the_extension_starts_the_server(broken: bool) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    words = [node, "-e", STUBBED, str(EXTENSION / "extension.js"), *(["broken"] if broken else [])]
    said = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    made = ["attnc", {"command": "a", "args": ["lsp"]}, [{"language": "attn"}]]
    if broken:
        assert said[:2] == ["attnc.restart", made] and "pip install '.[lsp]'" in said[2] and len(said) == 5
    else:
        assert said == ["attnc.restart", made, "started", "stopped", made, "started", "stopped"]


def test_whitespace_is_no_word() -> None:
    assert tokens(" \n") == [(Whitespace, " \n")]

"""The language reference holds: its snippets compile, and it leaves nothing out."""

import re
from pathlib import Path

import pytest

import attnc
from attnc import atoms, names
from attnc.diagnostics import Source
from attnc.parser import parse
from attnc.resolver import describe, resolve

README = (Path(attnc.__file__).parent / "grammar" / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```attn\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_snippets():
    assert len(SNIPPETS) == README.count("```attn") > 10


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_compile_without_a_warning(snippet):
    found = resolve(parse(Source("README.md", snippet)))
    assert not found.warnings
    assert all(describe(pattern) for pattern in found.patterns)


def test_every_word_of_the_language_is_in_the_reference():
    for word in (
        *names.ITEMS,
        *names.WEIGHTS,
        *names.REAL_FUNCTIONS,
        *names.WEIGHING_FUNCTIONS,
        *names.MAPS,
        *names.UPDATES,
        *names.RELATIONS,
        *names.SETS,
        *names.FUNCTIONS,
        *names.VARIABLES,
        *names.RESERVED,
    ):
        assert re.search(rf"`[^`]*\b{word}\b[^`]*`", README), word


def test_every_argument_is_in_the_reference():
    for name, slots in {**atoms.RELATIONS, **atoms.SETS}.items():
        assert re.search(rf"\b{name}\(", README), name
        for slot in slots:
            if slot.default is not None:
                assert f"{slot.name}=" in README, f"{name}({slot.name}=)"


def test_words_of_names_and_atoms_agree():
    assert set(names.RELATIONS) == set(atoms.RELATIONS) | set(atoms.CONSTANTS)
    assert set(names.SETS) == set(atoms.SETS)

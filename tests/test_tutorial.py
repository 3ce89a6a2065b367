"""docs/tutorial.md is true, as ``tests/shown.py`` says, and its picture is the one that it draws."""

from __future__ import annotations

from pathlib import Path

from tests.shown import check_blocks, check_everything_shown, check_links, document

TUTORIAL = document("docs/tutorial.md")


def test_everything_that_is_shown_happens(tmp_path: Path) -> None:
    folder = check_everything_shown(TUTORIAL, tmp_path)
    drawn = (folder / "signposts.svg").read_text(encoding="utf-8")
    shown = (TUTORIAL.path.parent / "signposts.svg").read_text(encoding="utf-8")
    assert drawn == shown, "docs/signposts.svg is not what the tutorial's command draws"


def test_every_block_is_of_a_known_kind() -> None:
    check_blocks(TUTORIAL)


def test_links_lead_somewhere() -> None:
    check_links(TUTORIAL)

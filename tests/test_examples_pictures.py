"""The pictures of the examples are those of the patterns, and their README shows every one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "tools" / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pictures"] = module
    spec.loader.exec_module(module)
    return module


def test_pictures_are_true(drawing: ModuleType) -> None:
    drawn = dict(drawing.pictures())
    for path, text in drawn.items():
        assert path.is_file(), f"`python tools/pictures.py` draws {path.name}"
        assert path.read_text() == text, f"`python tools/pictures.py` draws {path.name} anew"
        assert len(text) < 20_000
    assert sorted(drawn) == sorted((EXAMPLES / "pictures").iterdir())
    assert drawing.SHOWN.keys() <= {path.stem for path in drawn}


def test_every_picture_is_shown() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in EXAMPLES.glob("*.attn"):
        rows = [line for line in text.splitlines() if line.startswith("|") and f"]({file.name})" in line]
        assert len(rows) == 1, f"examples/README.md has {len(rows)} rows for {file.name}"
        assert f'src="pictures/{file.stem}.svg"' in rows[0]
        claims = "require causal" in file.read_text(encoding="utf-8")
        assert rows[0].rstrip().endswith("| yes |" if claims else "| no |")
    for file in (EXAMPLES / "pictures").iterdir():
        assert f"pictures/{file.name}" in text

"""``make demo``, smaller and in one process: what it prints is there, and is so."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "train_bytes.py"


def test_the_demo_shows_proof_picture_module_and_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("train_bytes", DEMO)
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_bytes", demo)
    spec.loader.exec_module(demo)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_bytes.py", "--steps", "2", "--length", "128", "--window", "16"])
    monkeypatch.setattr(demo, "trained_alone", demo.train)
    monkeypatch.setattr(demo, "TOKENS_PER_STEP", 256)
    monkeypatch.setattr(demo, "HELD_OUT_TOKENS", 256)
    demo.main()
    out = capsys.readouterr().out
    assert re.search(r"^  causal +proven$", out, re.MULTILINE)
    module, picture = (re.search(rf"\S+\.{kind}$", out, re.MULTILINE) for kind in ("py", "svg"))
    assert module and "def mistral(" in (tmp_path / module[0]).read_text()
    assert picture and "<svg" in (tmp_path / picture[0]).read_text()
    assert "both after 2 steps of 256 bytes, in sequences of 128:" in out
    bits = [float(found) for found in re.findall(r"held-out: (\S+) bits per byte, \d+ ms a step", out)]
    assert len(bits) == 2 and all(0 < found < 9 for found in bits)
    assert float(re.findall(r"takes (\S+) times as long", out)[0]) > 0

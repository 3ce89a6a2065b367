"""``tools/gpu.py`` without a GPU: a little of everything, and how steps go on, fail and end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from attnc.codegen import tile_tables
from tests.gpu.adopting import adopted, best

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_tool", ROOT / "tools" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_tool"] = module
    spec.loader.exec_module(module)
    return module


def run_of(gpu: ModuleType, out: Path, minutes: float = 9.0) -> object:
    return gpu.Run(out, "cpu", minutes, 2, True)


def test_a_little_of_everything(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["all", "--dry-run", "--device", "cpu", "--out", str(tmp_path), "--jobs", "2"]
    assert gpu.main(words) == 0, capsys.readouterr().out
    for name in gpu.STEPS:
        assert all(found["ok"] for found in gpu.results(tmp_path / f"{name}.jsonl").values())
    made = json.loads((tmp_path / "adopted.json").read_text())
    assert made["tables"]["long"]["forward"][0] in ([16, 16, 4, 1], [32, 16, 4, 1])
    assert [*tmp_path.glob("bench/*.json")]
    # What has gone well is not done again.
    before = {path: path.read_text() for path in tmp_path.glob("*.jsonl")}
    assert gpu.main([*gpu.STEPS, *words[1:]]) == 0
    assert before == {path: path.read_text() for path in tmp_path.glob("*.jsonl")}


def test_what_failed_is_tried_first(gpu: ModuleType, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    bad = f"import sys, pathlib; sys.exit(not pathlib.Path({str(flag)!r}).exists())"
    items = [gpu.Item("good", (sys.executable, "-c", "print('RESULT {}')"), 60.0)]
    items += [gpu.Item(name, (sys.executable, "-c", bad), 60.0) for name in ("bad", "worse")]
    run = gpu.Run(tmp_path, "cpu", 9.0, 1, True)
    assert gpu.step("check", run, items) == 1
    flag.touch()
    new = gpu.Item("new", (sys.executable, "-c", ""), 60.0)
    assert gpu.step("check", run, [new, *items]) == 0
    lines = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert [line["item"] for line in lines] == ["good", "bad", "worse", "bad", "worse", "new"]
    assert lines[0]["result"] == [{}]


def test_items_and_steps_end(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = gpu.Item(
        "late", (sys.executable, "-c", "import time; print('so far', flush=True); time.sleep(600)"), 3.0
    )
    assert gpu.step("check", gpu.Run(tmp_path, "cpu", 9.0, 1, True), [late]) == 1
    assert "ended after 3 s" in capsys.readouterr().out
    missing = gpu.Item("missing", ("no-such-tool",), 3.0)
    assert gpu.step("tune", gpu.Run(tmp_path, "cpu", 9.0, 1, True), [missing]) == 1
    assert "there is no no-such-tool on this machine" in capsys.readouterr().out
    assert gpu.step("profile", gpu.Run(tmp_path, "cpu", 0.0, 1, True), [late]) == 2
    assert "1 left for the next call" in capsys.readouterr().out


def test_bad_words(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["check", "--device", "cpu"])
    assert "--device cpu goes with --dry-run" in capsys.readouterr().err
    with patch("torch.cuda.is_available", lambda: False), pytest.raises(SystemExit):
        gpu.main(["check"])
    assert "torch sees no GPU here" in capsys.readouterr().err
    assert gpu.main(["adopt", "--out", str(tmp_path)]) == 1
    assert "run `python tools/gpu.py tune` on a GPU first" in capsys.readouterr().err


def test_every_step_has_all_examples_and_kinds(gpu: ModuleType, tmp_path: Path) -> None:
    run = gpu.Run(tmp_path, "cuda", 9.0, 12, False)
    assert len(gpu.check(run)) > 3 * 40
    for items in (gpu.check(run), gpu.sanitize(run), gpu.tune(run), gpu.bench(run), gpu.profile(run)):
        names = [item.name for item in items]
        assert len(names) == len(set(names))
    assert gpu.sanitize(run)[0].words[0] == "compute-sanitizer"


def test_the_fastest_size() -> None:
    times = [
        {"pattern": "a", "size": [64, 64, 4, 2], "us": 10.0},
        {"pattern": "a", "size": [128, 64, 8, 2], "us": 12.0},
        {"pattern": "a", "size": [128, 32, 8, 2], "us": 1.0},  # cannot be used for b
        {"pattern": "b", "size": [64, 64, 4, 2], "us": 30.0},
        {"pattern": "b", "size": [128, 64, 8, 2], "us": 20.0},
    ]
    assert best(times) == [128, 64, 8, 2]


def test_measured_tables_are_in_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {
        "pattern": "causal",
        "dim": 128,
        "device": "Device 9",
        "capability": [9, 0],
        "triton": "3.9.0",
        "date": "2026-12-01",
        "shapes": ["wide"],
        "us": 1.0,
    }
    times = [common | {"kind": "key", "size": [64, 64, 4, 4]}]
    # For long sweeps the table has no row of its own for this kernel yet.
    times += [common | {"kind": "query", "size": [64, 32, 4, 3], "shapes": ["long"]}]
    for path in (ROOT / "codegen" / "tiles").glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    said = list(adopted(times, tmp_path, "a command"))
    assert said[0].startswith("Device 9, wide key 128: [") and said[0].endswith(" -> [64, 64, 4, 4]")
    monkeypatch.setattr(tile_tables, "files", lambda package: tmp_path.parent)
    tmp_path.rename(tmp_path.with_name("tiles"))
    for cached in (tile_tables.tables_text, tile_tables._files):
        cached.cache_clear()
    text = tile_tables.tables_text()
    for cached in (tile_tables.tables_text, tile_tables._files):
        cached.cache_clear()
    space: dict[str, object] = {}
    exec(text, space)
    assert space["_MEASURED_TILES"] == {(9, 0): space["_SM_90_TILES"]}
    tables: Any = space["_SM_90_TILES"]
    assert tables["wide"]["key"][1] == (64, 64, 4, 4)
    assert tables["long"]["query"] == (tables["wide"]["query"][0], (64, 32, 4, 3))
    assert "measured on Device 9 with Triton 3.9.0, 2026-12-01, `a command`" in " ".join(
        line.removeprefix("# ") for line in text.splitlines()
    )

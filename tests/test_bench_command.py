"""``attnc bench`` from outside: what it prints and writes, every wrong use; the project's own benchmark."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from attnc.bench import command, peers, plot
from attnc.bench.results import document
from attnc.bench.run import measure
from attnc.cli import main
from attnc.pipeline import settle_pattern
from tests.benching import (
    CEILING,
    CPU,
    HUBS,
    ROOT,
    SLIDING,
    Silent,
    make,
    rival,
)

# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("sliding.attn").write_text(SLIDING)
    Path("hubs.attn").write_text(HUBS)
    Path("broken.attn").write_text("pattern broken( { attend all }\n")
    Path("false.attn").write_text("pattern false_claim() { attend all require causal }\n")
    Path("notes.txt").write_text("mine\n")
    Path("folder.json").mkdir()
    return tmp_path


SMALL = ["--device", "cpu", "--heads", "2", "--dim", "8", "--repeats", "2"]


def test_what_a_model_expects(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is measured without a GPU, unless a device is named; then both stand in one table."""
    words = [
        "bench",
        "sliding.attn",
        "hubs.attn",
        "--n",
        "4096",
        "--predict",
        "H200",
        "--input",
        "hub=first:3",
    ]
    assert main([*words, "--dim", "128", "--json", "out.json"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "set-up" in out
    assert "sliding(window = 8): n 4096, batch 1, 8 heads, dim 128, bfloat16, H200" in out
    assert "; hub first:3; nothing was measured" in out
    assert out.count("expected on H200") == 4 and out.count("kernel") >= 4
    made = json.loads(Path("out.json").read_text())
    assert made["machine"] == {} and not made["cases"][0]["peers"]
    for case in made["cases"]:
        for way in ("forward", "backward"):
            found = case["expected"][way]
            assert 0 < found["of_floor"] < 1 and found["seconds"] > 0 and found["limit"]

    both = [*SMALL, "--n", "64", "--against", "none", "--predict", "H100", "--dtype", "bfloat16"]
    assert main(["bench", "sliding.attn", *both, "--json", "both.json", "--no-backward"]) == 0
    out, _ = capsys.readouterr()
    assert "expected on H100" in out and "attnc " in out
    (case,) = json.loads(Path("both.json").read_text())["cases"]
    assert [peer["peer"] for peer in case["peers"]] == ["attnc"]
    assert "backward" not in case["expected"] and case["device"] == "cpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predict", "V100"], "no times can be predicted for 'V100': choose among H100, H200"),
        (["--predict", "H100", "--dtype", "float32"], "times are predicted in 16 bits"),
        (["--predict", "H100", "--plot", "out.svg"], "`--plot` draws what was measured"),
        (["--predict", "H100", "--n", "2000000"], "for up to 1048576 tokens"),
        (["--predict", "H100", "--input", "hub=neither"], "neither"),
    ],
)
def test_what_no_model_expects(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["bench", "hubs.attn", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and not Path("out.svg").exists()


def test_table_and_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        "sliding.attn",
        "hubs.attn",
        "--n",
        "30,50",
        "--kv-heads",
        "1",
        "--against",
        "sdpa",
        *SMALL,
    ]
    assert main([*words, "--input", "hub=first:3", "--json", "out.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "sliding(window = 8): n 30, batch 1, 2 heads and 1 of keys, dim 8, float32, cpu" in out
    assert "hubs(): n 50" in out and "; hub first:3; checked on 50 of 50 rows" in out
    heads = [line.split() for line in out.splitlines() if line.startswith(("forward", "backward"))]
    assert heads[0] == ["forward", "set-up", "time", "TFLOP/s", "of", "ceiling", "memory", "against", "attnc"]
    assert len(heads) == 8

    made = json.loads(Path("out.json").read_text())
    assert made["command"].startswith("attnc bench sliding.attn hubs.attn --n 30,50")
    assert {"processor", "cores", "threads"} <= made["machine"].keys()
    assert {"attnc", "python", "torch"} <= made["versions"].keys()
    assert [(case["pattern"], case["n"]) for case in made["cases"]] == [
        ("sliding", 30),
        ("sliding", 50),
        ("hubs", 30),
        ("hubs", 50),
    ]
    case = made["cases"][1]
    edges = 2 * (8 * 50 - 28)
    assert (case["edges"], case["edges_counted"], case["rows_checked"]) == (edges, True, 50)
    ours, dense, causal = case["peers"]
    assert [peer["peer"] for peer in case["peers"]] == ["attnc", "sdpa-mask", "sdpa-causal"]
    assert ours["forward"]["against_attnc"] == 1.0 and causal["other_edges"]
    assert ours["forward"]["flops"] == 4 * edges * 8 and ours["backward"]["flops"] == 10 * edges * 8
    ratio = dense["backward"]["seconds"] / ours["backward"]["seconds"]
    assert dense["backward"]["against_attnc"] == pytest.approx(ratio)
    for peer in case["peers"]:
        for phase in (peer["forward"], peer["backward"]):
            assert len(phase["samples"]) == 2 and min(phase["samples"]) > 0
            assert phase["seconds"] == pytest.approx(sum(phase["samples"]) / 2)
            assert phase["tflops"] == pytest.approx(phase["flops"] / phase["seconds"] / 1e12)
            assert phase["over_floor"] == pytest.approx(1 / phase["of_ceiling"])
            assert phase["setup_s"] > 0 and phase["error"] <= phase["error_limit"]


def test_forward_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sliding.attn", "--n", "20", "--against", "none", "--no-backward", *SMALL]) == 0
    out, _ = capsys.readouterr()
    assert "backward" not in out and "attnc" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "0"], "'0' is no number from 1 on"),
        (["--n", "1000000000"], "GiB of memory: take fewer tokens"),
        (["--n", "8,x"], "'x' is no number from 1 on"),
        (["--repeats", "0"], "'0' is no number from 1 on"),
        (["--seed", "-1"], "'-1' is no number from 0 on"),
        (["--repeats", "100000000000"], "100000000000 is too large: numbers go up to 2147483647"),
        (["--against", "felx"], "there is no peer called 'felx': choose among flex, sdpa"),
        (["--dtype", "float8"], "there is no dtype called 'float8': choose among float32, bfloat16, float16"),
        (["--heads", "3", "--kv-heads", "2"], "3 query heads cannot share 2 key heads evenly"),
        (["--dim", "257"], "head dimensions go up to 256, not 257"),
        (["--device", "quantum"], "there is no device called 'quantum'"),
        (["--device", "meta"], "nothing can be measured on 'meta'"),
        (["--device", "cuda:77"], "so not 'cuda:77'"),
        (["--input", "hub"], "`--input hub` is no input: write `--input NAME=FILL`"),
        (["--input", "hub=first:1"], "there is no input 'hub' to fill: there are none"),
        (["-p", "window"], "`-p window` is no parameter"),
        (["--json", "nowhere/out.json"], "there is no folder"),
        (["--json", "folder.json"], "it is a folder"),
        (["--json", "notes.txt"], "its name must end in .json"),
        (["--json", "sliding.attn"], "it is the pattern file itself"),
        (["--plot", "out.pdf"], "its name must end in .png or .svg"),
        (["--plot", "-"], "its name must end in .png or .svg"),
        (["missing.attn"], "there is no such file"),
        (["--window", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_use(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    """Everything is said before anything is measured, and nothing is written."""
    monkeypatch.setattr(command, "measure", lambda *args: pytest.fail("something was measured"))
    monkeypatch.setattr(command, "measure_ceiling", lambda *args: pytest.fail("something was measured"))
    monkeypatch.setattr(command.plot, "available", lambda: None)
    before = {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert main(["bench", "sliding.attn", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err and out == ""
    assert {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


def test_fills_are_for_whoever_has_the_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "hubs.attn", "sliding.attn", "--n", "20", "--against", "none", "--no-backward", *SMALL]
    assert main([*words, "--input", "hub=every:4"]) == 0
    assert "hub every:4" in capsys.readouterr().out
    assert main([*words, "--input", "hubs=every:4"]) == 2
    assert "there is no input 'hubs' to fill: the inputs are hub" in capsys.readouterr().err
    assert main([*words, "--input", "hub=often"]) == 2
    assert "cannot be filled by 'often': write spread:COUNT" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "code"), [("broken.attn", "error["), ("false.attn", "error[not-causal]")])
def test_patterns_that_do_not_compile(
    here: Path, capsys: pytest.CaptureFixture[str], file: str, code: str
) -> None:
    assert main(["bench", file, "--n", "20", "--against", "none", "--json", "out.json", *SMALL]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(code) and out == ""
    assert not Path("out.json").exists()


def test_no_matplotlib(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "sliding.attn", "--n", "20", "--plot", "out.png", *SMALL]) == 2
    out, err = capsys.readouterr()
    assert "`pip install '.[bench]'` in a checkout of attnc installs it" in err and out == ""
    assert not Path("out.png").exists()


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(here: Path, kind: str, start: bytes) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    words = ["bench", "sliding.attn", "--n", "20,30", "--against", "sdpa", *SMALL]
    assert main([*words, "--plot", f"out.{kind}"]) == 0
    assert Path(f"out.{kind}").read_bytes().startswith(start)


def test_a_plot_shows_times_as_points() -> None:
    """A bar's length would say nothing on an axis without a zero."""
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    times = {"attnc": (0.002, 0.004), "sdpa": (0.02, None)}
    peers = [
        {"peer": name, "other_edges": False, "forward": {"seconds": there}}
        | ({} if back is None else {"backward": {"seconds": back}})
        for name, (there, back) in times.items()
    ]
    case = {"pattern": "p", "n": 20, "dtype": "float32", "device": "cpu", "peers": peers}
    (panel,) = plot.figure({"cases": [case]}).axes
    assert panel.get_xscale() == "log" and not panel.patches and not panel.containers
    drawn = {line.get_label(): [float(x) for x in line.get_xdata()] for line in panel.lines}
    assert drawn == {"forward": [2.0, 20.0], "backward": [4.0]}
    assert all(line.get_linestyle() == "None" for line in panel.lines)
    assert [text.get_text() for text in panel.texts] == ["2", "20", "4"]


# --- the project's own benchmark ------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "tests" / "bench" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_benchmark_keeps_what_it_does_not_measure_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, path = script("run"), tmp_path / "new" / "out.json"
    words = [
        "--n",
        "64",
        "--heads",
        "2",
        "--dim",
        "8",
        "--against",
        "none",
        "--repeats",
        "1",
        "--json",
        str(path),
    ]
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--patterns", "window,fixed", "--dtypes", "float32", *words]) == 0
    first = json.loads(path.read_text())
    assert benchmark.main(["--patterns", "window,causal", "--dtypes", "float32", *words]) == 0
    second = json.loads(path.read_text())
    assert [case["name"] for case in second["cases"]] == ["causal", "window", "fixed"]
    assert second["cases"][2] == first["cases"][1]
    assert (
        "window,fixed" in second["cases"][2]["command"] and "window,causal" in second["cases"][1]["command"]
    )
    shared = ["--patterns", "window", "--dtypes", "float32", "--kv-heads", "1", *words]
    assert benchmark.main(shared) == 0  # other heads of keys are another case
    third = json.loads(path.read_text())["cases"]
    assert [(case["name"], case["kv_heads"]) for case in third if case["name"] == "window"] == [
        ("window", 1),
        ("window", 2),
    ]
    with pytest.raises(SystemExit):
        benchmark.main(["--patterns", "windows"])
    assert "'windows' is none of causal, window" in capsys.readouterr().err


def test_benchmark_has_its_patterns() -> None:
    benchmark = script("run")
    assert len(benchmark.PATTERNS) == 7
    for entry in benchmark.PATTERNS.values():
        pattern = settle_pattern(entry.request()).pattern
        assert {name for name, _ in entry.fills} == {item.name for item in pattern.inputs}


def test_tables_of_the_readme_are_those_of_the_results() -> None:
    tables = script("tables")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text, "`python tests/bench/tables.py` writes them anew"
    assert "| causal |" in text


def test_tables_show_slower_cases_and_failures() -> None:
    tables = script("tables")
    case = make(HUBS)
    (dense,) = (peer for peer in peers.known_peers(CPU) if peer.name == "sdpa-mask")
    fast = rival("flex", dense.prepare(case))
    made = document(
        [measure(case, (fast, replace(dense, refuses=lambda case: "no")), 1, True, CEILING, Silent())]
    )
    made["cases"][0]["name"] = "hubs"
    made["cases"][0]["peers"][1]["forward"] |= {"seconds": 0.5, "against_attnc": 0.25}
    text = tables.markdown(made)
    assert "| forward, float32 | edges | attnc | of ceiling | FlexAttention | SDPA, masked | set-up" in text
    assert "| 500 ms (0.25x) | cannot |" in text
    assert "| backward, float32 |" in text

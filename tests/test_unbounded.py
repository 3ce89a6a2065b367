"""Nothing is computed as a masked sweep over everything in silence."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import attnc
from attnc import pipeline, runtime
from attnc.cli import main

ODD = "pattern odd() {{ {items} attend {relation} }}"


def said(relation: str, items: str = "") -> list[attnc.diagnostics.Diagnostic]:
    report = attnc.check(ODD.format(items=items, relation=relation))
    return [found for found in report.diagnostics if found.code == "masked-sweep"]


@pytest.mark.parametrize(
    ("relation", "items", "reason"),
    [
        ("where (q * k) % 7 == 3", "", "q % 7"),
        ("where x[q] + x[k] == 3", "input x: int[n]", "x[k] + x[q]"),
        ("where (q * k) % 7 == 3 & causal", "", "q % 7"),
        ("window(3) | where (q * q + k) % 9 == 1", "", "% 9"),
        ("where k >= 6 and k > q and (q * k) % 7 == 3", "", "q % 7"),
    ],
)
def test_said_with_the_condition(relation: str, items: str, reason: str) -> None:
    [found] = said(relation, items)
    assert found.level == "warning" and reason in found.message
    assert (
        "pairs computed for an edge" in found.notes[0] and found.help and "allow: masked-sweep" in found.help
    )
    assert ("for sample inputs (x=runs:8)" in found.notes[0]) == ("x[" in relation)


@pytest.mark.parametrize(
    ("relation", "items"),
    [
        ("all", ""),
        ("causal - to({3})", ""),
        ("same(x) & causal", "input x: int[n]"),
        ("to(x) | window(4)", "input x: bool[n]"),
        ("where (q * k) % 7 == 3 & window(20)", ""),
        ("where x[q] <= x[k]", "input x: int[n]"),  # half of all pairs are edges
        ("random(3, seed=1)", ""),
        ("neighborhood(5, dilation=3)", ""),
        ("where h == 1", ""),
        ("(to({0, 2}) - self | window(20)) & where k % 3 != 1", ""),
        ("(to(first(2)) | window(20)) & where (q * k) % 5 != 1", ""),
        ("to({5}) & causal & where (q + 1) * k % 3 != 1", ""),
    ],
)
def test_nothing_is_said_where_there_are_bounds(relation: str, items: str) -> None:
    assert said(relation, items) == []


def test_what_comes_from_the_cache_is_warned_of_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ODD.format(items="", relation="where (q * k) % 5 == 3")
    for _ in range(2):  # as if in another process the second time
        monkeypatch.setattr(runtime, "_functions", {})
        with pytest.warns(UserWarning, match=r"warning\[masked-sweep\]") as caught:
            attnc.load(text)
        assert len(caught) == 1 and caught[0].filename == __file__
        monkeypatch.setattr(pipeline, "compile_pattern", None)


def test_once_for_a_pattern_and_not_where_it_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ODD.format(items="", relation="where (q * k) % 7 == 3")
    with pytest.warns(UserWarning, match=r"warning\[masked-sweep\]") as caught:
        attnc.load(text)
    assert len(caught) == 1
    meant = f"# allow: masked-sweep\n{text}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attnc.load(meant)
    for source, words in ((text, 1), (meant, 0)):
        (tmp_path / "odd.attn").write_text(source, encoding="utf-8")
        assert main(["compile", str(tmp_path / "odd.attn"), "-o", str(tmp_path / "odd.py")]) == 0
        assert capsys.readouterr().err.count("masked-sweep]") == words


def test_edges_that_inputs_count_are_counted_in_a_sample() -> None:
    (found,) = attnc.check("pattern p() { input flag: bool[n] attend !from(flag) }").patterns
    assert found.waste and found.waste[0].inputs


def test_a_union_that_is_not_taken_apart_is_told() -> None:
    union = " | ".join(f"where q - k == {3 * i + 1}" for i in range(25))
    (found,) = attnc.check(ODD.format(items="", relation=union)).patterns
    (masked,) = found.lost
    assert "a union of more than 24 conditions is not taken apart" in masked and f"masked    {masked}" in str(
        found
    )


def test_tiles_that_are_too_many_to_count_are_told() -> None:
    union = " | ".join(f"where q - k == {3 * i + 1}" for i in range(300))
    (found,) = attnc.check(ODD.format(items="", relation=union)).patterns
    assert found.waste is None and "tiles     not counted" in str(found)
    assert found.to_json()["computed"] is None

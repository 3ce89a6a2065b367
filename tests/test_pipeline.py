"""The row of passes: what each hands on, what stops it, and that its guards can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnc import cost, pipeline
from attnc.codegen import module
from attnc.diagnostics import AttncError, Source
from attnc.expression import (
    Lookup,
    Q,
    Var,
    le,
)
from attnc.pattern import Atom
from attnc.pipeline import PASSES, PassError, compile_pattern, emit, run
from attnc.request import Header, Request

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.attn"))
SLIDING = "pattern sliding(window: int = 8) { attend window(window - 1) require causal }"


def request(text: str, **more: Any) -> Request:
    return Request(Source("p.attn", text), **more)


def codes(text: str, **more: Any) -> list[str]:
    with pytest.raises(AttncError) as caught:
        compile_pattern(request(text, **more))
    return [found.code for found in caught.value.diagnostics]


def test_the_passes_in_order() -> None:
    assert [step.name for step in PASSES] == ["syntax", "pattern", "terms", "claims", "schedule", "module"]
    texts = [emit(request(SLIDING), step.name) for step in PASSES]
    assert all(texts) and len(set(texts)) == len(texts)
    assert emit(request(SLIDING), "module") == compile_pattern(request(SLIDING)).text
    with pytest.raises(ValueError, match="no pass is called 'nonsense'"):
        run(request(SLIDING), "nonsense")


def test_the_same_in_gives_the_same_out() -> None:
    assert compile_pattern(request(SLIDING)).text == compile_pattern(request(SLIDING)).text
    wide = compile_pattern(request(SLIDING, params={"window": 9}))
    assert wide.text != compile_pattern(request(SLIDING)).text
    assert [(param.name, param.value) for param in wide.pattern.params] == [("window", 9)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pattern p() { attend window(1, 1) require causal }", "not-causal"),
        ("pattern p() { attend window(4) - window(1) require nonempty }", "may-be-empty"),
        ("pattern p() { attend causal require edges <= 5 * n }", "edges-exceeded"),
        ("pattern p() { input x: int[n] attend where x[q + 1] == x[k] }", "index-out-of-range"),
        ("pattern p() { attend nonsense }", "unknown-name"),
    ],
)
def test_what_stops_it(text: str, code: str) -> None:
    assert codes(text) == [code]


def test_assumed_claims_do_not_stop_it() -> None:
    done = compile_pattern(request("pattern p() { attend window(4) - window(1) assume nonempty }"))
    assert "assume" in done.text


def test_all_refuted_claims_are_told_at_once() -> None:
    text = "pattern p() { attend window(4, 4) - window(1) require causal require nonempty }"
    assert sorted(codes(text)) == ["may-be-empty", "not-causal"]


def test_which_pattern() -> None:
    two = SLIDING + " pattern other() { attend all }"
    assert codes(two) == ["several-patterns"]
    assert compile_pattern(request(two, pattern="other")).pattern.name == "other"
    assert compile_pattern(request(two, prefer="other")).pattern.name == "other"
    assert compile_pattern(request(SLIDING, prefer="other")).pattern.name == "sliding"
    assert codes(two, prefer="third") == ["several-patterns"]
    twice = "pattern f() { attend all } pattern g() { attend all } pattern f() { attend self }"
    assert codes(twice) == codes(twice, pattern="f") == ["duplicate-pattern"]
    assert codes(two, pattern="third") == ["unknown-pattern"]


def test_a_body_alone() -> None:
    header = Header("tail", (("window", "int", 16),), ("hub",))
    body = "input hub: bool[n]\nattend window(window - 1) | to(hub)\n"
    done = compile_pattern(request(body, header=header))
    assert done.pattern.name == "tail"
    assert [(param.name, param.value) for param in done.pattern.params] == [("window", 16)]
    done = compile_pattern(request(body, header=header, params={"window": 3}))
    assert [(param.name, param.value) for param in done.pattern.params] == [("window", 3)]


# --- the guards -----------------------------------------------------------------------------------------


def _moved(done: Any) -> Any:
    first = done.file.patterns[0]
    beyond = replace(first.span, end=first.span.end + 100)
    return replace(done, file=replace(done.file, patterns=(replace(first, span=beyond),)))


def _with_formula(done: Any, formula: Any) -> Any:
    body = done.pattern.bodies[0]
    atom = Atom(formula, "", body.relation.span)
    return replace(done, pattern=replace(done.pattern, bodies=(replace(body, relation=atom),)))


SPOILED: list[tuple[str, Callable[[Any], Any], str]] = [
    ("syntax", _moved, "outside of its source"),
    ("pattern", lambda done: replace(done, pattern=replace(done.pattern, bodies=())), "no body"),
    ("pattern", lambda done: _with_formula(done, le(Var("z"), Q)), "unresolved variables: z"),
    ("pattern", lambda done: _with_formula(done, Lookup("hub", (Q,), "bool")), "undeclared inputs: hub"),
    ("terms", lambda done: replace(done, bodies=()), "not those of its bodies"),
    ("claims", lambda done: replace(done, claims=()), "not those of `sliding`"),
    ("module", lambda done: replace(done, text="def sliding(:"), "not valid Python"),
    ("module", lambda done: replace(done, text="x = 1"), "no function of that name"),
    ("module", lambda done: replace(done, text="def sliding(q, k, v): ..."), "by name, not"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), SPOILED)
def test_a_spoiled_outcome_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Any], Any], words: str
) -> None:
    steps = tuple(
        replace(step, run=lambda value, step=step: spoil(step.run(value))) if step.name == name else step
        for step in PASSES
    )
    monkeypatch.setattr(pipeline, "PASSES", steps)
    with pytest.raises(PassError, match=words):
        compile_pattern(request(SLIDING))


# --- the examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_compiles(path: Path) -> None:
    source = Source(path.name, path.read_text(encoding="utf-8"))
    patterns = run(Request(source), "syntax").file.patterns
    for pattern in patterns:
        done = compile_pattern(Request(source, pattern.name.text))
        assert done.warnings == ()
        assert all(result.finding.verdict == "proven" for result in done.claims if not result.claim.assumed)


def test_a_bound_of_every_pair_says_why_it_is_not_the_growth() -> None:
    n = cost.n
    bound = cost.Cost(n**2, False, "O(n*size)", n**2, 0, n**2, 0, 1, n**2, n**2)
    shown = "at most n**2 (every pair: no closed form was found, and growth tells more)"
    assert bound.lines() == [shown]
    assert replace(bound, exact=True).lines() == ["n**2"]
    assert replace(bound, growth="O(n^2)").lines() == ["at most n**2"]
    done = compile_pattern(request("pattern p() { attend chunk(4) }"))
    head = module.emit(done.pattern, done.schedule, replace(pipeline.facts(done), cost=bound))
    assert f"\nedges      {shown}\ngrowth     O(n*size)\n" in head

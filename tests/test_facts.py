"""One number of edges for everybody: what shows facts shows the same ones, and all of them hold."""

from __future__ import annotations

import json
from html import escape, unescape

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import attnc
from attnc import fills
from attnc.counts import cost_of
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.editing import examining
from attnc.pages.report import report_page
from attnc.parser import parse
from attnc.pipeline import compile_pattern, show_claims
from attnc.reach import least_heads
from attnc.reference import mask
from attnc.request import Request
from attnc.resolver import resolve
from tests.strategies import Case, cases

TEXTS = {
    "a window of an image": "grid(y: 6, x: 8) attend neighborhood(3, axis=y) & neighborhood(3, axis=x)",
    "a window of a video": "grid(t: 3, y: 4, x: 4) attend window(1, axis=t) & window(1, 1, axis=y) "
    "& window(1, 1, axis=x)",
    "a bound above every pair": "attend where k * k <= 40 * q and 3 <= q - k < 9",
    "inputs": "input x: bool[n] attend to(x) | from(x) | window(2, 2)",
    "bodies": "heads even { attend causal } heads odd { attend window(3) | stride(4) & causal }",
    "long": "attend chunk(6) | window(5) & stride(2) | to(every(9))",
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_door_shows_the_same(name: str) -> None:
    source = Source("p.attn", f"pattern p() {{ {TEXTS[name]} }}")
    report = attnc.check(source.text)
    [facts] = report.patterns
    rows = list(facts.rows())
    edges = dict(rows)["edges"]
    done = compile_pattern(Request(source))
    head = [line.strip() for line in done.text.split('"""')[1].splitlines()]
    for line in edges.splitlines():
        assert any(shown.removeprefix("edges").strip() == line for shown in head), line
    page = unescape(report_page(report).replace("<br>", "\n"))
    assert facts.waste and edges in page and f"{facts.waste[0].ratio:.2f} pairs computed" in page
    hovered = examining.facts(source, examining.answered(examining.question(source)))
    assert list(hovered.patterns["p"]) == rows
    assert escape(edges.splitlines()[0]) in report._repr_html_()
    data = report.to_json()["patterns"][0]
    assert json.loads(json.dumps(data))["edges"] == str(facts.cost.expr)
    assert show_claims(done).splitlines()[0] == f"edges {facts.cost.expr}, {facts.cost.growth}"


@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_what_is_claimed_of_random_patterns_holds(case: Case) -> None:
    pattern = resolve(parse(Source("drawn.attn", case.text))).patterns[0]
    cost = cost_of(decompose(pattern))
    heads = max(least_heads(pattern), case.call.heads)
    for n in (0, 1, 7, 30, 65):
        inputs = fills.filled(pattern, n, heads, seed=n, dim=0)
        counts = {name: int(table.sum()) for name, table in inputs.items() if table.dtype == np.bool_}
        edges = mask(pattern, n, heads, inputs).reshape(heads, -1).sum(axis=1)
        shown = cost.at(n, **counts)
        assert edges.max() <= shown <= n * n
        if cost.exact and len(pattern.bodies) == 1:
            assert edges.max() == shown

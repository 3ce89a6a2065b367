"""Short files do not take long: a compile counts its work, and says so where that is too much."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from attnc import budget, pipeline
from attnc.bounds import _count_head
from attnc.budget import (
    LIMIT,
    OVERRUN,
    OutOfWork,
    allows,
    at,
    charge,
    compiling,
    priced,
    share,
    spend,
    use,
    within,
)
from attnc.congruences import joined
from attnc.decompose import MOST_JOINED, decompose
from attnc.diagnostics import AttncError, Diagnostic, Source, Span
from attnc.evaluation import Env, evaluate
from attnc.expression import (
    Expr,
    K,
    Q,
    eq,
    floor_div,
    fold,
    innermost_first,
    le,
    maximum,
    mod,
    mul,
    size,
    sub,
    substitute,
    variables,
    walk,
)
from attnc.notation import show
from attnc.parser import parse
from attnc.pipeline import Emitted, compile_pattern
from attnc.report import examine
from attnc.request import Request
from attnc.resolver import resolve
from attnc.solver import DEAREST

ROOT = Path(__file__).resolve().parent.parent


def test_work_is_refused_once_the_budget_is_spent() -> None:
    with compiling(100) as left:
        spend(60, "one")
        assert not allows(41, "two") and not allows(1, "three")  # after the first refusal all is refused
        assert (left.spent, left.refused, left.refusals) == (60, "two", 2)
        with pytest.raises(OutOfWork, match=r"four takes more than the 100 steps"):
            spend(1, "four")
    with compiling(100):  # every pattern has its own
        spend(100, "one")
        assert not allows(0, "nothing is left")
    assert budget.current() is None and allows(1 << 62, "nothing is limited")


def test_a_share_keeps_the_rest_for_later() -> None:
    with compiling(100):
        with share(0.5):
            assert allows(50, "one") and not allows(1, "two")
        assert allows(50, "three")
        charge(1)
        assert not allows(0, "four")


def test_much_small_work_ends_soon_after_the_limit() -> None:
    place = Span(3, 5)
    for work in (charge, use):
        with (
            compiling(100, 20) as left,
            pytest.raises(OutOfWork, match="it takes more than the 100") as ended,
            at(place),
        ):
            for _ in range(100):
                work(7, "it")
        assert 120 < left.spent <= 127 and left.refused == "it" and ended.value.place == place


def test_what_can_be_left_out_leaves_the_rest_for_later() -> None:
    with compiling(100, 20) as left:
        with pytest.raises(OutOfWork, match="more than the 100 steps"), within(0.5):
            for _ in range(100):
                charge(1)
        assert left.spent == 61 and not left.refused and allows(39, "what comes later")
        with pytest.raises(OutOfWork), within(0.5):
            raise AssertionError("nothing is left")


def test_what_was_found_before_costs_the_same_again() -> None:
    calls = []

    @priced(2)
    def work(steps: int) -> bool:
        calls.append(steps)
        return allows(steps, "it")

    for _ in range(2):
        with compiling(100) as left:
            assert work(40) and work(40) and left.spent == 40  # it is paid for once
            assert not work(70)  # what there is too little for is not taken from the cache, nor kept there
            assert not work(10)
            assert work(40) and left.spent == 40
    assert calls == [40, 70, 10, 70, 10]
    assert work(40) and work(10) and calls[5:] == [10]


def test_what_was_paid_for_before_makes_nothing_cheaper_that_is_kept() -> None:
    """Else a pattern would cost less after another one, and might be given another answer."""

    @priced(4)
    def part(steps: int) -> bool:
        return allows(steps, "a part")

    @priced(4)
    def whole(name: str) -> bool:
        return part(10) and part(10) and allows(5, "the whole")

    spent = []
    for before in (False, True, True, False):
        with compiling(1000) as left:
            if before:
                part(10)
            whole("first")
            whole(f"another, {before}")
            spent.append(left.spent)
    assert spent == [30, 40, 40, 30]
    with compiling(1000) as left:
        for steps in (1, 2, 3, 4, 5, 1):  # as many as are kept, and one more
            part(steps)
    assert left.spent == 16


# --- files that once took a minute or gigabytes ----------------------------------------------------------

PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73)


def _lets(first: str, again: str, last: str, times: int) -> str:
    """Lets of which each uses the one before more than once."""
    lines = [f"let a0 = {first}"]
    lines += [f"let a{i + 1} = {again.format(f'a{i}', PRIMES[i % len(PRIMES)])}" for i in range(times)]
    return "\n".join([*lines, last.format(f"a{times}")])


def _many(sign: str, part: str, times: int) -> str:
    return "attend " + f" {sign} ".join(part.format(prime) for prime in PRIMES[:times])


LARGE = {
    "union of strides": _many("|", "where (q - k) % {} == 0", 20),
    "intersection of strides": _many("&", "where (q - k) % {} == 0", 20),
    "difference of strides": "attend causal - " + _many("-", "stride({})", 20).removeprefix("attend "),
    "dilated windows": _many("|", "window(40, 7, dilation={})", 9),
    "relations used twice": _lets(
        "where q >= k", "({0} & where q % {1} < 2) | (!{0} & where k % {1} > 1)", "attend {}", 7
    ),
    "numbers used twice": _lets("q - k", "max({0} // 2, k - {0})", "attend where {} > 0", 16),
    "scores used three times": _lets(
        "s + 1.0", "{0} * sigmoid({0}) + tanh({0})", "attend causal score {}", 16
    ),
    "a product of many": "attend where " + " * ".join(("q", "k") * 8) + " < n * n // 2",
    "grid of a huge axis": "grid(y: 9, x: 2147483647) attend window(1, 1, axis=y) & window(1, axis=x)",
    "reach in very many layers": "attend offsets({2, 3, 65537}) - offsets({3}) assume reach <= 2147483647",
    "scores written out": _lets("s + 1.0", "{0} * sigmoid({0})", "attend causal score {}", 8),
    "offsets with a bound on edges": "attend offsets({"
    + ", ".join(map(str, PRIMES))
    + "}) require edges <= 20 * n",
    "random beside blocks": "attend blocks(255, window(16)) & (random(1024, seed=1, past=true)"
    + "".join(f" | window({prime}, dilation={prime})" for prime in PRIMES[:8])
    + ")",
    "inputs that are not read": "input flag: bool[n] input number: int[n]"
    " attend blocks(64, blocks(64, blocks(64, where (q - k) % 59 == 0)))",
    "random in huge blocks": "input flag: bool[n] attend !(offsets({5, 14, 3, 7}) - random(4, seed=11)"
    " - random(6, seed=4) - random(2, seed=2) - blocks(64, blocks(64, blocks(64, random(1, seed=13))))"
    " - where flag[k])",
    "random in larger blocks": "attend blocks(64, blocks(64, blocks(64, random(8, seed=3, past=true))))"
    " require reach <= 19",
    "paths past many remainders": "input number: int[n] attend where (n % 2 < abs(H)"
    " or (q - k) % 6 >= 0 and ((h - q - k + number[q]) != H or 5 - q * k == 0)"
    " or (37 - max(H, n)) <= 11 % 3 and (q - k) % 16 > 0 and (q - k) % 71 > 0 or n < n % 4)"
    " require reach <= 2147483647",
    "large inputs that only scores depend on": "input bias: float[2147483647, H] input far: float[n, n, H]"
    " input at: float[2147483647, 2147483647, 2147483647] attend blocks(64, blocks(64, window(3)))"
    " score s + bias[q - q, h] + far[q, k, h] + at[0, 0, 0] require nonempty require edges <= 3 * n"
    " require reach <= 1",
    "large inputs": "input x: int[2147483647] input on: bool[2147483647, 2147483647]"
    " attend where x[k] == q or on[q, k] require nonempty require edges <= 3 * n require reach <= 1",
    "blocks with a huge period": "attend "
    + " | ".join(
        f"chunk({size})" for size in (15, 16, 19, 100000, 61, 23, 13, 4097, 43, 32767, 7, 2147483647)
    )
    + " assume reach <= 17",
    "strides with a huge period": "attend "
    + " | ".join(f"stride({2091052 + 100 * i})" for i in (0, 2, 3, 5, 6, 7, 9, 11, 13, 17, 19, 23, 29))
    + " assume flops <= d * 65535",
    "inputs of parts that cancel": "input x: int[n] input on: bool[n] input t: int[n]"
    " attend where t[k] > x[q] | all | to(on) require causal",
    "huge distances": "attend window(2147483647, 2147483647, dilation=2147483647)",
}


LONG = {
    "offsets": f"attend offsets({{{', '.join(str(i * i % 1000003) for i in range(2000))}}})",
    "offsets side by side": f"attend offsets({{{', '.join(map(str, range(-500, 500)))}}})",
    "windows": "attend " + " | ".join(f"window({i + 1})" for i in range(1000)),
    "intersection of strides": "attend "
    + " & ".join(f"where (q - k) % {2 * i + 3} == {i}" for i in range(64)),
    "heads": "\n".join(f"heads {{{i}}} {{ attend window({i}) & stride({i + 1}) }}" for i in range(64)),
}


@pytest.mark.parametrize("name", LONG)
def test_the_work_of_long_files_is_counted(name: str) -> None:
    """No single step of what they take goes far beyond the limit, and none goes on after it."""
    request = Request(Source("long.attn", f"pattern p() {{ {LONG[name]} }}"))
    with compiling(1 << 62) as work:
        report = examine(request)
    assert work.spent < LIMIT + OVERRUN + DEAREST
    assert report.ok or {found.code for found in report.diagnostics} == {"too-large"}


def test_a_relation_that_is_too_large_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WALKED", LIMIT)
    text = "pattern p() { require causal attend window(3) }"
    for said in (
        examine(Request(Source("p.attn", text))).diagnostics,
        _refused(Request(Source("p.attn", text))),
    ):
        [found] = said
        assert (found.code, text[found.span.start : found.span.end]) == ("too-large", "window(3)")
        assert found.message.startswith(f"the pass `terms` takes more than the {LIMIT:,} steps of work")


def _refused(request: Request) -> tuple[Diagnostic, ...]:
    with pytest.raises(AttncError) as refused:
        compile_pattern(request)
    return refused.value.diagnostics


def test_all_patterns_of_a_file_together_have_a_limit() -> None:
    one = "attend window(5) & stride(3) | to(every(7))"
    text = "\n".join(f"pattern p{i}() {{ {one} }}" for i in range(400))
    with compiling(1 << 62) as work:
        report = examine(Request(Source("many.attn", text)))
    [found] = report.diagnostics
    told = [dict(pattern.to_json(), name="") for pattern in report.patterns]
    assert found.code == "too-large" and 1 < len(told) < 400 and work.spent <= LIMIT + DEAREST
    assert f"up to `p{len(told)}`" in found.message and f"--pattern p{len(told)}" in str(found.help)
    assert all(item == told[0] for item in told)  # what was before changes no answer


def test_bands_are_joined_however_many_they_are() -> None:
    def terms(relation: str) -> list[tuple[str, str]]:
        pattern = pipeline.settle_pattern(
            Request(Source("p.attn", f"pattern p() {{ attend {relation} }}"))
        ).pattern
        return [(show(fold(term.low)), show(fold(term.high))) for term in decompose(pattern)[0].terms]

    side_by_side = ", ".join(map(str, [*range(0, 600, 2), *range(1, 600, 2)]))
    with compiling() as work:
        assert terms(f"offsets({{{side_by_side}}})") == [("q - 599", "q")]
        assert work.spent < LIMIT // 4
    apart = [3 * i for i in range(MOST_JOINED)]
    assert len(terms(f"offsets({{{', '.join(map(str, apart))}}})")) == MOST_JOINED
    assert terms(f"offsets({{{', '.join(map(str, [*apart, 1000]))}}})") == [("0", "q")]
    assert terms("offsets({5, 1, 2, 7}) | window(2)") == terms("offsets({5, 7}) | window(2)")


@pytest.mark.parametrize("name", LARGE)
def test_short_files_end_soon(name: str, tmp_path: Path) -> None:
    """Within the limits of ``tools/fuzz_compiler.py``: 10 s of processor time and 1 GiB."""
    text = f"pattern p() {{ {LARGE[name]} }}"
    assert len(text) < 1000
    path = tmp_path / "large.attn"
    path.write_text(text)
    commands = "graph" if "grid" in name else "compile" if "written" in name else "check"
    words = [sys.executable, "tools/fuzz_compiler.py", str(path), "--commands", commands]
    ran = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_odd_files_end_in_a_diagnostic_or_a_module() -> None:
    words = [sys.executable, "tools/fuzz_compiler.py", "--cases", "25", "--seed", "3"]
    ran = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = {what: int(times) for times, what in re.findall(r"^ +(\d+)  (.*)$", ran.stdout, re.MULTILINE)}
    assert counts["check: done"] > 4 and counts["check: refused"] > 4


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (
            "attend blocks(65536, blocks(65536, window(1)))",
            "huge-integer",
            "blocks of blocks hold 4294967296 tokens",
        ),
        (
            "grid(z: 2, y: 65536, x: 65536) attend window(1, axis=x)",
            "huge-integer",
            "all but the first axis hold 4294967296 tokens",
        ),
        (
            "input b: float[1000] attend causal score s + b[bucket(q - k, 500, 1000, 4000)]",
            "too-large",
            "500 buckets from `exact` on, each with a comparison of its own: at most 256",
        ),
        (LARGE["scores used three times"], "too-large", "grows too large"),
        (
            f"attend to({{{', '.join(map(str, range(4097)))}}})",
            "too-large",
            "a list of 4097 numbers: at most 4096",
        ),
    ],
)
def test_what_is_too_large_is_said(body: str, code: str, said: str) -> None:
    found = examine(Request(Source("p.attn", f"pattern p() {{ {body} }}")))
    assert [(d.code, said in d.message) for d in found.diagnostics] == [(code, True)]


def test_a_plan_that_was_not_tried_in_all_ways_says_so() -> None:
    report = examine(Request(Source("p.attn", f"pattern p() {{ {LARGE['dilated windows']} }}")))
    assert report.ok and "not all ways of laying out its tiles were tried" in str(report)


def test_reach_is_not_measured_in_sequences_that_are_too_long() -> None:
    report = examine(
        Request(Source("p.attn", "pattern p() { input x: int[n] attend offsets({0, 1000000000}) & same(x) }"))
    )
    assert (
        report.ok
        and "reach     not measured" in str(report)
        and report.to_json()["patterns"][0]["reach"] is None
    )


def test_parts_that_stand_in_many_places_are_looked_at_once() -> None:
    expr: Expr = Q
    for prime in (*PRIMES, *PRIMES):
        expr = maximum(floor_div(expr, 2), sub(K, expr), mod(expr, prime))
    assert size(expr) > 3**40
    assert len(list(walk(expr))) == len(innermost_first(expr)) < 400
    assert evaluate(expr, Env({"q": 1000, "k": 3})) == evaluate(expr, Env({"q": np.array([1000]), "k": 3}))[0]
    assert variables(substitute(fold(expr), {Q: K})) == {"k"}


def test_values_are_exact_beyond_64_bits() -> None:
    far = 2_000_000_000
    expr = sub(mul(mul(mul(Q, Q), Q), K), mul(mul(mul(Q, Q), Q), sub(K, 1)))
    less = floor_div(expr, far)
    assert evaluate(less, Env({"q": np.array([far, 3]), "k": np.array([far, 5])})).tolist() == [far * far, 0]
    assert evaluate(le(expr, 0), Env({"q": np.array([far]), "k": np.array([far])})).tolist() == [False]


def test_congruences_are_not_joined_beyond_all_positions() -> None:
    many = [eq(mod(sub(Q, K), prime), 0) for prime in PRIMES]
    kept = joined(many)
    assert 1 < len(kept) < len(many)
    env = Env({"q": np.arange(10**5), "k": 0})
    one, other = (reduce(np.logical_and, [evaluate(c, env) for c in some]) for some in (many, kept))
    assert (one == other).all()


def test_edges_are_counted_in_little_memory() -> None:
    """Parts that are met more than once are kept for the pairs that are looked at together, no longer."""
    one = "where (q - k) % {0} == 0 and (q + k) % {0} == 1 or (q - k) % {0} > (q + k) % {0}"
    text = " | ".join(map(one.format, PRIMES))
    [body] = resolve(parse(Source("t.attn", f"pattern p() {{ attend {text} }}"))).patterns[0].bodies
    tracemalloc.start()
    _count_head(body, 3000, {}, 0, 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 256 << 20


# --- what the solver is asked ---------------------------------------------------------------------------

NEIGHBOURS = """
    grid(t: 16, y: 32, x: 32)
    let y = min(max(q.y, 3), 28)
    let x = min(max(q.x, 3), 28)
    attend where k.t <= q.t and abs(k.y - y) <= 3 and abs(k.x - x) <= 3
    require nonempty
"""
REMAINDERS = " or ".join(f"q % {m} == k % {m}" for m in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31))
# Short texts, and what is said of them: verdicts of causal and nonempty, and whether the plan lost anything.
SHORT = {
    "attend random(8, seed=1) & random(8, seed=2) assume nonempty": ("refuted", "undecided", False),
    NEIGHBOURS: ("refuted", "proven", False),
    "attend offsets({31, 5, 64, 2147483646, -31}) score s + q": ("refuted", "refuted", False),
    "attend offsets(powers(2)) & random(1024, seed=1)": ("proven", "undecided", False),
    "attend blocks(255, window(3)) & (random(1024, seed=1, past=true) | window(4))": (
        "proven",
        "proven",
        False,
    ),
    "attend where q * k < n * n // 2": ("refuted", "refuted", False),
    "attend where q * k % 7 < k * k % 5": ("refuted", "refuted", False),
    f"attend where {REMAINDERS}": ("refuted", "proven", True),
    "\n".join(f"heads {{{i}}} {{ attend window({i}) & stride({i + 1}) }}" for i in range(30)): (
        "proven",
        "proven",
        False,
    ),
}


@pytest.mark.parametrize("text", SHORT, ids=range(len(SHORT)))
def test_short_texts_take_little_work(text: str) -> None:
    request = Request(Source("short.attn", f"pattern p() {{ {text} }}"))
    with compiling(1 << 62) as work:
        report = examine(request)
    [found] = report.patterns
    assert (found.causal.verdict, found.nonempty.verdict, bool(found.lost)) == SHORT[text]
    # One question may go beyond what is left, and nothing more is begun then.
    assert work.spent < LIMIT + DEAREST


def test_what_is_too_much_is_masked_and_said() -> None:
    text = "pattern p() { attend window(5) & stride(3) | to(every(7)) | chunk(12) - self }"
    whole, *less = (compiled(text, limit) for limit in (LIMIT, 400_000, 100_000, 10_000, 0))
    assert not whole.schedule.reports
    for few in less:
        reports = few.schedule.reports
        assert any("work that a pattern may cost" in report for report in reports)
        assert sum("the work that a pattern may cost is spent" in report for report in reports) <= 1
        assert len(set(reports)) == len(reports) < 9
    assert "visited and masked instead" in " ".join(less[-1].schedule.reports)
    assert len(less[-1].schedule.bodies[0].query[0].sweeps) == 1


def compiled(text: str, limit: int) -> Emitted:
    """A pattern compiled with so much work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "compiling", lambda: compiling(limit))
        return compile_pattern(Request(Source("short.attn", text)))


def test_a_claim_that_takes_too_much_is_undecided() -> None:
    text = "pattern p() { attend window(7) & stride(3) assume causal }"
    for result in compiled(text, 0).claims:
        assert result.finding.verdict == "undecided"
        assert "the work that a pattern may cost" in result.finding.note
    assert [result.finding.verdict for result in compiled(text, LIMIT).claims] == ["proven"]

"""What weighs edges: what it comes to, what the solver finds about it, and what is said about mistakes."""

from __future__ import annotations

import pytest

from attnc.description import describe
from attnc.diagnostics import Source
from attnc.distances import distances
from attnc.expression import DIM, HEADS, N
from attnc.indexing import clamped
from attnc.parser import parse
from attnc.pattern import Cosine, Elementwise, Favor, Pattern, Taylor, Weights, formula
from attnc.real import Number, S, X, apply, plus, show
from attnc.resolver import resolve
from attnc.weights import read
from tests.test_resolver import body, errors, pattern

H_INPUT, N_H, CHANNELS = "input a: float[H]", "input a: float[n, H]", "input a: float[n, H, d]"


def weights(text: str) -> Weights:
    (found,) = body(text).bodies
    return found.weights


# --- meaning --------------------------------------------------------------------------------------------


def test_nothing_said_is_softmax_of_the_scaled_product() -> None:
    assert weights("attend causal") == Weights() and weights("attend causal").plain
    assert weights("attend causal score s").plain
    assert not weights("attend causal sink 1.0").plain


def test_each_item_is_settled() -> None:
    assert weights("attend all kernel elu(x) + 1").feature == Elementwise(plus(apply("elu", X), Number(1.0)))
    assert weights("attend all kernel favor(64, seed=3)").feature == Favor(64, 3)
    assert weights("attend all kernel taylor()").feature == Taylor()
    assert weights("attend all kernel cosine(128)").feature == Cosine(128)
    assert weights("attend all kernel exp(x)").normalized
    assert not weights("attend all kernel x normalize none").normalized
    assert not weights(f"{N_H} attend causal kernel x update delta(a)").normalized
    assert weights(f"{N_H} attend causal kernel x update delta(a)").beta == "a"
    for text, axes in ((H_INPUT, "head"), (N_H, "token"), (CHANNELS, "channel")):
        decay = weights(f"{text} attend causal kernel x normalize none decay a").decay
        assert decay is not None and (decay.axes, decay.table, decay.exclusive) == (axes, "a", False)
    decay = weights("attend causal kernel x normalize none decay log(0.5) exclusive").decay
    assert decay is not None and decay.exclusive and decay.table == ""
    found = body(
        f"{CHANNELS} input u: float[H, d] attend causal kernel x normalize none decay a exclusive bonus u"
    )
    assert found.bodies[0].weights.bonus == "u"
    assert [given.shape for given in found.inputs] == [(N, HEADS, DIM), (HEADS, DIM)]


def test_heads_have_weights_of_their_own() -> None:
    found = body(
        "input a: float[H] heads even { attend causal score s * 2.0 } heads odd { attend all sink 1.0 } "
        "score s + a[h] sink a[h]"
    )
    even, odd = (item.weights for item in found.bodies)
    assert show(even.score) == "2 * s" and show(even.sink) == "a[h]"  # type: ignore[arg-type]
    assert show(odd.score) == "s + a[h]" and odd.sink == Number(1.0)
    assert read(even) == {"a"}


def test_parts_weigh_differently() -> None:
    (found,) = body("attend window(7) with softmax attend causal - window(7) with kernel exp(x)").bodies
    first, second = found.parts
    assert first.weights.plain and second.weights.feature == Elementwise(apply("exp", X))
    (found,) = body("attend window(7) with score s * 2.0 attend causal - window(7) with softmax").bodies
    assert show(found.parts[0].weights.score) == "2 * s" and found.parts[1].weights.score == S


def test_whole_numbers_become_real_where_they_meet_one() -> None:
    assert show(weights("attend all score s + q // 2 * 3").score) == "s + (3 * (q // 2))"
    assert show(weights("attend all score s * (6 / 3)").score) == "2 * s"
    assert show(weights("let gap = q - k let far = gap * 0.5 attend all score s + far").score) == (
        "s + 0.5 * (q - k)"
    )
    assert show(weights("attend all score select(q > k, s, 2 * s)").score) == "select(k + 1 <= q, s, 2 * s)"
    assert show(weights("attend all score s + select(s > 1, 0.5, 1)").score) == "s + select(s > 1, 0.5, 1)"


@pytest.mark.parametrize(("exact", "buckets", "most"), [(16, 32, 128), (8, 16, 128), (1, 4, 9), (3, 5, 100)])
def test_buckets_are_those_of_their_logarithm(exact: int, buckets: int, most: int) -> None:
    from math import floor, log

    from attnc.evaluation import Env, evaluate
    from attnc.real import Entry, everywhere

    score = weights(
        f"input b: float[{buckets}] attend all score s + b[bucket(q, {exact}, {buckets}, {most})]"
    ).score
    (entry,) = (part for part in everywhere(score) if isinstance(part, Entry))
    for distance in range(3 * most):
        wanted = distance
        if distance >= exact:
            wide = log(distance / exact) / log(most / exact) * (buckets - exact)
            wanted = min(exact + floor(wide + 1e-12), buckets - 1)
        assert evaluate(entry.index[0], Env({"q": distance})) == wanted


# --- mistakes -------------------------------------------------------------------------------------------

# code, part of the message, body with the place marked
MISTAKES = [
    ("ambiguous-name", "`s` stands for the scaled dot product", "input s: float[H] attend all score «s» + 1"),
    ("ambiguous-name", "the name of a let", "let x = 3 attend all kernel exp(«x»)"),
    ("unknown-name", "no `x`", "attend all score «x»"),
    ("bad-weight", "a sink cannot hang on `q`", "attend all sink «0.5 * q»"),
    ("bad-weight", "a sink cannot hang on `k`", "input a: float[n] attend all sink «a[k]»"),
    ("bad-weight", "does not hang on `x`", "attend all «kernel 2.0»"),
    ("bad-weight", "cannot hang on `q`", "attend all kernel «x * q»"),
    ("bad-weight", "the same for all heads", "input a: float[H] attend all «kernel exp(x) * a[h]»"),
    ("bad-weight", "a decay cannot hang on `k`", "attend causal kernel x normalize none decay «-1.0 * k»"),
    ("duplicate-weight", "more than one `score`", "attend all score s «score s * 2.0»"),
    ("duplicate-weight", "more than one `sink`", "heads rest { attend all sink 1.0 «sink 2.0» }"),
    ("positive-gate", "this is 0.5", "attend causal kernel x normalize none «decay 0.5»"),
    ("unknown-weight", "`normalize some` is unknown", "attend all kernel exp(x) normalize «some»"),
    ("unknown-weight", "cannot follow a decay", "attend causal kernel x decay log(0.5) «exclusively»"),
    ("unknown-weight", "the delta rule", "attend causal kernel x «update plus(3)»"),
    ("unknown-weight", "`softmx` is no weight", "attend all with «softmx»"),
    ("weights-conflict", "`score` belongs to softmax", "attend all kernel exp(x) «score s * 2.0»"),
    ("weights-conflict", "`sink` belongs to softmax", "attend all «sink 1.0» kernel exp(x)"),
    ("weights-conflict", "`decay` goes with `kernel`", "attend causal «decay log(0.5)»"),
    ("weights-conflict", "`normalize` goes with `kernel`", "attend causal «normalize none»"),
    (
        "weights-conflict",
        "only an exclusive decay",
        "input u: float[H, d] attend causal kernel x normalize none decay log(0.5) «bonus u»",
    ),
    (
        "weights-conflict",
        "no sum of weights",
        f"{N_H} attend causal kernel x «normalize sum» update delta(a)",
    ),
    (
        "weights-conflict",
        "no exclusive decay",
        f"{N_H} attend causal kernel x «decay log(0.5) exclusive» update delta(a)",
    ),
    (
        "weights-conflict",
        "neither decays nor updates",
        "attend window(3) with softmax attend causal - window(3) with «kernel exp(x)» decay log(0.5)",
    ),
    (
        "weights-conflict",
        "for every channel",
        f"{CHANNELS} attend causal kernel favor(8, seed=1) «decay a»",
    ),
    (
        "weights-conflict",
        "for every channel",
        "input u: float[H, d] attend causal kernel taylor() decay log(0.5) exclusive «bonus u»",
    ),
    (
        "signed-weights",
        "can be negative",
        "attend window(3) with softmax attend causal - window(3) with «kernel x»",
    ),
    ("inexact-division", "rounds down", "attend all score s + «(q - k) / 16»"),
    ("division-by-zero", "by zero", "attend all score s / «0.0»"),
    ("bad-argument", "has no value", "attend all score s + «log(-1.0)»"),
    ("bad-argument", "`bucket", "input b: float[4] attend all score s + b[«bucket(q, 4, 4, 8)»]"),
    ("too-many-arguments", "takes 1 argument", "attend all score «exp(s, s)»"),
    ("float-value", "floats weigh edges", "attend where «exp(q)» > 1"),
    ("type-mismatch", "one `<` or `>`", "attend all score select(«s == 1.0», s, 1.0)"),
    ("type-mismatch", "is for whole numbers", "attend all score s % «2»"),
    ("type-mismatch", "gates are float[H]", "input a: float[n] attend causal kernel x decay «a»"),
    (
        "type-mismatch",
        "float[n, H]",
        "input a: float[H] attend causal kernel x update delta(«a»)",
    ),
    ("type-mismatch", "float[H, d]", f"{N_H} attend causal kernel x decay log(0.5) exclusive bonus «a»"),
    ("unknown-name", "no `slope`", "attend all score s + «slope»[h]"),
    ("bad-index", "takes 1 index, not 2", "input a: float[H] attend all score s + «a[h, q]»"),
]


@pytest.mark.parametrize(("code", "message", "text"), MISTAKES)
def test_mistakes_are_named_and_placed(code: str, message: str, text: str) -> None:
    text = f"pattern f() {{\n  {text}\n}}"
    start, end = text.index("«"), text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""))
    assert found.code == code, str(found)
    assert message in found.message, str(found)
    assert (found.span.start, found.span.end) == (start, end), str(found)


# code, part of the message, body with the place marked
WARNINGS = [
    ("score-without-s", "does not hang on `s`", "input a: float[n] attend all «score a[k]»"),
    ("signed-weights", "nearly nothing", "attend all «kernel x»"),
    ("signed-weights", "nearly nothing", "attend all «kernel elu(x)»"),
]


@pytest.mark.parametrize(("code", "message", "text"), WARNINGS)
def test_what_is_doubtful_is_warned_about(code: str, message: str, text: str) -> None:
    text = f"pattern f() {{\n  {text}\n}}"
    start, end = text.index("«"), text.index("»") - 1
    (found,) = resolve(parse(Source("t.attn", text.replace("«", "").replace("»", "")))).warnings
    assert (found.code, found.level) == (code, "warning") and message in found.message
    assert (found.span.start, found.span.end) == (start, end)


@pytest.mark.parametrize(
    "text",
    ["kernel elu(x) + 1", "kernel exp(x)", "kernel relu(x)", "kernel x * x", "kernel x normalize none"],
)
def test_maps_that_are_never_negative_are_not_warned_about(text: str) -> None:
    assert resolve(parse(Source("t.attn", f"pattern f() {{ attend all {text} }}"))).warnings == ()


# --- indices --------------------------------------------------------------------------------------------


FAR = "q = 8, k = 0, n = 9"


# What is declared and said, the index as it is read, and where it would leave the axis.
@pytest.mark.parametrize(
    ("text", "index", "at"),
    [
        ("8] attend causal score s + b[q - k]", "max(0, min(7, q - k))", FAR),
        ("8] attend window(7) score s + b[q - k]", "q - k", None),
        ("8] attend window(8) score s + b[q - k]", "max(0, min(7, q - k))", FAR),
        ("n] attend causal score s + b[q - k]", "q - k", None),
        ("n] attend all score s + b[q - k]", "max(0, min(q - k, n - 1))", "q = 0, k = 1, n = 2"),
        ("H] attend all score s + b[h + 1]", "max(0, min(H - 1, h + 1))", "h = 0, n = 1"),
        ("15] attend window(7, 7) score s + b[q - k + 7]", "q - k + 7", None),
        ("8] attend all score s + b[min(abs(q - k), 7)]", "min(7, max(q - k, k - q))", None),
        (
            "8] heads even { attend all score s + b[h % 2 * 99] } heads odd { attend self }",
            "99 * (h % 2)",
            None,
        ),
        ("4] attend all sink b[h // 2]", "max(0, min(3, h // 2))", "h = 8, n = 1"),
    ],
)
def test_indices_are_held_within_their_axis_where_they_may_leave_it(
    text: str, index: str, at: str | None
) -> None:
    found, warnings = clamped(body(f"input b: float[{text}"))
    inside = found.bodies[0].weights
    shown = show(inside.score) if inside.sink is None else show(inside.sink)
    assert f"b[{index}]" in shown
    assert [item.code for item in warnings] == ([] if at is None else ["index-clamped"])
    if at is not None:
        (warning,) = warnings
        assert warning.level == "warning" and at in warning.label


# --- distances ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "bounds"),
    [
        ("causal", (0, None)),
        ("all", (None, None)),
        ("self", (0, 0)),
        ("window(5)", (0, 5)),
        ("window(5, 3)", (-3, 5)),
        ("window(5, 3) & causal", (0, 5)),
        ("window(5) | window(0, 9)", (-9, 5)),
        ("causal & chunk(8)", (0, None)),
        ("where 3 <= q - k < 9", (3, 8)),
        ("!causal", (None, -1)),
        ("window(3) | to(first(2))", (None, None)),
        ("offsets({-2, 4})", (-2, 4)),
    ],
)
def test_distances(relation: str, bounds: tuple[int | None, int | None]) -> None:
    assert distances(formula(body(f"attend {relation}").bodies[0].relation)) == bounds


# --- text -----------------------------------------------------------------------------------------------


def test_weights_are_described() -> None:
    found: Pattern = pattern(
        "pattern f(cap: float = 5.0) { input a: float[H] heads even { attend causal "
        "score cap * tanh(s / cap) sink a[h] } heads rest { attend causal kernel elu(x) + 1 decay a } }"
    )
    shown = describe(found)
    for line in ("score cap * tanh(s / cap)", "sink a[h]", "kernel elu(x) + 1", "normalize sum", "decay a"):
        assert line in shown, shown

"""Tree to pattern: what everything means, and what is said about mistakes."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnc.diagnostics import AttncError, Diagnostic, Source
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    Const,
    FloorDiv,
    Lookup,
    Param,
    Var,
    walk,
)
from attnc.notation import show
from attnc.parser import parse, parse_body
from attnc.pattern import Atom, Difference, Pattern, Union, formula
from attnc.resolver import describe, resolve


def pattern(text: str, **params: object) -> Pattern:
    (found,) = resolve(parse(Source("t.attn", text)), params).patterns
    return found


def body(text: str) -> Pattern:
    return pattern(f"pattern f() {{ {text} }}")


def errors(text: str, **params: object) -> tuple[Diagnostic, ...]:
    with pytest.raises(AttncError) as caught:
        resolve(parse(Source("t.attn", text)), params)
    return caught.value.diagnostics


def mask(found: Pattern, n: int, tables: dict[str, object] | None = None, h: int = 0, heads: int = 4):
    variables = {"q": np.arange(n)[:, None], "k": np.arange(n)[None, :], "n": n, "h": h, "H": heads}
    env = Env(variables, {name: np.asarray(values) for name, values in (tables or {}).items()})
    (relation,) = [
        part.relation for part in found.bodies if evaluate(part.heads.condition, Env({"h": h, "H": heads}))
    ]
    return np.broadcast_to(evaluate(formula(relation), env), (n, n))


def expected(n: int, rule):
    return np.array([[bool(rule(q, k)) for k in range(n)] for q in range(n)])


# --- meaning --------------------------------------------------------------------------------------------

HUB = [q % 5 == 2 for q in range(23)]
DOC = [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 4, 4, 4, 4, 4]
N = 23
BLOCKS = 6  # of 4 tokens

MEANINGS = {
    "attend all": lambda q, k: True,
    "attend none": lambda q, k: False,
    "attend self": lambda q, k: q == k,
    "attend causal": lambda q, k: k <= q,
    "attend window(3)": lambda q, k: 0 <= q - k <= 3,
    "attend window(3, 2)": lambda q, k: -2 <= q - k <= 3,
    "attend window(2, right=1, dilation=3)": lambda q, k: q - k in (6, 3, 0, -3),
    "attend window(right=1, left=0)": lambda q, k: q - k in (0, -1),
    "attend chunk(4)": lambda q, k: q // 4 == k // 4,
    "attend stride(4)": lambda q, k: (q - k) % 4 == 0,
    "attend to(first(2))": lambda q, k: k < 2,
    "attend from(last(2))": lambda q, k: q >= 21,
    "attend to(every(4))": lambda q, k: k % 4 == 0,
    "attend to(every(4, offset=3))": lambda q, k: k % 4 == 3,
    "attend from({0, 7, 7, 19})": lambda q, k: q in (0, 7, 19),
    "attend to(powers(2))": lambda q, k: k in (0, 1, 2, 4, 8, 16),
    "input hub: bool[n] attend to(hub)": lambda q, k: HUB[k],
    "input hub: bool[n] attend from(hub & every(2))": lambda q, k: HUB[q] and q % 2 == 0,
    "attend to(first(9) + last(2) - first(3) & every(2))": (
        lambda q, k: (k < 9 or k >= 21) and not (k < 3 and k % 2 == 0)
    ),
    "attend to(first(9) - first(3) + {0})": lambda q, k: 3 <= k < 9 or k == 0,
    "attend offsets({-2, 0, 5})": lambda q, k: q - k in (-2, 0, 5),
    "attend offsets(powers(2))": lambda q, k: q - k in (0, 1, 2, 4, 8, 16),
    "input doc: int[n] attend same(doc)": lambda q, k: DOC[q] == DOC[k],
    "attend where q - k < 3": lambda q, k: q - k < 3,
    "attend where 0 <= q - k < 5": lambda q, k: 0 <= q - k < 5,
    "attend where abs(q - k) % 3 == 1 or not q != k": lambda q, k: abs(q - k) % 3 == 1 or q == k,
    "attend where min(q, k, 7) == max(3, k)": lambda q, k: min(q, k, 7) == max(3, k),
    "attend where (k - q) // 4 < -1 and true": lambda q, k: (k - q) // 4 < -1,
    "attend where q // -4 == k % -5": lambda q, k: q // -4 == k % -5,
    "attend where 2 * q * k - -3 > n + q * q": lambda q, k: 2 * q * k + 3 > 23 + q * q,
    "input doc: int[n] attend where doc[q] < doc[k]": lambda q, k: DOC[q] < DOC[k],
    "input hub: bool[n] attend where hub[k] or hub[q / 2]": lambda q, k: HUB[k] or HUB[q // 2],
    "attend causal & window(3) | self": lambda q, k: 0 <= q - k <= 3,
    "attend all - window(3) - self": lambda q, k: not 0 <= q - k <= 3,
    "attend causal - self | none - all": lambda q, k: k < q,
    "attend !causal & stride(3)": lambda q, k: k > q and (q - k) % 3 == 0,
    "attend blocks(4, window(1))": lambda q, k: 0 <= q // 4 - k // 4 <= 1,
    "attend blocks(4, to(last(1)))": lambda q, k: k // 4 == BLOCKS - 1,
    "attend blocks(4, where q + 1 == n)": lambda q, k: q // 4 + 1 == BLOCKS,
    "attend blocks(2, blocks(2, self) | window(1))": (
        lambda q, k: q // 4 == k // 4 or 0 <= q // 2 - k // 2 <= 1
    ),
    "grid(y: 3, x: 4) attend window(1, 1, axis=x) & window(0, axis=y)": (
        lambda q, k: abs(q % 4 - k % 4) <= 1 and q // 4 == k // 4
    ),
    "grid(y: 3, x: 4) attend chunk(2, axis=y) & stride(3, axis=x)": (
        lambda q, k: q // 4 // 2 == k // 4 // 2 and (q % 4 - k % 4) % 3 == 0
    ),
    "grid(z: 2, y: 3, x: 2) attend where q.z == k.z and q.y <= k.y and q.x != k.x": (
        lambda q, k: q // 6 == k // 6 and q // 2 % 3 <= k // 2 % 3 and q % 2 != k % 2
    ),
    "let w = 2 + 1 let near = window(w) attend near | self": lambda q, k: 0 <= q - k <= 3,
    "let hubs = first(1) + {5} attend to(hubs)": lambda q, k: k in (0, 5),
    "let gap = q - k let close = gap < 3 attend where close and gap >= 0": lambda q, k: 0 <= q - k < 3,
    "let steps = {-1, 3} attend offsets(steps)": lambda q, k: q - k in (-1, 3),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_meaning(text):
    found = mask(body(text), N, {"hub": HUB, "doc": DOC})
    assert np.array_equal(found, expected(N, MEANINGS[text]))


def test_inputs_inside_blocks_have_an_entry_for_every_block():
    hub = [True, False, False, True, False, True]
    found = body("input hub: bool[(n + 3) / 4] let hubs = to(hub) attend blocks(4, hubs | where hub[q])")
    assert np.array_equal(mask(found, N, {"hub": hub}), expected(N, lambda q, k: hub[k // 4] or hub[q // 4]))


def test_inputs_inside_nested_blocks_may_be_declared_either_way():
    for shape in ("(n + 7) / 8", "((n + 3) / 4 + 1) / 2"):
        body(f"input hub: bool[{shape}] attend blocks(4, blocks(2, to(hub)))")


def test_random_keeps_its_arguments_and_is_lifted_by_blocks():
    found = pattern(
        "pattern f(picks: int = 3, old: bool = false) { attend blocks(8, random(picks, 7, past=not old)) }"
    )
    atom = found.bodies[0].relation
    assert isinstance(atom, Atom)
    drawn = atom.formula
    assert (show(drawn.count), show(drawn.seed), drawn.past) == ("picks", "7", True)
    assert (show(drawn.row), show(drawn.column)) == ("q // 8", "k // 8")
    assert show(drawn.population) == "(n + 7) // 8"


def test_parameters_stay_named():
    found = pattern("pattern f(w: int = 512) { attend window(w / 2) }", w=256)
    assert found.params == (Param("w", 256),)
    assert FloorDiv(Param("w", 256), Const(2)) in set(walk(formula(found.bodies[0].relation)))


def test_atoms_carry_the_text_and_place_of_their_use():
    text = "pattern f() { let near = window(3)\n attend near | to(first( # comment\n 2)) }"
    found = pattern(text)
    relation = found.bodies[0].relation
    assert isinstance(relation, Union)
    assert [part.text for part in relation.args] == ["near", "to(first( 2))"]
    assert text[relation.args[0].span.start :].startswith("near |")


def test_differences_of_many_keep_their_shape():
    relation = body("attend all - self - causal - none").bodies[0].relation
    assert isinstance(relation, Difference) and isinstance(relation.right, Union)
    assert len(relation.right.args) == 3


# --- heads ----------------------------------------------------------------------------------------------


def test_heads_have_their_own_bodies():
    found = body("heads 0..2 { attend self } heads {3} { let c = causal attend c } heads rest { attend all }")
    assert [part.heads.text for part in found.bodies] == ["0..2", "{3}", "rest"]
    for h, rule in ((0, "self"), (1, "self"), (2, "all"), (3, "causal"), (5, "all")):
        assert np.array_equal(mask(found, 6, h=h, heads=6), mask(body(f"attend {rule}"), 6))


def test_a_range_of_heads_may_use_their_number():
    found = body("heads 0..H / 2 { attend self } heads H / 2..H { attend all }")
    assert not mask(found, 4, h=1, heads=4)[0, 1]
    assert mask(found, 4, h=2, heads=4)[0, 1]


def test_a_single_covered_head_is_a_warning():
    (warning,) = resolve(parse(Source("t", "pattern f() { heads even { attend all } }"))).warnings
    assert (warning.code, warning.level) == ("heads-missing", "warning")
    assert "head 1 has no body when there are 2 heads" in warning.message


# --- claims ---------------------------------------------------------------------------------------------


def test_claims_are_kept_with_their_bounds():
    found = pattern(
        "pattern f(w: int = 4) { input g: bool[n] attend window(w) | to(g)\n"
        "require causal assume nonempty require edges <= n * (w + 1) + n * count(g)\n"
        "require flops <= 4 * d * n * n require reach <= w / 2 }"
    )
    shown = [(c.kind, c.assumed, c.text) for c in found.claims]
    assert shown == [
        ("causal", False, "causal"),
        ("nonempty", True, "nonempty"),
        ("edges", False, "edges <= n * (w + 1) + n * count(g)"),
        ("flops", False, "flops <= 4 * d * n * n"),
        ("reach", False, "reach <= w / 2"),
    ]
    env = Env({"n": 10, "count(g)": 3, "d": 64})
    values = [None if c.bound is None else evaluate(c.bound, env) for c in found.claims]
    assert values == [None, None, 80, 25600, 2]
    assert Var("count(g)") in set(walk(found.claims[2].bound))


# --- parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "bound"), [(7, 7), ("7", 7), (" -7 ", -7), (np.int64(7), 7)])
def test_integer_parameters_are_bound_from_numbers_and_text(value, bound):
    assert pattern("pattern f(a: int) { attend where q < a }", a=value).params == (Param("a", bound),)


def test_later_defaults_use_earlier_parameters():
    text = "pattern f(a: int = 4, b: int = a * 2, c: bool = not true, x: float = -0.5) {"
    found = pattern(f"{text} attend where q < b or c }}", a="8")
    assert found.params == (Param("a", 8), Param("b", 16), Param("c", False))
    assert found.float_params == (("x", -0.5),)


def test_a_bool_parameter_is_a_condition():
    text = "pattern f(past: bool = true) { attend where past and k <= q }"
    assert mask(pattern(text), 4).sum() == 10
    assert mask(pattern(text, past="false"), 4).sum() == 0


def test_one_pattern_is_picked_by_name():
    file = parse(Source("t", "pattern f(a: int) { attend window(a) } pattern g() { attend all }"))
    assert [p.name for p in resolve(file, pattern="g").patterns] == ["g"]
    assert [p.name for p in resolve(file, {"a": 1}).patterns] == ["f", "g"]
    with pytest.raises(AttncError, match=r"did you mean `f`|it holds"):
        resolve(file, pattern="fg")


# --- mistakes -------------------------------------------------------------------------------------------

# code, part of the message, body with the place marked
MISTAKES = [
    ("unknown-name", "no `causl`", "attend «causl»"),
    ("unknown-name", "no `windw(…)`", "attend «windw»(3)"),
    ("unknown-name", "before it is defined", "attend «near» let near = window(3)"),
    ("unknown-name", "before it is defined", "let near = causal & «nearer» let nearer = self attend near"),
    ("unknown-name", "`near` is used in its own definition", "let near = causal & «near» attend near"),
    ("unknown-name", "`a` is used in its own definition", "let a = «a» + 1 attend window(a)"),
    ("unknown-name", "`a` is used in its own definition", "input a: bool[«a»] attend to(a)"),
    ("type-mismatch", "this is a set", "attend to(«!first(3)»)"),
    ("too-many-arguments", "`window` takes 3 numbers", "attend window(1, 2, 3, «4»)"),
    ("too-many-arguments", "`window` takes 3 numbers", "let x = 4 attend window(x, 2, 3, «x»)"),
    ("too-many-arguments", "`chunk` takes 1 number,", "attend chunk(1, «2»)"),
    ("unknown-axis", "name of an axis", "grid(y: 2, x: 2) attend chunk(1, axis=«2»)"),
    ("bad-argument", "`left` of `window` must be at least 0, and is -1", "attend window(«-1», 5)"),
    ("bad-argument", "`right` of `window` must be at least 0, and is -5", "attend window(9, right=«-5»)"),
    ("unknown-name", "`d`, the head dimension", "attend where q < «d»"),
    ("unknown-name", "no coordinates", "attend where «n».x == 0"),
    ("unknown-name", "no `hub`", "attend same(«hub»)"),
    ("duplicate-name", "name of a let", "let a = causal let «a» = all attend a"),
    ("duplicate-name", "name of a let", "let a = causal heads rest { let «a» = all attend a }"),
    ("duplicate-name", "name of an input", "input a: bool[n] let «a» = all attend to(a)"),
    ("reserved-name", "query position", "let «q» = 3 attend all"),
    ("reserved-name", "relation of the language", "input «causal»: bool[n] attend to(causal)"),
    ("reserved-name", "keyword of Python", "let «lambda» = 3 attend window(lambda)"),
    ("reserved-name", "own `scale`", "input «scale»: bool[n] attend to(scale)"),
    ("reserved-name", "own `state`", "input «state»: bool[n] attend to(state)"),
    ("reserved-name", "emitted module", "let «_a» = causal attend _a"),
    ("reserved-word", "reserved for keys", "let «memory» = first(4) attend to(memory)"),
    ("reserved-word", "chosen by content", "attend «topk»(3)"),
    ("reserved-word", "reserved for", "attend causal | «lsh»"),
    ("unknown-type", "for inputs", "input a: «boool»[n] attend to(a)"),
    ("bad-shape", "`q`", "input a: bool[«q + 1»] attend all"),
    ("bad-shape", "at least one entry", "input a: bool[«0»] attend all"),
    ("bad-index", "takes 1 index, not 2", "input a: bool[n] attend where «a[q, k]»"),
    ("bad-index", "`h` runs up to `H`", "input a: bool[n] attend where a[«h»]"),
    ("bad-index", "no entry -1", "input a: bool[n] attend where a[«-1»]"),
    ("bad-index", "no entry 4", "input a: bool[4] attend where a[«4»]"),
    ("bad-index", "positions run up to `n`", "input a: bool[H] attend where a[«k»]"),
    ("bad-index", "positions run up to `n`", "input a: bool[128] attend to(«a»)"),
    ("block-input", "every block of 64", "input a: bool[n] attend blocks(64, where a[«q»])"),
    ("block-input", "every block of 64", "input a: bool[n / 64] attend blocks(64, to(«a»))"),
    ("block-input", "every block of 64", "input a: bool[n] let t = to(«a») attend blocks(64, t)"),
    ("block-input", "every block of 64", "input a: int[n] attend blocks(64, same(«a»))"),
    ("block-input", "read for every token", "input a: bool[(n + 63) / 64] attend from(«a»)"),
    ("float-value", "floats weigh edges", "input a: float[n] attend where «a[q]» > 0"),
    ("float-value", "floats cannot say", "attend where q < «2.5»"),
    ("type-mismatch", "float[n]", "input a: float[n] attend to(«a»)"),
    ("type-mismatch", "int[n]", "input a: bool[n] attend same(«a»)"),
    ("type-mismatch", "found a condition", "attend «q < k»"),
    ("type-mismatch", "found a set", "attend «first(3)»"),
    ("type-mismatch", "found a set", "input a: bool[n] attend where «a»"),
    ("type-mismatch", "expected a condition, found a number", "attend where «q - k»"),
    ("type-mismatch", "expected a condition, found a relation", "attend where «causal»"),
    ("type-mismatch", "expected a condition, found a relation", "attend «causal» and self"),
    ("type-mismatch", "expected a number, found a condition", "attend where q + «(q < k)» < 3"),
    ("type-mismatch", "expected a set of positions, found a number", "attend to(«3»)"),
    ("type-mismatch", "expected a set of positions, found a relation", "attend to(«causal»)"),
    ("type-mismatch", "`|` joins relations", "attend to(«first(1) | last(1)»)"),
    ("type-mismatch", "found a set", "attend causal | «last(1)»"),
    ("type-mismatch", "not added", "attend causal «+» self"),
    ("type-mismatch", "no negative", "attend «-causal»"),
    ("type-mismatch", "name of an input", "attend same(«3»)"),
    ("huge-integer", "does not fit", "attend window(«2147483648»)"),
    ("huge-integer", "does not fit", "attend window(«1000000 * 1000000»)"),
    ("huge-float", "does not fit", "attend all score s * «1e39»"),
    ("inexact-division", "5 / 2", "attend window(«5 / 2»)"),
    ("division-by-zero", "`%` by zero", "attend where q % «0» == 1"),
    ("variable-divisor", "only constants divide", "attend where q / «k» == 1"),
    ("not-callable", "`a` is an input", "input a: bool[n] attend to(«a»(3))"),
    ("unknown-argument", "no argument `righ`", "attend window(3, «righ»=2)"),
    ("repeated-argument", "`left` is given twice", "attend window(3, «left=2»)"),
    ("argument-order", "after one with a name", "attend window(left=3, «2»)"),
    ("missing-argument", "needs its argument `left`", "attend «window()»"),
    ("missing-argument", "needs its argument `seed`", "attend «random(3)»"),
    ("missing-argument", "needs its arguments", "attend «window»"),
    ("too-many-arguments", "takes 2 arguments", "attend chunk(3, q, «4»)"),
    ("too-many-arguments", "takes no arguments", "attend «causal()»"),
    ("bad-argument", "`size` of `chunk` must be at least 1", "attend chunk(«0»)"),
    ("bad-argument", "`right` of `window`", "attend window(3, «-1»)"),
    ("bad-argument", "`dilation` of `window`", "attend window(3, dilation=«0»)"),
    ("bad-argument", "`count` of `random`", "attend random(«0», 1)"),
    ("bad-argument", "less than its step 4", "attend to(«every(4, 4)»)"),
    ("bad-argument", "positions count from 0", "attend to(«{3, -1}»)"),
    ("bad-argument", "empty list", "attend to(«{}»)"),
    ("bad-argument", "powers of two", "attend offsets(«powers(3)»)"),
    ("bad-argument", "list of integers", "attend offsets(«first(3)»)"),
    ("not-constant", "depends on `n`", "attend window(«n / 2»)"),
    ("not-constant", "depends on an input", "input a: int[4] attend window(«a[0]»)"),
    ("misplaced-count", "only in the bound", "input a: bool[n] attend where «count(a)» > 3"),
    ("no-grid", "no grid", "attend window(3, axis=«y»)"),
    ("no-grid", "no grid", "attend where q.«x» == 0"),
    ("unknown-axis", "`y` and `x`", "grid(y: 4, x: 4) attend window(3, axis=«z»)"),
    ("bad-grid", "not 1", "«grid(x: 4)» attend causal"),
    ("bad-grid", "not 1", "«grid(x: 4)» attend window(1, axis=x) | chunk(2, y) | where q.y == k.x"),
    ("bad-argument", "size of axis `y`", "grid(y: «0», x: 3) attend chunk(2, x) | where q.y == k.y"),
    ("not-constant", "size of axis `x`", "grid(y: 3, x: «n») heads rest { attend chunk(2, axis=x) }"),
    ("reserved-name", "`_a`", "grid(y: 3, «_a»: 4) attend where q.y == k.x"),
    ("no-grid", "before the grid is declared", "attend window(3, axis=«y») grid(y: 4, x: 4)"),
    ("duplicate-grid", "one grid", "grid(y: 4, x: 4) «grid(y: 4, x: 4)» attend causal"),
    ("duplicate-name", "two axes", "grid(y: 4, «y»: 4) attend causal"),
    ("bad-argument", "size of axis `x`", "grid(y: 4, x: «0») attend causal"),
    ("several-attends", "more than one", "attend causal «attend self»"),
    ("attend-and-heads", "beside `heads`", "«attend causal» heads rest { attend self }"),
    ("no-attend", "attend to nothing", "«heads rest { let a = causal }»"),
    ("misplaced-item", "inside `heads`", "heads rest { «input a: bool[n]» attend self }"),
    ("bad-heads", "`evn`", "heads «evn» { attend self }"),
    ("bad-heads", "in braces", "heads «3» { attend self }"),
    ("bad-heads", "no head", "heads «3..3» { attend self }"),
    ("bad-heads", "`H` and parameters", "heads 0..«n» { attend self }"),
    ("heads-overlap", "head 2 has two bodies", "heads 1..5 { attend self } heads «even» { attend none }"),
    ("heads-overlap", "twice", "heads rest { attend self } heads «rest» { attend all }"),
    ("heads-missing", "head 0 has no body when there is 1 head", "«heads odd { attend self }»"),
    ("unknown-claim", "`casual`", "attend all require «casual»"),
    ("missing-bound", "`edges` needs", "attend all «require edges»"),
    ("needless-bound", "no bound", "attend all require causal <= «3»"),
    ("bad-bound", "`q`", "attend all require edges <= «n * q»"),
    ("bad-bound", "`d`", "attend all require edges <= «n * d»"),
    ("bad-bound", "no `%`", "attend all require edges <= «n % 3»"),
    ("bad-bound", "entry of an input", "input a: int[4] attend all require edges <= «a[0]»"),
    ("not-constant", "depends on `n`", "attend all require reach <= «n»"),
    ("bad-argument", "number of layers", "attend all require reach <= «0»"),
]


@pytest.mark.parametrize(("code", "message", "text"), MISTAKES)
def test_mistakes_are_named_and_placed(code, message, text):
    text = f"pattern f() {{\n  {text}\n}}"
    start = text.index("«")
    end = text.index("»") - 1
    (found,) = errors(text.replace("«", "").replace("»", ""))
    assert found.code == code, str(found)
    assert (found.span.start, found.span.end) == (start, end)
    assert message in found.message


def test_all_mistakes_are_reported_at_once_in_order():
    found = errors(
        "pattern f(a: int) {\n let b = windw(3)\n attend b | chunk(0) | to(frst(1)) & window(2, x=1)\n"
        " require edges <= m\n}\npattern g() { attend nil }"
    )
    assert [d.code for d in found] == [
        "unbound-parameter",
        "unknown-name",
        "bad-argument",
        "unknown-name",
        "unknown-argument",
        "unknown-name",
        "unknown-name",
    ]
    assert [d.span.start for d in found] == sorted(d.span.start for d in found)


def test_near_misses_are_suggested():
    for text, help in (
        ("attend causl", "did you mean `causal`?"),
        ("attend windwo(3)", "did you mean `window`?"),
        ("attend window(3, dilatoin=2)", "did you mean `dilation`?"),
        ("input is_global: bool[n] attend to(is_globl)", "did you mean `is_global`?"),
        ("attend all require nonemtpy", "did you mean `nonempty`?"),
        ("heads evn { attend all }", "did you mean `even`?"),
    ):
        found = errors(f"pattern f() {{ {text} }}")
        assert help in [d.help for d in found]


def test_unused_names_are_warned_about():
    text = (
        "pattern f(a: int = 1, b: int = a) { input x: bool[n] let y = 3 heads rest { let z = 1 attend all } }"
    )
    warnings = resolve(parse(Source("t", text))).warnings
    assert {w.code for w in warnings} == {"unused-name"}
    assert [w.message.split("`")[-2] for w in warnings] == ["b", "x", "y", "z"]


def test_names_of_relations_may_name_parameters():
    found = pattern("pattern f(window: int = 2, first: int = 1) { attend window(window) | to(first(first)) }")
    assert np.array_equal(mask(found, 6), expected(6, lambda q, k: 0 <= q - k <= 2 or k < 1))


# --- docstrings -----------------------------------------------------------------------------------------


def test_inputs_of_a_body_must_be_those_of_the_signature():
    def run(text: str, listed: tuple[str, ...]):
        return resolve(parse_body(Source("<docstring of f>", text), "f", (("w", "int", 3),), listed))

    good = run("input a: bool[n] attend window(w) | to(a)", ("a",))
    assert good.patterns[0].params == (Param("w", 3),)
    for text, listed, code in (
        ("attend window(w)", ("a",), "undeclared-input"),
        ("input a: bool[n] attend window(w) | to(a)", (), "unlisted-input"),
    ):
        with pytest.raises(AttncError) as caught:
            run(text, listed)
        assert [d.code for d in caught.value.diagnostics] == [code]


# --- size -----------------------------------------------------------------------------------------------


def test_long_unions_resolve():
    relation = body("attend " + " | ".join(f"window({i})" for i in range(3000))).bodies[0].relation
    assert isinstance(relation, Union) and len(relation.args) == 3000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("attend " + "!(self | all & " * 190 + "all" + ")" * 190, "too-deep"),
        ("attend where " + "abs(q % 7 * " * 190 + "1" + ")" * 190 + " < 3", "too-deep"),
        ("attend where " + " * ".join(["q"] * 100) + " < 3", "too-deep"),
        (
            "let a0 = causal " + " ".join(f"let a{i + 1} = !a{i}" for i in range(300)) + " attend a300",
            "too-deep",
        ),
        (
            "let a0 = self " + " ".join(f"let a{i + 1} = a{i} | a{i}" for i in range(40)) + " attend a40",
            "too-large",
        ),
        (
            "let a0 = q " + " ".join(f"let a{i + 1} = a{i} * a{i}" for i in range(40)) + " attend all",
            "too-large",
        ),
    ],
)
@pytest.mark.parametrize("limit", [None, 2000])
def test_patterns_beyond_what_can_be_walked_are_refused(text, code, limit):
    """However deep others in the process have allowed Python to recurse."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit or before)
    try:
        found = [error.code for error in errors(f"pattern f() {{ {text} }}")]
        # What is both too deep and too large is one of them, whichever is met first.
        assert code in found or (limit and "too-large" in found)
    finally:
        sys.setrecursionlimit(before)


# --- text -----------------------------------------------------------------------------------------------


def test_describe():
    found = pattern(
        "pattern f(w: int = 4, s: bool = true, x: float = 0.5) { input g: bool[n] grid(y: w, x: 2)\n"
        "heads even { attend window(w) - to(g) | !causal & self } heads rest { attend where s }\n"
        "assume causal require edges <= n * w }"
    )
    assert describe(found).splitlines() == [
        "pattern f",
        "  parameter w = 4",
        "  parameter s = true",
        "  parameter x = 0.5",
        "  input g: bool[n]",
        "  grid y: 4, x: 2",
        "  heads even where h % 2 == 0",
        "    union",
        "      difference",
        "        window(w): k <= q and q <= w + k",
        "        to(g): g[k]",
        "      intersection",
        "        complement",
        "          causal: k <= q",
        "        self: q == k",
        "  heads rest where h % 2 != 0",
        "    where s: true",
        "  assume causal",
        "  require edges <= w * n",
    ]


# --- arbitrary patterns ---------------------------------------------------------------------------------

ARITHMETIC = st.recursive(
    st.sampled_from(["q", "k", "n", "h", "H", "w", "0", "3", "x[q]", "g[k]", "q.y", "2.5", "gap"]),
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(["+", "-", "*", "/", "//", "%", "==", "<", "!=", "and", "or", "|", "&"]),
            inner,
        ).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"abs({text})"),
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"-{text}"),
    ),
    max_leaves=6,
)
CALLS = st.tuples(
    st.sampled_from(
        [
            "window",
            "chunk",
            "stride",
            "to",
            "from",
            "offsets",
            "same",
            "random",
            "blocks",
            "first",
            "every",
            "powers",
            "count",
        ]
    ),
    st.lists(
        st.one_of(ARITHMETIC, st.sampled_from(["first(2)", "{0, 3}", "causal", "axis=y", "g"])), max_size=3
    ),
).map(lambda call: f"{call[0]}({', '.join(call[1])})")
RELATIONS = st.lists(
    st.one_of(
        CALLS, ARITHMETIC.map(lambda text: f"where {text}"), st.sampled_from(["causal", "!all", "gap"])
    ),
    min_size=1,
    max_size=4,
).flatmap(lambda parts: st.sampled_from(["|", "&", "-", "+"]).map(lambda op: f" {op} ".join(parts)))


@settings(max_examples=300, deadline=None)
@given(RELATIONS, st.sampled_from(["", "grid(y: 4, x: 4)", "let gap = q - k", "let gap = self"]))
def test_any_pattern_is_resolved_or_refused(relation, item):
    text = f"pattern f(w: int = 4) {{ input x: int[n] input g: bool[n] {item} attend {relation} }}"
    try:
        found = pattern(text)
    except AttncError as error:
        assert error.diagnostics and str(error)
    else:
        assert describe(found)
        tables = {part.table for part in walk(formula(found.bodies[0].relation)) if isinstance(part, Lookup)}
        assert tables <= {"x", "g"}

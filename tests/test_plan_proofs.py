"""Plans are proven, damaged plans are not, and both agree with walking through every pair."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from attnc import plan_proofs, planner, rule_proofs, solver
from attnc.codegen.module import _sections as module_parts
from attnc.codegen.tile_tables import tables_text
from attnc.decompose import decompose
from attnc.diagnostics import Source
from attnc.digits import Digits, sized
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    FALSE,
    TRUE,
    Const,
    Drawn,
    Expr,
    K,
    PowerOfTwo,
    Q,
    Var,
    add,
    fold,
    mentioned,
    neg,
    negate,
    walk,
)
from attnc.parser import parse
from attnc.pattern import Pattern
from attnc.plan_proofs import failures, verify
from attnc.planner import masked_plan, plan
from attnc.resolver import resolve
from attnc.rule_proofs import loop_is_a_partition, split_points
from attnc.schedule import BodyPlan, Pass, Scatter, Sweep, Walk
from attnc.solver import Answer
from tests import enumeration, oracle
from tests.strategies import cases
from tests.test_examples_claims import SMALL

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.attn"))


def patterns(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pattern of a file: as it stands, and with small parameters."""
    for tree in parse(Source(path.name, path.read_text(encoding="utf-8"))).patterns:
        yield tree.name.text, {}
        if tree.name.text in SMALL:
            yield tree.name.text, SMALL[tree.name.text]


NAMED = [(path, name, params) for path in EXAMPLES for name, params in patterns(path)]


def bodies(text: str) -> tuple[BodyPlan, ...]:
    """The plans of a pattern's bodies, before anything is proven of them."""
    pattern = resolve(parse(Source("p.attn", text))).patterns[0]
    return plan(pattern, decompose(pattern)).bodies


def small_bodies(text: str) -> tuple[BodyPlan, ...]:
    """The same, weighed as if tiles were of a few positions and passes cheap: what large patterns get."""
    with oracle.weighed_small():
        return bodies(text)


# --- what is proven -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "params"), NAMED, ids=[f"{name}{'-small' * bool(params)}" for _, name, params in NAMED]
)
def test_the_plan_of_every_example_is_proven(path: Path, name: str, params: dict[str, Any]) -> None:
    done = oracle.planned(path.read_text(encoding="utf-8"), params, name)
    assert done.schedule.reports == ()
    for item in done.schedule.bodies:
        assert failures(item) == []


@pytest.mark.parametrize(
    ("path", "name", "params"),
    [found for found in NAMED if found[2] or found[1] not in SMALL],
    ids=[name for _, name, params in NAMED if params or name not in SMALL],
)
def test_the_plan_of_every_example_visits_every_edge_once(
    path: Path, name: str, params: dict[str, Any]
) -> None:
    for item in oracle.planned(path.read_text(encoding="utf-8"), params, name).schedule.bodies:
        for n, tile in ((1, 4), (17, 4), (40, 16)):
            tables = enumeration.example_tables([enumeration.relation(item)], n, 2, seed=n)
            assert enumeration.wrong(item, n, tile, 2, tables) == []


@pytest.mark.parametrize("shard", range(4))
def test_plans_of_random_patterns_visit_every_edge_once(shard: int) -> None:
    @seed(100 + shard)
    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(), st.integers(1, 45), st.sampled_from((1, 4, 7, 16)), st.integers(0, 99))
    def run(case: Any, n: int, tile: int, number: int) -> None:
        for item in oracle.planned(case.text, small=case.weighed_small).schedule.bodies:
            tables = enumeration.example_tables([enumeration.relation(item)], n, case.call.heads, number)
            assert enumeration.wrong(item, n, tile, case.call.heads, tables) == [], case.text

    run()


# --- what is not ----------------------------------------------------------------------------------------

DAMAGED = {
    "window": "attend window(5, 2)",
    "causal": "attend causal",
    "chunk": "attend chunk(6) & causal",
    "stride": "attend stride(4) & causal",
    "dilated": "attend window(3, 1, dilation=3)",
    "sinks": "attend (to(first(3)) | window(4)) & causal",
    "hubs": "input hub: bool[n] attend window(3, 3) | to(hub) | from(hub)",
    "documents": "input doc: int[n] attend same(doc) & causal",
    "summary": "attend (chunk(6) | to(every(6, 5))) & causal",
    "blocks": "attend blocks(4, window(1, 1) | to(first(1)) | from(last(1)))",
    "grid": "grid(y: 5, x: 4) attend window(1, 1, axis=y) & window(1, 1, axis=x)",
    "cross": "grid(y: 5, x: 6) attend chunk(1, axis=y) | chunk(1, axis=x)",
    "cube": "grid(z: 3, y: 3, x: 4) attend window(1, 1, axis=z) & window(1, axis=y) & window(1, 1, axis=x)",
    "tail": "attend (chunk(6) | where k % 6 >= 4) & causal",
    "sparse": "attend (window(3) | stride(5)) & causal",
    "shifted": "attend where (q - k) % 5 == 2 and abs(q - k) <= 16",
    "powers": "attend (window(3) | offsets(powers(2))) & causal",
    "squares": "grid(y: 6, x: 6) attend chunk(3, axis=y) & chunk(3, axis=x)",
    "columns": "grid(y: 5, x: 8) attend window(1, 1, axis=y) & window(1, 1, dilation=2, axis=x)",
    "remainders": "attend where (q - k) % 4 == 1 and (q - k) % 6 == 3",
    "scattered": "attend where k == (q * 7) % 31",
}


def moved(sweep: Sweep) -> Iterator[tuple[str, Sweep]]:
    if sweep.drawn is None:
        for i in range(len(sweep.low)):
            for by in (-1, 1):
                low = (*sweep.low[:i], add(sweep.low[i], by), *sweep.low[i + 1 :])
                high = (*sweep.high[:i], add(sweep.high[i], by), *sweep.high[i + 1 :])
                yield f"low {by:+}", replace(sweep, low=low)
                yield f"high {by:+}", replace(sweep, high=high)
    if sweep.full_when != FALSE:
        for by in (-1, 1):
            yield f"full_low {by:+}", replace(sweep, full_low=add(sweep.full_low, by))
            yield f"full_high {by:+}", replace(sweep, full_high=add(sweep.full_high, by))
        yield "always full", replace(sweep, full_when=TRUE)
    if sweep.scatter is not None and sweep.scatter.at is not None:
        for by in (-1, 1):
            at = add(sweep.scatter.at, by)
            yield f"elsewhere {by:+}", replace(sweep, scatter=replace(sweep.scatter, at=at))
    yield "no mask", replace(sweep, mask=TRUE)
    yield "never", replace(sweep, when=FALSE)


def damaged(part: Pass) -> Iterator[tuple[str, Pass]]:
    for i, sweep in enumerate(part.sweeps):
        before, after = part.sweeps[:i], part.sweeps[i + 1 :]
        yield f"sweep {i} dropped", replace(part, sweeps=(*before, *after))
        yield f"sweep {i} twice", replace(part, sweeps=(*before, sweep, sweep, *after))
        for what, other in moved(sweep):
            yield f"sweep {i}, {what}", replace(part, sweeps=(*before, other, *after))
    if part.side == "query":
        for what, owned in (("nobody", FALSE), ("everybody", TRUE), ("the others", negate(part.owned))):
            if owned != part.owned:
                yield f"owned by {what}", replace(part, owned=owned)


def damages(item: BodyPlan) -> Iterator[tuple[str, BodyPlan]]:
    side: Literal["query", "key"]
    for side in ("query", "key"):
        passes: tuple[Pass, ...] = getattr(item, side)
        for i, part in enumerate(passes):
            for what, other in damaged(part):
                yield (
                    f"{side} pass {i}: {what}",
                    replace(item, **{side: (*passes[:i], other, *passes[i + 1 :])}),
                )


def matters(item: BodyPlan) -> bool:
    """Whether walking through pairs shows the damage."""
    told = [enumeration.relation(item), *(factor.relation() for factor in item.factors if factor is not None)]
    for n, tile, number in ((23, 4, 0), (24, 5, 1), (9, 4, 2), (40, 16, 3), (40, 1, 4)):
        tables = enumeration.example_tables(told, n, 1, number)
        if enumeration.wrong(item, n, tile, 1, tables):
            return True
    return False


@pytest.mark.parametrize("name", DAMAGED)
def test_no_damage_that_matters_is_proven(name: str) -> None:
    (item,) = small_bodies(f"pattern p() {{ {DAMAGED[name]} }}")
    assert failures(item) == [] and not matters(item)
    seen = set()
    for what, other in damages(item):
        kind = (what.split()[0], what.split(", ")[-1].split()[0])
        if not failures(other):
            assert not matters(other), what
        elif kind not in seen and matters(other):  # else nothing is to be learned of it
            seen.add(kind)
    for side in ("query", "key"):
        assert {(side, "low"), (side, "high")} <= seen or (side, "elsewhere") in seen
    assert any("dropped" in what for what, other in damages(item) if matters(other))


@pytest.mark.parametrize(
    "text",
    [
        "kernel relu(x) attend causal",
        "kernel relu(x) attend all",
        "kernel relu(x) attend causal - window(3)",
        "input doc: int[n] kernel relu(x) attend causal & same(doc)",
        "kernel relu(x) attend causal & chunk(6)",
        "attend window(4) with softmax attend causal - window(4) with kernel relu(x)",
    ],
)
def test_no_damage_to_what_states_sum_up_is_proven(text: str) -> None:
    (item,) = small_bodies(f"pattern p() {{ {text} }}")
    assert failures(item) == [] and not matters(item)
    (factor,) = (found for found in item.factors if found is not None)
    others = [
        replace(factor, causal=not factor.causal, near=0),
        replace(factor, causal=True, near=factor.near + 1),
        replace(factor, causal=True, chunk=7),
        replace(factor, causal=True, same=("x",)),
        *([replace(factor, same=(), chunk=0)] if factor.segmented else []),
    ]
    for other in others:
        damage = replace(item, factors=tuple(found and other for found in item.factors))
        assert matters(damage), other
        assert "the states sum up what are not the edges of their part" in failures(damage), other
    if item.whole is not None:
        first, *more = item.query
        again = replace(item, query=(replace(first, continues=False), *more))
        assert "some query has two passes" in failures(again)
        other_way = replace(item, body=replace(item.body, relation=item.whole.parts[factor.part].relation))
        assert "what is swept is not what the states leave" in failures(other_way)


def test_every_kind_of_damage_is_tried() -> None:
    """Each of these matters for a plain window, on either side."""
    (item,) = small_bodies("pattern p() { attend window(5, 2) }")
    serious = {what for what, other in damages(item) if matters(other)}
    for side in ("query", "key"):
        for what in ("dropped", "twice", "low +1", "high -1", "full_low -1", "full_high +1", "no mask"):
            assert any(found.startswith(side) and what in found for found in serious), (side, what)
    assert "query pass 0: owned by nobody" in serious


def test_a_query_with_two_passes_or_none_is_found() -> None:
    (item,) = bodies("pattern p() { input hub: bool[n] attend window(2, 2) | from(hub) }")
    first, second = item.query
    twice = replace(item, query=(replace(first, owned=TRUE), second))
    assert "some query has two passes" in failures(twice)
    assert "some query has no pass" in failures(replace(item, query=(first,)))


@pytest.mark.parametrize(
    "text",
    [
        "offsets(powers(2)) & causal",
        "offsets(powers(2)) & !window(9)",
        "where k == (q * 7) % 4096",
    ],
)
def test_positions_taken_one_by_one_are_those_that_are_meant(text: str) -> None:
    """Where they are is another expression than the condition that they meet, and proven to be the same."""
    (item,) = bodies(f"pattern p() {{ attend {text} }}")
    assert failures(item) == []
    tried = 0
    for side in ("query", "key"):
        passes: tuple[Pass, ...] = getattr(item, side)
        for i, part in enumerate(passes):
            for j, sweep in enumerate(part.sweeps):
                if sweep.scatter is None or sweep.scatter.at is None:
                    continue
                tried += 1
                for at in (add(sweep.scatter.at, 1), add(sweep.scatter.at, sweep.scatter.at)):
                    elsewhere = replace(sweep, scatter=replace(sweep.scatter, at=at))
                    other = replace(part, sweeps=(*part.sweeps[:j], elsewhere, *part.sweeps[j + 1 :]))
                    damage = replace(item, **{side: (*passes[:i], other, *passes[i + 1 :])})
                    assert any("takes other positions" in found for found in failures(damage))
    assert tried


@pytest.mark.parametrize("name", ["natten_1d", "natten_2d", "natten_3d"])
def test_few_questions_about_clamped_windows_are_left_to_the_solver(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What digits say is seen by division with remainder; each question takes milliseconds."""
    asked: list[Expr] = []

    class Counted(solver.Question):
        def __init__(self, condition: Expr, work: int = solver.WORK) -> None:
            asked.append(condition)
            super().__init__(condition, work)

    text = (EXAMPLES[0].parent / f"{name}.attn").read_text(encoding="utf-8")
    solver.least.cache_clear()  # type: ignore[attr-defined]
    monkeypatch.setattr(solver, "Question", Counted)
    assert oracle.planned(text, {}, name).schedule.reports == ()
    assert 0 < len(asked) <= 11


def test_a_draw_taken_one_by_one_is_the_one_that_is_meant() -> None:
    (item,) = bodies("pattern p() { attend random(9, seed=0) & random(4, seed=1) }")
    assert failures(item) == []
    (part,) = item.query
    (sweep,) = part.sweeps
    assert sweep.scatter is not None and sweep.scatter.at is None
    (other,) = {found for found in walk(sweep.claim) if isinstance(found, Drawn)} - {sweep.drawn}
    assert isinstance(other, Drawn)
    damage = replace(item, query=(replace(part, sweeps=(replace(sweep, drawn=other),)),))
    assert any("takes other positions" in found for found in failures(damage))


def test_shifts_reach_every_power_that_a_pair_can_have() -> None:
    """Shifts end below n; a condition on more than a distance in the sequence is not taken one by one."""
    (item,) = bodies("pattern p() { attend offsets(powers(2)) & causal }")
    (part,) = item.query
    (sweep,) = part.sweeps
    assert sweep.scatter is not None and sweep.scatter.at is not None
    far = Scatter(PowerOfTwo(add(Q, neg(K), 100)), add(sweep.scatter.at, 100))
    damage = replace(item, query=(replace(part, sweeps=(replace(sweep, scatter=far),)),))
    assert any("takes other positions" in found for found in failures(damage))


# Residues and chunks of rows and frames that are no multiple of them.
UNEVEN = {
    "rows": "grid(y: 9, x: 11) attend neighborhood(3, 2, axis=y) & neighborhood(2, 3, axis=x)",
    "frames": "grid(t: 3, y: 5, x: 4) "
    "attend neighborhood(2, 2, axis=t) & neighborhood(2, 3, axis=y) & neighborhood(2, 2, axis=x)",
    "causal rows": "grid(y: 8, x: 7) attend window(2, dilation=3, axis=y) & neighborhood(2, 3, axis=x)",
}


@pytest.mark.parametrize("name", UNEVEN)
def test_plans_in_uneven_digits_are_proven_and_visit_every_edge_once(name: str) -> None:
    (item,) = small_bodies(f"pattern p() {{ {UNEVEN[name]} }}")
    assert failures(item) == []
    for part in (*item.query, *item.key):
        assert part.walk.radix.limits(part.walk.var) or any(s.walk.radix.limits(K) for s in part.sweeps)
    for n, tile in ((1, 4), (50, 8), (77, 16)):
        assert enumeration.wrong(item, n, tile, 1, {}) == []
        for part in (*item.query, *item.key):
            assert enumeration.strays(part, n, tile) == 0


@pytest.mark.parametrize("name", UNEVEN)
def test_digits_that_are_no_position_are_not_visited(name: str) -> None:
    """The first digit of those that are limited together ends where its own values do."""
    (item,) = small_bodies(f"pattern p() {{ {UNEVEN[name]} }}")
    found = 0
    for part in item.query:
        for sweep in part.sweeps:
            for limit in sweep.walk.radix.limits(sweep.walk.var):
                place, *_ = (i for i, digit in enumerate(sweep.walk.digits) if digit in mentioned(limit))
                high = [*sweep.high]
                high[place] = Const(sweep.walk.radix.sizes[place - 1] - 1)
                loose = replace(part, sweeps=(replace(sweep, high=tuple(high)),))
                assert enumeration.strays(loose, 77, 16)
                assert any(
                    "leaves the sequence" in reason for reason in failures(replace(item, query=(loose,)))
                )
                found += 1
    assert found


def test_an_unproven_plan_is_replaced() -> None:
    """A damaged plan comes back as one that is right and says what was lost; never as it was."""
    with oracle.weighed_small():  # with large tiles so short a window is masked everywhere
        pattern, schedule = _planned("attend window(5, 2)")
    (item,) = schedule.bodies
    (part,) = item.query
    loose = replace(part, sweeps=(replace(part.sweeps[0], full_high=add(part.sweeps[0].full_high, 1)),))
    mended = verify(pattern, replace(schedule, bodies=(replace(item, query=(loose,)),)))
    assert mended.reports and "masked instead" in mended.reports[0]
    assert failures(mended.bodies[0]) == [] and not matters(mended.bodies[0])
    gone = verify(pattern, replace(schedule, bodies=(replace(item, query=(replace(part, sweeps=()),)),)))
    assert "all tiles are visited" in gone.reports[0]
    assert gone.bodies[0] == masked_plan(item.body) and not matters(gone.bodies[0])


def test_what_is_wrongly_told_in_digits_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewriting that drops every condition: each is held against its original, and asked as it stands."""
    (item,) = small_bodies(f"pattern p() {{ {DAMAGED['stride']} }}")
    (part,) = item.query
    loose = replace(part, sweeps=(replace(part.sweeps[0], mask=TRUE),))
    monkeypatch.setattr(Digits, "__call__", lambda *_: TRUE)
    assert part.walk.radix.sizes and failures(item) == []
    assert failures(replace(item, query=(loose,)))


def test_a_side_without_digits_is_told_in_the_others() -> None:
    """Layers of a grid with an order: quotients of a plain query that the solver alone does not join."""
    text = "pattern p() { grid(z: 2, y: 7, x: 6) attend chunk(4, axis=z) & chunk(1, axis=y) & causal }"
    pattern = resolve(parse(Source("p.attn", text))).patterns[0]
    (own,) = decompose(pattern)
    (term,) = own.terms
    frame = Pass("query", Walk(Q), (), TRUE, ())
    sweep = planner._sweep(frame, term, sized(7, 6))
    item = replace(plan(pattern, [own]).bodies[0], query=(replace(frame, sweeps=(sweep,)),))
    assert failures(item) == []
    late = replace(sweep, low=(add(sweep.low[0], 1), *sweep.low[1:]))
    for other in (replace(sweep, mask=TRUE), late):
        assert failures(replace(item, query=(replace(frame, sweeps=(other,)),)))


def test_an_undecided_question_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, schedule = _planned("attend window(5, 2)")
    monkeypatch.setattr(plan_proofs, "valid", lambda *_: Answer("undecided", reason="no time"))
    assert any("undecided (no time)" in found for found in failures(schedule.bodies[0]))
    assert verify(pattern, schedule).bodies[0] == masked_plan(schedule.bodies[0].body)


def _planned(text: str) -> tuple[Pattern, Any]:
    """A plan weighed as if tiles were small, so that a narrow window has some that need no mask."""
    pattern = resolve(parse(Source("p.attn", f"pattern p() {{ {text} }}"))).patterns[0]
    with oracle.weighed_small():
        return pattern, plan(pattern, decompose(pattern))


# --- the loop -------------------------------------------------------------------------------------------


def blocks_in_use() -> list[int]:
    """Every tile size of the emitted tables."""
    space: dict[str, Any] = {}
    exec(tables_text(), space)
    tables = [table for name, table in space.items() if name.endswith("_TILES") and "wide" in table]
    rows = [
        row for table in tables for kinds in table.values() for levels in kinds.values() for row in levels
    ]
    return sorted({size for row in rows for size in row[:2]})


@pytest.mark.parametrize("block", blocks_in_use())
def test_the_loop_is_a_partition(block: int) -> None:
    assert loop_is_a_partition(block).outcome == "proven"


def test_a_wrong_loop_is_no_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    right = split_points

    def late(*args: Any) -> tuple[Expr, Expr]:
        first, middle = right(*args)
        return first, add(middle, 1)

    monkeypatch.setattr(rule_proofs, "split_points", late)
    assert loop_is_a_partition(16).outcome == "refuted"


def emitted_parts() -> Any:
    """``_parts`` of the emitted modules as a function on Python's integers."""
    tree = ast.parse(module_parts("tiles")[""])
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_parts"]
    found.decorator_list, found.args.args[-1].annotation = [], None

    class Language:
        minimum, maximum = staticmethod(min), staticmethod(max)

    space: dict[str, Any] = {"tl": Language}
    exec(compile(ast.unparse(ast.Module([found], [])), "_parts", "exec"), space)
    return space["_parts"]


@settings(max_examples=300, deadline=None)
@given(*[st.integers(-40, 200)] * 4, st.sampled_from((16, 32, 64, 128)))
def test_the_emitted_loop_is_the_one_that_is_proven(
    begin: int, end: int, full_begin: int, full_end: int, block: int
) -> None:
    leading, middle, stop, trailing = emitted_parts()(begin, end, full_begin, full_end, block)
    names = [Var(name) for name in ("begin", "end", "full_begin", "full_end")]
    values = Env(dict(zip((v.name for v in names), (begin, end, full_begin, full_end), strict=True)))
    masked_end, full_stop = (int(evaluate(fold(e), values)) for e in split_points(*names, block))
    assert (middle, max(middle, stop)) == (masked_end, full_stop)
    assert leading == -(-(masked_end - begin) // block)
    assert trailing == -(-max(end - full_stop, 0) // block)
    # What the loop of an emitted kernel visits, place by place.
    masked = [begin + i * block for i in range(leading)] + [stop + i * block for i in range(trailing)]
    full = list(range(middle, stop, block))
    inside = [x for start in masked for x in range(start, start + block) if x < end]
    seen = inside + [x for start in full for x in range(start, start + block)]
    assert sorted(set(seen)) == sorted(seen)
    assert set(range(begin, end)) <= set(seen) and all(x < end for x in seen)
    assert all(full_begin <= x < full_end for start in full for x in range(start, start + block))

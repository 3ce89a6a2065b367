"""Scores and sinks on the torch path, against their definition in fp64; and that the comparison can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attnc import weighing
from tests import oracle, weighed
from tests.fuzzing import try_all
from tests.scoring import weighed_cases
from tests.strategies import Call, Case
from tests.test_oracle_torch import call, cut_small

EXAMPLES, SHARDS = 160, 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(case: Case) -> None:
    done = oracle.compiled(case.text, small=case.weighed_small)
    cut_small(done.module, case.call.seed)
    faults = oracle.check(done, case.call, "torch", torch.float32)
    if case.call.dtype != "float32":
        faults += oracle.check(done, case.call, "torch")
    if case.call.seed % 4 == 0:
        faults += oracle.check(done, case.call, "torch", torch.float64)
    assert not faults, f"{faults}\n{case.text}{case.call}"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_scores(shard: int) -> None:
    try_all(run, weighed_cases(), EXAMPLES, shard, SHARDS)


# --- patterns by name -----------------------------------------------------------------------------------

# What an edge weighs, beside each way of reading tables and of walking a relation.
PATTERNS = {
    "slopes": "attend causal score s - exp2(-8.0 * (h + 1) / H) * (q - k)",
    "cap": "attend window(20) score 5.0 * tanh(s / 5.0)",
    "sinks": "input sinks: float[H] attend window(12) sink sinks[h]",
    "sinks alone": "input sinks: float[H] attend window(5) & stride(2) - self sink 2.0 * sinks[h] - 1",
    "rows and columns": (
        "input a: float[H] input b: float[n] input c: float[H, n] attend causal | to(first(3)) "
        "score s * exp(b[q]) - a[h] * abs(q - k) + c[h, k] + c[h, q] * tanh(s)"
    ),
    "heads": (
        "input b: float[H] input c: float[n] heads even { attend causal score s + b[h] * c[k] } "
        "heads odd { attend stride(3) & causal } score s * 2.0 - b[h] sink b[h]"
    ),
    "one by one": "input b: float[n] attend offsets(powers(2)) score s * b[h % 2] + b[k] + b[q]",
    "buckets": "input b: float[H, 8] attend all score s + b[h, bucket(max(q - k, 0), 4, 8, 16)]",
    "distances": "input b: float[31] attend window(15, 15) score s + b[q - k + 15]",
    "held within": "input b: float[11] attend causal | to(first(2)) score s * b[q - k + 5] + tanh(b[q - k])",
    "square": "input b: float[n, n] attend causal score s + b[q, k]",
    "square by head": (
        "input b: float[H, n, n] input c: float[H, 5] attend window(9) "
        "score s * b[h, q, k] + c[h, min(q - k, 4)]"
    ),
    "grid": (
        "grid(y: 8, x: 5) input b: float[H, 49] attend window(3, 3, axis=y) & window(3, 3, axis=x) "
        "score s + b[h, (q.y - k.y + 3) * 7 + q.x - k.x + 3]"
    ),
    "numbers": (
        "input doc: int[n] input b: float[5, 5] attend same(doc) | window(3) "
        "score s + b[min(abs(doc[q]), 4), min(abs(doc[k]), 4)]"
    ),
    "no value outside": (
        "input b: float[n] attend causal & (stride(3) | window(4)) - self "
        "score s - log(q - k) + b[k] / (q - k) + log(1 + exp(b[q]) * (q - k))"
    ),
}


def compiled(name: str) -> oracle.Compiled:
    return oracle.compiled(f"pattern p() {{ {PATTERNS[name]} }}")


def small(**changes: Any) -> Call:
    return call(**{"n": 45, "n_q": 37, "dim": 16, "value_dim": 24, "heads": 4, "key_heads": 2, **changes})


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("batched", [False, True])
def test_patterns(name: str, batched: bool) -> None:
    done = compiled(name)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        given = small(batch=2, batched_inputs=batched, seed=len(name))
        assert oracle.check(done, given, "torch", dtype) == []


@pytest.mark.parametrize("name", PATTERNS)
def test_repeats_to_the_bit(name: str) -> None:
    done, given = compiled(name), small(batch=2)
    args, grads = oracle.tensors(given)
    tables = list(oracle.inputs(done.pattern, given).values())
    first, second = (oracle.ours(done.module, args, grads, tables, given, "torch") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", PATTERNS)
def test_operators_keep_their_contract(name: str) -> None:
    done, given = compiled(name), small(n=19, n_q=13)
    args, _ = oracle.tensors(given)
    tables = [x.detach() for x in oracle.inputs(done.pattern, given).values()]
    tables = [x.requires_grad_() if x.is_floating_point() else x for x in tables]
    rest = (*oracle.operands(done.module, args, tables), 0.25, "torch")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(done.module._forward, (*args, *rest), test_utils=tests)
    out, lse = (x.detach() for x in done.module._forward(*args, *rest))
    plain = [x.detach() for x in args]
    given_back = (torch.ones_like(out), torch.ones_like(lse), *plain, [x.detach() for x in rest[0]], out, lse)
    torch.library.opcheck(
        done.module._backward, (*given_back, *rest[1:]), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize("name", ["slopes", "sinks", "heads", "buckets", "square by head", "numbers"])
def test_compiles_as_one_graph(name: str) -> None:
    torch._dynamo.reset()
    done = compiled(name)
    fast = torch.compile(done.module.p, fullgraph=True, backend="aot_eager")
    for n in (37, 52):
        given = small(n=n, n_q=n)
        args, _ = oracle.tensors(given)
        tables = oracle.inputs(done.pattern, given)
        wanted = (*args, *weighed.leaves(tables).values())
        results = []
        for function in (done.module.p, fast):
            out = function(*args, **tables)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), wanted)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    "name", ["slopes", "sinks", "rows and columns", "buckets", "grid", "no value outside"]
)
def test_fp64_gradients_are_those_of_the_function(name: str) -> None:
    done, given = compiled(name), small(n=9, n_q=7)
    args, _ = oracle.tensors(given, torch.float64)
    tables = {
        key: x.detach().double().requires_grad_() if x.is_floating_point() else x
        for key, x in oracle.inputs(done.pattern, given).items()
    }
    args = tuple(x[..., :3].detach().requires_grad_() for x in args)
    names = list(weighed.leaves(tables))

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *floats: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = done.module.p(q, k, v, **{**tables, **dict(zip(names, floats, strict=True))})
        return found

    assert torch.autograd.gradcheck(function, (*args, *(tables[name] for name in names)))


@pytest.mark.parametrize("name", ["slopes", "rows and columns", "square", "no value outside"])
def test_what_comes_later_changes_nothing(name: str) -> None:
    """Of a causal pattern, to the bit: neither outputs before it, nor does it get a gradient of them."""
    text = f"pattern p() {{ {PATTERNS[name]} require causal }}".replace("causal | to(first(3))", "causal")
    done, given = oracle.compiled(text), small(n=40, n_q=40)
    args, _ = oracle.tensors(given)
    tables = {key: x.detach().requires_grad_() for key, x in oracle.inputs(done.pattern, given).items()}
    before = done.module.p(*args, **tables)[:, :, :25]
    wanted = (*args[1:], *tables.values())
    found = torch.autograd.grad(before.sum(), wanted)
    other, others = oracle.tensors(replace(given, seed=1))[0], {}
    for x, y in zip(args, other, strict=True):
        y.data[:, :, :25] = x.data[:, :, :25]
    for key, x in tables.items():
        # By key where an axis is one of keys; by query and key in a square.
        others[key] = x.detach().clone()
        if x.shape[-1] == 40:
            others[key][..., 25:] += 1.0
    assert torch.equal(before, done.module.p(*other, **others)[:, :, :25])
    for x in found:
        axis = [size for size in x.shape].index(40) if 40 in x.shape else None
        if axis is not None and name != "rows and columns":
            assert x.narrow(axis, 25, 15).abs().max() == 0


def test_tables_without_gradients() -> None:
    done, given = compiled("rows and columns"), small(n=21, n_q=21)
    args, _ = oracle.tensors(given)
    tables = {name: x.detach() for name, x in oracle.inputs(done.pattern, given).items()}
    tables["c"].requires_grad_()
    done.module.p(*args, **tables).sum().backward()
    assert tables["a"].grad is None and tables["b"].grad is None
    assert tables["c"].grad is not None and tables["c"].grad.abs().sum() > 0
    with torch.no_grad():
        assert not done.module.p(*args, **tables).requires_grad


def test_rows_without_edges_have_their_sinks() -> None:
    done, given = compiled("sinks alone"), small(n=12, n_q=12)
    args, grads = oracle.tensors(given)
    tables = oracle.inputs(done.pattern, given)
    out, lse, *_ = oracle.ours(done.module, args, grads, list(tables.values()), given, "torch")
    sinks = 2.0 * tables["sinks"].float() - 1
    assert (out[:, :, :2] == 0).all()
    torch.testing.assert_close(lse[0, :, :2], sinks[:, None].expand(-1, 2).detach())


# --- the comparison itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(9))
def test_a_wrong_number_is_seen(place: int) -> None:
    """Outputs, log-sum-exps and gradients of a score that is a little different: one after the other."""
    name = "rows and columns"
    given = small(n=45, n_q=45, seed=11)
    done = compiled(name)
    other = oracle.compiled(f"pattern p() {{ {PATTERNS[name].replace('tanh(s)', '(0.5 * s)')} }}")
    args, grads = oracle.tensors(given)
    tables = {
        key: x.detach().float().requires_grad_() for key, x in oracle.inputs(done.pattern, given).items()
    }
    right, wrong = (
        oracle.ours(x.module, args, grads, list(tables.values()), given, "torch") for x in (done, other)
    )
    assert not oracle.against_definition(done.pattern, right, args, grads, tables, given)
    mixed = wrong if place == len(right) else (*right[:place], wrong[place], *right[place + 1 :])
    assert oracle.against_definition(done.pattern, mixed, args, grads, tables, given)


def test_the_definition_is_dense_attention_where_nothing_is_weighed() -> None:
    done, given = oracle.compiled("pattern p() { attend window(9) | to(first(2)) }"), small()
    args, grads = oracle.tensors(given)
    mask = oracle.reference.mask(done.pattern, given.n, given.heads, {}, given.n_q)
    plain = oracle.dense(args, grads, mask, given, torch.float64)
    same = weighed.dense(done.pattern, args, grads, {}, given, torch.float64)
    for a, b in zip(plain, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_definition_takes_nothing_from_outside_of_the_edges() -> None:
    done, given = compiled("no value outside"), small()
    args, grads = oracle.tensors(given)
    tables = oracle.inputs(done.pattern, given)
    out, _, *gradients = weighed.dense(done.pattern, args, grads, tables, given, torch.float64)
    assert all(x.isfinite().all() for x in (out, *gradients))
    out, _ = weighing.attention(done.pattern, *args, tables)
    assert out.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 9, 20])
def test_relations_that_begin_further_away_than_there_are_tokens(n: int) -> None:
    done = oracle.compiled(
        "pattern p() { input b: float[31] attend causal & where q - k > 6 score s + b[(q - k) // 2] }"
    )
    assert oracle.check(done, small(n=n, n_q=n), "torch") == []


def test_relations_without_any_distance() -> None:
    done = oracle.compiled(
        "pattern p() { input b: float[31] attend chunk(29) & where q - k > 30 score s + b[(q - k) // 2] }"
    )
    assert oracle.check(done, small(), "torch") == []


# A relation; an index by `q - k`; the same in Python; the ends of distances at a length; whether the index
# stops changing somewhere near.
BY_DISTANCE: dict[str, tuple[str, str, Callable[[int], int], Callable[[int], tuple[int, int]], bool]] = {
    "both sides": (
        "all",
        "max(-3, min(q - k, 5)) + 3",
        lambda d: max(-3, min(d, 5)) + 3,
        lambda n: (1 - n, n - 1),
        True,
    ),
    "behind": ("causal", "min(q - k, 5)", lambda d: min(d, 5), lambda n: (0, n - 1), True),
    "strictly behind": (
        "causal & where q - k > 2",
        "select(q - k > 9, 1, min(q - k, 4))",
        lambda d: 1 if d > 9 else min(d, 4),
        lambda n: (3, n - 1),
        True,
    ),
    "ahead": (
        "where k >= q - 2",
        "select(q - k > -4, abs(q - k), 7)",
        lambda d: abs(d) if d > -4 else 7,
        lambda n: (1 - n, 2),
        True,
    ),
    "for ever": ("causal", "(q - k) % 3", lambda d: d % 3, lambda n: (0, n - 1), False),
    "far away": (
        "causal",
        "min(q - k, 5000) // 500",
        lambda d: min(d, 5000) // 500,
        lambda n: (0, n - 1),
        False,
    ),
    "in a window": ("window(9)", "min(q - k, 5)", lambda d: min(d, 5), lambda n: (0, 9), False),
}


@pytest.mark.parametrize("name", BY_DISTANCE)
def test_tables_by_distance_stop_where_they_stop_changing(name: str) -> None:
    """The table holds what the index says at every distance, whether worked out there or continued."""
    relation, index, same, ends, stops = BY_DISTANCE[name]
    done = oracle.compiled(f"pattern p() {{ input b: float[16] attend {relation} score s + b[{index}] }}")
    assert ("_continued(" in done.text) is stops
    b = torch.arange(16.0)
    for n in (1, 2, 3, 5, 6, 9, 17, 18, 40):
        (table,) = (
            x for name, x in done.module._tables([b], n, n, 1, b.device).items() if "distance" in name
        )
        low, high = ends(n)
        wanted = [float(same(d)) for d in range(low, max(high, low) + 1)]
        assert table.tolist() == [[wanted]], n


@pytest.mark.parametrize("heads", [1, 3, 4, 8])
def test_choices_by_size(heads: int) -> None:
    """What hangs on the number of heads and tokens alone is no tensor, and no less right."""
    done = oracle.compiled(
        "pattern p() { input doc: int[n] let few = select(not H > 4 and n > 3, 2, max(H, 3)) attend causal "
        "score s * select(not H > 2, 0.5, 2.0) + few / (h + 1.0) "
        "+ select(doc[0] > 2, 0.1, 0.2) * min(doc[0], 3) }"
    )
    assert oracle.check(done, small(heads=heads, key_heads=1), "torch") == []

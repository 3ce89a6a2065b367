"""Names of patterns and inputs beside what an emitted module calls by itself, told from its syntax."""

from __future__ import annotations

import symtable
from collections.abc import Iterator

import pytest
import torch

from attnc import names
from attnc.diagnostics import AttncError
from tests import oracle
from tests.test_oracle_torch import call

# One of each kind of module.
PATTERNS = {
    "plain": "input hub: bool[n] attend window(5) | to(hub)",
    "heads": "heads {0} { attend causal & random(3, 0) } heads rest { attend offsets(powers(2)) }",
    "documents": "input doc: int[n] attend same(doc) & stride(3) | from(first(2))",
    "weights": "input b: float[H, 9] input z: float[H] attend causal score s + b[h, (q - k) % 9] sink z[h]",
    "pairs": "input b: float[n, n] attend window(9) score tanh(s) + b[q, k]",
    "undivided": "attend window(5) kernel elu(x) + 1 normalize none",
    "states": "attend causal kernel elu(x) + 1",
    "gates": "input g: float[n, H] attend causal kernel x normalize none decay g",
    "delta": "input g: float[n, H] input b: float[n, H] attend causal kernel x decay g update delta(b)",
    "mixture": "attend window(9) with score tanh(s) attend causal - window(9) with kernel taylor()",
}


def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from scopes(child)


def tree(name: str) -> symtable.SymbolTable:
    return symtable.symtable(oracle.compiled(f"pattern p() {{ {PATTERNS[name]} }}").text, "p.py", "exec")


def own(name: str) -> set[str]:
    """What a module defines or uses in its outermost scope, but for what starts with `_` and the function."""
    top = tree(name)
    found = set(top.get_identifiers())
    for scope in scopes(top):
        found |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
    return {x for x in found if not x.startswith("_")} - {"p"}


@pytest.mark.parametrize("name", PATTERNS)
def test_no_pattern_is_named_like_what_its_module_has(name: str) -> None:
    assert {x for x in own(name) if names.refusal(x, "pattern") is None} == set()


@pytest.mark.parametrize("name", ["math", "NamedTuple", "WEIGHING", "tl", "INPUTS", "mask", "len", "print"])
def test_such_a_name_is_refused(name: str) -> None:
    with pytest.raises(AttncError, match=r"the emitted module has its own|it is built into Python"):
        oracle.compiled(f"pattern {name}() {{ attend causal }}")


@pytest.mark.parametrize("name", PATTERNS)
def test_the_function_needs_nothing_that_an_argument_could_hide(name: str) -> None:
    function = next(x for x in tree(name).get_children() if x.get_name() == "p")
    assert isinstance(function, symtable.Function)
    assert {x for x in function.get_globals() if not x.startswith("_")} == set()


def awkward(name: str) -> set[str]:
    """What a module uses from outside of its functions, and what arguments and variables are called."""
    inner = next(x for x in tree(name).get_children() if x.get_name() == "p")
    found = own(name) | set(inner.get_identifiers()) | {"id", "len", "type", "list", "edges", "first", "row"}
    return {x for x in found if x not in names.RESERVED and names.refusal(x, "input") is None}


def test_inputs_are_named_like_anything() -> None:
    """One pattern with an input of each such name."""
    listed = sorted({x for name in PATTERNS for x in awkward(name)})
    assert {"id", "len", "type", "list", "math", "torch", "tables", "inputs", "out", "edges"} <= set(listed)
    declared = " ".join(f"input {x}: float[H]" for x in listed)
    score = " + ".join(f"{x}[h]" for x in listed)
    done = oracle.compiled(f"pattern p() {{ {declared} attend window(3) score s * ({score}) sink list[h] }}")
    same = oracle.compiled(
        f"pattern p() {{ input a: float[H] attend window(3) score s * {len(listed)}.0 * a[h] sink a[h] }}"
    )
    args, _ = oracle.tensors(call(n=10, n_q=10, dim=4, value_dim=4))
    table = torch.tensor([0.01, -0.01])
    found = done.module.p(*args, **dict.fromkeys(listed, table))
    torch.testing.assert_close(found, same.module.p(*args, a=table))


@pytest.mark.parametrize("name", ["list", "float", "math", "state_", "final", "found", "inputs", "range"])
def test_inputs_of_states_are_named_like_anything(name: str) -> None:
    text = "pattern p() {{ input {0}: float[n, H] attend causal kernel x normalize none decay {0} }}"
    args, _ = oracle.tensors(call(n=10, n_q=10, dim=4, value_dim=4))
    gates = -torch.rand(10, 2)
    found = oracle.compiled(text.format(name)).module.p(*args, **{name: gates})
    assert torch.equal(found, oracle.compiled(text.format("g")).module.p(*args, g=gates))


def test_the_self_check_takes_such_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    text = "input edges: float[H] input inputs: bool[n] attend window(3) | to(inputs) score s + edges[h]"
    with pytest.raises(SystemExit) as ended:
        oracle.compiled(f"pattern p() {{ {text} }}").module.main()
    assert ended.value.code == 0

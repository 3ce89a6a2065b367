"""Integers of inputs as large as 64 bits hold: in masks, in bounds of sweeps; and products beyond them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import attnc
from attnc.evaluation import exact_up_to
from attnc.expression import Expr, Le0, Lookup, Var, add, compared, le, lt, mul
from tests import oracle

MOST = 2**63 - 1
N, HEADS = 40, 2
ENTRIES = [MOST, -MOST - 1, MOST - 1, -MOST, 2**62, -(2**62), 2**31, -(2**31), 2**40, 0, 5, N - 1, N, -1]

# Relations, and what they say of Python's own integers.
RELATIONS: dict[str, Callable[[list[int], int, int], bool]] = {
    "p[q] < k": lambda p, q, k: p[q] < k,
    "p[q] <= k": lambda p, q, k: p[q] <= k,
    "k < p[q]": lambda p, q, k: k < p[q],
    "k <= p[q]": lambda p, q, k: k <= p[q],
    "q > p[k]": lambda p, q, k: q > p[k],
    "q <= p[k]": lambda p, q, k: q <= p[k],
    "p[q] < p[k]": lambda p, q, k: p[q] < p[k],
    "p[q] <= p[k]": lambda p, q, k: p[q] <= p[k],
    "p[q] == p[k]": lambda p, q, k: p[q] == p[k],
    "p[q] != p[k]": lambda p, q, k: p[q] != p[k],
    "p[k] == q": lambda p, q, k: p[k] == q,
    "q - k < p[q]": lambda p, q, k: q - k < p[q],
    "p[q] <= k - 3 and k <= q": lambda p, q, k: p[q] <= k - 3 and k <= q,
    "k - 7 < p[q] and p[k] < 12": lambda p, q, k: k - 7 < p[q] and p[k] < 12,
    "min(p[q], 30) > k": lambda p, q, k: min(p[q], 30) > k,
    "max(p[q], q - 9) <= k": lambda p, q, k: max(p[q], q - 9) <= k,
    "p[q] > k and k <= q": lambda p, q, k: p[q] > k and k <= q,
    "q - k <= 3 and k - q <= 3 and p[q] < k": lambda p, q, k: abs(q - k) <= 3 and p[q] < k,
    "p[k] < q and q - k <= 9": lambda p, q, k: p[k] < q and q - k <= 9,
    "0 <= p[q] and p[q] < k": lambda p, q, k: 0 <= p[q] < k,
    "min(p[q], q) >= k - 2 and k >= 1": lambda p, q, k: min(p[q], q) >= k - 2 and k >= 1,
    "p[q] < k // 4": lambda p, q, k: p[q] < k // 4,
    "p[q] >= k // 4": lambda p, q, k: p[q] >= k // 4,
    "k // 3 <= p[q] and k <= q": lambda p, q, k: k // 3 <= p[q] and k <= q,
    "p[q // 4] < k // 4": lambda p, q, k: p[q // 4] < k // 4,
    "p[q] // 3 < k": lambda p, q, k: p[q] // 3 < k,
    "p[q] % 7 <= k % 7": lambda p, q, k: p[q] % 7 <= k % 7,
    "p[k] // 2 == p[q] // 2": lambda p, q, k: p[k] // 2 == p[q] // 2,
}


def entries(order: int) -> list[int]:
    generator = np.random.default_rng(order)
    return [ENTRIES[i] for i in generator.integers(0, len(ENTRIES), N)]


def definition(relation: str, p: list[int]) -> torch.Tensor:
    holds = RELATIONS[relation]
    return torch.tensor([[holds(p, q, k) for k in range(N)] for q in range(N)])


def faults(relation: str, backend: str) -> list[str]:
    """What output and gradients of a relation over far entries get wrong, in words; two orders of entries."""
    function = attnc.load(
        f"pattern p() {{ input p: int[n] attend where {relation} }}  # allow: masked-sweep", backend=backend
    )
    found = []
    for order in range(2):
        p = entries(order)
        mask = definition(relation, p)
        generator = torch.Generator().manual_seed(order)
        leaves = [
            torch.randn(1, HEADS, N, 16, generator=generator, dtype=torch.float32, requires_grad=True)
            for _ in range(3)
        ]
        grad = torch.randn(1, HEADS, N, 16, generator=generator)
        out = function(*leaves, p=torch.tensor(p))
        got = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
        wide = [x.detach().double().requires_grad_() for x in leaves]
        scores = (wide[0] @ wide[1].mT / 4).masked_fill(~mask, -torch.inf)
        weights = scores.masked_fill(~mask.any(1)[:, None], 0.0).softmax(3) * mask
        plain = weights @ wide[2]
        wanted = [plain.detach(), *torch.autograd.grad(plain, wide, grad.double())]
        for name, a, b in zip(("output", "dq", "dk", "dv"), got, wanted, strict=True):
            off = float((a - b).abs().max())
            found += [f"{name} of order {order} is off by {off:.2e}"] if not off < 1e-5 else []
    return found


@pytest.mark.parametrize("relation", RELATIONS)
def test_masks(relation: str) -> None:
    for order in range(4):
        p = entries(order)
        text = f"pattern p() {{ input p: int[n] attend where {relation} }}"
        found = attnc.mask(text, n=N, heads=HEADS, inputs={"p": torch.tensor(p)})
        assert torch.equal(found, definition(relation, p).expand(HEADS, N, N))


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_torch_path(relation: str) -> None:
    with oracle.poisoned():
        assert faults(relation, "torch") == []


def _body(comparison: Expr) -> Expr:
    assert isinstance(comparison, Le0)
    return comparison.body


def test_comparisons_leave_one_entry_alone() -> None:
    q, k = Var("q"), Var("k")
    p = Lookup("p", (q,))
    assert compared(_body(lt(p, k))) == (p, k, True)
    assert compared(_body(le(p, k))) == (p, k, False)
    assert compared(_body(lt(k, p))) == (k, p, True)
    assert compared(_body(le(add(k, 3), p))) == (add(k, 3), p, False)
    left, right, strict = compared(_body(lt(p, Lookup("p", (k,)))))
    assert isinstance(left, Lookup) and isinstance(right, Lookup) and strict


def test_how_far_products_are_exact() -> None:
    q, k = Var("q"), Var("k")
    assert exact_up_to([lt(mul(q, q), k)]) is None
    most = exact_up_to([lt(mul(q, q), mul(mul(k, k), mul(k, k)))])
    assert most is not None and most**4 + most**2 < 2**63 < 2 * (most + 1) ** 4 + 2 * (most + 1) ** 2


LONG = "pattern p() { attend where q * q * q * q < k * k * k * 2147483647 }"


@pytest.mark.parametrize("backend", ["torch", None])
def test_what_64_bits_cannot_hold_is_refused(backend: str) -> None:
    function = attnc.load(LONG, backend=backend)
    most = 1625
    x = torch.randn(1, 1, most, 4)
    out = function(x[:, :, -2:], x, x)
    at = torch.arange(most, dtype=torch.int64)
    edges = torch.tensor([[int(q) ** 4 < int(k) ** 3 * 2147483647 for k in at] for q in at[-2:]])
    wanted = torch.nn.functional.scaled_dot_product_attention(x[:, :, -2:], x, x, edges)
    torch.testing.assert_close(out, wanted)
    x = torch.randn(1, 1, most + 1, 4)
    with pytest.raises(ValueError, match=r"with more than 1625 keys .* beyond 64 bits, and there are 1626"):
        function(x, x, x)


# Numbers near the ends of 32 bits, which kernels count positions in; queries by keys, and key by key.
LARGE = [
    "window(2147483647)",
    "window(2147483647, 2147483647)",
    "where q - k <= 2147483647",
    "where q + 2147483647 >= k",
    "where k - 2147483647 <= q - 3",
    "to(last(2147483647))",
    "to(first(2147483647)) & causal",
    "stride(2147483647)",
    "stride(1073741824) & causal",
    "to(every(2147483647, offset=1))",
    "window(1, dilation=2147483647)",
    "window(3, dilation=1000000000)",
    "window(2, 2, dilation=16777216)",
    "blocks(3, window(2147483647))",
    "chunk(2147483647) & causal",
    "where (q + 2147483647) // 2147483647 == k",
    "where (q + 2147483646) % 2147483647 <= k",
    "where q * 2147483647 >= k",
    "offsets({2147483647, 1, -2147483647})",
    "neighborhood(3, dilation=1000000000)",
]


def large(relation: str, backend: str) -> None:
    text = f"pattern p() {{ attend {relation} }}  # allow: masked-sweep"
    q, v = torch.zeros(1, 1, 21, 16), torch.eye(21)[None, None]
    out = attnc.load(text, backend=backend)(q, q, v)
    assert torch.equal(out[0, 0] != 0, attnc.mask(text, 21)[0])


@pytest.mark.parametrize("relation", LARGE)
def test_numbers_near_the_ends_of_32_bits(relation: str) -> None:
    large(relation, "torch")

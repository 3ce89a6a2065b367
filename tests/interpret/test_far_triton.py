"""Tensors of more than 2^31 elements: the kernels find what lies far apart, as they find it side by side."""

from __future__ import annotations

import pytest
import torch

import attnc
from tests import test_far_entries

FAR = 1 << 31
# Lengths and strides: memory is only touched where numbers are.
LAYOUTS = {
    "entries": (20, (FAR, 320, 16, 1)),
    "heads": (20, (2 * FAR, FAR, 16, 1)),
    "rows": (20, (FAR, FAR // 2, FAR // 64, 1)),
    "odd": (20, (FAR + 1, 321, 16, 1)),
    "each row": (2, (16, 32, FAR, 1)),
}
PATTERNS = {
    "window": "attend window(8)",
    "sets": "attend (window(3) | to(first(2))) & causal",
    "table": "input b: float[n, n] attend causal score s + b[q, k]",
    "linear": "attend causal kernel elu(x) + 1",
    "channels": "input g: float[n, H, d] attend causal kernel x normalize none decay g",
    "delta": "input b: float[n, H] attend causal kernel x normalize none update delta(b)",
}


def far(x: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    size = 1 + sum((count - 1) * stride for count, stride in zip(x.shape, strides, strict=True))
    return torch.empty(size, dtype=x.dtype).as_strided(x.shape, strides).copy_(x)


@pytest.mark.parametrize(
    ("pattern", "layout"),
    [("window", layout) for layout in LAYOUTS] + [(name, "entries") for name in PATTERNS if name != "window"],
)
def test_what_lies_far_apart(pattern: str, layout: str) -> None:
    function = attnc.load(f"pattern p() {{ {PATTERNS[pattern]} }}", backend="triton")
    torch.manual_seed(len(pattern))
    n, strides = LAYOUTS[layout]
    given = [torch.randn(2, 2, n, 16).half() for _ in range(4)]
    tables = {}
    if "input" in PATTERNS[pattern]:
        sizes = {"table": ("b", (n, n)), "channels": ("g", (n, 2, 16)), "delta": ("b", (n, 2))}
        name, size = sizes[pattern]
        tables[name] = -torch.rand(size) if name == "g" else torch.rand(size)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = function(q, k, v, **tables)
        return [out, *torch.autograd.grad(out, (q, k, v), grad)]

    near, apart = run(*given), run(*(far(x, strides) for x in given))
    assert all(torch.equal(a, b) for a, b in zip(near, apart, strict=True))


def test_a_table_of_more_than_2_31_entries() -> None:
    n, rows = 46_400, 8
    text = "pattern p() { input b: float[n, n] attend window(5) score s + b[q, k] * b[k, q] }"
    table = torch.empty(n, n)  # memory that is only touched where it is read
    table[-rows:, -2 * rows :] = torch.randn(rows, 2 * rows)
    table[-2 * rows :, -rows:] = torch.randn(2 * rows, rows)
    q, k, v = torch.randn(1, 1, rows, 16), torch.randn(1, 1, n, 16), torch.randn(1, 1, n, 16)
    with torch.no_grad():
        ours, torchs = (attnc.load(text, backend=path)(q, k, v, b=table) for path in ("triton", "torch"))
    torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("relation", test_far_entries.RELATIONS)
def test_entries_as_large_as_64_bits_hold(relation: str) -> None:
    assert test_far_entries.faults(relation, "triton") == []


@pytest.mark.parametrize("relation", test_far_entries.LARGE)
def test_numbers_near_the_ends_of_32_bits(relation: str) -> None:
    test_far_entries.large(relation, "triton")

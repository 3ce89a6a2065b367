"""Calls in fp16 with small and with large features.

Sums of features, and gradients divided by them, leave the range of fp16, although results do not.
"""

from __future__ import annotations

import torch

from tests import weights_oracle as oracle
from tests.weights_oracle import Given

# By how their pairs are summed up: pair by pair, one key for each query, through states, in two parts.
RELATIONS = {
    "swept": "attend window(20) kernel {}",
    "alone": "attend offsets({{1, 5}}) kernel {}",
    "through states": "attend causal kernel {}",
    "of everything": "attend all kernel {}",
    "undivided": "attend window(20) kernel {} normalize none",
    "beside softmax": "attend window(5) with softmax attend causal - window(5) with kernel {}",
}
# Feature maps, and how large coordinates are.
FEATURES = (("relu(x)", 1e-3), ("x * x", 3.0), ("exp(x)", 3.0))
CASES = [(relation, *feature) for relation in RELATIONS for feature in FEATURES if relation != "undivided"]
CASES += [("undivided", "relu(x)", 1e-3), ("undivided", "x * x", 0.01), ("undivided", "taylor()", 3.0)]


def check(relation: str, feature: str, size: float, backend: str) -> list[str]:
    """Everything that is wrong, in words."""
    text = f"pattern p() {{ {RELATIONS[relation].format(feature)} }}"
    given = Given(n=70, heads=2, key_heads=1, batch=1, value_dim=24, size=size)
    return oracle.check(text, given, backend, torch.float16)

"""All examples alike: they resolve without a warning, are listed, and claim what can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from attnc import reference
from attnc.diagnostics import Source
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.parser import parse
from attnc.pattern import Claim, Input
from attnc.resolver import resolve
from attnc.syntax import File

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(path.stem for path in EXAMPLES.glob("*.attn"))

# Constants small enough to count with, by pattern.
SMALL: dict[str, dict[str, int]] = {
    "axial": {"height": 6, "width": 7},
    "based": {"window": 5},
    "bigbird": {"block": 4, "picks": 2},
    "cosformer": {"length": 100},
    "dilated": {"width": 4, "dilation": 3},
    "etc": {"globals": 5, "radius": 3},
    "gemma2_local": {"window": 5},
    "gpt_oss": {"window": 5},
    "image_transformer_1d": {"block": 6, "before": 4},
    "image_transformer_2d": {"block": 3, "above": 2, "beside": 1, "width": 8},
    "llama4_chunked": {"size": 6},
    "lolcats": {"window": 5},
    "longformer": {"window": 6},
    "mistral": {"window": 5},
    "natten_1d": {"size": 5, "dilation": 3},
    "natten_2d": {"size": 3, "width": 7},
    "natten_3d": {"frames": 2, "rows": 3, "columns": 2, "height": 4, "width": 3},
    "overlapping_windows": {"size": 3, "overlap": 1, "width": 7},
    "performer": {"features": 8},
    "sparse_transformer_fixed": {"step": 6, "summary": 2},
    "sparse_transformer_strided": {"step": 5},
    "streaming_llm": {"sinks": 2, "window": 5},
    "strided": {"step": 4},
    "swin": {"size": 3, "height": 6, "width": 7},
    "swin_shifted": {"size": 3, "shift": 1, "height": 6, "width": 7},
}


@cache
def parsed(name: str) -> File:
    return parse(Source(f"{name}.attn", (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")))


def test_every_file_has_a_pattern_of_its_name_and_a_row_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in FILES:
        resolved = resolve(parsed(name))
        assert resolved.warnings == ()
        assert name in {pattern.name for pattern in resolved.patterns}
        assert f"[{name}]({name}.attn)" in readme
    assert readme.count(".attn)") == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_claims_hold_where_they_can_be_counted(name: str) -> None:
    for pattern in resolve(parsed(name)).patterns:
        (small,) = resolve(parsed(name), SMALL.get(pattern.name, {}), pattern.name).patterns
        assert pattern.params == () or small.params != pattern.params, "give SMALL constants for it"
        claims = {claim.kind: claim for claim in small.claims}
        for n in (1, 2, 7, 37, 64):
            given = {item.name: sample(item, n) for item in small.inputs}
            found = reference.mask(small, n, heads=4, inputs=given)
            assert found.any(axis=-1).all() == ("nonempty" in claims)
            # Only what is causal for every value of the inputs may say so, and what is says so.
            if n == 64:
                assert np.triu(found, 1).any() != ("causal" in claims)
            elif "causal" in claims:
                assert not np.triu(found, 1).any()
            counts = {f"count({name})": int(given[name].sum()) for name in given}
            if "edges" in claims:
                assert found.sum(axis=(1, 2)).max() <= bound(claims["edges"], {"n": n, **counts})
            if "reach" in claims:
                assert reaches(found[0], layers=bound(claims["reach"], {"n": n}))


def bound(claim: Claim, variables: Mapping[str, int]) -> int:
    assert claim.bound is not None
    return int(evaluate(claim.bound, Env(variables)))


def sample(item: Input, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    if item.kind == "float":  # it weighs edges, and so decides nothing here
        sizes = Env({"n": n, "H": 4, "d": 2})
        return np.zeros(tuple(int(evaluate(size, sizes)) for size in item.shape))
    return rng.random(n) < 0.25 if item.kind == "bool" else rng.integers(0, 3, n)


def reaches(edges: np.ndarray, layers: int) -> bool:
    return bool((np.linalg.matrix_power(edges.astype(int), layers) > 0).all())

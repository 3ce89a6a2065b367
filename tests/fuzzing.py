"""How many random patterns are tried, and with which seeds.

Usually a fixed number with fixed seeds, in shards that run side by side. ``ATTNC_FUZZ=500`` tries that many
with fresh seeds, which are printed, and shrinks what fails; ``ATTNC_FUZZ_SEED`` repeats such a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy


def try_all(
    run: Callable[[Any], None], strategy: SearchStrategy[Any], examples: int, shard: int, shards: int
) -> None:
    """Calls ``run`` with this shard's part of the examples."""
    fresh = os.environ.get("ATTNC_FUZZ")
    number = shard
    if fresh:
        examples = int(fresh)
        number = int(os.environ.get("ATTNC_FUZZ_SEED") or random.randrange(2**30)) + shard
        print(f"ATTNC_FUZZ={examples} ATTNC_FUZZ_SEED={number - shard}")
    options = settings(
        max_examples=-(-examples // shards),
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink] if fresh else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def example(case: Any) -> None:
        run(case)

    seed(number)(options(given(strategy)(example)))()

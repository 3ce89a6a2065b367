"""What all tests share: they leave the user's own cache alone, and none is judged by the clock."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Tests share few cores: how long one example takes says nothing.
settings.register_profile("attnc", deadline=None)
settings.load_profile("attnc")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("ATTNC_CACHE_DIR")
    os.environ["ATTNC_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ATTNC_CACHE_DIR"]
    else:
        os.environ["ATTNC_CACHE_DIR"] = before

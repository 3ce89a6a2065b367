"""Tests under Triton's interpreter."""

import tests.interpreting  # noqa: F401

"""What Triton's interpreter does unlike its compiler, put right for tests and fuzzing by an import."""

from __future__ import annotations

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    _splat = InterpreterBuilder.create_splat

    def _splat_conditions(self: InterpreterBuilder, *given: object) -> TensorHandle:
        """A condition on scalars stays one when it is broadcast; it came as integers, which mask no load."""
        found = _splat(self, *given)
        if any(isinstance(x, TensorHandle) and x.data.dtype == bool for x in given):
            found.data = found.data.astype(bool)
        return found

    InterpreterBuilder.create_splat = _splat_conditions

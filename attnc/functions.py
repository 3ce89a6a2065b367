"""Attention functions as objects: called, shown and wrapped like functions, and pickled as patterns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


class PatternFunction:
    """The function of an emitted module, which another process can unpickle.

    Python pickles a function as the name of its module, and that of a compiled pattern exists only in the
    process that compiled it. This pickles how it was made: where it is unpickled, the pattern is compiled
    again, or taken from the cache there.

    function: what is called. make, args: a function of a module and plain values that together give this
        object. page: its HTML for notebooks. backend: for calls that do not name one.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        make: Callable[..., Any],
        args: tuple[Any, ...],
        page: Callable[[], str],
        backend: str | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        # `**_others` is there for the messages about arguments of other attention functions.
        signature = inspect.signature(function)
        named = (p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD)
        self.__signature__ = signature.replace(parameters=tuple(named))
        self._function, self._backend = function, backend
        self._make, self._args, self._page = make, args, page

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self._backend is not None and kwargs.get("backend") is None:
            kwargs["backend"] = self._backend
        return self._function(*args, **kwargs)

    def bound(self, backend: str) -> PatternFunction:
        """The function with another default backend; its name, docstring and signature stay."""
        return PatternFunction(self._function, _bound, (self, backend), self._page, backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._make, self._args

    def __copy__(self) -> PatternFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PatternFunction:
        return self

    def _repr_html_(self) -> str:
        return self._page()

    def __repr__(self) -> str:
        return f"<attention function {self.__name__}{inspect.signature(self)}>"


def _bound(function: PatternFunction, backend: str) -> PatternFunction:
    return function.bound(backend)

"""What somebody wants compiled, as a value."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attnc.diagnostics import Source

ParamValue = int | float | bool | str


@dataclass(frozen=True)
class Header:
    """What stands in the place of ``pattern name(…) {`` when only a pattern's body is given.

    params: name, kind (``int``, ``float`` or ``bool``) and default of every parameter.
    inputs: names of the inputs that the body must declare.
    """

    name: str
    params: tuple[tuple[str, str, int | float | bool], ...] = ()
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """Everything that decides what comes out of the compiler.

    pattern: the pattern's name; None for the only one of the source.
    params: values of parameters by name, or their text.
    prefer: the pattern to take when there are several and ``pattern`` does not say which.
    header: given when the source is the body of a pattern alone.
    identity: what the cache knows the source by, where its text is padded with what the compiler skips.
    readable: whether a module is for people: its head tells the number of edges, and long lines are broken.
        Both take time.
    """

    source: Source
    pattern: str | None = None
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    prefer: str | None = None
    header: Header | None = None
    identity: str | None = None
    readable: bool = True

    def __post_init__(self) -> None:
        if self.pattern is not None and not isinstance(self.pattern, str):
            raise TypeError(
                f"`pattern` names one of the file's patterns and must be a str; got {self.pattern!r:.60} of "
                f"type {type(self.pattern).__name__}"
            )


def gather(params: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, ParamValue]:
    """Parameters given as a mapping and by keyword, as plain Python numbers (or their text).

    Raises ``TypeError`` for a parameter that is given twice, or is no number, and for ``params`` that are no
    mapping from names.
    """
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(
            "`params` must map names to values, as in {'window': 256}; got "
            f"{params!r:.60} of type {type(params).__name__}"
        )
    if strange := [name for name in params or {} if not isinstance(name, str)]:
        raise TypeError(f"`params` must map names to values; {strange[0]!r:.60} is no name")
    given = dict(params or {})
    if twice := sorted(given.keys() & more.keys()):
        raise TypeError(f"parameter {twice[0]!r} is given twice: in `params` and by keyword")
    return {name: _plain(name, value) for name, value in (given | dict(more)).items()}


def _plain(name: str, value: Any) -> ParamValue:
    if isinstance(value, (bool, str)):
        return value
    if callable(held := getattr(value, "item", None)):
        # A scalar of numpy or torch is what it holds. What holds more says so, and is refused below.
        with contextlib.suppress(ValueError, RuntimeError):
            value = held()
    if isinstance(value, bool):
        return value
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):  # a tensor without data has no index
        if isinstance(value, float):
            return float(value)
    raise TypeError(
        f"parameter {name!r} must be an int, a float or a bool; got {value!r} of type {type(value).__name__}"
    )

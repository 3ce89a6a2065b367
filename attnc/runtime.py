"""From a pattern to a ready function, through the cache; and the other things one asks of a pattern in
Python.

Nothing slow is imported before it is needed: a pattern that was compiled before is read from the cache and
imported, and neither the parser nor the solver is loaded for that.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import linecache
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from attnc import cache
from attnc.diagnostics import AttncError, render
from attnc.files import read_source
from attnc.functions import PatternFunction
from attnc.request import Request, gather

if TYPE_CHECKING:
    import torch

    from attnc.pattern import Pattern
    from attnc.report import Report

BACKENDS = ("triton", "torch")

PathOrSource = str | os.PathLike[str]
Attention = Callable[..., "torch.Tensor"]


def load(
    path_or_source: PathOrSource,
    pattern: str | None = None,
    *,
    backend: str | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Attention:
    """The attention function of a pattern, compiled or taken from the cache.

    path_or_source: a path, or a pattern's text (a ``str`` with a ``{`` or a line end).
    pattern: which one, where the file holds several.
    backend: ``"triton"`` or ``"torch"``, for every call of the function that does not say otherwise; by
    default
        ``ATTNC_BACKEND`` decides, or else the device of the tensors.
    params, more_params: values of the pattern's parameters, by name. A parameter that is called like an
    argument
        of this function can only be given in ``params``.

    The function takes ``q`` (batch, heads, n_q, d), ``k`` (batch, key heads, n, d), ``v`` (batch, key heads,
    n, d_v), the pattern's inputs by name, ``scale`` and ``backend``, and gives (batch, heads, n_q, d_v).

    Raises ``AttncError`` when the pattern does not compile, ``OSError`` when there is no such file,
    ``ValueError`` for an unknown backend and ``TypeError`` for a parameter's value that is no number.
    """
    check_backend(backend)
    request = Request(read_source(path_or_source), pattern, gather(params, more_params))
    return bind(ready(request), backend)


def compile(
    path_or_source: PathOrSource,
    pattern: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> str:
    """The text of the module that ``attnc compile`` would write; arguments and errors as in ``load``."""
    from attnc.pipeline import compile_pattern

    request = Request(read_source(path_or_source), pattern, gather(params, more_params))
    emitted = compile_pattern(request)
    for diagnostic in emitted.warnings:
        warnings.warn(render(diagnostic), stacklevel=2)
    return emitted.text


def check(
    path_or_source: PathOrSource,
    pattern: str | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Report:
    """Every fact about the patterns of a file; what is wrong with them is in the report, too.

    Raises only ``OSError`` (no such file) and ``TypeError`` (a parameter's value that is no number).
    """
    from attnc.report import examine

    params = gather(params, more_params)
    try:
        source = read_source(path_or_source)
    except AttncError as error:
        from attnc.report import Report

        return Report((), error.diagnostics)
    return examine(Request(source, pattern, params))


def mask(
    path_or_source: PathOrSource,
    n: int,
    heads: int = 1,
    pattern: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    n_q: int | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> torch.Tensor:
    """The dense mask of a pattern, from the reference interpreter: true where a query reads a key.

    n: number of keys; heads: of query heads; n_q: of queries, the last ones of ``n``, all of them by default.
    inputs: a tensor or array for every input of the pattern; those of floats choose no edges, and may be left
        out.

    Gives a boolean tensor (heads, n_q, n), with the batch in front when an input has one. It is quadratic in
    ``n``: this is for looking and testing, of at most 2**28 entries. Raises what ``load`` raises,
    ``TypeError`` for missing or unknown inputs, wrong kinds and sizes that are no integers, and
    ``ValueError`` for sizes that do not fit or are too large.
    """
    import torch

    from attnc import reference
    from attnc.pipeline import settle_pattern

    if tables := [name for name, value in more_params.items() if getattr(value, "ndim", 0) > 0]:
        raise TypeError(f"{tables[0]!r} is no number: inputs are given as `inputs={{{tables[0]!r}: …}}`")
    request = Request(read_source(path_or_source), pattern, gather(params, more_params))
    settled = settle_pattern(request)
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(
            f"`inputs` must map names to tensors, as in {{'document': document}}; got {type(inputs).__name__}"
        )
    arrays = {name: _array(value) for name, value in (inputs or {}).items()}
    return torch.from_numpy(reference.mask(settled.pattern, n, heads, arrays, n_q))


def _array(value: Any) -> Any:
    import numpy as np

    detach = getattr(value, "detach", None)
    if detach is None:
        return np.asarray(value)
    tensor = detach().cpu()
    # numpy has no bfloat16, and neither has it floats of one byte.
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if narrow else tensor).numpy()


def check_backend(backend: str | None) -> None:
    if backend is not None and backend not in BACKENDS:
        choices = " or ".join(map(repr, BACKENDS))
        raise ValueError(f"unknown backend {backend!r}: choose {choices}, or None to let the device decide")


# --- from a request to a function -----------------------------------------------------------------------

_lock = threading.RLock()
_functions: dict[str, PatternFunction] = {}
_modules: dict[str, ModuleType] = {}
_DIGEST = re.compile(r'^DIGEST = "(\w+)"$', re.MULTILINE)


def ready(request: Request, derive: Callable[[Pattern], Pattern] | None = None) -> PatternFunction:
    """The function for a request: this process's own, or from the cache, or freshly compiled.

    derive: makes another pattern of the settled one; a function of a module, whose name the cache keeps.
    """
    key = key_of(request, "" if derive is None else f"{derive.__module__}.{derive.__qualname__}")
    with _lock:
        function = _functions.get(key)
        if function is None:
            entry, code = cache.fetch(key), None
            if entry is None:
                entry, code = _compile(request, key, derive)
            for text in entry.warnings:
                warnings.warn(text, stacklevel=3)
            emitted = getattr(_module(entry, code), entry.function)
            page = functools.partial(_page, replace(request, pattern=request.pattern or entry.function))
            function = _functions[key] = PatternFunction(emitted, ready, (request, derive), page)
        return function


def _page(request: Request) -> str:
    """What notebooks show for a function: its pattern's picture and facts."""
    from attnc.report import examine

    return examine(request)._repr_html_()


def key_of(request: Request, derived: str = "") -> str:
    """The cache's name for the outcome of a request; a file that was only moved keeps it."""
    head = request.header
    return cache.key(
        {
            "text": request.source.text if request.identity is None else request.identity,
            "pattern": request.pattern,
            "prefer": request.prefer,
            "params": {name: [type(value).__name__, value] for name, value in request.params.items()},
            "header": None if head is None else [head.name, head.params, head.inputs],
            "derived": derived,
        }
    )


def _compile(
    request: Request, key: str, derive: Callable[[Pattern], Pattern] | None
) -> tuple[cache.Entry, CodeType]:
    from attnc.pipeline import code_of, compile_pattern

    emitted = compile_pattern(replace(request, readable=False), derive)
    said = tuple(map(render, emitted.warnings))
    return cache.store(key, emitted.text, emitted.pattern.name, said), code_of(emitted.text)


def _module(entry: cache.Entry, code: CodeType | None) -> ModuleType:
    """The entry's module; the same code is one module, because an operator can be registered only once.

    Operators carry the module's name, and exported programs theirs, so it is the same in every process. The
    head does not count: it names the pattern's file.
    """
    found = _DIGEST.search(entry.text)
    digest = found[1] if found else hashlib.sha256(entry.text.encode("utf-8")).hexdigest()
    if digest not in _modules:
        name = f"attnc_{entry.function}_{digest[:16]}"
        spec = importlib.util.spec_from_file_location(name, entry.path)
        if spec is None:
            raise ImportError(f"cannot import the compiled module {str(entry.path)!r}")
        module = importlib.util.module_from_spec(spec)
        # Triton and inspect look a function's module up by name.
        sys.modules[name] = module
        # PyTorch asks inspect where an operator was written, which otherwise searches all that is imported.
        inspect.modulesbyfile[str(entry.path)] = name
        # Triton compiles what linecache has for a kernel's file: the text that was checked, and not what the
        # file holds by then, if it is still there.
        lines = entry.text.splitlines(keepends=True)
        linecache.cache[str(entry.path)] = (len(entry.text), None, lines, str(entry.path))
        try:
            exec(cache.code(entry, code), module.__dict__)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        _modules[digest] = module
    return _modules[digest]


def bind(function: PatternFunction, backend: str | None) -> PatternFunction:
    """The function with another default backend; its name, docstring and signature stay."""
    return function if backend is None else function.bound(backend)


def input_names(function: Attention) -> tuple[str, ...]:
    """Names of the inputs that an emitted function takes, in order."""
    named = inspect.signature(function).parameters.values()
    own = ("scale", "backend", "state", "return_state")
    return tuple(p.name for p in named if p.kind is p.KEYWORD_ONLY and p.name not in own)

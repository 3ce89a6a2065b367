"""``@attention_pattern``: a pattern in the place of a function's body.

    @attention_pattern("longformer.attn", window=256)
    def longformer(q, k, v, *, is_global): ...

    @attention_pattern
    def sliding(q, k, v, *, window: int = 512):
        '''
        attend window(window - 1)
        require causal
        '''

The pattern is compiled when the function is defined, so that whatever is wrong with it is said there.
"""

from __future__ import annotations

import dis
import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

from attnc.diagnostics import Source, printable
from attnc.docstring import docstring_source
from attnc.files import is_source_text, read_source
from attnc.functions import PatternFunction
from attnc.request import Header, ParamValue, Request, gather
from attnc.runtime import Attention, bind, check_backend, input_names, ready

F = TypeVar("F", bound=Callable[..., Any])

_KINDS: dict[object, str] = {
    int: "int",
    float: "float",
    bool: "bool",
    "int": "int",
    "float": "float",
    "bool": "bool",
}
_PASSED_ON = ("scale", "backend")
# What functions of linear attention have beyond those.
_STATES = ("state", "return_state")


@overload
def attention_pattern(path: F, /) -> F: ...
@overload
def attention_pattern(
    path: str | os.PathLike[str] | None = None,
    pattern: str | None = None,
    *,
    backend: str | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Callable[[F], F]: ...
def attention_pattern(
    path: Any = None,
    pattern: str | None = None,
    *,
    backend: str | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Any:
    """Makes a function compute the attention of a pattern; its name, docstring and signature stay as they
    are.

    path: a pattern file, relative to the file that the function stands in; without one, the function's
    docstring
        is the body of the pattern.
    pattern: which pattern of the file; by default the only one, or the one with the function's name.
    backend, params, more_params: as in ``attnc.load``.

    The function is no method or coroutine and has no body besides its docstring or ``...``. It has three
    positional arguments, ``q`` ``k`` ``v``, and then only keyword ones: an argument that is annotated
    ``int``, ``float`` or ``bool`` and has a default is a parameter of the pattern, compiled once for every
    value that it is called with; ``scale`` and ``backend`` are passed on; every other one is an input, and
    they must be exactly the pattern's inputs.

    Raises, where the function is defined: ``TypeError`` when its signature or body does not fit,
    ``AttncError`` when the pattern does not compile, ``OSError`` when there is no such file.
    """
    if inspect.isfunction(path):
        return _decorate(path, None, None, None, {})
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"attention_pattern takes a pattern file's path, or decorates a function; got {path!r}"
        )
    if path is not None and is_source_text(path):
        raise TypeError(
            "attention_pattern takes the path of a pattern file, and this is a pattern's text: write its "
            "body into the function's docstring, or use `attnc.load`"
        )
    check_backend(backend)
    given = gather(params, more_params)

    def decorate(function: F) -> F:
        if not inspect.isfunction(function):
            raise TypeError(f"attention_pattern decorates functions; got {function!r}")
        decorated: F = _decorate(function, path, pattern, backend, given)
        return decorated

    return decorate


@dataclass(frozen=True)
class _Signature:
    """What a decorated function's signature says about its pattern."""

    params: tuple[tuple[str, str, int | float | bool], ...]
    inputs: tuple[str, ...]


def _decorate(
    function: Any,
    path: str | os.PathLike[str] | None,
    pattern: str | None,
    backend: str | None,
    given: Mapping[str, ParamValue],
) -> Any:
    _check_body(function)
    signature = _signature(function)
    request = _request(function, signature, path, pattern, given)
    first = ready(request)
    _compare_inputs(function, signature, input_names(first))

    defaults = {name: default for name, _, default in signature.params}
    made = DecoratedFunction(request, defaults, backend, inspect.signature(function), first)
    functools.update_wrapper(made, function)
    return made


class DecoratedFunction:
    """What takes a decorated function's place: attention, compiled once for every value of its parameters.

    request: the pattern, with the parameters' defaults. defaults: those that a call may change.
    signature: the decorated function's. first: the attention function for the defaults.

    It is pickled by what it was made of, and comes back where its module cannot be imported, too.
    """

    __name__: str

    def __init__(
        self,
        request: Request,
        defaults: Mapping[str, ParamValue],
        backend: str | None,
        signature: inspect.Signature,
        first: PatternFunction,
    ) -> None:
        import torch

        self._request, self._defaults, self._backend = request, dict(defaults), backend
        self.__signature__ = signature
        self._first = first
        self._made: dict[tuple[Any, ...], Attention] = {tuple(defaults.values()): bind(first, backend)}
        self._named = frozenset(signature.parameters)
        # The compiler is not to be traced: inside of torch.compile a new value is a graph break, or an error
        # that says why, and a value that was used before is neither.
        why = (
            f"{first.__name__} must be compiled for another parameter: call it once outside of torch.compile"
        )
        self._another: Callable[[tuple[Any, ...]], Attention] = torch.compiler.disable(  # type: ignore[no-untyped-call]
            self._variant, reason=why
        )

    def _variant(self, values: tuple[Any, ...]) -> Attention:
        chosen = gather(dict(zip(self._defaults, values, strict=True)), {})
        params = {**self._request.params, **chosen}
        return bind(ready(replace(self._request, params=params)), self._backend)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:  # the emitted function may take more than this signature says
            if name not in self._named and name in (*_PASSED_ON, *_STATES):
                more = f"; add `{name}=None`" if name in _PASSED_ON else ""
                raise TypeError(
                    f"{self.__name__}() got an unexpected keyword argument {name!r}: its signature does "
                    f"not have it{more}"
                )
        values = tuple([kwargs.pop(name, default) for name, default in self._defaults.items()])
        try:
            attend = self._made.get(values)
        except TypeError:  # a list, or something else that is no number
            attend = None
        if attend is None:
            attend = self._another(values)
            self._made[values] = attend
        return attend(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        names = {name: getattr(self, name) for name in _NAMES}
        return _restored, (self._request, self._defaults, self._backend, _plain(self.__signature__), names)

    def __copy__(self) -> DecoratedFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> DecoratedFunction:
        return self

    def _repr_html_(self) -> str:
        return self._first._repr_html_()

    def __repr__(self) -> str:
        return f"<attention function {self.__name__}{self.__signature__}>"


_NAMES = ("__module__", "__name__", "__qualname__", "__doc__")


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """The signature with its annotations as texts: what they stand for may not exist elsewhere."""
    named = [
        item
        if item.annotation is item.empty
        else item.replace(annotation=inspect.formatannotation(item.annotation))
        for item in signature.parameters.values()
    ]
    return inspect.Signature(named)


def _restored(
    request: Request,
    defaults: Mapping[str, ParamValue],
    backend: str | None,
    signature: inspect.Signature,
    names: Mapping[str, str],
) -> DecoratedFunction:
    """What was pickled: the function of that name, if this process has it, or one that does the same."""
    here: Any = sys.modules.get(names["__module__"])
    for part in names["__qualname__"].split("."):
        here = getattr(here, part, None)
    if isinstance(here, DecoratedFunction) and (here._request, here._defaults, here._backend) == (
        request,
        defaults,
        backend,
    ):
        return here
    made = DecoratedFunction(request, defaults, backend, signature, ready(request))
    vars(made).update(names)
    return made


def _request(
    function: Any,
    signature: _Signature,
    path: str | os.PathLike[str] | None,
    pattern: str | None,
    given: Mapping[str, ParamValue],
) -> Request:
    for name, _, _ in signature.params:
        if name in given:
            raise TypeError(
                f"{_where(function)}: parameter {name!r} is given to the decorator and is in the signature, "
                "too; leave out one of the two"
            )
    if path is None:
        if pattern is not None:
            raise TypeError(
                f"{_where(function)}: `pattern` chooses among a file's patterns, and there is no file"
            )
        source, identity = docstring_source(function)
        header = Header(function.__name__, signature.params, signature.inputs)
        return Request(source, params=dict(given), header=header, identity=identity)
    defaults = {name: default for name, _, default in signature.params}
    source = _beside(function, path)
    return Request(source, pattern, {**given, **defaults}, prefer=function.__name__)


def _beside(function: Any, path: str | os.PathLike[str]) -> Source:
    """The pattern file, looked for next to the file that the function stands in."""
    home = Path(function.__code__.co_filename)
    return read_source(home.parent / path if home.is_file() else Path(path))


def _signature(function: Any) -> _Signature:
    """Sorts the arguments into parameters and inputs. Raises ``TypeError`` for those that are neither."""
    params: list[tuple[str, str, int | float | bool]] = []
    inputs: list[str] = []
    arguments = list(inspect.signature(function).parameters.values())
    positional = [
        item for item in arguments if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]
    required = [item.name for item in positional if item.default is item.empty]
    if positional and positional[0].name in ("self", "cls"):
        raise TypeError(
            f"{_where(function)}: an attention function is no method and starts with `q, k, v`, but this one "
            f"starts with `{', '.join(map(str, positional))}`; define it outside of the class, or put "
            "`@staticmethod` above the decorator"
        )
    if required != ["q", "k", "v"] or len(positional) > 3:
        raise TypeError(
            f"{_where(function)}: an attention function starts with `q, k, v`, without defaults, and has "
            f"everything else after a `*`; this one starts with `{', '.join(map(str, positional))}`"
        )
    for item in arguments[3:]:
        if item.kind is not item.KEYWORD_ONLY:
            raise TypeError(
                f"{_where(function)}: `{item}` cannot be in an attention function; name every argument"
            )
        if item.name in _PASSED_ON:
            continue
        if item.name in _STATES and item.default is not item.empty:
            raise TypeError(
                f"{_where(function)}: `{item.name}`: a decorated function takes and returns no states; the "
                "one that `attnc.load` gives does"
            )
        kind = _KINDS.get(item.annotation) if isinstance(item.annotation, (type, str)) else None
        if kind is None and item.default is item.empty:
            inputs.append(item.name)
        elif kind is None:
            raise TypeError(
                f"{_where(function)}: `{item.name}` has a default, so it is a parameter, and needs the "
                "annotation int, float or bool; an input tensor has no default"
            )
        else:
            params.append((item.name, kind, _default(function, item, kind)))
    return _Signature(tuple(params), tuple(inputs))


# What the body of a function without statements of its own is compiled to.
_IDLE = frozenset({"RESUME", "NOP", "CACHE", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"})


def _check_body(function: Any) -> None:
    """Raises ``TypeError`` for a coroutine, and for statements that would never run."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{_where(function)}: an attention function is called, not awaited: write `def` in place of "
            "`async def`"
        )
    code = list(dis.get_instructions(function))
    returned = {item.argval for item in code if item.opname in ("LOAD_CONST", "RETURN_CONST")}
    if {item.opname for item in code} - _IDLE or returned - {None, ...}:
        raise TypeError(
            f"{_where(function)}: the pattern takes the place of the function's body, so these statements "
            "would never run; leave only the docstring or `...`, and call the function from another one that "
            "has the rest"
        )


def _default(function: Any, item: inspect.Parameter, kind: str) -> int | float | bool:
    value = item.default
    if value is item.empty:
        raise TypeError(
            f"{_where(function)}: parameter `{item.name}: {kind}` needs a default, which is "
            "compiled at once; an input tensor has no such annotation"
        )
    fits = type(value).__name__ == kind or (kind == "float" and type(value) is int)
    if not fits:
        raise TypeError(
            f"{_where(function)}: the default of `{item.name}: {kind}` is {value!r}, which is no {kind}"
        )
    return float(value) if kind == "float" else value


def _compare_inputs(function: Any, signature: _Signature, wanted: tuple[str, ...]) -> None:
    missing = [name for name in wanted if name not in signature.inputs]
    strange = [name for name in signature.inputs if name not in wanted]
    if not missing and not strange:
        return
    words = []
    if missing:
        words.append(f"the pattern also has the inputs {', '.join(missing)}: add them after the `*`")
    if strange:
        words.append(f"the pattern has no inputs {', '.join(strange)}: leave them out, or declare them there")
    raise TypeError(f"{_where(function)}: the signature's inputs are not the pattern's; {'; '.join(words)}")


def _where(function: Any) -> str:
    code = function.__code__
    return f"{function.__qualname__} ({printable(code.co_filename)}:{code.co_firstlineno})"

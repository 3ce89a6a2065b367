"""Triton's interpreter with memory and race checking: what a GPU may do wrong without telling.

``with checked() as faults:`` looks at every load, store and atomic of the kernels that are launched in it,
without the lanes that are masked off, and writes down in words

- what lies **out of bounds**: an address that is no element of the argument whose pointer it comes from,
- a **race**: what one program loads and another program of the launch stores, whichever ran first,
- an **unequal double store**: two programs of a launch, two lanes of a store, or two stores of a program
  without a barrier between them, that store unequal values to one address,
- an **unfenced read**: what a program loads after it has stored it, without a ``tl.debug_barrier()`` between.

An argument's elements are those that its shape and strides name, and nothing between or around them: a kernel
is handed a view with its strides, and whatever else lies in the view's storage belongs to other tensors or to
other rows. Equal values may be stored twice, because it doesn't matter which comes last. Atomics are no races
among each other, but with loads and stores they are. Lanes out of bounds are not carried out, and load what
masked lanes do.

What is not seen: a program's store after its own load, which is safe where the stored value depends on the
loaded one, as in sums; what lies in shared memory or in registers; and pointers that were loaded from memory,
which count as out of bounds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

import tests.interpreting  # noqa: F401

Kind = Literal["load", "store", "atomic"]
KINDS: tuple[Kind, ...] = ("load", "store", "atomic")
DOES = {"load": "loads", "store": "stores", "atomic": "updates"}  # in words
Cells = NDArray[np.int64]
Flags = NDArray[np.bool_]

# A pointer carries the number of its argument above the 47 bits of an address: whatever is computed from it
# still tells which argument it belongs to, even where it points into another one.
TAG = 48
ADDRESS = np.uint64((1 << TAG) - 1)


class _Touched:
    """Who did one kind of access to each cell of a storage: programs are counted from 1, and 0 is nobody."""

    def __init__(self, cells: int) -> None:
        self.last, self.other, self.epoch = (np.zeros(cells, dtype=np.int32) for _ in range(3))

    def note(self, cells: Cells, program: int, epoch: int) -> None:
        last = self.last[cells]
        moved = (last != program) & (last != 0)
        self.other[cells[moved]] = last[moved]  # always of another program than the last one's
        self.last[cells], self.epoch[cells] = program, epoch

    def others(self, cells: Cells, program: int) -> NDArray[np.int32]:
        """A program other than this one that touched each cell, or 0."""
        last = self.last[cells]
        found: NDArray[np.int32] = np.where(last != program, last, self.other[cells])
        return found

    def unfenced(self, cells: Cells, program: int, epoch: int) -> Flags:
        """What the program itself touched since its last barrier."""
        found: Flags = (self.last[cells] == program) & (self.epoch[cells] == epoch)
        return found


class _Storage:
    """The memory behind some arguments, in cells as large as the smallest of their elements (bytes)."""

    def __init__(self, storage: torch.UntypedStorage, unit: int) -> None:
        self.begin, self.unit, self.count = storage.data_ptr(), unit, storage.nbytes() // unit
        whole = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        self.memory: NDArray[Any] = whole[: self.count * unit].view(f"u{unit}")
        self.touched = {kind: _Touched(self.count) for kind in KINDS}


@dataclass(frozen=True)
class _Argument:
    """A tensor that a kernel is given. own: which of its storage's cells belong to its elements."""

    name: str
    tensor: torch.Tensor
    storage: _Storage
    own: Flags

    def described(self, offset: int) -> str:
        """An element, ``offset`` bytes into the storage, as counted from the argument's pointer."""
        place = offset + self.storage.begin - self.tensor.data_ptr()
        return f"{self.name}[{place // self.tensor.element_size()}]"


def _elements(x: torch.Tensor, unit: int, cells: int) -> Flags:
    """Which cells of its storage a tensor's elements lie in."""
    own = np.zeros(cells, dtype=bool)
    if x.numel():
        places = np.array(x.storage_offset())
        for size, stride in zip(x.shape, x.stride(), strict=True):
            places = places[..., None] + np.arange(size if stride else 1) * stride
        many = x.element_size() // unit
        own[places.reshape(-1, 1) * many + np.arange(many)] = True
    return own


def _arguments(given: Mapping[str, torch.Tensor]) -> list[_Argument]:
    behind: dict[int, list[torch.Tensor]] = {}
    for x in given.values():
        behind.setdefault(x.untyped_storage().data_ptr(), []).append(x)
    storages = {
        begin: _Storage(xs[0].untyped_storage(), min(x.element_size() for x in xs))
        for begin, xs in behind.items()
    }
    found, known = [], {}
    for name, x in given.items():
        storage = storages[x.untyped_storage().data_ptr()]
        view = (storage.begin, x.dtype, x.storage_offset(), x.shape, x.stride())
        if view not in known:  # many arguments stand for what a kernel doesn't need, and are all the same
            known[view] = _elements(x, storage.unit, storage.count)
        found.append(_Argument(name, x, storage, known[view]))
    return found


@dataclass
class _Launch:
    """One launch of a kernel, whose programs run one after another."""

    kernel: str
    arguments: list[_Argument]
    faults: dict[tuple[object, ...], str]
    programs: list[tuple[int, ...]] = field(default_factory=list)
    epoch: int = 0  # of barriers, over all programs
    atomic: bool = False  # whether loads and stores are those of an atomic operation

    def begin_program(self, *index: int) -> None:
        self.programs.append(index)
        self.epoch += 1

    def say(self, kind: str, argument: str, where: Flags, describe: Callable[[int], str]) -> None:
        """Writes down a fault, once for each line of a kernel, with the first of its lanes."""
        if where.any():
            line = _line()
            key = (self.kernel, line, kind, argument)
            said = describe(int(where.argmax()))
            head = f"{self.kernel} ({line}), program {self.programs[-1]}"
            lanes = int(where.sum())
            self.faults.setdefault(key, f"{kind}: {head} {said}{f' and {lanes - 1} more' * (lanes > 1)}")

    def may(self, kind: Kind, pointers: TensorHandle, mask: NDArray[Any], value: Any = None) -> Flags:
        """Judges what the lanes of one operation do; which of them are within bounds."""
        addresses = np.asarray(pointers.data)
        lanes = np.flatnonzero(np.broadcast_to(mask, addresses.shape))
        fine = np.zeros(addresses.size, dtype=bool)
        chosen = addresses.reshape(-1)[lanes]
        numbers = chosen >> np.uint64(TAG)
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        values = None if value is None else np.broadcast_to(value.data, addresses.shape).reshape(-1)[lanes]
        for number in np.unique(numbers) if (numbers != numbers[:1]).any() else numbers[:1]:
            own = numbers == number
            if not 0 < number <= len(self.arguments):
                self.say("out of bounds", "", own, lambda i: f"{DOES[kind]} by a pointer of no argument")
                continue
            argument = self.arguments[int(number) - 1]
            offsets = (chosen[own] & ADDRESS).astype(np.int64) - argument.storage.begin
            inside = self._inside(kind, argument, offsets, size)
            fine[lanes[own][inside]] = True
            stored = None if values is None else values[own][inside]
            self._raced(kind, argument, offsets[inside], size, stored)
        return fine.reshape(addresses.shape)

    def _inside(self, kind: Kind, argument: _Argument, offsets: Cells, size: int) -> Flags:
        storage, x = argument.storage, argument.tensor
        if size < storage.unit:
            raise NotImplementedError(f"{argument.name}: elements of {size} bytes, smaller than the tensor's")
        cells, many = offsets // storage.unit, size // storage.unit
        inside: Flags = (offsets % size == 0) & (cells >= 0) & (cells + many <= storage.count)
        for more in range(many):
            inside[inside] = argument.own[cells[inside] + more]

        def describe(i: int) -> str:
            element = argument.described(int(offsets[i]))
            return f"{DOES[kind]} {element} of {tuple(x.shape)}, strides {x.stride()}"

        self.say("out of bounds", argument.name, ~inside, describe)
        return inside

    def _raced(
        self, kind: Kind, argument: _Argument, offsets: Cells, size: int, values: NDArray[Any] | None
    ) -> None:
        """Holds what is done to cells against what was done before, and notes it.

        values: what a store is going to leave there.
        """
        storage, program = argument.storage, len(self.programs)
        many = size // storage.unit
        cells = (offsets[:, None] // storage.unit + np.arange(many)).reshape(-1)
        changed = np.ones(len(cells), dtype=bool)
        if values is not None:
            bits = np.ascontiguousarray(values).view(storage.memory.dtype)
            changed = storage.memory[cells] != bits

        def against(fault: str, done: Kind, where: Flags | bool, said: str) -> None:
            others = storage.touched[done].others(cells, program)

            def describe(i: int) -> str:
                name, other = argument.described(int(cells[i]) * storage.unit), self.programs[others[i] - 1]
                return f"{DOES[kind]} {name}, {said} program {other} {DOES[done]}"

            self.say(fault, argument.name, (others != 0) & where, describe)

        def unfenced(done: Kind, fault: str, where: Flags | bool) -> None:
            found = storage.touched[done].unfenced(cells, program, self.epoch) & where

            def describe(i: int) -> str:
                name = argument.described(int(cells[i]) * storage.unit)
                return f"{DOES[kind]} {name} after its own {done}, without a barrier"

            self.say(fault, argument.name, found, describe)

        for done in KINDS:
            if done != kind:
                against("race", done, True, "which")
        if kind == "store":
            against("unequal double store", "store", changed, "to which another value")
            unfenced("store", "unequal double store", changed)
            unfenced("atomic", "unequal double store", True)
            self._collided(argument, cells, storage.memory[cells] if values is None else bits)
        else:
            unfenced("store", "unfenced read", True)
        if kind == "load":
            unfenced("atomic", "unfenced read", True)
        storage.touched[kind].note(cells, program, self.epoch)

    def _collided(self, argument: _Argument, cells: Cells, bits: NDArray[Any]) -> None:
        """Lanes of one store that leave unequal values in one cell."""
        _, first, lane = np.unique(cells, return_index=True, return_inverse=True)
        unit = argument.storage.unit
        self.say(
            "unequal double store",
            argument.name,
            bits != bits[first[lane]],
            lambda i: f"stores {argument.described(int(cells[i]) * unit)} by lanes with unequal values",
        )


def _line() -> str:
    """Where in the kernel's own text the interpreter is: file and line."""
    own = (str(Path(triton.__file__).parent), __file__)
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class Faults(list[str]):
    """What is wrong, in words. kernels: how often which was launched."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()


@contextmanager
def checked() -> Iterator[Faults]:
    """Whatever is launched in here is checked; the list holds the faults once this is left.

    A fault is reported once for each line of a kernel and each argument. It names the kind of fault, kernel,
    line, program, argument and element, which is counted from the argument's pointer.
    """
    found = Faults()
    faults: dict[tuple[object, ...], str] = {}
    launch = _Launch("", [], faults)
    numbers: dict[int, int] = {}  # of arguments, by the identity of the tensors that the launch keeps
    given = GridExecutor._init_args_hst
    converted, adapted = interpreter._implicit_cvt, interpreter._patch_lang
    adapting: set[int] = set()  # the globals of functions for which this launch has replaced the language
    begun = InterpreterBuilder.set_grid_idx
    loaded, stored = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    updated, swapped = InterpreterBuilder.create_atomic_rmw, InterpreterBuilder.create_atomic_cas

    def give(self: Any, args: Any, kwargs: Any) -> Any:
        nonlocal launch
        args, kwargs = given(self, args, kwargs)
        named = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        tensors = {name: x for name, x in named.items() if isinstance(x, torch.Tensor)}
        launch = _Launch(self.fn.__name__, _arguments(tensors), faults)
        found.kernels[launch.kernel] += 1
        adapting.clear()
        numbers.clear()
        numbers.update({id(x): i for i, x in enumerate(tensors.values(), 1)})
        return args, kwargs

    def convert(arg: Any) -> Any:
        value = converted(arg)
        if id(arg) in numbers:
            value.handle.data = value.handle.data + np.uint64(numbers[id(arg)] << TAG)
        return value

    def adapt(function: Any) -> Any:
        """The interpreter does this anew for each call of each function, in vain but for the first."""
        if id(function.__globals__) in adapting:
            return None
        adapting.add(id(function.__globals__))
        return adapted(function)

    def begin(self: Any, *index: int) -> None:
        begun(self, *index)
        launch.begin_program(*index)

    def barrier(self: Any) -> None:
        launch.epoch += 1

    def plain(pointers: TensorHandle) -> TensorHandle:
        return TensorHandle(pointers.data & ADDRESS, pointers.dtype)

    def load(self: Any, pointers: TensorHandle, mask: TensorHandle, *more: Any, **named: Any) -> Any:
        kind: Kind = "atomic" if launch.atomic else "load"
        fine = TensorHandle(launch.may(kind, pointers, mask.data), triton.language.int1)
        return loaded(self, plain(pointers), fine, *more, **named)

    def store(
        self: Any, pointers: TensorHandle, value: Any, mask: TensorHandle, *more: Any, **named: Any
    ) -> Any:
        kind: Kind = "atomic" if launch.atomic else "store"
        fine = TensorHandle(launch.may(kind, pointers, mask.data, value), triton.language.int1)
        return stored(self, plain(pointers), value, fine, *more, **named)

    def update(self: Any, how: Any, pointers: TensorHandle, value: Any, mask: Any, *more: Any) -> Any:
        fine = TensorHandle(launch.may("atomic", pointers, mask.data), triton.language.int1)
        return updated(self, how, plain(pointers), value, fine, *more)

    def swap(self: Any, pointers: TensorHandle, *more: Any) -> Any:
        if not launch.may("atomic", pointers, np.ones_like(pointers.data, dtype=bool)).all():
            raise IndexError("; ".join(faults.values()))  # there is no mask that could leave lanes out
        return swapped(self, plain(pointers), *more)

    def atomically(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            launch.atomic = True
            try:
                return original(*args, **named)
            finally:
                launch.atomic = False

        return run

    replaced: dict[str, Callable[..., Any]] = {
        "set_grid_idx": begin,
        "create_barrier": barrier,
        "create_masked_load": load,
        "create_masked_store": store,
        "create_atomic_rmw": update,
        "create_atomic_cas": swap,
    }
    for name in ("create_atomic_load", "create_atomic_store", "create_atomic_poll"):  # of newer Tritons
        if hasattr(InterpreterBuilder, name):
            replaced[name] = atomically(getattr(InterpreterBuilder, name))
    with ExitStack() as stack:
        stack.enter_context(patch.object(GridExecutor, "_init_args_hst", give))
        stack.enter_context(patch.object(interpreter, "_implicit_cvt", convert))
        stack.enter_context(patch.object(interpreter, "_patch_lang", adapt))
        for name, function in replaced.items():
            stack.enter_context(patch.object(InterpreterBuilder, name, function))
        try:
            yield found
        finally:
            found.extend(faults.values())

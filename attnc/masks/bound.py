"""A pattern that brings the tensors it hangs on: what masks from elsewhere become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from attnc import runtime

# A size of a table: the length, the number of heads, blocks of so many tokens, or a number.
Size = str | int | tuple[str, int]


@dataclass(frozen=True)
class Table:
    """A tensor with the sizes that its axes stand for: ``"n"``, ``"H"``, ``("block", size)`` or a number.

    batched: whether another axis, the batch, is in front of those.
    """

    tensor: torch.Tensor
    sizes: tuple[Size, ...]
    batched: bool = False

    @property
    def kind(self) -> str:
        if self.tensor.dtype.is_floating_point:
            return "float"
        return "bool" if self.tensor.dtype == torch.bool else "int"

    def declared(self, name: str) -> str:
        """The table as an item of a pattern."""
        shown = []
        for size in self.sizes:
            shown.append(f"(n + {size[1] - 1}) / {size[1]}" if isinstance(size, tuple) else str(size))
        return f"input {name}: {self.kind}[{', '.join(shown)}]"

    @property
    def length(self) -> int | None:
        """For how many keys it suffices; None if for any number."""
        for axis, size in enumerate(self.sizes, int(self.batched)):
            if size == "n" or isinstance(size, tuple):
                return self.tensor.shape[axis] * (size[1] if isinstance(size, tuple) else 1)
        return None

    @property
    def heads(self) -> int | None:
        """For how many heads it is; None if for any number."""
        axes = enumerate(self.sizes, int(self.batched))
        return next((self.tensor.shape[axis] for axis, size in axes if size == "H"), None)

    def cut(self, name: str, n: int, device: torch.device) -> torch.Tensor:
        """The table for ``n`` keys: entries of tokens that are not there are left out."""
        tensor = self.tensor if self.tensor.device == device else self.tensor.to(device)
        for axis, size in enumerate(self.sizes, int(self.batched)):
            wanted = n if size == "n" else -(-n // size[1]) if isinstance(size, tuple) else None
            if wanted is None:
                continue
            if tensor.shape[axis] < wanted:
                raise ValueError(
                    f"`{name}` has {tensor.shape[axis]} entries, and {n} keys read {wanted} of them; "
                    f"give a longer one by name: `{name}=…`"
                )
            tensor = tensor.narrow(axis, 0, wanted)
        return tensor


@dataclass(frozen=True, eq=False)
class BoundPattern:
    """An attention function, made from a mask.

    source: the pattern, as the text of a ``.attn`` file.
    name: the pattern's name.
    tables: the tensors that its inputs get when a call gives no others.
    notes: what should be known about how it was made.
    """

    source: str
    name: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Whatever is wrong with the pattern is said where it is made.
        object.__setattr__(self, "_function", runtime.load(self.source))

    @property
    def __name__(self) -> str:
        return self.name

    def inputs(self, n: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """The tensors that go with ``n`` keys, by name."""
        device = torch.device(device)
        return {name: table.cut(name, n, device) for name, table in self.tables.items()}

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        scale: float | None = None,
        backend: str | None = None,
        **inputs: torch.Tensor,
    ) -> torch.Tensor:
        """Attention over the pattern's edges; arguments and result as of a function from ``attnc.load``.

        inputs: tensors in place of those that the pattern brings. Raises ``TypeError`` for a name that is no
        input of the pattern, ``ValueError`` for a table that is too short.
        """
        if unknown := sorted(inputs.keys() - self.tables.keys()):
            known = ", ".join(f"`{name}`" for name in self.tables) or "none"
            raise TypeError(f"{self.name}: no input is called `{unknown[0]}`; its inputs are {known}")
        bound = {
            name: table.cut(name, k.shape[2], k.device)
            for name, table in self.tables.items()
            if name not in inputs
        }
        found: torch.Tensor = self._function(q, k, v, **bound, **inputs, scale=scale, backend=backend)  # type: ignore[attr-defined]
        return found

    def mask(self, n: int, heads: int = 1, n_q: int | None = None) -> torch.Tensor:
        """The dense mask, as ``attnc.mask`` gives it: bool of shape (heads, n_q, n), perhaps with a batch."""
        return runtime.mask(self.source, n, heads, inputs=self.inputs(n), n_q=n_q)

    def _repr_html_(self) -> str:
        """For notebooks: facts beside a picture, as long as the tensors that it brings."""
        from attnc.drawing.picture import picture
        from attnc.reach import telling_length

        report = runtime.check(self.source)
        if not report.patterns:
            return report.html()
        made = report.patterns[0].made
        lengths = [table.length for table in self.tables.values()]
        n = min((length for length in lengths if length is not None), default=telling_length(made.pattern))
        heads = next((table.heads for table in self.tables.values() if table.heads is not None), None)
        tensors = {
            name: tensor[0] if self.tables[name].batched else tensor
            for name, tensor in self.inputs(n).items()
            if not tensor.dtype.is_floating_point  # floats choose no edges
        }
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return report.html(picture(made.pattern, made.bodies, n, heads=heads, inputs=arrays))

    def __repr__(self) -> str:
        tables = "".join(f", {name}: {tuple(table.tensor.shape)}" for name, table in self.tables.items())
        return f"<pattern {self.name}{tables}>"

    def __reduce__(self) -> Any:
        return BoundPattern, (self.source, self.name, self.tables, self.notes)

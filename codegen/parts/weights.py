"""Gradients of what weighs edges, for every pattern alike: sums of the scores' gradients, by entry."""

from __future__ import annotations

import torch

WEIGHING, INPUTS = {}, {}
_WEIGHTS = ()


def _head_sets(heads): ...
def _batched(x, name, n, heads): ...


# --- begin: totals ---


class _Totals:
    """The gradients of the inputs that weigh edges, while they are added up: (batch or 1, …) tables."""

    def __init__(self, inputs, tables):
        self.inputs = inputs
        self.of = {name: torch.zeros_like(tables[name]) for name in WEIGHING.values()}

    def add(self, name, index, values):
        """Adds (entries, …) values to the entries of a table at ``index``, which broadcasts to (…).

        entries: of the batch, or one of them where the table has them apart. In a fixed order.
        """
        total = self.of[name]
        place = torch.zeros((), dtype=torch.int64, device=values.device)
        for at, size in zip(index, total.shape[1:], strict=True):
            place = place * size + torch.as_tensor(at, device=values.device).clamp(0, max(size - 1, 0))
        while place.dim() < values.dim() - 1:
            place = place[None]
        values = values.sum_to_size(total.shape[0] if total.shape[0] > 1 else 1, *place.shape).to(total.dtype)
        flat, place = total.view(total.shape[0], -1), place.flatten()
        if values.device.type == "cpu":
            flat.scatter_add_(1, place.expand(flat.shape[0], -1), values.flatten(1))
        else:  # sorted by place first, and so the same every time
            for row, own in zip(flat, values.flatten(1), strict=True):
                row.index_put_((place,), own, accumulate=True)

    def add_sinks(self, lse, delta):
        """A sink has a weight, but no value: what its logarithm gets is ``-weight * delta``."""
        if "sinks" in self.of:
            sinks = self.inputs[-1][..., None].to(lse.dtype)
            weights = torch.exp(sinks - lse).masked_fill(lse == float("-inf"), 0.0)
            self.of["sinks"] -= (weights * delta).sum(2).sum_to_size(self.of["sinks"].shape)

    def results(self):
        """One for each of ``WEIGHING``, in the shapes and dtypes of the inputs."""
        return [
            self.of[name].reshape(self.inputs[i].shape).to(self.inputs[i].dtype)
            for i, name in WEIGHING.items()
        ]


# --- begin: sinks ---


def _leading(name, inputs, heads):
    """An input as (batch or 1, …); differentiable."""
    x = inputs[name]
    return x if x.dim() > len(INPUTS[name][1](1, heads, 1)) else x[None]


def _by_head(bodies, heads, dtype, device):
    """What a body's function gives for its heads, or minus infinity if it has none: (batch or 1, heads)."""
    parts, order = [], []
    for numbers, value in zip(_head_sets(heads), bodies, strict=True):
        h = torch.tensor(numbers, dtype=torch.int64, device=device)
        part = torch.full((1, 1), float("-inf"), dtype=dtype) if value is None else value(h)
        part = part.to(device)
        parts.append(torch.broadcast_to(part, (part.shape[0] if part.dim() == 2 else 1, len(numbers))))
        order += numbers
    batch = max(part.shape[0] for part in parts)
    places = sorted(range(heads), key=order.__getitem__)
    return torch.cat([part.expand(batch, -1) for part in parts], 1)[:, places]


# --- begin: launch ---


class _EntrySums:
    """Sums over rows and columns that the gradient kernels keep for the entries of weights."""

    def __init__(self, call):
        def sums(kind, length):
            most = max(sum(entry[1] == kind for entry in entries) for *_, entries in _WEIGHTS)
            shape = (call.batch, call.heads, length)
            return {f"d_{kind}{i}": torch.zeros(shape, device=call.device) for i in range(most)}

        self.rows, self.columns = sums("row", call.n_q), sums("column", call.n)

    def add_to(self, totals, call):
        """Brings the sums to the entries that they belong to."""
        q = torch.arange(call.n - call.n_q, call.n, device=call.device)
        k = torch.arange(call.n, device=call.device)
        for numbers, (*_, entries) in zip(_head_sets(call.heads), _WEIGHTS, strict=True):
            h = torch.tensor(numbers, device=call.device)[:, None]
            found = {"row": iter(self.rows.values()), "column": iter(self.columns.values())}
            for name, kind, index in entries:
                if kind in found:
                    values = next(found[kind])[:, numbers]
                    totals.add(name, index(q, k, h, call.n, call.heads, call.tables), values)


# --- end ---

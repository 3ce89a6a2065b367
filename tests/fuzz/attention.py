"""What a pattern computes, densely: masks, scores, kernels and decays as ``meaning.py`` reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from attnc import syntax as tree
from tests.fuzz.meaning import At, Meaning

Tensor = torch.Tensor


@dataclass(frozen=True)
class Call:
    """One call's tensors. scale: of the products, as the call says it or by default."""

    q: Tensor
    k: Tensor
    v: Tensor
    inputs: Mapping[str, Tensor]
    scale: float | None
    least: float = 0.0  # a sum of weights of linear attention that is less is one of nothing


@dataclass(frozen=True)
class Row:
    """Exact numbers of one call and body: dtype of storage, and what noise there is."""

    meaning: Meaning
    stored: torch.dtype
    heads: Any
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    least: float


def attention(text: str, call: Call, stored: torch.dtype, noise: float = 0.0, seed: int = 0) -> Tensor:
    """The output (batch, heads, n_q, values), with gradients to everything.

    stored: the dtype that tensors have; fp64 for the exact result. Halves are multiplied as they are, added
    up in fp32, and rounded to halves where they would be stored: the weights, and the output.
    """
    wide = torch.float64 if stored == torch.float64 else torch.float32
    batch, heads, n_q, dim = call.q.shape
    meaning = Meaning(text, call.inputs, heads, wide, noise, seed)
    group = heads // call.k.shape[1]
    q = meaning.off(call.q.to(stored).to(wide))
    k, v = (meaning.off(x.to(stored).to(wide)).repeat_interleave(group, 1) for x in (call.k, call.v))
    scale = dim**-0.5 if call.scale is None else call.scale
    out = torch.zeros(batch, heads, n_q, v.shape[3], dtype=stored)
    for members, items in bodies(meaning, heads):
        if not members:
            continue
        some = torch.tensor(members)
        own = [item for item in items if isinstance(item, tree.Let)]
        before = dict(meaning.lets)
        meaning.lets |= {item.name.text: item.value for item in own}
        row = Row(meaning, stored, np.array(members), q[:, some], k[:, some], v[:, some], scale, call.least)
        out = out.index_copy(1, some, _body(row, items).to(stored))
        meaning.lets = before
    return out


def bodies(meaning: Meaning, heads: int) -> list[tuple[list[int], tuple[tree.Item, ...]]]:
    """For every body its heads, and its items with those for all heads that it has none of its own for."""
    items = meaning.pattern.items
    shared = tuple(item for item in items if isinstance(item, tree.Weight))
    bodies = [item for item in items if isinstance(item, tree.Heads)]
    if not bodies:
        return [(list(range(heads)), items)]
    chosen = [_selected(meaning, body.selector, heads) for body in bodies]
    named = {head for some in chosen if some is not None for head in some}
    found = []
    for some, body in zip(chosen, bodies, strict=True):
        own = {item.word.text for item in body.items if isinstance(item, tree.Weight)}
        inherited = tuple(item for item in shared if item.word.text not in own)
        rest = [head for head in range(heads) if head not in named]
        found.append((rest if some is None else some, (*body.items, *inherited)))
    return found


def _selected(meaning: Meaning, selector: Any, heads: int) -> list[int] | None:
    at = At(0, 0, 0, 0, 0)
    match selector:
        case tree.Name("even"):
            return list(range(0, heads, 2))
        case tree.Name("odd"):
            return list(range(1, heads, 2))
        case tree.Name("rest"):
            return None
        case tree.Range(first, last):
            return list(range(int(meaning.value(first, at)), int(meaning.value(last, at))))
        case tree.Listing(items):
            return [int(meaning.value(item, at)) for item in items]
    raise TypeError(f"no heads in {selector}")


# --- one body -------------------------------------------------------------------------------------------


def _positions(row: Row) -> At:
    """All pairs, as arrays (batch, heads, n_q, n) that broadcast."""
    batch, _, n_q, _ = row.q.shape
    n = row.k.shape[2]
    return At(
        np.arange(batch)[:, None, None, None],
        row.heads[None, :, None, None],
        np.arange(n - n_q, n)[None, None, :, None],
        np.arange(n)[None, None, None, :],
        n,
    )


def _edges(row: Row, relation: tree.Expression, at: At | None = None) -> Tensor:
    at = at or _positions(row)
    shape = np.broadcast_shapes(*(np.shape(x) for x in (at.b, at.h, at.q, at.k)))
    return torch.from_numpy(np.array(np.broadcast_to(row.meaning.value(relation, at), shape)))


def _body(row: Row, items: Iterable[tree.Item]) -> Tensor:
    weights = {item.word.text: item for item in items if isinstance(item, tree.Weight)}
    parts = [item for item in items if isinstance(item, tree.Attend)]
    if "update" in weights:
        return _delta(row, weights, parts[0].relation)
    normalize = weights["normalize"].mode if "normalize" in weights else None
    if normalize is not None and normalize.text == "none":
        return _times(row, _parts(row, weights, parts)[1][0], row.v)
    sink = _sink(row, weights)
    out, logs = _normalized(row, *_parts(row, weights, parts), sink)
    if not row.meaning.noise:
        return out
    # Gradients come from weights that are computed again, with other noise, and divided by that sum.
    off = row.meaning.off
    row = replace(row, q=off(row.q), k=off(row.k))
    again, logs_again = _normalized(row, *_parts(row, weights, parts), sink)
    apart = (logs_again - logs).detach()
    apart = torch.where(
        apart.abs() < 1, apart, 0.0
    )  # of scores like finfo.min nothing but their sign is left
    # From each weight's gradient a sum over gradient times output is subtracted, with a rounding of its own.
    logs_again = torch.where(logs_again.isfinite(), logs_again, 0.0)
    subtracted = off(torch.ones_like(again)) - 1.0
    apart = apart[..., None] + subtracted * (logs_again - logs_again.detach())[..., None]
    again = again * torch.exp(apart)
    return out.detach() + (again - again.detach())


def _parts(
    row: Row, weights: Mapping[str, tree.Weight], parts: list[tree.Attend]
) -> tuple[list[Tensor], list[Tensor]]:
    """What softmax takes of every edge, and the products of features, of all parts that have them."""
    logits, products = [], []
    for part in parts:
        edges = _edges(row, part.relation)
        own = part.weight.word.text if part.weight is not None else ""
        if own == "kernel" or (not own and "kernel" in weights):
            kernel = part.weight if own else weights["kernel"]
            assert kernel is not None and kernel.value is not None
            products.append(_products(row, kernel.value, weights, edges))
        else:
            value = part.weight.value if own == "score" and part.weight is not None else None
            if not own and "score" in weights:
                value = weights["score"].value
            logits.append(_scores(row, value, edges))
    return logits, products


def _sink(row: Row, weights: Mapping[str, tree.Weight]) -> Tensor | None:
    if "sink" not in weights:
        return None
    at = At(np.arange(row.q.shape[0])[:, None, None], row.heads[None, :, None], 0, 0, row.k.shape[2])
    value = weights["sink"].value
    assert value is not None
    flat = replace(at, b=np.repeat(np.arange(row.q.shape[0]), len(row.heads)),
                   h=np.tile(row.heads, row.q.shape[0]), q=np.int64(0), k=np.int64(0))  # fmt: skip
    found = row.meaning.real(row.meaning.value(value, flat))
    return found.expand(len(flat.b)).reshape(row.q.shape[0], len(row.heads), 1)


def _scores(row: Row, score: tree.Expression | None, edges: Tensor) -> Tensor:
    """(batch, heads, n_q, n): the score of every edge, minus infinity elsewhere."""
    s = row.meaning.off((row.q @ row.k.transpose(2, 3)) * row.scale)
    where = edges.nonzero(as_tuple=True)
    found = s[where]
    if score is not None:
        b, h, q, k = (x.numpy() for x in where)
        n, n_q = row.k.shape[2], row.q.shape[2]
        at = At(b, row.heads[h], q + n - n_q, k, n, s=found)
        found = row.meaning.real(row.meaning.value(score, at)).expand(found.shape)
    return torch.full(edges.shape, -torch.inf, dtype=s.dtype).index_put(where, found)


def _normalized(
    row: Row, logits: list[Tensor], products: list[Tensor], sink: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Values by weights divided by their sum, and its logarithm; both are zero in rows of no weight."""
    shape = row.q.shape[:3]
    top = torch.full(shape, -torch.inf, dtype=row.q.dtype)
    for x in products:
        if x.shape[3]:  # beside weights that are nothing scores are compared with scores alone
            top = torch.where((x != 0).any(3), 0.0, top)
    for x in logits:
        if x.shape[3]:
            top = torch.maximum(top, x.detach().amax(3))
    drowned = torch.zeros(shape, dtype=torch.bool)
    if sink is not None:
        drowned = (sink == torch.inf).expand(shape)  # nothing is left beside an infinite sink
        sink = torch.where(sink == torch.inf, 0.0, sink)
        top = torch.maximum(top, sink.detach().expand(shape))
    some = top > -torch.inf
    base = torch.where(some, top, 0.0)
    weights = [torch.exp(x - base[..., None]) for x in logits]
    weights += [x * torch.exp(-base)[..., None] for x in products]
    total = torch.stack([row.meaning.off(x).sum(3) for x in weights]).sum(0)
    if sink is not None:
        total = total + torch.exp(sink - base)
    if products:
        filled = [x != 0 for x in weights]
        some = torch.stack([x.any(3) for x in filled]).any(0) if sink is None else torch.ones_like(some)
        if not logits:
            some = some & (total.abs() >= row.least)
    divisor = torch.where(some, total, 1.0)
    out = sum(_times(row, x / divisor[..., None], row.v) for x in weights)
    assert isinstance(out, Tensor)
    some = some & ~drowned
    return torch.where(some[..., None], out, 0.0), torch.where(some, base + torch.log(divisor.abs()), 0.0)


def _times(row: Row, weights: Tensor, values: Tensor) -> Tensor:
    return row.meaning.off(row.meaning.off(weights).to(row.stored).to(weights.dtype) @ values)


# --- linear attention -----------------------------------------------------------------------------------


def _features(row: Row, kernel: tree.Expression, x: Tensor) -> Tensor:
    """The features of (…, dim) vectors, where they can be listed."""
    kernel = tree.ungroup(kernel)
    if isinstance(kernel, tree.Call) and kernel.name.text == "cosine":
        return torch.relu(x)
    if isinstance(kernel, tree.Call) and kernel.name.text == "favor":
        count, seed = (int(row.meaning.value(arg.value, At(0, 0, 0, 0, 0))) for arg in kernel.args)
        x = x * abs(row.scale) ** 0.5
        directions = _directions(count, x.shape[-1], seed).to(x.dtype)
        return (
            row.meaning.off(torch.exp(x @ directions.T - x.square().sum(-1, keepdim=True) / 2)) * count**-0.5
        )
    return row.meaning.real(row.meaning.value(kernel, At(0, 0, 0, 0, 0, x=x))).expand(x.shape)


def _directions(count: int, dim: int, seed: int) -> Tensor:
    """Rows that are orthogonal in blocks of ``dim``, and as long as normal vectors."""
    generator = torch.Generator().manual_seed(seed)
    blocks: list[Tensor] = []
    while len(blocks) * dim < count:
        rows, upper = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
        rows = rows * upper.diagonal().sign()
        lengths = torch.randn(dim, dim, generator=generator, dtype=torch.float64).norm(dim=1)
        blocks.append(rows.T * lengths[:, None])
    return torch.cat(blocks)[:count]


def _products(row: Row, kernel: tree.Expression, weights: Mapping[str, tree.Weight], edges: Tensor) -> Tensor:
    """The weight of every pair, zero where there is no edge."""
    inner = tree.ungroup(kernel)
    named = inner.name.text if isinstance(inner, tree.Call) else ""
    normalize = weights["normalize"].mode if "normalize" in weights else None
    undivided = normalize is not None and normalize.text == "none"
    off = row.meaning.off
    if named == "taylor" and "decay" not in weights:
        s = off(row.q @ row.k.transpose(2, 3) * row.scale)
        return off(torch.where(edges, 1 + s + s * s / 2, 0.0))
    if named == "taylor":
        root = abs(row.scale) ** 0.5

        def features(x: Tensor) -> Tensor:
            x = x * root
            pairs = (x[..., :, None] * x[..., None, :]).flatten(-2) * 0.5**0.5
            return torch.cat([torch.ones_like(x[..., :1]), x, pairs], -1)

        phi_q, phi_k = features(row.q), features(row.k)
    else:
        phi_q, phi_k = (off(_features(row, kernel, x)) for x in (row.q, row.k))
        if undivided and named not in ("taylor", "favor"):
            phi_q = phi_q * row.scale
    return _passed(row, weights, phi_q, phi_k, edges) * _turned(row, kernel, _positions(row))


def _turned(row: Row, kernel: tree.Expression, at: At) -> Tensor | float:
    """The cosine of distances, where a kernel has one."""
    inner = tree.ungroup(kernel)
    if not isinstance(inner, tree.Call) or inner.name.text != "cosine":
        return 1.0
    length = int(row.meaning.value(inner.args[0].value, At(0, 0, 0, 0, 0)))
    return torch.from_numpy(np.cos((at.q - at.k) * (math.pi / 2 / length))).to(row.q.dtype)


def _gates(row: Row, decay: tree.Weight) -> Tensor:
    """What is multiplied at every position, as a logarithm: (batch or 1, heads, n, dim or 1)."""
    assert decay.value is not None
    meaning, node, n = row.meaning, tree.ungroup(decay.value), row.k.shape[2]
    some = torch.from_numpy(row.heads)
    if isinstance(node, tree.Name) and node.name in meaning.declared:
        rank = len(meaning.declared[node.name].shape)
        table = meaning.off(meaning.inputs[node.name].to(meaning.dtype))
        table = table if table.dim() > rank else table[None]
        if rank == 1:
            return table[:, some, None, None].expand(-1, -1, n, -1)
        table = table[:, :, some].transpose(1, 2)
        return table[..., None] if rank == 2 else table
    found = meaning.real(meaning.value(decay.value, At(0, row.heads, 0, 0, n)))
    return found.expand(len(row.heads))[None, :, None, None].expand(-1, -1, n, -1)


def _decayed(
    row: Row, weights: Mapping[str, tree.Weight], phi_q: Tensor, phi_k: Tensor, edges: Tensor
) -> Tensor:
    """Weights times the product of the gates between; what is passed on from key to query, step by step."""
    decay = weights["decay"]
    exclusive = decay.mode is not None
    gates = _gates(row, decay)
    n, n_q = phi_k.shape[2], phi_q.shape[2]
    rows, logs = [], torch.zeros_like(phi_k[..., :1] if gates.shape[3] == 1 else phi_k)
    positions = torch.arange(n)
    for t in range(n):
        begun = logs
        logs = torch.where((positions < t)[:, None], logs + gates[:, :, t : t + 1], logs)
        if t < n - n_q:
            continue
        # An exclusive decay leaves out the query's own gate, and its own position.
        faded = torch.exp(begun if exclusive else logs)
        query = phi_q[:, :, t - (n - n_q), None]
        rows.append((query * phi_k * faded).sum(3))
    batch, heads = phi_q.shape[:2]
    found = torch.stack(rows, 2) if rows else phi_q.new_zeros(batch, heads, n_q, n)
    found = row.meaning.off(found)
    own = (positions[None, :] == torch.arange(n - n_q, n)[:, None])[None, None]
    found = torch.where(edges & ~own if exclusive else edges, found, 0.0)
    if "bonus" in weights:
        node = weights["bonus"].value
        assert isinstance(node, tree.Name)
        table = row.meaning.inputs[node.name].to(found.dtype)
        table = (table if table.dim() == 3 else table[None])[:, torch.from_numpy(row.heads), None]
        found = found + torch.where(
            edges & own, row.meaning.off((phi_q * table) @ phi_k.transpose(2, 3)), 0.0
        )
    return found


def _delta(row: Row, weights: Mapping[str, tree.Weight], relation: tree.Expression) -> Tensor:
    """The delta rule: a key takes off what it recalls of the keys before it that its position reads."""
    call, kernel = tree.ungroup(weights["update"].value), weights["kernel"].value  # type: ignore[arg-type]
    assert isinstance(call, tree.Call) and isinstance(call.args[0].value, tree.Name) and kernel is not None
    off, some = row.meaning.off, torch.from_numpy(row.heads)
    phi_q, phi_k = (off(_features(row, kernel, x)) for x in (row.q, row.k))
    beta = row.meaning.inputs[call.args[0].value.name].to(phi_q.dtype)
    beta = off((beta if beta.dim() == 3 else beta[None])[:, :, some].transpose(1, 2))[..., None]
    n = phi_k.shape[2]
    every = replace(_positions(row), q=np.arange(n)[None, None, :, None])
    recalled = _passed(row, weights, phi_k, phi_k, _edges(row, relation, every)) * _turned(row, kernel, every)
    stored = torch.zeros_like(row.v)[:, :, :0]
    for t in range(n):
        known = off(recalled[:, :, t : t + 1, :t] @ stored)
        own = off(beta[:, :, t : t + 1] * (row.v[:, :, t : t + 1] - known))
        stored = torch.cat([stored, own], 2)
    passed = _passed(row, weights, phi_q, phi_k, _edges(row, relation)) * _turned(
        row, kernel, _positions(row)
    )
    return _times(row, passed * row.scale, stored)


def _passed(
    row: Row, weights: Mapping[str, tree.Weight], phi_q: Tensor, phi_k: Tensor, edges: Tensor
) -> Tensor:
    if "decay" in weights:
        return _decayed(row, weights, phi_q, phi_k, edges)
    return torch.where(edges, row.meaning.off(phi_q @ phi_k.transpose(2, 3)), 0.0)

"""The dense interpreter: what a pattern means, computed in the plainest way. The oracle of every test.

``mask`` reads a pattern's relations as they were written and never looks at terms, tiles or schedules, so it
shares no mistake with the compiler. Memory is heads * queries * keys: this is for checking, not for work.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import DIM, Expr
from attnc.notation import show
from attnc.pattern import Input, Pattern, formula

if TYPE_CHECKING:
    import torch

Bools = npt.NDArray[np.bool_]

# Entries of a mask; what it is computed from takes up to ten times as many bytes.
LARGEST_MASK = 1 << 28

_KINDS = {"bool": np.bool_, "int": np.integer, "float": np.floating}


def mask(
    pattern: Pattern,
    n: int,
    heads: int = 1,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
    n_q: int | None = None,
) -> Bools:
    """Which query reads which key: bool of shape (heads, n_q, n), True for an edge.

    n: number of keys. n_q: number of queries, at most n (default: n); the queries are the last positions.
    inputs: for every ``input`` of the pattern an array of the declared kind and shape, or with one more axis,
    the batch, in front; then the answer is (batch, heads, n_q, n).

    Raises ValueError or TypeError with the argument, what was given and what is wanted: for impossible
    lengths, for masks of more than ``LARGEST_MASK`` entries, for missing, superfluous or misshapen inputs,
    and for a head that no ``heads`` clause covers or more than one does.
    """
    n, heads = _size(pattern, "n", n, 0), _size(pattern, "heads", heads, 1)
    n_q = n if n_q is None else _size(pattern, "n_q", n_q, 0)
    if n_q > n:
        raise ValueError(
            f"a mask of `{pattern.name}`: n_q must be at most n = {n}, not {n_q}; queries are the last of "
            "the keys' positions"
        )
    _check_total(pattern, heads, n_q, n)
    return rows(pattern, np.arange(n - n_q, n, dtype=np.int64), n, heads, inputs)


def rows(
    pattern: Pattern,
    positions: npt.NDArray[np.int64],
    n: int,
    heads: int = 1,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
) -> Bools:
    """The rows of ``mask`` for some query positions alone: bool of shape (heads, len(positions), n).

    positions: integers in ``0 .. n - 1``. Everything else, errors included, as in ``mask``.
    """
    if positions.size and not 0 <= positions.min() <= positions.max() < n:
        raise ValueError(
            f"query positions lie in 0 .. {n - 1}, not in {positions.min()} .. {positions.max()}"
        )
    tables, batch = check_inputs(pattern, n, heads, inputs or {})
    bodies = head_bodies(pattern, heads)
    _check_total(pattern, *(() if batch is None else (batch,)), heads, positions.size, n)
    if batch is None:
        return _dense(pattern, n, positions, heads, bodies, tables)
    ranks = {given.name: len(given.shape) for given in pattern.inputs}
    singles = [
        {
            name: table[min(entry, table.shape[0] - 1)] if table.ndim > ranks[name] else table
            for name, table in tables.items()
        }
        for entry in range(batch)
    ]
    found = np.zeros((batch, heads, positions.size, n), dtype=np.bool_)
    for entry, single in enumerate(singles):
        found[entry] = _dense(pattern, n, positions, heads, bodies, single)
    return found


def _size(pattern: Pattern, name: str, value: object, least: int) -> int:
    try:
        found = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"a mask of `{pattern.name}`: {name} must be an integer, not {value!r:.60}")
    if found < least:
        raise ValueError(f"a mask of `{pattern.name}`: {name} must be at least {least}, not {found}")
    return found


def _check_total(pattern: Pattern, *shape: int) -> None:
    if prod(max(size, 1) for size in shape) > LARGEST_MASK:
        raise ValueError(
            f"a mask of `{pattern.name}` would have {' x '.join(map(str, shape))} entries; a dense mask is "
            f"for looking and testing, and has at most {LARGEST_MASK} (16384 x 16384): take a smaller n, or "
            "fewer of the queries with n_q"
        )


def _dense(
    pattern: Pattern,
    n: int,
    positions: npt.NDArray[np.int64],
    heads: int,
    bodies: npt.NDArray[np.int64],
    tables: Mapping[str, npt.NDArray[Any]],
) -> Bools:
    found = np.zeros((heads, positions.size, n), dtype=np.bool_)
    for index, body in enumerate(pattern.bodies):
        members = np.flatnonzero(bodies == index)
        if not members.size:
            continue
        variables = {
            "q": positions[None, :, None],
            "k": np.arange(n, dtype=np.int64)[None, None, :],
            "h": members.astype(np.int64)[:, None, None],
            "n": n,
            "H": heads,
        }
        env = Env(variables, tables, draws.drawn)
        shape = (members.size, positions.size, n)
        found[members] = np.broadcast_to(evaluate(formula(body.relation), env), shape)
    return found


def head_bodies(pattern: Pattern, heads: int) -> npt.NDArray[np.int64]:
    """For every head the number of its body in ``pattern.bodies``: int64 of shape (heads,).

    Raises ValueError when a head has no body or several.
    """
    places = {"h": np.arange(heads, dtype=np.int64), "H": heads}
    chosen = np.array(
        [
            np.broadcast_to(np.asarray(evaluate(body.heads.condition, Env(places)), dtype=np.bool_), heads)
            for body in pattern.bodies
        ],
        dtype=np.bool_,
    ).reshape(len(pattern.bodies), heads)
    for head, count in enumerate(chosen.sum(axis=0).tolist()):
        if count == 0:
            raise ValueError(
                f"head {head} of {heads} has no body in `{pattern.name}`: "
                f"give it one, for instance with `heads rest {{ … }}`"
            )
        if count > 1:
            names = " and ".join(
                f"`{body.heads.text}`" for body, row in zip(pattern.bodies, chosen, strict=True) if row[head]
            )
            raise ValueError(
                f"head {head} of {heads} has {count} bodies in `{pattern.name}`, {names}: "
                f"leave it in one of them"
            )
    return np.asarray(chosen.argmax(axis=0), dtype=np.int64)


def check_inputs(
    pattern: Pattern, n: int, heads: int, inputs: Mapping[str, npt.ArrayLike]
) -> tuple[dict[str, npt.NDArray[Any]], int | None]:
    """The inputs as arrays, and the batch size where any has a batch axis (else None).

    Floats choose no edges, and may be left out. Raises TypeError for others that are missing, for superfluous
    names and for wrong kinds, ValueError for wrong shapes.
    """
    wanted = {given.name: given for given in pattern.inputs}
    if missing := [name for name, given in wanted.items() if name not in inputs and given.kind != "float"]:
        raise TypeError(
            f"a mask of `{pattern.name}` needs its input {_listed(missing)}: "
            f"give `inputs={{'{missing[0]}': …}}`"
        )
    if extra := [name for name in inputs if name not in wanted]:
        known = f"what it has is {_listed(wanted)}" if wanted else "it has none"
        raise TypeError(f"`{pattern.name}` has no input {_listed(extra)}: {known}")
    tables = {
        name: _checked(pattern, given, inputs[name], n, heads)
        for name, given in wanted.items()
        if name in inputs
    }
    sizes = {name: table.shape[0] for name, table in tables.items() if table.ndim > len(wanted[name].shape)}
    if not sizes:
        return tables, None
    batches = {size for size in sizes.values() if size != 1} or {1}
    if len(batches) > 1:
        listed = ", ".join(f"`{name}` has {size}" for name, size in sizes.items())
        raise ValueError(f"the inputs of `{pattern.name}` have batch axes of different sizes: {listed}")
    return tables, batches.pop()


def _checked(pattern: Pattern, given: Input, value: npt.ArrayLike, n: int, heads: int) -> npt.NDArray[Any]:
    table = np.asarray(value)
    what = f"input `{given.name}` of `{pattern.name}`"
    if not np.issubdtype(table.dtype, _KINDS[given.kind]):
        raise TypeError(f"{what} must be of kind {given.kind}, but has dtype {table.dtype}: convert it first")
    rank = len(given.shape)
    own = table.shape[max(table.ndim - rank, 0) :]
    # The head dimension is only known by what has it.
    shape = tuple(
        own[axis]
        if size == DIM and axis < len(own)
        else int(evaluate(size, Env({"n": n, "H": heads, "d": 0})))
        for axis, size in enumerate(given.shape)
    )
    if table.ndim not in (rank, rank + 1) or table.shape[table.ndim - rank :] != shape:
        declared = _shape_text(given.shape)
        raise ValueError(
            f"{what} is declared {given.kind}{declared}, that is {list(shape)} for n = {n}, H = {heads}, "
            f"with or without a batch axis in front; given was {list(table.shape)}"
        )
    # numpy computes in the dtype that it is given, where sums of small integers wrap.
    return table.astype(np.int64) if given.kind == "int" else table


def _shape_text(shape: tuple[Expr, ...]) -> str:
    return f"[{', '.join(map(show, shape))}]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: npt.ArrayLike | torch.Tensor,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention over the edges of a dense mask, in plain torch and in the dtype of ``q``.

    q: (batch, query heads, n_q, D). k: (batch, key heads, n, D). v: (batch, key heads, n, Dv); the number of
    query heads is a multiple of the number of key heads, and neighbouring query heads share one.
    mask: bool, broadcast to (batch, query heads, n_q, n). scale: of the scores, by default ``D ** -0.5``.

    Returns the output (batch, query heads, n_q, Dv) and the natural log-sum-exp of the scaled scores
    (batch, query heads, n_q). A query without keys gets zeros and minus infinity. Gradients flow to q, k, v
    and are zero, never NaN, where there is no edge. Give fp64 tensors for an oracle, and tensors of a
    kernel's own dtype for a yardstick of what rounding alone does.

    Raises ValueError for shapes that do not fit together.
    """
    import torch

    batch, query_heads, n_q, dim = q.shape
    key_heads, n = k.shape[1], k.shape[2]
    if k.shape[0] != batch or k.shape[3] != dim or v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"q (batch, heads, n_q, D), k (batch, heads, n, D) and v (batch, heads, n, Dv) do not fit: "
            f"{list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if key_heads == 0 or query_heads % key_heads:
        raise ValueError(f"{query_heads} query heads cannot share {key_heads} key heads evenly")
    edges = mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.array(mask, dtype=np.bool_))
    edges = edges.to(device=q.device, dtype=torch.bool)
    try:
        edges = edges.broadcast_to(batch, query_heads, n_q, n)
    except RuntimeError:
        raise ValueError(
            f"a mask of shape {list(edges.shape)} does not fit (batch, heads, n_q, n) = "
            f"{[batch, query_heads, n_q, n]}"
        ) from None
    keys = k.repeat_interleave(query_heads // key_heads, dim=1)
    values = v.repeat_interleave(query_heads // key_heads, dim=1)
    factor = (dim**-0.5 if dim else 1.0) if scale is None else scale
    scores = (q @ keys.transpose(-1, -2) * factor).masked_fill(~edges, -torch.inf)
    empty = ~edges.any(dim=-1)
    if n:
        # The maximum only guards against overflow: it cancels, so it needs no gradient.
        top = scores.detach().amax(dim=-1).masked_fill(empty, 0)
    else:
        top = scores.new_zeros(batch, query_heads, n_q)
    # Where a score is minus infinity its weight and the weight's gradient are exactly zero.
    weights = torch.exp(scores - top[..., None])
    total = weights.sum(dim=-1).masked_fill(empty, 1)
    out = (weights @ values) / total[..., None]
    lse = (top + torch.log(total)).masked_fill(empty, -torch.inf)
    return out, lse

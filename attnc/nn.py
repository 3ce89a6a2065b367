"""Modules: ``PatternAttention`` in the place of ``torch.nn.MultiheadAttention``.

attention = attnc.nn.PatternAttention(512, 8, batch_first=True, pattern="longformer.attn")
model = attnc.nn.replace(model, pattern="mistral.attn", params={"window": 256})
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from attnc.files import read_source
from attnc.integrations.traits import Traits, kept, kept_name, traits
from attnc.masks.bound import BoundPattern, Table
from attnc.request import Request, gather
from attnc.runtime import Attention, PathOrSource, bind, check_backend, input_names, ready

__all__ = ["PatternAttention", "replace"]


class PatternAttention(nn.Module):
    """Multi-head attention over the edges of a pattern, with the conventions of ``nn.MultiheadAttention``.

    embed_dim, num_heads, bias, kdim, vdim, batch_first, device, dtype: as there. The parameters have the same
        names, shapes and initial values, so that state dicts carry over.
    pattern: a path, a pattern's text, or what ``from_mask_mod`` and ``from_mask`` give.
    kv_heads: fewer key and value heads than query heads, each for ``num_heads / kv_heads`` of them; the
        projections of keys and values are as much smaller.
    name: which pattern, where the file holds several; params: values of its parameters; backend: as in
        ``attnc.load``.
    dropout: kept for the sake of models that are evaluated; training with it is refused, because weights are
        never made that could be dropped.

    Raises what ``attnc.load`` raises, ``ValueError`` for sizes that do not fit, and ``NotImplementedError``
    for ``add_bias_kv`` and ``add_zero_attn``, which are keys that stand nowhere.
    """

    # Asked for by `nn.TransformerEncoderLayer`, whose fused path would otherwise read the weights and leave
    # this module out.
    _qkv_same_embed_dim = False

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        pattern: PathOrSource | BoundPattern,
        kv_heads: int | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        kv_heads = num_heads if kv_heads is None else kv_heads
        _check_sizes(embed_dim, num_heads, kv_heads, dropout)
        if add_bias_kv or add_zero_attn:
            option = "add_bias_kv" if add_bias_kv else "add_zero_attn"
            raise NotImplementedError(
                f"PatternAttention: `{option}` adds a key that stands nowhere, and a pattern reads keys by "
                "where they stand: leave it out"
            )
        check_backend(backend)
        self.tables: Mapping[str, Table] = {}
        if isinstance(pattern, BoundPattern):
            self.tables, pattern = pattern.tables, pattern.source
        self.request = Request(read_source(pattern), name, gather(params, {}))
        self.backend = backend
        self.embed_dim, self.num_heads, self.kv_heads = embed_dim, num_heads, kv_heads
        self.head_dim = embed_dim // num_heads
        self.kdim, self.vdim = (embed_dim if size is None else size for size in (kdim, vdim))
        self.dropout, self.batch_first = dropout, batch_first
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        wide, narrow = embed_dim, kv_heads * self.head_dim
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = nn.Parameter(torch.empty(wide + 2 * narrow, embed_dim, **made))
            for part in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                self.register_parameter(part, None)
        else:
            self.register_parameter("in_proj_weight", None)
            self.q_proj_weight = nn.Parameter(torch.empty(wide, embed_dim, **made))
            self.k_proj_weight = nn.Parameter(torch.empty(narrow, self.kdim, **made))
            self.v_proj_weight = nn.Parameter(torch.empty(narrow, self.vdim, **made))
        self.in_proj_bias = nn.Parameter(torch.empty(wide + 2 * narrow, **made)) if bias else None
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias, **made)
        self._load()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name, weight in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                nn.init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)

    @classmethod
    def from_multihead(
        cls,
        attention: nn.MultiheadAttention,
        *,
        pattern: PathOrSource | BoundPattern,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        backend: str | None = None,
    ) -> PatternAttention:
        """The same layer over a pattern; it has the very parameters of ``attention``, not copies.

        Raises what the class raises, and ``NotImplementedError`` for a layer with hooks, which would be lost.
        """
        if attention._forward_hooks or attention._forward_pre_hooks or attention._backward_hooks:
            raise NotImplementedError(
                "PatternAttention: the layer has hooks, which would be lost: remove them"
            )
        made = cls(
            attention.embed_dim,
            attention.num_heads,
            attention.dropout,
            bias=attention.in_proj_bias is not None,
            add_bias_kv=attention.bias_k is not None,
            add_zero_attn=attention.add_zero_attn,
            kdim=attention.kdim,
            vdim=attention.vdim,
            batch_first=attention.batch_first,
            device="meta",
            pattern=pattern,
            name=name,
            params=params,
            backend=backend,
        )
        for part, parameter in attention._parameters.items():
            if part in made._parameters:
                made.register_parameter(part, parameter)
        made.out_proj = attention.out_proj
        return made.train(attention.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        **inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, None]:
        """Attention, and None where ``nn.MultiheadAttention`` gives weights.

        query: (length, batch, embed_dim), with ``batch_first`` (batch, length, embed_dim), or without batch.
        key, value: likewise, with ``kdim`` and ``vdim``. With fewer queries than keys the queries are the
            last positions.
        key_padding_mask: (batch, keys), True or minus infinity for keys that nobody reads. A token stands
            where it stands, padding or not; a query that reads no key gets the output's bias alone.
        inputs: the pattern's, by name.

        Raises ``NotImplementedError`` for ``need_weights``, ``attn_mask``, and dropout while training;
        ``ValueError`` for ``is_causal`` with a pattern that is not, for masks of another shape, and for what
        the attention function refuses.
        """
        self._refuse(need_weights, attn_mask, is_causal)
        if query.is_nested:
            raise NotImplementedError(
                f"PatternAttention ({self._name}): nested tensors are not read: if `nn.TransformerEncoder` "
                "makes them of a padding mask, set its `use_nested_tensor = False`"
            )
        self._check_states(query=query, key=key, value=value)
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._projected(query, key, value)
        n = k.shape[2]
        for name, table in self.tables.items():
            inputs.setdefault(name, table.cut(name, n, q.device))
        if key_padding_mask is None:
            out = self._attention(q, k, v, **inputs)
        else:
            real = _real(key_padding_mask, (k.shape[0], n))
            out = self._kept(q, k, v, **{**inputs, self._kept_name: real})
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), None
        return out if self.batch_first else out.transpose(0, 1), None

    def _projected(self, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes = [self.embed_dim, *[self.kv_heads * self.head_dim] * 2]
        weights: Iterable[torch.Tensor] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = torch.split(self.in_proj_weight, sizes)
        biases: Iterable[torch.Tensor | None] = (None, None, None)
        if self.in_proj_bias is not None:
            biases = torch.split(self.in_proj_bias, sizes)
        return tuple(
            torch.unflatten(functional.linear(x, weight, bias), 2, (-1, self.head_dim)).transpose(1, 2)
            for x, weight, bias in zip(states, weights, biases, strict=True)
        )

    def _refuse(self, need_weights: bool, attn_mask: torch.Tensor | None, is_causal: bool) -> None:
        name = self.request.pattern or self._name
        if need_weights:
            raise NotImplementedError(
                f"PatternAttention ({name}): weights are never made, so they cannot be given back: call it "
                "with `need_weights=False`"
            )
        if attn_mask is not None:
            raise NotImplementedError(
                f"PatternAttention ({name}): the pattern says who reads whom, and `attn_mask` cannot be "
                "joined with it: leave the mask out, and say in the pattern what it says"
            )
        if self.training and self.dropout > 0:
            raise NotImplementedError(
                f"PatternAttention ({name}): there are no attention weights that could be dropped while "
                f"training: set `dropout = 0.0` (it is {self.dropout}), or call `eval()`"
            )
        if is_causal and not self._traits.causal:
            raise ValueError(
                f"PatternAttention ({name}): `is_causal` is promised, and the pattern is not proven to be "
                f"causal: {self._traits.why_not}"
            )

    def _check_states(self, **states: torch.Tensor) -> None:
        order = "batch, length" if self.batch_first else "length, batch"
        sizes = (self.embed_dim, self.kdim, self.vdim)
        for (name, x), size in zip(states.items(), sizes, strict=True):
            if x.dim() not in (2, 3) or x.dim() != states["query"].dim() or x.shape[-1] != size:
                raise ValueError(
                    f"PatternAttention ({self._name}): {name} must be ({order}, {size}) or, like the others, "
                    f"(length, {size}), not {tuple(x.shape)}"
                )

    # --- functions, which are compiled and not pickled ---

    def _load(self) -> None:
        whole = ready(self.request)
        self._name = whole.__name__
        own = inspect.signature(type(self).forward).parameters
        if taken := [name for name in input_names(whole) if name in own]:
            raise ValueError(
                f"PatternAttention ({self._name}): the pattern's input `{taken[0]}` is called like an "
                "argument that the layer has already: give the input another name"
            )
        self._attention: Attention = bind(whole, self.backend)
        self._traits: Traits = traits(self.request)
        self._kept_name = kept_name(self._traits.pattern)
        self._kept: Attention = bind(ready(self.request, kept), self.backend)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._load()

    def extra_repr(self) -> str:
        inputs = "".join(f", {name}=" for name in input_names(self._attention))
        grouped = "" if self.kv_heads == self.num_heads else f", kv_heads={self.kv_heads}"
        return f"{self.embed_dim}, {self.num_heads}{grouped}, pattern={self._name}{inputs}"


_LOADED = frozenset({"_attention", "_kept", "_kept_name", "_traits", "_name"})


def _check_sizes(embed_dim: int, num_heads: int, kv_heads: int, dropout: float) -> None:
    for name, size in {"embed_dim": embed_dim, "num_heads": num_heads, "kv_heads": kv_heads}.items():
        if size < 1:
            raise ValueError(f"PatternAttention: {name} must be at least 1, not {size}")
    if embed_dim % num_heads:
        raise ValueError(
            f"PatternAttention: embed_dim must be a multiple of num_heads, not {embed_dim} of {num_heads}"
        )
    if num_heads % kv_heads:
        raise ValueError(
            f"PatternAttention: num_heads must be a multiple of kv_heads, not {num_heads} of {kv_heads}"
        )
    if embed_dim // num_heads > 256:
        raise ValueError(
            f"PatternAttention: heads have dims of at most 256, and {embed_dim} / {num_heads} is more"
        )
    if not 0 <= dropout <= 1:
        raise ValueError(f"PatternAttention: dropout must be between 0 and 1, not {dropout}")


def _real(mask: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Which keys are read, from a mask in the manner of ``nn.MultiheadAttention``."""
    if tuple(mask.shape) != shape:
        raise ValueError(
            f"PatternAttention: key_padding_mask must have the shape {shape}, not {tuple(mask.shape)}"
        )
    if mask.dtype == torch.bool:
        return ~mask
    if not mask.is_floating_point():
        raise ValueError(
            f"PatternAttention: key_padding_mask must be of booleans or floating point, not {mask.dtype}"
        )
    # Zero or minus infinity, as `nn.TransformerEncoder` makes of booleans; what is between would be a bias.
    if not torch.compiler.is_compiling() and not ((mask == 0) | (mask == -torch.inf)).all():
        raise NotImplementedError(
            "PatternAttention: a key_padding_mask of numbers must be 0 or minus infinity; there is no bias"
        )
    return mask == 0


def replace(
    model: nn.Module,
    pattern: PathOrSource | BoundPattern,
    *,
    where: Callable[[str, nn.MultiheadAttention], bool] | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    backend: str | None = None,
) -> nn.Module:
    """Puts a ``PatternAttention`` in the place of every ``nn.MultiheadAttention``, with its parameters.

    model: changed in place and given back; a ``nn.MultiheadAttention`` itself gives the new layer.
    where: which layers, asked with the name that ``named_modules`` has for one, and the layer.
    pattern, name, params, backend: as in ``PatternAttention``.

    Raises ``TypeError`` for what is no module, ``ValueError`` when there is nothing to replace, and for the
    cross-attention of a ``nn.TransformerDecoderLayer``, unless ``where`` leaves it out or asks for it; what a
    layer has and a pattern cannot do raises ``NotImplementedError`` with the layer's name. Nothing is
    replaced then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"attnc.nn.replace changes an nn.Module; got {model!r:.60} of type {type(model).__name__}"
        )
    chosen: dict[str, nn.MultiheadAttention] = {}
    # A layer that stands in several places is named in all of them, and is one layer afterwards, too.
    for place, module in model.named_modules(remove_duplicate=False):
        if type(module) is not nn.MultiheadAttention or (where is not None and not where(place, module)):
            continue
        parent = model.get_submodule(place.rpartition(".")[0]) if place else None
        crossing = isinstance(parent, nn.TransformerDecoderLayer) and parent.multihead_attn is module
        if crossing and where is None:
            raise ValueError(
                f"attnc.nn.replace: `{place}` reads another sequence (cross-attention), and a pattern says "
                "who reads whom within one: leave it out by `where=lambda name, _: 'self_attn' in name`"
            )
        chosen[place] = module
    if not chosen:
        raise ValueError(
            f"attnc.nn.replace: {type(model).__name__} has no nn.MultiheadAttention"
            + (" that `where` asks for" if where is not None else "")
        )
    made: dict[nn.MultiheadAttention, PatternAttention] = {}
    for place, module in chosen.items():
        if module in made:
            continue
        try:
            made[module] = PatternAttention.from_multihead(
                module, pattern=pattern, name=name, params=params, backend=backend
            )
        except NotImplementedError as error:
            raise NotImplementedError(f"attnc.nn.replace: `{place}`: {error}") from None
    if "" in chosen:
        return made[chosen[""]]
    for place, module in chosen.items():
        parent_name, _, child = place.rpartition(".")
        setattr(model.get_submodule(parent_name), child, made[module])
    for module in model.modules():
        # It would hand its layers nested tensors, by a fused path that has nothing to win any more.
        if isinstance(module, nn.TransformerEncoder) and set(module.modules()) & set(made.values()):
            module.use_nested_tensor = False
    return model

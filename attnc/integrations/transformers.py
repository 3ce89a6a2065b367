"""Patterns as attention implementations of Hugging Face transformers.

    from attnc.integrations.transformers import register

    register("mistral.attn", name="narrow", window=256)
    model.set_attn_implementation("narrow")

Every layer of the model then reads what the pattern says, in place of what the model's own mask says; what
cannot be had is refused by name when the model is called, and nothing is dropped in silence.

Padding and packed sequences: a token is counted from the first token of its own sequence, and reads nothing
outside of it. A padded or packed sequence gives what it gives alone.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from attnc.files import read_source
from attnc.integrations.sequences import (
    PADDING,
    UNWRITTEN,
    Cut,
    Latest,
    Shape,
    first,
    shapes,
    spans,
    told_apart,
)
from attnc.integrations.traits import Traits, segment_name, segmented, traits
from attnc.masks.bound import BoundPattern, Table
from attnc.request import Request, gather
from attnc.runtime import Attention, PathOrSource, bind, check_backend, ready

try:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers import masking_utils as theirs
except ImportError as error:
    raise ImportError(
        "attnc.integrations.transformers needs Hugging Face transformers, 5.0 or later: "
        "`pip install '.[transformers]'` in a checkout of attnc"
    ) from error

# What models hand to their attention without changing what it computes.
_HARMLESS = frozenset(
    {
        *("cache_position", "deterministic", "is_causal", "num_items_in_batch", "output_hidden_states"),
        *("output_router_logits", "position_embeddings", "position_ids", "return_dict", "sliding_window"),
        *("use_cache", "layer_idx", "logits_to_keep", "max_length_q", "max_length_k"),
        *("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"),
    }
)
# And what would change it, with what to do instead.
_WORDED = {
    "s_aux": "the model adds sinks to its softmax (s_aux), and the pattern has no input for them: write "
    "`input s_aux: float[H]` and `sink s_aux[h]` into it, and the model's are handed over",
    "sinks": "the model adds sinks to its softmax (sinks), and the pattern has no input for them: write "
    "`input sinks: float[H]` and `sink sinks[h]` into it, and the model's are handed over",
    "position_bias": "the model adds a bias to its scores (position_bias), and the pattern has no input of "
    "that name: say in its `score` how a bias is read from a table, and hand the table over as an input",
    "head_mask": "heads cannot be masked (head_mask)",
    "output_attentions": "attention weights are never made, so they cannot be given back: leave "
    "`output_attentions` out",
    "cache": "paged caches (continuous batching) are not read",
    "indices": "the model chooses keys itself (indices), and the pattern would not",
    "block_indices": "the model chooses keys itself (block_indices), and the pattern would not",
}

# Of the tensors that went through a layer last: they go through all of them.
_packed = Latest()

# Inputs by `with inputs(…)`: of all threads, because a model may run on threads of its own.
_given: dict[str, torch.Tensor] = {}


# By what a conjunction of theirs is told while it is compiled.
_JOINED = theirs.and_masks(theirs.causal_mask_function).__code__


class Unsupported(ValueError):
    """A model, or a call of it, that a pattern cannot serve; the text says what it is and what to do."""


def register(
    path_or_source: PathOrSource | BoundPattern,
    name: str | None = None,
    pattern: str | None = None,
    *,
    backend: str | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> str:
    """Makes a pattern known to transformers as an attention implementation, and gives its name.

    name: for ``model.set_attn_implementation(name)``, or ``attn_implementation=name`` where a model is made;
        by default the pattern's own. A name that a pattern has already is given to the new one.
    path_or_source, pattern, backend, params, more_params: as in ``attnc.load``; or what ``from_mask_mod`` and
        ``from_mask`` give, whose tensors then need not be handed over.

    The pattern's inputs are handed to the model as keyword arguments, ``model(ids, is_global=hubs)``, or by
    ``with inputs(is_global=hubs):`` around a call that takes no others, such as ``model.generate``.

    The pattern takes the place of the model's own mask in every layer: its causality, sliding window or
    chunks. A model that generates needs a causal pattern. With padding, on either side, and with packed
    sequences (``position_ids`` that start again, a data collator's ``cu_seq_lens_q`` or ``seq_idx``), every
    sequence gives what it gives alone, with a cache as without. With a cache the queries are the last
    positions; where a cache drops old keys, the pattern must be proven not to miss them. A model's sinks are
    handed to an input of their name (``input s_aux: float[H]``); its softcap must be the pattern's score.

    Raises what ``attnc.load`` raises, and ``ValueError`` for a name that transformers gives a meaning of its
    own. A model that the pattern cannot serve raises ``Unsupported`` when it is called: encoder-decoders and
    cross-attention, dropout while training, sinks, softcaps and biases that the pattern has not, some of the
    heads (tensor parallelism) for a pattern that tells them apart, four-dimensional masks, attention weights
    as outputs, compiled static caches, and any argument that is not known.
    """
    check_backend(backend)
    brought: Mapping[str, Table] = {}
    if isinstance(path_or_source, BoundPattern):
        brought, path_or_source = path_or_source.tables, path_or_source.source
    request = Request(read_source(path_or_source), pattern, gather(params, more_params))
    known = traits(request)
    name = known.pattern.name if name is None else name
    _check_name(name)
    whole = ready(request)
    apart = bind(ready(request, segmented), backend) if known.moves else None
    served = _Served(name, known, bind(whole, backend), shapes(whole), apart, brought)
    AttentionInterface.register(name, served.attention)
    AttentionMaskInterface.register(name, served.mask)
    return name


@contextlib.contextmanager
def inputs(**tensors: torch.Tensor) -> Iterator[None]:
    """Tensors for the inputs of patterns, for all calls of models within the ``with``.

    One that has more entries than there are keys so far gives its first ones: while tokens are generated,
    give one that is long enough for all of them.
    """
    before = dict(_given)
    _given.update(tensors)
    try:
        yield
    finally:
        _given.clear()
        _given.update(before)


_ours: set[str] = set()


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name or not name.replace("-", "_").isidentifier():
        raise ValueError(
            f"an attention implementation is called by letters, digits, `_` and `-`, not {name!r:.60}"
        )
    taken = {"eager", *AttentionInterface._global_mapping, *AttentionMaskInterface._global_mapping}
    if name in taken - _ours or "flash" in name:
        raise ValueError(f"transformers has a meaning of its own for {name!r}: choose another `name`")
    _ours.add(name)


def _group(told: torch.Tensor, name: str, n: int) -> torch.Tensor:
    """Of every key a number that is its sequence's alone, by ``seq_idx`` or by where sequences begin."""
    if name == "seq_idx":
        return told.reshape(-1, n)
    return torch.bucketize(torch.arange(n, device=told.device), told.long(), right=True)[None]


# --- what goes through the model as its mask ------------------------------------------------------------


@dataclass(frozen=True)
class _Served:
    """A pattern as transformers calls it: ``mask`` once a forward pass, ``attention`` in every layer."""

    name: str
    traits: Traits
    function: Attention
    shapes: Mapping[str, Shape]
    segments: Attention | None
    brought: Mapping[str, Table]

    def mask(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: Any = 0,
        kv_offset: int = 0,
        mask_function: Callable[..., Any] = theirs.causal_mask_function,
        attention_mask: torch.Tensor | None = None,
        config: Any = None,
        local_size: int | None = None,
        use_vmap: bool = False,
        device: torch.device | str = "cpu",
        **_: Any,
    ) -> torch.Tensor | None:
        """Which sequence each key belongs to, as int32 (batch, 1, 1, keys); None where all is one."""
        if not torch.compiler.is_compiling():
            _packed.forget()
        self.check_config(config)
        if torch.compiler.is_compiling():
            known = attention_mask is not None or local_size is not None
            packed = self.packing_compiled(mask_function, known, use_vmap, (batch_size, kv_length), device)
            if packed is None and attention_mask is None and local_size is not None:
                self.refuse(
                    "in a compiled model, packed sequences cannot be told from others here: give it an "
                    "`attention_mask` of ones, or compile without `fullgraph`"
                )
        else:
            packed = self.packing(mask_function)
        static = isinstance(q_offset, torch.Tensor)
        if static and torch.compiler.is_compiling():
            self.refuse("static caches cannot be compiled with it: use a DynamicCache, or do not compile")
        plain = not static and kv_offset == 0 and attention_mask is None and packed is None
        if plain and kv_length == q_offset + q_length:
            self.check_cache(q_offset, kv_offset)
            return None
        seen = int(q_offset) + q_length if not torch.compiler.is_compiling() else q_offset + q_length
        self.check_cache(seen - q_length, kv_offset)
        shape = (batch_size, kv_length)
        numbers = torch.ones(shape, dtype=torch.int32, device=device)
        if packed is not None:
            numbers = packed.to(device=device, dtype=torch.int32).expand(shape) + 1
        if attention_mask is not None:
            if attention_mask.dim() != 2:
                self.refuse(
                    f"a mask of shape {tuple(attention_mask.shape)} cannot be joined with the pattern"
                )
            short = max(0, kv_length + kv_offset - attention_mask.shape[1])
            real = torch.nn.functional.pad(attention_mask.to(torch.bool), (0, short))
            real = real[:, kv_offset : kv_offset + kv_length]
            numbers = numbers.masked_fill(~real, PADDING)
        written = seen - kv_offset
        if written < kv_length:
            numbers[:, written:] = UNWRITTEN
        return numbers[:, None, None]

    def packing(self, function: Callable[..., Any]) -> torch.Tensor | None:
        """The sequences' numbers if the model's mask tells packed ones apart; what else it says is known."""
        place = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        place = place.removeprefix(f"{theirs.__name__}.").removesuffix("inner_mask")
        cells = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        match place:
            case "causal_mask_function" | "bidirectional_mask_function":
                return None
            case (
                "sliding_window_overlay.<locals>."
                | "chunked_overlay.<locals>."
                | "sliding_window_bidirectional_overlay.<locals>."
            ):
                return None  # it is the pattern that says so now
            case "packed_sequence_mask_function.<locals>.":
                packed: torch.Tensor = cells["packed_sequence_mask"]
                return packed
            case "remap_positions_for_packed_sequence.<locals>.":
                return self.packing(cells["mask_function"])
            case "and_masks.<locals>.and_mask":
                found = [self.packing(part) for part in cells["mask_functions"]]
                return next((numbers for numbers in found if numbers is not None), None)
        self.refuse(
            "the model makes a mask of its own that is neither causal, a window, chunks nor padding "
            f"({place.removesuffix('.<locals>.') or function!r}), and the pattern cannot be joined with that"
        )

    def packing_compiled(
        self,
        function: Callable[..., Any],
        known: bool,
        custom: bool,
        shape: tuple[int, int],
        device: torch.device | str,
    ) -> torch.Tensor | None:
        """The same within ``torch.compile``, which lets nobody look inside of a function.

        known: whether the model told by other means that nothing is packed, or cannot be asked.
        """
        if function is theirs.causal_mask_function or function is theirs.bidirectional_mask_function:
            return None
        if custom or function.__code__ is not _JOINED:
            self.refuse("the model makes a mask of its own, and the pattern cannot be joined with that")
        if known:
            return None
        # Within a sequence every token reads the one before it.
        at = torch.arange(shape[1], device=device)[None]
        batch = torch.arange(shape[0], device=device)[:, None]
        follows: torch.Tensor = function(batch, torch.zeros_like(batch), at, (at - 1).clamp(min=0))
        return (~follows).cumsum(1)

    # --- attention ---

    def attention(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention of one layer; (batch, n_q, heads, dim), and no weights."""
        self.check_layer(module, query, key, dropout, more)
        n = key.shape[2]
        if attention_mask is not None and (
            attention_mask.dtype != torch.int32 or attention_mask.shape[1:] != (1, 1, n)
        ):
            self.refuse(
                f"a mask of shape {tuple(attention_mask.shape)} and dtype {attention_mask.dtype} cannot "
                f"be joined with the pattern; give the model one of shape (batch, {n}), 0 for padding",
                module,
            )
        numbers = self.packed(attention_mask, query, n, more, module)
        tables = self.tables(more, n, query.shape[1], query.device)
        if numbers is None:
            out = self.function(query, key, value, **tables, scale=scaling)
        else:
            out = self.apart(query, key, value, numbers, tables, scaling)
        return out.transpose(1, 2).contiguous(), None

    def packed(
        self,
        numbers: torch.Tensor | None,
        query: torch.Tensor,
        n: int,
        more: Mapping[str, Any],
        module: torch.nn.Module,
    ) -> torch.Tensor | None:
        """``numbers``, with the sequences told apart that lie packed in a row of the batch.

        That is read from ``position_ids`` that do not go up one by one, and from what FlashAttention's and
        Mamba's kernels are given. The model's mask does not say it where there is a cache or padding.
        """
        positions = more.get("position_ids")
        n_q = query.shape[2]
        if positions is not None and (positions.dim() != 2 or positions.shape[1] != n_q):
            positions = None  # of several axes, as of images: they do not say which sequence a token is of
        groups = []
        for name in ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx"):
            if isinstance(more.get(name), torch.Tensor):
                if n_q != n:
                    self.refuse(
                        f"the model marks packed sequences by `{name}`, which says nothing of the "
                        "tokens in its cache: leave it out, `position_ids` that start again say the same",
                        module,
                    )
                groups.append(_group(more[name], name, n))
        if positions is None and not groups:
            return numbers
        compiled = torch.compiler.is_compiling()
        key = (numbers, positions, *groups)
        if not compiled and (latest := _packed.get(key)) is not None:
            return latest[0]
        start = numbers
        if start is None:
            start = torch.ones((query.shape[0], 1, 1, n), dtype=torch.int32, device=query.device)
        written = n if compiled or numbers is None else int((numbers[0] != UNWRITTEN).sum())
        found, fresh = told_apart(start, positions, written - n_q, groups)
        if not compiled:
            return _packed.keep(key, found if bool(fresh.any()) else numbers)
        if numbers is None:
            torch.ops.aten._assert_async.msg(
                ~fresh.any(),
                f"attention by the pattern {self.name!r}: packed sequences in a compiled model with a cache: "
                "give it `use_cache=False`, or an `attention_mask` of ones, or do not compile it",
            )
            return None
        return found

    def apart(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        numbers: torch.Tensor,
        tables: dict[str, torch.Tensor],
        scale: float | None,
    ) -> torch.Tensor:
        """Every sequence by itself; padding gets zeros, or what nobody looks at."""
        if torch.compiler.is_compiling():
            if self.segments is None:
                self.refuse(
                    "padding and packed sequences cannot be compiled with it, because its edges hang on "
                    "where a sequence begins or ends: do not compile the model, or leave out the padding"
                )
            return self.in_segments(query, key, value, numbers, tables, scale)
        found = spans(numbers)
        n, n_q = found.written, query.shape[2]
        key, value = key[:, :, :n], value[:, :, :n]
        first = n - n_q
        whole = found.spans.keys() == {(0, n)}
        if not whole and n == numbers.shape[3] and self.segments is not None:
            return self.in_segments(query, key, value, numbers, tables, scale)
        if found.broken is not None:
            self.refuse(
                f"padding lies inside of sequence {found.broken} of the batch, and the pattern's edges hang "
                "on where a token stands: put padding before or behind a sequence"
            )
        cuts = {name: Cut(name, self.shapes[name], x, n, query.shape[1]) for name, x in tables.items()}
        if whole:
            given = {name: cut.between(None, 0, n) for name, cut in cuts.items()}
            return self.function(query, key, value, **given, scale=scale)
        out = query.new_zeros((*query.shape[:3], value.shape[3]))
        for (start, stop), numbered in found.spans.items():
            begin = max(start, first)
            if begin >= stop:
                continue
            rows = torch.tensor(numbered, device=query.device)
            given = {name: self.cut(cut, rows, start, stop) for name, cut in cuts.items()}
            queries = slice(begin - first, stop - first)
            out[rows, :, queries] = self.function(
                query[rows, :, queries],
                key[rows, :, start:stop],
                value[rows, :, start:stop],
                **given,
                scale=scale,
            )
        return out

    def cut(self, cut: Cut, rows: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        try:
            return cut.between(rows, start, stop)
        except ValueError as error:
            self.refuse(str(error))

    def in_segments(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        numbers: torch.Tensor,
        tables: dict[str, torch.Tensor],
        scale: float | None,
    ) -> torch.Tensor:
        """All sequences in one call, for patterns in which only distances count."""
        given = {**tables, segment_name(self.traits.pattern): numbers[:, 0, 0]}
        assert self.segments is not None
        found: torch.Tensor = self.segments(query, key, value, **given, scale=scale)
        return found

    def tables(
        self, more: Mapping[str, Any], n: int, heads: int, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The pattern's inputs, from the call of the model or from the ``with`` around it."""
        found = {}
        for name in self.shapes:
            if more.get(name) is not None:
                found[name] = more[name]
            elif name in _given:
                found[name] = first(self.shapes[name], _given[name], n, heads)
            elif name in self.brought:
                found[name] = self.brought[name].cut(name, n, device)
            else:
                self.refuse(
                    f"its input `{name}` is missing: call the model with `{name}=…`, or write around a call "
                    f"that takes no such argument `with attnc.integrations.transformers.inputs({name}=…):`"
                )
        return found

    # --- what is refused ---

    def refuse(self, why: str, module: torch.nn.Module | None = None) -> NoReturn:
        where = "" if module is None else f" in {type(module).__name__}"
        raise Unsupported(f"attention by the pattern {self.name!r}{where}: {why}")

    def check_config(self, config: Any) -> None:
        if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
            self.refuse(
                f"{type(config).__name__} is of an encoder-decoder, whose cross-attention reads another "
                "sequence; a pattern says who reads whom within one"
            )

    def check_cache(self, past: Any, dropped: int) -> None:
        """past: tokens before this call's first; dropped: how many of them the cache has no longer."""
        known = self.traits
        cached = bool(past > 0) if not torch.compiler.is_compiling() or isinstance(past, int) else True
        if cached and known.asks_length:
            self.refuse(
                "its edges change when tokens are added (it asks for `n`), so what is in the cache would not "
                "be what the longer sequence gives: generate with `use_cache=False`"
            )
        if dropped and (self.shapes or not known.moves or not known.within(past - dropped)):
            self.refuse(
                f"the model's cache keeps {past - dropped} tokens before a query, and the pattern may read "
                "others, or counts positions from the beginning: give the model a cache that keeps all, "
                "`past_key_values=DynamicCache()`"
            )

    def check_layer(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        dropout: float,
        more: Mapping[str, Any],
    ) -> None:
        if dropout > 0 and module.training:
            attribute = "attention_dropout" if hasattr(module, "attention_dropout") else "dropout.p"
            self.refuse(
                f"attention dropout is {dropout}, and there are no weights that could be dropped: switch it "
                f"off by `{attribute} = 0.0` in every layer's {type(module).__name__}, or by "
                "`attention_dropout` or `attention_probs_dropout_prob` of the model's config",
                module,
            )
        for name, given in more.items():
            if given is None or given is False or name in self.shapes or name in _HARMLESS:
                continue
            if name == "softcap":
                if not self.traits.caps(float(given)):
                    self.refuse(
                        f"the model caps its scores at {float(given)} (softcap), and the pattern's are "
                        f"{self.traits.scores}: write `score {float(given)} * tanh(s / {float(given)})`",
                        module,
                    )
                continue
            known = ", ".join(f"`{name}`" for name in self.shapes) or "none"
            self.refuse(
                _WORDED.get(
                    name, f"it does not know the argument `{name}`; the pattern's inputs are {known}"
                ),
                module,
            )
        config = getattr(module, "config", None)
        self.check_config(config)
        heads = getattr(config, "num_attention_heads", None)
        if self.traits.tells_heads and isinstance(heads, int) and heads != query.shape[1]:
            self.refuse(
                f"it was called with {query.shape[1]} of the model's {heads} heads (tensor parallel), and "
                "the pattern tells heads apart, which it would count from 0 in every part: leave attention "
                "out of the `tp_plan`, or use a pattern without `h`, `H` and `heads`",
                module,
            )
        causal = more.get("is_causal")
        if causal is None:
            causal = getattr(module, "is_causal", True) and getattr(config, "is_causal", True) is not False
        if causal and not self.traits.causal:
            self.refuse(
                f"the model is causal, and the pattern is not proven to be: {self.traits.why_not}. Add "
                "`& causal` to the pattern, or set `model.config.is_causal = False` if that is meant",
                module,
            )
        if not causal and query.shape[2] != key.shape[2]:
            self.refuse(
                f"{query.shape[2]} queries read {key.shape[2]} keys that are not those of their own sequence "
                "(cross-attention); a pattern says who reads whom within one",
                module,
            )

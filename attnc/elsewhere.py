"""Words of FlexAttention, PyTorch, NATTEN and Python that are none here, and what to write in their place.

A help that begins with ``write `…` `` is one whose code can stand where the word does.
"""

from __future__ import annotations

import re

from attnc.diagnostics import Edit, Source, Span
from attnc.names import CONSTANT_RELATIONS

_BATCH = (
    "a pattern is the same for all of a batch; what differs is read from an input, to which a batch axis may "
    "be added: `input doc: int[n]`, `doc[q]`"
)
_INFINITE = (
    "there is no word for infinity: take the edge out where edges are chosen, as in `attend causal & where …`"
    "; a table may hold -inf"
)
_MASK = (
    "who reads whom stands after `attend`, as in `attend causal & window(63)`; keys told by a tensor "
    "are `to(keep)`, with `input keep: bool[n]`"
)
_SOFTMAX = (
    "without `kernel` scores are put through softmax: leave it out; a kernel is a function, as in "
    "`kernel elu(x) + 1`"
)
_DROPOUT = "weights of attention are never dropped: leave it out"
_CAP = "a soft cap is a score: `score 50.0 * tanh(s / 50.0)`"
_SLOPES = "slopes are a score: `score s - exp2(-8.0 * (h + 1) / H) * (q - k)`"
_DOCUMENTS = "documents come from an input: `input doc: int[n]`, and `same(doc)` after `attend`"
_WINDOW = (
    "a window of `w` keys that ends at the query, itself one of them, is `window(w - 1)`; one to both sides "
    "is `window(w, w)`"
)
LAMBDA = (
    "conditions on `q` and `k` stand after `where`, without a function around them; of a function in Python, "
    "`attnc.from_mask_mod` makes a pattern"
)
_CHOICE = "a number is chosen in a score by `select(C, a, b)`; which edges there are, by `where C`"

_MEANINGS: dict[tuple[str, ...], str] = {
    ("q_idx", "q_index", "query_idx", "q_pos", "query"): "write `q`",
    ("kv_idx", "k_idx", "k_index", "key_idx", "kv", "k_pos", "key"): "write `k`",
    ("i", "j"): "positions are called `q`, of the query, and `k`, of the key",
    ("b", "batch", "batch_idx"): _BATCH,
    ("head", "head_idx", "h_idx"): "write `h`",
    ("num_heads", "n_heads", "nheads", "n_head"): "write `H`",
    ("seq_len", "seqlen", "kv_len", "k_len", "seq_length", "N", "T"): "write `n`",
    ("q_len", "n_q"): "queries are the last of the `n` positions; how many they are, no pattern knows",
    ("head_dim",): "the head dimension is `d`, and known in a bound of `flops` alone",
    ("causal_mask", "is_causal", "tril", "lower_triangular"): "write `causal`",
    ("full", "full_mask", "noop", "noop_mask", "everything", "dense"): "write `all`",
    ("inf", "infinity", "nan"): _INFINITE,
    ("attn_mask", "attention_mask", "mask", "mask_mod", "block_mask", "key_padding_mask"): _MASK,
    (
        "score_mod",
        "attn_bias",
    ): "what is done to a score stands after `score`, as in `score s + bias[h, q - k]`",
    ("scale", "sm_scale"): "`s` is scaled already, by `scale=` of the call; other factors are parameters",
    ("dropout", "dropout_p"): _DROPOUT,
    ("softcap", "soft_cap", "logit_softcap"): _CAP,
    ("alibi",): _SLOPES,
    ("document_mask", "doc_mask", "document_id", "doc_ids", "segment_ids"): _DOCUMENTS,
    ("sliding_window", "window_size", "local", "band"): _WINDOW,
    ("softmax",): _SOFTMAX,
    ("None",): "there is no value for nothing: leave it out",
}
NAMES: dict[str, str] = {word: help for words, help in _MEANINGS.items() for word in words}

_CALLED: dict[tuple[str, ...], str] = {
    ("sliding_window", "sliding_window_mask", "window_size", "local", "band", "banded", "swa"): _WINDOW,
    ("neighborhood", "neighbourhood", "na1d", "na2d"): "a neighbourhood on a grid is "
    "`window(3, 3, axis=y) & window(3, 3, axis=x)`, with `grid(y: 32, x: 32)`",
    ("dilated", "dilated_window"): "a window that takes every second key is `window(63, dilation=2)`",
    ("global_tokens", "globals"): "tokens that all read, and that read all, are `to(S) | from(S)`",
    ("softcap", "soft_cap", "tanh_softcap"): _CAP,
    ("document_mask", "doc_mask"): _DOCUMENTS,
    ("alibi",): _SLOPES,
    ("and_masks", "or_masks"): "relations are joined by `&` (both) and `|` (either)",
    ("xor", "logical_xor"): "what is in one alone is `(A - B) | (B - A)`",
    ("logical_and", "logical_or", "logical_not"): "conditions are joined by `and`, `or` and `not`",
    ("ifelse", "cond", "masked_fill"): _CHOICE,
    ("dropout",): _DROPOUT,
    ("float", "inf"): _INFINITE,
    ("pow",): "write the product, as in `s * s`; a power of two is `exp2(s)`",
    ("floor", "floordiv", "floor_divide", "int"): "whole numbers are divided by `//`, which rounds down",
    (
        "maximum",
        "clamp",
        "minimum",
        "clip",
    ): "the larger and the smaller number are `max(a, b)` and `min(a, b)`",
    ("softmax",): _SOFTMAX,
    ("len",): "the number of keys is `n`",
}
CALLS: dict[str, str] = {word: help for words, help in _CALLED.items() for word in words}

# Arguments of relations by name.
_CAUSAL = (
    "a relation is restricted to keys up to the query by `& causal`; `window(a)` has no later ones anyway"
)
KEYWORDS: dict[str, str] = dict.fromkeys(("causal", "is_causal"), _CAUSAL)

# What a comment of C or SQL begins with, behind a relation.
COMMENT = rf"(?:\b(?:{'|'.join(CONSTANT_RELATIONS)})|\))\s*(?://|--)[ \t]*"

# Words within an expression that make no sense there.
WORDS: dict[str, str] = {
    **NAMES,
    "if": _CHOICE,
    "else": _CHOICE,
    "is": "compare by `==`",
    "xor": CALLS["xor"],
    "lambda": LAMBDA,
}


def called(source: Source, name: str, span: Span) -> tuple[str | None, tuple[Edit, ...]]:
    """What to write in the place of a call of something unknown, and the exact change where there is one."""
    help = CALLS.get(name)
    text = source.text[span.start : span.end]
    inside = re.fullmatch(r"\w+\s*\((.*)\)", text, re.DOTALL)
    given = inside[1].strip() if inside else ""
    if help == _WINDOW and (width := re.fullmatch(r"[0-9]{1,9}", given)) and int(width[0]) > 0:
        found = f"window({int(width[0]) - 1})"
        return f"write `{found}`: the query's own key is one of the {int(width[0])}", (Edit(span, found),)
    if name in ("and_masks", "or_masks") and given:
        parts = _parts(given)
        found = "(" + (" & " if name == "and_masks" else " | ").join(parts) + ")"
        if len(found) <= 60:
            return f"write `{found}`", (Edit(span, found),)
    constant = re.fullmatch(r"write (`\w+`)", NAMES.get(name, ""))
    if constant:
        return f"write {constant[1]}", (Edit(span, constant[1].strip("`")),)
    return help, ()


def _parts(text: str) -> list[str]:
    """The arguments of a call, split at its own commas."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]

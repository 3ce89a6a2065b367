"""Words of FlexAttention, PyTorch, NATTEN and Python are answered with what is written here."""

from __future__ import annotations

import re

import pytest

from attnc.diagnostics import AttncError, Diagnostic, Source
from attnc.editing.mending import edited, mends
from attnc.elsewhere import CALLS, NAMES, WORDS
from attnc.parser import parse
from attnc.resolver import resolve


def first(body: str) -> Diagnostic:
    with pytest.raises(AttncError) as caught:
        resolve(parse(Source("t.attn", f"pattern f() {{ {body} }}")))
    return caught.value.diagnostics[0]


# What is written, what the answer holds, and what a proposed edit makes of it, if there is one.
ANSWERS = [
    ("attend where «q_idx» >= k", "write `q`", "attend where q >= k"),
    ("attend where q >= «kv_idx»", "write `k`", "attend where q >= k"),
    ("attend where «b» == 0", "from an input, to which a batch axis", None),
    ("attend where «num_heads» > 2", "write `H`", "attend where H > 2"),
    ("attend where q < «seq_len»", "write `n`", "attend where q < n"),
    ("attend «sliding_window(128)»", "write `window(127)`", "attend window(127)"),
    ("attend «sliding_window(q)»", "is `window(w - 1)`", None),
    ("attend «causal_mask»", "write `causal`", "attend causal"),
    ("attend «tril()»", "write `causal`", "attend causal"),
    ("attend «is_causal»", "write `causal`", "attend causal"),
    ("attend «and_masks(causal, window(3, 1))»", "write `(causal &", "attend (causal & window(3, 1))"),
    ("attend «or_masks(causal, self)»", "write `(causal |", "attend (causal | self)"),
    ("attend «attn_mask»", "`input keep: bool[n]`", None),
    ("attend causal «softcap» 50", "`score 50.0 * tanh(s / 50.0)`", None),
    ("attend causal score «softcap(s, 50)»", "`score 50.0 * tanh(s / 50.0)`", None),
    ("attend causal «dropout» 0.1", "never dropped", None),
    ("attend causal score select(q > k, s, -«inf»)", "take the edge out", None),
    ("attend causal score s - «inf»", "no word for infinity", None),
    ("attend causal kernel «softmax»(x)", "as in `kernel elu(x) + 1`", None),
    ("attend causal «lambda» q, k: q > k", "after `where`", None),
    ('attend causal score s + float(«"»-inf")', "take the edge out", None),
    ("attend causal score q«@»k", "`s` is the product of query and key", None),
    ("attend where «select(q > k, 1, 2)» == 1", "write both cases as conditions", None),
    ("attend causal score s *«*» 2", "as in `s * s`", None),
    ("attend causal «if» q > 3", "`select(C, a, b)`", None),
    ("attend where «where»(q > k, 1, 0) == 1", "a score chooses by `select(C, a, b)`", None),
    ("attend where q «is» k", "compare by `==`", None),
    ("attend causal &«&» window(3)", "write `&`", None),
    ("attend causal |«|» window(3)", "write `|`", None),
    ("attend where q > k &«&» k > 3", "`and` between conditions", None),
    ("attend where «!»(q > k)", "write `not`", None),
    ("attend where «causal» and q > 3", "`&`, `-` and `!` join relations", None),
]


@pytest.mark.parametrize(("body", "help", "mended"), ANSWERS)
def test_what_people_know_from_elsewhere(body: str, help: str, mended: str | None) -> None:
    plain = body.replace("«", "").replace("»", "")
    found = first(plain)
    assert help in (found.help or "")
    assert found.span.start - len("pattern f() { ") == body.index("«")
    whole = f"pattern f() {{ {mended} }}"
    assert mended is None or whole in [edited(found.source.text, mend.edits) for mend in mends(found)]


def test_what_help_says_is_in_the_language() -> None:
    """Every piece of code in a help that is a pattern's item, relation, score or name can be read."""
    tried = 0
    for help in {*NAMES.values(), *CALLS.values(), *WORDS.values()}:
        for code in re.findall(r"`([^`]*)`", help):
            code = code.replace("…", "q > k").replace("w - 1", "5").replace("w, w", "5, 5")
            head = "input doc: int[n] input keep: bool[n] input bias: float[H, 64] grid(y: 4, x: 4) "
            head += "let C = q < k let a = 3 let b = 4 let A = causal let B = self let S = first(2) "
            for body in (
                code,
                f"attend {code}",
                f"attend where {code}",
                f"attend where ({code}) == 1",
                f"attend all {code}",
                f"attend all score s + {code}",
                f"{code} attend all",
            ):
                try:
                    resolve(parse(Source("t.attn", f"pattern f() {{ {head}{body} }}")))
                except AttncError:
                    continue
                tried += 1
                break
            else:
                operators = {
                    "&",
                    "|",
                    "and",
                    "or",
                    "not",
                    "==",
                    "//",
                    "scale=",
                    "where",
                    "attend",
                    "score",
                    "flops",
                    "kernel",
                    "attnc.from_mask_mod",
                }
                items = ("input ", "grid(", "where C", "d")
                assert code in operators or code.startswith(items) or code == "w", code
    assert tried > 30

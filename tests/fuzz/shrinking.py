"""Makes a case that fails smaller while it goes on failing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from attnc import syntax as tree
from attnc.diagnostics import AttncError, Source
from attnc.parser import parse
from tests.fuzz.calls import Shape
from tests.fuzz.judging import Case, Outcome, check

TRIES = 400


def smaller(case: Case, backend: str) -> Case:
    """The smallest case found that fails as this one does."""
    outcomes = check(case, backend)
    wanted = next((found for found in outcomes if found.what in ("wrong", "crashed")), None)
    if wanted is None:
        return case
    if wanted.shape is not None:
        case = replace(case, shapes=(wanted.shape,))
    tries, found = 0, True
    while found and tries < TRIES:
        found = False
        for attempt in _attempts(case):
            tries += 1
            if any(_alike(wanted, outcome) for outcome in check(attempt, backend)):
                case, found = attempt, True
                break
            if tries >= TRIES:
                break
    return case


def _alike(wanted: Outcome, found: Outcome) -> bool:
    return wanted.what == found.what and (wanted.what == "wrong" or wanted.why[:25] == found.why[:25])


def _attempts(case: Case) -> Iterator[Case]:
    for shape in case.shapes[:1]:  # first of all, for what is short is run fast
        for other in _shapes(shape):
            yield replace(case, shapes=(other,))
    if case.weighed_small:
        yield replace(case, weighed_small=False)
    for text in texts(case.text):
        yield replace(case, text=text)


def texts(text: str) -> Iterator[str]:
    """Texts with an item less, or with an operand in place of what it is joined with."""
    try:
        [pattern] = parse(Source("fuzz.attn", text)).patterns
    except AttncError:
        return
    nodes = list(tree.everywhere(pattern))
    for node in nodes:
        if isinstance(node, tree.Input | tree.Let | tree.Weight | tree.Grid | tree.Heads | tree.Attend):
            yield text[: node.span.start] + text[node.span.end :]
        if isinstance(node, tree.Heads):
            for item in node.items:
                if isinstance(item, tree.Attend):
                    rest = text[node.items[0].span.start : node.items[-1].span.end]
                    yield text[: node.span.start] + rest + text[node.span.end :]
                    break
    for node in sorted(nodes, key=lambda node: node.span.start - node.span.end):
        inner: list[tree.Expression] = []
        if isinstance(node, tree.Chain):
            inner = list(node.operands)
        elif isinstance(node, tree.Prefix):
            inner = [node.operand]
        elif isinstance(node, tree.Call):
            inner = [arg.value for arg in node.args]
        for part in inner:
            if part.span.end - part.span.start < node.span.end - node.span.start:
                kept = text[part.span.start : part.span.end]
                yield f"{text[: node.span.start]}{kept}{text[node.span.end :]}"


def _shapes(shape: Shape) -> Iterator[Shape]:
    plain = ("contiguous",) * 3
    changes: list[dict[str, object]] = [
        {"batch": 1}, {"n_q": shape.n}, {"dtype": "float32"}, {"layouts": plain}, {"cuts": ()},
        {"scale": None}, {"batched": False}, {"value_dim": shape.dim}, {"dim": 1, "value_dim": 1},
        {"dim": 16, "value_dim": 16}, {"key_heads": shape.heads}, {"heads": 1, "key_heads": 1},
        {"heads": 2, "key_heads": 2}, {"small": False},
    ]  # fmt: skip
    for n in sorted({shape.n // 2, shape.n * 3 // 4, shape.n - 16, shape.n - 1}):
        if 0 < n < shape.n:
            changes.append({"n": n, "n_q": min(shape.n_q, n), "cuts": tuple(c for c in shape.cuts if c < n)})
    for change in changes:
        if any(getattr(shape, key) != value for key, value in change.items()):
            if change.get("heads", 0) and change["heads"] >= shape.heads:  # type: ignore[operator]
                continue
            yield replace(shape, **change)  # type: ignore[arg-type]

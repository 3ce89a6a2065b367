"""What weighs the edges of a body: ``score``, ``kernel`` and what goes with them, settled and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from attnc import real, reals
from attnc import syntax as tree
from attnc.arguments import arguments
from attnc.atoms import Slot
from attnc.diagnostics import Label, Span
from attnc.expression import DIM, HEAD, HEADS, Expr, N, constant, tables, variables
from attnc.inputs import input_named, shape_text
from attnc.names import MAPS, meant
from attnc.pattern import (
    Cosine,
    Decay,
    Elementwise,
    Favor,
    FeatureMap,
    GateAxes,
    Input,
    Part,
    Taylor,
    Weights,
    may_be_negative,
)
from attnc.real import Coordinate, Real, Score
from attnc.scope import InputDef, Scope
from attnc.values import number, resolve

Items = tuple[tree.Weight, ...]


@dataclass(frozen=True)
class Written:
    """The weights of a pattern or of some heads as they were written, one item a word."""

    items: dict[str, tree.Weight]

    def within(self, inner: Written) -> Written:
        """What holds in a body with items of its own: each replaces the one for all heads."""
        return Written({**self.items, **inner.items})


def gather(scope: Scope, items: Iterable[tree.Weight]) -> Written:
    """One item of each kind; more are complained about."""
    found: dict[str, tree.Weight] = {}
    for item in items:
        first = found.setdefault(item.word.text, item)
        if first is not item:
            with scope.catching():
                raise scope.error(
                    "duplicate-weight",
                    f"there is more than one `{item.word.text}`",
                    item.span,
                    secondary=(Label(first.span, "the first one"),),
                    help="remove one of the two",
                )
    return Written(found)


def settle(scope: Scope, written: Written, own: tree.Weight | None) -> Weights:
    """The weights of a part. ``own``: what stands behind its ``with``."""
    items = dict(written.items)
    if own is not None:
        items = {word: item for word, item in items.items() if word not in ("score", "kernel")}
        if own.value is not None:
            items[own.word.text] = own
        elif own.word.text != "softmax":
            raise scope.error(
                "unknown-weight",
                f"`{own.word.text}` is no weight",
                own.word.span,
                help=meant(own.word.text, ("softmax", "kernel", "score"))
                or "write `with softmax`, `with score …` or `with kernel …`",
            )
        elif "kernel" not in items:
            items = {word: item for word, item in items.items() if word in ("score", "sink")}
    weights = Weights()
    for word, settler in _SETTLERS.items():
        if word in items:
            with scope.weigh(*_NAMES.get(word, ())):
                weights = settler(scope, items[word], weights)
    _check_together(scope, items, weights)
    return weights


_NAMES = {"score": ("s",), "kernel": ("x",)}


def check_parts(scope: Scope, parts: tuple[Part, ...]) -> None:
    """What several parts of one body must have in common to share a denominator."""
    if len(parts) == 1:
        return
    for part in parts:
        weights = part.weights
        if weights.decay is not None or weights.beta is not None or not weights.normalized:
            raise scope.error(
                "weights-conflict",
                "parts of a body share one denominator, and so they take neither decays nor updates, and are "
                "normalized",
                part.span,
                help="give the decay to heads of their own, or weigh all edges alike",
            )
        if may_be_negative(weights.feature):
            raise scope.error(
                "signed-weights",
                "parts of a body share one denominator, and this feature map can be negative",
                part.span,
                help="add to it what keeps it positive, as in `elu(x) + 1`",
            )


def _check_together(scope: Scope, items: dict[str, tree.Weight], weights: Weights) -> None:
    kernel = items.get("kernel")
    for word in ("score", "sink"):
        if kernel is not None and word in items:
            raise scope.error(
                "weights-conflict",
                f"`{word}` belongs to softmax, and `kernel` takes its place",
                items[word].span,
                secondary=(Label(kernel.span, "no softmax"),),
                help="remove one of the two",
            )
    for word in ("normalize", "decay", "bonus", "update"):
        if kernel is None and word in items:
            raise scope.error(
                "weights-conflict",
                f"`{word}` goes with `kernel`, and these edges are weighed by softmax",
                items[word].span,
                help="write `kernel x` for plain linear attention"
                + ("; under softmax, write `score s - slope[h] * (q - k)`" if word == "decay" else ""),
            )
    decay = weights.decay
    if weights.bonus is not None and (decay is None or not decay.exclusive):
        raise scope.error(
            "weights-conflict",
            "`bonus` weighs a query's own position, which only an exclusive decay leaves out",
            items["bonus"].span,
            help="write `decay g exclusive`, or remove `bonus`",
        )
    if weights.feature is not None and not isinstance(weights.feature, Elementwise):
        _check_channels(scope, items, weights)
    if weights.beta is not None and "normalize" in items and weights.normalized:
        raise scope.error(
            "weights-conflict",
            "the delta rule corrects what is stored, and has no sum of weights to divide by",
            items["normalize"].span,
            help="write `normalize none`, or nothing",
        )
    if decay is not None and decay.exclusive and weights.beta is not None:
        raise scope.error(
            "weights-conflict",
            "the delta rule has no exclusive decay",
            decay.span,
            help="leave out `exclusive`",
        )
    if weights.feature is not None and weights.normalized:
        _warn_of_signs(scope, items["kernel"], weights.feature)


def _check_channels(scope: Scope, items: dict[str, tree.Weight], weights: Weights) -> None:
    """Gates and bonuses of channels go with features that are one for each channel."""
    word = "bonus" if weights.bonus is not None else "decay"
    if weights.bonus is None and (weights.decay is None or weights.decay.axes != "channel"):
        return
    raise scope.error(
        "weights-conflict",
        f"`{word}` has an entry for every channel of a key here, and this kernel's features are not those",
        items[word].span,
        secondary=(Label(items["kernel"].span, "features of its own"),),
        help="write a kernel of `x`, as in `kernel x`"
        + (", or gates that are float[n, H]" if word == "decay" else ""),
    )


def _warn_of_signs(scope: Scope, item: tree.Weight, feature: FeatureMap) -> None:
    """A row whose weights cancel is divided by nearly nothing."""
    if not isinstance(feature, Cosine) and may_be_negative(feature):  # a cosine is meant to
        scope.warn(
            "signed-weights",
            "this feature map can be negative, and `normalize sum` may divide by nearly nothing",
            item.span,
            "add to it what keeps it positive, as in `elu(x) + 1`, or write `normalize none`",
        )


# --- one item -------------------------------------------------------------------------------------------


def _value(item: tree.Weight) -> tree.Expression:
    assert item.value is not None
    return item.value


def _real(scope: Scope, item: tree.Weight, allowed: frozenset[str], what: str) -> Real:
    """The item's expression, over the ``allowed`` integer variables."""
    node = _value(item)
    expr = reals.as_real(scope, node, resolve(scope, node))
    for part in real.everywhere(expr):
        alien = (isinstance(part, Score) and "s" not in (scope.weighing or ())) or (
            isinstance(part, Coordinate) and "x" not in (scope.weighing or ())
        )
        if alien:
            shown = "s" if isinstance(part, Score) else "x"
            raise scope.error("bad-weight", f"{what} cannot hang on `{shown}`", node.span)
        for inner in real.integers(part):
            beyond = sorted(variables(inner) - allowed)
            if beyond:
                names = ", ".join(f"`{name}`" for name in sorted(allowed))
                raise scope.error(
                    "bad-weight",
                    f"{what} cannot hang on `{beyond[0]}`",
                    node.span,
                    help=f"it is in terms of {names}, parameters and inputs" if allowed else None,
                )
    return expr


def _score(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    expr = _real(scope, item, frozenset({"q", "k", "n", "h", "H"}), "a score")
    if not any(isinstance(part, Score) for part in real.everywhere(expr)):
        scope.warn(
            "score-without-s",
            "this score does not hang on `s`: queries and keys are not compared",
            item.span,
            "write `s + …` if they should be",
        )
    return replace(weights, score=expr)


def _sink(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    return replace(weights, sink=_real(scope, item, frozenset({"h", "H"}), "a sink"))


def _kernel(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    return replace(weights, feature=_feature(scope, item))


def _feature(scope: Scope, item: tree.Weight) -> FeatureMap:
    node = tree.ungroup(_value(item))
    if isinstance(node, tree.Call) and node.name.text in MAPS and node.name.text not in scope.names:
        return _named_map(scope, node)
    expr = _real(scope, item, frozenset({"h", "H"}), "a feature map")
    if not any(isinstance(part, Coordinate) for part in real.everywhere(expr)):
        raise scope.error(
            "bad-weight", "this feature map does not hang on `x`", item.span, help="write `kernel elu(x) + 1`"
        )
    if real.entries(expr) or any(map(variables, _integers(expr))):
        raise scope.error(
            "bad-weight",
            "a feature map is the same for all heads: it is made of `x`, numbers and parameters",
            item.span,
        )
    return Elementwise(expr)


def _integers(expr: Real) -> Iterable[Expr]:
    return (inner for part in real.everywhere(expr) for inner in real.integers(part))


_MAP_SLOTS = {
    "favor": (Slot("features", "int", least=2, most=1024), Slot("seed", "int", least=0)),
    "taylor": (),
    "cosine": (Slot("length", "int", least=1),),
}


def _named_map(scope: Scope, call: tree.Call) -> FeatureMap:
    name = call.name.text
    slots = _MAP_SLOTS[name]
    bound = arguments(scope, call, slots)
    values = [
        constant(number(scope, bound[slot.name].value, f"`{slot.name}` of `{name}`", slot.least, slot.most))
        or 0
        for slot in slots
    ]
    match name:
        case "favor":
            return Favor(*values)
        case "cosine":
            return Cosine(*values)
    return Taylor()


def _normalize(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    assert item.mode is not None
    if item.mode.text not in ("sum", "none"):
        raise scope.error(
            "unknown-weight",
            f"`normalize {item.mode.text}` is unknown",
            item.mode.span,
            help=meant(item.mode.text, ("sum", "none")) or "write `normalize sum` or `normalize none`",
        )
    return replace(weights, normalized=item.mode.text == "sum")


def _decay(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    if item.mode is not None and item.mode.text != "exclusive":
        raise scope.error(
            "unknown-weight",
            f"`{item.mode.text}` cannot follow a decay",
            item.mode.span,
            help="write `exclusive` for gates up to `q - 1`, or nothing for gates up to `q`",
        )
    exclusive = item.mode is not None
    node = tree.ungroup(_value(item))
    if isinstance(node, tree.Name) and isinstance(scope.names.get(node.name), InputDef):
        entries = input_named(scope, node, "`decay`")
        axes = _gate_axes(entries)
        if entries.kind != "float" or axes is None:
            raise scope.error(
                "type-mismatch",
                "gates are float[H], float[n, H] or float[n, H, d], and "
                f"`{entries.name}` is {shape_text(entries)}",
                node.span,
                secondary=(Label(entries.span, "declared here"),),
            )
        value = real.Entry(entries.name, (HEAD,)) if axes == "head" else None
        return replace(weights, decay=Decay(axes, value, entries.name, exclusive, item.span))
    expr = _real(scope, item, frozenset({"h", "H"}), "a decay")
    found = real.known(expr)
    if found is not None and found > 0:
        raise scope.error(
            "positive-gate",
            f"gates are logarithms of factors up to one, and this is {real.decimal(found)}",
            item.span,
            help="write `decay log(0.9)`, or `-` in front",
        )
    return replace(weights, decay=Decay("head", expr, "", exclusive, item.span))


def _gate_axes(entries: Input) -> GateAxes | None:
    shapes: dict[tuple[Expr, ...], GateAxes] = {
        (HEADS,): "head",
        (N, HEADS): "token",
        (N, HEADS, DIM): "channel",
    }
    return shapes.get(entries.shape)


def _input_of(scope: Scope, node: tree.Expression, what: str, shape: tuple[Expr, ...], told: str) -> str:
    entries = input_named(scope, node, what, told)
    if entries.kind != "float" or entries.shape != shape:
        raise scope.error(
            "type-mismatch",
            f"{what} takes a {told} input, and `{entries.name}` is {shape_text(entries)}",
            node.span,
            secondary=(Label(entries.span, "declared here"),),
        )
    return entries.name


def _bonus(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    return replace(weights, bonus=_input_of(scope, _value(item), "`bonus`", (HEADS, DIM), "float[H, d]"))


def _update(scope: Scope, item: tree.Weight, weights: Weights) -> Weights:
    node = tree.ungroup(_value(item))
    if not isinstance(node, tree.Call) or node.name.text != "delta":
        raise scope.error(
            "unknown-weight",
            "the only update besides plain addition is the delta rule",
            item.span,
            help="write `update delta(beta)` with `input beta: float[n, H]`",
        )
    bound = arguments(scope, node, (Slot("beta", "input"),))
    beta = _input_of(scope, bound["beta"].value, "`delta`", (N, HEADS), "float[n, H]")
    return replace(weights, beta=beta, normalized=False)


_SETTLERS = {
    "score": _score,
    "sink": _sink,
    "kernel": _kernel,
    "update": _update,
    "normalize": _normalize,
    "decay": _decay,
    "bonus": _bonus,
}


def span_of(written: Written, own: tree.Weight | None, otherwise: Span) -> Span:
    """Where the weights of a part were written, for messages about them."""
    if own is not None:
        return own.span
    for word in ("kernel", "score"):
        if word in written.items:
            return written.items[word].span
    return otherwise


def read(weights: Weights) -> frozenset[str]:
    """Names of the float inputs that weights read, and of what their integer parts read."""
    decay = weights.decay
    some = (weights.score, weights.sink, decay.value if decay else None)
    exprs = [expr for expr in some if expr is not None]
    found = {part.table for expr in exprs for part in real.everywhere(expr) if isinstance(part, real.Entry)}
    found |= {name for expr in exprs for inner in _integers(expr) for name in tables(inner)}
    found |= {name for name in (weights.bonus, weights.beta, decay.table if decay else "") if name}
    return frozenset(found)

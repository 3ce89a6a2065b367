"""What stands beside relations in a body: ``heads`` selectors and their cover, ``grid``, claims, literals."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from attnc import syntax as tree
from attnc.arithmetic import LIMIT
from attnc.declarations import check_name
from attnc.diagnostics import Label
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    HEAD,
    TRUE,
    Expr,
    Lookup,
    Mod,
    conj,
    constant,
    disj,
    eq,
    le,
    lt,
    mod,
    negate,
    sub,
    tables,
    variables,
    walk,
)
from attnc.names import meant
from attnc.pattern import Body, Claim, ClaimKind, Heads
from attnc.scope import Scope, bound_terms
from attnc.values import integer, number

# Numbers of heads for which the cover is checked when compiling; the emitted function checks its own.
MOST_HEADS = 64
REST = "rest"

# --- heads ----------------------------------------------------------------------------------------------


def selector(scope: Scope, node: tree.Heads) -> Heads:
    """Which heads a body is for. ``rest`` comes back as ``TRUE``, to be settled by ``fill_rest``."""
    chosen = node.selector
    if isinstance(chosen, tree.Range):
        low, high = _head_bound(scope, chosen.first), _head_bound(scope, chosen.last)
        size = constant(sub(high, low))
        if size is not None and size <= 0:
            raise scope.error(
                "bad-heads",
                "this range holds no head",
                chosen.span,
                help="`a..b` is from `a` to `b - 1`",
            )
        condition = conj(le(low, HEAD), lt(HEAD, high))
    else:
        chosen = tree.ungroup(chosen)
        condition = _listed_heads(scope, chosen)
    return Heads(condition, scope.text(chosen.span), chosen.span)


def _listed_heads(scope: Scope, chosen: tree.Expression) -> Expr:
    match chosen:
        case tree.Name("even"):
            return eq(mod(HEAD, 2), 0)
        case tree.Name("odd"):
            return eq(mod(HEAD, 2), 1)
        case tree.Name("rest"):
            return TRUE
        case tree.Name(name, span):
            raise scope.error(
                "bad-heads",
                f"`{name}` does not say which heads",
                span,
                help=meant(name, ("even", "odd", REST)) or "write `even`, `odd`, `0..4`, `{1, 3}` or `rest`",
            )
        case tree.Listing(items) if items:
            help = "heads that depend on `H` are given as a range, as in `heads H - 2..H`"
            return disj(*[eq(HEAD, number(scope, item, "a head", 0, help=help)) for item in items])
        case tree.Number(value, span):
            raise scope.error(
                "bad-heads", "heads are listed in braces", span, help=f"write `heads {{{value}}}`"
            )
    raise scope.error(
        "bad-heads",
        "this does not say which heads",
        chosen.span,
        help="write `even`, `odd`, `0..4`, `{1, 3}` or `rest`",
    )


def _head_bound(scope: Scope, node: tree.Expression) -> Expr:
    expr = integer(scope, node)
    if variables(expr) - {"H"} or tables(expr):
        raise scope.error("bad-heads", "a range of heads is in terms of `H` and parameters", node.span)
    value = constant(expr)
    if value is not None and value < 0:
        raise scope.error("bad-heads", f"heads count from 0, and this is {value}", node.span)
    return expr


def fill_rest(bodies: list[Body]) -> list[Body]:
    """The bodies with ``rest`` turned into the heads that no other body has."""
    others = [body.heads.condition for body in bodies if body.heads.text != REST]
    rest = conj(*map(negate, others))
    return [
        replace(body, heads=replace(body.heads, condition=rest)) if body.heads.text == REST else body
        for body in bodies
    ]


def check_cover(scope: Scope, nodes: list[tree.Heads], bodies: list[Body]) -> None:
    """Every head has exactly one body: errors for what can be seen before the number of heads is known."""
    if not nodes or len(nodes) != len(bodies):
        return
    rests = [body for body in bodies if body.heads.text == REST]
    if len(rests) > 1:
        raise scope.error(
            "heads-overlap",
            "`rest` stands twice",
            rests[1].heads.span,
            secondary=(Label(rests[0].heads.span, "first here"),),
            help="put both relations into one body, joined with `|`",
        )
    filled = fill_rest(bodies)
    covered: list[int] = []
    first_gap: str | None = None
    for total in range(1, MOST_HEADS + 1):
        env = Env({"h": np.arange(total), "H": total})
        masks = [np.broadcast_to(evaluate(body.heads.condition, env), (total,)) for body in filled]
        counts = np.sum(masks, axis=0)
        if counts.max() > 1:
            head = int(np.argmax(counts > 1))
            first, second = [body.heads for body, mask in zip(filled, masks, strict=True) if mask[head]][:2]
            raise scope.error(
                "heads-overlap",
                f"head {head} has two bodies when there {_heads(total)}",
                second.span,
                secondary=(Label(first.span, "also here"),),
                help="every head has exactly one body",
            )
        if counts.min() == 1:
            covered.append(total)
        elif first_gap is None:
            first_gap = f"head {int(np.argmin(counts))} has no body when there {_heads(total)}"
    span = nodes[0].span if len(nodes) == 1 else nodes[-1].selector.span
    help = "add `heads rest { … }`"
    if not covered:
        raise scope.error(
            "heads-missing", f"for no number of heads has every head a body: {first_gap}", span, help=help
        )
    if covered == [1]:
        scope.warn("heads-missing", f"only a single head has a body: {first_gap}", span, help)


def _heads(total: int) -> str:
    return "is 1 head" if total == 1 else f"are {total} heads"


# --- grid -----------------------------------------------------------------------------------------------


def grid(scope: Scope, node: tree.Grid) -> None:
    """Puts the axes of a pattern into scope."""
    if scope.axes:
        raise scope.error("duplicate-grid", "a pattern has one grid", node.span, help="remove one of the two")
    scope.faulty_grid = True
    if not 2 <= len(node.axes) <= 3:
        raise scope.error(
            "bad-grid",
            f"a grid has two or three axes, not {len(node.axes)}",
            node.span,
            help="along one axis, `q` and `k` are coordinates already" if len(node.axes) == 1 else None,
        )
    axes: dict[str, Expr] = {}
    for axis in node.axes:
        check_name(scope, axis.name, "axis")
        if axis.name.text in axes:
            raise scope.error("duplicate-name", f"two axes are named `{axis.name.text}`", axis.name.span)
        axes[axis.name.text] = number(
            scope,
            axis.size,
            f"the size of axis `{axis.name.text}`",
            1,
            help="sizes are made of numbers and parameters; the first axis goes on for as long as there are "
            "tokens, whatever its size",
        )
    inner = prod(constant(size) or 1 for size in list(axes.values())[1:])
    if inner >= LIMIT:
        raise scope.error(
            "huge-integer",
            f"all but the first axis hold {inner} tokens together: it must be less than {LIMIT}",
            node.span,
            help="the first axis goes on for as long as there are tokens; make another one smaller",
        )
    scope.axes, scope.faulty_grid = tuple(axes.items()), False


# --- claims ---------------------------------------------------------------------------------------------

_CLAIMS: dict[str, ClaimKind] = {
    "causal": "causal",
    "nonempty": "nonempty",
    "edges": "edges",
    "flops": "flops",
    "reach": "reach",
}
_BOUNDED = ("edges", "flops", "reach")
_LAYERS = (
    "`reach` is bounded by a number that holds for every length, as in `reach <= 2`; where longer sequences "
    "need more layers, as `attnc check` shows, there is none"
)


def claim(scope: Scope, node: tree.Claim) -> Claim:
    kind = _CLAIMS.get(node.kind.text)
    if kind is None:
        listed = ", ".join(f"`{known}`" for known in _CLAIMS)
        raise scope.error(
            "unknown-claim",
            f"`{node.kind.text}` is nothing that can be claimed",
            node.kind.span,
            help=meant(node.kind.text, _CLAIMS) or f"there are {listed}",
        )
    if kind in _BOUNDED and node.bound is None:
        raise scope.error("missing-bound", f"`{kind}` needs a bound", node.span, help=f"write `{kind} <= …`")
    if kind not in _BOUNDED and node.bound is not None:
        raise scope.error(
            "needless-bound", f"`{kind}` has no bound", node.bound.span, help=f"write `require {kind}`"
        )
    bound = None if node.bound is None else _bound(scope, kind, node.bound)
    text = scope.text(replace(node.span, start=node.kind.span.start))
    return Claim(kind, bound, node.assumed, text, node.span)


def _bound(scope: Scope, kind: ClaimKind, node: tree.Expression) -> Expr:
    scope.bound = kind
    try:
        if kind == "reach":
            return number(scope, node, "the number of layers", 1, help=_LAYERS)
        expr = integer(scope, node)
    finally:
        scope.bound = None
    allowed = {"n", "d"} if kind == "flops" else {"n"}
    beyond = sorted(name for name in variables(expr) - allowed if not name.startswith("count("))
    if beyond or any(isinstance(part, Lookup) for part in walk(expr)):
        shown = f"`{beyond[0]}`" if beyond else "an entry of an input"
        raise scope.error(
            "bad-bound",
            f"the bound of `{kind}` cannot hang on {shown}",
            node.span,
            help=bound_terms(kind),
        )
    if any(isinstance(part, Mod) for part in walk(expr)):
        raise scope.error("bad-bound", "a bound has no `%`", node.span, help="use `+ - * / // min max`")
    return expr


# --- literals -------------------------------------------------------------------------------------------

"""A settled pattern as text, for people who want to see what the resolver made of it."""

from __future__ import annotations

from attnc import real
from attnc.expression import TRUE
from attnc.notation import show
from attnc.pattern import (
    Atom,
    Complement,
    Cosine,
    Difference,
    Elementwise,
    Favor,
    FeatureMap,
    Intersection,
    Pattern,
    Relation,
    Taylor,
    Union,
    Weights,
)


def describe(pattern: Pattern) -> str:
    """The settled pattern as indented text, each atom with its meaning."""
    lines = [f"pattern {pattern.name}"]
    lines += [f"  parameter {param.name} = {_plain(param.value)}" for param in pattern.params]
    lines += [f"  parameter {name} = {value!r}" for name, value in pattern.float_params]
    for entry in pattern.inputs:
        lines.append(f"  input {entry.name}: {entry.kind}[{', '.join(map(show, entry.shape))}]")
    if pattern.grid:
        lines.append(f"  grid {', '.join(f'{name}: {size}' for name, size in pattern.grid)}")
    for body in pattern.bodies:
        condition = "" if body.heads.condition == TRUE else f" where {show(body.heads.condition)}"
        lines.append(f"  heads {body.heads.text or 'all'}{condition}")
        for part in body.parts:
            lines += _tree_lines(part.relation, 2)
            lines += [f"    {line}" for line in weight_lines(part.weights)]
    for claim in pattern.claims:
        bound = "" if claim.bound is None else f" <= {show(claim.bound)}"
        lines.append(f"  {'assume' if claim.assumed else 'require'} {claim.kind}{bound}")
    return "\n".join(lines)


def weight_lines(weights: Weights) -> list[str]:
    """What edges weigh, as it would be written; nothing for plain softmax."""
    lines = []
    if weights.feature is not None:
        lines.append(f"kernel {feature_text(weights.feature)}")
        lines.append(f"normalize {'sum' if weights.normalized else 'none'}")
    elif weights.score != real.S:
        lines.append(f"score {real.show(weights.score)}")
    if weights.sink is not None:
        lines.append(f"sink {real.show(weights.sink)}")
    if weights.decay is not None:
        gate = weights.decay.table or real.show(weights.decay.value or real.ZERO)
        lines.append(f"decay {gate}{' exclusive' * weights.decay.exclusive}")
    if weights.bonus is not None:
        lines.append(f"bonus {weights.bonus}")
    if weights.beta is not None:
        lines.append(f"update delta({weights.beta})")
    return lines


def feature_text(feature: FeatureMap) -> str:
    """A feature map as it is written."""
    match feature:
        case Elementwise(value):
            return real.show(value)
        case Favor(features, seed):
            return f"favor({features}, seed={seed})"
        case Cosine(length):
            return f"cosine({length})"
        case Taylor():
            return "taylor()"


def _plain(value: int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tree_lines(found: Relation, depth: int) -> list[str]:
    indent = "  " * depth
    match found:
        case Atom(formula=expr, text=text):
            return [f"{indent}{text}: {show(expr)}"]
        case Union(args=args):
            word, inner = "union", args
        case Intersection(args=args):
            word, inner = "intersection", args
        case Difference(left=left, right=right):
            word, inner = "difference", (left, right)
        case Complement(arg=arg):
            word, inner = "complement", (arg,)
    lines = [f"{indent}{word}"]
    for part in inner:
        lines += _tree_lines(part, depth + 1)
    return lines

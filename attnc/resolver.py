"""Tree to pattern: names, types and parameters settled. Every mistake in a file is reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from attnc import clauses, weights
from attnc import syntax as tree
from attnc.declarations import check_name, parameter, runtime_input
from attnc.description import describe
from attnc.diagnostics import AttncError, Diagnostic, Label, Span
from attnc.expression import (
    TRUE,
    Expr,
    Param,
    children,
    constant,
)
from attnc.names import meant
from attnc.pattern import (
    Atom,
    Body,
    Claim,
    Heads,
    Input,
    Part,
    Pattern,
    Relation,
    Union,
    operands,
)
from attnc.reals import weighs
from attnc.scope import BrokenDef, LetDef, Mistake, Report, Scope
from attnc.values import relation
from attnc.values import resolve as resolve_value
from attnc.weights import Written

__all__ = ["Resolved", "describe", "resolve"]


# Levels of unions, sums and the like within each other.
MOST_LEVELS = 80


@dataclass(frozen=True)
class Resolved:
    patterns: tuple[Pattern, ...]
    warnings: tuple[Diagnostic, ...]


def resolve(
    file: tree.File, params: Mapping[str, object] | None = None, pattern: str | None = None
) -> Resolved:
    """The patterns of a file.

    params: values for parameters by name: numbers and booleans, or their text (``"256"``, ``"true"``).
    pattern: only the pattern of this name.
    Raises ``AttncError`` with every error of the file.
    """
    params = params or {}
    report = Report(file.source)
    _check_pattern_names(report, file)
    chosen = [p for p in file.patterns if pattern is None or p.name.text == pattern]
    if not chosen:
        known = [p.name.text for p in file.patterns]
        listed = ", ".join(f"`{name}`" for name in known)
        found = Diagnostic(
            "unknown-pattern",
            "error",
            f"there is no pattern `{pattern}` in `{file.source.name}`",
            file.source,
            file.patterns[0].name.span,
            help=meant(pattern or "", known) or f"it holds {listed}",
        )
        raise AttncError((found,))
    _check_params(report, chosen, params)
    resolved: list[Pattern] = []
    for node in chosen:
        scope = Scope(report)
        with _walkable(scope, node), scope.catching():
            done = _pattern(scope, node, params, file.listed)
            if any(_deeper(body.relation, MOST_LEVELS) for body in done.bodies):
                raise RecursionError
            resolved.append(done)
    if report.errors:
        raise AttncError(report.sorted_errors())
    warnings = sorted(report.warnings, key=lambda d: d.span.start)
    return Resolved(tuple(resolved), tuple(warnings))


@contextmanager
def _walkable(scope: Scope, node: tree.Pattern) -> Iterator[None]:
    """What is too deep for recursion here would be so in every later room."""
    try:
        yield
    except RecursionError:
        help = "name the inner parts with `let`"
        mistake = scope.error("too-deep", f"`{node.name.text}` is nested too deep", node.name.span, help=help)
        assert mistake.diagnostic is not None
        scope.report.record(mistake.diagnostic)


def _deeper(relation: Relation, most: int) -> bool:
    """Whether a relation or a formula in it has more levels; later rooms walk them by recursion.

    Counted, because how deep Python itself may recurse is changed by others in the same process.
    """
    level: list[Relation | Expr] = [relation]
    for _ in range(most):
        level = list({id(part): part for node in level for part in _inner(node)}.values())
        if not level:
            return False
    return True


def _inner(node: Relation | Expr) -> tuple[Relation | Expr, ...]:
    if isinstance(node, Atom):
        return (node.formula,)
    return children(node) if isinstance(node, Expr) else operands(node)


def _check_pattern_names(report: Report, file: tree.File) -> None:
    scope = Scope(report)
    seen: dict[str, tree.Pattern] = {}
    for node in file.patterns:
        with scope.catching():
            check_name(scope, node.name, "pattern")
        with scope.catching():
            first = seen.setdefault(node.name.text, node)
            if first is not node:
                raise scope.error(
                    "duplicate-pattern",
                    f"there are two patterns named `{node.name.text}`",
                    node.name.span,
                    secondary=(Label(first.name.span, "the first one"),),
                    help="give one of them another name",
                )


def _check_params(report: Report, chosen: list[tree.Pattern], params: Mapping[str, object]) -> None:
    known = dict.fromkeys(param.name.text for node in chosen for param in node.params)
    scope = Scope(report)
    for name in params:
        if name in known:
            continue
        listed = ", ".join(f"`{other}`" for other in known)
        with scope.catching():
            raise scope.error(
                "unknown-parameter",
                f"no parameter `{name}` in `{chosen[0].name.text}`"
                if len(chosen) == 1
                else f"no pattern has a parameter `{name}`",
                chosen[0].name.span,
                help=meant(name, known) or (f"there are {listed}" if known else "there are no parameters"),
            )


# --- one pattern ----------------------------------------------------------------------------------------


def _pattern(
    scope: Scope, node: tree.Pattern, params: Mapping[str, object], listed: tuple[str, ...] | None
) -> Pattern:
    _note_later_names(scope, node)
    ints: list[Param] = []
    floats: list[tuple[str, float]] = []
    for param in node.params:
        value = parameter(scope, param, params)
        if isinstance(value, float):
            floats.append((param.name.text, value))
        elif value is not None:
            ints.append(
                Param(param.name.text, value.value)
                if isinstance(value, Param)
                else Param(param.name.text, value)
            )
    inputs: list[Input] = []
    drafts: list[_Draft] = []
    claims: list[Claim] = []
    whole = _Draft(Heads(TRUE, "", node.span), scope)
    for item in node.items:
        with scope.catching():
            match item:
                case tree.Input():
                    inputs.append(runtime_input(scope, item))
                case tree.Grid():
                    clauses.grid(scope, item)
                case tree.Let():
                    _let(scope, item)
                case tree.Attend():
                    whole.attend(item)
                case tree.Weight():
                    whole.weights.append(item)
                case tree.Heads():
                    drafts.append(_heads(scope, item))
                case tree.Claim():
                    claims.append(clauses.claim(scope, item))
    _check_bodies(scope, node, whole.attends)
    if whole.attends:
        drafts.insert(0, whole)
    written = weights.gather(scope, whole.weights)
    bodies: list[Body] = []
    for draft in drafts:
        with scope.catching():
            bodies.append(draft.body(written))
        if draft is not whole:
            _warn_unused(draft.scope, frozenset(scope.names))
    with scope.catching():
        clauses.check_cover(scope, [item for item in node.items if isinstance(item, tree.Heads)], bodies)
    _check_listed(scope, node, inputs, listed)
    _warn_unused(scope)
    grid = tuple([(name, constant(size) or 0) for name, size in scope.axes])
    return Pattern(
        node.name.text,
        tuple(ints),
        tuple(inputs),
        grid,
        tuple(clauses.fill_rest(bodies)),
        tuple(claims),
        node.span,
        scope.source,
        tuple(floats),
    )


def _note_later_names(scope: Scope, node: tree.Pattern) -> None:
    """Where names are defined, for messages about names that are used too early."""
    for named in (*node.params, *node.items):
        if isinstance(named, tree.Parameter | tree.Input | tree.Let):
            scope.later.setdefault(named.name.text, named.name.span)
        elif isinstance(named, tree.Grid) and scope.later_grid is None:
            scope.later_grid = named.span


# --- parameters and inputs ------------------------------------------------------------------------------


def _let(scope: Scope, node: tree.Let) -> None:
    let = LetDef(node.value, node.name.span)
    sound = False
    try:
        check_name(scope, node.name, "let")
        # How deep in blocks it will be used is not known yet; inputs are checked at each use.
        # Floats are for weights; whether the value hangs on what a weight has, is seen where it is used.
        within = scope.weigh("s", "x") if weighs(scope, node.value) else nullcontext()
        with scope.inside(None), within:
            value = let.values[None] = resolve_value(scope, node.value)
            scope.check_size(value, node.value.span)
        sound = True
    finally:
        with scope.catching():
            scope.define(node.name, let if sound else BrokenDef(node.name.span))


# --- bodies ---------------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """A body while its items are being read: what weighs its edges is settled when all of it is known."""

    heads: Heads
    scope: Scope
    attends: list[tree.Attend] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    weights: list[tree.Weight] = field(default_factory=list)

    def attend(self, node: tree.Attend) -> None:
        self.attends.append(node)
        if len(self.attends) == 1 or (node.weight is not None and self.attends[0].weight is not None):
            self.relations.append(relation(self.scope, node.relation))

    def body(self, outer: Written) -> Body:
        if len(self.relations) < len(self.attends):
            raise Mistake(None)  # said already
        written = outer if self.heads.text == "" else outer.within(weights.gather(self.scope, self.weights))
        parts = tuple(
            [
                Part(
                    found,
                    weights.settle(self.scope, written, node.weight),
                    weights.span_of(written, node.weight, node.span),
                )
                for node, found in zip(self.attends, self.relations, strict=True)
            ]
        )
        weights.check_parts(self.scope, parts)
        if len(parts) == 1:
            return Body(self.heads, parts[0].relation, parts)
        span = Span(self.attends[0].span.start, self.attends[-1].span.end)
        return Body(self.heads, Union(tuple(self.relations), span), parts)


def _heads(scope: Scope, node: tree.Heads) -> _Draft:
    inner = replace(scope, names=dict(scope.names), later=dict(scope.later))
    for item in node.items:
        if isinstance(item, tree.Let):
            inner.later.setdefault(item.name.text, item.name.span)
    heads = None
    with scope.catching():
        heads = clauses.selector(scope, node)
    draft = _Draft(heads or Heads(TRUE, "", node.span), inner)
    for item in node.items:
        with inner.catching():
            match item:
                case tree.Let():
                    _let(inner, item)
                case tree.Attend():
                    draft.attend(item)
                case tree.Weight():
                    draft.weights.append(item)
                case _:
                    raise inner.error(
                        "misplaced-item",
                        "only `let`, `attend` and weights stand inside `heads`",
                        item.span,
                        help="move this out of the braces",
                    )
    scope.spent = max(scope.spent, inner.spent)
    _one_attend(inner, draft.attends, node)
    if heads is None or not draft.relations:
        raise Mistake(None)
    return draft


def _one_attend(scope: Scope, attends: list[tree.Attend], node: tree.Heads | tree.Pattern) -> None:
    for extra in attends[1:]:
        if extra.weight is not None and attends[0].weight is not None:
            continue
        with scope.catching():
            raise scope.error(
                "several-attends",
                "there is more than one `attend`",
                extra.span,
                secondary=(Label(attends[0].span, "the first one"),),
                help="join the relations with `|`; where they weigh differently, say of each what it weighs, "
                "as in `attend … with softmax`",
            )
    if not attends:
        place = node.name.span if isinstance(node, tree.Pattern) else node.span
        what = f"`{node.name.text}` attends" if isinstance(node, tree.Pattern) else "these heads attend"
        with scope.catching():
            raise scope.error(
                "no-attend",
                f"{what} to nothing",
                place,
                help="add `attend …`; for no edges at all, `attend none`",
            )


def _check_bodies(scope: Scope, node: tree.Pattern, attends: list[tree.Attend]) -> None:
    blocks = [item for item in node.items if isinstance(item, tree.Heads)]
    if not blocks:
        _one_attend(scope, attends, node)
    elif attends:
        with scope.catching():
            raise scope.error(
                "attend-and-heads",
                "an `attend` for all heads stands beside `heads`",
                attends[0].span,
                secondary=(Label(blocks[0].span, "heads told apart here"),),
                help="put it into `heads rest { … }`",
            )


def _check_listed(
    scope: Scope, node: tree.Pattern, inputs: list[Input], listed: tuple[str, ...] | None
) -> None:
    """The inputs of a docstring's body are the other keyword-only arguments of its function."""
    if listed is None:
        return
    declared = {item.name.text for item in node.items if isinstance(item, tree.Input)}
    for name in listed:
        if name not in declared:
            with scope.catching():
                raise scope.error(
                    "undeclared-input",
                    f"the argument `{name}` is not declared in the body",
                    node.name.span,
                    help=f"add `input {name}: bool[n]` (or its own type and shape)",
                )
    for entry in inputs:
        if entry.name not in listed:
            with scope.catching():
                raise scope.error(
                    "unlisted-input",
                    f"the input `{entry.name}` is no argument of the function",
                    entry.span,
                    help=f"add the keyword-only argument `{entry.name}`",
                )


def _warn_unused(scope: Scope, outer: frozenset[str] = frozenset()) -> None:
    for name, definition in scope.names.items():
        if name not in scope.used and name not in outer and not isinstance(definition, BrokenDef):
            what = "`let`" if definition.role == "let" else definition.role
            scope.warn("unused-name", f"the {what} `{name}` is never used", definition.span, "remove it")


# --- text -----------------------------------------------------------------------------------------------

"""What is said about a claim that does not hold: title, the place that is to blame, the proof, the mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attnc.bounds import edges_within
from attnc.diagnostics import Diagnostic, Edit, Label, Span
from attnc.evaluation import Env, evaluate
from attnc.expression import ZERO, Expr, Var, add, fold, sub, substitute, variables
from attnc.notation import show
from attnc.pattern import Difference, Pattern, Relation, Union
from attnc.relation import BodyTerms
from attnc.witness import ClaimResult, Finding

_LONG = 60
# What makes a claim hold of any relation, put behind it.
_MENDS: dict[str, str] = {"causal": "& causal", "nonempty": "| self"}
SHORT = 64  # lengths at which a bound is compared with the closed form


def claim_diagnostics(
    pattern: Pattern, results: Iterable[ClaimResult], bodies: tuple[BodyTerms, ...] = ()
) -> tuple[Diagnostic, ...]:
    """One error for every claim that is neither proven nor taken on trust (``assume``).

    bodies: the pattern's terms, by which a proposed bound is proven before it is proposed.
    """
    return tuple(
        _complaint(pattern, result, bodies)
        for result in results
        if result.finding.verdict != "proven" and not result.claim.assumed
    )


def _complaint(pattern: Pattern, result: ClaimResult, bodies: tuple[BodyTerms, ...]) -> Diagnostic:
    claim, finding = result.claim, result.finding
    if finding.verdict == "undecided":
        message = f"`{pattern.name}` claims `{claim.text}`, which could neither be proven nor refuted"
        mend = "write `assume` in place of `require` to take it on trust; the module will say so"
        return _drawn(pattern, result, "undecided-claim", message, "", mend)
    found = _drawn(pattern, result, *_refuted(pattern, result, bodies))
    return replace(found, edits=_edits(pattern, finding, _MENDS.get(claim.kind)))


def _drawn(
    pattern: Pattern, result: ClaimResult, code: str, message: str, label: str, mend: str | None
) -> Diagnostic:
    claim, finding = result.claim, result.finding
    whole = _whole(pattern)
    span = finding.span or whole
    if span == claim.span:
        return Diagnostic(code, "error", message, pattern.source, span, label, (), _notes(finding), mend)
    here = (Label(claim.span, "claimed here"),)
    return Diagnostic(code, "error", message, pattern.source, span, label, here, _notes(finding), mend)


def _notes(finding: Finding) -> tuple[str, ...]:
    return (finding.note,) if finding.note else ()


def _whole(pattern: Pattern) -> Span:
    spans = [body.relation.span for body in pattern.bodies]
    return Span(min(s.start for s in spans), max(s.end for s in spans)) if spans else pattern.span


def _refuted(
    pattern: Pattern, result: ClaimResult, bodies: tuple[BodyTerms, ...]
) -> tuple[str, str, str, str | None]:
    """Code, title, label and help."""
    claim, finding = result.claim, result.finding
    name, at = pattern.name, finding.witness or {}
    match claim.kind:
        case "causal":
            label = f"query {at.get('q')} reads key {at.get('k')}"
            return (
                "not-causal",
                f"`{name}` claims to be causal, but reads the future",
                label,
                _edit(pattern, finding, _MENDS["causal"]),
            )
        case "nonempty":
            return (
                "may-be-empty",
                f"`{name}` claims that every query has a key, but not every one has",
                f"query {at.get('q')} reads no key when n = {at.get('n')}",
                _edit(pattern, finding, _MENDS["nonempty"]),
            )
        case "edges" | "flops":
            what = "edges" if claim.kind == "edges" else "FLOPs"
            return (
                f"{claim.kind}-exceeded",
                f"`{name}` claims `{claim.text}`, but has more",
                f"more {what} when n = {at.get('n')}",
                _raised(pattern, result, bodies) or "raise the bound, or let the relation have fewer edges",
            )
        case "reach":
            k, q, n = (at.get(name) for name in "kqn")
            # A token that reads all reads the future.
            causal = any(other.kind == "causal" for other in pattern.claims)
            hub = "add a token that all read and that reads all: `| to({0}) | from({0})`"
            if finding.never:
                way = f"let edges lead from key {k} to query {q}" if causal else hub
                return (
                    "reach-exceeded",
                    f"`{name}` claims `{claim.text}`, but no number of layers is enough",
                    f"key {k} never reaches query {q} when n = {n}",
                    f"however many layers, information gets there only over edges between positions: {way}",
                )
            way = f"let fewer steps lead from key {k} to query {q}"
            return (
                "reach-exceeded",
                f"`{name}` claims `{claim.text}`, but needs more layers",
                f"key {k} does not reach query {q} when n = {n}",
                f"claim more layers, or {way if causal else hub}",
            )
    raise ValueError(f"a claim of unknown kind: {claim.kind}")


def _raised(pattern: Pattern, result: ClaimResult, bodies: tuple[BodyTerms, ...]) -> str | None:
    """The bound that is right for the shortest sequences, too, where only those are what it forgot.

    With no key there is no edge and with one there is at most one; a bound that is raised by what it lacks
    there is put to the proof, and proposed if it holds for every length.
    """
    claim = result.claim
    if claim.bound is None or claim.kind != "edges" or (result.finding.witness or {}).get("n", 2) > 1:
        return None
    free = {name: 0 for name in variables(claim.bound) if name != "n"}  # count(x), of inputs that are false
    least = [int(evaluate(claim.bound, Env({"n": keys, **free}))) for keys in (0, 1)]
    start = substitute(claim.bound, {Var(name): ZERO for name in ("n", *free)})
    for lack in sorted({-least[0], 1 - least[1]} - {0}):
        # In terms of parameters where that is possible, so that it holds for their other values, too.
        raised = sub(claim.bound, start) if lack == -least[0] else add(claim.bound, lack)
        if lack > 0 and edges_within(pattern, bodies, fold(raised)).verdict == "proven":
            only = _only_short(claim.bound, bodies)
            return f"{only}write `edges <= {show(raised)}`, which holds for every n, 0 included"
    return None


def _only_short(bound: Expr, bodies: tuple[BodyTerms, ...]) -> str:
    """That a bound fails only where sequences are short, if so: by the closed form, up to some length."""
    from attnc.counts import edges_of

    costs = [edges_of(body) for body in bodies]
    if not costs or not all(cost.exact for cost in costs) or variables(bound) - {"n"}:
        return ""
    limits = [int(evaluate(bound, Env({"n": n}))) for n in range(SHORT + 1)]
    failing = [n for n, limit in enumerate(limits) if any(cost.at(n) > limit for cost in costs)]
    if not failing or failing[-1] - failing[0] >= len(failing) or failing[-1] > SHORT // 2:
        return ""
    told = f"n = {failing[0]}" if len(failing) == 1 else f"n = {failing[0]} to {failing[-1]}"
    return f"of n <= {SHORT}, it fails only for {told}; "


def _edit(pattern: Pattern, finding: Finding, what: str) -> str | None:
    """The relation as it should have been written, with its blameless parts left out."""
    relation = _holder(pattern, finding.span)
    if relation is None or finding.span is None:
        return None
    text = _text(pattern, relation.span)
    if isinstance(relation, Union) and finding.span != relation.span:
        places = [i for i, arg in enumerate(relation.args) if _holds(arg, finding.span)]
        if places:
            before = "… | " if places[0] > 0 else ""
            after = " | …" if places[0] < len(relation.args) - 1 else ""
            text = f"{before}{_text(pattern, relation.args[places[0]].span)}{after}"
    loose = _loose(relation, what)
    if "\n" in text or len(text) > _LONG:
        text, loose = "…", True
    return f"write `({text}) {what}`" if loose else f"write `{text} {what}`"


def _edits(pattern: Pattern, finding: Finding, what: str | None) -> tuple[Edit, ...]:
    """What ``_edit`` says, as changes of the text."""
    relation = _holder(pattern, finding.span)
    if relation is None or what is None:
        return ()
    begin, end = Span(relation.span.start, relation.span.start), Span(relation.span.end, relation.span.end)
    if _loose(relation, what):
        return Edit(begin, "("), Edit(end, f") {what}")
    return (Edit(end, f" {what}"),)


def _loose(relation: Relation, what: str) -> bool:
    """Whether what is added needs brackets around what is there.

    `&` binds tighter than `-` and `|`, and what is added to a union needs none.
    """
    return isinstance(relation, (Union, Difference)) and what.startswith("&")


def _holder(pattern: Pattern, span: Span | None) -> Relation | None:
    for body in pattern.bodies:
        if span is not None and _holds(body.relation, span):
            return body.relation
    return None


def _holds(relation: Relation, span: Span) -> bool:
    return relation.span.start <= span.start and span.end <= relation.span.end


def _text(pattern: Pattern, span: Span) -> str:
    return pattern.source.text[span.start : span.end]

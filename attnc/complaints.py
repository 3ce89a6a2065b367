"""What is said about a claim that does not hold: title, the place that is to blame, the proof, the mend."""

from __future__ import annotations

from collections.abc import Iterable

from attnc.diagnostics import Diagnostic, Label, Span
from attnc.pattern import Difference, Pattern, Relation, Union
from attnc.witness import ClaimResult, Finding

_LONG = 60


def claim_diagnostics(pattern: Pattern, results: Iterable[ClaimResult]) -> tuple[Diagnostic, ...]:
    """One error for every claim that is neither proven nor taken on trust (``assume``)."""
    return tuple(
        _complaint(pattern, result)
        for result in results
        if result.finding.verdict != "proven" and not result.claim.assumed
    )


def _complaint(pattern: Pattern, result: ClaimResult) -> Diagnostic:
    claim, finding = result.claim, result.finding
    if finding.verdict == "undecided":
        message = f"`{pattern.name}` claims `{claim.text}`, which could neither be proven nor refuted"
        mend = "write `assume` in place of `require` to take it on trust; the module will say so"
        return _drawn(pattern, result, "undecided-claim", message, "", mend)
    return _drawn(pattern, result, *_refuted(pattern, result))


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


def _refuted(pattern: Pattern, result: ClaimResult) -> tuple[str, str, str, str | None]:
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
                _edit(pattern, finding, "& causal"),
            )
        case "nonempty":
            return (
                "may-be-empty",
                f"`{name}` claims that every query has a key, but not every one has",
                f"query {at.get('q')} reads no key when n = {at.get('n')}",
                _edit(pattern, finding, "| self"),
            )
        case "edges" | "flops":
            what = "edges" if claim.kind == "edges" else "FLOPs"
            return (
                f"{claim.kind}-exceeded",
                f"`{name}` claims `{claim.text}`, but has more",
                f"more {what} when n = {at.get('n')}",
                "raise the bound, or let the relation have fewer edges",
            )
        case "reach":
            there = f"key {at.get('k')} does not reach query {at.get('q')} when n = {at.get('n')}"
            return (
                "reach-exceeded",
                f"`{name}` claims `{claim.text}`, but needs more layers",
                there,
                "claim more layers, or add a token that all read and that reads all: `| to({0}) | from({0})`",
            )
    raise ValueError(f"a claim of unknown kind: {claim.kind}")


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
    # `&` binds tighter than `-` and `|`, and what is added to a union needs no brackets.
    loose = isinstance(relation, (Union, Difference)) and what.startswith("&")
    if "\n" in text or len(text) > _LONG:
        text, loose = "…", True
    return f"write `({text}) {what}`" if loose else f"write `{text} {what}`"


def _holder(pattern: Pattern, span: Span | None) -> Relation | None:
    for body in pattern.bodies:
        if span is not None and _holds(body.relation, span):
            return body.relation
    return None


def _holds(relation: Relation, span: Span) -> bool:
    return relation.span.start <= span.start and span.end <= relation.span.end


def _text(pattern: Pattern, span: Span) -> str:
    return pattern.source.text[span.start : span.end]

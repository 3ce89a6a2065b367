"""Every fact about a file's patterns, for people and for programs: what ``attnc check`` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnc import factorise, indexing, prediction, proofs
from attnc.budget import LIMIT, OVERRUN, OutOfWork, charge, compiling, within
from attnc.cost import Cost
from attnc.counts import cost_of, edges_of
from attnc.diagnostics import AttncError, Diagnostic, Span, render, to_json
from attnc.expression import TRUE, tables
from attnc.pattern import Pattern, formula
from attnc.pipeline import (
    PASSES,
    Decomposed,
    Judged,
    Parsed,
    Pass,
    Planned,
    Settled,
    advance,
    parameters,
    too_large,
)
from attnc.planner import usual_length
from attnc.progress import Bar
from attnc.proofs import ClaimResult, Finding
from attnc.reach import Reach
from attnc.reach import reach as measure_reach
from attnc.relation import BodyTerms
from attnc.request import Request
from attnc.resolver import resolve
from attnc.sampling import LONGEST, Sample

if TYPE_CHECKING:
    from attnc.drawing.picture import Picture


@dataclass(frozen=True)
class Waste:
    """What the tiles of one body's forward pass compute for a head, beside what its edges need.

    heads: which heads, as written; empty for all. computed, edges: pairs; ratio: the one over the other.
    inputs: the sample inputs that both were counted with, such as ``x=runs:8``; empty where none decide.
    """

    heads: str
    n: int
    computed: int
    edges: int
    ratio: float
    inputs: str = ""


@dataclass(frozen=True)
class Share:
    """The share of the floor that a model expects the kernels to reach on a GPU: 1 is the best there is."""

    gpu: str
    n: int
    forward: float
    backward: float


@dataclass(frozen=True)
class States:
    """What one body keeps in states that do not grow with the length.

    heads: which heads, as written; empty for all. reads: what a query reads of it. numbers: the state of a
    head, and multiplications: what its forward pass takes, as formulas in ``n``, the head dim ``d`` and the
    value dim ``dv``. cheaper_from: the number of keys from which that is less than every pair takes, at dims
    of 64.
    """

    heads: str
    reads: str
    numbers: str
    multiplications: str
    cheaper_from: int


@dataclass(frozen=True)
class PatternReport:
    """What is known of one pattern.

    cost: the edges of one head, as a closed form in the number of keys.
    reach: layers until every token has reached every token it may reach; None where it was not measured.
    bodies: how the relation was taken apart, for each body: which heads (empty for all), and its terms.
    plan: how the kernels walk it; lost: what could not be proven of that and is masked instead.
    waste: for each body what its tiles compute beside what its edges need; None where counting takes too
        much work.
    made: what the passes made of it: a ``Planned`` where all claims hold, else a ``Judged``.
    states: for each body what it keeps in states, where it does.
    expected: what a model expects on GPUs.
    """

    name: str
    params: tuple[tuple[str, int | float], ...]
    inputs: tuple[str, ...]
    causal: Finding
    nonempty: Finding
    cost: Cost
    claims: tuple[ClaimResult, ...]
    reach: Reach | None
    bodies: tuple[tuple[str, tuple[str, ...]], ...]
    plan: str | None
    lost: tuple[str, ...]
    waste: tuple[Waste, ...] | None
    made: Judged
    states: tuple[States, ...] = ()
    expected: tuple[Share, ...] = ()
    unmeasured: str = ""

    def to_json(self) -> dict[str, Any]:
        cost = self.cost
        return {
            "name": self.name,
            "params": dict(self.params),
            "inputs": list(self.inputs),
            "causal": _finding_json(self.causal),
            "nonempty": _finding_json(self.nonempty),
            "edges": str(cost.expr),
            "exact": cost.exact,
            "growth": cost.growth,
            "steady": str(cost.steady),
            "steady_from": cost.steady_from,
            "whole": str(cost.whole),
            "whole_from": cost.whole_from,
            "period": cost.period,
            "claims": [
                {
                    "claim": result.claim.text,
                    "verdict": result.finding.verdict,
                    "assumed": result.claim.assumed,
                    "witness": _witness_json(result.finding),
                    "note": result.finding.note,
                }
                for result in self.claims
            ],
            "reach": None if self.reach is None else str(self.reach),
            "bodies": [{"heads": heads, "terms": list(terms)} for heads, terms in self.bodies],
            "plan": self.plan,
            "lost": list(self.lost),
            "computed": None if self.waste is None else [vars(item) for item in self.waste],
            "states": [vars(item) for item in self.states],
            "expected": [vars(item) for item in self.expected],
        }

    def __str__(self) -> str:
        bound = ", ".join(f"{name} = {value}" for name, value in self.params)
        lines = [f"{self.name}({bound})" if bound else self.name]
        lines += _aligned(self.rows())
        return "\n".join(lines)

    def rows(self) -> Iterator[tuple[str, str]]:
        """What people are told, as names of facts and facts; an empty name goes on with the one before."""
        if self.inputs:
            yield "inputs", ", ".join(self.inputs)
        yield "causal", finding_text(self.causal)
        yield "nonempty", finding_text(self.nonempty)
        yield "edges", "\n".join(self.cost.lines())
        yield "growth", self.cost.growth
        far = "not measured: it takes longer sequences than can be followed to show the pattern's numbers"
        yield "reach", (self.unmeasured or far) if self.reach is None else str(self.reach)
        for result in self.claims:
            trust = "taken on trust; " if _on_trust(result) else ""
            word = trust + finding_text(result.finding)
            yield ("assume" if result.claim.assumed else "require"), f"{_bare(result.claim.text)}: {word}"
        for heads, terms in self.bodies:
            for place, term in enumerate(dict.fromkeys(terms)):
                named = f"heads {heads}" if heads else "terms"
                yield (named if place == 0 else ""), term
        if self.waste is None:
            yield "tiles", "not counted: that takes too much work"
        for item in self.waste or ():
            heads = f" of heads {item.heads}" if item.heads else ""
            given = f", for sample inputs ({item.inputs})" if item.inputs else ""
            yield "tiles", f"{item.ratio:.2f} pairs computed for an edge{heads} at n = {item.n}{given}"
        for found in self.states:
            heads = f" of heads {found.heads}" if found.heads else ""
            yield "states", f"{found.numbers} numbers for a head{heads}: of {found.reads}"
            cheaper = f"cheaper than every pair from n = {found.cheaper_from} on, at dims of 64"
            yield "cost", f"{found.multiplications} multiplications, {cheaper}"
        ways: dict[str, list[str]] = {}
        for share in self.expected:
            text = f"{share.forward:.0%} forward, {share.backward:.0%} backward"
            ways.setdefault(text, []).append(share.gpu)
        if ways:
            texts = "; ".join(f"{text} on an {' or '.join(gpus)}" for text, gpus in ways.items())
            yield "expected", f"of the floor {texts}; at n = {self.expected[0].n}"
        for loss in self.lost:
            yield "masked", loss


@dataclass(frozen=True)
class Report:
    """What is known of every pattern of a file, and everything that is wrong with it.

    ``str(report)`` is for people; ``to_json()`` gives plain data.
    """

    patterns: tuple[PatternReport, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        """Whether everything in it compiles."""
        return not any(found.level == "error" for found in self.diagnostics)

    def to_json(self) -> dict[str, Any]:
        return {
            "patterns": [pattern.to_json() for pattern in self.patterns],
            "diagnostics": [to_json(found) for found in self.diagnostics],
        }

    def render(self, color: bool = False) -> str:
        parts = [*map(str, self.patterns), *(render(found, color) for found in self.diagnostics)]
        return "\n\n".join(part.rstrip("\n") for part in parts)

    def __str__(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, seen: Picture | None = None) -> str:
        """For notebooks: every pattern's facts beside its picture, or beside this one; then what is wrong."""
        from attnc.drawing.notebook import shown

        facts = [
            (pattern.made.pattern, pattern.made.bodies, list(pattern.rows())) for pattern in self.patterns
        ]
        return shown(facts, [render(found) for found in self.diagnostics], seen)


# --- from a request to a report -------------------------------------------------------------------------


def examine(request: Request, bar: Bar | None = None) -> Report:
    """The report on the pattern that was asked for, or on the whole file; nothing that is wrong is raised.

    bar: told of every step.
    """
    bar = bar or Bar(1, None)
    bar.step("reading the patterns")
    try:
        parsed, _ = advance(_pass("syntax"), request)
        with compiling():
            resolved = resolve(parsed.file, request.params, request.pattern)
    except AttncError as error:
        return Report((), error.diagnostics)
    except OutOfWork as error:
        return Report((), (too_large(request.source, Span(0, 0), error),))
    reports: list[PatternReport] = []
    diagnostics: list[Diagnostic] = list(resolved.warnings)
    bar.more(_STEPS * len(resolved.patterns))
    left = LIMIT
    for pattern in resolved.patterns:
        with compiling(left, OVERRUN if left == LIMIT else 0) as work:
            report, found = _examined(parsed, pattern, bar)
        if left < LIMIT and work.refusals:
            # Alone it may have been answered: what it is to be told may not depend on the patterns before.
            diagnostics.append(_too_many(pattern))
            break
        left -= work.spent
        reports += [] if report is None else [report]
        diagnostics += found
    return Report(tuple(reports), tuple(diagnostics))


_STEPS = 6
# The length at which times are predicted, and how many rows of a mask are looked at for that.
EXPECTED, ROWS = 1 << 13, 32
# What it takes to begin with a pattern, in steps of work.
BEGUN = 50_000


def _examined(
    parsed: Parsed, pattern: Pattern, bar: Bar
) -> tuple[PatternReport | None, Sequence[Diagnostic]]:
    """The report on one pattern, or what is wrong with it."""
    try:
        charge(BEGUN, "the pattern")
        return _examine(parsed, pattern, bar)
    except AttncError as error:
        return None, error.diagnostics
    except OutOfWork as error:
        return None, (too_large(pattern.source, pattern.span, error),)


def _too_many(pattern: Pattern) -> Diagnostic:
    return Diagnostic(
        code="too-large",
        level="error",
        message=f"the patterns of this file, up to `{pattern.name}`, together take more than the "
        f"{LIMIT:,} steps of work that a file may cost",
        source=pattern.source,
        span=pattern.span,
        label="neither this one nor those below were looked at",
        help=f"ask for it alone, with `--pattern {pattern.name}`, or give it a file of its own",
    )


def _examine(parsed: Parsed, pattern: Pattern, bar: Bar) -> tuple[PatternReport, list[Diagnostic]]:
    def step(what: str) -> None:
        bar.step(f"{pattern.name}: {what}")

    pattern, held = indexing.clamped(pattern)
    settled = Settled(**vars(parsed), pattern=pattern, warnings=held)
    problems = [*held, *_pass("pattern").verify(settled)]
    step("taking it apart")
    decomposed: Decomposed = _advance("terms", settled, problems)
    step("proving its claims")
    judged: Judged = _advance("claims", decomposed, problems)
    plan, lost = None, ()
    made = judged
    states: tuple[States, ...] = ()
    step("planning")
    if not any(problem.level == "error" for problem in problems):
        made = planned = _advance("schedule", judged, problems)
        plan, lost = _pass("schedule").show(planned), planned.schedule.reports
        states = tuple(_states(planned))
    step("whether it is causal, whether rows are empty")
    causal = _known(judged, "causal", lambda: proofs.causal(pattern))
    nonempty = _known(judged, "nonempty", lambda: proofs.nonempty(pattern, judged.bodies))
    step("how information spreads")
    reach, unmeasured = _reach(judged)
    step("how many edges there are")
    cost = cost_of(judged.bodies)
    waste = _waste(made) if isinstance(made, Planned) else ()
    step("what a GPU is expected to take")
    expected = _shares(made) if isinstance(made, Planned) else ()
    report = PatternReport(
        name=pattern.name,
        params=parameters(pattern),
        inputs=tuple(item.name for item in pattern.inputs),
        causal=causal,
        nonempty=nonempty,
        cost=cost,
        claims=judged.claims,
        reach=reach,
        unmeasured=unmeasured,
        bodies=tuple(_body(terms) for terms in judged.bodies),
        plan=plan,
        lost=tuple(lost),
        waste=waste,
        made=made,
        states=states,
        expected=expected,
    )
    return report, problems


def _waste(planned: Planned) -> tuple[Waste, ...] | None:
    """How many pairs the tiles of each body compute; None where counting them takes too much work."""
    try:
        with within(0.25):
            return tuple(_computed(planned))
    except OutOfWork:
        return None


def _computed(planned: Planned) -> Iterator[Waste]:
    n = 1 << 16 if not planned.pattern.grid else usual_length(planned.pattern)
    for item, terms in zip(planned.schedule.bodies, planned.bodies, strict=True):
        if any(item.factors):
            continue
        heads, cost = terms.body.heads.text, edges_of(terms)
        told = cost.exact and not cost.of_inputs and not tables(formula(item.body.relation))
        sample = Sample.of(planned.pattern, item.body, n if told else min(n, LONGEST))
        if sample is not None and (needed := cost.at(sample.n) if told else sample.edges()):
            pairs = sample.computed(item.query)
            yield Waste(heads, sample.n, pairs, needed, pairs / needed, sample.words())


def _shares(planned: Planned) -> tuple[Share, ...]:
    """What a model expects of each known GPU; of none where that takes too much work."""
    n = usual_length(planned.pattern) if planned.pattern.grid else EXPECTED
    try:
        with within(0.25):
            work = prediction.count(planned, prediction.Shape(n, heads=32, kv_heads=8, dim=128), rows=ROWS)
    except (OutOfWork, prediction.Unpredictable):
        return ()
    found = []
    for name, gpu in prediction.gpus().items():
        on = work.on(gpu)
        found.append(Share(name, n, on["forward"].share, on["backward"].share))
    return tuple(found)


def _states(planned: Planned) -> Iterator[States]:
    for item in planned.schedule.bodies:
        body = item.whole or item.body
        for factor, part in zip(item.factors, body.parts, strict=False):
            if factor is not None:
                yield States(
                    body.heads.text,
                    str(factor),
                    factorise.state_text(part.weights),
                    factorise.cost_text(factor, part.weights),
                    factorise.breaks_even(factor, part.weights),
                )


def _pass(name: str) -> Pass:
    return next(step for step in PASSES if step.name == name)


def _advance(name: str, value: Any, problems: list[Diagnostic]) -> Any:
    outcome, found = advance(_pass(name), value)
    problems += found
    return outcome


def _known(judged: Judged, kind: str, ask: Callable[[], Finding]) -> Finding:
    """The finding of a claim of that kind when there is one, so that nothing is proven twice."""
    known = next((result.finding for result in judged.claims if result.claim.kind == kind), None)

    def asked() -> Finding:
        with within(0.5):
            return ask()

    return known or proofs.affordable(asked)


def _reach(judged: Judged) -> tuple[Reach | None, str]:
    """How information spreads; or none, and why that was not measured."""
    try:
        return measure_reach(judged.pattern, bodies=judged.bodies), ""
    except OutOfWork as error:
        return None, f"not measured: {error}"


def _body(terms: BodyTerms) -> tuple[str, tuple[str, ...]]:
    heads = terms.body.heads
    return ("" if heads.condition == TRUE else heads.text), tuple(term.origin for term in terms.terms)


# --- in words -------------------------------------------------------------------------------------------


def _aligned(rows: Iterator[tuple[str, str]]) -> list[str]:
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    lines = []
    for name, text in listed:
        first, *rest = text.splitlines() or [""]
        lines.append(f"  {name:<{width}}  {first}".rstrip())
        lines += [f"  {'':<{width}}  {line}".rstrip() for line in rest]
    return lines


def finding_text(finding: Finding) -> str:
    witness = finding.witness or {}
    words = str(finding.verdict)
    if "q" in witness and "n" in witness:
        key = witness.get("k")
        does = "has no key" if key is None else f"reads k = {key}"
        words += f": q = {witness['q']} {does} when n = {witness['n']}"
    note = finding.note.strip()
    return f"{words} ({note})" if note and not note.startswith(str(finding.verdict)) else words


def _witness_json(finding: Finding) -> dict[str, int | None] | None:
    witness = finding.witness
    return None if witness is None else {name: witness.get(name) for name in ("q", "k", "n")}


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {"verdict": finding.verdict, "witness": _witness_json(finding), "note": finding.note}


def _on_trust(result: ClaimResult) -> bool:
    return result.claim.assumed and result.finding.verdict != "proven"


def _bare(text: str) -> str:
    """A claim's text without the word that the report puts in front of it."""
    return text.removeprefix("require ").removeprefix("assume ")

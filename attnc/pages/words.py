"""Proofs and plans told to people, in HTML."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from attnc.digits import PLAIN
from attnc.expression import FALSE, TRUE
from attnc.factorise import decay_lines, state_text
from attnc.notation import show
from attnc.proofs import ClaimResult, Finding
from attnc.report import finding_text
from attnc.schedule import SHIFT, BodyPlan, Pass, Schedule, Sweep, Walk
from attnc.witness import told

_EVERYWHERE = "for every length, every head and whatever the inputs hold"
# What was asked for each kind of claim, and what it means that there was no answer.
PROOFS = {
    "causal": f"The solver looked for a query that reads a key after itself, {_EVERYWHERE}; there is none.",
    "nonempty": f"Every query has a key, {_EVERYWHERE}: that none has was shown to be impossible.",
    "edges": "The closed form of the number of edges never exceeds the bound, for any length.",
    "flops": "The closed form of the work, two products an edge, never exceeds the bound, for any length.",
    "reach": "For every pair of tokens a path of at most so many edges was named, for any length.",
}


def verdict(finding: Finding) -> str:
    """The word, in its color."""
    word = escape(str(finding.verdict))
    return f'<span class="verdict {word}">{word}</span>'


def proof(kind: str, finding: Finding) -> str:
    """Why a claim holds, or where it fails."""
    match finding.verdict:
        case "proven":
            note = finding.note.strip()
            said = PROOFS.get(kind, "")
            more = "" if said and note.startswith("proven") else _sentence(note)
            return escape(f"{said} {more}".strip())
        case "refuted":
            return escape(_refuted(kind, finding))
    return escape(_sentence(finding.note) or "Neither a proof nor a counterexample was found.")


def _refuted(kind: str, finding: Finding) -> str:
    at = finding.witness or {}
    head = f" of head {finding.head} of {finding.heads}" if finding.heads > 1 else ""
    tokens = f"With {at.get('n')} token{'s' if at.get('n') != 1 else ''}"
    note = finding.note.strip()
    if kind in ("edges", "flops") or "q" not in at or "n" not in at:
        return _sentence(note) or _sentence(finding_text(finding))
    match kind, at.get("k"):
        case "reach", key:
            words = f"{tokens}, query {at['q']} has heard nothing of key {key} after so many layers."
        case _, None:
            words = f"{tokens}, query {at['q']}{head} has no key."
        case _, key:
            words = f"{tokens}, query {at['q']}{head} reads key {key}."
    held = ", ".join(f"{name} = {told(value)}" for name, value in finding.inputs.items())
    # What the note says of the length and the inputs has been said.
    more = note.partition("; ")[2] if note.startswith("refuted for") else note
    parts = (words, f"The inputs hold {held}." if held else "", _sentence(f"it {more}" if more else ""))
    return " ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def claim_row(result: ClaimResult) -> str:
    """A row of the table of claims."""
    trusted = result.claim.assumed and result.finding.verdict != "proven"
    trust = " It is taken on trust, as `assume` says." if trusted else ""
    return (
        f"<tr><td><code>{escape(result.claim.text)}</code></td><td>{verdict(result.finding)}</td>"
        f"<td>{proof(result.claim.kind, result.finding)}{escape(trust)}</td></tr>"
    )


# --- the plan -------------------------------------------------------------------------------------------


def plan(schedule: Schedule) -> Iterator[str]:
    """The schedule as paragraphs and lists: what a tile of queries visits, and where it needs no mask."""
    for item in schedule.bodies:
        yield from _body(item)
    for lost in schedule.reports:
        yield f"<p>Not proven, and so done the careful way: {escape(lost)}.</p>"


def _body(item: BodyPlan) -> Iterator[str]:
    if item.body.heads.text:
        yield f"<h4>Heads {escape(item.body.heads.text)}</h4>"
    yield from _states(item)
    if any(item.factors) and not item.query:
        return
    count = len(item.query)
    several = "" if count == 1 else "; each goes on with the softmax where the one before it stopped"
    if any(item.factors):
        several = "; what the states gave is joined with what they find, under one denominator"
    yield (
        f"<p>The forward pass and the gradients of queries take {_number(count, 'pass', 'passes')} over the "
        f"queries{several}.</p>"
    )
    for place, part in enumerate(item.query, 1):
        name = "The pass" if count == 1 else f"Pass {place}"
        yield f"<p><b>{name}</b> takes {_tiles(part)}. Each tile visits:</p>"
        sweeps = "".join(f"<li>{_sweep(sweep)}</li>" for sweep in part.sweeps)
        yield f"<ul>{sweeps}</ul>" if sweeps else "<p>Nothing: the result is zero.</p>"
    back = _number(len(item.key), "pass", "passes")
    yield f"<p>Gradients of keys and values take {back} over the keys: the same pairs, seen from there.</p>"


def _states(item: BodyPlan) -> Iterator[str]:
    """What is computed through states, where a part of the body is."""
    body = item.whole or item.body
    for factor, part in zip(item.factors, body.parts, strict=False):
        if factor is None:
            continue
        weights = part.weights
        update = "by the delta rule" if weights.beta else "as products of features and values"
        anew = ", begun anew in every segment," if factor.segmented else ""
        faded = f" It is {escape(line)}." if (line := next(decay_lines(weights), "")) else ""
        near = " Only pairs within a chunk are looked at one by one." if factor.causal else ""
        yield (
            "<p><b>States</b> take the place of pairs: the keys are walked in chunks and summed up "
            f"{update} in {_code(state_text(weights))} numbers a head{anew} of which a query reads "
            f"{escape(str(factor))}.{faded}{near} Gradients go through the same states.</p>"
        )


def _number(count: int, one: str, many: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six")
    return f"{words[count] if count < len(words) else count} {one if count == 1 else many}"


def _tiles(part: Pass) -> str:
    words = f"{_walk(part.walk)}"
    if part.walk.radix != PLAIN:
        words += f", in tiles of {_code(' x '.join(('any', *map(str, part.extents))))} of these"
    if part.owned != TRUE:
        words += f"; it answers for those with {_code(show(part.owned))}"
    if part.order == "backwards":
        words += "; the last tiles, which have most to do, come first"
    if part.order == "inwards":
        words += "; from both ends inwards, where tiles have most to do"
    return words


def _walk(walk: Walk) -> str:
    name = "queries" if walk.var.name == "q" else "keys"
    if walk.members is not None:
        return f"the {name} with {_code(show(walk.members))}, packed side by side"
    if walk.radix == PLAIN:
        return f"all {name} in order"
    told_in = _code(f"{walk.var.name} = {show(walk.radix.position(walk.digits))}")
    return f"{name} told in digits, {told_in}, so that what belongs together lies together"


def _sweep(sweep: Sweep) -> str:
    name = "queries" if sweep.walk.var.name == "q" else "keys"
    words = f"for {_code(' '.join(sweep.origin.split()))}: "
    if sweep.scatter is not None:
        at = "those of its draw" if sweep.scatter.at is None else _code(show(sweep.scatter.at))
        shifts = f" for {SHIFT.name} in 0, 1, 2, 4, …" if sweep.scatter.shifted else ""
        return f"{words}{name} one by one, at {at}{escape(shifts)}"
    if sweep.drawn is not None:
        words += f"the tiles of {name} that the draw has picked"
    else:
        ranges = ", ".join(
            f"{_code(digit.name)} {_between(show(low), show(high))}"
            for digit, low, high in zip(sweep.walk.digits, sweep.low, sweep.high, strict=False)
        )
        packed = "" if sweep.walk.members is None else f" with {_code(show(sweep.walk.members))}, packed,"
        words += f"{name}{packed} with {ranges}"
    if sweep.when != TRUE:
        words += f", only if {_code(show(sweep.when))}"
    if sweep.full_when != FALSE:
        condition = "" if sweep.full_when == TRUE else f" if {_code(show(sweep.full_when))}"
        words += f"; no mask is needed {_between(show(sweep.full_low), show(sweep.full_high))}{condition}"
    if sweep.mask != TRUE:
        where = "everywhere" if sweep.full_when == FALSE else "elsewhere"
        words += f"; {where} a pair counts if {_code(show(sweep.mask))}"
    return words


def _between(low: str, high: str) -> str:
    return f"at {_code(low)}" if low == high else f"from {_code(low)} to {_code(high)}"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"

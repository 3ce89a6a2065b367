"""The report on a file's patterns as a page: source, picture, claims, cost, reach, plan and kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from attnc import factorise
from attnc import fills as contents
from attnc.cost import Cost
from attnc.decompose import by_weights
from attnc.description import weight_lines
from attnc.diagnostics import Source, Span, render
from attnc.drawing.colors import color
from attnc.drawing.highlight import highlighted
from attnc.drawing.picture import Picture, picture
from attnc.pages import python, words
from attnc.pages.charts import Curve, bars, curves, short
from attnc.pages.figure import figure
from attnc.pages.frame import page
from attnc.pattern import Pattern
from attnc.pipeline import Judged, Planned, module_pass
from attnc.progress import Bar
from attnc.reach import Spread, least_heads, spread, telling_length
from attnc.reference import mask
from attnc.relation import BodyTerms
from attnc.report import PatternReport, Report

LENGTHS = tuple(1 << power for power in range(6, 21))
# Up to here edges are counted in the mask itself, where the closed form is only a bound.
LONGEST_COUNTED = 2048
# Lengths whose cost stands in the table, too.
TABLED = (1 << 10, 1 << 13, 1 << 16, 1 << 20)
STEPS = 3
# Head and value dims for which work is told.
DIM = 64
LONGEST_LINE = 160


@dataclass(frozen=True)
class Wishes:
    """What a page is asked to show. n, heads: of the picture; None for what shows the pattern best.

    fills: what inputs hold, as in ``attnc.fills``.
    """

    n: int | None = None
    heads: int | None = None
    fills: Mapping[str, str] = field(default_factory=dict)


def report_page(report: Report, wishes: Wishes | None = None, bar: Bar | None = None) -> str:
    """The whole page. Raises ``BadFill`` and ``BadPicture`` for wishes that cannot be met."""
    wishes, bar = wishes or Wishes(), bar or Bar(1, None)
    bar.more(STEPS * len(report.patterns))
    names = [pattern.name for pattern in report.patterns]
    parts = [f"<h1>{escape(', '.join(names))}</h1>"]
    if report.patterns:
        source = report.patterns[0].made.file.source
        parts.append(f'<p class="soft">From <code>{escape(source.name)}</code>. {_links(names)}</p>')
    parts += [_diagnostic(render(found)) for found in report.diagnostics]
    for pattern in report.patterns:
        parts += _pattern(pattern, wishes, bar)
    return page(f"{', '.join(names)}: who reads whom", "\n".join(parts))


def _links(names: list[str]) -> str:
    if len(names) < 2:
        return ""
    return " · ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)


def _diagnostic(text: str) -> str:
    return f'<pre class="refuted">{escape(text)}</pre>'


def _pattern(report: PatternReport, wishes: Wishes, bar: Bar) -> Iterator[str]:
    made = report.made
    pattern = made.pattern
    own = {
        name: fill for name, fill in wishes.fills.items() if name in {item.name for item in pattern.inputs}
    }
    bar.step(f"{report.name}: drawing it")
    n = wishes.n or telling_length(pattern)
    given = contents.chosen(pattern, own)
    seen = picture(pattern, made.bodies, n, heads=wishes.heads, fills=given)

    yield f'<h2 id="{escape(report.name)}"><code>{escape(seen.title)}</code></h2>'
    yield f'<div class="wide"><table>{"".join(_facts(report))}</table></div>'
    yield "<h3>The pattern</h3>"
    yield f"<pre>{_source(made, by_weights(made.bodies), seen)}</pre>"
    yield "<h3>Who reads whom</h3>"
    yield f'<p class="soft">{escape(seen.caption)}. Rows are queries, columns the keys that they read.</p>'
    yield figure(seen)
    yield from _weights(pattern)
    yield "<h3>What is proven</h3>"
    yield from _claims(report)
    yield "<h3>What it costs</h3>"
    yield from _cost(pattern, report.cost, given)
    if isinstance(made, Planned):
        yield from _states(made)
    bar.step(f"{report.name}: following what spreads")
    yield "<h3>What reaches whom</h3>"
    yield from _reach(report, spread(pattern, made.bodies, n, given), seen.fills)
    yield "<h3>How it is walked</h3>"
    bar.step(f"{report.name}: writing its kernels")
    if isinstance(made, Planned):
        yield from words.plan(made.schedule)
        plan = escape(report.plan or "")
        yield f"<details><summary>The schedule, word for word</summary><pre>{plan}</pre></details>"
        yield "<h3>The module</h3>"
        yield from _module(made)
    else:
        yield "<p>Nothing is planned for a pattern whose claims do not hold.</p>"


def _facts(report: PatternReport) -> Iterator[str]:
    skipped = {"require", "assume", "reach"}
    for name, fact in report.rows():
        if name not in skipped:
            text = escape(fact).replace("\n", "<br>")
            yield f"<tr><th>{escape(name)}</th><td>{text}</td></tr>"


def _source(made: Judged, bodies: Sequence[BodyTerms], seen: Picture) -> str:
    """The pattern's part of the file, what stands before it included, terms underlined in their colors."""
    source = made.pattern.source
    start, end = _part(made, source)
    numbers = {term: place for place, term in enumerate(seen.terms)}
    marks = [(term.span, numbers[" ".join(term.origin.split())]) for body in bodies for term in body.terms]
    return highlighted(source.text, Span(start, end), marks)


def _part(made: Judged, source: Source) -> tuple[int, int]:
    start = 0
    for pattern in made.file.patterns:
        end = pattern.span.end
        if pattern.name.text == made.pattern.name:
            # Behind the brace a comment may end the line.
            line = source.text.find("\n", end)
            end = len(source.text) if line < 0 else line
            while start < end and source.text[start].isspace():
                start += 1
            return start, end
        start = end
    return 0, len(source.text)


def _weights(pattern: Pattern) -> Iterator[str]:
    """What edges weigh, where it is more than softmax."""
    if all(part.weights.plain for body in pattern.bodies for part in body.parts):
        return
    yield "<h3>What an edge weighs</h3>"
    rows = []
    for body in pattern.bodies:
        heads = f"heads {body.heads.text}: " if body.heads.text else ""
        for part in body.parts:
            where = _written(pattern, part.relation.span)
            lines = weight_lines(part.weights) or ["softmax of the scaled dot product"]
            # What `let` has named is easier to read by its names, where all of it in place is much.
            written = _written(pattern, part.span)
            lines = [
                written if len(line) > LONGEST_LINE and line.split()[0] == written.split()[0] else line
                for line in lines
            ]
            weights = "<br>".join(f"<code>{escape(line)}</code>" for line in lines)
            rows.append(f"<tr><td><code>{escape(heads + where)}</code></td><td>{weights}</td></tr>")
    yield f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _written(pattern: Pattern, span: Span) -> str:
    return " ".join(pattern.source.text[span.start : span.end].split())


def _claims(report: PatternReport) -> Iterator[str]:
    rows = [words.claim_row(result) for result in report.claims]
    claimed = {result.claim.kind for result in report.claims}
    for kind, finding in (("causal", report.causal), ("nonempty", report.nonempty)):
        if kind not in claimed:
            rows.append(
                f'<tr><td><code>{kind}</code> <span class="soft">(not claimed)</span></td>'
                f"<td>{words.verdict(finding)}</td><td>{words.proof(kind, finding)}</td></tr>"
            )
    yield f'<div class="wide"><table>{"".join(rows)}</table></div>'


# --- cost -----------------------------------------------------------------------------------------------


def _cost(pattern: Pattern, cost: Cost, fills: Mapping[str, str]) -> Iterator[str]:
    bools = [item for item in pattern.inputs if item.kind == "bool"]

    def at(n: int) -> int:
        return cost.at(n, **{item.name: contents.true_entries(item, fills[item.name], n) for item in bools})

    try:
        points = tuple((n, at(n)) for n in LENGTHS)
    except ValueError as error:
        yield f"<p>{escape(str(error))}.</p>"
        return
    chosen = [item for item in pattern.inputs if item.kind != "float"]
    held = ", ".join(f"{item.name}={fills[item.name]}" for item in chosen)
    given = f" With {escape(held)}." if held else ""
    bound = "" if cost.exact else " The closed form is an upper bound, for the number hangs on what is drawn "
    bound += "" if cost.exact else f"or given; edges were counted up to n = {LONGEST_COUNTED}."
    yield f"<p>Edges of one head against the number of tokens.{given}{bound}</p>"
    dense = Curve("dense", tuple((n, n * n) for n in LENGTHS), "currentColor", dashed=True)
    half = Curve("causal", tuple((n, n * (n + 1) // 2) for n in LENGTHS), "#8a93a0", dashed=True)
    lines = [dense, half, Curve("this pattern" if cost.exact else "at most", points, color(0))]
    if not cost.exact:
        lines.append(Curve("counted", tuple(_counted(pattern, fills)), color(1)))
    yield f"<figure>{curves(lines, 'tokens', 'edges')}</figure>"
    rows = "".join(
        f'<tr><td class="number">{n}</td><td class="number">{count}</td>'
        f'<td class="number">{_ratio(n * n, count)}</td><td class="number">{short(4 * DIM * count)}</td></tr>'
        for n, count in points
        if n in TABLED
    )
    heading = "edges" if cost.exact else "edges, at most"
    yield (
        f'<div class="wide"><table><tr><th class="number">tokens</th><th class="number">{heading}</th>'
        '<th class="number">dense has</th><th class="number">FLOPs forward, pair by pair, d = 64</th></tr>'
        f"{rows}</table></div>"
    )


def _states(made: Planned) -> Iterator[str]:
    """What is computed through states costs beside every pair, where something is."""
    for item in made.schedule.bodies:
        body = item.whole or item.body
        for factor, part in zip(item.factors, body.parts, strict=False):
            if factor is None:
                continue
            kept = tuple((n, factorise.multiplications(factor, part.weights, n, DIM)) for n in LENGTHS)
            pairs = tuple((n, 2 * DIM * (n * (n + 1) // 2 if factor.causal else n * n)) for n in LENGTHS)
            least = factorise.breaks_even(factor, part.weights, DIM)
            heads = f" of heads {escape(body.heads.text)}" if body.heads.text else ""
            formula = escape(factorise.cost_text(factor, part.weights))
            yield (
                f"<p>Not every pair{heads} is computed: through states the forward pass of a head takes "
                f"<code>{formula}</code> multiplications, fewer than pair by pair from n = {least} on, with "
                f"dims of {DIM}.</p>"
            )
            lines = [
                Curve("pair by pair", pairs, "currentColor", dashed=True),
                Curve("states", kept, color(1)),
            ]
            yield f"<figure>{curves(lines, 'tokens', 'multiplications')}</figure>"
            rows = "".join(
                f'<tr><td class="number">{n}</td><td class="number">{short(every)}</td>'
                f'<td class="number">{short(some)}</td><td class="number">{_ratio(every, some)}</td></tr>'
                for (n, some), (_, every) in zip(kept, pairs, strict=True)
                if n in TABLED
            )
            yield (
                '<div class="wide"><table><tr><th class="number">tokens</th>'
                '<th class="number">pair by pair</th><th class="number">through states</th>'
                '<th class="number">pairs take</th></tr>'
                f"{rows}</table></div>"
            )


def _counted(pattern: Pattern, fills: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Edges of the head that has most, at lengths at which the mask itself can be looked at."""
    heads = least_heads(pattern)
    for n in LENGTHS:
        if n <= LONGEST_COUNTED:
            inputs = contents.filled(pattern, n, heads, fills, dim=1)
            yield n, int(mask(pattern, n, heads, inputs).sum(axis=(1, 2)).max())


def _ratio(dense: int, count: int) -> str:
    if not count:
        return "no end"
    return f"{dense / count:.3g}x" if dense < 1000 * count else f"{dense / count:.0f}x"


# --- reach ----------------------------------------------------------------------------------------------


def _reach(report: PatternReport, found: Spread, fills: Mapping[str, str]) -> Iterator[str]:
    if report.reach is not None:
        yield f"<p>{escape(str(report.reach)[:1].upper() + str(report.reach)[1:])}.</p>"
    cells = "" if found.tile == 1 else f", in tiles of {found.tile}, which is never less than the truth"
    given = "".join(f", {name}={fill}" for name, fill in fills.items())
    pairs = "earlier tokens" if found.causal else "tokens"
    yield (
        f"<p>Of all pairs of a token and the {pairs} that it may hear of, the share that has arrived after "
        f"so many layers, at n = {found.n}{cells}{given}.</p>"
    )
    rows = [
        (f"{i} layer{'s' if i > 1 else ''}", share, _percent(share))
        for i, share in enumerate(found.shares, 1)
    ]
    yield f"<figure>{bars(rows, color(2))}</figure>"
    if not found.settled:
        yield '<p class="soft">More layers bring more.</p>'
    elif found.shares and found.shares[-1] < 1:
        yield '<p class="soft">More layers bring nothing more.</p>'


def _percent(share: float) -> str:
    return "all" if share == 1 else f"{100 * share:.3g} %" if share < 0.9995 else "nearly all"


# --- module ---------------------------------------------------------------------------------------------


def _module(made: Planned) -> Iterator[str]:
    text = module_pass(made).text
    count = text.count("\n")
    yield (
        f"<p>What <code>attnc compile</code> writes: {count} lines that need torch, on a GPU Triton, and "
        "nothing of attnc.</p>"
    )
    yield (f"<details><summary>Its text</summary><pre>{python.highlighted(text)}</pre></details>")

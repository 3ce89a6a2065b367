"""Which bodies are computed as a masked sweep over everything: said once for a pattern, with the condition.

Exact, but as slow as a dense mask: no bound on the keys of a query follows from the condition, so every tile
is computed, and what is no edge is masked.
"""

from __future__ import annotations

import re

from attnc.diagnostics import Diagnostic
from attnc.expression import TRUE, ZERO, And, Const, Expr, K, Lookup, Max, Min, Var, fold, mentioned, walk
from attnc.isolate import solve
from attnc.notation import show
from attnc.pattern import Body, Pattern
from attnc.sampling import Sample
from attnc.schedule import Pass, Schedule, Sweep, tile_ends
from attnc.simplify import LAST

# The length at which edges are counted in the mask, for sample inputs.
SAMPLE = 1 << 10
# So many pairs may be computed for an edge without a word.
FEW = 2.0
LONGEST = 100
_ALLOWED = re.compile(r"#\s*allow:\s*masked-sweep\b")


def masked_sweeps(pattern: Pattern, schedule: Schedule) -> tuple[Diagnostic, ...]:
    """A warning for the first body that computes every pair, though few of them are edges.

    None where the source has the comment ``# allow: masked-sweep``.
    """
    if _ALLOWED.search(pattern.source.text):
        return ()
    for plan in schedule.bodies:
        for part in plan.query:
            for sweep in part.sweeps:
                conditions = _unbounded(part, sweep)
                if not conditions:
                    continue
                sample = Sample.of(pattern, plan.body, SAMPLE)
                if sample is None:
                    continue
                ratio = sample.computed(plan.query) / max(sample.edges(), 1)
                if ratio > FEW:
                    return (_warning(plan.body, conditions, ratio, sample, schedule.reports),)
    return ()


def _unbounded(part: Pass, sweep: Sweep) -> tuple[Expr, ...]:
    """The conditions of a sweep over all keys, or over all before or after the query; () if it is none."""
    one_by_one = sweep.scatter is not None or sweep.drawn is not None
    if one_by_one or sweep.walk.members is not None or sweep.worth != TRUE or part.walk.members is not None:
        return ()
    ends = {end for pair in tile_ends(part.walk.var, part.walk.radix, part.extents).values() for end in pair}
    ranges = list(sweep.walk.radix.ranges(sweep.walk.var).values())
    if list(zip(sweep.low[1:], sweep.high[1:], strict=True)) != ranges:
        return ()
    low, high = sweep.low[0], sweep.high[0]
    if any(isinstance(part, Lookup) for bound in (low, high) for part in walk(bound)):
        return ()
    # From the first key on, or up to the last one, as far as the other end goes with the query and no further
    # end, a key of its own, comes before it.
    before = all(
        arg == LAST or ends & mentioned(arg) for arg in (high.args if isinstance(high, Min) else (high,))
    )
    after = all(
        isinstance(arg, Const) or ends & mentioned(arg)
        for arg in (low.args if isinstance(low, Max) else (low,))
    )
    if not (low == ZERO and before) and not (high == LAST and after and ends & mentioned(low)):
        return ()
    mask = fold(sweep.mask)
    literals = mask.args if isinstance(mask, And) else (mask,)
    keys = {K, *sweep.walk.digits}
    return tuple(
        literal for literal in literals if solve(literal, K) is None and not keys.isdisjoint(_read(literal))
    )


def _read(condition: Expr) -> set[Var]:
    return {var for part in walk(condition) for var in mentioned(part)}


def _warning(
    body: Body,
    conditions: tuple[Expr, ...],
    ratio: float,
    sample: Sample,
    reports: tuple[str, ...],
) -> Diagnostic:
    shown = min((show(condition) for condition in conditions), key=len)
    reason = f"`{shown}`" if len(shown) <= LONGEST else "its condition"
    pattern, inputs = sample.pattern, sample.words()
    given = f", for sample inputs ({inputs})" if inputs else ""
    return Diagnostic(
        code="masked-sweep",
        level="warning",
        message=f"`{pattern.name}` computes every pair and masks what is no edge: {reason} sets no bounds on "
        "the keys of a query",
        source=pattern.source,
        span=body.relation.span,
        label="all tiles are computed",
        notes=(f"{ratio:.3g} pairs computed for an edge at n = {sample.n}{given}", *reports),
        help="write it as windows, chunks, residues, coordinates of a grid or sets, or bound it by one: "
        "`& window(512)`; `# allow: masked-sweep` in the source says that it is meant",
    )

"""What a plan is: passes and sweeps, told in positions and not yet in tiles or code.

A *pass* walks over the positions of one side (its own), tile by tile; for every tile each of its *sweeps*
walks over positions of the other side. Query-side passes give outputs and query gradients: for every query
one pass begins, and further ones continue where it stopped. Key-side passes give key and value gradients;
what several of them find for one key is added up in a fixed order.

Positions are told in digits (``attnc.digits``): a tile is a run of positions, a run within one residue class,
or a rectangle of a grid. All bounds of a sweep are expressions over the ends of the tile at hand: positions
outside ``low..high`` need not be visited, positions inside ``full_low..full_high`` need no mask. The key
side's are the same terms, transposed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from attnc import factorise
from attnc.digits import PLAIN, Radix
from attnc.expression import (
    FALSE,
    TRUE,
    ZERO,
    Drawn,
    Expr,
    Q,
    Var,
    between,
    conj,
    walk,
)
from attnc.factorise import Factor
from attnc.notation import show
from attnc.pattern import Body, Pattern
from attnc.simplify import LAST

Side = Literal["query", "key"]
Order = Literal["forwards", "backwards", "inwards"]
Form = Literal["narrow", "wide", "long"]
LEAST, MOST = Var("least"), Var("most")
SHIFT = Var("shift")  # 0 or a power of two


@dataclass(frozen=True)
class Walk:
    """How positions are visited: digit by digit, or those that meet a predicate, packed.

    radix: the digits in which positions are told; plain positions are one digit.
    ranges: of the side whose tiles it is, the values that the digits but the first take, inclusive.
    members: the predicate over ``var``, when packed through an index that is built on the device.
    """

    var: Var
    radix: Radix = PLAIN
    ranges: tuple[tuple[Expr, Expr], ...] = ()
    members: Expr | None = None

    @property
    def digits(self) -> tuple[Var, ...]:
        return self.radix.digits(self.var)

    def condition(self) -> Expr:
        """What a position of the sequence must meet to be visited."""
        places = zip(self.radix.of(self.var)[1:], self.ranges, strict=False)
        limits = conj(*(between(low, place, high) for place, (low, high) in places))
        return conj(limits, TRUE if self.members is None else self.members)


@dataclass(frozen=True)
class Scatter:
    """Positions of the other side that are visited one by one, few for each own position.

    condition: what the visited pairs, and no others, meet.
    at: where they are, over the own position and ``shift``; None for the columns of a draw.
    """

    condition: Expr
    at: Expr | None

    @property
    def shifted(self) -> bool:
        """Whether there is one for every power of two, and not one alone."""
        return self.at is not None and any(part == SHIFT for part in walk(self.at))


@dataclass(frozen=True)
class Sweep:
    """Positions of the other side that a tile visits.

    when: whether the tile has to do with this sweep at all, over the tile's ends.
    low, high: for every digit the values to visit, inclusive, over the tile's ends.
    full_when, full_low, full_high: where no mask is needed: a condition on the tile, and values of the first
        digit; ``full_when`` is FALSE if nowhere.
    mask: what a visited pair must meet elsewhere, over positions and digits.
    worth: whether a tile of the other side can hold an edge at all, where the bounds say too little; over the
        least and greatest value that its first digit takes, too.
    selection: what a swept position must meet everywhere, the full part included, over its own variable.
    drawn: the positions come from a list of tiles instead, those that hold a pair of this draw.
    scatter: the positions are taken one by one instead.
    claim: the pairs that the sweep is there for, told in positions.
    """

    walk: Walk
    when: Expr
    low: tuple[Expr, ...]
    high: tuple[Expr, ...]
    full_when: Expr
    full_low: Expr
    full_high: Expr
    mask: Expr
    worth: Expr
    selection: Expr
    drawn: Drawn | None
    scatter: Scatter | None
    claim: Expr
    origin: str

    @property
    def moving(self) -> tuple[int, ...]:
        """The digits but the first that take more than one value."""
        return tuple(i for i in range(1, len(self.low)) if self.low[i] != self.high[i])


@dataclass(frozen=True)
class Pass:
    """A walk over one side and what every tile of it sweeps.

    extents: how many values of the digits but the first a tile spans; the first takes the rest.
    owned: which positions the pass answers for; others may lie in its tiles, and are not written.
    continues: whether it goes on with what earlier passes found for its queries; key sides always add up.
    form: "narrow" where tiles of few positions pay, because the sweeps are short; "long" where steps of many
        positions pay, because they are long; else "wide".
    order: in which tiles are begun, so that those with most to do come first.
    heavy: how many positions, begun first, have tiles with far more to do than others; counted, not proven.
    longest: how many positions a tile sweeps at the most, counted and not proven, over ``n``; zero where they
        are so few that they need not be shared out, however few the tiles are.
    """

    side: Side
    walk: Walk
    extents: tuple[int, ...]
    owned: Expr
    sweeps: tuple[Sweep, ...]
    continues: bool = False
    form: Form = "wide"
    order: Order = "forwards"
    heavy: int = 0
    longest: Expr = ZERO

    @property
    def covers_all(self) -> bool:
        """Whether it answers for every position of its side."""
        walk = self.walk
        every = walk.ranges == tuple(walk.radix.ranges(walk.var).values())
        return self.owned == TRUE and walk.members is None and every


@dataclass(frozen=True)
class BodyPlan:
    """The passes of a body.

    factors: for every part of the body how it is computed through states, or None.
    whole: the body that ``body`` is the swept part of, where the other part is computed through states: the
        passes then go on with what that found.
    """

    body: Body
    query: tuple[Pass, ...]
    key: tuple[Pass, ...]
    factors: tuple[Factor | None, ...] = ()
    whole: Body | None = None


@dataclass(frozen=True)
class Schedule:
    """A plan for every body.

    reports: what was lost where a plan could not be proven and a conservative one took its place.
    """

    pattern: Pattern
    bodies: tuple[BodyPlan, ...]
    reports: tuple[str, ...] = field(default=())


def tile_ends(own: Var, radix: Radix, extents: tuple[int, ...]) -> dict[Var, tuple[Var, Var]]:
    """For every digit of a tile's positions the variables that its least and greatest values go by."""
    if radix == PLAIN:
        return {own: (Var("first"), Var("last"))}
    ends = {}
    for i, digit in enumerate(radix.digits(own)):
        single = i > 0 and extents[i - 1] == 1
        ends[digit] = (Var(f"first{i}"), Var(f"first{i}" if single else f"last{i}"))
    return ends


def whole(side: Side, own: Var, other: Var, condition: Expr) -> Pass:
    """Everything visited and masked by the relation itself: right by construction, whatever the relation."""
    sweep = Sweep(
        walk=Walk(other),
        when=TRUE,
        low=(ZERO,),
        high=(LAST,),
        full_when=FALSE,
        full_low=ZERO,
        full_high=ZERO,
        mask=condition,
        worth=TRUE,
        selection=TRUE,
        drawn=None,
        scatter=None,
        claim=condition,
        origin="everything, masked",
    )
    return Pass(side, Walk(own), (), TRUE, (sweep,))


# --- text -------------------------------------------------------------------------------------------------


def describe(schedule: Schedule) -> str:
    """The plan in words, for ``--emit schedule``."""
    lines: list[str] = []
    for item in schedule.bodies:
        if item.body.heads.text:
            lines.append(f"heads {item.body.heads.text}")
        if any(item.factors):
            lines += factorise.describe(item.whole or item.body, item.factors)
        for part in (*item.query, *item.key):
            lines += _describe_pass(part)
    lines += [f"conservative: {report}" for report in schedule.reports]
    return "\n".join(lines)


def _describe_pass(part: Pass) -> list[str]:
    task = "outputs, query gradients" if part.side == "query" else "key and value gradients"
    lines = [f"{part.side} pass over {_describe_walk(part.walk, part.extents)}: {task}"]
    if part.continues and part.side == "query":
        lines.append("    goes on with what the passes before it found")
    if part.owned != TRUE:
        lines.append(f"    answers for {part.walk.var.name} where {show(part.owned)}")
    if part.form != "wide":
        lines.append("    in tiles of few rows" if part.form == "narrow" else "    in steps of many keys")
    if part.order != "forwards":
        which = "the last tiles first" if part.order == "backwards" else "from both ends inwards"
        lines.append(f"    {which}, because they have most to do")
    for sweep in part.sweeps:
        lines.append(f"    sweep {sweep.origin}")
        if sweep.when != TRUE:
            lines.append(f"        only if {show(sweep.when)}")
        lines += [f"        {line}" for line in _describe_range(sweep)]
        if sweep.full_when != FALSE:
            condition = "" if sweep.full_when == TRUE else f" if {show(sweep.full_when)}"
            digit = "" if sweep.walk.radix == PLAIN else f"{sweep.walk.digits[0].name} in "
            lines.append(
                f"        unmasked in {digit}[{show(sweep.full_low)}, {show(sweep.full_high)}]{condition}"
            )
        if sweep.mask != TRUE:
            lines.append(f"        elsewhere masked by {show(sweep.mask)}")
        if sweep.worth != TRUE:
            lines.append(f"        tiles from {LEAST.name} to {MOST.name} only if {show(sweep.worth)}")
        if sweep.selection != TRUE:
            lines.append(f"        skipping {sweep.walk.var.name} unless {show(sweep.selection)}")
    if part.longest != ZERO:
        several = f"; the first {part.heavy} positions' always" if part.heavy else ""
        lines.append(f"    in shares of up to {show(part.longest)} positions, where tiles are few{several}")
    if not part.sweeps:
        lines.append("    nothing to sweep: zeros")
    return lines


def _describe_range(sweep: Sweep) -> list[str]:
    walk, name = sweep.walk, _side(sweep.walk.var)
    if sweep.scatter is not None:
        at = (
            "in its row of the draw"
            if sweep.scatter.at is None
            else f"{walk.var.name} == {show(sweep.scatter.at)}"
        )
        every = f" for every {SHIFT.name} in 0, 1, 2, 4, 8, …" if sweep.scatter.shifted else ""
        return [f"one by one: {name} {at}{every}"]
    if sweep.drawn is not None:
        return [f"all {name} in tiles listed by the draw"]
    ranges = list(zip(sweep.low, sweep.high, strict=True))
    if walk.members is not None:
        return [f"{name} where {show(walk.members)}, packed, in [{show(ranges[0][0])}, {show(ranges[0][1])}]"]
    if walk.radix == PLAIN:
        return [f"all {name} in [{show(ranges[0][0])}, {show(ranges[0][1])}]"]
    places = ", ".join(
        f"{digit.name} == {show(low)}" if low == high else f"{digit.name} in [{show(low)}, {show(high)}]"
        for digit, (low, high) in zip(walk.digits, ranges, strict=True)
    )
    return [f"{name} {_sum(walk)} with {places}"]


def _describe_walk(walk: Walk, extents: tuple[int, ...]) -> str:
    name = _side(walk.var)
    if walk.members is not None:
        return f"{name} where {show(walk.members)}, packed"
    if walk.radix == PLAIN:
        return f"all {name}"
    full = [(show(low), show(high)) == ("0", str(size - 1)) for (low, high), size in _limits(walk)]
    limits = "".join(
        f", {digit.name} == {show(low)}" if low == high else f", {digit.name} in [{show(low)}, {show(high)}]"
        for digit, (low, high), all_of in zip(walk.digits[1:], walk.ranges, full, strict=True)
        if not all_of
    )
    shape = " x ".join(("any", *map(str, extents)))
    return f"{name} {_sum(walk)}{limits}, in tiles of {shape}"


def _limits(walk: Walk) -> list[tuple[tuple[Expr, Expr], int]]:
    return list(zip(walk.ranges, walk.radix.sizes, strict=True))


def _sum(walk: Walk) -> str:
    return f"{walk.var.name} = {show(walk.radix.position(walk.digits))}"


def _side(var: Var) -> str:
    return "queries" if var == Q else "keys"

"""Which tables a plan reads: inputs, what is derived from them, packed positions, draws; each by one name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attnc.draws import block_size
from attnc.expression import (
    TRUE,
    Drawn,
    Expr,
    K,
    Lookup,
    Q,
    Var,
    constant,
    substitute,
    walk,
)
from attnc.real import Entry, Real, everywhere, integers
from attnc.schedule import BodyPlan, Pass, Sweep, Walk

# The variable of a predicate that packs positions, whichever side they are on.
POSITION = Var("p")


@dataclass(frozen=True)
class Draw:
    """A random draw that a module knows by number; rows and columns are blocks of ``size`` positions."""

    count: int
    seed: int
    past: bool
    size: int
    population: Expr


@dataclass
class Names:
    """Tables by what they hold; numbered in order of first use."""

    members: dict[Expr, str] = field(default_factory=dict)
    draws: dict[Draw, str] = field(default_factory=dict)

    def of_walk(self, walk: Walk) -> str:
        """The name of a walk's packed positions."""
        condition = substitute(walk.condition(), {walk.var: POSITION})
        return self.members.setdefault(condition, f"members_{len(self.members)}")

    def of_draw(self, drawn: Drawn) -> tuple[str, Draw]:
        draw = draw_of(drawn)
        return self.draws.setdefault(draw, f"picks_{len(self.draws)}"), draw


def draw_of(drawn: Drawn) -> Draw:
    count, seed = constant(drawn.count), constant(drawn.seed)
    if count is None or seed is None:
        raise ValueError("a draw's count and seed are known by now")
    return Draw(count, seed, drawn.past, block_size(drawn), drawn.population)


def identifier(table: str) -> str:
    """The Python name of an input's table (``input_doc``) or of one derived from it (``first_of_doc``).

    No two tables share a name, nor does a table share one with anything else in a kernel, its own pointer
    ``input_doc_ptr`` included.
    """
    base, _, derived = table.partition(".")
    if re.search(r"_(ptr|batch)_*$", base):
        base += "_"
    return f"{derived}_of_{base}" if derived else f"input_{base}"


@dataclass(frozen=True)
class Need:
    """One table that a kernel reads. kind: table, members, picks, or lists of tiles of blocks of ``size``."""

    kind: str
    name: str
    size: int = 0


def needs(part: Pass, names: Names, weights: tuple[Real, ...] = ()) -> tuple[Need, ...]:
    """What the kernels of a pass read, in order of first use; ``weights``: of its edges."""
    found: dict[Need, None] = {}
    if part.walk.members is not None:
        found[Need("members", names.of_walk(part.walk))] = None
    for sweep in part.sweeps:
        if sweep.walk.members is not None:
            found[Need("members", names.of_walk(sweep.walk))] = None
        if sweep.drawn is not None:
            name, draw = names.of_draw(sweep.drawn)
            found[Need("picks", name)] = None
            if sweep.scatter is None:
                found[Need("lists", name, draw.size)] = None
    exprs = (part.owned, *(e for sweep in part.sweeps for e in printed(sweep)))
    return tuple(found | dict.fromkeys(needs_of(exprs, names, weights)))


def needs_of(exprs: Iterable[Expr], names: Names, weights: tuple[Real, ...]) -> tuple[Need, ...]:
    """What text of expressions and of weights reads."""
    found: dict[Need, None] = {}
    for expr in exprs:
        for piece in walk(expr):
            if isinstance(piece, Lookup):
                found[Need("table", identifier(piece.table))] = None
            elif isinstance(piece, Drawn):
                found[Need("picks", names.of_draw(piece)[0])] = None
    for table in read(weights):
        found[Need("table", identifier(table))] = None
    return tuple(found)


def parameters_of(need: Need) -> list[str]:
    """The parameters by which a kernel is handed a table."""
    match need.kind:
        case "table":
            return [f"{need.name}_ptr", f"{need.name}_batch"]
        case "members":
            return [f"{need.name}_{part}_{what}" for part in ("index", "rank") for what in ("ptr", "batch")]
        case "picks":
            return [f"{need.name}_ptr", f"{need.name}_row"]
    return [f"{need.name}_offsets_ptr", f"{need.name}_tiles_ptr", f"{need.name}_tiles_row"]


def bases_of(needs: Iterable[Need]) -> str:
    """Lines of a kernel that find the tables of one sequence of the batch."""
    lines = []
    for need in needs:
        match need.kind:
            case "table":
                lines.append(f"{need.name} = {need.name}_ptr + batch * {need.name}_batch")
            case "members":
                for part in ("index", "rank"):
                    name = f"{need.name}_{part}"
                    lines.append(f"{name} = {name}_ptr + batch * {name}_batch")
    return "".join(f"{line}\n" for line in lines)


def read(weights: Iterable[Real]) -> tuple[str, ...]:
    """The tables that weights read, in order of first use."""
    found: dict[str, None] = {}
    for expr in weights:
        for part in everywhere(expr):
            if isinstance(part, Entry):
                found[part.table] = None
            pieces = (piece for inner in integers(part) for piece in walk(inner))
            found |= {piece.table: None for piece in pieces if isinstance(piece, Lookup)}
    return tuple(found)


def printed(sweep: Sweep) -> Iterable[Expr]:
    """The expressions of a sweep that end up in code."""
    bounds = (sweep.when, *sweep.low, *sweep.high, sweep.full_when, sweep.full_low, sweep.full_high)
    at = () if sweep.scatter is None or sweep.scatter.at is None else (sweep.scatter.at,)
    return (*bounds, sweep.mask, sweep.worth, sweep.selection, *at)


def tables_of(plans: Sequence[BodyPlan], relations: Iterable[Expr]) -> frozenset[str]:
    """Every table, derived ones included, that a module's code looks something up in."""
    found: set[str] = set()
    expressions = list(relations)
    for plan in plans:
        for part in (*plan.query, *plan.key):
            expressions += [part.owned, part.walk.members or TRUE]
            for sweep in part.sweeps:
                expressions += [*printed(sweep), sweep.walk.members or TRUE]
    for plan in plans:
        for edges in plan.body.parts:
            exprs = (edges.weights.score, edges.weights.sink)
            found |= set(read(expr for expr in exprs if expr is not None))
    for expr in expressions:
        found |= {piece.table for piece in walk(expr) if isinstance(piece, Lookup)}
    return frozenset(found)


def other_side(var: Var) -> Var:
    return K if var == Q else Q

"""What a proof comes back with, and counterexamples that really exist.

The solver knows nothing about what a draw gives or which numbers are powers of two, so a counterexample of
its making is only a suggestion. ``hunt`` replays it with the definitions; where it does not hold, the solver
is told the facts it had got wrong and asked again. What survives is real, and the least of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from attnc import draws
from attnc.budget import use
from attnc.diagnostics import Span
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    HEAD,
    TRUE,
    Drawn,
    Expr,
    Lookup,
    PowerOfTwo,
    Var,
    conj,
    constant,
    disj,
    eq,
    le,
    lt,
    negate,
    variables,
    walk,
)
from attnc.pattern import (
    Atom,
    Body,
    Claim,
    Complement,
    Difference,
    Input,
    Intersection,
    Pattern,
    Relation,
    Union,
    formula,
    mask_inputs,
)
from attnc.solver import Answer, Question

Verdict = Literal["proven", "refuted", "undecided"]
Array = npt.NDArray[Any]

ROUNDS = 24

# Inputs and rows of a mask are not filled in beyond this length, nor inputs beyond so many bytes.
LONGEST = 1 << 22
LARGEST = 1 << 28
# Entries that are filled in in one step of work.
FILLED = 100


@dataclass(frozen=True)
class Finding:
    """The answer to a claim.

    witness: where it fails, when refuted: positions ``q`` and ``k`` and the length ``n`` (no ``k`` where no
    key is to blame, only ``n`` where no query is).
    note: the proof or the reason, in words.
    inputs: what the runtime inputs hold in that witness, for those that edges may depend on.
    span: the part of the relation that is to blame.
    head, heads: the head that the witness is about, and how many there are.
    never: of a claim about reach, that no number of layers is enough.
    """

    verdict: Verdict
    witness: dict[str, int] | None = None
    note: str = ""
    inputs: dict[str, Array] = field(default_factory=dict, compare=False)
    span: Span | None = None
    head: int = 0
    heads: int = 1
    never: bool = False


@dataclass(frozen=True)
class ClaimResult:
    claim: Claim
    finding: Finding


def domain(body: Body, condition: Expr) -> Expr:
    """The heads that ``condition`` may speak about: those of the body."""
    wanted = conj(body.heads.condition, condition)
    if {"h", "H"} & variables(wanted):
        return conj(le(0, HEAD), lt(HEAD, Var("H")), wanted)
    return wanted


def unsuited(condition: Expr) -> str | None:
    """Why the solver must not be asked about ``condition``, if it must not."""
    for part in walk(condition):
        if isinstance(part, Lookup) and part.kind == "float":
            return f"it hangs on the float input `{part.table}`, and the solver reasons about integers"
    return None


def fill(pattern: Pattern, answer: Answer, n: int, heads: int, style: str = "low") -> dict[str, Array]:
    """Contents for the inputs that edges may depend on: the solver's entries, and the rest by ``style``.

    ``low``: false and 0; ``high``: true and 0; ``distinct``: false, and integers that are all different.
    """
    tables: dict[str, Array] = {}
    for given, shape in _shapes(pattern, n, heads):
        use(prod(shape) // FILLED, "filling in the inputs")
        if given.kind == "bool":
            table: Array = np.full(shape, style == "high", dtype=np.bool_)
        elif given.kind == "int" and style == "distinct":
            table = (1_000_000 + np.arange(int(np.prod(shape)), dtype=np.int64)).reshape(shape)
        else:
            table = np.zeros(shape, dtype=np.int64 if given.kind == "int" else np.float64)
        for (name, place), value in answer.tables.items():
            inside = len(place) == len(shape) and all(0 <= p < s for p, s in zip(place, shape, strict=True))
            if name == given.name and inside:
                table[place] = value
        tables[given.name] = table
    return tables


def _shapes(pattern: Pattern, n: int, heads: int) -> Iterator[tuple[Input, tuple[int, ...]]]:
    """Inputs that the mask depends on, or whose true entries a claim may count, and their shapes."""
    sizes = Env({"n": n, "H": heads, "d": 1})  # no edge depends on what has the head dim
    read = mask_inputs(pattern)
    for given in pattern.inputs:
        if given.name not in read and given.kind != "bool":
            continue
        yield given, tuple(max(int(evaluate(size, sizes)), 0) for size in given.shape)


def too_large(pattern: Pattern, n: int, heads: int, longest: int = LONGEST) -> str:
    """Why inputs cannot be filled in and rows of the mask looked at, where they cannot."""
    if n > longest:
        return f"the solver's counterexample has n = {n:,}, too long to be replayed"
    size = sum(8 * prod(shape) for _, shape in _shapes(pattern, n, heads))
    if size > LARGEST:
        return (
            f"the solver's counterexample has n = {n:,}, H = {heads:,}, and inputs too large to be replayed"
        )
    return ""


def environment(answer: Answer, tables: Mapping[str, Array]) -> Env:
    """The solver's assignment as something that expressions can be evaluated under."""
    positions = {"q": 0, "k": 0, "n": 1, "h": 0, "H": 1} | answer.variables
    return Env(positions, tables, draws.drawn)


def _lessons(condition: Expr, answer: Answer, env: Env) -> Iterable[Expr]:
    """The truth about every draw and every power of two in ``condition``, at and around the assignment."""
    for part in walk(condition):
        match part:
            case PowerOfTwo(body):
                value = int(evaluate(body, env))
                truth = part if bool(evaluate(part, env)) else negate(part)
                yield disj(negate(eq(body, value)), truth)
            case Drawn(count, seed, past, row, column, population):
                head = int(env.variables["h"])
                line, size = int(evaluate(row, env)), int(evaluate(population, env))
                number, start = constant(count), constant(seed)
                if line < 0 or size < 0 or number is None or start is None:
                    continue
                chosen = [int(c) for c in draws.picks(number, start, past, head, line, size) if c >= 0]
                elsewhere = [negate(eq(HEAD, head)), negate(eq(row, line))]
                if not past:
                    elsewhere.append(negate(eq(population, size)))
                yield disj(*elsewhere, negate(part), *(eq(column, c) for c in chosen))
                asked = int(evaluate(column, env))
                if asked in chosen:
                    yield disj(*elsewhere, negate(eq(column, asked)), part)


@dataclass(frozen=True)
class Quarry:
    """What ``hunt`` found: the solver's answer and, when refuted for certain, the inputs that go with it.

    reason: why it was given up, when it was.
    """

    answer: Answer
    tables: dict[str, Array] = field(default_factory=dict)
    real: bool = False
    reason: str = ""


def hunt(
    pattern: Pattern,
    condition: Expr,
    order: tuple[Var, ...],
    real: Callable[[Answer, Mapping[str, Array]], bool],
    styles: tuple[str, ...] = ("low",),
    rounds: int = ROUNDS,
    longest: int = LONGEST,
) -> Quarry:
    """The least assignment that meets ``condition`` and is found ``real`` when replayed.

    longest: sequences that are too long for ``real``.

    An answer that is ``proven`` means that there is none; ``refuted`` and not ``real``, that it was given up.
    """
    learned: dict[Expr, None] = {}
    answer = Answer("undecided")
    order = tuple(var for var in order if var.name in variables(condition))
    question = Question(condition)
    for _ in range(rounds):
        answer = question.least(order)
        if answer.outcome != "refuted":
            break
        n, heads = answer.variables.get("n", 1), answer.variables.get("H", 1)
        if reason := too_large(pattern, n, heads, LONGEST if pattern.inputs else longest):
            return Quarry(answer, reason=reason)
        tables: dict[str, Any] = {}
        for style in styles:
            tables = fill(pattern, answer, n, heads, style)
            if real(answer, tables):
                return Quarry(answer, tables, True)
        lessons = dict.fromkeys(_lessons(condition, answer, environment(answer, tables)))
        fresh = [fact for fact in lessons if fact != TRUE and fact not in learned]
        if not fresh:
            break
        learned.update(dict.fromkeys(fresh))
        for fact in fresh:
            question.learn(fact)
    return Quarry(answer, reason=answer.reason or _why_unreal(condition))


def _why_unreal(condition: Expr) -> str:
    """What the solver knows too little about for its counterexamples to hold."""
    hang = "the solver's counterexamples hang on"
    kinds = {type(part) for part in walk(condition)}
    if Drawn in kinds:
        return f"{hang} random draws, and none of those tried was really drawn"
    if PowerOfTwo in kinds:
        return f"{hang} which numbers are powers of two, and none of those tried held"
    if Lookup in kinds:
        return f"{hang} what inputs hold, and none of those tried held when it was replayed"
    return "the solver's counterexamples did not hold when they were replayed"


def mask_with(pattern: Pattern, n: int, heads: int, contents: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """The mask, (heads, n, n), for these contents of the inputs; those that it doesn't depend on may lack."""
    from attnc import reference

    known = tuple(given for given in pattern.inputs if given.name in contents)
    return reference.mask(replace(pattern, inputs=known), n, heads, contents)


def replayed(pattern: Pattern, body: Body, answer: Answer, tables: Mapping[str, Array]) -> bool:
    """Whether query ``q`` reads key ``k`` in the answer, asked of the reference interpreter if small."""
    at = {"h": 0, "H": 1} | answer.variables
    n, q, k, h, heads = (at[name] for name in ("n", "q", "k", "h", "H"))
    if n * n * heads <= 1 << 16 and _whole(pattern, heads):
        return bool(mask_with(pattern, n, heads, tables)[h, q, k])
    # The dense mask would be large: the same formula at the one pair.
    wanted = conj(body.heads.condition, formula(body.relation))
    return bool(evaluate(wanted, environment(answer, tables)))


def _whole(pattern: Pattern, heads: int) -> bool:
    """Whether this number of heads is one that the pattern has a body for, each head exactly once."""
    places = Env({"h": np.arange(heads), "H": heads})
    counts = sum(np.broadcast_to(evaluate(b.heads.condition, places), heads) + 0 for b in pattern.bodies)
    return bool(np.all(counts == 1))


def guilty(relation: Relation, env: Env) -> Relation:
    """The innermost part of the relation through which the pair in ``env`` is an edge."""
    match relation:
        case Union(args=args):
            for arg in args:
                if bool(evaluate(formula(arg), env)):
                    return guilty(arg, env)
        case Difference(left=left):
            return guilty(left, env)
        case Atom() | Intersection() | Complement():
            pass
    return relation


def told(value: Array) -> str:
    """The contents of an input in a few words."""
    if value.ndim != 1 or value.size > 12:
        if value.ndim == 1 and value.dtype == np.bool_:
            held = np.flatnonzero(value)
            if held.size <= 8:
                return (
                    f"true at {', '.join(map(str, held.tolist()))} only" if held.size else "false everywhere"
                )
        return f"{value.dtype} of shape {list(value.shape)}"
    return "[" + ", ".join(str(entry).lower() for entry in value.tolist()) + "]"

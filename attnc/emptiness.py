"""Has every query a key? A question with "there is" in it, answered by naming the key.

The key is guessed from the relation: the query itself, the ends of the sequence, and every position at which
a comparison of the relation turns. If the solver agrees that one of the guesses is always right, the claim is
proven. If not, its counterexample is looked at in full: a query without any key refutes the claim, and a key
that nobody had guessed is a new guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    HEAD,
    HEADS,
    ONE,
    TRUE,
    ZERO,
    Const,
    Drawn,
    Eq0,
    Expr,
    FloorDiv,
    K,
    Le0,
    Mod,
    N,
    Q,
    Sum,
    Var,
    add,
    between,
    conj,
    constant,
    disj,
    floor_div,
    fold,
    le,
    lt,
    mod,
    negate,
    scale,
    sub,
    substitute,
    tables,
    variables,
    walk,
)
from attnc.pattern import Body, Pattern, formula
from attnc.relation import BodyTerms
from attnc.solver import Answer, satisfiable
from attnc.witness import Array, Finding, Quarry, environment, fill, hunt, told, too_large, unsuited

GUESSES = 14
ROUNDS = 6


def nonempty(pattern: Pattern, bodies: tuple[BodyTerms, ...]) -> Finding:
    """Whether every query has a key: for every ``n >= 1``, every head and every input.

    bodies: the pattern's terms, whose bounds are among the guesses. A witness has the least ``n``, then the
    least ``q``; its row of the mask was computed and is empty. ``span`` is the body that leaves it empty.
    """
    undecided: Finding | None = None
    refuted: Finding | None = None
    for body in pattern.bodies:
        terms = next((item.terms for item in bodies if item.body == body), ())
        ends = [fold(end) for term in terms for end in (term.low, term.high)]
        found = _nonempty(pattern, body, ends)
        if found.verdict == "undecided":
            undecided = undecided or found
        elif found.witness and (
            refuted is None or not refuted.witness or found.witness["n"] < refuted.witness["n"]
        ):
            refuted = found
    return refuted or undecided or Finding("proven", note="proven for every n")


def _nonempty(pattern: Pattern, body: Body, ends: Iterable[Expr]) -> Finding:
    relation = fold(formula(body.relation))
    if reason := unsuited(relation):
        return Finding("undecided", note=reason, span=body.relation.span)
    place = conj(between(0, Q, add(N, -1)), *_heads(body, relation))
    itself = substitute(relation, {K: Q})
    if itself == TRUE:
        return Finding("proven", note="proven for every n: every query reads itself")
    # Most relations let a query read itself, and then no other guess need be written out.
    if satisfiable(conj(place, negate(itself))).outcome == "proven":
        return Finding("proven", note="proven for every n: every query reads itself")
    guesses, facts = _guesses(relation, ends)
    quarry = Quarry(Answer("undecided"))
    for _ in range(ROUNDS):
        missing = [negate(conj(between(0, g, add(N, -1)), substitute(relation, {K: g}))) for g in guesses]
        quarry = hunt(
            pattern,
            conj(place, *facts, *missing),
            (N, Q, HEADS, HEAD),
            lambda answer, contents: not _row(body, relation, answer, contents).any(),
            ("low", "distinct", "high"),
        )
        if quarry.answer.outcome != "refuted" or quarry.real:
            break
        more = [g for g in _seen(pattern, body, relation, quarry.answer) if g not in guesses]
        if not more:
            break
        guesses += more
    return _finding(pattern, body, quarry)


def _heads(body: Body, relation: Expr) -> tuple[Expr, ...]:
    if {"h", "H"} & (variables(relation) | variables(body.heads.condition)):
        return (le(0, HEAD), lt(HEAD, HEADS), body.heads.condition)
    return ()


def _finding(pattern: Pattern, body: Body, quarry: Quarry) -> Finding:
    answer = quarry.answer
    if answer.outcome == "proven":
        return Finding("proven", note="proven for every n")
    if not quarry.real:
        reason = (
            answer.reason
            or too_large(pattern, quarry.answer.variables.get("n", 0), quarry.answer.variables.get("H", 1))
            or "no key can be named that every query reads, and no query without one was found"
        )
        return Finding("undecided", note=reason, span=body.relation.span)
    at = answer.variables
    note = f"refuted for n = {at['n']}"
    if body.heads.text:
        note += f" and head {at.get('h', 0)} of {at.get('H', 1)}"
    if pattern.inputs:
        note += " with " + ", ".join(f"`{name}` = {told(value)}" for name, value in quarry.tables.items())
    if answer.minimal and at["n"] > 1:
        note += f"; holds for every n < {at['n']}"
    witness = {"q": at["q"], "n": at["n"]}
    return Finding(
        "refuted", witness, note, quarry.tables, body.relation.span, at.get("h", 0), at.get("H", 1)
    )


def _row(body: Body, relation: Expr, answer: Answer, contents: Mapping[str, Array]) -> Array:
    """The query's row of the mask."""
    env = environment(answer, contents)
    keys = np.arange(env.variables["n"], dtype=np.int64)
    row = evaluate(relation, Env({**env.variables, "k": keys}, env.tables, env.drawn))
    return np.broadcast_to(np.asarray(row, dtype=np.bool_), keys.shape)


def _seen(pattern: Pattern, body: Body, relation: Expr, answer: Answer) -> Iterable[Expr]:
    """Keys that the query of a false counterexample does read, in ways that may hold for others, too."""
    at = {"H": 1} | answer.variables
    if too_large(pattern, at["n"], at["H"]):
        return
    row = np.flatnonzero(_row(body, relation, answer, fill(pattern, answer, at["n"], at["H"])))
    for key in dict.fromkeys((row[:1].tolist()) + (row[-1:].tolist())):
        yield Const(key)
        yield add(Q, key - at["q"])
        yield add(N, key - at["n"])


def _guesses(relation: Expr, ends: Iterable[Expr]) -> tuple[list[Expr], list[Expr]]:
    """Keys that a query may well read, and facts about those that are named by a draw."""
    found: dict[Expr, None] = dict.fromkeys((Q, ZERO, add(N, -1)))
    facts: list[Expr] = []
    for part in walk(relation):
        if isinstance(part, Drawn) and (constant(part.count) or 0) >= 1:
            # Every row that has columns to draw from has drawn one: call it by a name of its own.
            pick = Var(f"pick{len(facts)}")
            among = add(part.row, ONE) if part.past else part.population
            match part.column:
                case Var("k"):
                    key: Expr = pick
                case FloorDiv(Var("k"), Const(size)) if size > 0:
                    key = scale(size, pick)
                case _:
                    continue
            if "k" in variables(part.row) | variables(among):
                continue
            held = conj(between(0, pick, add(among, -1)), substitute(part, {K: key}))
            facts.append(disj(lt(among, ONE), held))
            found[key] = None
    for part in walk(relation):
        if isinstance(part, (Le0, Eq0)) and "k" in variables(part):
            found.update(dict.fromkeys(_solutions(part.body, ZERO)))
    found.update(dict.fromkeys((add(Q, -1), add(Q, 1))))
    found.update(dict.fromkeys(ends))
    return [guess for guess in found if "k" not in variables(guess) and not tables(guess)][:GUESSES], facts


def _solutions(expr: Expr, target: Expr) -> Iterable[Expr]:
    """Some keys for which ``expr`` equals ``target``, where that can be solved."""
    match expr:
        case Var("k"):
            yield target
        case Sum(terms, _):
            inside = [(c, atom) for c, atom in terms if "k" in variables(atom)]
            if len(inside) != 1:
                return
            c, atom = inside[0]
            rest = sub(target, sub(expr, scale(c, atom)))
            yield from _solutions(atom, floor_div(rest if c > 0 else scale(-1, rest), abs(c)))
        case FloorDiv(left, Const(size)) if size > 0:
            yield from _solutions(left, scale(size, target))
            yield from _solutions(left, add(scale(size, target), size - 1))
        case Mod(left, Const(size)) if size > 0:
            yield from _solutions(left, target)
            # The nearest one at or before the query.
            near = substitute(left, {K: Q})
            yield from _solutions(left, sub(near, mod(sub(near, target), size)))

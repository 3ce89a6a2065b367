"""The compiler, read from top to bottom: a row of passes from a pattern's text to a module's text.

Each pass is a pure function from one record to the next, which holds everything before it and one thing more.
Its outcome is verified before the next pass sees it: what the user got wrong comes back as diagnostics, what
the compiler got wrong as a ``PassError``. Any outcome can be printed.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType
from typing import Any

from attnc import debug, indexing, plan_proofs, planner, proofs, schedule
from attnc.budget import OutOfWork, at, charge, compiling, current, share, within
from attnc.codegen import module
from attnc.codegen.layout import laid_out
from attnc.counts import cost_of
from attnc.decompose import decompose
from attnc.diagnostics import AttncError, Diagnostic, Source, Span
from attnc.expression import (
    tables,
    variables,
    walk,
)
from attnc.overlaps import overlaps
from attnc.parser import parse, parse_body
from attnc.pattern import Pattern, formula
from attnc.proofs import ClaimResult
from attnc.relation import BodyTerms
from attnc.relation import describe as describe_terms
from attnc.request import Request
from attnc.resolver import describe as describe_pattern
from attnc.resolver import resolve
from attnc.schedule import Schedule
from attnc.syntax import File, dump
from attnc.unbounded import masked_sweeps
from attnc.unswept import unswept


class PassError(RuntimeError):
    """A pass of the compiler made something that cannot be right: a fault of attnc, not of the pattern."""


# --- what the passes hand on ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Parsed:
    request: Request
    file: File


@dataclass(frozen=True)
class Settled(Parsed):
    pattern: Pattern
    warnings: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class Decomposed(Settled):
    bodies: tuple[BodyTerms, ...]


@dataclass(frozen=True)
class Judged(Decomposed):
    claims: tuple[ClaimResult, ...]


@dataclass(frozen=True)
class Planned(Judged):
    schedule: Schedule


@dataclass(frozen=True)
class Emitted(Planned):
    text: str


# --- the passes -----------------------------------------------------------------------------------------


def syntax_pass(request: Request) -> Parsed:
    header = request.header
    if header is None:
        return Parsed(request, parse(request.source))
    return Parsed(request, parse_body(request.source, header.name, header.params, header.inputs))


def pattern_pass(parsed: Parsed) -> Settled:
    resolved = resolve(parsed.file, parsed.request.params, choose(parsed))
    pattern, held = indexing.clamped(resolved.patterns[0])
    return Settled(**vars(parsed), pattern=pattern, warnings=(*resolved.warnings, *held))


def terms_pass(settled: Settled) -> Decomposed:
    with share(0.5):
        return Decomposed(**vars(settled), bodies=decompose(settled.pattern))


def claims_pass(decomposed: Decomposed) -> Judged:
    with share(0.5):  # what claims cost may not keep the pattern from being planned
        return Judged(**vars(decomposed), claims=proofs.prove_claims(decomposed.pattern, decomposed.bodies))


def schedule_pass(judged: Judged) -> Planned:
    planned = planner.plan(judged.pattern, judged.bodies)
    with share(0.9):
        proven = plan_proofs.verify(judged.pattern, planned)
    budget = current()
    lost = () if budget is None else dict.fromkeys(budget.losses)
    return Planned(**vars(judged), schedule=replace(proven, reports=(*lost, *proven.reports)))


def module_pass(planned: Planned) -> Emitted:
    text = module.emit(planned.pattern, planned.schedule, facts(planned))
    return Emitted(**vars(planned), text=laid_out(text) if planned.request.readable else text)


def facts(planned: Planned) -> module.Facts:
    """What a module's head tells about where it came from and what is known of it."""
    source = planned.pattern.source
    return module.Facts(
        source=source.name,
        digest=hashlib.sha256(source.text.encode("utf-8")).hexdigest(),
        params=parameters(planned.pattern),
        claims=planned.claims,
        cost=cost_of(planned.bodies) if planned.request.readable else None,
    )


def parameters(pattern: Pattern) -> tuple[tuple[str, int | float], ...]:
    """Names and values of all parameters, those that count edges first."""
    return (*((param.name, param.value) for param in pattern.params), *pattern.float_params)


def choose(parsed: Parsed) -> str:
    """The name of the pattern to compile.

    Raises ``AttncError`` when the file holds several and the request does not say which.
    """
    request, patterns = parsed.request, parsed.file.patterns
    if request.pattern is not None:
        return request.pattern
    names = [pattern.name.text for pattern in patterns]
    for name in names:
        if names.count(name) > 1:
            return name  # which the resolver refuses: no choice would help
    if len(names) == 1 or request.prefer in names:
        return names[0] if len(names) == 1 else str(request.prefer)
    raise AttncError(
        (
            Diagnostic(
                code="several-patterns",
                level="error",
                message=f"this file holds {len(names)} patterns; say which one to compile",
                source=parsed.file.source,
                span=patterns[1].name.span,
                label="the second one",
                notes=(f"the patterns are {', '.join(f'`{name}`' for name in names)}",),
                help=f"`--pattern {names[0]}` on the command line, `pattern={names[0]!r}` in Python",
            ),
        )
    )


# --- what must hold of their outcomes -------------------------------------------------------------------

Problems = tuple[Diagnostic, ...]


def check_syntax(parsed: Parsed) -> Problems:
    end = len(parsed.file.source.text)
    for pattern in parsed.file.patterns:
        if not 0 <= pattern.span.start <= pattern.span.end <= end:
            raise PassError(f"the tree of `{pattern.name.text}` lies outside of its source")
    return ()


def check_pattern(settled: Settled) -> Problems:
    pattern = settled.pattern
    known = {item.name for item in pattern.inputs}
    if not pattern.bodies:
        raise PassError(f"`{pattern.name}` has no body")
    for body in pattern.bodies:
        expr = formula(body.relation)
        if stray := variables(expr) - {"q", "k", "n", "h", "H"}:
            raise PassError(f"`{pattern.name}` has unresolved variables: {', '.join(sorted(stray))}")
        if unknown := {table.split(".")[0] for table in tables(expr)} - known:
            raise PassError(f"`{pattern.name}` reads undeclared inputs: {', '.join(sorted(unknown))}")
    return *proofs.index_bounds(pattern), *overlaps(pattern)


def check_terms(decomposed: Decomposed) -> Problems:
    if tuple(terms.body for terms in decomposed.bodies) != decomposed.pattern.bodies:
        raise PassError(f"the terms of `{decomposed.pattern.name}` are not those of its bodies")
    return ()


def check_claims(judged: Judged) -> Problems:
    if tuple(result.claim for result in judged.claims) != judged.pattern.claims:
        raise PassError(f"the claims that were judged are not those of `{judged.pattern.name}`")
    return proofs.claim_diagnostics(judged.pattern, judged.claims, judged.bodies)


def check_schedule(planned: Planned) -> Problems:
    # The proof itself is part of the pass, because a plan that cannot be proven is replaced by a safer one.
    found = unswept(planned.pattern, planned.schedule)
    try:
        with within(0.5):
            return *found, *masked_sweeps(planned.pattern, planned.schedule)
    except OutOfWork:  # an advice less
        return found


def check_module(emitted: Emitted) -> Problems:
    name = emitted.pattern.name
    try:
        code = code_of(emitted.text)
    except SyntaxError as error:
        raise PassError(f"the module of `{name}` is not valid Python: {error}") from error
    functions = [item for item in code.co_consts if isinstance(item, CodeType) and item.co_name == name]
    if not functions:
        raise PassError(f"the module of `{name}` defines no function of that name")
    positional, named = functions[-1].co_argcount, functions[-1].co_kwonlyargcount
    given = set(functions[-1].co_varnames[positional : positional + named])
    wanted = {item.name for item in emitted.pattern.inputs} | {"scale", "backend"}
    if {"state", "return_state"} <= given:
        wanted |= {"state", "return_state"}  # where all of it is computed through states
    if given != wanted:
        raise PassError(f"the function `{name}` takes {sorted(given)} by name, not {sorted(wanted)}")
    return ()


@lru_cache(maxsize=1)
def code_of(text: str) -> CodeType:
    """What Python makes of a module's text: once to check it, and to run it."""
    return compile(text, "<compiled module>", "exec", dont_inherit=True)


# --- how they are shown ---------------------------------------------------------------------------------


def show_claims(judged: Judged) -> str:
    cost = cost_of(judged.bodies)
    lines = [f"edges {cost.expr}, {cost.growth}"]
    lines += [f"{result.claim.text}: {result.finding.verdict}" for result in judged.claims]
    return "\n".join(lines)


# --- the row --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """One step: what it does, what must hold of its outcome, and how that is shown."""

    name: str
    run: Callable[[Any], Any]
    verify: Callable[[Any], Problems]
    show: Callable[[Any], str]


PASSES = (
    Pass("syntax", syntax_pass, check_syntax, lambda done: dump(done.file)),
    Pass("pattern", pattern_pass, check_pattern, lambda done: describe_pattern(done.pattern)),
    Pass("terms", terms_pass, check_terms, lambda done: describe_terms(done.bodies)),
    Pass("claims", claims_pass, check_claims, show_claims),
    Pass("schedule", schedule_pass, check_schedule, lambda done: schedule.describe(done.schedule)),
    Pass("module", module_pass, check_module, lambda done: done.text),
)


# What it takes a pass to walk through one part of a relation, and to begin with one body, in steps of work.
WALKED, BODY = 600, 10_000


@contextmanager
def _counted(step: Pass, value: Any) -> Iterator[None]:
    """Charges for walking through the pattern, as every pass does; errors point at its largest body."""
    if not isinstance(value, Settled):
        yield
        return
    sizes = [sum(1 for _ in walk(formula(body.relation))) for body in value.pattern.bodies]
    with at(value.pattern.bodies[sizes.index(max(sizes))].relation.span):
        charge(WALKED * sum(sizes) + BODY * len(sizes), f"the pass `{step.name}`")
        yield


def advance(step: Pass, value: Any) -> tuple[Any, Problems]:
    """Runs one pass and verifies its outcome; says so on standard error when ``ATTNC_DEBUG`` is set."""
    level = debug.level()
    started = time.perf_counter()
    with _counted(step, value):
        outcome = step.run(value)
        ran = time.perf_counter()
        problems = step.verify(outcome)
    if level:
        verified = time.perf_counter()
        debug.say(
            f"{step.name:<8} {1e3 * (ran - started):7.1f} ms, verified in {1e3 * (verified - ran):.1f} ms"
        )
    if level > 1:
        debug.say(f"{step.name}:\n{step.show(outcome)}\n", at=2)
    return outcome, problems


def run(request: Request, last: str = "module", derive: Callable[[Pattern], Pattern] | None = None) -> Any:
    """The outcome of the pass named ``last``. Raises ``AttncError`` with every error that a pass found.

    derive: makes another pattern of the one that was asked for, as soon as that is settled.
    """
    with compiling():
        try:
            return _run(request, last, derive)
        except OutOfWork as error:
            raise AttncError((too_large(request.source, Span(0, 0), error),)) from error


def too_large(source: Source, span: Span, error: OutOfWork) -> Diagnostic:
    """The diagnostic for a pattern that exceeds the work budget; ``span`` where no statement is known."""
    return Diagnostic(
        code="too-large",
        level="error",
        message=str(error),
        source=source,
        span=error.place or span,
        help="write the relation in fewer parts, or with smaller numbers",
    )


def _run(request: Request, last: str, derive: Callable[[Pattern], Pattern] | None) -> Any:
    value: Any = request
    for step in PASSES:
        value, problems = advance(step, value)
        if any(problem.level == "error" for problem in problems):
            raise AttncError(problems)
        if problems:
            value = replace(value, warnings=(*value.warnings, *problems))
        if derive is not None and step.name == "pattern":
            value = replace(value, pattern=derive(value.pattern))
        if step.name == last:
            return value
    raise ValueError(f"no pass is called {last!r}: there are {', '.join(step.name for step in PASSES)}")


def emit(request: Request, stage: str) -> str:
    """The outcome of a pass as text, for people."""
    done = run(request, stage)
    return next(step.show(done) for step in PASSES if step.name == stage)


def settle_pattern(request: Request) -> Settled:
    """The pattern with names, types and parameters settled."""
    settled: Settled = run(request, "pattern")
    return settled


def compile_pattern(request: Request, derive: Callable[[Pattern], Pattern] | None = None) -> Emitted:
    """All of it: the module's text, and everything that was found on the way; ``derive`` as in ``run``."""
    with _no_collection():
        emitted: Emitted = run(request, derive=derive)
    return emitted


@contextmanager
def _no_collection() -> Iterator[None]:
    """No looking for circles of garbage meanwhile: a compiler makes hardly any, and looking for them walks
    through everything that the process holds, PyTorch's and the model's objects above all."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()

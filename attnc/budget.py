"""The work that compiling one pattern may cost, counted in steps and not by the clock.

All that may take long during a compile draws on one ``Budget``: questions to the solver, sums of closed
forms, terms of a relation, tiles that are counted. It is counted the same on every machine and starts anew
with every pattern, so that neither a busy machine nor what was compiled before changes an answer.

A step is one of the solver's: some ``PER_SECOND`` of them take a second of one core. To charge other work,
count its loops and multiply by what one turn takes in steps:

- ``spend(steps, "what it is for")`` before the work, where it cannot be left out. It raises ``OutOfWork``
  when the budget does not allow it; whoever can do without catches that and says so (``lose``), and else the
  compile ends with a ``too-large`` error: "what it is for takes more than the … steps of work that a pattern
  may cost".
- ``if allows(steps, "what it is for"):`` spends and says whether it may be done, where there is a cheaper
  way: a claim stays undecided, a plan is masked, a bound is wider. After the first refusal all is refused,
  so that a lot of small work does not go on for long.
- ``charge(steps, "what it is for")`` after it, where only then it is known what it took: ask ``allows(0, …)``
  before. What is charged may go beyond the limit by ``OVERRUN``, as a question that was begun within it is
  answered; further on it raises ``OutOfWork``, so that much small work does not go on without end.
- ``use(steps, "what it is for")`` for what is needed everywhere and mostly small: only large work is refused.
- ``with share(0.5):`` keeps the rest of what is left for what comes later.
- ``with within(0.25):`` is for what can be left out altogether: it raises ``OutOfWork`` soon after this part
  of what is left, and nothing that comes later has less for it.
- ``with at(span):`` says which statement the work inside is for; an error points there.
- ``@priced(size)`` in place of ``lru_cache``: what is found in the cache costs what it cost to make, once a
  pattern, and nothing is kept that was made with too little. A function that draws on the budget must not be
  cached in any other way, nor open a ``share``.

Outside of ``compiling()`` nothing is limited.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from typing import Any, TypeVar, cast

from attnc.diagnostics import Span

F = TypeVar("F", bound=Callable[..., Any])

PER_SECOND = 3_000_000
# What all of a pattern may cost: compiling an example takes less than a quarter of it, `attnc check` less
# than a third.
LIMIT = 4 * PER_SECOND
LARGE = PER_SECOND // 20
# How far work that is counted only when it is done may go beyond the limit.
OVERRUN = PER_SECOND


class OutOfWork(Exception):
    """The budget does not allow what has to be done; ``what`` it was, and the statement it was for."""

    def __init__(self, what: str, limit: int, place: Span | None = None) -> None:
        super().__init__(f"{what} takes more than the {limit:,} steps of work that a pattern may cost")
        self.what, self.limit, self.place = what, limit, place


@dataclass
class Budget:
    """limit: of all the work; overrun: how far what is counted when it is done may exceed it.

    spent: so far; refused: what first found too little left, if anything did.

    refusals: how often there was too little, in shares that have ended, too.
    losses: what was done in a cheaper way for that, in words.
    place: the statement that is worked on, where that is known.
    said: the limit that errors name, which is that of all of the pattern's work.
    paid: the arguments of each ``priced`` function that this pattern was charged for lately.
    """

    limit: int = LIMIT
    overrun: int = OVERRUN
    spent: int = 0
    refused: str = ""
    refusals: int = 0
    losses: list[str] = field(default_factory=list)
    # Where a share ends; what is beyond is kept for later.
    ends: list[int] = field(default_factory=list)
    place: Span | None = None
    said: int | None = None
    paid: dict[int, OrderedDict[Hashable, None]] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return max(0, min([self.limit, *self.ends]) - self.spent)

    def charge(self, steps: int, what: str) -> None:
        self.spent += steps
        if self.spent > self.limit + self.overrun:
            self.refused = self.refused or what
            self.refusals += 1
            raise self.error(what)

    def error(self, what: str) -> OutOfWork:
        return OutOfWork(what, self.limit if self.said is None else self.said, self.place)


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def compiling(limit: int = LIMIT, overrun: int = OVERRUN) -> Iterator[Budget]:
    """A budget of its own for what is done inside, which is the compile of one pattern.

    What is spent of it and refused counts outside, too, where there is another one.
    """
    outside = _current.get()
    budget = Budget(limit, overrun, paid={} if outside is None else outside.paid)
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)
        if outside is not None:
            outside.refusals += budget.refusals
        charge(budget.spent)


def current() -> Budget | None:
    return _current.get()


def allows(steps: int, what: str) -> bool:
    """Whether there is enough left for this many steps, which are spent if so."""
    budget = _current.get()
    if budget is None:
        return True
    left = budget.left
    if budget.refused or steps > left or left == 0:
        budget.refused = budget.refused or what
        budget.refusals += 1
        return False
    budget.spent += steps
    return True


def spend(steps: int, what: str) -> None:
    """Spends this many steps; raises ``OutOfWork`` when there are not so many left."""
    if not allows(steps, what):
        budget = _current.get()
        assert budget is not None  # without one all is allowed
        raise budget.error(what)


def charge(steps: int, what: str = "compiling it") -> None:
    """Counts work that is done already; what comes next is refused if that was too much.

    Raises ``OutOfWork`` where that is far too much.
    """
    budget = _current.get()
    if budget is not None:
        budget.charge(steps, what)


def lose(why: OutOfWork | str, instead: str) -> None:
    """Keeps in mind, for the report, what was done instead of what would have been too much."""
    budget = _current.get()
    if budget is not None:
        budget.losses.append(f"{why}; {instead}")


def use(steps: int, what: str) -> None:
    """Charges for small work, and spends large work, which is refused when there is too little left."""
    if steps < LARGE:
        charge(steps, what)
    else:
        spend(steps, what)


@contextmanager
def share(part: float) -> Iterator[None]:
    """At most this part of what is left may be spent inside; what is refused there is so only there."""
    budget = _current.get()
    if budget is None:
        yield
        return
    before = budget.refused
    budget.ends.append(budget.spent + int(part * budget.left))
    try:
        yield
    finally:
        budget.ends.pop()
        budget.refused = before


@contextmanager
def within(part: float) -> Iterator[None]:
    """At most about this part of what is left is spent inside, or ``OutOfWork`` is raised."""
    budget = _current.get()
    if budget is None:
        yield
        return
    spend(0, "what can be left out")
    most = int(part * budget.left)
    ends = int(part * (budget.limit + budget.overrun - budget.spent))
    with compiling(most, ends - most) as inner:
        inner.place = budget.place
        inner.said = budget.limit if budget.said is None else budget.said
        yield


@contextmanager
def at(place: Span) -> Iterator[None]:
    """The statement that the work inside is for."""
    budget = _current.get()
    if budget is None:
        yield
        return
    before, budget.place = budget.place, place
    try:
        yield
    finally:
        budget.place = before


def _keep(kept: OrderedDict[Hashable, Any], key: Hashable, value: Any, size: int) -> None:
    """Keeps a value, in place of what was used longest ago where there are more than ``size``."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > size:
        kept.popitem(last=False)


def priced(size: int) -> Callable[[F], F]:
    """A cache of so many results, which charges for each what it cost to find, once a pattern.

    What a pattern used longer ago than ``size`` others is charged again: the cache may have dropped it.
    """

    def decorate(function: F) -> F:
        kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        lock = Lock()

        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            budget = _current.get()
            key = (*args, *named.items())
            with lock:
                found = kept.get(key)
                if found is not None:
                    kept.move_to_end(key)
            if budget is None:
                if found is not None:
                    return found[0]
                with compiling(1 << 62):  # counted, and not limited
                    return call(*args, **named)
            paid = budget.paid.setdefault(id(call), OrderedDict())
            if found is not None and key in paid:
                paid.move_to_end(key)
                return found[0]
            if found is not None and not budget.refused and found[1] <= budget.left:
                budget.spent += found[1]
                _keep(paid, key, None, size)
                return found[0]
            before, refusals = budget.spent, budget.refusals
            # Another pattern may find it in the cache: its cost must not depend on what this one paid for.
            budget.paid, others = {}, budget.paid
            try:
                made = function(*args, **named)
            finally:
                budget.paid = others
            if budget.refusals == refusals:
                with lock:
                    _keep(kept, key, (made, budget.spent - before), size)
                _keep(paid, key, None, size)
            return made

        def clear() -> None:
            with lock:
                kept.clear()

        call.cache_clear = clear  # type: ignore[attr-defined]
        return cast(F, call)

    return decorate

"""How information flows when layers are stacked: after how many has every token reached every token it may?

One layer carries what key ``k`` knows to every query that reads it, in any head; a token also keeps what it
knows, as the residual connection does. A token may reach those after it when the pattern is causal, and every
token otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from attnc.budget import OutOfWork, share, spend
from attnc.decompose import decompose
from attnc.evaluation import (
    Env,
    evaluate,
)
from attnc.expression import (
    HEAD,
    HEADS,
    Const,
    Drawn,
    Expr,
    K,
    Q,
    Sum,
    add,
    between,
    children,
    fold,
    le,
    variables,
)
from attnc.fills import filled
from attnc.graph import Kind, block_graph
from attnc.paths import Union, prove_paths
from attnc.pattern import Pattern, formula, mask_inputs
from attnc.relation import POSITIONS, BodyTerms
from attnc.solver import Answer, valid
from attnc.witness import fill, mask_with

Bools = npt.NDArray[np.bool_]

# Masks up to this length are multiplied as they are; beyond it tiles are, about so many a side.
LONGEST_MASK = 1024
MOST_TILES = 128
SHORT = 20
LONGEST_PICTURE = 1 << 20
# Paths are named through so many layers at the most.
MOST_LAYERS = 1024
# In longer sequences nothing is followed, for want of time and memory.
LONGEST_FOLLOWED = 1 << 22


@dataclass(frozen=True)
class Reach:
    """Layers until everything has arrived, at several lengths.

    layers: by length; None where some token is never reached. exact: False where lengths had to be so great
    that only whole tiles were followed, and the true number may be larger.
    unreached: ``(n, k, q)`` of a key that a query may hear of, and never does.
    """

    layers: Mapping[int, int | None]
    exact: bool
    unreached: tuple[int, int, int] | None
    hangs_on: tuple[str, ...] = field(default=())

    @property
    def grows(self) -> bool:
        """Whether longer sequences need more layers."""
        found = [value for value in self.layers.values() if value is not None]
        return len(found) > 1 and found[-1] > found[-2]

    def __str__(self) -> str:
        if self.unreached is not None:
            n, k, q = self.unreached
            text = f"key {k} never reaches query {q} when n = {n}, however many layers"
        elif self.grows:
            told = ", ".join(f"{count} at n = {n}" for n, count in self.layers.items())
            text = f"grows with n: {told} layers"
        else:
            *_, (n, count) = self.layers.items()
            text = f"{count} layer{'' if count == 1 else 's'} at n = {n}"
        if not self.exact and self.unreached is None:
            text = f"at least {text}" if not self.grows else f"{text}, at least"
        return f"{text}, in the worst case of {', '.join(self.hangs_on)}" if self.hangs_on else text


def reach(
    pattern: Pattern, limit: int = LONGEST_MASK, bodies: Sequence[BodyTerms] | None = None
) -> Reach | None:
    """Measured at three lengths that show the pattern's constants; None where those are too great for that.

    limit: the greatest length at which the mask itself is followed; where constants are too large for that,
    tiles are. Inputs are tried all false or 0, all true, and all different; the worst counts.
    bodies: the pattern's terms, where they are there already.
    """
    causal = is_causal(pattern)
    greatest = max(_constants(pattern), default=1)
    layers: dict[int, int | None] = {}
    unreached = None
    shortest = max(4 * greatest, 64)
    if 4 * shortest > LONGEST_FOLLOWED:
        return None
    exact = 4 * shortest <= limit
    terms = (decompose(pattern) if bodies is None else bodies) if not exact else ()
    # Tiles may connect what tokens do not, so that what is never reached shows in the mask.
    for n in (*(() if exact else (limit // 4,)), shortest, 2 * shortest, 4 * shortest):
        whole = exact or n <= limit // 4
        step = 1 if whole else ceil(n / MOST_TILES)
        found = [
            _flow(one, causal) for one in (_masks(pattern, n) if whole else _tiles(pattern, terms, n, step))
        ]
        count, pair = max(found, key=lambda item: (item[0] is None, item[0] or 0))
        if exact or not whole or count is None:
            layers[n] = count
        if pair is not None and unreached is None:
            q, k = pair
            unreached = (n, min(k * step, n - 1), min((q + 1) * step, n) - 1)
            break
    names = tuple(given.name for given in pattern.inputs if given.name in mask_inputs(pattern))
    return Reach(layers, exact, unreached, names)


def prove_reach(pattern: Pattern, layers: int) -> Answer:
    """Whether so many layers suffice, for every length and every input.

    Refuted with ``n``, ``q`` and ``k``: after that many layers query ``q`` knows nothing of key ``k``, though
    it may. Proven by naming, for every pair, the tokens in between.
    """
    causal = is_causal(pattern)
    union = Union.of(pattern)
    # The cheapest questions first: few paths need more than one token in between, and few claims that fail
    # need a long sequence to fail.
    found = _missed(pattern, layers, causal, list(range(1, SHORT)))
    answer = Answer("undecided") if found else prove_paths(union, min(layers, 2), causal)
    if answer.outcome == "proven":
        return answer
    found = found or _missed(pattern, layers, causal, _telling(pattern, layers, answer.variables.get("n")))
    found = found or _missed_by_tiles(pattern, layers, causal)
    if found is None and layers > 2:
        # Fewer layers are enough for more, as a token keeps what it knows.
        answer = prove_paths(union, min(layers, MOST_LAYERS), causal)
        if answer.outcome == "proven":
            return answer
        found = _missed(pattern, layers, causal, [answer.variables.get("n", 1)])
    at = answer.variables
    if found is not None:
        n, q, k = found
        return Answer("refuted", {"n": n, "q": q, "k": k})
    if answer.outcome == "refuted":
        pair = f"from key {at.get('k', 0)} to query {at.get('q', 0)} when n = {at.get('n', 1)}"
        return Answer("undecided", reason=f"no path was found {pair}, which is not to say that there is none")
    return answer


def never_arrives(pattern: Pattern, n: int, q: int, k: int) -> bool:
    """Whether query ``q`` never hears of key ``k`` at length ``n``, however many layers and for some inputs.

    False where that is too much work to say.
    """
    # Sizes are mostly powers of two: tiles of such a size lie within them, and join less.
    tile = 1 if n <= LONGEST_MASK else 1 << (ceil(n / MOST_TILES) - 1).bit_length()
    try:
        with share(0.25):  # only for a better message
            flows = _masks(pattern, n) if tile == 1 else _tiles(pattern, decompose(pattern), n, tile)
            return any(not _power(flow, n)[q // tile, k // tile] for flow in flows)
    except OutOfWork:
        return False


def is_causal(pattern: Pattern) -> bool:
    """Whether no query of any head reads a later key."""
    return all(
        valid(
            le(K, Q),
            [POSITIONS, body.heads.condition, between(0, HEAD, add(HEADS, -1)), fold(formula(body.relation))],
        ).outcome
        == "proven"
        for body in pattern.bodies
    )


def _constants(pattern: Pattern) -> set[int]:
    """The sizes that the pattern is made of: its constants and coefficients.

    How many columns are drawn, and from which seed, are none.
    """

    seen: set[Expr] = set()

    def sized(expr: Expr) -> Iterator[Expr]:
        if expr in seen:
            return
        seen.add(expr)
        yield expr
        inner = (expr.row, expr.column, expr.population) if isinstance(expr, Drawn) else children(expr)
        for part in inner:
            yield from sized(part)

    found: set[int] = set()
    for relation in Union.of(pattern).bodies:
        for part in sized(relation):
            if isinstance(part, Const):
                found.add(abs(part.value))
            elif isinstance(part, Sum):
                found |= {abs(part.constant), *(abs(c) for c, _ in part.terms)}
    return found - {0}


def telling_length(pattern: Pattern) -> int:
    """A length at which a picture shows the pattern's sizes: its grid's, or some times the greatest."""
    if pattern.grid:
        return min(prod(size for _, size in pattern.grid), LONGEST_PICTURE)
    n = 64
    while n < min(12 * max(_constants(pattern), default=8), LONGEST_PICTURE):
        n *= 2
    return n


@dataclass(frozen=True)
class Spread:
    """What has arrived after 1, 2, … layers, as shares of all pairs that may ever.

    tile: positions that were followed together; beyond 1 the shares are never less than the truth.
    settled: whether nothing more happens in further layers.
    """

    n: int
    tile: int
    causal: bool
    shares: tuple[float, ...]
    settled: bool


def spread(
    pattern: Pattern, bodies: Sequence[BodyTerms], n: int, fills: Mapping[str, str], layers: int = 12
) -> Spread:
    """Layer by layer at length ``n``, with inputs that are filled so (``attnc.fills``).

    Raises ``BadFill`` for inputs that cannot be.
    """
    causal, heads = is_causal(pattern), least_heads(pattern)
    whole = n <= LONGEST_MASK
    tile = 1 if whole else ceil(n / MOST_TILES)
    inputs = filled(pattern, n, heads, fills, dim=int(whole))
    step = _mask_flow(pattern, n, heads, inputs) if whole else _tile_flow(bodies, n, tile, heads, inputs)
    legal = np.tri(len(step), dtype=np.bool_) if causal else np.ones_like(step)
    shares: list[float] = []
    arrived = step
    settled = False
    while not settled and len(shares) < layers:
        shares.append(float((arrived & legal).sum() / legal.sum()))
        further = _product(arrived, step)
        settled = bool((further == arrived).all())
        arrived = further
    return Spread(n, tile, causal, tuple(shares), settled)


# --- flow -----------------------------------------------------------------------------------------------


def _masks(pattern: Pattern, n: int) -> Iterator[Bools]:
    """One layer's flow at length ``n``, all heads together, for a few contents of the inputs."""
    heads = least_heads(pattern)
    for inputs in _contents(pattern, n, heads):
        spend(heads * n * n // 100, "how information spreads")
        yield _mask_flow(pattern, n, heads, inputs)


def _mask_flow(pattern: Pattern, n: int, heads: int, inputs: Mapping[str, npt.NDArray[Any]]) -> Bools:
    """One layer's flow at length ``n`` for these contents; a token keeps what it knows."""
    return np.asarray(mask_with(pattern, n, heads, inputs).any(axis=0) | np.eye(n, dtype=np.bool_))


def _contents(pattern: Pattern, n: int, heads: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    for style in ("low", "high", "distinct") if mask_inputs(pattern) else ("low",):
        yield fill(pattern, Answer("proven"), n, heads, style)


def least_heads(pattern: Pattern) -> int:
    """The fewest heads of which each has one body, and every body has some, if there is such a number."""
    fewest = 0
    for heads in range(1, 65):
        places = Env({"h": np.arange(heads), "H": heads})
        chosen = [np.broadcast_to(evaluate(body.heads.condition, places), heads) for body in pattern.bodies]
        if np.all(np.sum(chosen, axis=0) == 1):
            if all(one.any() for one in chosen):
                return heads
            fewest = fewest or heads
    return fewest or max(1, len(pattern.bodies))


def _tiles(pattern: Pattern, bodies: Sequence[BodyTerms], n: int, tile: int) -> Iterator[Bools]:
    """Which tile may hear of which in one layer: never less than what the masks say."""
    heads = least_heads(pattern)
    for inputs in _contents(pattern, n, heads):
        spend(0, "how information spreads")
        yield _tile_flow(bodies, n, tile, heads, inputs)


def _tile_flow(
    bodies: Sequence[BodyTerms], n: int, tile: int, heads: int, inputs: Mapping[str, npt.NDArray[Any]]
) -> Bools:
    found = np.eye(ceil(n / tile), dtype=np.bool_)
    for body in bodies:
        places = Env({"h": np.arange(heads), "H": heads})
        chosen = np.broadcast_to(evaluate(body.body.heads.condition, places), heads)
        # Other heads of a body differ by what they draw, or by name: one graph for each then.
        hangs = any({"h", "H"} & variables(term.formula()) for term in body.terms)
        for head in np.flatnonzero(chosen)[: None if hangs else 1].tolist():
            for i, row in enumerate(block_graph(body, n, tile, head, heads, inputs).rows()):
                for run in row:
                    found[i, run.start : run.stop] |= run.kind is not Kind.EMPTY
    return found


def _product(one: Bools, other: Bools) -> Bools:
    spend(len(one) ** 3 // 3000, "how information spreads")
    return np.asarray(one.astype(np.float32) @ other.astype(np.float32) > 0)


def _power(step: Bools, layers: int) -> Bools:
    """What has arrived after so many layers."""
    result = np.eye(len(step), dtype=np.bool_)
    while layers:
        if layers & 1:
            result = _product(result, step)
        layers >>= 1
        if layers:
            wider = _product(step, step)
            if (wider == step).all():
                return _product(result, step)
            step = wider
    return result


def _first_missing(arrived: Bools, causal: bool) -> tuple[int, int] | None:
    """The first (query, key) that is legal and has not arrived."""
    missing = ~arrived
    if causal:
        missing &= np.tri(len(arrived), dtype=np.bool_)
    places = np.argwhere(missing)
    return (int(places[0][0]), int(places[0][1])) if len(places) else None


def _flow(step: Bools, causal: bool) -> tuple[int | None, tuple[int, int] | None]:
    """Layers until all has arrived; or the first pair of which one never hears of the other."""
    # The powers of two of the flow, until everything has arrived or nothing more does.
    powers = [step]
    while (missing := _first_missing(powers[-1], causal)) is not None:
        wider = _product(powers[-1], powers[-1])
        if (wider == powers[-1]).all():
            return None, missing
        powers.append(wider)
    if len(powers) == 1:
        nothing_to_do = _first_missing(np.eye(len(step), dtype=np.bool_), causal) is None
        return (0 if nothing_to_do else 1), None
    # The greatest number of layers that does not suffice, from its binary digits.
    count, arrived = 1 << (len(powers) - 2), powers[-2]
    for place in range(len(powers) - 3, -1, -1):
        further = _product(arrived, powers[place])
        if _first_missing(further, causal) is not None:
            count, arrived = count + (1 << place), further
    return count + 1, None


def _telling(pattern: Pattern, layers: int, hint: int | None) -> list[int]:
    """Lengths at which a pattern of these sizes is likely to need more layers."""
    sizes = [c for c in _constants(pattern) if c > 1]
    multiples = {m * c + 1 for c in sizes for m in (1, 2, layers, layers + 1)}
    return sorted(multiples if hint is None else multiples | {hint})


def _missed(pattern: Pattern, layers: int, causal: bool, lengths: list[int]) -> tuple[int, int, int] | None:
    """A length, query and key for which so many layers do not suffice, among these lengths or just below."""
    last = 0
    for n in (n for n in lengths if 0 < n <= LONGEST_MASK):
        pair = _missing_at(pattern, n, layers, causal)
        if pair is None:
            last = n
            continue
        # The shortest such length since the last good one, if it fails from somewhere on.
        good, bad = last, n
        while bad - good > 1:
            middle = (good + bad) // 2
            nearer = _missing_at(pattern, middle, layers, causal)
            if nearer is None:
                good = middle
            else:
                bad, pair = middle, nearer
        return bad, *pair
    return None


def _missed_by_tiles(pattern: Pattern, layers: int, causal: bool) -> tuple[int, int, int] | None:
    """The same at lengths too great for a mask: what whole tiles do not hear of, no token of theirs does."""
    sizes = [c for c in _constants(pattern) if c > 1]
    bodies: Sequence[BodyTerms] | None = None
    for n in sorted({m * (c + 1) for c in sizes for m in (2 * layers, 4 * layers + 4)}):
        if not LONGEST_MASK < n <= LONGEST_FOLLOWED:
            continue
        step = ceil(n / MOST_TILES)
        bodies = decompose(pattern) if bodies is None else bodies
        for one in _tiles(pattern, bodies, n, step):
            pair = _first_missing(_power(one, layers), causal)
            if pair is not None:
                return n, min((pair[0] + 1) * step, n) - 1, pair[1] * step
    return None


def _missing_at(pattern: Pattern, n: int, layers: int, causal: bool) -> tuple[int, int] | None:
    for one in _masks(pattern, n):
        pair = _first_missing(_power(one, layers), causal)
        if pair is not None:
            return pair
    return None

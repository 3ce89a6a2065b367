"""The number of edges that a pattern has: found once, and the same for whoever shows or proves it.

Of the terms' closed form, and the bounds read off the relation's comparisons where that is only a bound.
"""

from __future__ import annotations

from collections.abc import Iterable

import sympy

from attnc import ceilings
from attnc.budget import OutOfWork, priced, within
from attnc.cost import Cost, all_pairs, combine, count, edges, n
from attnc.expression import fold
from attnc.pattern import formula
from attnc.polynomial import Poly
from attnc.relation import BodyTerms
from attnc.steady import value_of

# More than a pattern has bodies, as all of them are asked for several times.
KEPT_COSTS = 512
MOST_PARTS = 64  # of a relation multiplied out; beyond that only its closed form is looked at
# Bounds are compared where there are this many keys, and of each bool input so many true entries.
FAR, TRUE_ENTRIES = 1 << 20, 1 << 8


def cost_of(bodies: tuple[BodyTerms, ...]) -> Cost:
    """How many edges a head has: of several bodies, what any head has at most.

    Where counting takes more work than is left, the bounds that its comparisons give.
    """
    return combine([_affordable(body) for body in bodies])


def _affordable(item: BodyTerms) -> Cost:
    try:
        with within(0.7):
            return edges_of(item)
    except OutOfWork:
        pass
    try:
        return _bounded(item, all_pairs(item.terms))
    except OutOfWork:
        return all_pairs()


@priced(KEPT_COSTS)
def edges_of(item: BodyTerms) -> Cost:
    """The number of edges of one head of a body."""
    counted = edges(item.terms)
    return counted if counted.exact else _bounded(item, counted)


def _bounded(item: BodyTerms, counted: Cost) -> Cost:
    """An upper bound, or a better one that is read off."""
    bounds = [counted.bound, *_read_off(item)]
    best = min(bounds, key=lambda bound: (_far(bound), len(str(bound))))
    return counted if best == counted.bound else counted.within(best)


def _read_off(item: BodyTerms) -> Iterable[sympy.Expr]:
    """Upper bounds from the comparisons of the relation as it is written, and of its terms."""
    ways = [ceilings.conjunctions(fold(formula(item.body.relation)))]
    ways.append([part for term in item.terms for part in ceilings.conjunctions(fold(term.formula()))])
    for way in ways:
        if len(way) > MOST_PARTS:
            continue
        # A bound that starts later is no polynomial: below its start there are no edges.
        parts = [[b.value for b in ceilings.edge_bounds(part) if b.start == 0] for part in way]
        if all(parts):
            yield sympy.Add(*(min(map(_told, values), key=_far) for values in parts))


def _told(p: Poly) -> sympy.Expr:
    return sympy.Add(
        *(
            sympy.Mul(sympy.Rational(c.numerator, c.denominator), *map(_symbol, monomial))
            for monomial, c in p.terms
        )
    )


def _symbol(name: str) -> sympy.Expr:
    return n if name == "n" else count(sympy.Symbol(name.removeprefix("count(").removesuffix(")")))


def _far(bound: sympy.Expr) -> float:
    values = {part: TRUE_ENTRIES for part in bound.atoms(count)}
    return float(value_of(bound, {n: FAR, **values}))

"""How far apart a query and a key of a relation can be: bounds on ``q - k`` that hold for every length."""

from __future__ import annotations

from attnc.expression import Eq0, Expr, K, Le0, N, Q, Sum, add, between, conj, fold, gt, lt, sub, walk
from attnc.solver import least

Bounds = tuple[int | None, int | None]


def distances(relation: Expr) -> Bounds:
    """The least and the greatest distance ``q - k``; None where no constant of the relation bounds it."""
    distance = sub(Q, K)
    constants = {0}
    for part in walk(relation):
        if isinstance(part, Le0 | Eq0) and isinstance(part.body, Sum):
            rest = add(part.body, -part.body.constant)
            if rest in (distance, sub(K, Q)):
                constants.add(-part.body.constant if rest == distance else part.body.constant)
    edges = conj(fold(relation), between(0, Q, add(N, -1)), between(0, K, add(N, -1)))

    def bounds(beyond: Expr) -> bool:
        return least(conj(edges, beyond), (N, Q, K)).outcome == "proven"

    low = next((c for c in sorted(constants, reverse=True) if bounds(lt(distance, c))), None)
    high = next((c for c in sorted(constants) if bounds(gt(distance, c))), None)
    return low, high

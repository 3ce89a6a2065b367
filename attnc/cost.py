"""What a pattern costs, as closed forms in the number of keys: edges, FLOPs and bytes of one head.

Exact wherever rows and columns are intervals, lattices, sets or lists; where an edge hangs on the contents of
an input, an upper bound in ``count(x)``, the number of true entries of the input ``x``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import sympy
import sympy.tensor.tensor  # which sympy itself imports at its first sum

from attnc.budget import allows, charge
from attnc.expression import (
    HEAD,
    HEADS,
    ONE,
    ZERO,
    And,
    Drawn,
    Expr,
    FloorDiv,
    K,
    Lookup,
    Max,
    Min,
    Mod,
    N,
    Not,
    Or,
    PowerOfTwo,
    Q,
    Var,
    add,
    constant,
    eq,
    fold,
    le,
    scale,
    sub,
    variables,
    walk,
)
from attnc.growth import joined, term_growth
from attnc.pairs import count_pairs
from attnc.relation import POSITIONS, Term
from attnc.sizes import MOST_WORK, NoFormula, Sizes, linear, numeric, positive
from attnc.solver import valid
from attnc.steady import MOST_EXTREMA, expanded, multiples, nodes, steady_form, value_of

n = positive("n")
d = sympy.Symbol("d", integer=True, positive=True)
# What it takes to count one term, and to write out one part of a formula, in steps of work.
COUNTED, PART = 15_000, 60
# What summing over powers of two takes for each part of the formula.
POWERS = 8_000
COUNTING = "counting edges"
FEW_SUMS = 6
LONGEST_FORM = 100
SAMPLE_LENGTHS = (1024, 16384)
LONGEST_STEADY = 2000  # parts of a formula
FAR = 1 << 40

count = sympy.Function("count", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Cost:
    """Edges of one head with ``n`` queries and ``n`` keys.

    expr: over the symbol ``n`` and ``count(x)`` for inputs ``x``; holds for every ``n >= 0``.
    exact: whether it is the number itself; otherwise it is never less than that, nor more than all pairs.
    growth: for people, in terms of the parameters' names: ``O(n*window)``.
    steady, steady_from: the simpler form that ``expr`` takes for every ``n >= steady_from``.
    whole, whole_from, period: the form that it takes for multiples of ``period`` from ``whole_from`` on.
    most: how many pairs there are at all: ``n*n``, or half of them where no query reads ahead.
    bound: ``expr`` as it was before it was held below ``most``.
    """

    expr: sympy.Expr
    exact: bool
    growth: str
    steady: sympy.Expr
    steady_from: int
    whole: sympy.Expr
    whole_from: int
    period: int
    most: sympy.Expr
    bound: sympy.Expr

    def forms(self) -> list[str]:
        """The closed forms that a person would read: the general one, the steady one; that of whole rows of a
        grid, or whole blocks, where those are too long; maybe none.
        """
        since = f" for n >= {self.steady_from}" if self.steady_from else ""
        forms = [_form(self.expr)]
        if self.steady != self.expr:
            forms.append(f"{_form(self.steady)}{since}")
        if not self._by_periods():
            return [form for form in forms if len(form) <= LONGEST_FORM]
        since = f"n >= {self.whole_from} and " if self.whole_from else ""
        form = f"{_form(self.whole)} for {since}n % {self.period} == 0"
        return [form] if len(form) <= LONGEST_FORM else []

    def lines(self) -> list[str]:
        """The number of edges as people are shown it, everywhere: its closed forms, or some of its values."""
        least = "" if self.exact else "at most "
        if forms := self.forms():
            first, *others = forms
            return [f"{least}{first}{self._remark()}", *(f"= {form}" for form in others)]
        hidden = "(the closed form is long: `--json` has it)"
        try:
            values = ", ".join(f"{self.at(length)} at n = {length}" for length in SAMPLE_LENGTHS)
        except ValueError:  # it depends on the contents of inputs
            return [f"{least}{self.growth} {hidden}"]
        return [f"{least}{values} {hidden}"]

    def _remark(self) -> str:
        """Why a bound may be far above the growth, or what is shown instead of a long formula."""
        if not self.exact and self.expr == n**2 and self.growth != "O(n^2)":
            return " (every pair: no closed form was found, and growth tells more)"
        return " (for other n it is long: `--json` has it)" if self._by_periods() else ""

    def _by_periods(self) -> bool:
        return self.period > 1 and not any(map(_readable, (self.expr, self.steady)))

    def within(self, bound: sympy.Expr) -> Cost:
        """The same with another upper bound."""
        return _bounded_cost(bound, self.growth, self.most)

    @property
    def of_inputs(self) -> bool:
        """Whether it depends on how many entries of inputs are true."""
        return bool(self.expr.has(count))

    def at(self, length: int, **counts: int) -> int:
        """The value for a length and for the true entries of each input, as in ``at(4096, is_global=3)``."""
        values = {count(sympy.Symbol(name)): value for name, value in counts.items()}
        try:
            value = int(value_of(self.expr, {n: length, **values}))
        except KeyError as missing:
            name = str(missing.args[0].args[0])
            raise ValueError(
                f"the cost depends on how many entries of `{name}` are true: give `{name}=` to `at`"
            ) from None
        return value


def _form(expr: sympy.Expr) -> str:
    """The formula as text; some long text where it is too long to be shown, as writing it takes long."""
    symbols = sum(not part.args for part in sympy.preorder_traversal(expr))  # a letter each, at least
    return str(expr) if symbols <= LONGEST_FORM else " " * (LONGEST_FORM + 1)


def _readable(expr: sympy.Expr) -> bool:
    return len(_form(expr)) <= LONGEST_FORM


def _long(expr: sympy.Expr) -> bool:
    return sum(1 for _ in sympy.preorder_traversal(expr)) > LONGEST_STEADY


def edges(terms: Iterable[Term], work: int = MOST_WORK) -> Cost:
    """The number of edges of disjoint terms, such as the terms of one body.

    work: how many sums may be tried, a few milliseconds each; what needs more becomes an upper bound.
    """
    terms = tuple(terms)
    sizes = Sizes(work=work)
    if not allows(COUNTED * len(terms), COUNTING):
        return all_pairs()
    counted = [_term_edges(term, sizes) for term in terms]
    expr = sympy.Add(*(part for part, _ in counted))
    charge(PART * nodes(expr), COUNTING)
    growth = joined(term_growth(term) for term in terms)
    if all(exact for _, exact in counted):
        return _cost(expr, True, growth)
    most = n**2 / 2 + n / 2 if all(map(_causal, terms)) else n**2
    # Counts are never negative: with one part at or beyond all pairs, the sum is, too.
    if any(_never_below(part, most) for part, _ in counted):
        expr = most
    return _bounded_cost(expr, growth, most)


def _bounded_cost(bound: sympy.Expr, growth: str, most: sympy.Expr) -> Cost:
    """A cost that is only a bound, and never more than all pairs."""
    if _never_below(bound, most):
        expr = most
    elif _never_below(most, bound):
        expr = bound
    else:
        expr = sympy.Min(most, bound, evaluate=False)
    return replace(_cost(expr, False, growth), most=most, bound=bound)


def all_pairs(terms: Sequence[Term] = ()) -> Cost:
    """The bound that always holds: every query attends to every key; with the terms' growth, if given."""
    return _bounded_cost(n**2, joined(map(term_growth, terms)) if terms else "O(n^2)", n**2)


def _causal(term: Term) -> bool:
    """Whether no query of the term reads ahead, for certain."""
    return valid(le(K, Q), [POSITIONS, term.formula()]).outcome == "proven"


def _never_below(value: sympy.Expr, most: sympy.Expr) -> bool:
    """Whether a bound is plainly no less than ``most``: by its coefficients, for every length."""
    if not _may_reach(value, most):
        return False
    excess = expanded(value - most)
    if _plainly_nonnegative(excess):
        return True
    # Looked at for n = 0, and for n + 1 in place of n: so n**2 - n is seen to be never negative.
    return bool(
        excess.is_polynomial(n)
        and not excess.has(count)
        and excess.subs(n, 0) >= 0
        and _plainly_nonnegative(expanded(excess.subs(n, n + 1)))
    )


def _plainly_nonnegative(excess: sympy.Expr) -> bool:
    """Whether it is a sum of terms that are never negative, none with a negative coefficient."""
    return all(c >= 0 and _size(part) for part, c in excess.as_coefficients_dict().items() if c)


def _may_reach(value: sympy.Expr, most: sympy.Expr) -> bool:
    """False where that is seen without writing the bound out, which takes long."""
    found = value.atoms(sympy.Max, sympy.Min, count)
    extrema = [part for part in found if isinstance(part, (sympy.Max, sympy.Min))]
    some = {n: FAR, **dict.fromkeys(found.difference(extrema), 0)}
    try:
        # Coefficients that hang on a minimum are none of a size.
        none, one = (
            value_of(value, {**some, **{part: by * i for i, part in enumerate(extrema, 1)}}) for by in (0, 1)
        )
        return none == one and value_of(value, some) >= value_of(most, some)
    except (KeyError, TypeError):
        return True


def _size(part: sympy.Expr) -> bool:
    """Powers and products of ``n``, of counts and of their quotients and remainders: never negative."""
    factors = (factor.as_base_exp()[0] for factor in sympy.Mul.make_args(part))
    counts = (count, sympy.floor, sympy.Mod)
    return all(base in (1, n) or isinstance(base, counts) for base in factors)


def combine(costs: Sequence[Cost]) -> Cost:
    """The most expensive of several bodies: what any head costs at most."""
    if not costs:
        return _cost(sympy.S.Zero, True, "O(1)")
    distinct = list({cost.expr: cost for cost in costs}.values())
    if len(distinct) == 1:
        return distinct[0]
    growth = joined(
        part for cost in costs for part in cost.growth.removeprefix("O(").removesuffix(")").split(" + ")
    )
    exact = all(cost.exact for cost in distinct)
    made = _cost(sympy.Max(*(cost.expr for cost in distinct), evaluate=False), exact, growth)
    most = distinct[0].most if all(cost.most == distinct[0].most for cost in costs) else n**2
    return replace(made, most=most, bound=sympy.Max(*(cost.bound for cost in distinct), evaluate=False))


def flops(cost: Cost, forward: bool = True) -> sympy.Expr:
    """Floating-point operations of one head of dimension ``d``: two products forward, five backward."""
    return (4 if forward else 10) * d * cost.expr


def traffic(itemsize: int = 2) -> sympy.Expr:
    """Bytes of one head that must be moved at least: queries, keys, values and output once each."""
    return 4 * n * d * itemsize


def _cost(expr: sympy.Expr, exact: bool, growth: str) -> Cost:
    repeated, period = multiples(expr, n)
    # Long sums with remainders are no shorter where they are steady, and take long to write out.
    steady, steady_from = (expr, 0) if period > 1 and _long(expr) else steady_form(expr, n)
    whole, whole_from = (steady, steady_from) if period == 1 else steady_form(repeated, n)
    return Cost(expr, exact, growth, steady, steady_from, whole, whole_from, period, n**2, expr)


# --- one term -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bound:
    """A number of edges or positions, and whether it is the number or only never below it."""

    value: sympy.Expr
    exact: bool


def _term_edges(term: Term, sizes: Sizes) -> tuple[sympy.Expr, bool]:
    literals = _literals(fold(term.formula()))
    found = _bounded(literals, sizes, _reach_of_row(term))
    return found.value, found.exact


def _literals(expr: Expr) -> tuple[Expr, ...]:
    return expr.args if isinstance(expr, And) else (expr,)


def _has(expr: Expr, *kinds: type[Expr]) -> bool:
    return any(isinstance(part, kinds) for part in walk(expr))


def _bounded(literals: tuple[Expr, ...], sizes: Sizes, width: int | None) -> _Bound:
    """How many pairs meet all literals, or a bound on it."""
    for place, literal in enumerate(literals):
        if isinstance(literal, Not) and isinstance(literal.body, PowerOfTwo):
            rest = literals[:place] + literals[place + 1 :]
            everything = _bounded(rest, sizes, width)
            powers = _bounded((*rest, literal.body), sizes, width)
            if everything.exact and powers.exact:
                return _Bound(everything.value - powers.value, True)
            return _Bound(everything.value, False)
    plain: list[Expr] = []
    fancy: list[Expr] = []
    for literal in literals:
        irregular = _has(literal, Lookup, Drawn, PowerOfTwo) or variables(literal) & {HEAD.name, HEADS.name}
        (fancy if irregular else plain).append(literal)
    if not fancy:
        return _regular(plain, sizes)
    if len(fancy) == 1:
        match fancy[0]:
            case PowerOfTwo(body):
                found = _powers(body, plain, sizes)
                if found is not None:
                    return _Bound(found, True)
            case Drawn(past=True, row=row, column=column, count=draws) if (row, column) == (Q, K):
                # As many keys as the last `count` ones up to the row itself.
                recent = (le(add(Q, scale(-1, draws), 1), K), le(K, Q))
                return _Bound(_regular(list(recent), sizes).value, _vacuous(plain, sizes, past=True))
    drawn = next((literal for literal in fancy if isinstance(literal, Drawn)), None)
    if drawn is not None:
        return _drawn(drawn, plain, len(fancy) == 1, sizes)
    return _populated(plain, fancy, sizes, width)


def _regular(plain: Sequence[Expr], sizes: Sizes) -> _Bound:
    """Arithmetic conditions: counted exactly, or else without those that no formula covers."""
    try:
        return _Bound(sizes.told(count_pairs(plain, N, N, sizes)), True)
    except NoFormula:
        pass
    sizes.work = max(sizes.work, MOST_WORK // 10)
    kept: list[Expr] = []
    best: sympy.Expr = n**2
    for condition in plain:
        try:
            best = sizes.told(count_pairs([*kept, condition], N, N, sizes))
        except NoFormula:
            continue
        kept.append(condition)
    return _Bound(best, False)


def _vacuous(plain: Sequence[Expr], sizes: Sizes, past: bool = False) -> bool:
    """Whether the conditions leave every pair (every past pair) alone."""
    everything = [le(K, Q)] if past else []
    try:
        found, whole = (count_pairs(some, N, N, sizes) for some in ([*everything, *plain], everything))
    except NoFormula:
        return False
    return found == whole or sizes.spread(found) == sizes.spread(whole)


def _one_sided(conditions: Sequence[Expr], var: Var, sizes: Sizes) -> _Bound:
    """How many positions of one axis meet conditions on it alone, inputs included."""
    arithmetic = [c for c in conditions if not _has(c, Lookup)]
    selected = [c for c in conditions if _has(c, Lookup)]
    rows, columns = (N, ONE) if var == Q else (ONE, N)
    try:
        total = _Bound(sizes.told(count_pairs(arithmetic, rows, columns, sizes)), True)
    except NoFormula:
        total = _Bound(n, False)
    if not selected:
        return total
    whole = total.exact and total.value == n
    bounds = [_chosen(condition, var, sizes) for condition in selected]
    # Of several conditions each alone bounds the number; the one on a true entry says most.
    best = min(bounds, key=lambda b: (b.value.has(n), len(str(b.value))))
    if not whole and best.value.has(n):
        return _Bound(total.value, False)
    return _Bound(best.value, best.exact and whole and len(selected) == 1)


def _chosen(condition: Expr, var: Var, sizes: Sizes) -> _Bound:
    match condition:
        case Lookup(table, (place,), "bool"):
            entries = count(sympy.Symbol(table))
            if place == var:
                return _Bound(entries, True)
            if isinstance(place, FloorDiv) and place.left == var and (size := constant(place.right)):
                return _Bound(size * entries, False)
        case Not(Lookup(table, (place,), "bool")) if place == var:
            return _Bound(n - count(sympy.Symbol(table)), True)
        case Or(args):
            bounds = [_one_sided((arg,), var, sizes) for arg in args]
            return _Bound(sympy.Add(*(b.value for b in bounds)), False)
        case And(args):
            return _one_sided(args, var, sizes)
    return _Bound(n, False)


def _populated(plain: Sequence[Expr], fancy: Sequence[Expr], sizes: Sizes, width: int | None) -> _Bound:
    """Rows or columns chosen by inputs: their number times what the other side may have."""
    known = [literal for literal in fancy if not _has(literal, PowerOfTwo) and _about_one_axis(literal)]
    both = [c for c in plain if {Q.name, K.name} <= variables(c)]
    dropped = len(known) < len(fancy)
    sides = {
        var: [c for c in (*plain, *known) if variables(c) & {Q.name, K.name} == {var.name}] for var in (Q, K)
    }
    rows, columns = (_one_sided(sides[var], var, sizes) for var in (Q, K))
    if not known:
        return replace(_regular(plain, sizes), exact=False)
    if width is not None and both:
        narrow = [
            side.value for var, side in ((Q, rows), (K, columns)) if any(c in known for c in sides[var])
        ]
        return _Bound(min(narrow, key=lambda value: value.has(n)) * width, False)
    exact = rows.exact and columns.exact and not dropped and _vacuous(both, sizes)
    return _Bound(rows.value * columns.value, exact)


def _about_one_axis(literal: Expr) -> bool:
    return len(variables(literal) & {Q.name, K.name}) == 1 and not variables(literal) & {"h", "H"}


def _drawn(drawn: Drawn, plain: Sequence[Expr], alone: bool, sizes: Sizes) -> _Bound:
    """``count`` keys for every row, or as many as there are; blocks of them where blocks are drawn."""
    sides = [c for c in plain if Q.name in variables(c) and K.name not in variables(c)]
    rows = _one_sided(sides, Q, sizes)
    size = next((constant(p.right) for p in walk(drawn.column) if isinstance(p, FloorDiv)), 1) or 1
    population = sympy.ceiling(n / size) if size > 1 else n
    picks = sympy.Min(constant(drawn.count) or 0, population)
    exact = (
        alone
        and rows.exact
        and size == 1
        and not drawn.past
        and _vacuous([c for c in plain if c not in sides], sizes)
    )
    keys = picks * size
    return _Bound(rows.value * keys, exact)


def _powers(body: Expr, plain: Sequence[Expr], sizes: Sizes) -> sympy.Expr | None:
    """Pairs whose distance is 0 or a power of two."""
    distance = Var("distance")
    if sub(body, sub(Q, K)) != ZERO:
        return None
    sizes.ranges["distance"] = (0, sizes.ranges["n"][1])
    # One more symbol makes long formulas of what is not simple.
    work, sizes.work = sizes.work, min(sizes.work, FEW_SUMS)
    try:
        per = sizes.told(count_pairs([eq(sub(Q, K), distance), *plain], N, N, sizes))
    except NoFormula:
        return None
    finally:
        sizes.work += work - min(work, FEW_SUMS)
    size, symbol = n, positive("distance")
    # How many powers of two are below n.
    bits = sympy.ceiling(sympy.log(sympy.Max(size, 1), 2))
    if len(per.atoms(sympy.Max, sympy.Min)) > MOST_EXTREMA // 4:
        return None
    if not allows(POWERS * nodes(per), COUNTING):
        return None
    at_zero = per.xreplace({symbol: sympy.S.Zero})
    # Below, 1 <= distance < n decides most maxima.
    above, rest = (sympy.Dummy(integer=True, nonnegative=True) for _ in range(2))
    least = sympy.expand(at_zero.xreplace({size: rest + 1}))
    others = sympy.expand(per.xreplace({symbol: above + 1, size: above + rest + 2}))
    if not any(part.has(sympy.Max, sympy.Min, sympy.floor, sympy.Mod) for part in (least, others)):
        shifted = others.xreplace({rest: size - symbol - 1, above: symbol - 1})
        sums = {0: bits, 1: 2**bits - 1, 2: (4**bits - 1) / sympy.Integer(3)}
        found = sympy.expand(least.xreplace({rest: size - 1})) + sympy.Add(
            *(c * sums[degree] for (degree,), c in sympy.Poly(sympy.expand(shifted), symbol).terms())
        )
        if found.xreplace({size: sympy.S.Zero}) == 0:
            return found
    power = sympy.Symbol("i", integer=True, nonnegative=True)
    return at_zero + sympy.Sum(per.xreplace({symbol: 2**power}), (power, 0, bits - 1))


def _reach_of_row(term: Term) -> int | None:
    """The most columns that the interval of any row can hold, where that is a number."""
    widths: list[float] = []
    for low in _arms(fold(term.low), Max):
        for high in _arms(fold(term.high), Min):
            gap = _unrounded(add(sub(high, low), 1))
            widths.append(numeric(gap, {})[1])
    least = min(widths)
    return int(least) if least < 2**62 else None


def _arms(expr: Expr, kind: type[Min] | type[Max]) -> tuple[Expr, ...]:
    return expr.args if isinstance(expr, kind) else (expr,)


def _unrounded(expr: Expr) -> Expr:
    """``s * (x // s)`` written as ``x - x % s``, so that positions cancel."""
    terms, start = linear(expr)
    total: Expr = add(start)
    for atom, c in terms.items():
        size = constant(atom.right) if isinstance(atom, FloorDiv) else None
        if isinstance(atom, FloorDiv) and size and c % size == 0:
            total = add(total, scale(c // size, sub(atom.left, Mod(atom.left, atom.right))))
        else:
            total = add(total, scale(c, atom))
    return total

"""Expressions to values: numbers, conditions, sets and relations, told apart by what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from attnc import atoms, elsewhere, reals
from attnc import syntax as tree
from attnc.arguments import arguments
from attnc.arithmetic import LIMIT, add_up, checked, compare, fitting, multiply_out
from attnc.atoms import POSITION, Slot
from attnc.diagnostics import Label, Span
from attnc.expression import (
    DIM,
    Const,
    Expr,
    K,
    Lookup,
    Q,
    Truth,
    Var,
    absolute,
    conj,
    constant,
    disj,
    eq,
    maximum,
    minimum,
    neg,
    negate,
    walk,
)
from attnc.inputs import check_place, input_named, shape_text
from attnc.lookups import coordinate, member, named
from attnc.names import (
    CONSTANT_RELATIONS,
    FUNCTIONS,
    MAPS,
    REAL_FUNCTIONS,
    RELATIONS,
    RESERVED,
    SETS,
    UPDATES,
    WEIGHING_FUNCTIONS,
    meant,
    reserved,
)
from attnc.operators import combine, edges, expect, integers, members, sets, subtract
from attnc.pattern import Atom, Complement, Intersection, Relation, Union
from attnc.real import Entry, Greater, negative
from attnc.rewriting import as_used, lift
from attnc.scope import (
    Boolean,
    Edges,
    Floating,
    InputDef,
    Integer,
    LetDef,
    Mistake,
    Positions,
    Scope,
    Value,
    Weighing,
    article,
    bound_terms,
)


def resolve(scope: Scope, node: tree.Expression, otherwise: str | None = None) -> Value:
    """What an expression stands for; raises ``Mistake``.

    otherwise: the help where it is a name that stands for nothing, and near to none.
    """
    match tree.ungroup(node):
        case tree.Number(value, span):
            return Integer(checked(scope, Const(value), span))
        case tree.Decimal(value, span):
            return Floating(fitting(scope, value, span))
        case tree.Flag(value):
            return Boolean(Truth(value))
        case tree.Name(name, span):
            found = named(scope, name, span, otherwise)
            return _use(scope, found, span) if isinstance(found, LetDef) else found
        case tree.Member() as node_:
            return member(scope, node_)
        case tree.Call() as call:
            return _call(scope, call)
        case tree.Index() as index:
            return _index(scope, index)
        case tree.Listing() as listing:
            return _listing(scope, listing)
        case tree.Where(condition, span):
            return Edges(_atom(scope, boolean(scope, condition), span))
        case tree.Prefix() as prefix:
            return _prefix(scope, prefix)
        case tree.Chain() as chain:
            return _chain(scope, chain)
        case tree.Group():
            raise AssertionError("groups have been taken off")


def integer(scope: Scope, node: tree.Expression) -> Expr:
    return expect(scope, node, resolve(scope, node), Integer).expr


def boolean(scope: Scope, node: tree.Expression) -> Expr:
    return expect(scope, node, resolve(scope, node), Boolean).expr


def relation(scope: Scope, node: tree.Expression) -> Relation:
    return expect(scope, node, resolve(scope, node), Edges).relation


def number(
    scope: Scope,
    node: tree.Expression,
    what: str,
    least: int | None = None,
    most: int | None = None,
    *,
    help: str = "it is made of numbers and parameters",
    below: str | None = None,
) -> Expr:
    """An integer known when compiling; ``what`` names it in messages.

    help: what to write in place of a number that is not known; below: in place of one that is too small.
    """
    expr = integer(scope, node)
    value = constant(expr)
    if value is None:
        names = sorted({part.name for part in walk(expr) if isinstance(part, Var)})
        reason = f"it depends on `{names[0]}`" if names else "it depends on an input"
        raise scope.error(
            "not-constant",
            f"{what} must be known when compiling, and {reason}",
            node.span,
            help=help,
        )
    shown = "" if scope.text(node.span) == str(value) else f" (`{scope.text(node.span)}`)"
    if least is not None and value < least:
        raise scope.error(
            "bad-argument", f"{what} must be at least {least}, and is {value}{shown}", node.span, help=below
        )
    if most is not None and value > most:
        raise scope.error("bad-argument", f"{what} must be at most {most}, and is {value}{shown}", node.span)
    return expr


# --- names ----------------------------------------------------------------------------------------------


def _use(scope: Scope, let: LetDef, span: Span) -> Value:
    if scope.blocks not in let.values:
        let.values[scope.blocks] = resolve(scope, let.value)
    value = let.values[scope.blocks]
    scope.check_size(value, span)
    if isinstance(value, Edges):
        return Edges(as_used(value.relation, scope.text(span), span))
    return value


# --- inputs ---------------------------------------------------------------------------------------------


def _index(scope: Scope, index: tree.Index) -> Value:
    entries = input_named(scope, tree.Name(index.name.text, index.name.span), "indexing")
    if len(index.places) != len(entries.shape):
        raise scope.error(
            "bad-index",
            f"`{entries.name}` is {shape_text(entries)} and takes {len(entries.shape)} "
            f"{'index' if len(entries.shape) == 1 else 'indices'}, not {len(index.places)}",
            index.span,
            secondary=(Label(entries.span, "declared here"),),
        )
    places = tuple([integer(scope, place) for place in index.places])
    for axis, place in enumerate(places):
        check_place(scope, entries, axis, place, index.places[axis].span)
    match entries.kind:
        case "bool":
            return Boolean(Lookup(entries.name, places, "bool"))
        case "int":
            return Integer(Lookup(entries.name, places))
        case "float" if scope.weighing is not None and DIM in entries.shape:
            raise scope.error(
                "bad-index",
                f"`{entries.name}` has an axis of the head dimension, and no entry of it belongs to an edge",
                index.span,
                secondary=(Label(entries.span, "declared here"),),
                help="only `decay` and `bonus` take such inputs, by their names alone",
            )
        case "float" if scope.weighing is not None:
            return Weighing(Entry(entries.name, places))
        case "float" if scope.bound is not None:
            raise scope.error(
                "float-value",
                f"`{entries.name}` is a float input, which cannot stand in a bound",
                index.span,
                help=bound_terms(scope.bound),
            )
        case "float":
            raise scope.error(
                "float-value",
                f"`{entries.name}` is a float input: floats weigh edges, they don't choose them",
                index.span,
                help="decide the condition before the call, and pass a bool input",
            )


# --- calls ----------------------------------------------------------------------------------------------


def _call(scope: Scope, call: tree.Call) -> Value:
    name = call.name.text
    if name in atoms.RELATIONS:
        if name == "blocks":
            return _blocks(scope, call)
        args = _bind(scope, call, atoms.RELATIONS[name])
        return Edges(_atom(scope, atoms.MEANINGS[name](args), call.span))
    if name in atoms.SETS:
        return _set(scope, call)
    if name in FUNCTIONS:
        return _function(scope, call)
    if name in (*REAL_FUNCTIONS, *WEIGHING_FUNCTIONS) and name not in scope.names:
        if scope.weighing is None:
            raise reals.refused(scope, name, call.span)
        return _weighing_function(scope, call)
    if name in (*MAPS, *UPDATES):
        item = "update" if name in UPDATES else "kernel"
        raise scope.error(
            "misplaced-item",
            f"`{name}(…)` stands alone after `{item}`",
            call.span,
            help=f"write `{item} {name}(…)`",
        )
    if name in RESERVED:
        raise Mistake(reserved(scope.source, name, call.name.span))
    if name in CONSTANT_RELATIONS:
        raise scope.error(
            "too-many-arguments", f"`{name}` takes no arguments", call.span, help=f"write `{name}`"
        )
    if name in scope.names:
        scope.used.add(name)
        bracket = isinstance(scope.names[name], InputDef)
        raise scope.error(
            "not-callable",
            f"`{name}` is {article(scope.names[name].role)} and takes no arguments in parentheses",
            call.name.span,
            help=f"an input is read with brackets: `{name}[…]`" if bracket else f"write `{name}`",
        )
    real_functions = () if scope.weighing is None else (*REAL_FUNCTIONS, *WEIGHING_FUNCTIONS)
    known = (*RELATIONS, *SETS, *FUNCTIONS, *real_functions)
    help, edits = elsewhere.called(scope.source, name, call.span)
    raise scope.error(
        "unknown-name",
        f"there is no `{name}(…)`",
        call.name.span,
        help=help or meant(name, (*known, *CONSTANT_RELATIONS)) or (scope.bound and bound_terms(scope.bound)),
        edits=edits,
    )


def _bind(scope: Scope, call: tree.Call, slots: tuple[Slot, ...]) -> Mapping[str, Any]:
    bound = arguments(scope, call, slots)
    values = {slot.name: slot.default for slot in slots if slot.default is not None}
    failed = False
    for slot in slots:
        arg = bound.get(slot.name)
        if arg is None:
            continue
        failed = True
        with scope.catching():
            values[slot.name] = _slot(scope, call.name.text, slot, arg)
            failed = False
        if failed:
            raise Mistake(None)
    return values


def _slot(scope: Scope, owner: str, slot: Slot, arg: tree.Argument) -> Any:
    node = arg.value
    what = f"`{slot.name}` of `{owner}`"
    match slot.kind:
        case "int":
            help = "write the relation with `where`, which may use any of the names"
            return number(scope, node, what, slot.least, slot.most, help=help, below=slot.below)
        case "flag":
            value = resolve(scope, node)
            if not isinstance(value, Boolean) or not isinstance(value.expr, Truth):
                code = "not-constant" if isinstance(value, Boolean) else "type-mismatch"
                help = f"write `{slot.name}=true`, `{slot.name}=false` or a bool parameter"
                raise scope.error(code, f"{what} must be true or false when compiling", node.span, help=help)
            return value.expr.value
        case "set":
            value = resolve(scope, node, f"declare `input {scope.brief(tree.ungroup(node).span)}: bool[n]`")
            return members(scope, node, expect(scope, node, value, Positions), checked=True)
        case "offsets":
            numbers = expect(scope, node, resolve(scope, node), Positions)
            if not numbers.listed:
                raise scope.error(
                    "bad-argument",
                    f"{what} must be a list of integers or `powers(2)`",
                    node.span,
                    help="any other condition on `q - k` can be written with `where`",
                )
            return numbers.members
        case "axis":
            inner = tree.ungroup(node)
            named_axis = isinstance(inner, tree.Name)
            if arg.keyword is None and not (named_axis and (scope.axes or scope.faulty_grid)):
                slots = [slot.name for slot in atoms.RELATIONS[owner] if slot.kind != "axis"]
                raise scope.error(
                    "too-many-arguments",
                    f"`{owner}` takes {len(slots)} number{'s' * (len(slots) != 1)}, and this is one more",
                    node.span,
                    help=f"write `{owner}({', '.join(slots)})`; an axis of a grid is named, as in `axis=x`",
                )
            if not isinstance(inner, tree.Name):
                raise scope.error(
                    "unknown-axis",
                    f"{what} is the name of an axis of the grid",
                    node.span,
                    help="write `axis=x`, once the pattern says `grid(y: 32, x: 32)`",
                )
            row, column = (coordinate(scope, side, inner.name, node.span) for side in (Q, K))
            return row, column, atoms.axis_length(inner.name, scope.axes)
        case "input":
            entries = input_named(scope, node, f"`{owner}`")
            if entries.kind != "int" or len(entries.shape) != 1:
                raise scope.error(
                    "type-mismatch",
                    f"`{owner}` takes an int[n] input, and `{entries.name}` is {shape_text(entries)}",
                    node.span,
                    secondary=(Label(entries.span, "declared here"),),
                    help=f"declare `input {entries.name}: int[n]`, with a number for each document",
                )
            check_place(scope, entries, 0, POSITION, node.span)
            return entries
        case "relation":
            return relation(scope, node)


def _blocks(scope: Scope, call: tree.Call) -> Edges:
    size_slot, relation_slot = atoms.RELATIONS["blocks"]
    bound = arguments(scope, call, (size_slot, relation_slot))
    size = _slot(scope, "blocks", size_slot, bound["size"])
    value = constant(size)
    assert value is not None
    around = scope.blocks or ()
    if prod((*around, value)) >= LIMIT:
        raise scope.error(
            "huge-integer",
            f"these blocks of blocks hold {prod((*around, value))} tokens: it must be less than {LIMIT}",
            call.args[0].span if call.args else call.span,
            help="make one of the sizes smaller",
        )
    with scope.inside(None if scope.blocks is None else (*scope.blocks, value)):
        inner: Relation = _slot(scope, "blocks", relation_slot, bound["relation"])
    return Edges(lift(inner, size))


def _unnamed(scope: Scope, call: tree.Call) -> list[tree.Expression]:
    """The arguments of a function that has none with names."""
    for arg in call.args:
        if arg.keyword is not None:
            raise scope.error(
                "unknown-argument",
                f"`{call.name.text}` has no named arguments",
                arg.keyword.span,
                help="leave the name out",
            )
    return [arg.value for arg in call.args]


def _weighing_function(scope: Scope, call: tree.Call) -> Value:
    name = call.name.text
    if name == "bucket":
        slots = tuple(Slot(word, "int", least=1) for word in ("exact", "buckets", "most"))
        bound = arguments(scope, call, (Slot("distance", "int"), *slots))
        exact, buckets, most = (constant(_slot(scope, name, slot, bound[slot.name])) or 0 for slot in slots)
        return reals.bucket(scope, integer(scope, bound["distance"].value), (exact, buckets, most), call.span)
    nodes = _unnamed(scope, call)
    wanted = 3 if name == "select" else 1
    if len(nodes) != wanted:
        shown = "`select(condition, then, otherwise)`" if wanted == 3 else f"`{name}(…)`"
        code = "missing-argument" if len(nodes) < wanted else "too-many-arguments"
        takes = f"takes {wanted} argument{'s' * (wanted > 1)}"
        raise scope.error(code, f"`{name}` {takes}", call.span, help=f"write {shown}")
    if name != "select":
        return reals.call(scope, name, nodes, [resolve(scope, nodes[0])], call.span)
    condition = _condition(scope, nodes[0])
    return reals.choose(scope, condition, nodes[1:], [resolve(scope, node) for node in nodes[1:]])


def _condition(scope: Scope, node: tree.Expression) -> Expr | Greater:
    """What `select` chooses by: a condition on positions, or one comparison of floats."""
    inner = tree.ungroup(node)
    if isinstance(inner, tree.Chain) and inner.operators[0].text in ("<", ">", "<=", ">=", "==", "!="):
        values = _operands(scope, inner)
        if any(map(reals.is_real, values)):
            return reals.greater(scope, inner, values)
    return boolean(scope, node)


def _function(scope: Scope, call: tree.Call) -> Value:
    name = call.name.text
    nodes = _unnamed(scope, call)
    if name in ("abs", "count") and len(call.args) > 1:
        raise scope.error("too-many-arguments", f"`{name}` takes one argument", call.args[1].span)
    if not call.args:
        raise scope.error("missing-argument", f"`{name}` needs an argument", call.span)
    if name == "count":
        entries = input_named(scope, call.args[0].value, "`count`", "bool[n]")
        if scope.bound is None:
            raise scope.error(
                "misplaced-count",
                "`count` is known only while running, and stands only in the bound of a claim",
                call.span,
            )
        if entries.kind != "bool":
            raise scope.error(
                "type-mismatch",
                f"`count` takes a bool input, and `{entries.name}` is {shape_text(entries)}",
                call.args[0].span,
            )
        return Integer(Var(f"count({entries.name})"))
    values = [resolve(scope, node) for node in nodes]
    if scope.weighing is not None and any(map(reals.is_real, values)):
        return reals.call(scope, name, nodes, values, call.span)
    args = [expect(scope, node, value, Integer).expr for node, value in zip(nodes, values, strict=True)]
    match name:
        case "abs":
            value = absolute(args[0])
            scope.check_size(Integer(value), call.span)  # every nesting doubles it
            return Integer(checked(scope, value, call.span))
        case "min":
            return Integer(minimum(*args))
        case _:
            return Integer(maximum(*args))


# --- sets -----------------------------------------------------------------------------------------------


def _set(scope: Scope, call: tree.Call) -> Positions:
    name = call.name.text
    args = _bind(scope, call, atoms.SETS[name])
    if name == "powers" and constant(args["base"]) != 2:
        raise scope.error("bad-argument", "only powers of two are known", call.span, help="write `powers(2)`")
    if name == "every":
        step, offset = constant(args["step"]), constant(args["offset"])
        if step is not None and offset is not None and offset >= step:
            raise scope.error(
                "bad-argument",
                f"`offset` of `every` must be less than its step {step}, and is {offset}",
                call.span,
                help=f"write `every({step}, {offset % step})`, and `- first({offset})` to start later",
            )
    return Positions(atoms.MEANINGS[name](args), listed=name == "powers")


# Every number of a list becomes a comparison, wherever the list is used.
MOST_LISTED = 4096
_ENDS = "it is made of numbers and parameters; the last positions are `last(m)`"


def _listing(scope: Scope, listing: tree.Listing) -> Positions:
    if not listing.items:
        raise scope.error(
            "bad-argument", "an empty list names nothing", listing.span, help="for no edges, write `none`"
        )
    if len(listing.items) > MOST_LISTED:
        raise scope.error(
            "too-large",
            f"a list of {len(listing.items)} numbers: at most {MOST_LISTED}",
            listing.span,
            help="say it by a rule (`every(8)`, `where q % 3 == 0`), or pass the positions as an `input`",
        )
    numbers = [number(scope, item, "a number in a list", help=_ENDS) for item in listing.items]
    values = [value for value in map(constant, numbers) if value is not None]
    distinct = dict(zip(values, numbers, strict=True))
    return Positions(disj(*(eq(POSITION, expr) for expr in distinct.values())), True, min(values))


# --- operators ------------------------------------------------------------------------------------------


def _prefix(scope: Scope, prefix: tree.Prefix) -> Value:
    match prefix.operator.text:
        case "!":
            operand = resolve(scope, prefix.operand)
            if isinstance(operand, Positions):
                text = scope.brief(prefix.operand.span)
                raise scope.error(
                    "type-mismatch",
                    "`!` is for relations, and this is a set of positions",
                    prefix.span,
                    help=f"every position that is not in it: `every(1) - {text}`, or outside of the "
                    f"parentheses: `!to({text})`",
                )
            return Edges(Complement(expect(scope, prefix.operand, operand, Edges).relation, prefix.span))
        case "not":
            return Boolean(negate(boolean(scope, prefix.operand)))
    value = resolve(scope, prefix.operand)
    if isinstance(value, Edges):
        raise scope.error(
            "type-mismatch", "a relation has no negative", prefix.span, help="the complement is written `!`"
        )
    if scope.weighing is not None and reals.is_real(value):
        return Weighing(negative(reals.as_real(scope, prefix.operand, value)))
    return Integer(neg(expect(scope, prefix.operand, value, Integer).expr))


def _chain(scope: Scope, chain: tree.Chain) -> Value:
    operands = _operands(scope, chain)
    words = [operator.text for operator in chain.operators]
    match words[0]:
        case "or" | "and":
            conditions = [
                expect(scope, node, value, Boolean).expr
                for node, value in zip(chain.operands, operands, strict=True)
            ]
            return Boolean((disj if words[0] == "or" else conj)(*conditions))
        case "==" | "!=" | "<=" | ">=" | "<" | ">":
            if scope.weighing is not None and any(map(reals.is_real, operands)):
                raise scope.error(
                    "type-mismatch",
                    "floats are compared only as the condition of `select`, alone",
                    chain.span,
                    help="write `select(a > b, …, …)`",
                )
            return Boolean(compare(integers(scope, chain, operands), words))
        case "+" | "-" | "*" | "/" | "//" | "%" if scope.weighing is not None:
            if any(map(reals.is_real, operands)):
                return reals.compute(scope, chain, operands)
            reals.refuse_rounding(scope, chain, operands)
        case _:
            pass
    match words[0]:
        case "|":
            return Edges(Union(edges(scope, chain, operands), chain.span))
        case "&" if isinstance(operands[0], Positions):
            return Positions(conj(*sets(scope, chain, operands)))
        case "&":
            return Edges(Intersection(edges(scope, chain, operands), chain.span))
        case "+" | "-" if isinstance(operands[0], Positions):
            return combine(scope, chain, operands)
        case "+" | "-" if isinstance(operands[0], Edges):
            return subtract(scope, chain, operands)
        case "+" | "-":
            return Integer(add_up(scope, chain, integers(scope, chain, operands)))
        case _:
            return Integer(multiply_out(scope, chain, integers(scope, chain, operands)))


def _operands(scope: Scope, chain: tree.Chain) -> list[Value]:
    """Every operand's value; all their mistakes are reported before the chain gives up."""
    values: list[Value] = []
    for node in chain.operands:
        with scope.catching():
            values.append(resolve(scope, node))
    if len(values) < len(chain.operands):
        raise Mistake(None)
    return values


def _atom(scope: Scope, formula: Expr, span: Span) -> Atom:
    return Atom(formula, scope.text(span), span)

"""Draws what edges weigh, as text, for the relations that ``strategies.py`` draws: scores and sinks.

Values stay moderate, so that fp32 can tell them: functions that grow fast get bounded arguments, and where a
choice hangs on real numbers, its two sides meet, so that rounding cannot make it jump. Outside of the edges
everything goes: logarithms of negative distances, and divisions by zero.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests import strategies
from tests.strategies import Case, cases

Names = strategies._Names


def weighed_cases(most: int = 150, interpreted: bool = False) -> st.SearchStrategy[Case]:
    """As ``cases``, with weights in most bodies."""
    return cases(most, interpreted, body=body)


def body(names: Names, relation: str) -> str:
    if names.chance(15):
        return f"attend {relation}" + (f" sink {sink(names)}" if names.chance(50) else "")
    past = names.chance(25)
    attend = f"attend ({relation}) & causal" if past else f"attend {relation}"
    found = f"{attend} score {score(names, past)}"
    if names.chance(12):
        found += f" + {_hiding(names)}"
    return found + (f" sink {sink(names)}" if names.chance(30) else "")


def _hiding(names: Names) -> str:
    """An entry that hides edges: of tables called so, which ``oracle.inputs`` fills."""
    shape, place = names.one_of(("n, n", "q, k"), ("n", "k"), ("n", "q"), ("H, n", "h, k"), ("n", "q - k"))
    return f"{names.table(shape, 'hides')}[{place}]"


# --- scores ---------------------------------------------------------------------------------------------


def score(names: Names, past: bool = False) -> str:
    """past: no edge has its key after its query, and what is elsewhere may have no value."""
    found = _score(names)
    if past:
        more = names.one_of(
            "log(q - k + 1)",
            "0.25 * sqrt(q - k)",
            "1.0 / (q - k + 1)",
            "tanh(s) * log2(q - k + 1.5)",
            "entry / (q - k + 0.5)",
            "log(1 + exp(tanh(entry)) * (q - k))",
        )
        if "entry" in more:
            more = more.replace("entry", _entry(names))
        found += f" {names.one_of('+', '-')} {more}"
    return found


def _score(names: Names) -> str:
    match names.one_of("bias", "bias", "scaled", "cap", "cap and bias", "function", "without"):
        case "bias":
            return f"s {names.one_of('+', '-')} {_product(names, 2)}"
        case "scaled":
            return f"s * {_product(names, 1)} + {_real(names, 1)}"
        case "cap":
            return f"{_cap(names)} * tanh(s / {_cap(names)})"
        case "cap and bias":
            cap = _cap(names)
            return f"{cap} * tanh((s + {_real(names, 1)}) / {cap})"
        case "without":
            return _real(names, 2)
    return f"{_function(names, 's')} + {_real(names, 1)}"


def _cap(names: Names) -> str:
    return names.one_of("3.5", "20.0", "H + 1.5")


def _product(names: Names, depth: int) -> str:
    """Something to multiply by, or to add."""
    found = _real(names, depth)
    return f"({found})" if any(sign in found for sign in "+-/*") else found


def _real(names: Names, depth: int) -> str:
    if not depth or names.chance(25):
        return _leaf(names)
    match names.one_of("sum", "product", "quotient", "function", "function", "function", "choice", "minus"):
        case "sum":
            return f"{_real(names, depth - 1)} {names.one_of('+', '-')} {_product(names, depth - 1)}"
        case "product":
            return f"{_product(names, depth - 1)} * {_product(names, depth - 1)}"
        case "quotient":
            divisor = names.one_of("8.0", "3.0", f"(1.0 + abs({_leaf(names)}))")
            return f"{_product(names, depth - 1)} / {divisor}"
        case "choice":
            return _choice(names, depth)
        case "minus":
            return f"-({_real(names, depth - 1)})"
    return _function(names, _real(names, depth - 1))


def _function(names: Names, x: str) -> str:
    match names.one_of(
        "exp", "exp2", "log", "log2", "sqrt", "tanh", "sigmoid", "softplus", "relu", "elu", "sin", "cos",
        "abs", "min", "max",
    ):  # fmt: skip
        case "exp" | "exp2" as name:
            return f"{name}(min({x}, 1.5))"
        case "log" | "log2" as name:
            return f"{name}(abs({x}) + 0.5)"
        case "sqrt":
            return f"sqrt({x} * ({x}) + 0.25)" if len(x) < 20 else f"sqrt(abs({x}) + 0.25)"
        case "min" | "max" as name:
            more = f", {_leaf(names)}" if names.chance(30) else ""
            return f"{name}({x}, {_leaf(names)}{more})"
        case name:
            return f"{name}({x})"


def _choice(names: Names, depth: int) -> str:
    x = _product(names, depth - 1)
    match names.one_of("condition", "entries", "slope"):
        case "condition":
            return f"select({strategies._condition(names, 1)}, {x}, {_real(names, depth - 1)})"
        case "entries":
            sign = names.one_of("<", ">")
            return f"select({_entry(names)} {sign} {_entry(names)}, {x}, {_real(names, depth - 1)})"
    return f"select({x} > 0.25, {x}, 0.25 + ({x} - 0.25) * 0.5)"


def _leaf(names: Names) -> str:
    match names.one_of("entry", "entry", "entry", "entry", "s", "number", "distance", "integer", "head"):
        case "s":
            return names.one_of("s", "tanh(s)", "0.5 * s")
        case "number":
            return names.one_of("0.5", "1.25", "2.0", "-0.75")
        case "distance":
            return f"{names.one_of('0.125', '0.03')} * ({strategies._difference(names)})"
        case "integer":
            return f"min(max({strategies._integer(names, 1)}, -3), 4)"
        case "head":
            return names.one_of("exp2(-4.0 * (h + 1) / H)", "h / 4.0", "0.25 * (h % 3)")
    return _entry(names)


# --- entries --------------------------------------------------------------------------------------------


def _entry(names: Names) -> str:
    kinds = ["head", "token", "both", "turned", "distance", "distance", "by head", "bucket", "square", "pair"]
    kinds += ["grid"] * (4 if names.grid else 0) + ["number"] * (2 if names.numbers else 0)
    at = names.one_of("q", "k")
    match names.one_of(*kinds):
        case "head":
            return f"{names.table('H')}[h]"
        case "token":
            return f"{names.table('n')}[{at}]"
        case "both":
            return f"{names.table('H, n')}[h, {at}]"
        case "turned":
            return f"{names.table('n, H')}[{at}, h]"
        case "distance":
            size = names.one_of("7", "31")
            return f"{names.table(size)}[{_distance(names, int(size))}]"
        case "by head":
            return f"{names.table('H, 9')}[h, {_distance(names, 9)}]"
        case "bucket":
            place = names.one_of(
                "bucket(max(q - k, 0), 4, 8, 16)",
                "bucket(max(q - k, 0), 4, 8, 60)",
                "select(k > q, 4, 0) + bucket(abs(q - k), 2, 4, 9)",
            )
            return f"{names.table('H, 8')}[h, {place}]"
        case "square":
            place = names.one_of("q, k", "q, k", "k, q")
            if names.chance(50):
                return f"{names.table('H, n, n')}[h, {place}]"
            return f"{names.table('n, n')}[{place}]"
        case "grid":
            y, x = names.grid[-2:]
            apart = f"(q.{y} - k.{y} + 3) * 7 + q.{x} - k.{x} + 3"
            return f"{names.table('H, 49')}[h, {apart}]"
        case "number":
            number = names.one_of(*names.numbers)
            place = names.one_of(f"min(abs({number}[{at}]), 4)", f"abs({number}[q] - {number}[k]) % 5")
            return f"{names.table('5')}[{place}]"
    return (
        f"{names.table('7')}[{names.one_of('(q * 3 + k) % 7', 'min(q, k) // 4 % 7', 'abs(q - 2 * k) % 7')}]"
    )


def _distance(names: Names, size: int) -> str:
    """An index by distance; some leave the table, and are held within it."""
    return names.one_of(
        f"q - k + {size // 2}", f"min(max(q - k, 0), {size - 1})", f"abs(q - k) % {size}", "(q - k) // 2"
    )


# --- sinks ----------------------------------------------------------------------------------------------


def sink(names: Names) -> str:
    match names.one_of("entry", "entry", "function", "number", "head", "deep"):
        case "deep":
            return f"{names.table('H', 'deep')}[h]"
        case "entry":
            return f"{names.table('H')}[h]"
        case "function":
            return f"2.0 * tanh({names.table('H')}[h]) - {names.table('7')}[min(h, 6)]"
        case "head":
            return names.one_of("log(h + 1.5)", "-(h + 1) / 2.0")
    return names.one_of("1.5", "0.0", "-2.0")

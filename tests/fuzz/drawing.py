"""Draws patterns from the whole language, as text: what the numeric fuzzer compiles and runs.

A name says how a float input may
be filled: ``bias`` is only ever added to a score and may hold minus infinity, ``sink`` may hold either
infinity, ``gate`` holds logarithms of factors, ``beta`` steps of the delta rule, ``table`` moderate numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.drawing_relations import BLOCK, Draw, a_set, condition, distance, integer, past, relation

KINDS = ("relations", "weights", "linear")

# --- scores and sinks -----------------------------------------------------------------------------------


def score(d: Draw) -> str:
    match d.one(
        "bias", "bias", "bias", "scaled", "cap", "cap and bias", "function", "without", "slope", "min"
    ):
        case "bias":
            return f"s {d.one('+', '+', '-')} {wrapped(real(d, 2))}" + added(d)
        case "scaled":
            return f"s * {wrapped(real(d, 1))} + {real(d, 1)}" + added(d)
        case "cap":
            return f"{cap(d)} * tanh(s / {cap(d)})" + added(d)
        case "cap and bias":
            limit = cap(d)
            return f"{limit} * tanh((s + {real(d, 1)}) / {limit})" + added(d)
        case "without":
            return real(d, 2) + added(d)
        case "slope":
            return f"s - exp2(-8.0 * (h + 1) / H) * {d.one('(q - k)', 'abs(q - k)')}" + added(d)
        case "min":
            return f"{d.one('min', 'max')}(s, {real(d, 1)})" + added(d)
    return f"{function(d, 's')} + {real(d, 1)}" + added(d)


def added(d: Draw) -> str:
    """Entries that may be minus infinity or huge, at the end of a score."""
    if d.chance(55):
        return ""
    shape, place = d.rng.choice(
        [
            ("n", "[q]"), ("n", "[k]"), ("n", "[k]"), ("H", "[h]"), ("H, n", "[h, k]"), ("H, n", "[h, q]"),
            ("n, n", "[q, k]"), ("H, n, n", "[h, q, k]"), ("33", "[q - k]"), ("H, 65", "[h, q - k + 32]"),
        ]
    )  # fmt: skip
    return f" + {d.table(shape, 'bias')}{place}"


def wrapped(text: str) -> str:
    return f"({text})" if any(sign in text for sign in "+-/*") else text


def cap(d: Draw) -> str:
    return d.one("3.5", "20.0", "H + 1.5") if "cap" not in d.params else "cap"


def real(d: Draw, depth: int) -> str:
    if not depth or d.chance(25):
        return leaf(d)
    match d.one(
        "sum", "product", "quotient", "function", "function", "function", "choice", "choice", "minus"
    ):
        case "sum":
            return f"{real(d, depth - 1)} {d.one('+', '-')} {wrapped(real(d, depth - 1))}"
        case "product":
            return f"{wrapped(real(d, depth - 1))} * {wrapped(real(d, depth - 1))}"
        case "quotient":
            return f"{wrapped(real(d, depth - 1))} / {d.one('8.0', '3.0', f'(1.0 + abs({leaf(d)}))')}"
        case "choice":
            return choice(d, depth)
        case "minus":
            return f"-({real(d, depth - 1)})"
    return function(d, real(d, depth - 1))


def function(d: Draw, x: str) -> str:
    names = ("exp", "exp2", "log", "log2", "sqrt", "tanh", "sigmoid", "softplus", "relu", "elu", "sin", "cos")
    match d.one(*names, "abs", "min", "max"):
        case "exp" | "exp2" as name:
            return f"{name}(min({x}, 1.5))"
        case "log" | "log2" as name:
            return f"{name}(abs({x}) + 0.5)"
        case "sqrt":
            return f"sqrt(abs({x}) + 0.25)"
        case "min" | "max" as name:
            more = f", {leaf(d)}" if d.chance(30) else ""
            return f"{name}({x}, {leaf(d)}{more})"
        case name:
            return f"{name}({x})"


def choice(d: Draw, depth: int) -> str:
    x = wrapped(real(d, depth - 1))
    match d.one("condition", "condition", "entries", "slope", "log"):
        case "condition":
            return f"select({condition(d, 1)}, {x}, {real(d, depth - 1)})"
        case "entries":
            return f"select({entry(d)} {d.one('<', '>')} {entry(d)}, {x}, {real(d, depth - 1)})"
        case "log":  # the side that is not taken may have no value
            return f"select(q > k, log(q - k), {d.one('0.5', '-1.0')})"
    return f"select({x} > 0.25, {x}, 0.25 + ({x} - 0.25) * 0.5)"


def leaf(d: Draw) -> str:
    match d.one("entry", "entry", "entry", "entry", "s", "number", "distance", "integer", "head"):
        case "s":
            return d.one("s", "tanh(s)", "0.5 * s")
        case "number":
            return d.one("0.5", "1.25", "2.0", "-0.75")
        case "distance":
            return f"{d.one('0.125', '0.03')} * ({distance(d)})"
        case "integer":
            return f"min(max({integer(d, 1)}, -3), 4)"
        case "head":
            return d.one("exp2(-4.0 * (h + 1) / H)", "h / 4.0", "0.25 * (h % 3)")
    return entry(d)


def entry(d: Draw) -> str:
    kinds = [
        "head",
        "token",
        "both",
        "turned",
        "distance",
        "distance",
        "by head",
        "bucket",
        "square",
        "other",
    ]
    kinds += ["grid"] * (4 if len(d.grid) > 1 else 0) + ["number"] * (3 if d.numbers else 0)
    at = d.one("q", "k")
    match d.one(*kinds):
        case "head":
            return f"{d.table('H')}[h]"
        case "token":
            return f"{d.table('n')}[{at}]"
        case "both":
            return f"{d.table('H, n')}[h, {at}]"
        case "turned":
            return f"{d.table('n, H')}[{at}, h]"
        case "distance":
            size = d.one("7", "31", "64", "129")
            return f"{d.table(size)}[{place(d, int(size))}]"
        case "by head":
            return f"{d.table('H, 9')}[h, {place(d, 9)}]"
        case "bucket":
            found = d.one(
                "bucket(max(q - k, 0), 4, 8, 16)",
                "bucket(max(q - k, 0), 4, 8, 60)",
                "select(k > q, 4, 0) + bucket(abs(q - k), 2, 4, 9)",
            )
            return f"{d.table('H, 8')}[h, {found}]"
        case "square":
            turned = d.one("q, k", "q, k", "k, q")
            return f"{d.table('H, n, n')}[h, {turned}]" if d.chance(50) else f"{d.table('n, n')}[{turned}]"
        case "grid":
            y, x = d.grid[-2:]
            return f"{d.table('H, 49')}[h, (q.{y} - k.{y} + 3) * 7 + q.{x} - k.{x} + 3]"
        case "number":
            name = d.one(*d.numbers)
            return f"{d.table('5')}[{d.one(f'{name}[{at}]', f'abs({name}[q] - {name}[k]) % 5')}]"
    return f"{d.table('7')}[{d.one('(q * 3 + k) % 7', 'min(q, k) // 4 % 7', 'abs(q - 2 * k) % 7')}]"


def place(d: Draw, size: int) -> str:
    """An index by distance; some leave the table, and the entry beside its border is read."""
    kinds = (
        f"q - k + {size // 2}",
        f"min(max(q - k, 0), {size - 1})",
        f"abs(q - k) % {size}",
        "(q - k) // 2",
    )
    return d.one(*kinds)


def sink(d: Draw) -> str:
    match d.one("entry", "entry", "entry", "function", "number", "head"):
        case "entry":
            return f"{d.table('H', 'sink')}[h]"
        case "function":
            return f"2.0 * tanh({d.table('H')}[h]) - {d.table('7')}[min(h, 6)]"
        case "head":
            return d.one("log(h + 1.5)", "-(h + 1) / 2.0")
    return d.one("1.5", "0.0", "-2.0")


# --- linear attention -----------------------------------------------------------------------------------

POSITIVE = (
    "elu(x) + 1", "elu(x) + 1", "relu(x)", "relu(x)", "exp(min(x, 2.0))", "x * x", "sigmoid(x)",
    "softplus(x)",
    "relu(x) * relu(x)", "max(x, 0.0) + 0.1", "relu(x - 1.5)", "abs(x)", "select(x > 1.0, x, 0.0)",
)  # fmt: skip
SIGNED = ("x", "x", "x", "tanh(x)", "elu(x)", "x * tanh(x) + 0.5", "sin(x)", "relu(x) - 0.25")


def linear(d: Draw) -> str:
    """A body of linear attention."""
    match d.one("sum", "sum", "sum", "none", "none", "decay", "decay", "decay", "delta", "delta", "mixture"):
        case "sum":
            kernel = d.one(*POSITIVE, "taylor()", "favor(24, seed=3)", "cosine(400)", "cosine(150)")
            return f"attend {causal_or_any(d)} kernel {kernel}" + decay(d, 20, _of_channels(kernel))
        case "none":
            kernel = d.one(*POSITIVE, *SIGNED, "taylor()", "favor(10, seed=1)", "cosine(400)")
            return f"attend {causal_or_any(d)} kernel {kernel} normalize none" + decay(
                d, 20, _of_channels(kernel)
            )
        case "decay":
            signed = d.chance(70)
            kernel = f"{d.one(*SIGNED)} normalize none" if signed else d.one(*POSITIVE)
            return f"attend {causal_part(d)} kernel {kernel}" + decay(d, 100)
        case "delta":
            return f"attend {causal_part(d)} kernel {d.one('x', 'x', 'x', 'tanh(x)')}" + delta(d)
    near = d.size(0)
    exact = d.one("softmax", "softmax", f"score {score(d)}")
    kernel = d.one("elu(x) + 1", "relu(x)", "exp(min(x, 2.0))", "taylor()", "favor(24, seed=3)", "x * x")
    parts = [f"attend window({near}) with {exact}", f"attend causal - window({near}) with kernel {kernel}"]
    if d.chance(20):
        parts = [f"attend where k > q with {exact}", f"attend causal with kernel {kernel}"]
    d.rng.shuffle(parts)
    return " ".join(parts)


def _of_channels(kernel: str) -> bool:
    return kernel.split("(")[0] not in ("taylor", "favor", "cosine")


def causal_part(d: Draw) -> str:
    """Causal, maybe within documents or chunks."""
    found = ["causal"]
    if d.numbers and d.chance(70):
        found.append(f"same({d.one(*d.numbers)})")
    if d.chance(25):
        found.append(f"chunk({d.size(1)})")
    return " & ".join(found)


def causal_or_any(d: Draw) -> str:
    draw = d.rng.random()
    if draw < 0.5:
        return causal_part(d)
    if draw < 0.65:
        return d.one("all", f"chunk({d.size(1)})", *(f"same({name})" for name in d.numbers))
    return past(d) if draw < 0.85 else relation(d, 2)


def decay(d: Draw, percent: int, channels: bool = True) -> str:
    """channels: whether features are one for every channel, as gates and bonuses of channels have it."""
    if not d.chance(percent):
        return ""
    gate = d.one("head", "expression", "token", "token", "channel", "channel")
    if not channels and gate == "channel":
        gate = "token"
    match gate:
        case "head":
            found = d.table("H", "gate")
        case "expression":
            found = d.one(
                "log(1.0 - exp2(-2.0 - h))", "log(0.9)", "-0.3", "-1.0 / (h + 1)", "log(0.5 + 0.1 * h / H)"
            )
        case "token":
            found = d.table("n, H", "gate")
        case _:
            found = d.table("n, H, d", "gate")
    if not d.chance(35):
        return f" decay {found}"
    return f" decay {found} exclusive" + (
        f" bonus {d.table('H, d', 'bonus')}" if channels and d.chance(60) else ""
    )


def delta(d: Draw) -> str:
    found = f" update delta({d.table('n, H', 'beta')})"
    if not d.chance(50):
        return found
    gate = d.one("log(0.9)", d.table("n, H", "gate"), d.table("n, H, d", "gate"), d.table("H", "gate"))
    return f" decay {gate}{found}"


# --- patterns -------------------------------------------------------------------------------------------


def _relations_body(d: Draw) -> str:
    return f"attend {relation(d, d.number(0, 3)) if d.chance(75) else past(d)}"


def _weights_body(d: Draw) -> str:
    found = f"attend {relation(d, d.number(0, 2)) if d.chance(40) else past(d)}"
    if d.chance(85):
        found += f" score {score(d)}"
    return found + (f" sink {sink(d)}" if d.chance(35) else "")


def _linear_body(d: Draw) -> str:
    return linear(d) if d.chance(90) else _weights_body(d)


BODIES: dict[str, Callable[[Draw], str]] = {
    "relations": _relations_body,
    "weights": _weights_body,
    "linear": _linear_body,
}


def _declarations(d: Draw, kind: str) -> None:
    if d.chance(25):
        d.grid = ("y", "x") if d.chance(65) else ("z", "y", "x")
        d.declared.append(f"grid({', '.join(f'{axis}: {d.number(2, 17)}' for axis in d.grid)})")
    if d.chance(35):
        d.flags = ("hub", "pinned")[: d.number(1, 2)]
        d.declared += [f"input {name}: bool[n]" for name in d.flags]
    if d.chance(45):
        d.numbers = ("doc", "level")[: d.number(1, 2)]
        d.declared += [f"input {name}: int[n]" for name in d.numbers]
    for chance, name, declared, slot in (
        (10, "broad", "bool[H]", "head_flag"),
        (10, "span", "int[H]", "head_number"),
        (10, "hot", f"bool[(n + {BLOCK - 1}) / {BLOCK}]", "block_flag"),
        (10, "topic", f"int[(n + {BLOCK - 1}) / {BLOCK}]", "block_number"),
        (8, "steps", "bool[20]", "near_flag"),
    ):
        if d.chance(chance):
            setattr(d, slot, name)
            d.declared.append(f"input {name}: {declared}")
    for name, declared in (
        ("reach", f"int = {d.number(1, 70)}"),
        ("wide", f"bool = {d.one('true', 'false')}"),
    ):
        if d.chance(15):
            d.params[name] = declared
    if kind == "weights" and d.chance(20):
        d.params["cap"] = "float = 7.5"
    if d.chance(30):
        for number, (what, draw) in enumerate(
            (("set", a_set), ("condition", condition), ("number", integer), ("relation", relation))
        ):
            if d.chance(40):
                d.lets.append(f"let name{number} = {draw(d, 1)}")
                d.named.setdefault(what, []).append(f"name{number}")


def _bodies(d: Draw, kind: str) -> list[str]:
    body = BODIES[kind]
    if d.chance(70):
        return [body(d)]
    choices = [("even", "odd"), ("even", "rest"), ("0..H // 2", "rest"), ("0..1", "rest"), ("{0}", "rest")]
    if d.heads > 2:
        choices += [("0..1", "{1, 2}", "rest"), ("{0, 2}", "rest"), ("H - 1..H", "0..H - 1")]
    return [f"heads {selector} {{ {body(d)} }}" for selector in d.rng.choice(choices)]


def pattern(rng: random.Random, kind: str, heads: int) -> str:
    """The text of a pattern of that kind, to be called with so many heads."""
    d = Draw(rng, heads)
    _declarations(d, kind)
    bodies = _bodies(d, kind)
    tables = [f"input {name}: float[{shape}]" for name, shape in d.tables.items()]
    params = ", ".join(f"{name}: {declared}" for name, declared in d.params.items())
    lines = [*d.declared, *tables, *d.lets, *bodies]
    return f"pattern p({params}) {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"

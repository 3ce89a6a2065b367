"""Draws patterns from the whole language, as text: what the numeric fuzzer compiles and runs.

Sizes lie on either side of those of vectors and tiles, not only below them. A name says how a float input may
be filled: ``bias`` is only ever added to a score and may hold minus infinity, ``sink`` may hold either
infinity, ``gate`` holds logarithms of factors, ``beta`` steps of the delta rule, ``table`` moderate numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

KINDS = ("relations", "weights", "linear")
BLOCK = 8  # of inputs that have an entry for every block
NEAR_TILES = (15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 96, 97, 127, 128, 129)


@dataclass
class Draw:
    """A pattern being drawn: its source of randomness, and what it has declared."""

    rng: random.Random
    heads: int
    declared: list[str] = field(default_factory=list)
    lets: list[str] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    grid: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    head_flag: str = ""
    head_number: str = ""
    block_flag: str = ""
    block_number: str = ""
    near_flag: str = ""
    named: dict[str, list[str]] = field(default_factory=dict)  # lets by what they stand for
    block: bool = False

    def one(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def number(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def chance(self, percent: int) -> bool:
        return self.rng.random() * 100 < percent

    def size(self, least: int = 1) -> str:
        """A length: small, about that of a tile, or a parameter."""
        if "reach" in self.params and self.chance(15):
            return "reach"
        draw = self.rng.random()
        if draw < 0.5:
            return str(self.number(least, 12))
        if draw < 0.8:
            return str(self.number(13, 140))
        return str(self.rng.choice(NEAR_TILES))

    def let(self, kind: str) -> str:
        """A let of that kind, or nothing; positions in it are those of tokens."""
        known = self.named.get(kind, [])
        return self.one(*known) if known and not self.block and self.chance(15) else ""

    def table(self, shape: str, role: str = "table") -> str:
        """A float input of that shape and role: one that is there, or a new one."""
        known = [name for name, own in self.tables.items() if own == shape and name.startswith(role)]
        if known and self.chance(50):
            return self.one(*known)
        name = f"{role}{len(self.tables)}"
        self.tables[name] = shape
        return name


# --- sets -----------------------------------------------------------------------------------------------


def a_set(d: Draw, depth: int = 1) -> str:
    if found := d.let("set"):
        return found
    if depth and d.chance(35):
        return f"({a_set(d, depth - 1)} {d.one('+', '-', '&')} {a_set(d, depth - 1)})"
    kinds = ["first", "last", "every", "every", "list", "powers"]
    flags = ((d.block_flag,) if d.block_flag else ()) if d.block else d.flags
    kinds += ["flag"] * (4 if flags else 0)
    match d.one(*kinds):
        case "first" | "last" as name:
            return f"{name}({d.size(0)})"
        case "every":
            step = d.number(1, 9) if d.chance(60) else d.number(10, 70)
            return f"every({step}, {d.number(0, step - 1)})" if d.chance(60) else f"every({step})"
        case "list":
            return "{" + ", ".join(str(d.number(0, 200)) for _ in range(d.number(1, 4))) + "}"
        case "powers":
            return "powers(2)"
    return d.one(*flags)


# --- numbers and conditions -----------------------------------------------------------------------------


def integer(d: Draw, depth: int = 2) -> str:
    if found := d.let("number"):
        return found
    if depth and d.chance(60):
        a, b = integer(d, depth - 1), integer(d, depth - 1)
        match d.one("+", "-", "-", "*", "//", "%", "abs", "min", "max"):
            case "+" | "-" as sign:
                return f"({a} {sign} {b})"
            case "*":
                return f"({d.number(-3, 5)} * {a})" if d.chance(90) else f"({a} * {b})"
            case "//" | "%" as sign:
                divisor = d.number(1, 9) if d.chance(70) else d.number(10, 70)
                return f"({a} {sign} {divisor if d.chance(92) else -divisor})"
            case "abs":
                return f"abs({a})"
            case name:
                return f"{name}({a}, {b})"
    kinds = ["q", "k", "q", "k", "constant", "n", "h"]
    kinds += ["coordinate"] * (3 if d.grid else 0)
    numbers = ((d.block_number,) if d.block_number else ()) if d.block else d.numbers
    kinds += ["input"] * (3 if numbers else 0) + ["head input"] * (2 if d.head_number else 0)
    match d.one(*kinds):
        case "constant":
            return d.size(0)
        case "h":
            return d.one("h", "h", "H")
        case "coordinate":
            return f"{d.one('q', 'k')}.{d.one(*d.grid)}"
        case "input":
            return f"{d.one(*numbers)}[{d.one('q', 'k')}]"
        case "head input":
            return f"{d.head_number}[h]"
        case name:
            return name


def distance(d: Draw) -> str:
    axis = d.one(*(f".{name}" for name in d.grid)) if d.grid and d.chance(60) else ""
    return f"q{axis} - k{axis}" if d.chance(70) else f"abs(q{axis} - k{axis})"


def condition(d: Draw, depth: int = 2) -> str:
    if found := d.let("condition"):
        return found
    if depth and d.chance(40):
        a, b = condition(d, depth - 1), condition(d, depth - 1)
        return f"not ({a})" if d.chance(20) else f"({a} {d.one('and', 'or')} {b})"
    kinds = [
        "distance",
        "distance",
        "comparison",
        "comparison",
        "chain",
        "chain",
        "remainder",
        "clamped",
        "bound",
    ]
    flags = ((d.block_flag,) if d.block_flag else ()) if d.block else d.flags
    kinds += ["flag"] * (2 if flags else 0) + ["head flag"] * (2 if d.head_flag else 0)
    kinds += ["near flag"] * (2 if d.near_flag and not d.block else 0)
    kinds += ["param"] if "wide" in d.params else []
    compare = d.one("<", "<=", ">", ">=", "==", "!=")
    match d.one(*kinds):
        case "distance":
            return f"{distance(d)} {compare} {d.size(0)}"
        case "chain":
            low = d.number(-5, 3) if d.chance(50) else d.number(1, 70)
            return f"{low} {d.one('<', '<=')} {distance(d)} {d.one('<', '<=')} {low + d.number(0, 90)}"
        case "remainder":
            step = d.number(2, 9)
            return f"{integer(d, 1)} % {step} {d.one('==', '==', '<', '>')} {d.number(0, step - 1)}"
        case "clamped":
            near = d.number(1, 9) if d.chance(60) else d.number(10, 50)
            start = f"min(max(q - {near}, 0), n - {2 * near + 1})"
            if d.chance(30):
                start = f"max(min(q - {near}, n - {2 * near + 1}), 0)"
            return f"0 <= k - {start} <= {2 * near}"
        case "bound":
            return f"{d.one('q', 'k', 'k')} {d.one('<', '>=', '>=')} {d.size(0)}"
        case "flag":
            return f"{d.one(*flags)}[{d.one('q', 'k')}]"
        case "head flag":
            return f"{d.head_flag}[h]"
        case "near flag":
            return f"(0 <= q - k and q - k < 20 and {d.near_flag}[q - k])"
        case "param":
            return "wide"
    return f"{integer(d)} {compare} {integer(d)}"


# --- relations ------------------------------------------------------------------------------------------


def relation(d: Draw, depth: int = 3) -> str:
    if depth and d.chance(65):
        if d.chance(10):
            return f"!({relation(d, depth - 1)})"
        sign = d.one("|", "|", "|", "&", "&", "-")
        return f"({relation(d, depth - 1)} {sign} {relation(d, depth - 1)})"
    return atom(d, depth)


def atom(d: Draw, depth: int = 1) -> str:
    if found := d.let("relation"):
        return found
    kinds = ["word", "causal", "causal", "window", "window", "window", "chunk", "stride", "to", "to", "from"]
    kinds += ["offsets", "random", "where", "where", "where", "where"]
    numbers = ((d.block_number,) if d.block_number else ()) if d.block else d.numbers
    kinds += ["same"] * (4 if numbers else 0) + ["blocks"] * (2 if depth and not d.block else 0)
    axis = f", axis={d.one(*d.grid)}" if d.grid and d.chance(65) else ""
    match d.one(*kinds):
        case "word":
            return d.one("all", "all", "none", "self")
        case "causal":
            return "causal"
        case "window":
            right = f", {d.size(0)}" if d.chance(45) else ""
            dilation = f", dilation={d.number(1, 9)}" if d.chance(30) else ""
            return f"window({d.size(0)}{right}{dilation}{axis})"
        case "chunk" | "stride" as name:
            return f"{name}({d.size(1)}{axis})"
        case "to" | "from" as name:
            return f"{name}({a_set(d)})"
        case "offsets":
            members = ", ".join(str(d.number(-40, 140)) for _ in range(d.number(1, 4)))
            return "offsets(powers(2))" if d.chance(40) else f"offsets({{{members}}})"
        case "random":
            past = f", past={d.one('true', 'false')}" if d.chance(60) else ""
            return f"random({d.number(1, 5)}, seed={d.number(0, 99)}{past})"
        case "same":
            return f"same({d.one(*numbers)})"
        case "blocks":
            size = BLOCK if d.block_flag or d.block_number else int(d.one("1", "3", "8", "16", "20", "32"))
            d.block = True
            inner = relation(d, depth - 1)
            d.block = False
            return f"blocks({size}, {inner})"
    return f"(where {condition(d)})"


def past(d: Draw) -> str:
    """A relation as published ones are: causal, with a little beside it."""
    near = d.size(0)
    step = d.number(2, 40)
    plain = ["causal", f"window({near})", f"window({near}) | to(first({d.number(1, 70)})) & causal"]
    plain += [f"chunk({step}) & causal", f"stride({step}) & causal", f"causal - window({near})"]
    plain += [f"window({near}) | to(every({step}, {step - 1})) & causal", f"where {d.number(1, 40)} <= q - k"]
    plain += [f"causal & to(every(1) - first({d.number(1, 140)}))", f"causal & where k >= {d.number(1, 140)}"]
    plain += [f"causal - to(first({d.number(1, 140)}))", f"window({near}, {d.size(0)})", "all"]
    plain += [f"window({near}, dilation={d.number(1, 9)})", f"causal & random({d.number(1, 5)}, seed=3)"]
    plain += [f"all - to(last({near}))", f"from(last({near}))", f"where k < n - {near} and q >= {step}"]
    if d.numbers:
        name = d.one(*d.numbers)
        plain += [f"causal & same({name})", f"same({name})", f"window({near}) & same({name})"] * 2
    if d.flags:
        plain += [f"causal | to({d.one(*d.flags)}) | from({d.one(*d.flags)})"] * 2
    return d.one(*plain)


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

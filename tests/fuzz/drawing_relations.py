"""Draws relations as text: sets, numbers, conditions and atoms, of whatever a pattern has declared.

Sizes lie on either side of those of vectors and tiles, not only below them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

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
    kinds += ["offsets", "random", "where", "where", "where", "where", "neighborhood"]
    kinds += ["neighborhoods"] * (3 if d.grid and not d.block else 0)
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
        case "neighborhood":
            dilation = f", dilation={d.number(1, 9)}" if d.chance(50) else ""
            return f"neighborhood({d.size(1)}{dilation}{axis})"
        case "neighborhoods":
            return f"({' & '.join(_along(d, name) for name in d.grid)})"
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


def _along(d: Draw, axis: str) -> str:
    """The dilated neighborhood along one of several axes, of which some are causal."""
    size, dilation = d.number(1, 7), d.number(1, 5)
    if d.chance(15):
        return f"window({size - 1}, dilation={dilation}, axis={axis})"
    return f"neighborhood({size}, dilation={dilation}, axis={axis})"


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

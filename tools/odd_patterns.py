"""Pattern files that nobody would write: random ones, and known ones with mistakes put in.

Four kinds, each a function of a random generator: texts that the grammar derives, whatever they mean;
patterns that mean something and repeat one thing many times; files with single tokens changed; and files with
single characters changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from attnc import names
from attnc.parser import lexemes, productions, terminals

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEEPEST = 14  # of a derivation; below that the shortest way out is taken

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
HUGE = ("2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "9" * 40)
WORDS = (
    *names.ITEMS,
    *names.WEIGHTS,
    *names.VARIABLES,
    *names.RELATIONS,
    *names.SETS,
    *names.FUNCTIONS,
    *names.REAL_FUNCTIONS,
    *names.WEIGHING_FUNCTIONS,
    *names.MAPS,
    *names.SELECTORS,
    *names.CLAIMS,
    *names.KINDS,
    "delta",
    "axis",
    "dilation",
    "pattern",
    "where",
    "with",
    "softmax",
    "and",
    "or",
    "not",
    "s",
    "x",
    "y",
    "d",
    "flag",
    "number",
    "table",
    "width",
)
MARKS = ("(", ")", "{", "}", "[", "]", ",", ":", ".", "..", *"+-*/%|&!<>=", "==", "!=", "<=", ">=", "//")
ODD = ("\0", "\x01", "\x1b[31m", "\ufeff", "\u202e", "é", "\U0001f600", "\u0661", "\r", "\f", "\t", "#", "\\")


# --- numbers and words ----------------------------------------------------------------------------------


def number(rng: random.Random) -> str:
    """A number: mostly small, sometimes at the limits of 32 and 64 bits, sometimes beyond all."""
    return rng.choice(HUGE) if rng.randrange(20) == 0 else fitting(rng)


def fitting(rng: random.Random) -> str:
    """A number that the language takes."""
    match rng.randrange(200):
        case 0:
            return rng.choice(HUGE)
        case 1 | 2 | 3 | 4:
            return "2147483647"
        case other if other < 20:
            return str(2 ** rng.randrange(1, 31) + rng.randrange(-1, 2))
        case other if other < 30:
            return str(10 ** rng.randrange(2, 10))
        case other if other < 80:
            return str(rng.choice(PRIMES))
    return str(rng.randrange(1, 20))


# --- what the grammar derives ---------------------------------------------------------------------------


@cache
def _rules() -> dict[str, list[tuple[tuple[str, bool], ...]]]:
    found: dict[str, list[tuple[tuple[str, bool], ...]]] = {}
    for made, of in productions():
        found.setdefault(made, []).append(of)
    return found


@cache
def _depths() -> dict[str, int]:
    """How many steps every symbol is away from nothing but terminals, at the least."""
    depths: dict[str, int] = {}
    for _ in range(len(_rules())):
        for made, options in _rules().items():
            known = [
                1 + max((0 if term else depths.get(name, 10**6) for name, term in option), default=0)
                for option in options
            ]
            depths[made] = min(known)
    return depths


def derived(rng: random.Random) -> str:
    """A text that follows the grammar; hardly ever does it mean anything."""
    words: list[str] = []
    fixed = terminals()

    def expand(symbol: str, depth: int) -> None:
        options = _rules()[symbol]
        if depth > DEEPEST or len(words) > 300:

            def steps(option: Sequence[tuple[str, bool]]) -> int:
                return max((0 if term else _depths()[name] for name, term in option), default=0)

            options = [option for option in options if steps(option) == min(map(steps, options))]
        for name, term in rng.choice(options):
            if not term:
                expand(name, depth + 1)
            elif fixed.get(name) is not None:
                words.append(str(fixed[name]))
            else:
                words.append(
                    rng.choice(WORDS) if name == "NAME" else number(rng) + ".5" * (name == "DECIMAL")
                )

    words += ["pattern", "p", "(", ")", "{"]
    for _ in range(rng.randrange(1, 5)):
        expand("item", 0)
    words.append("}")
    return " ".join(words)


# --- what means something -------------------------------------------------------------------------------


def _times(rng: random.Random) -> int:
    """How often something is repeated: mostly a few times."""
    return rng.choice((1, 2, 2, 3, 4, 6, 9, 14, 20, 40))


def _joined(rng: random.Random, part: Callable[[], str], signs: Sequence[str], times: int) -> str:
    """The part many times with one operator, or with any."""
    sign = rng.choice(signs)
    mixed = rng.random() < 0.3
    text = part()
    for _ in range(times - 1):
        text += f" {rng.choice(signs) if mixed else sign} {part()}"
    return text


class _Body:
    """Draws relations, conditions and numbers over a few inputs, lets and coordinates."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.grid = rng.random() < 0.2
        self.lets = 0
        self.inputs = True  # what has an entry for every token is not read between blocks

    def position(self) -> str:
        places = ("q", "k") if not self.grid or self.rng.random() < 0.5 else ("q.x", "k.x", "q.y", "k.y")
        return self.rng.choice(places)

    def integer(self, depth: int = 2) -> str:
        rng = self.rng
        if depth and rng.random() < 0.6:
            a, b = self.integer(depth - 1), self.integer(depth - 1)
            match rng.randrange(9):
                case 0:
                    return f"{rng.choice(('min', 'max'))}({a}, {b})"
                case 1:
                    return f"abs({a})"
                case 2:
                    return f"({a} * {b})"
                case 3 | 4:
                    return f"({a}) {rng.choice(('//', '%', '%'))} {fitting(rng)}"
            return f"({a} {rng.choice('+-')} {b})"
        kinds = ("q", "k", "q - k", "k - q", "n", "h", "H", self.position(), fitting(rng), fitting(rng))
        read = f"number[{rng.choice('qk')}]" if self.inputs else "q"
        return rng.choice((*kinds, read))

    def condition(self, depth: int = 2) -> str:
        rng = self.rng
        if depth and rng.random() < 0.4:
            if rng.random() < 0.2:
                return f"not ({self.condition(depth - 1)})"
            part = _joined(rng, lambda: self.condition(depth - 1), ("and", "or"), min(_times(rng), 6))
            return f"({part})"
        if self.inputs and rng.random() < 0.15:
            return f"flag[{rng.choice('qk')}]"
        compare = rng.choice(("==", "!=", "<", "<=", ">", ">="))
        if rng.random() < 0.3:
            return f"(q - k) % {fitting(rng)} {compare} {rng.randrange(3)}"
        return f"{self.integer()} {compare} {self.integer(1)}"

    def positions(self) -> str:
        rng = self.rng
        listed = ", ".join(fitting(rng) for _ in range(_times(rng)))
        kinds = (
            f"first({fitting(rng)})",
            f"last({fitting(rng)})",
            f"every({fitting(rng)})",
            "flag" if self.inputs else "first(1)",
            "powers(2)",
        )
        part = rng.choice((*kinds, f"{{{listed}}}"))
        return part if rng.random() < 0.7 else f"{part} {rng.choice('+-&')} {self.positions()}"

    def atom(self, depth: int) -> str:
        rng = self.rng
        axis = f", axis={rng.choice('xy')}" if self.grid and rng.random() < 0.5 else ""
        listed = ", ".join(fitting(rng) for _ in range(_times(rng)))
        kinds = [
            rng.choice(("all", "none", "self", "causal", "causal")),
            f"window({fitting(rng)}{axis})",
            f"window({fitting(rng)}, {fitting(rng)}, dilation={fitting(rng)}{axis})",
            f"chunk({fitting(rng)}{axis})",
            f"stride({fitting(rng)}{axis})",
            f"to({self.positions()})",
            f"from({self.positions()})",
            f"offsets({{{listed}}})",
            "offsets(powers(2))",
            f"random({rng.randrange(1, 9)}, seed={fitting(rng)}, past={rng.choice(('true', 'false'))})",
            "same(number)" if self.inputs else "causal",
            f"(where {self.condition()})",
            f"(where {self.condition()})",
            f"(where (q - k) % {fitting(rng)} == 0)",
        ]
        if depth:
            before, self.inputs = self.inputs, False
            kinds.append(f"blocks({fitting(rng)}, {self.relation(depth - 1)})")
            self.inputs = before
        if self.lets and self.inputs:
            kinds += [f"a{rng.randrange(self.lets)}"] * 3
        return rng.choice(kinds)

    def relation(self, depth: int = 2) -> str:
        rng = self.rng
        if rng.random() < 0.05:
            return "blocks(64, " * (times := _times(rng)) + self.atom(0) + ")" * times
        if not depth or rng.random() < 0.3:
            return self.atom(depth)
        if rng.random() < 0.1:
            return f"!({self.relation(depth - 1)})"
        if rng.random() < 0.3:  # the same kind of thing again and again
            shape = self.atom(0)
            digits = [part for part in PRIMES if str(part) in shape]
            old = str(digits[-1]) if digits else ""
            return _joined(
                rng, lambda: shape.replace(old, fitting(rng)) if old else shape, ("|", "&", "-"), _times(rng)
            )
        return f"({_joined(rng, lambda: self.relation(depth - 1), ('|', '|', '&', '-'), _times(rng))})"

    def weight(self, depth: int = 3) -> str:
        rng = self.rng
        if depth and rng.random() < 0.7:
            a, b = self.weight(depth - 1), self.weight(depth - 1)
            match rng.randrange(7):
                case 0 | 1:
                    return f"{rng.choice(names.REAL_FUNCTIONS)}({a})"
                case 2:
                    return f"select({self.condition(1)}, {a}, {b})"
                case 3:
                    return f"{rng.choice(('min', 'max'))}({a}, {b})"
            return f"({a} {rng.choice('+-*/')} {b})"
        exact = int(fitting(rng))
        buckets = f"{exact}, {exact + int(fitting(rng))}, {exact + int(fitting(rng))}"
        kinds = ("s", "s", "0.5", "1e-3", "1e30", "table[h]", f"1.0 * ({self.integer(1)})")
        return rng.choice((*kinds, f"bucket({self.integer(1)}, {buckets})"))


def meant(rng: random.Random) -> str:
    """A pattern of the language, many of them right, many of them too much."""
    body = _Body(rng)
    lines = ["input flag: bool[n]", "input number: int[n]", "input table: float[H]"]
    if body.grid:
        lines.append(f"grid(y: {fitting(rng)}, x: {fitting(rng)})")
    if rng.random() < 0.3:
        lines.append(f"let a0 = {body.relation(1)}")
        body.lets = 1
        for _ in range(_times(rng)):  # each made of the one before, more than once
            last = f"a{body.lets - 1}"
            lines.append(f"let a{body.lets} = ({last} & {body.atom(0)}) | ({body.atom(0)} - {last})")
            body.lets += 1
    if rng.random() < 0.1:
        lines.append(f"heads {rng.choice(('even', '0..2', '{0}', f'0..{fitting(rng)}'))} {{ attend causal }}")
        lines.append(f"heads rest {{ attend {body.relation()} }}")
    else:
        lines.append(f"attend {body.relation()}")
    match rng.randrange(6):
        case 0:
            lines.append(f"score {body.weight()}")
        case 1:
            lines.append(f"let b0 = {body.weight()}")
            times = _times(rng)
            for i in range(times):
                lines.append(f"let b{i + 1} = b{i} * {body.weight(0)} + b{i}")
            lines.append(f"score b{times}")
        case 2:
            lines.append(
                f"kernel {rng.choice(('elu(x) + 1', 'relu(x)', f'favor({fitting(rng)}, 1)', 'taylor()'))}"
            )
    if rng.random() < 0.4:
        bound = body.integer(1)
        claims = (
            "causal",
            "nonempty",
            f"edges <= {bound}",
            f"flops <= d * {bound}",
            f"reach <= {fitting(rng)}",
        )
        lines.append(f"{rng.choice(('require', 'assume'))} {rng.choice(claims)}")
    return "pattern p() {\n" + "\n".join(lines) + "\n}\n"


# --- with mistakes --------------------------------------------------------------------------------------


@cache
def _known() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.attn")))


def _some(rng: random.Random) -> str:
    return rng.choice(_known()) if rng.random() < 0.6 else meant(rng)


def retold(rng: random.Random) -> str:
    """A file with a few of its words left out, doubled, exchanged or replaced."""
    words = [str(token) for token in lexemes(_some(rng))]
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(words) or 1)
        new = rng.choice((rng.choice(WORDS), number(rng), rng.choice(MARKS)))
        match rng.randrange(6):
            case 0:
                del words[at : at + 1]
            case 1:
                words[at:at] = words[at : at + rng.randrange(1, 12)]
            case 2:
                words[at:at] = [f" {new} "]
            case 3:
                other = rng.randrange(len(words) or 1)
                words[at : at + 1], words[other : other + 1] = words[other : other + 1], words[at : at + 1]
            case _:
                numbers = [i for i, word in enumerate(words) if word.isdigit()]
                if numbers and rng.random() < 0.6:
                    at, new = rng.choice(numbers), number(rng)
                words[at : at + 1] = [new]
    return "".join(words)


def garbled(rng: random.Random) -> bytes:
    """A file with some of its characters changed, or much put in: brackets, digits, long lines, no text."""
    text = _some(rng)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        times = rng.choice((1, 1, 3, 100, 199, 1000, 50_000))
        match rng.randrange(8):
            case 0:
                text = text[:at] + text[at + rng.randrange(1, 9) :]
            case 1:
                text = text[:at] + text[at:][:20] * min(times, 1000) + text[at:]
            case 2:
                text = text[:at]
            case 3:
                text = (
                    text[:at]
                    + rng.choice(("(", "{", "[", "!", "-", "not ", "q + ", "all | ")) * times
                    + text[at:]
                )
            case 4:
                text = text[:at] + rng.choice("0123456789") * times + text[at:]
            case 5:
                text = text.replace(rng.choice((" ", "\n", "(", "q", "k", "{")), rng.choice(ODD))
            case 6:
                text = text[:at] + rng.choice(ODD) * times + text[at:]
            case 7:
                text = text[:at] + rng.choice((*WORDS, *MARKS)) + text[at:]
    data = text.encode("utf-8")
    if rng.random() < 0.1:
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
    return data


KINDS: tuple[Callable[[random.Random], str | bytes], ...] = (
    derived,
    meant,
    meant,
    meant,
    retold,
    retold,
    garbled,
)


def odd_file(seed: str) -> tuple[str, bytes]:
    """The file of a seed, and the name of its kind."""
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    made = kind(rng)
    return kind.__name__, made if isinstance(made, bytes) else made.encode("utf-8")

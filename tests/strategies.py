"""Draws patterns from the whole relation language, as text, and calls to run them with.

A pattern is drawn together with the number of heads that it is called with, because ``heads`` clauses must
cover them. All sizes are small: a relation is as rich at 40 tokens as it is at a million.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

# Query heads and key heads.
GROUPINGS = ((1, 1), (2, 1), (4, 2), (6, 3), (3, 3))
DIMS = (8, 16, 20, 32, 40, 64)
LAYOUTS = ("contiguous", "heads inside", "slice", "expanded")
BLOCK = 8  # of inputs that have an entry for every block


@dataclass(frozen=True)
class Call:
    """Shapes, dtype, memory layout and seed of one call."""

    n: int
    n_q: int
    batch: int
    heads: int
    key_heads: int
    dim: int
    value_dim: int
    dtype: str
    layout: str
    scale: float | None
    batched_inputs: bool
    seed: int


@dataclass(frozen=True)
class Case:
    """small_tiles: run with small tiles. weighed_small: planned as if they were small, and passes cheap."""

    text: str
    call: Call
    small_tiles: bool = False
    weighed_small: bool = False


@dataclass
class _Names:
    """What a pattern being drawn has declared, and what it may name at the present place."""

    draw: st.DrawFn
    heads: int
    grid: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # bool[n]
    numbers: tuple[str, ...] = ()  # int[n]
    lets: tuple[str, ...] = ()  # conditions
    hubs: tuple[str, ...] = ()  # sets
    params: dict[str, int] = field(default_factory=dict)
    head_flag: str | None = None  # bool[H]
    head_number: str | None = None  # int[H]
    block_flag: str | None = None  # bool[blocks]
    block_number: str | None = None  # int[blocks]
    block: int = 0  # 0 outside of `blocks`
    step: int = 0  # what all residues are of, or of a multiple; 0: a pattern of any kind
    tables: dict[str, str] = field(default_factory=dict)  # float inputs, with what they are declared as

    def one_of(self, *choices: str) -> str:
        return self.draw(st.sampled_from(choices))

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) < percent

    def table(self, shape: str, kind: str = "table") -> str:
        """A float input of that shape: one of that kind that is there, or a new one."""
        known = [
            name for name, declared in self.tables.items() if declared == shape and name.startswith(kind)
        ]
        if known and (self.chance(50) or len(self.tables) > 4):
            return self.one_of(*known)
        name = f"{kind}{len(self.tables)}"
        self.tables[name] = shape
        return name

    def size(self, least: int = 1) -> str:
        """A constant: small, near a power of two, or a parameter."""
        named = [name for name, value in self.params.items() if value >= least]
        if named and self.chance(25):
            return self.one_of(*named)
        most = 12 if self.chance(75) else 40
        return str(self.number(least, most))


# --- sets -----------------------------------------------------------------------------------------------


def _set(names: _Names, depth: int) -> str:
    if depth and names.chance(35):
        left, right = _set(names, depth - 1), _set(names, depth - 1)
        return f"({left} {names.one_of('+', '-', '&')} {right})"
    kinds = ["first", "last", "every", "every", "list", "powers"]
    flags = names.flags if not names.block else ((names.block_flag,) if names.block_flag else ())
    kinds += ["flag"] * (3 if flags else 0) + ["hub"] * (2 if names.hubs and not names.block else 0)
    match names.one_of(*kinds):
        case "first":
            return f"first({names.size(0)})"
        case "last":
            return f"last({names.size(0)})"
        case "every":
            step = names.number(1, 9) if names.chance(80) else names.number(10, 40)
            offset = names.number(0, step - 1)
            return f"every({step}, {offset})" if offset else f"every({step})"
        case "list":
            members = names.draw(st.lists(st.integers(0, 90), min_size=1, max_size=4))
            return "{" + ", ".join(map(str, members)) + "}"
        case "powers":
            return "powers(2)"
        case "hub":
            return names.one_of(*names.hubs)
    return names.one_of(*flags)


# --- conditions -----------------------------------------------------------------------------------------


def _integer(names: _Names, depth: int) -> str:
    if depth and names.chance(65):
        a, b = _integer(names, depth - 1), _integer(names, depth - 1)
        match names.one_of("+", "-", "*", "//", "%", "abs", "min", "max"):
            case "+" | "-" as sign:
                return f"({a} {sign} {b})"
            case "*":
                return f"{names.number(-3, 5)} * {a}" if names.chance(90) else f"{a} * {b}"
            case "//":
                return f"{a} // {names.number(1, 9)}"
            case "%":
                return f"{a} % {names.number(1, 9)}"
            case "abs":
                return f"abs({a})"
            case other:
                return f"{other}({a}, {b})"
    kinds = ["q", "k", "q", "k", "constant", "n", "h"]
    kinds += ["coordinate"] * (3 if names.grid and not names.block else 0)
    kinds += ["input"] * (2 if names.numbers and not names.block else 0)
    kinds += ["block input"] * (2 if names.block_number and names.block else 0)
    kinds += ["head input"] * (2 if names.head_number else 0)
    match names.one_of(*kinds):
        case "constant":
            return names.size(0)
        case "h":
            return names.one_of("h", "H")
        case "coordinate":
            return f"{names.one_of('q', 'k')}.{names.one_of(*names.grid)}"
        case "input":
            return f"{names.one_of(*names.numbers)}[{names.one_of('q', 'k')}]"
        case "block input":
            return f"{names.block_number}[{names.one_of('q', 'k')}]"
        case "head input":
            return f"{names.head_number}[h]"
        case name:
            return name


def _difference(names: _Names) -> str:
    """What most conditions in earnest are about: the distance between query and key."""
    axes = [f".{axis}" for axis in names.grid] if names.grid and not names.block else [""]
    axis = names.one_of(*axes)
    return f"q{axis} - k{axis}" if names.chance(70) else f"abs(q{axis} - k{axis})"


def _condition(names: _Names, depth: int) -> str:
    if depth and names.chance(45):
        a, b = _condition(names, depth - 1), _condition(names, depth - 1)
        match names.one_of("and", "or", "not"):
            case "not":
                return f"not ({a})"
            case word:
                return f"({a} {word} {b})"
    kinds = ["distance", "distance", "comparison", "comparison", "chain", "remainder"]
    kinds += ["flag"] * (2 if names.flags and not names.block else 0)
    kinds += ["block flag"] * (2 if names.block_flag and names.block else 0)
    kinds += ["head flag"] * (2 if names.head_flag else 0)
    kinds += ["let"] * (2 if names.lets and not names.block else 0)
    compare = names.one_of("<", "<=", ">", ">=", "==", "!=")
    match names.one_of(*kinds):
        case "distance":
            return f"{_difference(names)} {compare} {names.size(0)}"
        case "chain":
            return f"{names.number(-5, 3)} <= {_difference(names)} < {names.size(1)}"
        case "remainder":
            step = names.number(2, 9)
            return f"({_integer(names, 1)}) % {step} == {names.number(0, step - 1)}"
        case "flag":
            return f"{names.one_of(*names.flags)}[{names.one_of('q', 'k')}]"
        case "block flag":
            return f"{names.block_flag}[{names.one_of('q', 'k')}]"
        case "head flag":
            return f"{names.head_flag}[h]"
        case "let":
            return names.one_of(*names.lets)
    return f"{_integer(names, 2)} {compare} {_integer(names, 2)}"


# --- relations ------------------------------------------------------------------------------------------


def _relation(names: _Names, depth: int) -> str:
    if depth and names.chance(70):
        if names.chance(12):
            return f"!({_relation(names, depth - 1)})"
        sign = names.one_of("|", "|", "|", "&", "&", "-")
        return f"({_relation(names, depth - 1)} {sign} {_relation(names, depth - 1)})"
    return _atom(names, depth)


def _atom(names: _Names, depth: int) -> str:
    kinds = ["constant", "causal", "window", "window", "window", "chunk", "stride", "to", "to", "from"]
    kinds += ["neighborhood"]
    kinds += ["offsets", "random", "where", "where", "where"]
    numbers = names.numbers if not names.block else ((names.block_number,) if names.block_number else ())
    kinds += ["same"] * (3 if numbers else 0)
    kinds += ["blocks"] * (2 if depth and not names.block else 0)
    axis = (
        f", axis={names.one_of(*names.grid)}" if names.grid and not names.block and names.chance(70) else ""
    )
    match names.one_of(*kinds):
        case "constant":
            return names.one_of("all", "none", "self", "causal")
        case "causal":
            return "causal"
        case "window":
            right = f", {names.size(0)}" if names.chance(45) else ""
            dilation = f", dilation={names.number(1, 7)}" if names.chance(30) else ""
            return f"window({names.size(0)}{right}{dilation}{axis})"
        case "chunk":
            return f"chunk({names.size(1)}{axis})"
        case "stride":
            return f"stride({names.size(1)}{axis})"
        case "neighborhood":
            dilation = f", dilation={names.number(1, 4)}" if names.chance(30) else ""
            return f"neighborhood({names.size(1)}{dilation}{axis})"
        case "to":
            return f"to({_set(names, 1)})"
        case "from":
            return f"from({_set(names, 1)})"
        case "offsets":
            if names.chance(40):
                return "offsets(powers(2))"
            members = names.draw(st.lists(st.integers(-20, 40), min_size=1, max_size=4))
            return "offsets({" + ", ".join(map(str, members)) + "})"
        case "random":
            past = f", past={names.one_of('true', 'false')}" if names.chance(60) else ""
            return f"random({names.number(1, 4)}, seed={names.number(0, 99)}{past})"
        case "same":
            return f"same({names.one_of(*numbers)})"
        case "blocks":
            size = BLOCK if names.block_flag or names.block_number else names.number(1, 20)
            names.block = size
            inner = _relation(names, depth - 1)
            names.block = 0
            return f"blocks({size}, {inner})"
    return f"(where {_condition(names, 2)})"


def _limited(names: _Names, relation: str) -> str:
    """A relation, now and then without the keys or queries beyond a bound that fits no tile."""
    if not names.chance(20):
        return relation
    relation = "causal" if names.chance(40) else relation
    bound, step = names.number(1, 70), names.number(2, 70)
    limit = names.one_of(
        f"& where k >= {bound}",
        f"- to(first({bound}))",
        f"& to(every(1) - first({bound}))",
        f"& where k < n - {bound}",
        f"& where k % {step} >= {bound % step}",
        f"& from(every(1) - first({bound}))",
    )
    return f"(({relation}) {limit})"


# --- what is told in digits -----------------------------------------------------------------------------


def _regular(names: _Names) -> str:
    """A union of what is plain in residues and coordinates: strides, dilated windows, grids."""
    part = _on_grid if names.grid else _in_residues
    parts = [part(names) for _ in range(names.draw(st.sampled_from((1, 1, 2, 2, 3))))]
    found = " | ".join(f"({item})" for item in parts)
    if names.flags and names.chance(60):
        found = f"({found}) {names.one_of('|', '&', '-')} {names.one_of('to', 'from')}({names.flags[0]})"
    if names.numbers and names.chance(60):
        found = f"({found}) & same({names.numbers[0]})"
    return f"({found}) & causal" if names.chance(30) else found


def _in_residues(names: _Names) -> str:
    step = names.step * names.draw(st.sampled_from((1, 1, 1, 2)))
    left, right, place = names.number(0, 5), names.number(0, 5), names.number(0, step - 1)
    match names.one_of(
        *("stride", "shifted", "dilated", "dilated", "tail", "chunk", "every", "window", "both", "clamped")
    ):
        case "stride":
            return f"stride({step})"
        case "shifted":
            near = f" and abs(q - k) <= {names.number(0, 40)}" if names.chance(40) else ""
            return f"where (q - k) % {step} == {place}{near}"
        case "dilated":
            return f"window({left}, {right}, dilation={step})"
        case "clamped":
            return f"neighborhood({left + right + 1}, dilation={step})"
        case "tail":
            own = f" and q % {step} <= {names.number(0, step - 1)}" if names.chance(25) else ""
            return f"where k % {step} >= {place}{own}"
        case "chunk":
            return f"where (q + {place}) // {step} == (k + {place}) // {step}"
        case "every":
            return f"{names.one_of('to', 'from')}(every({step}, {place}))"
        case "both":
            return f"where q % {step} == k % {step} or abs(q - k) <= {left}"
    return f"window({3 * left}, {2 * right})"


def _on_grid(names: _Names) -> str:
    if names.chance(15):
        y, x = names.grid[-2:]
        return (
            f"where (q.{y} - k.{y}) * (q.{y} - k.{y}) + (q.{x} - k.{x}) * (q.{x} - k.{x})"
            f" <= {names.number(0, 20)}"
        )
    if names.chance(20):  # dilated along all axes, as in images and videos of few residues each
        return " & ".join(
            f"neighborhood({names.number(1, 4)}, dilation={names.number(1, 4)}, axis={axis})"
            if names.chance(85)
            else f"window({names.number(0, 3)}, dilation={names.number(1, 4)}, axis={axis})"
            for axis in names.grid
        )
    parts = [_along(names, axis) for axis in names.grid if names.chance(80)]
    return " & ".join(parts) or f"window({names.number(0, 12)})"


def _along(names: _Names, axis: str) -> str:
    size, left, right = names.number(1, 5), names.number(0, 3), names.number(0, 3)
    match names.one_of(
        *("window", "window", "window", "chunk", "chunk", "stride", "dilated", "shifted", "late"),
        *("clamped", "clamped", "clamped by residues"),
    ):
        case "window":
            return f"window({left}, {right}, axis={axis})"
        case "chunk":
            return f"chunk({size}, axis={axis})"
        case "stride":
            return f"stride({size}, axis={axis})"
        case "dilated":
            return f"window({left}, {right}, dilation={size}, axis={axis})"
        case "clamped":
            return f"neighborhood({left + right + 1}, axis={axis})"
        case "clamped by residues":
            return f"neighborhood({left + 1}, dilation={names.number(2, 3)}, axis={axis})"
        case "shifted":
            shift = names.number(0, size)
            return f"(where (q.{axis} + {shift}) // {size} == (k.{axis} + {shift}) // {size})"
    return f"(where k.{axis} >= q.{axis} // 2)"


# --- patterns -------------------------------------------------------------------------------------------

# The items of a body whose relation was drawn: that it attends to it, and maybe what its edges weigh.
Body = Callable[[_Names, str], str]


def _attend(names: _Names, relation: str) -> str:
    return f"attend {relation}"


def _declarations(names: _Names) -> list[str]:
    lines: list[str] = []
    if names.chance(50 if names.step else 25):
        names.grid = ("y", "x") if names.chance(60) else ("z", "y", "x")
        sizes = ", ".join(f"{axis}: {names.number(2, 12)}" for axis in names.grid)
        lines.append(f"grid({sizes})")
    few = 12 if names.step else 0
    if names.chance(few or 35):
        names.flags = ("hub", "pinned")[: names.number(1, 2)]
        lines += [f"input {name}: bool[n]" for name in names.flags]
    if names.chance(few or 30):
        names.numbers = ("document", "level")[: names.number(1, 2)]
        lines += [f"input {name}: int[n]" for name in names.numbers]
    if names.step:
        return lines
    if names.chance(12):
        names.head_flag = "wide"
        lines.append("input wide: bool[H]")
    if names.chance(12):
        names.head_number = "span"
        lines.append("input span: int[H]")
    if names.chance(12):
        names.block_flag = "hot"
        lines.append(f"input hot: bool[(n + {BLOCK - 1}) / {BLOCK}]")
    if names.chance(12):
        names.block_number = "topic"
        lines.append(f"input topic: int[(n + {BLOCK - 1}) / {BLOCK}]")
    if names.chance(15):
        lines.append(f"let hubs = {_set(names, 1)}")
        names.hubs = ("hubs",)
    if names.chance(15):
        lines.append(f"let near = {_condition(names, 1)}")
        names.lets = ("near",)
    return lines


def _bodies(names: _Names, depth: int, body: Body) -> list[str]:
    if names.step:
        return [body(names, _limited(names, _regular(names)))]
    if names.chance(70):
        return [body(names, _limited(names, _relation(names, depth)))]
    choices = [("even", "odd"), ("even", "rest"), ("0..H // 2", "rest"), ("0..1", "rest"), ("{0}", "rest")]
    if names.heads > 2:
        choices += [("0..1", "{1, 2}", "rest"), ("{0, 2}", "rest"), ("H - 1..H", "0..H - 1")]
    selectors = names.draw(st.sampled_from(choices))
    relations = [_relation(names, max(depth - 1, 0)) for _ in selectors]
    return [
        f"heads {selector} {{ {body(names, relation)} }}"
        for selector, relation in zip(selectors, relations, strict=True)
    ]


def _pattern(draw: st.DrawFn, heads: int, depth: int, regular: bool, body: Body) -> str:
    names = _Names(draw, heads)
    if regular:
        names.step = names.number(2, 9) if names.chance(80) else names.number(10, 33)
    for name in ("reach", "step"):
        if names.chance(20):
            names.params[name] = names.number(1, 20)
    params = ", ".join(f"{name}: int = {value}" for name, value in names.params.items())
    declarations, bodies = _declarations(names), _bodies(names, depth, body)
    tables = [f"input {name}: float[{shape}]" for name, shape in names.tables.items()]
    lines = [*declarations, *tables, *bodies]
    return f"pattern drawn({params}) {{\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


# --- calls ----------------------------------------------------------------------------------------------


def _lengths(most: int) -> st.SearchStrategy[int]:
    """Ragged ends above all: nothing, one, and what lies beside a multiple of a tile."""
    edges = [x for t in (16, 32, 64, 96, 128) for x in (t - 1, t, t + 1) if x <= most]
    return st.one_of(
        st.integers(0, 12), st.sampled_from([0, 1, *edges]), st.integers(13, most), st.integers(13, most)
    )


@st.composite
def cases(
    draw: st.DrawFn,
    most: int = 150,
    interpreted: bool = False,
    regular: bool | None = None,
    body: Body = _attend,
) -> Case:
    """A pattern and a call of it. ``interpreted``: few programs and small tiles, for Triton's interpreter.

    regular: whether it is one that is plain in digits, and planned for small tiles; None: sometimes.
    body: what is made of a relation that was drawn.
    """
    groupings = GROUPINGS[:2] if interpreted else GROUPINGS
    heads, key_heads = draw(st.sampled_from(groupings))
    if regular is None:
        regular = draw(st.integers(0, 3)) == 0
    text = _pattern(draw, heads, draw(st.integers(0, 3)), regular, body)
    n = draw(_lengths(most))
    dims = st.sampled_from(DIMS[:4] if interpreted else DIMS)
    dim = draw(dims)
    call = Call(
        n=n,
        n_q=n if draw(st.booleans()) else draw(st.integers(0, n)),
        batch=1 if interpreted and n > 40 else draw(st.integers(1, 2)),
        heads=heads,
        key_heads=key_heads,
        dim=dim,
        value_dim=draw(dims) if draw(st.booleans()) else dim,
        dtype=draw(st.sampled_from(("float32", "float32", "bfloat16", "float16"))),
        layout=draw(st.sampled_from(LAYOUTS)),
        scale=draw(st.sampled_from((None, None, None, None, 0.5, -0.25, 0.0))),
        batched_inputs=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31 - 1)),
    )
    return Case(text, call, interpreted and (regular or draw(st.booleans())), regular)

"""A schedule as the text of a Python module that imports torch and Triton and nothing of ours."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from math import prod
from textwrap import dedent
from typing import TYPE_CHECKING

from attnc.codegen.definition import DefinitionWriter
from attnc.codegen.kernels import FeatureWriter, KernelWriter
from attnc.codegen.kinds import KINDS
from attnc.codegen.needs import Names, identifier, tables_of
from attnc.codegen.pairs import PairWriter
from attnc.codegen.printer import Printer
from attnc.codegen.states import (
    carries,
    derived,
    features_used,
    has_states,
    joined_text,
    kernels_text,
    states_function,
    states_text,
    swept,
)
from attnc.codegen.tile_tables import tables_text
from attnc.codegen.torch_sweeps import SweepWriter
from attnc.codegen.weights import BodyWeights, WeightsWriter
from attnc.digits import PLAIN
from attnc.evaluation import exact_up_to
from attnc.expression import (
    TRUE,
    constant,
    fold,
)
from attnc.notation import show
from attnc.pattern import Pattern, formula
from attnc.schedule import BodyPlan, Pass, Schedule

if TYPE_CHECKING:
    from attnc.cost import Cost
    from attnc.proofs import ClaimResult


@dataclass(frozen=True)
class Facts:
    """What a module's head tells: where it came from and what is known about the pattern.

    digest: sha256 of the source text. cost: how many edges it has, unless nobody asked.
    """

    source: str
    digest: str
    params: tuple[tuple[str, int | float | bool], ...]
    claims: tuple[ClaimResult, ...]
    cost: Cost | None


def emit(pattern: Pattern, schedule: Schedule, facts: Facts) -> str:
    """The module's text. Of the source only checked names, numbers and one-line comments get there."""
    if has_states(schedule):
        sections = _states_module(pattern, schedule, facts)
    else:
        sections = list(_sweeps_module(pattern, schedule, facts).values())
    return _with_head(pattern, schedule, facts, sections)


def _sweeps_module(
    pattern: Pattern, schedule: Schedule, facts: Facts, have: frozenset[str] = frozenset()
) -> dict[str, str]:
    """The sections of a module whose bodies are swept, by what they are."""
    names = Names()
    weights = [
        BodyWeights(plan.body, _suffix(i, len(schedule.bodies))) for i, plan in enumerate(schedule.bodies)
    ]
    weighing = _weighing(pattern, weights)
    sinks = any(item.weights.sink is not None for item in weights)
    weighed = bool(weighing) or any(not item.plain for item in weights)
    writers = [
        _body_writers(pattern, plan, names, i, len(schedule.bodies), weighed)
        for i, plan in enumerate(schedule.bodies)
    ]
    torch_text, bodies = _torch_sweeps(schedule, names)
    kernels, query_passes, key_passes = _kernels(writers)
    relations = [fold(formula(plan.body.relation)) for plan in schedule.bodies]
    definition = DefinitionWriter(names)
    mask = definition.mask(pattern)
    every = [writer for query, key in writers for writer in (*query, *key)]
    have |= {need.kind for writer in every for need in writer.needs}
    longest = _longest(schedule)
    have |= {"weights"} if weighed else {"plain"}
    have |= {"bounded"} if longest is not None else set()
    have |= {"sinks"} if sinks else set()
    have |= {"features"} if any(item.weights.feature is not None for item in weights) else set()
    pairs = [
        PairWriter(item, names, pattern.inputs, _suffix(i, len(weights))) for i, item in enumerate(weights)
    ]
    pair_kernels = "\n\n".join(text for writer in pairs if (text := writer.kernels()))
    if pair_kernels:
        have |= {"pairs", *(need.kind for writer in pairs for need in writer.needs)}
        pair_kernels += f"\n\n_PAIR_KERNELS = ({', '.join(writer.told() for writer in pairs)},)\n"
    if any(writer.long for writer in every):
        have |= {"shares"}
    if any(sweep.scatter for plan in schedule.bodies for part in plan.query for sweep in part.sweeps):
        have |= {"alone"}
    found = tables_of(schedule.bodies, relations)
    text_of = WeightsWriter(names)
    tables = definition.tables(pattern, found, sinks, text_of.by_distance(weights))
    undivided = any(not item.weights.normalized for item in weights)
    weights_text = (
        _part("weights", "bodies") if weighed else "",
        text_of.bodies(weights) if weighed else "",
        text_of.sinks([plan.body for plan in schedule.bodies]) if sinks else "",
        _part("weights", "sums", "totals", have=have) if weighed else "",
        _part("weights", "unnormalized") if undivided else "",
        _part("weights", "sinks") if sinks else "",
    )
    torch_parts = [_part(name, have=have) for name in ("positions", "pieces", "batches", "torch_path")]
    torch_parts += [_part("weights", "torch")] if weighed else []
    return {
        "constants": _constants(pattern, weighing if weighed else None, longest),
        "function": _function(pattern, facts, sinks, undivided),
        "meaning": _section("What the pattern means", mask, _head_sets(schedule)),
        "tables": _section(
            "Tables",
            tables,
            _table_parts("".join((kernels, pair_kernels, torch_text, mask, tables, *weights_text)), have),
        ),
        **({"weights": _section("What edges weigh", *weights_text)} if weighed else {}),
        "interface": _section("Arguments, backends, operators", _part("interface", have=have)),
        "torch": _section("The torch path", torch_text + f"_BODIES = {bodies}", *torch_parts),
        "triton": _section(
            "The Triton path",
            _powers(_part("tiles", have=have), weighed),
            _powers(_part("shares", "kernels", have=have), weighed) if "shares" in have else "",
            *(FeatureWriter(item, names).text() for item in weights),
            kernels,
            query_passes,
            key_passes,
            pair_kernels,
            _part("weights", "launch") if weighed else "",
            _part("weights", "pairs") if pair_kernels else "",
            _part("launch", "sizes"),
            tables_text(),
            _part("shares", "launch", have=have) if "shares" in have else "",
            _part("launch", "launch", have=have),
        ),
        "operators": _section(
            "Registered with PyTorch",
            _part("vmap", have=have | {"sweeps"}),
            _part("interface", "plain call", "operators", have=have),
        ),
        "self-check": _part("self_check", have=have | {"dense"} | ({"undivided"} if undivided else set())),
    }


def _states_module(pattern: Pattern, schedule: Schedule, facts: Facts) -> list[str]:
    """The sections of a module with bodies that are computed through states, all of them or in part."""
    rest = swept(schedule)
    text = states_text(pattern, schedule)
    carried, have = carries(schedule), features_used(schedule)
    longest = _longest(schedule)
    arguments = frozenset({"weights", "bounded"} if longest is not None else {"weights"})
    made = {len(pattern.inputs) + i: f"{role}_{body}" for i, (body, role) in enumerate(derived(schedule))}
    flags = f"# Whether a call can go on with the state that another left.\n_CARRIES = {carried}\n"
    sweeps: dict[str, str] = {}
    kinds = frozenset({"unweighed"})
    if rest is not None:
        sweeps = _sweeps_module(pattern, rest, facts, frozenset({"states"}))
        weights = [BodyWeights(plan.body, _suffix(i, len(rest.bodies))) for i, plan in enumerate(rest.bodies)]
        swept_places = _weighing(pattern, weights)
        weighed = "weights" in sweeps
        kinds = frozenset({"sweeps", "weighed" if weighed else "unweighed"})
        if weighed:
            flags += f"# Those that weigh edges which are swept.\n_SWEPT = {swept_places}\n"
            made = swept_places | made
        sweeps = {name: re.sub(r"\bWEIGHING\b", "_SWEPT", part) for name, part in sweeps.items()}
    own = _own_parts(pattern, schedule)
    tables = sweeps.get("tables", own["tables"])
    titles = ("arithmetic", "read", "members", "equal", *["draws"] * ("_picks" in tables + own["mask"]))
    for part in map(partial(_part, "tables"), titles):
        name = re.search(r"^def (_\w+)", part, re.M)
        if name and f"def {name[1]}(" not in tables:
            tables += f"\n\n{part}"
    state = _part("states_interface", "state") if carried else ""
    gates = (_part("states_interface", "gates"), text.gates) if text.gates else ()
    maps = [_part("features", kind) for kind in text.kinds if kind != "elementwise"]
    subjects = "_features", "", "_outputs", "_gradients", "_values", "_gates"
    parts = tuple(f"states{what}_triton" for what in subjects)
    kernels = [kernels_text("\n\n".join(map(_part, parts)), *item) for item in text.triton]
    launch = _part("states_launch") if "linear" in have else ""
    return [
        _constants(pattern, made, longest) + flags,
        states_function(pattern, schedule),
        _section("What the pattern means", own["mask"], _head_sets(schedule)),
        tables,
        sweeps.get("weights", ""),
        sweeps.get("interface", _section("Arguments, backends", _part("interface", have=arguments))),
        _section("States and gates", state, *gates, *maps, _part("states", "common"), text.maps),
        joined_text(sweeps.get("torch", _section("The torch path"))),
        *(_part("states_torch"), _gated_torch(have)),
        joined_text(sweeps.get("triton", own["triton"])),
        *(*kernels, launch, *_gated_triton(have), text.table),
        _section(
            "Registered with PyTorch",
            _part("vmap", have=frozenset({"weights", "states"})),
            _part("interface", "plain call"),
            _part("states_interface", "operators", have=kinds),
        ),
        _part("self_check", have=frozenset({"weights", "states"})),
    ]


def _own_parts(pattern: Pattern, schedule: Schedule) -> dict[str, str]:
    """What a module without sweeps has in their place."""
    relations = [fold(formula(body.relation)) for body in pattern.bodies]
    definition = DefinitionWriter(Names())
    mask = definition.mask(pattern)
    tables = definition.tables(pattern, tables_of(schedule.bodies, relations))
    tiles = _part("tiles", have=frozenset({"states"}))
    triton = _section("The Triton path", tiles, _part("weights", "launch"), _part("launch", "launch"))
    return {"mask": mask, "tables": _section("Tables", tables), "triton": triton}


def _gated_torch(have: frozenset[str]) -> str:
    """The torch path of gates for each channel and of the delta rule."""
    return _part("gates") + "\n\n" + _part("gates_bodies", "torch") if "gated" in have else ""


def _gated_triton(have: frozenset[str]) -> list[str]:
    """The Triton path of gates for each channel and of the delta rule."""
    if "gated" not in have:
        return []
    return [
        _part("gates_triton"),
        _part("gates_chunks_triton"),
        _part("gates_pairs_triton", "token") if "tokens" in have and "delta" in have else "",
        _part("gates_channels_triton") if "channels" in have else "",
        _part("delta_triton") if "delta" in have else "",
        _part("gates_launch", have=have),
        _part("gates_bodies", "triton"),
    ]


def _with_head(pattern: Pattern, schedule: Schedule, facts: Facts, sections: list[str]) -> str:
    text = _in_use("\n\n".join(section.strip("\n") + "\n" for section in sections))
    digest = hashlib.sha256(text.encode()).hexdigest()
    head = _head(pattern, schedule, facts)
    if has_states(schedule):
        head = head.replace("import sys\n", "import sys\nfrom typing import NamedTuple\n", 1)
    return head + text.replace('DIGEST = ""', f'DIGEST = "{digest}"', 1)


# --- head -----------------------------------------------------------------------------------------------


def _head(pattern: Pattern, schedule: Schedule, facts: Facts) -> str:
    lines = [f"{pattern.name}: attention, generated by attnc from {_safe(facts.source)}.", ""]
    rows = [("source", f"sha256 {facts.digest}")]
    rows += [("parameter", f"{name} = {value}") for name, value in facts.params]
    rows += [("claim", f"{_safe(result.claim.text)}: {_verdict(result)}") for result in facts.claims]
    if facts.cost is not None:
        rows += [("" if place else "edges", _safe(line)) for place, line in enumerate(facts.cost.lines())]
        rows.append(("growth", facts.cost.growth))
    rows.append(("plan", "proven" if not schedule.reports else "conservative"))
    rows += [("", _safe(report)) for report in schedule.reports]
    lines += [f"{title:<10} {text}" for title, text in rows]
    lines += [
        "",
        "Standalone: it needs torch, and Triton on a GPU. Run it, and it checks itself.",
    ]
    return f'"""{chr(10).join(lines)}\n"""\n\n' + dedent(
        """\
        from __future__ import annotations

        import contextlib
        import math
        import os
        import sys

        import torch

        try:
            import triton
            import triton.language as tl
        except ImportError:  # the torch path needs no Triton
            triton = None


        """
    )


def _verdict(result: ClaimResult) -> str:
    verdict = result.finding.verdict
    if not result.claim.assumed:
        return verdict
    return "assumed, and proven" if verdict == "proven" else "assumed, not proven"


def _safe(text: str) -> str:
    """Text that can stand in a docstring or comment: one line, printable ASCII, no quotes and no escapes."""
    flat = " ".join(text.split())
    return "".join(c if " " <= c <= "~" and c not in '\\"' else "?" for c in flat)


def _weighing(pattern: Pattern, found: Sequence[BodyWeights]) -> dict[int, str]:
    """Which inputs get a gradient, by their number; behind all of them stand sinks, where there are any."""
    tables = {item.entry.table for weights in found for item in weights.entries}
    weighing = {i: identifier(item.name) for i, item in enumerate(pattern.inputs) if item.name in tables}
    if any(weights.weights.sink is not None for weights in found):
        weighing[len(pattern.inputs)] = "sinks"
    return weighing


def _longest(schedule: Schedule) -> int | None:
    """The greatest number of keys for which a module's integers are exact; None if any number will do."""
    exprs = [fold(formula((plan.whole or plan.body).relation)) for plan in schedule.bodies]
    for plan in schedule.bodies:
        for part in (*plan.query, *plan.key):
            for sweep in part.sweeps:
                exprs += [
                    sweep.when,
                    *sweep.low,
                    *sweep.high,
                    sweep.full_when,
                    sweep.full_low,
                    sweep.full_high,
                ]
                exprs += [sweep.mask, sweep.worth, sweep.selection]
                exprs += [sweep.scatter.condition] if sweep.scatter is not None else []
    return exact_up_to(exprs)


def _constants(pattern: Pattern, weighing: Mapping[int, str] | None, longest: int | None) -> str:
    entries = []
    for item in pattern.inputs:
        sizes = [Printer("host", {"n": "n", "H": "heads", "d": "dim"})(fold(size)) for size in item.shape]
        shape = f"({', '.join(sizes)},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
        entries.append(f'    "{item.name}": ("{item.kind}", lambda n, heads, dim: {shape}),\n')
    inputs = "{\n" + "".join(entries) + "}" if entries else "{}"
    comment = "# Inputs besides q, k and v: their kind, and their shape but for an optional batch axis.\n"
    text = f'NAME = "{pattern.name}"\nDIGEST = ""\n{comment}INPUTS = {inputs}\n'
    if longest is not None:
        text += f"# With more keys, numbers of the relation would be beyond 64 bits.\nLONGEST = {longest}\n"
    if weighing is not None:
        listed = ", ".join(f'{place}: "{name}"' for place, name in weighing.items())
        text += f"# Those that weigh edges, by number, and so get gradients.\nWEIGHING = {{{listed}}}\n"
    return text


def _function(pattern: Pattern, facts: Facts, sinks: bool, undivided: bool) -> str:
    inputs = [item.name for item in pattern.inputs]
    keywords = "".join(f"{name}, " for name in inputs)
    given = "{" + ", ".join(f'"{name}": {name}' for name in inputs) + "}"
    arguments = ""
    for item in pattern.inputs:
        shape = ", ".join(show(fold(size)) for size in item.shape)
        arguments += f"    {item.name}: {item.kind}, ({shape}), a leading batch axis allowed.\n"
    floats = [item.name for item in pattern.inputs if item.kind == "float"]
    differentiable = ["q", "k", "v", *floats]
    told = f"{', '.join(differentiable[:-1])} and {differentiable[-1]}"
    tables = "[*inputs.values()]"
    if sinks:
        tables = "[*inputs.values(), _sinks(inputs, q.shape[1], _sum_dtype(q), q.device)]"
    call = f'_operate(q, k, v, {tables}, scale, backend or "")'
    result = f"return {call}[0]"
    factor = "factor of the scores"
    if undivided:
        result = (
            f"dtype, (q, k, v) = q.dtype, _without_fp16(q, k, v)\n    out, lse = {call}\n"
            "    return _not_divided(out, lse, scale).to(dtype)"
        )
        factor = (
            "factor of the scores, or of weights that are products of features and not divided by their sum"
        )
    return f'''\
def {pattern.name}(q, k, v, *, {keywords}scale=None, backend=None, **_others):
    """Attention over exactly the edges of the pattern `{pattern.name}`; differentiable in {told}.

    q: (batch, heads, n_q, dim), k: (batch, key heads, n, dim), v: (batch, key heads, n, value dim), of one
        dtype: float16, bfloat16 or float32 (float64 on the torch path); any strides; dims up to 256; heads a
        multiple of key heads. With fewer queries than keys the queries are the last positions. Products of
        float32 are made in full unless `torch.set_float32_matmul_precision` asks for less.
{arguments}    scale: {factor}; 1 / sqrt(dim) if None.
    backend: "triton" or "torch"; None takes ATTNC_BACKEND, else Triton on a GPU and torch elsewhere.

    Returns (batch, heads, n_q, value dim) in the dtype of q. A query that reads no key, or whose weights are
        all zero, gets zeros. Under autocast q, k, v and the result are in its dtype.
    Raises TypeError or ValueError for arguments that do not fit, RuntimeError where the backend cannot run,
    NotImplementedError for forward-mode differentiation.
    """
    inputs = {given}
    _refuse(_others)
    q, k, v = _autocast(q, k, v)
    scale = _check(q, k, v, inputs, scale, backend)
    {result}
'''


def _head_sets(schedule: Schedule) -> str:
    if len(schedule.bodies) == 1 and schedule.bodies[0].body.heads.condition == TRUE:
        return (
            "def _head_sets(heads):\n"
            '    """The heads of the pattern\'s only body: all."""\n'
            "    return [list(range(heads))]\n"
        )
    lines = []
    for plan in schedule.bodies:
        condition = Printer("host", {"h": "h", "H": "heads"})(fold(plan.body.heads.condition))
        lines.append(f"        [h for h in range(heads) if {condition}],  # {_safe(plan.body.heads.text)}\n")
    return (
        "def _head_sets(heads):\n"
        '    """The heads of every body of the pattern."""\n'
        f"    sets = [\n{''.join(lines)}    ]\n    return _covered(sets, heads)\n"
    )


# --- paths ----------------------------------------------------------------------------------------------


def _torch_sweeps(schedule: Schedule, names: Names) -> tuple[str, str]:
    writer = SweepWriter(names)
    text, bodies = "", []
    for i, plan in enumerate(schedule.bodies):
        part, found = writer.passes(plan, _suffix(i, len(schedule.bodies)))
        text += part
        bodies.append(f"({', '.join(found)},)" if found else "()")
    comment = (
        "# The passes of every body: rows, which of them are answered for, sweeps, what reads keys one by\n"
        "# one. A sweep says for a tile of rows which keys it reads, the first and last that need no mask,\n"
        "# and the others' mask; beside it: whether it hangs on the head, when the mask repeats (0: never).\n"
    )
    return text + comment, f"({', '.join(bodies)},)"


def _suffix(i: int, count: int) -> str:
    return f"_{i}" if count > 1 else ""


def _body_writers(
    pattern: Pattern, plan: BodyPlan, names: Names, i: int, count: int, weighed: bool
) -> tuple[list[KernelWriter], list[KernelWriter]]:
    def writers(passes: tuple[Pass, ...]) -> list[KernelWriter]:
        return [
            KernelWriter(
                part,
                names,
                pattern.inputs,
                _suffix(i, count) + (f"_{j}" if len(passes) > 1 else ""),
                BodyWeights(plan.body, _suffix(i, count)),
                weighed,
            )
            for j, part in enumerate(passes)
        ]

    return writers(plan.query), writers(plan.key)


def _kernels(bodies: list[tuple[list[KernelWriter], list[KernelWriter]]]) -> tuple[str, str, str]:
    texts: list[str] = []
    tables: dict[str, list[str]] = {"query": [], "key": []}
    for query, key in bodies:
        for side, writers in (("query", query), ("key", key)):
            rows = []
            for writer in writers:
                texts += [writer.kernel(kind) for kind in KINDS[side]]
                kernels = ", ".join(writer.kernel_name(kind) for kind in KINDS[side])
                needed = "".join(f"({need.kind!r}, {need.name!r}, {need.size!r}), " for need in writer.needs)
                tiles = f"lambda n_q, n, block: {_tile_count(writer.part)}"
                more = f", {writer.part.continues}" if side == "query" else ""
                rows.append(f'({kernels}, ({needed}), {tiles}, "{writer.shape}", {_places(writer)}{more})')
            tables[side].append(f"({', '.join(rows)},)" if rows else "()")
    query_passes = (
        "# For every body and pass: its kernels, the tables they read, the number of tiles, what shape of\n"
        "# tile suits them; where tiles come in shares, how many positions one sweeps, whether the number\n"
        "# of tiles is known, and how many positions have far more to do than others; whether a pass over\n"
        "# queries goes on with what an earlier one found for them.\n"
        f"_QUERY_PASSES = ({', '.join(tables['query'])},)\n"
        "# Whether some passes go on with what others found, in 32 bits.\n"
        f"_JOINED = {any(writer.part.continues for query, _ in bodies for writer in query)}\n"
    )
    key_passes = (
        f"_KEY_PASSES = ({', '.join(tables['key'])},)\n"
        "# Whether each of them writes to every key.\n"
        f"_ALL_KEYS = {all(writer.part.covers_all for _, key in bodies for writer in key)}\n"
    )
    return "\n\n".join(texts), query_passes, key_passes


def _places(writer: KernelWriter) -> str:
    """How many positions a tile sweeps at the most, whether the number of tiles is known beforehand, and how
    many positions have far more to do than others.
    """
    if not writer.long:
        return "None"
    longest = Printer("host", {"n": "n"})(writer.part.longest)
    return f"(lambda n: {longest}, {writer.counted}, {writer.part.heavy})"


def _tile_count(part: Pass) -> str:
    """How many tiles of ``block`` positions a pass has, as an expression."""
    walk, extents = part.walk, part.extents
    if walk.radix == PLAIN:
        return f"-(-{'n_q' if part.side == 'query' else 'n'} // block)"
    weight, span = walk.radix.weights[0], prod(extents)
    sizes = [(constant(high) or 0) - (constant(low) or 0) + 1 for low, high in walk.ranges]
    count = prod(-(-size // extent) for size, extent in zip(sizes, extents, strict=True))
    rows = f"(n - 1) // {weight} + 1"
    if part.side == "query":
        rows += f" - (n - n_q) // {weight}"
    per_tile = "block" if span == 1 else f"(block // {span})"
    return f"-(-({rows}) // {per_tile}){f' * {count}' if count > 1 else ''}"


def _in_use(text: str) -> str:
    """The text without the private functions that nothing in it calls: other patterns need those."""
    blocks = text.split("\n\n\n")
    while True:
        used = Counter(_NAME.findall(text))
        kept = []
        for block in blocks:
            found = _DEFINED.match(block.lstrip("\n"))
            if found is None or used[found[1]] > _NAME.findall(block).count(found[1]):
                kept.append(block)
        if len(kept) == len(blocks):
            return text
        blocks, text = kept, "\n\n\n".join(kept)


_NAME = re.compile(r"\b_[A-Za-z]\w*")
_DEFINED = re.compile(r"(?:@_jit\n)?(?:def|class) (_[A-Za-z]\w*)")


# --- parts ----------------------------------------------------------------------------------------------


def _powers(text: str, natural: bool) -> str:
    """The text of kernels with the powers by which they weigh: of two, where scores have ``log2(e)`` in them.

    Natural ones where scores may be any number: times ``log2(e)`` the least there is would be none.
    """
    return re.sub(r"\b_exp\(", "tl.exp(" if natural else "tl.exp2(", text)


def _section(title: str, *texts: str) -> str:
    rule = "# " + f"--- {title} ".ljust(108, "-")
    return rule + "\n\n\n" + "\n\n".join(text.strip("\n") + "\n" for text in texts if text.strip())


@cache
def _sections(name: str) -> dict[str, str]:
    """A part's text by section: what follows each ``# --- begin: title ---`` line."""
    text = files("attnc.codegen.parts").joinpath(f"{name}.py").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("# --- begin"):
            current = found.setdefault(line.removeprefix("# --- begin").strip(" :-"), [])
        elif line == "# --- end ---":
            current = None
        elif current is not None:
            current.append(line)
    return {title: "\n".join(lines).strip("\n") + "\n" for title, lines in found.items()}


def _part(name: str, *titles: str, have: frozenset[str] = frozenset()) -> str:
    """Sections of a part, without what is there only for something that a module does not ``have``."""
    sections = _sections(name)
    lines = "\n\n".join(sections[title] for title in (titles or ("",))).splitlines()
    kept, wanted = [], True
    for line in lines:
        if line.lstrip().startswith("# --- only: "):
            conditions = line.split()[3:-1]
            wanted = conditions == ["end"] or have.issuperset(conditions)
        elif wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _table_parts(users: str, have: frozenset[str]) -> str:
    """The table builders that the rest of the module calls, each with what it calls itself."""
    sections = _sections("tables")
    wanted = ["read"]
    wanted += ["arithmetic"] * any(f"_{name}imum(" in users for name in ("min", "max"))
    wanted += [name for name in ("spread", "continued") if f"_{name}(" in users]
    wanted += ["members"] * ("_as_rows(" in users)
    wanted += ["equal"] * ("_equal_entries(" in users)
    wanted += ["draws"] * ("_picks" in users)
    wanted += ["pack"] * ("members" in have)
    wanted += ["lists"] * ("lists" in have)
    return "\n\n".join(text for title, text in sections.items() if title in wanted)

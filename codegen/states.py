"""Bodies that are computed through states, as text: feature maps, gates, segments, and what they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from textwrap import indent

from attnc import real
from attnc.codegen.printer import Printer
from attnc.codegen.real_text import RealPrinter
from attnc.expression import fold
from attnc.factorise import Factor, decay_text
from attnc.notation import show
from attnc.pattern import Body, Cosine, Elementwise, Favor, Pattern, Taylor, Weights
from attnc.real import Entry, Real, X
from attnc.schedule import BodyPlan, Schedule


@dataclass(frozen=True)
class StatesText:
    """The text of what bodies with states need, by where it goes in a module.

    maps: feature maps and segments. table: what the bodies are. gates: the function that makes gates.
    triton: for every feature map of coordinates its name's suffix and its functions in kernels.
    kinds: which maps of ``parts/features.py`` are used.
    """

    maps: str
    table: str
    triton: tuple[tuple[str, str], ...]
    gates: str
    kinds: tuple[str, ...]


def scalar_factor(plan: BodyPlan) -> tuple[int, Factor, Weights] | None:
    """The part of a body that is summed up in states, if there is one."""
    for factor in plan.factors:
        if factor is not None:
            return factor.part, factor, (plan.whole or plan.body).parts[factor.part].weights
    return None


def swept(schedule: Schedule) -> Schedule | None:
    """What is swept: the same bodies without what is in states; None if that is all of them."""
    plans = []
    for plan in schedule.bodies:
        if scalar_factor(plan) is not None and plan.whole is None:
            nothing = Body(plan.body.heads, plan.body.relation)
            plan = replace(plan, body=nothing, factors=())
        plans.append(plan)
    return replace(schedule, bodies=tuple(plans)) if any(plan.query for plan in plans) else None


def joined_text(text: str) -> str:
    """The text of sweeps that go on with what was computed through states, ``begun``."""
    return re.sub(r"(def _forward_\w+\(q, k, v, inputs, scale)\)", r"\1, begun)", text)


def has_states(schedule: Schedule) -> bool:
    return any(scalar_factor(plan) is not None for plan in schedule.bodies)


def carries(schedule: Schedule) -> bool:
    """Whether a function can go on with what earlier pieces of a sequence left: all of it is in states."""
    found = [scalar_factor(plan) for plan in schedule.bodies]
    sizes = set()
    for item, plan in zip(found, schedule.bodies, strict=True):
        if item is None or plan.whole is not None or not item[1].causal or item[1].chunk or item[1].near:
            return False
        sizes.add(
            (item[2].feature if not isinstance(item[2].feature, Elementwise) else None, item[2].normalized)
        )
    return len(sizes) == 1


def derived(schedule: Schedule) -> tuple[tuple[int, str], ...]:
    """What is made of the inputs, by body: each adds one to the inputs of the operators, in this order.

    "gates"; "beta", how far the delta rule corrects; "bonus", what a query's own position weighs.
    """
    found = []
    for i, plan in enumerate(schedule.bodies):
        item = scalar_factor(plan)
        if item is not None:
            given = {"gates": item[2].decay, "beta": item[2].beta, "bonus": item[2].bonus}
            found += [(i, role) for role, value in given.items() if value is not None]
    return tuple(found)


def family(weights: Weights) -> str:
    """Which functions compute it: "linear", "channel" (a gate for each channel) or "delta"."""
    if weights.beta is not None:
        return "delta"
    channels = weights.decay is not None and (weights.decay.axes == "channel" or weights.bonus is not None)
    return "channel" if channels else "linear"


def chunk_of(width: int) -> int:
    """How many positions a chunk has in kernels, with ``width`` features: as ``_kernel_chunk`` of modules."""
    return min(1024, max(64, 1 << (2 * width - 1).bit_length()))


def features_used(schedule: Schedule) -> frozenset[str]:
    """What the parts of emitted modules are there for: families, and the axes of their gates."""
    found = set()
    for plan in schedule.bodies:
        item = scalar_factor(plan)
        if item is not None:
            decay = item[2].decay
            channels = decay is not None and (decay.axes == "channel" or family(item[2]) == "channel")
            found |= {family(item[2]), "channels" if channels else "tokens"}
            found |= {"gated"} if family(item[2]) != "linear" else set()
    return frozenset(found)


def states_text(pattern: Pattern, schedule: Schedule) -> StatesText:
    texts, rows, kinds = [], [], dict[str, None]()
    triton: dict[Real, tuple[str, str]] = {}
    places = {key: len(pattern.inputs) + i for i, key in enumerate(derived(schedule))}
    for i, plan in enumerate(schedule.bodies):
        item = scalar_factor(plan)
        if item is None:
            rows.append("    None,\n")
            continue
        suffix = f"_{i}" if len(schedule.bodies) > 1 else ""
        _, factor, weights = item
        texts.append(_map_text(weights, suffix))
        kinds[kind_of(weights)] = None
        value = real.folded(weights.feature.value) if isinstance(weights.feature, Elementwise) else X
        mapped = None
        if family(weights) == "linear":
            mapped, _ = triton.setdefault(value, (f"_{len(triton)}" if triton else "", _triton_text(value)))
        segments = "None"
        if factor.segmented:
            segments = f"_segments{suffix}"
            texts.append(_segments_text(pattern, factor, suffix))
        own = {role: place for (body, role), place in places.items() if body == i}
        alone = plan.whole is None
        rows.append(_row(factor, weights, suffix, segments, own, alone, mapped))
    table = f"# How every body is computed through states, or None.\n_STATES = (\n{''.join(rows)})\n"
    gates_text = _gates_text(pattern, schedule)
    return StatesText("\n\n".join(texts), table, tuple(triton.values()), gates_text, tuple(kinds))


def kind_of(weights: Weights) -> str:
    """The name of a feature map in the emitted module."""
    return type(weights.feature).__name__.lower()


_KERNELS = (
    *("sums", "states", "scan", "scan_back", "outputs", "rows"),
    *("query_gradient", "key_gradient", "value_gradient", "across", "gates"),
)


def kernels_text(text: str, suffix: str, maps: str) -> str:
    """The kernels of one feature map, and their table; ``text`` is that of a map without a suffix."""
    listed = "".join(f'    "{name}": _linear_{name}_kernel,\n' for name in _KERNELS)
    text = f"{maps}\n\n{text}\n\n_LINEAR_KERNELS = {{\n{listed}}}\n"
    return (
        re.sub(r"\b(_linear_\w+|_map|_map_slope|_LINEAR_KERNELS)\b", rf"\g<1>{suffix}", text)
        if suffix
        else text
    )


def _triton_text(value: Real) -> str:
    write = RealPrinter(Printer("kernel", {}), lambda entry: "")
    slope = real.derivative(value, X)
    known = real.known(slope)
    back = write(slope) if known is None else f"x * 0.0 + {float(known)!r}"
    return (
        f'@_jit\ndef _map(x):\n    """Features of coordinates."""\n    return {write(value)}\n\n\n'
        f'@_jit\ndef _map_slope(x):\n    """Their slope."""\n    return {back}\n\n'
    )


def _row(
    factor: Factor,
    weights: Weights,
    suffix: str,
    segments: str,
    places: dict[str, int],
    alone: bool,
    mapped: str | None,
) -> str:
    feature = weights.feature
    name = "linear" if family(weights) == "linear" else "gated"
    root = isinstance(feature, Favor | Taylor)
    fields = {
        "causal": factor.causal,
        "near": factor.near,
        "normalized": weights.normalized,
        "summed": alone,
        "root": root,
        "factor": not root and not weights.normalized,
        "exclusive": weights.decay is not None and weights.decay.exclusive,
        "features": f"_features{suffix}",
        "gradient": f"_features_gradient{suffix}",
        "width": f"lambda dim: {_width(weights)}",
        "segments": segments,
        "gate": places.get("gates"),
        "decay": repr("" if weights.decay is None else decay_text(weights.decay)),
        "kind": repr(kind_of(weights)),
        "seed": feature.seed if isinstance(feature, Favor) else 0,
        "length": feature.length if isinstance(feature, Cosine) else 0,
        "kernels": None if mapped is None else f"_LINEAR_KERNELS{mapped}",
        "plain": isinstance(feature, Elementwise) and real.folded(feature.value) == X,
        "delta": weights.beta is not None,
        "extra": places.get("beta", places.get("bonus")),
        "forward": f"(_{name}_forward_torch, _{name}_forward_triton)",
        "backward": f"(_{name}_backward_torch, _{name}_backward_triton)",
    }
    listed = "".join(f"        {name}={value},\n" for name, value in fields.items())
    return f"    _Linear(\n{listed}    ),\n"


def _width(weights: Weights) -> str:
    match weights.feature:
        case Favor(count, _):
            return str(count)
        case Taylor():
            return "1 + dim + dim * dim"
        case Cosine():
            return "2 * dim"
    return "dim"


# --- feature maps ---------------------------------------------------------------------------------------


def torch_printer(pattern: Pattern | None = None) -> RealPrinter:
    """Writes real expressions of a vector's coordinates ``x``, or of the head ``h``."""

    def entry(found: Entry) -> str:
        assert pattern is not None
        place = [item.name for item in pattern.inputs].index(found.table)
        rank = f'_with_batch(inputs[{place}], "{found.table}", n, heads)'
        return f"_read({rank}, {', '.join(map(integers, found.index))}).to(dtype)"

    integers = Printer("tensor", {"h": "h", "H": "heads"})
    return RealPrinter(integers, entry)


def _map_text(weights: Weights, suffix: str) -> str:
    match weights.feature:
        case Favor(count, seed):
            found, back = f"_favor(x, {count}, {seed})", f"_favor_gradient(x, grad, {count}, {seed})"
        case Taylor():
            found, back = "_taylor(x)", "_taylor_gradient(x, grad)"
        case Cosine(length):
            found, back = f"_cosine(x, place, {length})", f"_cosine_gradient(x, place, grad, {length})"
        case Elementwise(value):
            return _elementwise_text(value, suffix)
        case _:
            raise TypeError("softmax has no feature map")
    return (
        f'def _features{suffix}(x, place):\n    """Features of vectors at some places."""\n'
        f"    return {found}\n\n\n"
        f'def _features_gradient{suffix}(x, place, grad):\n    """The vectors\' gradient from that of their '
        f'features."""\n    return {back}\n\n'
    )


def _elementwise_text(value: Real, suffix: str) -> str:
    value = real.folded(value)
    slope = real.derivative(value, X)
    write = torch_printer()
    constant = real.known(slope)
    times = "" if constant == 1 else f" * ({write(slope)})"

    def function(name: str, arguments: str, title: str, text: str) -> str:
        declared = "    dtype = x.dtype\n" if "dtype" in text else ""
        return f'def {name}{suffix}({arguments}):\n    """{title}"""\n{declared}    return {text}\n'

    return (
        function("_features", "x, place", "Features of vectors, coordinate by coordinate.", write(value))
        + "\n\n"
        + function(
            "_features_gradient",
            "x, place, grad",
            "The vectors' gradient from that of their features.",
            f"grad{times}",
        )
        + "\n"
    )


# --- segments and gates ---------------------------------------------------------------------------------


def _segments_text(pattern: Pattern, factor: Factor, suffix: str) -> str:
    lines = []
    for name in factor.same:
        place = [item.name for item in pattern.inputs].index(name)
        lines.append(f'ids.append(_equal_entries(_batched(inputs[{place}], "{name}", n, heads))[0].long())')
    if factor.chunk:
        lines.append(f"ids.append(torch.arange(n, device=device)[None] // {factor.chunk})")
    body = indent("\n".join(lines), "    ")
    return (
        f"def _segments{suffix}(inputs, n, heads, device, goes_on):\n"
        '    """In which order segments follow one another, None for that of positions, where each\n'
        '    position\'s segment begins, and whether the state of the last is lost."""\n'
        f"    ids = []\n{body}\n"
        "    joined = ids[0]\n"
        "    for more in ids[1:]:\n"
        "        joined = joined * max(n, 1) + more\n"
        f"    return _segmented(joined, {bool(factor.same)}, goes_on)\n\n"
    )


def _gates_text(pattern: Pattern, schedule: Schedule) -> str:
    found = derived(schedule)
    if not found:
        return ""
    lines = []
    for i, role in found:
        item = scalar_factor(schedule.bodies[i])
        assert item is not None
        decay, beta, bonus = item[2].decay, item[2].beta, item[2].bonus
        # The bonus has an entry for every channel, and so gates are made to have some, too.
        spread = role == "gates" and decay is not None and decay.axes != "channel" and bonus is not None
        wide = "[..., None].expand(-1, -1, -1, q.shape[3])" if spread else ""
        if role == "gates" and decay is not None and decay.axes == "head":
            assert decay.value is not None
            gates = torch_printer(pattern)(real.folded(decay.value))
            lines += [
                f"numbers = _head_sets(heads)[{i}]",
                "h = _numbers(numbers, device)",
                f"found.append(_one_for_all({gates}, numbers, heads, dtype, device){wide})",
            ]
        else:
            own = {"gates": decay.table if decay is not None else None, "beta": beta, "bonus": bonus}
            table = own[role] or ""
            place = [given.name for given in pattern.inputs].index(table)
            lines.append(f'found.append(_with_batch(inputs[{place}], "{table}", n, heads).to(dtype){wide})')
    body = indent("\n".join(lines), "    ")
    return (
        "def _gates(inputs, q, n):\n"
        '    """For every body logarithms of gates, (batch or 1, n or 1, heads, …), rates, own weights."""\n'
        "    heads, device, dtype, found = q.shape[1], q.device, _sum_dtype(q), []\n"
        f"{body}\n"
        "    return found\n"
    )


# --- the function ---------------------------------------------------------------------------------------


def states_function(pattern: Pattern, schedule: Schedule) -> str:
    """The module's function: with a state to go on from, where all of it is in states."""
    inputs = [item.name for item in pattern.inputs]
    carried, rest = carries(schedule), swept(schedule)
    keywords = "".join(f"{name}, " for name in inputs) + "state=None, return_state=False, " * carried
    given = "{" + ", ".join(f'"{name}": {name}' for name in inputs) + "}"
    arguments = ""
    for item in pattern.inputs:
        shape = ", ".join(show(fold(size)) for size in item.shape)
        arguments += f"    {item.name}: {item.kind}, ({shape}), a leading batch axis allowed.\n"
    some_gates = bool(derived(schedule))
    made = "[*inputs.values()]"
    if some_gates:
        made = f"[*inputs.values(), *_gates({made}, q, k.shape[2])]"
    differentiable = "q, k, v and float inputs" if some_gates else "q, k and v"
    told, returns = "", "Returns (batch, heads, n_q, value dim) in the dtype of q."
    if carried:
        features = {plan.body.weights.feature for plan in schedule.bodies}
        turned = next((item.length for item in features if isinstance(item, Cosine)), None)
        told = _STATE_DOC
        if any(factor and factor.same for plan in schedule.bodies for factor in plan.factors):
            told += (
                "        It belongs to the document of the last position. A piece that begins with a new\n"
                "        document cannot know that: give it no state. A document that comes again in a\n"
                "        later piece, after others, begins anew.\n"
            )
        returns = (
            "Returns (batch, heads, n_q, value dim) in the dtype of q; with `return_state`, a pair of that\n"
            "        and the state behind the last position."
        )
    check = "    _check_state(state, q, k, v)\n" if carried else ""
    result = f'_operate(q, k, v, tables, {"state" if carried else "None"}, scale, backend or "")'
    if carried:
        turn = f"    final = _turned(final, k.shape[2], {turned})\n" if turned else ""
        result = f"    out, _, final = {result}\n{turn}    return (out, final) if return_state else out\n"
    elif rest is not None and any(not plan.body.weights.normalized for plan in rest.bodies):
        result = (
            f"    dtype, (q, k, v) = q.dtype, _without_fp16(q, k, v)\n    out, lse, _ = {result}\n"
            "    return _not_divided(out, lse, scale).to(dtype)\n"
        )
    else:
        result = f"    return {result}[0]\n"
    return f'''\
def {pattern.name}(q, k, v, *, {keywords}scale=None, backend=None, **_others):
    """Attention over exactly the edges of the pattern `{pattern.name}`; differentiable in {differentiable}.

    q: (batch, heads, n_q, dim), k: (batch, key heads, n, dim), v: (batch, key heads, n, value dim), of one
        dtype: float16, bfloat16 or float32 (float64 on the torch path); any strides; dims up to 256; heads a
        multiple of key heads. With fewer queries than keys the queries are the last positions. Products of
        float32 are made in full unless `torch.set_float32_matmul_precision` asks for less.
{arguments}{told}    scale: factor of the scores, 1 / sqrt(dim) if None.
    backend: "triton" or "torch"; None takes ATTNC_BACKEND, else Triton on a GPU and torch elsewhere.

    {returns}
    A query whose weights are all zero gets zeros. Under autocast q, k, v and the result are in its dtype.
    Raises TypeError or ValueError for arguments that do not fit, RuntimeError where the backend cannot run,
    NotImplementedError for forward-mode differentiation.
    """
    inputs = {given}
    _refuse(_others)
    q, k, v = _autocast(q, k, v)
    scale = _check(q, k, v, inputs, scale, backend)
{check}    tables = {made}
{result}'''


_STATE_DOC = """\
    state: what an earlier piece of the sequence left, (batch, heads, features, value dim, and a column more
        where rows are divided by their sum of weights), in fp32; differentiable. None for the first piece.
    return_state: whether to return the state behind the last position, too: the next piece goes on with it.
"""

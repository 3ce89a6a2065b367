"""Draws feature maps, as text, for the relations that ``strategies.py`` draws, and runs what was drawn.

All maps are such that any relation can be swept with them. Many vanish: on some coordinates, on some pairs,
or on all that a query attends to.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tests import oracle, weights_oracle
from tests.device import there
from tests.strategies import Case, _Names, cases
from tests.weights_oracle import Given

MAPS = ("elu(x) + 1", "exp(x)", "sigmoid(x)", "softplus(x)", "exp2(min(x, 1.0))", "0.25 + x * x", "taylor()")
VANISHING = (
    "relu(x)",
    "x * x",
    "max(x, 0.0)",
    "abs(x)",
    "relu(x) * relu(x)",
    "relu(x - 1.0)",
    "relu(x - 1.5)",
    "relu(x - 4.0)",
    "0.001 * relu(x)",
)


@st.composite
def feature_cases(draw: st.DrawFn, most: int = 150, interpreted: bool = False) -> Case:
    """As ``cases``, with a feature map in most bodies."""
    normalize = draw(st.sampled_from(("", "", " normalize none")))

    def body(names: _Names, relation: str) -> str:
        if not normalize and names.chance(15):
            return f"attend {relation}"
        if names.chance(15):
            return f"attend ({relation}) & window(9, 9) kernel cosine({names.number(9, 40)}){normalize}"
        maps = VANISHING if names.chance(60) else MAPS
        return f"attend {relation} kernel {names.one_of(*maps)}{normalize}"

    return draw(cases(most, interpreted, body=body))


def check(case: Case, backend: str) -> list[str]:
    """Everything that is wrong with what was drawn, in words."""
    call = case.call
    scale = abs(call.scale) if call.scale is not None and "taylor" in case.text else call.scale
    # Coordinates of any size: in fp16, too, sums of features may be more than that holds, or less.
    size = (1.0, 1.0, 1e-2, 4.0)[call.seed % 4] if "exp" not in case.text else 1.0
    given = Given(
        n=call.n,
        n_q=call.n_q,
        batch=call.batch,
        heads=call.heads,
        key_heads=call.key_heads,
        dim=call.dim,
        value_dim=call.value_dim,
        scale=scale,
        seed=call.seed,
        layout=call.layout,
        size=size,
    )
    done = oracle.compiled(case.text, small=case.weighed_small)
    tables = oracle.inputs(done.pattern, call)
    dtype = getattr(oracle.torch, call.dtype)
    return weights_oracle.check(case.text, given, backend, dtype, tables, small=case.weighed_small)


FUNCTIONS = ("exp", "exp2", "log", "log2", "sqrt", "tanh", "sigmoid", "softplus", "relu", "elu", "sin", "cos")


def error_of(function: str, backend: str) -> float:
    """How far a function of features is off at most, beside its result, in units of fp32's epsilon."""
    x = torch.cat([sign * torch.logspace(-6, 1.4, 300) for sign in (-1.0, 1.0)])
    if function in ("log", "log2", "sqrt"):
        x = x.abs()
    if function in ("sin", "cos"):  # near the zeros of these the argument's own rounding decides
        x = x[x.abs() < 1.5]
    # Every query attends to the first key alone: all other values are zero.
    done = oracle.compiled(f"pattern p() {{ attend causal kernel {function}(x) normalize none }}")
    q = x[None, None, :, None]
    one, v = q[:, :, -1:].expand(-1, -1, len(x), -1), torch.zeros_like(q)
    v[:, :, 0] = 1.0
    out = there(done.module.p)(q, one, v, backend=backend)[0, 0, :, 0].double()
    exact = getattr(torch, function, None) or getattr(torch.nn.functional, function)
    wide = exact(x.double()) * exact(x.double()[-1])
    return float(((out - wide).abs() / wide.abs().clamp(min=1e-30)).max()) / torch.finfo(torch.float32).eps

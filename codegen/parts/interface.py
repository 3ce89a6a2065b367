"""Arguments, backends and PyTorch's operator registry: the same for every emitted module."""

from __future__ import annotations

import contextlib
import math
import os

import torch

try:
    import triton
except ImportError:
    triton = None

_INTERPRETED = False
NAME, DIGEST, INPUTS, WEIGHING = "", "", {}, {}


def _batch_of(x, axis): ...
def _divided(grad, lse_grad, lse): ...
def _fold(x, axis, size): ...
def _fold_inputs(inputs, axes, size, batch, apart=()): ...
def _unfold_inputs(found, inputs, axes, size, batch): ...


# --- begin ---


# Arguments of other attention functions, and what there is in their place.
_ELSEWHERE = {
    "attn_mask": "the pattern says which keys are read; what is added to scores is a float input in `score`",
    "mask": "the pattern says which keys are read",
    "block_mask": "the pattern says which keys are read; `attnc.from_mask_mod` makes a pattern of a mask_mod",
    "score_mod": "a pattern has a `score`; `attnc.from_mask_mod` makes one of a score_mod",
    "is_causal": "`attend causal`, or `& causal`, in the pattern says so",
    "dropout_p": "weights are never dropped; leave it out",
    "enable_gqa": "key heads are shared wherever there are fewer of them; leave it out",
    "return_lse": "only the output is returned; leave it out",
}


def _refuse(names):
    """Raises TypeError for arguments that the function does not have."""
    for name in names:
        known = ", ".join((*INPUTS, "scale", "backend"))
        where = _ELSEWHERE.get(name, f"what it takes by name is {known}")
        raise TypeError(f"{NAME}: there is no argument {name}: {where}")


def _autocast(q, k, v):
    """Under autocast in its dtype, as PyTorch's own attention takes them; float64 stays what it is."""
    device = q.device.type if isinstance(q, torch.Tensor) else "meta"
    if device == "meta" or not torch.is_autocast_enabled(device):
        return q, k, v
    dtype = torch.get_autocast_dtype(device)
    narrow = torch.float16, torch.bfloat16, torch.float32
    return tuple(x.to(dtype) if getattr(x, "dtype", None) in narrow else x for x in (q, k, v))


def _no_forward_mode(*_, name="an argument"):
    raise NotImplementedError(
        f"{NAME}: {name} carries a tangent, and there is no forward mode: take gradients in reverse "
        "(backward(), torch.autograd.grad, jacrev), or use dense attention with this module's mask()"
    )


def _check(q, k, v, inputs, scale, backend):
    """The scale; raises TypeError or ValueError that names an argument, what was given, what is wanted."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{NAME}: {name} must be a tensor, not {type(x).__name__}")
        if x.layout != torch.strided or x.is_nested:
            raise TypeError(f"{NAME}: {name} must be a dense tensor, neither sparse nor nested")
        if x.dim() != 4:
            raise ValueError(
                f"{NAME}: {name} must be (batch, heads, length, dim), but its shape is {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise TypeError(f"{NAME}: {name} must be float16, bfloat16, float32 or float64, not {x.dtype}")
        if x.dtype != q.dtype:
            raise TypeError(f"{NAME}: {name} must have the dtype of q, {q.dtype}, not {x.dtype}")
        if x.device != q.device:
            raise ValueError(f"{NAME}: {name} must be on the device of q, {q.device}, not on {x.device}")
        if x.shape[0] != q.shape[0]:
            raise ValueError(f"{NAME}: {name} must have the batch size of q, {q.shape[0]}, not {x.shape[0]}")
        if not 1 <= x.shape[3] <= 256:
            raise ValueError(f"{NAME}: {name} must have a dim of 1 to 256, not {x.shape[3]}")
        if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:  # PyTorch would drop it in silence
            _no_forward_mode(name=name)
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(
            f"{NAME}: k and v must have the same heads and length, "
            f"not {tuple(k.shape[1:3])} and {tuple(v.shape[1:3])}"
        )
    if q.shape[3] != k.shape[3]:
        raise ValueError(f"{NAME}: q and k must have the same dim, not {q.shape[3]} and {k.shape[3]}")
    if q.shape[1] < 1 or k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"{NAME}: the heads of q must be a multiple of those of k, "
            f"but they are {q.shape[1]} and {k.shape[1]}"
        )
    if q.shape[2] > k.shape[2]:
        raise ValueError(
            f"{NAME}: queries are the last of the keys' positions, so there cannot be more queries "
            f"({q.shape[2]}) than keys ({k.shape[2]})"
        )
    # --- only: bounded ---
    if k.shape[2] > LONGEST:
        raise ValueError(
            f"{NAME}: with more than {LONGEST} keys the relation computes numbers beyond 64 bits, and there "
            f"are {k.shape[2]}: write it with smaller products"
        )
    # --- only: end ---
    if isinstance(scale, bool) or (
        not isinstance(scale, (int, float, type(None)))
        and (not hasattr(scale, "__float__") or hasattr(scale, "__len__"))
    ):
        wanted = "a number (of a tensor take scale.item())" if hasattr(scale, "item") else "a number"
        raise TypeError(f"{NAME}: scale must be {wanted}, not {type(scale).__name__}")
    if scale is not None and not -math.inf < scale < math.inf:
        raise ValueError(f"{NAME}: scale must be a finite number, not {scale}")
    if backend not in (None, "triton", "torch"):
        raise ValueError(f"{NAME}: backend must be 'triton', 'torch' or None, not {backend!r}")
    for name, x in inputs.items():
        _check_input(name, x, q, k.shape[2])
    _head_sets(q.shape[1])
    if scale is None:
        return 1 / math.sqrt(q.shape[3])
    scale = float(scale)
    # In fp32 a smaller one would be zero in one place and not in another.
    return scale if abs(scale) >= 1e-30 else 0.0


def _check_input(name, x, q, n):
    kind, wanted = INPUTS[name][0], INPUTS[name][1](n, q.shape[1], q.shape[3])
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{NAME}: {name} must be a tensor, not {type(x).__name__}")
    if kind == "bool" and x.dtype != torch.bool:
        raise TypeError(f"{NAME}: {name} must be a tensor of booleans, not {x.dtype}")
    if kind == "int" and (x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool):
        raise TypeError(f"{NAME}: {name} must be a tensor of integers, not {x.dtype}")
    if kind == "float" and not x.dtype.is_floating_point:
        raise TypeError(f"{NAME}: {name} must be a floating point tensor, not {x.dtype}")
    if x.device != q.device:
        raise ValueError(f"{NAME}: {name} must be on the device of q, {q.device}, not on {x.device}")
    if tuple(x.shape) not in (wanted, (q.shape[0], *wanted)):
        raise ValueError(
            f"{NAME}: {name} must have the shape {wanted} or {(q.shape[0], *wanted)}, not {tuple(x.shape)}"
        )


def _batched(x, name, n, heads):
    """An input as (batch or 1, …), contiguous, booleans as bytes, integers wide enough for products."""
    if x.dim() == len(INPUTS[name][1](n, heads, 1)):
        x = x[None]
    if x.dtype == torch.bool:
        return x.contiguous().view(torch.uint8)
    # --- only: weights ---
    if x.is_floating_point():
        return x.contiguous() if x.dtype == torch.float64 else x.float().contiguous()
    # --- only: end ---
    return x.to(torch.int64).contiguous()


def _covered(sets, heads):
    """The heads of every body, if every head is in exactly one of them; else ValueError."""
    for h in range(heads):
        bodies = sum(h in numbers for numbers in sets)
        if bodies != 1:
            raise ValueError(
                f"{NAME}: head {h} of {heads} has {'no body' if not bodies else 'several bodies'} "
                "in the pattern; every head must be covered exactly once"
            )
    return sets


def _progressions(heads):
    """Ascending head numbers as arithmetic progressions (start, step, count), one launch each."""
    found = []
    while heads:
        step = heads[1] - heads[0] if len(heads) > 1 else 1
        count = 1
        while count < len(heads) and heads[count] == heads[0] + count * step:
            count += 1
        found.append((heads[0], step, count))
        heads = heads[count:]
    return found


def _numbers(heads, device):
    """Head numbers as a tensor that is made on the device.

    A list is copied there, which waits for the device, and which a CUDA graph cannot hold.
    """
    runs = _progressions(heads) or [(0, 1, 0)]
    found = [torch.arange(start, start + step * count, step, device=device) for start, step, count in runs]
    return torch.cat(found) if len(found) > 1 else found[0]


def _path(device, dtype, backend):
    """Which path runs: "triton" or "torch"; raises RuntimeError that says why if the one asked for cannot."""
    asked = backend or os.environ.get("ATTNC_BACKEND") or ("triton" if device.type == "cuda" else "torch")
    if asked not in ("triton", "torch"):
        raise ValueError(f"{NAME}: ATTNC_BACKEND must be triton or torch, not {asked!r}")
    if asked == "torch":
        return "torch"
    if triton is None:
        raise RuntimeError(
            f"{NAME}: the Triton path, which tensors on a GPU take by default, needs the package `triton`, "
            "which is not installed: `pip install triton`, or use backend='torch'"
        )
    if dtype == torch.float64:
        raise RuntimeError(
            f"{NAME}: the Triton path takes float16, bfloat16 and float32; use backend='torch' for float64"
        )
    if device.type != "cuda" and not _INTERPRETED:
        raise RuntimeError(
            f"{NAME}: the Triton path needs tensors on a GPU, and these are on {device}; "
            "it takes CPU tensors when TRITON_INTERPRET=1 is set before triton is imported"
        )
    return "triton"


@contextlib.contextmanager
def _on(device):
    """Without autocast, as sums in fp32 stay in fp32, and with kernels launched where the tensors are."""
    chosen = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    plain = contextlib.nullcontext()
    if torch.is_autocast_enabled(device.type):
        plain = torch.autocast(device.type, enabled=False)
    with plain, chosen:
        yield


def _rows_contiguous(x):
    """The tensor itself if its last axis is dense and its rows not absurdly far apart, else a dense copy.

    Kernels count the distance between two rows in 32 bits.
    """
    return x if (x.stride(3) == 1 or x.shape[3] == 1) and x.stride(2) < 1 << 31 else x.contiguous()


# --- begin: plain call ---

_PLAIN = torch.Tensor, torch.nn.Parameter


def _plain_call(*tensors):
    """Whether a call of these tensors may go past the registered operators.

    Not where a tracer, a dispatch mode or a transform is active, or a tensor is of another class.
    """
    looked_at = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )
    return not looked_at and all(type(x) in _PLAIN and x.device.type in ("cpu", "cuda") for x in tensors)


# --- begin: operators ---

# Names in PyTorch's registry are unique for this file's content and for how it was imported.
_LABEL = f"attnc::{NAME}_{DIGEST[:12]}_{''.join(c if c.isalnum() else '_' for c in __name__)}"


def _compute(q, k, v, inputs, scale, backend):
    # --- only: plain ---
    """Output (batch, heads, n_q, value dim) and natural log-sum-exp (batch, heads, n_q), fp32."""
    # --- only: weights ---
    """Output (batch, heads, n_q, value dim) and, in fp32, what rows divide by (batch, heads, n_q, 2).

    That is the largest score, and the natural logarithm of the sum of weights beside it.
    """
    # --- only: end ---
    run = _forward_triton if _path(q.device, q.dtype, backend) == "triton" else _forward_torch
    with _on(q.device):
        return run(q, k, v, inputs, scale)


def _compute_gradients(grad, lse_grad, q, k, v, inputs, out, lse, scale, backend):
    # --- only: plain ---
    """Gradients of q, k and v."""
    # --- only: weights ---
    """Gradients of q, k and v, and of the inputs that weigh edges."""
    # --- only: end ---
    run = _backward_triton if _path(q.device, q.dtype, backend) == "triton" else _backward_torch
    with _on(q.device):
        # --- only: weights ---
        grad, lse_grad, lse = _divided(grad, lse_grad, lse)
        # --- only: end ---
        return run(grad, lse_grad, q, k, v, inputs, out, lse, scale)


_forward = torch.library.custom_op(
    f"{_LABEL}_forward",
    _compute,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor[] inputs, float scale, str backend) -> (Tensor, Tensor)",
)
_backward = torch.library.custom_op(
    f"{_LABEL}_backward",
    _compute_gradients,
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor lse_grad, Tensor q, Tensor k, Tensor v, Tensor[] inputs, Tensor out, "
        # --- only: plain ---
        "Tensor lse, float scale, str backend) -> (Tensor, Tensor, Tensor)"
        # --- only: weights ---
        "Tensor lse, float scale, str backend) -> (Tensor, Tensor, Tensor, Tensor[])"
        # --- only: end ---
    ),
)


@_forward.register_fake
def _(q, k, v, inputs, scale, backend):
    shape = (*q.shape[:3], v.shape[3])
    # --- only: plain ---
    return q.new_empty(shape), q.new_empty(q.shape[:3], dtype=_sum_dtype(q))
    # --- only: weights ---
    return q.new_empty(shape), q.new_empty((*q.shape[:3], 2), dtype=_sum_dtype(q))
    # --- only: end ---


@_backward.register_fake
def _(grad, lse_grad, q, k, v, inputs, out, lse, scale, backend):
    # --- only: plain ---
    return tuple(x.new_empty(x.shape) for x in (q, k, v))
    # --- only: weights ---
    return *(x.new_empty(x.shape) for x in (q, k, v)), [torch.empty_like(inputs[i]) for i in WEIGHING]
    # --- only: end ---


def _sum_dtype(x):
    """What sums are kept in: fp32, or fp64 where the inputs are."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _save(ctx, inputs, output):
    q, k, v, tables, scale, backend = inputs
    ctx.save_for_backward(q, k, v, *tables, *output)
    ctx.scale, ctx.backend = scale, backend


def _differentiate(ctx, grad, lse_grad):
    q, k, v, *tables, out, lse = ctx.saved_tensors
    # --- only: plain ---
    dq, dk, dv = _backward(grad, lse_grad, q, k, v, tables, out, lse, ctx.scale, ctx.backend)
    return dq, dk, dv, [None] * len(tables), None, None
    # --- only: weights ---
    dq, dk, dv, weighing = _backward(grad, lse_grad, q, k, v, tables, out, lse, ctx.scale, ctx.backend)
    gradients = dict(zip(WEIGHING, weighing, strict=True))
    return dq, dk, dv, [gradients.get(i) for i in range(len(tables))], None, None
    # --- only: end ---


torch.library.register_autograd(f"{_LABEL}_forward", _differentiate, setup_context=_save)


def _once(ctx, *grads):
    raise NotImplementedError(
        f"{NAME}: there are no second derivatives: use dense attention with this module's mask()"
    )


torch.library.register_autograd(f"{_LABEL}_backward", _once)


class _Gradients(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(grad, lse_grad, q, k, v, out, lse, scale, backend, *tables):
        run = _compute_gradients if _plain_call(grad, lse_grad, q, k, v, out, lse, *tables) else _backward
        # --- only: plain ---
        return run(grad, lse_grad, q, k, v, tables, out, lse, scale, backend)
        # --- only: weights ---
        *found, weighing = run(grad, lse_grad, q, k, v, tables, out, lse, scale, backend)
        return *found, *weighing
        # --- only: end ---

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    backward = staticmethod(_once)
    jvp = staticmethod(_no_forward_mode)


class _Eager(torch.autograd.Function):
    """The same where nothing looks at operators: PyTorch's registry takes longer than a small call."""

    @staticmethod
    def forward(ctx, q, k, v, scale, backend, *tables):
        found = _compute(q, k, v, tables, scale, backend)
        _save(ctx, (q, k, v, tables, scale, backend), found)
        return found

    jvp = staticmethod(_no_forward_mode)

    @staticmethod
    def backward(ctx, grad, lse_grad):
        q, k, v, *tables, out, lse = ctx.saved_tensors
        further = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
        run = _Gradients.apply if further else _Gradients.forward
        given = (grad, lse_grad, q, k, v, out, lse, ctx.scale, ctx.backend)
        dq, dk, dv, *weighing = run(*given, *tables)
        # --- only: plain ---
        return dq, dk, dv, None, None, *[None] * len(tables)
        # --- only: weights ---
        gradients = dict(zip(WEIGHING, weighing, strict=True))
        return dq, dk, dv, None, None, *[gradients.get(i) for i in range(len(tables))]
        # --- only: end ---


class _Transformed(torch.autograd.Function):
    """The same for ``torch.func``, which does not look for the gradients of registered operators."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q, k, v, scale, backend, *tables):
        return _forward(q, k, v, tables, scale, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, scale, backend, *tables = inputs
        _save(ctx, (q, k, v, tables, scale, backend), output)

    jvp = staticmethod(_no_forward_mode)
    backward = staticmethod(_Eager.backward)


def _operate(q, k, v, inputs, scale, backend):
    """Output and log-sum-exp, differentiable by autograd and within ``torch.func``."""
    if not torch.compiler.is_compiling():
        if _plain_call(q, k, v, *inputs):
            if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, *inputs)):
                return _Eager.apply(q, k, v, scale, backend, *inputs)
            return _compute(q, k, v, inputs, scale, backend)
        if torch._C._are_functorch_transforms_active():
            return _Transformed.apply(q, k, v, scale, backend, *inputs)
    return _forward(q, k, v, inputs, scale, backend)


@_forward.register_vmap
def _(info, axes, q, k, v, inputs, scale, backend):
    size, batch = info.batch_size, _batch_of(q, axes[0])
    q, k, v = (_fold(x, axis, size) for x, axis in zip((q, k, v), axes[:3], strict=True))
    tables = _fold_inputs(inputs, axes[3], size, batch)
    found = _forward(q, k, v, tables, scale, backend)
    return tuple(x.unflatten(0, (size, batch)) for x in found), (0, 0)


@_backward.register_vmap
def _(info, axes, grad, lse_grad, q, k, v, inputs, out, lse, scale, backend):
    size, batch = info.batch_size, _batch_of(q, axes[2])
    given = (grad, lse_grad, q, k, v)
    grad, lse_grad, q, k, v = (_fold(x, axis, size) for x, axis in zip(given, axes[:5], strict=True))
    out, lse = (_fold(x, axis, size) for x, axis in zip((out, lse), axes[6:8], strict=True))
    # --- only: plain ---
    tables = _fold_inputs(inputs, axes[5], size, batch)
    # --- only: weights ---
    tables = _fold_inputs(inputs, axes[5], size, batch, WEIGHING)
    # --- only: end ---
    found = _backward(grad, lse_grad, q, k, v, tables, out, lse, scale, backend)
    dq, dk, dv = (x.unflatten(0, (size, batch)) for x in found[:3])
    # --- only: plain ---
    return (dq, dk, dv), (0, 0, 0)
    # --- only: weights ---
    weighing = _unfold_inputs(found[3], inputs, axes[5], size, batch)
    return (dq, dk, dv, weighing), (0, 0, 0, [0] * len(weighing))
    # --- only: end ---


# --- end ---

"""The function's state argument, gates, and the operators of a module whose bodies are computed in states."""

from __future__ import annotations

import torch

NAME, INPUTS, _LABEL, _STATES, _CARRIES, WEIGHING = "", {}, "", (), False, ()


def _path(device, dtype, backend): ...
def _on(device): ...
def _plain_call(*tensors): ...
def _numbers(heads, device): ...
def _sum_dtype(x): ...
def _forward_states(*args): ...
def _backward_states(*args): ...
def _forward_torch(*args): ...
def _forward_triton(*args): ...
def _backward_torch(*args): ...
def _backward_triton(*args): ...
def _batch_of(x, axis): ...
def _divided(grad, lse_grad, lse): ...
def _fold(x, axis, size): ...
def _fold_inputs(inputs, axes, size, batch, apart=()): ...
def _unfold_inputs(found, inputs, axes, size, batch): ...


# --- begin: state ---


def _check_state(state, q, k, v):
    """Raises TypeError or ValueError if a state is not what this function returns for such tensors."""
    if state is None:
        return
    shape, dtype = _state_shape(q, v), _sum_dtype(q)
    if not isinstance(state, torch.Tensor):
        raise TypeError(f"{NAME}: state must be a tensor or None, not {type(state).__name__}")
    if tuple(state.shape) != shape:
        raise ValueError(
            f"{NAME}: state must be (batch, heads, features, value dim), here {shape}, as `return_state=True`"
            f" gives it, not {tuple(state.shape)}"
        )
    if state.dtype != dtype:
        raise TypeError(f"{NAME}: state must be {dtype}, what sums are kept in, not {state.dtype}")
    if state.device != q.device:
        raise ValueError(f"{NAME}: state must be on the device of q, {q.device}, not on {state.device}")
    if q.shape[2] != k.shape[2]:
        raise ValueError(
            f"{NAME}: with a state there are as many queries as keys, not {q.shape[2]} and {k.shape[2]}: "
            "what lies before is in the state"
        )


# --- begin: gates ---


def _with_batch(x, name, n, heads):
    """An input as (batch or 1, …)."""
    return x[None] if x.dim() == len(INPUTS[name][1](n, heads, 1)) else x


def _each_head(x, name, n, heads):
    """An input with an entry for every head, as (batch or 1, heads)."""
    return _with_batch(x, name, n, heads)


def _one_for_all(gates, numbers, heads, dtype, device):
    """Gates of some heads, a number or (batch or 1, heads of those), as (batch or 1, 1, heads)."""
    gates = (torch.zeros((1, len(numbers)), dtype=dtype, device=device) + gates).to(dtype)
    places = _numbers(numbers, device)
    return gates.new_zeros(gates.shape[0], heads).index_copy(1, places, gates)[:, None]


# --- begin: operators ---


def _state_shape(q, v):
    """The shape of a state; without a number in it where none goes from one call to the next."""
    if not _CARRIES:
        return (0,)
    body = next(body for body in _STATES if body is not None)
    return (*q.shape[:2], body.width(q.shape[3]), v.shape[3] + int(body.normalized))


# Names in PyTorch's registry are unique for this file's content and for how it was imported.
_LABEL = f"attnc::{NAME}_{DIGEST[:12]}_{''.join(c if c.isalnum() else '_' for c in __name__)}"


def _compute(q, k, v, inputs, state, scale, backend):
    """Output (batch, heads, n_q, value dim), natural log of its sum of weights (batch, heads, n_q), state.

    The last two are in fp32. Where all of a row is in states, the sum itself stands in place of its log.
    """
    triton_path = _path(q.device, q.dtype, backend) == "triton"
    with _on(q.device):
        out, lse, final = _forward_states(q, k, v, inputs, state, scale, triton_path)
        # --- only: sweeps ---
        sweep = _forward_triton if triton_path else _forward_torch
        out, lse = sweep(q, k, v, inputs, scale, (out, lse))
        # --- only: end ---
    return out.to(q.dtype), lse, final


def _compute_gradients(grad, lse_grad, state_grad, q, k, v, inputs, state, out, lse, scale, backend):
    """Gradients of q, k and v, of the inputs and gates that weigh edges, and of the state."""
    triton_path = _path(q.device, q.dtype, backend) == "triton"
    with _on(q.device):
        # --- only: weighed ---
        grad, lse_grad, lse = _divided(grad, lse_grad, lse)
        # --- only: end ---
        dq, dk, dv, found, d_state = _backward_states(
            grad, lse_grad, state_grad, q, k, v, inputs, state, out, lse, scale, triton_path
        )
        # --- only: sweeps ---
        sweep = _backward_triton if triton_path else _backward_torch
        # --- only: sweeps unweighed ---
        more = sweep(grad, lse_grad, q, k, v, inputs, out, lse, scale)
        # --- only: sweeps weighed ---
        *more, weighing = sweep(grad, lse_grad, q, k, v, inputs, out, lse, scale)
        found = dict(zip(_SWEPT, weighing, strict=True)) | found
        # --- only: sweeps ---
        dq, dk, dv = (a + b for a, b in zip((dq, dk, dv), more, strict=True))
        # --- only: end ---
        d_inputs = [
            found[i].to(inputs[i].dtype) if i in found else torch.zeros_like(inputs[i]) for i in WEIGHING
        ]
    given = (x.to(like.dtype).contiguous() for x, like in zip((dq, dk, dv), (q, k, v), strict=True))
    return *given, d_inputs, lse.new_empty(0) if d_state is None else d_state.contiguous()


_forward = torch.library.custom_op(
    f"{_LABEL}_forward",
    _compute,
    mutates_args=(),
    schema=(
        "(Tensor q, Tensor k, Tensor v, Tensor[] inputs, Tensor? state, float scale, str backend) "
        "-> (Tensor, Tensor, Tensor)"
    ),
)
_backward = torch.library.custom_op(
    f"{_LABEL}_backward",
    _compute_gradients,
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor lse_grad, Tensor state_grad, Tensor q, Tensor k, Tensor v, Tensor[] inputs, "
        "Tensor? state, Tensor out, Tensor lse, float scale, str backend) "
        "-> (Tensor, Tensor, Tensor, Tensor[], Tensor)"
    ),
)


@_forward.register_fake
def _(q, k, v, inputs, state, scale, backend):
    dtype = _sum_dtype(q)
    shape = (*q.shape[:3], v.shape[3])
    # --- only: weighed ---
    sums = (*q.shape[:3], 2)
    # --- only: unweighed ---
    sums = q.shape[:3]
    # --- only: end ---
    return (
        q.new_empty(shape),
        q.new_empty(sums, dtype=dtype),
        q.new_empty(_state_shape(q, v), dtype=dtype),
    )


@_backward.register_fake
def _(grad, lse_grad, state_grad, q, k, v, inputs, state, out, lse, scale, backend):
    like = lse.new_empty(0) if state is None else state
    return (
        *(x.new_empty(x.shape) for x in (q, k, v)),
        [inputs[i].new_empty(inputs[i].shape) for i in WEIGHING],
        like.new_empty(like.shape),
    )


def _sum_dtype(x):
    """What sums are kept in: fp32, or fp64 where the inputs are."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _save(ctx, inputs, output):
    q, k, v, tables, state, scale, backend = inputs
    ctx.save_for_backward(q, k, v, *tables, state, *output[:2])
    ctx.scale, ctx.backend = scale, backend


def _differentiate(ctx, grad, lse_grad, state_grad):
    q, k, v, *tables, state, out, lse = ctx.saved_tensors
    dq, dk, dv, weighing, d_state = _backward(
        grad, lse_grad, state_grad, q, k, v, tables, state, out, lse, ctx.scale, ctx.backend
    )
    gradients = dict(zip(WEIGHING, weighing, strict=True))
    listed = [gradients.get(i) for i in range(len(tables))]
    return dq, dk, dv, listed, None if state is None else d_state, None, None


torch.library.register_autograd(f"{_LABEL}_forward", _differentiate, setup_context=_save)


def _once(ctx, *grads):
    raise NotImplementedError(
        f"{NAME}: there are no second derivatives: use dense attention with this module's mask()"
    )


torch.library.register_autograd(f"{_LABEL}_backward", _once)


class _Gradients(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(grad, lse_grad, state_grad, q, k, v, state, out, lse, scale, backend, *tables):
        known = [x for x in (grad, lse_grad, state_grad, q, k, v, state, out, lse, *tables) if x is not None]
        run = _compute_gradients if _plain_call(*known) else _backward
        dq, dk, dv, weighing, d_state = run(
            grad, lse_grad, state_grad, q, k, v, tables, state, out, lse, scale, backend
        )
        return dq, dk, dv, d_state, *weighing

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    backward = staticmethod(_once)
    jvp = staticmethod(_no_forward_mode)


class _Eager(torch.autograd.Function):
    """The same where nothing looks at operators: PyTorch's registry takes longer than a small call."""

    @staticmethod
    def forward(ctx, q, k, v, state, scale, backend, *tables):
        found = _compute(q, k, v, tables, state, scale, backend)
        _save(ctx, (q, k, v, tables, state, scale, backend), found)
        return found

    jvp = staticmethod(_no_forward_mode)

    @staticmethod
    def backward(ctx, grad, lse_grad, state_grad):
        q, k, v, *tables, state, out, lse = ctx.saved_tensors
        further = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
        run = _Gradients.apply if further else _Gradients.forward
        given = (grad, lse_grad, state_grad, q, k, v, state, out, lse, ctx.scale, ctx.backend)
        dq, dk, dv, d_state, *weighing = run(*given, *tables)
        gradients = dict(zip(WEIGHING, weighing, strict=True))
        listed = [gradients.get(i) for i in range(len(tables))]
        return dq, dk, dv, None if state is None else d_state, None, None, *listed


class _Transformed(torch.autograd.Function):
    """The same for ``torch.func``, which does not look for the gradients of registered operators."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q, k, v, state, scale, backend, *tables):
        return _forward(q, k, v, tables, state, scale, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, state, scale, backend, *tables = inputs
        _save(ctx, (q, k, v, tables, state, scale, backend), output)

    jvp = staticmethod(_no_forward_mode)
    backward = staticmethod(_Eager.backward)


def _operate(q, k, v, inputs, state, scale, backend):
    """Output, its sums of weights and the state, differentiable by autograd and within ``torch.func``."""
    if not torch.compiler.is_compiling():
        known = (q, k, v, *inputs) if state is None else (q, k, v, *inputs, state)
        if _plain_call(*known):
            if torch.is_grad_enabled() and any(x.requires_grad for x in known):
                return _Eager.apply(q, k, v, state, scale, backend, *inputs)
            return _compute(q, k, v, inputs, state, scale, backend)
        if torch._C._are_functorch_transforms_active():
            return _Transformed.apply(q, k, v, state, scale, backend, *inputs)
    return _forward(q, k, v, inputs, state, scale, backend)


def _fold_state(x, axis, size):
    """A state, or its gradient, as ``_fold`` has tensors; one that is not there, or is empty, stays so."""
    if x is None or not _CARRIES:
        return x if x is None else x.new_empty(0)
    return _fold(x, axis, size)


def _unfold_state(x, size, batch):
    return x.unflatten(0, (size, batch)) if x.dim() > 1 else x.new_empty(size, 0)


@_forward.register_vmap
def _(info, axes, q, k, v, inputs, state, scale, backend):
    size, batch = info.batch_size, _batch_of(q, axes[0])
    q, k, v = (_fold(x, axis, size) for x, axis in zip((q, k, v), axes[:3], strict=True))
    tables = _fold_inputs(inputs, axes[3], size, batch)
    out, lse, final = _forward(q, k, v, tables, _fold_state(state, axes[4], size), scale, backend)
    found = (*(x.unflatten(0, (size, batch)) for x in (out, lse)), _unfold_state(final, size, batch))
    return found, (0, 0, 0)


@_backward.register_vmap
def _(info, axes, grad, lse_grad, state_grad, q, k, v, inputs, state, out, lse, scale, backend):
    size, batch = info.batch_size, _batch_of(q, axes[3])
    tables = _fold_inputs(inputs, axes[6], size, batch, WEIGHING)
    state_grad, state = _fold_state(state_grad, axes[2], size), _fold_state(state, axes[7], size)
    given = zip((grad, lse_grad, q, k, v, out, lse), (*axes[:2], *axes[3:6], *axes[8:10]), strict=True)
    grad, lse_grad, q, k, v, out, lse = (_fold(x, axis, size) for x, axis in given)
    found = _backward(grad, lse_grad, state_grad, q, k, v, tables, state, out, lse, scale, backend)
    weighing = _unfold_inputs(found[3], inputs, axes[6], size, batch)
    dq, dk, dv = (x.unflatten(0, (size, batch)) for x in found[:3])
    d_state = _unfold_state(found[4], size, batch)
    return (dq, dk, dv, weighing, d_state), (0, 0, 0, [0] * len(weighing), 0)


# --- end ---

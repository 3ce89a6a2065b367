"""One more axis for every tensor of a call, as ``torch.func.vmap`` wants it: put together with the batch."""

from __future__ import annotations

INPUTS, WEIGHING = {}, {}


# --- begin ---


def _batch_of(x, axis):
    """The batch size of a tensor with one more axis at ``axis``, if any."""
    return x.shape[1 if axis == 0 else 0]


def _fold(x, axis, size):
    """(…, size, …) or, shared by all, (…): with that axis in front, then as one with the batch."""
    x = x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.flatten(0, 1)


def _fold_inputs(inputs, axes, size, batch, apart=()):
    """Inputs for a batch ``size`` times as large; what is shared stays as it is, but for ``apart``."""
    # Behind the declared ones stand sinks, if there are any, or what was made of them for states.
    # --- only: states ---
    ranks = [*(len(shape(1, 1, 1)) for _, shape in INPUTS.values()), *[0] * len(inputs)]
    # --- only: sweeps ---
    ranks = [*(len(shape(1, 1, 1)) for _, shape in INPUTS.values()), 1]
    # --- only: end ---
    folded = []
    for i, (x, axis) in enumerate(zip(inputs, axes, strict=True)):
        own = x.dim() - (axis is not None) > ranks[i]
        if axis is None and not own and i not in apart:
            folded.append(x)
            continue
        x = x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
        x = x if own else x[:, None]
        folded.append(x.expand(size, batch, *x.shape[2:]).flatten(0, 1))
    return folded


# --- only: weights ---
def _unfold_inputs(found, inputs, axes, size, batch):
    """Gradients of what weighs edges, ``found`` for the larger batch, with the axis in front again."""
    unfolded = []
    for i, x in zip(WEIGHING, found, strict=True):
        x, axis = x.unflatten(0, (size, batch)), axes[i]
        own = [extent for place, extent in enumerate(inputs[i].shape) if place != axis]
        if list(x.shape[1:]) != own:  # what a whole batch shares has one gradient for it
            x = x.sum(1, keepdim=x.dim() == len(own) + 1)
        unfolded.append(x)
    return unfolded


# --- only: end ---
# --- end ---

"""What an emitted module does when it is run."""

from __future__ import annotations

import math
import sys

import torch

NAME, INPUTS = "", {}


def mask(n_q, n, heads, tables, device="cpu"): ...
def _tables(inputs, n_q, n, heads, device): ...
def _head_sets(heads): ...
def _sinks(inputs, heads, dtype, device): ...
def _not_divided(out, lse, scale): ...


_WEIGHTS = ()


# --- begin ---


# --- only: plain ---
def _dense(q, k, v, edges, inputs):
    """Masked attention by the book, in the dtype of q; rows without edges give zeros."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).masked_fill(~edges, float("-inf"))
    return torch.nan_to_num(scores.softmax(3)) @ v


# --- only: weights dense ---
def _dense(q, k, v, edges, inputs):
    """Masked and weighed attention by the book, in the dtype of q; rows without edges give zeros."""
    (heads, n_q), n = q.shape[1:3], k.shape[2]
    k, v = (x.repeat_interleave(heads // k.shape[1], 1) for x in (k, v))
    at = torch.arange(n - n_q, n, device=q.device)[:, None], torch.arange(n, device=q.device)
    given = [x.to(q.dtype) if x.is_floating_point() else x for x in inputs.values()]
    # --- only: sinks dense ---
    sinks = _sinks(dict(zip(inputs, given, strict=True)), heads, q.dtype, q.device)
    given.append(sinks)
    # --- only: weights dense ---
    tables = _tables(given, n_q, n, heads, q.device)
    tables = {name: x.to(q.dtype) if x.is_floating_point() else x for name, x in tables.items()}
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    weighed = []
    for h in range(heads):
        bodies = zip(_head_sets(heads), _WEIGHTS, strict=True)
        weights = next(weights for numbers, weights in bodies if h in numbers)
        score, own = weights.score, scores[:, h]
        if weights.maps is not None:
            own = weights.maps[0](q[:, h]) @ weights.maps[0](k[:, h]).transpose(1, 2)
        place = (*at, torch.tensor(h, device=q.device), n, heads, tables)
        weighed.append(own if score is None else score(own, *place).expand(own.shape))
    scores = torch.stack(weighed, 1).masked_fill(~edges, float("-inf"))
    # --- only: sinks dense ---
    scores = torch.cat([scores, sinks[..., None, None].expand(*scores.shape[:3], 1)], 3)
    v = torch.nn.functional.pad(v, (0, 0, 0, 1))
    # --- only: weights dense ---
    out = torch.nan_to_num(scores.softmax(3)) @ v
    # --- only: undivided dense ---
    out = _not_divided(out, scores.logsumexp(3)[..., None], 1 / math.sqrt(q.shape[3]))
    # --- only: weights dense ---
    return out


# --- only: states ---
def _dense(q, k, v, edges, inputs):
    """The torch path. In fp64 it stands for linear attention by its definition."""
    return globals()[NAME](q, k, v, **inputs, backend="torch")


# --- only: end ---


def _example_input(kind, shape, generator):
    """Something plausible for an input: a few true entries, runs of equal numbers."""
    if kind == "bool":
        return torch.rand(shape, generator=generator) < 0.1
    # --- only: dense ---
    if kind == "float":
        return 0.1 * torch.randn(shape, generator=generator)
    # --- only: states ---
    if kind == "float":  # gates are logarithms of factors up to one
        return -0.02 * torch.rand(shape, generator=generator)
    # --- only: end ---
    return (torch.rand(shape, generator=generator) < 0.05).cumsum(-1)


def main():
    """Compares outputs and gradients with dense attention in fp64, prints and judges the largest errors.

    Exits with status 1 if one is more than twice that of dense attention in the same dtype, and more than
    rounding explains.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    function, generator, failed = globals()[NAME], torch.Generator().manual_seed(0), 0
    # --- only: dense ---
    print(f"{NAME} on {device}: largest error against dense attention in fp64, and of dense attention itself")
    # --- only: states ---
    print(f"{NAME} on {device}: largest error against the torch path in fp64, and of the torch path itself")
    # --- only: end ---
    print(
        f"{'dtype':<10}{'n_q':>6}{'n':>6}{'edges':>9}  {'output':>9}{'dense':>9}  {'gradient':>9}{'dense':>9}"
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for n_q, n in ((1, 1), (77, 77), (300, 300), (100, 500)):
            shapes = ((1, 4, n_q, 64), (1, 2, n, 64), (1, 2, n, 64))
            q, k, v = (torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes)
            # --- only: states ---
            k = (k.detach() / k.detach().norm(dim=3, keepdim=True)).requires_grad_()
            # --- only: end ---
            inputs = {
                name: _example_input(kind, shape(n, 4, 64), generator).to(device)
                for name, (kind, shape) in INPUTS.items()
            }
            edges = mask(n_q, n, 4, _tables(list(inputs.values()), n_q, n, 4, device), device)
            # --- only: weights ---
            floats = [x.requires_grad_() for x in inputs.values() if x.is_floating_point()]
            # --- only: end ---
            grad = torch.randn((1, 4, n_q, 64), generator=generator).to(device, dtype)
            results = []
            for run, wide in ((function, False), (_dense, True), (_dense, False)):
                args = [x.double() if wide else x for x in (q, k, v)]
                # --- only: plain ---
                out = run(*args, **inputs) if run is function else run(*args, edges, inputs)
                given = torch.autograd.grad(out, (q, k, v), grad.to(out.dtype))
                # --- only: weights ---
                more = {
                    name: x.double() if wide and x.is_floating_point() else x for name, x in inputs.items()
                }
                out = run(*args, **more) if run is function else run(*args, edges, more)
                given = torch.autograd.grad(out, (q, k, v, *floats), grad.to(out.dtype))
                # --- only: end ---
                results.append((out.detach(), torch.cat([x.flatten() for x in given])))
            ours, exact, dense = results
            errors, yardstick, limits = [], [], []
            for x, y, z in zip(ours, dense, exact, strict=True):
                errors.append(float((x.double() - z.double()).abs().max()))
                yardstick.append(float((y.double() - z.double()).abs().max()))
                rounding = torch.finfo(dtype).eps * max(1.0, float(z.abs().max()))
                limits.append(2 * yardstick[-1] + 8 * rounding)
            good = all(error <= limit for error, limit in zip(errors, limits, strict=True))
            failed += not good
            columns = f"{errors[0]:>9.1e}{yardstick[0]:>9.1e}  {errors[1]:>9.1e}{yardstick[1]:>9.1e}"
            share = float(edges.float().mean())
            note = "" if good else "  wrong"
            print(f"{str(dtype)[6:]:<10}{n_q:>6}{n:>6}{share:>9.1%}  {columns}{note}")
    print("all within bounds" if not failed else f"{failed} of the rows are wrong")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()


# --- end ---

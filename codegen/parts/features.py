"""Feature maps of linear attention that are more than a function of one coordinate, on torch tensors."""

from __future__ import annotations

import math

import torch

# --- begin: favor ---

_FAVOR = {}


def _directions(count, seed, dim, like):
    """The directions of random features (Choromanski et al. 2021): (count, dim), orthogonal in blocks.

    They are the same on every device, because they are always drawn on the host; the rows of a block are as
    long as independent normal vectors would be.
    """
    key = (count, seed, dim, like.device, like.dtype)
    if key not in _FAVOR:
        generator = torch.Generator().manual_seed(seed)
        blocks = []
        for _ in range(-(-count // dim)):
            normal = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
            rows, upper = torch.linalg.qr(normal)
            rows = rows * torch.where(upper.diagonal() < 0, -1.0, 1.0)
            lengths = torch.randn(dim, dim, generator=generator, dtype=torch.float64).norm(dim=1)
            blocks.append(rows.T * lengths[:, None])
        _FAVOR[key] = torch.cat(blocks)[:count].to(like.device, like.dtype)
    return _FAVOR[key]


def _favor(x, count, seed):
    """Positive features whose product is ``exp`` of the dot product, in the mean."""
    found = torch.matmul(x, _directions(count, seed, x.shape[-1], x).T)
    return found.sub_(x.square().sum(-1, keepdim=True) / 2).exp_().mul_(count**-0.5)


def _favor_gradient(x, grad, count, seed):
    pull = grad * _favor(x, count, seed)
    found = torch.matmul(pull, _directions(count, seed, x.shape[-1], x))
    return found.sub_(x * pull.sum(-1, keepdim=True))


# --- begin: taylor ---


def _taylor(x):
    """``1``, ``x`` and the products of two coordinates over the root of two (Arora et al. 2024)."""
    second = (x[..., :, None] * x[..., None, :]).flatten(-2).mul_(math.sqrt(0.5))
    return torch.cat([torch.ones_like(x[..., :1]), x, second], -1)


def _taylor_gradient(x, grad):
    dim = x.shape[-1]
    second = grad[..., 1 + dim :].unflatten(-1, (dim, dim))
    both = torch.matmul(second + second.transpose(-1, -2), x[..., None])[..., 0]
    return both.mul_(math.sqrt(0.5)).add_(grad[..., 1 : 1 + dim])


# --- begin: cosine ---


def _angles(place, length, like):
    """Of positions; whole turns are left out, which in fp32 would cost digits."""
    return (place % (4 * length)).to(like.dtype) * (math.pi / 2 / length)


def _cosine(x, place, length):
    """``relu``, turned by the position (Qin et al. 2022)."""
    x, angles = torch.relu(x), _angles(place, length, x)
    return torch.cat([x * angles.cos(), x * angles.sin()], -1)


def _cosine_gradient(x, place, grad, length):
    angles = _angles(place, length, x)
    first, second = grad.chunk(2, -1)
    return (first * angles.cos() + second * angles.sin()).masked_fill_(x <= 0, 0.0)


def _turned(state, n, length):
    """A state whose positions count from where the next piece begins, ``n`` positions later."""
    angle = math.pi / 2 / length * (n % (4 * length))
    first, second = state.chunk(2, 2)
    return torch.cat(
        [
            first * math.cos(angle) + second * math.sin(angle),
            second * math.cos(angle) - first * math.sin(angle),
        ],
        2,
    )


# --- end ---

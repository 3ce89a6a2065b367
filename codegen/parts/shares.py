"""Sweeps in shares: where tiles are too few to fill a device, several programs sweep for one of them."""

from __future__ import annotations

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def _jit(function): ...
def _exp(x): ...


# --- begin: kernels ---


@_jit
def _share_of(turn, split, shares, SHARES: tl.constexpr):
    """Tile, share and number of shares of a program; all but the first ``split`` tiles come whole."""
    if SHARES:
        whole = turn >= split * shares
        tile = tl.where(whole, turn - split * (shares - 1), turn // shares)
        found = tile, tl.where(whole, 0, turn % shares), tl.where(whole, 1, shares)
    else:
        found = turn, 0, 1
    return found


@_jit
def _share(begin, end, share, shares, BLOCK: tl.constexpr, SHARES: tl.constexpr):
    """The places of ``[begin, end)`` that one share takes: whole tiles, as many as any other share."""
    if SHARES:
        tiles = (tl.maximum(end - begin, 0) + BLOCK - 1) // BLOCK
        size = (tiles + shares - 1) // shares * BLOCK
        found = begin + share * size, tl.minimum(begin + (share + 1) * size, end)
    else:
        found = begin, end
    return found


@_jit
def _store_share(found, cell, stored, value, BLOCK: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Stores what is wanted of a (BLOCK, BLOCK_DIM) tile where all shares lie one after the other."""
    row, column = tl.arange(0, BLOCK), tl.arange(0, BLOCK_DIM)
    pointers = found + tl.cast(cell, tl.int64) * (BLOCK * BLOCK_DIM) + row[:, None] * BLOCK_DIM
    tl.store(pointers + column[None, :], value, mask=stored[:, None])


@_jit
def _store_share_sums(found, cell, stored, row_max, logs, BLOCK: tl.constexpr):
    """Stores what the rows of a share came to, for ``_join_kernel``."""
    # --- only: plain ---
    _store_share(found, cell, stored, logs[:, None], BLOCK, 1)
    # --- only: weights ---
    start = tl.cast(cell, tl.int64) * BLOCK
    _store_sums(found + start, start, tl.arange(0, BLOCK), stored, row_max, logs)
    # --- only: end ---


@_jit
def _store_rows(rows, cell, stored, row, BLOCK: tl.constexpr):
    """Notes to which rows of the result those of a tile belong."""
    tl.store(rows + tl.cast(cell, tl.int64) * BLOCK + tl.arange(0, BLOCK), row, mask=stored)


@_jit
def _joined_rows(
    rows, split, shares, head_start, head_step, head_count, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """Of ``ROWS`` rows of a tile: places in its first share, batch, head, rows, and which there are."""
    program = tl.program_id(0)
    tile = (program // (BLOCK // ROWS)).to(tl.int64)
    place = tile * shares * BLOCK + program % (BLOCK // ROWS) * ROWS + tl.arange(0, ROWS)
    row = tl.load(rows + place)
    head = head_start + head_step * (tile // split % head_count)
    return place, tile // split // head_count, head, row.to(tl.int64), row >= 0


@_jit
def _join_kernel(
    shares_out_ptr, shares_lse_ptr, shares_row_ptr, out_ptr, lse_ptr,
    out_batch, out_head, out_row,
    n_q, heads, split, shares, head_start, head_step, head_count,
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Joins what the shares of a tile found in their order, in fp32."""
    place, batch, head, row, inside = _joined_rows(
        shares_row_ptr, split, shares, head_start, head_step, head_count, BLOCK, ROWS
    )
    if tl.sum(inside.to(tl.int32), 0) == 0:
        return
    column = tl.arange(0, BLOCK_VALUE_DIM)
    total = tl.zeros([ROWS, BLOCK_VALUE_DIM], dtype=tl.float32)
    row_max = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([ROWS], dtype=tl.float32)
    for share in tl.range(0, shares):
        found = place + share * BLOCK
        # --- only: plain ---
        share_max = tl.load(shares_lse_ptr + found, mask=inside, other=float("-inf"))
        # --- only: weights ---
        share_max, share_sum = _load_sums(shares_lse_ptr, 0, found, inside)
        # --- only: end ---
        pointers = shares_out_ptr + found[:, None] * BLOCK_VALUE_DIM + column[None, :]
        value = tl.load(pointers, mask=inside[:, None], other=0.0)
        new_max = tl.maximum(row_max, share_max)
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        fade, weight = _exp(row_max - shift), _exp(share_max - shift)
        # --- only: weights ---
        weight *= share_sum
        # --- only: end ---
        total = total * fade[:, None] + value * weight[:, None]
        row_sum = row_sum * fade + weight
        row_max = new_max
    some = row_sum > 0.0
    result = total / tl.where(some, row_sum, 1.0)[:, None]
    pointers = out_ptr + batch * out_batch * UNIT + head * out_head * UNIT + row * out_row * UNIT
    wanted = inside[:, None] & (column < VALUE_DIM)[None, :]
    tl.store(pointers[:, None] + column[None, :], result.to(out_ptr.dtype.element_ty), mask=wanted)
    logs = _log_sums(row_max, row_sum)
    start = (batch * heads + head) * n_q
    _store_sums(lse_ptr + start, start, row, inside, row_max, logs)


@_jit
def _sum_kernel(
    shares_sum_ptr, shares_row_ptr, sum_ptr,
    sum_batch, sum_head, sum_row,
    split, shares, head_start, head_step, head_count,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """Adds up what the shares of a tile found, in their order, in fp32. ADD: to what is there already."""
    place, batch, head, row, inside = _joined_rows(
        shares_row_ptr, split, shares, head_start, head_step, head_count, BLOCK, ROWS
    )
    if tl.sum(inside.to(tl.int32), 0) == 0:
        return
    column = tl.arange(0, BLOCK_DIM)
    total = tl.zeros([ROWS, BLOCK_DIM], dtype=tl.float32)
    for share in tl.range(0, shares):
        found = place + share * BLOCK
        pointers = shares_sum_ptr + found[:, None] * BLOCK_DIM + column[None, :]
        total += tl.load(pointers, mask=inside[:, None], other=0.0)
    pointers = sum_ptr + batch * sum_batch * UNIT + head * sum_head * UNIT + row * sum_row * UNIT
    pointers = pointers[:, None] + column[None, :]
    wanted = inside[:, None] & (column < DIM)[None, :]
    if ADD:
        total += tl.load(pointers, mask=wanted, other=0.0)
    tl.store(pointers, total.to(sum_ptr.dtype.element_ty), mask=wanted)


# --- begin: launch ---

# What a large GPU has room for at once, two programs on every multiprocessor: where there are fewer, tiles
# come in shares.
_PROGRAMS = 256
# Shares of fewer steps would spend their time on being joined.
_SHARE_STEPS = 8
_MOST_SHARES = 64
# Tiles that have far more to do than others come in shares of so many steps, however many tiles there are.
_HEAVY_STEPS = 32
# Of chosen rows it isn't known how many there are, and of so many programs' tiles shares are kept.
_SHARED_PROGRAMS = 1024
# Rows that one program joins.
_JOINED_ROWS = 16


def _shares(places, block, tiles, heads, counted, heavy):
    """How many tiles come in shares and in how many: from shapes alone, so that sums are always the same.

    places: how many a tile sweeps at the most, ``block`` at a time. heads: of all batches. counted: whether
    ``tiles`` is their number, and not only the most that there can be. heavy: so many have far more to do,
    and come first.
    """
    known = tiles if counted else 1
    shares = min(_PROGRAMS // max(1, known * heads), -(-places // (_SHARE_STEPS * block)), _MOST_SHARES)
    if shares < 2:
        shares = min(-(-places // (_HEAVY_STEPS * block)), _MOST_SHARES)
        return (heavy, shares) if heavy and shares > 1 else (0, 1)
    return (tiles if counted else min(tiles, max(1, _SHARED_PROGRAMS // (shares * heads)))), shares


class _Cells:
    """Room for what the shares of one launch find, and for which rows of the result it belongs to.

    given: what the launch is given. found: its results' names. heads: which, as start, step and count. tiles:
        how many of a head come in shares.
    """

    def __init__(self, given, found, heads, tiles, shares, block):
        self.given, self.names = given, found
        self.block, self.steps = block, {"split": tiles, "shares": shares} | heads
        first = given[f"{found[0]}_ptr"]
        self.tiles = first.shape[0] * heads["head_count"] * tiles
        shape = (self.tiles * shares, block)
        self.found = {"row": torch.full(shape, -1, dtype=torch.int32, device=first.device)}
        for name in found:
            # --- only: plain ---
            dim = 1 if name == "lse" else triton.next_power_of_2(max(16, given[f"{name}_ptr"].shape[3]))
            # --- only: weights ---
            dim = 2 if name == "lse" else triton.next_power_of_2(max(16, given[f"{name}_ptr"].shape[3]))
            # --- only: end ---
            self.found[name] = torch.empty((*shape, dim), dtype=torch.float32, device=first.device)

    def arguments(self):
        kept = {f"shares_{name}_ptr": x for name, x in self.found.items()}
        return kept | {name: self.steps[name] for name in ("split", "shares")}

    def join(self, add):
        """Joins outputs by their log-sum-exps, adds up gradients; ``add``: to what is there already."""
        grid = (self.tiles * (self.block // _JOINED_ROWS),)
        if not grid[0]:
            return
        for name in self.names[:1] if "lse" in self.names else self.names:
            kernel, what, dim = _sum_kernel, "sum", "DIM"
            if "lse" in self.names:
                kernel, what, dim = _join_kernel, "out", "VALUE_DIM"
            given = {f"{what}_{of}": self.given[f"{name}_{of}"] for of in ("ptr", "batch", "head", "row")}
            x, found = given[f"{what}_ptr"], self.found[name]
            given |= {f"shares_{what}_ptr": found, "shares_row_ptr": self.found["row"]}
            given |= self.steps | {dim: x.shape[3], f"BLOCK_{dim}": found.shape[2], "BLOCK": self.block}
            given |= {"UNIT": self.given["UNIT"], "ROWS": _JOINED_ROWS}
            if kernel is _sum_kernel:
                kernel[grid](ADD=add, **given)
            else:
                given |= {"shares_lse_ptr": self.found["lse"], "lse_ptr": self.given["lse_ptr"]}
                kernel[grid](n_q=x.shape[2], heads=x.shape[1], **given)


# --- end ---

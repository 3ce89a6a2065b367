"""Launching the Triton kernels: strides, tables, grids, tile sizes; the same for every pattern."""

from __future__ import annotations

import math

import torch

try:
    import triton
except ImportError:
    triton = None

NAME = ""
_QUERY_PASSES, _KEY_PASSES, _JOINED, _ALL_KEYS = (), (), False, False
_TILES, _SMALL_TILES, _HIP_TILES, _MEASURED_TILES = {}, {}, {}, {}
begun = ()


def _rows_contiguous(x): ...
def _sum_dtype(x): ...
def _head_sets(heads): ...
def _progressions(heads): ...
def _tables(inputs, n_q, n, heads, device): ...
def _pack(member): ...
def _tile_lists(*args): ...
def _cached(make, *args): ...
def _shares(places, block, tiles, heads, counted, heavy): ...
def _Cells(given, found, heads, split, shares, block): ...


# --- begin: sizes ---


def _tile_sizes(kind, dim, itemsize, table, shape="wide"):
    """BLOCK_M queries by BLOCK_N keys, warps, pipeline stages: a fixed table, nothing is tuned at run time.

    kind: "forward", "query" (gradients) or "key" (gradients). dim: the larger padded head dim.
    shape: "narrow" for a kernel whose sweeps are short, so that large tiles would mostly be masked; "long"
        for one whose sweeps are long, so that steps of many keys are seldom masked; "slim"
        for one that reads something for each pair, at addresses of 64 bits, or goes through queries by many
        digits; "alone" for one without products of matrices, whose rows are all taken one by one; else
        "wide".
    """
    level = (dim > 64) + (dim > 128) + (3 if itemsize == 4 else 0)
    rows = table.get(shape, {}).get(kind, ())
    block_m, block_n, warps, stages = rows[level] if level < len(rows) else table["wide"][kind][level]
    if dim <= 32:
        warps = 4  # a narrow tile has too little for more to fetch 16 bytes each
        block_n = min(block_n, 64)  # and as few warps would spill what larger tiles take
    return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": stages} | _FUSED


# --- begin: launch ---

# Products and sums are fused: without it a step of the backward takes up to a tenth more instructions.
_FUSED = {"enable_fp_fusion": True}


def _tiles_of(device):
    """The table of tile sizes for a device."""
    if device.type != "cuda":
        return _TILES
    if torch.version.hip:
        return _HIP_TILES
    measured = _MEASURED_TILES.get(torch.cuda.get_device_capability(device))
    if measured is not None:
        return measured
    properties = torch.cuda.get_device_properties(device)
    small = getattr(properties, "shared_memory_per_block_optin", 0) < 100 * 1024
    return _SMALL_TILES if small else _TILES


class _Launcher:
    """What all launches of one call share: shapes, strides, tables, tile sizes."""

    def __init__(self, q, k, v, inputs, scale):
        self.q, self.k, self.v = map(_rows_contiguous, (q, k, v))
        self.batch, self.heads, self.n_q, self.dim = q.shape
        self.key_heads, self.n, self.value_dim = k.shape[1], k.shape[2], v.shape[3]
        self.scale, self.device = scale, q.device
        self.tables = _tables(inputs, self.n_q, self.n, self.heads, q.device)
        # --- only: members ---
        self.packed = {}
        # --- only: lists ---
        self.lists = {}
        # --- only: end ---

    def arguments(self, **tensors):
        """Pointers and strides of (batch, heads, length, dim) tensors, and what else every kernel takes.

        Strides are counted in units of UNIT elements, so that the compiler knows what they are multiples of
        without ever specializing on a length.
        """
        tensors = {"q": self.q, "k": self.k, "v": self.v, **tensors}
        strided = {name: x for name, x in tensors.items() if x.dim() == 4}
        unit = _unit(*strided.values())
        given = {f"{name}_ptr": x for name, x in tensors.items()}
        for name, x in strided.items():
            for axis, stride in zip(("batch", "head", "row"), x.stride(), strict=False):
                given[f"{name}_{axis}"] = stride // unit
        return given | {
            "scale": self.scale,
            "n_q": self.n_q,
            "n": self.n,
            "heads": self.heads,
            "group": self.heads // self.key_heads,
            "UNIT": unit,
            "DIM": self.dim,
            "VALUE_DIM": self.value_dim,
            "BLOCK_DIM": max(16, triton.next_power_of_2(self.dim)),
            "BLOCK_VALUE_DIM": max(16, triton.next_power_of_2(self.value_dim)),
            "PRECISION": _precision(self.q.dtype),
        }

    def sizes(self, kind, shape):
        dim = max(16, triton.next_power_of_2(max(self.dim, self.value_dim)))
        return _tile_sizes(kind, dim, self.q.element_size(), _tiles_of(self.device), shape)

    def needs(self, needed, side, sizes):
        """The tables that a kernel reads: pointers, batch strides, row numbers."""
        given = {}
        for kind, name, size in needed:
            table = self.tables[name]
            match kind:
                case "table":
                    given |= {f"{name}_ptr": table, f"{name}_batch": _batch_stride(table)}
                # --- only: members ---
                case "members":
                    if name not in self.packed:
                        self.packed[name] = _pack(table)
                    for part, x in zip(("index", "rank"), self.packed[name], strict=True):
                        given |= {f"{name}_{part}_ptr": x, f"{name}_{part}_batch": _batch_stride(x)}
                # --- only: picks ---
                case "picks":
                    given |= {f"{name}_ptr": table, f"{name}_row": table.shape[1]}
                # --- only: lists ---
                case "lists":
                    key = (name, sizes["BLOCK_M"], sizes["BLOCK_N"])
                    if key not in self.lists:
                        first_row = (self.n - self.n_q) // size
                        lengths = (size, self.n_q, self.n, sizes["BLOCK_M"], sizes["BLOCK_N"])
                        self.lists[key] = _cached(_tile_lists, table, first_row, *lengths)
                    offsets, tiles = self.lists[key][:2] if side == "query" else self.lists[key][2:]
                    given |= {f"{name}_offsets_ptr": offsets, f"{name}_tiles_ptr": tiles}
                    given[f"{name}_tiles_row"] = tiles.shape[1]
                # --- only: end ---
        return given

    def run(self, kernel, side, needed, tiles_of, shape, places, numbers, given, kind, found, add):
        """One launch for every arithmetic progression of heads.

        places: where tiles may come in shares, how many positions one sweeps, whether their number is known,
        and how many positions have far more to do. found: the results' names; add: whether they hold
        something that is added to.
        """
        sizes = self.sizes(kind, shape)
        own, other = ("BLOCK_M", "BLOCK_N") if side == "query" else ("BLOCK_N", "BLOCK_M")
        tiles = tiles_of(self.n_q, self.n, sizes[own]) if self.n_q else 0
        given = given | self.needs(needed, side, sizes) | sizes | {"tiles": tiles}
        for start, step, count in _progressions(numbers):
            heads, turns = (count if side == "query" else self.key_heads), tiles
            launch = given | {"head_start": start, "head_step": step, "head_count": count}
            if side == "query":
                launch["abreast"] = math.gcd(count, max(1, self.heads // self.key_heads // step))
            # --- only: shares ---
            if places is not None:
                longest, counted, heavy = places
                heavy = min(tiles, -(-heavy // sizes[own]))
                split, shares = _shares(
                    longest(self.n), sizes[other], tiles, self.batch * heads, counted, heavy
                )
                numbered = (start, step, count) if side == "query" else (0, 1, heads)
                named = dict(zip(("head_start", "head_step", "head_count"), numbered, strict=True))
                cells = _Cells(given, found, named, split, shares, sizes[own])
                turns += split * (shares - 1)
                launch |= cells.arguments() | ({"SHARES": shares > 1} if counted else {})
            # --- only: end ---
            if turns * self.batch * heads:
                kernel[(turns * self.batch * heads,)](**launch)
                # --- only: shares ---
                if places is not None:
                    cells.join(add)
                # --- only: end ---


def _unit(*tensors):
    """What strides of (…, length, dim) tensors are counted in: 16 elements where that divides all of them."""
    return 16 if all(s % 16 == 0 for x in tensors for s in (*x.stride()[:-1], x.shape[-1])) else 1


def _precision(dtype):
    """How products of fp32 are made: in full, unless ``torch.set_float32_matmul_precision`` asks for less."""
    full = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return "ieee" if full else "tf32"


def _batch_stride(table):
    return 0 if table.shape[0] == 1 else table.stride(0)


def _forward_triton(q, k, v, inputs, scale):
    call = _Launcher(q, k, v, inputs, scale)
    dtype = torch.float32 if _JOINED else q.dtype
    # Every row is begun by one pass, so that nothing need be there before.
    out = torch.empty((*q.shape[:3], v.shape[3]), dtype=dtype, device=q.device)
    # --- only: plain ---
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    # --- only: weights ---
    lse = torch.empty((*q.shape[:3], 2), dtype=torch.float32, device=q.device)
    # --- only: sinks ---
    lse[..., 0], lse[..., 1] = call.tables["sinks"][..., None], 0.0
    # --- only: states ---
    # What is in states is there before any edge that is swept.
    out.copy_(begun[0])
    # --- only: states plain ---
    lse.copy_(begun[1])
    # --- only: states weights ---
    lse[..., 0], lse[..., 1] = begun[1], 0.0
    # --- only: end ---
    # --- only: plain ---
    given = call.arguments(out=out, lse=lse)
    # --- only: weights ---
    given = call.arguments(out=out, lse=lse.flatten(2))  # whose axis of two is no stride of vectors
    # --- only: end ---
    for numbers, passes in zip(_head_sets(call.heads), _QUERY_PASSES, strict=True):
        for kernel, _, *rest, _ in passes:
            call.run(kernel, "query", *rest, numbers, given, "forward", ("out", "lse"), False)
    return out.to(q.dtype), lse


def _backward_triton(grad, lse_grad, q, k, v, inputs, out, lse, scale):
    call = _Launcher(q, k, v, inputs, scale)
    grad = _rows_contiguous(grad)
    dq = torch.empty(q.shape, dtype=torch.float32 if _JOINED else q.dtype, device=q.device)
    # --- only: states ---
    dq.zero_()  # some heads may have no edge that is swept
    # --- only: end ---
    delta = torch.empty_like(lse)
    given = call.arguments(grad=grad, out=out, dq=dq, lse=lse, lse_grad=lse_grad.contiguous(), delta=delta)
    # --- only: weights ---
    sums = _EntrySums(call)
    given |= {f"{name}_ptr": x for name, x in sums.rows.items()}
    # --- only: end ---
    for numbers, passes in zip(_head_sets(call.heads), _QUERY_PASSES, strict=True):
        for _, kernel, *rest, continues in passes:
            call.run(kernel, "query", *rest, numbers, given, "query", ("dq",), continues)
    # Several launches add up in fp32, in a fixed order; a single one writes the result.
    launches = sum(
        len(_progressions(numbers)) * len(passes)
        for numbers, passes in zip(_head_sets(call.heads), _KEY_PASSES, strict=True)
    )
    dtypes = (k.dtype, v.dtype) if launches == 1 else (torch.float32, torch.float32)
    make = torch.empty if launches == 1 and _ALL_KEYS and call.n_q else torch.zeros
    dk, dv = (make(x.shape, dtype=dtype, device=x.device) for x, dtype in zip((k, v), dtypes, strict=True))
    given = call.arguments(grad=grad, dk=dk, dv=dv, lse=lse, delta=delta) | {"ADD": launches > 1}
    # --- only: weights ---
    given |= {f"{name}_ptr": x for name, x in sums.columns.items()}
    # --- only: end ---
    for numbers, passes in zip(_head_sets(call.heads), _KEY_PASSES, strict=True):
        for kernel, *rest in passes:
            call.run(kernel, "key", *rest, numbers, given, "key", ("dk", "dv"), launches > 1)
    # --- only: plain ---
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
    # --- only: weights ---
    totals = _Totals(inputs, call.tables)
    sums.add_to(totals, call)
    # --- only: pairs ---
    _add_pairs(totals, call, grad, lse, delta)
    # --- only: weights ---
    totals.add_sinks(lse, delta)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), totals.results()
    # --- only: end ---


# --- end ---

"""Linear attention through states: launching the kernels."""

from __future__ import annotations

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def _directions(*args): ...
def _rows_contiguous(*args): ...
def _precision(*args): ...
def _unit(*args): ...


# --- begin ---


def _kernel_chunk(width):
    """How many positions a chunk has: so many that its state, in fp32, is no larger than its values.

    Kernels write states to memory and read them again; what a chunk's own pairs take grows with it.
    """
    return min(1024, max(64, triton.next_power_of_2(2 * width)))


class _LinearLauncher:
    """What all launches for one body and progression of heads share: shapes, tables, tile sizes."""

    def __init__(self, body, moved, inner, outer):
        self.body, self.moved, self.inner, self.outer = body, moved, inner, outer
        self.q, self.k, self.v = map(_rows_contiguous, (moved.q, moved.k, moved.v))
        self.batch, self.count, self.n_q, self.dim = self.q.shape
        self.n, self.value_dim, self.device = moved.n, self.v.shape[3], self.q.device
        self.width = body.width(self.dim)
        self.gated, self.segmented = moved.gates is not None, moved.begin is not None
        self.chunk = _kernel_chunk(self.width)
        self.chunks = -(-self.n // self.chunk)
        self.behind = -(-(body.near - 1) // self.chunk) if body.near > 1 else 0
        crowded = self.gated or body.kind != "elementwise"
        self.sizes = _linear_sizes(
            body.kind, self.dim, self.value_dim, 2 if self.q.dtype == torch.bfloat16 else 4, crowded
        )
        block = self.sizes["BLOCK_F"]
        self.blocks = {"taylor": self.dim + 2, "cosine": 2}.get(body.kind, -(-self.width // block))
        self.state = self.blocks * block * (self.value_dim + body.normalized)
        self.table = self.q if body.kind != "favor" else _directions(
            self.width, body.seed, self.dim, torch.empty(0, dtype=torch.float32, device=self.device)
        )  # fmt: skip
        start, step, _ = moved.numbers
        self.numbers = {
            "head_start": start,
            "head_step": step,
            "head_count": self.count,
            "group": moved.group,
        }
        self.begin = {"begin_ptr": moved.begin if self.segmented else self.q}
        self.begin["begin_batch"] = (
            moved.begin.stride(0) * (moved.begin.shape[0] > 1) if self.segmented else 0
        )
        self.features = {
            "DIM": self.dim,
            "BLOCK_DIM": self.sizes["BLOCK_DIM"],
            "WIDTH": self.width,
            "BLOCK_F": block,
            "BLOCKS": self.blocks,
            "KIND": body.kind,
            "LENGTH": body.length,
            # Sums of features, and gradients divided by them, may be more than fp16 can hold, or less.
            "TYPE": tl.bfloat16 if self.q.dtype == torch.bfloat16 else tl.float32,
            "PRECISION": _precision(self.q.dtype),
        }
        self.values = {"VALUE_DIM": self.value_dim, "BLOCK_V": self.sizes["BLOCK_V"], "STATE": self.state}
        self.rules = {
            "CHUNK": self.chunk,
            "GATED": self.gated,
            "SEGMENTED": self.segmented,
            "EXCLUSIVE": body.exclusive,
        }
        self.relation = {
            "CAUSAL": body.causal,
            "LEAST": max(body.near, int(body.exclusive)),
            "BEHIND": self.behind,
        }
        self.lengths = {"n_q": self.n_q, "n": self.n, "chunks": self.chunks}
        self.sums = self._sums()

    def empty(self, *shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, *shape):
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def tiles(self, size, queries):
        """How many tiles of positions there are, from the first that holds a query."""
        return -(-self.n // size) - ((self.n - self.n_q) // size if queries else 0)

    def launch(self, name, programs, warps=4, stages=2, **given):
        if programs:
            self.body.kernels[name][(programs,)](num_warps=warps, num_stages=stages, **_FUSED, **given)

    def strides(self, **tensors):
        """Pointers and strides of (batch, heads, length, dim) tensors; these are counted in units of UNIT."""
        unit = _unit(*tensors.values())
        given = {"UNIT": unit}
        for name, x in tensors.items():
            given[f"{name}_ptr"] = x
            for axis, stride in zip(("batch", "head", "row"), x.stride(), strict=False):
                given[f"{name}_{axis}"] = stride // unit
        return given

    def _sums(self):
        gates = self.moved.gates
        if gates is None:
            return self.q
        sums = self.empty(self.batch * self.count, 2, self.chunks * self.chunk)
        batch, row, head = (s * (size > 1) for s, size in zip(gates.stride(), gates.shape, strict=True))
        self.launch(
            "sums",
            self.batch * self.count * self.chunks,
            gate_ptr=gates,
            sums_ptr=sums,
            gate_batch=batch,
            gate_head=head,
            gate_row=row,
            n=self.n,
            chunks=self.chunks,
            head_count=self.count,
            CHUNK=self.chunk,
            STEADY=gates.shape[1] == 1,
        )
        return sums

    def added(self, x, y, queries, weight, pull):
        """What each chunk adds to states, (batch * heads, chunks, state)."""
        states = self.empty(self.batch * self.count, self.chunks, self.state)
        values = -(-self.value_dim // self.sizes["BLOCK_V"])
        self.launch(
            "states",
            self.batch * self.count * self.chunks * values * self.blocks,
            warps=self.sizes["warps"],
            **self.strides(x=x, y=y),
            states_ptr=states,
            sums_ptr=self.sums,
            weight_ptr=weight,
            pull_ptr=pull,
            table_ptr=self.table,
            inner=self.inner,
            BLOCK_N=self.sizes["BLOCK_N"],
            NORMALIZED=self.body.normalized,
            QUERIES=queries,
            **(self.lengths | self.begin | self.numbers | self.features | self.values | self.rules),
        )
        return states

    def scanned(self):
        """The states before each chunk, and behind the last."""
        states = self.added(self.k, self.v, False, self.q, self.q)
        final = self.empty(self.batch * self.count, self.state)
        given = self.moved.state
        self.launch(
            "scan",
            self.batch * self.count * -(-self.state // 512),
            states_ptr=states,
            state_ptr=final if given is None else self.inward(given),
            final_ptr=final,
            sums_ptr=self.sums,
            n=self.n,
            chunks=self.chunks,
            head_count=self.count,
            STATE=self.state,
            BLOCK=512,
            CHUNK=self.chunk,
            GATED=self.gated,
            SEGMENTED=self.segmented,
            GIVEN=given is not None,
            **self.begin,
        )
        return states, final

    def inward(self, state):
        """A state as callers have it, (batch, heads, features, columns), in the blocks that kernels read."""
        block, dim = self.sizes["BLOCK_F"], self.dim
        x = state.float()
        if self.body.kind == "taylor":
            ones = torch.nn.functional.pad(state[:, :, :1].float(), (0, 0, 0, dim - 1))
            x = torch.cat([ones, state[:, :, 1:].float()], 2)
        if self.body.kind in ("taylor", "cosine"):
            x = torch.nn.functional.pad(x.unflatten(2, (-1, dim)), (0, 0, 0, block - dim)).flatten(2, 3)
        else:
            x = torch.nn.functional.pad(x, (0, 0, 0, self.blocks * block - self.width))
        parts = [x[..., : self.value_dim].flatten(2)]
        if self.body.normalized:
            parts.append(x[..., self.value_dim])
        return torch.cat(parts, 2).flatten(0, 1).contiguous()

    def outward(self, state):
        """The inverse of ``inward``."""
        rows, dim = self.blocks * self.sizes["BLOCK_F"], self.dim
        x = state[:, : rows * self.value_dim].unflatten(1, (rows, self.value_dim))
        if self.body.normalized:
            x = torch.cat([x, state[:, rows * self.value_dim :, None]], 2)
        if self.body.kind in ("taylor", "cosine"):
            x = x.unflatten(1, (self.blocks, -1))[:, :, :dim].flatten(1, 2)
        if self.body.kind == "taylor":
            x = torch.cat([x[:, :1], x[:, dim:]], 1)
        return x[:, : self.width].unflatten(0, (self.batch, self.count)).contiguous()

    def pairs(self):
        """What all kernels over pairs of tiles take."""
        tables = {"sums_ptr": self.sums, "table_ptr": self.table, "inner": self.inner}
        sizes = {"BLOCK_M": self.sizes["BLOCK_M"], "BLOCK_N": self.sizes["BLOCK_N"]}
        given = tables | sizes | self.lengths | self.begin | self.numbers | self.features | self.values
        return given | self.rules | self.relation


def _linear_sizes(kind, dim, value_dim, itemsize, crowded):
    """Tiles of queries and keys, of features and of values: a fixed table, nothing is tuned at run time.

    itemsize: of the operands of products. crowded: gates or features take registers, too; backward, and with
    gates, the other side's tiles are then half as long.
    """
    block_dim = max(16, triton.next_power_of_2(dim))
    wide = block_dim > 128 or itemsize == 4
    block_v = min(max(16, triton.next_power_of_2(value_dim)), 32 if wide else 64)
    rows = 16 if block_dim > 128 and itemsize == 4 else 32 if wide else 64
    return {
        "BLOCK_DIM": block_dim,
        "BLOCK_F": block_dim if kind != "favor" else 32 if wide else 64,
        "BLOCK_V": block_v,
        "BLOCK_M": rows,
        "BLOCK_N": rows,
        "KEYS": min(rows, 32) if kind == "favor" else rows,  # of which gradients are made at a time
        "OTHER": min(rows, 32) if crowded or block_dim > 64 else rows,
        "warps": 8 if block_dim > 64 or kind in ("favor", "cosine") else 4,
    }


def _linear_forward_triton(body, moved, inner, outer):
    call = _LinearLauncher(body, moved, inner, outer)
    states, final = call.scanned()
    out = call.empty(*call.q.shape[:3], call.value_dim, dtype=call.q.dtype if body.summed else torch.float32)
    total = call.zeros(*call.q.shape[:3])
    tiles = call.tiles(call.sizes["BLOCK_M"], True) if call.n_q else 0
    call.launch(
        "outputs",
        call.batch * call.count * tiles * -(-call.value_dim // call.sizes["BLOCK_V"]),
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v),
        out_ptr=out,
        total_ptr=total,
        states_ptr=states if body.causal else final,
        outer=outer,
        tiles=tiles,
        NORMALIZED=body.normalized,
        SUMMED=body.summed,
        **(call.pairs() | {"BLOCK_N": call.sizes["OTHER" if call.gated else "BLOCK_N"]}),
    )
    return out, total, call.outward(final)


def _linear_backward_triton(body, moved, grad, lse_grad, out, lse, state_grad, inner, outer):
    call = _LinearLauncher(body, moved, inner, outer)
    grad, out = _rows_contiguous(grad), _rows_contiguous(out)
    states, final = call.scanned()
    rows = (call.batch, call.count, call.n_q)
    weight, pull = call.empty(*rows), call.empty(*rows)
    tiles = -(-call.n_q // 32)
    call.launch(
        "rows",
        call.batch * call.count * tiles,
        **call.strides(grad=grad, out=out),
        total_ptr=lse.contiguous(),
        total_grad_ptr=lse_grad.contiguous(),
        weight_ptr=weight,
        pull_ptr=pull,
        outer=outer,
        n_q=call.n_q,
        tiles=tiles,
        head_count=call.count,
        VALUE_DIM=call.value_dim,
        BLOCK_VALUE_DIM=max(16, triton.next_power_of_2(call.value_dim)),
        BLOCK_M=32,
        NORMALIZED=body.normalized,
        SUMMED=body.summed,
    )
    d_states = call.added(call.q, grad, True, weight, pull)
    d_state = call.empty(call.batch * call.count, call.state)
    blocks = -(-call.state // 512)
    through = call.empty(call.batch * call.count, call.chunks, blocks)
    call.launch(
        "scan_back",
        call.batch * call.count * blocks,
        states_ptr=states,
        d_states_ptr=d_states,
        d_final_ptr=final if state_grad is None else call.inward(state_grad),
        d_state_ptr=d_state,
        through_ptr=through,
        sums_ptr=call.sums,
        n=call.n,
        chunks=call.chunks,
        head_count=call.count,
        STATE=call.state,
        BLOCK=512,
        CHUNK=call.chunk,
        GATED=call.gated,
        SEGMENTED=call.segmented,
        GIVEN=state_grad is not None,
        **call.begin,
    )
    dq = call.empty(*call.q.shape)
    dk, dv = (call.empty(*x.shape, dtype=torch.float32) for x in (call.k, call.v))
    # Shares in the gradients of gates; tiles without a query have none.
    length = call.chunks * call.chunk if call.gated else 0
    query_shares, key_shares = call.zeros(2, call.batch * call.count, length)
    given = call.pairs() | {"weight_ptr": weight}
    other = call.sizes["OTHER"]
    tiles = call.tiles(call.sizes["BLOCK_M"], True) if call.n_q else 0
    call.launch(
        "query_gradient",
        call.batch * call.count * tiles,
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v, grad=grad),
        dq_ptr=dq,
        shares_ptr=query_shares,
        states_ptr=states if body.causal else final,
        pull_ptr=pull,
        tiles=tiles,
        NORMALIZED=body.normalized,
        **(given | {"BLOCK_N": other}),
    )
    tiles, key_heads = call.tiles(call.sizes["BLOCK_N"], False), call.k.shape[1]
    given |= {"d_states_ptr": d_states if body.causal else d_state, "tiles": tiles, "key_heads": key_heads}
    own = call.sizes["KEYS"]
    own_tiles = call.tiles(own, False)
    call.launch(
        "key_gradient",
        call.batch * key_heads * own_tiles,
        warps=4 if body.kind == "favor" else call.sizes["warps"],
        stages=2
        if max(call.dim, call.value_dim) <= 64
        else 1,  # what is fetched ahead would be kept in memory instead of registers
        **call.strides(q=call.q, k=call.k, v=call.v, grad=grad),
        dk_ptr=dk,
        shares_ptr=key_shares,
        pull_ptr=pull,
        NORMALIZED=body.normalized,
        **(given | {"BLOCK_M": other, "BLOCK_N": own, "tiles": own_tiles}),
    )
    call.launch(
        "value_gradient",
        call.batch * key_heads * tiles * -(-call.value_dim // call.sizes["BLOCK_V"]),
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, grad=grad),
        dv_ptr=dv,
        **(given | {"BLOCK_M": other}),
    )
    d_gates = None
    if call.gated:
        d_gates = _linear_gates_triton(call, grad, weight, pull, query_shares, key_shares, through)
    return dq, dk, dv, d_gates, call.outward(d_state)


def _linear_gates_triton(call, grad, weight, pull, query_shares, key_shares, through):
    """The gradient of gates, (batch, n, heads), from the shares of queries, of keys and of whole chunks."""
    size = call.sizes["BLOCK_M"]
    across = call.zeros(call.batch * call.count, call.chunks * call.chunk)
    columns = call.zeros(call.batch * call.count, call.chunks, call.chunk // size - 1, call.chunk)
    tiles = call.tiles(size, True) if call.n_q else 0
    call.launch(
        "across",
        call.batch * call.count * tiles,
        warps=call.sizes["warps"],
        **call.strides(q=call.q, k=call.k, v=call.v, grad=grad),
        across_ptr=across,
        columns_ptr=columns,
        weight_ptr=weight,
        pull_ptr=pull,
        tiles=tiles,
        **(call.pairs() | {"BLOCK_N": call.sizes["OTHER"]}),
    )
    d_gates = call.empty(call.batch, call.count, call.n)
    call.launch(
        "gates",
        call.batch * call.count * call.chunks,
        query_shares_ptr=query_shares,
        key_shares_ptr=key_shares,
        across_ptr=across,
        columns_ptr=columns,
        through_ptr=through,
        d_gate_ptr=d_gates,
        n=call.n,
        chunks=call.chunks,
        head_count=call.count,
        CHUNK=call.chunk,
        COUNT=through.shape[2],
        BLOCK_COUNT=triton.next_power_of_2(through.shape[2]),
        TILE=size,
        EXCLUSIVE=call.body.exclusive,
    )
    return d_gates.transpose(1, 2)


# --- end ---

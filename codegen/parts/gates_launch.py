"""Launching the kernels of gated linear attention and of the delta rule."""

from __future__ import annotations

import torch

try:
    import triton
except ImportError:
    triton = None


def _rows_contiguous(x): ...
def _precision(dtype): ...
def _unit(*tensors): ...


# --- begin ---


class _GatedLaunch:
    """What all launches of one call share.

    Temporary tensors are (batch * heads, …), dense. Operands of products are bf16 if q is, else fp32, because
    what has been added up over a sequence may be more than fp16 can hold.
    """

    def __init__(self, q, k, v, gates, beta, bonus, state, begin, scale, exclusive):
        self.q, self.k, self.v = map(_rows_contiguous, (q, k, v))
        self.batch, self.heads, self.n_q, self.dim = q.shape
        self.n, self.value_dim = k.shape[2], v.shape[3]
        self.rows, self.group, self.tiles = (
            self.batch * self.heads,
            self.heads // k.shape[1],
            -(-self.n // 64),
        )
        self.first = (self.n - self.n_q) // 64  # the first chunk with a query
        self.kind = "none" if gates is None else "channel" if gates.dim() == 4 else "token"
        self.delta, self.own = beta is not None, bonus is not None or not exclusive
        self.operand = torch.bfloat16 if q.dtype == torch.bfloat16 else torch.float32
        if self.kind == "channel":
            gates = _rows_contiguous(gates)
        # Strides are counted in units, so that the compiler knows what they are multiples of without ever
        # specializing on a length.
        self.unit, self.gate_unit = _unit(self.q, self.k, self.v), 1
        if self.kind == "channel":
            self.gate_unit = _unit(gates)
        initial = None if state is None else state.float().contiguous()
        if bonus is not None:
            bonus = bonus.contiguous()
        self.given = {
            **self.strided("q", self.q),
            **self.strided("k", self.k),
            **self.strided("v", self.v),
            **self.by_position("gates", gates, self.gate_unit),
            **self.by_position("beta", beta),
            "bonus_ptr": q if bonus is None else bonus,
            "bonus_batch": 0 if bonus is None or bonus.shape[0] == 1 else bonus.stride(0),
            "begin_ptr": q if begin is None else begin.to(torch.int32).contiguous(),
            "begin_batch": 0 if begin is None or begin.shape[0] == 1 else self.n,
            "initial_ptr": q if initial is None else initial,
            "scale": float(scale),
            "n": self.n,
            "n_q": self.n_q,
            "heads": self.heads,
            "group": self.group,
            "tiles": self.tiles,
            "UNIT": self.unit,
            "GATE_UNIT": self.gate_unit,
            "DIM": self.dim,
            "VALUE_DIM": self.value_dim,
            "GATES": self.kind,
            "TOKEN": self.kind == "token",
            "SEGMENTS": begin is not None,
            "EXCLUSIVE": exclusive,
            "BONUS": bonus is not None,
            "OWN": self.own,
            "DELTA": self.delta,
            "INITIAL": initial is not None,
            "OPERAND": triton.language.bfloat16
            if self.operand == torch.bfloat16
            else triton.language.float32,
            "PRECISION": _precision(q.dtype),
            "SUMS": "ieee" if torch.version.hip else "tf32x3",
        }
        for name in ("correction", "solution", "likeness", "d_likeness", "d_across", "d_beta", "dv"):
            self.given[f"{name}_ptr"] = self.q
        self.given |= self.temporary("written", self.v if not self.delta else None)

    def strided(self, name, x):
        """A tensor (batch, heads, length, dim) and its strides, in units."""
        strides = zip(("batch", "head", "row"), x.stride(), strict=False)
        return {f"{name}_ptr": x} | {f"{name}_{axis}": stride // self.unit for axis, stride in strides}

    def by_position(self, name, x, unit=1):
        """A tensor (batch or 1, length, heads, …), or None."""
        if x is None:
            return self.strided(name, self.q)
        batch, row, head = (stride // unit for stride in x.stride()[:3])
        batch = 0 if x.shape[0] == 1 else batch
        return {f"{name}_ptr": x, f"{name}_batch": batch, f"{name}_head": head, f"{name}_row": row}

    def temporary(self, name, shared=None):
        """Where what is written lies: by key head in ``v`` itself, or by query head."""
        if shared is not None:
            return self.strided(name, shared) | {f"{name}_group": self.group}
        row = self.value_dim
        return {
            f"{name}_batch": self.heads * self.n * row // self.unit,
            f"{name}_head": self.n * row // self.unit,
            f"{name}_row": row // self.unit,
            f"{name}_group": 1,
        }

    def empty(self, *shape, dtype=None):
        return torch.empty(self.rows, *shape, dtype=dtype or self.operand, device=self.q.device)

    def run(self, kernel, programs, kind, **more):
        """``programs`` for each sequence; ``kind`` says how large its blocks are."""
        programs *= self.rows
        if not programs:
            return
        given = self.given | more | self.sizes(kind)
        wanted = {name: given[name] for name in kernel.arg_names}
        kernel[(programs,)](**wanted, num_warps=given["num_warps"], num_stages=given["num_stages"], **_FUSED)

    def sizes(self, kind):
        """BLOCK_DIM channels by BLOCK_VALUE values, warps, stages."""
        dim, value = (max(16, triton.next_power_of_2(x)) for x in (self.dim, self.value_dim))
        wide = self.operand == torch.float32
        warps, stages = 4, 2
        if kind in ("states", "state gradients") and self.delta:  # a correction needs all channels of a state
            narrow = wide or self.kind == "channel"
            value = min(value, max(16, (4096 if narrow else 8192) // dim))
            warps = 8 if dim > 64 else 4
            if kind == "state gradients" and narrow and dim > 64:
                stages = 1  # what is fetched ahead would push more out of the registers
        elif kind == "near":
            dim, warps, stages = min(dim, 64), 2, 1
        elif kind == "pair gradients":
            dim, stages = min(dim, 32), 1
        elif kind == "state use":
            dim, value, warps = min(dim, 32 if wide else 64), min(value, 32), 8
        elif kind == "solve":
            warps, stages = 4, 1
        else:
            dim, value = min(dim, 32 if wide else 64), min(value, 32 if wide else 64)
        return {"BLOCK_DIM": dim, "BLOCK_VALUE": value, "num_warps": warps, "num_stages": stages}

    def blocks(self, kind):
        """How many blocks of channels, and of values."""
        sizes = self.sizes(kind)
        return -(-self.dim // sizes["BLOCK_DIM"]), -(-self.value_dim // sizes["BLOCK_VALUE"])

    # --- forward ---

    def pairs(self, x, dtype, **more):
        """How ``x`` weighs the keys of its chunk, (rows, n, 64)."""
        found = self.empty(self.n, 64, dtype=dtype)
        given = self.strided("x", x) | {"x_group": self.heads // x.shape[1], "pairs_ptr": found}
        given |= {"n_q": x.shape[2], **more}
        chunks = self.tiles - (self.n - x.shape[2]) // 64
        # --- only: channels ---
        if self.kind == "channel":
            self.run(_channel_pairs_kernel, chunks * 4, "chunk", **given)
            return found
        # --- only: tokens ---
        self.run(_token_pairs_kernel, chunks, "chunk", **given)
        # --- only: end ---
        return found

    def states(self):
        """States before every chunk, and the last; what the delta rule writes is kept in ``given``."""
        parts, blocks = self.blocks("states")
        states = self.empty(self.tiles, self.dim, self.value_dim)
        final = self.empty(self.dim, self.value_dim, dtype=torch.float32)
        values = {}
        # --- only: delta ---
        if self.delta:
            likeness = self.pairs(self.k, torch.float32, OWN=False, BONUS=False, scale=1.0)
            solution = self.empty(self.n, 64)
            correction = self.empty(self.n, self.dim)
            value = self.empty(self.n, self.value_dim)
            self.given |= {
                "likeness_ptr": likeness,
                "solution_ptr": solution,
                "correction_ptr": correction,
                "written_ptr": self.empty(self.n, self.value_dim),
            }
            self.run(_delta_solve_kernel, self.tiles, "solve")
            self.run(_delta_write_kernel, self.tiles, "chunk", values_ptr=value)
            values = {"v_ptr": value}
        # --- only: end ---
        self.run(_gated_states_kernel, parts * blocks, "states", states_ptr=states, final_ptr=final, **values)
        self.given["states_ptr"] = states
        return final

    def out(self):
        out = self.empty(self.n_q, self.value_dim, dtype=torch.float32)
        programs = (self.tiles - self.first) * self.blocks("chunk")[1]
        if self.n_q:
            self.given["pairs_ptr"] = self.pairs(self.q, self.operand)
            self.run(_gated_out_kernel, programs, "chunk", out_ptr=out)
        return out

    # --- backward ---

    def gradients(self, grad, final_grad):
        """Gradients of q, k, v (by query head), gates, what is extra, and the state."""
        grad, wide = _rows_contiguous(grad), torch.float32
        if _unit(grad) < self.unit:
            grad = grad.contiguous()
        given = self.given
        given |= self.strided("grad", grad)
        given["pairs_ptr"] = self.pairs(self.q, self.operand) if self.n_q else self.q
        parts, blocks = self.blocks("chunk")
        d_written = self.empty(self.n, self.value_dim, dtype=self.operand if self.delta else wide)
        given["d_written_ptr"] = d_written
        after, d_initial = (
            torch.empty_like(given["states_ptr"]),
            self.empty(self.dim, self.value_dim, dtype=wide),
        )
        given |= {"after_ptr": after, "d_initial_ptr": d_initial, "d_final_ptr": final_grad.contiguous()}

        def through_states():
            count = self.blocks("states")
            self.run(_gated_state_gradients_kernel, count[0] * count[1], "state gradients")

        def in_chunks():
            self.run(_gated_written_gradient_kernel, self.tiles * blocks, "chunk")

        for step in (in_chunks, through_states) if self.delta else (through_states, in_chunks):
            step()
        d_pairs = self.empty(self.n, 64, dtype=wide)
        given["d_pairs_ptr"] = d_pairs
        dv, d_beta, d_across = d_written, None, None
        if self.delta:
            dv, d_beta = torch.empty_like(d_written, dtype=wide), self.empty(self.n, dtype=wide)
            given |= {"dv_ptr": dv, "d_beta_ptr": d_beta, "d_likeness_ptr": torch.empty_like(d_pairs)}
        if self.kind == "token":
            given["d_across_ptr"] = d_across = self.empty(self.n, dtype=wide)
        self.run(_gated_weight_gradients_kernel, self.tiles, "chunk")
        dq, dk = self.empty(self.n_q, self.dim, dtype=wide), self.empty(self.n, self.dim, dtype=wide)
        d_gates = self.empty(self.n, self.dim if self.kind == "channel" else parts, dtype=wide)
        d_asked = self.empty(self.n, parts, dtype=wide)
        given |= {"dq_ptr": dq, "dk_ptr": dk, "d_gates_ptr": d_gates, "d_beta_ptr": d_asked}
        self.run(_gated_state_use_kernel, self.tiles * parts, "state use")
        d_bonus = None
        # --- only: channels ---
        if self.kind == "channel":
            d_bonus = self.empty(self.tiles * 4, self.dim, dtype=wide)
            narrow = self.blocks("pair gradients")[0]
            self.run(_channel_pair_gradients_kernel, self.tiles * narrow, "pair gradients")
            near = self.blocks("near")[0]
            self.run(_channel_near_gradients_kernel, self.tiles * 4 * near, "near", d_bonus_ptr=d_bonus)
            d_bonus = d_bonus.sum(1)
        # --- only: tokens ---
        if self.kind != "channel":
            self.run(_token_pair_gradients_kernel, self.tiles * parts, "chunk")
        # --- only: end ---
        if self.kind == "token":
            d_gates = (d_gates.sum(2) + d_across)[..., None]
        if self.kind == "none":
            d_gates = None
        extra = (d_beta + d_asked.sum(2))[..., None] if self.delta else d_bonus
        return dq, dk, dv, d_gates, extra, d_initial

    # --- both ---

    def by_head(self, x):
        """(batch * heads, …) as (batch, heads, …)."""
        return x.view(self.batch, self.heads, *x.shape[1:])

    def shared(self, x):
        """Something by query head summed for key heads."""
        x = self.by_head(x)
        return x if self.group == 1 else x.unflatten(1, (-1, self.group)).sum(2)

    def forward(self):
        """Output (batch, heads, n_q, values) and the state after the last position, in fp32."""
        final, out = self.states(), self.out()
        return self.by_head(out), self.by_head(final)

    def backward(self, grad, final_grad):
        """Gradients of q, k, v, gates and what is extra by head and position, and of the state, in fp32."""
        self.states()
        dq, dk, dv, d_gates, d_extra, d_state = self.gradients(grad, final_grad)
        gates, extra = (None if x is None else self.by_head(x) for x in (d_gates, d_extra))
        return self.by_head(dq), self.shared(dk), self.shared(dv), gates, extra, self.by_head(d_state)


# --- end ---

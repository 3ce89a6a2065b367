"""Kernels whose tiles come in shares: which share a program takes, and where it keeps what it found.

The rest is the same for all patterns, and stands in ``parts/shares.py``.
"""

from __future__ import annotations

from textwrap import indent

from attnc.codegen.kinds import Kind


def share_of(turn: str, head: str, shares: str) -> list[str]:
    """The lines that say which tile a program works on, and for which share of its sweeps.

    turn: the program's number among those of its heads. head: its head, after the number of heads of a batch.
    shares: whether tiles come in shares in this binary.
    """
    return [
        f"turn = {turn} % turns",
        f"cell = (batch * {head}) * (split * shares) + turn  # where a share is kept",
        f"tile, share, shares = _share_of(turn, split, shares, {shares})",
    ]


def first_share(kind: Kind, state: str) -> str:
    """The sums to start from where there are some, of earlier passes or sinks: one share has them."""
    return f"{kind.begin}if share == 0:\n{indent(state, '    ')}"


def kept(kind: Kind, store: str, condition: str) -> str:
    """The end of a kernel: a result is stored, a share is kept until all are there.

    condition: when it is a share. Where the number of tiles is known, and all have about as much to do, all
    are or none, and each has a binary of its own (SHARES): in one for both, what is stored would take
    registers from the sweeps.
    """
    if kind.side == "query":
        stored, row, block = "stored", "q - offset", "BLOCK_M"
    else:
        stored, row, block = "inside", "k", "BLOCK_N"
    joining = "_join_kernel joins" if kind.name == "forward" else "_sum_kernel adds up"
    return (
        f"if {condition}:  # {joining} what all shares found\n"
        f"{indent(kind.keep, '    ')}"
        f"    _store_rows(shares_row_ptr, cell, {stored}, {row}, {block})\n"
        f"else:\n{indent(store, '    ')}"
    )

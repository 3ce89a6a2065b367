"""What kernels may take of a GPU, as it stands in `budget.json`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import triton

FILE = Path(__file__).with_name("budget.json")
DIMS = (64, 128)


class Taken(Protocol):
    """Registers and spilled bytes of a thread, bytes of shared memory of a block."""

    @property
    def registers(self) -> int: ...
    @property
    def spilled(self) -> int: ...
    @property
    def shared(self) -> int: ...


@dataclass(frozen=True)
class Use:
    """What a kernel takes."""

    registers: int
    spilled: int
    shared: int

    @classmethod
    def most(cls, *taken: Taken) -> Use:
        """What is enough for each of some launches of one kernel."""
        return cls(*(max(getattr(one, what) for one in taken) for what in ("registers", "spilled", "shared")))

    def beyond(self, budget: Use) -> list[str]:
        """What is more than the budget, in words."""
        units = {"registers": "registers", "spilled": "spilled bytes", "shared": "bytes of shared memory"}
        pairs = ((what, getattr(self, what), getattr(budget, what)) for what in units)
        return [
            f"{used} {units[what]}, and its budget is {most}" for what, used, most in pairs if used > most
        ]


@dataclass(frozen=True)
class Budget:
    """What kernels may take on sm_90 in bfloat16, by example (or pattern of ``summed``), dim and kernel.

    triton: the version that the numbers were recorded with; another one shares registers out otherwise.
    """

    triton: str
    uses: dict[tuple[str, int, str], Use]

    @classmethod
    def read(cls) -> Budget:
        found = json.loads(FILE.read_text(encoding="utf-8"))
        return cls(
            found["triton"],
            {
                (name, int(dim), kernel): Use(**use)
                for name, dims in found["kernels"].items()
                for dim, kernels in dims.items()
                for kernel, use in kernels.items()
            },
        )

    def write(self) -> None:
        """One line for a kernel, so that a change of one is seen as a change of one."""
        tree: dict[str, dict[str, dict[str, str]]] = {}
        for (name, dim, kernel), use in sorted(self.uses.items()):
            tree.setdefault(name, {}).setdefault(str(dim), {})[kernel] = json.dumps(asdict(use))
        text = json.dumps({"triton": self.triton, "kernels": tree}, indent=1)
        text = re.sub(r'"(\{.*?\})"', lambda match: match[1].replace('\\"', '"'), text)
        FILE.write_text(text + "\n", encoding="utf-8")


@cache
def _budget() -> Budget:
    return Budget.read()


def faults(name: str, dim: int, kernel: str, taken: Taken) -> list[str]:
    """What is more than a kernel may take, in words; nothing where the budget is another Triton's."""
    if _budget().triton != triton.__version__:
        return []
    beyond = Use.most(taken).beyond(_budget().uses[name, dim, kernel])
    return [f"{kernel}: {much} (tests/aot/record.py writes budgets)" for much in beyond]

"""What a module takes as given, in torch text: the dense mask as the pattern was written, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent

from attnc.codegen.expressions import TensorText, first_row
from attnc.codegen.needs import identifier
from attnc.codegen.printer import Printer
from attnc.expression import EQUAL_ENDS, TRUE, Expr, fold, variables
from attnc.pattern import Pattern, formula


class DefinitionWriter(TensorText):
    """Writes what a pattern says, and what is made of its inputs."""

    def mask(self, pattern: Pattern) -> str:
        """The dense mask, as the pattern was written."""
        bodies = [(fold(item.heads.condition), fold(formula(item.relation))) for item in pattern.bodies]
        head = (
            'def mask(n_q, n, heads, tables, device="cpu"):\n'
            '    """The pattern itself: (batch or 1, heads, n_q, n) booleans, true where q reads k."""\n'
            "    q = torch.arange(n - n_q, n, device=device)[:, None]\n"
            "    k = torch.arange(n, device=device)[None, :]\n"
        )
        if len(bodies) == 1 and bodies[0][0] == TRUE and not _by_head(bodies[0][1]):
            text = self.tensor(bodies[0][1], {"q": "q", "k": "k"}, batched=True)
            result = "_full(edges, n_q, n, device)[:, None].expand(-1, heads, -1, -1)"
            return f"{head}    edges = {text}\n    return {result}\n"
        lines = ["rows = []", "for h in range(heads):"]
        for condition, relation in bodies:
            text = self.tensor(relation, {"q": "q", "k": "k"}, batched=True)
            test = Printer("host", {"h": "h", "H": "heads"})(condition)
            lines += (
                [f"    edges = {text}"]
                if condition == TRUE
                else [f"    if {test}:", f"        edges = {text}"]
            )
        lines += [
            "    rows.append(_full(edges, n_q, n, device))",
            "return torch.stack(torch.broadcast_tensors(*rows), 1)",
        ]
        return head + indent("\n".join(lines), "    ") + "\n"

    def tables(
        self, pattern: Pattern, found: frozenset[str], sinks: bool = False, more: Sequence[str] = ()
    ) -> str:
        """The function that builds every table the plan reads from the inputs.

        sinks: whether those stand behind the inputs. more: lines for tables that are made of others.
        """
        used = {name.partition(".")[0] for name in found}
        lines = []
        for item in pattern.inputs:
            if item.name in used:
                name = item.name
                lines.append(
                    f'tables["{identifier(name)}"] = '
                    f'_batched(inputs[{_position(pattern, name)}], "{name}", n, heads)'
                )
        if sinks:
            count = len(pattern.inputs)  # the mask does without sinks
            lines.append(f'tables["sinks"] = inputs[{count}] if len(inputs) > {count} else None')
        for base in sorted({name.partition(".")[0] for name in found if "." in name}):
            parts = ", ".join(f'tables["{identifier(f"{base}.{which}")}"]' for which in EQUAL_ENDS)
            lines.append(f'{parts} = _equal_entries(tables["{identifier(base)}"])')
        lines += more
        for draw, name in self.names.draws.items():
            population = Printer("host", {"n": "n"})(fold(draw.population))
            last = "n - 1" if draw.size == 1 else f"(n - 1) // {draw.size}"
            lines.append(
                f'tables["{name}"] = _cached(_picks, {draw.count}, {draw.seed}, {draw.past}, '
                f"heads, {first_row(draw)}, {last}, {population}, device)"
            )
        if self.names.members:
            lines.append("p = torch.arange(n, device=device)")
        for condition, name in self.names.members.items():
            text = self.tensor(condition, {"p": "p"}, batched=True)
            lines.append(f'tables["{name}"] = _as_rows({text})')
        body = "\n".join(lines)
        return (
            "def _tables(inputs, n_q, n, heads, device):\n"
            '    """What the pattern reads besides q, k and v, as (batch or 1, …) tensors on the device."""\n'
            f"    tables = {{}}\n{indent(body, '    ')}{chr(10) if body else ''}    return tables\n"
        )


def _by_head(relation: Expr) -> bool:
    """Whether the edges differ between the heads of one body."""
    return "h" in variables(relation)


def _position(pattern: Pattern, name: str) -> int:
    return [item.name for item in pattern.inputs].index(name)

"""Which argument of a call goes into which slot."""

from __future__ import annotations

from attnc import elsewhere
from attnc import syntax as tree
from attnc.atoms import Slot
from attnc.diagnostics import Label
from attnc.names import meant
from attnc.scope import Scope


def arguments(scope: Scope, call: tree.Call, slots: tuple[Slot, ...]) -> dict[str, tree.Argument]:
    """Which argument goes into which slot."""
    name = call.name.text
    takes = ", ".join(slot.name if slot.default is None else f"{slot.name}=…" for slot in slots)
    bound: dict[str, tree.Argument] = {}
    for place, arg in enumerate(call.args):
        if arg.keyword is None:
            if any(earlier.keyword for earlier in call.args[:place]):
                raise scope.error(
                    "argument-order", "an argument without a name stands after one with a name", arg.span
                )
            if place >= len(slots):
                raise scope.error(
                    "too-many-arguments",
                    f"`{name}` takes {len(slots)} argument{'s' * (len(slots) != 1)}, and this is one more",
                    arg.span,
                    help=f"write `{name}({takes})`",
                )
            bound[slots[place].name] = arg
            continue
        word = arg.keyword.text
        if word not in {slot.name for slot in slots}:
            raise scope.error(
                "unknown-argument",
                f"`{name}` has no argument `{word}`",
                arg.keyword.span,
                help=elsewhere.KEYWORDS.get(word)
                or meant(word, (slot.name for slot in slots))
                or f"write `{name}({takes})`",
            )
        if word in bound:
            raise scope.error(
                "repeated-argument",
                f"the argument `{word}` is given twice",
                arg.span,
                secondary=(Label(bound[word].span, "first given here"),),
            )
        bound[word] = arg
    missing = [slot.name for slot in slots if slot.default is None and slot.name not in bound]
    if missing:
        raise scope.error(
            "missing-argument",
            f"`{name}` needs its argument `{missing[0]}`",
            call.span,
            help=f"write `{name}({takes})`",
        )
    return bound

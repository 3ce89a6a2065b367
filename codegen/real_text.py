"""Real expressions as program text, in torch and in Triton; their integers are written by the ``Printer``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attnc.budget import spend
from attnc.codegen.printer import Printer, of_sizes
from attnc.expression import Expr
from attnc.real import (
    Apply,
    Choice,
    Coordinate,
    Entry,
    Greater,
    Number,
    Over,
    Plus,
    Real,
    Score,
    Times,
    Whole,
)

# Of the work that a pattern may cost: a character of a weight, which then is laid out and compiled.
CHARACTER_STEPS = 8
# How functions are written; those of the emitted module itself start with `_`.
_TORCH = {
    "exp": "torch.exp({})",
    "exp2": "torch.exp2({})",
    "log": "torch.log({})",
    "log2": "torch.log2({})",
    "sqrt": "torch.sqrt({})",
    "tanh": "torch.tanh({})",
    "sigmoid": "torch.sigmoid({})",
    "softplus": "(-torch.nn.functional.logsigmoid(-({})))",
    "relu": "torch.relu({})",
    "elu": "torch.nn.functional.elu({})",
    "sin": "torch.sin({})",
    "cos": "torch.cos({})",
    "abs": "torch.abs({})",
    "min": "torch.minimum({}, {})",
    "max": "torch.maximum({}, {})",
}
_TRITON = {
    "exp": "tl.exp({})",
    "exp2": "tl.exp2({})",
    "log": "tl.log({})",
    "log2": "tl.log2({})",
    "sqrt": "tl.sqrt({})",
    "tanh": "_tanh({})",
    "sigmoid": "tl.sigmoid({})",
    "softplus": "_softplus({})",
    "relu": "tl.maximum({}, 0.0)",
    "elu": "_elu({})",
    "sin": "tl.sin({})",
    "cos": "tl.cos({})",
    "abs": "tl.abs({})",
    "min": "tl.minimum({}, {})",
    "max": "tl.maximum({}, {})",
}


@dataclass(frozen=True)
class RealPrinter:
    """Writes real expressions at one place of a module.

    integers: writes the integer expressions there; its dialect, ``tensor`` or ``kernel``, is this one's, too.
    entry: text for an entry of a float input.
    score, coordinate: the text of ``s`` and of ``x``.

    In torch text a variable ``dtype`` is the dtype of what is computed. Every function then gets a tensor.
    """

    integers: Printer
    entry: Callable[[Entry], str]
    score: str = "s"
    coordinate: str = "x"

    def __call__(self, expr: Real) -> str:
        text = self._text(expr, 0)
        spend(CHARACTER_STEPS * len(text), "writing out what edges weigh")
        return text

    def tensor(self, expr: Real) -> str:
        """In torch, the expression as a tensor, even where it is a number."""
        return self._argument(expr)

    def _text(self, expr: Real, level: int) -> str:
        # Levels: 0 sum, 1 product, 2 atom.
        def wrap(text: str, own: int) -> str:
            return f"({text})" if own < level else text

        match expr:
            case Number(value):
                return wrap(repr(float(value)), 1 if value < 0 else 2)
            case Whole(integer):
                return self._whole(integer)
            case Score():
                return self.score
            case Coordinate():
                return self.coordinate
            case Entry():
                return self.entry(expr)
            case Plus(args):
                text = self._text(args[0], 1)
                for arg in args[1:]:
                    match arg:
                        case Times((Number(-1.0, ""), *rest)):
                            text += f" - {self._text(Times(tuple(rest)), 1)}"
                        case Number(value) if value < 0:
                            text += f" - {-float(value)!r}"
                        case _:
                            text += f" + {self._text(arg, 1)}"
                return wrap(text, 0)
            case Times((Number(-1.0, ""), *rest)) if rest:
                return wrap(f"-{self._text(Times(tuple(rest)), 2)}", 0)
            case Times(args):
                return wrap(" * ".join(self._text(arg, 2) for arg in args), 1 if len(args) > 1 else 0)
            case Over(left, right):
                return wrap(f"{self._text(left, 1)} / {self._text(right, 2)}", 1)
            case Apply(function, args):
                texts = _TORCH if self.integers.dialect == "tensor" else _TRITON
                return texts[function].format(*map(self._argument, args))
            case Choice(condition, then, otherwise):
                chosen = (self.condition(condition), self._argument(then), self._argument(otherwise))
                where = "torch.where" if self.integers.dialect == "tensor" else "tl.where"
                return f"{where}({', '.join(chosen)})"
        raise TypeError(f"cannot print {type(expr).__name__}")

    def condition(self, condition: Expr | Greater) -> str:
        if isinstance(condition, Greater):
            return f"{self._text(condition.left, 1)} > {self._text(condition.right, 1)}"
        if self.integers.dialect == "tensor" and of_sizes(condition):
            return f"torch.tensor({replace(self.integers, dialect='host')(condition)})"
        return self.integers(condition)

    def _argument(self, expr: Real) -> str:
        """An argument of a function: in torch, a tensor."""
        if self.integers.dialect == "tensor" and isinstance(expr, Number):
            return f"torch.tensor({float(expr.value)!r}, dtype=dtype)"
        return self._text(expr, 0)

    def _whole(self, expr: Expr) -> str:
        text = self.integers(expr)
        if self.integers.dialect == "kernel":
            return f"tl.cast({text}, tl.float32)"
        if of_sizes(expr):
            return f"torch.tensor({text}, dtype=dtype)"
        return f"{text if text.isidentifier() else f'({text})'}.to(dtype)"

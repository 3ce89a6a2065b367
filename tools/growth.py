"""Prints how what a command costs grows with the size of a file, for families of patterns.

    python tools/growth.py                                  # `attnc check` on every family
    python tools/growth.py --command compile --most 32      # another command, sizes 1, 2, 4, …, 32
    python tools/growth.py --families strides,blocks        # those whose names hold one of these words
    python tools/growth.py --least 64 --most 65536 --bytes 131072     # up to the longest file there may be

A family is a pattern that says the same thing 1, 2, 4, … times. Each file is given to the command in a
process of its own, with the limits of ``tools/fuzz_compiler.py``. ``times`` is its processor time divided by
that of the size before: 2 where the cost is linear, 4 where it is a square, ever more where it is
exponential.
A family ends where a file goes beyond the limits or is larger than ``--bytes``. The exit status is 1 where
any file went beyond them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz_compiler import COMMANDS, FAULTS, Outcome, run_command


def _primes() -> Iterator[int]:
    number = 3
    while True:
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
            yield number
        number += 2


def _many(part: str, sign: str, n: int) -> str:
    """The part n times, each with another number: ``{p}`` is a prime, ``{i}`` counts from 0."""
    return sign.join(part.format(p=p, i=i) for i, p in zip(range(n), _primes(), strict=False))


def _doubled(first: str, again: str, last: str, n: int) -> str:
    """Lets of which each uses the one before, ``{a}``, more than once."""
    lines = [f"let a0 = {first}"]
    for i, p in zip(range(n), _primes(), strict=False):
        lines.append(f"let a{i + 1} = " + again.format(a=f"a{i}", p=p, i=i))
    return "\n".join([*lines, last.format(a=f"a{n}")])


GRID = "grid(t: 32, y: 48, x: 48)\n"
FAMILIES: dict[str, Callable[[int], str]] = {
    "union of strides": lambda n: "attend " + _many("stride({p})", " | ", n),
    "union of remainders": lambda n: "attend " + _many("where q % {p} == k % {p}", " | ", n),
    "intersection of strides": lambda n: "attend " + _many("where (q - k) % {p} == 0", " & ", n),
    "intersection of unions": lambda n: "attend " + _many("(stride({p}) | to(every({p})))", " & ", n),
    "difference of strides": lambda n: "attend causal - " + _many("stride({p})", " - ", n),
    "windows": lambda n: "attend " + _many("where {p} <= q - k * {i} < 40 * {p}", " | ", n),
    "dilated windows": lambda n: "attend " + _many("window(40, 7, dilation={p})", " | ", n),
    "conditions used twice": lambda n: _doubled(
        "where q >= k", "({a} & where q % {p} < 2) | (!{a} & where k % {p} > 1)", "attend {a}", n
    ),
    "numbers used twice": lambda n: _doubled("q - k", "max({a} // 2, k - {a})", "attend where {a} > 0", n),
    "scores used twice": lambda n: _doubled("s + 1.0", "{a} * sigmoid({a})", "attend causal score {a}", n),
    "random, nonempty": lambda n: f"attend {_many('random(8, seed={p})', ' & ', n)} assume nonempty",
    "union of random": lambda n: f"attend {_many('random(8, seed={p}, past=true)', ' | ', n)}",
    "neighborhoods in 1-D": lambda n: "attend " + _many("neighborhood({p})", " | ", n),
    "neighborhoods in 2-D": lambda n: (
        "grid(y: 99, x: 99)\nattend "
        + _many("neighborhood({p}, axis=y) & neighborhood({p}, axis=x)", " | ", n)
    ),
    "neighborhoods in 3-D": lambda n: (
        f"{GRID}attend where k.t <= q.t & "
        + " & ".join(f"neighborhood({n}, axis={axis}, dilation=2)" for axis in "tyx")
    ),
    "clamped by hand": lambda n: (
        f"{GRID}let y = min(max(q.y, {n}), 48 - {n})\nlet x = min(max(q.x, {n}), 48 - {n})"
        f"\nattend where k.t <= q.t and abs(k.y - y) <= {n} and abs(k.x - x) <= {n}\nassume nonempty"
    ),
    "offsets, with a score": lambda n: (
        "attend offsets({"
        + ", ".join(str((2147483647 - 7919 * i) * (-1) ** i) for i in range(n))
        + "})\nscore s + q"
    ),
    "offsets of small numbers": lambda n: (
        f"attend offsets({{{_many('{p}', ', ', n)}}})\nrequire edges <= 9 * n"
    ),
    "offsets anywhere": lambda n: (
        f"attend offsets({{{', '.join(str(i * i % 1000003 - 500000) for i in range(n))}}})"
    ),
    "windows in each other": lambda n: "attend " + " | ".join(f"window({i + 1})" for i in range(n)),
    "listed keys": lambda n: f"attend to({{{_many('{p}', ', ', n)}}})",
    "patterns": lambda n: "\n".join(f"pattern p{i}() {{ attend window({i}) & stride(3) }}" for i in range(n)),
    "powers and random": lambda n: f"attend offsets(powers(2)) & random({16 * n}, seed=1)",
    "blocks and random": lambda n: (
        f"attend blocks(255, window({n})) & (random(1024, seed=1, past=true) | "
        f"{_many('window({p}, dilation={p})', ' | ', n)})"
    ),
    "products": lambda n: f"attend where {' * '.join(('q', 'k') * n)} < n * n // 2",
    "comparisons of products": lambda n: "attend where " + _many("q * k % {p} < k * k % {p}", " or ", n),
    "buckets": lambda n: (
        f"input b: float[999]\nattend causal\nscore s + b[bucket(q - k, {n}, {2 * n}, {9 * n})]"
    ),
    "huge grid": lambda n: (
        f"grid(y: 9, x: {min(2**n, 2147483647)})\nattend window(1, 1, axis=y) & window({n}, axis=x)"
    ),
    "nested blocks": lambda n: f"attend {'blocks(2, ' * n}window(3){')' * n}",
    "heads": lambda n: (
        "\n".join(f"heads {{{i}}} {{ attend window({i}) & stride({i + 1}) }}" for i in range(n))
        + "\nheads rest { attend causal }"
    ),
}


def measured(command: str, text: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.attn"
        path.write_text(text)
        return run_command(command, path)


def result(found: Outcome) -> str:
    """The outcome in words: what was refused is named by the code of its diagnostic."""
    if found.word != "refused":
        return "ok" if found.word == "done" else f"BEYOND THE LIMITS: {found.word}"
    codes = (
        line.split("]")[0].removeprefix("error[") for line in found.said.splitlines() if "error[" in line
    )
    return next(codes, "refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--command", default="check", choices=COMMANDS)
    parser.add_argument("--families", default="", help="words, of which a family's name must hold one")
    parser.add_argument("--least", type=int, default=1, help="the smallest size (default: %(default)s)")
    parser.add_argument("--most", type=int, default=512, help="the largest size (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=32768, help="of the largest file (default: %(default)s)")
    options = parser.parse_args()
    print(f"attnc {options.command}")
    print(f"{'family':<26}{'size':>5}{'bytes':>7}{'s':>8}{'times':>7}{'MiB':>6}  outcome")
    wrong = False
    for family, make in FAMILIES.items():
        size, before = options.least, 0.0
        while any(word in family for word in options.families.split(",")):
            body = make(size)
            text = body if body.startswith("pattern ") else f"pattern p() {{\n{body}\n}}\n"
            if size > options.most or len(text) > options.bytes:
                break
            found = measured(options.command, text)
            times = f"{found.seconds / before:.1f}" if before else ""
            row = f"{family:<26}{size:>5}{len(text):>7}{found.seconds:>8.2f}{times:>7}{found.mib:>6}"
            print(f"{row}  {result(found)}", flush=True)
            wrong |= found.word in FAULTS
            if found.word in FAULTS:
                break
            size, before = 2 * size, found.seconds
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

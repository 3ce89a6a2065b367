"""The longer text behind every diagnostic code, for ``attnc explain CODE``."""

from __future__ import annotations

from textwrap import dedent, fill

_TEXTS: dict[str, str] = {
    # --- files ---
    "unreadable-file": """
        The file could not be opened. The message says what the operating system said about it: the path
        does not exist, is a folder, or may not be read.
        """,
    "file-too-large": """
        Pattern files are at most 128 KiB. A pattern says which token reads which by rules, not by listing
        edges; edges that are data belong into an `input`, given at call time.
        """,
    "not-text": """
        Pattern files are plain text in UTF-8 (outside of comments, ASCII). This one has bytes that are
        something else: it is a binary file, or was saved in another encoding.
        """,
    "empty-file": """
        A file holds one or more patterns, and this one has none: it is empty, or all of it is comment. The
        smallest pattern is

            pattern everything() { attend all }
        """,
    "several-patterns": """
        The file holds more than one pattern, and a module is made of one. Say which: `--pattern NAME` on
        the command line, `pattern="NAME"` in Python. `attnc check` tells of all of them.
        """,
    "unwritable-file": """
        The module could not be written where it should go. Nothing was changed. A file that attnc did not
        write is only overwritten with `--force`, and the pattern file itself never. `--force` is also needed
        for a name that Python cannot import, or that would hide a module such as `torch` or `random` from
        every program in the same folder.
        """,
    "usage": """
        The command was used in a way that it does not know. `attnc --help` and `attnc COMMAND --help` say
        what can be given.
        """,
    # --- syntax ---
    "syntax-error": """
        The text does not follow the grammar. Only the first such place is reported: what comes after could
        only be guessed at. The message says what could have stood there.
        """,
    "bad-character": """
        The character starts no word of the language. Outside of comments a pattern is ASCII; there are no
        strings, and items need no separators.
        """,
    "unknown-item": """
        A body holds items, each introduced by a word: `input`, `let`, `grid`, `attend`, `heads`, `require`,
        `assume`. This is none of them. A relation stands after `attend`.
        """,
    "reserved-word": """
        The word is kept for a part of the language that does not exist yet, so that patterns written today
        will mean the same then. It can neither be used as an item nor as a name.
        """,
    "too-deep": """
        Brackets, prefixes or named parts stand inside one another more than a few hundred deep, or a
        product has very many factors. Flat unions and intersections may be as long as you like. Parts can
        be named with `let`, as long as what they come to is not too deep either.
        """,
    "too-large": """
        A `let` stands for what it was defined as wherever it is used, so lets made of lets grow quickly.
        This pattern has grown beyond what can be analysed. The same is said of a list of more than 4096
        numbers, where a relation takes more work than any pattern may cost, and where the patterns of one
        file take more than they may cost together. The work is counted in steps, so that a busy machine
        changes nothing.
        """,
    # --- names ---
    "unknown-name": """
        Nothing of this name is known at this place. Names are known from the line that defines them on, so
        a `let` cannot use itself or anything below it.
        """,
    "duplicate-name": """
        Parameters, inputs and lets share one set of names, and none is ever hidden by another. A `let`
        inside one `heads` body may have the same name as one inside another, but not as one outside.
        """,
    "duplicate-pattern": """
        Patterns are chosen by name, so no two patterns of a file may share one.
        """,
    "reserved-name": """
        The name already means something: a variable or relation of the language, a keyword of Python (the
        pattern becomes a Python function, its parameters and inputs become Python names), or an argument
        that every emitted function has. Names that start with `_` belong to the emitted module.
        """,
    # --- weights ---
    "ambiguous-name": """
        In a `score`, `s` is the scaled dot product; in a feature map, `x` is the coordinate of a
        vector. Where one of them is read, nothing else may go by that name.
        """,
    "bad-weight": """
        What weighs edges hangs on what there is at an edge: a `score` on `s`, positions, the head
        and inputs; a `sink` or a gate a head on the head alone; a feature map on `x` alone, because
        it is the same for all positions.
        """,
    "duplicate-weight": """
        A body has at most one `score`, `kernel`, `decay` and so on. Items of a pattern hold for all
        of its `heads`; those of one `heads` block take their place there.
        """,
    "unknown-weight": """
        `normalize` is followed by `sum` or `none`, `decay g` by `exclusive` or nothing, `with` by
        `softmax`, `kernel …` or `score …`; `update` knows the delta rule, `update delta(beta)`.
        """,
    "weights-conflict": """
        Edges are weighed either by softmax, with `score` and `sink`, or by the product of features,
        with `kernel`, `normalize`, `decay`, `bonus` and `update`. Parts of a body that weigh
        differently share one denominator, which leaves no room for decays and updates.
        """,
    "no-states": """
        Linear attention is computed through states where its relation has such a form. Over other relations
        its weights are summed pair by pair, by their logarithms: feature maps must not be negative there, and
        there are neither decays nor updates. Parts that share one denominator need one that has states.
        """,
    "parts-overlap": """
        A body with several `attend … with …` has parts that weigh their edges differently. An edge in two of
        them would have two weights, so parts must be apart: for every length, which is proven.
        """,
    "score-without-s": """
        `score` takes the place of the scaled dot product `s`. One that does not read it weighs
        edges by their positions alone, and queries and keys do not matter.
        """,
    "signed-weights": """
        `normalize sum` divides by the sum of a row's weights. Where a feature map can be negative,
        weights may cancel, and what is divided by is nearly nothing: results are huge, or noise.
        `elu(x) + 1`, `exp(x)` and `relu(x)` are never negative.
        """,
    "positive-gate": """
        Gates are logarithms of factors between zero and one, so that products of many of them stay
        finite: none may be positive. A factor of 0.9 is `log(0.9)`.
        """,
    "index-clamped": """
        The index into a table of weights leaves the table at some edge of the pattern. There the
        nearest entry is read, as distances beyond the last one of a relative-position table should.
        A longer table, or a relation that has no such edges, makes it exact; `min` and `max` in the
        pattern say that it is meant.
        """,
    "masked-sweep": """
        No bounds on the keys of a query follow from a condition, such as one that compares the entries of
        two inputs, or products of positions. What is computed is exact, but every tile of queries and keys
        is: as slow as dense attention with a mask. Windows, chunks, strides, residues, coordinates of a
        grid, sets and `same(x)` have bounds; joined by `&` with one of them, a condition has some, too. The
        comment `# allow: masked-sweep` anywhere in the source says that it is meant.
        """,
    "unused-name": """
        A parameter, input or `let` that nothing uses changes nothing, and is often a slip. An unused input
        would still have to be passed at every call.
        """,
    "unknown-type": """
        Parameters are `int`, `float` or `bool`; inputs are `bool`, `int` or `float` with a shape, as in
        `input document: int[n]`.
        """,
    # --- parameters ---
    "unknown-pattern": """
        The file has no pattern of the name that was asked for.
        """,
    "unknown-parameter": """
        A value was given for a parameter that the pattern does not have.
        """,
    "unbound-parameter": """
        Parameters are bound when a pattern is compiled. This one has no default, so a value must be given,
        for checking as for compiling.
        """,
    "parameter-type": """
        The value or default of a parameter does not fit its type. Text is understood as well: `256` for an
        int, `true` and `false` for a bool, `0.5` for a float.
        """,
    # --- inputs ---
    "bad-shape": """
        The shape of an input is in terms of `n` (the number of keys), `H` (the number of heads) and
        parameters: `bool[n]`, `int[n]`, `float[H]`, `bool[(n + 63) / 64]`. Every axis has at least one
        entry.
        """,
    "bad-index": """
        An input is read with as many indices as it has axes. An axis that is read at a position (`q` or
        `k`) has size `n`, one that is read at `h` has size `H`; otherwise a read would lie outside of the
        tensor. An index that is computed, as in `x[q % 512]`, is not held against the shape.
        """,
    "block-input": """
        Inside `blocks(size, …)` positions count blocks, and an input read at `q` is read once for every
        block: it must be declared with as many entries as there are blocks, `(n + size - 1) / size`.
        Outside, such an input cannot be read at a token's position.

            input hub: bool[(n + 63) / 64]
            attend blocks(64, window(1, 1) | to(hub))
        """,
    "float-value": """
        Which edges there are is decided by integers and conditions, so that it can be proven and is the
        same everywhere. Float parameters and inputs weigh edges; they don't choose them.
        """,
    "undeclared-input": """
        The pattern was written in the docstring of a Python function. A keyword-only argument of that
        function is a parameter if it has a type and a default, and otherwise an input, which the body must
        declare with its type and shape: `input is_global: bool[n]`.
        """,
    "unlisted-input": """
        The pattern was written in the docstring of a Python function, and declares an input that the
        function has no keyword-only argument for.
        """,
    # --- arithmetic ---
    "huge-integer": """
        Constants are less than 2147483648 in magnitude: kernels compute with them in 32 bits where they
        can.
        """,
    "huge-float": """
        What edges weigh is computed in fp32, whose numbers are less than 3.41e38 in magnitude: a larger one
        would be infinite, and infinity times zero is no number.
        """,
    "inexact-division": """
        `/` between two constants must come out even; `window / 2` with a window of 5 does not say which
        half was meant. `//` rounds down.
        """,
    "division-by-zero": """
        The divisor is zero, perhaps because of a parameter's value.
        """,
    "variable-divisor": """
        `/`, `//` and `%` take a divisor that is known when compiling: a number or an expression of
        parameters.
        """,
    "type-mismatch": """
        Numbers, conditions, sets of positions and relations are different things, each with operators of
        its own:

            numbers      + - * / // %   abs min max   == != < <= > >=
            conditions   and or not
            sets         + - &
            relations    | & - !

        A condition becomes a relation by `where …`, a set by `to(…)` or `from(…)`.
        """,
    # --- relations ---
    "not-callable": """
        A parameter, input or `let` is followed by parentheses. Inputs are read with brackets, everything
        else is just its name.
        """,
    "unknown-argument": """
        An argument was given by a name that the relation, set or function does not have.
        """,
    "repeated-argument": """
        An argument was given twice: twice by name, or once by place and once by name.
        """,
    "argument-order": """
        Arguments given by place come before those given by name.
        """,
    "missing-argument": """
        An argument that has no default was not given.
        """,
    "too-many-arguments": """
        More arguments were given than the relation, set or function takes.
        """,
    "bad-argument": """
        The value of an argument is outside of what it can be: sizes and steps are at least 1, widths and
        counts are not negative, positions count from 0.
        """,
    "not-constant": """
        Arguments of relations and sets, sizes of grids and numbers in lists are known when compiling: they
        are made of numbers and parameters. What depends on `q`, `k`, `n`, `h`, `H` or an input is written
        with `where`.
        """,
    "misplaced-count": """
        `count(x)`, the number of true entries of an input, is known only while running. It stands only in
        the bound of a claim, where it is a symbol.
        """,
    # --- grid ---
    "no-grid": """
        Coordinates (`q.y`, `axis=y`) exist once the pattern has said how its tokens are laid out, in a line
        above: `grid(y: 32, x: 32)`.
        """,
    "bad-grid": """
        A grid has two or three axes. Along a single axis, `q` and `k` are the coordinates.
        """,
    "duplicate-grid": """
        A pattern has one layout of its tokens.
        """,
    "unknown-axis": """
        The grid has no axis of this name.
        """,
    # --- bodies ---
    "no-attend": """
        A pattern, and every `heads` body, says exactly once what it attends to. Reading nothing is said by
        `attend none`.
        """,
    "several-attends": """
        There is one `attend` in a pattern or `heads` body. Two relations are joined with `|` when either
        will do, with `&` when both must hold.
        """,
    "attend-and-heads": """
        Either all heads share one `attend`, or every head is in some `heads` body; a mixture would leave
        open what the heads of the bodies do.
        """,
    "misplaced-item": """
        Inputs, grids and claims are about the whole pattern, and stand outside of `heads`.
        """,
    "bad-heads": """
        Heads are chosen by `even`, `odd`, a half-open range `0..4`, a list `{1, 3}`, or `rest` for all that
        no other body has. A range may use `H` and parameters: `0..H / 2`.
        """,
    "heads-overlap": """
        Every head has exactly one body. The message names a head that has two, and for which number of
        heads.
        """,
    "heads-missing": """
        Every head has exactly one body. As an error: whatever the number of heads, up to 64, some head has
        none. As a warning: that is so for every number of heads but one. `heads rest { … }` takes what is
        left.
        """,
    # --- claims ---
    "unknown-claim": """
        What can be claimed: `causal`, `nonempty`, `edges <= …`, `flops <= …`, `reach <= …`.
        """,
    "missing-bound": """
        `edges`, `flops` and `reach` are claimed to be at most something: `require edges <= n * 512`.
        """,
    "needless-bound": """
        `causal` and `nonempty` hold or don't; there is nothing to compare.
        """,
    "bad-bound": """
        A claim's bound is in terms of `n`, parameters, `count(x)` of a bool input and, for `flops`, the
        head dimension `d`, by `+ - * / // min max`. A bound on `reach` is a number of layers.
        """,
    "not-causal": """
        The pattern claims `causal`, and a query reads a key that comes after it. The place marked is the
        part of the relation that does; the query and the key are the first such pair at the smallest
        length, and were found again in the pattern's own mask. A frequent cause: a global token in the
        middle, `window(7) | to({12})`, is read by all tokens before it.

        Intersect what is marked, or everything, with `causal`; or drop the claim.
        """,
    "may-be-empty": """
        The pattern claims `nonempty`, and for some length and some contents of the inputs a query has no
        key at all. Its output would be zeros. An input that marks tokens may mark none, and the first
        positions often have nothing before them.

        Add a key that is always there, as in `… | self`, or drop the claim: rows without keys are well
        defined, they give zeros and a log-sum-exp of minus infinity.
        """,
    "edges-exceeded": """
        The pattern claims that a head has at most so many edges, and at the length told it has more: they
        were counted in its mask, or by its closed form where the mask would be too large. An edge that
        is named twice counts once. `window(left)` has `left + 1` keys, its own position included. A claim is
        about every length from 0 on: `2 * n - 1` is -1 where there are no keys, and no number of edges is.
        """,
    "flops-exceeded": """
        The pattern claims that one head's forward pass takes at most so many floating-point operations,
        and at the length told it takes more. The forward pass takes `4 * d` for every edge: a product of
        a query and a key, and one of a weight and a value, a multiplication and an addition each.
        """,
    "reach-exceeded": """
        The pattern claims that with so many layers on top of one another every token has reached every
        token that it may legally reach (with a causal pattern: every later one, and itself), and the
        pair told is still apart. Claim more layers, or add tokens that everything reads and that read
        everything. Where the message says that no number of layers is enough, no edges lead from the one
        to the other at all.
        """,
    "undecided-claim": """
        The claim could neither be proven for every length and every input, nor refuted; the message says
        why. Only what is proven compiles.

        Write the relation or the bound in a simpler way, or write `assume` in place of `require`: then the
        claim is taken on trust, and the module says so.
        """,
    "index-out-of-range": """
        The relation reads an entry of an input, and for some positions the index lies outside of the
        input's declared shape. Guard it with a condition beside it, as in
        `where q >= 3 and x[q - 3] == x[k]`: what is read where the guard is false is never used.
        """,
    # --- masks from elsewhere ---
    "untraceable": """
        A mask function does something to positions that patterns do not know. It is read by running it once
        on symbols, which have no values: `if`, `and`, `or`, `not` and chains of comparisons need one, and so
        does `int(…)`. Functions of torch that mean nothing on whole numbers are not known either, nor are
        tensors of fractions.

        Join conditions by `&`, `|` and `~`, choose by `torch.where`, divide by `//`, and read tensors of
        integers or booleans at a position, all axes at once. What hangs on the batch entry is a tensor that
        is read at `b` first: `allowed[b, kv_idx]`.
        """,
}


def _lay_out(text: str) -> str:
    """The first sentence on a line of its own, as a heading; the rest in lines that fit a terminal."""
    first, *rest = dedent(text).strip().split("\n\n")
    heading, _, more = " ".join(first.split()).partition(". ")
    paragraphs = [heading if heading.endswith((".", ":")) else f"{heading}."]
    paragraphs += [fill(more, 100)] if more else []
    paragraphs += [part if part.startswith(" ") else fill(" ".join(part.split()), 100) for part in rest]
    return "\n\n".join(part.rstrip() for part in paragraphs)


EXPLANATIONS: dict[str, str] = {code: _lay_out(text) for code, text in _TEXTS.items()}

"""Text to tree. One LALR automaton, built when this module is imported; the tree is built while parsing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.visitors import Transformer

from attnc import grammar, mistakes
from attnc import syntax as tree
from attnc.diagnostics import AttncError, Diagnostic, Source, Span

LARGEST_FILE = 1 << 17  # reading one takes a second for 30 KiB
DEEPEST = 200


class _TreeBuilder(Transformer[Token, Any]):
    """Called by the automaton whenever a rule is complete, innermost first: nothing here recurses."""

    def number(self, parts: list[Token]) -> tree.Number:
        text = parts[0].lstrip("0") or "0"
        # Python refuses to convert thousands of digits; the resolver refuses numbers far smaller.
        return tree.Number(int(text) if len(text) <= 20 else 10**20, _span(parts))

    def decimal(self, parts: list[Token]) -> tree.Decimal:
        return tree.Decimal(float(parts[0]), _span(parts))

    def flag(self, parts: list[Token]) -> tree.Flag:
        return tree.Flag(parts[0].type == "TRUE", _span(parts))

    def name(self, parts: list[Token]) -> tree.Name:
        return tree.Name(str(parts[0]), _span(parts))

    def member(self, parts: list[Token]) -> tree.Member:
        return tree.Member(_ident(parts[0]), _ident(parts[2]), _span(parts))

    def chain(self, parts: list[Any]) -> tree.Chain:
        return tree.Chain(tuple(parts[::2]), tuple(map(_ident, parts[1::2])), _span(parts))

    def prefix(self, parts: list[Any]) -> tree.Prefix:
        return tree.Prefix(_ident(parts[0]), parts[1], _span(parts))

    def group(self, parts: list[Any]) -> tree.Group:
        return tree.Group(parts[1], _span(parts))

    def listing(self, parts: list[Any]) -> tree.Listing:
        return tree.Listing(_nodes(parts), _span(parts))

    def where(self, parts: list[Any]) -> tree.Where:
        return tree.Where(parts[1], _span(parts))

    def argument(self, parts: list[Any]) -> tree.Argument:
        keyword = _ident(parts[0]) if len(parts) == 3 else None
        return tree.Argument(keyword, parts[-1], _span(parts))

    def arguments(self, parts: list[Any]) -> tuple[tree.Argument, ...]:
        return _nodes(parts)

    def plain_arguments(self, parts: list[Any]) -> tuple[tree.Argument, ...]:
        return tuple(tree.Argument(None, part, part.span) for part in _nodes(parts))

    def call(self, parts: list[Any]) -> tree.Call:
        args = parts[2] if len(parts) == 4 else ()
        return tree.Call(_ident(parts[0]), args, _span(parts))

    def index(self, parts: list[Any]) -> tree.Index:
        return tree.Index(_ident(parts[0]), _nodes(parts), _span(parts))

    def parameter(self, parts: list[Any]) -> tree.Parameter:
        return tree.Parameter(
            _ident(parts[0]), _ident(parts[2]), parts[4] if len(parts) == 5 else None, _span(parts)
        )

    def parameters(self, parts: list[Any]) -> tuple[tree.Parameter, ...]:
        return _nodes(parts)

    def input(self, parts: list[Any]) -> tree.Input:
        return tree.Input(_ident(parts[1]), _ident(parts[3]), _nodes(parts[4:]), _span(parts))

    def axis(self, parts: list[Any]) -> tree.Axis:
        return tree.Axis(_ident(parts[0]), parts[2], _span(parts))

    def grid(self, parts: list[Any]) -> tree.Grid:
        return tree.Grid(_nodes(parts), _span(parts))

    def let(self, parts: list[Any]) -> tree.Let:
        return tree.Let(_ident(parts[1]), parts[3], _span(parts))

    def attend(self, parts: list[Any]) -> tree.Attend:
        found = parts[3] if len(parts) == 4 else None
        if isinstance(found, Token):
            found = tree.Weight(_ident(found), None, None, _span([found]))
        return tree.Attend(parts[1], found, _span(parts))

    def weight(self, parts: list[Any]) -> tree.Weight:
        value = None if isinstance(parts[1], Token) else parts[1]
        mode = _ident(parts[-1]) if isinstance(parts[-1], Token) else None
        return tree.Weight(_ident(parts[0]), value, mode, _span(parts))

    def range(self, parts: list[Any]) -> tree.Range:
        return tree.Range(parts[0], parts[2], _span(parts))

    def heads(self, parts: list[Any]) -> tree.Heads:
        return tree.Heads(parts[1], _nodes(parts[2:]), _span(parts))

    def claim(self, parts: list[Any]) -> tree.Claim:
        bound = parts[3] if len(parts) == 4 else None
        return tree.Claim(parts[0].type == "ASSUME", _ident(parts[1]), bound, _span(parts))

    def pattern(self, parts: list[Any]) -> tree.Pattern:
        params = parts[3] if isinstance(parts[3], tuple) else ()
        return tree.Pattern(_ident(parts[1]), params, _nodes(parts[4:]), _span(parts))

    def file(self, parts: list[Any]) -> tuple[Any, ...]:
        return tuple(parts)

    body = file


def _ident(token: Token) -> tree.Ident:
    return tree.Ident(str(token), _span([token]))


def _nodes(parts: list[Any]) -> tuple[Any, ...]:
    return tuple(part for part in parts if not isinstance(part, (Token, tuple)))


def _span(parts: list[Any]) -> Span:
    first, last = parts[0], parts[-1]
    start = first.start_pos if isinstance(first, Token) else first.span.start
    end = last.end_pos if isinstance(last, Token) else last.span.end
    return Span(start or 0, end or 0)


_LARK = Lark(
    grammar.TEXT,
    parser="lalr",
    lexer="basic",
    start=["file", "body"],
    maybe_placeholders=False,
    transformer=_TreeBuilder(),
)


# --- what the grammar says of its words -----------------------------------------------------------------


def lexemes(text: str) -> Iterator[Token]:
    """Every word of a text in order, spaces and comments included; together they are the text.

    Raises lark's ``UnexpectedCharacters`` where there is none.
    """
    return _LARK.lex(text, dont_ignore=True)


def terminals() -> dict[str, str | None]:
    """The name of every terminal, with its text where that is always the same."""
    return {item.name: item.pattern.value if item.pattern.type == "str" else None for item in _LARK.terminals}


def productions() -> tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]:
    """The grammar's rules: what is made, and of what; each symbol's name and whether it is a terminal."""
    return tuple(
        (rule.origin.name, tuple((symbol.name, symbol.is_term) for symbol in rule.expansion))
        for rule in _LARK.rules
    )


# --- doors ----------------------------------------------------------------------------------------------


def read(path: str | Path) -> Source:
    """The text of a pattern file in UTF-8. Raises ``AttncError`` for a file that cannot be one."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _refused(
            "unreadable-file",
            name,
            f"cannot read `{name}`: {error.strerror or error}",
            "check the path and its permissions",
        ) from error
    if len(data) > LARGEST_FILE:
        raise _refused(
            "file-too-large",
            name,
            f"`{name}` is larger than 128 KiB",
            "is it a pattern file? Split it if it holds many patterns",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(
            "not-text",
            name,
            f"`{name}` is not a text file: byte {error.start} is not UTF-8",
            "pattern files are plain text in UTF-8",
        ) from error
    if "\0" in text:
        raise _refused(
            "not-text",
            name,
            f"`{name}` is not a text file: byte {data.index(0)} is NUL",
            "pattern files are plain text in UTF-8",
        )
    return Source(name, text)


def parse(source: Source) -> tree.File:
    """The patterns of a file. Raises ``AttncError`` with the first syntax error."""
    patterns = _run(source, "file")
    if not patterns:
        end = Span(len(source.text), len(source.text))
        raise AttncError(
            (
                Diagnostic(
                    "empty-file",
                    "error",
                    f"`{source.name}` holds no pattern",
                    source,
                    end,
                    help="write `pattern name() { attend causal }`",
                ),
            )
        )
    return tree.File(patterns, source)


def parse_body(
    source: Source,
    name: str,
    params: tuple[tuple[str, str, object], ...] = (),
    inputs: tuple[str, ...] | None = None,
) -> tree.File:
    """A pattern whose header is a Python signature and whose body is ``source``, as in a docstring.

    params: (name, ``"int" | "float" | "bool"``, default); a default of None stands for none.
    inputs: the other keyword-only arguments, which must be exactly the inputs that the body declares; None
    if there is no such list to compare with.
    Raises ``AttncError`` with the first syntax error.
    """
    items = _run(source, "body")
    lead = len(source.text) - len(source.text.lstrip())  # a docstring may be padded to its place in a file
    start = Span(lead, lead)
    declared = tuple(
        tree.Parameter(
            tree.Ident(param, start), tree.Ident(kind, start), _literal(source, param, default, start), start
        )
        for param, kind, default in params
    )
    whole = Span(lead, len(source.text))
    return tree.File((tree.Pattern(tree.Ident(name, start), declared, items, whole),), source, inputs)


def _literal(source: Source, name: str, value: object, span: Span) -> tree.Expression | None:
    match value:
        case None:
            return None
        case bool():
            return tree.Flag(value, span)
        case int():
            number = tree.Number(abs(value), span)
            return tree.Prefix(tree.Ident("-", span), number, span) if value < 0 else number
        case float():
            return tree.Decimal(value, span)
    message = f"the default of `{name}` is {value!r}, which is no int, float or bool"
    help = "give the parameter a number as its default"
    raise AttncError((Diagnostic("parameter-type", "error", message, source, span, help=help),))


def _run(source: Source, start: str) -> tuple[Any, ...]:
    if len(source.text) > LARGEST_FILE:
        raise _refused(
            "file-too-large",
            source.name,
            f"`{source.name}` is larger than 128 KiB",
            "is it a pattern? Split it if it holds many",
        )
    _check_depth(source)
    try:
        result: tuple[Any, ...] = _LARK.parse(source.text, start=start)  # type: ignore[assignment]
    except UnexpectedToken as error:
        raise AttncError(
            (mistakes.unexpected_token(source, error.token, _acceptable(source, start)),)
        ) from None
    except UnexpectedCharacters as error:
        raise AttncError((mistakes.bad_character(source, error.pos_in_stream or 0),)) from None
    return result


def _acceptable(source: Source, start: str) -> frozenset[str]:
    """The terminals that could have stood where the first error is.

    By the time an error is raised the automaton has reduced what it could, and has forgotten that, say, an
    operator would have been welcome; so the text is walked again up to just before the error.
    """
    count = 0
    walk: Any = _LARK.parse_interactive(source.text, start=start)
    try:
        for token in walk.lexer_thread.lex(walk.parser_state):
            walk.feed_token(token)
            count += 1
    except UnexpectedToken:
        pass
    walk = _LARK.parse_interactive(source.text, start=start)
    tokens = walk.lexer_thread.lex(walk.parser_state)
    for _ in range(count):
        walk.feed_token(next(tokens))
    return frozenset(walk.accepts())


def expected(text: str) -> frozenset[str] | None:
    """The terminals that may follow a text; None where no file begins like that."""
    walk: Any = _LARK.parse_interactive(text, start="file")
    try:
        for token in walk.lexer_thread.lex(walk.parser_state):
            walk.feed_token(token)
    except (UnexpectedToken, UnexpectedCharacters):
        return None
    return frozenset(walk.accepts())


_BRACKETS_AND_PREFIXES = re.compile(r"#[^\r\n]*|[(\[{]|[)\]}]|!(?!=)|-|\bnot\b|[^\s#(\[{)\]}!-]")


def _check_depth(source: Source) -> None:
    """Later rooms walk the tree by recursion; what they could not walk is refused here."""
    depth = prefixes = 0
    for match in _BRACKETS_AND_PREFIXES.finditer(source.text):
        text = match.group()
        if text[0] == "#":
            continue
        if text in "([{":
            depth += 1
        elif text in ")]}":
            depth = max(depth - 1, 0)
        prefixes = prefixes + 1 if text in ("!", "-", "not") else 0
        if depth + prefixes > DEEPEST:
            raise AttncError((mistakes.too_deep(source, Span(*match.span())),))


def _refused(code: str, name: str, message: str, help: str) -> AttncError:
    return AttncError((Diagnostic(code, "error", message, Source(name, ""), Span(0, 0), help=help),))

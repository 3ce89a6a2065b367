"""The language server: what the protocol asks for, answered by the rest of this folder.

Mistakes of the text are told at once. What only proofs can tell comes later, from another process, and never
holds up anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from attnc.diagnostics import AttncError, Diagnostic, Source, Span
from attnc.editing import completion, outline
from attnc.editing.background import Background
from attnc.editing.examining import Facts
from attnc.editing.meanings import meanings
from attnc.editing.mending import mends, mistakes
from attnc.editing.positions import Place, Positions
from attnc.formatting import FormatError, formatted

# Seconds without a change before a text is looked at, and before it is examined.
_PAUSE, _REST = 0.05, 0.4

_SYMBOLS = {
    "pattern": lsp.SymbolKind.Function,
    "parameter": lsp.SymbolKind.Variable,
    "input": lsp.SymbolKind.Field,
    "axis": lsp.SymbolKind.Variable,
    "let": lsp.SymbolKind.Constant,
    "heads": lsp.SymbolKind.Namespace,
}
_COMPLETIONS = {
    "keyword": lsp.CompletionItemKind.Keyword,
    "relation": lsp.CompletionItemKind.Function,
    "set": lsp.CompletionItemKind.Function,
    "function": lsp.CompletionItemKind.Function,
    "name": lsp.CompletionItemKind.Variable,
    "argument": lsp.CompletionItemKind.Property,
    "value": lsp.CompletionItemKind.EnumMember,
    "type": lsp.CompletionItemKind.TypeParameter,
}
# What is proposed first: what this place alone has.
_ORDER = ("argument", "value", "type", "name", "keyword", "relation", "set", "function")


@dataclass
class _Document:
    """What is known of an open text. found: of ``text``, not of what was typed since.

    facts: None as long as they are being looked for.
    """

    text: str = ""
    found: tuple[Diagnostic, ...] = ()
    facts: Facts | None = None
    task: asyncio.Task[None] | None = None


@dataclass
class _State:
    """``over``: the editor has said that it will leave."""

    background: Background
    over: bool = False
    documents: dict[str, _Document] = field(default_factory=dict)


def serve(seconds: float, version: str) -> int:
    """Answers an editor over the standard streams until it leaves; gives the exit status.

    seconds: the time that every text is given to be examined. version: attnc's, which the editor is told.
    """
    state = _State(Background(seconds))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not be taken for an answer
    try:
        _server(state, version).start_io(sys.stdin.buffer, answers)
    finally:
        state.background.end()
    return 0 if state.over else 1


def _server(state: _State, version: str) -> LanguageServer:
    made = LanguageServer("attnc", version, text_document_sync_kind=lsp.TextDocumentSyncKind.Full)

    @made.feature(lsp.INITIALIZED)
    async def ready(_: lsp.InitializedParams) -> None:
        with contextlib.suppress(OSError):
            await state.background.start()

    @made.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    async def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        _look_again(made, state, params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        _look_again(made, state, params.text_document.uri)

    @made.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    async def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        document = state.documents.pop(uri, None)
        if document is not None and document.task is not None:
            document.task.cancel()
        made.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))

    @made.feature(lsp.SHUTDOWN)
    async def shutdown(_: None) -> None:
        for document in state.documents.values():
            if document.task is not None:
                document.task.cancel()
        state.background.end()
        state.over = True

    @made.feature(lsp.TEXT_DOCUMENT_HOVER)
    async def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        positions = _positions(made, params.text_document.uri)
        return _hover(positions, _place(params.position), state.documents.get(params.text_document.uri))

    @made.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", "("]))
    async def complete(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        positions = _positions(made, params.text_document.uri)
        proposed = completion.completions(positions.text, positions.offset(_place(params.position)))
        return [_completion(proposal) for proposal in proposed]

    @made.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    async def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        uri = params.text_document.uri
        positions = _positions(made, uri)
        symbol = outline.definition(positions.text, positions.offset(_place(params.position)))
        return None if symbol is None else lsp.Location(uri, _range(positions, symbol.name))

    @made.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    async def symbols(params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        positions = _positions(made, params.text_document.uri)
        return [_symbol(positions, symbol) for symbol in outline.outline(positions.text)]

    @made.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    async def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        positions = _positions(made, params.text_document.uri)
        try:
            text = formatted(Source(_name(params.text_document.uri), positions.text))
        except AttncError:
            return None  # its diagnostics say why
        except FormatError as error:
            made.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, str(error)))
            return None
        if text == positions.text:
            return []
        return [lsp.TextEdit(_range(positions, Span(0, len(positions.text))), text)]

    @made.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix])
    )
    async def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        uri = params.text_document.uri
        positions = _positions(made, uri)
        document = state.documents.get(uri)
        if document is None or document.text != positions.text:
            return []
        start, end = (positions.offset(_place(place)) for place in (params.range.start, params.range.end))
        near = [found for found in document.found if found.span.start <= end and start <= found.span.end]
        return [action for found in near for action in _actions(uri, positions, found)]

    return made


# --- looking at a text ----------------------------------------------------------------------------------


def _look_again(made: LanguageServer, state: _State, uri: str) -> None:
    """Begins to look at a text anew; what was begun on an older one is given up."""
    document = state.documents.setdefault(uri, _Document())
    if document.task is not None:
        document.task.cancel()
    document.task = asyncio.get_running_loop().create_task(_look(made, state, uri, document))


async def _look(made: LanguageServer, state: _State, uri: str, document: _Document) -> None:
    positions = _positions(made, uri)
    source = Source(_name(uri), positions.text)
    await asyncio.sleep(_PAUSE)
    found = await asyncio.to_thread(mistakes, source)
    document.text, document.found, document.facts = source.text, found, None
    _publish(made, uri, positions, found)
    if any(item.level == "error" for item in found):
        document.facts = Facts({}, (), "not known as long as the text has mistakes")
        return
    await asyncio.sleep(_REST)
    document.facts = await state.background.ask(source)
    if document.facts.diagnostics:
        document.found = document.facts.diagnostics
        _publish(made, uri, positions, document.found)


def _publish(made: LanguageServer, uri: str, positions: Positions, found: Iterable[Diagnostic]) -> None:
    version = made.workspace.get_text_document(uri).version
    told = [_diagnostic(uri, positions, item) for item in found]
    made.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, told, version))


# --- answers in the protocol's terms --------------------------------------------------------------------


def _positions(made: LanguageServer, uri: str) -> Positions:
    encoding = made.server_capabilities.position_encoding or "utf-16"
    try:
        text = made.workspace.get_text_document(uri).source
    except OSError:
        text = ""  # neither open nor on the disk
    return Positions(text, encoding.value if isinstance(encoding, lsp.PositionEncodingKind) else encoding)


def _name(uri: str) -> str:
    return to_fs_path(uri) or uri


def _place(position: lsp.Position) -> Place:
    return position.line, position.character


def _range(positions: Positions, span: Span) -> lsp.Range:
    start, end = positions.range(span)
    return lsp.Range(lsp.Position(*start), lsp.Position(*end))


def _diagnostic(uri: str, positions: Positions, found: Diagnostic) -> lsp.Diagnostic:
    told = f"{found.message}\n{found.label}" if found.label else found.message
    remarks = [f"note: {note}" for note in found.notes] + ([f"help: {found.help}"] if found.help else [])
    return lsp.Diagnostic(
        _range(positions, found.span),
        "\n".join([told, *remarks]),
        severity=lsp.DiagnosticSeverity.Error if found.level == "error" else lsp.DiagnosticSeverity.Warning,
        code=found.code,
        source="attnc",
        related_information=[
            lsp.DiagnosticRelatedInformation(lsp.Location(uri, _range(positions, label.span)), label.text)
            for label in found.secondary
        ],
    )


def _hover(positions: Positions, place: Place, document: _Document | None) -> lsp.Hover | None:
    text = positions.text
    offset = positions.offset(place)
    word = outline.word_at(text, offset)
    if word is None:
        return None
    parts: list[str] = []
    symbol = outline.definition(text, offset)
    if symbol is not None and symbol.kind == "pattern":
        parts.append(_facts(symbol.text, document, text))
    elif symbol is not None:
        parts.append(f"{symbol.kind}\n```attn\n{text[symbol.whole.start : symbol.whole.end]}\n```")
    else:
        told = meanings(word.text)
        parts += [f"{item.kind} `{item.form}`\n\n{item.text}" for item in told]
    if not parts:
        return None
    content = lsp.MarkupContent(lsp.MarkupKind.Markdown, "\n\n---\n\n".join(parts))
    return lsp.Hover(content, _range(positions, Span(word.start, word.end)))


def _facts(name: str, document: _Document | None, text: str) -> str:
    """What ``attnc check`` says of a pattern, or why that is not known."""
    if document is None or document.text != text or document.facts is None:
        return f"pattern `{name}`: being examined"
    if name not in document.facts.patterns:
        return f"pattern `{name}`: {document.facts.failure or 'not known: it has mistakes'}"
    rows = document.facts.patterns[name]
    width = max((len(key) for key, _ in rows), default=0)
    lines = [f"{key:<{width}}  {line}" for key, said in rows for line in said.splitlines()]
    return f"pattern `{name}`\n```text\n" + "\n".join(lines) + "\n```"


def _completion(proposal: completion.Proposal) -> lsp.CompletionItem:
    told = meanings(proposal.word) if proposal.kind not in ("name", "argument") else ()
    meant = "\n\n".join(f"`{item.form}`: {item.text}" for item in told)
    return lsp.CompletionItem(
        proposal.word,
        kind=_COMPLETIONS[proposal.kind],
        detail=proposal.detail or None,
        documentation=lsp.MarkupContent(lsp.MarkupKind.Markdown, meant) if meant else None,
        sort_text=f"{_ORDER.index(proposal.kind)}{proposal.word}",
    )


def _symbol(positions: Positions, symbol: outline.Symbol) -> lsp.DocumentSymbol:
    return lsp.DocumentSymbol(
        f"heads {symbol.text}" if symbol.kind == "heads" else symbol.text,
        _SYMBOLS[symbol.kind],
        _range(positions, symbol.whole),
        _range(positions, symbol.name),
        detail=symbol.kind,
        children=[_symbol(positions, part) for part in symbol.parts],
    )


def _actions(uri: str, positions: Positions, found: Diagnostic) -> list[lsp.CodeAction]:
    proposed = mends(found)
    return [
        lsp.CodeAction(
            mend.title,
            lsp.CodeActionKind.QuickFix,
            [_diagnostic(uri, positions, found)],
            is_preferred=len(proposed) == 1,
            edit=lsp.WorkspaceEdit(
                {uri: [lsp.TextEdit(_range(positions, edit.span), edit.text) for edit in mend.edits]}
            ),
        )
        for mend in proposed
    ]

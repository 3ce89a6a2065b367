"""What ``attnc check`` says, in a process of its own: one question a line, one answer a line.

Proofs take their time and cannot be interrupted; a process can be ended.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from attnc.diagnostics import Diagnostic, Edit, Label, Source, Span


@dataclass(frozen=True)
class Facts:
    """What is known of a text. patterns: for each by its name, the rows that ``attnc check`` prints of it.

    failure: why nothing is known, in words; empty otherwise.
    """

    patterns: dict[str, tuple[tuple[str, str], ...]]
    diagnostics: tuple[Diagnostic, ...]
    failure: str = ""


def question(source: Source) -> str:
    return json.dumps([source.name, source.text])


def facts(source: Source, answer: str) -> Facts:
    """An answer as it was given for a source."""
    data = json.loads(answer)
    patterns = {name: tuple((key, text) for key, text in rows) for name, rows in data["patterns"].items()}
    return Facts(patterns, tuple(_diagnostic(source, item) for item in data["diagnostics"]), data["failure"])


def answered(asked: str) -> str:
    """The answer to a question."""
    from attnc.report import examine
    from attnc.request import Request

    name, text = json.loads(asked)
    try:
        report = examine(Request(Source(name, text)))
    except Exception as error:  # a fault of attnc must not end the editor's conversation
        return json.dumps({"patterns": {}, "diagnostics": [], "failure": f"a fault of attnc: {error!r:.200}"})
    patterns = {pattern.name: list(pattern.rows()) for pattern in report.patterns}
    diagnostics = [_plain(found) for found in report.diagnostics]
    return json.dumps({"patterns": patterns, "diagnostics": diagnostics, "failure": ""})


def main() -> None:
    # Whatever else prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import attnc.report  # noqa: F401  the first question need not wait for this

    for asked in sys.stdin:
        print(answered(asked), file=answers, flush=True)


def _plain(found: Diagnostic) -> dict[str, Any]:
    data = asdict(found)
    del data["source"]
    return data


def _diagnostic(source: Source, data: dict[str, Any]) -> Diagnostic:
    return Diagnostic(
        data["code"],
        data["level"],
        data["message"],
        source,
        Span(**data["span"]),
        data["label"],
        tuple(Label(Span(**item["span"]), item["text"]) for item in data["secondary"]),
        tuple(data["notes"]),
        data["help"],
        tuple(Edit(Span(**item["span"]), item["text"]) for item in data["edits"]),
    )


if __name__ == "__main__":
    main()

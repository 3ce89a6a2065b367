"""Count lines of code: without blank lines, comments and docstrings. A file near 300 has room for no second
subject; one beyond the ceiling fails.

    python tools/count_lines.py
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

NEAR, CEILING = 300, 500
ROOMS = ("attnc", "codegen", "grammar", "examples", "tests", "tools")
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """Lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())) as doc, *_]:
                    lines.difference_update(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return len(lines)


def files(room: Path) -> list[Path]:
    """Python files below a folder; what is reached through a link is counted where it lies."""
    paths = room.rglob("*.py")
    return sorted(path for path in paths if not any(parent.is_symlink() for parent in path.parents))


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    total, beyond = 0, []
    for room in ROOMS:
        counts = {path: code_lines(path.read_text(encoding="utf-8")) for path in files(root / room)}
        total += sum(counts.values())
        print(f"{sum(counts.values()):6}  {room}/ ({len(counts)} files)")
        for path, count in counts.items():
            if count > NEAR:
                print(f"{count:10}  {path.relative_to(root)}{'  too long' if count > CEILING else ''}")
            if count > CEILING:
                beyond.append(path.relative_to(root))
    print(f"{total:6}  in all")
    for path in beyond:
        print(f"error: {path} has more than {CEILING} lines of code; split it by subject", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())

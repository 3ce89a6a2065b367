"""Draw the pictures of the examples that their README shows: examples/pictures/*.svg.

    python tools/pictures.py

A picture shows every pair of a few tokens, so the papers' sizes are made smaller; the pattern stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnc import pipeline
from attnc.drawing.picture import picture
from attnc.drawing.svg import thumbnail
from attnc.files import read_path, write_whole
from attnc.request import Request

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass(frozen=True)
class Shown:
    """How a pattern is shown: tokens, parameters that differ from the paper's, what inputs hold."""

    n: int = 64
    params: Mapping[str, int] = field(default_factory=dict)
    fills: Mapping[str, str] = field(default_factory=dict)


# Patterns that are not here are shown at 64 tokens as they are.
SHOWN = {
    "based": Shown(params={"window": 16}),
    "lolcats": Shown(params={"window": 16}),
    "mistral": Shown(params={"window": 16}),
    "llama4_chunked": Shown(params={"size": 16}),
    "overlapping_windows": Shown(params={"size": 4, "overlap": 1, "width": 8}),
    "strided": Shown(params={"step": 8}),
    "dilated": Shown(params={"width": 8, "dilation": 3}),
    "sparse_transformer_strided": Shown(params={"step": 8}),
    "sparse_transformer_fixed": Shown(params={"step": 8, "summary": 2}),
    "longformer": Shown(params={"window": 8}, fills={"is_global": "every:24"}),
    "etc": Shown(params={"globals": 6, "radius": 4}),
    "bigbird": Shown(params={"block": 4, "picks": 1}),
    "streaming_llm": Shown(params={"sinks": 3, "window": 12}),
    "prefix_lm": Shown(fills={"is_prefix": "first:20"}),
    "packed_documents": Shown(fills={"document": "runs:5"}),
    "image_transformer_1d": Shown(params={"block": 8, "before": 8}),
    "image_transformer_2d": Shown(params={"block": 4, "above": 2, "beside": 2, "width": 8}),
    "axial": Shown(params={"height": 8, "width": 8}),
    "gemma2_local": Shown(params={"window": 16}),
    "gpt_oss": Shown(params={"window": 16}),
    "natten_1d": Shown(params={"size": 9}),
    "natten_2d": Shown(params={"size": 3, "width": 8}),
    "natten_3d": Shown(params={"frames": 3, "rows": 3, "columns": 3, "height": 4, "width": 4}),
    "swin": Shown(params={"size": 4, "height": 8, "width": 8}),
    "swin_shifted": Shown(params={"size": 4, "shift": 2, "height": 8, "width": 8}),
}


def pictures() -> Iterator[tuple[Path, str]]:
    """Every picture: where it belongs, and its text."""
    for file in sorted(EXAMPLES.glob("*.attn")):
        source = read_path(file)
        parsed = pipeline.run(Request(source), "syntax")
        for pattern in parsed.file.patterns:
            name = pattern.name.text
            shown = SHOWN.get(name, Shown())
            done = pipeline.run(Request(source, name, dict(shown.params)), "terms")
            seen = picture(done.pattern, done.bodies, shown.n, fills=shown.fills)
            yield EXAMPLES / "pictures" / f"{name}.svg", thumbnail(seen)


def main() -> None:
    (EXAMPLES / "pictures").mkdir(exist_ok=True)
    for path, text in pictures():
        write_whole(path, text.encode())
        print(f"{path.relative_to(EXAMPLES.parent)}: {len(text)} bytes")


if __name__ == "__main__":
    main()

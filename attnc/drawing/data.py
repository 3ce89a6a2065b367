"""The block graph as data: JSON, and DOT for Graphviz."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attnc.drawing import MADE
from attnc.drawing.colors import color
from attnc.drawing.picture import BadPicture, Picture
from attnc.graph import Kind

# More edges than this make files that nobody can read any more.
MOST_JSON = 500_000
MOST_DOT = 20_000


def to_json(seen: Picture) -> str:
    """Nodes and edges of the block graph by tile, a graph for every group of heads that are alike.

    An edge says that some query of the one tile may read a key of the other: its ``state`` is ``"partial"``
    or ``"full"``, and ``terms`` are places in the list of the same name.
    """
    _check(seen, MOST_JSON, "JSON")
    document: dict[str, Any] = {
        "pattern": seen.pattern.name,
        "params": {param.name: param.value for param in seen.pattern.params}
        | dict(seen.pattern.float_params),
        "inputs": dict(seen.fills),
        "n": seen.n,
        "tile": seen.tile,
        "heads": seen.heads,
        "terms": list(seen.terms),
        "nodes": [
            {"id": f"{side}{i}", "side": name, "first": first, "last": last}
            for side, name in (("q", "query"), ("k", "key"))
            for i, first, last in _spans(seen)
        ],
        "graphs": [
            {
                "heads": list(panel.heads),
                "edges": [
                    {"from": f"q{i}", "to": f"k{j}", "state": state, "terms": list(terms)}
                    for i, j, state, terms in _edges(seen, place)
                ],
            }
            for place, panel in enumerate(seen.panels)
        ],
    }
    # An edge a line: short enough to be read, and to be compared by lines.
    encoder = json.JSONEncoder()
    for graph in document["graphs"]:
        graph["edges"] = [encoder.encode(edge) for edge in graph["edges"]]
    return _laid_out(document) + "\n"


def _laid_out(document: dict[str, Any]) -> str:
    text = json.dumps({**document, "nodes": "@nodes", "graphs": "@graphs"}, indent=1)
    nodes = ",\n  ".join(json.dumps(node) for node in document["nodes"])
    graphs = ",\n  ".join(
        f'{{"heads": {json.dumps(graph["heads"])}, "edges": [\n   ' + ",\n   ".join(graph["edges"]) + "\n  ]}"
        for graph in document["graphs"]
    )
    # The two places are the last lines, whatever the pattern's own words are.
    head, _, _ = text.rpartition('"@nodes"')
    head = f'{{"about": "{MADE}",{head[1:]}'
    return f'{head}[\n  {nodes}\n ],\n "graphs": [\n  {graphs}\n ]\n}}'


def to_dot(seen: Picture) -> str:
    """The same for Graphviz: a cluster for every group of heads, edges solid where full, else dashed."""
    _check(seen, MOST_DOT, "DOT")
    lines = [
        f"// {MADE}",
        f"digraph {_quoted(seen.pattern.name)} {{",
        "  rankdir=LR",
        "  node [shape=box, fontsize=10]",
    ]
    lines.append(f"  label={_quoted(f'{seen.title}: {seen.caption}')}")
    for place, panel in enumerate(seen.panels):
        lines += [f"  subgraph cluster_{place} {{", f"    label={_quoted(panel.title)}"]
        for side in ("q", "k"):
            for i, first, last in _spans(seen):
                span = str(first) if first == last else f"{first}..{last}"
                lines.append(f"    {side}{place}_{i} [label={_quoted(f'{side} {span}')}]")
        for i, j, state, terms in _edges(seen, place):
            paint = ":".join(color(term) for term in terms)
            style = "solid" if state == "full" else "dashed"
            words = _quoted("; ".join(seen.terms[term] for term in terms))
            lines.append(
                f'    q{place}_{i} -> k{place}_{j} [color="{paint}", style={style}, tooltip={words}]'
            )
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _spans(seen: Picture) -> Iterator[tuple[int, int, int]]:
    for i in range(seen.tiles):
        yield i, i * seen.tile, min((i + 1) * seen.tile, seen.n) - 1


def _edges(seen: Picture, place: int) -> Iterator[tuple[int, int, str, tuple[int, ...]]]:
    for i, row in enumerate(seen.panels[place].rows()):
        for part in row:
            state = part.kind.name.lower()
            yield from ((i, j, state, part.terms) for j in range(part.start, part.stop))


def _check(seen: Picture, most: int, form: str) -> None:
    counts = [panel.graph.counts() for panel in seen.panels]
    total = sum(found[Kind.PARTIAL] + found[Kind.FULL] for found in counts)
    if total > most:
        raise BadPicture(
            f"the block graph has {total} edges in tiles of {seen.tile}, and {form} is written for up to "
            f"{most}: take larger tiles"
        )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'

"""What all pages share: one self-contained file, on white or black paper, on a narrow or a wide window."""

from __future__ import annotations

from html import escape

from attnc.drawing import MADE

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d7dce2;
  --panel: #f6f8fa; --link: #0a58ca; --good: #1a7f37; --bad: #c62f37; --unsure: #93660a;
  --keyword: #a02c7d; --name: #1f2328; --call: #0b5cad; --number: #0a6b52; --string: #0a6b52;
  --comment: #66707b; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1318; --ink: #dbe1e8; --soft: #98a3af;
  --line: #2e3640; --panel: #171c23; --link: #78b3ff; --good: #57c574; --bad: #ff8079; --unsure: #e0b04d;
  --keyword: #ef8fce; --name: #dbe1e8; --call: #82bdff; --number: #6ed3b0; --string: #6ed3b0;
  --comment: #8d98a4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem;
  padding-top: .8rem; border-top: 1px solid var(--line); } h3 { font-size: 1.02rem; margin: 1.6rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; } a { color: var(--link); } .soft { color: var(--soft); }
code, pre { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { margin: .6rem 0; padding: .7rem .9rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; overflow-x: auto; tab-size: 4; }
figure { margin: .6rem 0; overflow-x: auto; } svg { display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; } th, td { text-align: left; vertical-align: top;
  padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); } th { font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
h1 code, h2 code { font-size: inherit; } .panels { display: flex; flex-wrap: wrap; gap: .8rem 1.4rem; }
.panels > div { flex: 0 1 auto; min-width: 0; }
.legend { list-style: none; margin: .6rem 0; padding: 0; }
.legend li { display: flex; gap: .6em; margin: .15rem 0; }
.legend i { flex: none; width: 1.6em; height: .8em; margin-top: .35em; }
.legend i[style*="currentColor"] { background: var(--ink) !important; }
details { margin: .6rem 0; } summary { cursor: pointer; }
.proven { color: var(--good); } .refuted { color: var(--bad); } .undecided { color: var(--unsure); }
.verdict { font-weight: 600; white-space: nowrap; }
.keyword { color: var(--keyword); } .call { color: var(--call); } .number { color: inherit; }
pre .number { color: var(--number); } .string { color: var(--string); }
.comment { color: var(--comment); font-style: italic; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole document; ``title`` is text, ``body`` is HTML."""
    return (
        f"<!DOCTYPE html><!-- {MADE} -->\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )

"""The grammar of the language, as text."""

from pathlib import Path

if __name__ == "grammar":
    raise ImportError("this folder belongs to the package: write `import attnc.grammar`")

TEXT = Path(__file__).with_name("attn.lark").read_text(encoding="utf-8")

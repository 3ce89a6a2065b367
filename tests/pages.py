"""What must hold of every page that attnc writes."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}
# Elements that fetch or run something.
STRANGE = {
    "script",
    "link",
    "img",
    "iframe",
    "object",
    "embed",
    "audio",
    "video",
    "base",
    "form",
    "use",
    "image",
}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in STRANGE, f"<{tag}> fetches or runs something"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name}={value!r} runs something"
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                assert value is not None and value.startswith("#"), f"{name}={value!r} leads elsewhere"
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def assert_self_contained(page: str) -> str:
    """Raises unless a page is well formed, fetches nothing and runs nothing; gives its words."""
    found = _Page()
    found.feed(page)
    found.close()
    assert not found.open and found.seen[0] == "html" and "svg" in found.seen
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    assert 'name="viewport"' in page and 'charset="utf-8"' in page
    return " ".join("".join(found.text).split())

"""What every page must be: well-formed, and complete in itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
_FETCHES = re.compile(r"@import|url\(\s*['\"]?(?!#)|<script|javascript:", re.IGNORECASE)


class Reader(HTMLParser):
    """Reads a page: its elements, its text, and whatever is wrong with it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.counts: dict[str, int] = {}
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._enter(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._enter(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]} at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def _enter(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag in ("script", "iframe", "object", "embed", "img", "base", "form"):
            self.wrong.append(f"<{tag}> at {self.getpos()}")
        self.wrong += [f"{name} at {self.getpos()}" for name in attributes if name[:2] == "on"]
        self.ids += [value or "" for name, value in attributes.items() if name == "id"]
        if "src" in attributes:
            self.wrong.append(f"src at {self.getpos()}")
        if tag == "link" and attributes.get("href") != "data:,":
            self.wrong.append(f"<link> to {attributes.get('href')}")
        if tag == "a":
            self.links.append(attributes.get("href") or "")


def read_page(html: str) -> Reader:
    """Read a page, and fail where it is malformed or would fetch or run anything."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert html.startswith("<!doctype html>\n")
    assert reader.wrong == []
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert not _FETCHES.search(styles)
    assert "<script" not in html.lower()
    return reader

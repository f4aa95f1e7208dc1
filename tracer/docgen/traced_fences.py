"""The MkDocs plugin `tracer`: pages with marked fences in; pages with what running them gave out.

A fence is marked by the word `tracer` behind its language: ```` ```python tracer ````.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from mkdocs.config import base, config_options
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from tracer.docgen.blocks import Code
from tracer.docgen.embedding import run_blocks
from tracer.docgen.fences import Fence, code_of, find_fences
from tracer.docgen.fragment import fragment, fragment_css
from tracer.docgen.page import CodeStep
from tracer.docgen.run import TIMEOUT

_log = logging.getLogger("mkdocs.plugins.tracer")


class PluginConfig(base.Config):
    """The options of the plugin, under its name in `mkdocs.yml`."""

    timeout = config_options.Type((int, float), default=TIMEOUT)
    cache = config_options.Type(str, default=".cache/tracer")


@dataclass(slots=True)
class _Results:
    """What stands for the results in a page's Markdown, and the results."""

    html: dict[str, str] = field(default_factory=dict)


class TracedFences(BasePlugin[PluginConfig]):
    """Runs the marked fences of each page, in order, in a process of the page's own."""

    def __init__(self) -> None:
        self._pages: dict[str, _Results] = {}

    def on_page_markdown(
        self, markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files
    ) -> str:
        """Run a page's fences; leave the code, and a place for what running it gave."""
        marked = [
            (fence, code)
            for fence in find_fences(markdown)
            if fence.words is not None and fence.is_python and (code := code_of(fence)) is not None
        ]
        if not marked:
            return markdown
        steps = self._run(markdown, [code for _, code in marked], page, config)
        results = self._pages[page.file.src_uri] = _Results()
        lines = markdown.split("\n")
        for (fence, _), step in reversed(list(zip(marked, steps, strict=True))):
            lines[fence.start : fence.end] = _replacement(fence, step, results)
        return "\n".join(lines)

    def on_page_content(
        self, html: str, /, *, page: Page, config: MkDocsConfig, files: Files
    ) -> str:
        """Put the results into the page."""
        results = self._pages.pop(page.file.src_uri, None)
        if results is None:
            return html
        for place, shown in results.html.items():
            html = html.replace(f"<p>{place}</p>", shown)
        return f"<style>\n{fragment_css()}</style>\n{html}"

    def _run(
        self, markdown: str, code: list[Code], page: Page, config: MkDocsConfig
    ) -> tuple[CodeStep, ...]:
        path = Path(str(page.file.abs_src_path))
        text, above = _whole(path, markdown)
        moved = [Code(one.text, one.line + above, one.marks, one.echo, one.python) for one in code]

        def warn(line: int, message: str) -> None:
            _log.warning("%s:%d: %s", page.file.src_uri, line, message)

        return run_blocks(
            path,
            text,
            moved,
            cache=Path(config.config_file_path).parent / self.config.cache,
            stem=page.file.src_uri.replace("/", "-").removesuffix(".md"),
            timeout=self.config.timeout,
            warn=warn,
        )


def _whole(path: Path, markdown: str) -> tuple[str, int]:
    """Return the text of a file and how many lines of front matter MkDocs took off its top."""
    text = path.read_text("utf-8-sig").replace("\r\n", "\n") if path.is_file() else markdown
    body = markdown.strip("\n")
    at = text.find(body)
    if at < 0:
        return markdown, 0
    taken = len(markdown) - len(markdown.lstrip("\n"))
    return text, text[:at].count("\n") - taken


def _replacement(fence: Fence, step: CodeStep, results: _Results) -> list[str]:
    """Return the lines that stand for a fence: the code, and a place for its results."""
    if not step.is_shown:
        return []
    place = "tracer" + sha256(f"{step.number} {step.text}".encode()).hexdigest()
    results.html[place] = fragment(step)
    shown = ["```python", *step.text.split("\n"), "```", "", place, ""]
    return [f"{' ' * fence.indent}{line}".rstrip() for line in shown]

"""The Sphinx directive `tracer`: Python in a document in; the code and what running it gave, out.

All blocks of a document run in order in one process, once the document has been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tracer.docgen.blocks import Code
from tracer.docgen.embedding import find_line, run_blocks
from tracer.docgen.fragment import fragment, fragment_css
from tracer.docgen.gallery import begin_with_examples, stop_recording
from tracer.docgen.marks import FLAGS, SHOWN, VALUES, parse_marks
from tracer.docgen.page import CodeStep, drawings_of
from tracer.docgen.run import TIMEOUT

STYLE = "tracer.css"
_log = logging.getLogger(__name__)


class TracedCode(nodes.General, nodes.Element):
    """Code that waits to be run; `code`, `line` and `words` are its attributes."""


class TracedResult(nodes.General, nodes.Element):
    """What running code gave: `html`, and for what is no HTML the children."""


class TracerDirective(SphinxDirective):
    """`.. tracer::` with code as its content, and marks as its options."""

    has_content = True
    option_spec = {
        **dict.fromkeys(VALUES, directives.unchanged),
        **{name: directives.flag for name in (*FLAGS, *SHOWN) if name not in VALUES},
    }

    def run(self) -> list[nodes.Node]:
        """Leave a node that is run and replaced when the whole document has been read."""
        self.assert_has_content()
        code = "\n".join(self.content)
        words = " ".join(_word(name, value) for name, value in self.options.items())
        node = TracedCode(code=code, words=words, line=self.content_offset + 1)
        self.set_source_info(node)
        return [node]


def _word(name: str, value: str | None) -> str:
    return f"{name}='{value}'" if value else name


def run_document(app: Sphinx, doctree: nodes.document) -> None:
    """Run the code of a document and put the results in its place."""
    waiting = list(doctree.findall(TracedCode))
    if not waiting:
        return
    docname = app.env.docname
    path = Path(app.env.doc2path(docname))
    text = path.read_text("utf-8")
    steps = run_blocks(
        path,
        text,
        [_code(node, text) for node in waiting],
        cache=Path(app.doctreedir) / "tracer",
        stem=docname.replace("/", "-"),
        timeout=app.config.tracer_timeout,
        warn=lambda line, message: _log.warning(message, location=(docname, line), type="tracer"),
    )
    for node, step in zip(waiting, steps, strict=True):
        node.replace_self(list(_nodes(step)))


def _code(node: TracedCode, text: str) -> Code:
    code = node["code"]
    return Code(code, find_line(text, code, node["line"]), parse_marks(node["words"]))


def _nodes(step: CodeStep) -> Iterator[nodes.Node]:
    if not step.is_shown:
        return
    yield nodes.literal_block(step.text, step.text, language="python")
    yield TracedResult("", *_in_words(step), html=fragment(step))


def _in_words(step: CodeStep) -> Iterator[nodes.Node]:
    """Yield what a page that is no HTML shows: text, and what pictures show in words."""
    texts = [output.text for output in step.outputs]
    texts += [step.failure.text.rstrip()] if step.failure is not None else []
    texts += [chapter.text for chapter in step.scraped.story]
    for text in filter(None, texts):
        yield nodes.literal_block(text, text, language="text")
    for drawing in drawings_of(step):
        yield nodes.paragraph(drawing.alt, drawing.alt)


def _write_html(writer: Any, node: TracedResult) -> None:
    writer.body.append(node["html"])
    raise nodes.SkipNode


def _pass_by(_writer: Any, _node: TracedResult) -> None:
    """Write the children and nothing else."""


def _write_style(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_static"
        folder.mkdir(exist_ok=True)
        (folder / STYLE).write_text(fragment_css(), "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive to Sphinx, and the recording of examples to sphinx-gallery."""
    others: dict[str, Any] = dict.fromkeys(("latex", "text", "man", "texinfo"), (_pass_by,) * 2)
    app.add_node(TracedCode)
    app.add_node(TracedResult, html=(_write_html, None), **others)
    app.add_directive("tracer", TracerDirective)
    app.add_config_value("tracer_timeout", TIMEOUT, "env", [float, int])
    app.add_css_file(STYLE)
    app.connect("config-inited", begin_with_examples, priority=5)
    app.connect("doctree-read", run_document)
    app.connect("build-finished", _write_style)
    app.connect("build-finished", stop_recording)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

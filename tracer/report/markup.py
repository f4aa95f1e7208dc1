"""Templates and plain values in; HTML in which every value is escaped out."""

from __future__ import annotations

import jinja2

from tracer.report.drawing import embed_svg
from tracer.report.figures import Drawing
from tracer.report.highlight import highlight_css, highlight_python
from tracer.report.plots import Plot


def environment(*packages: str) -> jinja2.Environment:
    """Return an environment with the templates of these packages and of the report's parts."""
    found = [jinja2.PackageLoader(package) for package in (*packages, "tracer.report")]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(found), autoescape=_is_html,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.globals.update(style_sheet=style_sheet)
    made.filters.update(python=_python, picture=_picture)
    return made


def _is_html(template: str | None) -> bool:
    return template is None or ".html" in template


def style_sheet() -> str:
    """Return the CSS of every page."""
    source = jinja2.PackageLoader("tracer.report").get_source(jinja2.Environment(), "page.css")
    return source[0] + highlight_css()


def _python(source: str, first_line: int = 1, marked: frozenset[int] = frozenset()) -> str:
    return highlight_python(source, first_line=first_line, marked=marked)


def _picture(drawing: Drawing | Plot, name: str) -> str:
    """Return a drawing as an element; `name` tells it from the others on the page."""
    return embed_svg(drawing.svg, name, drawing.alt)

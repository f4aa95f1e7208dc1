"""A block of code that has run in; what is shown below it, as HTML for a page of another's, out."""

from __future__ import annotations

import jinja2

from tracer.docgen.page import NOT_RUN, CodeStep
from tracer.report.markup import environment


def fragment(step: CodeStep) -> str:
    """Return what a block printed, raised and recorded as one element of class `tracer`.

    Nothing in it runs, and it asks for nothing from elsewhere; `fragment_css` is its style. Ids
    begin with the number of the block.
    """
    template = environment("tracer.docgen").get_template("fragment.html.j2")
    return template.render(step=step, not_run=NOT_RUN)


def fragment_css() -> str:
    """Return the style sheet of fragments; it says nothing about anything else on a page."""
    loader = jinja2.PackageLoader("tracer.docgen")
    return loader.get_source(jinja2.Environment(), "fragment.css")[0]

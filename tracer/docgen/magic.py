"""The cell magic `%%tracer`: a cell of a notebook in; what it does, and a picture of it, out."""

from __future__ import annotations

import ast
import linecache
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.display import display

from tracer import api
from tracer.docgen.child import parts_to_run
from tracer.docgen.fragment import fragment, fragment_css
from tracer.docgen.marks import Marks, parse_marks
from tracer.docgen.page import CodeStep
from tracer.docgen.scrape import Scraped, scrape
from tracer.errors import TracerError


@dataclass(frozen=True, slots=True)
class Shown:
    """What a cell recorded, for whatever shows the notebook."""

    step: CodeStep

    def _repr_html_(self) -> str:
        return f"<style>{fragment_css()}</style>\n{fragment(self.step)}"

    def __repr__(self) -> str:
        return "\n".join(chapter.text for chapter in self.step.scraped.story)


class TracerMagic:
    """Runs a cell as IPython does, under tracing, and shows below it what was recorded."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    @property
    def _number(self) -> int:
        """The number of the running cell; `execution_count` is the next one's since IPython 9."""
        return int(self._shell.displayhook.prompt_count)

    def __call__(self, line: str, cell: str) -> None:
        """Run the cell; `line` are marks, of which `name=t` keeps the trace as `t`."""
        __tracebackhide__ = True
        marks = parse_marks(line)
        if marks.wrong:
            raise UsageError(f"%%tracer: {marks.wrong}")
        trace = api.trace()
        try:
            with trace:
                self._run(cell)
        finally:
            if marks.name:
                self._shell.user_ns[marks.name] = trace
            self._show(trace, cell, marks)

    def _run(self, cell: str) -> None:
        __tracebackhide__ = True
        code = self._shell.transform_cell(cell)
        name = f"In [{self._number}]"
        # The magic itself is line 1 of the cell.
        linecache.cache[name] = (len(code), None, ["\n", *code.splitlines(True)], name)
        tree = ast.parse("\n" + code, name)
        for part, mode in parts_to_run(tree, "last"):
            exec(self._shell.compile(part, name, mode), self._shell.user_ns)

    def _show(self, trace: api.Trace, cell: str, marks: Marks) -> None:
        step = CodeStep(cell, 1, self._number, marks, scraped=_scrape(trace, marks))
        if step.scraped != Scraped():
            display(Shown(step))


def _scrape(trace: api.Trace, marks: Marks) -> Scraped:
    record = trace.record
    try:
        return scrape(record, record, marks)
    except TracerError as error:
        return Scraped(wrong=str(error))


def load_ipython_extension(shell: Any) -> None:
    """Add `%%tracer` to a notebook: what `%load_ext tracer` calls."""
    shell.register_magic_function(TracerMagic(shell).__call__, "cell", "tracer")

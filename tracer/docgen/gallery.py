"""The blocks of sphinx-gallery's examples, as it runs them, in; pictures and timelines for it out.

`image_scrapers = (tracer.sphinx_gallery_scraper,)` with `"tracer"` among the extensions.
"""

from __future__ import annotations

import linecache
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.util import logging

from tracer import api
from tracer.docgen.fragment import fragment
from tracer.docgen.page import CodeStep, drawings_of
from tracer.docgen.scrape import scrape
from tracer.docgen.timeless import without_times
from tracer.report.window import look_at

_LAST = 1 << 62
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Example:
    """The example that runs now, what is recorded of it, and up to where that has been shown."""

    trace: api.Trace
    file: str = ""
    seen: int = 0
    blocks: int = 0


_running: list[_Example] = []
"""The example that is being recorded, if any: a process of sphinx-gallery runs one at a time."""


def begin_with_examples(_app: object, config: Any) -> None:
    """Have sphinx-gallery say when an example begins, where its examples are to be traced."""
    gallery = getattr(config, "sphinx_gallery_conf", None) or {}
    scrapers = gallery.get("image_scrapers", ())
    scrapers = scrapers if isinstance(scrapers, (tuple, list)) else (scrapers,)
    if any(one in (sphinx_gallery_scraper, "tracer.sphinx_gallery_scraper") for one in scrapers):
        _listen(gallery)


def _listen(gallery: dict[str, Any]) -> None:
    plots = ("matplotlib", "seaborn") if find_spec("matplotlib") else ()
    before = gallery.get("reset_modules", plots)
    before = before if isinstance(before, (tuple, list)) else (before,)
    if begin_example not in before:
        gallery["reset_modules"] = (*before, begin_example)


def begin_example(gallery_conf: dict[str, Any], file: str | Path | None) -> None:
    """Record what follows as an example of its own."""
    stop_recording()
    if file is None:
        return
    places = list(_places_of(Path(file).name, gallery_conf))
    for path in places:
        text = path.read_text("utf-8", "replace")
        # Without a time of its own, as the text of what is compiled part by part.
        linecache.cache[str(path)] = (len(text), None, text.splitlines(True), str(path))
    recording = api.Recording(None, script=str(next(iter(places), file)))
    _running.append(_Example(api.Trace(recording=recording).__enter__(), str(file)))


def _places_of(name: str, gallery_conf: dict[str, Any]) -> Iterator[Path]:
    """Yield where an example may be: sphinx-gallery says only what it is called."""
    for key in ("examples_dirs", "gallery_dirs"):
        folders = gallery_conf.get(key, ())
        for folder in folders if isinstance(folders, (tuple, list)) else (folders,):
            yield from Path(os.path.normpath(Path(gallery_conf["src_dir"], folder))).rglob(name)


def stop_recording(*_: object) -> None:
    """End the recording of the example that ran last."""
    while _running:
        _running.pop().trace.__exit__(None, None, None)


def sphinx_gallery_scraper(
    block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]
) -> str:
    """Return the reStructuredText of what a block recorded: its pictures, and its timeline.

    A scraper for sphinx-gallery's `image_scrapers`.
    """
    if not _running:
        _listen(gallery_conf)
        begin_example(gallery_conf, block_vars["src_file"])
        _log.warning(
            "tracer: what ran before was not recorded: add 'tracer' to `extensions` in conf.py",
            type="tracer",
        )
        return ""
    example = _running[-1]
    example.file = str(block_vars["src_file"])
    step = _look(example, str(block[1]), int(block[2]))
    paths = []
    for drawing in drawings_of(step):
        if drawing.svg:
            path = Path(str(next(block_vars["image_path_iterator"]))).with_suffix(".svg")
            path.write_text(drawing.svg, "utf-8")
            paths.append(str(path))
    figure_rst = import_module("sphinx_gallery.scrapers").figure_rst
    pictures: str = figure_rst(paths, gallery_conf["src_dir"], _titles(step)) if paths else ""
    rest = replace(step, scraped=replace(step.scraped, figures=()))
    if not (rest.scraped.story or rest.scraped.plots):
        return pictures
    html = textwrap.indent(fragment(rest), "    ")
    return f"{pictures}\n.. raw:: html\n\n{html}\n\n"


def _look(example: _Example, code: str, line: int) -> CodeStep:
    """Collect what has been recorded since the last block."""
    whole = without_times(example.trace.record)
    part = look_at(whole, example.seen, _LAST)
    folder = os.path.dirname(example.file)
    example.blocks += 1
    example.seen = max((event.seq for event in part.events), default=example.seen)
    return CodeStep(code, line, example.blocks, scraped=scrape(whole, part, folder=folder))


def _titles(step: CodeStep) -> str:
    return ". ".join(drawing.alt for drawing in drawings_of(step)[:1])

"""See how gradients flow through PyTorch code: record every event, draw it, read it.

>>> import tracer
>>> with tracer.trace("run.trace") as t:  # doctest: +SKIP
...     loss.backward()
>>> t.draw("run.svg")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.api import Trace, load, make_dot, mark, pause, resume, trace, walk
    from tracer.errors import TracerError
    from tracer.records.picking import Selection
    from tracer.records.view import View

__all__ = [
    "Selection",
    "Trace",
    "TracerError",
    "View",
    "load",
    "make_dot",
    "mark",
    "pause",
    "resume",
    "trace",
    "walk",
]

if not TYPE_CHECKING:
    # Each is imported when it is first used: `tracer --help` needs none of them.
    _DOORS = {
        **dict.fromkeys(__all__, "tracer.api"),
        "TracerError": "tracer.errors",
        "Selection": "tracer.records.picking",
        "View": "tracer.records.view",
        "make_dot_from_trace": "tracer.render.make_dot",  # what torchviz has beside make_dot
        "setup": "tracer.docgen.directive",  # extensions = ["tracer"]
        "sphinx_gallery_scraper": "tracer.docgen.gallery",  # image_scrapers = (tracer.…,)
        "load_ipython_extension": "tracer.docgen.magic",  # %load_ext tracer
    }

    def __getattr__(name: str) -> object:
        """Find what users, Sphinx, sphinx-gallery and Jupyter look for here, once they do."""
        if name not in _DOORS:
            raise AttributeError(f"module 'tracer' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_DOORS[name]), name)
        return found

    def __dir__() -> list[str]:
        """Name what is there to use, for completion."""
        return sorted({*globals(), *__all__})

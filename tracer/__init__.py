"""See how gradients flow through PyTorch code: record every event, draw it, read it.

>>> import tracer
>>> with tracer.trace("run.trace") as t:  # doctest: +SKIP
...     loss.backward()
>>> t.draw("run.svg")  # doctest: +SKIP
"""

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

"""Traces on disk: the one file that a recording becomes, its writer and its reader."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.store.reader import read_trace, read_writer
    from tracer.store.writer import TraceWriter

__all__ = ["TraceWriter", "read_trace", "read_writer"]


def __getattr__(name: str) -> object:
    """Import what is used when it is used: what only reads a trace needs no writer."""
    if name not in __all__:
        raise AttributeError(f"module 'tracer.store' has no attribute {name!r}")
    module = "writer" if name == "TraceWriter" else "reader"
    return getattr(import_module(f"tracer.store.{module}"), name)

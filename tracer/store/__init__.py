"""Traces on disk: the one file that a recording becomes, its writer and its reader."""

from tracer.store.reader import read_trace, read_writer
from tracer.store.writer import TraceWriter

__all__ = ["TraceWriter", "read_trace", "read_writer"]

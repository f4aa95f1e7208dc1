"""Records in, records out: a pass becomes the content of a picture."""

from tracer.transforms.diagram import diagram

__all__ = ["diagram"]

"""Documents whose code runs when they are built: blocks -> run -> scrape -> page."""

from tracer.docgen.site import BuildFailure, BuildResult, build

__all__ = ["BuildFailure", "BuildResult", "build"]

"""Documents whose code runs when they are built: blocks -> run -> scrape -> page."""

from tracer.docgen.making import BuildFailure, Options
from tracer.docgen.site import BuildResult, build
from tracer.docgen.staleness import CheckResult, check

__all__ = ["BuildFailure", "BuildResult", "CheckResult", "Options", "build", "check"]

"""Documents whose code runs when they are built: blocks -> run -> scrape -> page."""

from tracer.docgen.site import BuildFailure, BuildResult, Options, build
from tracer.docgen.staleness import CheckResult, check

__all__ = ["BuildFailure", "BuildResult", "CheckResult", "Options", "build", "check"]

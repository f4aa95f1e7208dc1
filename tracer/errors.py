"""The errors a user can meet: each says in one line what happened and what to do."""


class TracerError(Exception):
    """Anything `tracer` refuses to do; its text is one line fit for a terminal."""


class TraceFileError(TracerError):
    """A trace file that is missing, is not a trace, or was written by a newer version."""


class NotInTraceError(TracerError):
    """A pass, node or name that the trace does not hold."""


class RenderError(TracerError):
    """A picture that could not be drawn, with the reason the layout engine gave."""


class ScriptError(TracerError):
    """A script or module that cannot be started."""


class OptionError(TracerError):
    """A value that an option cannot have."""

"""Calls that leave no trace in warnings and tracebacks, though a Python frame of ours runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

# `warnings` does not count frames of files with both words in their name: it takes them for those
# of the import system. And what is in angle brackets and frozen is nobody's source.
UNSEEN_FILE = "<frozen importlib._bootstrap of tracer>"
STAND_IN = "<tracer>"

_MOST_STAND_INS = 2048
_STAND_IN = (lambda function, /, *args, **kwargs: function(*args, **kwargs)).__code__
_stand_ins: dict[tuple[int, int], tuple[CodeType, CodeType]] = {}


def unseen(function: F) -> F:
    """Make a function whose frames `warnings` passes over, and `without_ours` takes out."""
    code = cast(FunctionType, function).__code__
    cast(FunctionType, function).__code__ = code.replace(co_filename=UNSEEN_FILE)
    return function


def is_ours(code: CodeType) -> bool:
    """Whether a frame of this code stands between the user's line and PyTorch because of us."""
    return code.co_filename == UNSEEN_FILE or code.co_name == STAND_IN


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the first entry on that is not ours."""
    while trace is not None and is_ours(trace.tb_frame.f_code):
        trace = trace.tb_next
    return trace


def as_callers(function: Callable[..., Any]) -> Callable[..., Any]:
    """What to call in place of a function for a warning in it to be taken for the caller's.

    A function written in Python has a frame of its own, which such a warning names. One written in
    C has none, so it is called from a stand-in of the caller's file, line and globals: there the
    warning is shown, and is remembered as shown.
    """
    if runs_python(function):
        return function
    frame = caller(sys._getframe(1))
    if frame is None:
        return function
    return partial(FunctionType(_stand_in(frame), frame.f_globals), function)


def runs_python(function: Any) -> bool:
    """Whether calling it runs a frame of its own at once."""
    if isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, FunctionType):
        return True
    run = getattr(type(function), "__call__", None)  # noqa: B004 - which kind of callable it is
    return isinstance(run, FunctionType)


def caller(frame: FrameType | None) -> FrameType | None:
    """The nearest frame that is not ours, from this one outward."""
    while frame is not None and is_ours(frame.f_code):
        frame = frame.f_back
    return frame


def _stand_in(frame: FrameType) -> CodeType:
    code, line = frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno
    known = _stand_ins.get((id(code), line))
    if known is None:
        if len(_stand_ins) >= _MOST_STAND_INS:
            _stand_ins.clear()
        made = _STAND_IN.replace(
            co_filename=code.co_filename, co_firstlineno=line, co_name=STAND_IN
        )
        known = _stand_ins[id(code), line] = (code, made)  # the code is held, so its id is its own
    return known[1]

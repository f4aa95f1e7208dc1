"""A frame comes in; the values of its variables go out, and nothing stays behind on the frame."""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from inspect import CO_OPTIMIZED
from types import CodeType, FrameType
from typing import TypeGuard

MOST_FRAMES = 32

# Who calls these may hold the frame's one dictionary of locals.
_ASKING = frozenset({"locals", "vars", "exec", "eval", "dir"})
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_PYTEST = "@py_builtins"
_OWN_REFERENCES = 3
_NO_NAME = re.compile(r"__.*__|_+|_i{1,3}|_[iod]h|_i?\d+")
_OF_NOTEBOOK = ("In", "Out")


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables of one frame or module, and which of them `for` loops bind."""

    values: dict[str, object]
    loop_variables: frozenset[str]

    def named(self) -> Iterator[tuple[str, object]]:
        """Yield the variables that a user would call something by, in the order they were made."""
        hidden = _OF_NOTEBOOK if "get_ipython" in self.values else ()
        for name, value in self.values.items():
            if is_name(name) and name not in hidden:
                yield name, value


def read_scopes(frame: FrameType | None, is_user: Callable[[CodeType], bool]) -> Iterator[Scope]:
    """Read the locals of the user frames from `frame` outward, then the globals, each once."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < MOST_FRAMES:
        if is_user(frame.f_code):
            frames.append(frame)
        frame = frame.f_back
    modules = {id(one.f_globals): one for one in frames if _is_of_module(one)}
    for one in frames:
        if not _is_of_module(one):
            yield Scope(read_locals(one), _loop_variables(one.f_code))
    seen: set[int] = set()
    for one in frames:
        if id(one.f_globals) not in seen and type(one.f_globals) is dict:
            seen.add(id(one.f_globals))
            module = modules.get(id(one.f_globals))
            loops = frozenset[str]() if module is None else _loop_variables(module.f_code)
            yield Scope(dict(one.f_globals), loops)


def read_locals(frame: FrameType) -> dict[str, object]:
    """Read the local variables of a frame; empty where reading them could be noticed.

    Until Python 3.12 asking a function's frame for `f_locals` renews a dictionary that stays on the
    frame and keeps every variable's value alive. A debugger changes variables through it, and a
    function that calls `locals()` or `exec()` may hold it: such frames are not read. From the
    others, the dictionary is emptied again.
    """
    code = frame.f_code
    if sys.version_info >= (3, 13) or not code.co_flags & CO_OPTIMIZED:
        found = frame.f_locals
        return dict(found) if code.co_flags & CO_OPTIMIZED or type(found) is dict else {}
    if sys.gettrace() is not None or _asks_for_locals(code):
        return {}
    shared = frame.f_locals
    values = dict(shared)
    if sys.getrefcount(shared) <= _OWN_REFERENCES:
        _forget(code, shared)
    return values


def is_name(name: object) -> TypeGuard[str]:
    """Tell what a user would call a thing from dunders, `_`, and what IPython and pytest keep."""
    return type(name) is str and name.isidentifier() and not _NO_NAME.fullmatch(name)


@lru_cache(maxsize=1024)
def _asks_for_locals(code: CodeType) -> bool:
    """Tell a function that may hold its own locals; pytest makes it ask only when a test fails.

    `model.eval()` is no call of `eval`.
    """
    if _PYTEST in code.co_names or _ASKING.isdisjoint(code.co_names):
        return False
    loads = (one for one in dis.get_instructions(code) if one.opname in _LOADS)
    return any(one.argval in _ASKING for one in loads)


def _forget(code: CodeType, shared: dict[str, object]) -> None:
    for name in code.co_varnames + code.co_cellvars + code.co_freevars:
        shared.pop(name, None)


def _is_of_module(frame: FrameType) -> bool:
    return not frame.f_code.co_flags & CO_OPTIMIZED and frame.f_locals is frame.f_globals


@lru_cache(1024)
def _loop_variables(code: CodeType) -> frozenset[str]:
    has_loop = dis.opmap["FOR_ITER"] in code.co_code[::2]
    return frozenset(_bound_by_loops(code) if has_loop else ())


def _bound_by_loops(code: CodeType) -> Iterator[str]:
    pending = 0
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        if name == "FOR_ITER":
            pending = 1
        elif pending and name == "UNPACK_SEQUENCE":
            pending += value - 1
        elif pending and name.startswith("STORE_"):
            stored = value if isinstance(value, tuple) else (value,)
            yield from stored[:pending]
            pending = max(pending - len(stored), 0)
        elif name not in ("CACHE", "EXTENDED_ARG"):
            pending = 0

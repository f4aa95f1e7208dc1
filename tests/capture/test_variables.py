"""Reading variables so that nobody can tell."""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Any

import pytest
import torch

from tests.capture.probes import Holder
from tracer.capture.variables import is_name, read_locals, read_scopes

gives_snapshots = sys.version_info >= (3, 13)
shares_one_dictionary = pytest.mark.skipif(
    gives_snapshots, reason="a frame's locals are no longer one shared dictionary"
)


def test_reading_locals_keeps_nothing_alive() -> None:
    value = Holder()
    gone = weakref.ref(value)
    assert read_locals(sys._getframe())["value"] is value
    del value
    assert gone() is None


def test_what_exec_put_among_the_locals_stays_there() -> None:
    sys._getframe().f_locals["extra"] = 1
    read_locals(sys._getframe())
    assert sys._getframe().f_locals["extra"] == 1


@shares_one_dictionary
def test_a_dictionary_of_locals_that_somebody_holds_keeps_its_entries() -> None:
    number = 1
    held = sys._getframe().f_locals
    read_locals(sys._getframe())
    assert held["number"] == number


@shares_one_dictionary
def test_a_function_that_asks_for_its_locals_is_not_read() -> None:
    assert ask_for_locals() == ({}, {}, 1)


def ask_for_locals() -> tuple[object, ...]:
    before = locals()
    number = 1
    return read_locals(sys._getframe()), before, number


def test_calling_a_method_named_eval_asks_for_nothing() -> None:
    model = torch.nn.Identity()
    model.eval()
    assert read_locals(sys._getframe())["model"] is model


@shares_one_dictionary
def test_locals_are_not_read_under_a_debugger() -> None:
    number, trace = 1, sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        found = read_locals(sys._getframe())
    finally:
        sys.settrace(trace)
    assert (found, number) == ({}, 1)


class Odd(dict[str, Any]):
    """A namespace with code of its own."""

    def keys(self) -> Any:
        raise SystemExit("asked for its keys")


def test_a_namespace_with_code_of_its_own_is_not_read() -> None:
    names = Odd(read=lambda: read_locals(sys._getframe(1)), found=None)
    exec("found = read()", {}, names)
    assert names["found"] == {}


def inner(number: int) -> tuple[FrameType, int]:
    return sys._getframe(), number


def test_scopes_are_locals_inside_out_then_globals_each_once() -> None:
    found: list[tuple[list[str], list[str]]] = []
    names = {"sys": sys, "found": found, "read": read_into}
    source = (
        "def outer(b):\n    for i, (j, k) in [(1, (2, 3))]:\n        inner(b)\n"
        "def inner(a):\n    read(found)\n"
        "for item in '1':\n    outer(item)\n"
    )
    exec(compile(source, "<scopes>", "exec"), names)
    assert found == [
        (["a"], []),
        (["b", "i", "j", "k"], ["i", "j", "k"]),
        (["sys", "found", "read", "outer", "inner", "item"], ["item"]),
    ]


def read_into(found: list[tuple[list[str], list[str]]]) -> None:
    frame: FrameType | None = sys._getframe(1)
    scopes = read_scopes(frame, lambda code: code.co_filename == "<scopes>")
    for scope in scopes:
        names = [name for name, _ in scope.named()]
        found.append((names, sorted(scope.loop_variables)))


@pytest.mark.parametrize("name", ["w", "_w", "x1", "名", "In"])
def test_what_a_user_would_say_is_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["_", "___", "__file__", "_1", "_i", "_ii", "_i3", "_oh", "@py_assert1", ".0", 3]
)
def test_what_python_and_its_tools_keep_is_no_name(name: object) -> None:
    assert not is_name(name)

"""Around: the same function to its caller, between two callbacks."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

NO_ENTRY_OF_OURS = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the core in Python shows its frames on Python 3.10"
)


def keep(args: Any, kwargs: Any) -> Any:
    return args, kwargs


def forget(token: Any, result: Any, error: Any) -> None:
    pass


def raise_deeper(number: int) -> int:
    return 1 // number


def divide(number: int) -> int:
    return raise_deeper(number)


# ---- calls


def test_the_callbacks_see_what_the_function_was_given_and_gave(core: ModuleType) -> None:
    seen: list[Any] = []
    no_words: dict[str, int] = {}

    def after(*told: Any) -> None:
        seen.append(told)

    wrapped = core.Around(lambda a, b=0: a + b, lambda args, kwargs: ("token", args, kwargs), after)
    assert wrapped(1) == 1
    assert wrapped(1, b=2) == 3
    assert wrapped(1, **no_words) == 1
    assert seen == [
        (("token", (1,), None), 1, None),
        (("token", (1,), {"b": 2}), 3, None),
        (("token", (1,), None), 1, None),
    ]


def test_the_callbacks_see_what_the_function_raised(core: ModuleType) -> None:
    seen: list[Any] = []
    wrapped = core.Around(divide, lambda args, kwargs: "token", lambda *told: seen.append(told))
    with pytest.raises(ZeroDivisionError) as caught:
        wrapped(0)
    assert seen == [("token", None, caught.value)]


def test_arguments_may_have_any_name(core: ModuleType) -> None:
    def function(*args: int, **kwargs: int) -> Any:
        return args, kwargs

    names = ("self", "function", "args", "kwargs", "before", "call", "token", "result")
    given = dict.fromkeys(names, 1)
    assert core.Around(function, keep, forget)(2, **given) == ((2,), given)


def test_a_call_within_a_call_is_one_of_its_own(core: ModuleType) -> None:
    order: list[str] = []

    def around(name: str, function: Any) -> Any:
        return core.Around(
            function,
            lambda args, kwargs: order.append(f"before {name}"),
            lambda *told: order.append(f"after {name}"),
        )

    inner = around("inner", len)
    outer = around("outer", lambda text: inner(text) + inner(text))
    assert around("outermost", outer)("abc") == 6
    assert order == [
        "before outermost", "before outer", "before inner", "after inner", "before inner",
        "after inner", "after outer", "after outermost",
    ]  # fmt: skip


# ---- failures


def fail(*given: Any) -> None:
    raise LookupError("a fault of our own")


def interrupt(*given: Any) -> None:
    raise KeyboardInterrupt


def test_a_fault_of_a_callback_is_not_seen(core: ModuleType) -> None:
    assert core.Around(abs, fail, forget)(-1) == 1
    assert core.Around(abs, keep, fail)(-1) == 1
    with pytest.raises(ZeroDivisionError):
        core.Around(divide, keep, fail)(0)
    with pytest.raises(ZeroDivisionError):
        core.Around(divide, fail, fail)(0)


def test_the_users_interrupt_is_the_users(core: ModuleType) -> None:
    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        core.Around(calls.append, interrupt, forget)(1)
    assert calls == []
    with pytest.raises(KeyboardInterrupt):
        core.Around(calls.append, keep, interrupt)(1)
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        core.Around(divide, keep, interrupt)(0)


def entries_of_traceback(call: Callable[[], object]) -> list[tuple[str, int | None, str]]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the function raises
        call()
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)
    frames = traceback.extract_tb(caught.value.__traceback__)
    return [(frame.filename, frame.lineno, frame.name) for frame in frames][1:]


@NO_ENTRY_OF_OURS
@pytest.mark.parametrize(
    ("function", "argument"),
    [(divide, 0), (int, "x"), ([].index, 1), (torch.add, 1), (torch.nn.functional.softmax, 3)],
)
def test_a_traceback_is_that_of_the_call_itself(
    core: ModuleType, function: Any, argument: Any
) -> None:
    found = []
    for one in (function, core.Around(function, keep, forget), core.Around(function, fail, fail)):
        found.append(entries_of_traceback(lambda one=one: one(argument)))  # type: ignore[misc]
    assert found[1] == found[0]
    assert found[2] == found[0]


@NO_ENTRY_OF_OURS
def test_an_exception_that_passes_twice_shows_both_ways(core: ModuleType) -> None:
    inner = core.Around(divide, keep, forget)

    def middle(number: int) -> int:
        return inner(number)

    outer = core.Around(middle, keep, forget)
    names = [name for _, _, name in entries_of_traceback(lambda: outer(0))]
    assert names == ["<lambda>", "middle", "divide", "raise_deeper"]


# ---- warnings


def warn_at(level: int) -> None:
    warnings.warn("careful", UserWarning, stacklevel=level)


def here() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_warning_from_c_names_the_callers_line(core: ModuleType) -> None:
    warn = core.Around(warnings.warn, keep, forget)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("careful")
        line = here() - 1
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, line)]


@pytest.mark.parametrize("level", [2, 3])
def test_a_warning_from_python_counts_frames_as_if_there_were_none_of_ours(
    core: ModuleType, level: int
) -> None:
    found = []
    for function in (warn_at, core.Around(warn_at, keep, forget)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function(level)
        found.append([(w.filename, w.lineno) for w in caught])
    assert found[1] == found[0]


def test_a_warning_is_shown_once_for_each_line(core: ModuleType) -> None:
    warn = core.Around(warnings.warn, keep, forget)
    code = "for _ in range(3):\n    warn('careful')\nwarn('careful')\n"
    for known in ({"warn": warnings.warn}, {"warn": warn}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            exec(compile(code, "lesson.py", "exec"), known)
        assert [(w.filename, w.lineno) for w in caught] == [("lesson.py", 2), ("lesson.py", 3)]
        assert "__warningregistry__" in known


# ---- what else it is


class Model:
    def __init__(self, number: int) -> None:
        self.number = number

    def times(self, factor: int) -> int:
        """Multiply."""
        return self.number * factor


def test_it_binds_as_the_function_does(core: ModuleType) -> None:
    class Child(Model):
        times = core.Around(Model.times, keep, forget)
        of = classmethod(core.Around(lambda cls, number: cls(number), keep, forget))
        both = staticmethod(core.Around(lambda a, b: a + b, keep, forget))

    assert Child(3).times(2) == 6
    assert Child(3).times(factor=2) == 6
    assert Child.times(Child(4), 2) == 8
    assert Child.of(5).number == 5
    assert Child(1).of(6).number == 6
    assert Child.both(1, 2) == 3
    bound = Child(7).times
    assert bound.__self__.number == 7
    assert bound.__func__ is Child.__dict__["times"]


def test_it_tells_of_itself_what_the_function_tells(core: ModuleType) -> None:
    wrapped = core.Around(Model.times, keep, forget)
    assert wrapped.__wrapped__ is Model.times
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__code__", "__defaults__"):
        assert getattr(wrapped, name) == getattr(Model.times, name)
    assert inspect.signature(wrapped) == inspect.signature(Model.times)
    with pytest.raises(AttributeError, match="nothing"):
        wrapped.nothing  # noqa: B018


def test_what_is_set_on_it_is_the_functions(core: ModuleType) -> None:
    def function() -> None: ...

    wrapped = core.Around(function, keep, forget)
    wrapped.note = "kept"
    assert function.note == "kept"  # type: ignore[attr-defined]
    del wrapped.note
    assert not hasattr(function, "note")


# ---- memory


def test_ten_thousand_calls_leave_nothing_behind(core: ModuleType) -> None:
    token, argument, result, value = object(), object(), object(), object()

    def function(given: object, *, fails: bool = False, name: object = None) -> object:
        if fails:
            raise ValueError("asked for")
        return result

    wrapped = core.Around(function, lambda args, kwargs: token, forget)

    def run(times: int) -> None:
        for _ in range(times):
            wrapped(argument, name=value)
            with contextlib.suppress(ValueError):
                wrapped(argument, fails=True, name=value)

    run(10)
    held = (token, argument, result, value, function, wrapped)
    gc.collect()
    before = [sys.getrefcount(one) for one in held], len(gc.get_objects())
    run(10_000)
    gc.collect()
    assert [sys.getrefcount(one) for one in held] == before[0]
    assert abs(len(gc.get_objects()) - before[1]) < 20


def test_one_that_its_own_callbacks_hold_is_freed(core: ModuleType) -> None:
    class Owner:
        def __init__(self) -> None:
            self.wrapped = core.Around(len, self.before, forget)

        def before(self, args: Any, kwargs: Any) -> None: ...

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None

"""Modeless: a function runs while our mode is off, and the mode is back after it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.capture.cores import make_mode, make_tape
from tests.capture.test_core_around import NO_ENTRY_OF_OURS, divide
from tests.capture.test_core_mode import active
from tracer.capture.session import Session


class Theirs(TorchFunctionMode):
    """A mode of the user's."""


class Recording:
    """What a session has of its mode, and the calls of its callbacks."""

    def __init__(self, core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self._core = core
        self.mode = make_mode(core, make_tape(core))
        self.rounds = SimpleNamespace(resting=False)
        self._taken_off: dict[int, int] = {}
        monkeypatch.setattr(Session, "active", self)

    def make(self, function: Callable[..., Any]) -> Any:
        return self._core.Modeless(
            function,
            lambda args, kwargs: Session._before_backward(self, args, kwargs),  # type: ignore[arg-type]
            lambda *told: Session._after_backward(self, *told),  # type: ignore[arg-type]
            self.mode,
            self._taken_off,
        )


def modes() -> list[Any]:
    depth = torch._C._len_torch_function_stack()
    return [torch._C._get_function_stack_at(at) for at in range(depth)]


@contextmanager
def resting(recording: Recording) -> Iterator[None]:
    """The watchers rest, as after a pass that is left out."""
    recording.mode.paused, recording.rounds.resting = 1, True
    yield
    recording.mode.paused, recording.rounds.resting = 0, False


@pytest.fixture
def recording(core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Recording:
    return Recording(core, monkeypatch)


def test_the_mode_is_off_while_the_function_runs(recording: Recording) -> None:
    modeless = recording.make(lambda *args, **kwargs: (args, kwargs, modes()))
    with active(recording.mode):
        assert modeless(1, two=2) == ((1,), {"two": 2}, [])
        assert modes() == [recording.mode]
    assert modeless(3) == ((3,), {}, [])
    assert modes() == []


def test_a_mode_of_the_users_stays_where_it_is(recording: Recording) -> None:
    modeless = recording.make(modes)
    with active(recording.mode), Theirs() as theirs:
        assert modeless() == [recording.mode, theirs]
        assert modes() == [recording.mode, theirs]
    with Theirs() as theirs, active(recording.mode):
        assert modeless() == [theirs]
        assert modes() == [theirs, recording.mode]


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_the_mode_is_back_after_a_function_that_raises(
    recording: Recording, error: type[BaseException]
) -> None:
    raised = error("of the user's")

    def fail() -> None:
        raise raised

    with active(recording.mode):
        with pytest.raises(error) as caught:
            recording.make(fail)()
        assert modes() == [recording.mode]
    assert caught.value is raised
    assert raised.__context__ is None


@NO_ENTRY_OF_OURS
def test_a_traceback_has_no_entry_of_ours(recording: Recording) -> None:
    with active(recording.mode), pytest.raises(ZeroDivisionError) as caught:
        recording.make(divide)(0)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["divide", "raise_deeper"]
    assert len(names) == 3


def test_a_function_within_the_function_finds_no_mode_to_take(recording: Recording) -> None:
    inner = recording.make(modes)
    with active(recording.mode):
        assert recording.make(lambda: (inner(), modes()))() == ([], [])
        assert modes() == [recording.mode]


def test_the_mode_stays_off_while_the_watchers_rest_and_is_back_when_they_wake(
    recording: Recording,
) -> None:
    modeless = recording.make(modes)
    with active(recording.mode):
        with resting(recording):
            assert modeless() == []
            assert modes() == []
            with Theirs() as theirs:
                assert modeless() == [theirs]
        with Theirs() as theirs:
            modeless()
            assert modes() == [theirs]  # not over a mode of the user's
        modeless()
        assert modes() == [recording.mode]


def test_the_mode_stays_off_where_the_recording_ended_within(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        recording.mode.paused = 1
        monkeypatch.setattr(Session, "active", None)

    torch._C._push_on_torch_function_stack(recording.mode)
    recording.make(end)()
    assert modes() == []

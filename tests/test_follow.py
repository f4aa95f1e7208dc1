"""Events printed as they happen: what is told is what is recorded, and it is told at once."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tracer
from tests.cli.conftest import Prompt, prompt  # noqa: F401 (a fixture)
from tracer.capture.session import Session
from tracer.records import Event, HookAdded, HookRemoved, HookRun
from tracer.render.following import Follower
from tracer.render.outlet import Outlet
from tracer.store.writer import TraceWriter


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events that are handed to a follower, in the order in which they are."""
    events: list[Event] = []
    tell = Follower.tell

    def note(self: Follower, event: Event) -> None:
        events.append(event)
        tell(self, event)

    monkeypatch.setattr(Follower, "tell", note)
    return events


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is printed, a line each, with runs of spaces made one."""
    printed: list[str] = []
    monkeypatch.setattr(Outlet, "write", lambda self, text: printed.append(" ".join(text.split())))
    return printed


def inner_pass(inner: torch.Tensor) -> None:
    """A pass of its own, for a hook to make."""
    (inner * 3).sum().backward()


def busy_program() -> None:
    """Two passes, one inside a hook, hooks of several kinds, a cut, writes, `autograd.grad`."""
    v = torch.ones(3, requires_grad=True)
    w = torch.full((3,), 2.0, requires_grad=True)
    inner = torch.ones(2, requires_grad=True)
    v.register_hook(lambda grad: grad * 2)
    w.register_post_accumulate_grad_hook(lambda leaf: None)
    y = v * w
    y.register_hook(lambda grad: torch.enable_grad()(inner_pass)(inner))
    loss = (y * y.detach()).sum()
    loss.backward(retain_graph=True)
    torch.autograd.grad(loss, [v], create_graph=True)
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad = None
    optimizer = torch.optim.SGD([v], lr=0.1)
    optimizer.step()
    tracer.mark("done")


def without_hooks(events: list[Event]) -> list[Event]:
    """The events in order; a hook's record may have a better name by the end."""
    plain = sorted(events, key=lambda event: event.seq)
    return [
        replace(event, hook=None) if isinstance(event, (HookAdded, HookRemoved, HookRun)) else event
        for event in plain
    ]


def test_what_is_told_is_what_is_recorded(
    tmp_path: Path, told: list[Event], lines: list[str]
) -> None:
    with tracer.trace(tmp_path / "run.trace", follow=True) as trace:
        busy_program()
    recorded = list(trace.record.events)
    assert {"node", "accumulate", "hook", "forward", "mark"} <= {event.kind for event in recorded}
    assert without_hooks(told) == without_hooks(recorded)
    assert len(lines) == 1 + len(recorded)


def test_an_event_is_told_before_the_program_goes_on(lines: list[str]) -> None:
    seen: list[int] = []
    with tracer.trace(follow=True):
        x = torch.ones(2, requires_grad=True)
        seen.append(len(lines))
        y = x * 2
        seen.append(len(lines))
        y.register_hook(lambda grad: seen.append(len(lines)))
        (y * 3).sum().backward()
        seen.append(len(lines))
        x.grad = None
    assert [now for before, now in zip(seen, seen[1:], strict=False) if now <= before] == []
    assert len(lines) == seen[-1] + 1


def test_an_accumulation_is_told_before_the_next_node_runs(lines: list[str]) -> None:
    at_hook: list[str] = []
    with tracer.trace(follow=True):
        late = torch.ones(2, requires_grad=True)
        early = torch.ones(2, requires_grad=True)
        product = late * 2
        product.register_hook(lambda grad: at_hook.extend(lines))
        (product + early).sum().backward()
    assert any("accumulate early.grad None → [1, 1]" in line for line in at_hook)
    assert not any("accumulate late.grad" in line for line in at_hook)


def test_steps_are_those_of_the_recorded_trace(lines: list[str]) -> None:
    with tracer.trace(follow=tracer.Selection(kinds=("node", "accumulate"))) as trace:
        busy_program()
    selection = tracer.Selection(kinds=("node", "accumulate"))
    recorded = [" ".join(line.split()) for line in trace.timeline_lines(selection)]
    first = [line.split()[0] for line in lines[1:]]
    assert sorted(first) == sorted(line.split()[0] for line in recorded[1:])


def test_only_what_is_asked_for_is_told(lines: list[str]) -> None:
    with tracer.trace(follow=tracer.Selection(kinds="accumulate", names="w")):
        busy_program()
    assert [line.split()[2:4] for line in lines[1:]] == [["accumulate", "w.grad"]]


def test_events_go_to_a_file_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    with tracer.trace(follow_to=log):
        x = torch.ones(1, requires_grad=True)
        before = log.read_text(encoding="utf-8")
        (x * 2).backward()
        after = log.read_text(encoding="utf-8")
    assert before.splitlines()[0].split() == [
        "pass·#",
        "t",
        "ms",
        "event",
        "where",
        "line",
        "gradient",
    ]
    assert "x = torch.ones(1" in before
    assert "pass ends" in after


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(tracer.TracerError, match="cannot be written"),
        tracer.trace(follow_to=tmp_path / "no" / "events.log"),
    ):
        pass
    with tracer.trace():  # nothing was left in place
        pass


def test_a_reader_that_goes_away_ends_the_lines_and_nothing_else(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", Gone())
        with tracer.trace(follow=True) as trace:
            busy_program()
    assert len(trace.passes) == 4


def test_without_following_the_recorder_writes_to_the_trace_itself() -> None:
    with tracer.trace():
        session = Session.active
        assert session is not None
        assert type(session.recorder.writer) is TraceWriter
        assert session.recorder.tape.most == 1 << 20


CRASH = """
import os, torch
x = torch.ones(2, requires_grad=True)
y = x * 2
y.register_hook(lambda grad: os._exit(3))
(y * 5).sum().backward()
"""


@pytest.mark.parametrize("core", ["", "python"])
def test_the_last_line_before_a_crash_is_the_event_before_it(prompt: Prompt, core: str) -> None:  # noqa: F811
    prompt.write("crash.py", CRASH)
    ran = prompt.tracer("run", "--follow", "crash.py", env={"TRACER_CORE": core or None})
    assert ran.status == 3
    last = ran.err.splitlines()[-1].split()
    assert (last[0], last[2]) == ("1·2", "MulBackward0")


def test_filters_shared_with_timeline(prompt: Prompt) -> None:  # noqa: F811
    prompt.write("crash.py", CRASH.replace("os._exit(3)", "None"))
    ran = prompt.tracer(
        "run", "--follow-to", "log", "--kind", "node", "--name", "y", "--quiet", "crash.py"
    )
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    log = (prompt.folder / "log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[2] for line in log[1:]] == ["MulBackward0"]
    refused = prompt.tracer("run", "--kind", "node", "crash.py")
    told = "tracer: --kind picks what --follow prints: add --follow"
    assert (refused.status, refused.err.partition(" (")[0]) == (2, told)

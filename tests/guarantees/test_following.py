"""Random programs followed as they run: all guarantees hold, and what is told is recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

import tracer
from tests.guarantees import checks
from tests.guarantees.conftest import torch_state
from tests.guarantees.ledger import check_ledger
from tests.guarantees.oracle import observing
from tests.guarantees.programs import Instruction, programs, run_program
from tracer.records import Event, HookAdded, HookRemoved, HookRun
from tracer.render.following import Follower
from tracer.render.outlet import Outlet


def comparable(events: list[Event]) -> list[Event]:
    """Events in order; a hook's record may have a better name by the end."""
    return [
        replace(event, hook=None) if isinstance(event, (HookAdded, HookRemoved, HookRun)) else event
        for event in sorted(events, key=lambda event: event.seq)
    ]


def check_followed(program: list[Instruction], told: list[Event]) -> None:
    """All guarantees for one program, and that each event was told as it is recorded."""
    plain = run_program(program)
    with observing() as observed:
        run_program(program)
    before = torch_state()
    told.clear()
    with tracer.trace(follow=True) as t:
        traced = run_program(program)
    assert torch_state() == before
    trace = t.record
    checks.check_harmless(traced, plain)
    checks.check_complete(trace, observed)
    checks.check_exact(trace, observed)
    checks.check_sums(trace)
    checks.check_hooks(trace, traced)
    check_ledger(trace, observed, traced)
    assert repr(comparable(told)) == repr(comparable(list(trace.events)))


def test_random_programs_are_told_as_they_are_recorded(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    tell = Follower.tell

    def note(self: Follower, event: Event) -> None:
        told.append(event)
        tell(self, event)

    monkeypatch.setattr(Follower, "tell", note)
    monkeypatch.setattr(Outlet, "write", lambda self, text: None)
    tries = request.config.getoption("--programs") // 20

    @settings(
        max_examples=tries,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def check(program: list[Instruction]) -> None:
        check_followed(program, told)

    check()

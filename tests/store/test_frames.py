"""Events as packed frames: what is written is what is read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.recordings import F32, GRAPH, HOOKS, LEAF, SITES, recorded
from tests.store.strategies import EVENTS, events_of
from tracer.errors import TraceFileError
from tracer.records import (
    EVENT_KINDS,
    DataWrite,
    Event,
    Gradient,
    GradWrite,
    HookRun,
    Mark,
    Pass,
    Run,
    TensorMeta,
)
from tracer.records.statistics import gradient_of_values
from tracer.store import TraceWriter, read_writer
from tracer.store.entries import UNKNOWN_META, encode_entry
from tracer.store.frames import scan_frames


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_kind_of_event_comes_back_as_it_was(kind: type[Event]) -> None:
    @settings(deadline=None)
    @given(events_of(kind))
    def comes_back(event: Event) -> None:
        assert repr(list(recorded(event).events)) == repr([event])

    comes_back()


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_frames_are_found_without_decoding_them(events: list[Event]) -> None:
    writer = TraceWriter(None, Run())
    for event in events:
        writer.event(event)
    writer.flush()
    frames = b"".join(row[0] for row in writer.connection.execute("SELECT frames FROM chunk"))
    found = [(code, number, seq) for _, code, number, seq in scan_frames(frames)]
    assert found == [
        (EVENT_KINDS.index(type(event)) + 1, event.pass_id or 0, event.seq) for event in events
    ]


def test_statistics_of_values_are_worked_out_anew() -> None:
    wrong = Gradient(TensorMeta((2,)), norm=99.0, values=(3.0, 4.0))
    event = DataWrite(seq=1, leaf=1, how="sub_", after=wrong)
    right = gradient_of_values(TensorMeta((2,)), (3.0, 4.0))
    assert list(recorded(event).events) == [replace(event, after=right)]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("quint8", (1, 2)), ("float32", (1e300,)), ("int8", (300,))],
)
def test_values_that_an_entry_cannot_hold_leave_their_statistics(
    dtype: str, values: tuple[float, ...]
) -> None:
    gradient = gradient_of_values(TensorMeta((len(values),), dtype), values)
    event = DataWrite(seq=1, leaf=1, how="sub_", after=gradient)
    without = replace(event, after=replace(gradient, values=None))
    assert list(recorded(event).events) == [without]


def test_entries_that_the_recorder_packed_pass_as_they_are() -> None:
    writer = TraceWriter(None, Run())
    gradient = gradient_of_values(F32, (1.0, math.inf, -0.0))
    packed = encode_entry(gradient, writer)
    event = GradWrite(seq=1, leaf=1, how=".grad =", after=gradient)
    writer.event(replace(event, after=packed))  # type: ignore[arg-type]
    assert list(read_writer(writer).events) == [event]


def unread(meta: int = 0) -> bytes:
    """A packed entry whose metadata is left to the structure."""
    return bytes([4]) + meta.to_bytes(4, "little") + bytes(4)


@pytest.mark.parametrize(
    ("kind", "node", "input_nr", "expected"),
    [
        ("tensor hook", 1, 0, [F32]),
        ("tensor hook", 1, 1, [UNKNOWN_META]),
        ("prehook", 1, None, [F32, UNKNOWN_META]),
        ("posthook", 0, None, [F32, F32]),
        ("posthook", 1, None, [UNKNOWN_META, F32]),
        ("multi-grad hook", None, None, [UNKNOWN_META]),
    ],
)
def test_what_a_hook_sees_has_the_metadata_of_the_place_it_is_on(
    kind: str, node: int | None, input_nr: int | None, expected: list[TensorMeta]
) -> None:
    hook = replace(HOOKS[0], kind=kind)
    seen = tuple(unread() for _ in expected)
    event = HookRun(seq=1, pass_id=1, hook=hook, node=node, input_nr=input_nr, before=seen)  # type: ignore[arg-type]
    (read,) = recorded(GRAPH, Pass(1, 1), event).events
    assert isinstance(read, HookRun)
    assert [gradient and gradient.meta for gradient in read.before] == expected


def test_a_write_has_the_metadata_of_its_leaf() -> None:
    events = [
        DataWrite(seq=number, leaf=number, how="sub_", after=unread())  # type: ignore[arg-type]
        for number in (1, 2)
    ]
    read = [event.after for event in recorded(LEAF, *events).events if isinstance(event, DataWrite)]
    assert read == [Gradient(F32), Gradient(UNKNOWN_META)]


def test_text_with_a_lone_surrogate_is_kept() -> None:
    mark = Mark(seq=1, text="caf\udce9", site=SITES[0])
    assert list(recorded(mark).events) == [mark]


@pytest.mark.parametrize(
    "frames",
    [
        b"short",
        (27).to_bytes(4, "little") + bytes(24),
        (2**32 - 1).to_bytes(4, "little") + bytes(24),
    ],
)
def test_bytes_that_are_no_frames_are_refused(frames: bytes) -> None:
    with pytest.raises(ValueError, match="no sound length"):
        list(scan_frames(frames))


@pytest.mark.parametrize(
    ("offset", "value"), [(4, 0), (4, 17), (28, 9), (0, 200), (53, 255)], ids=str
)
def test_a_frame_that_holds_no_event_is_an_error_of_the_file(offset: int, value: int) -> None:
    writer = TraceWriter(None, Run())
    writer.event(HookRun(seq=1, hook=HOOKS[0], before=(Gradient(F32),)))
    writer.flush()
    frames = bytearray(writer.connection.execute("SELECT frames FROM chunk").fetchone()[0])
    frames[offset] = value
    writer.connection.execute("UPDATE chunk SET frames = ?, kinds = -1", (bytes(frames),))
    with pytest.raises(TraceFileError, match="the trace in memory is damaged"):
        list(read_writer(writer).events)

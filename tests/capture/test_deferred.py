"""Readings that a device answers later: with the CPU taken for such a device, all is as at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tracer
from tests.capture.comparing import Gradients, record, same_recordings, same_value
from tests.capture.devices import answering_later, answering_when_told, readings
from tests.capture.tensors import DTYPES, tensors
from tracer.capture import deferred, reductions
from tracer.capture.session import Session
from tracer.records import GradWrite, HookRun, NodeRun, TraceRecord
from tracer.records.events import EVENT_KINDS
from tracer.store.entries import UNKNOWN_META, decode_entry
from tracer.store.frames import PASS_END_CODE, scan_frames
from tracer.store.live import LiveWriter

# ---- programs


def train(steps: int = 3) -> None:
    """All kinds of write that training makes, and a hook that changes what it is given."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 30), nn.Linear(30, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model[2].weight.register_hook(lambda gradient: gradient * 2)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(5, 3)) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def hooks_of_all_kinds() -> None:
    """Hooks that look, change, put another of the same numbers there, and write in place."""
    for size in (3, 50):
        leaf = torch.linspace(-1, 1, size, requires_grad=True)
        product = leaf * leaf
        product.retain_grad()
        product.register_hook(lambda gradient: None)
        product.register_hook(lambda gradient: gradient.flip(0))
        product.register_hook(lambda gradient: gradient.clone())
        product.register_hook(lambda gradient: gradient.mul_(1))
        product.register_hook(lambda gradient: gradient.mul_(2))
        product.register_hook(lambda gradient: gradient.zero_())
        product.register_hook(lambda gradient: gradient.mul_(0.5))
        product.register_hook(lambda gradient: gradient + torch.linspace(0, 1, gradient.numel()))
        assert product.grad_fn is not None
        product.grad_fn.register_prehook(lambda gradients: (gradients[0] * 3,))
        product.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] + 1, inputs[1]))
        leaf.register_post_accumulate_grad_hook(halve)
        (product * torch.linspace(1, 2, size)).sum().backward()


def halve(leaf: Tensor) -> None:
    """Write to a `.grad` that has just been accumulated."""
    assert leaf.grad is not None
    leaf.grad.mul_(0.5)


def unseen_writes() -> None:
    """Writes that nobody announces, to a `.grad` and to values, and a look that finds none."""
    leaf = torch.ones(40, requires_grad=True)
    for step in range(4):
        (leaf * leaf).sum().backward()
        if step == 1:
            leaf.grad.numpy()[0] = 9  # type: ignore[union-attr]
        if step == 2:
            leaf.detach().numpy()[0] = 7


def unseen_writes_that_leave_all_as_it_was() -> None:
    """Writes that only the version of a leaf tells of, before one that is seen."""
    for factor in (1, 2):
        leaf = torch.ones(40, requires_grad=True)
        (leaf * leaf).sum().backward()
        with torch.no_grad():
            with torch._C.DisableTorchFunction():
                leaf.mul_(factor)
            leaf.add_(1)


def nested_passes() -> None:
    """A pass in a hook, a checkpoint, a second order, and `autograd.grad`."""
    leaf = torch.linspace(0, 1, 20, requires_grad=True)
    inner = torch.ones(20, requires_grad=True)
    product = leaf * 2

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def run_another(gradient: Tensor) -> None:
        (inner * inner).sum().backward()

    product.register_hook(run_another)
    checkpoint(lambda value: value.sin().cos(), product, use_reentrant=True).sum().backward()  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad((leaf**3).sum(), leaf, create_graph=True)
    gradient.sum().backward()


def many_shapes() -> None:
    """Gradients that are expanded, transposed, empty, complex, sparse, of little precision."""
    matrix = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    matrix.t().sum().backward()
    matrix[:, 1:5].t().exp().sum().backward()
    torch.empty(0, 3, requires_grad=True).sum().backward()
    nn.Embedding(30, 2, sparse=True)(torch.tensor([2])).sum().backward()
    for dtype in (torch.half, torch.bfloat16, torch.float64, torch.complex64, torch.complex128):
        leaf = torch.linspace(-2, 2, 33).to(dtype).requires_grad_()
        (leaf * leaf.conj()).sum().abs().backward()


def errors() -> None:
    """A hook that raises, and a graph that is gone."""
    leaf = torch.ones(20, requires_grad=True)
    loss = (leaf * leaf).sum()
    loss.backward()
    with pytest.raises(RuntimeError):
        loss.backward()
    product = leaf * 2

    def fail(gradient: Tensor) -> None:
        raise ValueError("a hook of the user's")

    product.register_hook(fail)
    with pytest.raises(ValueError, match="a hook of the user's"):
        product.sum().backward()


PROGRAMS = (
    train, hooks_of_all_kinds, unseen_writes, unseen_writes_that_leave_all_as_it_was, nested_passes,
    many_shapes, errors,
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_recording_tells_the_same_as_one_that_reads_at_once(
    program: Callable[[], None],
) -> None:
    at_once = record(program)
    with answering_later():
        later = record(program)
    same_recordings(at_once, later)


# ---- numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_that_are_read_at_once(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = {name: Gradients()(tensor) for name, tensor in tensors(dtype)}
    monkeypatch.setattr(reductions, "_PIECE", 1000)
    with answering_later():
        read = Gradients()
        for name, tensor in tensors(dtype):
            if not tensor.is_conj():  # those are read at once in the precision they have
                assert same_value(at_once[name], read(tensor)), name
            assert same_value(Gradients()(tensor.resolve_conj()), read(tensor)), name
        assert read.recorder.deferred.last > 0


def test_where_there_are_no_doubles_floats_do() -> None:
    for scale in (1.0, 1e30, 1e-30):
        tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * scale
        tensor[3], tensor[5] = 0, 0
        slot = torch.zeros(reductions.FLOATS.bytes.size, dtype=torch.uint8)
        reductions.put_numbers(tensor, slot, reductions.FLOATS)
        entry = reductions.pack_numbers(
            bytes(slot.tolist()), reductions.FLOATS, 0, numel=1000, stored=1000
        )
        found = decode_entry(entry, 0, Gradients(), UNKNOWN_META)[0]
        exact = Gradients()(tensor)
        assert found is not None
        assert found.norm == pytest.approx(exact.norm, rel=1e-5)
        assert found.mean == pytest.approx(exact.mean, rel=1e-5, abs=1e-5 * (exact.norm or 0))
        assert (found.min, found.max, found.zeros) == (exact.min, exact.max, 2)


def test_no_large_copy_of_a_large_tensor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    as_numbers = reductions._as_numbers

    def watch(piece: Tensor, layout: reductions.Layout) -> Tensor:
        nonlocal largest
        largest = max(largest, piece.numel())
        return as_numbers(piece, layout)

    monkeypatch.setattr(reductions, "_as_numbers", watch)
    with answering_later():
        Gradients()(torch.zeros(3, 2500, 1000)[:, :, 1:])
    assert 1_000_000 < largest <= 1 << 21


# ---- how often, and when


def test_a_pass_is_read_once() -> None:
    with answering_later(), tracer.trace():
        copies = []
        for _ in range(3):
            train(1)
            copies.append(readings().copies)
        assert readings().last > 100
        assert copies == [1, 2, 3]
        nested_passes()
        assert readings().copies == 3 + 3  # the first of the three has two others in it


def test_nothing_waits_and_events_come_when_the_device_has_answered() -> None:
    with answering_later(), answering_when_told() as device, tracer.trace() as trace:
        train(2)
        assert device.waited == 0
        assert readings().copies == 2
        device.answer()
        train(1)
        assert device.waited == 0
        assert [one.id for one in trace.passes] == [1, 2, 3]  # who asks, waits
        assert device.waited > 0
    record = trace.record
    assert count_unread(record) == 0
    nodes = list(record.events.select(kinds=("node", "accumulate")))
    assert len(nodes) == sum(one.node_count for one in record.passes)


def count_unread(record: TraceRecord) -> int:
    """How many gradients that nodes received or returned were not read."""
    return sum(
        bool(gradient.unread)
        for event in record.events
        if isinstance(event, NodeRun)
        for gradient in (*event.received, *event.returned)
        if gradient is not None
    )


def test_no_more_is_under_way_than_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = record(train)
    monkeypatch.setattr(deferred, "_CHUNK", 300)
    with answering_later(), answering_when_told() as device:
        later = record(train)
    assert device.waited > 10
    assert device.made <= deferred._MOST_COPYING + 1
    same_recordings(at_once, later)


def test_a_device_that_fails_leaves_gradients_unread_and_all_else_recorded() -> None:
    with answering_later(), answering_when_told() as device, tracer.trace() as trace:
        train(1)
        device.fail()
        train(1)
    record = trace.record
    assert count_unread(record) == count_unread_of_pass(record, 1) > 10
    reasons = {
        gradient.unread
        for event in record.events.select(pass_id=1, kinds=("node",))
        if isinstance(event, NodeRun)
        for gradient in event.returned
        if gradient is not None
    }
    assert reasons == {"RuntimeError: the device has failed"}
    assert [one.outcome.ok for one in record.passes] == [True, True]


def count_unread_of_pass(record: TraceRecord, number: int) -> int:
    """`count_unread`, of one pass."""
    return sum(
        bool(gradient.unread)
        for event in record.events.select(pass_id=number)
        if isinstance(event, NodeRun)
        for gradient in (*event.received, *event.returned)
        if gradient is not None
    )


def test_what_is_written_before_an_answer_says_that_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "killed.trace"
    with answering_later(), answering_when_told(), tracer.trace(file):
        train(1)
        assert Session.active is not None
        Session.active.recorder.writer.flush()
        record = tracer.load(file).record
        assert {leaf.value.unread for leaf in record.leaves.values() if leaf.value} == {
            "the device has not answered"
        }
        assert [(one.id, one.end_ns) for one in record.passes] == [(1, None)]
    record = tracer.load(file).record
    assert {leaf.value.unread for leaf in record.leaves.values() if leaf.value} == {""}
    assert [seed.unread for seed in record.passes[0].seeds if seed] == [""]


def test_readings_of_long_ago_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "_MOST_KNOWN", 100)
    leaf = torch.ones(40, requires_grad=True)
    with answering_later(), tracer.trace() as trace:
        for _ in range(50):
            (leaf * leaf).sum().backward()
        assert readings().last > 200
        assert len(readings()._known) + len(readings()._known_before) < 250
    writes = [event for event in trace.record.events if isinstance(event, GradWrite)]
    assert writes == []
    assert count_unread(trace.record) == 0


def test_what_is_captured_into_a_cuda_graph_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaf = torch.ones(40, requires_grad=True)
    with answering_later(), tracer.trace() as trace:
        (leaf * leaf).sum().backward()
        with monkeypatch.context() as capturing:
            capturing.setattr(deferred, "is_capturing", lambda: True)
            asked = readings().last
            leaf.grad.zero_()  # type: ignore[union-attr]
            assert readings().last == asked
    (write,) = (event for event in trace.record.events if isinstance(event, GradWrite))
    assert write.after is not None
    assert write.after.unread == "while a CUDA graph was captured, which would replay it"


def test_a_sparse_gradient_is_not_sorted_to_be_read() -> None:
    with answering_later(), tracer.trace() as trace:
        nn.Embedding(30, 2, sparse=True)(torch.tensor([1, 1])).sum().backward()
    unread = {
        gradient.unread
        for event in trace.record.events
        if isinstance(event, NodeRun)
        for gradient in event.returned
        if gradient is not None
    }
    assert "sparse and not coalesced: to add it up would wait" in unread


def test_what_is_followed_is_told_when_the_device_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int]] = []

    def tell(self: LiveWriter, frames: bytes, watch: object) -> None:
        told.extend((kind, readings().copies) for _, kind, _, _ in scan_frames(frames))

    monkeypatch.setattr(LiveWriter, "_tell", tell)
    with answering_later(), tracer.trace(follow=True):
        train(2)
    passes = [copies for kind, copies in told if kind == PASS_END_CODE]
    assert passes == [1, 2]
    assert all(copies > 0 for kind, copies in told if EVENT_KINDS[kind - 1] is NodeRun)


def test_threads_ask_for_readings_together() -> None:
    def work() -> None:
        leaf = torch.ones(50, requires_grad=True)
        for _ in range(10):
            (leaf * leaf).sum().backward()

    with answering_later(), tracer.trace() as trace:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    record = trace.record
    assert len(record.passes) == 40
    assert count_unread(record) == 0
    returned = [
        event.returned[0].norm
        for event in record.events
        if isinstance(event, NodeRun) and event.returned[0] is not None
    ]
    assert len(returned) == 80
    assert set(returned) == {50**0.5}


def test_a_hook_that_only_puts_other_elements_there_has_changed_them() -> None:
    leaf = torch.ones(50, requires_grad=True)
    product = leaf * torch.linspace(0, 1, 50)
    product.register_hook(lambda gradient: gradient.flip(0))
    product.register_hook(lambda gradient: gradient.clone())
    with answering_later(), tracer.trace() as trace:
        (product * torch.linspace(-1, 1, 50)).sum().backward()
    runs = [event for event in trace.record.events if isinstance(event, HookRun)]
    assert [run.changed for run in runs] == [True, False]

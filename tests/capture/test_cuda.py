"""On a GPU: nothing waits, numbers are true whatever the stream, and the program is as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import tracer
from tests.capture.comparing import Gradients, near, same_value
from tests.capture.devices import readings
from tests.capture.tensors import DTYPES, tensors
from tracer.records import Accumulate, Gradient, GradWrite, NodeRun, TraceRecord

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CUDA = torch.device("cuda", 0)


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Have PyTorch raise where an operation waits for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Training:
    """A small model on a device, and one step of it."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        layers = nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 300), nn.Linear(300, 3)
        self.model = nn.Sequential(*layers).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.features = torch.randn(16, 8).to(device)

    def step(self) -> None:
        """Train once; nothing in here waits."""
        self.optimizer.zero_grad()
        (self.model(self.features) ** 2).mean().backward()
        self.optimizer.step()


def gradients_of(record: TraceRecord) -> list[Gradient]:
    """All that nodes received and returned, and leaves were given."""
    found: list[Gradient | None] = []
    for event in record.events:
        if isinstance(event, NodeRun):
            found += (*event.received, *event.returned)
        elif isinstance(event, Accumulate):
            found += (event.before, event.incoming, event.after)
    return [gradient for gradient in found if gradient is not None]


def assert_read(record: TraceRecord) -> None:
    """Check that all gradients were read, and nothing was left out."""
    found = gradients_of(record)
    assert len(found) > 3
    assert {gradient.unread for gradient in found} == {""}
    assert dict(record.dropped) == {}


def last_gradients(record: TraceRecord) -> dict[int, Gradient | None]:
    """What the last accumulation left in each leaf's `.grad`."""
    return {event.leaf: event.after for event in record.events if isinstance(event, Accumulate)}


def like(gradient: Gradient | None, tensor: Tensor) -> bool:
    """Whether what was recorded is what a tensor holds."""
    assert gradient is not None
    exact = Gradients()(tensor.detach().cpu())
    return (
        (gradient.min, gradient.max, gradient.zeros) == (exact.min, exact.max, exact.zeros)
        and gradient.values == exact.values
        and near(exact.norm, gradient.norm, exact.norm or 0.0)
    )


def test_no_event_waits_for_the_device() -> None:
    training = Training(CUDA)
    training.step()
    with tracer.trace() as trace:
        training.step()  # memory is taken, and the kernel compiled
        with nothing_waits():
            for _ in range(3):
                training.step()
        assert readings().copies == 4
    assert_read(trace.record)
    last = last_gradients(trace.record)
    names = {leaf.name: leaf.id for leaf in trace.record.leaves.values()}
    for name, parameter in training.model.named_parameters():
        (number,) = (leaf for known, leaf in names.items() if known.endswith(name))
        assert parameter.grad is not None
        assert like(last[number], parameter.grad)


def test_training_has_the_same_bits_as_untraced() -> None:
    plain, traced = Training(CUDA), Training(CUDA)
    for _ in range(4):
        plain.step()
    with tracer.trace():
        for _ in range(4):
            traced.step()
    for one, other in zip(plain.model.parameters(), traced.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_a_cpu(dtype: str) -> None:
    read = Gradients()
    for name, tensor in tensors(dtype):
        at_once = Gradients()(tensor.resolve_conj().resolve_neg())
        assert same_value(at_once, read(tensor.to(CUDA))), name


def test_large_tensors_are_read_whole() -> None:
    tensor = torch.randn(30_000_001, device=CUDA)
    tensor[7], tensor[-1], tensor[12_345] = 0, 99, -77
    assert like(Gradients()(tensor), tensor)
    assert like(Gradients()(tensor.double()), tensor.double())


def test_what_is_read_is_what_was_there_then() -> None:
    leaf = torch.ones(1000, device=CUDA, requires_grad=True)
    product = leaf * 2
    product.register_hook(lambda gradient: gradient.mul_(3))
    with tracer.trace() as trace:
        (product * torch.ones(1000, device=CUDA)).sum().backward()
        assert leaf.grad is not None
        leaf.grad.fill_(9)
    (run,) = (one for one in trace.record.events if isinstance(one, NodeRun) and one.node == 2)
    (accumulate,) = (one for one in trace.record.events if isinstance(one, Accumulate))
    (write,) = (one for one in trace.record.events if isinstance(one, GradWrite))
    held = run.received[0], accumulate.after, write.after
    assert [gradient and gradient.max for gradient in held] == [3, 6, 9]


def test_a_pass_on_streams_of_its_own() -> None:
    side = torch.cuda.Stream()
    leaf = torch.ones(1_000_000, device=CUDA, requires_grad=True)
    with tracer.trace() as trace:
        for _ in range(3):
            leaf.grad = None
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                torch.cuda._sleep(20_000_000)  # the gradient is there long after it was asked for
                slow = (leaf * 2).sin()
            torch.cuda.current_stream().wait_stream(side)
            fast = (leaf * 3).cos()
            (slow + fast).sum().backward()
            expected = 2 * (leaf * 2).cos() - 3 * (leaf * 3).sin()
    assert_read(trace.record)
    for event in trace.record.events:
        if isinstance(event, Accumulate):
            assert event.after is not None
            assert event.after.max == pytest.approx(float(expected.detach().max()), rel=1e-5)


def test_a_captured_graph_is_left_alone_and_replays_the_same() -> None:
    def run(wrap: Callable[[], None]) -> Tensor:
        training = Training(CUDA)
        model, features = training.model, training.features
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                model(features).sum().backward()
        torch.cuda.current_stream().wait_stream(side)
        model.zero_grad(set_to_none=True)
        wrap()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(features).sum().backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(2)
        for _ in range(3):
            graph.replay()
        return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])

    plain = run(lambda: None)
    with tracer.trace() as trace:
        asked: list[int] = []
        traced = run(lambda: asked.append(readings().last))
    assert torch.equal(plain, traced)
    assert any("CUDA graph" in reason for reason in trace.record.dropped)


def test_mixed_precision_scales_as_untraced() -> None:
    def run() -> tuple[list[Tensor], float]:
        training = Training(CUDA)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30, growth_interval=2)
        for _ in range(6):
            training.optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.float16):
                loss = (training.model(training.features) ** 2).mean()
            scaler.scale(loss).backward()
            scaler.unscale_(training.optimizer)
            nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
            scaler.step(training.optimizer)
            scaler.update()
        return [one.detach() for one in training.model.parameters()], scaler.get_scale()

    plain, scale = run()
    with tracer.trace() as trace:
        traced, traced_scale = run()
    assert scale == traced_scale
    assert all(torch.equal(one, other) for one, other in zip(plain, traced, strict=True))
    assert_read(trace.record)
    assert any(gradient.infs for gradient in gradients_of(trace.record))  # the first scales


def test_hooks_of_a_device_thread_belong_to_their_pass() -> None:
    leaf = torch.ones(20, device=CUDA, requires_grad=True)
    other = torch.zeros(3, requires_grad=True)
    product = leaf * 2

    def hook(gradient: Tensor) -> Tensor:
        other.grad = torch.ones(3)
        return gradient * 2

    product.register_hook(hook)
    with tracer.trace() as trace:
        other.grad = torch.zeros(3)
        product.sum().backward()
    writes = [event for event in trace.record.events if isinstance(event, GradWrite)]
    assert [write.pass_id for write in writes] == [None, 1]


def test_memory_is_as_before_but_for_what_readings_take() -> None:
    training = Training(CUDA)
    training.step()
    before = torch.cuda.memory_allocated()
    with tracer.trace():
        for _ in range(3):
            training.step()
        during = torch.cuda.memory_allocated()
        assert during - before <= 5 << 20
    assert torch.cuda.memory_allocated() <= before + 1024


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU here, or none")
def test_a_pass_over_several_devices() -> None:
    first = torch.ones(1000, device="cuda:0", requires_grad=True)
    second = torch.ones(1000, device="cuda:1", requires_grad=True)
    with tracer.trace() as trace:
        for _ in range(3):
            (first.to("cuda:1") * second * 3).sin().sum().backward()
        assert readings().copies == 6
    assert_read(trace.record)
    last = {
        event.leaf: event.after for event in trace.record.events if isinstance(event, Accumulate)
    }
    assert len(last) == 2
    for leaf, after in last.items():
        tensor = first if trace.record.leaves[leaf].meta.device == "cuda:0" else second
        assert tensor.grad is not None
        assert like(after, tensor.grad)

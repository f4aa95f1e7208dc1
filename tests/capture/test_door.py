"""Passes that run in the core alone leave what those that go through Python do, and no more."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tracer
from tests.capture.cores import compiled
from tracer.capture import graphs
from tracer.capture.core import pass_here, set_up
from tracer.capture.engine import Engine
from tracer.capture.live_pass import LivePass

pytestmark = compiled

NOT_COMPARED = ("t_ns", "begin_ns", "end_ns", "sequence_nr", "sequence_nrs")


def timeless(value: Any) -> Any:
    """A record without times and PyTorch's own numbers, and comparable where it holds a NaN."""
    if is_dataclass(value):
        return type(value).__name__, [
            (field.name, timeless(getattr(value, field.name)))
            for field in fields(value)
            if field.name not in NOT_COMPARED
        ]
    return [timeless(item) for item in value] if isinstance(value, (tuple, list)) else repr(value)


def parts(trace: tracer.Trace) -> dict[str, Any]:
    """All that was recorded, without times."""
    record = trace.record
    graphs = [record.graphs[number].unpacked for number in sorted(record.graphs)]
    leaves = [record.leaves[number] for number in sorted(record.leaves)]
    told = {"graphs": graphs, "leaves": leaves, "passes": list(record.passes)}
    told |= {"events": list(record.events), "dropped": list(record.dropped.items())}
    return {name: [timeless(each) for each in found] for name, found in told.items()}


@contextmanager
def through_python() -> Iterator[None]:
    """No pass may run in the core alone."""
    opened = Engine.open_door
    with patch.object(
        Engine, "open_door", lambda self, run, may_run_there: opened(self, run, may_run_there=False)
    ):
        yield


def passes_through_python(program: Callable[[], object]) -> tuple[int, tracer.Trace]:
    """How many passes of a program Python was asked to begin, and its trace."""
    count = 0
    attach = LivePass.attach
    torch.manual_seed(0)

    def counted(self: LivePass) -> None:
        nonlocal count
        count += 1
        attach(self)

    with patch.object(LivePass, "attach", counted), tracer.trace() as trace:
        program()
    return count, trace


# ---- programs


def descend(steps: int = 6) -> Tensor:
    b = torch.ones(1, requires_grad=True)
    for _ in range(steps):
        loss = ((b - 3) ** 2).sum()
        b.grad = torch.zeros(1)
        loss.backward()
        b.data = b.data - 0.1 * b.grad
    return b


def take_turns() -> None:
    x, y = (torch.randn(3, requires_grad=True) for _ in range(2))
    for step in range(8):
        loss = (x * y).sum() if step % 3 else (x.exp() + y).mean()
        loss.backward(retain_graph=step % 2 == 0)


def ask_for_gradients() -> None:
    x, y = (torch.randn(2, requires_grad=True) for _ in range(2))
    for step in range(5):
        z = x * y
        torch.autograd.grad(z, [x], torch.ones(2), retain_graph=True)
        torch.autograd.grad([z.sum(), z.prod()], [y, x], allow_unused=True)
        torch.autograd.backward([z.sum()], inputs=[y]) if step == 9 else None
        (x * 2).sum().backward(inputs=[x])


def have_hooks_for_a_while() -> None:
    x = torch.randn(2, requires_grad=True)
    for step in range(9):
        y = x * 3
        handles = []
        if step == 2:
            handles.append(x.register_hook(lambda gradient: gradient * 2))
        if step == 4:
            handles.append(y.register_hook(lambda gradient: gradient + 1))
        if step == 6:
            assert y.grad_fn is not None
            handles.append(y.grad_fn.register_prehook(lambda gradients: None))
        y.sum().backward()
        for handle in handles:
            handle.remove()


def run_twice_what_runs_once() -> None:
    x = torch.randn(2, requires_grad=True)
    for _ in range(4):
        loss = (x * x).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


def have_code_run_within() -> None:
    """Passes and marks within a pass: a hook of saved tensors is none that we can see."""
    x, inner = (torch.ones(2, requires_grad=True) for _ in range(2))

    def unpack(held: Tensor) -> Tensor:
        with torch.enable_grad():
            (inner * 2).sum().backward()
        tracer.mark("unpacked")
        return held

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        for _ in range(4):
            (x * x * x).sum().backward()  # within one node, and then within another


def raise_within() -> None:
    x = torch.ones(2, requires_grad=True)

    def unpack(held: Tensor) -> Tensor:
        raise LookupError("of the user's")

    for step in range(4):
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor, unpack if step == 2 else lambda held: held
        ):
            loss = (x * x).sum()
        if step == 2:
            with pytest.raises(LookupError, match="of the user's"):
                loss.backward()
        else:
            loss.backward()


def write_unseen() -> None:
    x = torch.ones(3, requires_grad=True)
    array = x.detach().numpy()
    for step in range(5):
        y = (x * x).sum()
        if step == 2:
            array[0] = 7
        if step == 3:
            x.data.mul_(2)
        y.backward()
        if step == 1:
            assert x.grad is not None
            x.grad.numpy()[0] = 9


def pause_between() -> None:
    x = torch.ones(2, requires_grad=True)
    for step in range(6):
        if step == 2:
            tracer.pause()
        (x * 2).sum().backward()
        if step == 3:
            tracer.resume()


class Doubling(TorchFunctionMode):
    """A mode of the user's that sees what it is asked about."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def have_modes() -> None:
    x = torch.ones(2, requires_grad=True)
    for step in range(6):
        loss = (x * 2).sum()
        if step == 3:
            with Doubling():
                loss.backward()
        elif step == 4:
            torch.autograd.grad(loss, x, create_graph=True)
        else:
            loss.backward()
    x.grad = None


def change_shapes() -> None:
    for size in (2, 3, 2, 3, 2):
        x = torch.ones(size, requires_grad=True)
        for _ in range(3):
            (x * 2).sum().backward()


def train_a_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    adam = torch.optim.Adam(model.parameters())
    for _ in range(5):
        adam.zero_grad()
        model(torch.ones(2, 3)).square().mean().backward()
        adam.step()


PROGRAMS: dict[Callable[[], object], int] = {
    descend: 1,
    take_turns: 2,
    ask_for_gradients: 3,
    have_hooks_for_a_while: 5,
    run_twice_what_runs_once: 1,
    have_code_run_within: 17,
    raise_within: 1,
    write_unseen: 3,
    pause_between: 1,
    have_modes: 2,
    change_shapes: 5,
    train_a_model: 1,
}
"""Each with how many of its passes begin in Python."""


@pytest.mark.parametrize("alone", [True, False], ids=["one thread", "threads of devices"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_pass_tells_the_same_whether_python_is_asked_or_not(
    program: Callable[[], object], *, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_is_on_cpu", lambda graph: alone)
    count, trace = passes_through_python(program)
    with through_python():
        all_of_them, expected = passes_through_python(program)
    found, wanted = parts(trace), parts(expected)
    for name in wanted:
        assert found[name] == wanted[name]
    assert (count, program) == (PROGRAMS[program], program)
    assert count < all_of_them


def test_a_graph_that_leads_to_a_device_is_not_on_the_cpu_alone() -> None:
    x = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace:
        (x * 2).sum().backward()
    (graph,) = trace.record.graphs.values()
    assert graphs._is_on_cpu(graph)
    node = graph.nodes[1]
    (meta,) = node.outputs
    assert meta is not None
    elsewhere = replace(node, outputs=(replace(meta, device="cuda:0"),))
    assert not graphs._is_on_cpu(replace(graph, nodes=(graph.nodes[0], elsewhere, graph.nodes[2])))
    unknown = replace(node, outputs=(None,))
    assert not graphs._is_on_cpu(replace(graph, nodes=(graph.nodes[0], unknown, graph.nodes[2])))


def test_passes_run_in_the_core_alone_soon_after_hooks_are_gone() -> None:
    x = torch.ones(2, requires_grad=True)

    def program() -> None:
        for step in range(140):
            y = x * 2
            if step < 100:
                y.register_hook(lambda gradient: None)
            y.sum().backward()

    count, trace = passes_through_python(program)
    assert 100 <= count <= 105
    assert len(list(trace.record.events.select(kinds=("hook",)))) == 100


def test_threads_run_their_passes_side_by_side() -> None:
    x = torch.ones(2, requires_grad=True)

    def work() -> None:
        for _ in range(50):
            (x * x).sum().backward()

    def program() -> None:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    count, trace = passes_through_python(program)
    assert [one.id for one in trace.passes] == list(range(1, 201))
    assert all(one.outcome.ok and one.end_ns is not None for one in trace.passes)
    assert {(one.node_count, one.leaf_count) for one in trace.passes} == {(3, 1)}
    assert len({one.thread for one in trace.passes}) == 4
    assert count <= 200


def test_nothing_is_kept_alive() -> None:
    with tracer.trace():
        x = torch.ones(2, requires_grad=True)
        for _ in range(4):
            loss = (x * x).sum()
            loss.backward()
        (x * x).sum().backward()
        held = weakref.ref(loss), weakref.ref(x)
        gc.disable()
        try:
            del loss
            assert held[0]() is None
            del x
            assert held[1]() is None
        finally:
            gc.enable()


def test_a_pass_is_told_of_while_it_runs() -> None:
    x = torch.ones(2, requires_grad=True)
    seen: list[Any] = []
    with tracer.trace() as trace:

        def unpack(held: Tensor) -> Tensor:
            seen.append([(one.id, one.end_ns is None) for one in trace.passes])
            return held

        for _ in range(3):
            with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
                loss = (x * 2 * x).sum()
            loss.backward()
    assert seen[-1] == [(1, False), (2, False), (3, True)]


@contextmanager
def failing(owner: Any, name: str, call: int) -> Iterator[None]:
    """One call of ours, counted from 0, of a function of torch's or ours fails."""
    original, left = getattr(owner, name), call

    def fail(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            raise LookupError("of ours")
        return original(*given)

    with patch.object(owner, name, fail):
        set_up()
        if owner is not torch._C:
            yield
    if owner is torch._C:  # which the core holds, and torch has its own again
        yield
        set_up()


FAULTS = {
    "as the pass begins": (torch._C, "_stash_obj_in_tls", 0),
    "in the first probe": (torch._C, "_current_graph_task_id", 0),
    "in a later probe": (torch._C, "_current_graph_task_id", 5),
    "as the pass ends": (torch._C, "_stash_obj_in_tls", 1),
    "when what waits is looked at": (Engine, "look", 0),
}


@pytest.mark.parametrize("where", FAULTS)
def test_a_fault_of_ours_ends_the_recording_and_leaves_nothing_behind(
    where: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_is_on_cpu", lambda graph: False)  # threads must be told then
    x, y = (torch.arange(1.0, 4.0, requires_grad=True) for _ in range(2))

    def step() -> Any:
        root = (x.exp() * y).sum()
        root.backward()
        return root.grad_fn

    with tracer.trace() as trace:
        nodes = [step()]
        with failing(*FAULTS[where]):
            nodes.append(step())
        nodes.append(step())
    warned = "tracer: recording stopped (LookupError: of ours); the program goes on untraced.\n"
    assert capsys.readouterr().err == warned
    assert x.grad is not None
    assert y.grad is not None
    with torch.no_grad():
        assert x.grad.tolist() == (3 * x.exp() * y).tolist()
        assert y.grad.tolist() == (3 * x.exp()).tolist()
    for node in nodes:
        handle = node.register_prehook(lambda gradients: None)
        assert len(handle.hooks_dict_ref()) == 1
        assert gc.is_tracked(node)
    assert pass_here() is None
    assert [one.id for one in trace.passes if one.outcome.ok and one.end_ns][:1] == [1]
    why = "passes, in whole or in part: the recording had stopped (LookupError: of ours)"
    assert dict(trace.record.dropped) == {why: 2}

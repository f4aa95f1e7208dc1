"""The places where tracers miss or count twice: every node that ran is recorded once, no other is.

The profiler, which hears of each node from `Node::operator()` itself, says which ones ran.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Variable, profiler

import tracer
from tests.guarantees.checks import executions, node_name
from tests.guarantees.oracle import executed_names
from tracer.records import Accumulate, GradWrite, NodeRun, TraceRecord

Program = Callable[[], Any]


def names_by_profiler(program: Program) -> Counter[str]:
    """The names of the nodes that the program's backward passes run, in whatever thread."""
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profiler.profile(experimental_config=everywhere) as profile:
        program()
    return Counter(executed_names(profile))


def traced(program: Program) -> TraceRecord:
    with tracer.trace() as trace:
        program()
    return trace.record


def check_complete(program: Program) -> TraceRecord:
    """Trace a program; each node that runs has one event, and what raised has not ended."""
    ran = names_by_profiler(program)
    record = traced(program)
    events = executions(record)
    assert Counter(node_name(record, event) for event in events) == ran
    assert len({(event.pass_id, event.node) for event in events}) == len(events)
    for one in record.passes:
        assert one.node_count == sum(event.pass_id == one.id for event in events)
    assert dict(record.dropped) == {}
    return record


def leaf(*values: float) -> Tensor:
    return torch.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def ended(record: TraceRecord) -> list[tuple[str, bool]]:
    return [
        (node_name(record, event), event.end_ns is not None)
        for event in executions(record)
        if isinstance(event, NodeRun)
    ]


# ---- shared nodes


def test_four_threads_on_one_trunk() -> None:
    def program() -> None:
        w = torch.full((4, 4), 0.5, requires_grad=True)
        trunk = (w @ w).relu()
        heads = [((trunk * k).sin() @ w).sum() for k in range(4)]
        threads = [
            threading.Thread(target=lambda head: head.backward(retain_graph=True), args=(head,))
            for head in heads
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    record = check_complete(program)
    assert len(record.passes) == 12
    assert {one.node_count for one in record.passes} == {7}


def test_passes_nested_in_hooks_run_shared_nodes_anew() -> None:
    def program() -> None:
        x = leaf()
        shared = (x * 2).sin()
        inner, outer = shared.sum(), (shared * 3).sum()
        depth = []

        def hook(gradient: Tensor) -> None:
            if not depth:
                depth.append(1)
                torch.autograd.grad(inner, x, retain_graph=True)
                inner.backward(retain_graph=True)

        shared.register_hook(hook)
        outer.backward()

    record = check_complete(program)
    assert [one.parent for one in record.passes] == [None, 1, 1]
    assert [one.node_count for one in record.passes] == [5, 3, 4]


def test_passes_nested_in_a_backward_method() -> None:
    class Inner(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                again = x.detach().requires_grad_()
                (again * again).backward(gradient)
            assert again.grad is not None
            return again.grad

    def program() -> None:
        (Inner.apply(leaf() * 2) * 3).sum().backward()

    record = check_complete(program)
    assert [one.parent for one in record.passes] == [None, 1]
    assert [one.node_count for one in record.passes] == [5, 2]


# ---- roots


def test_a_leaf_as_root() -> None:
    def program() -> None:
        w = leaf()
        w.backward(torch.ones(3))
        torch.autograd.backward([w, w * 2], [torch.ones(3), torch.ones(3)])
        torch.autograd.grad(w, w, torch.ones(3))
        assert w.grad is not None
        assert w.grad.tolist() == [4.0, 4.0, 4.0]

    record = check_complete(program)
    assert [one.node_count for one in record.passes] == [1, 2, 0]


def test_several_roots() -> None:
    def program() -> None:
        w = leaf()
        a = w * 2
        b = a.sin()
        torch.autograd.backward([a, b, w], [torch.ones(3)] * 3, retain_graph=True)
        torch.autograd.grad([b, a], [w], [torch.ones(3)] * 2)
        torch.autograd.backward(list((w * 3).unbind()))

    record = check_complete(program)
    assert [len(one.roots) for one in record.passes] == [3, 2, 3]


# ---- nodes that raise


class Refusing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ValueError("no")


class Misshaped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ones(7)


def backward_of(loss: Callable[[], Tensor], times: int = 1) -> Program:
    def program() -> None:
        root = loss()
        for _ in range(times - 1):
            root.backward()
        with pytest.raises((ValueError, RuntimeError)):
            root.backward()

    return program


def modified() -> Tensor:
    y = leaf().exp()
    y += 1
    return y.sum()


@pytest.mark.parametrize(
    ("program", "last", "error"),
    [
        (backward_of(lambda: (Refusing.apply(leaf() * 2) * 3).sum()), "RefusingBackward", "ValueE"),
        (backward_of(lambda: (Misshaped.apply(leaf()) * 3).sum()), "MisshapedBackward", "RuntimeE"),
        (backward_of(modified), "ExpBackward0", "RuntimeE"),
        (backward_of(lambda: (leaf() * leaf()).sum(), times=2), "MulBackward0", "RuntimeE"),
    ],
    ids=["a Function's backward", "a wrong shape", "modified in place", "freed buffers"],
)
def test_a_node_that_raises_has_begun_and_never_ended(
    program: Program, last: str, error: str
) -> None:
    record = check_complete(program)
    *before, (name, has_ended) = ended(record)
    assert (name, has_ended) == (last, False)
    assert all(done for _, done in before)
    outcome = record.passes[-1].outcome
    assert outcome.error.startswith(error)
    assert outcome.node is not None
    assert record.graphs[record.passes[-1].graph].nodes[outcome.node].name == last


@pytest.mark.parametrize("error", [RuntimeError, KeyError, KeyboardInterrupt])
def test_a_pass_that_a_hook_ends_failed_at_the_hooks_node(error: type[BaseException]) -> None:
    def refuse(gradient: Tensor) -> None:
        raise error("no")

    def program() -> None:
        h = leaf().sin()
        h.register_hook(refuse)
        with pytest.raises(error):
            (h * 2).sum().backward()

    record = check_complete(program)
    (one,) = record.passes
    assert one.outcome.error == error.__name__
    assert one.outcome.node is not None
    assert record.graphs[one.graph].nodes[one.outcome.node].name == "SinBackward0"


# ---- other doors


def test_the_engine_entered_directly() -> None:
    def program() -> None:
        w = leaf()
        engine: Any = Variable._execution_engine
        one = torch.ones(())
        engine.run_backward(((w * 2).sum(),), (one,), False, False, (), True, True)
        engine.run_backward(((w * 2).sum(),), (one,), False, False, (w,), True, False)
        (w * 2).sum().backward()

    record = check_complete(program)
    assert [one.kind for one in record.passes] == ["engine", "engine", "backward"]
    assert [one.node_count for one in record.passes] == [3, 2, 3]


def test_a_function_queued_for_the_end_of_a_pass_is_seen() -> None:
    """FSDP clears gradients in one."""
    leaves: list[Tensor] = []

    def program() -> None:
        leaves[:] = [w, v] = leaf(), leaf()
        h = w * v

        def at_the_end() -> None:
            assert w.grad is not None
            w.grad.mul_(2)
            v.grad = None

        def fail() -> None:
            raise LookupError("at the end")

        queue: Any = Variable._execution_engine.queue_callback  # type: ignore[attr-defined]
        h.register_hook(lambda gradient: queue(at_the_end))
        h.sum().backward()
        h = w * v
        h.register_hook(lambda gradient: queue(fail))
        with pytest.raises(LookupError, match="at the end"):
            h.sum().backward()
        with pytest.raises(RuntimeError, match="only be installed during backward"):
            queue(fail)

    record = check_complete(program)
    first = [event for event in record.events if getattr(event, "pass_id", 0) == 1]
    sums = [(e.after and e.after.norm) for e in first if isinstance(e, Accumulate)]
    assert None not in sums
    assert [event.how for event in first if isinstance(event, GradWrite)] == ["mul_", ".grad ="]
    assert record.passes[-1].outcome.error == "LookupError"
    assert leaves[1].grad is not None


@pytest.fixture
def no_deprecations() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.usefixtures("no_deprecations")
def test_torchscripts_own_gradient_is_counted_as_missed() -> None:
    @torch.jit.script
    def slope(x: Tensor):  # type: ignore[no-untyped-def]
        y = (x * x).sum()
        return torch.autograd.grad([y], [x])

    def program() -> None:
        w = leaf()
        w.sum().backward()
        for _ in range(3):
            slope(w)
        w.sum().backward()

    assert dict(traced(program).dropped) == {
        "passes that C++ code began, as TorchScript and distributed autograd do": 3
    }


def test_no_pass_is_counted_as_missed_that_was_paused_or_refused() -> None:
    def program() -> None:
        w = leaf()
        w.sum().backward()
        tracer.pause()
        w.sum().backward()
        tracer.resume()
        with pytest.raises(RuntimeError):
            torch.ones(3).sum().backward()
        (w * 2).sum().backward()

    record = traced(program)
    assert dict(record.dropped) == {}
    assert len(record.passes) == 2


@pytest.mark.usefixtures("no_deprecations")
def test_what_torchscript_compiled_is_one_node_of_its_own_name() -> None:
    @torch.jit.script
    def square(x):  # type: ignore[no-untyped-def]
        return (x * x * 2).sum()

    def program() -> None:
        w = leaf()
        for _ in range(3):
            square(w).backward()

    program()  # TorchScript compiles what has run twice
    record = check_complete(program)
    notes = {node.name: node.note for graph in record.graphs.values() for node in graph.nodes}
    assert notes["DifferentiableGraphBackward"] == "TorchScript: what it compiled runs as one node"


# ---- in place on views


def test_an_operation_in_place_on_a_view_is_one_node_that_names_it() -> None:
    def program() -> None:
        w = torch.ones(4, requires_grad=True)
        y = w * 1
        y[:2].mul_(3)
        y[1:] = w[1:].sin()
        y.view(2, 2)[0].add_(w[:2])
        y.sum().backward()

    record = check_complete(program)
    inside = [(node.op, node.note) for node in record.graphs[1].nodes if node.name == "CopySlices"]
    note = "in-place on a view: {} runs inside, where nothing can be seen"
    ops = ["Tensor.add_", "Tensor.__setitem__", "Tensor.mul_"]
    assert inside == [(op, note.format(op)) for op in ops]


# ---- only what ran


def test_a_pass_over_part_of_a_graph_records_that_part() -> None:
    def program() -> None:
        a, b = leaf(), leaf()
        h = a * 2
        loss = (h * b).sum()
        loss.backward(inputs=[b], retain_graph=True)
        torch.autograd.grad(loss, h, retain_graph=True)
        torch.autograd.grad(loss, [a, leaf()], allow_unused=True, retain_graph=True)
        loss.backward(inputs=[h, a])

    record = check_complete(program)
    leaves = [
        sum(isinstance(event, Accumulate) for event in executions(record) if event.pass_id == one)
        for one in range(1, 5)
    ]
    assert leaves == [1, 0, 0, 1]

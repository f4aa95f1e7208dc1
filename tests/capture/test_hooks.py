"""Every hook, whoever registered it and whenever: which it is, where it is from, what it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)

import tracer
from tracer.records import HookAdded, HookRemoved, HookRun, TraceRecord

HERE = Path(__file__).name


def runs(trace: TraceRecord) -> list[HookRun]:
    return [event for event in trace.events if isinstance(event, HookRun)]


def told(trace: TraceRecord) -> list[tuple[Any, ...]]:
    """(kind, subject, values before, values after) of each run; None for what is no tensor."""
    return [
        (
            run.hook.kind,
            run.hook.subject,
            [one and one.values for one in run.before],
            [one and one.values for one in run.after],
        )
        for run in runs(trace)
    ]


def changes(trace: TraceRecord) -> list[tuple[str, str, str]]:
    """(added or removed, kind, subject) of each registration and removal."""
    return [
        (event.kind, event.hook.kind, event.hook.subject)
        for event in trace.events
        if isinstance(event, (HookAdded, HookRemoved))
    ]


def leaf() -> Tensor:
    return torch.tensor([1.0, 2.0], requires_grad=True)


def double(*given: Any) -> Any:
    return tuple(grad * 2 for grad in given[0])


# ---- on nodes


def test_hooks_on_nodes_are_added_run_and_removed() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x * 3
        before = y.grad_fn.register_prehook(double)  # type: ignore[union-attr]
        after = y.grad_fn.register_hook(lambda given, got: (given[0] + 1, None))  # type: ignore[union-attr]
        y.sum().backward()
        before.remove()
        after.remove()
    assert told(trace.record) == [
        ("prehook", "y", [(1.0, 1.0)], [(2.0, 2.0)]),
        ("posthook", "y", [(6.0, 6.0), None], [(7.0, 7.0), None]),
    ]
    assert changes(trace.record) == [
        ("hook_added", "prehook", "y"),
        ("hook_added", "posthook", "y"),
        ("hook_removed", "prehook", "y"),
        ("hook_removed", "posthook", "y"),
    ]
    assert [run.hook.text for run in runs(trace.record)] == ["double", "(given[0] + 1, None)"]
    added = [run.hook.added for run in runs(trace.record)]
    assert [site and Path(site.file).name for site in added] == [HERE, HERE]


def test_the_kind_of_a_hook_registered_in_a_roundabout_way_is_known_once_it_runs() -> None:
    with tracer.trace() as trace:
        y = leaf() * 3
        register = getattr(y.grad_fn, "register_pre" + "hook")
        register(double)
        y.sum().backward()
    assert changes(trace.record) == [("hook_added", "prehook", "y")]


# ---- on several tensors


@pytest.mark.parametrize("early", [False, True])
def test_a_multi_grad_hook_is_one_hook_that_runs_once(early: bool) -> None:
    recording = tracer.trace()
    with recording if not early else torch.enable_grad():
        a, b = leaf(), leaf()
        y = a * b
        handle = torch.autograd.graph.register_multi_grad_hook((a, y, b), lambda grads: None)
        with recording if early else torch.enable_grad():
            y.sum().backward(inputs=[a, y], retain_graph=True)
            (y * 2).sum().backward(retain_graph=True)
            handle.remove()
            y.sum().backward()
    hook = ("multi-grad hook", "y, a, b" if early else "a, y, b")
    assert [(run.hook.kind, run.hook.subject) for run in runs(recording.record)] == [hook] * 2
    first, second = (entry[2] for entry in told(recording.record))
    assert first == [(1.0, 2.0), (1.0, 1.0), None]
    assert second == [(2.0, 4.0), (2.0, 2.0), (2.0, 4.0)]
    added = [("hook_added", *hook)] if not early else []
    assert changes(recording.record) == [*added, ("hook_removed", *hook)]


def test_a_multi_grad_hook_for_any_runs_with_the_first_gradient() -> None:
    with tracer.trace() as trace:
        a, b = leaf(), leaf()
        torch.autograd.graph.register_multi_grad_hook((a, b), lambda grad: None, mode="any")
        (a * b).sum().backward()
    (run,) = runs(trace.record)
    assert run.hook.kind == "multi-grad hook"
    assert run.hook.text == "None"
    assert len(run.before) == 1
    assert run.input_nr == 0


# ---- on modules


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


@pytest.fixture
def of_every_module() -> Iterator[None]:
    handles = (
        register_module_full_backward_pre_hook(lambda module, got: None),
        register_module_full_backward_hook(lambda module, given, got: (given[0] + 1,)),
    )
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.usefixtures("of_every_module")
def test_each_hook_of_a_module_is_told_by_itself() -> None:
    with tracer.trace() as trace:
        half = Half()
        half.register_full_backward_pre_hook(double_outputs)
        half.register_full_backward_hook(lambda module, given, got: (given[0] * 10,))
        half(leaf()).sum().backward()
    (gone, *ran) = told(trace.record)
    assert gone == ("module backward prehook", "half", [(1.0, 1.0)], [(1.0, 1.0)])
    assert ran == [
        ("module backward prehook", "half", [(1.0, 1.0)], [(2.0, 2.0)]),
        ("module backward hook", "half", [(1.0, 1.0)], [(2.0, 2.0)]),
        ("module backward hook", "half", [(2.0, 2.0)], [(20.0, 20.0)]),
    ]
    assert changes(trace.record) == [
        ("hook_added", "module backward prehook", "half"),
        ("hook_added", "module backward hook", "half"),
    ]


def double_outputs(module: nn.Module, got: Any) -> Any:
    return (got[0] * 2,)


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")
def test_hooks_on_every_module_and_older_ones_have_their_registration_told() -> None:
    with tracer.trace() as trace:
        half = Half()
        older = half.register_backward_hook(lambda module, given, got: None)
        half(leaf()).sum().backward()
        older.remove()
        handle = torch.nn.modules.module.register_module_full_backward_hook(
            lambda module, given, got: None
        )
        half(leaf()).sum().backward()
        handle.remove()
    kind = "module backward hook"
    assert changes(trace.record) == [
        ("hook_added", kind, "half"),
        ("hook_removed", kind, "half"),
        ("hook_added", kind, "every module"),
        ("hook_removed", kind, "every module"),
    ]
    assert [run.hook.subject for run in runs(trace.record)] == ["half", "every module"]


def test_a_hook_that_runs_though_it_was_removed_is_flagged() -> None:
    with tracer.trace() as trace:
        half = Half()
        handle = half.register_full_backward_hook(lambda module, given, got: None)
        loss = half(leaf()).sum()
        handle.remove()
        loss.backward()
        half(leaf()).sum().backward()
    (run,) = runs(trace.record)
    assert run.removed
    assert run.hook.added is not None
    assert "runs though it was removed" in trace.timeline()


def test_a_hook_that_removes_the_next_one_too_late_is_flagged() -> None:
    with tracer.trace() as trace:
        x = leaf()
        handles: list[Any] = []
        x.register_hook(lambda grad: handles[0].remove())
        handles.append(x.register_hook(lambda grad: grad * 2))
        x.sum().backward()
    assert [run.removed for run in runs(trace.record)] == [False, True]


# ---- retain_grad


def test_retain_grad_is_told_with_what_it_keeps() -> None:
    with tracer.trace() as trace:
        y = leaf() * 3
        y.retain_grad()
        y.retain_grad()
        y.register_hook(lambda grad: grad * 2)
        y.sum().backward()
    assert told(trace.record)[1] == ("retain_grad", "y", [(2.0, 2.0)], [(2.0, 2.0)])
    assert changes(trace.record)[0] == ("hook_added", "retain_grad", "y")
    assert len(changes(trace.record)) == 2


def test_what_is_kept_of_a_tensor_follows_it_through_an_operation_in_place() -> None:
    with tracer.trace() as trace:
        y = leaf() * 3
        y.retain_grad()
        y.mul_(5)
        y.sum().backward()
    (run,) = runs(trace.record)
    assert y.grad is not None
    assert run.after[0] is not None
    assert run.after[0].values == tuple(y.grad.tolist()) == (1.0, 1.0)


# ---- passes within passes, and in threads


def test_a_hook_runs_in_the_pass_that_reaches_it_and_in_the_one_inside_that() -> None:
    with tracer.trace() as trace:
        x = leaf()
        y = x * 3
        head = y.sum()
        depth: list[int] = []

        def again(grad: Tensor) -> None:
            if not depth:
                depth.append(1)
                torch.autograd.grad(head, x, retain_graph=True)

        y.register_hook(again)
        head.backward()
    assert sorted((run.pass_id, run.node) for run in runs(trace.record)) == [(1, 1), (2, 1)]
    assert list((y._backward_hooks or {}).values()) == [again]


def test_hooks_of_passes_in_threads_stand_where_they_stood_afterwards() -> None:
    with tracer.trace() as trace:
        x = leaf()
        trunk = x * 3
        watch = lambda grad: None  # noqa: E731
        trunk.register_hook(watch)
        heads = [(trunk * k).sum() for k in range(4)]
        barrier = threading.Barrier(4)

        def run(head: Tensor) -> None:
            barrier.wait()
            for _ in range(10):
                head.backward(retain_graph=True)

        threads = [threading.Thread(target=run, args=(head,)) for head in heads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(run.pass_id or 0 for run in runs(trace.record)) == list(range(1, 41))
    assert list((trunk._backward_hooks or {}).values()) == [watch]


# ---- from before


def test_hooks_of_tensors_made_before_the_recording_are_found() -> None:
    x = leaf()
    y = x * 3
    y.register_hook(lambda grad: grad * 2)
    y.retain_grad()
    with tracer.trace() as trace:
        y.sum().backward()
    assert told(trace.record) == [
        ("tensor hook", "y", [(1.0, 1.0)], [(2.0, 2.0)]),
        ("retain_grad", "y", [(2.0, 2.0)], [(2.0, 2.0)]),
    ]
    assert [run.hook.added for run in runs(trace.record)] == [None, None]

"""Passes of several threads over the same nodes: each is complete, and no other's."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tracer
from tracer.records import GradWrite


def test_passes_of_four_threads_over_one_trunk_are_each_complete(tmp_path: Path) -> None:
    w = torch.randn(40, 40, requires_grad=True)
    with tracer.trace(tmp_path / "run.trace") as trace:
        trunk = (w @ w).relu()
        heads = [((trunk * k).sin() @ w).sum() for k in range(4)]

        def run(head: torch.Tensor) -> None:
            for _ in range(5):
                head.backward(retain_graph=True)

        threads = [threading.Thread(target=run, args=(head,)) for head in heads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    record = trace.record
    runs = Counter(
        (event.pass_id, event.node) for event in record.events.select(kinds=("node", "accumulate"))
    )
    nodes = len(record.graphs[1].nodes)
    assert sorted(one.id for one in record.passes) == list(range(1, 21))
    assert {one.node_count for one in record.passes} == {nodes}
    assert set(runs) == {(one, node) for one in range(1, 21) for node in range(nodes)}
    assert set(runs.values()) == {1}
    assert dict(record.dropped) == {}
    hook = trunk.grad_fn.register_prehook(lambda gradients: None)
    assert list(hook.hooks_dict_ref()) == [hook.id]
    hook.remove()


def test_a_pass_within_a_hook_leaves_the_outer_one_complete(tmp_path: Path) -> None:
    x = torch.ones(3, requires_grad=True)
    with tracer.trace(tmp_path / "run.trace") as trace:
        inner = (x * 2 * 3).sum()
        outer = (inner * 5).relu()
        handle = outer.register_hook(
            lambda gradient: torch.autograd.grad(inner, x, retain_graph=True) and None
        )
        outer.backward()
        handle.remove()
    ran = Counter(
        (event.pass_id, event.kind)
        for event in trace.record.events.select(kinds=("node", "accumulate"))
    )
    assert ran == {(1, "node"): 5, (1, "accumulate"): 1, (2, "node"): 3}
    assert [one.parent for one in trace.passes] == [None, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [30.0] * 3


@pytest.fixture
def room_to_recurse() -> Iterator[None]:
    """Room for the frames that the core in Python has in each call."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(3 * limit)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("room_to_recurse")
def test_a_pass_that_the_engine_runs_in_a_thread_of_its_own_knows_its_hooks_events() -> None:
    """As with a GPU; on a CPU the engine does so where passes are nested more than 60 deep."""
    leaf = torch.ones(3, requires_grad=True)
    threads = []

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def nest(depth: int) -> None:
        product = torch.ones(2, requires_grad=True) * 2

        @torch.enable_grad()  # type: ignore[untyped-decorator]
        def hook(gradient: torch.Tensor) -> None:
            threads.append(threading.get_ident())
            leaf.grad = torch.zeros(3)
            leaf.detach().sin()
            if depth:
                nest(depth - 1)
            leaf.grad.add_(1)

        product.register_hook(hook)
        product.sum().backward()

    with tracer.trace() as trace:
        nest(63)
    record = trace.record
    assert len(set(threads)) == 2
    assert [one.parent for one in record.passes] == [None, *range(1, 64)]
    assert {one.node_count for one in record.passes} == {3}
    writes = Counter(
        (event.pass_id, event.how) for event in record.events if isinstance(event, GradWrite)
    )
    assert set(writes) == {(one, how) for one in range(1, 65) for how in (".grad =", "add_")}
    assert set(writes.values()) == {1}

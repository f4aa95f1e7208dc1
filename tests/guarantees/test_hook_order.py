"""The engine's order of hooks, as the autograd notes give it and as it was, for every mixture.

"Backward Hooks execution" (https://docs.pytorch.org/docs/stable/notes/autograd.html): hooks on
tensors run before hooks on nodes, in order of registration; `retain_grad` always runs last of the
former; a leaf's post-accumulate-grad hooks run after its `.grad` was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import tracer
from tracer.records import Accumulate, HookAdded, HookRun, NodeRun, TraceRecord

OF_NON_LEAF = ("tensor hook", "prehook", "posthook", "retain_grad")
OF_LEAF = ("tensor hook", "prehook", "accumulate hook", "posthook")
IN_ORDER = {
    True: ("tensor hook", "prehook", "node", "accumulate hook", "posthook"),
    False: ("tensor hook", "retain_grad", "prehook", "node", "posthook"),
}


def mixtures(kinds: tuple[str, ...], *, in_every_order: bool) -> list[tuple[str, ...]]:
    """Every selection of the kinds, in one or in every order of registration."""
    choose = itertools.permutations if in_every_order else itertools.combinations
    return [order for count in range(1, len(kinds) + 1) for order in choose(kinds, count)]


def register(kind: str, tensor: Tensor, node: Any, log: Callable[[str], None]) -> None:
    """Put a hook of this kind on a tensor or its node."""
    if kind == "tensor hook":
        tensor.register_hook(lambda grad: log("tensor hook"))
    elif kind == "prehook":
        node.register_prehook(lambda grads: log("prehook"))
    elif kind == "posthook":
        node.register_hook(lambda given, got: log("posthook"))
    elif kind == "accumulate hook":
        tensor.register_post_accumulate_grad_hook(lambda leaf: log("accumulate hook"))
    else:
        tensor.retain_grad()


def run(order: tuple[str, ...], *, on_leaf: bool, early: bool) -> tuple[list[str], TraceRecord]:
    """Register, run and record; what the hooks themselves saw, and the trace."""
    seen: list[str] = []
    recording = tracer.trace()
    if not early:
        recording.__enter__()
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    tensor = x if on_leaf else y
    node = torch.autograd.graph.get_gradient_edge(tensor).node
    for kind in order:
        register(kind, tensor, node, seen.append)
    if early:
        recording.__enter__()
    y.sum().backward()
    recording.__exit__(None, None, None)
    return seen, recording.record


def told(trace: TraceRecord, node_name: str) -> list[str]:
    """The hooks that ran on a node and the node itself, in the trace's order."""
    graph = trace.graphs[1]
    (number,) = (node.id for node in graph.nodes if node.name == node_name)
    return [
        event.hook.kind if isinstance(event, HookRun) else "node"
        for event in trace.events
        if isinstance(event, (HookRun, NodeRun, Accumulate)) and event.node == number
    ]


@pytest.mark.parametrize("early", [False, True], ids=["while tracing", "before tracing"])
@pytest.mark.parametrize("on_leaf", [True, False], ids=["leaf", "non-leaf"])
def test_hooks_are_told_in_the_engines_order(on_leaf: bool, early: bool) -> None:
    for order in mixtures(OF_LEAF if on_leaf else OF_NON_LEAF, in_every_order=not early):
        seen, trace = run(order, on_leaf=on_leaf, early=early)
        expected = [kind for kind in IN_ORDER[on_leaf] if kind in (*order, "node")]
        assert told(trace, "AccumulateGrad" if on_leaf else "MulBackward0") == expected, order
        assert seen == [kind for kind in expected if kind not in ("node", "retain_grad")], order
        added = [event.hook.kind for event in trace.events if isinstance(event, HookAdded)]
        assert added == ([] if early else list(order)), order

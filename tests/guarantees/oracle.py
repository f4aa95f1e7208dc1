"""What PyTorch itself says of a program's backward passes: who ran, what came in and what went out.

Two sources that know nothing of `tracer`: the profiler, which hears of each executed node from
`Node::operator()`, and hooks registered here on every node just before the engine is entered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.autograd.variable import Variable

from tests.guarantees.programs import Frozen, freeze

ENGINE_OWN = frozenset({"GraphRoot", "UndefinedGrad", "DelayedError", "Error", "NotImplemented"})
"""Nodes that the engine makes for itself; no hook can be put on them."""


@dataclass(slots=True)
class Ran:
    """One execution of a node. `came` is what it received after every hook before it; `went` what
    left it after its posthooks (None: it never ended). Of an `AccumulateGrad`, `was` and `became`
    are `.grad` before and right after."""

    name: str
    came: tuple[Frozen, ...]
    went: tuple[Frozen, ...] | None = None
    was: Frozen = None
    became: Frozen = None
    ended: bool = False


@dataclass(slots=True)
class Observed:
    """Every execution in the engine's order, and the same by the profiler's names."""

    ran: list[Ran] = field(default_factory=list)
    profiled: list[str] = field(default_factory=list)
    passes: int = 0


def reachable(roots: Any) -> list[Any]:
    """Every node reachable from the roots' nodes."""
    found: dict[Any, None] = {}
    waiting = []
    for root in roots:
        edge = root if not isinstance(root, Tensor) else _edge(root)
        if edge is not None:
            waiting.append(edge.node)
    while waiting:
        fn = waiting.pop()
        if fn not in found:
            found[fn] = None
            waiting += [target for target, _ in fn.next_functions if target is not None]
    return list(found)


def _edge(root: Tensor) -> Any:
    if not root.requires_grad:
        return None
    try:
        return torch.autograd.graph.get_gradient_edge(root)
    except (RuntimeError, AttributeError):  # a view of an inference tensor leads to no node
        with torch.enable_grad():
            fn = root.clone().grad_fn
        nodes = [node for node, _ in fn.next_functions if hasattr(node, "variable")] if fn else []
        return torch.autograd.graph.GradientEdge(nodes[0], 0) if nodes else None


class _Watch:
    """Hooks on the nodes of one engine run; they tell its own executions from a nested run's."""

    def __init__(self, into: Observed) -> None:
        self.into = into
        self.task = -1
        self.handles: list[Any] = []
        self.removals: list[Callable[[], Any]] = []

    def attach(self, fns: list[Any]) -> None:
        for fn in fns:
            leaf = fn.variable if type(fn).__name__ == "AccumulateGrad" else None
            if leaf is not None and not leaf.is_leaf:  # it became an operation's result
                leaf = None
            open_runs: list[Ran] = []
            self.handles.append(
                fn.register_prehook(self._before(type(fn).__name__, leaf, open_runs))
            )
            if leaf is None:
                self.handles.append(fn.register_hook(self._after(open_runs)))
            else:
                self._first_after(leaf, open_runs)

    def _is_ours(self) -> bool:
        task = torch._C._current_graph_task_id()
        if self.task == -1 and task not in _tasks:
            self.task = task
            _tasks.add(task)
        return self.task == task

    def _before(self, name: str, leaf: Tensor | None, open_runs: list[Ran]) -> Callable[..., None]:
        def before(gradients: Any) -> None:
            if self._is_ours():
                ran = Ran(name, tuple(freeze(grad) for grad in gradients))
                ran.was = ran.became = freeze(leaf.grad) if leaf is not None else None
                self.into.ran.append(ran)
                open_runs.append(ran)

        return before

    def _after(self, open_runs: list[Ran]) -> Callable[..., None]:
        def after(grad_inputs: Any, _: Any) -> None:
            if self._is_ours() and open_runs:
                ran = open_runs.pop()
                ran.went = tuple(freeze(grad) for grad in grad_inputs)
                ran.ended = True

        return after

    def _first_after(self, leaf: Tensor, open_runs: list[Ran]) -> None:
        """See `.grad` before any accumulate hook of the program's own changes it."""
        if not leaf.requires_grad:  # frozen since: the engine runs the node and adds nothing
            return

        def after(_: Tensor) -> None:
            if self._is_ours() and open_runs:
                ran = open_runs.pop()
                ran.became = freeze(leaf.grad)
                ran.ended = True

        hooks = dict(leaf._post_accumulate_grad_hooks or {})
        handle = leaf.register_post_accumulate_grad_hook(after)
        for key, hook in hooks.items():  # PyTorch runs them in the order of insertion
            del leaf._post_accumulate_grad_hooks[key]  # type: ignore[attr-defined]
            leaf._post_accumulate_grad_hooks[key] = hook  # type: ignore[index]
        self.handles.append(handle)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()


_tasks: set[int] = set()


class _Engine:
    """The real engine behind a door that watches each run."""

    def __init__(self, engine: Any, into: Observed) -> None:
        self._engine = engine
        self._into = into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run_backward(self, roots: Any, *args: Any, **kwargs: Any) -> Any:
        watch = _Watch(self._into)
        watch.attach(fns := reachable(roots))
        self._into.passes += bool(fns)  # with no node at all the engine only raises
        try:
            return self._engine.run_backward(roots, *args, **kwargs)
        finally:
            watch.detach()
            del fns


@contextlib.contextmanager
def observing() -> Iterator[Observed]:
    """Observe every engine run of the region."""
    observed = Observed()
    engine = Variable._execution_engine
    with profiler.profile() as profile:
        Variable._execution_engine = _Engine(engine, observed)
        try:
            yield observed
        finally:
            Variable._execution_engine = engine
    observed.profiled = executed_names(profile)


def executed_names(profile: Any) -> list[str]:
    """The names of the nodes that the engine ran under the profiler, in order of begin.

    `CopySlices` calls the function of the operation inside itself: no node of the graph.
    """
    names = []
    inside_until = -1
    events = [event for event in profile.kineto_results.events() if event.scope() == 1]
    for event in sorted(events, key=lambda event: (event.start_ns(), -event.duration_ns())):
        name = event.name().rpartition("::")[2]
        if event.start_ns() < inside_until or name in ENGINE_OWN:
            continue
        if name == "CopySlices":
            inside_until = event.start_ns() + event.duration_ns()
        names.append(name)
    return names

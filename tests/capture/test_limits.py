"""Recordings that leave something out: what stays is whole and true, what does not is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import tracer
from tracer.records import Accumulate, DataWrite, Event, GradWrite, HookRun, NodeRun, TraceRecord


def train(steps: int, **limits: object) -> TraceRecord:
    """Train a small model under a recording, and return it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    features = torch.randn(5, 3)
    model[0].weight.register_hook(lambda gradient: gradient * 2)
    with tracer.trace(**limits) as trace:  # type: ignore[arg-type]
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(features) ** 2).mean()
            loss.backward()
            optimizer.step()
    return trace.record


def kinds(record: TraceRecord) -> Counter[str]:
    """Count the events of each kind."""
    return Counter(event.kind for event in record.events)


def names(record: TraceRecord, kind: type[Accumulate] | type[GradWrite]) -> set[str]:
    """Return the names of the leaves that events of a kind are about."""
    events = record.events.select(kinds=(kind.kind,))
    return {record.leaves[event.leaf].name for event in events}  # type: ignore[attr-defined]


def assert_no_gap(record: TraceRecord) -> None:
    """Check that what a leaf held before each write is what it held after the last."""
    for kind, first in (((Accumulate, GradWrite), "grad"), ((DataWrite,), "value")):
        held = {leaf.id: getattr(leaf, first) for leaf in record.leaves.values()}
        for event in record.events:
            if isinstance(event, kind):
                assert event.before == held[event.leaf], event
                held[event.leaf] = event.after


# ---- every


def test_every_third_pass_keeps_its_number_and_is_whole() -> None:
    record, whole = train(7, every=3), train(7)
    assert [one.id for one in record.passes] == [1, 4, 7]
    assert dict(record.dropped) == {"passes that every=3 leaves out": 4}
    assert record.run.limits == "every=3"
    for one in record.passes:
        assert nodes(record, one.id) == nodes(whole, one.id)
        assert accumulates(record, one.id) == accumulates(whole, one.id)


def nodes(record: TraceRecord, pass_id: int) -> list[tuple[object, ...]]:
    """Return what nodes received and returned, in order."""
    events = record.events.select(pass_id=pass_id, kinds=("node",))
    return [(one.node, one.received, one.returned) for one in events if isinstance(one, NodeRun)]


def accumulates(record: TraceRecord, pass_id: int) -> list[tuple[object, ...]]:
    """Return what was added to leaves, in order."""
    events = record.events.select(pass_id=pass_id, kinds=("accumulate",))
    return [
        (one.node, one.before, one.incoming, one.after)
        for one in events
        if isinstance(one, Accumulate)
    ]


def test_what_passes_left_out_did_to_leaves_is_one_write_to_each() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    with tracer.trace(every=3) as trace:
        for _ in range(4):
            (weight * weight).sum().backward()
    record = trace.record
    writes = [event for event in record.events if isinstance(event, GradWrite)]
    assert [(one.how, values(one.before), values(one.after)) for one in writes] == [
        ("what every=3 left out", (2.0, 4.0), (6.0, 12.0))
    ]
    assert_no_gap(record)
    (last,) = (one for one in record.events.select(pass_id=4) if isinstance(one, Accumulate))
    assert (values(last.before), values(last.after)) == ((6.0, 12.0), (8.0, 16.0))


def values(seen: object) -> object:
    """Return the values of a gradient."""
    return getattr(seen, "values", None)


def test_the_step_after_a_pass_and_the_operations_before_it_belong_to_it() -> None:
    record = train(5, every=4)
    begins, ends = (
        [e.seq for e in record.events if e.kind == k] for k in ("pass_begin", "pass_end")
    )
    steps = [event.seq for event in record.events if event.kind == "optimizer_step"]
    assert ends[0] < steps[0] < begins[1] < ends[1] < steps[-1]
    forward = [event.seq for event in record.events if event.kind == "forward"]
    assert sum(ends[0] < seq < begins[1] for seq in forward) == sum(s < begins[0] for s in forward)
    graph = record.graphs[1]
    assert len(record.graphs) == 1
    assert all(node.site is not None for node in graph.nodes if not node.is_leaf)
    assert_no_gap(record)


def test_passes_in_hooks_go_as_the_pass_they_are_in_goes() -> None:
    def run() -> None:
        inner = torch.ones(2, requires_grad=True)
        outer = (inner * 1).sum()

        def hook(_gradient: Tensor) -> None:
            with torch.enable_grad():
                (inner.detach().requires_grad_() * 3).sum().backward()

        outer.register_hook(hook)
        outer.backward()

    with tracer.trace(every=2) as trace:
        for _ in range(3):
            run()
    record = trace.record
    assert [(one.id, one.parent) for one in record.passes] == [(1, None), (2, 1), (5, None), (6, 5)]
    assert dict(record.dropped) == {"passes that every=2 leaves out": 2}


def test_a_pass_that_is_left_out_and_raises_raises_as_ever() -> None:
    with tracer.trace(every=2) as trace:
        for requires_grad in (True, False, True):
            raises = pytest.raises(RuntimeError, match="does not require grad")
            with nullcontext() if requires_grad else raises:
                torch.ones(1, requires_grad=requires_grad).sum().backward()
    assert [one.id for one in trace.record.passes] == [1, 3]


def test_what_became_of_leaves_during_a_pause_is_no_unobserved_write() -> None:
    weight = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace:
        weight.sum().backward()
        tracer.pause()
        weight.sum().backward()
        with torch.no_grad():
            weight += 1
        tracer.resume()
        weight.sum().backward()
    writes = [e for e in trace.record.events if isinstance(e, (GradWrite, DataWrite))]
    assert [(one.kind, one.how) for one in writes] == [
        ("grad_write", "while the recording was paused"),
        ("data_write", "while the recording was paused"),
    ]
    assert_no_gap(trace.record)


class Two:
    """A program with two models that take turns, each with its backward call and optimizer."""

    def __init__(self, *, turns: Sequence[str]) -> None:
        names = dict.fromkeys(turns)
        self.models = {name: nn.Linear(2, 1) for name in names}
        self.optimizers = {n: torch.optim.SGD(self.models[n].parameters(), 0.1) for n in names}
        self.turns = turns

    def update(self, name: str) -> None:
        """Train one of them: a line that all of them share."""
        self.optimizers[name].zero_grad()
        self.models[name](torch.ones(1, 2)).sum().backward()
        self.optimizers[name].step()

    def run(self, steps: int) -> None:
        """Give each its turn, from a line of its own."""
        for _ in range(steps):
            for turn in self.turns:
                if turn == "critic":
                    self.update("critic")
                else:
                    self.update("generator")


def recorded(turns: Sequence[str], steps: int, every: int) -> dict[str, list[int]]:
    """The passes of each model that are recorded, all of them checked to have their lines."""
    program = Two(turns=turns)
    with tracer.trace(every=every) as trace:
        program.run(steps)
    record = trace.record
    assert record.dropped[f"passes that every={every} leaves out"] == (
        len(turns) * steps - len(record.passes)
    )
    assert_no_gap(record)
    found: dict[str, list[int]] = {}
    for one in record.passes:
        graph = record.graphs[one.graph]
        assert all(node.site is not None for node in graph.nodes if not node.is_leaf)
        assert {e.kind for e in record.events.select(pass_id=one.id)} >= {"node", "accumulate"}
        found.setdefault(names_read(record, one.id), []).append(one.id)
    return found


def names_read(record: TraceRecord, pass_id: int) -> str:
    """The model whose leaves a pass gave gradients to."""
    events = record.events.select(pass_id=pass_id, kinds=("accumulate",))
    named = {record.leaves[e.leaf].name for e in events if isinstance(e, Accumulate)}
    (model,) = {name.rpartition(".")[0] for name in named}
    return model


def test_each_of_two_backward_calls_is_recorded_every_so_often() -> None:
    for every in (2, 3, 4):
        found = recorded(("critic", "generator"), 4 * every, every)
        critic, generator = found.values()
        turns = 2 * every
        assert critic == [1, 1 + turns, 1 + 2 * turns, 1 + 3 * turns]
        assert generator[0] == 4  # its first came unforeseen, while the watchers rested
        assert generator[1:] == [2 + turns, 2 + 2 * turns, 2 + 3 * turns][-len(generator[1:]) :]


def test_uneven_turns_are_recorded_too() -> None:
    critic, generator = recorded(("critic",) * 5 + ("generator",), 40, 10).values()
    assert len(critic) in (19, 20)
    assert len(generator) == 4


# ---- only


def test_only_accumulates_puts_probes_on_leaves_alone() -> None:
    record, whole = train(2, only="kind:accumulate"), train(2)
    assert set(kinds(record)) == {"accumulate", "pass_begin", "pass_end"}
    operations = sum(not node.is_leaf for node in record.graphs[1].nodes)
    assert record.dropped["nodes that only= leaves unwatched"] == 2 * operations
    assert record.dropped["events that only= leaves out"] > 0
    assert record.graphs[1].digest == whole.graphs[1].digest
    for number in (1, 2):
        assert accumulates(record, number) == accumulates(whole, number)


def test_only_a_module_watches_the_nodes_and_leaves_in_it() -> None:
    record, whole = train(2, only="module:2"), train(2)
    assert names(record, Accumulate) == {"model.2.0.weight", "model.2.0.bias"}
    assert set(names_of_leaves(record)) == {"model.2.0.weight", "model.2.0.bias"}
    assert {e.module for e in record.events.select(kinds=("forward",))} == {"model.2.0"}  # type: ignore[attr-defined]
    inside = {n.id for n in record.graphs[1].nodes if n.module and n.module.path == "model.2.0"}
    ran = nodes(record, 1)
    assert {node for node, *_ in ran} == inside
    assert ran == [one for one in nodes(whole, 1) if one[0] in inside]
    assert_no_gap(record)


def names_of_leaves(record: TraceRecord) -> list[str]:
    """Return the names of the leaves that the trace knows."""
    return [leaf.name for leaf in record.leaves.values()]


def test_only_a_name_watches_what_is_called_so() -> None:
    record = train(1, only="name:*.0.bias,name:MeanBackward0")
    assert sorted(names_of_leaves(record)) == ["model.0.bias", "model.2.0.bias"]
    assert [record.graphs[1].nodes[n].name for n, *_ in nodes(record, 1)] == ["MeanBackward0"]
    assert kinds(record)["accumulate"] == 2


def test_hooks_on_what_is_not_watched_still_run_and_are_not_recorded() -> None:
    ran: list[int] = []

    def run(only: str) -> list[Event]:
        weight = torch.ones(2, requires_grad=True)
        other = torch.ones(2, requires_grad=True)
        for tensor in (weight, other):
            tensor.register_hook(lambda gradient: ran.append(1))
        with tracer.trace(only=only) as trace:
            (weight * other).sum().backward()
        return [event for event in trace.record.events if isinstance(event, HookRun)]

    assert len(run("name:weight")) == 1
    assert run("kind:accumulate") == []
    assert len(ran) == 4


@pytest.mark.parametrize(
    "only", ["module:2", "name:h", "kind:accumulate", "kind:hook", "kind:node"]
)
def test_every_view_can_be_taken_of_what_is_left(only: str) -> None:
    record = train(2, only=only)
    trace = tracer.Trace(record)
    for view in (trace.timeline, trace.dot, trace.summary):
        assert view()


# ---- detail


def test_structure_reads_no_tensor() -> None:
    record = train(2, detail="structure")
    assert kinds(record) == kinds(train(2))
    seen = {g for run in nodes(record, 1) for each in run[1:] for g in each}  # type: ignore[attr-defined]
    assert {(g.norm, g.values, g.unread) for g in seen if g} == {(None, None, "detail=structure")}
    assert {g.meta.shape for g in seen if g} >= {(), (5, 4)}


@pytest.mark.parametrize(
    ("detail", "kept"), [("values", 1000), ("values:300", 300), ("values:0", 0)]
)
def test_values_keeps_tensors_whole_up_to_a_number(detail: str, kept: int) -> None:
    sizes = (1, 16, 17, 255, 256, 300, 1000, 1001)
    leaves = [torch.randn(size, requires_grad=True) for size in sizes]
    with tracer.trace(detail=detail) as trace:
        torch.cat([leaf**2 for leaf in leaves]).sum().backward()
    found = {
        event.incoming.meta.numel: event.incoming.values
        for event in trace.record.events
        if isinstance(event, Accumulate) and event.incoming is not None
    }
    assert [size for size in sizes if found[size] is not None] == [s for s in sizes if s <= kept]
    for leaf in leaves:
        if leaf.numel() <= kept:
            assert found[leaf.numel()] == tuple(leaf.grad.tolist())  # type: ignore[union-attr]
    assert trace.timeline()
    assert trace.dot()


@pytest.mark.parametrize("view", [tracer.Trace.timeline, tracer.Trace.dot, tracer.Trace.summary])
def test_a_structure_can_be_looked_at(view: Callable[[tracer.Trace], object]) -> None:
    assert "not read" not in str(view(tracer.Trace(train(1, detail="structure"))))


def test_while_the_watchers_rest_no_mode_of_ours_is_on_the_stack() -> None:
    depths: list[int] = []
    with tracer.trace(every=3) as trace:
        for _ in range(7):
            depths.append(torch._C._len_torch_function_stack())
            torch.ones(2, requires_grad=True).sum().backward()
        depths.append(torch._C._len_torch_function_stack())
    assert depths == [1, 1, 0, 1, 1, 0, 1, 1]
    assert [one.id for one in trace.record.passes] == [1, 4, 7]
    assert torch._C._len_torch_function_stack() == 0


def test_a_mode_of_the_users_keeps_its_place_when_the_watchers_wake() -> None:
    class Mine(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., object], types: object, args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> object:  # fmt: skip
            return func(*args, **(kwargs or {}))

    def step() -> None:
        torch.ones(2, requires_grad=True).sum().backward()

    with tracer.trace(every=3) as trace:
        for number in range(5):
            with Mine() if number == 2 else nullcontext() as mine:
                step()
                if number == 2:
                    depth = torch._C._len_torch_function_stack()
                    assert torch._C._get_function_stack_at(depth - 1) is mine
    assert torch._C._len_torch_function_stack() == 0
    assert [one.id for one in trace.record.passes] == [1, 5]  # the third came through another line


def test_calls_of_modules_are_told_apart_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.capture.modules._MOST_REFS", 10)
    layer = nn.Linear(2, 2)
    with tracer.trace() as trace:
        with torch.no_grad():
            for _ in range(35):
                layer(torch.ones(1, 2))
        layer(torch.ones(1, 2)).sum().backward()
    (graph,) = trace.record.graphs.values()
    calls = {node.module.call for node in graph.nodes if node.module is not None}
    assert calls
    assert max(calls) <= 10

"""What a trace says of each kind of run: higher orders, checkpoints, custom Functions and more."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import tracer
from tracer.records import (
    Accumulate,
    DataWrite,
    Forward,
    Graph,
    Node,
    NodeKind,
    NodeRun,
    Recompute,
    TraceRecord,
    words,
)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values or (1.0, 2.0), requires_grad=True)


def named(graph: Graph, name: str) -> Node:
    (found,) = [node for node in graph.nodes if node.name == name]
    return found


# ---- higher orders


def test_a_node_made_in_a_backward_pass_is_tied_to_the_node_that_made_it() -> None:
    x = leaf()
    with tracer.trace() as trace:
        y = x.exp() * 3
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        slope.sum().backward()
    first, second = trace.record.graphs.values()
    exp = named(first, "ExpBackward0")
    made = [(node.name, node.op, node.note) for node in second.nodes if "backward" in node.op]
    note = f"made in a backward pass, by node {exp.id} of graph 1"
    assert made == [("MulBackward0", "backward of ExpBackward0", note)]
    titles = [title for title in words.Titles(second) if "backward of" in title]
    assert titles == ["Mul · backward of x.exp()"]
    assert [one.create_graph for one in trace.passes] == [True, False]


def test_the_engines_own_sums_are_told_from_operations() -> None:
    x = leaf()
    with tracer.trace() as trace:
        (slope,) = torch.autograd.grad((x.sin() * x.cos()).sum(), x, create_graph=True)
        slope.sum().backward()
    second = trace.record.graphs[2]
    sums = [node for node in second.nodes if node.op == "sum of contributions"]
    assert [node.name for node in sums] == ["AddBackward0"]
    assert [node.site and node.site.expression for node in sums] == [
        "torch.autograd.grad((x.sin() * x.cos()).sum(), x, create_graph=True)"
    ]


def test_third_order() -> None:
    x = leaf()
    with tracer.trace() as trace:
        value = x.sin().sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = slope.sum()
    last = trace.record.graphs[3]
    made = [node.note for node in last.nodes if node.note.startswith("made in a backward pass")]
    assert {note.rpartition(" ")[2] for note in made} == {"2"}  # the graph that made them


# ---- checkpoints


def block(h: Tensor) -> Tensor:
    return (h.sin() * 2).exp()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_repeated_region_is_linked_to_where_it_first_ran(*, reentrant: bool) -> None:
    with tracer.trace() as trace:
        y = checkpoint(block, leaf() * 1, use_reentrant=reentrant)
        y.sum().backward()
    record = trace.record
    (repeat,) = [event for event in record.events if isinstance(event, Recompute)]
    assert repeat.pass_id == 1
    assert repeat.site is not None
    assert repeat.site.text == "y = checkpoint(block, leaf() * 1, use_reentrant=reentrant)"
    forward = [
        (event.seq, event.site.expression)
        for event in record.events
        if isinstance(event, Forward) and event.site and event.site.function == "block"
    ]
    first = [text for seq, text in forward if repeat.forward is not None and seq >= repeat.forward]
    again = [text for seq, text in forward if seq > repeat.seq]
    assert first[: len(again)] == again
    assert again[:2] == ["h.sin()", "h.sin() * 2"]


def test_nested_checkpoints_repeat_inside_each_other() -> None:
    def outer(h: Tensor) -> Tensor:
        return checkpoint(block, h * 2, use_reentrant=False) + h

    with tracer.trace() as trace:
        checkpoint(outer, leaf(), use_reentrant=False).sum().backward()
    repeats = [event for event in trace.record.events if isinstance(event, Recompute)]
    places = [event.site.expression for event in repeats if event.site]
    assert places == [
        "checkpoint(outer, leaf(), use_reentrant=False)",
        "checkpoint(block, h * 2, use_reentrant=False)",
    ]


def test_nothing_of_ours_stays_on_a_checkpoint() -> None:
    with tracer.trace():
        kept = [checkpoint(block, leaf(), use_reentrant=each) for each in (True, False)]
    for y in kept:
        y.sum().backward()  # untraced, though its region first ran traced


# ---- custom Functions and saved tensors


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, unused: Tensor, factor: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        ctx.factor = factor
        ctx.hidden = object()
        ctx.set_materialize_grads(False)
        mask = x > 1
        ctx.mark_non_differentiable(mask)
        return x * factor, mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, mask: None) -> tuple[Tensor, None, None]:
        assert mask is None
        return gradient * ctx.factor, None, None


def test_a_custom_function_tells_where_it_was_written_and_what_it_keeps() -> None:
    x, unused = leaf(), leaf()
    with tracer.trace() as trace:
        y, _mask = Scale.apply(x, unused, 3)
        y.sum().backward()
    record = trace.record
    node = named(record.graphs[1], "ScaleBackward")
    assert node.kind is NodeKind.CUSTOM
    assert node.op == "Scale.apply"
    assert node.site is not None
    assert node.site.text == "y, _mask = Scale.apply(x, unused, 3)"
    lines = [Scale.forward.__code__.co_firstlineno, Scale.backward.__code__.co_firstlineno]
    assert node.attributes == (
        ("forward", f"test_kinds_of_run.py:{lines[0] + 1}"),
        ("backward", f"test_kinds_of_run.py:{lines[1] + 1}"),
        ("factor", "3"),
    )
    assert [(s.attribute, s.nbytes) for s in node.saved] == [("_saved_tensors[0]", 8)]
    (run,) = [e for e in record.events if isinstance(e, NodeRun) and e.node == node.id]
    assert run.received[1] is None
    assert [gradient is None for gradient in run.returned] == [False, True]
    assert "return gradient * ctx.factor" in record.sources[__file__]


def test_saved_tensors_are_told_by_what_they_are() -> None:
    w = torch.ones(2, 3, requires_grad=True)
    with tracer.trace() as trace:
        (w.half() @ torch.ones(3, 4, dtype=torch.half)).exp().float().sum(dim=1).sum().backward()
    kept = {
        node.name: [(s.attribute, s.meta and (s.meta.shape, s.meta.dtype), s.nbytes) for s in saved]
        for node in trace.graph.nodes
        if (saved := node.saved)
    }
    assert kept == {
        "ExpBackward0": [("_saved_result", ((2, 4), "float16"), 16)],
        "MmBackward0": [("_saved_mat2", ((3, 4), "float16"), 24)],
    }
    assert ("_saved_dim", "(1,)") in next(
        node.attributes for node in trace.graph.nodes if "keepdim" in str(node.attributes)
    )


def test_what_saved_tensors_hooks_compute_is_among_the_operations() -> None:
    def pack(x: Tensor) -> Tensor:
        return x.half()

    def unpack(x: Tensor) -> Tensor:
        return x.float()

    def refuse(x: Tensor) -> Tensor:
        raise LookupError("not to be unpacked")

    def program() -> tuple[list[float], Any]:
        w = leaf()
        hooks = saved_tensors_hooks(pack, unpack)
        with hooks:
            y = w.exp()
        y.sum().backward()
        with saved_tensors_hooks(pack, refuse):
            y = w.exp()
        with pytest.raises(LookupError, match="not to be unpacked") as caught:
            y.sum().backward()
        assert caught.traceback[-1].name == "refuse"
        assert w.grad is not None
        return w.grad.tolist(), hooks

    untraced, _ = program()
    with tracer.trace() as trace:
        depth = torch._C._len_torch_function_stack()
        traced, hooks = program()
        assert torch._C._len_torch_function_stack() == depth
    assert traced == untraced
    assert [type(hooks.pack_hook), type(hooks.unpack_hook)] == [FunctionType, FunctionType]
    assert hooks.pack_hook.__name__ == "pack"
    packing = [
        (event.site.expression, event.pass_id)
        for event in trace.record.events
        if isinstance(event, Forward) and event.site and event.site.function.endswith("pack")
    ]
    assert packing == [("x.half()", None), ("x.float()", 1), ("x.half()", None)]
    assert trace.passes[1].outcome.error == "LookupError"


# ---- tensors of other kinds


def unread(record: TraceRecord) -> set[str]:
    return {
        gradient.unread
        for event in record.events
        if isinstance(event, NodeRun)
        for gradient in (*event.received, *event.returned)
        if gradient is not None
    }


def fake() -> Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(2, device="meta", requires_grad=True), "meta tensors hold no values"),
        (fake, "fake tensors hold no values"),
        (
            lambda: torch.nested.nested_tensor(
                [torch.ones(2)], layout=torch.jagged, requires_grad=True
            ).values(),
            "",
        ),
    ],
    ids=["meta", "fake", "values of nested"],
)
def test_what_holds_no_values_says_so(make: Any, reason: str) -> None:
    with tracer.trace() as trace:
        (make() * 2).sum().backward()
    assert reason in unread(trace.record)
    assert dict(trace.record.dropped) == {}


def test_a_leaf_whose_memory_is_freed_says_so() -> None:
    """FSDP frees what it gathered after each use, and reading that crashes."""
    with tracer.trace() as trace:
        w = torch.ones(4, requires_grad=True)
        h = w * 2
        w.untyped_storage().resize_(0)
        h.sum().backward()
    (found,) = trace.record.leaves.values()
    assert found.value is not None
    assert found.value.unread == "its memory was freed"
    assert w.grad is not None
    assert w.grad.tolist() == [2.0] * 4


def test_gradients_inside_a_transform_say_so() -> None:
    with tracer.trace() as trace:
        torch.func.grad(lambda x: (x**3).sum())(torch.ones(2))
        x = leaf()
        torch.autograd.grad(x * x, x, torch.eye(2), is_grads_batched=True)
    assert unread(trace.record) == {
        "inside a torch.func transform",
        "one of a batch of gradients (is_grads_batched)",
    }


def test_a_distributed_tensor_is_read_here_and_no_collective_is_started() -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.distributed.tensor.debug import CommDebugMode
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def collectives() -> tuple[dict[str, int], list[float]]:
        mesh = init_device_mesh("cpu", (2,))
        w = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
        with CommDebugMode() as counted:
            (w * w).sum().backward()
        counts = {str(name): number for name, number in counted.get_comm_counts().items()}
        return counts, w.grad.to_local().flatten().tolist()  # type: ignore[union-attr]

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        untraced = collectives()
        with tracer.trace() as trace:
            traced = collectives()
    finally:
        dist.destroy_process_group()
    assert traced == untraced
    shapes = {
        gradient.meta.shape
        for event in trace.record.events
        if isinstance(event, NodeRun) and trace.graph.nodes[event.node].name == "MulBackward0"
        for gradient in event.returned
        if gradient is not None
    }
    assert shapes == {(2, 4)}
    assert unread(trace.record) == {""}


def test_fully_sharded_training_is_the_same_with_the_same_collectives() -> None:
    import torch.distributed as dist
    from torch.autograd import profiler
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def train() -> tuple[dict[str, int], list[list[float]]]:
        torch.manual_seed(0)
        mesh = init_device_mesh("cpu", (2,))
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        for module in (model[0], model[2], model):
            fully_shard(module, mesh=mesh)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        with profiler.profile() as profile:
            for _ in range(2):
                sgd.zero_grad()
                model(torch.ones(3, 4)).square().sum().backward()
                sgd.step()
        names = [event.name() for event in profile.kineto_results.events()]
        learned = [each.to_local().flatten().tolist() for each in model.parameters()]
        return Counter(name for name in names if "c10d" in name), learned

    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # FSDP's own, of a result that is a view
            untraced = train()
            with tracer.trace() as trace:
                traced = train()
    finally:
        dist.destroy_process_group()
    assert traced == untraced
    assert any("all_gather" in name or "allgather" in name for name in traced[0])
    assert len(trace.passes) == 2
    sums = [event for event in trace.record.events if isinstance(event, Accumulate)]
    assert len(sums) == 8
    assert all(event.after is not None for event in sums)
    assert dict(trace.record.dropped) == {}


# ---- compiled code


@pytest.fixture
def compiler() -> Iterator[Any]:
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dynamo's own
        yield counters
    torch._dynamo.reset()
    counters.clear()


def test_a_compiled_region_is_one_node_and_compiled_as_if_untraced(compiler: Any) -> None:
    def train() -> tuple[list[Tensor], dict[str, int], dict[str, int]]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        compiler.clear()
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
        compiled = torch.compile(model, backend="aot_eager")
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            y = compiled(torch.ones(3, 4))
            y.sum().backward()
            sgd.step()
        found = [each.detach().clone() for each in model.parameters()]
        return found, dict(compiler["stats"]), dict(compiler["frames"])

    untraced = train()
    with tracer.trace() as trace:
        traced = train()
    assert traced[1:] == untraced[1:]
    assert all(torch.equal(*pair) for pair in zip(traced[0], untraced[0], strict=True))
    assert not compiler["graph_break"]
    assert len(trace.record.graphs) == 1
    node = named(trace.graph, "CompiledFunctionBackward")
    assert node.kind is NodeKind.COMPILED
    assert (node.op, node.variables) == ("torch.compile", ("y",))
    assert node.site is not None
    assert node.site.text == "y = compiled(torch.ones(3, 4))"
    assert dict(trace.record.dropped) == {}


def test_an_optimizers_step_is_compiled_as_if_untraced(compiler: Any) -> None:
    def train() -> Any:
        torch.manual_seed(0)
        torch._dynamo.reset()
        compiler.clear()
        layer = nn.Linear(4, 1)
        sgd = torch.optim.SGD(layer.parameters(), lr=0.1)

        @torch.compile(backend="aot_eager")
        def step() -> None:
            sgd.step()

        for _ in range(3):
            sgd.zero_grad()
            layer(torch.ones(3, 4)).sum().backward()
            step()
        counts = [dict(compiler[name]) for name in ("stats", "frames", "graph_break")]
        return counts, [each.detach().tolist() for each in layer.parameters()]

    untraced = train()
    with tracer.trace() as trace:
        traced = train()
    assert traced == untraced
    writes = [event for event in trace.record.events if isinstance(event, DataWrite)]
    assert len(writes) == 6  # two parameters, three steps


def test_code_compiled_before_the_trace_is_not_compiled_again(compiler: Any) -> None:
    layer = nn.Linear(4, 1)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=False)
    compiled(torch.ones(3, 4)).sum().backward()
    with tracer.trace() as trace:
        compiled(torch.ones(3, 4)).sum().backward()
    compiled(torch.ones(3, 4)).sum().backward()
    assert compiler["stats"]["unique_graphs"] == 1
    assert [one.node_count for one in trace.passes] == [4]


def test_a_step_that_breaks_into_pieces_is_compiled_into_the_same_ones(compiler: Any) -> None:
    def train() -> tuple[list[Tensor], dict[str, int]]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        compiler.clear()
        layer = nn.Linear(4, 1)

        @torch.compile(backend="aot_eager")
        def step(x: Tensor) -> Tensor:
            y = layer(x)
            torch._dynamo.graph_break()
            loss = (y.sin() + layer(x * 2)).sum()
            loss.backward()
            return loss

        for _ in range(3):
            step(torch.ones(2, 4))
        return [p.grad.clone() for p in layer.parameters()], dict(compiler["stats"])  # type: ignore[union-attr]

    untraced = train()
    with tracer.trace() as trace:
        traced = train()
    assert traced[1] == untraced[1]
    assert all(torch.equal(*pair) for pair in zip(traced[0], untraced[0], strict=True))
    assert [one.node_count for one in trace.passes] == [4, 4, 4]


# ---- TorchScript


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_what_torchscript_traces_is_the_same_and_counted_as_left_out() -> None:
    def scaled(x: Tensor) -> Tensor:
        for row in x:
            x = x + row
        return x.detach().clone().round() * (len(x) + int(x[0, 0]))

    def trace_it() -> tuple[str, list[Any], int, list[float]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = torch.jit.trace(scaled, (torch.ones(2, 2),))
        layer = torch.jit.trace(nn.Linear(2, 1).requires_grad_(), (torch.ones(1, 2),))
        w = leaf()
        layer(w[None]).sum().backward()
        assert w.grad is not None
        places = [(str(one.message), one.filename, one.lineno) for one in caught]
        depth = torch._C._len_torch_function_stack()
        return str(found.graph), places, depth, w.grad.tolist()

    def seeded() -> Any:
        torch.manual_seed(0)
        return trace_it()

    untraced = seeded()
    with tracer.trace() as trace:
        traced = seeded()
    assert traced[:2] == untraced[:2]
    assert (traced[2], traced[3]) == (untraced[2] + 1, untraced[3])
    assert dict(trace.record.dropped) == {"what torch.jit.trace traced": 4}  # each is checked too
    assert len(trace.passes) == 1


# ---- CUDA graphs


def test_a_pass_that_a_cuda_graph_captures_is_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = leaf()
    with tracer.trace() as trace:
        with monkeypatch.context() as capturing:
            capturing.setattr(torch.cuda, "is_initialized", lambda: True)
            capturing.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            x.sum().backward()
        x.sum().backward()
    assert len(trace.passes) == 1
    assert dict(trace.record.dropped) == {
        "passes captured into a CUDA graph, which runs them unseen": 1
    }

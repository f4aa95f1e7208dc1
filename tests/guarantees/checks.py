"""The guarantees as assertions: a trace against what PyTorch itself said of the same program."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from tests.capture.cores import IN_PYTHON
from tests.guarantees.oracle import Observed
from tests.guarantees.programs import Frozen, Outcome
from tracer.records import (
    Accumulate,
    Gradient,
    HookRun,
    NodeRun,
    TraceRecord,
)
from tracer.records.passes import view_pass

FEW = 16


def executions(trace: TraceRecord) -> list[NodeRun | Accumulate]:
    """Every execution of a node, in the engine's order."""
    return [event for event in trace.events if isinstance(event, (NodeRun, Accumulate))]


def node_name(trace: TraceRecord, event: NodeRun | Accumulate) -> str:
    """The name of the node that ran."""
    passes = {one.id: one for one in trace.passes}
    assert event.pass_id is not None
    return trace.graphs[passes[event.pass_id].graph].nodes[event.node].name


def thaw(frozen: Frozen) -> Tensor | None:
    """The tensor again."""
    if frozen is None:
        return None
    dtype, shape, raw = frozen
    flat = (
        torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        if raw
        else torch.empty(0, dtype=torch.uint8)
    )
    return flat.view(getattr(torch, dtype)).reshape(shape)


def assert_equal(got: object, expected: object, what: str) -> None:
    """Equal, or a message with what there was."""
    assert got == expected, f"{what}: {got} for {expected}"


# ---- complete


def check_complete(trace: TraceRecord, observed: Observed) -> None:
    """Each executed node has one event, in the engine's order, and no other node has any."""
    names = {one.id: trace.graphs[one.graph].nodes for one in trace.passes}
    ran = executions(trace)
    recorded = [names[event.pass_id or 0][event.node].name for event in ran]
    assert_equal(recorded, observed.profiled, "executed nodes")
    places = [(event.pass_id, event.node) for event in ran]
    assert_equal(sorted(set(places)), sorted(places), "nodes by pass")
    assert_equal(len(trace.passes), observed.passes, "passes")
    for one in trace.passes:
        mine = [event for event in ran if event.pass_id == one.id]
        leaves = [event for event in mine if isinstance(event, Accumulate)]
        assert_equal((one.node_count, one.leaf_count), (len(mine), len(leaves)), f"{one}")
        assert_equal([event.order for event in mine], list(range(1, len(mine) + 1)), f"{one}")


# ---- exact


def check_exact(trace: TraceRecord, observed: Observed) -> None:
    """What is recorded of each gradient is what it was."""
    for event, ran in zip(executions(trace), observed.ran, strict=True):
        where = f"{ran.name} in pass {event.pass_id}"
        if isinstance(event, NodeRun):
            check_gradients(event.received, ran.came, f"{where} received")
            check_gradients(event.returned, ran.went or (), f"{where} returned")
            assert (event.end_ns is not None) == ran.ended, where
        else:
            check_gradients((event.incoming,), ran.came, f"{where} incoming")
            check_gradients((event.before,), (ran.was,), f"{where} before")
            check_gradients((event.after,), (ran.became,), f"{where} after")


def check_gradients(
    recorded: Sequence[Gradient | None], real: Sequence[Frozen], where: str
) -> None:
    """Each recorded gradient is what PyTorch had there."""
    assert len(recorded) == len(real), where
    for one, tensor in zip(recorded, real, strict=True):
        check_gradient(one, tensor, where)


def check_gradient(recorded: Gradient | None, real: Frozen, where: str) -> None:
    """A recorded gradient is what PyTorch had there: exactly, or its statistics."""
    if real is None or recorded is None:
        assert recorded is None, f"{where}: {recorded} for {real}"
        assert real is None, f"{where}: {recorded} for {real}"
        return
    assert not recorded.unread, f"{where}: {recorded.unread}"
    dtype, shape, _ = real
    assert (recorded.meta.dtype, recorded.meta.shape) == (dtype, shape), where
    tensor = thaw(real)
    assert tensor is not None
    if tensor.numel() <= FEW:
        assert recorded.values is not None, where
        assert bits(recorded.values) == bits(tensor.reshape(-1).tolist()), where
    else:
        assert recorded.values is None
    check_statistics(recorded, tensor, where)


def bits(values: Iterable[float | complex]) -> list[bytes]:
    """The numbers' bits, all NaNs being alike."""
    parts: list[bytes] = []
    for value in values:
        number = complex(value)
        parts += [
            b"nan" if math.isnan(part) else struct.pack("<d", part)
            for part in (number.real, number.imag)
        ]
    return parts


def check_statistics(recorded: Gradient, tensor: Tensor, where: str) -> None:
    """The counts and extremes exactly, the sums within what the tensor's dtype gives."""
    sizes = (tensor.abs() if tensor.is_complex() else tensor).to(torch.float64).reshape(-1)
    nans, infs = int(sizes.isnan().sum()), int(sizes.isinf().sum())
    counts = int((tensor == 0).sum()), nans, infs
    assert (recorded.zeros, recorded.nans, recorded.infs) == counts, f"{where}: {recorded}"
    if not sizes.numel():
        return
    exact = tensor.dtype != torch.complex64
    for name, got, real in (
        ("min", recorded.min, sizes.min().item()),
        ("max", recorded.max, sizes.max().item()),
        ("mean", recorded.mean, sizes.mean().item()),
        ("norm", recorded.norm, sizes.norm().item()),
    ):
        assert got is not None, where
        if nans and name != "norm":
            assert math.isnan(got), f"{where}: {name} {got}"
        elif name in ("min", "max") and exact:
            assert got == real, f"{where}: {name} {got} for {real}"
        elif name == "mean" and not nans and not infs:
            bound = 1e-5 * sizes.abs().mean().item()
            assert abs(got - real) <= bound, f"{where}: mean {got} for {real}"
        elif name == "norm" and not nans and math.isfinite(real):
            assert math.isclose(got, real, rel_tol=1e-5), f"{where}: norm {got} for {real}"


# ---- it adds up


def check_sums(trace: TraceRecord) -> None:
    """For each node input, what its edges brought sums to what arrived before tensor hooks."""
    for one in trace.passes:
        view = view_pass(trace, one.id)
        orders = {node: run.order for node, run in view.runs.items()}
        for node in view.graph.nodes:
            if not view.ran(node.id):
                continue
            for k, meta in enumerate(node.outputs):
                if meta is None:
                    continue
                parts = sorted(
                    (part for part in view.arriving(node.id, k) if part.gradient is not None),
                    key=lambda part: (
                        (orders[part.edge.source], part.edge.slot) if part.edge else (0, 0)
                    ),
                )
                arrived = view.arrived(node.id, k)
                tensors = [tensor_of(part.gradient) for part in parts]
                if arrived is None:
                    assert not tensors
                elif tensors and all(tensor is not None for tensor in tensors):
                    check_sum([t for t in tensors if t is not None], arrived, node.name)


def tensor_of(recorded: Gradient | None) -> Tensor | None:
    """A recorded gradient as a tensor, where its values were kept."""
    if recorded is None or recorded.values is None:
        return None
    dtype = getattr(torch, recorded.meta.dtype)
    return torch.tensor(recorded.values, dtype=dtype).reshape(recorded.meta.shape)


def check_sum(parts: list[Tensor], arrived: Gradient, where: str) -> None:
    """The engine adds in order of arrival, each part in the input's shape and dtype."""
    if arrived.values is None:
        return
    shape, dtype = arrived.meta.shape, getattr(torch, arrived.meta.dtype)
    total = fit(parts[0], shape, dtype)
    for part in parts[1:]:
        total = total + fit(part, shape, dtype)
    assert bits(total.reshape(-1).tolist()) == bits(arrived.values), where


def fit(part: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What the engine makes of a part whose shape or dtype is not the input's."""
    return (part if part.shape == shape else part.sum_to_size(shape)).to(dtype)


# ---- hooks


def check_hooks(trace: TraceRecord, outcome: Outcome) -> None:
    """The recorded runs of hooks are those that the hooks themselves saw, in the same order."""
    known = ("tensor hook", "prehook", "posthook", "accumulate hook")
    runs = [
        event
        for event in trace.events
        if isinstance(event, HookRun)
        and event.hook.kind in known
        and not event.raised
        and "programs.py" in (event.hook.defined.file if event.hook.defined else "")
    ]
    assert_equal([run.hook.kind for run in runs], [seen.kind for seen in outcome.hooks], "hooks")
    for run, seen in zip(runs, outcome.hooks, strict=True):
        check_gradients(run.before, seen.before, f"hook {seen.number} before")
        check_gradients(run.after, seen.after, f"hook {seen.number} after")
        changed = seen.before != seen.after
        assert run.changed == changed, f"hook {seen.number}: {seen}, {run}"


# ---- harmless


def check_harmless(traced: Outcome, plain: Outcome) -> None:
    """Everything that the program showed is the same with and without tracing."""
    for name in Outcome.__slots__:
        if name not in ("places", "kept", "warnings"):
            assert_equal(getattr(traced, name), getattr(plain, name), name)
    assert_equal(_placed(traced.warnings), _placed(plain.warnings), "warnings")


def _placed(warnings: Iterable[tuple[str, str, str, int]]) -> list[tuple[str | int, ...]]:
    """Warnings with their places; one that counts frames has another with the core in Python."""
    counts = "Full backward hook is firing"
    return [one[:2] if IN_PYTHON and one[1].startswith(counts) else one for one in warnings]

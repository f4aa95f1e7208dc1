"""Whatever changes a leaf or its `.grad` has an entry, even what nobody could see being done."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracer
from tracer.records import DataWrite, GradWrite, OptimizerStep, TraceRecord

Told = list[tuple[Any, ...]]


def told(trace: TraceRecord, kind: type[GradWrite] | type[DataWrite] = GradWrite) -> Told:
    """(how, values before, values after) of each write."""
    return [
        (event.how, event.before and event.before.values, event.after and event.after.values)
        for event in trace.events
        if isinstance(event, kind)
    ]


def leaf() -> Tensor:
    return torch.tensor([1.0, 2.0], requires_grad=True)


UNSEEN = "a write that could not be observed"


def test_a_grad_assigned_to_a_leaf_that_no_pass_has_met_is_entered() -> None:
    with tracer.trace() as trace:
        x = leaf()
        x.grad = torch.tensor([3.0, 4.0])
        (x * 2).sum().backward()
        x.grad = None
    assert told(trace.record) == [
        (".grad =", None, (3.0, 4.0)),
        (".grad =", (5.0, 6.0), None),
    ]
    (found,) = trace.record.leaves.values()
    assert found.grad is None


@pytest.mark.parametrize("by", ["numpy", "the grad's own numpy"])
def test_a_write_nobody_could_observe_is_a_balance_error(by: str) -> None:
    with tracer.trace() as trace:
        x = leaf()
        handle = x.detach().numpy()
        (x * 2).sum().backward()
        if by == "the grad's own numpy":
            assert x.grad is not None
            x.grad.numpy()[0] = 9.0
        else:
            handle[0] = 5.0
        (x * 2).sum().backward()
    expected = {
        "numpy": ((1.0, 2.0), (5.0, 2.0)),
        "the grad's own numpy": ((2.0, 2.0), (9.0, 2.0)),
    }[by]
    kind = GradWrite if by == "the grad's own numpy" else DataWrite
    assert told(trace.record, kind) == [(UNSEEN, *expected)]
    (entry,) = (event for event in trace.record.events if isinstance(event, kind))
    assert entry.unseen
    assert entry.site is None
    (line,) = (line for line in trace.timeline().splitlines() if "balance error" in line)
    assert UNSEEN in line


def test_a_write_after_the_last_pass_is_seen_when_the_recording_ends() -> None:
    with tracer.trace() as trace:
        x = leaf()
        (x * 2).sum().backward()
        x.detach().numpy()[0] = 5.0
        assert x.grad is not None
        x.grad.numpy()[1] = 7.0
    assert told(trace.record) == [(UNSEEN, (2.0, 2.0), (2.0, 7.0))]
    assert told(trace.record, DataWrite) == [(UNSEEN, (1.0, 2.0), (5.0, 2.0))]


def test_of_many_leaves_some_are_read_whole_in_each_pass_and_all_in_the_end() -> None:
    with tracer.trace() as trace:
        leaves = [leaf() for _ in range(100)]
        for number in range(3):
            torch.stack(leaves).sum().backward()
            leaves[(99, 0, 50)[number]].detach().numpy()[0] = 9.0
    entries = [event for event in trace.record.events if isinstance(event, DataWrite)]
    assert [event.unseen for event in entries] == [True] * 3
    assert [event.after and event.after.values for event in entries] == [(9.0, 2.0)] * 3


def test_a_handle_taken_before_any_pass_is_known_for_what_it_is() -> None:
    with tracer.trace() as trace:
        x = leaf()
        data, detached = x.data, x.detach()
        (x * 2).sum().backward()
        data.add_(1)
        detached.mul_(2)
        torch.from_numpy(detached.numpy())[1:].fill_(5.0)
    assert told(trace.record, DataWrite) == [
        ("add_", (1.0, 2.0), (2.0, 3.0)),
        ("mul_", (2.0, 3.0), (4.0, 6.0)),
        ("fill_", (4.0, 6.0), (4.0, 5.0)),
    ]


def test_a_grad_written_through_its_data_is_the_leafs() -> None:
    with tracer.trace() as trace:
        x = leaf()
        (x * 2).sum().backward()
        assert x.grad is not None
        x.grad.data.mul_(2)
        x.grad.data[0] = 1.0
        x.grad.detach().zero_()
    assert told(trace.record) == [
        ("mul_", (2.0, 2.0), (4.0, 4.0)),
        ("__setitem__", (4.0, 4.0), (1.0, 4.0)),
        ("zero_", (1.0, 4.0), (0.0, 0.0)),
    ]


@pytest.mark.parametrize("foreach", [True, False])
def test_clearing_and_clipping_say_how(*, foreach: bool) -> None:
    with tracer.trace() as trace:
        x = leaf()
        sgd = torch.optim.SGD([x])
        (x * 2).sum().backward()
        nn.utils.clip_grad_norm_([x], 1.0, foreach=foreach)
        nn.utils.clip_grad_value_([x], 0.5, foreach=foreach)
        sgd.zero_grad(set_to_none=False)
        sgd.zero_grad()
    (found,) = {event.site and event.site.expression for event in grad_writes(trace)[:1]}
    assert found == "nn.utils.clip_grad_norm_([x], 1.0, foreach=foreach)"
    ways = [how for how, _, _ in told(trace.record)]
    by_value = ["clip_grad_value_"] * (2 if foreach else 1)  # one bound, then the other
    assert ways == ["clip_grad_norm_", *by_value, "zero_", ".grad ="]
    assert [write[2] for write in told(trace.record)[-3:]] == [(0.5, 0.5), (0.0, 0.0), None]


def grad_writes(trace: tracer.Trace) -> list[GradWrite]:
    return [event for event in trace.record.events if isinstance(event, GradWrite)]


def test_unscaling_is_the_scalers() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with tracer.trace() as trace:
        x = leaf()
        sgd = torch.optim.SGD([x])
        scaler.scale((x * 2).sum()).backward()
        scaler.step(sgd)
    assert told(trace.record) == [("GradScaler.step", (8.0, 8.0), (2.0, 2.0))]


def test_a_parameter_that_is_initialized_anew_has_an_entry() -> None:
    with tracer.trace() as trace:
        x = leaf()
        x.sum().backward()
        nn.init.uniform_(x, 1, 1)
    assert told(trace.record, DataWrite) == [("torch.nn.init.uniform_", (1.0, 2.0), (1.0, 1.0))]


def test_what_nobody_saw_before_a_write_is_told_before_it() -> None:
    with tracer.trace() as trace:
        x = leaf()
        x.sum().backward()
        with torch._C.DisableTorchFunction(), torch.no_grad():  # as C++ code does
            x.mul_(2)
            x.grad.mul_(3)  # type: ignore[union-attr]
        with torch.no_grad():
            x.add_(1)
        x.grad.zero_()  # type: ignore[union-attr]
    assert told(trace.record, DataWrite) == [
        (UNSEEN, (1.0, 2.0), (2.0, 4.0)),
        ("add_", (2.0, 4.0), (3.0, 5.0)),
    ]
    assert told(trace.record) == [
        (UNSEEN, (1.0, 1.0), (3.0, 3.0)),
        ("zero_", (3.0, 3.0), (0.0, 0.0)),
    ]


# ---- tensors that are swapped


@pytest.fixture
def swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("swapping")
def test_a_model_can_be_converted_by_swapping_while_it_is_traced() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    with tracer.trace() as trace:
        model(torch.ones(1, 2)).sum().backward()
        model.double()
        model(torch.ones(1, 2).double()).sum().backward()
    weight = model.weight
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float64
    record = trace.record
    assert [leaf.name for leaf in record.leaves.values()] == ["model.bias", "model.weight"]
    writes = [e for e in record.events if isinstance(e, (DataWrite, GradWrite)) and e.leaf == 2]
    assert [event.how for event in writes] == [".grad =", "swap_tensors", ".grad ="]
    assert [event.after.meta.dtype for event in writes if event.after] == ["float64"] * 2
    assert [event.after.values for event in writes if event.after] == [(1.0, 2.0), (1.0, 1.0)]
    assert weight.grad.tolist() == [[2.0, 2.0]]


def test_a_tensor_with_a_weak_reference_of_the_users_is_not_swapped_all_the_same() -> None:
    import weakref

    with tracer.trace():
        x, y = leaf(), leaf()
        (x * y).sum().backward()
        held = weakref.ref(x)
        with pytest.raises(RuntimeError, match="Cannot swap t1 because it has weakref"):
            torch.utils.swap_tensors(x, y)
        del held
        torch.utils.swap_tensors(x, y)


def test_data_of_another_dtype_keeps_its_metadata() -> None:
    with tracer.trace() as trace:
        model = nn.Linear(1, 1, bias=False)
        model(torch.ones(1, 1)).sum().backward()
        model.zero_grad()
        model.double()
        model(torch.ones(1, 1).double()).sum().backward()
        model.float()
    dtypes = [e.after.meta.dtype for e in trace.record.events.select(kinds=("data_write",))]  # type: ignore[attr-defined]
    assert dtypes == ["float64", "float32"]
    ends = [e.after.meta.dtype for e in trace.record.events.select(kinds=("accumulate",))]  # type: ignore[attr-defined]
    assert ends == ["float32", "float64"]


def test_a_leaf_written_by_out_has_an_entry() -> None:
    with tracer.trace() as trace:
        x = leaf()
        (x * 2).sum().backward()
        with torch.no_grad():
            torch.mul(x, 3, out=x)
    assert told(trace.record, DataWrite) == [("torch.mul", (1.0, 2.0), (3.0, 6.0))]


# ---- optimizers


def makers() -> list[Any]:
    """Every optimizer of torch.optim, plain, foreach and fused as far as it has these."""
    found = []
    for name in sorted(vars(torch.optim)):
        kind = getattr(torch.optim, name)
        if not isinstance(kind, type) or not issubclass(kind, torch.optim.Optimizer):
            continue
        if kind is torch.optim.Optimizer:
            continue
        known = inspect.signature(kind).parameters
        found.append(pytest.param(kind, {}, id=name))
        found += [
            pytest.param(kind, {option: True}, id=f"{name}, {option}")
            for option in ("foreach", "fused")
            if option in known and not (option == "fused" and name == "Adafactor")
        ]
    return found


@pytest.mark.parametrize(("kind", "options"), makers())
def test_every_step_of_every_optimizer_is_entered(kind: Any, options: dict[str, bool]) -> None:
    w = torch.full((2, 2), 0.5, requires_grad=True)
    if kind is torch.optim.SparseAdam:
        w = torch.full((3, 2), 0.5, requires_grad=True)

    def loss() -> Tensor:
        if kind is torch.optim.SparseAdam:
            return nn.functional.embedding(torch.tensor([0, 2]), w, sparse=True).square().sum()
        return (w * w).sum()

    optimizer = kind([w], **options)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    values = []
    with tracer.trace() as trace:
        for _ in range(2):
            if kind is torch.optim.LBFGS:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            values.append(tuple(w.flatten().tolist()))
    writes = [event for event in trace.record.events if isinstance(event, DataWrite)]
    assert not any(event.unseen for event in writes)
    chain = [(0.5,) * w.numel()]
    for event in writes:
        assert event.before is not None
        assert event.after is not None
        assert event.before.values == chain[-1]
        assert event.how == f"{kind.__name__}.step"
        assert event.site is not None
        assert event.site.expression.startswith("optimizer.step(")
        chain.append(event.after.values or ())
    assert chain[-1] == values[-1]
    assert set(values) <= set(chain)
    steps = [event for event in trace.record.events if isinstance(event, OptimizerStep)]
    assert [(step.optimizer, step.leaves) for step in steps] == [(kind.__name__, (1,))] * 2

"""Nothing of a traced program stays alive or behind, and a fault of ours is not the program's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tracer
from tests.guarantees.conftest import torch_state
from tracer.capture.graphs import GraphBook
from tracer.capture.hook_runs import HookProbe
from tracer.capture.ledger import Ledger
from tracer.records import Accumulate, HookRun, NodeRun

HERE = Path(__file__).name


def leaf() -> Tensor:
    return torch.tensor([1.0, 2.0], requires_grad=True)


# ---- nothing stays alive


class Canary:
    """Lives as long as the graph whose node holds it."""


class Holding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, canary: Canary) -> Tensor:
        ctx.canary = canary
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * 2, None


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the garbage collector would free was a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def hooked(y: Tensor) -> None:
    """Put a hook of every kind on a tensor and its node."""
    y.register_hook(lambda grad: grad * 1)
    y.retain_grad()
    assert y.grad_fn is not None
    y.grad_fn.register_prehook(lambda grads: None)
    y.grad_fn.register_hook(lambda given, got: None)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("traced", [False, True], ids=["untraced", "traced"])
@pytest.mark.parametrize("how", ["backward", "grad", "twice", "fails"])
def test_a_graph_is_freed_when_the_program_lets_go_of_it(how: str, traced: bool) -> None:
    with tracer.trace() if traced else nullcontext():
        for _ in range(2):
            canary = Canary()
            gone = weakref.ref(canary)
            x = leaf()
            y = Holding.apply(x, canary)
            del canary
            hooked(y)
            loss = y.exp().sum()
            if how == "grad":
                torch.autograd.grad(loss, x, create_graph=True)
            elif how == "fails":
                y.data.zero_()
                y.detach().zero_()
                z = y.exp()
                z += 1
                with pytest.raises(RuntimeError):
                    z.sum().backward()
                del z
            else:
                loss.backward(retain_graph=how == "twice")
            assert gone() is not None
            held = weakref.ref(loss)
            del loss, y
            assert gone() is None
            assert held() is None


@pytest.mark.usefixtures("no_collector")
def test_as_many_tensors_live_after_a_traced_step_as_before() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    for module in model:
        module.register_full_backward_hook(lambda module, given, got: None)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        sgd.zero_grad()
        model(torch.ones(2, 3, requires_grad=True)).square().sum().backward()
        sgd.step()

    def count() -> int:
        return sum(issubclass(type(found), Tensor) for found in gc.get_objects())

    step()
    before = count()
    with tracer.trace():
        for _ in range(3):
            step()
            assert count() == before


# ---- nothing stays behind


def test_hooks_are_in_the_users_order_and_dicts_afterwards() -> None:
    y = leaf() * 2
    assert y.grad_fn is not None
    with tracer.trace():
        first = y.grad_fn.register_prehook(lambda grads: None)
        y.retain_grad()
        second = y.grad_fn.register_prehook(lambda grads: None)
        functions = list(first.hooks_dict_ref().values())
        y.sum().backward()
    assert list(first.hooks_dict_ref()) == [first.id, second.id]
    assert list(first.hooks_dict_ref().values()) == functions


# ---- errors of the program


def test_a_hook_that_raises_is_told_with_its_node_and_forward_line() -> None:
    def fail(grad: Tensor) -> None:
        raise ZeroDivisionError("in a hook")

    with tracer.trace() as trace:
        x = leaf()
        y = x * 2
        y.register_hook(fail)
        with pytest.raises(ZeroDivisionError, match="in a hook") as caught:
            y.sum().backward()
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fail"
    assert all(Path(str(entry.path)).parent.name != "capture" for entry in caught.traceback)
    (run,) = (event for event in trace.record.events if isinstance(event, HookRun))
    assert (run.raised, run.hook.subject) == ("ZeroDivisionError", "y")
    assert run.node is not None
    node = trace.record.graphs[1].nodes[run.node]
    assert node.site is not None
    assert (Path(node.site.file).name, node.site.statement) == (HERE, "y = x * 2")
    outcome = trace.passes[0].outcome
    assert (outcome.error, outcome.message) == ("ZeroDivisionError", "in a hook")


@pytest.mark.parametrize("kind", ["tensor", "node", "accumulate"])
def test_an_interrupt_inside_a_hook_is_the_programs(kind: str) -> None:
    def interrupt(*given: Any) -> None:
        raise KeyboardInterrupt

    before = torch_state()
    with tracer.trace() as trace:
        x = leaf()
        y = x * 2
        if kind == "tensor":
            y.register_hook(interrupt)
        elif kind == "node":
            assert y.grad_fn is not None
            y.grad_fn.register_hook(interrupt)
        else:
            x.register_post_accumulate_grad_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            y.sum().backward()
        leaf().sum().backward()
    assert torch_state() == before
    first, second = trace.passes
    assert first.outcome.error == "KeyboardInterrupt"
    assert second.outcome.ok
    (run,) = (event for event in trace.record.events if isinstance(event, HookRun))
    assert run.raised == "KeyboardInterrupt"


# ---- faults of our own


def failing(*given: Any, **named: Any) -> Any:
    raise LookupError("a fault of our own")


@pytest.mark.parametrize(
    ("owner", "name", "missing"),
    [
        (GraphBook, "graph_of", 3),
        (HookProbe, "_enter", 3),
        (Ledger, "grad_written", 2),
        (Ledger, "catch_up", 0),
    ],
)
def test_a_fault_of_our_own_ends_the_recording_and_is_counted(
    owner: type,
    name: str,
    missing: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def program() -> list[Any]:
        x = leaf()
        x.register_hook(lambda grad: grad * 2)
        values = []
        for _ in range(3):
            (x * x).sum().backward()
            assert x.grad is not None
            values.append(x.grad.tolist())
            x.grad.fill_(1)
        return values

    expected = program()
    before = torch_state()
    monkeypatch.setattr(owner, name, failing)
    with tracer.trace() as trace:
        assert program() == expected
    assert torch_state() == before
    warned = capsys.readouterr().err
    assert warned == (
        "tracer: recording stopped (LookupError: a fault of our own); "
        "the program goes on untraced.\n"
    )
    why = "the recording had stopped (LookupError: a fault of our own)"
    what = "passes, in whole or in part" if missing else "the end of the run"
    assert dict(trace.record.dropped) == {f"{what}: {why}": missing or 1}
    assert why in trace.timeline()
    complete = 3 - missing
    assert sum(one.outcome.ok for one in trace.passes) >= complete
    ran = [e for e in trace.record.events if isinstance(e, (NodeRun, Accumulate))]
    assert len(ran) >= 2 * complete

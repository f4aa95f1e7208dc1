"""The document's examples, traced and not: the same to the last bit, and recorded as they were."""

from __future__ import annotations

import contextlib
import io
import runpy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import tracer
from tests.guarantees import checks
from tests.guarantees.oracle import observing
from tests.guarantees.programs import Frozen, freeze

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@dataclass
class Outcome:
    """All that an example's run shows: its output, its warnings, what its names end up as."""

    printed: str = ""
    warned: list[tuple[str, str, int]] = field(default_factory=list)
    tensors: dict[str, tuple[Frozen, Frozen]] = field(default_factory=dict)
    random: bytes = b""


def run_example(path: Path) -> Outcome:
    """Run an example as a script, from the same random numbers each time."""
    torch.manual_seed(0)
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        names = runpy.run_path(str(path), run_name="__main__")
    return Outcome(
        printed.getvalue(),
        [(str(one.message), one.filename, one.lineno) for one in caught],
        {name: both(value) for name, value in names.items() if isinstance(value, torch.Tensor)},
        bytes(torch.get_rng_state().tolist()),
    )


def both(tensor: torch.Tensor) -> tuple[Frozen, Frozen]:
    """A tensor's bits, and those of its `.grad`."""
    return freeze(tensor), freeze(tensor.grad) if tensor.is_leaf else None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_same_traced_and_every_guarantee_holds(path: Path) -> None:
    plain = run_example(path)
    with observing() as observed:
        run_example(path)
    with tracer.trace() as t:
        traced = run_example(path)
    assert traced == plain
    assert plain.tensors
    trace = t.record
    assert dict(trace.dropped) == {}
    checks.check_complete(trace, observed)
    checks.check_exact(trace, observed)
    checks.check_sums(trace)
    for event in checks.executions(trace):
        if isinstance(event, checks.Accumulate):
            before, incoming, after = map(
                checks.tensor_of, (event.before, event.incoming, event.after)
            )
            assert incoming is not None
            assert after is not None
            assert torch.equal(after, incoming if before is None else before + incoming)


def recorded_gradient(trace: Any, variable: str) -> torch.Tensor | None:
    """What arrived at the node whose output a variable names, in the only pass."""
    view = checks.view_pass(trace, 1)
    number = next(node.id for node in view.graph.nodes if variable in node.variables)
    return checks.tensor_of(view.received(number))


def test_recorded_gradients_are_those_of_retain_grad_and_of_autograd_grad() -> None:
    def build() -> dict[str, torch.Tensor]:
        m1, m2, m3 = (torch.full((3, 2), k, requires_grad=True) for k in (1.0, 2.0, 4.0))
        x1 = m1 * m2
        x2 = x1 * m3
        y = x1 + x2
        return {"m1": m1, "m2": m2, "m3": m3, "x1": x1, "x2": x2, "y": y}

    seed = torch.ones(3, 2)
    retained = build()
    for tensor in retained.values():
        tensor.retain_grad()
    retained["y"].backward(seed)
    asked = build()
    gradients = torch.autograd.grad(asked["y"], list(asked.values()), seed)
    m1, m2, m3 = (torch.full((3, 2), k, requires_grad=True) for k in (1.0, 2.0, 4.0))
    with tracer.trace() as t:
        x1 = m1 * m2
        x2 = x1 * m3
        y = x1 + x2
        y.backward(seed)
    for (name, tensor), gradient in zip(retained.items(), gradients, strict=True):
        recorded = recorded_gradient(t.record, name)
        assert recorded is not None, name
        assert tensor.grad is not None
        assert torch.equal(recorded, tensor.grad), name
        assert torch.equal(recorded, gradient), name


def shared_leaf() -> torch.Tensor:
    x = torch.ones(3, requires_grad=True)
    return (x * x + x.sin()).sum()


def several_outputs() -> torch.Tensor:
    x = torch.ones(4, 3, requires_grad=True)
    left, right = x.split(2)
    return (left @ right.T).sum()


def layers() -> torch.Tensor:
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)
    )
    return model(torch.ones(2, 3)).square().mean()


def in_place_on_a_view() -> torch.Tensor:
    x = torch.ones(4, requires_grad=True)
    y = x * 2
    y[:2].mul_(3)
    return y.sum()


PROGRAMS = [shared_leaf, several_outputs, layers, in_place_on_a_view]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_our_nodes_and_edges_are_those_that_torchviz_draws(
    program: Callable[[], torch.Tensor],
) -> None:
    make_dot = pytest.importorskip("torchviz").make_dot
    loss = program()
    dot = make_dot(loss)
    with tracer.trace() as t:
        loss.backward()
    nodes, edges = drawn_graph(dot.source)
    graph = t.graph
    assert sorted(nodes.values()) == sorted(node.name for node in graph.nodes)
    ours = sorted((graph.nodes[e.source].name, graph.nodes[e.target].name) for e in graph.edges)
    assert sorted((nodes[source], nodes[target]) for source, target in edges) == ours


def drawn_graph(source: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The functions that a torchviz drawing shows, by number, and its edges in gradients' way.

    torchviz draws them against it (`next -> fn`), and boxes of tensors beside the functions.
    """
    lines = [line.strip() for line in source.splitlines()]
    nodes = {}
    for line in lines:
        number, _, label = line.partition(" [label=")
        name = label.partition("]")[0].partition(" ")[0].strip('"')
        if number.isdigit() and name.isidentifier():
            nodes[number] = name
    pairs = [line.split(" -> ") for line in lines if " -> " in line]
    edges = [(fn, after.partition(" ")[0]) for after, fn in pairs for fn in [fn.partition(" ")[0]]]
    return nodes, [edge for edge in edges if edge[0] in nodes and edge[1] in nodes]

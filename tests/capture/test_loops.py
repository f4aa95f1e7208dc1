"""What a loop or a comprehension makes is told apart by where the loop stood."""

# ruff: noqa: B007

from __future__ import annotations

import torch
from torch import Tensor, nn

import tracer
from tracer.records import Graph, words


def titles(graph: Graph, *names: str) -> list[str]:
    """What the nodes of these names are called, the first made first."""
    told = zip(graph.nodes, words.Titles(graph), strict=True)
    found = [(node.sequence_nr or 0, title) for node, title in told if node.name in names]
    return [title for _, title in sorted(found)]


def leaf() -> Tensor:
    return torch.ones(2, requires_grad=True)


def test_a_value_bound_in_a_loop_has_the_loops_variable() -> None:
    with tracer.trace() as trace:
        w = leaf()
        kept: list[Tensor | None] = [None] * 3
        total = w
        for t in range(3):
            kept[t] = w.sin()
            total = total * t
        sum(one for one in (*kept, total) if one is not None).sum().backward()
    assert titles(trace.graph, "SinBackward0") == [f"kept[t={t}] = w.sin()" for t in range(3)]
    assert titles(trace.graph, "MulBackward0") == [f"total[t={t}] = total * t" for t in range(3)]


def test_items_of_comprehensions_displays_and_appends_are_told_apart() -> None:
    with tracer.trace() as trace:
        w = leaf()
        rows = [w.sin() for _k in range(2)]
        table = {name: w.cos() for name in "ab"}
        pair = [w.tan(), w.exp()]
        both = {"one": w.tanh()}
        grown: list[Tensor] = []
        for step in (0.5, 1.5):
            grown.append(w.sigmoid())
        torch.stack([*rows, *table.values(), *pair, *both.values(), *grown]).sum().backward()
    names = ("Sin", "Cos", "Tan", "Exp", "Tanh", "Sigmoid")
    assert titles(trace.graph, *(f"{name}Backward0" for name in names)) == [
        "rows[_k=0] = w.sin()",
        "rows[_k=1] = w.sin()",
        "table[name='a'] = w.cos()",
        "table[name='b'] = w.cos()",
        "pair[0] = w.tan()",
        "pair[1] = w.exp()",
        'both["one"] = w.tanh()',
        "grown[step=0.5] = w.sigmoid()",
        "grown[step=1.5] = w.sigmoid()",
    ]


def test_the_loop_that_backward_is_called_in_names_nothing() -> None:
    w = leaf()
    with tracer.trace() as trace:
        for _epoch in range(3):
            h = w
            for t in range(2):
                h = h.sin()
            finish(h)
    assert len(trace.passes) == 3
    assert len(trace.record.graphs) == 1
    assert titles(trace.graph, "SinBackward0") == ["h[t=0] = h.sin()", "h[t=1] = h.sin()"]


def finish(h: Tensor) -> None:
    h.sum().backward()


def test_nested_loops_are_told_outermost_first() -> None:
    with tracer.trace() as trace:
        w = leaf()
        for i in range(2):
            for j in range(2):
                w = w.sin()
        w.sum().backward()
    stood = [(i, j) for i in range(2) for j in range(2)]
    assert titles(trace.graph, "SinBackward0") == [f"w[i={i}, j={j}] = w.sin()" for i, j in stood]


def test_a_layer_called_in_a_loop_has_the_loops_variable_on_all_its_nodes() -> None:
    cell = nn.RNNCell(2, 2)
    with tracer.trace() as trace:
        h = None
        for t in range(2):
            h = cell(torch.ones(1, 2), h)
        assert h is not None
        h.sum().backward()
    assert titles(trace.graph, "TanhBackward0") == [
        f"h[t={t}] = cell(torch.ones(1, 2), h)" for t in range(2)
    ]
    assert titles(trace.graph, "AddBackward0") == [
        f"Add · cell(torch.ones(1, 2), h) (t={t})" for t in range(2)
    ]


def test_a_longer_loop_in_a_later_round_is_told_too() -> None:
    w = leaf()
    with tracer.trace() as trace:
        for length in (1, 3, 2):
            h = w
            for t in range(length):
                h = h.sin()
            h.sum().backward()
    told = [titles(graph, "SinBackward0") for graph in trace.record.graphs.values()]
    assert told == [[f"h[t={t}] = h.sin()" for t in range(length)] for length in (1, 3, 2)]


def test_a_loop_over_what_is_no_number_or_text_is_counted() -> None:
    factors = [torch.ones(2), torch.ones(2)]
    layers = nn.ModuleList([nn.Tanh(), nn.Tanh()])
    table = {1.5: torch.ones(2), 2.5: torch.ones(2)}
    with tracer.trace() as trace:
        h = leaf()
        for factor in factors:
            h = h * factor
        for layer in layers:
            h = layer(h)
        for one, other in zip(factors, reversed(factors), strict=True):
            h = h * one + other
        for key, value in table.items():
            h = h - value
        rows = [h.sin() for layer in layers]
        torch.stack(rows).sum().backward()
    assert titles(trace.graph, "MulBackward0", "TanhBackward0", "SubBackward0", "SinBackward0") == [
        "h[factor=#0] = h * factor",
        "h[factor=#1] = h * factor",
        "h[layer=#0] = layer(h)",
        "h[layer=#1] = layer(h)",
        "h * one (one=#0)",
        "h * one (one=#1)",
        "h[key=1.5] = h - value",
        "h[key=2.5] = h - value",
        "rows[layer=#0] = h.sin()",
        "rows[layer=#1] = h.sin()",
    ]


def test_a_while_loop_is_told_by_what_its_condition_counts_or_is_counted() -> None:
    with tracer.trace() as trace:
        h, step, most, turns = leaf(), 0, 2, iter((True, False))
        while step < most:
            h = h.sin()
            step += 1
        while True:
            h = h.cos()
            if not next(turns):
                break
        while len(trace.passes) == 0 and step < 4:
            for factor in (torch.ones(2), torch.ones(2)):
                h = h * factor
            step = step + 1
        h.sum().backward()
    assert titles(trace.graph, "SinBackward0", "CosBackward0", "MulBackward0") == [
        "h[step=0] = h.sin()",
        "h[step=1] = h.sin()",
        "h[#0] = h.cos()",
        "h[#1] = h.cos()",
        *(f"h[step={step}, factor=#{n}] = h * factor" for step in (2, 3) for n in (0, 1)),
    ]


def test_loops_in_loops_are_counted_from_their_beginning() -> None:
    outer, inner = [nn.Tanh(), nn.Tanh()], [torch.ones(2), torch.ones(2)]
    with tracer.trace() as trace:
        h = leaf()
        for layer in outer:
            for factor in inner:
                h = layer(h * factor)
        turns = iter((True, False))
        while True:
            for k in range(2):
                h = h.sin()
            if not next(turns):
                break
        h.sum().backward()
    pairs = [(a, b) for a in range(2) for b in range(2)]
    assert titles(trace.graph, "TanhBackward0", "SinBackward0") == [
        *(f"h[layer=#{a}, factor=#{b}] = layer(h * factor)" for a, b in pairs),
        *(f"h[#{a}, k={b}] = h.sin()" for a, b in pairs),
    ]


def test_a_loop_that_runs_again_is_counted_anew() -> None:
    def through(h: Tensor, factors: list[Tensor]) -> Tensor:
        for factor in factors:
            h = h * factor
        return h

    factors = [torch.ones(2), torch.ones(2)]
    with tracer.trace() as trace:
        w = leaf()
        for _ in range(2):
            w = through(w, factors)
        w.sum().backward()
        through(through(leaf(), factors), [*factors, torch.ones(2)]).sum().backward()
    told = [titles(graph, "MulBackward0") for graph in trace.record.graphs.values()]
    counts = [[title.partition("]")[0].partition("#")[2] for title in each] for each in told]
    assert counts == [["0", "1"] * 2, ["0", "1", "0", "1", "2"]]


def test_what_a_function_returned_is_named_by_the_variable_that_holds_it() -> None:
    def scaled(x: Tensor) -> Tensor:
        return x.sin() * 2

    with tracer.trace() as trace:
        y = scaled(leaf())
        z = y.view(2, 1)
        total = sum([z.cos().sum()])
        assert isinstance(total, Tensor)
        total.backward()
    assert titles(trace.graph, "MulBackward0", "ViewBackward0", "AddBackward0") == [
        "y = x.sin() * 2",
        "z = y.view(2, 1)",
        "total = sum([z.cos().sum()])",
    ]

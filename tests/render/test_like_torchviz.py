"""torchviz's own drawing with our values on it; the drawings here were made by torchviz 0.0.3."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders import hooks, vector_jacobian
from tracer.errors import NotInTraceError, RenderError
from tracer.records import TraceRecord
from tracer.render.like_torchviz import torchviz_dot
from tracer.render.picture import draw_dot

HEAD = (
    "digraph {\n"
    '\tgraph [size="12,12"]\n'
    "\tnode [align=left fontname=monospace fontsize=10 height=0.2 ranksep=0.1 shape=box "
    "style=filled]\n"
)
VECTOR_JACOBIAN = HEAD + (
    '\tr0 [label="\n (3, 2)" fillcolor=darkolivegreen1]\n'
    "\tn0 [label=AddBackward0]\n"
    "\tn1 -> n0\n"
    "\tn1 [label=MulBackward0]\n"
    "\tn3 -> n1\n"
    '\tv3 [label="\n (3, 2)" fillcolor=lightblue]\n'
    "\tv3 -> n3\n"
    "\tn3 [label=AccumulateGrad]\n"
    "\tn4 -> n1\n"
    '\tv4 [label="\n (3, 2)" fillcolor=lightblue]\n'
    "\tv4 -> n4\n"
    "\tn4 [label=AccumulateGrad]\n"
    "\tn2 -> n0\n"
    "\tn2 [label=MulBackward0]\n"
    "\tn1 -> n2\n"
    "\tn5 -> n2\n"
    '\tv5 [label="\n (3, 2)" fillcolor=lightblue]\n'
    "\tv5 -> n5\n"
    "\tn5 [label=AccumulateGrad]\n"
    "\tn0 -> r0\n"
    "}\n"
)
HOOKS = HEAD + '\tv0 [label="\n (3)" fillcolor=darkolivegreen1]\n}\n'


def drawn_by_torchviz(trace: TraceRecord, dot: str) -> TraceRecord:
    return replace(trace, passes=tuple(replace(one, torchviz=dot) for one in trace.passes))


def labels(dot: str) -> dict[str, str]:
    """The label of every box and arrow, spaces squeezed."""
    found = re.findall(r'^\t(\w+(?: -> \w+)?) \[label=("(?:[^"\\]|\\.)*"|[^\s\]]+)', dot, re.M)
    return {name: " ".join(label.strip('"').replace("\\n", " ").split()) for name, label in found}


def test_the_drawing_of_the_example(golden: Callable[[str, str], None]) -> None:
    trace = drawn_by_torchviz(vector_jacobian(), VECTOR_JACOBIAN)
    golden("vector_jacobian_torchviz.dot", torchviz_dot(trace, 1))


def test_nodes_say_when_they_ran_and_what_they_received() -> None:
    told = labels(torchviz_dot(drawn_by_torchviz(vector_jacobian(), VECTOR_JACOBIAN), 1))
    assert told["n1"] == "MulBackward0 x1 = m1 * m2 #4 in 5 = 1 + 4"
    assert told["n3"] == "AccumulateGrad #5"


def test_leaves_say_what_became_of_their_grad() -> None:
    told = labels(torchviz_dot(drawn_by_torchviz(vector_jacobian(), VECTOR_JACOBIAN), 1))
    assert told["v3"] == "m1 (3, 2) .grad None → 10"
    assert told["r0"] == "y (3, 2)"


def test_arrows_carry_the_gradient_that_came_back() -> None:
    told = labels(torchviz_dot(drawn_by_torchviz(vector_jacobian(), VECTOR_JACOBIAN), 1))
    arrows = {name: label.replace("\xa0", "") for name, label in told.items() if "->" in name}
    assert arrows == {
        "n1 -> n0": "1", "n2 -> n0": "1", "n1 -> n2": "4", "n5 -> n2": "2", "n3 -> n1": "10",
        "n4 -> n1": "5", "v3 -> n3": "10", "v4 -> n4": "5", "v5 -> n5": "2", "n0 -> r0": "1",
    }  # fmt: skip


def test_a_leaf_that_is_the_root_is_one_box() -> None:
    told = labels(torchviz_dot(drawn_by_torchviz(hooks(), HOOKS), 2))
    assert told["v0"] == "v (3) .grad [1, 1, 4] + [1, 1, 1] → [2, 2, 5]"


def test_torchvizs_colours_and_shapes_are_kept() -> None:
    dot = torchviz_dot(drawn_by_torchviz(vector_jacobian(), VECTOR_JACOBIAN), 1)
    assert dot.count("fillcolor=lightblue") == 3
    assert dot.count("fillcolor=darkolivegreen1") == 1
    assert "shape=box style=filled" in dot


def test_of_two_arrows_alike_each_carries_its_own() -> None:
    trace = vector_jacobian()
    graph = trace.graphs[1]
    both_to_x1 = tuple(
        replace(edge, target=1) if (edge.source, edge.slot) == (2, 1) else edge
        for edge in graph.edges
    )
    trace = replace(trace, graphs={1: replace(graph, edges=both_to_x1)})
    dot = VECTOR_JACOBIAN.replace("\tn5 -> n2\n", "\tn1 -> n2\n")
    told = torchviz_dot(drawn_by_torchviz(trace, dot), 1)
    assert re.findall(r'n1 -> n2 \[label="\W(\d)', told) == ["4", "2"]


def test_saved_tensors_keep_their_boxes_under_steady_names() -> None:
    dot = VECTOR_JACOBIAN.replace(
        "}\n",
        '\t140200 -> n1 [dir=none]\n\t140200 [label="saved\n (3, 2)" fillcolor=orange]\n}\n',
    )
    told = torchviz_dot(drawn_by_torchviz(vector_jacobian(), dot), 1)
    assert "t0 -> n1" in told
    assert "140200" not in told
    assert "fillcolor=orange" in told


def test_only_what_torchviz_writes_is_taken_over() -> None:
    evil = VECTOR_JACOBIAN.replace(
        "\tn0 [label=AddBackward0]\n",
        '\tn0 [label="\\N<b>&quot;" image="/etc/passwd" URL="javascript:x" shape=none]\n'
        '\tx [label=<<IMG SRC="/etc/passwd"/>>]\n'
        '\tn0 [label="\\\\"] ; evil [label="\n'
        '\ty [label="<b>x</b>"]\n',
    )
    told = torchviz_dot(drawn_by_torchviz(vector_jacobian(), evil), 1)
    assert not re.search(r"image|URL|IMG|shape=none|passwd|evil ", told)
    assert 'label="<b>x</b>"' in told
    assert draw_dot(told, "svg").data.startswith(b"<?xml")


def test_a_pass_that_torchviz_did_not_draw_says_how_to_get_one() -> None:
    with pytest.raises(RenderError, match="record with tracer run --torchviz"):
        torchviz_dot(hooks(), 1)
    reason = "torchviz gave up: its walk is recursive and this graph is too deep for it"
    with pytest.raises(RenderError, match=f"torchviz has no drawing of pass 1: {reason}"):
        torchviz_dot(replace(hooks(), dropped={reason: 1}), 1)


def test_a_missing_pass_is_an_error() -> None:
    with pytest.raises(NotInTraceError, match="there is no pass 9"):
        torchviz_dot(hooks(), 9)

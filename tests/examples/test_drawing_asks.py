"""What people asked other drawing tools for, in vain: each program is drawn here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import tracer
from tracer.records.diagram import Role
from tracer.transforms import diagram

SVG = "{http://www.w3.org/2000/svg}"


def test_a_recurrent_convolution_of_thousands_of_nodes_is_a_picture_of_few_boxes() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple:
            i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            return o.sigmoid() * c.tanh(), c

    cells = nn.ModuleList(Cell() for _ in range(3))
    frames = torch.randn(60, 1, 1, 4, 4)
    with tracer.trace() as trace:
        states = [(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)) for _ in cells]
        for frame in frames:
            x = frame
            for place, cell in enumerate(cells):
                states[place] = cell(x, *states[place])
                x = states[place][0][:, :1]
        x.sum().backward()
    assert len(trace.graph.nodes) > 2_000
    drawn = diagram(trace.record, 1)
    assert len([box for box in drawn.boxes if box.role is not Role.CARRY]) <= 62


@pytest.fixture(scope="module")
def trained() -> tracer.Trace:
    """Two steps of training, the second of which fails in its backward pass."""
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    with tracer.trace() as trace:
        for step in range(2):
            loss = (weight * weight).exp().sum()
            if step:
                loss.register_hook(lambda grad: 1 / 0)
            with contextlib.suppress(ZeroDivisionError):
                loss.backward()
    return trace


def test_a_picture_is_stamped_with_when_it_is_of(trained: tracer.Trace) -> None:
    facts = diagram(trained.record, 1).title.facts
    assert facts[0].startswith("test_drawing_asks.py:")
    assert facts[1] == "pass 1"


def test_a_pass_that_failed_keeps_its_cause_and_what_there_is(trained: tracer.Trace) -> None:
    drawn = diagram(trained.record, 2)
    assert drawn.title.failure.startswith("raised ZeroDivisionError: division by zero")
    assert len(drawn.boxes) >= 4


def test_a_drawing_is_a_file_that_scales_and_clips_nothing(
    trained: tracer.Trace, tmp_path: Path
) -> None:
    trained.draw(tmp_path / "g.svg", pass_id=1)
    root = ElementTree.parse(tmp_path / "g.svg").getroot()
    left, top, width, height = map(float, (root.get("viewBox") or "").split())
    assert (left, top) == (0, 0)
    assert min(width, height) > 50
    assert root.get("style") == "max-width:100%;height:auto"
    assert "class='" not in (tmp_path / "g.svg").read_text("utf-8").partition("<svg")[0]


def test_arrows_can_point_up_and_what_a_leaf_is_is_said_in_words(trained: tracer.Trace) -> None:
    assert "rankdir=BT" in trained.dot(tracer.View(direction="BT"), pass_id=1)
    leaf = next(box for box in diagram(trained.record, 1).boxes if box.role is Role.LEAF)
    assert leaf.lines[1].text == "leaf · (2,) f32 = [1, 2]"


def test_a_graph_can_be_had_as_text() -> None:
    x = torch.ones(2, requires_grad=True)
    with tracer.trace() as trace:
        (x * 2).sum().backward()
    assert trace.dot().startswith("digraph gradients {")
    assert "MulBackward0" in trace.picture("mmd").data.decode()


MAKE_DOT = """
import sys, torch, tracer
tracer.make_dot(torch.ones(1, requires_grad=True) * 2)
print([name for name in ("torchviz", "distutils", "pygraphviz") if name in sys.modules])
"""


def test_make_dot_needs_neither_torchviz_nor_distutils() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MAKE_DOT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

"""`tracer.make_dot` in place of torchviz's: the same picture, and one where torchviz has none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import graphviz
import pytest
import torch
import torchviz
from torch import nn

from tracer import make_dot

# ---- torchviz is the oracle


def canonical(dot: graphviz.Digraph) -> list[str]:
    """The statements of a picture, its boxes numbered as they come up."""
    numbers: dict[str, str] = {}

    def renamed(found: re.Match[str]) -> str:
        return numbers.setdefault(found.group(), f"#{len(numbers)}")

    same = "constraint=false dir=none style=dotted"
    return [
        re.sub(r"\b([ft]\d+(_\w+)?|\d{6,})\b(?=\s*(->|\[|$))", renamed, line.strip())
        for line in dot.body
        if same not in line
    ]


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """The model of torchviz's README."""
    model = nn.Sequential()
    model.add_module("W0", nn.Linear(8, 16))
    model.add_module("tanh", nn.Tanh())
    model.add_module("W1", nn.Linear(16, 1))
    return model, torch.randn(1, 8)


def small_mean() -> tuple[Any, Any]:
    model, x = mlp()
    return model(x).mean(), dict(model.named_parameters())


def several_outputs() -> tuple[Any, Any]:
    cell = nn.LSTMCell(128, 128)
    return cell(torch.randn(1, 128)), dict(cell.named_parameters())


def gradient_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = model(x).mean()
    (grad,) = torch.autograd.grad(y, x, create_graph=True, retain_graph=True)
    return grad.pow(2).mean() + y


def double_backprop() -> tuple[Any, Any]:
    model, x = mlp()
    x.requires_grad_(True)
    return gradient_of(model, x), dict([*model.named_parameters(), ("x", x)])


def convolutions() -> nn.Module:
    """AlexNet's shape in small, with its names."""
    features = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    classifier = nn.Sequential(nn.Dropout(), nn.LazyLinear(16), nn.ReLU(inplace=True))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), classifier)


def alexnet() -> tuple[Any, Any]:
    model, x = convolutions(), torch.randn(1, 3, 31, 31).requires_grad_(True)
    return model(x), dict([*model.named_parameters(), ("x", x)])


def alexnet_twice() -> tuple[Any, Any]:
    model, x = convolutions(), torch.randn(1, 3, 31, 31).requires_grad_(True)
    return gradient_of(model, x), dict([*model.named_parameters(), ("x", x)])


def a_view() -> tuple[Any, Any]:
    base = torch.ones(2, 3, requires_grad=True) * 2
    return base.view(6), None


def a_leaf() -> tuple[Any, Any]:
    return torch.ones(2, requires_grad=True), None


def a_constant() -> tuple[Any, Any]:
    return torch.ones(2, 1), None


class Cube(torch.autograd.Function):
    """A custom function that saves its input, which torchviz shows always."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x * 1)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grad


def a_custom_function() -> tuple[Any, Any]:
    x = torch.ones(2, requires_grad=True)
    return Cube.apply(x).sum(), {"x": x}


ALL = [
    small_mean, several_outputs, double_backprop, alexnet, alexnet_twice, a_view, a_leaf,
    a_constant, a_custom_function,
]  # fmt: skip


@pytest.mark.parametrize("example", ALL)
@pytest.mark.parametrize(
    "more", [{}, {"show_attrs": True}, {"show_attrs": True, "max_attr_chars": 9}]
)
def test_the_picture_is_torchvizs_statement_for_statement(example: Any, more: Any) -> None:
    outputs, params = example()
    ours = make_dot(outputs, params=params, **more)
    theirs = torchviz.make_dot(outputs, params=params, **more)
    assert canonical(ours) == canonical(theirs)
    assert ours.node_attr == theirs.node_attr
    assert type(ours).__mro__[1] is type(theirs)


@pytest.mark.parametrize("example", [small_mean, double_backprop])
def test_saved_tensors_are_torchvizs_too(example: Any) -> None:
    outputs, params = example()
    ours = make_dot(outputs, params=params, show_attrs=True, show_saved=True)
    theirs = torchviz.make_dot(outputs, params=params, show_attrs=True, show_saved=True)
    boxes = [
        Counter(re.findall(r'label=("[^"]*"|\w+)(?: fillcolor=(\w+))?', str(dot.source)))
        for dot in (ours, theirs)
    ]
    assert +(boxes[1] - boxes[0]) == Counter()


def test_the_import_line_of_its_notebook_holds() -> None:
    names: dict[str, Any] = {}
    exec("from tracer import make_dot, make_dot_from_trace", names)
    assert names["make_dot"] is make_dot
    for refuse in (names["make_dot_from_trace"], torchviz.make_dot_from_trace):
        with pytest.raises(NotImplementedError):
            refuse(object())


# ---- where torchviz has none


def test_an_input_and_what_is_saved_of_it_stay_apart() -> None:
    a = torch.ones(3, requires_grad=True)
    source = str(make_dot((a * a).sum(), params={"a": a}, show_saved=True).source)
    assert source.count("fillcolor=lightblue") == 1
    assert source.count("fillcolor=orange") == 2
    assert len(re.findall(r"\tt\d+ -> f\d+_(self|other) \[.*style=dotted\]", source)) == 2


def test_after_backward_it_says_what_is_freed() -> None:
    x = torch.ones(3, requires_grad=True)
    loss = (Cube.apply(x) * x).sum()
    loss.backward()
    source = str(make_dot(loss, show_attrs=True, show_saved=True).source)
    assert "saved tensors\n freed" in source
    assert re.search(r"self *: +freed", source)
    assert "other\n freed" in source


def test_depth_does_not_matter() -> None:
    value = torch.ones(1, requires_grad=True)
    for _ in range(5_000):
        value = value + 1
    assert str(make_dot(value).source).count("AddBackward0") == 5_000


@dataclass
class Output:
    """What a model may return."""

    logits: torch.Tensor
    states: list[torch.Tensor]
    name: str = "no tensor"


def test_containers_of_all_kinds_hold_outputs() -> None:
    x = torch.ones(2, requires_grad=True)
    outputs = {"a": [x * 2, (x * 3, "text")], "b": Output(x * 4, [x * 5]), "c": None}
    assert str(make_dot(outputs).source).count("fillcolor=darkolivegreen1") == 4


def test_several_roots_share_what_is_behind_them() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    source = str(make_dot([y.sum(), y.mean()]).source)
    assert (source.count("ExpBackward0"), source.count("darkolivegreen1")) == (1, 2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (nn.Linear(2, 2), r"a module has no graph, what it returned has: make_dot\(model\(x\)\)"),
        ({"a": 1}, "there is no tensor in what was given: dict"),
    ],
)
def test_what_holds_no_tensor_is_refused(given: object, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make_dot(given)


def test_a_forward_that_takes_gradients_itself_is_drawn() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            (grad,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
            return grad

    x = torch.ones(2, requires_grad=True)
    assert "PowBackward0" in str(make_dot(Inner()(x)).source)


def test_a_subclass_whose_base_never_ends_is_drawn() -> None:
    class Endless(torch.Tensor):
        @property
        def _base(self) -> Endless:  # type: ignore[override]
            return torch.ones(1).as_subclass(Endless)

        def _is_view(self) -> bool:
            return True

    assert "darkolivegreen3" in str(make_dot(torch.ones(1).as_subclass(Endless)).source)


def test_nothing_of_a_name_is_an_order() -> None:
    x = torch.ones(1, requires_grad=True)
    hostile = '\\N"]; evil [label="<b>'
    source = str(make_dot(x * 1, params={hostile: x}).source)
    assert '\\\\N\\"]; evil [label=\\"<b>' in source


def test_looking_changes_nothing() -> None:
    x = torch.ones(3, requires_grad=True)
    y = (x * x).exp().sum()
    make_dot(y, show_attrs=True, show_saved=True)
    y.backward()
    assert torch.equal(x.grad, 2 * x * (x * x).exp())


def test_it_renders_and_shows_itself_without_a_dot_on_path(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    dot = make_dot(torch.ones(1, requires_grad=True) * 2)
    assert dot.render("g", directory=tmp_path, format="png", cleanup=True) == str(
        tmp_path / "g.png"
    )
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["g.png"]
    assert "<svg" in dot._repr_mimebundle_()["image/svg+xml"]
    assert dot.pipe("pdf").startswith(b"%PDF")

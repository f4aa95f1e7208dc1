"""Functions that PyTorch has in Python run as they do untraced, though a mode is there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import tracer
from tests.capture.test_backward_frames import both

X = torch.linspace(-1, 1, 12).reshape(2, 3, 2)


def places_of_warnings(program: Callable[[], Any]) -> list[tuple[str, str, int]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program()
    return [(str(one.message), one.filename, one.lineno) for one in caught]


@pytest.mark.parametrize(
    "program",
    [
        lambda: functional.softmax(X),
        lambda: functional.dropout2d(X),
        lambda: functional.l1_loss(X, X[:, :1]),
        lambda: torch.nn.Softmax()(X),
    ],
    ids=["softmax", "dropout2d", "l1_loss", "Softmax"],
)
def test_a_warning_of_a_function_names_the_line_it_names_untraced(
    program: Callable[[], Any],
) -> None:
    plain, traced = both(lambda: places_of_warnings(program))
    assert plain
    assert traced == plain


def test_attention_takes_the_same_path_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(3, 7, 16)

    def program() -> torch.Tensor:
        with torch.no_grad():
            return model(x)

    plain, traced = both(program)
    assert torch.equal(plain, traced)


class Counting(torch.Tensor):
    """A subclass that sees the functions called with it."""

    seen: tuple[str, ...] = ()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Counting.seen += (func.__name__,)
        return super().__torch_function__(func, types, args, kwargs or {})


class Noting(TorchFunctionMode):
    """A mode of the user's that sees every function."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_subclass_sees_the_functions_it_sees_untraced() -> None:
    def program() -> tuple[str, ...]:
        Counting.seen = ()
        functional.softmax(X.as_subclass(Counting), -1)
        functional.cross_entropy(X[:, :, 0].as_subclass(Counting), torch.tensor([0, 1]))
        return Counting.seen

    plain, traced = both(program)
    assert "cross_entropy" in plain
    assert traced == plain


def test_modes_of_the_users_around_and_inside_see_what_they_see_untraced() -> None:
    def program() -> list[str]:
        with Noting() as inside:
            functional.relu(X)
            torch.einsum("abc->a", X)
        return inside.seen

    plain, traced = both(program)
    assert plain == ["relu", "einsum"]
    assert traced == plain
    with Noting() as around:
        functional.relu(X)
        seen = list(around.seen)
        with tracer.trace():
            functional.relu(X)
    assert around.seen.count("relu") == 2 * seen.count("relu")


def test_torchscript_compiles_functions_while_a_trace_is_recorded() -> None:
    def program() -> torch.Tensor:
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GELU(), torch.nn.Softmax(-1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(model)(X)

    plain, traced = both(program)
    assert torch.equal(plain, traced)


def test_the_operations_inside_a_function_are_told_with_the_users_line() -> None:
    with tracer.trace() as trace:
        x = X.clone().requires_grad_()
        loss = functional.cross_entropy(functional.relu(x), torch.zeros(2, 2, dtype=torch.long))
        loss.backward()
    told = [(node.name, node.variables) for node in trace.graph.nodes]
    assert ("ReluBackward0", ()) in told
    sites = {node.site.line for node in trace.graph.nodes if node.site is not None}
    assert len(sites) == 1
    assert trace.graph.nodes[0].variables == ("loss",)


def test_each_operation_of_one_call_of_a_function_counts_as_the_first() -> None:
    x = X.clone().requires_grad_()
    with tracer.trace() as trace:
        for _ in range(2):
            x = functional.normalize(x)
        x.sum().backward()
    calls = [(node.name, node.call) for node in trace.graph.nodes if "Accumulate" not in node.name]
    inside = ["DivBackward0", "ExpandBackward0", "ClampMinBackward0", "LinalgVectorNormBackward0"]
    assert sorted(calls) == sorted(
        [("SumBackward0", 1)] + [(name, call) for call in (1, 2) for name in inside]
    )


class Other:
    """Knows how to be a power's exponent."""

    def __rpow__(self, base: object) -> str:
        return f"of {type(base).__name__}"


def test_a_power_is_one_operation_and_gives_way_as_untraced() -> None:
    x, text = torch.arange(1.0, 4.0, requires_grad=True), cast(Any, "2")

    def program() -> list[Any]:
        with pytest.raises(TypeError) as refused:
            x**text
        powers = [x**2, x**x, 2**x, x**True, x.detach() ** 0.5, X.int() ** 2]
        return [*(one.tolist() for one in powers), x ** Other(), str(refused.value)]

    plain, traced = both(program)
    assert traced == plain
    with tracer.trace() as trace:
        (x**2).sum().backward()
    (graph,) = trace.record.graphs.values()
    (node,) = [node for node in graph.nodes if node.name == "PowBackward0"]
    assert (node.op, node.site is not None) == ("Tensor.pow", True)
    forwards = [event for event in trace.record.events if event.kind == "forward"]
    assert [event.op for event in forwards] == ["Tensor.pow", "Tensor.sum"]

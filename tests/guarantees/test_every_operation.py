"""Each differentiable operation that PyTorch tests itself: the same traced, and recorded as it was.

The operations and their inputs are PyTorch's own (`torch.testing._internal`), one sample of each:
every fifth operation, or with `pytest --every-operation` all.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
import torch

import tracer
from tests.guarantees import checks
from tests.guarantees.oracle import observing
from tests.guarantees.programs import Frozen, freeze

SEEN_BY_NOBODY = {
    "sparse.sampled_addmm": "the oracle cannot freeze a gradient in CSR layout",
    "sparse.mm": "the oracle cannot freeze a gradient in CSR layout",
    "to_sparse": "the oracle cannot freeze a sparse gradient",
    "chalf": "the oracle cannot freeze complex32",
}


@dataclass
class Outcome:
    """What running an operation, and backward from all it gives, shows."""

    results: list[Frozen | str] = field(default_factory=list)
    gradients: list[Frozen | str] = field(default_factory=list)
    warned: list[tuple[str, str, int]] = field(default_factory=list)
    error: str = ""


def samples() -> Iterator[tuple[str, Any, Any]]:
    """The name, the operation and its first sample, each with a gradient in float32."""
    database = pytest.importorskip(
        "torch.testing._internal.common_methods_invocations", reason="PyTorch has no test database"
    )
    for operation in database.op_db:
        if operation.supports_autograd and torch.float32 in operation.supported_dtypes("cpu"):
            name = f"{operation.name} {operation.variant_test_name}".strip()
            inputs = operation.sample_inputs("cpu", torch.float32, requires_grad=True)
            yield name, operation, next(iter(inputs))


def copy_of(value: Any) -> Any:
    """The value with each tensor in it copied, a leaf for a leaf."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if type(value) in (list, tuple):
        return type(value)(copy_of(item) for item in value)
    return {key: copy_of(item) for key, item in value.items()} if type(value) is dict else value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def run(operation: Any, sample: Any) -> Outcome:
    """Run an operation on copies, and backward from all its results."""
    torch.manual_seed(0)
    given = copy_of((sample.input, sample.args, sample.kwargs))
    leaves = [tensor for tensor in tensors_in(given) if tensor.requires_grad]
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = operation(given[0], *given[1], **given[2])
            results = list(tensors_in(result))
            roots = [tensor for tensor in results if tensor.requires_grad]
            torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
            outcome.results = [frozen(tensor) for tensor in results]
        except Exception as error:
            outcome.error = f"{type(error).__name__}: {error}"
    outcome.gradients = [frozen(leaf.grad) for leaf in leaves]
    outcome.warned = [(str(one.message), one.filename, one.lineno) for one in caught]
    return outcome


def frozen(tensor: torch.Tensor | None) -> Frozen | str:
    with contextlib.suppress(Exception):
        return freeze(tensor)
    return str(tensor)


def faults_of(name: str, operation: Any, sample: Any) -> Iterator[str]:
    """What is not as it should be of one operation, in words."""
    plain, again = run(operation, sample), run(operation, sample)
    with observing() as observed:
        run(operation, sample)
    with tracer.trace() as t:
        traced = run(operation, sample)
    trace = t.record
    if repr(plain) == repr(again) != repr(traced):
        yield f"{name}: {plain} untraced, {traced} traced"
    if trace.dropped:
        yield f"{name}: dropped {dict(trace.dropped)}"
    if operation.name in SEEN_BY_NOBODY:
        return
    try:
        checks.check_complete(trace, observed)
        checks.check_exact(trace, observed)
        checks.check_sums(trace)
    except AssertionError as error:
        yield f"{name}: {error}"


def test_every_operation_is_the_same_traced_and_recorded_as_it_was(
    request: pytest.FixtureRequest,
) -> None:
    step = 1 if request.config.getoption("--every-operation") else 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, while it makes the samples
        faults, count = [], 0
        for name, operation, sample in islice(samples(), 0, None, step):
            faults += faults_of(name, operation, sample)
            count += 1
    assert faults == []
    assert count > 500 // step

"""Random programs, traced and not: the guarantees hold for each, with PyTorch as the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import tracer
from tests.capture.devices import answering_later
from tests.guarantees import checks
from tests.guarantees.conftest import torch_state
from tests.guarantees.ledger import check_ledger
from tests.guarantees.oracle import observing
from tests.guarantees.programs import Instruction, programs, run_program

KEPT: dict[str, list[Instruction]] = {
    "a leaf is written to after the hook that saw it last": [
        ("leaf", "f32", 0, 0),
        ("accumulate_hook", 0, "observe"),
        ("backward", [0], ""),
        ("clip", "norm"),
    ],
    "data taken before any pass is written to after the last": [
        ("leaf", "f32", 0, 0),
        ("unary", "data", 0),
        ("backward", [0], ""),
        ("in_place", "add_", 1, 0),
    ],
    "a view that PyTorch forbids to ask for its node": [
        ("leaf", "f32", 1, 0),
        ("unary", "clone", 0),
        ("region", "no_grad", [("unary", "view", 1)]),
        ("in_place", "add_", 1, 0),
        ("unary", "detach", 2),
        ("tensor_hook", 2, "double"),
        ("read_grad", 2),
        ("backward", [2], "r"),
    ],
    "a root is a leaf made in inference mode": [
        ("leaf", "f32", 0, 1),
        ("region", "inference_mode", [("unary", "new leaf", 1)]),
        ("binary", "mul", 0, 1),
        ("backward", [-2, -1], "rs"),
    ],
    "what was a leaf is the result of an operation now": [
        ("leaf", "f64", 3, 0),
        ("unary", "turned", 0),
        ("freeze", 0),
        ("module", 1, True),
        ("in_place", "add_", 0, 1),
        ("zero", 0, "None"),
        ("backward", [-1], "r"),
        ("backward", [1], "r"),
    ],
    "a view is asked for its node only after its base was written to": [
        ("leaf", "f32", 0, 0),
        ("leaf", "f32", 2, 0),
        ("leaf", "f32", 0, 3),
        ("unary", "turned", 7),
        ("backward", [0], ""),
        ("drop", 0),
        ("leaf", "f32", 0, 2),
        ("in_place", "narrow.add_", 2, 0),
        ("zero", 0, "None"),
        ("backward", [0, 0, 0], ""),
        ("read_grad", 2),
        ("unary", "bf16", 0),
        ("leaf", "f32", 0, 0),
        ("region", "no_grad", [("unary", "softmax", 0)]),
        ("unary", "checkpoint reentrant", 9),
        ("binary", "add", 4, 0),
        ("backward", [-1], "r"),
        ("backward", [-2, -1], "rs"),
    ],
    "a hook halves zeros": [
        ("leaf", "f32", 4, 0),
        ("leaf", "f32", 0, 0),
        ("binary", "add", 0, 0),
        ("tensor_hook", 0, "zero"),
        ("accumulate_hook", 0, "halve"),
        ("backward", [-1], "r"),
        ("backward", [-2, -1], "rs"),
    ],
    "what was a leaf with a gradient is the result of an operation now": [
        ("leaf", "f32", 0, 0),
        ("leaf", "f32", 0, 0),
        ("leaf", "f64", 0, 0),
        ("backward", [0], ""),
        ("freeze", 0),
        ("unary", "argmax", 0),
        ("in_place", "add_", 0, 1),
        ("backward", [-1], "r"),
        ("backward", [-2, -1], "rs"),
    ],
    "a hook changes only the signs of zeros and NaNs": [
        ("leaf", "f32", 4, 0),
        ("unary", "argmax", 0),
        ("binary", "div", 0, 0),
        ("tensor_hook", 0, "negate"),
        ("backward", [-1], "r"),
        ("backward", [-2, -1], "rs"),
    ],
    "a hook on two tensors waits for both": [
        ("leaf", "f64", 1, 2),
        ("binary", "div", 3, 1),
        ("multi_hook", 2, 1, "all"),
        ("backward", [-1], "r"),
    ],
}
"""Programs that once showed a fault, by what they do."""


def check_program(program: list[Instruction]) -> None:
    """All guarantees for one program."""
    plain = run_program(program)
    with observing() as observed:
        run_program(program)
    before = torch_state()
    with tracer.trace() as t:
        traced = run_program(program)
    assert torch_state() == before
    trace = t.record
    assert dict(trace.dropped) == {}
    checks.check_harmless(traced, plain)
    checks.check_complete(trace, observed)
    checks.check_exact(trace, observed)
    checks.check_sums(trace)
    checks.check_hooks(trace, traced)
    check_ledger(trace, observed, traced)


@pytest.mark.parametrize("what", KEPT)
def test_a_program_that_once_failed(what: str) -> None:
    check_program(KEPT[what])


@pytest.mark.parametrize("what", KEPT)
def test_a_program_that_once_failed_with_a_device_that_answers_later(what: str) -> None:
    with answering_later():
        check_program(KEPT[what])


def test_random_programs_with_a_device_that_answers_later() -> None:
    @settings(
        max_examples=40,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def run(program: Any) -> None:
        with answering_later():
            check_program(program)

    run()


def test_random_programs(request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--programs")

    @settings(
        max_examples=count,
        derandomize=count == 500,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def run(program: Any) -> None:
        check_program(program)

    run()

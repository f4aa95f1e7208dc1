"""Unusual programs: the same values, exceptions, warnings with tracing; each node recorded once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import profiler

import tracer
from tests.capture.cores import IN_PYTHON
from tests.guarantees.checks import check_sums, executions, node_name
from tests.guarantees.oracle import executed_names
from tests.guarantees.unusual import PROGRAMS, Program, errors, operations, runs, tensors

assert PROGRAMS
assert all((errors, operations, runs, tensors))

Seen = tuple[Any, list[tuple[str, str, int]]]

WARN_ELSEWHERE = ("anomaly_mode", "module_hooks")
"""Programs whose warnings show the core in Python, as docs/limits.md says."""


@pytest.fixture(autouse=True)
def one_thread_that_always_warns() -> Iterator[None]:
    """Several threads wait for one another; and what is warned of once must be so in each run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)
    torch.set_num_threads(threads)


def bits(value: Any) -> Any:
    """A value as something that is equal only where every bit is."""
    if isinstance(value, Tensor):
        value = value.detach()
        if type(value) is Tensor and value.layout is torch.strided and not value.is_meta:
            flat = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
            return value.dtype, tuple(value.shape), flat.view(torch.uint8).tolist()
        return type(value).__name__, str(value)
    if isinstance(value, (tuple, list)):
        return [bits(part) for part in value]
    return repr(value)


def see(program: Program) -> Seen:
    """What a program computes or raises, and what it warns of, with the place of each warning."""
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result = bits(program())
        except Exception as error:
            result = type(error).__name__, str(error)
    result = result, bits(torch.get_rng_state())
    return result, [(str(each.message), each.filename, each.lineno) for each in warned]


def run(program: Program, watched: AbstractContextManager[Any]) -> tuple[Seen, Any]:
    """See a program run while it is watched, from the same line whoever watches it."""
    with watched as watcher:
        seen = see(program)
    return seen, watcher


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_is_the_same_and_each_node_that_runs_is_recorded_once(program: Program) -> None:
    watchers: list[Any] = [profiler.profile(), nullcontext(), tracer.trace()]
    (_, profile), (untraced, _), (traced, trace) = [run(program, each) for each in watchers]
    assert traced[0] == untraced[0]
    if not (IN_PYTHON and program.__name__ in WARN_ELSEWHERE):
        assert traced[1] == untraced[1]
    record = trace.record
    events = executions(record)
    assert [node_name(record, event) for event in events] == executed_names(profile)
    assert len({(event.pass_id, event.node) for event in events}) == len(events)
    assert dict(record.dropped) == {}
    check_sums(record)

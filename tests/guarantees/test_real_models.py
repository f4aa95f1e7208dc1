"""Real models trained for several steps: the same bits with and without tracing, all recorded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from torch.autograd import profiler

import tracer
from tests.guarantees import models
from tests.guarantees.checks import check_sums, executions, node_name
from tests.guarantees.models import Training, states
from tests.guarantees.oracle import executed_names
from tracer.records import Recompute

OWN = [
    models.transformer_encoder,
    models.lstm,
    models.resnet,
    models.gan,
    models.gradient_accumulation,
    models.weight_tying,
    partial(models.checkpointed, reentrant=True),
    partial(models.checkpointed, reentrant=False),
    models.gradient_penalty,
    models.mixed_precision,
    models.line_search,
]


def name_of(training: Training) -> str:
    if isinstance(training, partial):
        return "checkpointed, reentrant" if training.keywords["reentrant"] else "checkpointed"
    return training.__name__


def run(training: Training) -> tuple[list[bytes], bytes]:
    """What was learned, and the state of the random numbers afterwards, as bytes."""
    torch.manual_seed(0)
    learned = states(training())
    return learned, bytes(torch.get_rng_state().tolist())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads wait for one another on a busy machine, longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(training: Training) -> int:
    """Train without and with tracing, and compare everything; how often a region ran again."""
    with profiler.profile() as profile:
        untraced = run(training)
    with tracer.trace() as trace:
        traced = run(training)
    assert traced == untraced
    record = trace.record
    events = executions(record)
    assert [node_name(record, event) for event in events] == executed_names(profile)
    assert len({(event.pass_id, event.node) for event in events}) == len(events)
    assert dict(record.dropped) == {}
    check_sums(record)
    return sum(isinstance(event, Recompute) for event in record.events)


@pytest.mark.parametrize("training", OWN, ids=name_of)
def test_a_model_learns_the_same_and_each_node_is_recorded_once(training: Training) -> None:
    # of two layers and a sequential's two parts, all but the last part
    repeats = 3 * models.STEPS if name_of(training).startswith("checkpointed") else 0
    assert check(training) == repeats


@pytest.mark.parametrize("training", [models.tiny_gpt2, models.tiny_llama], ids=name_of)
@pytest.mark.skipif(find_spec("transformers") is None, reason="pip install autograd-tracer[models]")
def test_a_model_of_transformers_learns_the_same(training: Training) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own imports
        check(training)

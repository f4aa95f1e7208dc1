"""Run by `test_fused` in a process of its own: the Triton kernel as Triton plays it on a CPU.

Triton decides when it is imported whether it compiles or plays.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.capture.comparing import Gradients, record, same_recordings, same_value
from tests.capture.devices import answering_later
from tests.capture.tensors import tensors
from tests.capture.test_deferred import train
from tracer.capture import fused, reductions

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of NaN and Inf


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Have the CPU be a device that the kernel is for; how many elements it was given each time."""
    given: list[int] = []
    put = fused.put_numbers

    def put_and_count(flat: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor) -> None:
        put(flat, sums, counts)
        given.append(flat.numel())

    monkeypatch.setattr(fused, "put_numbers", put_and_count)
    monkeypatch.setattr(reductions, "FUSED_ON", {"cpu"})
    monkeypatch.setattr(reductions, "_FUSED", reductions._Fused())
    yield given
    assert given
    assert reductions._FUSED._is_there


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_numbers_are_those_that_are_read_at_once(dtype: str, launches: list[int]) -> None:
    at_once = {name: Gradients()(tensor) for name, tensor in tensors(dtype)}
    with answering_later():
        read = Gradients()
        for name, tensor in list(tensors(dtype))[::3]:  # Triton plays slowly
            if (dtype, "1e-41" in name) != ("bfloat16", True):  # which it plays wrongly
                assert same_value(at_once[name], read(tensor)), name
    assert len(launches) > 30


@pytest.mark.parametrize("count", [8_192, 8_193, 100_003])
def test_what_several_programs_read_is_added_up(count: int, launches: list[int]) -> None:
    tensor = torch.randn(count, generator=torch.Generator().manual_seed(0))
    tensor[::7] = 0
    at_once = Gradients()(tensor)
    with answering_later():
        assert same_value(at_once, Gradients()(tensor))
    assert launches == [count]


def test_a_recording_tells_the_same_as_one_that_reads_at_once(launches: list[int]) -> None:
    at_once = record(train)
    with answering_later():
        later = record(train)
    same_recordings(at_once, later)
    assert len(launches) > 50

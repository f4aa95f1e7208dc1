"""Tape: order, threads, frames, and what an entry says of a tensor."""

from __future__ import annotations

import math
import struct
import threading
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.capture.cores import (
    CODES,
    OTHER,
    Entry,
    Frame,
    load_core,
    make_tape,
    read_frames,
    read_whole,
)
from tests.capture.tensors import DTYPES, tensors
from tracer.capture.core_in_python.statistics import pack_statistics
from tracer.records.stream import (
    DTYPE_CODES,
    ENTRY_MANY,
    ENTRY_NONE,
    ENTRY_STATS,
    ENTRY_UNASKED,
    ENTRY_VALUES,
    MOST_VALUES,
    values_head,
)

NORM_TOLERANCE = 1e-12
"""Relative, of the norm; and of the mean, to the mean of the absolute values."""

# ---- order, threads, frames


def test_order_numbers_count_from_1(core: ModuleType) -> None:
    tape = make_tape(core)
    assert tape.seq == 0
    assert [tape.next_seq() for _ in range(3)] == [1, 2, 3]
    assert tape.seq == 3


def test_time_runs_from_the_beginning_of_the_tape(core: ModuleType) -> None:
    tape = make_tape(core)
    times = [tape.now() for _ in range(100)]
    assert 0 <= times[0] < 10**9
    assert times == sorted(times)


def test_what_is_put_is_taken_once(core: ModuleType) -> None:
    tape = make_tape(core)
    assert (tape.used, tape.take()) == (0, b"")
    tape.put(b"abc")
    tape.put(b"")
    tape.put(b"de" * 1000)
    assert tape.used == 2003
    assert tape.take() == b"abc" + b"de" * 1000
    assert (tape.used, tape.take()) == (0, b"")


def test_a_frame_is_written_with_all_that_frames_have(core: ModuleType) -> None:
    tape = make_tape(core)
    tape.next_seq()
    tape.write(5, 9)
    tape.write(10, 0, b"ab", b"", b"c")
    first, second = read_frames(tape.take())
    assert 0 <= first.t_ns <= second.t_ns <= tape.now()
    assert first == Frame(5, 0, 9, 2, first.t_ns, b"")
    assert second == Frame(10, 0, 0, 3, second.t_ns, b"abc")


def test_only_bytes_are_put_on_the_tape(core: ModuleType) -> None:
    tape = make_tape(core)
    with pytest.raises(TypeError):
        tape.put("abc")
    with pytest.raises(TypeError):
        tape.write(5)
    with pytest.raises(TypeError):
        tape.write(5, 0, "abc")
    assert tape.take() == b""


def test_each_thread_has_a_small_number_of_its_own(core: ModuleType) -> None:
    tape = make_tape(core)
    found: list[tuple[int, int]] = []
    barrier = threading.Barrier(5)

    def ask() -> None:
        barrier.wait()  # so that no thread takes the identity of one that has ended
        found.append((tape.thread(), tape.thread()))
        barrier.wait()

    assert tape.thread() == 0
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(k, k) for k in range(1, 6)]
    assert tape.thread() == 0


def test_several_threads_lose_nothing(core: ModuleType) -> None:
    tape = make_tape(core)

    def write() -> None:
        for k in range(500):
            tape.write(5, k)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = b"".join(tape.take() for _ in range(50))
    for thread in threads:
        thread.join()
    frames = read_frames(taken + tape.take())
    assert sorted(frame.seq for frame in frames) == list(range(1, 2001))


# ---- entries


def reference(tensor: Tensor) -> Entry:
    """What an entry of more than a few elements says, by torch and exact sums."""
    values = tensor.to(torch.complex128).abs() if tensor.is_complex() else tensor.to(torch.float64)
    values = values.reshape(-1)
    nans, infs = int(values.isnan().sum()), int(values.isinf().sum())
    low, high = (float(one) for one in values.aminmax())
    numbers = values.tolist()
    if nans:
        norm = mean = math.nan
    elif infs:
        norm, mean = math.inf, float(values.sum()) / len(numbers)
    else:
        norm = math.hypot(*numbers)
        mean = math.fsum(number / len(numbers) for number in numbers)
    statistics = (norm, low, high, mean, int((values == 0).sum()), nans, infs)
    return Entry(ENTRY_STATS, 3, statistics)


def check_statistics(found: Entry, tensor: Tensor, name: str) -> None:
    expected = reference(tensor)
    assert (found.state, found.meta) == (ENTRY_STATS, 3), name
    (norm, low, high, mean), counts = found.statistics[:4], found.statistics[4:]
    assert counts == expected.statistics[4:], name
    extreme = 1e-15 if tensor.is_complex() else 0.0  # abs is rounded
    assert low == pytest.approx(expected.statistics[1], rel=extreme, abs=0, nan_ok=True), name
    assert high == pytest.approx(expected.statistics[2], rel=extreme, abs=0, nan_ok=True), name
    near = max(extreme, NORM_TOLERANCE)
    assert norm == pytest.approx(expected.statistics[0], rel=near, abs=0, nan_ok=True), name
    size = max(abs(low), abs(high)) if math.isfinite(low) and math.isfinite(high) else 0.0
    expected_mean = expected.statistics[3]
    assert mean == pytest.approx(expected_mean, rel=near, abs=near * size, nan_ok=True), name


def bits(values: Tensor) -> Tensor:
    """Elements to be compared bit by bit."""
    row = values.resolve_conj().resolve_neg().contiguous()
    return row.as_strided((row.numel(),), (1,)).view(torch.uint8)


def is_left_to_others(tensor: Tensor, few: int) -> bool:
    if tensor.is_neg() or (tensor.is_complex() and tensor.is_conj()):
        return True
    without = (torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2)
    return tensor.numel() > few and tensor.dtype in without


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int16])
def test_however_many_threads_read_a_tensor_not_a_bit_differs(dtype: torch.dtype) -> None:
    core = load_core("_core")
    size = 3 * (1 << 19) + 4097  # enough for three threads
    tape = make_tape(core)
    tensor = torch.randint(-300, 300, (size,)).to(dtype)
    if dtype.is_floating_point:
        tensor[77_777::300_001] = math.inf
        tensor.mul_(0.37)
    entries = set()
    try:
        for threads in (1, 2, 3, 16):
            core.read_with(threads)
            entries.add(tape.entry(tensor, 3))
            entries.add(tape.entry(tensor.expand(3, size)[:1], 3))
    finally:
        core.read_with(torch.get_num_threads())
    (entry,) = entries
    assert entry.endswith(pack_statistics(tensor))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_entry_tells_what_torch_tells(core: ModuleType, dtype: str) -> None:
    tape = make_tape(core)
    for name, tensor in tensors(dtype):
        packed = tape.entry(tensor, 3)
        if is_left_to_others(tensor, 16):
            assert packed == OTHER, name
        elif tensor.numel() > 16:
            check_statistics(read_whole(packed), tensor, name)
        else:
            found = read_whole(packed)
            assert (found.state, found.meta, found.dtype) == (ENTRY_VALUES, 3, tensor.dtype), name
            assert len(found.values) == tensor.numel(), name
            assert packed[7:] == bytes(bits(tensor).tolist()), name


def test_none_is_no_tensor(core: ModuleType) -> None:
    assert make_tape(core).entry(None) == bytes([ENTRY_NONE])
    assert make_tape(core).entry(None, 5) == bytes([ENTRY_NONE])


@pytest.mark.parametrize("few", [-1, 0, 5, 255, 1000])
def test_a_few_elements_are_kept_as_they_are(core: ModuleType, few: int) -> None:
    tape = make_tape(core, few=few)
    assert tape.few == max(few, 0)
    for count in (0, 1, 5, 6, 255, 256, 1000):
        state = tape.entry(torch.ones(count))[0]
        whole = ENTRY_VALUES if count <= MOST_VALUES else ENTRY_MANY
        assert state == (whole if count <= tape.few else ENTRY_STATS)


def test_more_elements_than_a_byte_counts_are_kept_too(core: ModuleType) -> None:
    tensor = torch.arange(600, dtype=torch.float32).reshape(2, 300).t()
    packed = make_tape(core, few=600).entry(tensor, 5)
    head = values_head(5, DTYPE_CODES["float32"], 600)
    assert packed == head + bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())


def test_without_statistics_no_tensor_is_read(core: ModuleType) -> None:
    tape = make_tape(core, statistics=False)
    assert not tape.statistics
    for tensor in (torch.ones(3), torch.ones(300), torch.ones(2, device="meta")):
        assert tape.entry(tensor, 7) == struct.pack("<BI", ENTRY_UNASKED, 7)
    assert tape.entry(None) == bytes([ENTRY_NONE])


def test_parameters_are_read_and_subclasses_are_not(core: ModuleType) -> None:
    class Named(Tensor):
        pass

    tape = make_tape(core)
    values = torch.tensor([1.0, 2.0])
    plain = tape.entry(values)
    assert tape.entry(torch.nn.Parameter(values)) == plain
    assert tape.entry(values.clone().requires_grad_() * 1) == plain
    with torch.inference_mode():
        assert tape.entry(values * 1) == plain
    assert tape.entry(values.as_subclass(Named)) == OTHER


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_has_no_plain_memory_is_left_to_others(core: ModuleType) -> None:
    tape = make_tape(core)
    values = torch.arange(6.0).reshape(2, 3)
    odd = [
        values.to_sparse(),
        values.to_sparse_csr(),
        values.to("meta"),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        torch._efficientzerotensor(3),
        torch.ones(3, dtype=torch.uint16),
    ]
    assert [tape.entry(tensor) for tensor in odd] == [OTHER] * len(odd)
    seen: list[bytes] = []
    torch.vmap(lambda row: (seen.append(tape.entry(row)), row)[1])(values)
    torch.func.grad(lambda x: (seen.append(tape.entry(x)), x.sum())[1])(values)
    assert seen == [OTHER, OTHER]


def test_many_dimensions_are_read_too(core: ModuleType) -> None:
    tape = make_tape(core)
    values = torch.arange(2.0**12)
    cube = values.reshape([2] * 12).permute(*range(0, 12, 2), *range(1, 12, 2))
    assert tape.entry(cube) == tape.entry(values)
    sliced = cube[..., :1]
    check_statistics(read_whole(tape.entry(sliced, 3)), sliced, "sliced cube")
    few = torch.arange(16.0).reshape([1, 2] * 4).permute(7, 5, 3, 1, 0, 2, 4, 6)
    assert read_whole(tape.entry(few)).values == tuple(few.flatten().tolist())


def test_a_large_tensor_is_read_while_others_run(core: ModuleType) -> None:
    tape = make_tape(core)
    large = torch.ones(1 << 19)
    large[0], large[-1] = -1.0, 3.0
    check_statistics(read_whole(tape.entry(large, 3)), large, "large")


def test_a_failure_of_the_other_reader_is_its_callers(core: ModuleType) -> None:
    def fail(tensor: Tensor) -> bytes:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        core.Tape(fail).entry(torch.ones(2, device="meta"))
    assert core.Tape(fail).entry(torch.ones(2))


def test_no_mode_of_the_users_is_asked_about_tensors_that_are_read(core: ModuleType) -> None:
    """While the core's callers have function modes off, as they all do."""
    calls: list[Any] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kw: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kw or {}))

    tape = make_tape(core)
    values, many = torch.ones(3), torch.ones(300).t()
    with Watch(), torch._C.DisableTorchFunction():
        tape.entry(values)
        tape.entry(many)
    assert calls == []


# ---- both alike


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_cores_write_the_same_bytes(
    both_cores: tuple[ModuleType, ModuleType], dtype: str
) -> None:
    compiled, python = (make_tape(core) for core in both_cores)
    for name, tensor in tensors(dtype):
        assert compiled.entry(tensor, 4) == python.entry(tensor, 4), name


def test_both_cores_agree_over_many_blocks(both_cores: tuple[ModuleType, ModuleType]) -> None:
    compiled, python = (make_tape(core) for core in both_cores)
    generator = torch.Generator().manual_seed(1)
    many = torch.randn(300_003, generator=generator)
    for tensor in (many, many.double(), many[1:].reshape(2, -1).t(), many.bfloat16(), many[::3]):
        assert compiled.entry(tensor) == python.entry(tensor)
    assert sorted(CODES.values()) == list(range(1, 15))

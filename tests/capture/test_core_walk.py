"""walk: the graph below the roots of a pass, packed."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.capture.cores import make_mode, make_tape


class Walked:
    """What a walk gave, unpacked."""

    def __init__(self, core: ModuleType, *roots: Any, signatures: Any = None, mode: Any = None):
        self.signatures = {} if signatures is None else signatures
        given = [(root.grad_fn, 0) if isinstance(root, Tensor) else root for root in roots]
        mode = mode or make_mode(core, make_tape(core))
        found = core.walk(mode, given, self.signatures)
        self.fns, roots_, links, signed, self.sequence_nrs, self.variables, self.same = found
        self.packed = found[1:4]
        self.roots = list(struct.iter_unpack("<ii", roots_))
        self.signed = [number for (number,) in struct.iter_unpack("<I", signed)]
        self.links: list[list[tuple[int, ...]]] = []
        at = 0
        for _ in self.fns:
            (count,) = struct.unpack_from("<I", links, at)
            pairs = struct.iter_unpack("<ii", links[at + 4 : at + 4 + 8 * count])
            self.links.append(list(pairs))
            at += 4 + 8 * count
        assert at == len(links)

    @property
    def names(self) -> list[str]:
        return [type(fn).__name__ for fn in self.fns]


def test_nodes_come_in_the_order_of_first_visits(core: ModuleType) -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    walked = Walked(core, (x * w + x).sum())
    assert walked.names == [
        "SumBackward0", "AddBackward0", "MulBackward0", "AccumulateGrad", "AccumulateGrad",
    ]  # fmt: skip
    assert walked.roots == [(0, 0)]
    assert walked.links == [[(1, 0)], [(2, 0), (3, 0)], [(3, 0), (4, 0)], [], []]
    assert [number for number, _ in walked.variables] == [3, 4]
    assert all(one is leaf for (_, one), leaf in zip(walked.variables, (x, w), strict=True))
    assert walked.sequence_nrs == [fn._sequence_nr() for fn in walked.fns]
    assert walked.sequence_nrs[3] == 2**64 - 1


def test_edges_that_lead_nowhere_keep_their_slot(core: ModuleType) -> None:
    x = torch.ones(2, requires_grad=True)
    walked = Walked(core, torch.where(torch.tensor([True, False]), torch.zeros(2), x).sum())
    assert walked.links[1] == [(-1, 0), (2, 0)]


def test_a_tensors_number_among_outputs_is_that_of_the_edge(core: ModuleType) -> None:
    a, b = torch.ones(4, requires_grad=True).split(2)
    walked = Walked(core, (b * 2 + a).sum())
    split = walked.names.index("SplitBackward0")
    assert sorted(link for links in walked.links for link in links if link[0] == split) == [
        (split, 0), (split, 1),
    ]  # fmt: skip


def test_several_roots_and_a_leaf_among_them(core: ModuleType) -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    leaf = y.grad_fn.next_functions[0][0]
    walked = Walked(core, (leaf, 0), y, y * 3)
    assert walked.roots == [(0, 0), (1, 0), (2, 0)]
    assert walked.names == ["AccumulateGrad", "MulBackward0", "MulBackward0"]


def test_an_input_is_one_edges_only_if_made_in_sight(core: ModuleType) -> None:
    tape = make_tape(core)
    mode = make_mode(core, tape)
    x = torch.ones(2, requires_grad=True)
    unseen = x * 2
    torch._C._push_on_torch_function_stack(mode)
    seen = (unseen.exp() + x).sum()
    twice = seen * seen
    torch._C._pop_torch_function_stack()
    walked = Walked(core, twice, mode=mode)
    flags = dict(zip(walked.names, walked.same, strict=True))
    assert walked.names[:2] == ["MulBackward0", "SumBackward0"]
    assert walked.same[0] == b"\0"  # the root's gradient is given
    assert walked.same[1] == b"\0"  # two edges
    assert flags["AddBackward0"] == flags["ExpBackward0"] == b"\1"
    assert walked.same[walked.names.index("MulBackward0", 1)] == b"\0"  # not made in sight
    assert flags["AccumulateGrad"] == b"\0"  # two edges


def test_alike_nodes_have_one_signature_in_every_pass(core: ModuleType) -> None:
    signatures: dict[Any, int] = {}

    def build(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        x = torch.ones(shape, requires_grad=True, dtype=dtype)
        return ((x * 2) * 3).sum()

    first = Walked(core, build(2, 3), signatures=signatures)
    assert first.signed == [0, 1, 1, 2]
    assert Walked(core, build(2, 3), signatures=signatures).signed == [0, 1, 1, 2]
    assert Walked(core, build(3, 2), signatures=signatures).signed == [0, 3, 3, 4]
    half = Walked(core, build(2, 3, dtype=torch.float64), signatures=signatures)
    assert half.signed == [5, 6, 6, 7]
    assert len(signatures) == 8


def test_where_a_node_runs_is_in_its_signature(core: ModuleType) -> None:
    signatures: dict[Any, int] = {}
    x = torch.ones(2, requires_grad=True)
    here, there = (
        Walked(core, x.to(device).exp().sum(), signatures=signatures).signed
        for device in ("cpu", "meta")
    )
    assert here == [0, 1, 2]
    assert there == [3, 4, 5, 2]  # the last but one moved it


def test_numbers_are_those_of_the_signatures_given_whatever_was_numbered_before(
    core: ModuleType,
) -> None:
    mode = make_mode(core, make_tape(core))

    def walked(size: int, signatures: dict[Any, int]) -> list[int]:
        x = torch.ones(size, requires_grad=True)
        torch._C._push_on_torch_function_stack(mode)
        y = (x * 2).exp()
        torch._C._pop_torch_function_stack()
        return Walked(core, y, mode=mode, signatures=signatures).signed

    signatures: dict[Any, int] = {}
    assert [walked(size, signatures) for size in (2, 3, 2)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert walked(3, {}) == [0, 1, 2]
    assert walked(3, signatures) == [3, 4, 5]
    for one in [one for one, number in signatures.items() if number < 3]:  # as GraphBook forgets
        del signatures[one]
    signatures.update({one: number - 3 for one, number in signatures.items()})
    assert [walked(size, signatures) for size in (3, 2, 3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_who_made_a_node_is_in_its_signature(core: ModuleType) -> None:
    tape = make_tape(core)
    mode = make_mode(core, tape)
    x = torch.ones(2, requires_grad=True)
    torch._C._push_on_torch_function_stack(mode)
    y = x * 2
    z = y * 2
    torch._C._pop_torch_function_stack()
    assert len(set(Walked(core, z, mode=mode).signed)) == 3


def test_a_graph_is_walked_however_deep(core: ModuleType) -> None:
    x = torch.ones(1, requires_grad=True)
    y = x
    for _ in range(20_000):  # more need room on the stack to be freed again: see test_deep.py
        y = y + 1
    walked = Walked(core, y)
    assert len(walked.fns) == 20_001
    assert len(set(walked.signed)) == 2


def test_what_is_no_node_cannot_be_walked(core: ModuleType) -> None:
    with pytest.raises((AttributeError, TypeError)):
        Walked(core, (None, 0))


def test_both_cores_walk_alike(both_cores: tuple[ModuleType, ModuleType]) -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.LSTM(72, 4),
    )  # fmt: skip
    outputs = model(torch.randn(3, 1, 8, 8))
    root = outputs[0].sum() + outputs[1][0].norm()
    compiled, python = (Walked(core, root, outputs[0]) for core in both_cores)
    assert compiled.packed == python.packed
    assert compiled.fns == python.fns
    assert compiled.same == python.same
    assert [*compiled.signatures.values()] == [*python.signatures.values()]
    assert compiled.sequence_nrs == python.sequence_nrs

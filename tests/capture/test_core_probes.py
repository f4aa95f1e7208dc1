"""Probes: what nodes of real graphs receive and return, and what the engine adds to leaves."""

from __future__ import annotations

import gc
import struct
import sys
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.capture.cores import (
    Entry,
    Faults,
    make_mode,
    make_tape,
    read_accumulate,
    read_frames,
    read_node,
    read_whole,
)
from tracer.records.stream import ENTRY_NONE, ENTRY_RECEIVED, ENTRY_SAME

NONE = Entry(ENTRY_NONE)
SAME = Entry(ENTRY_SAME)


def ours(state: Any, task: int) -> bool:
    return True


class Run:
    """One pass with a probe on every node of its graph, as the engine of `tracer` sets it up."""

    def __init__(self, core: ModuleType, root: Tensor, *, number: int = 1, **wanted: Any) -> None:
        self.core = core
        self.tape = wanted.get("tape") or make_tape(core)
        self.faults = Faults()
        mode = wanted.get("mode") or make_mode(core, self.tape)
        self.state = core.PassState(self.tape, number, wanted.get("claim", ours), self.faults)
        self.unseen: list[Any] = []
        self.book = wanted.get("book") or core.Book(lambda *seen: self.unseen.append(seen))
        walked = core.walk(mode, [(root.grad_fn, 0)], {})
        self.fns, self.links, self.variables, self.same = walked[0], walked[2], walked[5], walked[6]
        self.natures = wanted.get("natures", bytes(len(self.fns)))
        self.leaves = {number: (leaf, self.leaf(leaf)) for number, leaf in self.variables}
        self.order: list[str] = []
        self.held, self.crowded, self.probes = core.attach(
            self.state, self.book, self.fns, self.same, self.links, self.natures, self.leaves,
            lambda: self.order.append("begun"), lambda: self.order.append("ended"),
        )  # fmt: skip

    def leaf(self, tensor: Tensor) -> Any:
        found = self.book.find(tensor)
        if found is None:
            grad, data = self.tape.entry(tensor.grad), self.tape.entry(tensor)
            mark = (tensor._version, tensor.data_ptr())
            found = self.core.Leaf(len(self.book.leaves) + 1, weakref.ref(tensor), grad, data, mark)
            self.book.leaves[id(tensor)] = found
        return found

    def end(self) -> None:
        for probe in self.state.unsettled:
            probe.settle()
        self.state.unsettled.clear()
        self.core.detach(self.state, self.held, list(self.fns))
        self.probes.clear()  # the collector does not look into them
        self.state.closed = 1

    def frames(self) -> list[Any]:
        """The frames of nodes and accumulations, in order of `seq`."""
        frames = [
            read_node(frame) if frame.kind == 7 else read_accumulate(frame)
            for frame in read_frames(self.tape.take())
        ]
        return sorted(frames, key=lambda frame: frame.seq)


def graph() -> tuple[Tensor, Tensor, Tensor]:
    """Two leaves and a root; x takes part twice."""
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w = torch.tensor([0.5, -0.5, 2.0], requires_grad=True)
    return x, w, ((x * w).sin() + x.exp()).sum()


def values(*numbers: float) -> tuple[float, ...]:
    return tuple(torch.tensor(numbers).tolist())


# ---- what nodes receive and return


class Witness:
    """PyTorch's own hooks on every node: what each received and returned, packed at once."""

    def __init__(self, tape: Any, fns: list[Any]) -> None:
        self.tape = tape
        self.seen: dict[int, list[list[Entry]]] = {}
        self.handles = []
        for number, fn in enumerate(fns):
            self.handles.append(fn.register_prehook(self._note(number)))
            self.handles.append(fn.register_hook(self._note(number)))

    def _note(self, number: int) -> Callable[..., None]:
        def note(first: Any, *outputs: Any) -> None:
            entries = [read_whole(self.tape.entry(tensor)) for tensor in first]
            self.seen.setdefault(number, []).append(entries)

        return note

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def resolved(run: Run, frames: list[Any]) -> dict[int, tuple[tuple[Entry, ...], tuple[Entry, ...]]]:
    """Received and returned entries by node, with what refers to others replaced by that."""
    sent: dict[tuple[int, int], list[Entry]] = {}
    links, at = run.links, 0
    by_node = {frame.node: frame for frame in frames}
    found: dict[int, tuple[tuple[Entry, ...], tuple[Entry, ...]]] = {}
    edges: dict[int, list[tuple[int, int]]] = {}
    for number in range(len(run.fns)):
        (count,) = struct.unpack_from("<I", links, at)
        edges[number] = list(struct.iter_unpack("<ii", links[at + 4 : at + 4 + 8 * count]))
        at += 4 + 8 * count
    for frame in sorted(by_node.values(), key=lambda frame: frame.order):
        if not hasattr(frame, "received"):
            continue
        received = tuple(
            sent[frame.node, k][0] if entry == SAME else entry
            for k, entry in enumerate(frame.received)
        )
        returned = tuple(
            received[entry.k] if entry.state == ENTRY_RECEIVED else entry
            for entry in frame.returned
        )
        found[frame.node] = (received, returned)
        for link, entry in zip(edges[frame.node], returned, strict=True):
            sent.setdefault(link, []).append(entry)
    return found


def test_probes_see_what_torchs_own_hooks_see(probing: ModuleType) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, requires_grad=True)
    w = torch.randn(5, 6, requires_grad=True)
    y = torch.nn.functional.layer_norm((x @ w).relu() + x[:, :1], (6,))
    a, b = y.split([2, 2])
    root = (a * b.detach()).logsumexp(1).sum() + y.unbind()[0].max() + (y[0] * 2).sum()
    run = Run(probing, root)
    witness = Witness(run.tape, run.fns)
    root.backward(retain_graph=True)
    witness.remove()
    run.end()
    frames = run.frames()
    assert run.faults.errors == []
    assert len(frames) == run.state.node_count == run.state.order == len(run.fns)
    assert run.state.leaf_count == 2
    assert sorted(frame.order for frame in frames) == list(range(1, len(run.fns) + 1))
    found = resolved(run, frames)
    assert len(found) == len(run.fns) - 2
    for number, (received, returned) in found.items():
        assert [list(received), list(returned)] == witness.seen[number]
    assert {frame.pass_id for frame in frames} == {1}
    assert run.state.open == {}


def test_what_one_edge_sends_is_read_once(probing: ModuleType) -> None:
    tape = make_tape(probing)
    mode = make_mode(probing, tape)
    torch._C._push_on_torch_function_stack(mode)
    try:
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        root = ((x * 2) + 1).sum()
    finally:
        torch._C._pop_torch_function_stack()
    run = Run(probing, root, tape=tape, mode=mode)
    tape.take()
    root.backward()
    run.end()
    total, plus, times, leaf = run.frames()
    assert total.received[0].values == (1.0,)
    assert total.returned[0].values == (1.0, 1.0)
    assert plus.received == times.received == (SAME,)
    assert plus.returned == (Entry(ENTRY_RECEIVED, k=0), NONE)
    assert times.returned[0].values == (2.0, 2.0)
    assert leaf.entries == (NONE, SAME, SAME)
    assert read_whole(run.leaves[leaf.node][1].grad).values == (2.0, 2.0)


@pytest.mark.parametrize("in_sight", [True, False])
def test_what_a_node_only_rearranges_is_not_read_again(probing: ModuleType, in_sight: bool) -> None:
    """Seen by having one called so that does not: what it returns is told as what arrived."""
    tape = make_tape(probing)
    mode = make_mode(probing, tape)
    with ExitStack() as stack:
        if in_sight:  # else what arrives is read, as a hook may be there
            torch._C._push_on_torch_function_stack(mode)
            stack.callback(torch._C._pop_torch_function_stack)
        x = torch.arange(32.0).requires_grad_()
        root = ((x * 3) * torch.arange(32.0)).sum()
    run = Run(probing, root, tape=tape, mode=mode, natures=b"\0\0\2\0")
    tape.take()
    root.backward()
    run.end()
    _total, sent, rearranged, leaf = run.frames()
    arrived = sent.returned[0] if in_sight else rearranged.received[0]
    assert rearranged.received[0] == (SAME if in_sight else arrived)
    assert rearranged.returned == (arrived, NONE)
    assert arrived.statistics[2] == 31.0
    kept = read_whole(run.leaves[leaf.node][1].grad)
    assert kept.statistics[2] == 31.0 if leaf.entries[2] == SAME else 93.0


def test_what_a_node_rearranges_is_read_where_values_are_kept(probing: ModuleType) -> None:
    """Their order is another then."""
    x = torch.ones(2, requires_grad=True)
    root = (x * 3).sum()
    run = Run(probing, root, natures=b"\0\2\0")
    root.backward()
    run.end()
    _total, times, _leaf = run.frames()
    assert times.received[0].values == (1.0, 1.0)
    assert times.returned[0].values == (3.0, 3.0)


def test_where_two_edges_meet_what_arrives_is_read(probing: ModuleType) -> None:
    x, w, root = graph()
    run = Run(probing, root)
    root.backward()
    run.end()
    frames = {frame.node: frame for frame in run.frames()}
    (leaf,) = (frames[n] for n, (tensor, _) in run.leaves.items() if tensor is x)
    assert leaf.entries[1].values == leaf.entries[2].values == tuple(x.grad.tolist())


def test_a_node_whose_gradient_is_undefined_receives_none(probing: ModuleType) -> None:
    class Split(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> Tensor | None:
            assert a is None
            return b

    x = torch.ones(2, requires_grad=True)
    root = Split.apply(x)[1].sum()
    run = Run(probing, root, natures=b"\0\1\0")
    root.backward()
    run.end()
    _total, split, leaf = run.frames()
    assert split.received[0] == NONE
    assert split.received[1].values == (1.0, 1.0)
    assert split.returned[0].values == (1.0, 1.0)  # a custom Function may have changed it: no twin
    assert run.order == ["begun", "ended"]


# ---- whose run it is


def test_a_run_is_claimed_once_and_others_are_not_entered(probing: ModuleType) -> None:
    claims: list[tuple[Any, int]] = []

    def claim(state: Any, task: int) -> bool:
        claims.append((state, task))
        return len(claims) == 2

    _x, _w, root = graph()
    run = Run(probing, root, claim=claim)
    root.backward(retain_graph=True)  # claims[0], and again at each hook: not ours
    first = len(claims)
    assert first > 1
    run.end()
    claims.clear()
    run = Run(probing, root, claim=claim)
    claims.append((None, 0))
    root.backward(retain_graph=True)
    assert len(claims) == 2
    assert claims[1][0] is run.state
    assert run.state.task == claims[1][1] >= 0
    assert run.state.node_count == len(run.fns)
    root.backward()
    assert run.state.node_count == len(run.fns)
    run.end()


def test_probes_outside_of_any_run_do_nothing(probing: ModuleType) -> None:
    _x, _w, root = graph()
    run = Run(probing, root)
    run.tape.take()
    run.probes[0]((torch.ones(()),))
    run.probes[0]((torch.ones(3),), (torch.ones(()),))
    run.end()
    assert run.tape.take() == b""
    assert run.state.node_count == 0


def test_a_pass_within_a_pass_has_probes_of_its_own(probing: ModuleType) -> None:
    """Both passes execute the same nodes, each in the middle of a hook of the other's graph."""
    x, w, inner_root = graph()
    root = (inner_root * 3).relu()
    tape, running = make_tape(probing), [1]
    runs: list[Run] = []

    def claim(state: Any, task: int) -> bool:
        return state.id == running[-1]

    def nested(gradient: Tensor) -> None:
        runs.append(Run(probing, inner_root, number=2, tape=tape, claim=claim))
        running.append(2)
        inner_root.backward(retain_graph=True)
        running.pop()
        runs[-1].end()

    handle = root.register_hook(nested)
    outer = Run(probing, root, number=1, tape=tape, claim=claim)
    root.backward()
    handle.remove()
    outer.end()
    frames = outer.frames()
    for run in (outer, runs[0]):
        mine = [frame for frame in frames if frame.pass_id == run.state.id]
        assert sorted(frame.node for frame in mine) == list(range(len(run.fns)))
        assert run.state.node_count == len(run.fns)
    assert [run.faults.errors for run in (outer, runs[0])] == [[], []]


def test_a_closed_pass_enters_nothing(probing: ModuleType) -> None:
    _x, _w, root = graph()
    run = Run(probing, root)
    run.state.closed = 1
    root.backward()
    assert run.tape.take() == b""
    run.end()


# ---- what goes wrong


class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ArithmeticError("asked for")


def test_a_node_that_raised_is_left_open_and_abandoned(probing: ModuleType) -> None:
    x = torch.ones(2, requires_grad=True)
    root = (Fails.apply(x * 2) * 3).sum()
    run = Run(probing, root, natures=b"\0\0\1\0\0")
    with pytest.raises(ArithmeticError, match="asked for"):
        root.backward()
    assert list(run.state.open) == [2]
    assert run.state.open[2].order == 3
    run.state.open[2].abandon()
    run.state.open.clear()
    run.end()
    _total, _times, failed = run.frames()
    assert (failed.node, failed.ended, failed.returned) == (2, False, ())
    assert failed.received[0].values == (3.0, 3.0)


def tape_with_meta_of(core: ModuleType, meta_of: Any) -> Any:
    """A tape that asks this of each gradient that user code may have made."""
    tape = make_tape(core)
    tape.meta_of = meta_of
    return tape


def test_our_own_failure_goes_to_fault_and_not_to_the_engine(probing: ModuleType) -> None:
    def fail(tensor: Tensor) -> bytes:
        raise LookupError("a fault of our own")

    x, w, root = graph()
    expected = torch.autograd.grad(root, (x, w), retain_graph=True)
    run = Run(probing, root)
    faults = Faults()
    state = probing.PassState(tape_with_meta_of(probing, fail), 2, ours, faults)
    hooks = [fn.register_prehook(probing.NodeProbe(state, 0, b"", False)) for fn in run.fns[:2]]
    root.backward()
    run.end()
    probing.detach(state, hooks, list(run.fns))
    assert [str(error) for error in faults.errors] == ["a fault of our own"] * 2
    assert len(run.frames()) == len(run.fns)
    assert torch.equal(x.grad, expected[0])
    assert torch.equal(w.grad, expected[1])


def test_a_failure_while_user_code_is_watched_goes_to_fault_too(probing: ModuleType) -> None:
    """`guarded`: the user's modes are off while we read, also when reading fails."""

    def fail(tensor: Tensor) -> bytes:
        raise LookupError("a fault of our own")

    faults = Faults()
    x = torch.ones(2, requires_grad=True)
    root = x.sum()
    state = probing.PassState(tape_with_meta_of(probing, fail), 1, ours, faults)
    state.guarded = 1
    hooks = root.grad_fn.register_prehook(probing.NodeProbe(state, 0, b"", False))
    root.backward()
    assert [str(error) for error in faults.errors] == ["a fault of our own"]
    assert x.grad.tolist() == [1.0, 1.0]
    hooks.clear()


def test_a_fault_that_cannot_be_told_is_not_the_users_either(probing: ModuleType) -> None:
    def fail(*given: Any) -> Any:
        raise LookupError("a fault of our own")

    x = torch.ones(2, requires_grad=True)
    root = x.sum()
    state = probing.PassState(tape_with_meta_of(probing, fail), 1, ours, fail)
    hooks = root.grad_fn.register_prehook(probing.NodeProbe(state, 0, b"", False))
    root.backward()
    assert x.grad.tolist() == [1.0, 1.0]
    hooks.clear()


@pytest.mark.parametrize("guarded", [0, 1])
def test_the_users_interrupt_leaves_the_engine(probing: ModuleType, guarded: int) -> None:
    def interrupt(tensor: Tensor) -> bytes:
        raise KeyboardInterrupt

    faults = Faults()
    root = torch.ones(2, requires_grad=True).sum()
    state = probing.PassState(tape_with_meta_of(probing, interrupt), 1, ours, faults)
    state.guarded = guarded
    hooks = root.grad_fn.register_prehook(probing.NodeProbe(state, 0, b"", False))
    with pytest.raises(KeyboardInterrupt):
        root.backward()
    assert faults.errors == []
    hooks.clear()


def test_what_is_not_from_the_engine_is_a_fault(core: ModuleType) -> None:
    """A probe called with anything but tuples must not bring the process down."""
    faults = Faults()
    tape = make_tape(core)
    inside: list[bool] = []

    def poke(gradient: Tensor) -> None:
        state = core.PassState(tape, 1, ours, faults)
        probe = core.NodeProbe(state, 0, b"")
        probe(5)
        probe((None,))
        probe(5, 6)
        inside.append(True)

    x = torch.ones(2, requires_grad=True)
    handle = x.register_hook(poke)
    x.sum().backward()
    handle.remove()
    assert inside == [True]
    assert len(faults.errors) == 2


# ---- leaves


def test_the_ledger_balances_over_two_passes(probing: ModuleType) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    root = (x * x).sum()
    first = Run(probing, root)
    root.backward(retain_graph=True)
    first.end()
    second = Run(probing, root, number=2, tape=first.tape, book=first.book)
    root.backward()
    second.end()
    accumulations = [frame for frame in first.frames() if hasattr(frame, "entries")]
    assert [[entry.values for entry in one.entries] for one in accumulations] == [
        [(), values(2.0, 4.0), values(2.0, 4.0)],
        [values(2.0, 4.0), values(2.0, 4.0), values(4.0, 8.0)],
    ]
    assert [(one.pass_id, one.leaf) for one in accumulations] == [(1, 1), (2, 1)]
    assert first.book.grads[x.grad._cdata] is first.book.find(x)


def test_a_grad_that_nobody_saw_change_is_told(probing: ModuleType) -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    run = Run(probing, (x * x).sum())
    x.grad = torch.tensor([5.0, 5.0])
    (x * x).sum().backward()  # another graph: its own nodes are not probed, the leaf's node is
    run.end()
    ((leaf, before, found),) = run.unseen
    assert leaf is run.book.find(x)
    assert (read_whole(before), read_whole(found).values) == (NONE, (5.0, 5.0))


def test_a_large_grad_that_is_a_clone_in_another_order_is_no_change(probing: ModuleType) -> None:
    x = torch.ones(40, 50, requires_grad=True)
    torch.manual_seed(0)
    x.grad = torch.randn(50, 40).t()
    root = x.sum()
    run = Run(probing, root)
    x.grad = x.grad.contiguous()
    root.backward(retain_graph=True)
    run.end()
    assert run.unseen == []
    again = Run(probing, root, book=run.book)
    x.grad[0, 0] += 100
    root.backward()
    again.end()
    assert len(run.unseen) == 1


def test_a_leaf_that_gets_no_gradient_is_entered_with_none(probing: ModuleType) -> None:
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> None:
            return None

    x = torch.ones(2, requires_grad=True)
    root = Nothing.apply(x).sum()
    run = Run(probing, root, natures=b"\0\1\0")
    root.backward()
    run.end()
    *_nodes, leaf = run.frames()
    assert leaf.entries == (NONE, NONE, NONE)
    assert x.grad is None


# ---- what is left behind


def hook_keys(fn: Any) -> list[Any]:
    """The keys in a node's two dicts of hooks."""
    handles = [fn.register_prehook(lambda *given: None), fn.register_hook(lambda *given: None)]
    keys = [key for handle in handles for key in handle.hooks_dict_ref() if key != handle.id]
    for handle in handles:
        handle.remove()
    return keys


def test_nothing_is_left_on_any_node(probing: ModuleType) -> None:
    _x, _w, root = graph()
    run = Run(probing, root)
    assert all(run.state.key in hook_keys(fn) for fn in run.fns)
    root.backward()
    run.end()
    assert [hook_keys(fn) for fn in run.fns] == [[]] * len(run.fns)


def test_attaching_takes_no_number_from_the_users_hooks(probing: ModuleType) -> None:
    x, _w, root = graph()
    before = x.register_hook(lambda gradient: None)
    run = Run(probing, root)
    after = x.register_hook(lambda gradient: None)
    run.end()
    assert after.id == before.id + 1
    x._backward_hooks.clear()


def test_a_node_with_hooks_of_the_users_is_named(probing: ModuleType) -> None:
    _x, _w, root = graph()
    handles = [
        root.grad_fn.register_prehook(lambda gradients: None),
        root.grad_fn.next_functions[0][0].register_hook(lambda inputs, outputs: None),
    ]
    run = Run(probing, root)
    assert run.crowded == [0, 1]
    run.end()
    for handle in handles:
        handle.remove()


def test_a_failed_attachment_leaves_nothing(probing: ModuleType) -> None:
    _x, _w, root = graph()
    run = Run(probing, root)
    run.end()
    state = probing.PassState(run.tape, 4, ours, run.faults)
    with pytest.raises((AttributeError, TypeError)):
        probing.attach(
            state, run.book, [*run.fns, "no node"], [*run.same, b""], run.links, b"", {},
            list, list,
        )  # fmt: skip
    assert [hook_keys(fn) for fn in run.fns] == [[]] * len(run.fns)


def test_no_gradient_and_no_node_is_kept(probing: ModuleType) -> None:
    x = torch.ones(3, requires_grad=True)
    gone: list[weakref.ref[Any]] = []

    def step() -> None:
        root = (x * 2).sum()
        run = Run(probing, root)
        root.register_hook(lambda gradient: gone.append(weakref.ref(gradient)))
        root.backward()
        run.end()

    step()
    gc.collect()
    assert [ref() for ref in gone] == [None]
    count = len(gc.get_objects())
    references = sys.getrefcount(x)
    for _ in range(20):
        step()
    gc.collect()
    assert len(gc.get_objects()) - count < 60  # the list of references above
    assert sys.getrefcount(x) == references


def test_a_full_tape_is_taken_while_the_engine_runs(probing: ModuleType) -> None:
    tape = make_tape(probing, few=255)
    taken: list[bytes] = []
    tape.full = lambda: taken.append(tape.take())
    x = torch.ones(250, requires_grad=True)
    y = x
    for _ in range(1000):
        y = y * 2 + x
    root = y.sum()
    run = Run(probing, root, tape=tape)
    tape.take()
    root.backward()
    run.end()
    assert taken
    assert all(len(part) >= 1 << 20 for part in taken)
    whole = b"".join(taken) + tape.take()
    assert len(read_frames(whole)) == len(run.fns)

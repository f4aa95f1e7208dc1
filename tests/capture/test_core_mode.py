"""ModeCore: what it records of each call, and that the call is none the wiser."""

from __future__ import annotations

import contextlib
import gc
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.capture.cores import Faults, make_mode, make_tape, read_entries, read_frames
from tests.capture.test_core_around import NO_ENTRY_OF_OURS, here
from tracer.records.stream import FORWARD, WRITE

OBSERVE, IGNORE, WRITES, SET_GRAD, GET_GRAD = range(5)
FORWARD_KIND, GRAD_WRITE, DATA_WRITE = 1, 10, 11


@contextlib.contextmanager
def active(mode: Any) -> Iterator[None]:
    """The mode on the stack of the calling thread."""
    torch._C._push_on_torch_function_stack(mode)
    try:
        yield
    finally:
        assert torch._C._pop_torch_function_stack() is mode


class Watched:
    """A mode with everything it calls noted."""

    def __init__(self, core: ModuleType, **callbacks: Callable[..., Any]) -> None:
        self.core = core
        self.tape = make_tape(core)
        self.faults = Faults()
        self.plain: list[tuple[Any, ...]] = []
        wanted: dict[str, Any] = {"fault": self.faults, "plain": self._plain} | callbacks
        self.mode = make_mode(core, self.tape, **wanted)

    def _plain(self, *call: Any) -> None:
        self.plain.append(call)

    def made_by(self, fn: Any) -> Any:
        return self.mode.made_by(fn._sequence_nr())

    def forwards(self) -> list[tuple[int, ...]]:
        """(op, site, module path, number of nodes) of each forward frame."""
        found = []
        for frame in read_frames(self.tape.take()):
            assert frame.kind == FORWARD_KIND
            op, site, path, low, high, grad_mode = FORWARD.unpack_from(frame.payload)
            assert (grad_mode, frame.payload[FORWARD.size :]) == (0, bytes(8))
            found.append((op, site, path, high - low))
        return found


def nodes(root: Tensor) -> list[Any]:
    found = [root.grad_fn]
    for fn in found:
        found += [to for to, _ in fn.next_functions if to is not None and to not in found]
    return [fn for fn in found if type(fn).__name__ != "AccumulateGrad"]


# ---- who made which node


def test_every_node_of_a_composite_operation_was_made_by_it(core: ModuleType) -> None:
    watched = Watched(core)
    x = torch.randn(4, 3, requires_grad=True)
    with active(watched.mode):
        var = torch.nn.functional.cosine_similarity(x, x * 2)
        line = here() - 1
        norm = torch.nn.functional.layer_norm(var, (4,))
        norm_line = here() - 1
    composite = nodes(var)
    assert len(composite) > 3
    makers = {watched.made_by(fn) for fn in composite}
    assert {maker[0] for maker in makers} == {line}
    assert len(makers) == 2  # the multiplication within the same line, and the rest
    assert watched.made_by(norm.grad_fn)[0] == norm_line
    assert watched.made_by(norm.grad_fn)[1:3] == (5, 0)
    assert [(op, path) for op, _, path, _ in watched.forwards()] == [(5, 0)] * 3
    assert watched.faults.errors == []


def test_who_made_what_nobody_saw_is_not_known(core: ModuleType) -> None:
    watched = Watched(core)
    x = torch.ones(2, requires_grad=True)
    before = x * 2
    with active(watched.mode):
        y = before * 3
    after = y * 4
    assert watched.made_by(before.grad_fn) is None
    assert watched.made_by(after.grad_fn) is None
    assert watched.made_by(y.grad_fn) is not None
    assert watched.mode.made_by(2**64 - 1) is None
    assert watched.mode.made_by(2**64 - 2) is None


def test_an_operation_logged_late_stands_where_it_began(core: ModuleType) -> None:
    """A custom Function takes its number before what its forward makes, and is logged after."""
    mode = Watched(core).mode
    for low, high, op in [(100, 101, 1), (102, 104, 2), (104, 105, 3), (101, 102, 4), (90, 100, 5)]:
        mode.log_forward(op, low, high, 7, 0)
    found = [mode.made_by(number) for number in range(89, 106)]
    assert [made and made[1] for made in found] == [None] + [5] * 10 + [1, 4, 2, 2, 3, None]


def test_an_operation_within_another_is_asked_first(core: ModuleType) -> None:
    mode = Watched(core).mode
    for low, high, op in [(3, 5, 1), (6, 7, 2), (0, 10, 3), (10, 11, 4)]:
        mode.log_forward(op, low, high, 7, 0)
    found = [mode.made_by(number)[1] for number in range(11)]
    assert found == [3, 3, 3, 1, 1, 3, 2, 3, 3, 3, 4]


def test_the_oldest_are_forgotten_and_counted(
    core: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1 << 18
    if core.__name__.endswith("python"):
        most = 1000  # as the quarter of a million of the other would take long
        monkeypatch.setattr("tracer.capture.core_in_python.made.MADE_MOST", most)
        monkeypatch.setattr("tracer.capture.core_in_python.made._COMPACTED", 300)
    watched = Watched(core)
    mode, tape = watched.mode, watched.tape
    tape.full = tape.take
    for number in range(0, 2 * most, 2):
        mode.log_forward(1, number, number + 1, number, 0)
        if tape.used > 1 << 20:
            tape.take()
    assert mode.evicted == 0
    for number in range(2 * most, 2 * most + 500, 2):  # out of order, as a custom Function's
        mode.log_forward(2, number + 1, number + 2, number, 0)
        mode.log_forward(3, number, number + 1, number, 0)
    assert mode.evicted == 500
    assert [mode.made_by(number) for number in (0, 500, 998)] == [None] * 3
    assert mode.made_by(1000)[1] == 1
    assert mode.made_by(1001) is None
    found = [mode.made_by(number)[1] for number in range(2 * most, 2 * most + 500)]
    assert found == [3, 2] * 250


def test_threads_have_logs_of_their_own(core: ModuleType) -> None:
    watched = Watched(core)
    mode, tape = watched.mode, watched.tape
    tape.thread()
    mode.set_module(1, 2)
    mode.set_pass(3)
    mode.log_forward(1, 0, 1, 1, 0)
    found = []

    def other(op: int) -> None:
        mode.begin_thread()
        mode.log_forward(op, 0, 1, 1, 0)
        found.append((tape.thread(), mode.made_by(0)[:3]))

    for op in (2, 3):  # likely of one identity, as the first has ended
        thread = threading.Thread(target=other, args=(op,))
        thread.start()
        thread.join()
    assert [made[1] for _, made in found] == [2, 3]
    assert [made[2] for _, made in found] == [0, 0]
    assert [number for number, _ in found] == [1, 2]
    assert mode.made_by(0)[1:3] == (1, 1)
    frames = read_frames(tape.take())
    assert [(frame.thread, frame.pass_id) for frame in frames] == [(0, 3), (1, 0), (2, 0)]


def test_more_threads_than_there_are_numbers_take_those_of_ended_ones(core: ModuleType) -> None:
    watched = Watched(core)
    mode, tape = watched.mode, watched.tape
    tape.thread()
    mode.log_forward(1, 0, 1, 1, 0)
    found = []

    def other(op: int) -> None:
        mode.begin_thread()
        mode.log_forward(op, 0, 1, 1, 0)
        found.append((tape.thread(), mode.made_by(0)[1]))

    for op in range(600):
        thread = threading.Thread(target=other, args=(op,))
        thread.start()
        thread.join()
    assert [op for _, op in found] == list(range(600))
    assert max(number for number, _ in found) <= 255
    assert tape.thread() == 0
    assert mode.made_by(0)[1] == 1


# ---- sites


def test_each_place_is_looked_up_once(core: ModuleType) -> None:
    asked: list[str] = []
    looked_up: list[int] = []

    def is_user(code: Any) -> bool:
        asked.append(code.co_name)
        return code.co_name == "user"

    def site(code: Any, lasti: int, line: int) -> int:
        assert code.co_name == "user"
        assert line == code.co_firstlineno + len(looked_up) + 2
        looked_up.append(lasti)
        return 40 + len(looked_up)

    def user(x: Tensor) -> None:
        for _ in range(3):
            x.mul(2)
            library(x)

    def library(x: Tensor) -> Tensor:
        return x.exp()

    watched = Watched(core, is_user=is_user, site=site)
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode):
        user(x)
    assert [site for _, site, _, _ in watched.forwards()] == [41, 42] * 3
    assert len(set(looked_up)) == len(looked_up) == 2
    assert asked == ["user", "library"]
    assert watched.mode.here() == 0
    assert watched.faults.errors == []


def test_calls_of_a_place_are_counted_anew_in_each_round(core: ModuleType) -> None:
    watched = Watched(core)
    x = torch.ones(2, requires_grad=True)
    made = []
    with active(watched.mode):
        for k in range(5):
            if k == 3:
                watched.mode.round += 1
            made.append(x * k)
    assert [watched.made_by(y.grad_fn)[3] for y in made] == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("broken", ["is_user", "site"])
def test_a_fault_in_finding_the_site_is_ours(core: ModuleType, broken: str) -> None:
    def fail(*given: Any) -> Any:
        raise LookupError("a fault of our own")

    watched = Watched(core, **{broken: fail})
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode):
        assert (x * 2).tolist() == [2.0, 2.0]
    assert [str(error) for error in watched.faults.errors[:1]] == ["a fault of our own"]
    with pytest.raises(LookupError):
        watched.mode.here()


def test_an_id_that_is_no_number_is_our_fault(core: ModuleType) -> None:
    watched = Watched(core, site=lambda code, lasti, line: "seven")
    with active(watched.mode):
        assert (torch.ones(2, requires_grad=True) * 2).tolist() == [2.0, 2.0]
    assert watched.faults.errors


# ---- what is called


def test_every_form_that_pytorch_calls_with_is_taken(core: ModuleType) -> None:
    watched = Watched(core)
    call, x = watched.mode.__torch_function__, torch.tensor([1.0, 2.0])
    assert call(torch.add, (), (x, x)).tolist() == [2.0, 4.0]
    assert call(torch.add, (), (x, x), None).tolist() == [2.0, 4.0]
    assert call(torch.add, (), (x, x), {}).tolist() == [2.0, 4.0]
    assert call(torch.add, (), (x, x), {"alpha": 2}).tolist() == [3.0, 6.0]
    assert call(func=torch.add, types=(), args=(x,), kwargs={"other": x}).tolist() == [2.0, 4.0]
    assert call(torch.add, (), [x, x]).tolist() == [2.0, 4.0]
    assert isinstance(call(torch.Generator, ()), torch.Generator)
    with pytest.raises(TypeError):
        call(torch.add)
    assert watched.faults.errors == []


def test_a_mode_sees_what_others_are_not_asked_for(core: ModuleType) -> None:
    described: list[Any] = []

    def describe(function: Any) -> Any:
        described.append(function)
        return core.Op(9, IGNORE if function is torch.mul else OBSERVE)

    watched = Watched(core, describe=describe)
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode):
        for _ in range(3):
            torch.exp(x)
            torch.mul(x, 2)
    assert described == [torch.exp, torch.mul]
    assert [(op, made) for op, _, _, made in watched.forwards()] == [(9, 1)] * 3


def test_a_paused_mode_only_calls(core: ModuleType) -> None:
    watched = Watched(core)
    watched.mode.paused = 1
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode):
        y = x * 2
        watched.mode.paused = 0
        z = x * 3
    assert watched.made_by(y.grad_fn) is None
    assert watched.made_by(z.grad_fn) is not None
    assert len(watched.forwards()) == 1


def test_pausing_within_a_call_ends_the_recording_of_it(core: ModuleType) -> None:
    watched = Watched(core)

    def pause(x: Tensor) -> Tensor:
        watched.mode.paused = 1
        return x * 2

    x = torch.ones(2, requires_grad=True)
    y = watched.mode.__torch_function__(pause, (), (x,))
    assert watched.made_by(y.grad_fn) is None
    assert watched.forwards() == []


def test_a_function_without_a_hash_is_called_all_the_same(core: ModuleType) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: Tensor) -> Tensor:
            return x * 2

    watched = Watched(core)
    x = torch.ones(2, requires_grad=True)
    for _ in range(2):
        y = watched.mode.__torch_function__(Unhashable(), (), (x,))
        assert y.tolist() == [2.0, 2.0]
    assert watched.faults.errors == []
    assert len(watched.forwards()) == 2


def test_functions_made_anew_for_each_call_do_not_pile_up(core: ModuleType) -> None:
    watched = Watched(core)
    gone: list[weakref.ref[Any]] = []
    for k in range((1 << 16) + 10):

        def function(k: int = k) -> int:
            return k

        assert watched.mode.__torch_function__(function, ()) == k
        if k >= 1 << 16:
            gone.append(weakref.ref(function))
    del function
    gc.collect()
    assert [ref() for ref in gone] == [None] * 10


def test_callbacks_are_called_around_what_needs_them(core: ModuleType) -> None:
    order: list[Any] = []

    def describe(function: Any) -> Any:
        return core.Op(
            1, OBSERVE, 0, lambda args, kwargs: order.append((len(args), kwargs)),
            lambda token, result, error: order.append((token, type(result), error)),
        )  # fmt: skip

    watched = Watched(core, describe=describe)
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode):
        torch.add(x, x, alpha=2)
        x.tolist()
    assert order == [(2, {"alpha": 2}), (None, Tensor, None), (1, None), (None, list, None)]
    assert watched.plain == []
    assert len(watched.forwards()) == 1


# ---- what the call does not notice


@NO_ENTRY_OF_OURS
@pytest.mark.parametrize("action", [OBSERVE, IGNORE, WRITES, GET_GRAD])
@pytest.mark.parametrize("around", [False, True])
def test_an_exception_passes_through_untouched(core: ModuleType, action: int, around: bool) -> None:
    callbacks = (lambda args, kwargs: None, lambda *told: None) if around else (None, None)
    if action == GET_GRAD and not around:
        return
    watched = Watched(core, describe=lambda function: core.Op(1, action, 0, *callbacks))
    x = torch.ones(2, requires_grad=True)

    def fails() -> None:
        torch.ones(2) + torch.ones(3)

    def told() -> list[str]:
        with pytest.raises(RuntimeError) as caught:
            fails()
        return traceback.format_exception(caught.value)

    expected = told()
    with active(watched.mode):
        found = told()
    assert found == expected
    assert watched.faults.errors == []
    assert x.grad is None


def test_a_warning_from_c_is_the_users_lines(core: ModuleType) -> None:
    watched = Watched(core)
    x = torch.ones(2, requires_grad=True) * 1
    found = []
    for mode in (contextlib.nullcontext(), active(watched.mode)):
        with warnings.catch_warnings(record=True) as caught, mode:
            warnings.simplefilter("always")
            for _ in range(2):
                x.grad  # noqa: B018 - warns
        found.append([(w.filename, w.lineno, w.category, str(w.message)) for w in caught])
    assert len(found[0]) == 2
    assert found[1] == found[0]


def test_our_own_failure_is_not_the_calls(core: ModuleType) -> None:
    def fail(*given: Any) -> Any:
        raise LookupError("a fault of our own")

    for broken in ("plain", "describe", "site", "is_user"):
        watched = Watched(core, **{broken: fail})
        x = torch.ones(2, requires_grad=True)
        with active(watched.mode):
            assert torch.argmax(x).tolist() == 0
            assert (x * 2).tolist() == [2.0, 2.0]
        assert watched.faults.errors
        assert {str(error) for error in watched.faults.errors} == {"a fault of our own"}


@pytest.mark.parametrize("broken", ["plain", "describe", "site", "fault"])
def test_the_users_interrupt_is_the_calls(core: ModuleType, broken: str) -> None:
    def interrupt(*given: Any) -> Any:
        raise KeyboardInterrupt

    callbacks: dict[str, Any] = {broken: interrupt}
    if broken == "fault":
        callbacks["describe"] = lambda function: 1 // 0
    watched = Watched(core, **callbacks)
    x = torch.ones(2, requires_grad=True)
    with active(watched.mode), pytest.raises(KeyboardInterrupt):
        torch.argmax(x)
    assert torch._C._is_torch_function_enabled()
    assert watched.faults.errors == []


# ---- what made no node


def test_what_made_no_node_is_told_in_short_or_by_plain(core: ModuleType) -> None:
    watched = Watched(core)
    x, y = torch.ones(2, requires_grad=True), torch.ones(2)
    with active(watched.mode):
        y + y
        torch.stack([y, y])
        torch.split(y, 1)
        torch.equal(y, y)  # no tensor comes of it
        torch.argmax(x)  # may have cut
        torch.argmax(input=x)
        torch.equal(x, y)
    assert [made for *_, made in watched.forwards()] == [0, 0, 0]
    assert [(call[0], call[2]) for call in watched.plain] == [
        (5, None),
        (5, {"input": x}),
        (5, None),
    ]
    assert [len(call[1]) for call in watched.plain] == [1, 0, 2]
    assert [call[5] for call in watched.plain] == [4, 5, 6]
    with torch.no_grad(), active(watched.mode):
        y * y
        watched.mode.stepping = 3
        y * y
    assert [call[0] for call in watched.plain] == [5] * 4
    assert watched.forwards() == []
    assert watched.faults.errors == []


def test_an_argument_that_will_not_tell_its_class_is_none_of_ours(core: ModuleType) -> None:
    class Shy:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise LookupError("not telling")

    watched = Watched(core)
    call = watched.mode.__torch_function__
    assert call(lambda *given: len(given), (), (Shy(), [Shy()])) == 2
    assert watched.faults.errors == []


def test_a_list_that_shrinks_while_it_is_looked_at_is_survived(core: ModuleType) -> None:
    given: list[Any] = []

    class Emptying(Tensor):
        @property
        def requires_grad(self) -> bool:  # type: ignore[override]
            given.clear()
            return False

    given += [torch.ones(1).as_subclass(Emptying) for _ in range(5)]
    watched = Watched(core)
    assert watched.mode.__torch_function__(lambda list_: None, (), (given,)) is None
    assert watched.faults.errors == []


# ---- writes


class Ledger:
    """A mode with a book, and one leaf in it."""

    def __init__(self, core: ModuleType) -> None:
        self.called: list[str] = []
        self.seen: list[Any] = []

        def describe(function: Any) -> Any:
            name = function.__name__
            action = {"__set__": SET_GRAD, "__get__": GET_GRAD}.get(name, WRITES)
            return core.Op(
                1, action, 70, lambda args, kwargs: self.called.append("before"),
                lambda *told: self.called.append("after"),
            )  # fmt: skip

        self.watched = Watched(core, describe=describe)
        self.tape = self.watched.tape
        self.mode = self.watched.mode
        self.book = self.mode.book = core.Book(lambda *seen: self.seen.append(seen))
        self.leaf = torch.tensor([1.0, 2.0], requires_grad=True)
        self.state = core.Leaf(
            8, weakref.ref(self.leaf), self.tape.entry(None), self.tape.entry(self.leaf),
            (self.leaf._version, self.leaf.data_ptr()),
        )  # fmt: skip
        self.book.leaves[id(self.leaf)] = self.state

    def writes(self) -> list[Any]:
        """(kind, leaf, how, pass, values before, values after)."""
        found = []
        for frame in read_frames(self.tape.take()):
            leaf, how, site = WRITE.unpack_from(frame.payload)
            assert site > 0
            entries = [entry.values for entry in read_entries(frame.payload[WRITE.size :])]
            found.append((frame.kind, leaf, how, frame.pass_id, *entries))
        return found


def test_a_write_to_a_leaf_is_recorded_without_callbacks(core: ModuleType) -> None:
    ledger = Ledger(core)
    ledger.mode.set_pass(6)
    with torch.no_grad(), active(ledger.mode):
        ledger.leaf.add_(1)
        ledger.leaf.mul_(3)
    assert ledger.writes() == [
        (DATA_WRITE, 8, 70, 6, (1.0, 2.0), (2.0, 3.0)),
        (DATA_WRITE, 8, 70, 6, (2.0, 3.0), (6.0, 9.0)),
    ]
    assert ledger.called == []
    assert ledger.state.mark == (2, ledger.leaf.data_ptr())
    assert ledger.state.data == ledger.tape.entry(ledger.leaf)


def test_an_optimizers_write_is_the_optimizers(core: ModuleType) -> None:
    ledger = Ledger(core)
    ledger.mode.stepping = 99
    with torch.no_grad(), active(ledger.mode):
        ledger.leaf.add_(1)
    assert ledger.writes() == [(DATA_WRITE, 8, 99, 0, (1.0, 2.0), (2.0, 3.0))]


def test_a_write_to_a_leaf_that_nobody_saw_written_before_is_pythons(core: ModuleType) -> None:
    ledger = Ledger(core)
    with torch.no_grad():
        ledger.leaf.add_(10)
        with active(ledger.mode):
            ledger.leaf.add_(1)
    assert ledger.called == ["before", "after"]
    assert ledger.writes() == []


def test_setting_the_grad_of_a_leaf_is_recorded_without_callbacks(core: ModuleType) -> None:
    ledger = Ledger(core)
    ones, other = torch.ones(2), torch.ones(2, requires_grad=True)
    with active(ledger.mode):
        ledger.leaf.grad = ones
        assert ledger.book.grads == {ones._cdata: ledger.state}
        ledger.leaf.grad = None
        other.grad = None
    assert ledger.writes() == [
        (GRAD_WRITE, 8, 70, 0, (), (1.0, 1.0)),
        (GRAD_WRITE, 8, 70, 0, (1.0, 1.0), ()),
    ]
    assert (ledger.called, ledger.seen) == ([], [])


def test_setting_grad_within_a_pass_is_pythons_as_is_that_of_a_tensor_not_met(
    core: ModuleType,
) -> None:
    ledger = Ledger(core)
    ones, other = torch.ones(2), torch.ones(2, requires_grad=True)
    with active(ledger.mode):
        other.grad = ones
        assert ledger.called == ["before", "after"]
        ledger.mode.set_pass(6)
        ledger.leaf.grad = None
    assert ledger.called == ["before", "after"] * 2
    assert ledger.writes() == []


def test_a_grad_that_nobody_saw_is_told_before_another_takes_its_place(core: ModuleType) -> None:
    ledger = Ledger(core)
    ledger.leaf.grad = torch.ones(2)
    with active(ledger.mode):
        ledger.leaf.grad = None
    assert ledger.writes() == [(GRAD_WRITE, 8, 70, 0, (1.0, 1.0), ())]
    ((leaf, before, found),) = ledger.seen
    assert (leaf, before) == (ledger.state, b"\0")
    assert found == ledger.tape.entry(torch.ones(2))


def test_a_write_that_may_concern_a_leaf_is_pythons(core: ModuleType) -> None:
    ledger = Ledger(core)
    alias, view, grad, plain = torch.ones(2), torch.ones(2)[:1], torch.ones(2), torch.ones(2)
    ledger.book.aliases[alias.data_ptr()] = None
    ledger.book.grads[grad._cdata] = ledger.state
    with torch.no_grad(), active(ledger.mode):
        plain.add_(1)
        assert ledger.called == []
        for tensor in (alias, view, grad):
            tensor.add_(1)
    assert ledger.called == ["before", "after"] * 3
    assert ledger.writes() == []


def test_a_write_that_raises_leaves_no_trace(core: ModuleType) -> None:
    ledger = Ledger(core)
    with active(ledger.mode), pytest.raises(RuntimeError, match="in-place"):
        ledger.leaf.add_(1)
    assert ledger.writes() == []
    assert ledger.leaf.tolist() == [1.0, 2.0]


def test_none_read_as_the_grad_of_what_is_no_leaf_is_told(core: ModuleType) -> None:
    ledger = Ledger(core)
    other = torch.ones(2, requires_grad=True)
    with active(ledger.mode):
        assert ledger.leaf.grad is None
        assert ledger.called == []
        assert other.grad is None
    assert ledger.called == ["before", "after"]


def test_a_failure_in_reading_a_leaf_is_not_the_writes(core: ModuleType) -> None:
    def fail(tensor: Tensor) -> bytes:
        raise LookupError("a fault of our own")

    ledger = Ledger(core)
    faults = Faults()
    tape = core.Tape(fail, 0)
    mode = make_mode(core, tape, fault=faults, describe=lambda function: core.Op(1, WRITES))
    mode.book = ledger.book
    ledger.leaf.data = torch._neg_view(-ledger.leaf.data)  # which is for `fail` to read
    ledger.state.mark = (ledger.leaf._version, ledger.leaf.data_ptr())
    with torch.no_grad(), active(mode):
        ledger.leaf.add_(1)
    assert [str(error) for error in faults.errors] == ["a fault of our own"]
    assert ledger.leaf.tolist() == [2.0, 3.0]
    assert tape.take() == b""
    assert torch._C._is_torch_function_enabled()


# ---- memory


def test_a_mode_is_freed_with_all_that_it_holds(core: ModuleType) -> None:
    class Owner:
        def __init__(self) -> None:
            self.watched = Watched(core, describe=self.describe)
            self.watched.tape.full = self.full
            self.book = self.watched.mode.book = core.Book(self.full)
            with active(self.watched.mode):
                torch.ones(1) + 1

        def describe(self, function: Any) -> Any:
            return core.Op(1, 0, 0, self.before, self.after)

        def before(self, args: Any, kwargs: Any) -> None: ...

        def after(self, *told: Any) -> None: ...

        def full(self, *seen: Any) -> None: ...

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None


def test_calls_leave_nothing_behind(core: ModuleType) -> None:
    watched = Watched(core)
    x, y = torch.ones(2, requires_grad=True), torch.ones(2)

    def run(times: int) -> None:
        with active(watched.mode):
            for _ in range(times):
                x * 2
                y * 2
                torch.argmax(x)
                with contextlib.suppress(RuntimeError):
                    y + torch.ones(3)
        watched.plain.clear()
        watched.tape.take()

    run(10)
    for _ in range(3):  # tuples of numbers are let go of by and by
        gc.collect()
    before = len(gc.get_objects())
    run(500)
    for _ in range(3):  # tuples of numbers are let go of by and by
        gc.collect()
    assert abs(len(gc.get_objects()) - before) < 20

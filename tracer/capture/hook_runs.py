"""What one of the user's hooks does to a gradient while passes run: read before and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from tracer.capture.core import Around
from tracer.capture.differences import are_alike, differs, is_untouched, version_of
from tracer.capture.hook_origins import Origin, Place
from tracer.capture.readings import has_one_value
from tracer.capture.recorder import all_packed
from tracer.capture.references import OurRef
from tracer.capture.waiting import Decide
from tracer.records.events import Event, Hook, HookRun
from tracer.records.stream import ENTRY_NONE, ENTRY_VALUES

if TYPE_CHECKING:
    from tracer.capture.live_pass import LivePass
    from tracer.capture.recorder import Recorder

TENSOR_HOOK = "tensor hook"
PREHOOK = "prehook"
POSTHOOK = "posthook"
ACCUMULATE_HOOK = "accumulate hook"
RETAIN_GRAD = "retain_grad"

_EXACT = (ENTRY_NONE, ENTRY_VALUES)
"""Entries that are equal only where the tensors are."""


@dataclass(slots=True)
class Registered:
    """One hook we know of: its record, and whether its handle was removed.

    `is_sure`: what it is on is known, not guessed from the line that registered it.
    """

    hook: Hook
    removed: bool = False
    is_sure: bool = True


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one pass has a hook: on which of its nodes, at which input of it."""

    live: LivePass
    node: int
    input_nr: int | None = None


class Watching:
    """Stands in for a function in its place for as long as a pass runs that has a seat here.

    Passes nest, and run in threads, over the same hooks: each finds its own seat.
    """

    def __init__(self, place: Place, function: Callable[..., Any]) -> None:
        self.place = place
        self.function = function
        self.around: Any = Around(function, self.before, self.after)
        self.seats: list[Seat] = []

    def here(self) -> Seat | None:
        """The seat of the pass that runs in this thread."""
        for seat in self.seats:
            if seat.live.is_running_here():
                return seat
        return None

    def leave(self, live: LivePass) -> bool:
        """Give up a pass's seats; with the last, the function stands in its place again.

        What stood there is let go of, which holds us: what has the hook is not to wait for the
        collector.
        """
        self.seats = [seat for seat in self.seats if seat.live is not live]
        if self.seats:
            return False
        if self.around is not None and self.place.get() is self.around:
            self.place.put(self.function)
        self.around = None
        return True

    def before(self, args: tuple[Any, ...], kwargs: object) -> Any:
        """The hook is about to run."""
        raise NotImplementedError

    def after(self, token: Any, result: object, error: BaseException | None) -> None:
        """The hook has run."""
        raise NotImplementedError


class Passage(Watching):
    """Remembers at which input of a node a function runs that calls the user's hook in its turn."""

    def before(self, args: tuple[Any, ...], kwargs: object) -> Any:
        """Note where the engine is."""
        seat = self.here()
        if seat is not None:
            seat.live.at = seat
        return seat

    def after(self, token: Any, result: object, error: BaseException | None) -> None:
        """Leave it."""
        if token is not None:
            token.live.at = None


@dataclass(frozen=True, slots=True)
class _Given:
    """What a hook was given, read before it ran."""

    seat: Seat
    seq: int
    t_ns: int
    tensors: tuple[Tensor | None, ...]
    entries: tuple[bytes, ...]
    versions: tuple[int | None, ...]
    removed: bool


class HookProbe(Watching):
    """Reads what one hook is given and what there is after it."""

    def __init__(
        self, recorder: Recorder, origin: Origin, registered: Registered, function: Any
    ) -> None:
        super().__init__(origin.place, function)
        self._recorder = recorder
        self._origin = origin
        self._registered = registered

    @property
    def hook(self) -> Hook:
        """The record of the hook."""
        return self._registered.hook

    def before(self, args: tuple[Any, ...], kwargs: object) -> _Given | None:
        """Read what the hook is given."""
        seat = self.here()
        if seat is None:
            return None
        try:
            with torch._C.DisableTorchFunction():
                given = self._read(seat.live.at or seat, args)
            seat.live.user_code_begins()
            return given
        except Exception as error:
            self._recorder.fault(error)
            return None

    def _read(self, seat: Seat, args: tuple[Any, ...]) -> _Given:
        if self.hook.kind == ACCUMULATE_HOOK:
            seat.live.settle(seat.node)
        self._recorder.keep_up()
        tensors = self._given(args)
        recorder = self._recorder
        return _Given(
            seat,
            recorder.tape.next_seq(),
            recorder.tape.now(),
            tensors,
            tuple(recorder.entry_of_any(tensor) for tensor in tensors),
            tuple(version_of(tensor) for tensor in tensors),
            self._is_removed(),
        )

    def _given(self, args: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
        """The tensors that the hook may change: the gradient, or several of them."""
        if self.hook.kind == ACCUMULATE_HOOK:
            return (args[0].grad,)
        given = args[self._origin.argument]
        return tuple(given) if isinstance(given, (tuple, list)) else (given,)

    def _is_removed(self) -> bool:
        """Whether the hook's handle was removed, and it runs all the same: it was baked in."""
        if self._registered.removed:
            return True
        dicts = self._origin.registered_in()
        if dicts:
            function = self._origin.function
            return not any(hook is function for hooks in dicts for hook in hooks.values())
        place = self.place
        return isinstance(place.holder, dict) and place.key not in place.holder

    def after(self, token: _Given | None, result: object, error: BaseException | None) -> None:
        """Read what there is after the hook, and enter its run."""
        if token is None:
            return
        try:
            token.seat.live.user_code_ends()
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                self._enter(token, result, error)
        except Exception as fault:
            self._recorder.fault(fault)

    def _enter(self, given: _Given, result: object, error: BaseException | None) -> None:
        seat, before = given.seat, given.entries
        left = self._left(given, result) if error is None else ()
        after = tuple(self._entry_after(given, i, tensor) for i, tensor in enumerate(left))
        later = self._ask_of_change(given, left, after) if error is None else None
        recorder = self._recorder
        recorder.emit(
            HookRun(
                seq=given.seq,
                t_ns=given.t_ns,
                thread=recorder.tape.thread(),
                pass_id=seat.live.state.id,
                hook=self.hook,
                node=seat.node,
                input_nr=seat.input_nr if len(before) == 1 else None,
                before=all_packed(before),
                after=all_packed(after),
                changed=error is None and later is None and self._has_changed(given, left, after),
                raised=type(error).__name__ if error is not None else "",
                removed=given.removed,
            ),
            later,
        )
        if error is not None:
            seat.live.failed_at = seat.node
        if self.hook.kind == ACCUMULATE_HOOK:
            seat.live.resettle(seat.node)

    def _left(self, given: _Given, result: object) -> tuple[Tensor | None, ...]:
        """What there is after the hook: what it returned, or what it was given, perhaps changed."""
        if self.hook.kind == ACCUMULATE_HOOK:
            leaf = given.seat.live.leaf(given.seat.node)
            return (leaf.grad if leaf is not None else None,)
        if isinstance(result, (tuple, list)):
            return tuple(result)
        return (result,) if isinstance(result, Tensor) else given.tensors

    def _has_changed(
        self, given: _Given, left: tuple[Tensor | None, ...], after: tuple[bytes, ...]
    ) -> bool:
        return after != given.entries or any(
            differs(one, given.tensors[i], given.versions[i])
            for i, one in enumerate(left)
            if i >= len(given.tensors) or after[i][0] not in _EXACT
        )

    def _ask_of_change(
        self, given: _Given, left: tuple[Tensor | None, ...], after: tuple[bytes, ...]
    ) -> Decide | None:
        """Have the device say whether there was a change; how to tell of it then.

        None where nothing has to be asked.
        """
        deferred = self._recorder.deferred
        if not any(map(deferred.is_mark, (*given.entries, *after))):
            return None
        told = zip(left, given.tensors, given.versions, strict=False)
        answers = [self._ask_of(*one) for one in told]

        def decide(run: Event) -> Event:
            assert isinstance(run, HookRun)
            entries = cast("tuple[bytes, ...]", run.after)
            is_other = any(
                answer(entry)
                for answer, entry in zip(answers, entries, strict=False)
                if entry[0] not in _EXACT
            )
            return replace(run, changed=is_other or run.before != run.after)

        return decide

    def _ask_of(
        self, left: Tensor | None, given: Tensor | None, version: int | None
    ) -> Callable[[bytes], bool]:
        """As `differs`: given the entry of what was left, whether it is another all the same."""
        deferred = self._recorder.deferred
        if left is None or given is None or is_untouched(left, given, version):
            return lambda entry: False
        if left is given:
            is_complex = left.is_complex()  # of which the entry tells absolute values
            return lambda entry: is_complex or not has_one_value(entry)
        if not are_alike(left, given):
            return lambda entry: False
        number = deferred.ask_differs(left, given)
        return lambda entry: deferred.differs(number)

    def _entry_after(self, given: _Given, i: int, tensor: Tensor | None) -> bytes:
        if i < len(given.tensors) and is_untouched(tensor, given.tensors[i], given.versions[i]):
            return given.entries[i]
        return self._recorder.entry_of_any(tensor)


class RetainedProbe:
    """Reads, as the first of a node's prehooks, what `retain_grad` has just put into a `.grad`."""

    def __init__(self, recorder: Recorder, seat: Seat, tensor: Tensor, hook: Hook) -> None:
        self._recorder = recorder
        self._seat = seat
        self._ref = OurRef(tensor)
        self._hook = hook

    def __call__(self, gradients: tuple[Tensor | None, ...]) -> None:
        seat, tensor = self._seat, self._ref()
        if tensor is None or not seat.live.is_running_here():
            return
        recorder = self._recorder
        try:
            with torch._C.DisableTorchFunction():
                incoming = gradients[seat.input_nr or 0]
                recorder.emit(
                    HookRun(
                        **recorder.stamp(),
                        hook=self._hook,
                        node=seat.node,
                        input_nr=seat.input_nr,
                        before=all_packed((recorder.entry_of_any(incoming),)),
                        after=all_packed((recorder.entry_of_any(tensor.grad),)),
                    )
                )
        except Exception as fault:
            recorder.fault(fault)


@dataclass(slots=True)
class Wrapped:
    """What a pass has put in the place of hooks, to be taken away when it ends."""

    watching: list[Watching] = field(default_factory=list)
    retained: list[tuple[Any, Any]] = field(default_factory=list)

    def put_first(self, hooks: Any, key: Any, probe: RetainedProbe) -> None:
        """Have a probe of ours run before all prehooks of a node.

        PyTorch reads an `OrderedDict` as the dict below it, which knows no `move_to_end`.
        """
        others = list(hooks.items())
        hooks.clear()
        hooks[key] = probe
        hooks.update(others)
        self.retained.append((hooks, key))

    def restore(self, live: LivePass) -> list[Watching]:
        """Have every hook that no other pass watches stand where it stood; which these are."""
        for hooks, key in self.retained:
            hooks.pop(key, None)
        self.retained.clear()
        gone = [one for one in self.watching if one.leave(live)]
        self.watching.clear()
        return gone

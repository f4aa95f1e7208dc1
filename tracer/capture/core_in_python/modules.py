"""Calls of modules come in, which of them runs in each thread goes to the mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.probes import hand_over
from tracer.capture.core_in_python.tape import TOO_MANY

if TYPE_CHECKING:
    from tracer.capture.core_in_python.mode import ModeCore


class ModuleCall:
    """One call of a module in a round.

    Every call of the same path that is the same in number and within the same other call (0 for
    none) is this.
    """

    def __init__(self, id: int, number: int, within: int, path_id: int, path: str) -> None:
        self.id = id
        self.number = number
        self.within = within
        self.path_id = path_id
        self.path = path


class ModulePath:
    """How often modules of one path and class were called in a round, and what stands for each."""

    def __init__(self, path: str, cls: str) -> None:
        self.path, self.cls = path, cls
        self.calls: list[ModuleCall] = []
        self.round = 0
        self.counts = [0, 0]


Below = dict[int, tuple[ReferenceType[Any], ModulePath]]
Find = Callable[[Any, ModuleCall | None, Below | None, int], tuple[ModulePath, Below]]

Count = Callable[[ModulePath, int, ModuleCall | None], ModuleCall]


class _Running:
    """What runs in a thread; what is below the outermost module is kept when that has returned."""

    call: ModuleCall | None = None
    below: Below | None = None
    root = site = 0


class ModuleStack:
    """Which module runs in each thread, from the callbacks around `Module.__call__`."""

    def __init__(self, mode: ModeCore, find: Find, count: Count) -> None:
        self._mode, self._find, self._count = mode, find, count
        self._round = 1
        self._threads: dict[int, _Running] = {}

    def before(self, args: tuple[Any, ...], kwargs: Any) -> ModuleCall | bool | None:
        """A module is called; the call it is within for `after`, False where it is not followed."""
        thread = self._mode.tape.thread()
        if not args or self._mode.paused or thread == TOO_MANY:
            return False
        running = self._threads.setdefault(thread, _Running())
        try:
            call = self._next(self._path(running, args[0]), running.call)
        except Exception as error:
            hand_over(self._mode.fault, error)
            return False
        outer, running.call = running.call, call
        self._mode.set_module(call.id, call.path_id)
        return outer

    def after(self, outer: Any, result: object, error: BaseException | None) -> None:
        """It returned or raised, and the one that called it runs again."""
        thread = self._mode.tape.thread()
        if outer is False or thread == TOO_MANY:
            return
        self._threads.setdefault(thread, _Running()).call = outer
        self._mode.set_module(*((0, 0) if outer is None else (outer.id, outer.path_id)))

    def _path(self, running: _Running, module: Any) -> ModulePath:
        outer = running.call
        site = running.site if outer is not None else self._mode.here()
        is_same = outer is not None or (running.root, running.site) == (id(module), site)
        if running.below is not None and is_same:
            ref, path = running.below.get(id(module), (None, None))
            if ref is not None and path is not None and ref() is module:
                return path
        path, below = self._find(module, outer, None if outer is None else running.below, site)
        if outer is None:
            running.below, running.root, running.site = below, id(module), site
        return path

    def _next(self, path: ModulePath, caller: ModuleCall | None) -> ModuleCall:
        grad_off = not TORCH.is_grad_enabled()
        if path.round != self._round:
            path.counts = [0, 0]
            path.round = self._round
        path.counts[grad_off] = number = path.counts[grad_off] + 1
        call = path.calls[number - 1] if number <= len(path.calls) else None
        if call is None or call.within != (caller.id if caller is not None else 0):
            call = self._count(path, number, caller)
            path.counts[grad_off] = call.number  # 1 again, where too many are told apart
        return call

    def _here(self) -> _Running:
        return self._threads.get(self._mode.tape.thread(), _Running())

    def current(self) -> ModuleCall | None:
        """What runs in this thread."""
        return self._here().call

    def below(self) -> Below | None:
        """What `find` gave for the outermost module that runs."""
        running = self._here()
        return running.below if running.call is not None else None

    def round_ends(self) -> None:
        """Calls are counted anew, unless a module runs."""
        self._round += self._here().call is None

    def begin_thread(self) -> None:
        """The calling thread has just been started."""
        self._threads.pop(self._mode.tape.thread(), None)

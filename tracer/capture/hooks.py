"""Users' backward hooks: when each was added and removed, where they live, which pass runs them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tracer.capture.core import LeafProbe, NodeProbe
from tracer.capture.hook_origins import MULTI_GRAD_HOOK, Origin, Place, hook_origins
from tracer.capture.hook_runs import (
    RETAIN_GRAD,
    TENSOR_HOOK,
    HookProbe,
    Passage,
    Registered,
    Seat,
    Watching,
)
from tracer.capture.hooked_tensors import HookDict, HookedTensors
from tracer.capture.readings import is_leaf
from tracer.capture.sites import SiteTable
from tracer.records.events import Hook, HookAdded, HookRemoved

if TYPE_CHECKING:
    from tracer.capture.live_pass import LivePass
    from tracer.capture.recorder import Recorder

_OURS = (NodeProbe, LeafProbe)
_MOST_KNOWN = 4096
EVERY_MODULE = "every module"


class HookBook:
    """Knows every hook that was registered while tracing, and finds the others where they live."""

    def __init__(
        self, recorder: Recorder, sites: SiteTable, path_of: Callable[[torch.nn.Module], str]
    ) -> None:
        self._recorder = recorder
        self._sites = sites
        self._path_of = path_of
        self._known: dict[tuple[int, Any], tuple[weakref.ref[Any], Registered]] = {}
        self._groups: dict[int, tuple[weakref.ref[Any], Registered]] = {}
        self._of_modules: dict[tuple[int, int], tuple[weakref.ref[Any], Registered]] = {}
        self._watching: dict[tuple[int, Any], Watching] = {}
        self.tensors = HookedTensors()
        self._has_searched = False
        self._count = 0

    # ---- registration

    def added(self, tensor: Tensor, kind: str, function: object, handle: object, site: int) -> None:
        """Enter a hook that user code registered on a tensor."""
        name = self._recorder.tensor_name(tensor)
        if isinstance(handle, RemovableHandle):
            hooks = handle.hooks_dict_ref()
            if hooks is not None:
                self._enter_added(Place(hooks, handle.id), kind, name, site)
                if kind == TENSOR_HOOK:
                    self.tensors.note(tensor, hooks)
        elif kind == RETAIN_GRAD and not is_leaf(tensor) and not self.tensors.is_retained(tensor):
            self._emit_added(self._retain(tensor, name, site).hook, site)

    def added_to_node(self, hooks: HookDict, handle: RemovableHandle, site: int, kind: str) -> None:
        """Enter a hook that user code registered on a node; which one, the pass that runs it tells.

        PyTorch's own (of modules, of DDP) are told by what they call, or when they run.
        """
        if not _is_of_torch(hooks.get(handle.id)):
            self._enter_added(Place(hooks, handle.id), kind, "a node", site).is_sure = False

    def added_to_module(
        self, handle: RemovableHandle, kind: str, module: torch.nn.Module | None, site: int
    ) -> None:
        """Enter a hook that user code registered on a module, or on every one (None)."""
        hooks = handle.hooks_dict_ref()
        if hooks is not None:
            name = EVERY_MODULE if module is None else self._path_of(module)
            registered = self._enter_added(Place(hooks, handle.id), kind, name, site)
            self._remember_of_module(hooks[handle.id], module, registered)

    def _enter_added(self, place: Place, kind: str, subject: str, site: int) -> Registered:
        function = place.get()
        origin = next(hook_origins(function, place), Origin(function, place))
        registered = self._of_group(origin)
        if registered is not None:
            self._join(registered, subject)
        else:
            registered = self._describe(origin, origin.kind or kind, subject, site)
            self._emit_added(registered.hook, site)
        self._remember(place, origin, registered)
        return registered

    def _remember(self, place: Place, origin: Origin, registered: Registered) -> None:
        if origin.module is not None:
            self._remember_of_module(origin.function, origin.module, registered)
            return
        self._known[id(place.holder), place.key] = weakref.ref(place.holder), registered
        if origin.group is not None:
            self._groups[id(origin.group)] = weakref.ref(origin.group), registered

    def _remember_of_module(
        self, function: Any, module: torch.nn.Module | None, registered: Registered
    ) -> None:
        with suppress(TypeError):  # what takes no weak reference is not found once it is removed
            self._of_modules[id(function), id(module)] = weakref.ref(function), registered

    def _retain(self, tensor: Tensor, name: str, site: int) -> Registered:
        origin = Origin(tensor.retain_grad, Place(None))
        registered = self._describe(origin, RETAIN_GRAD, name, site)
        self.tensors.retain(tensor, registered)
        return registered

    def _emit_added(self, hook: Hook, site: int) -> None:
        recorder = self._recorder
        recorder.emit(HookAdded(**recorder.stamp(), hook=hook, site=recorder.site(site)))

    def _describe(self, origin: Origin, kind: str, subject: str, site: int) -> Registered:
        self._count += 1
        defined, text = self._sites.function_site(origin.function)
        self._recorder.add_site(defined)
        hook = Hook(
            self._count,
            kind,
            text or type(origin.function).__qualname__,
            subject,
            defined,
            self._recorder.site(site),
        )
        registered = Registered(hook)
        self._put(registered, hook)
        return registered

    def _join(self, registered: Registered, subject: str) -> None:
        """Tell that a hook is on one more tensor."""
        hook = registered.hook
        self._put(registered, replace(hook, subject=f"{hook.subject}, {subject}"))

    def _put(self, registered: Registered, hook: Hook) -> None:
        registered.hook = hook
        self._recorder.writer.put(hook)

    def removed(self, handle: RemovableHandle, site: int) -> None:
        """Enter the removal of a hook through its handle."""
        hooks = handle.hooks_dict_ref()
        registered = self._find(Place(hooks, handle.id)) if hooks is not None else None
        if registered is None or registered.removed:
            return
        registered.removed = True
        recorder = self._recorder
        recorder.emit(
            HookRemoved(**recorder.stamp(), hook=registered.hook, site=recorder.site(site))
        )

    def _find(self, place: Place) -> Registered | None:
        held = self._known.get((id(place.holder), place.key))
        return held[1] if held is not None and held[0]() is place.holder else None

    # ---- from before

    def search(self) -> None:
        """Find, once, the hooks of tensors that were made before the recording began."""
        if self._has_searched:
            return
        self._has_searched = True
        for tensor in [found for found in gc.get_objects() if issubclass(type(found), Tensor)]:
            try:
                if not is_leaf(tensor):
                    self._note_earlier(tensor)
            except Exception:  # a subclass may refuse to tell
                continue

    def _note_earlier(self, tensor: Tensor) -> None:
        hooks = tensor._backward_hooks
        if hooks:
            self.tensors.note(tensor, hooks)
            for key, function in hooks.items():
                self._note_earlier_hook(tensor, Place(hooks, key), function)
        if tensor.retains_grad and not self.tensors.is_retained(tensor):
            self._retain(tensor, self._recorder.tensor_name(tensor), 0)

    def _note_earlier_hook(self, tensor: Tensor, place: Place, function: Any) -> None:
        if self._find(place) is None:
            origin = next(hook_origins(function, place), Origin(function, place))
            self._meet(origin, place, TENSOR_HOOK, self._recorder.tensor_name(tensor))

    def forget_dead(self) -> None:
        """Drop what is kept of tensors and hooks that are gone."""
        self.tensors.forget_dead()
        for held_by_key in (self._known, self._groups, self._of_modules):
            if len(held_by_key) > _MOST_KNOWN:
                _drop_dead(held_by_key)

    # ---- during a pass

    def wrap(
        self, live: LivePass, hooks: HookDict, kind: str, node: int, *, input_nr: int | None = None
    ) -> int:
        """Watch every user hook in a dict for as long as the pass runs; how many there are."""
        count = 0
        seat = Seat(live, node, input_nr)
        for key in list(hooks):
            place = Place(hooks, key)
            function = self._behind(place)
            if isinstance(function, _OURS):
                continue
            count += 1
            for origin in hook_origins(function, place):
                self._watch(live, origin, place, kind, seat)
        return count

    def _behind(self, place: Place) -> Any:
        """What stands in a place for the user."""
        function = place.get()
        watching = self._watching.get((id(place.holder), place.key))
        return watching.function if watching and watching.around is function else function

    def _watch(self, live: LivePass, origin: Origin, found: Place, kind: str, seat: Seat) -> None:
        behind = self._behind(origin.place)
        if origin.function is not behind and origin.function is origin.place.get():
            origin = replace(origin, function=behind)
        if origin.kind == MULTI_GRAD_HOOK:
            self._seat(live, seat, found, lambda: Passage(found, found.get()))
        registered = self._registered(live, origin, found, kind, seat.node)
        self._seat(
            live, seat, origin.place, lambda: HookProbe(self._recorder, origin, registered, behind)
        )

    def _seat(self, live: LivePass, seat: Seat, place: Place, make: Callable[[], Watching]) -> None:
        """Give a pass a seat at a place, where another pass may be watching already."""
        key = id(place.holder), place.key
        watching = self._watching.get(key)
        if watching is None or place.get() is not watching.around:
            watching = self._watching[key] = make()
            place.put(watching.around)
        watching.seats.append(seat)
        live.wrapped.watching.append(watching)

    def restore(self, live: LivePass) -> None:
        """Have every hook that no other pass watches stand where it stood."""
        for gone in live.wrapped.restore(live):
            key = id(gone.place.holder), gone.place.key
            if self._watching.get(key) is gone:
                del self._watching[key]

    def _registered(
        self, live: LivePass, origin: Origin, found: Place, kind: str, node: int
    ) -> Registered:
        """What is known of a hook that a pass may run, be it from before the recording."""
        known = self._find(found) if origin.module is None else self._of_module(origin)
        if known is None:
            known = self._meet(origin, found, kind, self._subject(live, origin, node))
        elif not known.is_sure:
            known.is_sure = True
            self._put(known, replace(known.hook, kind=kind, subject=live.node_name(node)))
        elif origin.module is not None and known.hook.subject == type(origin.module).__name__:
            self._put(known, replace(known.hook, subject=self._path_of(origin.module)))
        return known

    def _subject(self, live: LivePass, origin: Origin, node: int) -> str:
        module = origin.module
        return live.node_name(node) if module is None else self._path_of(module)

    def _meet(self, origin: Origin, place: Place, kind: str, subject: str) -> Registered:
        """Take note of a hook from before the recording, or of one more tensor that it is on."""
        known = self._of_group(origin)
        if known is None:
            known = self._describe(origin, origin.kind or kind, subject, 0)
        else:
            self._join(known, subject)
        self._remember(place, origin, known)
        return known

    def _of_group(self, origin: Origin) -> Registered | None:
        held = self._groups.get(id(origin.group)) if origin.group is not None else None
        return held[1] if held is not None and held[0]() is origin.group else None

    def _of_module(self, origin: Origin) -> Registered | None:
        """The registration of a module's hook, also after its removal."""
        for hooks in origin.registered_in():
            for key, function in hooks.items():
                known = self._find(Place(hooks, key)) if function is origin.function else None
                if known is not None:
                    return known
        for module in (origin.module, None):
            held = self._of_modules.get((id(origin.function), id(module)))
            if held is not None and held[0]() is origin.function:
                return held[1]
        return None


def _is_of_torch(function: object) -> bool:
    modules = getattr(function, "__module__", ""), type(function).__module__
    return any(str(name).partition(".")[0] == "torch" for name in modules)


def _drop_dead(held_by_key: dict[Any, tuple[weakref.ref[Any], Registered]]) -> None:
    for key, (ref, _registered) in list(held_by_key.items()):
        if ref() is None:
            del held_by_key[key]

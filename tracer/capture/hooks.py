"""Users' backward hooks: when each was added and removed, and what it did to a gradient."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tracer.capture.core import Around, LeafProbe, NodeProbe
from tracer.capture.hook_origins import hook_origin
from tracer.capture.readings import node_behind
from tracer.capture.recorder import all_packed
from tracer.capture.sites import SiteTable
from tracer.records.events import Hook, HookAdded, HookRemoved, HookRun
from tracer.records.stream import ENTRY_NONE, ENTRY_VALUES

if TYPE_CHECKING:
    from tracer.capture.engine import LivePass
    from tracer.capture.recorder import Recorder

HookDict = MutableMapping[int, Callable[..., Any]]

TENSOR_HOOK = "tensor hook"
PREHOOK = "prehook"
POSTHOOK = "posthook"
ACCUMULATE_HOOK = "accumulate hook"
RETAIN_GRAD = "retain_grad"

_EXACT = (ENTRY_NONE, ENTRY_VALUES)
"""Entries that are equal only where the tensors are."""


@dataclass(slots=True)
class Registered:
    """One hook we know of: its record, the dict it lives in, its key there."""

    hook: Hook
    hooks: weakref.ref[Any]
    key: int
    removed: bool = False


@dataclass(slots=True)
class Wrapped:
    """The hooks that a pass wrapped, to be put back when it ends."""

    places: list[tuple[HookDict, int, Around, Callable[..., Any]]] = field(default_factory=list)

    def restore(self) -> None:
        """Put every hook back that is still where the pass found it."""
        for hooks, key, probe, original in self.places:
            if hooks.get(key) is probe:
                hooks[key] = original
        self.places.clear()


class HookBook:
    """Knows every hook that was registered while tracing, and finds the others where they live."""

    def __init__(
        self, recorder: Recorder, sites: SiteTable, path_of: Callable[[torch.nn.Module], str]
    ) -> None:
        self._recorder = recorder
        self._sites = sites
        self._path_of = path_of
        self._known: dict[tuple[int, int], Registered] = {}
        self._on_outputs: dict[tuple[int, int], list[weakref.ref[Any]]] = {}
        self._count = 0

    # ---- registration

    def added(self, tensor: Tensor, kind: str, function: object, handle: object, site: int) -> None:
        """Enter a hook that user code registered on a tensor."""
        record = self._describe(kind, function, self._subject(tensor), site)
        if isinstance(handle, RemovableHandle):
            hooks = handle.hooks_dict_ref()
            if hooks is not None:
                self._remember(record, hooks, handle.id)
                fn = node_behind(tensor) if kind == TENSOR_HOOK else None
                if fn is not None:
                    place = (fn._sequence_nr(), tensor.output_nr)
                    self._on_outputs.setdefault(place, []).append(weakref.ref(hooks))
        recorder = self._recorder
        recorder.emit(
            HookAdded(
                **recorder.stamp(),
                hook=record,
                site=recorder.site(site),
            )
        )

    def _remember(self, record: Hook, hooks: HookDict, key: int) -> Registered:
        registered = Registered(record, weakref.ref(hooks), key)
        self._known[id(hooks), key] = registered
        return registered

    def _describe(self, kind: str, function: Any, subject: str, site: int) -> Hook:
        self._count += 1
        origin = hook_origin(function)
        texts = []
        defined = None
        for one in origin.functions:
            defined, text = self._sites.function_site(one)
            texts.append(text or type(one).__qualname__)
        self._recorder.add_site(defined)
        if origin.module is not None:
            subject = self._path_of(origin.module)
        record = Hook(
            self._count,
            origin.kind or kind,
            ", ".join(texts),
            subject,
            defined,
            self._recorder.site(site),
        )
        self._recorder.writer.put(record)
        return record

    def _subject(self, tensor: Tensor) -> str:
        return self._recorder.tensor_name(tensor)

    def removed(self, handle: RemovableHandle, site: int) -> None:
        """Enter the removal of a hook through its handle."""
        hooks = handle.hooks_dict_ref()
        registered = self._known.get((id(hooks), handle.id)) if hooks is not None else None
        if registered is None or registered.removed or registered.hooks() is not hooks:
            return
        registered.removed = True
        recorder = self._recorder
        recorder.emit(
            HookRemoved(
                **recorder.stamp(),
                hook=registered.hook,
                site=recorder.site(site),
            )
        )

    # ---- during a pass

    def hooked_outputs(self) -> list[tuple[int, int]]:
        """Which outputs (sequence number of the node, output number) have tensor hooks."""
        return list(self._on_outputs)

    def on_output(self, sequence_nr: int, output_nr: int) -> list[HookDict]:
        """The dicts of tensor hooks registered on one output of one node, as far as they live."""
        refs = self._on_outputs.get((sequence_nr, output_nr))
        if not refs:
            return []
        live = [hooks for ref in refs if (hooks := ref()) is not None]
        if not live:
            del self._on_outputs[sequence_nr, output_nr]
        return live

    def forget_dead(self) -> None:
        """Drop what is kept of tensors that are gone."""
        if len(self._on_outputs) > 4096:
            self._on_outputs = {
                place: refs
                for place, refs in self._on_outputs.items()
                if any(ref() is not None for ref in refs)
            }
        if len(self._known) > 4096:
            self._known = {
                place: known for place, known in self._known.items() if known.hooks() is not None
            }

    def wrap(
        self, live: LivePass, hooks: HookDict, kind: str, node: int, *, input_nr: int | None = None
    ) -> int:
        """Put a probe around every user hook in a dict for as long as the pass runs; how many."""
        count = 0
        for key, function in list(hooks.items()):
            if isinstance(function, (NodeProbe, LeafProbe, Around)):
                continue
            known = self._known.get((id(hooks), key))
            if known is None or known.hooks() is not hooks:
                subject = live.node_name(node)
                known = self._remember(self._describe(kind, function, subject, 0), hooks, key)
            probe = HookProbe(self._recorder, live, known.hook, node, input_nr).around(function)
            hooks[key] = probe
            live.wrapped.places.append((hooks, key, probe, function))
            count += 1
        return count


@dataclass(slots=True)
class HookProbe:
    """Reads what one hook is given and what there is after it."""

    recorder: Recorder
    live: LivePass
    hook: Hook
    node: int
    input_nr: int | None

    def around(self, function: Callable[..., Any]) -> Around:
        """The hook with readings before and after, and no frame in between."""
        return Around(function, self._before, self._after)

    def _before(self, args: tuple[Any, ...], kwargs: object) -> Any:
        live = self.live
        if not live.is_running_here():
            return None
        try:
            with torch._C.DisableTorchFunction():
                if self.hook.kind == ACCUMULATE_HOOK:
                    live.settle(self.node)
                self.recorder.keep_up()
                given = self._given(args)
                tape = self.recorder.tape
                token = (
                    tape.next_seq(),
                    tape.now(),
                    given,
                    tuple(self.recorder.entry_of_any(tensor) for tensor in given),
                    tuple(_version(tensor) for tensor in given),
                )
            live.user_code_begins()
            return token
        except Exception as error:
            self.recorder.fault(error)
            return None

    def _given(self, args: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
        """The tensors that the hook may change: the gradient, or a tuple of them."""
        if self.hook.kind == ACCUMULATE_HOOK:
            return (args[0].grad,)
        first = args[0]
        return first if isinstance(first, tuple) else (first,)

    def _after(self, token: Any, result: object, error: BaseException | None) -> None:
        if token is None:
            return
        try:
            self.live.user_code_ends()
            with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                self._enter(token, result, error)
        except Exception as fault:
            self.recorder.fault(fault)

    def _enter(self, token: Any, result: object, error: BaseException | None) -> None:
        seq, t_ns, given, before, versions = token
        left = self._left(given, result) if error is None else ()
        after = tuple(
            before[i] if i < len(given) and _is_untouched(tensor, given[i], versions[i])
            else self.recorder.entry_of_any(tensor)
            for i, tensor in enumerate(left)
        )  # fmt: skip
        recorder = self.recorder
        recorder.emit(
            HookRun(
                seq=seq,
                t_ns=t_ns,
                thread=recorder.tape.thread(),
                pass_id=self.live.state.id,
                hook=self.hook,
                node=self.node,
                input_nr=self.input_nr,
                before=all_packed(before),
                after=all_packed(after),
                changed=error is None
                and (
                    after != before
                    or any(
                        _differs(one, given[i], versions[i])
                        for i, one in enumerate(left)
                        if after[i][0] not in _EXACT
                    )
                ),
                raised=type(error).__name__ if error is not None else "",
            )
        )
        if self.hook.kind == ACCUMULATE_HOOK:
            self.live.resettle(self.node)

    def _left(self, given: tuple[Tensor | None, ...], result: object) -> tuple[Tensor | None, ...]:
        """What there is after the hook: what it returned, or what it was given, perhaps changed."""
        if self.hook.kind == ACCUMULATE_HOOK:
            leaf = self.live.leaf(self.node)
            return (leaf.grad if leaf is not None else None,)
        if isinstance(result, tuple):
            return result
        return (result,) if isinstance(result, Tensor) else given


def _version(tensor: Tensor | None) -> int | None:
    """How often a tensor was written to; an inference tensor does not count it."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def _is_untouched(tensor: Tensor | None, given: Tensor | None, version: int | None) -> bool:
    return tensor is given and version is not None and _version(tensor) == version


def _differs(left: Tensor | None, given: Tensor | None, version: int | None) -> bool:
    """Whether a tensor is another, though its statistics are the same (`grad.flip(0)`).

    One written to in place is taken to be: what it held before is gone.
    """
    if left is given or left is None or given is None:
        return left is given and not _is_untouched(left, given, version)
    if type(left) is not Tensor or type(given) is not Tensor or not left.is_cpu:
        return False
    if left.layout is not torch.strided or given.layout is not torch.strided:
        return False
    return not torch.equal(left, given) and not torch.equal(_no_nans(left), _no_nans(given))


def _no_nans(tensor: Tensor) -> Tensor:
    """The tensor with a number that it hardly holds for each NaN: NaNs equal nothing."""
    plain = tensor.detach()  # makes no node where gradients are recorded
    return plain.masked_fill(plain.isnan(), 0.1234567)

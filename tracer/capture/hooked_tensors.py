"""Tensors with hooks come in; at which outputs of which nodes these run goes out.

A node does not tell its tensors' hooks; their dicts are remembered weakly, by the node's number.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from torch import Tensor

from tracer.capture.hook_runs import Registered
from tracer.capture.readings import node_behind
from tracer.capture.references import OurRef
from tracer.records.events import Hook

HookDict = MutableMapping[int, Callable[..., Any]]
_LOOKED_AT = 8


class HookedTensors:
    """Knows the dicts of tensor hooks, and the tensors that keep their `.grad`."""

    def __init__(self) -> None:
        self._dicts: dict[tuple[int, int], list[weakref.ref[Any]]] = {}
        self._retained: dict[int, tuple[OurRef, Registered]] = {}
        self._until_look = 0

    def known(self) -> tuple[dict[Any, Any], ...]:
        """The dictionaries that are empty as long as no tensor is known to have a hook."""
        return self._dicts, self._retained

    def note(self, tensor: Tensor, hooks: HookDict) -> None:
        """Take note of the hooks of one tensor."""
        fn = node_behind(tensor)
        if fn is not None:
            refs = self._dicts.setdefault((fn._sequence_nr(), tensor.output_nr), [])
            if not any(ref() is hooks for ref in refs):
                refs.append(weakref.ref(hooks))

    def places(self) -> list[tuple[int, int]]:
        """Which outputs (sequence number of the node, output number) have tensor hooks."""
        return list(self._dicts)

    def hooks_at(self, sequence_nr: int, output_nr: int) -> list[HookDict]:
        """The dicts of tensor hooks registered on one output of one node, as far as they live."""
        refs = self._dicts.get((sequence_nr, output_nr))
        if not refs:
            return []
        live = [hooks for ref in refs if (hooks := ref()) is not None]
        if not live:
            del self._dicts[sequence_nr, output_nr]
        return live

    def retain(self, tensor: Tensor, registered: Registered) -> None:
        """Take note that a tensor keeps its `.grad`."""
        self._retained[id(tensor)] = OurRef(tensor), registered

    def is_retained(self, tensor: Tensor) -> bool:
        """Whether a tensor is known to keep its `.grad`."""
        held = self._retained.get(id(tensor))
        return held is not None and held[0]() is tensor

    def retained(self) -> Iterator[tuple[int, int, Tensor, Hook]]:
        """(sequence number, output number, tensor, hook) of what keeps its `.grad` and lives."""
        for key, (ref, registered) in list(self._retained.items()):
            tensor = ref()
            fn = node_behind(tensor) if tensor is not None else None
            if tensor is None:
                del self._retained[key]
            elif fn is not None:
                yield fn._sequence_nr(), tensor.output_nr, tensor, registered.hook

    def forget_dead(self) -> None:
        """Drop what is kept of tensors that are gone, at the end of a pass.

        While something is kept, no pass runs in the core alone. So it is looked through often, and
        seldom enough for a few places a pass.
        """
        self._until_look -= 1
        if self._until_look > 0:
            return
        for place, refs in list(self._dicts.items()):
            if all(ref() is None for ref in refs):
                del self._dicts[place]
        self._until_look = len(self._dicts) // _LOOKED_AT

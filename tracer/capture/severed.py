"""Tensors that lose their history come in; where what was made of them had lost it goes out."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from tracer.capture.readings import address_of
from tracer.capture.references import OurRef

_MOST = 4096


class Loss(NamedTuple):
    """Which tensors a history was lost of, by name, and the id of the site where."""

    names: tuple[str, ...]
    site: int


class Severed:
    """Follows tensors without history from where it was lost: becoming a leaf is worth telling.

    `known` is by identity, and the function mode looks into it: what an operation computes from a
    tensor that is known there is known too (`x.detach().clone()`). An array of NumPy's is followed
    by where its elements are, as long as it lives.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[OurRef, Loss]] = {}
        self.arrays: dict[int, tuple[weakref.ref[Any], Loss]] = {}

    def lose(self, tensor: Tensor, loss: Loss) -> None:
        """Know of a tensor that it has no history, and why."""
        if len(self.known) > _MOST:
            alive = [(key, held) for key, held in self.known.items() if held[0]() is not None]
            self.known.clear()  # the mode holds this very dictionary
            self.known.update(alive[-_MOST // 2 :])
        self.known[id(tensor)] = OurRef(tensor), loss

    def pass_into_array(self, tensor: Tensor, array: Any) -> None:
        """Know of an array that its elements are those of a tensor without history."""
        loss, address = self.find(tensor), address_of(tensor)
        if loss is not None and address:
            if len(self.arrays) >= _MOST:
                del self.arrays[next(iter(self.arrays))]
            self.arrays[address] = weakref.ref(array), loss

    def find(self, tensor: Tensor) -> Loss | None:
        """Where the history of a tensor, or of what it was computed from, was lost."""
        held = self.known.get(id(tensor))
        if held is not None and held[0]() is tensor:
            return held[1]
        array = self.arrays.get(address_of(tensor)) if self.arrays else None
        return array[1] if array is not None and array[0]() is not None else None

    def pass_on(self, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Know of what an operation computed from tensors without history that it has none."""
        loss = next((found for found in map(self.find, inputs) if found is not None), None)
        if loss is not None:
            for tensor in outputs:
                if not tensor.requires_grad:
                    self.lose(tensor, loss)

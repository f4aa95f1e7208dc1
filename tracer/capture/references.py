"""Objects of the user's come in, what is known of each goes out for as long as it lives.

`torch.utils.swap_tensors` (and `Module.to` with `set_swap_module_params_on_conversion`) refuses a
tensor that a weak reference leads to; ours stay with the tensor that it is to its user.

No function in Python is told that an object is gone. It would be called by whatever let go of the
object, C++ or the garbage collector, and a Ctrl-C that had come meanwhile would be raised in it:
from there nothing is passed on, and the Ctrl-C would be lost.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any, Generic, TypeVar

from torch import Tensor

K = TypeVar("K")
V = TypeVar("V")


class OurRef(weakref.ref[Tensor]):
    """A weak reference of ours; `key` is by what the tensor was known, where that is set."""

    __slots__ = ("key",)
    key: int


class _KeyRef(weakref.ref[K]):
    __slots__ = ("key",)
    key: int


class Known(Generic[K, V]):
    """Values by the identity of objects that are not kept alive: gone with these."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[_KeyRef[K], V]] = {}
        self._gone: list[weakref.ref[K]] = []

    def __setitem__(self, key: K, value: V) -> None:
        self._forget_gone()
        ref = _KeyRef(key, self._gone.append)
        ref.key = id(key)
        self._held[ref.key] = ref, value

    def get(self, key: K) -> V | None:
        """The value of an object, None where it has none."""
        held = self._held.get(id(key))
        return held[1] if held is not None and held[0]() is key else None

    def items(self) -> list[tuple[K, V]]:
        """The objects that live, each with its value."""
        held = [(ref(), value) for ref, value in list(self._held.values())]
        return [(key, value) for key, value in held if key is not None]

    def _forget_gone(self) -> None:
        while self._gone:
            ref = self._gone.pop()
            assert isinstance(ref, _KeyRef)
            held = self._held.get(ref.key)
            if held is not None and held[0] is ref:
                del self._held[ref.key]


class WithoutOurs(ModuleType):
    """Stands in for the module `weakref`: all that it has, but ours are no weak references."""

    def __getattr__(self, name: str) -> Any:
        return getattr(weakref, name)

    @staticmethod
    def getweakrefs(tensor: Any) -> list[Any]:
        """The weak references that lead to an object, save for ours."""
        return [ref for ref in weakref.getweakrefs(tensor) if type(ref) is not OurRef]

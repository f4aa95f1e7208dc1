"""References of ours to the user's tensors, which no count of references that PyTorch makes shows.

`torch.utils.swap_tensors` (and `Module.to` with `set_swap_module_params_on_conversion`) refuses a
tensor that a weak reference leads to; ours stay with the tensor that it is to its user.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any

from torch import Tensor


class OurRef(weakref.ref[Tensor]):
    """A weak reference of ours."""

    __slots__ = ()


class WithoutOurs(ModuleType):
    """Stands in for the module `weakref`: all that it has, but ours are no weak references."""

    def __getattr__(self, name: str) -> Any:
        return getattr(weakref, name)

    @staticmethod
    def getweakrefs(tensor: Any) -> list[Any]:
        """The weak references that lead to an object, save for ours."""
        return [ref for ref in weakref.getweakrefs(tensor) if type(ref) is not OurRef]

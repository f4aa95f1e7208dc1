"""A function among a node's hooks in, the user's own hooks behind it out, each with its place.

`register_multi_grad_hook` and modules' backward hooks put closures of PyTorch's own on tensors and
nodes (torch/autograd/graph.py, torch/utils/hooks.py); what a user wants to read is what they call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any

from torch import nn
from torch.autograd.graph import register_multi_grad_hook
from torch.nn.modules import module as modules
from torch.utils.hooks import BackwardHook

_OF_PYTORCH = {
    register_multi_grad_hook.__code__.co_filename,
    BackwardHook.setup_input_hook.__code__.co_filename,
}
"""The files that have those closures."""

MULTI_GRAD_HOOK = "multi-grad hook"
MODULE_HOOK = "module backward hook"
MODULE_PREHOOK = "module backward prehook"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a hook's function stands: an entry of a dict or list, or a variable of a closure."""

    holder: Any
    key: Any = None

    def get(self) -> Any:
        """What stands there; None where nothing does any more."""
        if isinstance(self.holder, CellType):
            return self.holder.cell_contents
        if isinstance(self.holder, list):
            return self.holder[self.key] if self.key < len(self.holder) else None
        return self.holder.get(self.key)

    def put(self, function: Any) -> None:
        """Have another stand there."""
        if isinstance(self.holder, CellType):
            self.holder.cell_contents = function
        else:
            self.holder[self.key] = function


@dataclass(frozen=True, slots=True)
class Origin:
    """One hook of the user's: its function and where that stands.

    `kind` is what it was registered as, where that is not what was found; `module` is the one it
    was called for; `argument` says which of its arguments holds the gradients. `group` is the same
    object for all that stand for one registration, None for one that stands alone.
    """

    function: Callable[..., Any]
    place: Place
    kind: str = ""
    module: nn.Module | None = None
    argument: int = 0
    group: Any = None

    def registered_in(self) -> list[Any]:
        """The dicts that a module's hook is in while it is registered; none for other hooks."""
        if self.module is None:
            return []
        if self.kind == MODULE_PREHOOK:
            return [self.module._backward_pre_hooks, modules._global_backward_pre_hooks]
        return [self.module._backward_hooks, modules._global_backward_hooks]


def hook_origins(function: Any, place: Place) -> Iterator[Origin]:
    """Find what a hook in a place calls; one that is the user's own is its own origin."""
    if isinstance(function, FunctionType) and function.__code__.co_filename in _OF_PYTORCH:
        cells = _cells(function)
        if {"fn", "lock"} <= cells.keys():
            inner, lock = Place(cells["fn"]), cells["lock"].cell_contents
            yield Origin(inner.get(), inner, MULTI_GRAD_HOOK, group=lock)
            return
        owner = cells["self"].cell_contents if "self" in cells else None
        if isinstance(owner, BackwardHook):
            yield from _of_module(function, owner)
            return
    if type(function) is modules._WrappedHook and function.with_module:
        yield Origin(function.hook, place, MODULE_HOOK, function.module())
        return
    yield Origin(function, place)


def _of_module(function: FunctionType, owner: Any) -> Iterator[Origin]:
    """The hooks that `BackwardHook` calls from this one of its two closures.

    The one on the module's outputs calls the prehooks, and where no input of the module requires a
    gradient the hooks too; the one on its inputs calls the hooks.
    """
    on_outputs = "setup_output_hook" in function.__qualname__
    if on_outputs:
        for index, hook in enumerate(owner.user_pre_hooks):
            place = Place(owner.user_pre_hooks, index)
            yield Origin(hook, place, MODULE_PREHOOK, owner.module, 1)
    if not on_outputs or owner.input_tensors_index is None:
        for index, hook in enumerate(owner.user_hooks):
            yield Origin(hook, Place(owner.user_hooks, index), MODULE_HOOK, owner.module, 1)


def _cells(function: FunctionType) -> dict[str, CellType]:
    """The variables of a closure that are bound."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell for name, cell in cells if _is_bound(cell)}


def _is_bound(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False

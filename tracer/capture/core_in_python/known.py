"""What the core is told about torch comes in; every module of the core asks here for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class _Torch:
    """The types and functions of torch that the core uses, once `setup` has been called."""

    tensor: Any
    parameter: Any
    strided: Any
    task_id: Callable[[], int]
    sequence_nr: Callable[[], int]
    is_grad_enabled: Callable[[], bool]
    hook_dict: Callable[[], Any]
    register_hook: Callable[..., Any]
    disable_torch_function: Callable[[], Any]
    codes: dict[Any, int]


TORCH = _Torch()


def setup(
    tensor: Any,
    parameter: Any,
    strided: Any,
    task_id: Callable[[], int],
    sequence_nr: Callable[[], int],
    is_grad_enabled: Callable[[], bool],
    hook_dict: Callable[[], Any],
    register_hook: Callable[..., Any],
    disable_torch_function: Callable[[], Any],
    codes: dict[Any, int],
    exchange: object = None,
) -> None:
    """Take note of what the core needs of torch, as the compiled core's `setup` does.

    `codes` gives the stream's code of each dtype; `exchange` is of use to the compiled core only.
    """
    TORCH.tensor, TORCH.parameter, TORCH.strided = tensor, parameter, strided
    TORCH.task_id, TORCH.sequence_nr = task_id, sequence_nr
    TORCH.is_grad_enabled, TORCH.hook_dict = is_grad_enabled, hook_dict
    TORCH.register_hook, TORCH.disable_torch_function = register_hook, disable_torch_function
    TORCH.codes = dict(codes)

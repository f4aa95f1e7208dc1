"""The nodes of a graph come in; the variables of the user's that hold what they made go out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, cast

from torch import Tensor

from tracer.capture.readings import node_behind
from tracer.capture.user_code import UserCode
from tracer.capture.variables import read_scopes


def names_held(fns: Sequence[Any], frame: FrameType, is_user: UserCode) -> dict[int, str]:
    """Name nodes by what holds their output, as seen from `frame`; the innermost frame comes first.

    Only variables themselves are looked at, and no view: asking one for its node may make PyTorch
    renew that. What is another output than a node's first one tells nothing.
    """
    numbers = {fn: number for number, fn in enumerate(fns)}
    names: dict[int, str] = {}
    for name, tensor in _tensors(frame, is_user):
        fn = node_behind(tensor)
        if fn is not None and fn in numbers and tensor.output_nr == 0:
            names.setdefault(numbers[fn], name)
    return names


def _tensors(frame: FrameType, is_user: UserCode) -> Iterator[tuple[str, Tensor]]:
    for scope in read_scopes(frame, is_user):
        for name, value in scope.named():
            # asked of its type, as an object may say anything of its class
            if not issubclass(type(value), Tensor):
                continue
            tensor = cast(Tensor, value)
            if tensor.requires_grad and not tensor._is_view():
                yield name, tensor

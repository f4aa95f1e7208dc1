"""Attributes and methods of tensors come in; the mode sees them without PyTorch's round as long as
a recording lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tracer.capture.core import Attribute, Method

if TYPE_CHECKING:
    from tracer.capture.session import Session

_ATTRIBUTES = {"shape": 0, "dtype": 0, "device": 0, "ndim": 0, "is_sparse": 0, "grad": 1, "data": 2}
"""Each with what reading it may tell of, as `Attribute` takes it."""
_OPERATORS = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add_", "__sub__": "sub", "__isub__": "sub_",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_", "__truediv__": "div",
    "__matmul__": "matmul",
}  # fmt: skip
"""Each with the function that PyTorch calls modes with."""
_METHODS = """
add_ sub_ mul_ div_ zero_ copy_ addcmul_ addcdiv_ lerp_ clamp_ add sub mul div pow square sqrt exp
log tanh sigmoid relu sum mean view reshape transpose permute unsqueeze expand contiguous to float
detach item size dim numel
""".split()  # noqa: SIM905


def install(session: Session) -> None:
    """Stand in for what training loops, models and optimizers ask of tensors all the time."""
    if Attribute is None or Method is None:  # the core in Python would put a frame in between
        return
    tensor, own = torch.Tensor, torch._C.TensorBase.__dict__
    for name, tells in _ATTRIBUTES.items():
        session.replace(tensor, name, Attribute(own[name], session.mode, tells))
    for name, known_as in {**_OPERATORS, **dict(zip(_METHODS, _METHODS, strict=True))}.items():
        session.replace(tensor, name, Method(own[name], session.mode, own[known_as]))

"""A frame in which a `.grad` is written to in; which function of PyTorch's writes out."""

from __future__ import annotations

from types import FrameType

from torch.amp import grad_scaler
from torch.nn.utils import clip_grad

_OF = {clip_grad.__file__: "", grad_scaler.__file__: "GradScaler."}


def function_that_writes(frame: FrameType | None) -> str:
    """The function that user code called, if it is one of those that write to many `.grad`s."""
    found = ""
    while frame is not None:
        prefix, name = _OF.get(frame.f_code.co_filename), frame.f_code.co_name
        if prefix is not None:
            found = found if name.startswith("_") else f"{prefix}{name}"
        elif found:
            break
        frame = frame.f_back
    return found

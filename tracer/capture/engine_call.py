"""The arguments of a call of the engine come in; what is asked of it, by name, goes out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

from tracer.capture.core_in_python.unseen import UNSEEN_FILE
from tracer.capture.user_code import TRACER

_NAMES = (
    "tensors",
    "grad_tensors",
    "keep_graph",
    "create_graph",
    "inputs",
    "allow_unreachable",
    "accumulate_grad",
)


@dataclass(frozen=True, slots=True)
class EngineCall:
    """What `run_backward` is asked for; `kind` is that of `Pass`."""

    kind: str
    outputs: Sequence[Any]
    seeds: Sequence[Tensor | None]
    retain_graph: bool
    create_graph: bool
    inputs: Sequence[Any] | None


def read_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> EngineCall:
    """Name the arguments of `run_backward`, as `torch.autograd` passes them."""
    given = dict(zip(_NAMES, args, strict=False)) | kwargs
    through_python = "backward" if given.get("accumulate_grad") else "grad"
    return EngineCall(
        kind="engine" if _is_direct() else through_python,
        outputs=given["tensors"],
        seeds=given["grad_tensors"],
        retain_graph=bool(given.get("keep_graph")),
        create_graph=bool(given.get("create_graph")),
        inputs=given.get("inputs") or None,
    )


def _is_direct() -> bool:
    """Whether other code calls than the function through which PyTorch enters the engine."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TRACER, UNSEEN_FILE)):
        frame = frame.f_back
    return frame.f_code is not _engine_run_backward.__code__


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured: whatever is read then, it would replay each time."""
    cuda: Any = torch.cuda
    return bool(cuda.is_initialized() and cuda.is_current_stream_capturing())

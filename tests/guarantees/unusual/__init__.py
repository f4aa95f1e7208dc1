"""Programs that use PyTorch in ways a tracer may not expect: each gives all that it computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Program = Callable[[], Any]

PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    """Add a program."""
    PROGRAMS.append(function)
    return function


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random leaf, of three elements where no shape is given."""
    return torch.randn(*(shape or (3,)), dtype=dtype, requires_grad=True)

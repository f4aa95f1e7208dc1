"""PyTorch's own state, which each test must leave as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.autograd.variable import Variable
from torch.optim import optimizer as optimizers
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.hooks import RemovableHandle

from tracer.capture.session import Session


def torch_state() -> dict[str, Any]:
    """What a tracer could leave behind in torch."""
    return {
        "engine": Variable._execution_engine,
        "module call": torch.nn.Module.__dict__["__call__"],
        "function apply": torch.autograd.Function.__dict__["apply"],
        "handle remove": RemovableHandle.__dict__["remove"],
        "inference enter": torch.inference_mode.__dict__["__enter__"],
        "inference exit": torch.inference_mode.__dict__["__exit__"],
        "function modes": len(_get_current_function_mode_stack()),
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "step prehooks": dict(optimizers._global_optimizer_pre_hooks),
        "step posthooks": dict(optimizers._global_optimizer_post_hooks),
        "module hooks": [
            len(hooks)
            for hooks in (
                torch.nn.modules.module._global_forward_hooks,
                torch.nn.modules.module._global_forward_pre_hooks,
                torch.nn.modules.module._global_backward_hooks,
                torch.nn.modules.module._global_backward_pre_hooks,
            )
        ],
        "grad mode": torch.is_grad_enabled(),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "session": Session.active,
    }


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was() -> Iterator[None]:
    """Fail a test after which torch is not what it was before."""
    before = torch_state()
    yield
    assert torch_state() == before

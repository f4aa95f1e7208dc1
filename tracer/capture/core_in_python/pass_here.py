"""The number of the pass that runs where the caller is: in its thread, or a device's of the engine.

The engine takes the state of the thread that enters it along to every thread in which it runs a
node, with what PyTorch lets Python put there.
"""

from __future__ import annotations

import torch

_KEY = "tracer pass"
_is_set, _get, _put = (
    torch._C._is_key_in_tls,
    torch._C._get_obj_in_tls,
    torch._C._stash_obj_in_tls,
)


def pass_here() -> int | None:
    """The pass that runs here, None outside of any."""
    number: int | None = _get(_KEY) if _is_set(_KEY) else None
    return number


def enter_pass(number: int | None) -> None:
    """Have what runs from here on, engine included, belong to a pass, or to none."""
    _put(_KEY, number)

"""A tensor in, the packed entry of what it holds out, for the tensors the C core does not read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tracer.records.stream import (
    DTYPE_CODES,
    ENTRY_NONE,
    ENTRY_PARTIAL,
    ENTRY_STATS,
    ENTRY_UNREAD,
    values_head,
)
from tracer.records.tensors import TensorMeta

if TYPE_CHECKING:
    from tracer.capture.deferred import Deferred

NONE = bytes([ENTRY_NONE])
_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_DEFAULT_DISPATCH = torch.Tensor.__torch_dispatch__
_STAT = struct.Struct("<BIH7d")


_METAS: dict[object, TensorMeta] = {}


def meta_of(tensor: Tensor) -> TensorMeta:
    """Read a tensor's metadata, from a subclass too, without running an operation."""
    nested = tensor.is_nested
    key = (() if nested else tensor.shape, tensor.dtype, tensor.device, tensor.layout, nested)
    meta = _METAS.get(key)
    if meta is None:
        layout = str(tensor.layout).removeprefix("torch.")
        meta = TensorMeta(
            shape=() if nested else tuple(int(size) for size in tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            device=str(tensor.device),
            layout="nested" if nested else layout,
        )
        if len(_METAS) < 4096:
            _METAS[key] = meta
    return meta


def node_behind(tensor: Tensor) -> Any:
    """The `grad_fn` of a tensor, None where it has none or PyTorch forbids to ask for it.

    A view made under `no_grad`, and several views from one call, have none to give once they or
    their base are changed in place: reading it raises RuntimeError, as does using it in backward.
    """
    try:
        return tensor.grad_fn
    except RuntimeError:
        return None


def settled_node(tensor: Tensor) -> Any:
    """The `grad_fn` of a tensor, None too where asking for it may make a node."""
    return None if is_unsettled(tensor) else node_behind(tensor)


def is_unsettled(tensor: Tensor) -> bool:
    """Whether to ask a tensor for its node may make one.

    Of a view that was written to, or whose base was, PyTorch makes a new one when it is first asked
    for: were that us, the node would have another number, and the engine run it at another time.
    """
    base = tensor._base if tensor._is_view() else None
    return base is not None and base.requires_grad and (base.is_inference() or base._version > 0)


def is_leaf(tensor: Tensor) -> bool:
    """Whether a tensor is a leaf; not if PyTorch forbids to ask, as of the views above."""
    try:
        return tensor.is_leaf
    except RuntimeError:
        return False


def runs_own_code(tensor: Tensor) -> bool:
    """Whether asking a tensor for more than its metadata runs code of its class, or warns."""
    kind = type(tensor)
    return kind.__torch_dispatch__ is not _DEFAULT_DISPATCH and kind not in _PLAIN


def address_of(tensor: Tensor) -> int:
    """Where a tensor's values lie, 0 where that cannot be asked."""
    try:
        return 0 if runs_own_code(tensor) else tensor.data_ptr()
    except RuntimeError:  # sparse tensors and wrappers have no pointer
        return 0


def may_ask_for_grad(leaf: Tensor) -> bool:
    """Whether a tensor is a leaf still: else PyTorch warns when asked for its `.grad`."""
    return is_leaf(leaf) or leaf.retains_grad


def grad_of(leaf: Tensor) -> Tensor | None:
    """The `.grad` of a leaf; None for what is one no more."""
    return leaf.grad if may_ask_for_grad(leaf) else None


def has_one_value(entry: bytes) -> bool:
    """Whether an entry of statistics tells that all elements are alike; not of complex ones."""
    if entry[0] != ENTRY_STATS:
        return False
    low, high = struct.unpack_from("<2d", entry, 13)
    return bool(low == high)


class NotNowError(Exception):
    """Why a tensor is not to be read at the moment."""


def why_failed(error: Exception) -> str:
    """What a tensor's entry says of a reading that failed."""
    name = "" if isinstance(error, NotNowError) else f"{type(error).__name__}: "
    return f"{name}{error}"[:200]


class Reader:
    """Packs entries of unusual tensors: other dtypes, layouts, subclasses, what cannot be read."""

    def __init__(
        self,
        *,
        few: int,
        meta: Callable[[TensorMeta], int],
        string: Callable[[str], int],
        deferred: Deferred,
    ) -> None:
        self._few = few
        self._meta = meta
        self._string = string
        self._deferred = deferred

    def __call__(self, tensor: Tensor) -> bytes:
        """Pack what `tensor` holds; never raises for a tensor that cannot be read, but says why."""
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            enabled = torch.is_grad_enabled()
            torch._C._set_grad_enabled(False)
            try:
                return self._read(tensor)
            finally:
                torch._C._set_grad_enabled(enabled)

    def _read(self, tensor: Tensor) -> bytes:
        local = getattr(tensor, "_local_tensor", None)
        if isinstance(local, Tensor):
            tensor = local
        try:
            meta = self._meta(meta_of(tensor))
        except Exception:  # a wrapper that has no storage may refuse even its shape
            return self._unread(0, "its metadata cannot be read")
        is_deferred = tensor.device.type in self._deferred.devices
        reason = _why_unreadable(tensor) or (not is_deferred and _why_not_at_once(tensor))
        if reason:
            return self._unread(meta, reason)
        try:
            return self._deferred.entry(tensor, meta) if is_deferred else self._pack(tensor, meta)
        except Exception as error:  # a reading must never become the program's failure
            return self._unread(meta, why_failed(error))

    def _unread(self, meta: int, reason: str) -> bytes:
        return struct.pack("<BII", ENTRY_UNREAD, meta, self._string(reason))

    def _pack(self, tensor: Tensor, meta: int) -> bytes:
        stored_all = tensor.layout is torch.strided
        flat = tensor.detach() if stored_all else _stored(tensor)
        flat = flat.resolve_conj().resolve_neg().contiguous().reshape(-1)
        name = str(tensor.dtype).removeprefix("torch.")
        if stored_all and flat.numel() <= self._few and name in DTYPE_CODES:
            # a single element may have any stride, and `view` insists on 1
            row = flat.as_strided((flat.numel(),), (1,))
            raw = bytes(row.view(torch.uint8).tolist()) if flat.numel() else b""
            return values_head(meta, DTYPE_CODES[name], flat.numel()) + raw
        return _statistics(flat, meta, tensor.numel())


def _stored(tensor: Tensor) -> Tensor:
    """The values that a sparse tensor stores; no tensor of its kind is made, which may warn."""
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.values()


def _why_unreadable(tensor: Tensor) -> str:
    if type(tensor).__name__ == "FakeTensor":
        return "fake tensors hold no values"
    if tensor.is_nested or tensor.is_quantized:
        return "nested" if tensor.is_nested else "quantized"
    if runs_own_code(tensor):
        return f"{type(tensor).__name__} runs code of its own when read"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "inside a torch.func transform"
    if torch._C._functorch.is_legacy_batchedtensor(tensor):
        return "one of a batch of gradients (is_grads_batched)"
    if tensor.is_meta:
        return "meta tensors hold no values"
    return "its memory was freed" if _is_freed(tensor) else ""


def _is_freed(tensor: Tensor) -> bool:
    """Whether a storage has not the bytes that a tensor stands for, as FSDP leaves parameters
    between uses; PyTorch's own operations would read them all the same."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return False
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    return tensor.untyped_storage().nbytes() < needed


def _why_not_at_once(tensor: Tensor) -> str:
    kind = tensor.device.type
    return "" if kind == "cpu" else f"on {kind}: reading it would wait for the device"


def _statistics(flat: Tensor, meta: int, numel: int) -> bytes:
    """Pack statistics by torch operations in double; what a sparse tensor leaves out is zero."""
    values = flat.abs().to(torch.float64) if flat.is_complex() else flat.to(torch.float64)
    missing = numel - values.numel()
    nans = int(values.isnan().sum())
    infs = int(values.isinf().sum())
    zeros = int((values == 0).sum()) + missing
    if numel == 0:
        low = high = mean = float("nan")
    else:
        low, high = _extremes(values, missing)
        mean = float(values.sum()) / numel
    return _STAT.pack(
        ENTRY_PARTIAL, meta, 0x7F, float(values.norm()), low, high, mean, zeros, nans, infs
    )


def _extremes(values: Tensor, missing: int) -> tuple[float, float]:
    if not values.numel():
        return 0.0, 0.0
    low, high = (float(extreme) for extreme in values.aminmax())
    return (min(low, 0.0), max(high, 0.0)) if missing else (low, high)

"""Forward operations as the function mode sees them: what each is, and what to record of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tracer.capture.core import Op
from tracer.capture.cuts import Cuts, asks_for_shape, tensors_in
from tracer.capture.hook_runs import ACCUMULATE_HOOK, RETAIN_GRAD, TENSOR_HOOK
from tracer.capture.readings import grad_of, is_leaf, is_unsettled, settled_node
from tracer.records.events import Cut, GradRead

if TYPE_CHECKING:
    from tracer.capture.session import Session

OBSERVE, IGNORE, WRITE, SET_GRAD, GET_GRAD, SET_DATA, CUT_DATA, CUT_DETACH = range(8)
"""What the mode does with a function, as `Op` takes it: record it, call it unseen, or record what
it writes to a leaf's data or to its `.grad`, that a `.grad` is read where there can be none, or
that a leaf's history is cut (in C where it can, else through the callbacks)."""

_ACTIONS = {
    "Tensor.grad.__set__": SET_GRAD,
    "Tensor.grad.__get__": GET_GRAD,
    "Tensor.data.__set__": SET_DATA,
    "Tensor.data.__get__": CUT_DATA,
    "Tensor.detach": CUT_DETACH,
}
_TOLD = {"Tensor.data.__get__": "Tensor.data"}
_HOW = {SET_GRAD: ".grad =", SET_DATA: ".data =", CUT_DATA: ".data", CUT_DETACH: "detach"}

Before = Callable[[tuple[Any, ...], Any], Any]
After = Callable[[Any, Any, BaseException | None], None]

_GETTERS_THAT_COMPUTE = frozenset({"T", "mT", "H", "mH", "real", "imag"})
_IGNORED = frozenset(
    """
    backward grad size dim numel nelement stride storage_offset is_contiguous data_ptr element_size
    type is_floating_point is_complex is_signed is_inference has_names get_device untyped_storage
    storage storage_type __len__ __hash__ __repr__ __format__ __dir__ __reduce_ex__ __deepcopy__
    __contains__ ndimension is_same_size _is_view _make_subclass _is_zerotensor is_neg is_conj
    result_type can_cast promote_types is_nonzero is_distributed is_pinned is_set_to is_shared
    set_default_dtype get_default_dtype set_default_device is_tensor is_storage finfo iinfo
    broadcast_shapes save load is_grad_enabled _get_tracing_state names align_as align_to rename
    share_memory_ pin_memory module_load __delitem__ __dlpack__ __dlpack_device__ manual_seed seed
    __torch_function__ sym_size sym_numel sym_stride initial_seed get_rng_state set_rng_state
    handle_torch_function is_vulkan_available set_printoptions _has_compatible_shallow_copy_type
    """.split()  # noqa: SIM905
)
_OF_ZERO_GRADIENT = frozenset(["round", "floor", "ceil", "trunc", "fix", "sign"])
"""Functions that are differentiable by PyTorch's book, with a gradient of zero everywhere."""

_AUGMENTED = frozenset(
    f"__i{name}__"
    for name in (
        "add", "sub", "mul", "matmul", "truediv", "div", "floordiv", "mod", "pow", "and", "or",
        "xor", "lshift", "rshift",
    )
)  # fmt: skip


def qualified_name(function: Any) -> str:
    """The function's name as a user writes it: `torch.mul`, `Tensor.grad.__get__`."""
    name = getattr(function, "__name__", type(function).__name__)
    if name in ("__get__", "__set__", "__delete__"):
        owner = getattr(getattr(function, "__self__", None), "__name__", "?")
        return f"Tensor.{owner}.{name}"
    qualname = getattr(function, "__qualname__", name)
    module = getattr(function, "__module__", None) or ""
    if qualname.startswith(("TensorBase.", "Tensor.", "_TensorBase.")):
        return f"Tensor.{name}"
    if qualname.startswith("_VariableFunctions") or module in ("torch", "torch._C"):
        return f"torch.{name}"
    if module.startswith(("torch._C._nn", "torch.nn.functional")):
        return f"torch.nn.functional.{name}"
    return f"{module}.{qualname}" if module.startswith("torch") else qualname


class _Token:
    """What a `before` found, told apart from a `before` that failed."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Operations:
    """Says what to do for each function that the mode meets, and does what needs Python."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.cuts = Cuts(session)

    # ---- what a function is

    def describe(self, function: Any) -> Op:
        """What to do when this function is called; (function, True) stands for it with `out=`."""
        writes_out = type(function) is tuple
        qualified = qualified_name(function[0] if writes_out else function)
        told = _TOLD.get(qualified, qualified)
        op_id = self._session.recorder.writer.string(told)
        self.cuts.names[op_id] = told
        action, before, after = self._handling(qualified)
        if writes_out:
            action, before, after = WRITE, self._before_write, self._after_write(qualified)
        if before is None or after is None:
            return Op(op_id, action, int(asks_for_shape(qualified.rpartition(".")[2])))
        how = _HOW.get(action) or qualified.removeprefix("Tensor.")
        how_id = self._session.saved_writes.id_of(how)
        return Op(op_id, action, how_id, self._guarded_before(before), self._guarded(after))

    def name_of(self, op: int) -> str:
        """The qualified name of an operation's id, empty for one seen another way."""
        return self.cuts.names.get(op, "")

    def _handling(self, qualified: str) -> tuple[int, Before | None, After | None]:
        name = qualified.rpartition(".")[2]
        special = {
            "torch._set_grad_enabled": (self._keep, self._after_grad_mode),
            "Tensor.register_hook": (self._keep_both, self._after_register(TENSOR_HOOK)),
            "Tensor.register_post_accumulate_grad_hook": (
                self._keep_both,
                self._after_register(ACCUMULATE_HOOK),
            ),
            "Tensor.retain_grad": (self._keep_both, self._after_register(RETAIN_GRAD)),
            "Tensor.grad.__get__": (self._keep, self._after_grad_get),
            "Tensor.grad.__set__": (self._before_grad_set, self._after_grad_set),
            "Tensor.grad.__delete__": (self._before_grad_set, self._after_grad_set),
            "Tensor.data.__get__": (self._keep, self._after_data_get),
            "Tensor.data.__set__": (self._before_data_set, self._after_data_set),
            "Tensor.detach": (self._keep, self._after_detach),
            "Tensor.requires_grad_": (self._before_requires_grad, self._after_requires_grad),
            "Tensor.requires_grad.__set__": (self._before_requires_grad, self._after_requires_grad),
        }.get(qualified)
        if special is not None:
            return _ACTIONS.get(qualified, OBSERVE), special[0], special[1]
        if name in ("__get__", "__set__", "__delete__"):
            computes = qualified.split(".")[1] in _GETTERS_THAT_COMPUTE
            return OBSERVE if computes else IGNORE, None, None
        if name.removesuffix("_") in _OF_ZERO_GRADIENT:
            return OBSERVE, self._keep, self._after_zero_gradient(qualified)
        if name in _IGNORED or (name.startswith("is_") and not name.endswith("_")):
            return IGNORE, None, None
        if _writes(name):
            return WRITE, self._before_write, self._after_write(qualified)
        return OBSERVE, None, None

    # ---- callbacks

    def _keep(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return args

    def _keep_both(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return args, kwargs

    def before_inference(self, args: tuple[Any, ...], kwargs: Any) -> _Token:
        """`inference_mode` is entered or left."""
        return _Token(args)

    def after_inference(self, token: _Token, result: Any, error: BaseException | None) -> None:
        """`inference_mode` was entered or left: no function of torch's tells it."""
        if self._session.is_recording():
            self._guarded(self._after_grad_mode)(token, result, error)

    def _after_grad_mode(self, args: Any, result: Any, error: BaseException | None) -> None:
        if error is None:
            self.cuts.modes.changed()

    def _after_register(self, kind: str) -> After:
        def after(call: Any, result: Any, error: BaseException | None) -> None:
            if error is None:
                args, kwargs = call
                function = (
                    args[1] if len(args) > 1 else (kwargs or {}).get("hook", args[0].retain_grad)
                )
                session = self._session
                session.hooks.added(args[0], kind, function, result, session.mode.here())

        return after

    def _after_grad_get(self, args: Any, result: Any, error: BaseException | None) -> None:
        if error is not None or result is not None:
            return
        tensor = args[0]
        fn = settled_node(tensor)
        if fn is not None or is_unsettled(tensor):
            session = self._session
            recorder = session.recorder
            recorder.emit(
                GradRead(
                    **recorder.stamp(),
                    tensor=recorder.tensor_name(tensor),
                    sequence_nr=fn._sequence_nr() if fn is not None else None,
                    site=recorder.site(session.mode.here()),
                )
            )

    def _before_grad_set(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        tensor = args[0]
        ledger = self._session.ledger
        state = ledger.find(tensor)
        if state is None and tensor.requires_grad and is_leaf(tensor):
            state = ledger.leaf(tensor)
        if state is None:
            return None
        self._session.settle(state)
        return tensor, state, self._session.recorder.entry(grad_of(tensor), state.meta)

    def _after_grad_set(self, token: Any, result: Any, error: BaseException | None) -> None:
        if token is not None and error is None:
            leaf, state, before = token
            session = self._session
            session.ledger.grad_written(leaf, state, ".grad =", session.mode.here(), before=before)

    def _after_data_get(self, args: Any, result: Any, error: BaseException | None) -> None:
        if error is None and isinstance(result, Tensor):
            self._session.ledger.follow_alias(result, args[0])
            self._session.saved_writes.handle_taken(result)
            self.cuts.cut(".data", args[0], result)

    def _before_data_set(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        ledger = self._session.ledger
        targets = ledger.targets(args[:1])
        ledger.read(targets, alone=self._session.engine.idle)
        return targets

    def _after_data_set(self, targets: Any, result: Any, error: BaseException | None) -> None:
        if error is None and targets:
            session = self._session
            session.ledger.written(targets, ".data =", session.mode.here())

    def _after_detach(self, args: Any, result: Any, error: BaseException | None) -> None:
        if error is None and isinstance(result, Tensor):
            self._session.ledger.follow_alias(result, args[0])
            self.cuts.cut("detach", args[0], result)

    def _after_zero_gradient(self, qualified: str) -> After:
        """Tell of an operation that lets no gradient through though it has a node."""

        def after(args: Any, result: Any, error: BaseException | None) -> None:
            session = self._session
            if error is not None or not isinstance(result, Tensor) or session.in_optimizer():
                return
            inputs = tuple(tensors_in(args))
            name = qualified.rpartition(".")[2]
            cut = self.cuts.cut_of(name, inputs, (result,))
            if result.requires_grad:
                cut = Cut("zero gradient", (session.recorder.tensor_name(inputs[0]),))
            op = session.recorder.writer.string(qualified)
            tape = session.recorder.tape
            site, seq, t_ns = session.mode.here(), tape.next_seq(), tape.now()
            self.cuts.emit(op, inputs, (result,), site, seq, t_ns, cut)

        return after

    def _before_requires_grad(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return args[0], args[0].requires_grad

    def _after_requires_grad(self, token: Any, result: Any, error: BaseException | None) -> None:
        tensor: Tensor = token[0]
        required: bool = token[1]
        if error is not None or tensor.requires_grad == required:
            return
        if required:
            self.cuts.cut("requires_grad_(False)", tensor, tensor)
        else:
            self._session.births.note(tensor, self._session.mode.here())
            self._new_leaf(tensor)

    def _new_leaf(self, tensor: Tensor, source: Tensor | None = None) -> None:
        """Tell of a leaf whose values come from a tensor that had a history."""
        loss = self.cuts.severed.find(tensor if source is None else source)
        if loss is not None and is_leaf(tensor):
            self.cuts.cut("new leaf", tensor, tensor, names=loss.names, region=loss.site)

    def before_parameter(self, args: tuple[Any, ...], kwargs: Any) -> _Token:
        """`nn.Parameter(x)` is called."""
        return _Token(args[1] if len(args) > 1 else (kwargs or {}).get("data"))

    def after_parameter(self, token: _Token, result: Any, error: BaseException | None) -> None:
        """`nn.Parameter(x)` made a new leaf of what `x` holds: no function of torch's tells it."""
        if self._session.is_recording():
            self._guarded(self._after_parameter)(token, result, error)

    def _after_parameter(self, source: Any, result: Any, error: BaseException | None) -> None:
        if error is not None or not isinstance(source, Tensor) or not result.requires_grad:
            return
        self._session.births.note(result, self._session.mode.here())
        if not source.requires_grad:
            self._new_leaf(result, source)
        elif result is not source:
            self.cuts.cut("new leaf", source, result)

    def _before_write(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        kwargs = kwargs or {}
        out = kwargs.get("out")
        first = args[:1] or (kwargs.get("tensor", kwargs.get("input")),)
        written = list(tensors_in(first if out is None else (out,)))
        session = self._session
        targets = session.ledger.targets(written)
        for target in targets:
            session.settle(target.state)
        session.ledger.read(targets, alone=session.engine.idle)
        return written, targets, (*args, *kwargs.values())

    def _after_write(self, qualified: str) -> After:
        how = qualified.removeprefix("Tensor.")
        how_id = self._session.saved_writes.id_of(how)
        op = self._session.recorder.writer.string(qualified)

        def after(call: Any, result: Any, error: BaseException | None) -> None:
            if error is not None:
                return
            written, targets, given = call
            session = self._session
            for tensor in written:
                session.mode.note_written(tensor, how_id)
            if targets:
                session.ledger.written(targets, session.writer_name(how), session.mode.here())
            elif not session.in_optimizer() and not _made_nodes(written):
                site, tape = session.mode.here(), session.recorder.tape
                self.cuts.plain(op, given, None, written, site, tape.next_seq(), tape.now())

        return after

    def _guarded_before(self, before: Before) -> Before:
        def guarded(args: tuple[Any, ...], kwargs: Any) -> Any:
            try:
                with torch._C.DisableTorchFunction():
                    return _Token(before(args, kwargs))
            except Exception as fault:
                self._session.recorder.fault(fault)
                return None

        return guarded

    def _guarded(self, after: After) -> After:
        def guarded(token: Any, result: Any, error: BaseException | None) -> None:
            if token is None or self._session.recorder.failed:
                return
            try:
                with torch._C.DisableTorchFunction():
                    after(token.value, result, error)
            except Exception as fault:
                self._session.recorder.fault(fault)

        return guarded


def _made_nodes(written: Iterable[Tensor]) -> bool:
    """Whether the operation that has just written to these tensors is part of a graph."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in written)


def _writes(name: str) -> bool:
    if name in ("__setitem__",) or name in _AUGMENTED:
        return True
    if name.startswith("_fused_"):
        return True
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"

"""Operations that made no node come in; an event of each goes out, with the history that it cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tracer.capture.grad_modes import GradModes, current_grad_mode
from tracer.capture.readings import is_leaf, meta_of, settled_node
from tracer.capture.references import OurRef
from tracer.capture.severed import Loss, Severed
from tracer.records.events import Cut, Forward, TensorRef

if TYPE_CHECKING:
    from tracer.capture.session import Session

_TO_PYTHON = frozenset(
    ["item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "__complex__"]
    + ["__array__"]
)
_TO_NUMPY = ("numpy", "__array__")


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among the values, and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) in (list, tuple):
            for item in value:
                if isinstance(item, Tensor):
                    yield item


class Cuts:
    """What no longer leads to a leaf, and where its history was lost."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._made: dict[int, tuple[OurRef, int]] = {}
        self._most_made = 2048
        self.names: dict[int, str] = {}
        self.severed = Severed()
        self.modes = GradModes(session)

    def kept(self) -> tuple[object, ...]:
        """What the mode must know, and keep up, to tell of a cut itself."""
        return self._made, self.severed.arrays, self._session.saved_writes.handles, OurRef, Loss

    def cut(
        self,
        kind: str,
        source: Tensor,
        result: Tensor,
        *,
        names: tuple[str, ...] = (),
        region: int = 0,
    ) -> None:
        """Enter an operation that takes a tensor's history away, if it has any."""
        if kind in ("detach", ".data") and not source.requires_grad:
            return
        recorder = self._session.recorder
        name = f"Tensor.{kind.removeprefix('.').partition('(')[0]}"
        op = recorder.writer.string(name)
        self.names[op] = name
        names = names or (recorder.tensor_name(source),)
        site, seq, t_ns = self._session.mode.here(), recorder.tape.next_seq(), recorder.tape.now()
        if result is not source and kind != "new leaf":
            self.severed.lose(result, Loss(names, site))
        cut = Cut(kind, names, recorder.site(region))
        self.emit(op, (source,), (result,), site, seq, t_ns, cut)

    def derived(self, op: int, args: tuple[Any, ...], result: Any) -> None:
        """An operation, which the core has recorded, computed from tensors without history."""
        name = self.names[op].rpartition(".")[2]
        if name in _TO_NUMPY:
            self.severed.pass_into_array(args[0], result)
        elif not asks_for_shape(name):
            self.severed.pass_on(tensors_in(args), tensors_in((result,)))

    def plain(
        self,
        op: int,
        args: tuple[Any, ...],
        kwargs: Any,
        result: Any,
        site: int,
        seq: int,
        t_ns: int,
    ) -> None:
        """Record an operation that made no node: outside the graph, or one that cut history."""
        if self._session.in_optimizer():
            return
        name = self.names[op].rpartition(".")[2]
        outputs = tuple(tensors_in((result,)))
        if not outputs and name not in _TO_PYTHON:
            return
        with torch._C.DisableTorchFunction():
            inputs = tuple(tensors_in((*args, *kwargs.values()) if kwargs else args))
            cut = self.cut_of(name, inputs, outputs)
            if cut is not None:
                for tensor in outputs:
                    self.severed.lose(tensor, Loss(cut.tensors, site))
            else:
                self.derived(op, inputs, outputs or result)
            for tensor in outputs:
                if tensor.requires_grad and is_leaf(tensor):
                    self._session.births.note(tensor, site)
            if outputs or cut is not None:
                self.emit(op, inputs, outputs, site, seq, t_ns, cut)

    def cut_of(
        self, name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> Cut | None:
        """What of its inputs' history an operation of this name has cut; None for nothing."""
        losing = [tensor for tensor in inputs if tensor.requires_grad]
        copies = name in ("tensor", "new_tensor")  # may give a new leaf, which requires a gradient
        if not losing or (any(tensor.requires_grad for tensor in outputs) and not copies):
            return None
        if asks_for_shape(name):
            return None
        mode = current_grad_mode()
        if not self.modes.is_the_users(mode):
            return None
        names = tuple(dict.fromkeys(map(self._session.recorder.tensor_name, losing)))
        if mode != "grad":
            return Cut(mode, names, self.modes.region())
        if name in _TO_PYTHON:
            return Cut("numpy" if name in _TO_NUMPY else "item", names)
        return Cut("new tensor" if copies else "not differentiable", names)

    def emit(
        self,
        op: int,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        site: int,
        seq: int,
        t_ns: int,
        cut: Cut | None,
    ) -> None:
        """Enter an operation, told by the id of its name, with what went in and what came out."""
        session = self._session
        recorder = session.recorder
        recorder.emit(
            Forward(
                seq=seq,
                t_ns=t_ns,
                thread=recorder.tape.thread(),
                pass_id=recorder.pass_id(),
                op=session.op_name(op),
                site=recorder.site(site),
                module=session.modules.current_path(),
                grad_mode=current_grad_mode(),
                inputs=tuple(self._ref(tensor) for tensor in inputs[:8]),
                outputs=tuple(self._made_by(tensor, seq) for tensor in outputs[:8]),
                cut=cut,
            )
        )

    def _ref(self, tensor: Tensor) -> TensorRef:
        session = self._session
        state = session.ledger.find(tensor)
        made = self._made.get(id(tensor))
        made_by = made[1] if made is not None and made[0]() is tensor else None
        fn = settled_node(tensor) if made_by is None else None
        if fn is not None:
            origin = session.made_by(fn._sequence_nr())
            made_by = origin[4] if origin is not None else None
        name = session.leaf_name(state) if state is not None else ""
        return TensorRef(meta_of(tensor), made_by, state.id if state is not None else None, name)

    def _made_by(self, tensor: Tensor, seq: int) -> TensorRef:
        if len(self._made) > self._most_made:
            for key in [key for key, held in self._made.items() if held[0]() is None]:
                del self._made[key]
            self._most_made = max(2048, 2 * len(self._made))
        self._made[id(tensor)] = (OurRef(tensor), seq)
        return TensorRef(meta_of(tensor), seq)


def asks_for_shape(name: str) -> bool:
    """Whether a function takes shape and dtype of a tensor, and none of its values."""
    return name.endswith("_like") or (name.startswith("new_") and name != "new_tensor")

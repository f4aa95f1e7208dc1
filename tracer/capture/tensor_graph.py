"""Outputs of a computation in, the graph that torchviz would draw of them out, at any depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tracer.capture.deep import make_room
from tracer.records.tensor_graph import LinkKind, TensorBox, TensorGraph, TensorLink, TensorRole

_SAVED = "_saved_"
_RAW = "_raw_saved_"
_MOST_VIEWS = (
    64  # a chain of views of views: torch keeps one, tensor subclasses may have any number
)

Fn = Any  # torch.autograd.graph.Node is an ABC that the real nodes only pretend to subclass


@dataclass(frozen=True, slots=True)
class Shown:
    """What to show of each function: its attributes, so many characters of each, what it keeps."""

    attributes: bool = False
    saved: bool = False
    most_chars: int = 50


def read_tensor_graph(outputs: object, names: Mapping[str, Tensor], shown: Shown) -> TensorGraph:
    """Read the graph behind all tensors in `outputs`: one tensor, or any nesting of containers.

    What backward has freed is said to be. Raises TypeError where there is no tensor.
    """
    reader = _Reader({id(tensor): name for name, tensor in names.items()}, shown)
    for output in tensors_in(outputs):
        reader.read_output(output)
    reader.link_same_memory()
    make_room(len(reader.functions))
    return TensorGraph(tuple(reader.parts))


def tensors_in(outputs: object) -> list[Tensor]:
    """List the tensors in nested lists, tuples, mappings and dataclasses, in their order."""
    if isinstance(outputs, nn.Module):
        raise TypeError("a module has no graph, what it returned has: make_dot(model(x))")
    found: list[Tensor] = []
    waiting = [outputs]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            found.append(value)
        else:
            waiting += reversed(list(_contents(value)))
    if not found:
        raise TypeError(f"there is no tensor in what was given: {type(outputs).__name__}")
    return found


def _contents(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, part.name) for part in dataclasses.fields(value)]
    return ()


@dataclass(slots=True)
class _Reader:
    """Walks from outputs to leaves and notes boxes and links.

    It holds every function and tensor that it has met, so that none is met twice as another.
    """

    names: Mapping[int, str]
    shown: Shown
    parts: list[TensorBox | TensorLink] = field(default_factory=list)
    functions: dict[Fn, str] = field(default_factory=dict)
    tensors: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    kept: list[tuple[str, Tensor]] = field(default_factory=list)
    entered: set[Fn] = field(default_factory=set)

    def read_output(self, output: Tensor) -> None:
        """Note an output and all behind it, its base too where it is a view."""
        role = TensorRole.OUTPUT
        views: list[TensorLink] = []
        while id(output) not in self.tensors and len(views) < _MOST_VIEWS:
            box = self._box(output, role)
            if output.grad_fn is not None:
                self._walk(output.grad_fn)
                self.parts.append(TensorLink(self._name(output.grad_fn), box))
            if not output._is_view() or output._base is None:
                break
            output, role = output._base, TensorRole.BASE
            views.append(TensorLink(self._id(output), box, LinkKind.VIEW))
        self.parts += reversed(views)

    def link_same_memory(self) -> None:
        """Link what is kept for backward with the box of the very tensor."""
        known = {place: box for box, tensor in self.tensors.values() if (place := _memory(tensor))}
        for box, tensor in self.kept:
            place = _memory(tensor)
            if place in known:
                self.parts.append(TensorLink(known[place], box, LinkKind.SAME))

    def _walk(self, fn: Fn) -> None:
        """Visit depth first, as torchviz does, without its recursion."""
        under_way = [iter((fn,))]
        while under_way:
            ahead = next(under_way[-1], None)
            if ahead is None:
                under_way.pop()
            elif ahead not in self.entered:
                under_way.append(self._visit(ahead))

    def _visit(self, fn: Fn) -> Iterator[Fn]:
        """Note a function with its tensors; give those before it to be visited in between."""
        self.entered.add(fn)
        name = self._name(fn)
        if self.shown.saved:
            for attribute in _saved_attributes(fn):
                self._note_kept(name, attribute, fn)
        leaf = getattr(fn, "variable", None)
        if isinstance(leaf, Tensor):
            self.parts.append(TensorLink(self._box(leaf, TensorRole.LEAF), name))
        self.parts.append(TensorBox(name, TensorRole.FUNCTION, self._label(fn)))
        for before, _ in fn.next_functions:
            if before is not None:
                self.parts.append(TensorLink(self._name(before), name))
                yield before
        self._note_saved_tensors(name, fn)

    def _note_kept(self, function: str, attribute: str, fn: Fn) -> None:
        value = _read(fn, _SAVED + attribute)
        box = f"{function}_{attribute}"
        if isinstance(value, _Unread) and hasattr(fn, _RAW + attribute):
            self.parts.append(TensorLink(function, box, LinkKind.SAVED))
            self._keep(box, f"{attribute}\n {value}", None)
        if isinstance(value, Tensor):
            self.parts.append(TensorLink(function, box, LinkKind.SAVED))
            self._keep(box, _titled(attribute, value), value)
        for number, one in enumerate(value if isinstance(value, tuple) else ()):
            if isinstance(one, Tensor):
                self.parts.append(TensorLink(function, f"{box}_{number}", LinkKind.SAVED))
                self._keep(f"{box}_{number}", _titled(f"{attribute}[{number}]", one), one)

    def _note_saved_tensors(self, function: str, fn: Fn) -> None:
        """Note what a custom function saved: torchviz shows that always."""
        saved = _read(fn, "saved_tensors")
        if isinstance(saved, _Unread):
            self.parts.append(TensorLink(f"{function}_tensors", function, LinkKind.SAVED))
            self._keep(f"{function}_tensors", f"saved tensors\n {saved}", None)
        for number, one in enumerate(saved if isinstance(saved, tuple) else ()):
            if isinstance(one, Tensor):
                label = _titled(self.names.get(id(one), ""), one)
                box = f"{function}_tensor_{number}"
                self.parts.append(TensorLink(box, function, LinkKind.SAVED))
                self._keep(box, label, one)

    def _keep(self, box: str, label: str, tensor: Tensor | None) -> None:
        self.parts.append(TensorBox(box, TensorRole.SAVED, label))
        if tensor is not None:
            self.kept.append((box, tensor))

    def _box(self, tensor: Tensor, role: TensorRole) -> str:
        box = self._id(tensor)
        self.tensors[id(tensor)] = box, tensor
        self.parts.append(TensorBox(box, role, _titled(self.names.get(id(tensor), ""), tensor)))
        return box

    def _id(self, tensor: Tensor) -> str:
        known = self.tensors.get(id(tensor))
        return known[0] if known is not None else f"t{len(self.tensors)}"

    def _name(self, fn: Fn) -> str:
        return self.functions.setdefault(fn, f"f{len(self.functions)}")

    def _label(self, fn: Fn) -> str:
        name = type(fn).__name__
        rows = {key: _described(_read(fn, _SAVED + key)) for key in _saved_attributes(fn)}
        if not (self.shown.attributes and rows):
            return name
        most = max(self.shown.most_chars, 3)
        left = max(map(len, rows))
        right = min(max(map(len, rows.values())), most)
        rule = "-" * max(left + right + 2, len(name))
        return "\n".join(
            [name, rule]
            + [f"{key:<{left}}: {_cut(value, right):>{right}}" for key, value in rows.items()]
        )


class _Unread(str):
    """Why an attribute of a function could not be read."""


def _read(fn: Fn, attribute: str) -> object:
    """Read an attribute; one that is gone, or that user code fails to unpack, says so."""
    try:
        return getattr(fn, attribute, None)
    except RuntimeError as error:
        return _Unread("freed" if "freed" in str(error) else "cannot be read")
    except Exception as error:
        return _Unread(f"cannot be read: {type(error).__name__}")


def _saved_attributes(fn: Fn) -> list[str]:
    return [name[len(_SAVED) :] for name in dir(fn) if name.startswith(_SAVED)]


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return "[saved tensor]"
    if isinstance(value, tuple) and any(isinstance(one, Tensor) for one in value):
        return "[saved tensors]"
    return str(value)


def _cut(text: str, most: int) -> str:
    return f"{text[: most - 3]}..." if len(text) > most else text


def _titled(name: str, tensor: Tensor) -> str:
    return f"{name}\n ({', '.join(str(int(size)) for size in tensor.shape)})"


def _memory(tensor: Tensor) -> object:
    """What two tensors have in common that are the same piece of memory, seen alike."""
    try:
        place = tensor.data_ptr()
        return (place, tensor.shape, tensor.stride()) if place else None
    except (RuntimeError, NotImplementedError):  # sparse, meta, and others without storage
        return None

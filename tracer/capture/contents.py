"""An object comes in; what it holds goes out, each part with the step to it, and runs no code."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import islice
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, cast

from tracer.capture.variables import is_name

MOST_ITEMS = 2_000

Part = tuple[str, object]
Reader = Callable[[Any], Iterable[Part]]
_Slots = tuple[tuple[str, MemberDescriptorType], ...]

_LEADING_NOWHERE = (
    type,
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    CodeType,
    FrameType,
    ModuleType,
)


def find_reader(kind: type) -> Reader | None:
    """Find how to read what objects of a type hold; None where that is nothing with a name.

    Only exact lists, tuples, dictionaries and deques are iterated over, since a class derived from
    one may have code of its own; of other objects the attributes that they hold themselves are
    read, not those that a class computes.
    """
    if kind in (list, tuple, deque):
        return _items_of
    if kind in (dict, OrderedDict, defaultdict):
        return _keyed_items_of
    if issubclass(kind, _LEADING_NOWHERE):
        return None
    if issubclass(kind, tuple):
        return _fields_of
    slots = tuple(_slots_of(kind))
    if not slots:
        return attributes_of if _has_namespace(kind) else None
    return lambda value: (*attributes_of(value), *_read_slots(value, slots))


def attributes_of(value: object, but: Container[object] = ()) -> Iterator[Part]:
    """Read the attributes that an object holds in its `__dict__`, with the step `.name`."""
    for name, part in entries_of(namespace_of(value)):
        if type(name) is str and name not in but and is_name(name):
            yield f".{name}", part


def namespace_of(value: object) -> dict[str, object]:
    """The `__dict__` of an object; empty where it has none of its own."""
    if not _has_namespace(type(value)):
        return {}
    found = object.__getattribute__(value, "__dict__")
    return found if type(found) is dict else {}


def entries_of(values: object) -> list[tuple[Any, Any]]:
    """Copy the entries of a dictionary, whatever its class would give; of anything else none."""
    if not issubclass(type(values), dict):
        return []
    return _copied(dict.items(cast("dict[Any, Any]", values)))


def _items_of(values: Any) -> Iterator[Part]:
    for index, value in enumerate(_copied(values)):
        yield f"[{index}]", value


def _keyed_items_of(values: Any) -> Iterator[Part]:
    for key, value in entries_of(values):
        if type(key) in (str, int):
            yield f"[{key!r}]", value


def _copied(values: Iterable[Any]) -> list[Any]:
    """Copy the first items of a container, which another thread may be changing."""
    try:
        return list(islice(values, MOST_ITEMS))
    except RuntimeError:
        return []


def _fields_of(value: Any) -> Iterator[Part]:
    """Read a named tuple."""
    owners = (own for own in _class_namespaces(type(value)) if "_fields" in own)
    fields = next((own["_fields"] for own in owners), ())
    if type(fields) is tuple:
        for name, part in zip(fields, tuple.__iter__(value), strict=False):
            yield f".{name}", part


def _has_namespace(kind: type) -> bool:
    """Tell a real `__dict__` from one that a class computes."""
    for own in _class_namespaces(kind):
        if "__dict__" in own:
            return type(own["__dict__"]) in (GetSetDescriptorType, MemberDescriptorType)
    return False


def _class_namespaces(kind: type) -> Iterator[Mapping[str, Any]]:
    for cls in type.__getattribute__(kind, "__mro__"):
        yield type.__getattribute__(cls, "__dict__")


def _slots_of(kind: type) -> Iterator[tuple[str, MemberDescriptorType]]:
    for own in _class_namespaces(kind):
        for name, member in list(own.items()):
            if type(member) is MemberDescriptorType and is_name(name):
                yield name, member


def _read_slots(value: object, slots: _Slots) -> Iterator[Part]:
    for name, slot in slots:
        try:
            yield f".{name}", slot.__get__(value)
        except AttributeError:
            continue

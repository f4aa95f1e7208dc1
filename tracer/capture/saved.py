"""A node comes in; what it keeps for backward goes out: tensors' metadata, and plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from tracer.capture.contents import namespace_of
from tracer.capture.readings import meta_of
from tracer.capture.variables import is_name
from tracer.records.graph import SavedTensor, Site
from tracer.records.words import file_line

SiteOf = Callable[[object], Site | None]

_RAW = "_raw_saved_"
_SAVED = "_saved_"
_LONGEST = 120
_Names = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]
_NAMES: dict[Any, _Names] = {}
_MOST_KEPT = 4096
_KNOWN: dict[Any, SavedTensor] = {}
_TOLD: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
"""What was said of ordinary tensors: of thousands that the nodes of a graph keep, few differ."""
_ORDINARY = frozenset((Tensor, torch.nn.Parameter))
_PLAIN = frozenset(
    (int, float, complex, str, bool, type(None), torch.dtype, torch.device, torch.layout)
)


def _attributes_of(fn: Any) -> _Names:
    """Under what nodes of this one's type keep tensors, with where they can be read raw, and under
    what they keep other values."""
    names = _NAMES.get(type(fn))
    if names is None:
        names = _NAMES[type(fn)] = _find_attributes(dir(type(fn)))
    return names


def _find_attributes(names: list[str]) -> _Names:
    tensors = [name.removeprefix(_RAW) for name in names if name.startswith(_RAW)]
    others = [
        name for name in names
        if name.startswith(_SAVED) and name.removeprefix(_SAVED) not in tensors and is_name(name)
    ]  # fmt: skip
    return tuple((_SAVED + name, _RAW + name) for name in tensors), tuple(others)


def saved_tensors(fn: Any) -> tuple[SavedTensor, ...]:
    """What tensors a node keeps for backward, as long as it does; what `saved_tensors_hooks` packed
    into another thing has no metadata.

    The saved variables are read raw: unpacking one that is an output makes a new tensor, and
    unpacking one with hooks runs user code.
    """
    if not _attributes_of(fn)[0]:
        return ()
    return tuple([_describe(attribute, held) for attribute, held in held_tensors(fn)])


def held_tensors(fn: Any) -> Iterator[tuple[str, Any]]:
    """What a node keeps, with the attribute it keeps it under, whether or not it was changed."""
    for attribute, raw_attribute in _attributes_of(fn)[0]:
        raw = _read(fn, raw_attribute)
        if type(raw) is tuple:
            for place, each in enumerate(raw):
                if each.data is not None:
                    yield f"{attribute}[{place}]", each.data
        elif raw is not None:
            held = raw.data
            if held is not None:
                yield attribute, held


def _describe(attribute: str, held: Any) -> SavedTensor:
    try:
        if type(held) not in _ORDINARY or held.is_nested:
            return _seen(attribute, held)
        key = attribute, held.shape, held.dtype, held.device, held.layout
        known = _KNOWN.get(key)
        if known is None:
            if len(_KNOWN) >= _MOST_KEPT:
                _KNOWN.clear()
            known = _KNOWN[key] = _seen(attribute, held)
        return known
    except Exception:  # a subclass may refuse even its shape
        return SavedTensor(attribute, None)


def _seen(attribute: str, held: Any) -> SavedTensor:
    if not isinstance(held, Tensor):
        return SavedTensor(attribute, None)
    return SavedTensor(attribute, meta_of(held), held.numel() * held.element_size())


def _read(fn: Any, name: str) -> Any:
    try:
        return getattr(fn, name)
    except RuntimeError:  # freed by an earlier backward
        return None


def plain_attributes(fn: Any, site_of: SiteOf) -> tuple[tuple[str, str], ...]:
    """The plain values that a node keeps (`_saved_dim`); of a custom `Function` where its forward
    and backward were written, and what was put on its `ctx`."""
    if isinstance(fn, BackwardCFunction):
        return (
            *_places_of(getattr(fn, "_forward_cls", None), site_of),
            *_texts(namespace_of(fn).items()),
        )
    names = _attributes_of(fn)[1]
    if not names:
        return ()
    values = [(name, _read(fn, name)) for name in names]
    told = tuple([(name, repr(value)[:_LONGEST]) for name, value in values if _is_plain(value)])
    if len(_TOLD) >= _MOST_KEPT:
        _TOLD.clear()
    return _TOLD.setdefault(told, told)  # of thousands of nodes that keep the same, one


def _places_of(function: Any, site_of: SiteOf) -> Iterator[tuple[str, str]]:
    for name in ("forward", "backward"):
        site = site_of(getattr(function, name, None))
        if site is not None:
            yield name, file_line(site)


def _texts(values: Any) -> Iterator[tuple[str, str]]:
    for name, value in list(values):
        if is_name(name) and _is_plain(value):
            yield name, repr(value)[:_LONGEST]


def _is_plain(value: object) -> bool:
    """Whether it is a number, a text or the like, or some of them: `repr` runs no user code."""
    if type(value) in _PLAIN:
        return True
    if type(value) in (tuple, list):
        return all(type(each) in _PLAIN for each in value)  # type: ignore[attr-defined]
    return False

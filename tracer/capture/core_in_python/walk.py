"""The roots of a pass in, the graph below them out; a probe on each of its nodes, and off again."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tracer.capture.core_in_python.known import TORCH
from tracer.capture.core_in_python.leaves import Book, Leaf, LeafProbe
from tracer.capture.core_in_python.probes import (
    REARRANGES,
    USER_CODE,
    NodeProbe,
    PassState,
)

if TYPE_CHECKING:
    from tracer.capture.core_in_python.mode import ModeCore

_UNNUMBERED = 2**64 - 1
_COUNT = struct.Struct("<I")
_MOST_LOOSE = 64
_LINK = struct.Struct("<ii")

Walk = tuple[list[Any], bytes, bytes, bytes, list[int], list[tuple[int, Any]], list[bytes]]


def register_hook(hooks: Any, hook: Any) -> Any:
    """Stand in for `_HookMixin._register_hook`: our probes go under their pass's key.

    It is asked for the dict that a hook goes to and for what `register_hook` returns. PyTorch
    numbers its keys, so a string is no one's, and no number is taken from the user's.
    """
    if type(hook) not in (NodeProbe, LeafProbe):
        return TORCH.register_hook(hooks, hook)
    hooks = TORCH.hook_dict() if hooks is None else hooks
    hooks[hook.state.key] = hook
    return hooks, hooks


# ---- walk


def walk(
    mode: ModeCore, roots: list[tuple[Any, int]], signatures: dict[Any, int], hides: bool = False
) -> Walk:
    """Walk a graph from its roots, in first-visit order.

    With `hides` the compiled core hides the nodes from the garbage collector until they are let go
    of, as Python code cannot.

    Returns the nodes, then packed roots, links and signatures as `structure.Walk` has them,
    sequence numbers, (number, variable) of the AccumulateGrads, and for each node which inputs
    receive just what one edge sends.
    """
    numbers: dict[Any, int] = {}
    fns: list[Any] = []

    def number_of(fn: Any) -> int:
        number = numbers.setdefault(fn, len(fns))
        if number == len(fns):
            fns.append(fn)
        return number

    rooted = [(number_of(fn), input_nr) for fn, input_nr in roots]
    links: list[list[tuple[int, int]]] = []
    sequence_nrs: list[int] = []
    signed: list[int] = []
    leaves: list[tuple[int, Any]] = []
    unshared: list[tuple[int, bool]] = []
    for number, fn in enumerate(fns):  # grows as it is walked
        edges = fn.next_functions
        links.append([(-1 if to is None else number_of(to), nr) for to, nr in edges])
        sequence_nr = fn._sequence_nr()
        sequence_nrs.append(sequence_nr)
        is_leaf = sequence_nr == _UNNUMBERED
        made = None if is_leaf else mode.made_by(sequence_nr)
        metas = mode.shared_metas(_metas(fn))
        key = (type(fn), metas) if made is None else (type(fn), metas, *made[:3])
        signed.append(_number(signatures, key))
        if is_leaf and hasattr(fn, "variable"):
            leaves.append((number, fn.variable))
        unshared.append((len(metas) // 3, made is not None or is_leaf))
    return (
        fns,
        b"".join(_LINK.pack(*root) for root in rooted),
        b"".join(_COUNT.pack(len(edges)) + _packed(edges) for edges in links),
        struct.pack(f"<{len(signed)}I", *signed),
        sequence_nrs,
        leaves,
        _unshared(unshared, links, rooted),
    )


_numbering = threading.Lock()


def _number(signatures: dict[Any, int], key: Any) -> int:
    """The number of a signature, the next one for a new one."""
    number = signatures.get(key)
    if number is None:
        with _numbering:
            number = signatures.setdefault(key, len(signatures))
    return number


def _packed(edges: list[tuple[int, int]]) -> bytes:
    return b"".join(_LINK.pack(*edge) for edge in edges)


def _metas(fn: Any) -> tuple[Any, ...]:
    """Shape, dtype and device of each of a node's inputs, as the engine will check them."""
    metas: list[Any] = []
    found = getattr(fn, "_input_metadata", ())
    for meta in found if isinstance(found, tuple) else ():
        try:
            metas += (tuple(meta.shape), meta.dtype, meta.device)
        except Exception:  # nested, or undefined
            metas += (None, None, None)
    return tuple(metas)


def _unshared(
    inputs: list[tuple[int, bool]],
    links: list[list[tuple[int, int]]],
    rooted: list[tuple[int, int]],
) -> list[bytes]:
    """Flags for each node's inputs: 1 where one edge leads and no root's gradient goes.

    All 0 for a node not made in sight: it may have hooks that nobody saw being registered.
    """
    counts = [[0] * count for count, _ in inputs]
    for edges in links:
        for target, input_nr in edges:
            if target >= 0 and input_nr < len(counts[target]):
                counts[target][input_nr] += 1
    for target, input_nr in rooted:
        if input_nr < len(counts[target]):
            counts[target][input_nr] = 2
    shared: dict[bytes, bytes] = {}
    flags = (
        bytes(in_sight and count == 1 for count in one)
        for one, (_, in_sight) in zip(counts, inputs, strict=True)
    )
    return [shared.setdefault(one, one) for one in flags]


# ---- attach

Leaves = dict[int, tuple[Any, Leaf]]
Probe = NodeProbe | LeafProbe


def attach(
    state: PassState,
    book: Book,
    fns: list[Any],
    same: list[bytes],
    links: bytes,
    natures: bytes,
    leaves: Leaves,
    begun: Callable[[], object],
    ended: Callable[[], object],
    wanted: bytes = b"",
) -> tuple[list[Any], list[int], list[Probe | None]]:
    """Put a probe on every node, or on those where `wanted` has a 1.

    `natures` says of each node whether it runs user code, or only rearranges its gradient.
    Returns the dicts that hold a probe under the state's key, the numbers of nodes with other
    hooks, and the probes, None for no probe.
    """
    held: list[Any] = []
    crowded: list[int] = []
    probes: list[Probe | None] = []
    try:
        for number, fn in enumerate(fns):
            leaf = leaves.get(number)
            probe: Probe
            if number < len(wanted) and not wanted[number]:
                probes.append(None)
                continue
            if leaf is not None:
                one = bool(same[number]) and bool(same[number][0])
                probe = LeafProbe(state, book, number, *leaf, same=one)
            elif number < len(natures) and natures[number] == USER_CODE:
                probe = NodeProbe(state, number, same[number], False, begun, ended)
            else:
                probe = NodeProbe(state, number, same[number])
                probe.rearranges = number < len(natures) and natures[number] == REARRANGES
            probes.append(probe)
            if _register(fn, probe, held):
                crowded.append(number)
        _connect(probes, links)
    except BaseException:
        _take_out(state, held)
        raise
    return held, crowded, probes


def _register(fn: Any, probe: Probe, held: list[Any]) -> bool:
    """Register a probe before and after its node; whether there are other hooks."""
    before = fn.register_prehook(probe)
    held.append(before)
    after = fn.register_hook(probe)
    if isinstance(probe, LeafProbe) and len(after) == 1:
        del after[probe.state.key]  # no posthook of the user's: it need not be called
    else:
        held.append(after)
    return len(before) > 1 or len(after) > 1


def _connect(probes: list[Probe | None], links: bytes) -> None:
    """Hand what a node sends a leaf, or one that rearranges it, on: it need not be read again."""
    at = 0
    for probe in probes:
        (count,) = _COUNT.unpack_from(links, at)
        at += _COUNT.size
        for slot in range(count):
            target, _ = _LINK.unpack_from(links, at)
            at += _LINK.size
            if target < 0 and slot < _MOST_LOOSE and isinstance(probe, NodeProbe):
                probe.loose.add(slot)
            other = probes[target] if target >= 0 else None
            takes = other.rearranges if isinstance(other, NodeProbe) else other and other.same
            if takes and isinstance(probe, NodeProbe):
                probe.sinks.append((slot, other))


def detach(state: PassState, held: list[Any], fns: list[Any]) -> None:
    """Take the probes of a pass out of the dicts that hold them, and let go of its nodes."""
    _take_out(state, held)
    let_go(fns)


def _take_out(state: PassState, held: list[Any]) -> None:
    for hooks in held:
        hooks.pop(state.key, None)


def let_go(fns: list[Any]) -> None:
    """Let go of the nodes of a walk."""
    fns.clear()

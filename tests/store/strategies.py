"""Every event and every graph there can be, for property tests."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import strategies as st

from tests.store.recordings import ENCODER, HOOKS, MODULE, SITES
from tracer.records import (
    EVENT_KINDS,
    Cut,
    Edge,
    Event,
    Gradient,
    Graph,
    Node,
    NodeKind,
    Root,
    SavedTensor,
    TensorMeta,
    TensorRef,
)
from tracer.records.statistics import gradient_of_values
from tracer.records.stream import DTYPE_CODES
from tracer.records.tensors import NOT_ASKED
from tracer.store.elements import ELEMENT_TYPES
from tracer.store.frames import GRAD_MODES

U32 = st.integers(0, 2**32 - 1)
SEQS = st.integers(1, 2**63 - 1)
TIMES = st.integers(0, 2**62)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats()
COUNTS = st.integers(0, 2**53)
METAS = st.builds(
    TensorMeta,
    st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    st.sampled_from(["float32", "float8_e4m3fnuz", "quint8"]),
    st.sampled_from(["cpu", "cuda:1"]),
    st.sampled_from(["strided", "sparse_coo"]),
)


@st.composite
def gradients_with_values(draw: st.DrawFn) -> Gradient:
    dtype = draw(st.sampled_from(sorted(DTYPE_CODES)))
    kind = ELEMENT_TYPES[DTYPE_CODES[dtype]]
    count = draw(st.integers(0, 5) | st.sampled_from([255, 256]))
    raw = draw(st.binary(min_size=count * kind.size, max_size=count * kind.size))
    return gradient_of_values(TensorMeta((count,), dtype), kind.unpack(raw))


GRADIENTS = st.one_of(
    st.builds(Gradient, METAS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, COUNTS, COUNTS, COUNTS),
    st.builds(
        Gradient, METAS, *[st.none() | NUMBERS] * 4, *[st.none() | COUNTS] * 3
    ),
    st.builds(Gradient, METAS, unread=TEXTS.filter(bool) | st.just(NOT_ASKED)),
    gradients_with_values(),
)  # fmt: skip
ENTRIES = st.none() | GRADIENTS
TENSORS = st.builds(
    TensorRef, st.none() | METAS, st.none() | SEQS, st.none() | U32, TEXTS
)  # fmt: skip
SITE_OR_NONE = st.none() | st.sampled_from(SITES)
CUTS = st.builds(
    Cut, TEXTS.filter(bool), st.lists(TEXTS, max_size=3).map(tuple), SITE_OR_NONE
)  # fmt: skip
BY_TYPE: dict[str, st.SearchStrategy[object]] = {
    "str": TEXTS,
    "int": U32,
    "bool": st.booleans(),
    "int | None": st.none() | st.integers(0, 2**62),
    "tuple[int, int]": st.tuples(TIMES, TIMES),
    "tuple[int, ...]": st.lists(U32, max_size=4).map(tuple),
    "Site | None": SITE_OR_NONE,
    "Hook": st.sampled_from(HOOKS),
    "Gradient | None": ENTRIES,
    "tuple[Gradient | None, ...]": st.lists(ENTRIES, max_size=3).map(tuple),
    "tuple[TensorRef, ...]": st.lists(TENSORS, max_size=3).map(tuple),
    "Cut | None": st.none() | CUTS,
}
BY_NAME: dict[str, st.SearchStrategy[object]] = {
    "seq": SEQS,
    "t_ns": TIMES,
    "thread": st.integers(0, 0xFFFF),
    "pass_id": st.none() | st.integers(1, 2**32 - 1),
    "forward": st.none() | SEQS,
    "grad_mode": st.sampled_from(GRAD_MODES),
    "count": COUNTS,
}


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Events of one kind, every field drawn by its name or its type."""
    drawn = {
        field.name: BY_NAME[field.name] if field.name in BY_NAME else BY_TYPE[str(field.type)]
        for field in fields(kind)
    }
    return st.builds(kind, **drawn)


EVENTS = st.one_of([events_of(kind) for kind in EVENT_KINDS])

MODULES = st.none() | st.sampled_from([MODULE, ENCODER])
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple)
SAVED = st.builds(SavedTensor, TEXTS, st.none() | METAS, st.none() | COUNTS)
NODES = st.builds(
    Node, st.just(0), TEXTS, st.sampled_from(NodeKind), st.none() | st.integers(0, 2**64 - 2),
    st.lists(st.none() | METAS, max_size=3).map(tuple), st.lists(TEXTS, max_size=2).map(tuple),
    SITE_OR_NONE, TEXTS, MODULES, U32, PAIRS, st.lists(SAVED, max_size=2).map(tuple), PAIRS, TEXTS,
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of any nodes, with edges and roots between any of them."""
    drawn = draw(st.lists(NODES, min_size=1, max_size=8))
    ids = st.integers(0, len(drawn) - 1)
    leaving = draw(st.dictionaries(st.tuples(ids, st.integers(0, 6)), st.tuples(ids, U32)))
    return Graph(
        1,
        tuple(replace(node, id=number) for number, node in enumerate(drawn)),
        tuple(Edge(*place, *end) for place, end in sorted(leaving.items())),
        tuple(draw(st.lists(st.builds(Root, ids, U32), max_size=2))),
        draw(TEXTS),
        draw(st.lists(TEXTS, max_size=2).map(tuple)),
    )

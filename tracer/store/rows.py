"""Records in, rows of the tables out."""

from __future__ import annotations

from typing import NamedTuple

from tracer.records.events import Hook, Leaf, Pass
from tracer.records.graph import ModuleRef, Site
from tracer.records.tensors import TensorMeta
from tracer.records.trace import Run
from tracer.store.columns import Row, numbers_text, pairs_text, plain, strings_text
from tracer.store.entries import Names, encode_entry
from tracer.store.graphs import roots_text


def run_row(run: Run, outcome: str, *, complete: bool) -> Row:
    """The one row of `trace`."""
    return (
        1, plain(run.script), strings_text(run.argv), run.started, plain(run.host), run.pid,
        run.rank, run.world_size, pairs_text(run.versions), plain(run.limits), plain(outcome),
        complete,
    )  # fmt: skip


def meta_row(number: int, meta: TensorMeta) -> Row:
    """A row of `meta`."""
    return number, numbers_text(meta.shape), meta.dtype, meta.device, meta.layout


def site_row(site: Site) -> Row:
    """A row of `site`."""
    return (
        site.id, plain(site.file), site.line, plain(site.function), plain(site.expression),
        strings_text(site.targets), plain(site.statement),
    )  # fmt: skip


def module_row(module: ModuleRef) -> Row:
    """A row of `module`."""
    parent = 0 if module.parent is None else module.parent.id
    return module.id, plain(module.path), plain(module.cls), module.call, parent


def hook_row(hook: Hook, names: Names) -> Row:
    """A row of `hook`."""
    return (
        hook.id, hook.kind, plain(hook.text), plain(hook.subject), names.site(hook.defined),
        names.site(hook.added),
    )  # fmt: skip


def leaf_row(leaf: Leaf, names: Names) -> Row:
    """A row of `leaf`."""
    value = None if leaf.value is None else encode_entry(leaf.value, names)
    grad = None if leaf.grad is None else encode_entry(leaf.grad, names)
    return leaf.id, plain(leaf.name), names.meta(leaf.meta), names.site(leaf.site), value, grad


class Ran(NamedTuple):
    """A pass that ended well, was in no other and recorded by the core alone: what it tells.

    This is what `insert_into(RAN)` takes, and nothing of it is looked at before. `roots` and
    `inputs` are as the writer gave them, `seeds` are entries, and `site` is an id.
    """

    id: int
    graph: int
    kind: str
    site: int
    roots: str
    seeds: bytearray
    retain_graph: int
    inputs: str
    thread: int
    begin_ns: int
    end_ns: int
    node_count: int
    leaf_count: int


def pass_row(run: Pass, names: Names) -> Row:
    """A row of `pass`."""
    outcome = run.outcome
    return (
        run.id, run.graph, run.kind, names.site(run.site),
        roots_text(run.roots),
        b"".join([encode_entry(seed, names) for seed in run.seeds]),
        run.retain_graph, run.create_graph,
        None if run.inputs is None else strings_text(run.inputs),
        run.thread, run.parent, run.begin_ns, run.end_ns,
        plain(outcome.error), plain(outcome.message), outcome.node,
        run.node_count, run.leaf_count, plain(run.torchviz),
    )  # fmt: skip

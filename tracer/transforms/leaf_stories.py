"""A pass in, what is known of each leaf around it out: its value, and who wrote to it and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tracer.records import words
from tracer.records.events import Accumulate, DataWrite, GradWrite, Leaf, Pass
from tracer.records.passes import PassView, events_around, position_of
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord

_PASSES_BACK = 64
_WRITES_AHEAD = 2000
_EVENTS_BACK = 200_000


@dataclass(slots=True)
class LeafStory:
    """One leaf around one pass.

    `value` is what it held then; `emptied` the last write that left its `.grad` None or zero before
    the pass; `grad_writes` and `data_writes` come after the pass. `kept` says that its `.grad` was
    neither None nor zero when the engine added to it; then `since` is the pass that last found it
    empty, None where no pass of the trace did.
    """

    leaf: Leaf
    kept: bool = False
    value: Gradient | None = None
    emptied: GradWrite | None = None
    since: Pass | None = None
    grad_writes: list[GradWrite] = field(default_factory=list)
    data_writes: list[DataWrite] = field(default_factory=list)


def leaf_stories(trace: TraceRecord, view: PassView) -> dict[int, LeafStory]:
    """Tell, by node, the story of each leaf that is in the graph of a pass."""
    leaves = {node: leaf for node, leaf in _leaf_of_node(trace, view).items() if leaf is not None}
    stories = {leaf.id: LeafStory(leaf) for leaf in leaves.values()}
    for event in view.accumulates.values():
        if event.leaf in stories:
            stories[event.leaf].kept = not _is_empty(event.before)
    _add_writes(trace, view, stories)
    _add_values(trace, view, stories)
    _add_since(trace, view, [story for story in stories.values() if story.kept])
    return {node: stories[leaf.id] for node, leaf in leaves.items()}


def _leaf_of_node(trace: TraceRecord, view: PassView) -> dict[int, Leaf | None]:
    ran = view.accumulates
    found = {
        node.id: trace.leaves.get(ran[node.id].leaf) for node in view.graph.leaves if node.id in ran
    }
    others = [node for node in view.graph.leaves if node.id not in ran]
    by_name = {leaf.name: leaf for leaf in trace.leaves.values()} if others else {}
    for node in others:
        found[node.id] = by_name.get(node.variables[0]) if node.variables else None
    return found


def _is_empty(grad: Gradient | None) -> bool:
    return grad is None or words.is_zero(grad)


def _add_writes(trace: TraceRecord, view: PassView, stories: dict[int, LeafStory]) -> None:
    for event in events_around(trace, view, (GradWrite.kind, DataWrite.kind)):
        story = stories.get(event.leaf) if isinstance(event, (GradWrite, DataWrite)) else None
        if story is None:
            continue
        if isinstance(event, DataWrite):
            _add_data_write(story, event, view)
        elif isinstance(event, GradWrite) and event.seq < view.window.begin:
            story.emptied = event if _is_empty(event.after) else None
        elif isinstance(event, GradWrite):
            story.grad_writes.append(event)


def _add_data_write(story: LeafStory, event: DataWrite, view: PassView) -> None:
    if event.seq < view.window.begin:
        story.value = event.after
        return
    if story.value is None:
        story.value = event.before
    story.data_writes.append(event)


def _add_values(trace: TraceRecord, view: PassView, stories: dict[int, LeafStory]) -> None:
    """Find what leaves held that nobody wrote to around the pass: the next or last write tells."""
    missing = {key: story for key, story in stories.items() if story.value is None}
    ahead = trace.events.select(kinds=(DataWrite.kind,), since=view.window.until)
    for looked, event in enumerate(ahead):
        if not missing or looked == _WRITES_AHEAD:
            break
        if isinstance(event, DataWrite) and event.leaf in missing:
            missing.pop(event.leaf).value = event.before
    if not missing:
        return
    since = max(view.window.begin - _EVENTS_BACK, 0)
    for story in missing.values():
        story.value = None if since else story.leaf.value
    for event in trace.events.select(kinds=(DataWrite.kind,), since=since):
        if event.seq >= view.window.begin:
            break
        if isinstance(event, DataWrite) and event.leaf in missing:
            missing[event.leaf].value = event.after


def _add_since(trace: TraceRecord, view: PassView, kept: Iterable[LeafStory]) -> None:
    """Walk back to the pass that found each leaf's `.grad` empty, so many passes and no further."""
    missing = {story.leaf.id: story for story in kept}
    position = position_of(trace.passes, view.record.id) or 0
    for record in reversed(trace.passes[max(position - _PASSES_BACK, 0) : position]):
        if not missing:
            return
        for event in trace.events.select(pass_id=record.id, kinds=(Accumulate.kind,)):
            if isinstance(event, Accumulate) and event.leaf in missing and _is_empty(event.before):
                missing.pop(event.leaf).since = record

"""One node, hook or seed of a pass in, its box out: the words that tell what happened there."""

from __future__ import annotations

from tracer.records import words
from tracer.records.diagram import Box, Line, LineRole, Role, State
from tracer.records.events import GradWrite, HookRun
from tracer.records.graph import Node, NodeKind, Site
from tracer.records.passes import PassView
from tracer.records.tensors import Gradient
from tracer.records.told import told, total
from tracer.transforms.leaf_stories import LeafStory
from tracer.transforms.scene import Scene

NODE_ROLES = {
    NodeKind.OPERATION: Role.OPERATION,
    NodeKind.ACCUMULATE: Role.LEAF,
    NodeKind.CUSTOM: Role.CUSTOM,
    NodeKind.HOOK_WRAPPER: Role.WRAPPER,
    NodeKind.COMPILED: Role.COMPILED,
}
"""What the box of a node stands for."""

_LONGEST_TITLE = 52


def node_box(scene: Scene, node: Node) -> Box:
    """Draw an operation or a leaf."""
    view = scene.view
    event = view.runs.get(node.id) or view.accumulates.get(node.id)
    body = _leaf_lines(scene, node) if node.is_leaf else _operation_lines(scene, node)
    alarms = _alarms(view, node)
    title = Line(LineRole.TITLE, words.shorten(scene.titles[node.id], _LONGEST_TITLE))
    received = view.received(node.id)
    return Box(
        f"n{node.id}", NODE_ROLES[node.kind], (title, *body, *alarms),
        step=view.steps.get(event.seq) if event is not None else None, nodes=(node.id,),
        tooltip=node_tooltip(scene, node), link=_link(node.site),
        state=_state(view, node, received, bool(alarms)),
        magnitude=received.norm if received is not None else None,
    )  # fmt: skip


def _state(view: PassView, node: Node, received: Gradient | None, alarmed: bool) -> State:
    if alarmed or words.not_finite(received):
        return State.WRONG
    if not view.ran(node.id) and not _is_returned(view, node):
        return State.IDLE
    return State.ZERO if words.is_zero(received) else State.NORMAL


def _link(site: Site | None) -> str:
    return f"{site.file}:{site.line}" if site is not None else ""


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


# ---- operations


def _operation_lines(scene: Scene, node: Node) -> tuple[Line, ...]:
    view = scene.view
    lines = [Line(LineRole.DETAIL, _operation_detail(scene, node))]
    lines += _sums(scene, node)
    lines += _read_lines(scene, node)
    run = view.runs.get(node.id)
    if run is None:
        lines.append(_not_run(view, node))
    elif _is_returned(view, node):
        lines.append(_returned(view, node))
    elif any(map(words.is_zero, run.returned)) and not any(map(words.is_zero, run.received)):
        if all(gradient is None or words.is_zero(gradient) for gradient in run.returned):
            lines.append(Line(LineRole.NOTE, "zero begins here: it passes nothing on"))
    elif any(map(words.is_zero, run.received)):
        lines.append(Line(LineRole.NOTE, "receives exactly zero"))
    if node.note:
        lines.append(Line(LineRole.NOTE, words.shorten(node.note, 60)))
    if scene.with_saved:
        lines += [Line(LineRole.NOTE, f"keeps {words.saved(kept)}") for kept in node.saved]
    return tuple(lines)


def _operation_detail(scene: Scene, node: Node) -> str:
    site = node.site
    more = f" and {len(node.outputs) - 1} more" if len(node.outputs) > 1 else ""
    shape = words.meta(node.outputs[0]) + more if node.outputs else ""
    place = scene.place(site)
    if site is not None and not (node.module is not None and node.module.path):
        place += words.function(site, beside=scene.view.record.site)
    call = f"call {node.call}" if site is not None and site.id in scene.repeated else ""
    return _joined(words.shorten(node.name, 40), shape, place, call)


def _sums(scene: Scene, node: Node) -> list[Line]:
    """Say how the contributions to each input add up, unless a hook's box says it before."""
    inputs = range(max(len(node.outputs), 1))
    hooked = {hook.input_nr or 0 for hook in input_hooks(scene.view, node.id)}
    return [
        line
        for input_nr in inputs
        if input_nr not in hooked
        for line in _sum(scene, node, input_nr)
    ]


def _sum(scene: Scene, node: Node, input_nr: int) -> list[Line]:
    parts = scene.view.arriving(node.id, input_nr)
    if len(parts) < 2:
        return []
    name = node.variables[input_nr] if input_nr < len(node.variables) else ""
    if node.is_leaf and not scene.view.hooks.get(node.id):
        name = ""  # the title has it
    if not name and len(node.outputs) > 1:
        name = f"input {input_nr}"
    whole = told(scene.view.arrived(node.id, input_nr))
    text = total([told(part.gradient) for part in parts], whole)
    return [Line(LineRole.SUM, f"{words.shorten(name, 24)} receives {text}".strip())]


def _read_lines(scene: Scene, node: Node) -> list[Line]:
    lines = []
    for hook in scene.view.hooks.get(node.id, ()):
        if hook.hook.kind == "retain_grad" and hook.after:
            text = f"{hook.hook.subject}.grad = {words.tensor(hook.after[0])} (retain_grad)"
            lines.append(Line(LineRole.GRAD, text))
    read = scene.reads.get(node.id)
    if read is not None and not lines:
        lines.append(Line(LineRole.NOTE, f"{read.tensor}.grad → None: not a leaf"))
    return lines


def _not_run(view: PassView, node: Node) -> Line:
    if _is_returned(view, node):
        return _returned(view, node)
    failed = not view.record.outcome.ok
    return Line(LineRole.NOTE, "not reached: the pass failed" if failed else "not run in this pass")


def _is_returned(view: PassView, node: Node) -> bool:
    """Whether `torch.autograd.grad` was asked for the gradient that arrived here.

    An input without a name may be any tensor that a gradient reached and that did not run.
    """
    record = view.record
    if record.kind != "grad" or not record.inputs or not record.outcome.ok:
        return False
    named = bool(set(node.variables).intersection(filter(None, record.inputs)))
    return bool(view.arriving(node.id)) and (
        named or ("" in record.inputs and not view.ran(node.id))
    )


def _returned(view: PassView, node: Node) -> Line:
    parts, hooks = view.arriving(node.id), input_hooks(view, node.id)
    text = "the sum of what arrives" if len(parts) > 1 else words.tensor(parts[0].gradient)
    if view.arrived(node.id) is not None:
        text = words.tensor(view.arrived(node.id))
    if hooks and hooks[-1].after:
        text = words.tensor(hooks[-1].after[0])
    return Line(LineRole.GRAD, f"grad() returns {text}")


# ---- leaves


def _leaf_lines(scene: Scene, node: Node) -> tuple[Line, ...]:
    view, story = scene.view, scene.stories.get(node.id)
    lines = [Line(LineRole.DETAIL, _leaf_detail(node, story))]
    lines += _sums(scene, node)
    if story is not None and story.emptied is not None:
        write = story.emptied
        text = (
            f".grad  {words.change(write.before, write.after)}  {_by(scene, write.how, write.site)}"
        )
        lines.append(Line(LineRole.NOTE, text))
    if node.id in view.accumulates:
        lines.append(Line(LineRole.GRAD, grad_change(view, node)))
    else:
        lines.append(_not_run(view, node))
    if story is not None:
        lines += _story_lines(scene, story)
    return tuple(lines)


def grad_change(view: PassView, node: Node) -> str:
    """`.grad  None → 2`, or that the pass did not reach the leaf."""
    event = view.accumulates.get(node.id)
    if event is None:
        return _not_run(view, node).text
    return f".grad  {words.accumulation(event.before, event.incoming, event.after)}"


def _leaf_detail(node: Node, story: LeafStory | None) -> str:
    meta = words.meta(
        story.leaf.meta if story is not None else node.outputs[0] if node.outputs else None
    )
    value = story.value if story is not None else None
    text = words.tensor(value) if value is not None else ""
    known = text and not text.startswith(("‖", "?", "not read"))
    return f"leaf · {meta} = {text}" if known else f"leaf · {meta}"


def _by(scene: Scene, how: str, site: Site | None) -> str:
    """`(.grad = line 9)`: what wrote, and where."""
    return f"({' '.join(part for part in (words.writer(how, site), scene.place(site)) if part)})"


def not_zeroed(scene: Scene, story: LeafStory) -> str:
    """Say since when nothing has emptied a leaf's `.grad`."""
    if story.since is None:
        return "not zeroed since before the trace began"
    place = scene.place(story.since.site)
    return f"not zeroed since pass {story.since.id}" + (f" ({place})" if place else "")


def _story_lines(scene: Scene, story: LeafStory) -> list[Line]:
    lines = []
    if story.kept:
        lines.append(Line(LineRole.NOTE, not_zeroed(scene, story)))
    for write in story.grad_writes[:3]:
        if not _empties(write):
            text = f".grad  {words.change(write.before, write.after)}"
            lines.append(Line(LineRole.GRAD, f"{text}  {_by(scene, write.how, write.site)}"))
    if story.data_writes:
        first, last = story.data_writes[0], story.data_writes[-1]
        values = words.change(first.before, last.after, norm="‖x‖")
        text = f"then value {values}  {_by(scene, last.how, last.site)}"
        lines.append(Line(LineRole.NOTE, text))
    return lines


def _empties(write: GradWrite) -> bool:
    return write.after is None or words.is_zero(write.after)


# ---- what went wrong


def _alarms(view: PassView, node: Node) -> list[Line]:
    outcome = view.record.outcome
    lines = []
    if outcome.node == node.id and outcome.error:
        lines.append(
            Line(LineRole.ALARM, words.shorten(f"raised {outcome.error}: {outcome.message}", 60))
        )
    run, accumulate = view.runs.get(node.id), view.accumulates.get(node.id)
    if run is not None:
        bad_in = next(filter(None, map(words.not_finite, run.received)), "")
        bad_out = next(filter(None, map(words.not_finite, run.returned)), "")
        if bad_out and not bad_in:
            what = "NaN" if "NaN" in bad_out else "Inf"
            lines.append(Line(LineRole.ALARM, f"{what} begins here: returns {bad_out}"))
        elif bad_in:
            lines.append(Line(LineRole.ALARM, f"receives {bad_in}"))
    elif accumulate is not None and words.not_finite(accumulate.incoming):
        lines.append(Line(LineRole.ALARM, f"receives {words.not_finite(accumulate.incoming)}"))
    return lines


# ---- hooks


_AT_OUTPUT = ("tensor hook", "multi-grad hook")
_BEFORE = ("prehook", "module backward prehook")
_AFTER = ("posthook", "module backward hook", "accumulate hook")


def input_hooks(view: PassView, node: int) -> list[HookRun]:
    """The tensor hooks that ran on what arrived at a node, in order."""
    return [run for run in view.hooks.get(node, ()) if run.hook.kind in _AT_OUTPUT]


def prehooks(view: PassView, node: int) -> list[HookRun]:
    """The hooks that ran before a node, on all its inputs."""
    return [run for run in view.hooks.get(node, ()) if run.hook.kind in _BEFORE]


def posthooks(view: PassView, node: int) -> list[HookRun]:
    """The hooks that ran after a node, on what it returned, or on a leaf's new `.grad`."""
    return [run for run in view.hooks.get(node, ()) if run.hook.kind in _AFTER]


def hook_box(scene: Scene, run: HookRun, node: Node, *, first: bool) -> Box:
    """Draw one run of a hook; the first on an input also says how the contributions add up."""
    hook = run.hook
    lines = [Line(LineRole.TITLE, words.shorten(f"hook: {hook.text}", _LONGEST_TITLE))]
    lines.append(Line(LineRole.DETAIL, _hook_detail(scene, run)))
    if first:
        lines += _sum(scene, node, run.input_nr or 0)
    if run.raised:
        lines.append(Line(LineRole.ALARM, f"raised {run.raised}"))
    else:
        lines.append(
            Line(LineRole.HOOK, words.hook_effect(run.before, run.after, changed=run.changed))
        )
    before = run.before[0] if run.before else None
    return Box(
        f"h{run.seq}", Role.HOOK, tuple(lines), step=scene.view.steps.get(run.seq),
        nodes=(node.id,), tooltip=_hook_tooltip(run), link=_link(hook.defined or hook.added),
        state=State.WRONG if run.raised or any(map(words.not_finite, run.after)) else State.NORMAL,
        magnitude=before.norm if before is not None else None,
    )  # fmt: skip


def _hook_detail(scene: Scene, run: HookRun) -> str:
    hook = run.hook
    subject = f" on {words.shorten(hook.subject, 24)}" if hook.subject else ""
    added = (
        f"added {scene.place(hook.added)}" if hook.added is not None else "added before the trace"
    )
    removed = ""
    if hook.id in scene.removed:
        removed = f"removed {scene.place(scene.removed[hook.id])}".rstrip()
    return _joined(f"{hook.kind}{subject}", added, removed)


# ---- seeds


def seed_box(number: int, seed: Gradient | None, *, given: bool) -> Box:
    """Draw the gradient that a backward call starts a root with."""
    if given and seed is not None:
        meta = f" · {words.meta(seed.meta)}" if seed.meta.shape else ""
        text = f"gradient = {words.tensor(seed)}{meta}"
    else:
        text = "gradient = 1 (implicit)"
    return Box(
        f"s{number}", Role.SEED, (Line(LineRole.DETAIL, text),), tooltip=words.statistics(seed)
    )


# ---- tooltips


def node_tooltip(scene: Scene, node: Node) -> str:
    """Say everything that is known of a node, in lines."""
    view = scene.view
    lines = [node.name, scene.titles[node.id]]
    if node.site is not None:
        lines.append(f"{node.site.file}:{node.site.line} in {node.site.function}")
    run, accumulate = view.runs.get(node.id), view.accumulates.get(node.id)
    if run is not None:
        if run.end_ns is not None and run.end_ns > run.t_ns:
            lines.append(f"ran {words.duration(run.end_ns - run.t_ns)}")
        lines += [f"received {words.statistics(gradient)}" for gradient in run.received[:8]]
        lines += [f"returned {words.statistics(gradient)}" for gradient in run.returned[:8]]
    elif accumulate is not None:
        lines.append(f".grad before: {words.statistics(accumulate.before)}")
        lines.append(f"incoming: {words.statistics(accumulate.incoming)}")
        lines.append(f".grad after: {words.statistics(accumulate.after)}")
    lines += [f"keeps {words.saved(kept)}" for kept in node.saved[:8]]
    return "\n".join(map(words.one_line, lines))


def _hook_tooltip(run: HookRun) -> str:
    hook = run.hook
    lines = [f"{hook.kind}: {hook.text}"]
    if hook.defined is not None:
        lines.append(f"written {hook.defined.file}:{hook.defined.line}")
    lines += [f"before {words.statistics(gradient)}" for gradient in run.before[:8]]
    lines += [f"after {words.statistics(gradient)}" for gradient in run.after[:8]]
    return "\n".join(map(words.one_line, lines))

"""The kinds of event, one dataclass each: everything that happens to a gradient, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tracer.records.graph import Root, Site
from tracer.records.tensors import Gradient, TensorMeta


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf tensor that received, or could receive, a `.grad`; its `id` is its own for life.

    `value` is what it held when the trace first met it; `DataWrite` events tell how that changed.
    `grad` is what its `.grad` held then (None: it was None).
    """

    id: int
    name: str
    meta: TensorMeta
    site: Site | None = None
    value: Gradient | None = None
    grad: Gradient | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A user's hook. `kind` is one of `tensor hook`, `prehook`, `posthook`, `accumulate hook`,
    `multi-grad hook`, `retain_grad`, `module backward hook`, `module backward prehook`.

    `text` is its source (`grad * grad` for `lambda grad: grad * grad`, else its qualified name);
    `defined` is where the function was written, `added` where it was registered (None: before the
    trace began); `subject` is the name of the tensor, node or module it is on.
    """

    id: int
    kind: str
    text: str
    subject: str = ""
    defined: Site | None = None
    added: Site | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass ended: `ok`, or the exception's type and message and the node it came from."""

    error: str = ""
    message: str = ""
    node: int | None = None

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of the autograd engine. `id` counts from 1.

    `kind` is `backward`, `grad` or `engine` (entered directly). `seeds` are the gradients given for
    the roots, None for an implicit one. `inputs` are the names given as `inputs=`. `node_count` and
    `leaf_count` are what the engine really executed. `site` is the line of the backward call.
    `end_ns` is None for a pass that never ended (the process was killed).
    """

    id: int
    graph: int
    kind: str = "backward"
    site: Site | None = None
    roots: tuple[Root, ...] = ()
    seeds: tuple[Gradient | None, ...] = ()
    retain_graph: bool = False
    create_graph: bool = False
    inputs: tuple[str, ...] | None = None
    thread: int = 0
    parent: int | None = None
    begin_ns: int = 0
    end_ns: int | None = None
    outcome: Outcome = Outcome()
    node_count: int = 0
    leaf_count: int = 0
    torchviz: str = ""


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as an operation saw it: metadata and, where known, the event that made it.

    `made_by` is the `seq` of the forward event whose output it is; `leaf` the id of the leaf it is.
    """

    meta: TensorMeta | None = None
    made_by: int | None = None
    leaf: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where a tensor that carries history loses it.

    `kind` is `no_grad`, `inference`, `detach`, `.data`, `item`, `numpy`, `new tensor`,
    `not differentiable`, `requires_grad_(False)`, `new leaf` (made from one that was severed) or
    `zero gradient` (`round`: it has a node that sends zeros); `tensors` are the names of those that
    lost it. `region` is where the grad mode was chosen, or where a new leaf had been severed.
    """

    kind: str
    tensors: tuple[str, ...] = ()
    region: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have: order in the process, nanoseconds since it began, thread, pass."""

    kind: ClassVar[str] = ""
    seq: int
    t_ns: int = 0
    thread: int = 0
    pass_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward(Event):
    """One forward operation that user code ran; `sequence_nrs` is the half-open range of numbers of
    the nodes it created (empty: none). `grad_mode` is `grad`, `no_grad` or `inference`."""

    kind: ClassVar[str] = "forward"
    op: str
    site: Site | None = None
    module: str = ""
    sequence_nrs: tuple[int, int] = (0, 0)
    grad_mode: str = "grad"
    inputs: tuple[TensorRef, ...] = ()
    outputs: tuple[TensorRef, ...] = ()
    cut: Cut | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradMode(Event):
    """Entry to or exit from `no_grad`, `enable_grad`, `inference_mode`, `set_grad_enabled`.

    `mode` is what holds from here on: `grad`, `no_grad` or `inference`."""

    kind: ClassVar[str] = "grad_mode"
    mode: str
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAdded(Event):
    """A hook was registered."""

    kind: ClassVar[str] = "hook_added"
    hook: Hook
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRemoved(Event):
    """A hook's handle was removed."""

    kind: ClassVar[str] = "hook_removed"
    hook: Hook
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassBegin(Event):
    """A backward pass begins: the autograd engine was entered."""

    kind: ClassVar[str] = "pass_begin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassEnd(Event):
    """A backward pass ended: the engine returned or raised."""

    kind: ClassVar[str] = "pass_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRun(Event):
    """Execution of a node. `t_ns` is its begin. `received` are the `grad_outputs` after tensor
    hooks and prehooks; `returned` the `grad_inputs` after posthooks, one for each
    `next_functions` entry:
    the contribution that flows over that edge. `end_ns` is None for a node that raised."""

    kind: ClassVar[str] = "node"
    node: int
    order: int
    end_ns: int | None = None
    received: tuple[Gradient | None, ...] = ()
    returned: tuple[Gradient | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun(Event):
    """Run of a user's hook: what it was given and what there was after it, on which node
    (`input_nr` where it was given the gradient of one input).

    `raised` is the exception's type where it raised; `removed` says that it ran though its handle
    had been removed: PyTorch had baked it in during forward."""

    kind: ClassVar[str] = "hook"
    hook: Hook
    node: int | None = None
    input_nr: int | None = None
    before: tuple[Gradient | None, ...] = ()
    after: tuple[Gradient | None, ...] = ()
    changed: bool = False
    raised: str = ""
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulate(Event):
    """Write to a leaf's `.grad` by the engine: after = before + incoming (or incoming alone)."""

    kind: ClassVar[str] = "accumulate"
    leaf: int
    node: int
    order: int
    end_ns: int | None = None
    before: Gradient | None = None
    incoming: Gradient | None = None
    after: Gradient | None = None


UNSEEN = "a write that could not be observed"
"""How a leaf or its `.grad` came to hold something else than the last entry left: through C++ code,
another thread's kernel, a numpy view. Entered at the next observation, with no site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradWrite(Event):
    """A change of a leaf's `.grad` by user code; `how` is what did it: `.grad =`, `zero_`,
    `clip_grad_norm_`, … `a write that could not be observed` is a balance error: nobody saw what
    did it, only that the `.grad` was another at the next look."""

    kind: ClassVar[str] = "grad_write"
    leaf: int
    how: str
    before: Gradient | None = None
    after: Gradient | None = None
    site: Site | None = None

    @property
    def unseen(self) -> bool:
        """Whether this is a balance error."""
        return self.how == UNSEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWrite(Event):
    """A change of a leaf's values; `how` is what did it: `.data =`, `sub_`, `SGD.step`, … or
    `a write that could not be observed`, as in `grad_write`."""

    kind: ClassVar[str] = "data_write"
    leaf: int
    how: str
    before: Gradient | None = None
    after: Gradient | None = None
    site: Site | None = None

    @property
    def unseen(self) -> bool:
        """Whether this is a balance error."""
        return self.how == UNSEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedWrite(Event):
    """What a node kept for backward, as its `attribute`, was written to before the node ran.

    `version` is what the write made it, which PyTorch refuses to compute from: the pass raised.
    None: the write went through `.data`, was not counted, and the node computed from what it left.
    """

    kind: ClassVar[str] = "saved_write"
    node: int
    attribute: str
    how: str
    version: int | None = None
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradRead(Event):
    """User code read `.grad` of a non-leaf and got None; `tensor` is its name, `sequence_nr` its
    node's number (None: to ask for the node would have made one)."""

    kind: ClassVar[str] = "grad_read"
    tensor: str
    sequence_nr: int | None = None
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerStep(Event):
    """`Optimizer.step` ended; `leaves` are the parameters it holds."""

    kind: ClassVar[str] = "optimizer_step"
    optimizer: str
    site: Site | None = None
    leaves: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompute(Event):
    """A checkpointed region ran again; `forward` is the `seq` at which it began to run first: the
    operations that it repeats are those of its thread from there on."""

    kind: ClassVar[str] = "recompute"
    forward: int | None = None
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Event):
    """`tracer.mark(text)`."""

    kind: ClassVar[str] = "mark"
    text: str
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Event):
    """`tracer.pause()`: nothing is recorded until the one that is `resumed`, `tracer.resume()`."""

    kind: ClassVar[str] = "pause"
    resumed: bool = False
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Event):
    """Something the recorder left out, and why."""

    kind: ClassVar[str] = "dropped"
    count: int
    reason: str


EVENT_KINDS: tuple[type[Event], ...] = (
    Forward,
    GradMode,
    HookAdded,
    HookRemoved,
    PassBegin,
    PassEnd,
    NodeRun,
    HookRun,
    Accumulate,
    GradWrite,
    DataWrite,
    GradRead,
    OptimizerStep,
    Recompute,
    Mark,
    Dropped,
    Pause,
    SavedWrite,
)

"""Some nodes of a pass in; what happened at all of them together, in numbers, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracer.records import words
from tracer.records.events import Accumulate, NodeRun
from tracer.records.passes import PassView
from tracer.records.tensors import Gradient


@dataclass(frozen=True, slots=True)
class Norms:
    """The gradients among several that are known: the least and the largest norm, the norm of all
    taken together as one vector (the root of the sum of the norms' squares), and how many there
    are, are exactly zero, and hold NaN or Inf."""

    least: float | None = None
    most: float | None = None
    together: float | None = None
    count: int = 0
    zeros: int = 0
    wrong: int = 0

    @property
    def text(self) -> str:
        """`‖g‖ 0.1 … 3.2`, `‖g‖ 2` where all agree, `0` where all are zero, or what is wrong."""
        if self.wrong:
            return f"NaN or Inf in {self.wrong:,} of {self.count:,}"
        if self.count and self.zeros == self.count:
            return "0"
        if self.least is None or self.most is None:
            return ""
        ends = dict.fromkeys((words.brief(self.least), words.brief(self.most)))
        return f"‖g‖ {' … '.join(ends)}"

    @property
    def sentence(self) -> str:
        """All of it, for a tooltip."""
        facts = [words.count(self.count, "gradient")]
        if self.least is not None and self.most is not None:
            facts.append(f"norms {words.number(self.least)} to {words.number(self.most)}")
        if self.together is not None and self.count > 1:
            facts.append(f"all taken together as one vector {words.number(self.together)}")
        facts += [f"{self.zeros:,} exactly zero"] * (self.zeros > 0)
        facts += [f"{self.wrong:,} with NaN or Inf"] * (self.wrong > 0)
        return ", ".join(facts)


def norms_of(gradients: Iterable[Gradient | None]) -> Norms:
    """Take the norms of all gradients that there are; one with NaN or Inf has none."""
    seen = [gradient for gradient in gradients if gradient is not None]
    wrong = sum(bool(gradient.nans or gradient.infs) for gradient in seen)
    norms = [g.norm for g in seen if g.norm is not None and math.isfinite(g.norm)]
    return Norms(
        min(norms, default=None), max(norms, default=None),
        math.hypot(*norms) if norms else None,
        len(seen), sum(map(words.is_zero, seen)), wrong,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened at some nodes: the gradients they received, how many of the `nodes` are
    `leaves` and how many `ran`, how long that took, how many hooks ran, and where something began
    to be wrong: the first node, in the engine's order, that made NaN or Inf, or raised."""

    received: Norms
    nodes: int
    leaves: int
    ran: int
    ns: int
    hooks: int
    broke: int | None = None
    raised: bool = False


def tally(view: PassView, nodes: Sequence[int]) -> Tally:
    """Count what happened in a pass at some of its graph's nodes."""
    runs = [view.runs[node] for node in nodes if node in view.runs]
    added = [view.accumulates[node] for node in nodes if node in view.accumulates]
    received = [gradient for run in runs for gradient in run.received]
    received += [event.incoming for event in added]
    raised = view.record.outcome.node in nodes if view.record.outcome.error else False
    bad = [run for run in runs if _makes_wrong(run.received, run.returned)]
    first = min(bad, key=lambda run: run.seq).node if bad else None
    return Tally(
        received=norms_of(received),
        nodes=len(nodes),
        leaves=sum(view.graph.nodes[node].is_leaf for node in nodes),
        ran=len(runs) + len(added),
        ns=_spent(runs) + _spent(added),
        hooks=sum(len(view.hooks[node]) for node in nodes if node in view.hooks),
        broke=view.record.outcome.node if raised else first,
        raised=raised,
    )


def spent(view: PassView, nodes: Sequence[int]) -> int:
    """Sum up how many nanoseconds the nodes ran."""
    runs = [view.runs[node] for node in nodes if node in view.runs]
    added = [view.accumulates[node] for node in nodes if node in view.accumulates]
    return _spent(runs) + _spent(added)


def _spent(runs: Sequence[NodeRun | Accumulate]) -> int:
    return sum(run.end_ns - run.t_ns for run in runs if run.end_ns is not None)


def _makes_wrong(received: Sequence[Gradient | None], returned: Sequence[Gradient | None]) -> bool:
    return any(map(words.not_finite, returned)) and not any(map(words.not_finite, received))

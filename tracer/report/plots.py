"""A trace in; a plot over its passes of each leaf that several of them change out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256

from tracer.records import Accumulate, TraceRecord, words
from tracer.render.plot import Series, leaf_series, plot

MOST_PLOTS = 6
FEWEST_PASSES = 3


@dataclass(frozen=True, slots=True)
class Plot:
    """A leaf's values and its `.grad` over passes: `svg` is a whole SVG file, `alt` tells of it.

    `digest` is of the drawing.
    """

    leaf: int
    svg: str
    alt: str
    digest: str = ""


def plot_leaves(trace: TraceRecord) -> tuple[Plot, ...]:
    """Plot each leaf that `FEWEST_PASSES` passes or more add to, the first `MOST_PLOTS` of them."""
    counts = Counter(
        event.leaf
        for event in trace.events.select(kinds=(Accumulate.kind,))
        if isinstance(event, Accumulate) and event.leaf in trace.leaves
    )
    leaves = [leaf for leaf, count in counts.items() if count >= FEWEST_PASSES]
    return tuple(_plot(trace, leaf) for leaf in leaves[:MOST_PLOTS])


def _plot(trace: TraceRecord, leaf: int) -> Plot:
    series = [_from_first_pass(trace, one) for one in leaf_series(trace, leaf)]
    svg = plot(series)
    alt = ". ".join(_describe(one) for one in series)
    return Plot(leaf, svg, alt, sha256(svg.encode()).hexdigest())


def _from_first_pass(trace: TraceRecord, series: Series) -> Series:
    """Leave out what was before the first pass of a part of a trace: it is not the part's own."""
    first = trace.passes[0].id
    points = zip(series.passes, series.values, strict=True)
    kept = [(number, value) for number, value in points if number >= first or first == 1]
    return Series(series.name, tuple(n for n, _ in kept), tuple(value for _, value in kept))


def _describe(series: Series) -> str:
    return (
        f"{series.name} goes from {words.number(series.values[0])} at pass {series.passes[0]} "
        f"to {words.number(series.values[-1])} at pass {series.passes[-1]}"
    )

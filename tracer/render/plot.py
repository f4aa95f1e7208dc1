"""What a leaf held and received over passes in, a small SVG plot or a line of text out."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tracer.errors import NotInTraceError
from tracer.records import words
from tracer.records.events import Accumulate, DataWrite
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.render import theme

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 300, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 10, 26, 26, 20


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over passes: a name, and a value at each pass that has one."""

    name: str
    passes: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(slots=True)
class _Points:
    passes: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, pass_id: int, value: float | None) -> None:
        if value is not None and self.passes[-1:] != [pass_id]:
            self.passes.append(pass_id)
            self.values.append(value)


def leaf_series(trace: TraceRecord, leaf_id: int) -> tuple[Series, ...]:
    """A leaf's value after each pass and its `.grad`; norms where it has many elements.

    Raises `NotInTraceError` for a leaf that the trace does not hold.
    """
    leaf = trace.leaves.get(leaf_id)
    if leaf is None:
        raise NotInTraceError(
            f"no leaf {leaf_id} in this trace: it has {words.count(len(trace.leaves), 'leaf')}"
        )
    name = leaf.name or "leaf"
    value, grad, last = _Points(), _Points(), 0
    norms = leaf.meta.numel != 1
    value.add(0, _height(leaf.value, norms))
    for event in trace.events.select(kinds=(Accumulate.kind, DataWrite.kind)):
        if isinstance(event, Accumulate) and event.leaf == leaf_id and event.pass_id is not None:
            last = event.pass_id
            grad.add(last, _height(event.after, norms))
        elif isinstance(event, DataWrite) and event.leaf == leaf_id:
            value.add(last, _height(event.after, norms))
    names = (f"‖{name}‖", f"‖{name}.grad‖") if norms else (name, f"{name}.grad")
    made = (
        Series(label, tuple(points.passes), tuple(points.values))
        for label, points in zip(names, (value, grad), strict=True)
    )
    return tuple(series for series in made if series.values)


def _height(seen: Gradient | None, norms: bool) -> float | None:
    if seen is None:
        return None
    height = seen.norm if norms else seen.mean
    return height if height is not None and math.isfinite(height) else None


def plot_leaf(trace: TraceRecord, leaf_id: int) -> str:
    """A leaf's value and `.grad` over passes, side by side, as SVG."""
    return plot(leaf_series(trace, leaf_id))


def plot(series: Sequence[Series]) -> str:
    """Small line plots side by side, one for each series, as SVG that pages can hold."""
    width = _WIDTH * max(len(series), 1)
    panels = "".join(
        f'<g transform="translate({_WIDTH * place} 0)">{_panel(one)}</g>'
        for place, one in enumerate(series)
    )
    colors = [color for color in theme.DARK if f'"{color}"' in panels or color == theme.PAPER]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="tracer-picture" role="img" '
        f'width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" '
        'style="max-width:100%;height:auto" '
        f'font-family="{theme.FONT}" font-size="11"><style>{theme.style_sheet(colors)}</style>'
        f'<rect width="{width}" height="{_HEIGHT}" fill="{theme.PAPER}"/>{panels}</svg>\n'
    )


def _panel(series: Series) -> str:
    name = html.escape(words.one_line(series.name))
    change = f"{words.number(series.values[0])} → {words.number(series.values[-1])}"
    passes = f"pass {series.passes[0]}–{series.passes[-1]}"
    points = list(_points(series))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    end_x, end_y = points[-1]
    return (
        f"<title>{name}, {passes}: {change}</title>"
        f'<text x="{_LEFT}" y="15" font-weight="bold" fill="{theme.INK}">{name}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="15" text-anchor="end" fill="{theme.FAINT_INK}">'
        f"{change}</text>{_zero_line(series)}"
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}" fill="{theme.PALE_INK}" font-size="9">{passes}</text>'
        f'<polyline points="{path}" fill="none" stroke="{theme.FLOW_INK}" stroke-width="1.6"/>'
        f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="2.6" fill="{theme.FLOW_INK}"/>'
    )


def _zero_line(series: Series) -> str:
    low, high = _range(series)
    if not low <= 0 <= high:
        return ""
    y = _up(series, 0.0)
    return (
        f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" '
        f'stroke="{theme.CUT_LINE}" stroke-dasharray="3 3"/>'
        f'<text x="{_WIDTH - _RIGHT + 6}" y="{y + 3:.1f}" fill="{theme.FAINT_INK}" '
        'font-size="9">0</text>'
    )


def _points(series: Series) -> Iterator[tuple[float, float]]:
    first, last = series.passes[0], series.passes[-1]
    across = (last - first) or 1
    for number, value in zip(series.passes, series.values, strict=True):
        yield _LEFT + (number - first) / across * (_WIDTH - _LEFT - _RIGHT), _up(series, value)


def _up(series: Series, value: float) -> float:
    low, high = _range(series)
    return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1.0) * (_HEIGHT - _TOP - _BOTTOM)


def _range(series: Series) -> tuple[float, float]:
    """From the lowest value to the highest, and zero where it is near: gradients go there."""
    low, high = min(series.values), max(series.values)
    slack = (high - low) / 10
    return (0.0 if 0 < low <= slack else low), (0.0 if 0 > high >= -slack else high)


def sparkline(values: Sequence[float], *, columns: int = 40) -> str:
    """Values as a line of bars (`▁▂▄█`), thinned out to so many columns; `!` for a NaN or Inf."""
    if not values:
        return ""
    count = min(columns, len(values))
    shown = [values[round(i * (len(values) - 1) / max(count - 1, 1))] for i in range(count)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_bar(value, low, high) for value in shown)


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "!"
    if high == low:
        return _BARS[0]
    return _BARS[round((value - low) / (high - low) * (len(_BARS) - 1))]

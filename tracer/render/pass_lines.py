"""A trace of many passes in; a line for each, and for each stretch of equal ones, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tracer.records import words
from tracer.records.events import Dropped, Event, HookAdded, HookRemoved, Mark, Pass, Pause
from tracer.records.graph import Site
from tracer.records.passes import main_file
from tracer.records.tensors import Gradient
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns, Tone
from tracer.render.pass_facts import PassFacts, facts_of_passes
from tracer.render.stretches import Part, Repeat, fold_run, marks_in, marks_of, places_in

_FEW_LEAVES = 2
_STEPS = (1, 2, 5)


def pass_lines(trace: TraceRecord, *, width: int, color: bool, wrap: bool = False) -> Iterator[str]:
    """Tell each pass in a line; of equal ones the first, then the rest in growing stretches.

    A stretch is told once it is read, so that long runs begin to be told at once: the rounds 2,
    3–5, 6–10, 11–20 of what repeats, and so on.
    """
    columns = Columns(width, color, wrap=wrap)
    yield from _head(trace, columns)
    yield from _PassTeller(trace, columns, call=min(max(26, width - 104), 56)).tell()


def _head(trace: TraceRecord, columns: Columns) -> Iterator[str]:
    graphs = {record.graph for record in trace.passes}
    over = f"{words.count(len(trace.passes), 'pass')} over {words.count(len(graphs), 'graph')}"
    yield columns.dye(f"{over}; `--pass N` tells one in full, `--pass all` every one", Tone.HEADING)


@dataclass(slots=True)
class _Sum:
    """The passes at one place of a stretch, added up; `norms` are the least and the greatest.

    `like` is the pass at that place of the first round.
    """

    like: int
    first: PassFacts
    last: PassFacts
    count: int = 0
    ns: int = 0
    norms: list[float] = field(default_factory=list)
    wrong: int = 0

    def add(self, facts: PassFacts) -> None:
        self.last = facts
        self.count += 1
        self.ns += (facts.record.end_ns or facts.record.begin_ns) - facts.record.begin_ns
        if facts.norm is not None:
            norms = [*self.norms, facts.norm]
            self.norms = [min(norms), max(norms)]
        self.wrong += facts.wrong


class _PassTeller:
    """Goes through a folded run and, beside it, through the facts of its passes."""

    def __init__(self, trace: TraceRecord, columns: Columns, *, call: int) -> None:
        self._trace = trace
        self._call = call
        self._columns = columns
        self._main_file = main_file(trace)
        self._digits = max(2 * len(str(trace.passes[-1].id)) + 1, 4)
        self._facts = facts_of_passes(trace)
        self._marks: Iterator[Mark] = iter(())
        self._said: set[str] = set()

    def tell(self) -> Iterator[str]:
        yield self._row("pass", "call", "line", "each", "gradient", Tone.FAINT)
        marks = marks_of(self._trace)
        self._marks = iter(marks)
        for part in fold_run(self._trace.passes, marks):
            yield from self._part(part)
        for found in self._facts:
            if isinstance(found, Event):
                yield from self._between(found)

    # ---- parts of the run

    def _part(self, part: Part) -> Iterator[str]:
        if isinstance(part, Repeat):
            yield from self._repeat(part)
        elif isinstance(part.item, Mark):
            yield self._heading(next(self._marks).text)
        else:
            yield from self._once()

    def _once(self) -> Iterator[str]:
        for found in self._facts:
            if isinstance(found, PassFacts):
                yield self._line(found)
                return
            yield from self._between(found)

    def _repeat(self, repeat: Repeat) -> Iterator[str]:
        """Tell the first round in full, and the others in stretches of growing length."""
        for part in repeat.parts:
            yield from self._part(part)
        places = list(places_in(repeat.parts))
        marks = sum(map(marks_in, repeat.parts))
        done = 1
        for end in _growing(repeat.times):
            rounds = end - done
            texts = [mark.text for mark in islice(self._marks, rounds * marks)]
            if texts:
                yield self._heading(texts[0] if rounds == 1 else f"{texts[0]} … {texts[-1]}")
            yield from self._stretch(places, rounds * len(places))
            done = end

    def _stretch(self, places: Sequence[int], passes: int) -> Iterator[str]:
        sums: dict[int, _Sum] = {}
        for number in range(passes):
            for found in self._facts:
                if isinstance(found, PassFacts):
                    like = places[number % len(places)]
                    sums.setdefault(like, _Sum(like, found, found)).add(found)
                    break
                between = list(self._between(found))
                if between:
                    yield from self._sums(sums)
                    yield from between
        yield from self._sums(sums)

    def _sums(self, sums: dict[int, _Sum]) -> Iterator[str]:
        for found in sums.values():
            yield self._line(found.last) if found.count == 1 else self._sum_line(found)
        sums.clear()

    # ---- lines

    def _row(self, number: str, call: str, place: str, each: str, text: str, tone: Tone) -> str:
        number = " " * (self._digits - words.width(number)) + number
        call = words.padded(words.shorten(call, self._call), self._call)
        start = f"{number}  {call} {words.padded(place, 6)} {each:>9}"
        return self._columns.line(start, text, tone)

    def _heading(self, text: str) -> str:
        return self._columns.dye(f"── {words.one_line(text)} ──", Tone.HEADING)

    def _line(self, facts: PassFacts) -> str:
        record = facts.record
        site = record.site
        call = site.text if site is not None and site.text else f"{record.kind}()"
        grads, values = _grads(self._trace, facts), _values(self._trace, facts)
        parts = [words.padded(grads, 34) if values else grads, values]
        if not record.outcome.ok:
            parts.insert(0, f"raised {record.outcome.error}")
        text = "  ".join(part for part in parts if part)
        tone = Tone.WRONG if facts.wrong or not record.outcome.ok else Tone.PLAIN
        return self._row(str(record.id), call, self._place(site), _time(record), text, tone)

    def _sum_line(self, found: _Sum) -> str:
        first, last = found.first.record, found.last.record
        parts = [f"‖g‖ {_range(found.norms)}"] if found.norms else []
        if found.wrong:
            parts.append(f"NaN or Inf in {words.count(found.wrong, 'pass')}")
        if not last.outcome.ok:
            parts.append(f"raised {last.outcome.error}")
        changes = _changes(self._trace, found)
        if changes:
            parts = [words.padded("  ".join(parts), 34), changes]
        tone = Tone.WRONG if found.wrong or not last.outcome.ok else Tone.PLAIN
        call = f"{words.count(found.count, 'pass')} like pass {found.like}"
        return self._row(
            f"{first.id}–{last.id}", call, self._place(last.site),
            words.duration(found.ns // found.count), "  ".join(parts), tone,
        )  # fmt: skip

    def _place(self, site: Site | None) -> str:
        return self._columns.place(site, self._main_file)

    def _between(self, event: Event) -> Iterator[str]:
        """What happened between passes, told when it is first of its kind."""
        text, tone = "", Tone.PLAIN
        if isinstance(event, (HookAdded, HookRemoved)):
            done = "added" if isinstance(event, HookAdded) else "removed"
            place = f" ({words.place(event.site, beside='')})" if event.site is not None else ""
            text, tone = f"hook {done}: {event.hook.text} on {event.hook.subject}{place}", Tone.HOOK
        elif isinstance(event, Pause):
            place = f" ({words.place(event.site, beside='')})" if event.site is not None else ""
            text = (
                f"{'recorded again' if event.resumed else 'nothing is recorded'} from here{place}"
            )
            tone = Tone.WRONG
        elif isinstance(event, Dropped):
            text, tone = f"not recorded: {event.count:,} {event.reason}", Tone.WRONG
        if text not in self._said:
            self._said.add(text)
            yield self._columns.dye(f"{' ' * self._digits}  {words.one_line(text)}", tone)


def _growing(times: int) -> Iterator[int]:
    """The rounds at which a stretch ends: 5, 10, 20, 50, 100, … and the last."""
    step = 2
    while (end := _STEPS[step % 3] * 10 ** (step // 3)) < times:
        yield end
        step += 1
    yield times


def _time(record: Pass) -> str:
    return (
        words.duration(record.end_ns - record.begin_ns) if record.end_ns is not None else "no end"
    )


def _range(ends: Sequence[float]) -> str:
    low, high = map(words.number, ends)
    return low if low == high else f"{low} … {high}"


def _grads(trace: TraceRecord, told: PassFacts) -> str:
    if len(told.grads) <= _FEW_LEAVES:
        return "   ".join(
            f"{_name(trace, leaf)}.grad "
            f"{words.accumulation(first.before, first.incoming, last.after)}"
            for leaf, (first, last) in told.grads.items()
        )
    norm = words.number(told.norm or 0.0)
    return f"{words.count(len(told.grads), 'leaf')} receive ‖g‖={norm} in all"


def _values(trace: TraceRecord, told: PassFacts) -> str:
    if not told.values or len(told.values) > _FEW_LEAVES:
        return f"{words.count(len(told.values), 'leaf')} written" if told.values else ""
    return _written(trace, told.values)


def _changes(trace: TraceRecord, found: _Sum) -> str:
    """What became of few leaves from the first pass of a stretch to the last."""
    last = found.last.values
    if not last or len(last) > _FEW_LEAVES:
        return ""
    first = {leaf: (before, None) for leaf, (before, _after) in found.first.values.items()}
    return _written(
        trace, {leaf: (first.get(leaf, ends)[0], ends[1]) for leaf, ends in last.items()}
    )


def _written(
    trace: TraceRecord, values: Mapping[int, tuple[Gradient | None, Gradient | None]]
) -> str:
    return "   ".join(
        f"{_name(trace, leaf)} {words.change(before, after, norm='‖x‖')}"
        for leaf, (before, after) in values.items()
    )


def _name(trace: TraceRecord, leaf_id: int) -> str:
    leaf = trace.leaves.get(leaf_id)
    return leaf.name if leaf is not None and leaf.name else "a leaf"

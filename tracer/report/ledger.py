"""A trace in; for each leaf every write to its `.grad` and to its values, in words, out."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from tracer.records import Accumulate, DataWrite, GradWrite, Leaf, TraceRecord, words
from tracer.records.passes import find_pass
from tracer.report.sources import main_file

MOST_LEAVES = 24
MOST_ROWS = 12
_KINDS = (Accumulate.kind, GradWrite.kind, DataWrite.kind)

Write = Accumulate | GradWrite | DataWrite


@dataclass(frozen=True, slots=True)
class Entry:
    """One write: `subject` is what was written (`b.grad` or `b`), `how` by what."""

    subject: str
    how: str
    change: str
    place: str
    pass_id: int | None = None


@dataclass(frozen=True, slots=True)
class LeafLedger:
    """What happened to one leaf: the first entries and the last, and how many lie between."""

    leaf: Leaf
    summary: str
    first: tuple[Entry, ...]
    skipped: int
    last: tuple[Entry, ...]

    @property
    def tensor(self) -> str:
        """What the leaf is: its shape, dtype and device."""
        return words.meta(self.leaf.meta)

    @property
    def latest(self) -> str:
        """The last change of all: `.grad None → 2`, or `1 → 20.8` of the leaf's own values."""
        entry = (*self.first, *self.last)[-1]
        return f"{entry.subject.removeprefix(self.leaf.name)} {entry.change}".strip()


@dataclass(slots=True)
class _Writes:
    """The writes to one leaf as they are met: how many of each kind, the first and the last."""

    kinds: Counter[str] = field(default_factory=Counter)
    first: list[Write] = field(default_factory=list)
    last: deque[Write] = field(default_factory=lambda: deque(maxlen=MOST_ROWS // 2))

    def add(self, event: Write) -> None:
        self.kinds[_what(event)] += 1
        if len(self.first) < MOST_ROWS // 2:
            self.first.append(event)
        else:
            self.last.append(event)


def read_ledgers(trace: TraceRecord) -> tuple[LeafLedger, ...]:
    """Read the ledger of each leaf that was written to, the first `MOST_LEAVES` of them."""
    written: dict[int, _Writes] = {}
    for event in trace.events.select(kinds=_KINDS):
        if isinstance(event, (Accumulate, GradWrite, DataWrite)) and event.leaf in trace.leaves:
            written.setdefault(event.leaf, _Writes()).add(event)
    shown = list(written.items())[:MOST_LEAVES]
    main = main_file(trace)
    return tuple(_ledger(trace, number, writes, main) for number, writes in shown)


def _ledger(trace: TraceRecord, number: int, writes: _Writes, main: str) -> LeafLedger:
    leaf = trace.leaves[number]
    entries = [_entry(trace, event, main) for event in (*writes.first, *writes.last)]
    border = len(writes.first)
    return LeafLedger(
        leaf,
        summary=", ".join(f"{what} {_times(count)}" for what, count in writes.kinds.items()),
        first=tuple(entries[:border]),
        skipped=writes.kinds.total() - len(entries),
        last=tuple(entries[border:]),
    )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _what(event: Write) -> str:
    if isinstance(event, Accumulate):
        return ".grad accumulated"
    if isinstance(event, DataWrite):
        return "values written"
    if event.after is None:
        return ".grad set to None"
    return ".grad zeroed" if words.is_zero(event.after) else ".grad written"


def _entry(trace: TraceRecord, event: Write, main: str) -> Entry:
    name = trace.leaves[event.leaf].name
    if isinstance(event, Accumulate):
        change = words.accumulation(event.before, event.incoming, event.after)
        ran = find_pass(trace, event.pass_id or 0)
        place = words.place(ran.site, beside=main)
        return Entry(f"{name}.grad", "accumulated", change, place, ran.id)
    subject = f"{name}.grad" if isinstance(event, GradWrite) else name
    place = words.place(event.site, beside=main)
    change = words.change(event.before, event.after)
    return Entry(subject, words.writer(event.how, event.site), change, place, event.pass_id)

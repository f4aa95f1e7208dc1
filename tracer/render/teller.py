"""Events in, in order; the lines of a timeline out, each pass under a heading of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tracer.records import words
from tracer.records.events import Event, Forward, Mark, PassBegin, PassEnd
from tracer.records.graph import Site
from tracer.records.told import Told
from tracer.records.trace import TraceRecord
from tracer.render.columns import Columns, Tone
from tracer.render.graph_words import GraphWords, NodeCells
from tracer.render.running import Running, accumulate_words
from tracer.render.sayings import UNKNOWN_NODE, Said, Sayings, call_of, ran_in

_PLAIN, _GRAD, _WRONG = Tone.PLAIN, Tone.GRAD, Tone.WRONG
_MERGED = (Forward.kind, "cut")
_MOST_KEPT = 4096


@dataclass(slots=True)
class _Held:
    """A line held back to see how often it comes in a row."""

    t_ns: int
    pass_id: int
    said: Said
    times: int = 1


class Teller:
    """Turns events into lines, knowing which passes are running; a `Listener`."""

    def __init__(self, trace: TraceRecord, columns: Columns) -> None:
        self._columns = columns
        self._sayings = Sayings(trace)
        self._running = self._sayings.running
        self._section: object = "nothing"
        self._held: _Held | None = None
        self._lines: list[str] = []
        self._operations: dict[int, tuple[Forward, Said]] = {}
        self._cells: NodeCells
        """Those of the pass that is told of."""
        self._laid_out: WeakKeyDictionary[GraphWords, NodeCells] = WeakKeyDictionary()

    def take(self) -> list[str]:
        """The lines that were completed since they were last taken: equal operations in a row are
        one line."""
        lines, self._lines = self._lines, []
        return lines

    def finish(self) -> None:
        """Complete the line that is held back."""
        held, self._held = self._held, None
        if held is not None:
            self._tell(held.t_ns, held.pass_id, held.said, held.times)

    # ---- what happened

    def event(self, event: Event) -> None:
        """Tell of an event."""
        said = self._sayings.say(event)
        if said.event in _MERGED:
            self._hold(event.t_ns, event.pass_id or 0, said)
            return
        self.finish()
        if isinstance(event, PassEnd):
            self._end(event, said)
        elif isinstance(event, Mark):
            self._lines += self._mark(event)
        elif not isinstance(event, PassBegin):
            self._tell(event.t_ns, event.pass_id or 0, said)

    def forward(self, t_ns: int, pass_id: int, like: Forward, module: str) -> None:
        """Tell of an operation that ran in a module, of which else the same is said as of the one
        that it is `like`."""
        known = self._operations.get(id(like))
        if known is None:
            if len(self._operations) >= _MOST_KEPT:
                self._operations.clear()
            known = self._operations[id(like)] = like, self._sayings.say(like)
        self._hold(t_ns, pass_id, ran_in(module, *known))

    def node(
        self,
        t_ns: int,
        pass_id: int,
        node: int,
        ended: bool,
        received: Sequence[Told | None],
        returned: Sequence[Told | None],
    ) -> None:
        """Tell of the run of a node."""
        running = self._running.get(pass_id)
        if running is None or not running.has(node):
            self._tell_step(t_ns, pass_id, UNKNOWN_NODE)
            return
        text, is_wrong = running.node_words(node, ended, received, returned)
        if self._held is not None or self._section != pass_id:
            self._turn_to(running)
        self._step(t_ns, running, self._cells.of(node), text, _WRONG if is_wrong else _PLAIN)

    def accumulate(
        self, t_ns: int, pass_id: int, leaf: int, node: int, entries: Sequence[Told | None]
    ) -> None:
        """Tell of a write to a leaf's `.grad`."""
        running = self._running.get(pass_id)
        before, incoming, after = entries
        tone = _WRONG if after is not None and after[2] else _GRAD
        if running is None:
            text, where = accumulate_words(before, incoming, after), self._grad_of(leaf)
            self._tell_step(t_ns, pass_id, Said("accumulate", where, None, text, tone, True))
            return
        text = running.accumulate_words(node, before, incoming, after)
        if self._held is not None or self._section != pass_id:
            self._turn_to(running)
        cells = self._columns.cells("accumulate", self._grad_of(leaf), "")
        self._step(t_ns, running, cells, text, tone)

    def write(
        self,
        t_ns: int,
        pass_id: int,
        of_grad: bool,
        leaf: int,
        how: str,
        site: Site | None,
        entries: Sequence[Told | None],
    ) -> None:
        """Tell of what user code wrote to a leaf or its `.grad`."""
        if self._held is not None:
            self.finish()
        self._tell(t_ns, pass_id, self._sayings.write(of_grad, leaf, how, site, entries))

    # ---- lines

    def _hold(self, t_ns: int, pass_id: int, said: Said) -> None:
        """Hold a line back: it may be said of what comes next too."""
        held = self._held
        if held is not None:
            is_same = held.said.where == said.where and held.said == said  # where, most differ
            if is_same and held.pass_id == pass_id:
                held.times += 1
                return
            self.finish()
        self._held = _Held(t_ns, pass_id, said)

    def _grad_of(self, leaf: int) -> str:
        return f"{self._sayings.leaf_name(leaf)}.grad"

    def _tell(self, t_ns: int, pass_id: int, said: Said, times: int = 1) -> None:
        running = self._running.get(pass_id)
        self._enter(pass_id, running)
        self._lines.append(self._row(t_ns, said, running, times))

    def _tell_step(self, t_ns: int, pass_id: int, said: Said) -> None:
        self.finish()
        running = self._running.get(pass_id)
        if running is not None:
            running.steps += 1
        self._tell(t_ns, pass_id, said)

    def _turn_to(self, running: Running) -> None:
        """Tell from here on of a pass's own."""
        self.finish()
        self._enter(running.record.id, running)

    def _step(self, t_ns: int, running: Running, cells: str, text: str, tone: Tone) -> None:
        """Tell of a step of the pass that is told of, as nearly all events are."""
        running.steps += 1
        time = _microseconds(t_ns - running.record.begin_ns)
        self._lines.append(self._columns.put(str(running.steps), time, cells, text, tone))

    def _row(self, t_ns: int, said: Said, running: Running | None, times: int = 1) -> str:
        step = ""
        if running is not None:
            time = _microseconds(t_ns - running.record.begin_ns)
            step = str(running.steps) if said.counts else ""
        else:
            time = f"{t_ns / 1e6:.3f} ms"
        place = self._columns.place(said.site, self._sayings.main_file)
        text = f"{said.text}  ×{times}" if times > 1 else said.text
        return self._columns.row(step, time, said.event, said.where, place, text, said.tone)

    # ---- sections

    def _enter(self, pass_id: int, running: Running | None) -> None:
        """Head the lines of a pass, or set those between passes apart."""
        section = pass_id if running is not None else None
        if section == self._section:
            return
        self._lines += [""] if self._section != "nothing" else []
        self._section = section
        if running is not None:
            self._lines += self._head(running)
            self._cells = self._cells_of(running)
            running.headed = True

    def _mark(self, mark: Mark) -> Iterator[str]:
        """Set what comes after a mark apart, under a heading."""
        if self._section != "nothing":
            yield ""
        self._section = "nothing"
        place = self._columns.place(mark.site, self._sayings.main_file)
        when = words.duration(mark.t_ns) if self._columns.times else ""
        facts = " · ".join(filter(None, (place, when)))
        yield self._columns.rule(mark.text, facts)

    def _cells_of(self, running: Running) -> NodeCells:
        cells = self._laid_out.get(running.said)
        if cells is None:
            cells = NodeCells(running.said, self._columns, self._sayings.main_file)
            self._laid_out[running.said] = cells
        return cells

    def _head(self, running: Running) -> Sequence[str]:
        record, columns = running.record, self._columns
        inside = f" (inside pass {record.parent})" if record.parent is not None else ""
        again = " goes on" if running.headed else inside
        facts = [words.file_line(record.site)] if record.site is not None else []
        facts += [f"thread {record.thread}"] if record.thread else []
        if record.end_ns is not None:
            facts.append(words.counts(record.node_count, record.leaf_count))
            took = record.end_ns - record.begin_ns
            facts += [words.duration(took)] * (took > 0)
        call = words.shorten(call_of(record), columns.call)
        heading = columns.heading(f"pass {record.id}{again}  {call}", " · ".join(facts))
        return heading, columns.header()

    def _end(self, event: PassEnd, said: Said) -> None:
        running = self._running.get(event.pass_id or 0)
        if running is None:
            return
        if not running.headed:
            self._enter(running.record.id, running)
        if not running.record.outcome.ok:
            self._lines.append(self._row(event.t_ns, said, running))
        self._sayings.forget(event.pass_id)


def _microseconds(ns: int) -> str:
    """`3.2`, `12`, `151,983`: tenths only where they say something."""
    return f"{ns / 1e3:,.0f}" if ns >= 1e8 else f"{ns / 1e3:,.1f}".removesuffix(".0")

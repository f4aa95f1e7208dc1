"""What library users call: record a region, load a trace, draw it, read it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from tracer.errors import NotInTraceError, OptionError, TracerError
from tracer.records.events import Pass
from tracer.records.graph import Graph
from tracer.records.limits import ALL_THERE_IS, Limits, limits
from tracer.records.passes import find_pass
from tracer.records.picking import Selection
from tracer.records.tensors import Gradient
from tracer.records.trace import Run, TraceRecord
from tracer.records.view import View

if TYPE_CHECKING:
    from graphviz import Digraph
    from rich.console import Group

    from tracer.capture.session import Session
    from tracer.render.picture import Picture
    from tracer.render.table import Summary
    from tracer.report.pictures import PassPicture
    from tracer.store.live import LiveWriter
    from tracer.store.writer import TraceWriter

_FORMS = {
    "jsonl": ("tracer.render.json_lines", "timeline_jsonl"),
    "csv": ("tracer.render.csv_rows", "timeline_csv"),
    "chrome": ("tracer.render.chrome", "timeline_chrome"),
}

P = ParamSpec("P")
R = TypeVar("R")


class Trace:
    """A recording: while it lasts a context manager, afterwards what was recorded.

    Made by `trace` (to record) and `load` (to read a file). Everything shown is taken from
    `record`, a plain `TraceRecord`.
    """

    def __init__(
        self, record: TraceRecord | None = None, *, recording: Recording | None = None
    ) -> None:
        self._record = record
        self._recording = recording

    def __enter__(self) -> Trace:
        if self._recording is None:
            raise RuntimeError("a loaded trace cannot record; use tracer.trace(...)")
        self._record = None
        self._recording.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._recording is not None:
            self._recording.end("" if kind is None else f"{kind.__name__}: {error}")

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Record every call of the decorated function; the trace then holds the last call."""

        @functools.wraps(function)
        def traced(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return traced

    @property
    def record(self) -> TraceRecord:
        """The recording as plain records; while it still runs, what has been recorded so far."""
        if self._record is not None:
            return self._record
        if self._recording is None:
            return TraceRecord()
        record = self._recording.read()
        if not self._recording.running:
            self._record = record
        return record

    @property
    def passes(self) -> Sequence[Pass]:
        """The backward passes, in the order they began."""
        return self.record.passes

    @property
    def graph(self) -> Graph:
        """The graph of the last pass. Raises NotInTraceError where nothing ran backward."""
        return self.record.graphs[self.find_pass(None).graph]

    def find_pass(self, pass_id: int | None) -> Pass:
        """The pass of that number, or the last one. Raises NotInTraceError where there is none."""
        passes = self.passes
        if not passes:
            raise NotInTraceError("no backward pass was recorded, so there is nothing to draw.")
        return passes[-1] if pass_id is None else find_pass(self.record, pass_id)

    def gradients(
        self, name: str = "", *, pass_id: int | None = None
    ) -> dict[str, Gradient | None]:
        """What tensors received in one pass (the last by default), leaves or not, by their names.

        `name` is a variable (`h`, `h[t=3]`), a module's path (`encoder.layers.0`), `file.py:12` or
        a node's name; without it all that have a name, in the order in which the pass ran. It is
        what `retain_grad()` would have given: None for what received nothing. Raises
        NotInTraceError where nothing is called so, or there is no such pass.
        """
        found: dict[str, Gradient | None] = import_module("tracer.transforms.gradients").gradients(
            self.record, self.find_pass(pass_id).id, name
        )
        return found

    def dot(self, view: View | None = None, *, pass_id: int | None = None, like: str = "") -> str:
        """The picture of one pass (the last by default) as DOT text."""
        return self.picture("dot", view, pass_id=pass_id, like=like).data.decode()

    def draw(
        self,
        path: str | os.PathLike[str],
        view: View | None = None,
        *,
        pass_id: int | None = None,
        like: str = "",
        dpi: int | None = None,
        time_limit: float = 10.0,
    ) -> Picture | PassPicture:
        """Draw one pass (the last by default) to a file: `.svg`, `.png`, `.pdf`, `.dot` or `.mmd`.

        `view` says how much of the graph to show, which part, and how; by default all of it, folded
        to what one can read. A layout that takes longer than `time_limit` seconds is tried again,
        folded further. `like="torchviz"` gives torchviz's own picture with the values written on
        it, for a trace recorded with `torchviz=True`. Raises NotInTraceError for a pass or a name
        that is not there, RenderError where nothing on the machine can draw.
        """
        picture = self.picture(
            os.fspath(path), view, pass_id=pass_id, like=like, dpi=dpi, time_limit=time_limit
        )
        _write_whole(Path(path), picture.data)
        return picture

    def picture(
        self,
        form: str = "svg",
        view: View | None = None,
        *,
        pass_id: int | None = None,
        like: str = "",
        dpi: int | None = None,
        time_limit: float = 10.0,
    ) -> Picture | PassPicture:
        """Draw one pass in memory."""
        chosen = self.find_pass(pass_id)
        if like == "torchviz":
            dot = import_module("tracer.render.like_torchviz").torchviz_dot(self.record, chosen.id)
            draw_dot = import_module("tracer.render.picture").draw_dot
            familiar: Picture = draw_dot(dot, form, dpi=dpi, timeout_s=time_limit)
            return familiar
        drawn: PassPicture = import_module("tracer.report.pictures").draw_view(
            self.record, chosen.id, view or View(), form, dpi=dpi, time_limit_s=time_limit
        )
        return drawn

    def tree(
        self, view: View | None = None, *, pass_id: int | None = None, width: int = 100
    ) -> Group:
        """Draw one pass (the last by default) in lines of text, for `rich.print`.

        `view` is that of pictures. Raises NotInTraceError for a pass or a name that is not there.
        """
        chosen = self.find_pass(pass_id)
        diagram = import_module("tracer.transforms.diagram").diagram
        to_tree = import_module("tracer.render.tree").to_tree
        drawn: Group = to_tree(diagram(self.record, chosen.id, view or View()), width=width)
        return drawn

    def timeline_lines(
        self,
        selection: Selection | None = None,
        *,
        form: str = "text",
        color: bool = False,
        width: int = 120,
        wrap: bool = False,
    ) -> Iterator[str]:
        """The events as lines, in the engine's order, of all passes or of what is selected.

        `form` is `text`; `jsonl`, an object a line; `csv`, a row for each tensor of each event; or
        `chrome`, for Perfetto. As text, a long trace is told pass by pass unless something is
        selected, and `wrap` keeps lines within `width`. Raises NotInTraceError for a missing pass
        or mark, OptionError for another form.
        """
        if form == "text":
            tell = import_module("tracer.render.timeline").timeline_text
            return iter(tell(self.record, selection=selection, color=color, width=width, wrap=wrap))
        if form not in _FORMS:
            raise OptionError(
                f"no timeline is called {form!r}: there are text, {', '.join(_FORMS)}"
            )
        module, function = _FORMS[form]
        return iter(getattr(import_module(module), function)(self.record, selection=selection))

    def timeline(self, selection: Selection | None = None, *, pass_id: int | None = None) -> str:
        """The events as text, in the engine's order, of all passes or of what is selected.

        >>> trace.timeline(pass_id=3)  # doctest: +SKIP
        >>> trace.timeline(tracer.Selection(kinds="accumulate", names="*.weight"))  # doctest: +SKIP
        """
        if pass_id is not None:
            selection = replace(selection or Selection(), passes=pass_id)
        return "\n".join(self.timeline_lines(selection))

    def summary(self) -> Summary:
        """What the trace holds (what ran, passes, leaves, hooks, cuts), for `rich.print`."""
        page: Summary = import_module("tracer.render.table").summary(self.record)
        return page

    def _repr_svg_(self) -> str | None:
        """The picture of the last pass, for a notebook."""
        return self.picture("svg").data.decode() if self.passes else None

    def __repr__(self) -> str:
        record = self.record
        count = len(record.passes)
        what = "pass" if count == 1 else "passes"
        return f"<Trace of {record.run.script or 'this process'}: {count} {what}>"


class Recording:
    """A recording that runs in this process: the watchers, and the file they write to.

    `script` and `argv` say what runs, where that is not what Python was started with.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        *,
        limits: Limits = ALL_THERE_IS,
        follow: Selection | None = None,
        follow_to: str | os.PathLike[str] | None = None,
        torchviz: bool = False,
        library_frames: bool = False,
        script: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        self._file = file
        self._follow = follow
        self._follow_to = follow_to
        self._limits = limits
        self._torchviz = torchviz
        self._library_frames = library_frames
        self._script = script
        self._argv = argv
        self._session: Session | None = None
        self._writer: TraceWriter | None = None
        self._close_outlet: Callable[[], None] = lambda: None

    @property
    def running(self) -> bool:
        """Whether the watchers are in place."""
        return self._session is not None

    def begin(self) -> None:
        """Open the file and put the watchers in place."""
        session_module = import_module("tracer.capture.session")
        likeness = (
            import_module("tracer.capture.likeness").draw_likeness if self._torchviz else None
        )
        run = import_module("tracer.capture.host").describe_run(self._script, self._argv)
        run = replace(run, limits=self._limits.words)
        self._writer = self._open_writer(run)
        self._session = session_module.Session(
            self._writer, limits=self._limits, draw_likeness=likeness,
            library_frames=self._library_frames,
        )  # fmt: skip
        if self._follow is not None:
            self._session.follow()
        self._session.install()

    def _open_writer(self, run: Run) -> TraceWriter:
        """Open the file; to follow what happens, with a printer of each event behind it."""
        if self._follow is None:
            writer: type[TraceWriter] = import_module("tracer.store.writer").TraceWriter
            return writer(self._file, run, limits=self._limits)
        outlet = import_module("tracer.render.outlet").open_outlet(self._follow_to)
        self._close_outlet = outlet.close
        live: type[LiveWriter] = import_module("tracer.store.live").LiveWriter
        opened = live(self._file, run, limits=self._limits, failed=outlet.failed)
        follower = import_module("tracer.render.following").Follower(
            opened.record, self._follow, outlet.write, width=outlet.width, color=outlet.color
        )
        opened.watch = follower.tell
        return opened

    def end(self, outcome: str) -> None:
        """Take the watchers away and close the file."""
        session, writer = self._session, self._writer
        self._session = None
        if session is None or writer is None:
            return
        try:
            session.uninstall()
            if session.is_mine():
                writer.close(outcome)
        except TracerError as error:  # a full disk must not become the program's failure
            session.recorder.fault(error)
        finally:
            self._close_outlet()

    def read(self) -> TraceRecord:
        """What has been recorded so far."""
        if self._writer is None:
            return TraceRecord()
        if self._session is not None:
            self._session.recorder.flush()
        reader = import_module("tracer.store.reader")
        record: TraceRecord = reader.read_writer(self._writer)
        return record


def trace(
    file: str | os.PathLike[str] | None = None,
    *,
    every: int = 1,
    only: str | Sequence[str] = (),
    last: int | None = None,
    max_bytes: int | str | None = None,
    detail: str = "statistics",
    follow: bool | Selection = False,
    follow_to: str | os.PathLike[str] | None = None,
    torchviz: bool = False,
    library_frames: bool = False,
) -> Trace:
    """Record what happens to gradients in a region: a context manager, and a decorator.

    `file` is where the trace is written as the run goes (none: a private temporary one). With
    `torchviz`, each pass's roots are given to torchviz's `make_dot` too. The line shown for what
    ran is the nearest one that the user wrote; with `library_frames`, lines of installed packages
    and of the standard library (never PyTorch's own) count as such.

    Long runs need not be recorded in full; what is left out is counted in the trace:

    - `every`: of the passes from each backward call in the program, record the first and every N-th
      after it (so generator and discriminator both are, whatever N is). In between the watchers
      rest; what the passes left out did to leaves is entered as one write to each.
    - `only`: words that say what to record. `name:x2`, `name:MulBackward0`, `name:*.bias` watch the
      nodes and leaves that are called so, `module:encoder.layers.*` those made in these modules,
      and `kind:accumulate` keeps events of that kind alone. The graph is kept whole.
    - `last`: keep the last N passes; older ones are deleted from the file as it goes.
    - `max_bytes`: what the file and its log may take (`50_000_000`, `"50MB"`); the oldest passes
      make room for new ones.
    - `detail`: `"structure"` reads no tensor, `"statistics"` keeps each tensor's statistics, and
      the values of those of 16 elements or fewer, `"values"` those of up to 1,000 elements
      (`"values:50"`: of up to 50).

    With `follow`, each event is printed as it happens, a line each, on standard error or in the
    file `follow_to`: all events, or those of a `tracer.Selection(kinds=…, names=…, modules=…)`.
    The last line before a crash or a hang is the event before it. That costs much more time than
    recording alone.

    Raises OptionError for a value that is none of these; on entry RuntimeError when another trace
    is being recorded in this process, TraceFileError when the file cannot be written.
    """
    asked = limits(every=every, only=only, last=last, max_bytes=max_bytes, detail=detail)
    if follow_to is not None and follow is False:
        follow = True
    recording = Recording(
        file, limits=asked, follow=Selection() if follow is True else follow or None,
        follow_to=follow_to, torchviz=torchviz, library_frames=library_frames,
    )  # fmt: skip
    return Trace(recording=recording)


def load(file: str | os.PathLike[str]) -> Trace:
    """Open a trace file. Raises TraceFileError where it is missing, damaged, or not a trace."""
    return Trace(import_module("tracer.store.reader").read_trace(file))


def make_dot(
    var: object,
    params: Mapping[str, object] | Iterable[tuple[str, object]] | None = None,
    show_attrs: bool = False,
    show_saved: bool = False,
    max_attr_chars: int = 50,
) -> Digraph:
    """Draw the graph behind a tensor as torchviz's `make_dot` does: no trace is needed.

    Functions are grey, leaves that require grad blue (with their names in `params`), outputs green,
    the bases of views dark green, and what is kept for backward orange: always for custom
    functions, for others with `show_saved`. `show_attrs` writes the attributes of each function,
    up to `max_attr_chars` characters.

    `var` may be any nesting of lists, tuples, dicts and dataclasses of tensors. Graphs of any depth
    are drawn, also after `backward()`: what that has freed is said to be. The result shows itself
    in a notebook and renders without `dot` on PATH too. Raises TypeError where there is no tensor.
    """
    reading = import_module("tracer.capture.tensor_graph")
    shown = reading.Shown(show_attrs, show_saved, max_attr_chars)
    graph = reading.read_tensor_graph(var, dict(params or {}), shown)
    drawn: Digraph = import_module("tracer.render.make_dot").to_digraph(graph)
    return drawn


def walk(*tensors: object) -> Graph:
    """Read the graph behind live tensors as a plain record: no trace is needed.

    `tensors` may be nested in lists, tuples and dictionaries. `walk(y).leaves` are the leaves that
    the gradient of `y` goes to, `walk(y).edges_from[0]` where it goes first; nodes are numbered
    from the roots on. Leaves are named as the caller's variables reach them, and nodes by the
    variables that hold what they made. Nothing is run, and nothing of the tensors is kept.

    While a trace is recorded, lines, operations and modules are known too. Raises TypeError where
    there is no tensor, ValueError where none of them requires grad.
    """
    graph: Graph = import_module("tracer.capture.live").walk_graph(tensors)
    return graph


def recording_process(file: str | os.PathLike[str]) -> int | None:
    """The number of the process, still running on this machine, that records to a file; or None."""
    found: int | None = import_module("tracer.store.files").recording_process(Path(file))
    return found


def mark(text: str) -> None:
    """Put a mark (`"epoch 3"`) in the running trace; does nothing where none is being recorded."""
    session = _active()
    if session is not None:
        session.mark(text)


def pause() -> None:
    """Record nothing until `resume`."""
    session = _active()
    if session is not None:
        session.pause()


def resume() -> None:
    """Record again after `pause`."""
    session = _active()
    if session is not None:
        session.resume()


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that at no moment there is a part of it under its name."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _active() -> Session | None:
    module = sys.modules.get("tracer.capture.session")
    return module.Session.active if module is not None else None

"""The code, the schema and the benchmarks' figures in; the pages of reference as Markdown out.

python docs/generated/pages.py build/reference
"""

from __future__ import annotations

import inspect
import json
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click

import tracer
from tracer.cli.program import tracer as command_line
from tracer.records.events import EVENT_KINDS, Dropped, Event
from tracer.records.trace import TraceRecord
from tracer.render.plain import plain_event
from tracer.store.schema import APPLICATION_ID, DDL, FRAMES, SCHEMA_VERSION

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WIDTH = 88


# ---- what is recorded


def recorded() -> str:
    """Return the page about the kinds of event, each with the first one of a real recording."""
    with tempfile.TemporaryDirectory() as folder:
        whole = record_every_kind(Path(folder, "every.trace"))
        last = record_every_kind(Path(folder, "last.trace"), every=2)
        found = {**first_of_each_kind(last), **first_of_each_kind(whole)}
    missing = [kind.kind for kind in EVENT_KINDS if kind.kind not in found]
    if missing:
        raise SystemExit(f"docs/generated/every_kind.py gives no event of kind {missing[0]!r}")
    program = (HERE / "every_kind.py").read_text("utf-8").partition('"""\n\n')[2]
    parts = [
        "# What is recorded",
        "A recording is a list of events in the order in which they happened, beside the graphs, "
        "passes and leaves that they refer to. These are all the kinds of event that there are, "
        "each with its fields and one real example: the first that this program gave.",
        f"```py3\n{program.replace('  # noqa: B018', '').strip()}\n```",
        "Of a tensor, an event holds shape, dtype, device, L2 norm, minimum, maximum, mean, how "
        "many elements are zero, NaN or infinite, and the values themselves where there are 16 or "
        "fewer (`detail=` changes that). `seq` is the place in the order, `t_ns` nanoseconds since "
        "the recording began, `pass` the number of the backward pass that it belongs to.",
        "Of a tensor on a GPU it is the same, read after the pass so that nothing waits; what has "
        "been tried there, and what has not, is among the [limits](limits.md).",
        *(about_kind(kind, *found[kind.kind]) for kind in EVENT_KINDS),
    ]
    return joined(parts)


def record_every_kind(file: Path, **limits: Any) -> tracer.Trace:
    """Run the program under tracing."""
    with warnings.catch_warnings(), tracer.trace(file, **limits) as trace:
        warnings.simplefilter("ignore")  # PyTorch's own, at the read of a `.grad` that is None
        runpy.run_path(str(HERE / "every_kind.py"))
    return trace


def first_of_each_kind(trace: tracer.Trace) -> dict[str, tuple[Event, TraceRecord]]:
    """Return the first event of each kind, and what it refers to."""
    found: dict[str, tuple[Event, TraceRecord]] = {}
    for event in trace.record.events:
        found.setdefault(event.kind, (event, trace.record))
    for reason, count in trace.record.dropped.items():
        left_out = Dropped(seq=0, count=count, reason=reason)
        found.setdefault(Dropped.kind, (left_out, trace.record))
    return found


def about_kind(kind: type[Event], event: Event, record: TraceRecord) -> str:
    """Return the section about one kind of event."""
    own = [field.name for field in fields(kind) if field.name not in _COMMON]
    text = " ".join((kind.__doc__ or "").split())
    named = ", ".join(f"`{name}`" for name in own)
    graphs = {one.id: one.graph for one in record.passes}
    example = without_folder(plain_event(event, record, graphs))
    lines = [f"  {json.dumps(key)}: {as_json(value)}" for key, value in example.items()]
    shown = ",\n".join(lines)
    told = f"Fields: {named}.\n\n" if own else ""
    return f"## `{kind.kind}`\n\n{text}\n\n{told}```json\n{{\n{shown}\n}}\n```"


def as_json(value: Any) -> str:
    """Return JSON on one line, or on several where that would be long."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= WIDTH:
        return line
    return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")


_COMMON = ("seq", "t_ns", "thread", "pass_id")


def without_folder(value: Any) -> Any:
    """Return a value with the program named by its file alone, and every time 0."""
    if isinstance(value, dict):
        return {
            key: 0 if key in ("t_ns", "end_ns") and part else without_folder(part)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_folder(part) for part in value]
    return value.replace(f"{HERE}/", "") if isinstance(value, str) else value


# ---- file format


def file_format() -> str:
    """Return the page about trace files, which is the schema's own text."""
    return joined([
        "# File format",
        f"A trace is one SQLite file, so anything that reads SQLite reads it. This is version "
        f"{SCHEMA_VERSION}, as `PRAGMA user_version` says; `PRAGMA application_id` is "
        f"`{APPLICATION_ID:#x}`. Opening a trace runs nothing that is in it: there is no pickle, "
        "and every column is read as the type that it is declared to have.",
        "## Tables",
        f"```sql\n{DDL.strip()}\n```",
        "## Events",
        "Events are packed into the rows of `chunk`, many to a row.",
        f"```text\n{FRAMES.strip()}\n```",
    ])  # fmt: skip


# ---- command line


def command_line_reference() -> str:
    """Return the page about commands: what `--help` says of each."""
    context = click.Context(command_line, info_name="tracer", max_content_width=WIDTH)
    parts = [
        "# Command line",
        "What each command says with `--help`.",
        *(about_command(command, inner) for command, inner in commands(command_line, context)),
    ]
    return joined(parts)


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and those in it."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from commands(inner, click.Context(inner, parent=context, info_name=name))


def about_command(command: click.Command, context: click.Context) -> str:
    """Return the section about one command."""
    context.terminal_width = WIDTH
    return f"## `{context.command_path}`\n\n```text\n{command.get_help(context).strip()}\n```"


# ---- Python


def python_api() -> str:
    """Return the page about what `import tracer` gives: signatures and docstrings."""
    parts = [
        "# Python",
        "What `import tracer` gives. All of it is typed; importing it imports neither PyTorch nor "
        "Graphviz before they are needed.",
        *(about_name(name, getattr(tracer, name)) for name in in_order(tracer.__all__)),
    ]
    return joined(parts)


def in_order(names: Sequence[str]) -> list[str]:
    """Return names with functions first, as one meets them, then classes."""
    first = ["trace", "load", "mark", "pause", "resume", "walk", "make_dot", "Trace"]
    rest = [name for name in names if name not in first]
    return [*(name for name in first if name in names), *rest]


def about_name(name: str, thing: Any) -> str:
    """Return the section about a function or a class, with the class's own members."""
    own = f"## `tracer.{name}`\n\n{about(name, thing)}"
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return own
    return "\n\n".join([own, *(about_member(name, *one) for one in members(thing))])


def about(name: str, thing: Any) -> str:
    """Return signature and docstring."""
    if inspect.isclass(thing) and not is_dataclass(thing):
        return docstring(thing)
    return f"```text\n{signature(name, thing)}\n```\n\n{docstring(thing)}"


def members(thing: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class that have a docstring."""
    for name, member in vars(thing).items():
        documented = inspect.getdoc(member) and not name.startswith("_")
        if documented and (inspect.isfunction(member) or isinstance(member, property)):
            yield name, member


def about_member(owner: str, name: str, member: Any) -> str:
    """Return the section about a method or property."""
    if isinstance(member, property):
        return f"### `{owner}.{name}`\n\n{docstring(member)}"
    return f"### `{owner}.{name}()`\n\n{about(name, member)}"


def signature(name: str, thing: Any) -> str:
    """Return a call as it would be written, a parameter a line where it is long."""
    call = inspect.signature(thing)
    shown: list[str] = []
    for one in call.parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        if one.name != "self":
            shown.append(parameter(one))
    arrow = "" if call.return_annotation is call.empty else f" -> {plain(call.return_annotation)}"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in shown), f"){arrow}"])


def parameter(one: inspect.Parameter) -> str:
    """Return a parameter with its type and default."""
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    kind = "" if one.annotation is one.empty else f": {plain(one.annotation)}"
    return f"{star}{one.name}{kind}" + ("" if one.default is one.empty else f" = {one.default!r}")


def plain(annotation: Any) -> str:
    """Return a type as it is written."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def docstring(thing: Any) -> str:
    """Return a docstring, what is typed at prompts in it as code."""
    text = (inspect.getdoc(thing) or "").replace("  # doctest: +SKIP", "")
    return re.sub(r"^(?:(?:>>>|\.\.\.) .*\n?)+", _as_code, text, flags=re.MULTILINE)


def _as_code(typed: re.Match[str]) -> str:
    return f"```text\n{typed[0].rstrip()}\n```\n"


# ---- comparison


def comparison() -> str:
    """Return the page that sets figures of several tools side by side, from `make bench`'s JSON."""
    told = json.loads((ROOT / "benchmarks" / "figures.json").read_text("utf-8"))
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["comparison"](told)
    text = (HERE / "comparison.md").read_text("utf-8").strip()
    return joined(["# How it compares", text, *tables])


# ---- all of them


PAGES: dict[str, Callable[[], str]] = {
    "recorded": recorded,
    "file_format": file_format,
    "command_line": command_line_reference,
    "python_api": python_api,
    "comparison": comparison,
}


def joined(parts: Sequence[str]) -> str:
    """Return parts as paragraphs."""
    return "\n\n".join(parts) + "\n"


def write_pages(out: Path) -> None:
    """Write every page into a folder, those that have changed."""
    out.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        file, text = out / f"{name}.md", make()
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))

"""A trace in; its source files, with the lines that the trace tells about marked, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracer.records import Site, TraceRecord

MOST_FILES = 12


@dataclass(frozen=True, slots=True)
class Listing:
    """One source file; `marked` are the lines that made a node, called backward or added a hook."""

    file: str
    text: str
    marked: frozenset[int]


def list_sources(trace: TraceRecord) -> tuple[Listing, ...]:
    """List the source files that the trace tells about, the one that ran first."""
    marked: dict[str, set[int]] = {}
    for site in _sites(trace):
        marked.setdefault(site.file, set()).add(site.line)
    main = main_file(trace)
    found = [file for file in trace.sources if file in marked]
    files = sorted(found, key=lambda file: (file != main, file))[:MOST_FILES]
    shown = _without_folder(files)
    return tuple(
        Listing(name, trace.sources[file], frozenset(marked[file]))
        for name, file in zip(shown, files, strict=True)
    )


def main_file(trace: TraceRecord) -> str:
    """Return the file that called backward first: places in it need no file name."""
    sites = (one.site for one in trace.passes if one.site is not None)
    first = next(sites, None)
    return first.file if first is not None else trace.run.script


def _without_folder(files: Sequence[str]) -> list[str]:
    """Return the files' names without the folder that all of them are in."""
    parts = [file.replace("\\", "/").split("/") for file in files]
    shared = 0
    while parts and all(len(part) > shared + 1 for part in parts):
        if len({part[shared] for part in parts}) > 1:
            break
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def _sites(trace: TraceRecord) -> Iterator[Site]:
    for graph in trace.graphs.values():
        yield from (node.site for node in graph.nodes if node.site is not None)
    yield from (one.site for one in trace.passes if one.site is not None)
    yield from (leaf.site for leaf in trace.leaves.values() if leaf.site is not None)
    for event in trace.events.select(kinds=("hook_added", "hook_removed")):
        site = getattr(event, "site", None)
        if site is not None:
            yield site

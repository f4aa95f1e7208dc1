"""A name as a user writes it in; the nodes of a graph that it means out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePath

from tracer.errors import NotInTraceError
from tracer.records import words
from tracer.records.graph import Graph, Node

_MOST_COMPARED = 5_000


def find_nodes(graph: Graph, target: int | str) -> tuple[int, ...]:
    """Find the nodes that a node id, variable, module path, `file:line` or node name means.

    The first of these that fits counts, in that order; a module's path means all nodes in it, and a
    variable of a loop (`h`) all that it was, unless it is said which (`h[t=3]`). A path may lack
    its beginning (`h.3` for `model.h.3`). The ids come in ascending order. Raises NotInTraceError,
    with the names that come close, where none fits.
    """
    text = str(target)
    if text.isdecimal() and int(text) < len(graph.nodes):
        return (int(text),)
    for matches in (_has_variable, _ends_variable, in_module, _at_line, _has_name):
        found = tuple(node.id for node in graph.nodes if matches(node, text))
        if found:
            return found
    raise no_such_name(text, (name for node in graph.nodes for name in _names(node)))


def no_such_name(text: str, names: Iterable[str]) -> NotInTraceError:
    """Make the error for a name that is not there, with those that come close to it."""
    known = [name for name in dict.fromkeys(names) if name][:_MOST_COMPARED]
    parts = text.count(".") + 1
    ends = [name if ":" in name else ".".join(name.split(".")[-parts:]) for name in known]
    close = get_close_matches(text, list(dict.fromkeys(ends)), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else _some_of(known)
    return NotInTraceError(f"nothing in this graph is called {text!r}; {hint}")


def _some_of(known: list[str]) -> str:
    if not known:
        return "its nodes have no names; give a node's id"
    return f"it has {', '.join(known[:5])}{', …' if len(known) > 5 else ''}"


def _has_variable(node: Node, text: str) -> bool:
    return text in node.variables or text in words.names_of(node)


def _ends_variable(node: Node, text: str) -> bool:
    return any(name.endswith(f".{text}") for name in node.variables)


def in_module(node: Node, text: str) -> bool:
    """Tell whether a node ran in that module, or is a parameter of it."""
    return f".{text}." in f".{module_of(node)}."


def module_of(node: Node) -> str:
    """Name the module that a node ran in, or that a parameter belongs to; else nothing."""
    if node.module is not None:
        return node.module.path
    return node.variables[0].rpartition(".")[0] if node.is_leaf and node.variables else ""


def _at_line(node: Node, text: str) -> bool:
    if node.site is None or ":" not in text:
        return False
    file, _, line = text.rpartition(":")
    return str(node.site.line) == line and _is_end_of(file, node.site.file)


def _is_end_of(file: str, path: str) -> bool:
    wanted = PurePath(file).parts
    return bool(wanted) and PurePath(path).parts[-len(wanted) :] == wanted


def _has_name(node: Node, text: str) -> bool:
    return node.name == text


def _names(node: Node) -> tuple[str, ...]:
    lines = (words.file_line(node.site),) if node.site is not None else ()
    parts = module_of(node).split(".")
    modules = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return (*words.names_of(node), *modules, *lines, node.name)

"""An instruction of code and its parsed source come in; the node that it was made for goes out.

From Python 3.11 on, code knows the position of every instruction. Python 3.10 knows lines only:
there the file is compiled once more, with each node on a line of its own.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType

from tracer.capture.source import ParsedSource, compile_tree

_LEFT_OUT = ("NOP", "EXTENDED_ARG")


def find_numbered_node(
    source: ParsedSource, code: CodeType, lasti: int, line: int
) -> ast.expr | ast.stmt | None:
    """Find the node of the instruction at byte offset `lasti`, `line` being what Python says.

    A notebook compiles each statement alone, so that is tried where the whole file does not fit.
    """
    for tree in _trees(source, code, line):
        nodes = _nodes_by_offset(tree, code)
        if nodes is not None:
            node = nodes.get(lasti)
            return node if isinstance(node, ast.expr | ast.stmt) else None
    return None


@lru_cache(maxsize=256)
def _nodes_by_offset(tree: ast.Module | ast.stmt, code: CodeType) -> dict[int, ast.AST] | None:
    """Pair the instructions of code with those of its twin, which know their nodes."""
    operations = list(_operations(code))
    numbered = _numbered(tree, code.co_flags)
    for twin in numbered.codes.get((code.co_name, code.co_firstlineno), ()):
        others = list(_operations(twin))
        if code.co_names == twin.co_names and _names(operations) == _names(others):
            nodes = numbered.nodes_of(twin)
            return {
                offset: nodes[other]
                for (offset, _), (other, _) in zip(operations, others, strict=True)
                if other in nodes
            }
    return None


class _NumberedTree:
    """The nodes of a tree in order, and what it compiles to when their lines are their numbers."""

    def __init__(self, tree: ast.Module, flags: int) -> None:
        self._nodes = list(_in_order(tree))
        lines = [(node.lineno, node.end_lineno) for node in self._nodes]
        for number, node in enumerate(self._nodes):
            node.lineno = node.end_lineno = number + 1
        try:
            compiled = compile_tree(tree, flags)
        finally:
            for node, (line, end_line) in zip(self._nodes, lines, strict=True):
                node.lineno, node.end_lineno = line, end_line
        self.codes: dict[tuple[str, int], list[CodeType]] = {}
        for code in compiled:
            is_module = code is compiled[0]
            first = 1 if is_module else self._nodes[code.co_firstlineno - 1].lineno
            self.codes.setdefault((code.co_name, first), []).append(code)

    def nodes_of(self, code: CodeType) -> dict[int, ast.AST]:
        """Read from the lines of code which node each of its instructions was made for."""
        return {
            offset: self._nodes[number - 1]
            for begin, end, number in code.co_lines()
            if number is not None
            for offset in range(begin, end, 2)
        }


@lru_cache(maxsize=64)
def _numbered(tree: ast.Module | ast.stmt, flags: int) -> _NumberedTree:
    if isinstance(tree, ast.stmt):
        tree = ast.Module(body=[tree], type_ignores=[])
    return _NumberedTree(tree, flags)


def _trees(source: ParsedSource, code: CodeType, line: int) -> Iterator[ast.Module | ast.stmt]:
    yield source.tree
    if code.co_name == "<module>":
        for statement in source.tree.body:
            if statement.lineno <= line <= (statement.end_lineno or 0):
                yield statement


def _in_order(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the nodes that have lines, each before those in it, as they follow in the text."""
    rest = [tree]
    while rest:
        node = rest.pop()
        if "lineno" in node._attributes:
            yield node  # type: ignore[misc]
        rest.extend(reversed(list(ast.iter_child_nodes(node))))


def _operations(code: CodeType) -> Iterator[tuple[int, str]]:
    """Yield offset and name of each instruction, but of what depends on lines alone."""
    instructions = code.co_code
    for offset in range(0, len(instructions), 2):
        name = dis.opname[instructions[offset]]
        if name not in _LEFT_OUT:
            yield offset, _alike(name)


def _names(operations: list[tuple[int, str]]) -> list[str]:
    return [name for _, name in operations]


def _alike(name: str) -> str:
    """Give jumps one name, since which is taken may depend on lines, and what is shown none."""
    if "JUMP" in name:
        return "JUMP"
    return "POP_TOP" if name == "PRINT_EXPR" else name

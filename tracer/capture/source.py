"""A code object comes in; the parsed text that it was compiled from, and no other, goes out."""

from __future__ import annotations
import __future__

import ast
import io
import linecache
import os
import re
import sys
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType, ModuleType
from typing import Any, cast

SOURCE_NAME = "<source read by tracer>"
Position = tuple[int, int]
"""A line, from 1, and a column in bytes of UTF-8, from 0: what `ast` and code objects count in."""

# The last but one is matched with the module, for which the compiler puts the file's name.
_SILENCE = ("ignore", None, Warning, re.compile(re.escape(SOURCE_NAME)), 0)
_FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
# What pytest and torch.compile leave among the names of code that they rewrite.
_REWRITERS = ("@py", "__compiled_fn", "__resume_at", "torch_dynamo_resume")
_SHARED_NAMES = ("<string>", "<stdin>", "<console>")
_LONGEST = 4_000_000


@contextmanager
def _silenced() -> Iterator[None]:
    """Parse and compile what is named `SOURCE_NAME` without warnings about the user's source.

    `warnings.catch_warnings` would make Python forget which warnings it has already shown.
    """
    filters = cast(list[Any], warnings.filters)
    filters.insert(0, _SILENCE)
    try:
        yield
    finally:
        filters.remove(_SILENCE)


class ParsedSource:
    """The text of one file and its syntax tree, searchable by position."""

    def __init__(self, text: str) -> None:
        """Parse the text; raises SyntaxError, ValueError or RecursionError where that fails."""
        self.text = text
        self.parents: dict[ast.AST, ast.AST] = {}
        self._lines = [line.encode() for line in text.split("\n")]
        self._starting: dict[Position, list[ast.expr | ast.stmt]] = {}
        self._ending: dict[Position, list[ast.expr]] = {}
        self._codes: dict[int, dict[tuple[str, int], list[CodeType]]] = {}
        with _silenced():
            self.tree = ast.parse(text, SOURCE_NAME)
        for node in ast.walk(self.tree):
            self._enter(node)

    def _enter(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.parents[child] = node
        if isinstance(node, ast.expr | ast.stmt):
            self._starting.setdefault(start_of(node), []).append(node)
        if isinstance(node, ast.Call | ast.Attribute):
            self._ending.setdefault(end_of(node), []).append(node)

    def spanning(self, start: Position, end: Position) -> list[ast.expr | ast.stmt]:
        """Find the nodes that begin and end just there, outermost first."""
        return [node for node in self._starting.get(start, ()) if end_of(node) == end]

    def ending(self, end: Position) -> list[ast.expr]:
        """Find the calls and attributes that end just there, outermost first."""
        return self._ending.get(end, [])

    def statement_of(self, node: ast.AST) -> ast.stmt | None:
        """Find the innermost statement that a node is part of."""
        seen: ast.AST | None = node
        while seen is not None and not isinstance(seen, ast.stmt):
            seen = self.parents.get(seen)
        return seen

    def statements_on(self, line: int) -> list[ast.stmt]:
        """Find the statements of which a part stands on a line; of a compound one, its head."""
        return [
            node
            for node in self.parents
            if isinstance(node, ast.stmt) and node.lineno <= line <= head_end_of(node)[0]
        ]

    def between(self, start: Position, end: Position) -> str:
        """Cut out the text from one position to another."""
        lines = self._lines[start[0] - 1 : end[0]]
        lines[-1] = lines[-1][: end[1]]
        lines[0] = lines[0][start[1] :]
        return b"\n".join(lines).decode(errors="replace")

    def text_of(self, node: ast.expr | ast.stmt) -> str:
        """Cut out the text of a node, as it stands in the file."""
        return self.between(start_of(node), end_of(node))

    def holds(self, code: CodeType) -> bool:
        """Tell whether this very text compiles to this code (or to what was rewritten to it)."""
        twins = self._compiled(code.co_flags & _FUTURE).get((code.co_name, code.co_firstlineno), ())
        if any(is_same_code(code, twin) for twin in twins):
            return True
        return any(name.startswith(_REWRITERS) for name in code.co_names + code.co_varnames)

    def _compiled(self, flags: int) -> dict[tuple[str, int], list[CodeType]]:
        if flags not in self._codes:
            codes = self._codes[flags] = {}
            for code in compile_tree(self.tree, flags):
                codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
        return self._codes[flags]


def compile_tree(tree: ast.Module, flags: int) -> list[CodeType]:
    """Compile a tree as it stands, with the flags of code; all code goes out, outermost first."""
    flags &= _FUTURE
    with _silenced():
        found = [compile(tree, SOURCE_NAME, "exec", flags=flags, dont_inherit=True)]
    for code in found:
        found.extend(const for const in code.co_consts if isinstance(const, CodeType))
    return found


def start_of(node: ast.expr | ast.stmt) -> Position:
    """The position at which a node begins."""
    return node.lineno, node.col_offset


def end_of(node: ast.expr | ast.stmt) -> Position:
    """The position just behind a node."""
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def head_end_of(node: ast.stmt) -> Position:
    """The position just behind a statement, or behind the head of one that has a body."""
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return end_of(node)
    first = body[0]
    if isinstance(first, ast.match_case):
        return first.pattern.lineno, first.pattern.col_offset
    decorators: list[ast.expr] = getattr(first, "decorator_list", [])
    return min(start_of(part) for part in (first, *decorators))


def find_source(code: CodeType) -> ParsedSource | None:
    """Find the text that this code was compiled from; None where there is none any more."""
    for text, is_sure in _texts(code):
        source = _parse(text)
        if source is not None and (is_sure or source.holds(code)):
            return source
    return None


@lru_cache(maxsize=32)
def _parse(text: str) -> ParsedSource | None:
    """Parse a text once in a process, however many traces it appears in."""
    if len(text) > _LONGEST:
        return None
    try:
        return ParsedSource(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _texts(code: CodeType) -> Iterator[tuple[str, bool]]:
    """Yield what the code's text may be, and whether it is so for sure.

    `linecache` is only looked at: asking it for a file would change what it knows.
    """
    name = code.co_filename
    entry = linecache.cache.get(name)
    if entry is not None and len(entry) > 1:
        is_of_one_cell = entry[1] is None and name not in _SHARED_NAMES
        yield _with_plain_newlines("".join(entry[2])), is_of_one_cell
    elif name.startswith("<"):
        yield _with_plain_newlines("".join(linecache.getlines(name))), name not in _SHARED_NAMES
    if name == "<string>" and "-c" in sys.orig_argv:
        yield sys.orig_argv[sys.orig_argv.index("-c") + 1], False
    for read in (_read_file, _ask_loader):
        text = read(name)
        if text is not None:
            yield _with_plain_newlines(text), False


def _read_file(name: str) -> str | None:
    """Read a file in the encoding that it declares."""
    try:
        if not os.path.isfile(name) or os.path.getsize(name) > _LONGEST:
            return None
        with open(name, "rb") as file:
            raw = file.read()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _ask_loader(name: str) -> str | None:
    """Ask the loader of the module of that file, which may have come from a zip archive."""
    for module in list(sys.modules.values()):
        if not issubclass(type(module), ModuleType):
            continue
        namespace = object.__getattribute__(module, "__dict__")
        file = namespace.get("__file__")
        if type(file) is str and file == name:
            try:
                text = namespace["__loader__"].get_source(namespace["__name__"])
            except Exception:
                return None
            return text if isinstance(text, str) else None
    return None


def _with_plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_same_code(code: CodeType, twin: CodeType, *, placed: bool = True) -> bool:
    """Compare what the compiler made of two texts.

    `placed`: where things stand counts too, and so code that is nested in it is compared by its
    place alone.
    """
    return (
        code.co_code == twin.co_code
        and (code.co_linetable == twin.co_linetable or not placed)
        and code.co_names == twin.co_names
        and code.co_varnames == twin.co_varnames
        and code.co_freevars == twin.co_freevars
        and len(code.co_consts) == len(twin.co_consts)
        and all(
            _is_same_const(const, other, placed=placed)
            for const, other in zip(code.co_consts, twin.co_consts, strict=True)
        )
    )


def _is_same_const(const: object, twin: object, *, placed: bool) -> bool:
    if isinstance(const, CodeType) and isinstance(twin, CodeType):
        if not placed:
            return is_same_code(const, twin, placed=False)
        return (const.co_name, const.co_firstlineno) == (twin.co_name, twin.co_firstlineno)
    return type(const) is type(twin) and (const == twin or repr(const) == repr(twin))
